//! Random operations from everywhere, against what must hold whatever happens: no callback of what
//! is gone, none inside another of its handler, begin and end balanced, nothing lost, no panic.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use fdmon::{
    AioContext, BottomHalf, EventNotifier, Handlers, Interest, Ops, PolicyKind, PollParams,
    PollSource, Timer, Token,
};

use crate::support::{WINDOW, spin};

const FDS: usize = 6;
const DEEPEST: u32 = 4;

/// One registration, as the test sees it.
#[derive(Default)]
struct Life {
    gone: Cell<bool>,
    inside: Cell<bool>,
    begun: Cell<bool>,
    external: bool,
    wanted: Cell<bool>,
}

struct World {
    ctx: AioContext,
    seed: Cell<u64>,
    bells: Vec<EventNotifier>,
    /// Set by the "producer", taken by the handler.
    words: Vec<Rc<Cell<bool>>>,
    lives: RefCell<Vec<Option<Rc<Life>>>>,
    tokens: RefCell<Vec<Option<Token<EventNotifier>>>>,
    halves: RefCell<Vec<BottomHalf>>,
    timers: RefCell<Vec<Timer>>,
    depth: Cell<u32>,
    disabled: Cell<u32>,
    runs: Cell<u64>,
    /// No more random operations: what is pending only drains.
    calm: Cell<bool>,
}

impl World {
    fn new(seed: u64, spins: bool) -> Rc<Self> {
        let clock = fdmon::ManualClock::new();
        let mut builder = super::builder().manual_clock(clock.clone());
        if spins {
            let policies =
                [PolicyKind::Classic, PolicyKind::Cost, PolicyKind::PerHandler, PolicyKind::Fixed];
            let policy = policies[(seed >> 32) as usize % policies.len()];
            builder = builder.poll(PollParams { policy, ..spin() });
            clock.set_step_ns(500);
        }
        let world = Rc::new(Self {
            ctx: builder.build().unwrap(),
            seed: Cell::new(seed),
            bells: (0..FDS).map(|_| EventNotifier::new().unwrap()).collect(),
            words: (0..FDS).map(|_| Rc::default()).collect(),
            lives: RefCell::new(vec![None; FDS]),
            tokens: RefCell::new((0..FDS).map(|_| None).collect()),
            halves: RefCell::default(),
            timers: RefCell::default(),
            depth: Cell::new(0),
            disabled: Cell::new(0),
            runs: Cell::new(0),
            calm: Cell::new(false),
        });
        for _ in 0..3 {
            let weak = Rc::downgrade(&world);
            let half = world.ctx.bottom_half(move |_| act(&weak)).unwrap();
            world.halves.borrow_mut().push(half);
            let weak = Rc::downgrade(&world);
            let timer = world.ctx.timer(move |_| act(&weak)).unwrap();
            world.timers.borrow_mut().push(timer);
        }
        world
    }

    fn random(&self, below: u64) -> u64 {
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed.set(x);
        (x >> 11) % below
    }

    fn end_life(&self, at: usize) {
        if let Some(life) = self.lives.borrow_mut()[at].take() {
            life.gone.set(true);
        }
        self.tokens.borrow_mut()[at] = None;
    }

    fn register(self: &Rc<Self>, at: usize) {
        let life = Rc::new(Life {
            external: self.random(4) == 0,
            wanted: Cell::new(true),
            ..Life::default()
        });
        let callback = || {
            let (weak, life) = (Rc::downgrade(self), life.clone());
            move |_: &mut Ops<'_>| enter(&weak, &life, at)
        };
        let mut handlers = Handlers::new().external(life.external).read(callback());
        match self.random(4) {
            0 => {}
            1 => handlers = handlers.poll_kernel(),
            _ => {
                let source = Spun(Rc::downgrade(self), life.clone(), self.words[at].clone());
                handlers = handlers.poll(source).poll_ready(callback());
            }
        }
        // The old one is gone as soon as the call is made: nothing of it runs after, but its
        // poll_end. And that may register the fd as well, which is replaced in turn.
        self.end_life(at);
        let token = self.ctx.set_fd_handler(self.bells[at].clone(), handlers).unwrap();
        self.end_life(at);
        self.lives.borrow_mut()[at] = Some(life);
        self.tokens.borrow_mut()[at] = Some(token);
    }

    /// One thing that user code may do anywhere.
    fn step(self: &Rc<Self>) {
        if self.calm.get() {
            return;
        }
        let at = self.random(FDS as u64) as usize;
        match self.random(16) {
            0 | 1 => self.register(at),
            2 => {
                self.end_life(at);
                self.ctx.remove_fd_handler(self.bells[at].as_raw_fd());
            }
            3 => {
                let token = self.tokens.borrow_mut()[at].take();
                if let Some(token) = token {
                    self.end_life(at);
                    drop(self.ctx.deregister(&token));
                }
            }
            4 => self.interest(at),
            5..=7 => self.produce(at),
            8 if self.depth.get() < DEEPEST => {
                self.depth.set(self.depth.get() + 1);
                self.ctx.poll(false).unwrap();
                self.depth.set(self.depth.get() - 1);
            }
            9 if self.depth.get() < DEEPEST => {
                self.depth.set(self.depth.get() + 1);
                self.sleep();
                self.depth.set(self.depth.get() - 1);
            }
            10 => {
                let halves = self.halves.borrow();
                let half = &halves[self.random(3) as usize];
                match self.random(4) {
                    0 => half.cancel(),
                    1 => half.schedule_idle(),
                    _ => half.schedule(),
                }
            }
            11 => {
                let timers = self.timers.borrow();
                let timer = &timers[self.random(3) as usize];
                match self.random(4) {
                    0 => timer.cancel(),
                    _ => timer.arm(Duration::from_nanos(self.random(2 * WINDOW))).unwrap(),
                }
            }
            12 => match self.random(2) {
                0 => {
                    self.disabled.set(self.disabled.get() + 1);
                    self.ctx.disable_external();
                }
                _ => {
                    self.disabled.set(self.disabled.get().saturating_sub(1));
                    self.ctx.enable_external();
                }
            },
            13 => self.ctx.suspend().unwrap(),
            14 => self.ctx.notify(),
            _ => {}
        }
    }

