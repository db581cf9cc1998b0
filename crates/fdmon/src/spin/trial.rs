//! ②′ What a wake-up takes, learned from the traffic: where events come at a steady pace, a turn now
//! and then sleeps for one that it would spin for, or spins for one that it would sleep for. The
//! difference is the wake-up, of this very source, with no clock but the waiter's.

use super::policy::Seen;

/// Turns between two trials at first, how many of these there are, and up to how many more they
/// are apart later.
const SOON: u32 = 16;
const FIRST: u32 = 4;
const SELDOM: u32 = 4096;
/// The pace goes this part of the way to each turn.
const FOLLOW: f32 = 0.125;
/// It is steady where turns are off by no more than this part of it.
const STEADY: f32 = 0.25;

/// The pace of one kind of gap, and the trials at it.
#[derive(Default)]
pub(crate) struct Trials {
    /// What turns usually do, how long they take, and how far off they are.
    slept: bool,
    took: f32,
    off_by: f32,
    /// The next turn is a trial.
    on: bool,
    /// Turns until the next one may be.
    left: u32,
    apart: u32,
    made: u32,
}

impl Trials {
    /// For how long a turn spins that is a trial; `None` = it is none.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, never < 0")]
    pub fn window(&self) -> Option<u64> {
        self.on.then_some(if self.slept { self.took as u64 } else { 0 })
    }

    /// The turn ahead is a trial if one is due and may change something: what is spun for might be
    /// slept for at `sleep_cost` or less, or what is slept for is over within the longest spin.
    #[inline]
    pub fn prepare(&mut self, sleep_cost: f32, max_ns: f32) {
        if self.left != 0 || self.took == 0.0 || self.off_by > self.took * STEADY {
            return;
        }
        self.on = if self.slept { self.took <= max_ns } else { self.took * 2.0 > sleep_cost };
    }

    /// A turn is over. Tells what the wake-up took if it was a trial that shows it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, never < 0")]
    #[allow(clippy::cast_precision_loss, reason = "six digits are plenty")]
    pub fn on_turn(&mut self, seen: &Seen) -> Option<u64> {
        self.left = self.left.saturating_sub(1);
        let trial = std::mem::take(&mut self.on);
        if trial {
            self.made = self.made.saturating_add(1);
            self.apart = if self.made < FIRST { SOON } else { (self.apart * 2).min(SELDOM) };
            self.left = self.apart;
        }
        if seen.slept == (seen.spun_ns != 0) {
            return None; // it spun in vain, or the event was there at once
        }
        let took = seen.block_ns as f32;
        if trial {
            let wake_up = if self.slept { self.took - took } else { took - self.took };
            return (seen.slept != self.slept && wake_up >= 1.0).then_some(wake_up as u64);
        }
        if seen.slept != self.slept || self.took == 0.0 {
            (self.slept, self.took, self.off_by) = (seen.slept, took, took);
        } else {
            self.off_by += ((took - self.took).abs() - self.off_by) * FOLLOW;
            self.took += (took - self.took) * FOLLOW;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLEEP_COST: f32 = 20_000.0;
    const MAX: f32 = 32_768.0;

    /// Turns with events this far apart, where a wake-up takes 8 µs. What the trials show.
    fn run(trials: &mut Trials, spins: bool, gaps: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut found = Vec::new();
        for gap in gaps {
            trials.prepare(SLEEP_COST, MAX);
            let window = trials.window().unwrap_or(if spins { 32_768 } else { 0 });
            let slept = gap > window;
            let block_ns = gap + if slept { 8000 } else { 0 };
            let seen = Seen { block_ns, spun_ns: window.min(gap), slept, events: 1 };
            found.extend(trials.on_turn(&seen));
        }
        found
    }

    /// SPEC 27
    #[test]
    fn at_a_steady_pace_a_trial_shows_what_a_wake_up_takes() {
        for spins in [true, false] {
            let mut trials = Trials::default();
            let found = run(&mut trials, spins, [15_000; 100]);
            assert!(found.len() >= 4, "{spins}: {found:?}");
            assert!(found.iter().all(|ns| ns.abs_diff(8000) < 100), "{spins}: {found:?}");
        }
    }

    /// SPEC 27
    #[test]
    fn trials_become_seldom() {
        let mut trials = Trials::default();
        let first = run(&mut trials, true, [15_000; 1000]).len();
        assert!((FIRST as usize..12).contains(&first), "{first}");
        let later = run(&mut trials, true, std::iter::repeat_n(15_000, 100_000)).len();
        assert!(later <= 100_000 / SELDOM as usize + 3, "{later}");
    }

    /// SPEC 27
    #[test]
    fn there_is_no_trial_that_could_change_nothing() {
        assert_eq!(run(&mut Trials::default(), true, [2000; 1000]), [], "a sleep costs far more");
        assert_eq!(run(&mut Trials::default(), false, [40_000; 1000]), [], "no spin sees it");
    }

    /// SPEC 27
    #[test]
    fn there_is_no_trial_where_the_pace_is_not_steady() {
        let gaps = (0..1000).map(|turn| if turn % 3 == 0 { 28_000 } else { 3000 });
        assert_eq!(run(&mut Trials::default(), true, gaps), []);
    }
}
