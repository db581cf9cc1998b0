//! Traces: what a context does, as a file for Perfetto (<https://ui.perfetto.dev>) or chrome://tracing.
//!
//! ```text
//! home thread   begin and end of each step → a record of six words in a ring (`ring`)
//! any thread    notify → its track and the time, in the context's memory (`caller`)
//! one thread    records → text (`json`) → file (`file`)
//! ```
//!
//! Times strictly increase within a track, so that of two steps one lies within the other or behind
//! it, and never both begin at once. A step that is still open when the trace ends, ends with it.
//!
//! While nobody traces, one flag is asked where a turn takes all its steps, and none on the short
//! ways: `Hints::TRACED` keeps turns off them.

pub(crate) mod caller;
mod file;
mod json;
mod ring;
#[cfg(all(test, not(any(loom, miri, wasi))))]
mod tests;

use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;

use crate::clock::Clock;
use crate::context::{AioContext, Inner, State};
use crate::error::{Error, ErrorCode, Result};
use crate::interest::word;
use crate::remote::Shared;
use crate::text::{cut, title};
use crate::trace::{SpinResult, TracePoint};
use crate::turn::{Due, Plan};
use file::Sink;
pub use file::TraceOutput;
use json::{FOR_EVER, Track, number_of};
pub(crate) use ring::Kind;
use ring::{Record, Ring};

/// Options of [`AioContext::trace_with`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceOptions {
    /// Events that are kept until they are written, which happens 20 times a second and whenever
    /// half of the room is taken: from 64 to 16,777,216, rounded up to a power of two. What finds no
    /// room is dropped and counted. An event takes 48 bytes. Default 65,536, which are 3 MiB.
    pub events: u32,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { events: 65_536 }
    }
}

const EVENTS: std::ops::RangeInclusive<u32> = 64..=1 << 24;

static TRACES: AtomicU64 = AtomicU64::new(0);

/// A step that has begun.
struct Open {
    kind: Kind,
    at: u64,
    args: [u64; 3],
}

/// Where a context records what it does.
pub(crate) struct Recorder {
    /// Traces of the process are counted from 1.
    number: u64,
    /// Of the context.
    id: u64,
    ring: Arc<Ring>,
    sink: Arc<Sink>,
    writer: Thread,
    clock: Clock,
    /// The last time that was recorded.
    last: u64,
    /// See [`Ring::push`].
    room_until: u64,
    /// The head at which the thread that writes is woken.
    wake_at: u64,
    open: Vec<Open>,
    /// Whose turn this thread ran before.
    around: u64,
    /// Notifications that were taken.
    accepted: u64,
    /// The outer loop sleeps: since when, and for how long.
    outer: Option<(u64, u64)>,
}

impl Recorder {
    /// Now, and later than anything before: until the end of time, where a manual clock may stand.
    #[inline]
    fn stamp(&mut self) -> u64 {
        self.last = self.clock.glance().max(self.last.saturating_add(1));
        self.last
    }

    #[inline]
    fn push(&mut self, record: &Record) -> bool {
        let head = self.ring.push(record, &mut self.room_until);
        if head.is_some_and(|head| head >= self.wake_at) {
            self.wake_writer();
        }
        head.is_some()
    }

    #[cold]
    fn wake_writer(&mut self) {
        self.wake_at = self.ring.recorded() + self.ring.len() / 2;
        self.writer.unpark();
    }

    /// Something that takes no time.
    fn instant(&mut self, kind: Kind, x: u64, y: u64) {
        let at = self.stamp();
        self.push(&[kind as u64, at, 0, x, y, 0]);
    }

    fn begin(&mut self, kind: Kind, args: [u64; 3]) {
        if self.open.is_empty() {
            self.around = caller::enter(self.id);
        }
        let at = self.stamp();
        self.open.push(Open { kind, at, args });
    }

    /// The innermost step ends. It may have begun before the trace did: then it is not there.
    fn end(&mut self, args: impl FnOnce(&mut [u64; 3])) {
        let Some(mut step) = self.open.pop() else { return };
        args(&mut step.args);
        let end = self.stamp();
        let [x, y, z] = step.args;
        self.push(&[step.kind as u64, step.at, end, x, y, z]);
        if self.open.is_empty() {
            caller::enter(self.around);
        }
    }

