//! Random moves, requests and closes among contexts, from everywhere where user code runs, against
//! what must hold whatever happens: a handler runs on one context at a time and on none once its
//! removal is acknowledged, begin and end are balanced, nothing and nobody is lost.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use fdmon::{
    Ack, AioContext, EventNotifier, Interest, Left, Moved, Ops, Outcome, Registered, Remote,
    SendToken, Source,
};

use crate::support::{WINDOW, spin};

const CONTEXTS: usize = 3;
const ROVERS: usize = 4;
const DEEPEST: u32 = 4;

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// What is known of a rover wherever it is.
#[derive(Default)]
struct Life {
    inside: AtomicBool,
    begun: AtomicBool,
    /// Set by the "producer", taken by the handler.
    word: AtomicBool,
    dropped: AtomicU32,
}

/// A handler that goes from context to context.
struct Rover {
    at: usize,
    bell: EventNotifier,
    life: Arc<Life>,
}

/// Where a rover is, as far as it was acknowledged.
enum Place {
    /// Here: no context has it.
    Free(Rover),
    On(SendToken<Rover>),
    Coming(Ack<Registered<Rover>>),
    Going(Ack<fdmon::Result<Option<Rover>>>),
    /// With the context that it does not run on any more unless it comes back, if that is certain.
    Moving(Ack<Moved<Rover>>, Option<u64>),
    /// Somebody is just about to change this.
    Changing,
}

struct World {
    seed: Cell<u64>,
    spins: bool,
    contexts: RefCell<Vec<Rc<AioContext>>>,
    places: RefCell<Vec<Place>>,
    lives: Vec<Arc<Life>>,
    bells: Vec<EventNotifier>,
    depth: Cell<u32>,
    calm: Cell<bool>,
    runs: Cell<u64>,
    moves: Cell<u64>,
}

fn world() -> Rc<World> {
    WORLD.with_borrow(|world| world.clone().expect("the test goes on"))
}

fn built(spins: bool) -> Rc<AioContext> {
    let clock = fdmon::ManualClock::new();
    let mut builder = super::builder().manual_clock(clock.clone());
    if spins {
        builder = builder.poll(spin());
        clock.set_step_ns(500);
    }
    Rc::new(builder.build().unwrap())
}

impl World {
    fn new(seed: u64, spins: bool) -> Rc<Self> {
        let lives: Vec<_> = (0..ROVERS).map(|_| Arc::<Life>::default()).collect();
        let bells: Vec<_> = (0..ROVERS).map(|_| EventNotifier::new().unwrap()).collect();
        let rover = |at: usize| Rover { at, bell: bells[at].clone(), life: lives[at].clone() };
        Rc::new(Self {
            seed: Cell::new(seed),
            spins,
            contexts: RefCell::new((0..CONTEXTS).map(|_| built(spins)).collect()),
            places: RefCell::new((0..ROVERS).map(|at| Place::Free(rover(at))).collect()),
            lives,
            bells,
            depth: Cell::new(0),
            calm: Cell::new(false),
            runs: Cell::new(0),
            moves: Cell::new(0),
        })
    }

    fn random(&self, below: u64) -> u64 {
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed.set(x);
        (x >> 11) % below
    }

    fn context(&self) -> Rc<AioContext> {
        let at = self.random(CONTEXTS as u64) as usize;
        self.contexts.borrow()[at].clone()
    }

    /// One of the world's own contexts, by its id.
    fn home(&self, id: u64) -> Option<Rc<AioContext>> {
        self.contexts.borrow().iter().find(|ctx| ctx.id() == id).cloned()
    }

    fn take(&self, at: usize) -> Place {
        std::mem::replace(&mut self.places.borrow_mut()[at], Place::Changing)
    }

    fn put(&self, at: usize, place: Place) {
        let old = std::mem::replace(&mut self.places.borrow_mut()[at], place);
        assert!(matches!(old, Place::Changing), "rover {at} is in two places");
    }

    /// A rover that was released with its context is built anew.
    fn anew(&self, at: usize) -> Place {
        let life = self.lives[at].clone();
        assert_eq!(life.dropped.swap(0, Ordering::SeqCst), 1, "rover {at} is lost");
        assert!(!life.begun.load(Ordering::SeqCst), "rover {at} was dropped begun");
        Place::Free(Rover { at, bell: self.bells[at].clone(), life })
    }

