//! Runs a program on real contexts, and tells the model everything that it does and that it sees.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fdmon::{
    AioContext, BottomHalf, Error, Handlers, Interest, ManualClock, MonitorKind, Ops, Outcome,
    PollParams, PollSource, RingMode, RingParams, Timer, Token, WordSource,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::files::{Files, REGULAR, Shared};
use crate::model::{Ended, Handler as Live, Life, Model, Seen, Source, Thrown, What, Which, Work};
use crate::program::{
    Call, Code, FILES, Handler, Hook, OF_EACH, Poll, Program, Spin, Step, Steps, WINDOW,
};

/// Turns within turns.
const DEEPEST: u32 = 4;
/// Steps and callbacks of one program: whoever has had them does no more.
const FUEL: u32 = 1500;

/// The monitor that a program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct On {
    pub monitor: MonitorKind,
    pub ring: RingMode,
}

impl On {
    pub const ALL: [Self; 5] = [
        Self { monitor: MonitorKind::Poll, ring: RingMode::Auto },
        Self { monitor: MonitorKind::Epoll, ring: RingMode::Auto },
        Self { monitor: MonitorKind::IoUring, ring: RingMode::Auto },
        Self { monitor: MonitorKind::IoUring, ring: RingMode::Cooperative },
        Self { monitor: MonitorKind::IoUring, ring: RingMode::Plain },
    ];
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.monitor)?;
        if self.ring == RingMode::Auto { Ok(()) } else { write!(f, "_{}", self.ring.as_str()) }
    }
}

/// What was wrong, and what went before it.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    pub trace: Vec<String>,
}

/// What programs have exercised: a generator that reaches nothing would prove nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub reads: u32,
    pub writes: u32,
    pub hits: u32,
    pub works: u32,
    pub timers: u32,
    pub turns: u32,
    pub nested: u32,
    pub sleeps: u64,
    pub spins: u64,
    pub begins: u32,
    pub ends: u32,
    pub errors: u32,
    pub panics: u32,
    pub embedded: u32,
    pub moves: u32,
    pub closes: u32,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.hits += other.hits;
        self.works += other.works;
        self.timers += other.timers;
        self.turns += other.turns;
        self.nested += other.nested;
        self.sleeps += other.sleeps;
        self.spins += other.spins;
        self.begins += other.begins;
        self.ends += other.ends;
        self.errors += other.errors;
        self.panics += other.panics;
        self.embedded += other.embedded;
        self.moves += other.moves;
        self.closes += other.closes;
    }
}

/// Runs it from its first step to a context that is closed. One that fails is run again for its
/// trace.
pub fn run(program: &Program, on: On) -> Result<Tally, Failure> {
    run_with(program, on, false).or_else(|_| run_with(program, on, true))
}

/// …and says only whether it holds.
pub fn fails(program: &Program, on: On) -> bool {
    run_with(program, on, false).is_err()
}

fn run_with(program: &Program, on: On, traced: bool) -> Result<Tally, Failure> {
    let world = World::new(program, on, traced);
    let life = catch_unwind(AssertUnwindSafe(|| world.live()));
    if let Err(panic) = life {
        world.breaks(text_of(&*panic));
    }
    let what = world.wrong.take();
    match what {
        None => Ok(world.tally()),
        Some(what) => Err(Failure { what, trace: world.trace.take() }),
    }
}

/// What an error or panic of a program carries.
#[derive(Debug)]
struct Thing(u32);

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thing {}", self.0)
    }
}

impl std::error::Error for Thing {}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("something else"))
}

/// What a turn returned or threw.
fn ended(result: std::thread::Result<fdmon::Result<Ended>>) -> Ended {
    match result {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) if error.is_callback() => {
            let ids = error.callback_errors().iter();
            match ids.map(|e| e.downcast_ref::<Thing>().map(|t| t.0)).collect::<Option<Vec<_>>>() {
                Some(ids) => Ended::Errors(ids),
                None => Ended::Otherwise(error.to_string()),
            }
        }
        Ok(Err(error)) => Ended::Otherwise(error.to_string()),
        Err(panic) => match panic.downcast_ref::<Thing>() {
            Some(Thing(id)) => Ended::Panic(*id),
            None => Ended::Otherwise(text_of(&*panic)),
        },
    }
}

fn params(spin: Spin) -> PollParams {
    let off = PollParams { guards: false, idle_ns: 86_400_000_000_000, ..PollParams::default() };
    match spin {
        Spin::Off => off,
        Spin::Doubling => PollParams { max_ns: WINDOW, ..off },
        Spin::Jumping => PollParams { max_ns: WINDOW, grow: u32::MAX, shrink: 2, ..off },
    }
}

