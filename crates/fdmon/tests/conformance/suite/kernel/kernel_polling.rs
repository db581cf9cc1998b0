//! ②′ Spinning on the kernel's readiness of plain fds: `poll_kernel`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use fdmon::{
    AioContext, EventNotifier, Events, Guard, Handlers, Interest, Ops, Outcome, PollParams, Source,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::super::{manual, manual_with, sees_readiness, spinning};
use crate::support::{
    Count, Log, Predicate, Tally, WINDOW, block, drain, empty, fill, member, pair, pipe, ringing,
    rung, sleep_for, spin, warm,
};

/// How often the clock is read in a spin of [`WINDOW`]: often enough to see every look.
const STEP: u64 = 200;
/// Within this, a spin has found what the kernel knows, although the clock goes on at each reading.
const SOON: u64 = 20_000;

/// A handler that takes all there is and counts.
fn reader(runs: &Count) -> Handlers {
    let counter = runs.clone();
    Handlers::new().poll_kernel().read(move |ops| {
        empty(ops.fd());
        counter.bump();
        Ok(())
    })
}

/// A timerfd that has expired.
fn expired() -> OwnedFd {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).unwrap();
    let at_once = Timespec { tv_sec: 0, tv_nsec: 1 };
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let when = Itimerspec { it_interval: never, it_value: at_once };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &when).unwrap();
    poll(&mut [PollFd::new(&timer, PollFlags::IN)], None).unwrap();
    timer
}

/// Something to be read from a plain fd of each kind. The second one keeps the first one open.
fn readable() -> Vec<(&'static str, OwnedFd, Option<OwnedFd>)> {
    let (ours, theirs) = pair();
    let (out, into) = pipe();
    for fd in [theirs.as_fd(), into.as_fd()] {
        rustix::io::write(fd, b"x").unwrap();
    }
    vec![
        ("socket", ours, Some(theirs)),
        ("pipe", out, Some(into)),
        ("timerfd", expired(), None),
        (
            "eventfd",
            EventNotifier::with_value(1).unwrap().as_fd().try_clone_to_owned().unwrap(),
            None,
        ),
    ]
}

/// A member of the spin list that never hits, and does this in its fifth round.
fn in_the_spin(ctx: &AioContext, mut act: impl FnMut() + 'static) -> Predicate {
    let predicate = Predicate::new();
    member(ctx, &EventNotifier::new().unwrap(), &predicate);
    let mut rounds = 0;
    predicate.on_poll(move || {
        rounds += 1;
        if rounds == 5 {
            act();
        }
    });
    predicate
}

/// SPEC 30
#[test]
fn readiness_of_every_kind_of_fd_is_found_by_the_spin() {
    for (kind, fd, _other_end) in readable() {
        let (ctx, clock) = spinning();
        clock.set_step_ns(STEP);
        let runs = Count::new();
        let number = fd.as_raw_fd();
        ctx.set_fd_handler(fd, reader(&runs)).unwrap();
        let before = ctx.stats();
        assert!(block(&ctx));
        let after = ctx.stats();
        assert_eq!(runs.get(), 1, "{kind}");
        assert_eq!(
            (after.spin_hits, after.sleeps),
            (before.spin_hits + 1, before.sleeps),
            "{kind}"
        );
        assert_eq!((after.spin_misses, after.events), (before.spin_misses, before.events + 1));
        let row = after.handlers.iter().find(|row| row.fd == number).unwrap();
        assert_eq!(row.reads, 1, "{kind}");
        assert_eq!(drain(&ctx), 0, "{kind}");
    }
}

