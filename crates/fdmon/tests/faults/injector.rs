//! Makes the n-th call of a place fail, in a context that is at work in a thread of its own.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fdmon::Remote;
use fdmon::faults::{Completed, Shape, Shortages, rewrite_completions, shape_rings, shortages};
use rustix::io::Errno;

use crate::supervise::{Answer, Asks, Call, Heard, Listener, supervise};
use crate::table::Phase;

/// A case that takes longer than this sleeps on although its event is there.
const LIMIT: Duration = Duration::from_secs(5);

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is not made.
    Instead,
    /// It is made nevertheless, as close(2) does when it is interrupted; or by somebody else before.
    Done,
    /// The counter of the eventfd is at its maximum, which is when this errno comes.
    Full,
    /// The fd leaves the epoll set before, which is when this errno comes.
    Gone,
}

/// Which call fails, or which completion.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Not a call, but what completes on a ring.
    pub completed: Option<Completed>,
    pub numbers: &'static [i64],
    pub is_here: fn(&Asked<'_>) -> bool,
    pub phases: &'static [Phase],
    pub errno: Errno,
    pub manner: Manner,
    pub nth: u32,
    /// And each one after it.
    pub and_later: bool,
}

/// What an fd leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum File {
    /// An eventfd of the test.
    Bell,
    /// The eventfd of the context.
    Notifier,
    Epoll,
    Timer,
    Ring,
    /// A memfd: a file without a poll operation.
    Memory,
    Socket,
    Other,
}

/// A call, and what is known of it.
pub struct Asked<'a> {
    pub call: &'a Call,
    stage: &'a Stage,
    /// The thread of the context makes it.
    pub at_home: bool,
}

impl Asked<'_> {
    pub fn arg(&self, at: usize) -> u64 {
        self.call.args[at]
    }

    /// The number of a file that is an argument, sign-extended or not.
    pub fn fd(&self, at: usize) -> RawFd {
        self.call.args[at] as u32 as RawFd
    }

    pub fn file(&self, at: usize) -> File {
        self.stage.file(self.fd(at))
    }

    /// The first entry of the array of poll(2), of this many.
    pub fn polled(&self) -> (File, u64) {
        let first = self.call.args[0] as *const libc::pollfd;
        // SAFETY: the caller is in this process and waits for the answer; it passed a valid array.
        let fd = if self.call.args[1] == 0 { -1 } else { unsafe { (*first).fd } };
        (self.stage.file(fd), self.call.args[1])
    }

    /// The timeout of ppoll(2) is not zero.
    pub fn sleeps(&self) -> bool {
        let timeout = self.call.args[2] as *const libc::timespec;
        // SAFETY: the caller is in this process and waits for the answer; it passed a valid one.
        let timeout = (!timeout.is_null()).then(|| unsafe { *timeout });
        timeout.is_none_or(|at| at.tv_sec != 0 || at.tv_nsec != 0)
    }

    /// The time of timerfd_settime(2) is not zero.
    pub fn arms(&self) -> bool {
        let time = self.call.args[2] as *const libc::itimerspec;
        // SAFETY: the caller is in this process and waits for the answer; it passed a valid one.
        let value = unsafe { (*time).it_value };
        value.tv_sec != 0 || value.tv_nsec != 0
    }

    /// The mapping of munmap(2) is memory of a ring.
    pub fn unmaps_ring(&self) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let begin = format!("{:x}-", self.arg(0));
        maps.lines().any(|line| line.starts_with(&begin) && line.ends_with("[io_uring]"))
    }

    /// The path of openat(2).
    pub fn path(&self) -> &str {
        let text = self.call.args[1] as *const std::ffi::c_char;
        // SAFETY: the caller is in this process and waits for the answer; it passed a C string.
        unsafe { std::ffi::CStr::from_ptr(text) }.to_str().unwrap_or_default()
    }
}

/// What the context's thread and the supervisor share.
#[derive(Default)]
pub struct Stage {
    phase: AtomicU8,
    home: AtomicU32,
    /// The test itself calls the kernel, in the context's thread.
    aside: AtomicBool,
    bells: Mutex<HashSet<RawFd>>,
    remote: Mutex<Option<Remote>>,
    listener: Mutex<Option<Listener>>,
    done: AtomicBool,
    /// Calls that were made at the place of each rule…
    seen: Box<[AtomicU32]>,
    /// …and those at the first that failed.
    hits: AtomicU32,
    /// All calls are asked about, but these; what no rule concerns is noted, with how often it was
    /// made.
    all_but: Option<&'static [i64]>,
    strays: Mutex<BTreeMap<Stray, u32>>,
    /// Queues of rings that were too small.
    pub shortages: Mutex<Shortages>,
    /// Nothing happened for so long that it was woken.
    pub hung: Arc<AtomicBool>,
}

