//! Tracing: which points are noted, with what, and that nothing else changes for being watched.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use fdmon::{
    AioContext, EventNotifier, Handlers, MonitorKind, OuterLoop, PollParams, RingMode, RingParams,
    SpinResult, TraceBuffer, TraceKinds, TracePoint, WordSource,
};

use super::{builder, manual, manual_with, monitor, spinning};
use crate::support::{
    Count, Log, Predicate, WINDOW, block, drain, member, rung, sleep_for, spin, warm,
};

/// Watches a context from now on.
fn watch(ctx: &AioContext, kinds: TraceKinds) -> TraceBuffer {
    let buffer = TraceBuffer::new();
    ctx.foreign_trace(kinds, buffer.clone()).unwrap();
    buffer
}

/// What was noted since the last call, without the times.
fn points(buffer: &TraceBuffer) -> Vec<TracePoint> {
    buffer.take().into_iter().map(|(_, point)| point).collect()
}

/// The ends of the spins since the last call, each of which has its begin before it.
#[track_caller]
fn spins(buffer: &TraceBuffer) -> Vec<(SpinResult, u64)> {
    let mut open = None;
    let mut ends = Vec::new();
    for point in points(buffer) {
        match point {
            TracePoint::SpinBegin { window_ns } => {
                assert_eq!(open.replace(window_ns), None, "one begins within another");
            }
            TracePoint::SpinEnd { window_ns, spent_ns, result } => {
                assert_eq!(open.take(), Some(window_ns), "an end without its begin");
                ends.push((result, spent_ns));
            }
            _ => {}
        }
    }
    assert_eq!(open, None, "a begin without its end");
    ends
}

/// SPEC 54
#[test]
fn a_spin_is_a_begin_and_an_end_with_its_window_its_length_and_what_ended_it() {
    let (ctx, clock) = spinning();
    let predicate = Predicate::new();
    let runs = member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let noted = watch(&ctx, TraceKinds::all());
    let last = |noted: &TraceBuffer| spins(noted).last().copied().unwrap();

    predicate.say(true);
    assert!(block(&ctx));
    assert_eq!((last(&noted), runs.get()), ((SpinResult::Hit, 0), 1), "at the first look");

    sleep_for(&ctx, 10 * WINDOW);
    assert_eq!(last(&noted), (SpinResult::Miss, WINDOW));

    warm(&ctx);
    spins(&noted);
    sleep_for(&ctx, WINDOW / 2);
    assert_eq!(last(&noted), (SpinResult::Timeout, WINDOW / 2));

    let (remote, notifies) = (ctx.remote(), Count::new());
    let counter = notifies.clone();
    predicate.on_poll(move || {
        counter.bump();
        remote.notify().unwrap();
    });
    assert!(!block(&ctx));
    assert_eq!((last(&noted).0, notifies.get()), (SpinResult::Notified, 1));

    clock.set_step_ns(500);
    let (late, rounds) = (predicate.clone(), Count::new());
    predicate.on_poll(move || {
        rounds.bump();
        late.say(rounds.get() > 3);
    });
    assert!(block(&ctx));
    let (result, spent) = last(&noted);
    assert_eq!(result, SpinResult::Hit);
    assert!((1..WINDOW).contains(&spent), "{spent} ns");
}

/// SPEC 54
#[test]
fn a_spin_that_the_kernel_ends_says_ready() {
    let (ctx, clock) = spinning();
    clock.set_step_ns(200);
    let bell = EventNotifier::new().unwrap();
    let clear = bell.clone();
    let handlers = Handlers::new().poll_kernel().read(move |_| {
        clear.test_and_clear()?;
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let rounds = Count::new();
    predicate.on_poll(move || {
        rounds.bump();
        if rounds.get() == 5 {
            bell.set().unwrap();
        }
    });
    let noted = watch(&ctx, TraceKinds::SPIN_END | TraceKinds::SPIN_BEGIN);
    assert!(block(&ctx));
    let ends = spins(&noted);
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].0, SpinResult::Ready);
}

/// SPEC 21, 54
#[cfg(not(wasi))]
#[test]
fn a_spin_that_a_failing_predicate_or_the_outer_loop_ends_says_so() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let noted = watch(&ctx, TraceKinds::all());
    predicate.on_poll(|| panic!("on purpose"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ctx.poll(true)));
    assert!(panicked.is_err());
    let ends = spins(&noted);
    assert_eq!(ends, [(SpinResult::Failed, 0)], "the end is there also when a predicate panics");

    let ctx = builder().poll(PollParams { max_ns: 5_000_000_000, ..spin() }).build().unwrap();
    let outside = rung();
    let fd = Some(rustix::io::dup(&outside).unwrap());
    ctx.set_outer_loop(OuterLoop { fd, keeps_no_time: true }).unwrap();
    member(&ctx, &EventNotifier::new().unwrap(), &Predicate::new());
    for _ in 0..2 {
        sleep_for(&ctx, 100_000);
    }
    let noted = watch(&ctx, TraceKinds::all());
    assert_eq!(ctx.prepare().unwrap(), Some(0));
    assert_eq!(spins(&noted)[0].0, SpinResult::Interrupted);
}

