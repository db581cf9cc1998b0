//! ②′ Idle removal: a member without a hit for long enough leaves the spin list.
//!
//! Only on monitors that see readiness without a system call: on the others its fd would starve,
//! since they do not ask the kernel while they spin on it.

/// How often the list is looked through, as a share of `idle_ns`.
const SWEEPS_PER_IDLE: u64 = 8;

#[derive(Default)]
pub(crate) struct Sweep {
    last: u64,
}

impl Sweep {
    /// The list is to be looked through now.
    pub fn is_due(&mut self, now: u64, idle_ns: u64) -> bool {
        if now.saturating_sub(self.last) < idle_ns / SWEEPS_PER_IDLE {
            return false;
        }
        self.last = now;
        true
    }
}

/// It hit, or joined, at a time that nobody read from the clock: its time begins with the next
/// look through the list.
pub(crate) const UNKNOWN: u64 = 0;

/// The member has been without a hit for too long.
pub(crate) fn is_idle(last_hit: &mut u64, now: u64, idle_ns: u64) -> bool {
    if *last_hit == UNKNOWN {
        *last_hit = now;
    }
    now.saturating_sub(*last_hit) >= idle_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC 29
    #[test]
    fn a_member_is_idle_after_idle_ns_without_a_hit() {
        assert!(!is_idle(&mut 100, 100 + 6_999_999_999, 7_000_000_000));
        assert!(is_idle(&mut 100, 100 + 7_000_000_000, 7_000_000_000));
        let mut unknown = UNKNOWN;
        assert!(!is_idle(&mut unknown, 9_000_000_000, 7_000_000_000));
        assert!(is_idle(&mut unknown, 16_000_000_000, 7_000_000_000));
        let mut sweep = Sweep::default();
        assert!(!sweep.is_due(100, 8000));
        assert!(sweep.is_due(1000, 8000));
        assert!(!sweep.is_due(1999, 8000));
    }
}