/// A call that belongs to no place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stray {
    pub number: i64,
    /// What the first argument leads to, if it is a file.
    pub file: File,
    pub second: u64,
    pub phase: u8,
    /// The thread of the context made it.
    pub at_home: bool,
}

impl Stage {
    /// For so many rules.
    pub fn new(rules: usize) -> Self {
        Self { seen: (0..rules).map(|_| AtomicU32::new(0)).collect(), ..Self::default() }
    }

    /// Notes which calls no rule concerns.
    pub fn look_for_strays(mut self, all_but: &'static [i64]) -> Self {
        self.all_but = Some(all_but);
        self
    }

    pub fn strays(&self) -> BTreeMap<Stray, u32> {
        self.strays.lock().unwrap().clone()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    pub fn know_bell(&self, fd: RawFd) {
        // Not while the supervisor may want to know one.
        self.aside(|| self.bells.lock().unwrap().insert(fd));
    }

    /// Whom to wake when nothing happens.
    pub fn watch_over(&self, remote: Remote) {
        *self.remote.lock().unwrap() = Some(remote);
    }

    /// Calls of the test's own, which no rule is about.
    pub fn aside<T>(&self, run: impl FnOnce() -> T) -> T {
        let before = self.aside.swap(true, Ordering::SeqCst);
        let result = run();
        self.aside.store(before, Ordering::SeqCst);
        result
    }

    /// Calls at the place of this rule.
    pub fn seen(&self, rule: usize) -> u32 {
        self.seen.get(rule).map_or(0, |seen| seen.load(Ordering::SeqCst))
    }

    /// Lets go of the context.
    pub fn forget(&self) {
        *self.remote.lock().unwrap() = None;
    }

    pub fn hits(&self) -> u32 {
        self.hits.load(Ordering::SeqCst)
    }

    /// One more call at the place of this rule. `true` = it fails.
    fn count(&self, at: usize, rule: &Rule) -> bool {
        let nth = self.seen[at].fetch_add(1, Ordering::SeqCst) + 1;
        let fails = nth == rule.nth || (rule.and_later && nth > rule.nth);
        if at == 0 {
            self.hits.fetch_add(fails.into(), Ordering::SeqCst);
        }
        fails
    }

    fn file(&self, fd: RawFd) -> File {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        match link.to_str().unwrap_or_default() {
            // Numbers are used again, but the notifier is there before any bell.
            "anon_inode:[eventfd]" if self.bells.lock().unwrap().contains(&fd) => File::Bell,
            "anon_inode:[eventfd]" => File::Notifier,
            "anon_inode:[eventpoll]" => File::Epoll,
            "anon_inode:[timerfd]" => File::Timer,
            "anon_inode:[io_uring]" => File::Ring,
            name if name.starts_with("/memfd:") => File::Memory,
            name if name.starts_with("socket:") => File::Socket,
            _ => File::Other,
        }
    }
}

/// Runs `scenario` in a thread of its own, in which the rules are in force.
pub fn inject(
    rules: &[Rule],
    shape: Option<Shape>,
    stage: &Arc<Stage>,
    scenario: impl FnOnce() + Send,
) -> std::thread::Result<()> {
    let mut numbers: Vec<i64> = rules.iter().flat_map(|rule| rule.numbers).copied().collect();
    numbers.sort_unstable();
    numbers.dedup();
    let asks = stage.all_but.map_or(Asks::About(&numbers), Asks::AboutAllBut);
    std::thread::scope(|scope| {
        let home = scope.spawn(|| {
            struct Done<'a>(&'a Stage);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.done.store(true, Ordering::SeqCst);
                }
            }
            let _done = Done(stage);
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            stage.home.store(thread.cast_unsigned(), Ordering::SeqCst);
            stage.aside.store(true, Ordering::SeqCst);
            let listener = supervise(asks);
            let listener = listener.unwrap_or_else(|error| {
                panic!("no call can be supervised here: {error}; allow seccomp(2) with a listener (Linux 5.5)")
            });
            *stage.listener.lock().unwrap() = Some(listener);
            stage.aside.store(false, Ordering::SeqCst);
            shape_rings(shape);
            rewrite(rules, stage);
            scenario();
            rewrite_completions(None);
            *stage.shortages.lock().unwrap() = shortages();
            stage.aside.store(true, Ordering::SeqCst);
        });
        let listener = loop {
            if let Some(listener) = stage.listener.lock().unwrap().take() {
                break Some(listener);
            }
            if home.is_finished() {
                break None;
            }
            std::thread::sleep(Duration::from_micros(20));
        };
        if let Some(listener) = listener {
            listener.take_turns();
            answer_all(&listener, rules, stage);
        }
        home.join()
    })
}

