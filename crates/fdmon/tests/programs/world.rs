//! Runs a program on real contexts, and tells the model everything that it does and that it sees.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use fdmon::{
    Ack, AioContext, BottomHalf, Error, Handlers, Interest, Left, ManualClock, MonitorKind, Moved,
    Ops, Outcome, PolicyKind, PollParams, PollSource, RingMode, RingParams, SendHandlers, Timer,
    Token, WordSource,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::coverage::Tally;
use crate::files::{Files, REGULAR, Shared};
use crate::model::{Ended, Handler as Live, Life, Model, Seen, Source, Thrown, What, Which, Work};
use crate::program::{
    Call, Code, FILES, Handler, Hook, Meanwhile, OF_EACH, Poll, Program, Spin, Step, Steps, WINDOW,
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
    let (mut what, tally, trace) = (world.wrong.take(), world.tally.take(), world.trace.take());
    // Contexts that are closed, or those of a program that broke off.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(world))) {
        what.get_or_insert(format!("at the drop, {}", text_of(&*panic)));
    }
    match what {
        None => Ok(tally),
        Some(what) => Err(Failure { what, trace }),
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
        Spin::Doubling => PollParams { max_ns: WINDOW, policy: PolicyKind::Classic, ..off },
        Spin::Jumping => PollParams { grow: u32::MAX, shrink: 2, ..params(Spin::Doubling) },
        Spin::Fixed => PollParams { policy: PolicyKind::Fixed, ..params(Spin::Doubling) },
    }
}

/// A fd that notices its arrival on another context: whoever registers it asks for its number.
struct Passport {
    fd: Shared,
    /// The number of its move, 0 = it does not travel.
    travels: Arc<AtomicU32>,
}

impl AsFd for Passport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let number = self.travels.swap(0, Ordering::Relaxed);
        if number != 0
            && let Some(world) = here()
        {
            world.arrives(number);
        }
        self.fd.as_fd()
    }
}

type Movable = SendHandlers<Passport>;

#[derive(Clone)]
enum AnyToken {
    Closures(Token<Shared>),
    Source(Token<Movable>),
}

#[derive(Clone)]
struct Registered {
    life: Life,
    token: AnyToken,
    /// On which side it is: its callbacks look there.
    place: Place,
    travels: Arc<AtomicU32>,
}

type Place = Arc<AtomicUsize>;

/// A handler between two contexts.
struct Travel {
    at: u8,
    life: Life,
    /// What arrives.
    live: Option<Live>,
    place: Place,
    travels: Arc<AtomicU32>,
    from: usize,
    to: usize,
    stage: Stage,
    ack: Ack<Moved<Movable>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its callback has not returned.
    Running,
    Under,
    /// The other context closed before it was there.
    Back,
    Arrived,
    /// It stays, or has returned.
    Home,
    /// Nobody wanted it.
    Left,
    /// There was nothing to be moved.
    Gone,
}

struct Side {
    ctx: AioContext,
    model: RefCell<Model>,
    halves: RefCell<[Option<BottomHalf>; OF_EACH as usize]>,
    timers: RefCell<[Option<Timer>; OF_EACH as usize]>,
    /// The last registration of each file, gone or not.
    tokens: RefCell<[Option<Registered>; FILES as usize]>,
    /// A call that may run hooks is going on.
    calls: Cell<u32>,
}

struct World {
    me: Weak<Self>,
    on: On,
    program: Program,
    clock: ManualClock,
    files: RefCell<Files>,
    /// The second is made when it is needed.
    sides: [OnceCell<Side>; 2],
    /// What predicates look at.
    words: [Arc<AtomicU32>; FILES as usize],
    /// By number.
    travels: RefCell<BTreeMap<u32, Travel>>,
    /// It has been in an outer loop.
    embedded: [Cell<bool>; 2],
    /// Between prepare and check.
    embedding: [Cell<bool>; 2],
    /// What `prepare` said last.
    prepared: [Cell<Option<u64>>; 2],
    fuel: Cell<u32>,
    depth: Cell<u32>,
    /// Numbers for lives, limits, jobs and what is thrown.
    numbers: Cell<u32>,
    wrong: RefCell<Option<String>>,
    traced: bool,
    trace: RefCell<Vec<String>>,
    tally: RefCell<Tally>,
}