    /// Notes the answers that have come.
    fn settle(&self, at: usize) {
        let place = match self.take(at) {
            Place::Coming(mut ack) => match ack.try_take() {
                Some(Ok(token)) => Place::On(token),
                Some(Err((error, rover))) => {
                    assert!(error.is_closed(), "{error}");
                    Place::Free(rover)
                }
                None => Place::Coming(ack),
            },
            Place::Going(mut ack) => match ack.try_take() {
                Some(Ok(Some(rover))) => Place::Free(rover),
                Some(Ok(None)) => panic!("rover {at} was on its context"),
                Some(Err(error)) => {
                    assert!(error.is_closed(), "{error}");
                    self.anew(at)
                }
                None => Place::Going(ack),
            },
            Place::Moving(mut ack, old) => match ack.try_take() {
                Some(Ok(token)) => Place::On(token),
                Some(Err(failed)) => {
                    assert!(failed.error.is_closed(), "{failed}");
                    match failed.left {
                        Left::Registered(token) => Place::On(token),
                        Left::Source(rover) => Place::Free(rover),
                        Left::Gone => self.anew(at),
                    }
                }
                None => Place::Moving(ack, old),
            },
            // Released with a context that has closed; inside a callback of it, when that returns.
            Place::On(token) => {
                let gone = Remote::from_id(token.context_id()).is_err();
                if gone && self.lives[at].dropped.load(Ordering::SeqCst) == 1 {
                    self.anew(at)
                } else {
                    Place::On(token)
                }
            }
            other => other,
        };
        if let Place::Free(rover) = &place {
            assert!(!rover.life.begun.load(Ordering::SeqCst), "rover {at} has not ended");
            assert!(!rover.life.inside.load(Ordering::SeqCst), "rover {at} still runs");
        }
        self.put(at, place);
    }

    /// Registers it, moves it or takes it away, from here or by a request.
    fn send(&self, at: usize) {
        if matches!(self.places.borrow()[at], Place::Changing) {
            return; // a hook of this very change
        }
        self.settle(at);
        let (target, afar) = (self.context(), self.random(2) == 0);
        let inside = self.lives[at].inside.load(Ordering::SeqCst);
        let place = match self.take(at) {
            Place::Free(rover) if afar => Place::Coming(target.remote().register_send(rover)),
            Place::Free(rover) => match target.register(rover) {
                Ok(token) => Place::On(token.to_send()),
                Err((error, rover)) => {
                    assert!(error.is_closed(), "{error}");
                    Place::Free(rover)
                }
            },
            Place::On(token) => self.send_on(token, &target, afar, inside),
            other => other,
        };
        self.put(at, place);
    }

    fn send_on(
        &self,
        token: SendToken<Rover>,
        target: &AioContext,
        afar: bool,
        inside: bool,
    ) -> Place {
        let Some(home) = self.home(token.context_id()).filter(|home| !home.is_closed()) else {
            return Place::On(token);
        };
        let removes = self.random(4) == 0;
        self.moves.set(self.moves.get() + u64::from(!removes));
        match (removes, afar) {
            (true, true) => Place::Going(home.remote().deregister(&token)),
            (false, true) => Place::Moving(home.remote().move_to(&token, &target.remote()), None),
            (false, false) => {
                let local = token.to_local(&home).unwrap();
                Place::Moving(home.move_to(&local, &target.remote()), Some(home.id()))
            }
            // In its own callback it would be dropped, and in one of its hooks too.
            (true, false) if inside || self.depth.get() > 0 => Place::On(token),
            (true, false) => {
                let local = token.to_local(&home).unwrap();
                home.deregister(&local).map_or(Place::On(token), Place::Free)
            }
        }
    }

    /// One thing that user code may do anywhere.
    fn step(&self) {
        if self.calm.get() {
            return;
        }
        let at = self.random(ROVERS as u64) as usize;
        match self.random(16) {
            0..=4 => self.send(at),
            5..=8 => self.produce(at),
            9 | 10 if self.depth.get() < DEEPEST => self.turn(false),
            11 if self.depth.get() < DEEPEST => self.turn(true),
            12 => drop(self.context().suspend()),
            13 => self.context().notify(),
            14 if self.random(12) == 0 => self.replace(),
            _ => {}
        }
    }

    /// Closes a context, and builds another one in its place.
    fn replace(&self) {
        let at = self.random(CONTEXTS as u64) as usize;
        let old = std::mem::replace(&mut self.contexts.borrow_mut()[at], built(self.spins));
        let registered = old.stats().handlers.len();
        let leaks = old.close().handlers as usize;
        assert!(leaks <= registered, "{leaks} of {registered}");
    }

    fn turn(&self, blocking: bool) {
        let ctx = self.context();
        self.depth.set(self.depth.get() + 1);
        if !blocking {
            let turn = ctx.poll(false);
            assert!(turn.is_ok() || ctx.is_closed());
        } else if let Ok(limit) = ctx.timer(|_| Ok(())) {
            limit.arm(Duration::from_nanos(self.random(3 * WINDOW))).unwrap();
            assert!(ctx.poll(true).is_ok() || ctx.is_closed());
            limit.delete();
        }
        self.depth.set(self.depth.get() - 1);
    }

