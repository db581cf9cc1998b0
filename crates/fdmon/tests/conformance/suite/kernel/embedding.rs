//! The turn in three steps, for an outer loop: ppoll on one fd, or an epoll set around it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

use fdmon::{AioContext, EventNotifier, Handlers, MonitorKind, OuterLoop, PollParams};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::super::{builder, context, manual, monitor, spinning};
use crate::support::{
    Count, Predicate, WINDOW, a_while, by_number, close_number, member, on_time, pair, private,
    regular_file, rung, sleep_for, spin,
};

/// An outer loop of each kind: sleeps on the backend fd, at most so long.
enum Outer {
    Ppoll,
    Epoll(OwnedFd),
}

impl Outer {
    fn all(ctx: &AioContext) -> [Self; 2] {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let data = epoll::EventData::new_u64(7);
        epoll::add(&set, ctx.backend_fd().unwrap(), data, epoll::EventFlags::IN).unwrap();
        [Self::Ppoll, Self::Epoll(set)]
    }

    /// `true` = the backend fd is readable. `None` sleeps for 10 s, which is for ever here.
    fn sleep(&self, ctx: &AioContext, ns: Option<u64>) -> bool {
        let watched: BorrowedFd<'_> = match self {
            Self::Ppoll => ctx.as_fd(),
            Self::Epoll(set) => set.as_fd(),
        };
        let ns = ns.unwrap_or(10_000_000_000);
        let limit =
            Timespec { tv_sec: (ns / 1_000_000_000) as _, tv_nsec: (ns % 1_000_000_000) as _ };
        poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    /// One turn of the outer loop; what `check` said, and whether `dispatch` made progress.
    fn turn(&self, ctx: &AioContext) -> (bool, bool) {
        let ns = ctx.prepare().unwrap();
        if ns != Some(0) {
            self.sleep(ctx, ns);
        }
        let due = ctx.check().unwrap();
        (due, due && ctx.dispatch().unwrap())
    }
}

/// A handler that clears its bell and counts.
fn counted(ctx: &AioContext, bell: &EventNotifier) -> Count {
    let runs = Count::new();
    let (clear, counter) = (bell.clone(), runs.clone());
    let handlers = Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    runs
}

/// SPEC 50
#[test]
fn an_fd_event_wakes_the_outer_loop_and_is_dispatched() {
    let ctx = context();
    let bell = EventNotifier::new().unwrap();
    let runs = counted(&ctx, &bell);
    for outer in Outer::all(&ctx) {
        assert_eq!(ctx.prepare().unwrap(), None);
        assert!(!outer.sleep(&ctx, Some(0)), "nothing yet");
        bell.set().unwrap();
        assert!(outer.sleep(&ctx, None));
        assert!(ctx.check().unwrap());
        assert!(ctx.dispatch().unwrap());
        assert_eq!(runs.take(), 1);
        assert!(!outer.sleep(&ctx, Some(0)), "and nothing any more");
        assert!(!ctx.check().unwrap());
        assert!(!ctx.dispatch().unwrap());
    }
}

/// SPEC 50
#[test]
fn handlers_that_come_and_go_later_are_watched_from_outside_too() {
    let ctx = context();
    for outer in Outer::all(&ctx) {
        let bell = rung();
        let runs = counted(&ctx, &bell);
        assert_eq!(outer.turn(&ctx), (true, true));
        assert_eq!(runs.get(), 1);
        bell.set().unwrap();
        ctx.remove_fd_handler(bell.as_raw_fd());
        assert_eq!(ctx.prepare().unwrap(), None);
        assert!(!outer.sleep(&ctx, Some(0)));
        assert!(!ctx.check().unwrap());
        let (ours, _theirs) = pair();
        let writes = Count::new();
        let handlers = Handlers::new().read(|_| Ok(())).write(writes.callback());
        let token = ctx.set_fd_handler(ours, handlers).unwrap();
        token.set_interest(fdmon::Interest::READ).unwrap();
        assert_eq!(ctx.prepare().unwrap(), None);
        assert!(!outer.sleep(&ctx, Some(0)));
        assert!(!ctx.check().unwrap());
        token.set_interest(fdmon::Interest::WRITE).unwrap();
        assert_eq!(outer.turn(&ctx), (true, true));
        assert_eq!(writes.get(), 1);
        ctx.deregister(&token);
    }
}