/// SPEC 30
#[test]
fn sources_and_handlers_that_may_move_spin_on_it_too() {
    struct Plain(EventNotifier);
    impl AsFd for Plain {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl Source for Plain {
        fn interest(&self) -> Interest {
            Interest::READ
        }
        fn poll_kernel(&self) -> bool {
            true
        }
        fn read(&mut self, _: &mut Ops<'_>) -> Outcome {
            self.0.test_and_clear()?;
            Ok(())
        }
    }
    for may_move in [false, true] {
        let (ctx, clock) = spinning();
        clock.set_step_ns(STEP);
        let runs = Tally::new();
        if may_move {
            let handlers = ringing(&rung(), &runs).poll_kernel();
            assert!(ctx.register(handlers).is_ok());
        } else {
            assert!(ctx.register(Plain(rung())).is_ok());
        }
        let before = ctx.stats();
        assert!(block(&ctx));
        let after = ctx.stats();
        assert_eq!((after.spin_hits, after.guard), (before.spin_hits + 1, None), "{may_move}");
        assert_eq!(after.sleeps, before.sleeps, "{may_move}");
    }
}

/// SPEC 30
#[test]
fn what_becomes_ready_while_it_spins_is_found_soon() {
    for kind in 0..2 {
        let (ctx, clock) = spinning();
        let runs = Count::new();
        let (ours, theirs) = if kind == 0 { pair() } else { pipe() };
        ctx.set_fd_handler(ours, reader(&runs)).unwrap();
        let _driver =
            in_the_spin(&ctx, move || assert_eq!(rustix::io::write(&theirs, b"x"), Ok(1)));
        clock.set_step_ns(STEP);
        let (before, start) = (ctx.stats(), clock.now_ns());
        assert!(block(&ctx));
        let after = ctx.stats();
        assert_eq!(runs.get(), 1);
        assert_eq!((after.spin_hits, after.sleeps), (before.spin_hits + 1, before.sleeps));
        let took = clock.now_ns() - start;
        assert!(took < SOON, "found after {took} ns");
    }
}

/// SPEC 26, 30
#[test]
fn the_window_follows_the_traffic_as_with_a_predicate() {
    let (ctx, clock) = manual_with(PollParams { max_ns: 32_768, grow: 0, ..spin() });
    let (ours, _theirs) = pair();
    ctx.set_fd_handler(ours, reader(&Count::new())).unwrap();
    let mut spun = 0;
    for window in [4_000, 8_000, 16_000, 32_000, 32_768] {
        clock.set_step_ns(0);
        let before = ctx.stats();
        sleep_for(&ctx, 32_767);
        let after = ctx.stats();
        assert_eq!(after.window_ns, window);
        assert_eq!(after.sleeps, before.sleeps + 1);
        assert_eq!(
            after.spin_wasted_ns - before.spin_wasted_ns,
            spun,
            "the window before this one"
        );
        assert_eq!(after.guard, None);
        spun = window;
    }
    sleep_for(&ctx, 32_769);
    let idle = ctx.stats();
    assert_eq!(idle.window_ns, 0, "one late event and it sleeps at once");
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!(ctx.stats().spin_ns, idle.spin_ns);
}

/// SPEC 30
#[test]
fn the_kernel_is_asked_every_few_microseconds_only_where_memory_does_not_tell() {
    let (ctx, clock) = spinning();
    let (ours, _theirs) = pair();
    let number = ours.as_raw_fd();
    ctx.set_fd_handler(ours, reader(&Count::new())).unwrap();
    let waits_of_a_spin = || {
        clock.set_step_ns(0);
        warm(&ctx);
        clock.set_step_ns(STEP);
        let before = ctx.stats();
        sleep_for(&ctx, 10 * WINDOW);
        let after = ctx.stats();
        assert_eq!(after.spin_misses, before.spin_misses + 1);
        after.waits - before.waits - (after.sleeps - before.sleeps)
    };
    let often = waits_of_a_spin();
    ctx.remove_fd_handler(number);
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let seldom = waits_of_a_spin();
    if sees_readiness() {
        // But for the one when the timer is due.
        assert!(often <= 1 && seldom <= 1, "it is all in memory: {often} and {seldom}");
    } else {
        assert!((WINDOW / 2_000 - 1..=WINDOW / 1_000).contains(&often), "{often} in {WINDOW} ns");
        assert!(seldom <= WINDOW / 50_000 + 1, "once it is removed: {seldom} in {WINDOW} ns");
    }
}

/// SPEC 30, 31
#[test]
fn with_spinning_off_it_is_a_handler_as_any_other() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    let runs = Count::new();
    ctx.set_fd_handler(ours, reader(&runs)).unwrap();
    for round in 1..=3 {
        rustix::io::write(&theirs, b"x").unwrap();
        assert!(block(&ctx));
        assert_eq!(runs.get(), round);
    }
    sleep_for(&ctx, 1_000_000_000);
    let stats = ctx.stats();
    assert_eq!((stats.spin_hits, stats.spin_misses, stats.spin_ns), (0, 0, 0));
    assert_eq!(stats.guard, None);
}

