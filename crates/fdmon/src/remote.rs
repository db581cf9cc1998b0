//! What other threads hold of a context: notify, schedule, run, stop, parameters, statistics. How
//! they wake it is in `wake`.

use std::collections::HashMap;
use std::fmt;
use std::ops::DerefMut;
use std::sync::atomic::{AtomicU8, AtomicU64 as StdAtomicU64};
use std::sync::{LazyLock, Mutex as StdMutex, OnceLock, PoisonError};

use crate::config::{AioParams, IoEngine, MonitorKind, PollParams};
use crate::cpu_clock::CpuClock;
use crate::error::{Error, Result};
use crate::fork::Home;
use crate::inbox::{Inbox, Job, Node};
use crate::notifier::EventNotifier;
use crate::ops::Ops;
use crate::record::caller::Caller;
use crate::stats::{ContextStats, Counters, Guard, HandlerCounters, HandlerStats};
use crate::sync::{
    Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, Weak, downgrade, lock_std,
};
use crate::sync::{in_order, ordered};

/// The part of a context that other threads may touch.
pub(crate) struct Shared {
    pub id: u64,
    pub name: String,
    pub home: Home,
    pub inbox: Inbox,
    /// Somebody has published work since the loop last accepted.
    pub notified: AtomicBool,
    /// How many turns are about to sleep, and the outer loop's bit. Only the home thread writes.
    pub notify_me: AtomicU64,
    /// What `notify_me` said when somebody last signalled.
    pub signalled: AtomicU64,
    pub notifier: EventNotifier,
    /// Who notifies, while that is asked.
    pub caller: Caller,
    pub closed: AtomicBool,
    /// A stop is requested and no run has taken it yet.
    pub stop: AtomicBool,
    /// The parameters in force, or asked for and in force soon.
    pub wanted: Mutex<Wanted>,
    pub stats: Counters,
    /// Of the home thread, once there is one.
    pub cpu_clock: OnceLock<Option<CpuClock>>,
    pub guard: AtomicU8,
    pub monitor: Mutex<(MonitorKind, String)>,
    /// What does file I/O, and why; none = nobody has asked for any.
    pub aio: Mutex<(Option<IoEngine>, String)>,
    /// By slot. Locked at registration and by readers, never by a turn.
    pub handlers: Mutex<Vec<Option<Arc<HandlerCounters>>>>,
    /// Bottom halves by slot, for those who only have the number.
    pub halves: Mutex<Vec<Option<Arc<Node>>>>,
}

/// A context's parameters.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub poll: PollParams,
    pub aio: AioParams,
    /// `poll` was asked for by another thread, and is not in force yet.
    pub poll_changed: bool,
}

/// The ids of contexts begin behind this, for bindings whose threads have a memory each.
#[cfg(wasi)]
#[doc(hidden)]
pub fn start_ids(after: u64) {
    NEXT_ID.fetch_max(after.saturating_add(1), Ordering::Relaxed);
}

/// All contexts of this process that are alive, by id.
static CONTEXTS: LazyLock<StdMutex<HashMap<u64, Weak<Shared>>>> = LazyLock::new(StdMutex::default);
static NEXT_ID: StdAtomicU64 = StdAtomicU64::new(1);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn contexts() -> impl DerefMut<Target = HashMap<u64, Weak<Shared>>> {
    lock_std(&CONTEXTS)
}

/// Those that are open, in the order in which they were made.
#[cfg(not(wasi))]
pub(crate) fn alive() -> Vec<Arc<Shared>> {
    // None is dropped while all are locked: the end of one takes it off the list.
    let mut all: Vec<Arc<Shared>> = contexts().values().filter_map(Weak::upgrade).collect();
    all.retain(|shared| !shared.closed.load(Ordering::Relaxed) && shared.home.is_here());
    all.sort_unstable_by_key(|shared| shared.id);
    all
}