/// Completions are changed in the context's own thread.
fn rewrite(rules: &[Rule], stage: &Arc<Stage>) {
    let rules = rules.to_vec();
    if rules.iter().all(|rule| rule.completed.is_none()) {
        return;
    }
    let stage = Arc::clone(stage);
    rewrite_completions(Some(Box::new(move |kind, _| {
        let phase = stage.phase.load(Ordering::SeqCst);
        let concerned = rules.iter().enumerate().filter(|(_, rule)| {
            rule.completed == Some(kind) && rule.phases.iter().any(|&of| of as u8 == phase)
        });
        let mut result = None;
        for (at, rule) in concerned {
            if stage.count(at, rule) {
                result = Some(-rule.errno.raw_os_error());
            }
        }
        result
    })));
}

fn answer_all(listener: &Listener, rules: &[Rule], stage: &Stage) {
    let begin = Instant::now();
    loop {
        match listener.hear(Duration::from_millis(100)) {
            Heard::Call(call) => {
                let answer = decide(&call, rules, stage);
                listener.answer(&call, answer);
            }
            Heard::Over => return,
            Heard::Nothing if stage.done.load(Ordering::SeqCst) => return,
            Heard::Nothing => {}
        }
        if begin.elapsed() > LIMIT {
            assert!(begin.elapsed() < 2 * LIMIT, "it hangs although it was woken");
            stage.hung.store(true, Ordering::SeqCst);
            if let Some(remote) = &*stage.remote.lock().unwrap() {
                let _ = remote.notify();
            }
        }
    }
}

fn decide(call: &Call, rules: &[Rule], stage: &Stage) -> Answer {
    let is_home = call.thread == stage.home.load(Ordering::SeqCst);
    if is_home && stage.aside.load(Ordering::SeqCst) {
        return Answer::GoesOn;
    }
    let phase = stage.phase.load(Ordering::SeqCst);
    let asked = Asked { call, stage, at_home: is_home };
    let mut concerns_any = false;
    for (at, rule) in rules.iter().enumerate() {
        let concerns = rule.numbers.contains(&call.number)
            && rule.phases.iter().any(|&of| of as u8 == phase)
            && (rule.is_here)(&asked);
        concerns_any |= concerns;
        if concerns && stage.count(at, rule) {
            before(call, rule.manner);
            return Answer::Fails(rule.errno);
        }
    }
    if stage.all_but.is_some() && !concerns_any {
        let file = asked.file(if call.number == libc::SYS_mmap { 4 } else { 0 });
        // Not what may be an address.
        let second = if asked.arg(1) < 1 << 32 { asked.arg(1) } else { 0 };
        let stray = Stray { number: call.number, file, second, phase, at_home: is_home };
        *stage.strays.lock().unwrap().entry(stray).or_default() += 1;
    }
    Answer::GoesOn
}

/// Brings about what the errno says.
fn before(call: &Call, manner: Manner) {
    let [a, b, c, d, ..] = call.args;
    match manner {
        Manner::Instead => {}
        // SAFETY: the very call that the thread wants to make, in the process that it is of.
        Manner::Done => drop(unsafe { libc::syscall(call.number, a, b, c, d) }),
        Manner::Full => {
            let most = (u64::MAX - 1).to_ne_bytes();
            // SAFETY: eight bytes that are there.
            unsafe { libc::write(a as i32, most.as_ptr().cast(), most.len()) };
        }
        Manner::Gone => {
            // SAFETY: takes an fd out of a set; there is no memory in it.
            unsafe {
                libc::epoll_ctl(a as i32, libc::EPOLL_CTL_DEL, c as i32, std::ptr::null_mut())
            };
        }
    }
}
