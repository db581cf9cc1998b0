//! ②′ What a policy is told and asked. Policies are pure: they get times as arguments and read no
//! clock, so that tests and the simulator of `benches/policy` run the very code of the loop.

use super::classic::Classic;
use super::cost::Cost;
use super::per_handler::{Estimate, PerHandler};
use crate::config::PollParams;

/// What one counted turn shows of the traffic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// From its start until it stopped waiting, spinning or asleep.
    pub block_ns: u64,
    /// The part of it that was spun.
    pub spun_ns: u64,
    /// It slept: `block_ns` has a wake-up in it.
    pub slept: bool,
    /// Handlers that have something.
    pub events: u64,
}

impl Seen {
    /// The time to the event that a spin could have seen: less the wake-up, but no less than what
    /// was spun in vain.
    pub fn gap_ns(&self, wake_up: WakeUp) -> u64 {
        if self.slept {
            self.block_ns.saturating_sub(wake_up.latency_ns).max(self.spun_ns.saturating_add(1))
        } else {
            self.block_ns
        }
    }
}

/// What it takes to be woken from a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakeUp {
    /// From the event to the turn that runs it.
    pub latency_ns: u64,
    /// CPU time of going to sleep and waking.
    pub cpu_ns: u64,
}

/// One context's policy and its state.
pub(crate) enum Policy {
    Classic(Classic),
    PerHandler(PerHandler),
    Cost(Box<Cost>),
    /// The longest window, always.
    Fixed,
}

impl Policy {
    /// How long the next turn may spin.
    pub fn window(&self, params: &PollParams) -> u64 {
        match self {
            Self::Classic(policy) => policy.window(),
            Self::PerHandler(policy) => policy.window(),
            Self::Cost(policy) => policy.window(params),
            Self::Fixed => params.max_ns,
        }
    }

    /// A turn begins that may spin.
    #[inline]
    pub fn prepare(&mut self, wake_up: WakeUp, params: &PollParams) {
        if let Self::Cost(policy) = self {
            policy.prepare(wake_up, params);
        }
    }

    /// The spin list has its first member.
    pub fn try_once(&mut self) {
        if let Self::Cost(policy) = self {
            policy.try_once();
        }
    }

    /// So many turns found something at once since it heard of the last one.
    #[inline]
    pub fn on_hits(&mut self, turns: u32) {
        if let Self::Cost(policy) = self {
            policy.on_hits(turns);
        }
    }

    /// What a wake-up took, if the last turn shows it.
    #[inline]
    pub fn take_wake_up(&mut self) -> Option<u64> {
        if let Self::Cost(policy) = self { policy.take_wake_up() } else { None }
    }

    /// It wants to hear of every turn, also of one that found something at once.
    pub fn counts_every_turn(&self) -> bool {
        matches!(self, Self::PerHandler(_))
    }

    /// A counted turn is over. `sources` are the estimates of the members of the spin list, each
    /// with whether it had an event.
    pub fn on_turn<'a>(
        &mut self,
        seen: &Seen,
        wake_up: WakeUp,
        params: &PollParams,
        sources: impl Iterator<Item = (&'a mut Estimate, bool)>,
    ) {
        match self {
            Self::Classic(policy) => policy.on_turn(seen.block_ns, params),
            Self::PerHandler(policy) => {
                let gap = seen.gap_ns(wake_up);
                let heard = sources.map(|(estimate, event)| {
                    estimate.on_turn(gap, event, params);
                    *estimate
                });
                policy.on_turn(heard, params);
            }
            Self::Cost(policy) => policy.on_turn(seen, wake_up, params),
            Self::Fixed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PolicyKind;

    const WAKE_UP: WakeUp = WakeUp { latency_ns: 35_000, cpu_ns: 4000 };

    /// SPEC 27
    #[test]
    fn the_wake_up_is_taken_off_what_a_sleep_took_but_not_what_was_spun() {
        let gap =
            |block_ns, spun_ns, slept| Seen { block_ns, spun_ns, slept, events: 1 }.gap_ns(WAKE_UP);
        assert_eq!(gap(40_000, 0, true), 5000);
        assert_eq!(gap(40_000, 8000, true), 8001, "the spin saw that nothing came so soon");
        assert_eq!(gap(10_000, 0, true), 1, "the estimate was too long");
        assert_eq!(gap(5000, 5000, false), 5000, "found by spinning: exact");
    }

    /// SPEC 27: what a wake-up takes is longer than the window, and the policy spins all the same.
    #[test]
    fn spinning_starts_also_where_a_wake_up_takes_longer_than_the_window() {
        for (kind, starts) in [
            (PolicyKind::Classic, false),
            (PolicyKind::PerHandler, true),
            (PolicyKind::Cost, true),
            (PolicyKind::Fixed, true),
        ] {
            let params = PollParams { max_ns: 32_768, policy: kind, ..Default::default() };
            let mut policy = Policy::new(kind);
            let mut source = Estimate::default();
            for _ in 0..16 {
                let window = policy.window(&params);
                let slept = window < 5000;
                let seen = Seen {
                    block_ns: if slept { 5000 + WAKE_UP.latency_ns } else { 5000 },
                    spun_ns: window.min(5000),
                    slept,
                    events: 1,
                };
                policy.on_turn(&seen, WAKE_UP, &params, [(&mut source, true)].into_iter());
                policy.prepare(WAKE_UP, &params);
            }
            assert_eq!(policy.window(&params) >= 5000, starts, "{kind:?}");
        }
    }
}