    fn interest(&self, at: usize) {
        let tokens = self.tokens.borrow();
        if let (Some(token), Some(life)) = (&tokens[at], &self.lives.borrow()[at]) {
            let wanted = self.random(2) == 0;
            life.wanted.set(wanted);
            let interest = if wanted { Interest::READ } else { Interest::empty() };
            assert!(token.set_interest(interest).unwrap());
        }
    }

    /// Data for a handler; without a signal only where it was told that none is needed.
    fn produce(&self, at: usize) {
        self.words[at].set(true);
        let suppressed = self.lives.borrow()[at].as_ref().is_some_and(|life| life.begun.get());
        if !suppressed {
            self.bells[at].set().unwrap();
        }
    }

    fn sleep(&self) {
        let limit = self.ctx.timer(|_| Ok(())).unwrap();
        limit.arm(Duration::from_nanos(self.random(3 * WINDOW))).unwrap();
        self.ctx.poll(true).unwrap();
        limit.delete();
    }
}

/// A predicate that checks when it is asked, and sometimes misbehaves a little.
struct Spun(Weak<World>, Rc<Life>, Rc<Cell<bool>>);

impl PollSource for Spun {
    fn poll(&self) -> bool {
        assert!(!self.1.gone.get(), "asked although it is gone");
        assert!(!self.1.inside.get(), "asked while its callback runs");
        self.2.get()
    }

    fn poll_begin(&mut self) {
        assert!(!self.1.gone.get(), "begun although it is gone");
        assert!(!self.1.begun.replace(true), "begun twice");
        self.meddle();
    }

    fn poll_end(&mut self) {
        assert!(self.1.begun.replace(false), "ended without a begin");
        self.meddle();
    }
}

impl Spun {
    /// Anything but a turn, which would take the timer that limits the sleep of the one around.
    fn meddle(&self) {
        let Some(world) = self.0.upgrade() else { return };
        if world.random(8) == 0 {
            let depth = world.depth.replace(DEEPEST);
            world.step();
            world.depth.set(depth);
        }
    }
}

fn enter(world: &Weak<World>, life: &Rc<Life>, at: usize) -> fdmon::Outcome {
    let world = world.upgrade().unwrap();
    assert!(!life.gone.get(), "ran although it is gone");
    assert!(!life.inside.replace(true), "entered while it runs");
    assert!(!life.external || world.disabled.get() == 0, "ran although it is disabled");
    world.runs.set(world.runs.get() + 1);
    world.words[at].set(false);
    world.bells[at].test_and_clear()?;
    for _ in 0..world.random(4) {
        world.step();
    }
    life.inside.set(false);
    Ok(())
}

fn act(world: &Weak<World>) -> fdmon::Outcome {
    if let Some(world) = world.upgrade() {
        for _ in 0..world.random(4) {
            world.step();
        }
    }
    Ok(())
}

fn live(seed: u64, spins: bool) -> u64 {
    let world = World::new(seed, spins);
    for _ in 0..200 {
        world.step();
        world.step();
        match world.random(3) {
            0 => drop(world.ctx.poll(false).unwrap()),
            _ => world.sleep(),
        }
    }
    // Everything that is still registered and wanted hears what is still to be heard.
    world.calm.set(true);
    while world.disabled.get() > 0 {
        world.disabled.set(world.disabled.get() - 1);
        world.ctx.enable_external();
    }
    world.ctx.suspend().unwrap();
    for (at, life) in world.lives.borrow().iter().enumerate() {
        assert!(life.as_ref().is_none_or(|life| !life.begun.get()), "begun although suspended");
        world.produce(at);
    }
    for _ in 0..10 {
        world.ctx.poll(false).unwrap();
    }
    for (at, life) in world.lives.borrow().iter().enumerate() {
        let heard = !world.words[at].get();
        let listens = life.as_ref().is_some_and(|life| life.wanted.get());
        assert!(heard || !listens, "fd {at} lost an event");
    }
    let registered = world.lives.borrow().iter().flatten().count();
    assert_eq!(world.ctx.stats().handlers.len(), registered);
    let lives: Vec<_> = world.lives.borrow().iter().flatten().cloned().collect();
    assert_eq!(world.ctx.close().handlers as usize, registered);
    assert!(lives.iter().all(|life| !life.begun.get()), "begun although closed");
    world.runs.get()
}

fn many(spins: bool) {
    let mut runs = 0;
    for seed in 1..=seeds() {
        let held = std::panic::catch_unwind(|| live(seed * 0x9e37_79b9, spins));
        match held {
            Ok(more) => runs += more,
            Err(cause) => {
                let what = cause
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or(cause.downcast_ref::<&str>().copied());
                panic!("seed {seed}: {what:?}");
            }
        }
    }
    assert!(runs > seeds() * 50, "only {runs} callbacks ran");
}

/// `FDMON_SEEDS=1000` looks longer.
fn seeds() -> u64 {
    std::env::var("FDMON_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// SPEC 3, 7, 8, 10, 14, 19, 20
#[test]
fn whatever_is_done_from_wherever_the_rules_hold() {
    many(false);
}

/// SPEC 3, 10, 11, 14, 19, 22, 25
#[test]
fn whatever_is_done_from_wherever_the_rules_hold_while_spinning() {
    many(true);
}
