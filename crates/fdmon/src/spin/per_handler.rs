//! ②′ The per-handler policy: one estimate a source; the window serves the slowest source that is
//! worth spinning for.

use crate::config::PollParams;

/// How often one source has events.
#[derive(Clone, Copy, Default)]
pub(crate) struct Estimate {
    /// Time since its last event.
    idle: u64,
    /// Estimated time between its events; 0 = none.
    est: u64,
}

impl Estimate {
    /// Time between its events; 0 = unknown.
    pub fn ns(self) -> u64 {
        self.est
    }

    /// A counted turn of this length is over; it had an event or none.
    pub fn on_turn(&mut self, block_ns: u64, event: bool, params: &PollParams) {
        let waited = self.idle.saturating_add(block_ns);
        if !event {
            self.idle = waited;
            if waited >= params.max_ns {
                self.est = 0;
            }
            return;
        }
        self.idle = 0;
        self.est = if self.est == 0 {
            waited.min(params.max_ns)
        } else {
            smoothed(self.est, waited, params.weight)
        };
    }

    /// What the window must be for this source, if it is worth spinning for.
    fn need(self, params: &PollParams) -> Option<u64> {
        (0 < self.est && self.est < params.max_ns).then_some(self.est)
    }
}

/// `est + ((gap - est) >> weight)`.
fn smoothed(est: u64, gap: u64, weight: u32) -> u64 {
    let signed = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
    let step = (signed(gap) - signed(est)) >> weight.min(63);
    est.saturating_add_signed(step)
}

#[derive(Default)]
pub(crate) struct PerHandler {
    window: u64,
}

impl PerHandler {
    pub fn window(&self) -> u64 {
        self.window
    }

    /// A counted turn is over, and the estimates of all members have heard of it.
    pub fn on_turn(&mut self, estimates: impl Iterator<Item = Estimate>, params: &PollParams) {
        let grow = if params.grow == 0 { 2 } else { u64::from(params.grow) };
        let shrink = if params.shrink == 0 { 2 } else { u64::from(params.shrink) };
        let need = estimates.filter_map(|estimate| estimate.need(params)).max().unwrap_or(0);
        if need > self.window {
            self.window = params.max_ns.min(need.max(self.window.saturating_mul(grow)));
        } else if need < self.window / shrink {
            self.window /= shrink;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 32768;

    fn params() -> PollParams {
        PollParams { max_ns: MAX, ..Default::default() }
    }

    /// SPEC 27
    #[test]
    fn an_estimate_begins_with_the_first_gap_and_follows_by_an_eighth() {
        let mut estimate = Estimate::default();
        let mut after = |block, event| {
            estimate.on_turn(block, event, &params());
            estimate.ns()
        };
        assert_eq!(after(8000, true), 8000);
        assert_eq!(after(3000, false), 8000);
        assert_eq!(after(13_000, true), 9000, "the gap is 16000: an eighth of the way there");
        assert_eq!(after(1000, true), 8000);
        assert_eq!(after(7999, true), 7999, "an arithmetic shift rounds down");
    }

    /// SPEC 27
    #[test]
    fn an_estimate_is_at_most_the_maximum_at_first_and_none_after_an_idle_maximum() {
        let mut estimate = Estimate::default();
        estimate.on_turn(u64::MAX, true, &params());
        assert_eq!(estimate.ns(), MAX);
        estimate.on_turn(MAX - 1, false, &params());
        assert_eq!(estimate.ns(), MAX);
        estimate.on_turn(1, false, &params());
        assert_eq!(estimate.ns(), 0);
        estimate.on_turn(u64::MAX, false, &params());
        estimate.on_turn(5, true, &params());
        assert_eq!(estimate.ns(), MAX, "saturating: the gap is what it was idle for");
    }

    fn window(from: u64, ests: &[u64], params: &PollParams) -> u64 {
        let mut policy = PerHandler { window: from };
        policy.on_turn(ests.iter().map(|&est| Estimate { idle: 0, est }), params);
        policy.window()
    }

    /// SPEC 27
    #[test]
    fn the_window_serves_the_slowest_source_that_is_worth_it() {
        assert_eq!(window(0, &[5000, 20_000, MAX, 0], &params()), 20_000);
        assert_eq!(window(4000, &[5000], &params()), 8000, "it grows by its factor at least");
        assert_eq!(window(20_000, &[30_000], &params()), MAX);
        assert_eq!(window(8000, &[4000], &params()), 8000, "not below a half: kept");
        assert_eq!(window(8000, &[3999], &params()), 4000);
        assert_eq!(window(8000, &[MAX, 0], &params()), 4000, "none is worth it");
        let by_four = PollParams { shrink: 4, grow: 3, ..params() };
        assert_eq!(window(8000, &[2000], &by_four), 8000);
        assert_eq!(window(8000, &[1999], &by_four), 2000);
        assert_eq!(window(8000, &[8001], &by_four), 24_000);
    }

    /// SPEC 27
    #[test]
    fn a_slow_source_does_not_stop_the_spin_of_a_fast_one() {
        let params = params();
        let mut sources = [Estimate::default(); 2];
        let mut policy = PerHandler::default();
        for turn in 0..1000 {
            let slow = turn % 100 == 99;
            sources[0].on_turn(5000, true, &params);
            sources[1].on_turn(5000, slow, &params);
            policy.on_turn(sources.into_iter(), &params);
        }
        assert_eq!(sources[0].ns(), 5000);
        assert_eq!(sources[1].ns(), MAX, "a gap of 500 µs is not worth spinning for");
        assert_eq!(policy.window(), 5000);
    }
}