/// SPEC 31
#[test]
fn switched_off_it_stops_and_switched_on_it_starts_again() {
    let (ctx, _clock) = spinning();
    let (ours, theirs) = pair();
    let runs = Count::new();
    ctx.set_fd_handler(ours, reader(&runs)).unwrap();
    rustix::io::write(&theirs, b"x").unwrap();
    assert!(block(&ctx));
    ctx.set_poll_params(PollParams { max_ns: 0, ..spin() }).unwrap();
    let before = ctx.stats();
    rustix::io::write(&theirs, b"x").unwrap();
    assert!(block(&ctx));
    sleep_for(&ctx, WINDOW - 1);
    let after = ctx.stats();
    assert_eq!((after.spin_hits, after.spin_misses), (before.spin_hits, before.spin_misses));
    ctx.set_poll_params(spin()).unwrap();
    warm(&ctx);
    rustix::io::write(&theirs, b"x").unwrap();
    assert!(block(&ctx));
    assert_eq!((runs.get(), ctx.stats().spin_hits), (3, after.spin_hits + 1));
}

/// SPEC 28, 30
#[test]
fn fruitless_looks_pay_from_the_cpu_budget() {
    let params = PollParams { cpu_budget: 0.1, shrink: 1, ..spin() };
    let (ctx, clock) = manual_with(params);
    warm(&ctx);
    let (ours, _theirs) = pair();
    ctx.set_fd_handler(ours, reader(&Count::new())).unwrap();
    let start = clock.now_ns();
    for _ in 0..1_000 {
        sleep_for(&ctx, 3 * WINDOW); // a third of the time, without a budget
    }
    let (wasted, elapsed) = (ctx.stats().spin_wasted_ns, clock.now_ns() - start);
    assert!(wasted <= 10_000_000 + elapsed / 10, "{wasted} ns of {elapsed}");
    assert!(wasted >= elapsed / 10, "what is allowed is used: {wasted} ns of {elapsed}");
}

/// SPEC 24, 30
#[test]
fn beside_a_member_with_a_predicate_both_are_served() {
    let (ctx, clock) = spinning();
    let (ours, theirs) = pair();
    let (plain, hits) = (Count::new(), Count::new());
    ctx.set_fd_handler(ours, reader(&plain)).unwrap();
    let predicate = Predicate::new();
    let handlers = Handlers::new().poll(predicate.clone()).poll_ready(predicate.taken(&hits));
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    predicate.say(true);
    assert_eq!((drain(&ctx), hits.take()), (1, 1), "now it is on the spin list");
    clock.set_step_ns(STEP);
    let before = ctx.stats();
    for round in 1..=10 {
        predicate.say(true);
        assert!(block(&ctx));
        assert_eq!((hits.get(), plain.get()), (round, round - 1));
        rustix::io::write(&theirs, b"x").unwrap();
        assert!(block(&ctx));
        assert_eq!((hits.get(), plain.get()), (round, round));
    }
    let after = ctx.stats();
    assert_eq!((after.spin_hits, after.sleeps), (before.spin_hits + 20, before.sleeps));
    assert_eq!(predicate.begins(), 1, "it stays in spin mode");
    sleep_for(&ctx, 10 * WINDOW);
    assert!(!predicate.has_begun());
}

