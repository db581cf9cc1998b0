//! ②′ The cost policy: the window of the least expected cost.
//!
//! What a window costs until the next event: the CPU time spun, and if the event comes later than
//! that, CPU time of a sleep and a wake-up and `latency_weight` times the wake-up's latency. The
//! expectation is taken over a histogram of the times to the next event. Three things make it hold
//! where a plain histogram does not:
//!
//! - *Two regimes.* Traffic comes in bursts: what follows a short gap is told apart from what
//!   follows a long one, so there is a histogram for each, and each leans on both together while
//!   it knows little. Short is what spinning for is cheaper than a sleep.
//! - *Trust.* A gap that ended in a sleep is an estimate. Where the spins that it promised to
//!   succeed do not (the producer waits for this very CPU), the promise is believed less.
//! - *Crowds.* A wake-up that finds n events has delayed them all, so it weighs (n + 1) / 2 times.

use super::policy::{Seen, WakeUp};
use super::trial::Trials;
use crate::config::PollParams;

/// Four buckets an octave.
const STEPS: u32 = 2;
/// The first bucket ends at 256 ns: so soon, nothing has gone to sleep.
const FIRST: u32 = 8;
const AT_ONCE_NS: u64 = 1 << FIRST;
/// Up to a day.
const BUCKETS: usize = ((47 - FIRST as usize) << STEPS) + 1;
/// What an event still counts for after the next one.
const DECAY: f32 = 0.99;
/// …and so the next one weighs more than this one.
const GROWTH: f32 = 1.0 / DECAY;
/// What a spin's promise still counts for after the next event.
const MEMORY: f32 = 0.998;
/// The events of both regimes together weigh in each as much as this many of its own.
const SHARED: f32 = 4.0;
/// The promises of spins are believed at the start as if so many had been kept.
const PRIOR: f32 = 2.0;
/// The longest window among those that cost no more than this times the least is taken.
const TIE: f32 = 1.002;
/// Entering and leaving spin mode for nothing, as a part of what a sleep and its wake-up take.
const HOOKS: f32 = 0.125;
/// How fast the size of the crowds is followed.
const FOLLOW: f32 = 0.25;
/// A window is chosen anew after so many events, twice as many each time it stays as it was, up to
/// the second; and after each of the first ones.
const EVERY: u32 = 8;
const SELDOM: u32 = 32;
/// Events that were there at once, or out of any window's reach, are noted one by one, and counted so many together.
const TOGETHER: u32 = 64;
/// …and never more: what was before them has faded by then.
const MOST: u32 = 1024;
/// Weights grow instead of decaying one by one, up to this.
const HEAVY: f32 = 1e6;

/// What preceded: an event soon after the one before, or a long time after it.
const SHORT: usize = 0;
const LONG: usize = 1;

#[derive(Clone)]
struct Histogram {
    /// Weights by [`bucket`].
    counts: [f32; BUCKETS],
    total: f32,
    /// Weight of the next event.
    weight: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0.0; BUCKETS], total: 0.0, weight: 1.0 }
    }
}

impl Histogram {
    fn add(&mut self, bucket: usize) {
        self.weight *= GROWTH;
        self.counts[bucket] += self.weight;
        self.total += self.weight;
        if self.weight > HEAVY {
            self.scale_down();
        }
    }

    /// The same so many times, in one step.
    fn add_several(&mut self, bucket: usize, times: u32) {
        let grown = self.weight * power(GROWTH, times);
        let weight = (grown - self.weight) * (GROWTH / (GROWTH - 1.0));
        self.weight = grown;
        self.counts[bucket] += weight;
        self.total += weight;
        if self.weight > HEAVY {
            self.scale_down();
        }
    }

    #[cold]
    fn scale_down(&mut self) {
        let scale = 1.0 / self.weight;
        self.counts.iter_mut().for_each(|count| *count *= scale);
        self.total *= scale;
        self.weight = 1.0;
    }
}

/// The window for one regime, and how likely it is to see the next event.
#[derive(Clone, Copy, Default, PartialEq)]
struct Choice {
    window: u64,
    promise: f32,
}