thread_local! {
    /// For what must be `Send` and therefore finds its world here.
    static HERE: RefCell<Weak<World>> = const { RefCell::new(Weak::new()) };
}

fn here() -> Option<Rc<World>> {
    HERE.with_borrow(Weak::upgrade)
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
            words: std::array::from_fn(|_| Arc::default()),
            travels: RefCell::default(),
            embedded: Default::default(),
            embedding: Default::default(),
            prepared: Default::default(),
            fuel: Cell::new(FUEL),
            depth: Cell::new(0),
            numbers: Cell::new(OF_EACH.into()),
            wrong: RefCell::default(),
            traced,
            trace: RefCell::default(),
            tally: RefCell::default(),
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
                calls: Cell::new(0),
            }
        })
    }

    /// Tells the model something.
    fn tell<T>(&self, side: usize, f: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.side(side).model.borrow_mut();
        let result = f(&mut model);
        model.covered.drain(..).for_each(|what| self.count(what));
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

    fn count(&self, what: &'static str) {
        *self.tally.borrow_mut().entry(what).or_default() += 1;
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
            for step in [Step::EnableExternal, Step::Poll, Step::Suspend, Step::Poll, Step::Close] {
                self.fuel.set(if self.is_broken() { 0 } else { 20 });
                let _ = self.steps(side, &Steps(vec![step]), false);
            }
        }
        self.hear();
        let travels = self.travels.borrow();
        self.demand(travels.is_empty(), || "a handler travels on after all is closed".into());
    }

    fn steps(&self, side: usize, steps: &Steps, inside: bool) -> Flow {
        for step in &steps.0 {
            if !self.burn() {
                break;
            }
            self.hear();
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
        self.count(step.name());
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
            Step::Word { at, on } => self.set_word(*at, *on),
            Step::Produce { at } => self.produce(*at),
            Step::Advance { ns } => self.clock.advance_ns((*ns).into()),
            Step::Register { at, handler } => self.register(side, *at, handler),
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
                let first = self.tell(side, Model::disable_external);
                self.calling(side, first, AioContext::disable_external);
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
        let files = self.files.borrow().readiness();
        for side in self.sides.iter().filter_map(OnceCell::get) {
            side.model.borrow_mut().note_files(&files);
        }
    }

    fn set_word(&self, at: u8, on: bool) {
        self.words[usize::from(at)].store(on.into(), Ordering::Release);
    }

    /// Data first, then a signal if a handler may sleep.
    fn produce(&self, at: u8) {
        self.set_word(at, true);
        let suppressed = |side: &Side| {
            let model = side.model.borrow();
            let word = model.live.get(&at).map(|handler| handler.suppress.clone());
            word.map(|word| word.is_some_and(|word| word.load(Ordering::SeqCst) != 0))
        };
        let mut all = self.sides.iter().filter_map(OnceCell::get).filter_map(suppressed).peekable();
        if all.peek().is_none() || !all.all(|suppressed| suppressed) {
            self.file(|files| files.ready(at));
        }
    }

    fn reopen(&self, at: u8) {
        let registered = |at: u8| {
            let sides = self.sides.iter().filter_map(OnceCell::get);
            let travels = self.travels.borrow();
            let travelling = |travel: &Travel| travel.at == at && travel.is_under_way();
            sides.into_iter().any(|side| side.model.borrow().live.contains_key(&at))
                || travels.values().any(travelling)
        };
        if !Files::reopened(at).any(registered) {
            self.files.borrow_mut().reopen(at);
        }
    }

    /// A call that may run hooks and predicates. Outside of a turn the first of their panics comes
    /// out of the call; `None` = it did. `does` = it has something to do: one that has not, or is
    /// refused, throws nothing.
    fn calling<T>(
        &self,
        side: usize,
        does: bool,
        call: impl FnOnce(&AioContext) -> T,
    ) -> Option<T> {
        let here = self.side(side);
        // In a hook of another such call, whose panic this one may be, it goes on from there.
        if here.calls.get() > 0 || self.tell(side, |model| model.is_in_turn()) {
            return Some(call(&here.ctx));
        }
        here.calls.set(1);
        let result = catch_unwind(AssertUnwindSafe(|| call(&here.ctx)));
        here.calls.set(0);
        let (value, thrown) = match result {
            Ok(value) => (Some(value), None),
            Err(panic) => match panic.downcast_ref::<Thing>() {
                Some(Thing(id)) => (None, Some(*id)),
                None => {
                    self.breaks(text_of(&*panic));
                    (None, None)
                }
            },
        };
        if thrown.is_some() {
            self.count("a call panics");
        }
        self.note(|| format!("{side}: the call threw {thrown:?}"));
        if does {
            self.tell(side, |model| model.call_threw(thrown));
        } else {
            self.demand(thrown.is_none(), || "a call that does nothing panicked".into());
        }
        value
    }

    // --- handlers -------------------------------------------------------------------------------

    fn register(&self, side: usize, at: u8, spec: &Handler) {
        let life = self.number();
        let closed = self.tell(side, |model| model.closed);
        let taken = !closed && spec.has_callback();
        if taken {
            self.tell(side, |model| model.remove(at));
        }
        let fd = self.files.borrow().get(at);
        let place: Place = Arc::new(AtomicUsize::new(side));
        let travels = Arc::new(AtomicU32::new(0));
        let (mut live, source, suppress) = self.describe(at, life, spec);
        // Two kinds with the same functions.
        macro_rules! fill {
            ($handlers:expr) => {{
                let callback = |which, call| callback(&place, at, life, which, call);
                let mut handlers = $handlers.external(spec.external);
                if let Some(call) = &spec.read {
                    handlers = handlers.read(callback(Which::Read, call));
                }
                if let Some(call) = &spec.write {
                    handlers = handlers.write(callback(Which::Write, call));
                }
                if let Some(call) = &spec.priority {
                    handlers = handlers.priority(callback(Which::Priority, call));
                }
                match &spec.poll {
                    Poll::No => handlers,
                    Poll::Kernel => handlers.poll_kernel(),
                    Poll::Word { ready, .. } => {
                        let mut source = WordSource::differs_from(live.word.clone(), 0);
                        if let Some(word) = &suppress {
                            source = source.suppress(word.clone()).unwrap();
                        }
                        handlers.poll(source).poll_ready(callback(Which::Ready, ready))
                    }
                    Poll::Code { code, ready } => {
                        let (place, word) = (place.clone(), live.word.clone());
                        let (code, asked) = (code.clone(), Cell::new(0));
                        let source = Asked { place, at, life, code, asked, word };
                        handlers.poll(source).poll_ready(callback(Which::Ready, ready))
                    }
                }
            }};
        }
        live.source = source;
        live.suppress = suppress.clone();
        live.external = spec.external;
        let result = if spec.movable {
            let passport = Passport { fd: fd.clone(), travels: travels.clone() };
            let handlers = fill!(SendHandlers::new(passport));
            self.calling(side, taken, |ctx| {
                let registered = ctx.register(handlers).map_err(|(error, _)| error);
                registered.map(AnyToken::Source)
            })
        } else {
            let handlers = fill!(Handlers::new());
            let own = fd.clone();
            self.calling(side, taken, |ctx| {
                ctx.set_fd_handler(own, handlers).map(AnyToken::Closures)
            })
        };
        let result = result.or_else(|| {
            // It panicked for a hook of the handler before, and is there all the same.
            let ctx = &self.side(side).ctx;
            let token = if spec.movable {
                ctx.token_of(&fd).map(AnyToken::Source)
            } else {
                ctx.token_of(&fd).map(AnyToken::Closures)
            };
            token.map(Ok)
        });
        let Some(result) = result else {
            return self.breaks("it panicked and registered nothing".into());
        };
        match result {
            Ok(token) => {
                self.demand(taken, || "it was registered".into());
                let registered = Registered { life, token, place, travels };
                self.side(side).tokens.borrow_mut()[usize::from(at)] = Some(registered);
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

    /// What the model is to know of a handler, and the words that its predicate needs.
    fn describe(
        &self,
        at: u8,
        life: Life,
        spec: &Handler,
    ) -> (Live, Source, Option<Arc<AtomicU32>>) {
        let mut has = Interest::empty();
        has.set(Interest::READ, spec.read.is_some());
        has.set(Interest::WRITE, spec.write.is_some());
        has.set(Interest::PRIORITY, spec.priority.is_some());
        let (source, suppresses) = match &spec.poll {
            Poll::No => (Source::No, false),
            Poll::Kernel => (Source::Kernel, false),
            Poll::Word { suppress, .. } => (Source::Word, *suppress),
            Poll::Code { .. } => (Source::Code, false),
        };
        let mut live = Live::new(life, source, has);
        live.word = self.words[usize::from(at)].clone();
        (live, source, suppresses.then(Arc::default))
    }

    /// What a callback does about its reason.
    fn take(&self, at: u8, which: Which) {
        match which {
            Which::Ready => self.set_word(at, false),
            Which::Write => self.file(|files| files.fill(at)),
            Which::Read | Which::Priority => {
                self.set_word(at, false);
                self.file(|files| files.take(at));
            }
        }
    }

    /// Runs a callback for the loop.
    fn call(&self, side: usize, what: What, body: impl FnOnce() -> Flow) -> Outcome {
        if self.is_broken() {
            return Ok(());
        }
        self.enter(side, what);
        let flow = if self.burn() { body() } else { Ok(()) };
        self.note(|| format!("{side}: < {what:?} {flow:?}"));
        self.tell(side, |model| model.leave(what, flow.err()));
        if let What::Handler(life, ..) = what {
            self.departs_late(side, life);
        }
        match flow {
            Ok(()) => Ok(()),
            Err(Thrown::Error(id)) => {
                self.count("a callback fails");
                Err(Box::new(Thing(id)))
            }
            Err(Thrown::Panic(id)) => {
                self.count("a callback panics");
                self.throw(id)
            }
        }
    }

    fn enter(&self, side: usize, what: What) {
        self.see_returned(side);
        self.note(|| format!("{side}: > {what:?}"));
        let seen = self.tell(side, |model| model.is_finding()).then(|| self.seen(side));
        self.tell(side, |model| model.enter(what, seen));
    }

    /// Without the message that `panic!` prints.
    fn throw(&self, id: u32) -> ! {
        resume_unwind(Box::new(Thing(id)))
    }

    fn remove(&self, side: usize, at: u8) {
        let removed = self.tell(side, |model| model.remove(at));
        let fd = self.files.borrow().number(at);
        self.calling(side, removed, |ctx| ctx.remove_fd_handler(fd));
    }

    fn token(&self, side: usize, at: u8) -> Option<Registered> {
        self.side(side).tokens.borrow()[usize::from(at)].clone()
    }

    fn deregister(&self, side: usize, at: u8) {
        let Some(Registered { life, token, .. }) = self.token(side, at) else { return };
        let (live, running) =
            self.tell(side, |model| (model.is_live(at, life), model.is_running(life)));
        if live {
            self.tell(side, |model| model.remove(at));
        }
        let came = self.calling(side, live, |ctx| match &token {
            AnyToken::Closures(token) => ctx.deregister(token).is_some(),
            AnyToken::Source(token) => ctx.deregister(token).is_some(),
        });
        let Some(came) = came else { return }; // lost to a panic of its hook
        self.demand(came == (live && !running), || {
            format!("deregister gives back {}", if came { "the fd" } else { "nothing" })
        });
    }

    fn set_interest(&self, side: usize, at: u8, read: bool, write: bool) {
        let Some(Registered { life, token, .. }) = self.token(side, at) else { return };
        let mut interest = Interest::empty();
        interest.set(Interest::READ, read);
        interest.set(Interest::WRITE, write);
        let (closed, live) = self.tell(side, |m| (m.closed, m.is_live(at, life)));
        let taken = live && self.tell(side, |model| model.set_interest(at, interest));
        let result = match &token {
            AnyToken::Closures(token) => token.set_interest(interest),
            AnyToken::Source(token) => token.set_interest(interest),
        };
        self.note_files();
        let fits = match &result {
            Ok(changed) => *changed == taken && (taken || !live),
            Err(error) if closed => error.is_closed(),
            Err(error) => error.is_invalid_arg() && live && !taken,
        };
        self.demand(fits, || format!("set_interest says {result:?}"));
    }

    // --- moves ----------------------------------------------------------------------------------

    /// Out of this context and into the other.
    fn move_over(&self, side: usize, at: u8) {
        let Some(registered) = self.token(side, at) else { return };
        let AnyToken::Source(token) = &registered.token else { return };
        let (life, to) = (registered.life, 1 - side);
        let (closed, live, running) = self
            .tell(side, |model| (model.closed, model.is_live(at, life), model.is_running(life)));
        let number = self.number();
        let goes = !closed && live && !self.tell(to, |model| model.closed);
        let stage = match (live, running) {
            _ if closed || !live => Stage::Gone,
            _ if !goes => Stage::Home,
            (_, true) => Stage::Running,
            _ => Stage::Under,
        };
        let mut moved = None;
        if goes {
            registered.travels.store(number, Ordering::Relaxed);
            moved = self.tell(side, |model| model.take_away(at));
        }
        let remote = self.side(to).ctx.remote();
        let ack = self.side(side).ctx.move_to(token, &remote);
        let Registered { place, travels, .. } = registered;
        let live = moved;
        let travel = Travel { at, life, live, place, travels, from: side, to, stage, ack };
        self.travels.borrow_mut().insert(number, travel);
        if stage == Stage::Under {
            self.sets_off(number);
        }
    }

    /// Its last callback has returned, and it leaves.
    fn departs_late(&self, side: usize, life: Life) {
        let leaves = |travel: &Travel| {
            (travel.life, travel.from, travel.stage) == (life, side, Stage::Running)
        };
        let number = self.travels.borrow().iter().find(|(_, t)| leaves(t)).map(|(n, _)| *n);
        if let Some(number) = number.filter(|_| !self.tell(side, |model| model.is_running(life))) {
            self.sets_off(number);
        }
    }

    fn sets_off(&self, number: u32) {
        let to = {
            let mut travels = self.travels.borrow_mut();
            let Some(travel) = travels.get_mut(&number) else { return };
            travel.stage = Stage::Under;
            travel.to
        };
        if self.tell(to, |model| model.closed) {
            self.turns_back(number);
        } else {
            self.sends(to, number);
        }
    }

    fn sends(&self, to: usize, number: u32) {
        self.tell(to, |model| {
            model.schedule(Work::Arrival(number), false);
            model.notify();
        });
    }

    /// The context that it was to come to is closed.
    fn turns_back(&self, number: u32) {
        let home = {
            let travels = self.travels.borrow();
            let Some(travel) = travels.get(&number) else { return };
            (travel.stage == Stage::Under).then_some(travel.from)
        };
        let home = home.filter(|home| !self.tell(*home, |model| model.closed));
        if let Some(travel) = self.travels.borrow_mut().get_mut(&number) {
            travel.stage = if home.is_some() { Stage::Back } else { Stage::Left };
            travel.to = home.unwrap_or(travel.to);
        }
        if let Some(home) = home {
            self.count("a move returns");
            self.sends(home, number);
        }
    }

    /// It is being registered.
    fn arrives(&self, number: u32) {
        if self.is_broken() {
            return;
        }
        let (side, at, live) = {
            let mut travels = self.travels.borrow_mut();
            let Some(travel) = travels.get_mut(&number) else { return };
            let back = travel.stage == Stage::Back;
            travel.stage = if back { Stage::Home } else { Stage::Arrived };
            travel.place.store(travel.to, Ordering::Relaxed);
            (travel.to, travel.at, travel.live.take())
        };
        self.count("a move arrives");
        let what = What::Work(Work::Arrival(number));
        self.enter(side, what);
        self.tell(side, |model| model.leave(what, None));
        let Some(live) = live else { return self.breaks(format!("move {number} arrives twice")) };
        self.tell(side, |model| {
            model.remove(at);
            model.add(at, live.elsewhere());
        });
        self.note_files();
    }

    /// One that came back to find its place taken is not registered; the answer says so.
    fn see_returned(&self, side: usize) {
        let mut taken = Vec::new();
        for (number, travel) in self.travels.borrow_mut().iter_mut() {
            let back = travel.stage == Stage::Back && travel.to == side;
            if back && let Some(answer) = travel.ack.try_take() {
                taken.push((*number, matches!(answer, Err(failed) if failed.is_source())));
                travel.stage = Stage::Left;
            }
        }
        for (number, is_source) in taken {
            self.travels.borrow_mut().remove(&number);
            let what = What::Work(Work::Arrival(number));
            self.note(|| format!("{side}: > {what:?}, where another is"));
            self.demand(is_source, || "it came back and was not given to the asker".into());
            let seen = self.tell(side, |model| model.is_finding()).then(|| self.seen(side));
            self.tell(side, |model| {
                model.enter(what, seen);
                model.leave(what, None);
            });
        }
    }

    /// What became of the moves that are over.
    fn hear(&self) {
        if self.travels.borrow().is_empty() || self.is_broken() {
            return;
        }
        let mut over = Vec::new();
        self.travels.borrow_mut().retain(|_, travel| {
            if travel.is_under_way() {
                return true;
            }
            let answer = travel.ack.try_take();
            let registered = (travel.life, travel.place.clone(), travel.travels.clone());
            over.push((travel.at, travel.to, travel.from, travel.stage, registered, answer));
            false
        });
        for (at, to, from, stage, (life, place, travels), answer) in over {
            let Some(answer) = answer else {
                self.breaks(format!("a move is {stage:?}, and nobody says so"));
                return;
            };
            let (fits, token) = match (answer, stage) {
                (Ok(token), Stage::Arrived) => (true, Some((to, token))),
                (Err(failed), Stage::Home) => match failed.left {
                    Left::Registered(token) => (failed.error.is_closed(), Some((from, token))),
                    _ => (false, None),
                },
                (Err(failed), Stage::Left) => (failed.is_source(), None),
                (Err(failed), Stage::Gone) => (matches!(failed.left, Left::Gone), None),
                _ => (false, None),
            };
            self.demand(fits, || format!("the answer to a move that is {stage:?} is another"));
            let Some((side, token)) = token else { continue };
            // Its context may be closed by now, or it may be gone again.
            if let Some(token) = token.to_local(&self.side(side).ctx) {
                let token = AnyToken::Source(token);
                let registered = Registered { life, token, place, travels };
                self.side(side).tokens.borrow_mut()[usize::from(at)] = Some(registered);
            }
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
            world.call(side, What::Work(work), || world.steps(side, &steps, true))
        });
        if self.unless_closed(side, made).is_some() {
            self.tell(side, |model| model.schedule(work, false));
        }
    }

    fn job(&self, side: usize, steps: &Steps) {
        let (steps, work) = (steps.clone(), Work::Job(self.number()));
        let made = self.side(side).ctx.remote().run(move |_| {
            let Some(world) = here() else { return };
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
            if self.depth.get() > 1 {
                self.count("a nested turn");
            }
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
        self.see_returned(side);
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
        } else if self.tell(side, |model| model.is_in_turn()) {
            self.demand(ended == Ended::Well, || format!("poll_until: {ended:?}"));
        } else {
            let thrown = if let Ended::Panic(id) = ended { Some(id) } else { None };
            let fits = thrown.is_some() || ended == Ended::Well;
            self.demand(fits, || format!("poll_until: {ended:?}"));
            self.tell(side, |model| model.call_threw(thrown));
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
        if !self.embedded[side].replace(true) && self.on.ring == RingMode::Auto {
            self.tell(side, Model::has_new_ring);
        }
        let ns = self.prepare(side, backend);
        self.prepared[side].set(ns);
        let _ = self.steps(side, between, false);
        if again {
            return; // calling prepare twice is harmless; the outer loop has not slept yet
        }
        let ns = self.prepared[side].get(); // what it was told last
        self.embedding[side].set(false);
        self.count("an outer loop's turn");
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
        self.tell(side, |model| {
            let unwatched = match self.on.monitor {
                // Not even by a set of epoll.
                MonitorKind::Poll => model.live.get(&REGULAR).is_some_and(|h| !h.wanted.is_empty()),
                // Data completes the request for urgent data, and is looked at.
                MonitorKind::IoUring => model.live.iter().any(|(at, handler)| {
                    let data = u32::from(PollFlags::IN.bits());
                    let urgent = handler.wanted.contains(Interest::PRIORITY);
                    urgent && seen.files[usize::from(*at)] & data != 0
                }),
                _ => false,
            };
            model.prepared(seen, ns, readable, unwatched);
        });
        ns
    }

    // --- the context ----------------------------------------------------------------------------

    fn suspend(&self, side: usize) {
        self.tell(side, Model::leave_spin_mode);
        let open = self.tell(side, |model| !model.closed);
        let result = self.calling(side, open, AioContext::suspend);
        result.and_then(|result| self.unless_closed(side, result));
        self.tell(side, Model::left_spin_mode);
    }

    fn set_params(&self, side: usize, spin: Spin) {
        let open = self.tell(side, |model| !model.closed);
        if open {
            self.tell(side, |model| model.set_spin(spin));
        }
        let result = self.calling(side, open, |ctx| ctx.set_poll_params(params(spin)));
        result.and_then(|result| self.unless_closed(side, result));
        self.tell(side, Model::left_spin_mode);
    }

    fn set_params_remotely(&self, side: usize, spin: Spin) {
        let result = self.side(side).ctx.remote().set_poll_params(params(spin));
        if self.unless_closed(side, result).is_some() {
            self.tell(side, |model| model.set_spin_remotely(spin));
        }
    }

    fn close(&self, side: usize) {
        let (open, arrivals) = self.tell(side, |model| {
            model.close();
            (!model.closed, model.arrivals())
        });
        let report = self.calling(side, open, AioContext::close);
        self.tell(side, |model| model.close_reported(report));
        arrivals.into_iter().for_each(|number| self.turns_back(number));
    }
}

impl Travel {
    fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Under | Stage::Back)
    }
}

trait IsSource {
    /// The asker has the source.
    fn is_source(&self) -> bool;
}

impl IsSource for fdmon::MoveError<Movable> {
    fn is_source(&self) -> bool {
        self.error.is_closed() && matches!(self.left, Left::Source(_))
    }
}

fn callback(
    place: &Place,
    at: u8,
    life: Life,
    which: Which,
    call: &Call,
) -> impl FnMut(&mut Ops<'_>) -> Outcome + Send + use<> {
    let (place, call) = (place.clone(), call.clone());
    move |ops| {
        let Some(world) = here() else { return Ok(()) };
        let side = place.load(Ordering::Relaxed);
        world.count(match which {
            Which::Read => "read",
            Which::Ready => "poll_ready",
            Which::Write => "write",
            Which::Priority => "priority",
        });
        let what = What::Handler(life, which, ops.events().bits());
        world.call(side, what, || {
            if call.take {
                world.take(at, which);
            }
            world.steps(side, &call.steps, true)
        })
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
    place: Place,
    at: u8,
    life: Life,
    code: Code,
    asked: Cell<u8>,
    word: Arc<AtomicU32>,
}

impl PollSource for Asked {
    fn poll(&self) -> bool {
        let Some(world) = here() else { return false };
        let side = self.side();
        let asked = self.asked.get().saturating_add(1);
        self.asked.set(asked);
        world.clock.advance_ns(self.code.ns.into());
        let now = asked.checked_rem(self.code.every) == Some(0);
        if now && self.code.meanwhile == Meanwhile::Sets {
            self.word.store(1, Ordering::Release);
        }
        let panics = (asked == self.code.panics_at).then(|| world.number());
        let said = panics.is_none() && self.word.load(Ordering::Acquire) != 0;
        if world.is_broken() {
            return said;
        }
        world.note(|| format!("{side}: ? handler {} {said}", self.life));
        world.see_returned(side);
        let ns = self.code.ns.into();
        world.tell(side, |model| model.asks(self.life, ns, said, panics));
        if now {
            world.meanwhile(side, self.code.meanwhile);
        }
        match panics {
            Some(id) => {
                world.count("a predicate panics");
                world.throw(id)
            }
            None => said,
        }
    }

    fn poll_begin(&mut self) {
        let Some(world) = here() else { return };
        let side = self.side();
        world.count("poll_begin");
        world.note(|| format!("{side}: handler {} begins", self.life));
        world.tell(side, |model| model.begins(self.life));
        self.run(&world, self.code.begin);
    }

    fn poll_end(&mut self) {
        let Some(world) = here() else { return };
        let side = self.side();
        world.count("poll_end");
        world.note(|| format!("{side}: handler {} ends", self.life));
        world.see_returned(side);
        let seen = world.tell(side, |m| m.has_failed_in_loop(self.life)).then(|| world.seen(side));
        world.tell(side, |model| model.ends(self.life, seen));
        self.run(&world, self.code.end);
    }
}

impl Asked {
    fn side(&self) -> usize {
        self.place.load(Ordering::Relaxed)
    }

    fn run(&self, world: &World, hook: Hook) {
        if !world.burn() {
            return;
        }
        let side = self.side();
        match hook {
            Hook::Nothing => {}
            Hook::Sets => self.word.store(1, Ordering::Release),
            Hook::Schedules => world.schedule(side, 0, false),
            Hook::Arms => world.arm(side, 0, 20_000),
            Hook::Removes => {
                if world.tell(side, |model| model.is_live(self.at, self.life)) {
                    world.remove(side, self.at);
                }
            }
            Hook::Panics => {
                let id = world.number();
                world.count("a hook panics");
                world.tell(side, |model| model.panics(id));
                world.throw(id);
            }
        }
    }
}

impl World {
    /// What somebody on another CPU does while this one spins.
    fn meanwhile(&self, side: usize, what: Meanwhile) {
        if !self.tell(side, |model| model.is_spinning()) || !self.burn() {
            return;
        }
        self.note(|| format!("{side}: meanwhile: {what:?}"));
        match what {
            Meanwhile::Sets => {}
            Meanwhile::Wakes { at } => {
                self.count("a word is set in a spin");
                self.set_word(at, true);
                self.tell(side, |model| model.word_set_in_spin(at));
            }
            Meanwhile::Readies { at } => {
                let sides = || self.sides.iter().filter_map(OnceCell::get);
                if sides().any(|side| side.model.borrow().is_any_running()) {
                    return; // whether it is watched then is of no consequence
                }
                self.count("a file becomes ready in a spin");
                self.file(|files| files.ready(at));
                self.tell(side, Model::files_changed_in_spin);
            }
            Meanwhile::Notifies => {
                self.count("a notification comes in a spin");
                self.tell(side, Model::notify_in_spin);
                let notified = self.side(side).ctx.remote().notify();
                self.unless_closed(side, notified);
            }
            Meanwhile::Sends => {
                self.count("a job comes in a spin");
                self.tell(side, Model::notify_in_spin);
                self.job(side, &Steps::default());
            }
        }
    }
}
