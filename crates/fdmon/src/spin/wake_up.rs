//! ②′ What a wake-up takes: measured once a process by a few short sleeps, and followed by the
//! lateness of the context's own timed sleeps, until the traffic shows what it takes to be woken by
//! a descriptor.

#[cfg(not(wasi))]
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::time::Duration;

#[cfg(not(wasi))]
use rustix::thread::{current_timer_slack, nanosleep, set_current_timer_slack};
#[cfg(not(wasi))]
use rustix::time::Timespec;

use super::policy::WakeUp;
use crate::clock::monotonic_ns;
#[cfg(not(wasi))]
use crate::clock::thread_cpu_ns;

/// What is assumed where nothing was measured: in no time, for the CPU that it takes on most
/// machines.
const ASSUMED: WakeUp = WakeUp { latency_ns: 0, cpu_ns: 4000 };
/// Sleeps that are measured, and how long each is: long enough for the CPU to go idle.
const SLEEPS: usize = 5;
const SLEEP: Duration = Duration::from_micros(50);
/// The estimate goes this part of the way to each new sample.
const FOLLOW: u64 = 8;
/// Wake-ups by descriptors that are remembered, and that it takes to believe them: their median is
/// what a wake-up takes.
const RECENT: usize = 8;
const ENOUGH: usize = 3;
/// Later than that, something else held it up.
const ODD_NS: u64 = 1_000_000;

/// What one context believes.
pub(crate) struct Estimate {
    now: WakeUp,
    /// What the kernel may add to a timed sleep of this thread, to gather wake-ups.
    slack_ns: u64,
    measured: bool,
    /// What the last wake-ups by descriptors took, and how many there were.
    recent: [u64; RECENT],
    woken: usize,
}

impl Default for Estimate {
    fn default() -> Self {
        Self { now: ASSUMED, slack_ns: 0, measured: false, recent: [0; RECENT], woken: 0 }
    }
}

impl Estimate {
    pub fn get(&self) -> WakeUp {
        self.now
    }

    /// Measures at the first call; costs a third of a millisecond once a process.
    #[inline]
    pub fn calibrate(&mut self) {
        if !self.measured {
            self.measure();
        }
    }

    #[cold]
    fn measure(&mut self) {
        static OF_PROCESS: OnceLock<WakeUp> = OnceLock::new();
        self.measured = true;
        #[cfg(not(wasi))]
        {
            self.slack_ns = current_timer_slack().unwrap_or(0);
        }
        self.now = *OF_PROCESS.get_or_init(|| sleep_and_measure(self.slack_ns));
    }

    /// A wake-up by a descriptor took so long.
    #[cold]
    pub fn woken(&mut self, took_ns: u64) {
        if took_ns >= ODD_NS {
            return;
        }
        self.recent[self.woken % RECENT] = took_ns;
        self.woken += 1;
        if self.woken < ENOUGH {
            return;
        }
        let mut sorted = self.recent;
        let known = &mut sorted[..self.woken.min(RECENT)];
        known.sort_unstable();
        self.now.latency_ns = known[known.len() / 2];
    }

    /// A timed sleep of this length was over so much later than it should.
    pub fn overslept(&mut self, slept_ns: u64, late_ns: u64) {
        if !self.measured || self.woken >= ENOUGH {
            return; // the slack is not known, or something better is
        }
        // ppoll and epoll take a thousandth of the time as slack where that is more.
        let slack = self.slack_ns.max(slept_ns / 1000);
        let Some(late) = late_ns.checked_sub(slack).filter(|&late| late < ODD_NS) else { return };
        let old = self.now.latency_ns;
        self.now.latency_ns = old - old / FOLLOW + late / FOLLOW;
    }
}

/// As a context sleeps. Where it does not, a host may know whole milliseconds only: that is no
/// lateness then.
#[cfg(wasi)]
fn nap() {
    #[cfg(threads)]
    crate::bell::Alarm::default().sleep(Some(SLEEP.subsec_nanos().into()));
    #[cfg(not(threads))]
    std::thread::sleep(SLEEP);
}