/// SPEC 50
#[test]
fn the_backend_fd_is_stable_and_the_contexts_own() {
    let ctx = context();
    let fd = ctx.backend_fd().unwrap().as_raw_fd();
    let bells: Vec<_> = (0..80).map(|_| EventNotifier::new().unwrap()).collect();
    for bell in &bells {
        counted(&ctx, bell);
        assert_eq!(ctx.backend_fd().unwrap().as_raw_fd(), fd);
    }
    for bell in &bells {
        ctx.remove_fd_handler(bell.as_raw_fd());
    }
    assert_eq!(ctx.as_fd().as_raw_fd(), fd);
    let mut own = [PollFd::new(&ctx, PollFlags::IN)];
    assert_eq!(poll(&mut own, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap(), 0);
}

/// SPEC 50
#[test]
fn check_is_true_for_a_bottom_half_a_timer_and_a_hit_and_false_for_a_notification() {
    let (ctx, clock) = manual();
    let Outer::Ppoll = &Outer::all(&ctx)[0] else { unreachable!() };
    assert_eq!(ctx.prepare().unwrap(), None);
    ctx.remote().notify().unwrap();
    assert!(Outer::Ppoll.sleep(&ctx, None), "a notification wakes the outer loop");
    assert!(!ctx.check().unwrap());
    assert_eq!(ctx.prepare().unwrap(), None, "and is taken");
    assert!(!Outer::Ppoll.sleep(&ctx, Some(0)));
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    ctx.remote().schedule(&half.id()).unwrap();
    assert!(Outer::Ppoll.sleep(&ctx, None));
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    let timer = ctx.timer(|_| Ok(())).unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    assert_eq!(ctx.prepare().unwrap(), Some(1_000_000_000));
    assert!(!ctx.check().unwrap(), "not due yet");
    assert_eq!(ctx.prepare().unwrap(), Some(1_000_000_000));
    clock.advance_ns(1_000_000_000);
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    let (predicate, runs) = (Predicate::new(), Count::new());
    predicate.say(true);
    let handlers = Handlers::new().poll(predicate.clone()).poll_ready(predicate.taken(&runs));
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    assert_eq!(ctx.prepare().unwrap(), Some(0));
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    assert_eq!(runs.get(), 1);
}

/// SPEC 50
#[test]
fn prepare_twice_and_check_without_prepare_are_harmless() {
    let (ctx, _clock) = manual();
    let bell = EventNotifier::new().unwrap();
    let runs = counted(&ctx, &bell);
    assert!(!ctx.check().unwrap());
    for _ in 0..3 {
        assert_eq!(ctx.prepare().unwrap(), None);
    }
    bell.set().unwrap();
    assert!(ctx.check().unwrap());
    assert_eq!(ctx.prepare().unwrap(), Some(0), "what was found is not lost");
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    assert_eq!(runs.get(), 1);
    assert!(!ctx.check().unwrap());
    ctx.notify();
    assert_eq!(ctx.stats().notifies_sent, 0, "no bit is left in notify_me");
}

/// SPEC 50
#[test]
fn bare_turns_between_prepare_and_check_lose_nothing() {
    let (ctx, _clock) = manual();
    let bell = EventNotifier::new().unwrap();
    let runs = counted(&ctx, &bell);
    assert_eq!(ctx.prepare().unwrap(), None);
    bell.set().unwrap();
    assert!(ctx.poll(false).unwrap());
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    assert_eq!(runs.get(), 1);
}

/// SPEC 40, 50
#[test]
fn deadlines_below_a_millisecond_wake_the_outer_loop_through_the_watched_fd() {
    let ctx = context();
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    for outer in Outer::all(&ctx) {
        for micros in [1, 50, 300, 900] {
            let start = Instant::now();
            timer.arm(Duration::from_micros(micros)).unwrap();
            let ns = ctx.prepare().unwrap().unwrap();
            assert!(ns <= micros * 1_000);
            if ns > 0 {
                // An outer loop that cannot sleep that exactly sleeps for ever here.
                assert!(outer.sleep(&ctx, None));
            }
            assert!(start.elapsed() >= Duration::from_micros(micros), "early");
            assert!(ctx.check().unwrap());
            assert!(ctx.dispatch().unwrap());
            assert_eq!(fired.take(), 1);
            assert_eq!(ctx.prepare().unwrap(), None);
            assert!(!outer.sleep(&ctx, Some(0)), "the alarm is off again");
            ctx.check().unwrap();
        }
    }
}

/// SPEC 50
#[test]
fn a_thread_wakes_the_outer_loop() {
    let ctx = context();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    for outer in Outer::all(&ctx) {
        for _ in 0..20 {
            let (remote, id) = (ctx.remote(), half.id());
            let thread = std::thread::spawn(move || remote.schedule(&id).unwrap());
            while runs.get() == 0 {
                outer.turn(&ctx);
            }
            thread.join().unwrap();
            assert_eq!(runs.take(), 1);
        }
    }
}

/// SPEC 50
#[test]
fn prepare_spins_within_the_outer_loops_own_timeout() {
    let (ctx, clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let start = clock.now_ns();
    assert_eq!(ctx.prepare_within(Some(WINDOW / 2)).unwrap(), Some(0));
    assert_eq!(clock.now_ns() - start, WINDOW / 2);
    ctx.check().unwrap();
    let start = clock.now_ns();
    predicate.asked();
    assert_eq!(ctx.prepare_within(Some(0)).unwrap(), Some(0));
    assert_eq!((clock.now_ns() - start, predicate.asked()), (0, 1));
    ctx.check().unwrap();
    let start = clock.now_ns();
    assert_eq!(ctx.prepare_within(Some(3 * WINDOW)).unwrap(), Some(2 * WINDOW));
    assert_eq!(clock.now_ns() - start, WINDOW);
    assert!(!ctx.check().unwrap());
}

/// SPEC 50
#[test]
fn prepare_leaves_spin_mode_before_the_sleep_and_keeps_the_hits_of_the_last_round() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    let runs = member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    assert_eq!(ctx.prepare().unwrap(), None);
    assert_eq!((predicate.begins(), predicate.ends()), (1, 1));
    assert!(!ctx.check().unwrap());
    ctx.set_poll_params(spin()).unwrap();
    crate::support::warm(&ctx);
    let late = predicate.clone();
    predicate.on_end(move || late.say(true));
    assert_eq!(ctx.prepare().unwrap(), Some(0));
    assert!(!predicate.has_begun());
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    assert_eq!(runs.get(), 1);
}

/// SPEC 26, 50
#[test]
fn the_window_follows_the_time_from_prepare_to_check() {
    let (ctx, clock) = super::super::manual_with(spin());
    for window in [4_000, WINDOW] {
        let start = clock.now_ns();
        assert_eq!(ctx.prepare().unwrap(), None);
        clock.advance_ns(start + WINDOW - 1 - clock.now_ns()); // the outer loop sleeps
        ctx.check().unwrap();
        assert_eq!(ctx.stats().window_ns, window);
    }
    assert_eq!(ctx.prepare().unwrap(), None);
    clock.advance_ns(WINDOW + 1);
    ctx.check().unwrap();
    assert_eq!(ctx.stats().window_ns, 0);
}

/// SPEC 43, 50
#[test]
fn files_that_epoll_does_not_take_make_prepare_return_0() {
    let ctx = context();
    for outer in Outer::all(&ctx) {
        let runs = Count::new();
        let file = regular_file();
        let fd = file.as_raw_fd();
        ctx.set_fd_handler(file, Handlers::new().read(runs.callback())).unwrap();
        for turn in 1..=3 {
            assert_eq!(ctx.prepare().unwrap(), Some(0));
            assert!(ctx.check().unwrap());
            assert!(ctx.dispatch().unwrap());
            assert_eq!(runs.get(), turn);
        }
        ctx.remove_fd_handler(fd);
        assert_eq!(ctx.prepare().unwrap(), None);
        assert!(!outer.sleep(&ctx, Some(0)));
        ctx.check().unwrap();
    }
}

/// SPEC 13, 50
#[test]
fn a_closed_fd_does_not_keep_the_outer_loop_busy() {
    let ctx = context();
    for outer in Outer::all(&ctx) {
        let bell = rung(); // the duplicate keeps its file open
        let fd = private(&bell).into_raw_fd();
        ctx.set_fd_handler(by_number(fd), Handlers::new().read(|_| Ok(()))).unwrap();
        close_number(fd);
        ctx.prepare().unwrap();
        ctx.check().unwrap();
        assert_eq!(ctx.dispatch().is_err(), monitor() != MonitorKind::Epoll);
        ctx.remove_fd_handler(fd);
        for _ in 0..3 {
            outer_turn_quietly(&outer, &ctx);
        }
        assert_eq!(ctx.prepare().unwrap(), None);
        assert!(!outer.sleep(&ctx, Some(0)), "it wakes the outer loop for ever");
        ctx.check().unwrap();
    }
}

fn outer_turn_quietly(outer: &Outer, ctx: &AioContext) {
    ctx.prepare().unwrap();
    outer.sleep(ctx, Some(0));
    ctx.check().unwrap();
    let _ = ctx.dispatch();
}

/// SPEC 21, 50
#[test]
fn what_fails_in_prepare_is_reported_by_dispatch() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    predicate.on_poll(|| panic!("predicate"));
    assert_eq!(ctx.prepare().unwrap(), Some(0));
    assert!(ctx.check().unwrap());
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ctx.dispatch()));
    assert!(caught.is_err());
    predicate.on_poll(|| ());
    ctx.suspend().unwrap();
    assert!(!predicate.has_begun());
}

