//! What the tests of every topic use: counters, a log, predicates that do as they are told, fds.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fdmon::{
    Ack, AioContext, EventNotifier, Handlers, Interest, Ops, Outcome, PolicyKind, PollParams,
    PollSource, SendHandlers, Source,
};

/// Counts how often something happened.
#[derive(Clone, Default)]
pub struct Count(Rc<Cell<u32>>);

impl Count {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn bump(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub fn get(&self) -> u32 {
        self.0.get()
    }

    /// What was counted since the last call.
    pub fn take(&self) -> u32 {
        self.0.take()
    }

    /// A callback that does nothing but count.
    pub fn callback(&self) -> impl FnMut(&mut Ops<'_>) -> Outcome + use<> {
        let count = self.clone();
        move |_| {
            count.bump();
            Ok(())
        }
    }
}

/// Remembers what happened in which order.
#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(&self, what: &'static str) {
        self.0.borrow_mut().push(what);
    }

    /// What was written since the last call.
    pub fn take(&self) -> Vec<&'static str> {
        self.0.take()
    }

    /// A callback that does nothing but write this.
    pub fn callback(&self, what: &'static str) -> impl FnMut(&mut Ops<'_>) -> Outcome + use<> {
        let log = self.clone();
        move |_| {
            log.add(what);
            Ok(())
        }
    }
}

type Hook = RefCell<Option<Box<dyn FnMut()>>>;

/// A predicate that says what it is told to say, counts its calls, and may run something.
#[derive(Clone, Default)]
pub struct Predicate(Rc<Hands>);

#[derive(Default)]
struct Hands {
    says: Cell<bool>,
    asked: Cell<u32>,
    begins: Cell<u32>,
    ends: Cell<u32>,
    on_poll: Hook,
    on_begin: Hook,
    on_end: Hook,
}

thread_local! {
    static PREDICATES: Predicates = Predicates::default();
}

/// Those of one test. What it hooked into them may hold them in turn, so the hooks go when the
/// test's thread ends: nothing is left for a leak checker to find.
#[derive(Default)]
struct Predicates(RefCell<Vec<Weak<Hands>>>);

impl Drop for Predicates {
    fn drop(&mut self) {
        for hands in self.0.take().iter().filter_map(Weak::upgrade) {
            let hooks = [&hands.on_poll, &hands.on_begin, &hands.on_end].map(RefCell::take);
            drop(hooks);
        }
    }
}

impl Predicate {
    pub fn new() -> Self {
        let this = Self::default();
        PREDICATES.with(|all| all.0.borrow_mut().push(Rc::downgrade(&this.0)));
        this
    }

    pub fn say(&self, hit: bool) {
        self.0.says.set(hit);
    }

    /// How often it was asked since the last call.
    pub fn asked(&self) -> u32 {
        self.0.asked.take()
    }

    pub fn begins(&self) -> u32 {
        self.0.begins.get()
    }

    pub fn ends(&self) -> u32 {
        self.0.ends.get()
    }

    /// `poll_begin` was called last, not `poll_end`; and the two have alternated.
    pub fn has_begun(&self) -> bool {
        let (begins, ends) = (self.begins(), self.ends());
        assert!(begins == ends || begins == ends + 1, "{begins} begins, {ends} ends");
        begins > ends
    }

    pub fn on_poll(&self, f: impl FnMut() + 'static) {
        *self.0.on_poll.borrow_mut() = Some(Box::new(f));
    }

    pub fn on_begin(&self, f: impl FnMut() + 'static) {
        *self.0.on_begin.borrow_mut() = Some(Box::new(f));
    }

    pub fn on_end(&self, f: impl FnMut() + 'static) {
        *self.0.on_end.borrow_mut() = Some(Box::new(f));
    }

    /// A `poll_ready` that counts and says no from then on.
    pub fn taken(&self, count: &Count) -> impl FnMut(&mut Ops<'_>) -> Outcome + use<> {
        let (this, count) = (self.clone(), count.clone());
        move |_| {
            this.say(false);
            count.bump();
            Ok(())
        }
    }
}