    /// Data for a handler; without a signal only where it was told that none is needed.
    fn produce(&self, at: usize) {
        self.lives[at].word.store(true, Ordering::SeqCst);
        if !self.lives[at].begun.load(Ordering::SeqCst) {
            self.bells[at].set().unwrap();
        }
    }
}

impl Rover {
    /// It runs here: may it?
    fn enter(&mut self, ops: &mut Ops<'_>) -> Outcome {
        let (world, life) = (world(), self.life.clone());
        assert!(!life.inside.swap(true, Ordering::SeqCst), "rover {} is entered twice", self.at);
        if !matches!(world.places.borrow()[self.at], Place::Changing) {
            world.settle(self.at);
            let here = ops.remote().id();
            match &world.places.borrow()[self.at] {
                Place::On(token) => assert_eq!(token.context_id(), here, "it runs elsewhere"),
                Place::Moving(_, Some(old)) => assert_ne!(*old, here, "it runs where it was"),
                Place::Free(_) => panic!("it runs although it is gone"),
                _ => {}
            }
        }
        world.runs.set(world.runs.get() + 1);
        life.word.store(false, Ordering::SeqCst);
        self.bell.test_and_clear()?;
        for _ in 0..world.random(3) {
            world.step();
        }
        life.inside.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Anything but a turn, which would take the timer that limits the sleep of the one around.
    fn meddle(&self) {
        let Some(world) = WORLD.with_borrow(Clone::clone) else { return };
        if world.random(8) == 0 {
            let depth = world.depth.replace(DEEPEST);
            world.step();
            world.depth.set(depth);
        }
    }
}

impl AsFd for Rover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Source for Rover {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        self.enter(ops)
    }

    fn poll(&self) -> bool {
        assert!(!self.life.inside.load(Ordering::SeqCst), "asked while its callback runs");
        self.life.word.load(Ordering::SeqCst)
    }

    fn poll_ready(&mut self, ops: &mut Ops<'_>) -> Outcome {
        self.enter(ops)
    }

    fn poll_begin(&mut self) {
        assert!(!self.life.begun.swap(true, Ordering::SeqCst), "begun twice");
        self.meddle();
    }

    fn poll_end(&mut self) {
        assert!(self.life.begun.swap(false, Ordering::SeqCst), "ended without a begin");
        self.meddle();
    }
}

impl Drop for Rover {
    fn drop(&mut self) {
        self.life.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn live(seed: u64, spins: bool) -> (u64, u64) {
    let world = World::new(seed, spins);
    WORLD.set(Some(world.clone()));
    for _ in 0..250 {
        world.step();
        world.step();
        world.turn(world.random(3) != 0);
        assert_eq!(world.depth.get(), 0);
        (0..ROVERS).for_each(|at| world.settle(at));
    }
    // All arrive, and hear what is still to be heard.
    world.calm.set(true);
    let contexts = world.contexts.borrow().clone();
    let turns = || assert!(contexts.iter().all(|ctx| ctx.poll(false).is_ok()));
    (0..6).for_each(|_| turns());
    for ctx in &contexts {
        ctx.suspend().unwrap();
    }
    for at in 0..ROVERS {
        world.settle(at);
        assert!(!world.lives[at].begun.load(Ordering::SeqCst), "begun although suspended");
        world.produce(at);
    }
    (0..6).for_each(|_| turns());
    let mut registered = 0;
    for (at, place) in world.places.borrow().iter().enumerate() {
        match place {
            Place::On(_) => {
                registered += 1;
                assert!(!world.lives[at].word.load(Ordering::SeqCst), "rover {at} lost an event");
            }
            Place::Free(_) => {}
            _ => panic!("rover {at} is still on its way"),
        }
    }
    let leaks: u32 = contexts.iter().map(|ctx| ctx.close().handlers).sum();
    assert_eq!(leaks, registered);
    WORLD.set(None);
    (world.runs.get(), world.moves.get())
}

fn many(spins: bool) {
    let (mut runs, mut moves) = (0, 0);
    for seed in 1..=seeds() {
        let held = std::panic::catch_unwind(|| live(seed * 0x9e37_79b9, spins));
        WORLD.set(None);
        match held {
            Ok(more) => (runs, moves) = (runs + more.0, moves + more.1),
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
    assert!(moves > seeds() * 20, "only {moves} moves");
}

/// `FDMON_SEEDS=1000` looks longer.
fn seeds() -> u64 {
    std::env::var("FDMON_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// SPEC 4, 10, 19, 38, 52
#[test]
fn whoever_moves_what_from_wherever_nothing_and_nobody_is_lost() {
    many(false);
}

/// SPEC 4, 10, 11, 22, 25, 38, 52
#[test]
fn whoever_moves_what_from_wherever_nothing_and_nobody_is_lost_while_spinning() {
    many(true);
}