/// SPEC 18, 30
#[test]
fn a_series_of_hits_does_not_starve_it() {
    let (ctx, clock) = spinning();
    let (ours, theirs) = pair();
    let plain = Count::new();
    ctx.set_fd_handler(ours, reader(&plain)).unwrap();
    let predicate = Predicate::new();
    predicate.say(true);
    let handlers = Handlers::new().poll(predicate).poll_ready(|_| Ok(()));
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    for blocking in [true, false] {
        rustix::io::write(&theirs, b"x").unwrap();
        let start = clock.now_ns();
        while plain.get() == 0 {
            assert!(ctx.poll(blocking).unwrap());
            clock.advance_ns(10_000);
            assert!(clock.now_ns() - start <= 60_000, "blocking: {blocking}");
        }
        plain.take();
    }
}

/// SPEC 9, 30
#[test]
fn beside_a_handler_without_poll_it_waits_where_readiness_costs_a_system_call() {
    let (ctx, clock) = spinning();
    let (ours, theirs) = pair();
    let (plain, unspun) = (Count::new(), Count::new());
    ctx.set_fd_handler(ours, reader(&plain)).unwrap();
    let bell = EventNotifier::new().unwrap();
    let clear = bell.clone();
    let counter = unspun.clone();
    let handlers = Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let before = ctx.stats();
    sleep_for(&ctx, WINDOW - 1);
    let after = ctx.stats();
    let spun = sees_readiness();
    assert_eq!(after.spin_misses - before.spin_misses, u64::from(spun));
    assert_eq!(after.guard, (!spun).then_some(Guard::HandlerWithoutPoll));
    // Neither is lost, whichever way.
    clock.set_step_ns(STEP);
    rustix::io::write(&theirs, b"x").unwrap();
    bell.set().unwrap();
    assert!(block(&ctx));
    drain(&ctx);
    assert_eq!((plain.get(), unspun.get()), (1, 1));
    clock.set_step_ns(0);
    ctx.remove_fd_handler(bell.as_raw_fd());
    warm(&ctx);
    let before = ctx.stats();
    rustix::io::write(&theirs, b"x").unwrap();
    assert!(block(&ctx));
    let after = ctx.stats();
    assert_eq!((plain.get(), after.guard), (2, None));
    assert_eq!((after.spin_hits, after.sleeps), (before.spin_hits + 1, before.sleeps));
}

/// SPEC 8, 30
#[test]
fn write_interest_is_spun_for_too_and_can_be_turned_off() {
    let (ctx, clock) = spinning();
    let (ours, theirs) = pair();
    fill(&ours);
    let log = Log::new();
    let handlers =
        Handlers::new().poll_kernel().read(log.callback("read")).write(log.callback("write"));
    let token = ctx.set_fd_handler(ours, handlers).unwrap();
    let _driver = in_the_spin(&ctx, move || empty(&theirs));
    clock.set_step_ns(STEP);
    let before = ctx.stats();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["write"], "room came while it spun");
    assert!(block(&ctx));
    assert_eq!(log.take(), ["write"], "there is room still");
    let after = ctx.stats();
    assert_eq!((after.spin_hits, after.sleeps), (before.spin_hits + 2, before.sleeps));
    clock.set_step_ns(0);
    token.set_interest(Interest::READ).unwrap();
    warm(&ctx);
    assert_eq!(log.take(), [""; 0]);
    token.set_interest(Interest::READ | Interest::WRITE).unwrap();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["write"]);
}