/// SPEC 43, 45, 50
#[test]
fn an_auto_context_is_on_epoll_once_it_is_embedded() {
    let ctx = AioContext::builder().monitor(MonitorKind::Auto).build().unwrap();
    if std::env::var_os("FDMON_MONITOR").is_some() {
        return;
    }
    let bell = rung();
    let runs = counted(&ctx, &bell);
    let fd = ctx.backend_fd().unwrap().as_raw_fd();
    assert_eq!(ctx.monitor(), MonitorKind::Epoll, "{}", ctx.monitor_reason());
    assert_eq!(Outer::Ppoll.turn(&ctx), (true, true));
    assert_eq!(runs.get(), 1);
    assert_eq!(ctx.backend_fd().unwrap().as_raw_fd(), fd);
    let asked = builder().build().unwrap();
    asked.backend_fd().unwrap();
    assert_eq!(asked.monitor(), monitor(), "one that was asked for stays");
}

/// SPEC 43, 45, 50
#[test]
fn an_auto_context_moves_to_epoll_also_when_it_is_embedded_from_within_a_callback() {
    if std::env::var_os("FDMON_MONITOR").is_some() {
        return;
    }
    let ctx = AioContext::builder().build().unwrap();
    let bell = rung();
    let runs = counted(&ctx, &bell);
    ctx.schedule(|ops| {
        ops.context().backend_fd()?;
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    runs.take();
    for outer in Outer::all(&ctx) {
        bell.set().unwrap();
        assert_eq!(outer.turn(&ctx), (true, true));
        assert_eq!(runs.take(), 1);
    }
    assert_eq!(ctx.monitor(), MonitorKind::Epoll, "{}", ctx.monitor_reason());
}

/// SPEC 40, 50
#[test]
fn an_outer_loop_that_sleeps_in_nanoseconds_keeps_longer_deadlines_too() {
    let ctx = context();
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    for outer in Outer::all(&ctx) {
        let start = Instant::now();
        timer.arm(Duration::from_micros(2_500)).unwrap();
        let mut turns = 0;
        while fired.get() == 0 {
            outer.turn(&ctx);
            turns += 1;
        }
        assert!(start.elapsed() >= Duration::from_micros(2_500));
        assert!(turns <= 4, "{turns} turns for one deadline");
        if on_time() {
            assert!(start.elapsed() < Duration::from_millis(100));
        }
        fired.take();
    }
}

/// An outer loop like libuv: it keeps no time, and `bell` is readable when it has work of its own.
fn within_another(ctx: &AioContext, bell: Option<&EventNotifier>) {
    let fd = bell.map(|bell| bell.as_fd().try_clone_to_owned().unwrap());
    ctx.set_outer_loop(OuterLoop { fd, keeps_no_time: true }).unwrap();
}

/// SPEC 50
#[test]
fn a_spin_ends_when_the_outer_loop_has_something_to_do_and_that_is_no_hit() {
    let longest = 5_000_000_000;
    let ctx = builder().poll(PollParams { max_ns: longest, ..spin() }).build().unwrap();
    let outside = EventNotifier::new().unwrap();
    within_another(&ctx, Some(&outside));
    let predicate = Predicate::new();
    let runs = member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    for _ in 0..2 {
        sleep_for(&ctx, 100_000);
    }
    assert_eq!(ctx.stats().window_ns, longest);
    for late in [false, true] {
        let before = ctx.stats();
        let ringer = outside.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(if late { 20 } else { 0 }));
            ringer.set().unwrap();
        });
        let start = Instant::now();
        assert_eq!(ctx.prepare().unwrap(), Some(0), "it has something else to do");
        assert!(start.elapsed() < Duration::from_nanos(longest));
        assert!(!ctx.check_if(false).unwrap());
        assert!(!ctx.dispatch().unwrap());
        let after = ctx.stats();
        assert_eq!(after.spin_hits, before.spin_hits);
        assert_eq!(after.spin_misses, before.spin_misses + 1);
        assert_eq!(after.window_ns, longest, "and no event");
        thread.join().unwrap();
        outside.test_and_clear().unwrap();
    }
    predicate.say(true);
    assert_eq!(ctx.prepare().unwrap(), Some(0));
    assert!(ctx.check_if(false).unwrap(), "a hit is one, whatever woke the outer loop");
    assert!(ctx.dispatch().unwrap());
    assert_eq!(runs.get(), 1);
}