    /// The name of a handler, by slot and generation; the first 40 bytes of it.
    fn name(&mut self, key: u64, name: &str) -> bool {
        let mut bytes = [0; 40];
        let name = cut(name, bytes.len());
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let mut record = [0; 6];
        record[0] = key << 8 | Kind::Name as u64;
        for (word, bytes) in record[1..].iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        self.push(&record)
    }
}

/// A trace of a context that goes on. It ends with this value, or with its context.
///
/// ```
/// # let folder = std::env::temp_dir();
/// # let file = folder.join(format!("fdmon-doc-{}.json", std::process::id()));
/// let ctx = fdmon::AioContext::builder().name("main").build()?;
/// let trace = ctx.trace(&file)?;
/// ctx.schedule(|_| Ok(()))?;
/// ctx.poll(true)?;
/// assert!(trace.events() >= 2); // the turn, and the bottom half in it
/// trace.finish()?;
/// assert!(std::fs::read_to_string(&file)?.contains("bottom half"));
/// # std::fs::remove_file(&file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the trace ends when this is dropped"]
pub struct Trace {
    ctx: Weak<Inner>,
    ring: Arc<Ring>,
    sink: Arc<Sink>,
}

impl Trace {
    /// Ends the trace. All of it has been written when this returns; with the last trace of a file
    /// the file ends too.
    ///
    /// # Errors
    /// `Syscall` with the first error of writing that the file has met. The loop knows nothing of
    /// it; what could not be written counts as dropped.
    pub fn finish(self) -> Result<()> {
        self.stop()
    }

    /// [`Trace::finish`], for who asks for the counts later. Does nothing the second time.
    ///
    /// # Errors
    /// As [`Trace::finish`].
    pub fn stop(&self) -> Result<()> {
        if let Some(inner) = self.ctx.upgrade() {
            let of_this = |recorder: &Recorder| Arc::ptr_eq(&recorder.ring, &self.ring);
            let is_on = inner.state().recorder.as_deref().is_some_and(of_this);
            if is_on && inner.home.is_here() {
                inner.stop_recording();
            }
        }
        self.sink.leave(&self.ring)
    }

    /// Events that are not in the file, for want of room in memory or on the disk.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.ring.missing()
    }

    /// Events that were recorded, the dropped ones not counted.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.ring.recorded()
    }

    /// The file it goes to, if it goes to one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.sink.path()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _nobody_to_be_told = self.stop();
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("file", &self.file())
            .field("events", &self.events())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

/// The number of this process, of which WASI has none.
fn process() -> u32 {
    if cfg!(wasi) { 0 } else { std::process::id() }
}

impl AioContext {
    /// Writes what the context does from now on to a file for Perfetto or chrome://tracing: turns,
    /// spins with window, result and rounds, sleeps with timeout and what was ready, callbacks by
    /// handler, wake-ups by other threads, batches of file I/O, the window, monitors. Contexts whose
    /// traces name the same file share it, a track each. `%p` in the name stands for the process.
    /// The environment variable FDMON_TRACE names a file for all contexts of a process.
    ///
    /// An event costs this thread some 460 instructions (`docs/TRACES.md`): two readings of the
    /// clock, a record, and its share of what turns take more, which do all their steps and take no
    /// short way. Without a trace nothing costs anything.
    ///
    /// # Errors
    /// `Closed`; `InvalidArg`; `InUse` when this context is traced already, or another process
    /// writes the file; `Syscall` when it cannot be opened; `Unsupported` on WASI.
    pub fn trace(&self, file: impl AsRef<Path>) -> Result<Trace> {
        self.trace_with(TraceOutput::file(file), &TraceOptions::default())
    }

    /// [`AioContext::trace`] to anything that takes bytes, and with options.
    ///
    /// # Errors
    /// As [`AioContext::trace`].
    pub fn trace_with(&self, output: TraceOutput, options: &TraceOptions) -> Result<Trace> {
        let (ring, sink) = self.start_recording(output, options, false)?;
        Ok(Trace { ctx: Rc::downgrade(&self.0), ring, sink })
    }

    /// FDMON_TRACE names the file. The trace ends with the context.
    pub(crate) fn trace_by_environment(&self, file: &Path) -> Result<()> {
        let options = TraceOptions::default();
        self.start_recording(TraceOutput::file(file), &options, true).map(drop)
    }