/// SPEC 8, 30
#[test]
fn a_hang_up_is_seen_by_the_spin() {
    for kind in 0..2 {
        let (ctx, clock) = spinning();
        let (ours, theirs) = if kind == 0 { pair() } else { pipe() };
        let hung_up = Count::new();
        let counter = hung_up.clone();
        let handlers = Handlers::new().poll_kernel().read(move |ops| {
            assert!(ops.events().contains(Events::HUP), "{:?}", ops.events());
            counter.bump();
            ops.remove_fd_handler(ops.fd().as_raw_fd());
            Ok(())
        });
        ctx.set_fd_handler(ours, handlers).unwrap();
        let mut theirs = Some(theirs);
        let _driver = in_the_spin(&ctx, move || drop(theirs.take()));
        clock.set_step_ns(STEP);
        let before = ctx.stats();
        assert!(block(&ctx));
        let after = ctx.stats();
        assert_eq!(hung_up.get(), 1);
        assert_eq!((after.spin_hits, after.sleeps), (before.spin_hits + 1, before.sleeps));
        clock.set_step_ns(0);
        sleep_for(&ctx, 1_000_000_000);
    }
}

/// SPEC 20, 30
#[test]
fn an_fd_left_unread_is_reported_in_every_turn_once() {
    let (ctx, clock) = spinning();
    clock.set_step_ns(STEP);
    let (ours, theirs) = pair();
    let runs = Count::new();
    ctx.set_fd_handler(ours, Handlers::new().poll_kernel().read(runs.callback())).unwrap();
    rustix::io::write(&theirs, b"x").unwrap();
    for round in 1..=20 {
        assert!(block(&ctx));
        assert_eq!(runs.get(), round);
    }
    for round in 21..=40 {
        assert!(ctx.poll(false).unwrap());
        assert_eq!(runs.get(), round);
    }
}

/// SPEC 14, 30
#[test]
fn an_external_one_is_silent_while_disabled_and_heard_afterwards() {
    let (ctx, _clock) = spinning();
    let (ours, theirs) = pair();
    let runs = Count::new();
    ctx.set_fd_handler(ours, reader(&runs).external(true)).unwrap();
    ctx.disable_external();
    rustix::io::write(&theirs, b"x").unwrap();
    sleep_for(&ctx, WINDOW - 1);
    assert_eq!((runs.get(), ctx.stats().guard), (0, None));
    ctx.enable_external();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}

/// SPEC 19, 30
#[test]
fn while_its_callback_runs_a_nested_turn_neither_enters_nor_loses_it() {
    let (ctx, clock) = spinning();
    let (ours, theirs) = pair();
    let log = Log::new();
    let (inside, other) = (log.clone(), theirs.try_clone().unwrap());
    let mut nested = false;
    let handlers = Handlers::new().poll_kernel().read(move |ops| {
        inside.add("begin");
        empty(ops.fd());
        if !std::mem::replace(&mut nested, true) {
            assert_eq!(rustix::io::write(&other, b"y"), Ok(1));
            sleep_for(ops.context(), 1_000_000);
        }
        inside.add("end");
        Ok(())
    });
    ctx.set_fd_handler(ours, handlers).unwrap();
    rustix::io::write(&theirs, b"x").unwrap();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["begin", "end"]);
    clock.set_step_ns(STEP);
    assert!(block(&ctx));
    assert_eq!(log.take(), ["begin", "end"], "what came meanwhile");
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 17, 30
#[test]
fn a_timer_that_comes_first_ends_the_spin_in_time() {
    let (ctx, clock) = spinning();
    let (ours, _theirs) = pair();
    let runs = Count::new();
    ctx.set_fd_handler(ours, reader(&runs)).unwrap();
    clock.set_step_ns(STEP);
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    let start = clock.now_ns();
    timer.arm(Duration::from_nanos(WINDOW / 2)).unwrap();
    let sleeps = ctx.stats().sleeps;
    assert!(block(&ctx));
    let took = clock.now_ns() - start;
    assert_eq!((fired.get(), runs.get(), ctx.stats().sleeps), (1, 0, sleeps));
    assert!((WINDOW / 2..WINDOW / 2 + 10 * STEP).contains(&took), "after {took} ns");
}