struct Side {
    ctx: AioContext,
    model: RefCell<Model>,
    halves: RefCell<[Option<BottomHalf>; OF_EACH as usize]>,
    timers: RefCell<[Option<Timer>; OF_EACH as usize]>,
    /// The last registration of each file, gone or not.
    tokens: RefCell<[Option<(Life, Token<Shared>, Rc<Handler>)>; FILES as usize]>,
    words: [Arc<AtomicU32>; FILES as usize],
}

struct World {
    me: Weak<Self>,
    on: On,
    program: Program,
    clock: ManualClock,
    files: RefCell<Files>,
    /// The second is made when it is needed.
    sides: [OnceCell<Side>; 2],
    /// Between prepare and check.
    embedding: [Cell<bool>; 2],
    fuel: Cell<u32>,
    depth: Cell<u32>,
    /// Numbers for lives, limits, jobs and what is thrown.
    numbers: Cell<u32>,
    wrong: RefCell<Option<String>>,
    traced: bool,
    trace: RefCell<Vec<String>>,
    tally: Cell<Tally>,
}

thread_local! {
    /// For jobs, which must be `Send` and therefore find their world here.
    static HERE: RefCell<Weak<World>> = const { RefCell::new(Weak::new()) };
}

/// The rest of a list of steps is left out.
type Flow = Result<(), Thrown>;