/// SPEC 40, 50
#[test]
fn deadlines_of_an_outer_loop_that_keeps_no_time_are_in_the_watched_fd_however_far() {
    let ctx = context();
    within_another(&ctx, None);
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    for outer in Outer::all(&ctx) {
        for micros in [300, 3_000, 30_000] {
            let start = Instant::now();
            timer.arm(Duration::from_micros(micros)).unwrap();
            if ctx.prepare().unwrap() != Some(0) {
                assert!(outer.sleep(&ctx, None), "it never fires");
            }
            assert!(start.elapsed() >= Duration::from_micros(micros), "early");
            assert!(ctx.check_if(true).unwrap());
            assert!(ctx.dispatch().unwrap());
            assert_eq!(fired.take(), 1);
            assert_eq!(ctx.prepare().unwrap(), None);
            assert!(!outer.sleep(&ctx, Some(0)), "the alarm is off again");
            assert!(!ctx.check_if(false).unwrap());
        }
    }
}

/// SPEC 50
#[test]
fn an_expired_alarm_whose_timer_was_cancelled_does_not_go_on_waking() {
    let ctx = context();
    within_another(&ctx, None);
    let timer = ctx.timer(|_| Ok(())).unwrap();
    let set = || loop {
        timer.arm(Duration::from_millis(1)).unwrap();
        if ctx.prepare().unwrap() != Some(0) {
            return; // else it has expired already, and there is no alarm
        }
    };
    for outer in Outer::all(&ctx) {
        set();
        assert!(outer.sleep(&ctx, None));
        timer.cancel();
        assert!(!ctx.check_if(true).unwrap());
        assert_eq!(ctx.prepare().unwrap(), None);
        assert!(!outer.sleep(&ctx, Some(0)));
        assert!(!ctx.check_if(false).unwrap());
        // …nor while bottom halves keep the loop awake.
        set();
        assert!(outer.sleep(&ctx, None));
        timer.cancel();
        ctx.schedule(|_| Ok(())).unwrap();
        assert_eq!(ctx.prepare().unwrap(), Some(0));
        assert!(!outer.sleep(&ctx, Some(0)));
        assert!(ctx.check_if(false).unwrap());
        assert!(ctx.dispatch().unwrap());
    }
}