    fn start_recording(
        &self,
        output: TraceOutput,
        options: &TraceOptions,
        by_environment: bool,
    ) -> Result<(Arc<Ring>, Arc<Sink>)> {
        if !EVENTS.contains(&options.events) {
            let range = format!("{} to {}", EVENTS.start(), EVENTS.end());
            return Err(Error::invalid_arg("events", options.events, range));
        }
        let mut st = self.0.open_state()?;
        if let Some(recorder) = &st.recorder {
            let to = recorder.sink.path().map_or_else(|| "a writer".into(), |p| format!("{p:?}"));
            let message = format!("the context is traced already, to {to}; end that trace first");
            return Err(Error::new(ErrorCode::InUse, message));
        }
        let shared = &self.0.shared;
        let id = shared.id;
        let ring = Arc::new(Ring::new(options.events));
        let track = Track::new(process(), id, title(&shared.name, id).into_owned());
        let (sink, writer) = file::join(output, by_environment, track, &ring)?;
        let mut recorder = Recorder {
            number: TRACES.fetch_add(1, Ordering::Relaxed) + 1,
            id,
            ring: Arc::clone(&ring),
            sink: Arc::clone(&sink),
            writer,
            clock: self.0.clock.clone(),
            last: 0,
            room_until: 0,
            wake_at: ring.len() / 2,
            open: Vec::with_capacity(64),
            around: 0,
            accepted: shared.stats.accepted.get(),
            outer: None,
        };
        recorder.instant(Kind::Window, shared.stats.window_ns.get(), 0);
        st.recorder = Some(Box::new(recorder));
        st.heed_listeners();
        self.0.recording.set(true);
        shared.note_callers(true);
        Ok((ring, sink))
    }

    /// The context ends, and its trace with it.
    pub(crate) fn end_trace(&self) {
        if let Some((sink, ring)) = self.0.stop_recording() {
            let _told_by_the_trace = sink.leave(&ring);
        }
    }
}

impl Inner {
    /// Nothing is recorded from here on; what is open ends now.
    fn stop_recording(&self) -> Option<(Arc<Sink>, Arc<Ring>)> {
        let mut st = self.state();
        let mut recorder = st.recorder.take()?;
        st.heed_listeners();
        self.recording.set(false);
        self.shared.note_callers(false);
        while !recorder.open.is_empty() {
            recorder.end(|_| ());
        }
        Some((recorder.sink, recorder.ring))
    }
}