impl World {
    fn new(program: &Program, on: On, traced: bool) -> Rc<Self> {
        let world = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            on,
            program: program.clone(),
            clock: ManualClock::new(),
            files: RefCell::new(Files::new()),
            sides: [OnceCell::new(), OnceCell::new()],
            embedding: Default::default(),
            fuel: Cell::new(FUEL),
            depth: Cell::new(0),
            numbers: Cell::new(OF_EACH.into()),
            wrong: RefCell::default(),
            traced,
            trace: RefCell::default(),
            tally: Cell::default(),
        });
        world.clock.advance_ns(1_000_000_000);
        HERE.set(world.me.clone());
        world
    }

    fn side(&self, side: usize) -> &Side {
        self.sides[side].get_or_init(|| {
            let ring = RingParams { mode: self.on.ring, ..RingParams::default() };
            let ctx = AioContext::builder()
                .monitor(self.on.monitor)
                .ring(ring)
                .poll(params(self.program.spin))
                .manual_clock(self.clock.clone())
                .build()
                .unwrap();
            let sees = self.on.monitor == MonitorKind::IoUring;
            Side {
                ctx,
                model: RefCell::new(Model::new(sees, self.program.spin)),
                halves: RefCell::default(),
                timers: RefCell::default(),
                tokens: RefCell::default(),
                words: std::array::from_fn(|_| Arc::default()),
            }
        })
    }

    /// Tells the model something.
    fn tell<T>(&self, side: usize, f: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.side(side).model.borrow_mut();
        let result = f(&mut model);
        if let Some(wrong) = model.take_wrong() {
            self.breaks(format!("context {side}: {wrong}"));
        }
        result
    }

    /// From here on nothing is done any more.
    fn breaks(&self, what: String) {
        self.note(|| format!("WRONG: {what}"));
        self.wrong.borrow_mut().get_or_insert(what);
        self.fuel.set(0);
    }

    fn is_broken(&self) -> bool {
        self.wrong.borrow().is_some()
    }

    fn demand(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.breaks(what());
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if !self.traced || self.is_broken() {
            return;
        }
        let indent = "  ".repeat(self.depth.get() as usize);
        self.trace.borrow_mut().push(format!("{indent}{}", what()));
    }

    fn number(&self) -> u32 {
        self.numbers.replace(self.numbers.get() + 1)
    }

    fn count(&self, f: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        f(&mut tally);
        self.tally.set(tally);
    }

    fn tally(&self) -> Tally {
        let mut tally = self.tally.get();
        for side in self.sides.iter().filter_map(OnceCell::get) {
            let stats = side.ctx.stats();
            tally.sleeps += stats.sleeps;
            tally.spins += stats.spin_hits + stats.spin_misses;
        }
        tally
    }

    fn burn(&self) -> bool {
        let left = self.fuel.get();
        self.fuel.set(left.saturating_sub(1));
        left > 0
    }

    fn seen(&self, side: usize) -> Seen {
        let stats = self.side(side).ctx.stats();
        Seen {
            now: self.clock.now_ns(),
            waits: stats.waits,
            sleeps: stats.sleeps,
            spin_hits: stats.spin_hits,
            files: self.files.borrow().readiness(),
        }
    }

    // --- the program ----------------------------------------------------------------------------

    fn live(&self) {
        let program = &self.program;
        let _ = self.steps(0, &program.steps, false);
        // What is still to be heard is heard, and what is left is counted.
        for side in [0, 1] {
            if self.sides[side].get().is_none() {
                continue;
            }
            self.fuel.set(if self.is_broken() { 0 } else { 20 });
            for step in [Step::EnableExternal, Step::Poll, Step::Suspend, Step::Poll, Step::Close] {
                let _ = self.steps(side, &Steps(vec![step]), false);
            }
        }
    }

    fn steps(&self, side: usize, steps: &Steps, inside: bool) -> Flow {
        for step in &steps.0 {
            if !self.burn() {
                break;
            }
            self.step(side, step, inside)?;
            self.tell(side, Model::sync);
            self.compare(side);
        }
        Ok(())
    }

    /// What can be read of the context against what the model says of it.
    fn compare(&self, side: usize) {
        if self.is_broken() || self.depth.get() > 0 {
            return;
        }
        let stats = self.side(side).ctx.stats();
        let (window, members) = {
            let model = self.side(side).model.borrow();
            let members: Vec<(u8, bool)> = model.members().collect();
            (model.window(), members)
        };
        self.demand(stats.window_ns == window, || {
            format!("the window is {} instead of {window}", stats.window_ns)
        });
        for (at, member) in members {
            let fd = self.files.borrow().number(at);
            let row = stats.handlers.iter().find(|row| row.fd == fd);
            self.demand(row.is_some_and(|row| row.polling == member), || {
                format!("file {at} is on the spin list: {row:?} instead of {member}")
            });
        }
    }

    #[allow(clippy::too_many_lines, reason = "one line a step")]
    fn step(&self, side: usize, step: &Step, inside: bool) -> Flow {
        self.note(|| format!("{side}: {}", headline(step)));
        match step {
            Step::Poll => self.turn(side, None),
            Step::Block { ns } => self.turn(side, Some(*ns)),
            Step::Ready { at } => self.file(|files| files.ready(*at)),
            Step::Take { at } => self.file(|files| files.take(*at)),
            Step::Fill { at } => self.file(|files| files.fill(*at)),
            Step::Drain { at } => self.file(|files| files.drain(*at)),
            Step::ShutDown { at } => self.file(|files| files.shut_down(*at)),
            Step::HangUp { at } => self.file(|files| files.hang_up(*at)),
            Step::Reopen { at } => self.reopen(*at),
            Step::Word { at, on } => self.set_word(side, *at, *on),
            Step::Produce { at } => self.produce(side, *at),
            Step::Advance { ns } => self.clock.advance_ns((*ns).into()),
            Step::Register { at, handler } => self.register(side, *at, &Rc::new(handler.clone())),
            Step::Remove { at } => self.remove(side, *at),
            Step::Deregister { at } => self.deregister(side, *at),
            Step::Interest { at, read, write } => self.set_interest(side, *at, *read, *write),
            Step::Move { at } => self.move_over(side, *at),
            Step::Schedule { half } => self.schedule(side, *half, false),
            Step::ScheduleIdle { half } => self.schedule(side, *half, true),
            Step::Cancel { half } => self.cancel(side, *half),
            Step::Delete { half } => self.delete(side, *half),
            Step::Once { steps } => self.once(side, steps),
            Step::Job { steps } => self.job(side, steps),
            Step::Arm { timer, ns } => self.arm(side, *timer, *ns),
            Step::Disarm { timer } => self.disarm(side, *timer),
            Step::Until { turns, ns } => self.until(side, *turns, *ns),
            Step::Stop => {
                self.side(side).ctx.stop();
                self.tell(side, |model| model.stop = true);
            }
            Step::Embed { between } => self.embed(side, between),
            Step::Suspend => self.suspend(side),
            Step::Notify => {
                self.tell(side, Model::notify);
                self.side(side).ctx.notify();
            }
            Step::DisableExternal => {
                self.tell(side, Model::disable_external);
                self.side(side).ctx.disable_external();
            }
            Step::EnableExternal => {
                self.tell(side, Model::enable_external);
                self.side(side).ctx.enable_external();
                self.note_files();
            }
            Step::Params { spin } => self.set_params(side, *spin),
            Step::RemoteParams { spin } => self.set_params_remotely(side, *spin),
            Step::Fail if inside => return Err(Thrown::Error(self.number())),
            Step::Panic if inside => return Err(Thrown::Panic(self.number())),
            Step::Fail | Step::Panic => {}
            Step::Other { steps } => return self.steps(1 - side, steps, inside),
            Step::Close => self.close(side),
        }
        Ok(())
    }

    /// Changes a file, and sees what that makes ready.
    fn file(&self, change: impl FnOnce(&mut Files)) {
        change(&mut self.files.borrow_mut());
        self.note_files();
    }

    /// A ring may see a file at any time from its registration on.
    fn note_files(&self) {
        if self.on.monitor != MonitorKind::IoUring {
            return;
        }
        let files = self.files.borrow().readiness();
        for side in self.sides.iter().filter_map(OnceCell::get) {
            side.model.borrow_mut().note_files(&files);
        }
    }

    fn set_word(&self, side: usize, at: u8, on: bool) {
        self.side(side).words[usize::from(at)].store(on.into(), Ordering::Release);
    }

    /// Data first, then a signal if the handler may sleep.
    fn produce(&self, side: usize, at: u8) {
        self.set_word(side, at, true);
        let suppressed = {
            let model = self.side(side).model.borrow();
            let word = model.live.get(&at).and_then(|handler| handler.suppress.clone());
            word.is_some_and(|word| word.load(Ordering::SeqCst) != 0)
        };
        if !suppressed {
            self.file(|files| files.ready(at));
        }
    }

    fn reopen(&self, at: u8) {
        let registered = |at: u8| {
            let sides = self.sides.iter().filter_map(OnceCell::get);
            sides.into_iter().any(|side| side.model.borrow().live.contains_key(&at))
        };
        if !Files::reopened(at).any(registered) {
            self.files.borrow_mut().reopen(at);
        }
    }

    // --- handlers -------------------------------------------------------------------------------

    fn register(&self, side: usize, at: u8, spec: &Rc<Handler>) {
        let life = self.number();
        let (mut live, handlers) = self.make(side, at, life, spec);
        let closed = self.tell(side, |model| model.closed);
        if !closed && spec.has_callback() {
            self.tell(side, |model| model.remove(at));
        }
        let fd = self.files.borrow().get(at);
        let here = self.side(side);
        match here.ctx.set_fd_handler(fd, handlers) {
            Ok(token) => {
                self.demand(!closed && spec.has_callback(), || "it was registered".into());
                here.tokens.borrow_mut()[usize::from(at)] = Some((life, token, spec.clone()));
                live.external = spec.external;
                self.tell(side, |model| model.add(at, live));
                self.note_files();
            }
            Err(error) if closed => self.demand(error.is_closed(), || error.to_string()),
            Err(error) => {
                let refused = error.is_invalid_arg() && !spec.has_callback();
                self.demand(refused, || error.to_string());
            }
        }
    }

    /// The model's handler, and the loop's.
    fn make(&self, side: usize, at: u8, life: Life, spec: &Handler) -> (Live, Handlers) {
        let mut handlers = Handlers::new().external(spec.external);
        let mut has = Interest::empty();
        if let Some(call) = &spec.read {
            has |= Interest::READ;
            handlers = handlers.read(self.callback(side, at, life, Which::Read, call));
        }
        if let Some(call) = &spec.write {
            has |= Interest::WRITE;
            handlers = handlers.write(self.callback(side, at, life, Which::Write, call));
        }
        if let Some(call) = &spec.priority {
            has |= Interest::PRIORITY;
            handlers = handlers.priority(self.callback(side, at, life, Which::Priority, call));
        }
        let word = self.side(side).words[usize::from(at)].clone();
        let mut suppress = None;
        let source = match &spec.poll {
            Poll::No => Source::No,
            Poll::Kernel => {
                handlers = handlers.poll_kernel();
                Source::Kernel
            }
            Poll::Word { suppress: suppresses, ready } => {
                let mut source = WordSource::differs_from(word.clone(), 0);
                if *suppresses {
                    let word = Arc::new(AtomicU32::new(0));
                    source = source.suppress(word.clone()).unwrap();
                    suppress = Some(word);
                }
                let ready = self.callback(side, at, life, Which::Ready, ready);
                handlers = handlers.poll(source).poll_ready(ready);
                Source::Word
            }
            Poll::Code { code, ready } => {
                let world = self.me.clone();
                let asked = Cell::new(0);
                let code = code.clone();
                let source = Asked { world, side, at, life, code, asked, word: word.clone() };
                let ready = self.callback(side, at, life, Which::Ready, ready);
                handlers = handlers.poll(source).poll_ready(ready);
                Source::Code
            }
        };
        let mut live = Live::new(life, source, has);
        (live.word, live.suppress) = (word, suppress);
        (live, handlers)
    }

    fn callback(
        &self,
        side: usize,
        at: u8,
        life: Life,
        which: Which,
        call: &Call,
    ) -> impl FnMut(&mut Ops<'_>) -> Outcome + use<> {
        let (me, call) = (self.me.clone(), call.clone());
        move |ops| {
            let Some(world) = me.upgrade() else { return Ok(()) };
            world.count(|tally| match which {
                Which::Read => tally.reads += 1,
                Which::Ready => tally.hits += 1,
                _ => tally.writes += 1,
            });
            let what = What::Handler(life, which, ops.events().bits());
            world.call(side, what, || {
                if call.take {
                    world.take(side, at, which);
                }
                world.steps(side, &call.steps, true)
            })
        }
    }

    /// What a callback does about its reason.
    fn take(&self, side: usize, at: u8, which: Which) {
        match which {
            Which::Ready => self.set_word(side, at, false),
            Which::Write => self.file(|files| files.fill(at)),
            Which::Read | Which::Priority => {
                self.set_word(side, at, false);
                self.file(|files| files.take(at));
            }
        }
    }

    /// Runs a callback for the loop.
    fn call(&self, side: usize, what: What, body: impl FnOnce() -> Flow) -> Outcome {
        if self.is_broken() {
            return Ok(());
        }
        self.note(|| format!("{side}: > {what:?}"));
        let seen = self.tell(side, |model| model.is_finding()).then(|| self.seen(side));
        self.tell(side, |model| model.enter(what, seen));
        let flow = if self.burn() { body() } else { Ok(()) };
        self.note(|| format!("{side}: < {what:?} {flow:?}"));
        self.tell(side, |model| model.leave(what, flow.err()));
        match flow {
            Ok(()) => Ok(()),
            Err(Thrown::Error(id)) => {
                self.count(|tally| tally.errors += 1);
                Err(Box::new(Thing(id)))
            }
            Err(Thrown::Panic(id)) => self.throw(id),
        }
    }

    /// Without the message that `panic!` prints.
    fn throw(&self, id: u32) -> ! {
        self.count(|tally| tally.panics += 1);
        resume_unwind(Box::new(Thing(id)))
    }

    fn remove(&self, side: usize, at: u8) {
        self.tell(side, |model| model.remove(at));
        let fd = self.files.borrow().number(at);
        self.side(side).ctx.remove_fd_handler(fd);
    }

    fn token(&self, side: usize, at: u8) -> Option<(Life, Token<Shared>, Rc<Handler>)> {
        self.side(side).tokens.borrow()[usize::from(at)].clone()
    }

    fn deregister(&self, side: usize, at: u8) {
        let Some((life, token, _)) = self.token(side, at) else { return };
        let (live, running) =
            self.tell(side, |model| (model.is_live(at, life), model.is_running(life)));
        if live {
            self.tell(side, |model| model.remove(at));
        }
        let fd = self.side(side).ctx.deregister(&token);
        self.demand(fd.is_some() == (live && !running), || {
            format!("deregister gives back {}", if fd.is_some() { "the fd" } else { "nothing" })
        });
    }

    fn set_interest(&self, side: usize, at: u8, read: bool, write: bool) {
        let Some((life, token, _)) = self.token(side, at) else { return };
        let mut interest = Interest::empty();
        interest.set(Interest::READ, read);
        interest.set(Interest::WRITE, write);
        let (closed, live) = self.tell(side, |m| (m.closed, m.is_live(at, life)));
        let taken = live && self.tell(side, |model| model.set_interest(at, interest));
        let result = token.set_interest(interest);
        self.note_files();
        let fits = match &result {
            Ok(changed) => *changed == taken && (taken || !live),
            Err(error) if closed => error.is_closed(),
            Err(error) => error.is_invalid_arg() && live && !taken,
        };
        self.demand(fits, || format!("set_interest says {result:?}"));
    }

    /// Out of this context and into the other.
    fn move_over(&self, side: usize, at: u8) {
        let Some((life, _, spec)) = self.token(side, at) else { return };
        if self.tell(side, |model| model.is_live(at, life)) {
            self.count(|tally| tally.moves += 1);
            self.deregister(side, at);
            self.register(1 - side, at, &spec);
        }
    }

    // --- bottom halves and timers ---------------------------------------------------------------

    fn schedule(&self, side: usize, half: u8, idle: bool) {
        let here = self.side(side);
        let index = usize::from(half);
        if here.halves.borrow()[index].is_none() {
            let me = self.me.clone();
            let made = here.ctx.bottom_half(move |_| {
                let Some(world) = me.upgrade() else { return Ok(()) };
                world.count(|tally| tally.works += 1);
                world.call(side, What::Work(Work::Half(half)), || {
                    world.steps(side, &world.program.halves[index], true)
                })
            });
            let Some(made) = self.unless_closed(side, made) else { return };
            here.halves.borrow_mut()[index] = Some(made);
            self.tell(side, |model| model.has_half(half));
        }
        self.tell(side, |model| {
            if !model.closed {
                model.schedule(Work::Half(half), idle);
            }
        });
        let halves = here.halves.borrow();
        let Some(half) = &halves[index] else { return };
        if idle {
            half.schedule_idle();
        } else {
            half.schedule();
        }
    }

    /// What a closed context refuses, and no other.
    fn unless_closed<T>(&self, side: usize, result: Result<T, Error>) -> Option<T> {
        let closed = self.tell(side, |model| model.closed);
        match result {
            Ok(made) => {
                self.demand(!closed, || "a closed context does something".into());
                (!closed).then_some(made)
            }
            Err(error) => {
                self.demand(closed && error.is_closed(), || error.to_string());
                None
            }
        }
    }

    fn cancel(&self, side: usize, half: u8) {
        self.tell(side, |model| model.cancel(half));
        if let Some(half) = &self.side(side).halves.borrow()[usize::from(half)] {
            half.cancel();
        }
    }

    fn delete(&self, side: usize, half: u8) {
        self.tell(side, |model| model.delete_half(half));
        let deleted = self.side(side).halves.borrow_mut()[usize::from(half)].take();
        deleted.into_iter().for_each(BottomHalf::delete);
    }

    fn once(&self, side: usize, steps: &Steps) {
        let (me, steps, work) = (self.me.clone(), steps.clone(), Work::Once(self.number()));
        let made = self.side(side).ctx.schedule(move |_| {
            let Some(world) = me.upgrade() else { return Ok(()) };
            world.count(|tally| tally.works += 1);
            world.call(side, What::Work(work), || world.steps(side, &steps, true))
        });
        if self.unless_closed(side, made).is_some() {
            self.tell(side, |model| model.schedule(work, false));
        }
    }

    fn job(&self, side: usize, steps: &Steps) {
        let (steps, work) = (steps.clone(), Work::Job(self.number()));
        let made = self.side(side).ctx.remote().run(move |_| {
            let Some(world) = HERE.with_borrow(Weak::upgrade) else { return };
            world.count(|tally| tally.works += 1);
            let steps = || match world.steps(side, &steps, true) {
                Err(Thrown::Error(_)) => Ok(()), // a job cannot fail
                flow => flow,
            };
            let _ = world.call(side, What::Work(work), steps);
        });
        if self.unless_closed(side, made).is_some() {
            self.tell(side, |model| {
                model.schedule(work, false);
                model.notify();
            });
        }
    }

    fn arm(&self, side: usize, timer: u8, ns: u32) {
        let here = self.side(side);
        let index = usize::from(timer);
        if here.timers.borrow()[index].is_none() {
            let me = self.me.clone();
            let made = here.ctx.timer(move |_| {
                let Some(world) = me.upgrade() else { return Ok(()) };
                world.count(|tally| tally.timers += 1);
                world.call(side, What::Timer(timer.into()), || {
                    world.steps(side, &world.program.timers[index], true)
                })
            });
            let Some(made) = self.unless_closed(side, made) else { return };
            here.timers.borrow_mut()[index] = Some(made);
            self.tell(side, |model| model.has_timer(timer.into()));
        }
        let timers = here.timers.borrow();
        let Some(handle) = &timers[index] else { return };
        let armed = handle.arm(Duration::from_nanos(ns.into()));
        if self.unless_closed(side, armed).is_some() {
            let deadline = self.clock.now_ns() + u64::from(ns);
            self.tell(side, |model| model.arm(timer.into(), deadline));
        }
    }

    fn disarm(&self, side: usize, timer: u8) {
        self.tell(side, |model| model.disarm(timer.into()));
        if let Some(timer) = &self.side(side).timers.borrow()[usize::from(timer)] {
            timer.cancel();
        }
    }

    // --- turns ----------------------------------------------------------------------------------

    /// A timer of no consequence, which ends a sleep that nothing else does.
    fn limit(&self, side: usize) -> Option<(u32, Timer)> {
        let (id, me) = (self.number(), self.me.clone());
        let made = self.side(side).ctx.timer(move |_| {
            let Some(world) = me.upgrade() else { return Ok(()) };
            world.call(side, What::Timer(id), || Ok(()))
        });
        let made = self.unless_closed(side, made)?;
        self.tell(side, |model| model.has_timer(id));
        Some((id, made))
    }

    fn arm_limit(&self, side: usize, (id, timer): &(u32, Timer), ns: u32) {
        let armed = timer.arm(Duration::from_nanos(ns.into()));
        if self.unless_closed(side, armed).is_some() {
            let deadline = self.clock.now_ns() + u64::from(ns);
            self.tell(side, |model| model.arm(*id, deadline));
        }
    }

    fn drop_limit(&self, side: usize, (id, timer): (u32, Timer)) {
        self.tell(side, |model| model.delete_timer(id));
        timer.delete();
    }

    fn enters(&self) -> bool {
        let may = self.depth.get() < DEEPEST;
        if may {
            self.depth.set(self.depth.get() + 1);
            let nested = u32::from(self.depth.get() > 1);
            self.count(|tally| {
                tally.turns += 1;
                tally.nested += nested;
            });
        }
        may
    }

    fn leaves(&self) {
        self.depth.set(self.depth.get() - 1);
    }

    fn turn(&self, side: usize, block: Option<u32>) {
        let ctx = &self.side(side).ctx;
        if self.tell(side, |model| model.closed) {
            self.demand(ctx.poll(false).is_err_and(|e| e.is_closed()), || "it is closed".into());
            return;
        }
        if block.is_some() && self.tell(side, |model| model.is_unsure()) {
            return; // the model could not tell whether it may sleep
        }
        if !self.enters() {
            return;
        }
        let limit = block.and_then(|ns| {
            let limit = self.limit(side)?;
            self.arm_limit(side, &limit, ns);
            Some(limit)
        });
        let seen = self.seen(side);
        self.tell(side, |model| model.begin_turn(block.is_some(), false, seen));
        let result = catch_unwind(AssertUnwindSafe(|| ctx.poll(block.is_some())));
        let ended = ended(result.map(|result| result.map(Ended::Progress)));
        self.leaves();
        self.note(|| format!("{side}: {ended:?} at {}", self.clock.now_ns()));
        self.ends(side, &ended);
        limit.into_iter().for_each(|limit| self.drop_limit(side, limit));
    }

    fn ends(&self, side: usize, ended: &Ended) {
        if !self.is_broken() {
            let seen = self.seen(side);
            self.tell(side, |model| model.end_turn(seen, ended));
        }
    }

    fn until(&self, side: usize, turns: u8, ns: u32) {
        let ctx = &self.side(side).ctx;
        if self.tell(side, |model| model.closed) {
            let refused = ctx.poll_until(|| true).is_err_and(|e| e.is_closed());
            return self.demand(refused, || "it is closed".into());
        }
        if self.tell(side, |model| model.is_unsure()) || !self.enters() {
            return;
        }
        let Some(limit) = self.limit(side) else { return };
        let (in_turn, left) = (Cell::new(false), Cell::new(turns));
        self.tell(side, |model| model.loops += 1);
        let result = catch_unwind(AssertUnwindSafe(|| {
            ctx.poll_until(|| {
                if in_turn.replace(false) {
                    self.ends(side, &Ended::Well);
                }
                let over = self.tell(side, |model| model.stop || model.closed);
                if over || left.get() == 0 || self.is_broken() {
                    self.tell(side, Model::leave_spin_mode);
                    return true;
                }
                left.set(left.get() - 1);
                self.arm_limit(side, &limit, ns);
                let seen = self.seen(side);
                self.tell(side, |model| model.begin_turn(true, true, seen));
                in_turn.set(true);
                false
            })
        }));
        let ended = ended(result.map(|result| result.map(|()| Ended::Well)));
        self.leaves();
        self.note(|| format!("{side}: {ended:?}"));
        if in_turn.get() {
            self.ends(side, &ended);
            self.tell(side, Model::leave_spin_mode);
        } else {
            self.demand(ended == Ended::Well, || format!("poll_until: {ended:?}"));
        }
        self.tell(side, |model| {
            model.left_spin_mode();
            model.loops -= 1;
            model.stop &= model.loops > 0;
        });
        self.drop_limit(side, limit);
    }

    /// prepare, the outer loop's sleep, check, dispatch.
    fn embed(&self, side: usize, between: &Steps) {
        let ctx = &self.side(side).ctx;
        // A deferred ring is replaced by one that wakes an outer loop, which no callback may do.
        if self.depth.get() > 0 || self.tell(side, |model| model.closed) {
            return;
        }
        let again = self.embedding[side].replace(true);
        let backend = ctx.backend_fd().unwrap();
        let ns = self.prepare(side, backend);
        let _ = self.steps(side, between, false);
        if again {
            return; // calling prepare twice is harmless; the outer loop has not slept yet
        }
        self.embedding[side].set(false);
        self.count(|tally| tally.embedded += 1);
        if self.tell(side, |model| model.closed) {
            let refused = ctx.check().is_err_and(|error| error.is_closed());
            return self.demand(refused, || "it is closed".into());
        }
        // Whatever can be watched is, also what came after `prepare`. A file that is always ready
        // cannot, nor can a bottom half: who changes a context then has to prepare again, and so
        // has who runs a turn.
        let mut files = self.files.borrow().readiness();
        files[usize::from(REGULAR)] = 0;
        let (idle, prepared) =
            self.tell(side, |model| (model.is_idle(&files), model.is_prepared()));
        self.demand(idle || !prepared || ns == Some(0) || is_readable(backend), || {
            "something is ready, and the outer loop would sleep".into()
        });
        if let Some(ns) = ns.filter(|_| idle && between.0.is_empty()) {
            self.clock.advance_ns(ns);
        }
        let seen = self.seen(side);
        self.tell(side, |model| model.checks(seen));
        self.depth.set(1);
        let due = ctx.check().unwrap();
        self.depth.set(0);
        self.note(|| format!("{side}: check says {due}"));
        let seen = self.seen(side);
        self.tell(side, |model| model.checked(seen, due));
        if self.enters() {
            self.tell(side, |model| model.dispatches(seen));
            let result = catch_unwind(AssertUnwindSafe(|| ctx.dispatch()));
            let ended = ended(result.map(|result| result.map(Ended::Progress)));
            self.leaves();
            self.note(|| format!("{side}: dispatch {ended:?}"));
            self.ends(side, &ended);
        }
    }

    fn prepare(&self, side: usize, backend: BorrowedFd<'_>) -> Option<u64> {
        let ctx = &self.side(side).ctx;
        let seen = self.seen(side);
        self.tell(side, |model| model.begin_turn(true, false, seen));
        self.depth.set(1);
        let ns = ctx.prepare().unwrap();
        self.depth.set(0);
        self.note(|| format!("{side}: prepare says {ns:?}"));
        let seen = self.seen(side);
        let readable = is_readable(backend);
        self.tell(side, |model| model.prepared(seen, ns, readable));
        ns
    }

    // --- the context ----------------------------------------------------------------------------

    fn suspend(&self, side: usize) {
        self.tell(side, Model::leave_spin_mode);
        let result = self.side(side).ctx.suspend();
        self.unless_closed(side, result);
        self.tell(side, Model::left_spin_mode);
    }

    fn set_params(&self, side: usize, spin: Spin) {
        if !self.tell(side, |model| model.closed) {
            self.tell(side, |model| model.set_spin(spin));
        }
        let result = self.side(side).ctx.set_poll_params(params(spin));
        self.unless_closed(side, result);
        self.tell(side, Model::left_spin_mode);
    }

    fn set_params_remotely(&self, side: usize, spin: Spin) {
        let result = self.side(side).ctx.remote().set_poll_params(params(spin));
        if self.unless_closed(side, result).is_some() {
            self.tell(side, |model| model.set_spin_remotely(spin));
        }
    }

    fn close(&self, side: usize) {
        self.count(|tally| tally.closes += 1);
        self.tell(side, Model::close);
        let report = self.side(side).ctx.close();
        self.tell(side, |model| model.close_reported(report));
    }
}

