//! Idle removal, and what a wake-up takes, through whole turns. Only monitors that see readiness without a system call take
//! idle members off the spin list; here poll and epoll are told to do it as well.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use crate::{
    AioContext, EventNotifier, Handlers, ManualClock, MonitorKind, PolicyKind, PollParams,
    PollSource,
};

/// Members without a hit for this long leave.
const IDLE_NS: u64 = 7_000_000_000;
const WINDOW: u64 = 100_000;

type Log = Rc<RefCell<Vec<&'static str>>>;

/// A predicate that says what it is told to say and writes down what is asked of it.
#[derive(Clone, Default)]
struct Told {
    says: Rc<Cell<bool>>,
    /// Says yes once `poll_end` was called.
    late: Rc<Cell<bool>>,
    log: Log,
}

impl PollSource for Told {
    fn poll(&self) -> bool {
        self.log.borrow_mut().push("poll");
        self.says.get()
    }

    fn poll_begin(&mut self) {
        self.log.borrow_mut().push("begin");
    }

    fn poll_end(&mut self) {
        self.log.borrow_mut().push("end");
        self.says.set(self.says.get() || self.late.take());
    }
}

struct Scene {
    ctx: AioContext,
    clock: ManualClock,
    bell: EventNotifier,
    told: Told,
}

fn scene(kind: MonitorKind, idle_ns: u64, sweep: bool) -> Scene {
    let clock = ManualClock::new();
    let params = PollParams {
        max_ns: WINDOW,
        grow: u32::MAX,
        policy: PolicyKind::Classic,
        idle_ns,
        guards: false,
        ..Default::default()
    };
    let ctx = AioContext::builder().monitor(kind).poll(params).manual_clock(clock.clone()).build();
    let (ctx, bell, told) = (ctx.unwrap(), EventNotifier::new().unwrap(), Told::default());
    ctx.0.state().spin.sweep_anyway = sweep;
    let (clear, quiet, log) = (bell.clone(), told.says.clone(), told.log.clone());
    let (taken, ready) = (told.says.clone(), told.log.clone());
    let handlers = Handlers::new()
        .read(move |_| {
            clear.test_and_clear()?;
            quiet.set(false);
            log.borrow_mut().push("read");
            Ok(())
        })
        .poll(told.clone())
        .poll_ready(move |_| {
            taken.set(false);
            ready.borrow_mut().push("ready");
            Ok(())
        });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let scene = Scene { ctx, clock, bell, told };
    scene.sleep(WINDOW - 1);
    scene.sleep(WINDOW - 1);
    scene.bell.set().unwrap();
    assert!(scene.ctx.poll(true).unwrap()); // joins
    assert!(scene.polling());
    scene
}

impl Scene {
    /// A blocking turn that a timer ends.
    fn sleep(&self, ns: u64) {
        let timer = self.ctx.timer(|_| Ok(())).unwrap();
        timer.arm(Duration::from_nanos(ns)).unwrap();
        self.ctx.poll(true).unwrap();
    }

    /// Spins that find nothing, for this long in all.
    fn idle_for(&self, ns: u64) {
        let until = self.clock.now_ns() + ns;
        while self.clock.now_ns() < until {
            let left = until - self.clock.now_ns();
            // Longer sleeps would close the window.
            self.clock.advance_ns(left.saturating_sub(WINDOW).min(IDLE_NS / 50));
            self.sleep((WINDOW - 1).min(until - self.clock.now_ns()).max(1));
        }
    }

    fn polling(&self) -> bool {
        let fd = self.bell.as_raw_fd();
        self.ctx.stats().handlers.iter().any(|handler| handler.fd == fd && handler.polling)
    }

    fn log(&self) -> Vec<&'static str> {
        self.told.log.take()
    }

    /// Begin and end as the last calls of each kind say.
    fn begun(&self, log: &[&str]) -> bool {
        log.iter().rev().find(|what| ["begin", "end"].contains(what)) == Some(&"begin")
    }
}

const MONITORS: [MonitorKind; 2] = [MonitorKind::Poll, MonitorKind::Epoll];

/// SPEC 29
#[test]
fn a_member_without_a_hit_for_idle_ns_leaves_the_spin_list() {
    for kind in MONITORS {
        let scene = scene(kind, IDLE_NS, true);
        scene.idle_for(IDLE_NS / 2);
        assert!(scene.polling());
        scene.idle_for(IDLE_NS);
        assert!(!scene.polling());
        let log = scene.log();
        assert!(!scene.begun(&log), "{log:?}");
        scene.idle_for(IDLE_NS);
        assert!(!scene.log().contains(&"poll"), "it is not asked any more");
    }
}

