//! The policies in a running loop; what each decides is tested beside it, in `src/spin`.

use std::os::fd::AsRawFd;

use fdmon::{EventNotifier, Handlers, PolicyKind, PollParams};

use super::{context, manual_with};
use crate::support::{Count, Predicate, WINDOW, block, sleep_for, spin};

fn with(policy: PolicyKind) -> PollParams {
    PollParams { policy, grow: 0, ..spin() }
}

/// SPEC 27
#[test]
fn a_fixed_window_is_the_longest_from_the_first_turn_on() {
    let (ctx, _clock) = manual_with(with(PolicyKind::Fixed));
    assert_eq!(ctx.stats().window_ns, WINDOW);
    for _ in 0..3 {
        sleep_for(&ctx, 10 * WINDOW);
        assert_eq!(ctx.stats().window_ns, WINDOW);
    }
    assert_eq!(ctx.stats().spin_misses, 3);
    assert_eq!(ctx.stats().spin_wasted_ns, 3 * WINDOW);
}

/// SPEC 27: a manual clock wakes in no time, so a sleep costs its CPU time alone, 4 µs.
#[test]
fn the_cost_policy_spins_for_what_comes_sooner_than_a_sleep_costs() {
    let (ctx, _clock) = manual_with(with(PolicyKind::Cost));
    for _ in 0..8 {
        sleep_for(&ctx, 2_000);
    }
    assert!(ctx.stats().window_ns >= 2_000);
    let misses = ctx.stats().spin_misses;
    for _ in 0..800 {
        sleep_for(&ctx, 50_000);
    }
    assert_eq!(ctx.stats().window_ns, 0);
    assert!(ctx.stats().spin_misses - misses < 200, "it soon sees that spinning does not pay");
}

/// SPEC 27
#[test]
fn latency_that_is_worth_a_lot_is_spun_for_in_the_next_turn_already() {
    let (ctx, _clock) = manual_with(PollParams { latency_weight: 20.0, ..with(PolicyKind::Cost) });
    sleep_for(&ctx, 3_000);
    assert!(ctx.stats().window_ns >= 3_000);
    ctx.set_poll_params(with(PolicyKind::Cost)).unwrap();
    assert_eq!(ctx.stats().window_ns, 0, "new parameters begin anew");
}

/// SPEC 27
#[test]
fn the_per_handler_policy_serves_the_sources_and_shows_its_estimates() {
    let (ctx, _clock) = manual_with(with(PolicyKind::PerHandler));
    let (fast, slow) = (EventNotifier::new().unwrap(), EventNotifier::new().unwrap());
    let (soon, late) = (Predicate::new(), Predicate::new());
    for (bell, predicate) in [(&fast, &soon), (&slow, &late)] {
        let (clear, quiet) = (bell.clone(), predicate.clone());
        let handlers = Handlers::new()
            .read(move |_| {
                clear.test_and_clear()?;
                quiet.say(false);
                Ok(())
            })
            .poll(predicate.clone())
            .poll_ready(predicate.taken(&Count::new()));
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
        predicate.say(true);
    }
    assert!(block(&ctx)); // both join the spin list
    for event in 0..400 {
        sleep_for(&ctx, 5_000);
        let sources = if event % 100 == 99 { 2 } else { 1 };
        for (bell, predicate) in [(&fast, &soon), (&slow, &late)].into_iter().take(sources) {
            predicate.say(true);
            if !predicate.has_begun() {
                bell.set().unwrap();
            }
        }
        assert!(block(&ctx));
    }
    let stats = ctx.stats();
    let estimate = |bell: &EventNotifier| {
        let row = stats.handlers.iter().find(|row| row.fd == bell.as_raw_fd()).unwrap();
        assert!(row.polling);
        row.estimate_ns
    };
    assert_eq!(estimate(&fast), 5_000);
    assert_eq!(estimate(&slow), WINDOW, "its gap is five times the longest window");
    // The first spin of 5000 ns misses by nothing: the gap was longer than that.
    assert_eq!(stats.window_ns, 5_001, "the slow source neither stops the spin nor stretches it");
    ctx.set_poll_params(with(PolicyKind::PerHandler)).unwrap();
    assert_eq!(ctx.stats().window_ns, 0, "new parameters begin anew");
}

/// SPEC 27
#[test]
#[cfg_attr(not(threads), ignore = "a host may sleep in whole milliseconds, and so too short")]
fn what_a_wake_up_takes_is_measured_before_the_first_spin_of_those_who_take_it_off() {
    for policy in [PolicyKind::Classic, PolicyKind::Fixed, PolicyKind::PerHandler, PolicyKind::Cost]
    {
        let ctx = context();
        assert_eq!(ctx.stats().wake_up_ns, 0);
        ctx.set_poll_params(PollParams { max_ns: 1_000, ..with(policy) }).unwrap();
        sleep_for(&ctx, 100_000);
        let measures = matches!(policy, PolicyKind::PerHandler | PolicyKind::Cost);
        assert_eq!(ctx.stats().wake_up_ns != 0, measures, "{policy:?}");
    }
}
