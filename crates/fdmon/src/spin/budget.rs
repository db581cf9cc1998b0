//! ②′ The CPU budget: a token bucket that pays for spins that find nothing.

/// The bucket holds what the budget grants in this time.
const DEPTH_NS: f64 = 100_000_000.0;

pub(crate) struct Budget {
    credit: f64,
    filled_at: Option<u64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { credit: f64::INFINITY, filled_at: None }
    }
}

impl Budget {
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The longest spin that can be paid now.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn allows(&mut self, now: u64, share: f64) -> u64 {
        if share >= 1.0 {
            return u64::MAX;
        }
        let elapsed = now.saturating_sub(self.filled_at.unwrap_or(now)) as f64;
        self.filled_at = Some(now);
        self.credit = (self.credit + share * elapsed).min(share * DEPTH_NS);
        self.credit.max(0.0) as u64
    }

    /// A spin without a hit pays its time; one with a hit pays nothing.
    #[allow(clippy::cast_precision_loss)]
    pub fn pay(&mut self, wasted_ns: u64) {
        self.credit -= wasted_ns as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC 28
    #[test]
    fn fruitless_spins_take_no_more_than_their_share() {
        let mut budget = Budget::default();
        assert_eq!(budget.allows(0, 0.1), 10_000_000, "full at the start");
        budget.pay(10_000_000);
        assert_eq!(budget.allows(0, 0.1), 0);
        assert_eq!(budget.allows(1_000_000, 0.1), 100_000);
        assert_eq!(budget.allows(u64::MAX, 0.1), 10_000_000, "never more than the cap");
        assert_eq!(budget.allows(u64::MAX, 1.0), u64::MAX, "1 = no limit");
    }
}