/// SPEC 50
#[test]
fn a_deadline_that_is_put_off_leaves_the_alarm_as_it_was_set() {
    let ctx = context();
    within_another(&ctx, None);
    let timer = ctx.timer(|_| Ok(())).unwrap();
    for outer in Outer::all(&ctx) {
        timer.arm(a_while(30)).unwrap();
        ctx.prepare().unwrap();
        ctx.check_if(false).unwrap();
        let start = Instant::now();
        for _ in 0..3 {
            timer.arm(Duration::from_secs(3600)).unwrap();
            assert!(ctx.prepare().unwrap() > Some(3_000_000_000_000));
            ctx.check_if(false).unwrap();
        }
        ctx.prepare().unwrap();
        assert!(outer.sleep(&ctx, None), "it rings for the deadline that was, once too often");
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(!ctx.check_if(true).unwrap());
        ctx.prepare().unwrap();
        assert!(!outer.sleep(&ctx, Some(0)), "and then for the one that is");
        ctx.check_if(false).unwrap();
        timer.cancel();
    }
}

/// SPEC 50
#[test]
fn a_deadline_beyond_the_outer_loops_own_is_kept_where_that_loop_keeps_no_time() {
    let ctx = context();
    let timer = ctx.timer(|_| Ok(())).unwrap();
    for keeps_no_time in [false, true] {
        ctx.set_outer_loop(OuterLoop { fd: None, keeps_no_time }).unwrap();
        for outer in Outer::all(&ctx) {
            timer.arm(Duration::from_millis(30)).unwrap();
            let ns = ctx.prepare_within(Some(5_000_000)).unwrap();
            assert!(ns <= Some(5_000_000));
            // It changes its mind, and sleeps for longer.
            let long = if keeps_no_time { None } else { Some(60_000_000) };
            assert_eq!(outer.sleep(&ctx, long), keeps_no_time);
            assert!(ctx.check_if(keeps_no_time).unwrap());
            assert!(ctx.dispatch().unwrap());
        }
    }
}