/// The step without those inside it.
fn headline(step: &Step) -> String {
    let text = format!("{step:?}");
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn is_readable(fd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// A predicate in code.
struct Asked {
    world: Weak<World>,
    side: usize,
    at: u8,
    life: Life,
    code: Code,
    asked: Cell<u8>,
    word: Arc<AtomicU32>,
}

impl PollSource for Asked {
    fn poll(&self) -> bool {
        let Some(world) = self.world.upgrade() else { return false };
        let asked = self.asked.get().saturating_add(1);
        self.asked.set(asked);
        world.clock.advance_ns(self.code.ns.into());
        if asked == self.code.sets_at {
            self.word.store(1, Ordering::Release);
        }
        let panics = (asked == self.code.panics_at).then(|| world.number());
        let said = panics.is_none() && self.word.load(Ordering::Acquire) != 0;
        if world.is_broken() {
            return said;
        }
        world.note(|| format!("{}: ? handler {} {said}", self.side, self.life));
        let ns = self.code.ns.into();
        world.tell(self.side, |model| model.asks(self.life, ns, said, panics));
        match panics {
            Some(id) => world.throw(id),
            None => said,
        }
    }

    fn poll_begin(&mut self) {
        let Some(world) = self.world.upgrade() else { return };
        world.count(|tally| tally.begins += 1);
        world.note(|| format!("{}: handler {} begins", self.side, self.life));
        world.tell(self.side, |model| model.begins(self.life));
        self.run(&world, self.code.begin);
    }

    fn poll_end(&mut self) {
        let Some(world) = self.world.upgrade() else { return };
        world.count(|tally| tally.ends += 1);
        world.note(|| format!("{}: handler {} ends", self.side, self.life));
        world.tell(self.side, |model| model.ends(self.life));
        self.run(&world, self.code.end);
    }
}

impl Asked {
    fn run(&self, world: &World, hook: Hook) {
        if !world.burn() {
            return;
        }
        match hook {
            Hook::Nothing => {}
            Hook::Sets => self.word.store(1, Ordering::Release),
            Hook::Schedules => world.schedule(self.side, 0, false),
            Hook::Arms => world.arm(self.side, 0, 20_000),
            Hook::Removes => {
                if world.tell(self.side, |model| model.is_live(self.at, self.life)) {
                    world.remove(self.side, self.at);
                }
            }
            Hook::Panics => {
                let id = world.number();
                world.tell(self.side, |model| model.panics(id));
                world.throw(id);
            }
        }
    }
}
