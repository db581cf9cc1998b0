//! Counters: written by the home thread with plain loads and stores, read by anybody.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

/// A counter that one thread writes and any thread reads.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }

    /// Not a read-modify-write: only the home thread writes.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    #[inline]
    pub fn raise_to(&self, n: u64) {
        if n > self.get() {
            self.set(n);
        }
    }

    /// Written by many threads.
    #[inline]
    pub fn bump_shared(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Written by many threads.
    pub fn raise_shared(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub turns: Counter,
    /// Waits with a timeout of 0.
    pub looks: Counter,
    pub sleeps: Counter,
    pub spin_hits: Counter,
    pub spin_misses: Counter,
    pub spin_ns: Counter,
    pub spin_wasted_ns: Counter,
    pub window_ns: Counter,
    pub wake_up_ns: Counter,
    pub events: Counter,
    /// When the first counted turn began, and when the last one stopped waiting.
    first_ns: Counter,
    pub settled_ns: Counter,
    /// What counted turns spent between begin and end of the wait.
    pub waited_ns: Counter,
    /// Turns that took a notification: of no interest to a reader, but to the turns around them.
    pub accepted: Counter,
    pub notifies_sent: Counter,
    pub notifies_elided: Counter,
    pub submissions: Counter,
    pub completions: Counter,
    pub batch_max: Counter,
    pub fallbacks: Counter,
    pub io_in_flight: Counter,
    pub io_batch_max: Counter,
    /// As it was last read.
    pub cpu_ns: Counter,
}

impl Counters {
    #[inline]
    pub fn counted_since(&self, start: u64) {
        if self.first_ns.get() == 0 {
            self.first_ns.set(start + 1); // 0 = none yet
        }
    }

    /// The time between turns, up to the last one.
    pub fn dispatch_ns(&self) -> u64 {
        if self.first_ns.get() == 0 {
            return 0;
        }
        let span = (self.settled_ns.get() + 1).saturating_sub(self.first_ns.get());
        span.saturating_sub(self.waited_ns.get())
    }
}

/// The counters of one handler, shared with whoever reads statistics.
pub(crate) struct HandlerCounters {
    pub fd: AtomicI32,
    pub reads: Counter,
    pub writes: Counter,
    pub poll_hits: Counter,
    pub polling: AtomicBool,
    pub estimate_ns: Counter,
}

impl HandlerCounters {
    pub fn new(fd: i32) -> Self {
        Self {
            fd: AtomicI32::new(fd),
            reads: Counter::default(),
            writes: Counter::default(),
            poll_hits: Counter::default(),
            polling: AtomicBool::new(false),
            estimate_ns: Counter::default(),
        }
    }
}

/// Why a context that is asked to spin does not, or not as long as it would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Guard {
    /// One CPU is usable by this thread: spinning would keep the producer from running.
    OneCpu,
    /// The cgroup's quota is one CPU or less.
    CpuQuota,
    /// The producer runs only when this thread yields: both are on one CPU at the moment.
    SharedCpu,
    /// The CPU budget for fruitless spins is used up: it spins less than it would, or not at all.
    Budget,
    /// A handler without `poll` is registered, on a monitor that cannot see its readiness
    /// without a system call.
    HandlerWithoutPoll,
}

impl Guard {
    /// The reason, in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneCpu => "one CPU is usable",
            Self::CpuQuota => "the cgroup quota is one CPU or less",
            Self::SharedCpu => "the producer shares this CPU",
            Self::Budget => "the CPU budget is used up",
            Self::HandlerWithoutPoll => "a handler has no poll",
        }
    }

    pub(crate) fn to_u8(guard: Option<Self>) -> u8 {
        match guard {
            None => 0,
            Some(Self::OneCpu) => 1,
            Some(Self::CpuQuota) => 2,
            Some(Self::Budget) => 3,
            Some(Self::HandlerWithoutPoll) => 4,
            Some(Self::SharedCpu) => 5,
        }
    }

    pub(crate) fn from_u8(guard: u8) -> Option<Self> {
        match guard {
            1 => Some(Self::OneCpu),
            2 => Some(Self::CpuQuota),
            3 => Some(Self::Budget),
            4 => Some(Self::HandlerWithoutPoll),
            5 => Some(Self::SharedCpu),
            _ => None,
        }
    }
}

/// What a context did so far. Counts are absolute, times are nanoseconds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ContextStats {
    /// The monitor that runs now.
    pub monitor: crate::config::MonitorKind,
    /// Why it is that one, in words.
    pub monitor_reason: String,
    /// Why the context does not spin although it is asked to, if so.
    pub guard: Option<Guard>,
    /// Turns begun.
    pub turns: u64,
    /// Times the kernel was asked, with any timeout.
    pub waits: u64,
    /// Waits with a timeout other than 0.
    pub sleeps: u64,
    /// Spins that ended with an event.
    pub spin_hits: u64,
    /// Spins that ended without one.
    pub spin_misses: u64,
    /// Time spent spinning.
    pub spin_ns: u64,
    /// The part of it that found nothing.
    pub spin_wasted_ns: u64,
    /// The spin window now.
    pub window_ns: u64,
    /// What a wake-up takes, as the policy believes; 0 = not measured. The policies `handler` and
    /// `cost` take it off the time that a sleep took.
    pub wake_up_ns: u64,
    /// Callbacks of handlers, non-idle bottom halves and timers that were due.
    pub events: u64,
    /// Time between the end of a turn's wait and the start of the next turn: callbacks and what
    /// the caller does between turns. Counted while spinning is on.
    pub dispatch_ns: u64,
    /// CPU time of the thread that the context is at home in, whatever it did there. Less
    /// `spin_wasted_ns` it is what the thread was busy.
    pub cpu_ns: u64,
    /// Notifications that had to signal the eventfd.
    pub notifies_sent: u64,
    /// Notifications that cost no system call: the loop was awake, or its sleep had been signalled.
    pub notifies_elided: u64,
    /// Times requests of file I/O were handed over, together.
    pub submissions: u64,
    /// Requests of file I/O that ended.
    pub completions: u64,
    /// Most callbacks that one turn had to run.
    pub batch_max: u64,
    /// What does file I/O; `None` = nobody has asked for any.
    pub aio_engine: Option<crate::config::IoEngine>,
    /// Why it is that one, in words.
    pub aio_reason: String,
    /// Requests of file I/O that the engine has now.
    pub io_in_flight: u64,
    /// Most of them that were handed over together.
    pub io_batch_max: u64,
    /// Moves to another monitor, or from a ring to threads, because the kernel refused something.
    pub fallbacks: u64,
    /// One row a live handler.
    pub handlers: Vec<HandlerStats>,
}

/// What one handler did so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HandlerStats {
    /// Its fd.
    pub fd: i32,
    /// `read` callbacks due so far.
    pub reads: u64,
    /// `write` callbacks due so far.
    pub writes: u64,
    /// Times its predicate said yes.
    pub poll_hits: u64,
    /// It is on the spin list now.
    pub polling: bool,
    /// Its own estimate of the time between events (per-handler policy).
    pub estimate_ns: u64,
}