/// SPEC 26, 50
#[test]
fn wake_ups_of_the_outer_loop_for_something_else_do_not_widen_the_window() {
    let (ctx, clock) = super::super::manual_with(spin());
    within_another(&ctx, None);
    for _ in 0..10 {
        assert_eq!(ctx.prepare().unwrap(), None);
        clock.advance_ns(WINDOW / 20);
        assert!(!ctx.check_if(false).unwrap());
        assert_eq!(ctx.stats().window_ns, 0);
    }
    ctx.notify();
    assert_eq!(ctx.prepare().unwrap(), Some(0));
    assert!(!ctx.check_if(false).unwrap());
    assert_eq!(ctx.stats().window_ns, 4_000, "its own event does, and the time counts from before");
}

/// SPEC 26, 50
#[test]
fn a_long_wait_of_many_wake_ups_for_something_else_closes_the_window() {
    let (ctx, _clock) = spinning();
    within_another(&ctx, None);
    // On the clock of the test each spin is a whole window.
    assert_eq!(ctx.prepare().unwrap(), None);
    assert!(!ctx.check_if(false).unwrap());
    assert_eq!(ctx.stats().window_ns, WINDOW);
    assert_eq!(ctx.prepare().unwrap(), None);
    assert!(!ctx.check_if(false).unwrap());
    assert_eq!(ctx.stats().window_ns, 0);
}

/// SPEC 26, 50
#[test]
fn an_event_after_wake_ups_for_something_else_has_waited_all_that_time() {
    let (ctx, clock) = super::super::manual_with(spin());
    within_another(&ctx, None);
    let bell = EventNotifier::new().unwrap();
    let runs = counted(&ctx, &bell);
    let wait = |foreign: u32, each: u64| {
        for _ in 0..foreign {
            assert_eq!(ctx.prepare().unwrap(), None);
            clock.advance_ns(each);
            assert!(!ctx.check_if(false).unwrap());
        }
        assert_eq!(ctx.prepare().unwrap(), None);
        clock.advance_ns(each);
        bell.set().unwrap();
        assert!(ctx.check_if(true).unwrap());
        assert!(ctx.dispatch().unwrap());
        assert_eq!(runs.take(), 1);
        ctx.stats().window_ns
    };
    assert_eq!(wait(1, WINDOW * 3 / 5), 0, "more than the longest window in all");
    assert_eq!(wait(1, WINDOW * 2 / 5), 4_000);
    ctx.set_poll_params(spin()).unwrap();
    assert_eq!(wait(0, WINDOW * 3 / 5), 4_000, "alone it is short enough");
}

