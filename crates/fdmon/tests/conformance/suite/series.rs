//! Series of spins and hits: what no predicate covers is not starved.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use fdmon::{AioContext, EventNotifier, Handlers, ManualClock};

use super::{sees_readiness, spinning};
use crate::support::{Count, Predicate, fill, pair};

/// Within this, whatever is ready runs.
const LOOK_NS: u64 = 50_000;
/// So long takes a turn here.
const TURN_NS: u64 = 10_000;

/// A handler that hits in every turn and writes; its socket is writable only when told so.
struct Busy {
    ctx: AioContext,
    clock: ManualClock,
    writes: Count,
    /// Reading here makes the socket writable.
    theirs: OwnedFd,
}

fn busy(write: bool) -> Busy {
    let (ctx, clock) = spinning();
    let (ours, theirs) = pair();
    fill(&ours);
    let (predicate, writes) = (Predicate::new(), Count::new());
    predicate.say(true);
    let handlers = Handlers::new().read(|_| Ok(())).poll(predicate).poll_ready(|_| Ok(()));
    let handlers = if write { handlers.write(writes.callback()) } else { handlers };
    ctx.set_fd_handler(ours, handlers).unwrap();
    let busy = Busy { ctx, clock, writes, theirs };
    busy.turns(3, true);
    busy
}

impl Busy {
    fn turns(&self, turns: u32, blocking: bool) {
        for _ in 0..turns {
            assert!(self.ctx.poll(blocking).unwrap());
            self.clock.advance_ns(TURN_NS);
        }
    }

    /// Turns until this has happened; nanoseconds.
    fn until(&self, blocking: bool, happened: impl Fn() -> bool) -> u64 {
        let start = self.clock.now_ns();
        for _ in 0..1000 {
            self.turns(1, blocking);
            if happened() {
                return self.clock.now_ns() - start;
            }
        }
        panic!("starved");
    }
}

/// SPEC 18
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn write_interest_is_served_in_a_series_of_hits() {
    for blocking in [true, false] {
        let busy = busy(true);
        crate::support::empty(&busy.theirs);
        let took = busy.until(blocking, || busy.writes.get() > 0);
        assert!(took <= LOOK_NS + TURN_NS, "blocking: {blocking}, after {took} ns");
        busy.writes.take();
        busy.turns(100, blocking);
        let writes = busy.writes.get();
        assert!(writes >= 100 / 6, "once in {LOOK_NS} ns, so not {writes} times in 100 turns");
    }
}

/// SPEC 18
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn a_series_of_hits_asks_the_kernel_once_in_50_microseconds() {
    let busy = busy(true);
    let before = busy.ctx.stats();
    busy.turns(1000, true);
    let after = busy.ctx.stats();
    assert_eq!(after.sleeps, before.sleeps);
    let waits = after.waits - before.waits;
    if sees_readiness() {
        assert_eq!(waits, 0);
    } else {
        assert!((166..=200).contains(&waits), "{waits} in 1000 turns of 10 µs");
    }
}

/// SPEC 18
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn a_hang_up_is_noticed_in_a_series_of_hits() {
    let (ctx, clock) = spinning();
    let (ours, theirs) = pair();
    let predicate = Predicate::new();
    predicate.say(true);
    let hung_up = Count::new();
    let handlers = Handlers::new().read(hung_up.callback()).poll(predicate).poll_ready(|_| Ok(()));
    ctx.set_fd_handler(ours, handlers).unwrap();
    let busy = Busy { ctx, clock, writes: Count::new(), theirs: pair().0 };
    busy.turns(10, true);
    assert_eq!(hung_up.get(), 0);
    drop(theirs);
    let took = busy.until(true, || hung_up.get() > 0);
    assert!(took <= LOOK_NS + TURN_NS, "after {took} ns");
}

/// SPEC 9, 18
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn a_handler_that_is_not_on_the_spin_list_is_not_starved_by_hits() {
    for blocking in [true, false] {
        for plain in [true, false] {
            if plain && blocking {
                continue; // it turns spinning into waiting, so there is no series
            }
            let busy = busy(false);
            let bell = EventNotifier::new().unwrap();
            let runs = Count::new();
            let mut handlers = Handlers::new().read(runs.callback());
            if !plain {
                handlers = handlers.poll(Predicate::new()).poll_ready(|_| Ok(()));
            }
            busy.ctx.set_fd_handler(bell.clone(), handlers).unwrap();
            busy.turns(10, blocking);
            bell.set().unwrap();
            let took = busy.until(blocking, || runs.get() > 0);
            assert!(took <= LOOK_NS + TURN_NS, "{blocking} {plain}: after {took} ns");
        }
    }
}

/// A context with one member that hangs up; each turn is made busy by something else.
fn noticed(mut each_turn: impl FnMut(&AioContext, &Predicate)) -> u64 {
    let (ctx, clock) = spinning();
    let (ours, theirs) = pair();
    let (predicate, hung_up) = (Predicate::new(), Count::new());
    let counter = hung_up.clone();
    let handlers = Handlers::new()
        .read(move |_| {
            counter.bump();
            Ok(())
        })
        .poll(predicate.clone())
        .poll_ready(predicate.taken(&Count::new()));
    ctx.set_fd_handler(ours, handlers).unwrap();
    predicate.say(true);
    assert!(ctx.poll(true).unwrap());
    for _ in 0..10 {
        each_turn(&ctx, &predicate);
        ctx.poll(true).unwrap();
        clock.advance_ns(TURN_NS);
    }
    assert_eq!(hung_up.get(), 0);
    drop(theirs);
    let start = clock.now_ns();
    for _ in 0..1000 {
        each_turn(&ctx, &predicate);
        ctx.poll(true).unwrap();
        clock.advance_ns(TURN_NS);
        if hung_up.get() > 0 {
            return clock.now_ns() - start;
        }
    }
    panic!("starved");
}

/// SPEC 18, 23
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn spins_that_notifications_end_starve_nobody() {
    let took = noticed(|ctx, predicate| {
        let (remote, once) = (ctx.remote(), Rc::new(Cell::new(true)));
        predicate.on_poll(move || {
            if once.take() {
                remote.notify().unwrap();
            }
        });
    });
    assert!(took <= LOOK_NS + TURN_NS, "after {took} ns");
}

/// SPEC 18
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn blocking_turns_that_bottom_halves_keep_awake_starve_nobody() {
    let took = noticed(|ctx, _| ctx.schedule(|_| Ok(())).unwrap());
    assert!(took <= LOOK_NS + TURN_NS, "after {took} ns");
}

/// SPEC 18
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn blocking_turns_whose_timers_are_due_starve_nobody() {
    let timers = Rc::new(Cell::new(None));
    let took = noticed(|ctx, _| {
        let timer = ctx.timer(|_| Ok(())).unwrap();
        timer.arm(std::time::Duration::ZERO).unwrap();
        timers.set(Some(timer));
    });
    assert!(took <= LOOK_NS + TURN_NS, "after {took} ns");
}