/// Without the CPU time, of which WebAssembly is not told.
#[cfg(wasi)]
fn sleep_and_measure(_: u64) -> WakeUp {
    let mut late = [0; SLEEPS];
    for lateness in &mut late {
        let start = monotonic_ns();
        nap();
        let took = monotonic_ns().saturating_sub(start);
        *lateness = took.saturating_sub(u64::from(SLEEP.subsec_nanos()));
    }
    late.sort_unstable();
    WakeUp { latency_ns: late[SLEEPS / 2], ..ASSUMED }
}

#[cfg(not(wasi))]
fn sleep_and_measure(slack_ns: u64) -> WakeUp {
    let exact = set_current_timer_slack(NonZeroU64::new(1)).is_ok();
    let cpu_before = thread_cpu_ns();
    let mut late = [0; SLEEPS];
    for lateness in &mut late {
        let start = monotonic_ns();
        let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: i64::from(SLEEP.subsec_nanos()) });
        let took = monotonic_ns().saturating_sub(start);
        let planned = u64::from(SLEEP.subsec_nanos()) + if exact { 0 } else { slack_ns };
        *lateness = took.saturating_sub(planned);
    }
    let cpu = thread_cpu_ns().saturating_sub(cpu_before) / SLEEPS as u64;
    let _ = set_current_timer_slack(NonZeroU64::new(slack_ns));
    late.sort_unstable();
    WakeUp { latency_ns: late[SLEEPS / 2], cpu_ns: cpu.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC 27
    #[test]
    fn the_estimate_follows_late_sleeps_by_an_eighth_less_the_slack() {
        let mut estimate = Estimate { slack_ns: 50_000, measured: true, ..Default::default() };
        estimate.overslept(1_000_000, 58_000);
        assert_eq!(estimate.get().latency_ns, 1000);
        estimate.overslept(1_000_000, 66_000);
        assert_eq!(estimate.get().latency_ns, 1000 - 125 + 2000);
        estimate.overslept(1_000_000, 49_999);
        estimate.overslept(1_000_000, 50_000 + ODD_NS);
        assert_eq!(estimate.get().latency_ns, 2875, "gathered, or held up by something else");
        estimate.overslept(200_000_000, 208_000);
        assert_eq!(estimate.get().latency_ns, 2875 - 359 + 1000, "a thousandth of a long sleep");
    }

    /// SPEC 27
    #[test]
    fn wake_ups_by_descriptors_count_more_than_late_timers() {
        let mut estimate = Estimate { slack_ns: 0, measured: true, ..Default::default() };
        estimate.overslept(1000, 16_000);
        let timers = estimate.get().latency_ns;
        estimate.woken(8000);
        estimate.woken(ODD_NS);
        estimate.woken(90_000);
        assert_eq!(estimate.get().latency_ns, timers, "two say too little");
        estimate.woken(7000);
        assert_eq!(estimate.get().latency_ns, 8000, "the median");
        estimate.overslept(1_000_000, 160_000);
        assert_eq!(estimate.get().latency_ns, 8000);
        (0..RECENT).for_each(|_| estimate.woken(30_000));
        assert_eq!(estimate.get().latency_ns, 30_000, "the older ones are forgotten");
    }

    /// SPEC 27
    #[cfg(not(wasi))]
    #[test]
    fn a_wake_up_is_measured_once_and_the_thread_keeps_its_slack() {
        let slack = current_timer_slack().unwrap();
        let (mut one, mut other) = (Estimate::default(), Estimate::default());
        one.calibrate();
        other.calibrate();
        assert_eq!(one.get(), other.get());
        assert!(one.get().cpu_ns > 0);
        assert_eq!(current_timer_slack().unwrap(), slack);
    }
}