/// What is known of the gaps after a short one, or after a long one.
#[derive(Default)]
struct Regime {
    gaps: Histogram,
    choice: Choice,
    trials: Trials,
    /// It is chosen anew after so many events, of either regime, and how many are left.
    every: u32,
    left: u32,
}

#[derive(Default)]
pub(crate) struct Cost {
    regimes: [Regime; 2],
    all: Histogram,
    /// Which of them the next gap is of.
    regime: usize,
    /// There was no turn since something can be spun for.
    untried: bool,
    events: u32,
    /// Events that were there at once and are not counted yet, and how many of them a spin saw.
    at_once: u32,
    at_once_spun: u32,
    /// …and that were too far away for any window.
    far: u32,
    /// The last turn, of which nothing was learned yet.
    untold: Option<Seen>,
    /// Hits that spins were to have lately, and had.
    promised: f32,
    kept: f32,
    /// Events that a wake-up finds, less one.
    others: f32,
    /// What a wake-up took, as the last turn shows.
    took: Option<u64>,
}

fn bucket(ns: u64) -> usize {
    let Some(octave) = ns.checked_ilog2().filter(|&octave| octave >= FIRST) else { return 0 };
    let step = (ns >> (octave - STEPS)) & ((1 << STEPS) - 1);
    let place = (((octave - FIRST) << STEPS) as usize) + usize::try_from(step).unwrap_or(0) + 1;
    place.min(BUCKETS - 1)
}

/// Where the bucket ends.
const fn edge(bucket: usize) -> u64 {
    let octave = FIRST as usize + (bucket >> STEPS);
    let step = bucket as u64 & ((1 << STEPS) - 1);
    ((1 << STEPS) + step) << (octave - STEPS as usize)
}

/// The middle of each bucket.
#[allow(clippy::cast_precision_loss, reason = "as below")]
const MIDDLES: [f32; BUCKETS] = {
    let mut middles = [0.0; BUCKETS];
    let mut bucket = 1;
    while bucket < BUCKETS {
        middles[bucket] = edge(bucket - 1).midpoint(edge(bucket)) as f32;
        bucket += 1;
    }
    middles
};

#[allow(clippy::cast_precision_loss, reason = "six digits are plenty")]
fn float(ns: u64) -> f32 {
    ns as f32
}

#[allow(clippy::cast_possible_truncation, reason = "as above")]
fn latency_cost(wake_up: WakeUp, params: &PollParams) -> f32 {
    float(wake_up.latency_ns) * params.latency_weight as f32
}

fn power(base: f32, times: u32) -> f32 {
    base.powi(times.cast_signed())
}

/// All that is beyond the maximum is the same: no window sees it.
fn beyond(params: &PollParams) -> u64 {
    params.max_ns.saturating_mul(2)
}

fn sleep_cost(wake_up: WakeUp, params: &PollParams) -> f32 {
    float(wake_up.cpu_ns) + latency_cost(wake_up, params)
}

impl Cost {
    pub fn window(&self, params: &PollParams) -> u64 {
        if self.untried {
            return params.max_ns;
        }
        let regime = &self.regimes[self.regime];
        regime.trials.window().unwrap_or(regime.choice.window).min(params.max_ns)
    }

    /// Something new can be spun for: the next turn tries it, for how long it may.
    pub fn try_once(&mut self) {
        self.untried = true;
    }

    fn choice(&self) -> Choice {
        self.regimes[self.regime].choice
    }

    /// Before a turn that may spin: learns from the turn before it. Not right after that one, where
    /// its event waited; here the time would be spun away.
    #[inline]
    pub fn prepare(&mut self, wake_up: WakeUp, params: &PollParams) {
        if let Some(seen) = self.untold.take() {
            self.learn(&seen, wake_up, params);
        }
        if self.regimes[self.regime].left == 0 {
            self.choose_anew(wake_up, params);
        }
        let sleep = sleep_cost(wake_up, params);
        self.regimes[self.regime].trials.prepare(sleep, float(params.max_ns));
    }