impl Shared {
    pub fn new(name: String, poll: PollParams, aio: AioParams) -> Result<Arc<Self>> {
        let shared = Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name,
            home: Home::here(),
            inbox: Inbox::new(),
            notified: AtomicBool::new(false),
            notify_me: AtomicU64::new(0),
            signalled: AtomicU64::new(0),
            notifier: EventNotifier::new()?,
            caller: Caller::default(),
            closed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wanted: Mutex::new(Wanted { poll, aio, poll_changed: false }),
            stats: Counters::default(),
            cpu_clock: OnceLock::new(),
            guard: AtomicU8::new(0),
            monitor: Mutex::new((MonitorKind::Poll, "none yet: its thread starts".into())),
            aio: Mutex::default(),
            handlers: Mutex::default(),
            halves: Mutex::default(),
        });
        contexts().insert(shared.id, downgrade(&shared));
        Ok(shared)
    }

    /// Returns the one before.
    pub fn set_monitor(&self, kind: MonitorKind, reason: String) -> MonitorKind {
        std::mem::replace(&mut *lock(&self.monitor), (kind, reason)).0
    }

    /// CPU time of the home thread.
    fn cpu_ns(&self) -> u64 {
        let read = &self.stats.cpu_ns;
        // The number of a thread that has ended may be that of another one.
        let open = !self.closed.load(Ordering::Relaxed) && self.home.is_here();
        let clock = self.cpu_clock.get().copied().flatten().filter(|_| open);
        if let Some(now) = clock.and_then(CpuClock::now_ns) {
            read.raise_shared(now);
        }
        read.get()
    }

    pub fn stats(&self) -> ContextStats {
        let (monitor, monitor_reason) = lock(&self.monitor).clone();
        let (aio_engine, aio_reason) = lock(&self.aio).clone();
        let c = &self.stats;
        ContextStats {
            monitor,
            monitor_reason,
            guard: Guard::from_u8(self.guard.load(Ordering::Relaxed)),
            turns: c.turns.get(),
            waits: c.looks.get() + c.sleeps.get(),
            sleeps: c.sleeps.get(),
            spin_hits: c.spin_hits.get(),
            spin_misses: c.spin_misses.get(),
            spin_ns: c.spin_ns.get(),
            spin_wasted_ns: c.spin_wasted_ns.get(),
            window_ns: c.window_ns.get(),
            wake_up_ns: c.wake_up_ns.get(),
            events: c.events.get(),
            dispatch_ns: c.dispatch_ns(),
            cpu_ns: self.cpu_ns(),
            notifies_sent: c.notifies_sent.get(),
            notifies_elided: c.notifies_elided.get(),
            submissions: c.submissions.get(),
            completions: c.completions.get(),
            batch_max: c.batch_max.get().max(c.events.get().min(1)),
            fallbacks: c.fallbacks.get(),
            aio_engine,
            aio_reason,
            io_in_flight: c.io_in_flight.get(),
            io_batch_max: c.io_batch_max.get(),
            handlers: lock(&self.handlers)
                .iter()
                .flatten()
                .map(|h| HandlerStats {
                    fd: h.fd.load(Ordering::Relaxed),
                    reads: h.reads.get(),
                    writes: h.writes.get(),
                    poll_hits: h.poll_hits.get(),
                    polling: h.polling.load(Ordering::Relaxed),
                    estimate_ns: h.estimate_ns.get(),
                })
                .collect(),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        contexts().remove(&self.id);
    }
}

/// A bottom half's name, for any thread.
#[derive(Clone)]
pub struct BottomHalfId {
    pub(crate) node: Arc<Node>,
    pub(crate) context: u64,
}

impl BottomHalfId {
    /// A number that names the bottom half within its context and is never used again there.
    #[must_use]
    pub fn as_u64(&self) -> u64 {
        number(self.node.slot, self.node.generation)
    }
}

impl fmt::Debug for BottomHalfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BottomHalfId").field(&self.as_u64()).finish()
    }
}

/// Fits the integers of a double: 32 bits of generation over 21 bits of slot.
fn number(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 21 | u64::from(slot)
}

/// A context as other threads hold it. Cheap to clone.
///
/// ```
/// # use std::{cell::Cell, rc::Rc};
/// let ctx = fdmon::AioContext::builder().build()?;
/// let remote = ctx.remote();
/// let thread = std::thread::spawn(move || remote.run(|ops| ops.stop()));
/// ctx.run()?; // until the thread's closure stops it
/// thread.join().unwrap()?;
/// # Ok::<(), fdmon::Error>(())
/// ```
#[derive(Clone)]
pub struct Remote(pub(crate) Arc<Shared>);

impl Remote {
    /// The context with this id, if it is alive in this process.
    ///
    /// # Errors
    /// `Closed`
    pub fn from_id(id: u64) -> Result<Self> {
        let shared = contexts().get(&id).and_then(Weak::upgrade);
        let open = shared.map(Self).filter(|remote| remote.open().is_ok());
        open.ok_or_else(|| {
            Error::new(
                crate::ErrorCode::Closed,
                format!(
                    "id = {id} is no open context of this process; pass the id of one that is open"
                ),
            )
        })
    }

