//! What a context owes: each event once, each error once, `poll_end` for each `poll_begin`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex};

use fdmon::{Error, ErrorCode, EventNotifier, MonitorKind, Ops, Outcome, PollSource};

/// An error that somebody was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The call of the user that returned it.
    pub op: &'static str,
    pub code: ErrorCode,
    pub errno: Option<i32>,
    pub syscall: Option<&'static str>,
    pub text: String,
}

impl Told {
    pub fn of(op: &'static str, error: &Error) -> Self {
        Self {
            op,
            code: error.code(),
            errno: error.errno(),
            syscall: error.syscall_name(),
            text: error.to_string(),
        }
    }
}

/// What happened in a case.
#[derive(Default)]
pub struct Log {
    pub told: Mutex<Vec<Told>>,
    pub wrong: Mutex<Vec<String>>,
    /// Callbacks that were called for nothing.
    pub spurious: AtomicU32,
    /// The monitors, and why.
    pub trail: Mutex<Vec<(MonitorKind, String)>>,
    pub fallbacks: AtomicU32,
}

impl Log {
    pub fn tell(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    pub fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    pub fn note_monitor(&self, kind: MonitorKind, reason: String) {
        let mut trail = self.trail.lock().unwrap();
        let now = (kind, reason);
        if trail.last() != Some(&now) {
            trail.push(now);
        }
    }
}

/// An eventfd that is rung for one event at a time.
pub struct Bell {
    pub name: &'static str,
    pub notifier: EventNotifier,
    pub owed: Cell<bool>,
    pub heard: Cell<u32>,
    log: Arc<Log>,
}

impl Bell {
    pub fn new(name: &'static str, notifier: EventNotifier, log: &Arc<Log>) -> Rc<Self> {
        let log = Arc::clone(log);
        Rc::new(Self { name, notifier, owed: Cell::new(false), heard: Cell::new(0), log })
    }

    /// A callback that takes the event.
    pub fn answer(self: &Rc<Self>) -> impl FnMut(&mut Ops<'_>) -> Outcome + use<> {
        let this = Rc::clone(self);
        move |_| Ok(this.take()?)
    }

    pub fn take(&self) -> fdmon::Result<()> {
        if !self.notifier.test_and_clear()? {
            self.log.spurious.fetch_add(1, Ordering::SeqCst);
        } else if self.owed.replace(false) {
            self.heard.set(self.heard.get() + 1);
        } else {
            self.log.wrong(format!("'{}' is reported twice", self.name));
        }
        Ok(())
    }
}

/// Work in memory, with a bell that is silent while somebody spins.
#[derive(Default)]
pub struct Work {
    pub left: AtomicU32,
    pub taken: AtomicU32,
    suppress: AtomicBool,
    pub begins: AtomicU32,
    pub ends: AtomicU32,
}

impl Work {
    /// One more. `true` = the bell must be rung.
    pub fn add(&self) -> bool {
        self.left.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        !self.suppress.load(Ordering::SeqCst)
    }

    pub fn take(&self) {
        self.taken.fetch_add(self.left.swap(0, Ordering::SeqCst), Ordering::SeqCst);
    }

    /// What `poll_begin` has begun and `poll_end` not ended.
    pub fn begun(&self) -> u32 {
        self.begins.load(Ordering::SeqCst) - self.ends.load(Ordering::SeqCst)
    }
}

/// The predicate of [`Work`].
pub struct Predicate(pub Arc<Work>, pub Arc<Log>);

impl PollSource for Predicate {
    fn poll(&self) -> bool {
        self.0.left.load(Ordering::SeqCst) != 0
    }

    fn poll_begin(&mut self) {
        if self.0.begun() != 0 {
            self.1.wrong("poll_begin without poll_end".into());
        }
        self.0.begins.fetch_add(1, Ordering::SeqCst);
        self.0.suppress.store(true, Ordering::SeqCst);
    }

    fn poll_end(&mut self) {
        if self.0.begun() != 1 {
            self.1.wrong("poll_end without poll_begin".into());
        }
        self.0.ends.fetch_add(1, Ordering::SeqCst);
        self.0.suppress.store(false, Ordering::SeqCst);
    }
}

/// The files of this process.
pub fn open_files() -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let Ok(link) = std::fs::read_link(entry.unwrap().path()) else { continue };
        let name = link.to_string_lossy().into_owned();
        if !name.contains("/proc/") {
            files.push(name);
        }
    }
    files.sort();
    files
}