fn run(hook: &Hook) {
    // Taken out: it may run code that ends here again.
    let taken = hook.borrow_mut().take();
    if let Some(mut f) = taken {
        f();
        hook.borrow_mut().get_or_insert(f);
    }
}

impl PollSource for Predicate {
    fn poll(&self) -> bool {
        self.0.asked.set(self.0.asked.get() + 1);
        run(&self.0.on_poll);
        self.0.says.get()
    }

    fn poll_begin(&mut self) {
        self.0.begins.set(self.0.begins.get() + 1);
        run(&self.0.on_begin);
    }

    fn poll_end(&mut self) {
        self.0.ends.set(self.0.ends.get() + 1);
        run(&self.0.on_end);
    }
}

/// A blocking turn that something must end: one that sleeps on fails instead of hanging.
#[track_caller]
pub fn block(ctx: &AioContext) -> bool {
    let slept = Count::new();
    let limit = ctx.timer(slept.callback()).unwrap();
    limit.arm(Duration::from_secs(10)).unwrap();
    let progress = ctx.poll(true).unwrap();
    limit.delete();
    assert_eq!(slept.get(), 0, "nothing ended the sleep");
    progress
}

/// A blocking turn that nothing ends for this long.
#[track_caller]
pub fn sleep_for(ctx: &AioContext, ns: u64) {
    let woken = Count::new();
    let timer = ctx.timer(woken.callback()).unwrap();
    timer.arm(Duration::from_nanos(ns)).unwrap();
    ctx.poll(true).unwrap();
    assert_eq!(woken.get(), 1, "something else ended the sleep");
}

/// Non-blocking turns until nothing happens any more; how many did something.
#[track_caller]
pub fn drain(ctx: &AioContext) -> u32 {
    for turns in 0..100 {
        if !ctx.poll(false).unwrap() {
            return turns;
        }
    }
    panic!("it never ends");
}

/// The longest spin of [`spin`].
pub const WINDOW: u64 = 100_000;

/// Spinning at its plainest: the classic policy, which jumps to the longest window at once, and no
/// guards, since the machine may have one CPU.
pub fn spin() -> PollParams {
    PollParams {
        max_ns: WINDOW,
        grow: u32::MAX,
        policy: PolicyKind::Classic,
        guards: false,
        ..PollParams::default()
    }
}

/// Opens the window to its maximum: two sleeps that the policy likes.
#[track_caller]
pub fn warm(ctx: &AioContext) {
    for _ in 0..2 {
        sleep_for(ctx, WINDOW - 1);
    }
    assert_eq!(ctx.stats().window_ns, WINDOW);
}

/// An eventfd that is readable.
pub fn rung() -> EventNotifier {
    EventNotifier::with_value(1).unwrap()
}

/// Registers a handler with a predicate, and lets it join the spin list by one hit. Its `read` and
/// `poll_ready` count into `runs`, which starts at 0.
#[track_caller]
pub fn member(ctx: &AioContext, bell: &EventNotifier, predicate: &Predicate) -> Count {
    let runs = Count::new();
    let clear = bell.clone();
    let read_runs = runs.clone();
    let quiet = predicate.clone();
    let handlers = Handlers::new()
        .read(move |_| {
            clear.test_and_clear()?;
            quiet.say(false);
            read_runs.bump();
            Ok(())
        })
        .poll(predicate.clone())
        .poll_ready(predicate.taken(&runs));
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    predicate.say(true);
    assert!(ctx.poll(false).unwrap());
    assert_eq!(runs.take(), 1);
    assert!(polling(ctx, bell.as_raw_fd()), "dispatched, so it is on the spin list");
    predicate.asked();
    runs
}

/// The handler of this fd is on the spin list.
pub fn polling(ctx: &AioContext, fd: RawFd) -> bool {
    let stats = ctx.stats();
    stats.handlers.iter().any(|handler| handler.fd == fd && handler.polling)
}

/// What threads count together.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<AtomicU32>);

impl Tally {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// How many hold it, this one among them.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Yields until it is this high; after a minute, fails instead.
    #[track_caller]
    pub fn wait_for(&self, count: u32) {
        let start = Instant::now();
        while self.get() < count {
            assert!(start.elapsed() < Duration::from_secs(60), "{} of {count}", self.get());
            std::thread::yield_now();
        }
    }
}