// What the loop tells, where `Inner::recording` says that somebody listens.
impl State {
    /// A step begins, which [`State::step_ends`] ends.
    #[cold]
    pub(crate) fn step_begins(&mut self, kind: Kind, args: [u64; 3]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.begin(kind, args);
        }
    }

    /// The innermost step ends; only now is it known what came of it.
    #[cold]
    pub(crate) fn step_ends(&mut self, args: impl FnOnce(&mut [u64; 3])) {
        if let Some(recorder) = &mut self.recorder {
            recorder.end(args);
        }
    }

    /// A callback begins.
    #[cold]
    pub(crate) fn callback_begins(&mut self, due: &Due) {
        match due {
            Due::Handler { slot, word, .. } => self.handler_begins(*slot, *word),
            Due::Half(_) => self.step_begins(Kind::BottomHalf, [0; 3]),
            Due::Job(_) => self.step_begins(Kind::Job, [0; 3]),
            Due::Io(_) => self.step_begins(Kind::Completion, [0; 3]),
            Due::Timer(_) => self.step_begins(Kind::Timer, [0; 3]),
            Due::Foreign(slot) => self.foreign_begins(*slot, self.reg.words.get(*slot)),
        }
    }

    fn handler_begins(&mut self, slot: u32, pending: u32) {
        let Self { recorder: Some(recorder), reg, .. } = self else { return };
        let key = u64::from(reg.next_generation(slot)) << 21 | u64::from(slot);
        let Some(handler) = reg.handler(slot) else {
            return recorder.begin(Kind::Job, [0; 3]); // it was removed by an earlier callback
        };
        if let Some(name) = &handler.name
            && handler.named_in != recorder.number
            && recorder.name(key, name)
        {
            handler.named_in = recorder.number;
        }
        let fd = u64::from(handler.fd.cast_unsigned());
        recorder.begin(Kind::Handler, [fd, pending.into(), key]);
    }

    fn foreign_begins(&mut self, slot: u32, pending: u32) {
        if pending & word::RUN != 0 {
            self.handler_begins(slot, pending);
        } else {
            let kind = match pending {
                _ if pending & word::TIMER != 0 => Kind::Timer,
                _ if pending & word::IO != 0 => Kind::Completion,
                _ => Kind::BottomHalf,
            };
            self.step_begins(kind, [0; 3]);
        }
    }

    /// A point that tracing notes as well. Spins are steps, and no points.
    #[cold]
    pub(crate) fn record_point(&mut self, point: &TracePoint) {
        let fd_of = |fd: i32| u64::from(fd.cast_unsigned());
        let (kind, x, y) = match point {
            TracePoint::SpinBegin { .. } | TracePoint::SpinEnd { .. } => return,
            TracePoint::Window { to_ns, .. } => (Kind::Window, *to_ns, 0),
            TracePoint::Joined { fd } => (Kind::Joined, fd_of(*fd), 0),
            TracePoint::Left { fd } => (Kind::Left, fd_of(*fd), 0),
            TracePoint::Monitor { from, to, .. } => {
                (Kind::Monitor, number_of(*from), number_of(*to))
            }
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.instant(kind, x, y);
        }
    }

    /// Requests of file I/O were handed over, or have ended.
    #[cold]
    pub(crate) fn record_io(&mut self, kind: Kind, requests: u64, in_flight: u64) {
        if let Some(recorder) = &mut self.recorder {
            recorder.instant(kind, requests, in_flight);
        }
    }

    /// A turn has waited, and may have taken a notification.
    #[cold]
    pub(crate) fn record_wake_up(&mut self, shared: &Shared) {
        let Some(recorder) = &mut self.recorder else { return };
        let accepted = shared.stats.accepted.get();
        if accepted == std::mem::replace(&mut recorder.accepted, accepted) {
            return;
        }
        let (sent, by) = shared.caller.take().unwrap_or_default();
        let at = recorder.stamp();
        recorder.push(&[Kind::Woken as u64, at, sent, by, 0, 0]);
    }

    /// The spin that began as a step is over.
    pub(crate) fn spin_ends(&mut self, window_ns: u64, result: SpinResult, plan: &Plan) {
        self.step_ends(|args| *args = [window_ns, result.to_u64(), plan.rounds]);
    }

    /// Between `prepare` and `check` the outer loop sleeps; both outside of any step, or the sleep
    /// would not lie within that.
    pub(crate) fn outer_loop_may_sleep(&mut self, ns: Option<u64>) {
        let Some(recorder) = &mut self.recorder else { return };
        recorder.outer = None;
        if recorder.open.is_empty() && ns != Some(0) {
            recorder.outer = Some((recorder.stamp(), ns.unwrap_or(FOR_EVER)));
        }
    }

    /// It sleeps no more: since when it did, how long it was to, and until when.
    pub(crate) fn outer_loop_has_slept(&mut self) -> Option<[u64; 3]> {
        let recorder = self.recorder.as_mut()?;
        let (since, ns) = recorder.outer.take().filter(|_| recorder.open.is_empty())?;
        Some([since, recorder.stamp(), ns])
    }

    pub(crate) fn record_outer_sleep(&mut self, slept: [u64; 3], ready: u64) {
        let [since, until, ns] = slept;
        if let Some(recorder) = &mut self.recorder {
            recorder.push(&[Kind::OuterSleep as u64, since, until, ns, ready, 0]);
        }
    }
}

/// A wait, as a step: how long it may take, and whether it is only a look.
pub(crate) fn wait_kind(timeout: Option<u64>, looks: bool) -> (Kind, [u64; 3]) {
    let kind = if looks { Kind::Look } else { Kind::Sleep };
    (kind, [timeout.unwrap_or(FOR_EVER), 0, 0])
}

impl AioContext {
    /// For bindings, whose callbacks run on the other side: a turn begins there.
    pub fn foreign_turn_begins(&self, blocking: bool) {
        self.0.state().step_begins(Kind::Turn, [blocking.into(), 0, 0]);
    }

    /// …or the rest of one whose first steps an outer loop had around its sleep.
    pub fn foreign_dispatch_begins(&self) {
        self.0.state().step_begins(Kind::Dispatch, [0; 3]);
    }

    /// …or the callbacks that this word names, of this slot.
    pub fn foreign_callback_begins(&self, slot: u32, pending: u32) {
        self.0.state().foreign_begins(slot, pending);
    }

    /// The callbacks have run.
    pub fn foreign_callback_ends(&self) {
        self.0.state().step_ends(|_| ());
    }

    /// The turn or dispatch is over.
    pub fn foreign_turn_ends(&self, progress: bool) {
        self.0.state().step_ends(|args| args[1] = progress.into());
    }
}