    /// What a wake-up took, if the last turn shows it.
    #[inline]
    pub fn take_wake_up(&mut self) -> Option<u64> {
        self.took.take()
    }

    /// So many turns found something at once, each without a spin.
    #[inline]
    pub fn on_hits(&mut self, turns: u32) {
        self.at_once = self.at_once.saturating_add(turns);
    }

    /// A blocking turn is over.
    #[inline]
    pub fn on_turn(&mut self, seen: &Seen, wake_up: WakeUp, params: &PollParams) {
        self.untried = false;
        if self.events < EVERY {
            self.learn(seen, wake_up, params);
            self.choose_anew(wake_up, params);
        } else if !seen.slept && seen.block_ns < AT_ONCE_NS && self.choice().window != 0 {
            self.at_once += 1;
            self.at_once_spun += u32::from(seen.spun_ns != 0);
        } else if self.is_as_far(seen, wake_up, params) {
            self.far += 1;
        } else if let Some(before) = self.untold.replace(*seen) {
            self.learn(&before, wake_up, params); // no turn between them could spin
        }
        if self.at_once.max(self.far) >= TOGETHER {
            self.count_alike(params);
        }
    }

    /// One of many that no window sees, and nothing else to learn from it.
    fn is_as_far(&self, seen: &Seen, wake_up: WakeUp, params: &PollParams) -> bool {
        seen.slept
            && seen.spun_ns == 0
            && seen.events <= 1
            && self.regime == LONG
            && self.untold.is_none()
            && self.regimes[LONG].trials.window().is_none()
            && seen.gap_ns(wake_up) > params.max_ns
    }

    fn learn(&mut self, seen: &Seen, wake_up: WakeUp, params: &PollParams) {
        if self.at_once | self.far != 0 {
            self.count_alike(params);
        }
        let regime = &mut self.regimes[self.regime];
        let trial = regime.trials.window().is_some();
        self.took = regime.trials.on_turn(seen);
        if !trial {
            self.check_promise(seen);
        }
        if seen.slept {
            let others = float(seen.events.saturating_sub(1));
            self.others += (others - self.others) * FOLLOW;
        }
        let gap = seen.gap_ns(wake_up);
        let place = bucket(gap.min(beyond(params)));
        self.regimes[self.regime].gaps.add(place);
        self.all.add(place);
        let is_long = float(gap) > sleep_cost(wake_up, params).min(float(params.max_ns));
        self.regime = if is_long { LONG } else { SHORT };
        self.happened(1);
    }

    /// Events that were there at once, or far away, all alike.
    #[cold]
    fn count_alike(&mut self, params: &PollParams) {
        let far = std::mem::take(&mut self.far).min(MOST);
        if far != 0 {
            let place = bucket(beyond(params));
            self.regimes[LONG].gaps.add_several(place, far);
            self.all.add_several(place, far);
            self.others *= power(1.0 - FOLLOW, far);
        }
        let at_once = std::mem::take(&mut self.at_once).min(MOST);
        let spun = std::mem::take(&mut self.at_once_spun).min(at_once);
        if at_once != 0 {
            let others = if self.regime == LONG {
                self.regimes[LONG].gaps.add(0);
                self.regime = SHORT;
                at_once - 1
            } else {
                at_once
            };
            self.regimes[SHORT].gaps.add_several(0, others);
            self.all.add_several(0, at_once);
        }
        let faded = power(MEMORY, far + at_once);
        self.promised = self.promised * faded + self.choice().promise * float(spun.into());
        self.kept = self.kept * faded + float(spun.into());
        self.happened(1);
    }

    fn happened(&mut self, events: u32) {
        self.events = self.events.saturating_add(events);
        for regime in &mut self.regimes {
            regime.left = regime.left.saturating_sub(events);
        }
    }

    #[inline(never)]
    fn choose_anew(&mut self, wake_up: WakeUp, params: &PollParams) {
        let choice = self.choose(self.regime, wake_up, params);
        let regime = &mut self.regimes[self.regime];
        let same = bucket(choice.window).abs_diff(bucket(regime.choice.window)) <= 1
            && (choice.window == 0) == (regime.choice.window == 0);
        regime.every = if same { (regime.every * 2).clamp(EVERY, SELDOM) } else { EVERY };
        regime.left = regime.every;
        regime.choice = choice;
    }