/// SPEC 50
#[test]
fn check_if_does_not_ask_the_kernel_when_the_fd_was_not_readable_and_loses_nothing() {
    let ctx = context();
    within_another(&ctx, None);
    let bell = EventNotifier::new().unwrap();
    let runs = counted(&ctx, &bell);
    for outer in Outer::all(&ctx) {
        assert_eq!(ctx.prepare().unwrap(), None);
        let waits = ctx.stats().waits;
        assert!(!ctx.check_if(false).unwrap());
        for _ in 0..10 {
            assert_eq!(ctx.prepare().unwrap(), None);
            assert!(!ctx.check_if(false).unwrap());
            assert!(!ctx.dispatch().unwrap());
        }
        assert_eq!(ctx.stats().waits, waits, "nothing was to be asked for");
        // An event that comes after the outer loop has looked is there when it looks again.
        ctx.prepare().unwrap();
        bell.set().unwrap();
        if ctx.check_if(false).unwrap() {
            ctx.dispatch().unwrap();
        }
        if runs.get() == 0 {
            let ns = ctx.prepare().unwrap();
            assert!(ns == Some(0) || outer.sleep(&ctx, None));
            assert!(ctx.check_if(true).unwrap());
            assert!(ctx.dispatch().unwrap());
        }
        assert_eq!(runs.take(), 1);
    }
}

/// SPEC 19, 50
#[test]
fn a_turn_of_its_own_between_prepare_and_check_if_loses_nothing() {
    let ctx = context();
    within_another(&ctx, None);
    let bell = EventNotifier::new().unwrap();
    let runs = counted(&ctx, &bell);
    let fired = Count::new();
    for readable in [false, true] {
        for blocking in [false, true] {
            assert_eq!(ctx.prepare().unwrap(), None);
            bell.set().unwrap();
            assert!(ctx.poll(blocking).unwrap());
            assert_eq!(runs.take(), 1);
            ctx.schedule(fired.callback()).unwrap();
            assert!(ctx.check_if(readable).unwrap());
            assert!(ctx.dispatch().unwrap());
            assert_eq!((runs.get(), fired.take()), (0, 1));
            // What another thread asks for meanwhile wakes it, before and after that turn.
            let half = ctx.bottom_half(fired.callback()).unwrap();
            ctx.prepare().unwrap();
            ctx.poll(false).unwrap();
            ctx.remote().schedule(&half.id()).unwrap();
            assert!(Outer::Ppoll.sleep(&ctx, None), "it sleeps through it");
            assert!(ctx.check_if(readable).unwrap());
            assert!(ctx.dispatch().unwrap());
            assert_eq!(fired.take(), 1);
            half.delete();
        }
    }
}

/// SPEC 50
#[test]
fn an_fd_is_heard_also_where_no_turn_of_a_series_is_to_sleep() {
    let ctx = context();
    within_another(&ctx, None);
    let bell = EventNotifier::new().unwrap();
    let runs = counted(&ctx, &bell);
    for _ in 0..3 {
        bell.set().unwrap();
        let mut heard = false;
        for _ in 0..100 {
            assert_eq!(ctx.prepare_until(Some(0)).unwrap(), Some(0));
            let watched = ctx.wake_fds().unwrap().events;
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            heard = poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&now)).unwrap() == 1;
            if ctx.check_if(heard).unwrap() {
                ctx.dispatch().unwrap();
            }
            if runs.take() == 1 {
                break;
            }
        }
        assert!(heard);
    }
}

/// SPEC 26, 50
#[test]
fn a_timer_of_its_own_is_an_event_also_where_the_outer_loop_slept_beyond_its_limit() {
    let (ctx, clock) = super::super::manual_with(spin());
    within_another(&ctx, None);
    let timer = ctx.timer(|_| Ok(())).unwrap();
    timer.arm(Duration::from_nanos(WINDOW / 2)).unwrap();
    let soon = ctx.now_ns() + WINDOW / 20;
    assert_eq!(ctx.prepare_until(Some(soon)).unwrap(), Some(WINDOW / 20));
    clock.advance_ns(WINDOW / 2);
    assert!(ctx.check_if(false).unwrap());
    assert!(ctx.dispatch().unwrap());
    assert_eq!(ctx.stats().window_ns, 4_000);
}