/// Clears this bell and counts, in whichever thread.
pub fn ringing(bell: &EventNotifier, runs: &Tally) -> SendHandlers<EventNotifier> {
    let (clear, runs) = (bell.clone(), runs.clone());
    SendHandlers::new(bell.clone()).read(move |_| {
        if clear.test_and_clear()? {
            runs.bump();
        }
        Ok(())
    })
}

thread_local! {
    /// Runs once, at the next `poll_end` of a [`Spun`] in this thread.
    static AT_END: Hook = const { RefCell::new(None) };
}

/// What the next `poll_end` of a [`Spun`] in this thread does besides.
pub fn at_end(f: impl FnMut() + 'static) {
    AT_END.set(Some(Box::new(f)));
}

/// A source with a predicate that may leave the thread. The test tells it what to say, and sees
/// what became of it.
#[derive(Debug)]
pub struct Spun {
    pub bell: EventNotifier,
    pub hands: Arc<SpunHands>,
}

#[derive(Debug, Default)]
pub struct SpunHands {
    pub says: AtomicBool,
    pub asked: Tally,
    pub begins: Tally,
    pub ends: Tally,
    pub runs: Tally,
    pub dropped: Tally,
    pub external: AtomicBool,
    /// Asked for its interest, it panics.
    pub panics: AtomicBool,
}

impl Spun {
    pub fn new() -> (Self, EventNotifier, Arc<SpunHands>) {
        let (bell, hands) = (EventNotifier::new().unwrap(), Arc::new(SpunHands::default()));
        (Self { bell: bell.clone(), hands: hands.clone() }, bell, hands)
    }
}

impl SpunHands {
    /// `poll_begin` was called last, not `poll_end`; and the two have alternated.
    pub fn has_begun(&self) -> bool {
        let (begins, ends) = (self.begins.get(), self.ends.get());
        assert!(begins == ends || begins == ends + 1, "{begins} begins, {ends} ends");
        begins > ends
    }

    pub fn say(&self, hit: bool) {
        self.says.store(hit, Ordering::SeqCst);
    }
}

impl AsFd for Spun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Source for Spun {
    fn interest(&self) -> Interest {
        assert!(!self.hands.panics.load(Ordering::SeqCst), "asked for its interest");
        Interest::READ
    }

    fn external(&self) -> bool {
        self.hands.external.load(Ordering::SeqCst)
    }

    fn read(&mut self, _: &mut Ops<'_>) -> Outcome {
        self.bell.test_and_clear()?;
        self.hands.say(false);
        self.hands.runs.bump();
        Ok(())
    }

    fn poll(&self) -> bool {
        self.hands.asked.bump();
        self.hands.says.load(Ordering::SeqCst)
    }

    fn poll_ready(&mut self, _: &mut Ops<'_>) -> Outcome {
        self.hands.say(false);
        self.hands.runs.bump();
        Ok(())
    }

    fn poll_begin(&mut self) {
        self.hands.begins.bump();
    }

    fn poll_end(&mut self) {
        self.hands.ends.bump();
        if let Some(mut f) = AT_END.take() {
            f();
        }
    }
}

impl Drop for Spun {
    fn drop(&mut self) {
        self.hands.dropped.bump();
    }
}

/// Turns of this context until the other thread's work is done.
#[track_caller]
pub fn turn_until<T>(ctx: &AioContext, done: &JoinHandle<T>) {
    let limit = ctx.timer(|_| panic!("the other thread is not done")).unwrap();
    limit.arm(Duration::from_secs(60)).unwrap();
    while !done.is_finished() {
        ctx.poll(false).unwrap();
        std::thread::yield_now();
    }
}

/// The answer, which comes soon: one that never does fails the test.
#[track_caller]
pub fn awaited<T>(mut ack: Ack<T>) -> T {
    ack.wait_for(Duration::from_secs(60)).unwrap().expect("it is never answered")
}

/// The answer, which is here.
#[track_caller]
pub fn answer<T>(mut ack: Ack<T>) -> T {
    ack.try_take().expect("it is acknowledged")
}