/// SPEC 26, 54
#[test]
fn the_window_is_followed_as_it_grows_shrinks_and_is_set_back() {
    let (ctx, _clock) = manual_with(PollParams { max_ns: 32_768, grow: 0, ..spin() });
    let noted = watch(&ctx, TraceKinds::WINDOW);
    for _ in 0..5 {
        sleep_for(&ctx, 32_767);
    }
    sleep_for(&ctx, 32_767);
    let path = [0, 4000, 8000, 16_000, 32_000, 32_768];
    let grown = path.windows(2).map(|w| TracePoint::Window { from_ns: w[0], to_ns: w[1] });
    assert_eq!(points(&noted), grown.collect::<Vec<_>>(), "one that stays is no point");
    sleep_for(&ctx, 1_000_000);
    assert_eq!(points(&noted), [TracePoint::Window { from_ns: 32_768, to_ns: 0 }]);
    sleep_for(&ctx, 32_767);
    points(&noted);
    ctx.set_poll_params(spin()).unwrap();
    assert_eq!(points(&noted), [TracePoint::Window { from_ns: 4000, to_ns: 0 }]);
    ctx.set_poll_params(spin()).unwrap();
    assert_eq!(points(&noted), []);
}

/// SPEC 54
#[test]
fn who_joins_and_who_leaves_the_spin_list_is_told_by_fd() {
    let (ctx, _clock) = spinning();
    let noted = watch(&ctx, TraceKinds::SPIN_LIST);
    let predicate = Predicate::new();
    let bell = EventNotifier::new().unwrap();
    let fd = bell.as_raw_fd();
    let joined = [TracePoint::Joined { fd }];
    let left = [TracePoint::Left { fd }];
    let join = || {
        predicate.say(true);
        assert!(ctx.poll(false).unwrap());
        assert_eq!(points(&noted), joined);
    };
    member(&ctx, &bell, &predicate);
    assert_eq!(points(&noted), joined, "dispatched, so it joined");
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(points(&noted), []);

    member(&ctx, &bell, &predicate);
    assert_eq!(points(&noted), [left.clone(), joined.clone()].concat(), "replaced");

    ctx.set_poll_params(PollParams { max_ns: 0, ..spin() }).unwrap();
    assert_eq!(points(&noted), left, "nobody spins");
    ctx.set_poll_params(spin()).unwrap();
    member(&ctx, &bell, &predicate);
    assert_eq!(points(&noted), joined);

    ctx.remove_fd_handler(fd);
    assert_eq!(points(&noted), left);
    ctx.remove_fd_handler(fd);
    assert_eq!(points(&noted), []);

    let handlers = Handlers::new()
        .external(true)
        .poll(predicate.clone())
        .poll_ready(predicate.taken(&Count::new()));
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    join();
    ctx.disable_external();
    assert_eq!(points(&noted), left);
    ctx.enable_external();
    join();

    ctx.close();
    assert_eq!(points(&noted), left, "also of a closed context");
}

/// SPEC 43, 54
#[test]
#[cfg_attr(wasi, ignore = "there is one monitor on WASI")]
fn another_monitor_is_told_with_the_reason() {
    // Which monitor is under test does not matter: this is about going from one to another.
    let ring = RingParams { mode: RingMode::Off, ..RingParams::default() };
    if std::env::var_os("FDMON_MONITOR").is_some() {
        return; // the environment asks for one, which then stays
    }
    let ctx = AioContext::builder().ring(ring).build().unwrap();
    let noted = watch(&ctx, TraceKinds::MONITOR);
    let bells: Vec<_> = (0..64).map(|_| EventNotifier::new().unwrap()).collect();
    for bell in &bells {
        assert_eq!(points(&noted), []);
        ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).unwrap();
    }
    ctx.poll(false).unwrap();
    let (from, to, reason) = (MonitorKind::Poll, MonitorKind::Epoll, ctx.monitor_reason());
    assert_eq!(points(&noted), [TracePoint::Monitor { from, to, reason }]);
    assert_eq!(ctx.monitor(), MonitorKind::Epoll);
    ctx.poll(false).unwrap();
    assert_eq!(points(&noted), []);
}

/// SPEC 54
#[test]
fn points_carry_the_time_of_the_contexts_clock_and_come_in_order() {
    let (ctx, clock) = manual_with(spin());
    let noted = watch(&ctx, TraceKinds::all());
    let start = clock.now_ns();
    warm(&ctx);
    member(&ctx, &EventNotifier::new().unwrap(), &Predicate::new());
    sleep_for(&ctx, WINDOW / 2);
    let noted = noted.take();
    assert!(noted.len() >= 5, "{noted:?}");
    assert!(noted.is_sorted_by_key(|(at, _)| *at), "{noted:?}");
    assert!(noted.iter().all(|(at, _)| (start..=clock.now_ns()).contains(at)), "{noted:?}");
}