    pub(crate) fn open(&self) -> Result<()> {
        if self.0.closed.load(Ordering::Relaxed) || !self.0.home.is_here() {
            return Err(Error::closed());
        }
        Ok(())
    }

    /// The context's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The context's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Ends the loop's sleep. No progress: the turn returns with nothing done.
    ///
    /// # Errors
    /// `Closed`
    pub fn notify(&self) -> Result<()> {
        self.open()?;
        self.0.notify();
        Ok(())
    }

    /// Ends every `run` and `poll_until` of the context that is going on; with none, the next.
    ///
    /// # Errors
    /// `Closed`
    pub fn stop(&self) -> Result<()> {
        self.open()?;
        let stop = || self.0.stop.store(true, ordered("stop: release", Ordering::Release));
        in_order("stop: order", stop, || self.0.notify());
        Ok(())
    }

    /// Schedules a bottom half. Twice before it ran is once.
    ///
    /// # Errors
    /// `Closed`; `InvalidArg` for a bottom half of another context.
    pub fn schedule(&self, half: &BottomHalfId) -> Result<()> {
        self.open()?;
        if half.context != self.id() {
            return Err(Error::invalid_arg(
                "half",
                format_args!("a bottom half of context {}", half.context),
                "one of the remote's own context",
            ));
        }
        self.schedule_node(&half.node);
        Ok(())
    }

    pub(crate) fn schedule_node(&self, node: &Arc<Node>) {
        let push = || {
            if node.schedule(false) {
                self.0.inbox.push(Arc::clone(node));
            }
        };
        in_order("schedule: order", push, || self.0.notify());
        self.0.delivered();
    }

    /// The bottom half of this number, if it is alive.
    ///
    /// # Errors
    /// `Closed`, or `InvalidArg` when no live bottom half has the number.
    pub fn bottom_half(&self, id: u64) -> Result<BottomHalfId> {
        self.open()?;
        let slot = usize::try_from(id & 0x1f_ffff).unwrap_or(usize::MAX);
        lock(&self.0.halves)
            .get(slot)
            .and_then(Option::as_ref)
            .filter(|node| number(node.slot, node.generation) == id)
            .map(|node| BottomHalfId { node: Arc::clone(node), context: self.id() })
            .ok_or_else(|| {
                Error::invalid_arg(
                    "bottomHalfId",
                    id,
                    "the id of a bottom half that is not deleted",
                )
            })
    }

    /// Runs a closure on the home thread, in order with the bottom halves.
    ///
    /// # Errors
    /// `Closed`; the closure is dropped then. One that is accepted but has not run when the
    /// context closes is dropped as well.
    pub fn run(&self, job: impl FnOnce(&mut Ops<'_>) + Send + 'static) -> Result<()> {
        self.push_job(Box::new(job))
    }

    pub(crate) fn push_job(&self, job: Job) -> Result<()> {
        self.open()?;
        self.0.deliver(Node::job(job));
        Ok(())
    }

    /// Sets the spin parameters from the next turn on. Kernel busy polling that cannot be had is
    /// reported by that turn, as a failing callback is, and the old parameters stay in force.
    ///
    /// # Errors
    /// `Closed`, `InvalidArg`
    pub fn set_poll_params(&self, params: PollParams) -> Result<()> {
        self.open()?;
        params.validate()?;
        let want = || {
            let mut wanted = lock(&self.0.wanted);
            (wanted.poll, wanted.poll_changed) = (params, true);
        };
        in_order("parameters: order", want, || self.0.deliver(Node::change()));
        Ok(())
    }

    /// Sets the I/O parameters from the next turn on.
    ///
    /// # Errors
    /// `Closed`, `InvalidArg`
    pub fn set_aio_params(&self, params: AioParams) -> Result<()> {
        self.open()?;
        params.validate()?;
        lock(&self.0.wanted).aio = params;
        self.0.deliver(Node::change());
        Ok(())
    }

    /// The spin parameters in force, or asked for last.
    #[must_use]
    pub fn poll_params(&self) -> PollParams {
        lock(&self.0.wanted).poll.clone()
    }

    /// The I/O parameters in force, or asked for last.
    #[must_use]
    pub fn aio_params(&self) -> AioParams {
        lock(&self.0.wanted).aio.clone()
    }

    /// What the context did so far.
    #[must_use]
    pub fn stats(&self) -> ContextStats {
        self.0.stats()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("id", &self.0.id).finish_non_exhaustive()
    }
}