/// A number that nothing else in this process uses, so that a test may close it and find it
/// closed although other tests open files at the same time.
#[cfg(not(wasi))]
pub fn private(fd: impl AsFd) -> OwnedFd {
    static NEXT: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(800);
    let at = NEXT.fetch_add(1, Ordering::Relaxed);
    rustix::io::fcntl_dupfd_cloexec(fd, at).unwrap()
}

/// The fd by its number alone, so that a test can close what is registered.
pub fn by_number(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: only passed to the loop, which is being tested for what it does with a closed one.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Closes an fd that is registered by its number.
pub fn close_number(fd: RawFd) {
    // SAFETY: the number came from `private` by `into_raw_fd`; nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Two connected sockets, non-blocking.
#[cfg(not(wasi))]
pub fn pair() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

/// The reading and the writing end of a pipe, non-blocking.
#[cfg(not(wasi))]
pub fn pipe() -> (OwnedFd, OwnedFd) {
    use rustix::pipe::{PipeFlags, pipe_with};
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

/// Takes everything that can be read.
pub fn empty(fd: impl AsFd) {
    let mut buffer = [0_u8; 4096];
    while rustix::io::read(&fd, &mut buffer).is_ok_and(|n| n > 0) {}
}

/// Fills it until writing would block.
pub fn fill(fd: impl AsFd) {
    while rustix::io::write(&fd, &[0_u8; 4096]).is_ok() {}
}

/// A file without a poll operation, which epoll refuses.
#[cfg(not(wasi))]
pub fn regular_file() -> OwnedFd {
    rustix::fs::memfd_create("fdmon-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
}

/// WASI makes neither sockets nor pipes, and does not duplicate a number: tests that need them are
/// ignored there.
#[cfg(wasi)]
mod not_on_wasi {
    use super::{AsFd, OwnedFd};

    pub fn pair() -> (OwnedFd, OwnedFd) {
        panic!("WASI makes no sockets");
    }

    pub fn pipe() -> (OwnedFd, OwnedFd) {
        panic!("WASI makes no pipes");
    }

    pub fn alone(_: &str, _: &str) -> bool {
        panic!("WASI makes no processes");
    }

    pub fn private(_: impl AsFd) -> OwnedFd {
        panic!("WASI duplicates no fds");
    }

    pub fn regular_file() -> OwnedFd {
        let options = || std::fs::OpenOptions::new().read(true).write(true).create(true).clone();
        options().open("/tmp/fdmon-test").unwrap().into()
    }
}

#[cfg(wasi)]
pub use not_on_wasi::{alone, pair, pipe, private, regular_file};

/// Assertions on time hold on this machine; `FDMON_SLOW=1` says that they do not.
pub fn on_time() -> bool {
    std::env::var_os("FDMON_SLOW").is_none_or(|value| value != "1")
}

/// This machine is emulated, and ten times slower than others: `FDMON_EMULATED=1`.
fn emulated() -> bool {
    std::env::var_os("FDMON_EMULATED").is_some_and(|value| value == "1")
}

/// How often something is done that is done often.
pub fn often(count: u32) -> u32 {
    if emulated() { count / 50 } else { count }
}

/// Milliseconds in which some turns are over.
pub fn a_while(ms: u64) -> Duration {
    Duration::from_millis(if emulated() { 20 * ms } else { ms })
}

/// Held for writing while a process is started.
#[cfg(not(wasi))]
static STARTING: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// While this lives no test starts a process, which until it is another program has a copy of every descriptor: what is
/// closed here is closed.
#[cfg(not(wasi))]
pub fn no_copies() -> impl Drop {
    STARTING.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs this test once more in a process of its own, with this variable set, and expects it to
/// pass there. `true` = this is that process.
#[cfg(not(wasi))]
pub fn alone(variable: &str, value: &str) -> bool {
    const INSIDE: &str = "FDMON_TEST_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(INSIDE, "1").env(variable, value);
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let starting = STARTING.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let child = command.spawn().unwrap(); // it is another program now
    drop(starting);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "alone, it fails:\n{text}\n{complaints}");
    assert!(text.contains("1 passed"), "alone, it did not run:\n{text}\n{complaints}");
    false
}