/// SPEC 29
#[test]
fn leaving_calls_poll_end_if_it_had_begun_and_then_one_last_predicate() {
    for kind in MONITORS {
        let scene = scene(kind, IDLE_NS, true);
        scene.clock.advance_ns(2 * IDLE_NS);
        scene.log();
        // One spin: begins, asks, and leaves when the sweep finds it idle.
        scene.sleep(WINDOW - 1);
        assert!(!scene.polling());
        assert_eq!(scene.log(), ["begin", "poll", "end", "poll"]);
    }
}

/// SPEC 29
#[test]
fn a_hit_of_the_last_predicate_runs_but_does_not_bring_it_back() {
    for kind in MONITORS {
        let scene = scene(kind, IDLE_NS, true);
        scene.clock.advance_ns(2 * IDLE_NS);
        scene.told.late.set(true);
        scene.log();
        scene.sleep(WINDOW - 1);
        assert_eq!(scene.log(), ["begin", "poll", "end", "poll", "ready"]);
        assert!(!scene.polling());
        // It comes back when it is dispatched the next time.
        scene.bell.set().unwrap();
        scene.ctx.poll(true).unwrap();
        assert!(scene.log().contains(&"read"));
        assert!(scene.polling());
    }
}

/// SPEC 29
#[test]
fn a_member_that_hits_now_and_then_stays() {
    for kind in MONITORS {
        for blocking in [true, false] {
            let scene = scene(kind, IDLE_NS, true);
            for _ in 0..10 {
                scene.idle_for(IDLE_NS * 3 / 4);
                assert!(scene.polling(), "blocking: {blocking}");
                scene.told.says.set(true);
                assert!(scene.ctx.poll(blocking).unwrap());
            }
        }
    }
}

/// SPEC 22, 29
#[test]
fn one_that_joins_after_a_long_time_of_non_blocking_turns_has_its_full_time() {
    for kind in MONITORS {
        let scene = scene(kind, IDLE_NS, true);
        scene.idle_for(2 * IDLE_NS);
        assert!(!scene.polling());
        for _ in 0..100 {
            scene.clock.advance_ns(IDLE_NS / 10);
            scene.ctx.poll(false).unwrap();
        }
        scene.bell.set().unwrap();
        assert!(scene.ctx.poll(false).unwrap());
        assert!(scene.polling());
        scene.idle_for(IDLE_NS / 2);
        assert!(scene.polling(), "it has just had an event");
    }
}

/// SPEC 29
#[test]
fn the_time_is_a_parameter() {
    for kind in MONITORS {
        let scene = scene(kind, 1_000_000, true);
        scene.idle_for(3_000_000);
        assert!(!scene.polling());
    }
}

/// SPEC 29
#[test]
fn on_monitors_that_do_not_see_readiness_nobody_leaves() {
    for kind in MONITORS {
        let scene = scene(kind, IDLE_NS, false);
        scene.idle_for(3 * IDLE_NS);
        assert!(scene.polling());
    }
}

/// SPEC 27: each reading of the clock takes a while here, and a turn that sleeps reads it later than
/// one that spins to the same deadline.
#[test]
fn what_a_wake_up_takes_is_learned_from_turns_that_sleep_and_turns_that_spin() {
    for kind in MONITORS {
        let clock = ManualClock::new();
        clock.set_step_ns(50);
        let params = PollParams { max_ns: 32_768, guards: false, ..Default::default() };
        let builder = AioContext::builder().monitor(kind).poll(params).manual_clock(clock);
        let ctx = builder.build().unwrap();
        let timer = ctx.timer(|_| Ok(())).unwrap();
        let turns = |turns| {
            for _ in 0..turns {
                timer.arm(Duration::from_nanos(3000)).unwrap();
                ctx.poll(true).unwrap();
            }
            ctx.stats()
        };
        assert_eq!(turns(8).wake_up_ns, 0, "that is assumed");
        let stats = turns(200);
        assert!((1..500).contains(&stats.wake_up_ns), "{kind:?}: {}", stats.wake_up_ns);
        assert!(stats.sleeps < 20, "{kind:?}: few turns sleep to find out: {}", stats.sleeps);
    }
}