    /// Did the spin see what it was to see?
    fn check_promise(&mut self, seen: &Seen) {
        self.promised *= MEMORY;
        self.kept *= MEMORY;
        let Choice { window, promise } = self.choice();
        let hit = !seen.slept;
        // One that was cut short shows nothing.
        if seen.spun_ns != 0 && (hit || seen.spun_ns >= window) {
            self.promised += promise;
            self.kept += f32::from(u8::from(hit));
        }
    }

    fn trust(&self) -> f32 {
        ((self.kept + PRIOR) / (self.promised + PRIOR)).min(1.0)
    }

    /// The longest window that costs next to nothing more than the best one.
    fn choose(&self, regime: usize, wake_up: WakeUp, params: &PollParams) -> Choice {
        let (own, all) = (&self.regimes[regime].gaps, &self.all);
        // The newest event counts as one.
        let own_scale = 1.0 / own.weight;
        let all_scale = if all.total > 0.0 { SHARED / all.total } else { 0.0 };
        let events =
            |bucket: usize| own.counts[bucket] * own_scale + all.counts[bucket] * all_scale;
        let total = own.total * own_scale + all.total * all_scale;
        let trust = self.trust();
        let miss =
            float(wake_up.cpu_ns) + latency_cost(wake_up, params) * (1.0 + self.others / 2.0);
        // Producers are told to be silent, and to signal again before the sleep.
        let in_vain = miss + float(wake_up.cpu_ns) * HOOKS;
        // Who does not spin asks the kernel also for what is there at once.
        let at_once = events(0);
        let late = total - at_once;
        let not_at_all = late * miss + at_once * float(wake_up.cpu_ns);
        let last = bucket(params.max_ns.saturating_sub(1)).max(1); // ends at the maximum or beyond
        let window = |place: usize| edge(place).min(params.max_ns);
        let mut costs = [0.0; BUCKETS];
        let mut least = not_at_all;
        // Of the events seen in time: how many, and the time spun for them.
        let (mut seen, mut spun) = (at_once, 0.0);
        for place in 1..=last {
            let count = events(place);
            seen += count;
            spun += count * MIDDLES[place];
            let missed = (total - trust * seen).max(0.0);
            costs[place] = trust * spun + missed * (float(window(place)) + in_vain);
            least = least.min(costs[place]);
        }
        if least == not_at_all {
            return Choice::default(); // the longest window that sees nothing costs something after all
        }
        let Some(place) = (1..=last).rev().find(|&place| costs[place] <= least * TIE) else {
            return Choice::default();
        };
        let seen: f32 = (0..=place).map(events).sum();
        Choice { window: window(place), promise: seen / total.max(f32::MIN_POSITIVE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 32_768;
    const SLOW: WakeUp = WakeUp { latency_ns: 35_000, cpu_ns: 4000 };
    const FAST: WakeUp = WakeUp { latency_ns: 3000, cpu_ns: 4000 };

    struct Scene {
        policy: Cost,
        params: PollParams,
        wake_up: WakeUp,
    }

    impl Scene {
        fn new(wake_up: WakeUp) -> Self {
            let params = PollParams { max_ns: MAX, ..Default::default() };
            Self { policy: Cost::default(), params, wake_up }
        }

        /// One turn whose event comes this long after its start. `true` = found by spinning.
        fn event(&mut self, gap: u64) -> bool {
            let window = self.policy.window(&self.params);
            let hit = gap <= window;
            self.tell(if hit { gap } else { gap + self.wake_up.latency_ns }, window.min(gap), !hit);
            hit
        }

        fn tell(&mut self, block_ns: u64, spun_ns: u64, slept: bool) {
            let seen = Seen { block_ns, spun_ns, slept, events: 1 };
            self.policy.on_turn(&seen, self.wake_up, &self.params);
            self.policy.prepare(self.wake_up, &self.params);
        }

        fn events(&mut self, gaps: impl IntoIterator<Item = u64>) -> usize {
            gaps.into_iter().filter(|&gap| self.event(gap)).count()
        }
    }

    /// SPEC 27
    #[test]
    fn buckets_are_four_an_octave_and_each_ends_where_the_next_begins() {
        for (ns, place) in [(0, 0), (255, 0), (256, 1), (319, 1), (320, 2), (512, 5), (1024, 9)] {
            assert_eq!(bucket(ns), place, "{ns}");
        }
        for place in 0..BUCKETS - 1 {
            assert_eq!(bucket(edge(place)), place + 1);
            assert_eq!(bucket(edge(place) - 1), place);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!(edge(BUCKETS - 1) > 86_400_000_000_000, "a day has a bucket");
    }

    /// SPEC 27
    #[test]
    fn events_counted_together_weigh_as_if_counted_one_by_one() {
        let (mut one_by_one, mut together) = (Histogram::default(), Histogram::default());
        for place in [3, 0, 5] {
            (0..TOGETHER).for_each(|_| one_by_one.add(place));
            together.add_several(place, TOGETHER);
        }
        let share = |histogram: &Histogram, place| histogram.counts[place] / histogram.total;
        for place in [0, 3, 5] {
            let apart = share(&one_by_one, place) - share(&together, place);
            assert!(apart.abs() < 1e-4, "{place}: {apart}");
        }
    }

    /// SPEC 27
    #[test]
    fn what_can_be_spun_for_anew_is_tried_once_for_as_long_as_may_be() {
        let mut scene = Scene::new(FAST);
        assert_eq!(scene.policy.window(&scene.params), 0);
        assert_eq!(scene.events([MAX * 4; 50]), 0);
        assert_eq!(scene.policy.window(&scene.params), 0);
        scene.policy.try_once();
        assert_eq!(scene.policy.window(&scene.params), MAX);
        assert!(scene.event(20_000));
        assert_eq!(scene.policy.window(&scene.params), 0);
    }

    /// SPEC 27: spinning for late events is not worth it, were it not for those of short turns.
    #[test]
    fn hits_of_short_turns_count() {
        let window = |hits| {
            let mut scene = Scene::new(FAST);
            for _ in 0..100 {
                scene.event(9000);
                scene.policy.on_hits(hits);
            }
            scene.policy.window(&scene.params)
        };
        assert_eq!(window(0), 0);
        assert!(window(20) > 0);
    }

    /// SPEC 27: many far ones, noted and not yet counted, are no reason to miss what comes then.
    #[test]
    fn events_that_come_soon_after_many_far_ones_are_spun_for() {
        let mut scene = Scene::new(SLOW);
        scene.events([MAX * 10; 10_000]);
        let hits = scene.events([3000; 200]);
        assert!(hits > 150, "{hits} of 200");
    }

    /// SPEC 27: at a steady pace it finds out what a wake-up takes, in both states.
    #[test]
    fn a_wake_up_shows_where_turns_that_sleep_are_compared_with_turns_that_spin() {
        for believed in [FAST, SLOW] {
            let (mut scene, mut found) = (Scene::new(believed), Vec::new());
            for _ in 0..200 {
                let (gap, window) = (20_000, scene.policy.window(&scene.params));
                let slept = gap > window;
                scene.tell(if slept { gap + 8000 } else { gap }, window.min(gap), slept);
                found.extend(scene.policy.take_wake_up());
            }
            assert!(found.len() >= 3, "{believed:?}: {found:?}");
            assert!(found.iter().all(|ns| ns.abs_diff(8000) < 100), "{believed:?}: {found:?}");
        }
    }

    /// SPEC 27
    #[test]
    fn events_that_come_soon_are_spun_for_after_the_first_one() {
        let mut scene = Scene::new(SLOW);
        assert!(!scene.event(5000));
        assert_eq!(scene.events([5000; 100]), 100);
    }

    /// SPEC 27
    #[test]
    fn events_beyond_what_a_sleep_costs_are_not_spun_for() {
        let mut scene = Scene::new(FAST);
        let hits = scene.events([20_000; 100]);
        assert!((1..8).contains(&hits), "{hits}: trials");
        assert_eq!(scene.policy.window(&scene.params), 0);
        let mut scene = Scene::new(SLOW);
        assert_eq!(scene.events([MAX * 2; 100]), 0);
        assert_eq!(scene.policy.window(&scene.params), 0);
    }

    /// SPEC 27
    #[test]
    fn latency_that_is_worth_more_is_spun_for_longer() {
        let mut scene = Scene::new(FAST);
        scene.params.latency_weight = 20.0;
        assert_eq!(scene.events([20_000; 100]), 99);
        scene.params.latency_weight = 0.0;
        scene.events([20_000; 200]);
        assert_eq!(scene.policy.window(&scene.params), 0);
    }

    /// SPEC 27: they cost a spin nothing, and a sleep its calls; rare late ones do not change that.
    #[test]
    fn events_that_are_there_at_once_are_spun_for() {
        let mut scene = Scene::new(FAST);
        let hits = scene.events((0..1000).map(|i| if i % 50 == 49 { 1_000_000 } else { 100 }));
        assert!(hits >= 950, "{hits} of 980");
    }

    /// SPEC 27: of a mixture, the window covers the part that is worth it.
    #[test]
    fn a_slow_source_does_not_stop_the_spin_for_a_fast_one() {
        let mut scene = Scene::new(FAST);
        let hits = scene.events((0..1000).map(|i| if i % 5 == 4 { 200_000 } else { 2000 }));
        assert!(hits >= 790, "{hits} of 800");
        assert!(scene.policy.regimes.iter().all(|regime| regime.choice.window < 4000));
    }

    /// SPEC 27: bursts of 50, far apart events between them.
    #[test]
    fn a_burst_is_recognised_by_its_first_event() {
        let mut scene = Scene::new(SLOW);
        let burst = |i: u64| if (i / 50).is_multiple_of(2) { 4000 } else { 100_000 };
        scene.events((0..1000).map(burst));
        let hits = scene.events((0..100).map(burst));
        assert!(hits >= 48, "{hits} of 50");
        assert_eq!(scene.policy.window(&scene.params), 0, "nothing is spun for between bursts");
    }

    /// SPEC 27, 28: the producer waits for this very CPU, so no spin sees anything, whatever the
    /// sleeps promise.
    #[test]
    fn a_promise_that_no_spin_keeps_is_not_believed_for_long() {
        let mut scene = Scene::new(FAST);
        let mut spins = 0;
        for _ in 0..1000 {
            let window = scene.policy.window(&scene.params);
            spins += u32::from(window != 0);
            scene.tell(window.max(1000) + FAST.latency_ns, window, true);
        }
        assert!((1..60).contains(&spins), "{spins} of 1000");
    }

    /// SPEC 27: one wake-up delays all the events that it finds.
    #[test]
    fn a_wake_up_that_finds_a_crowd_costs_more() {
        let window = |events| {
            let mut policy = Cost::default();
            let params = PollParams { max_ns: MAX, ..Default::default() };
            for _ in 0..200 {
                let seen = Seen { block_ns: 12_000, spun_ns: 0, slept: true, events };
                policy.on_turn(&seen, FAST, &params);
                policy.prepare(FAST, &params);
            }
            policy.window(&params)
        };
        assert_eq!(window(1), 0);
        assert!(window(8) >= 9000);
    }

    /// SPEC 31
    #[test]
    fn any_times_are_taken() {
        for ns in [0, 1, u64::MAX, u64::MAX - 1, 1 << 40] {
            let mut scene = Scene::new(WakeUp { latency_ns: u64::MAX, cpu_ns: u64::MAX });
            scene.params.max_ns = ns.min(86_400_000_000_000);
            for slept in [false, true] {
                scene.tell(ns, ns, slept);
                scene.tell(ns, 0, slept);
                assert!(scene.policy.window(&scene.params) <= scene.params.max_ns);
            }
        }
        let mut scene = Scene::new(FAST);
        for _ in 0..100_000 {
            scene.tell(700, 0, false); // weights are scaled down again and again
        }
        assert!(scene.policy.all.total.is_finite());
    }
}