/// SPEC 54
#[test]
fn only_what_is_asked_for_is_noted_and_nothing_any_more_when_nobody_asks() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let turn = || {
        predicate.say(true);
        assert!(block(&ctx));
        sleep_for(&ctx, 10 * WINDOW);
        warm(&ctx);
    };
    turn();
    let noted = watch(&ctx, TraceKinds::SPIN_END);
    assert!(noted.is_empty(), "nobody had asked");
    turn();
    assert!(!noted.is_empty());
    let ends = points(&noted);
    assert!(ends.iter().all(|point| matches!(point, TracePoint::SpinEnd { .. })), "{ends:?}");
    turn();
    let nothing = watch(&ctx, TraceKinds::empty());
    assert!(!points(&noted).is_empty(), "what was noted can still be taken");
    turn();
    assert!(noted.is_empty() && nothing.is_empty());
    ctx.close();
    assert!(ctx.foreign_trace(TraceKinds::all(), noted).unwrap_err().is_closed());
}

/// SPEC 54
#[test]
fn a_nested_turn_spins_within_a_hook_and_both_have_their_ends() {
    let (ctx, _clock) = spinning();
    let ctx = Rc::new(ctx);
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let inner = Rc::downgrade(&ctx);
    predicate.on_begin(move || {
        let Some(ctx) = inner.upgrade() else { return };
        ctx.notify();
        ctx.poll(true).unwrap();
    });
    let noted = watch(&ctx, TraceKinds::SPIN_BEGIN | TraceKinds::SPIN_END);
    sleep_for(&ctx, WINDOW / 2);
    let mut depth = 0;
    let mut deepest = 0;
    for point in points(&noted) {
        depth += if matches!(point, TracePoint::SpinBegin { .. }) { 1 } else { -1 };
        deepest = deepest.max(depth);
        assert!(depth >= 0);
    }
    assert_eq!((depth, deepest), (0, 2));
    predicate.on_begin(|| {});
}

/// A mixed run; what it did, and what the context says of it.
fn mixed_run(watched: bool) -> (Vec<&'static str>, Vec<u64>) {
    let (ctx, clock) = spinning();
    let kinds = if watched { TraceKinds::all() } else { TraceKinds::empty() };
    let noted = watch(&ctx, kinds);
    let log = Log::new();
    let words = [(); 2].map(|()| std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0)));
    for (word, name) in words.iter().zip(["hit one", "hit two"]) {
        let (taken, writes) = (word.clone(), log.clone());
        let source = WordSource::differs_from(word.clone(), 0);
        let handlers = Handlers::new().read(|_| Ok(())).poll(source).poll_ready(move |_| {
            taken.store(0, std::sync::atomic::Ordering::Relaxed);
            writes.add(name);
            Ok(())
        });
        ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    }
    let bell = EventNotifier::new().unwrap();
    let (clear, writes) = (bell.clone(), log.clone());
    let handlers = Handlers::new().poll_kernel().read(move |_| {
        clear.test_and_clear()?;
        writes.add("read");
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let half = ctx.bottom_half(log.callback("half")).unwrap();
    let timer = ctx.timer(log.callback("timer")).unwrap();
    let limit = ctx.timer(log.callback("limit")).unwrap();
    let mut seed = 7_u32;
    for _ in 0..500 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        clock.advance_ns(u64::from(seed >> 20));
        match (seed >> 8) % 8 {
            at @ 0..2 => words[at as usize].store(1, std::sync::atomic::Ordering::Relaxed),
            2 => words.iter().for_each(|word| word.store(1, std::sync::atomic::Ordering::Relaxed)),
            3 => bell.set().unwrap(),
            4 => half.schedule(),
            5 => timer.arm(Duration::from_nanos(u64::from(seed >> 14))).unwrap(),
            6 => ctx.notify(),
            _ => assert!(drain(&ctx) < 10),
        }
        let blocking = (seed >> 11).is_multiple_of(2);
        if blocking {
            limit.arm(Duration::from_micros(300)).unwrap(); // nothing else may end the turn
        }
        log.add(if ctx.poll(blocking).unwrap() { "yes" } else { "no" });
    }
    assert_eq!(noted.is_empty(), !watched);
    let stats = ctx.stats();
    let counts = [stats.turns, stats.events, stats.spin_hits, stats.spin_misses, stats.window_ns];
    (log.take(), [counts.as_slice(), &[stats.sleeps, stats.batch_max]].concat())
}

/// SPEC 46, 54
#[test]
fn being_watched_changes_nothing() {
    let (unwatched, watched) = (mixed_run(false), mixed_run(true));
    assert_eq!(unwatched, watched, "{}", monitor());
    assert!(unwatched.0.len() > 700, "{}", unwatched.0.len());
}

/// SPEC 54
#[test]
fn turns_of_a_context_that_does_not_spin_have_no_spins() {
    let (ctx, _clock) = manual();
    let noted = watch(&ctx, TraceKinds::all());
    let runs = Count::new();
    let bell = rung();
    let handlers = Handlers::new().read(runs.callback());
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    for turn in 1..=3 {
        assert!(block(&ctx));
        assert_eq!(runs.get(), turn);
    }
    bell.test_and_clear().unwrap();
    sleep_for(&ctx, 1_000_000);
    assert_eq!(points(&noted), []);
}
