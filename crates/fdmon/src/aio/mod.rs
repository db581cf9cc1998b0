//! ⑦ File I/O: requests wait in a queue, go to the engine in batches, and come back as completions
//! on the list of what is due.
//!
//! ```text
//! ask → queue → max_batch of them, the end of a plugged section, or the next wait → one submission
//!     → ring or pool → what has completed is seen in memory → due, before bottom halves
//! ```
//!
//! A turn looks after its I/O ([`State::drive_io`]) when it begins, before it sleeps and after it
//! has waited. A request has a slot like everything else that can be due, so nested turns complete
//! it, and a binding gets it in its batch.

mod api;
mod buffer;
mod foreign;
mod pool;
mod queue;
mod request;
#[cfg_attr(not(io_uring), path = "ring_absent.rs")]
mod ring;

use std::sync::Mutex;

use rustix::io::Errno;

use crate::config::{AioParams, IoEngine, RingMode, RingParams};
use crate::context::{AioContext, Inner, State};
use crate::error::{Error, ErrorCode, Result};
use crate::interest::word;
use crate::monitor::refusal::Refusal;
use crate::record::Kind;
use crate::registry::{DueHalf, Entry, Hints, Registry, Slot};
use crate::remote::{Shared, lock};
use crate::sync::{Arc, lock_std};
use crate::turn::{Due, Plan};

pub use api::IoToken;
#[cfg(feature = "executor")]
pub(crate) use api::{segment, segment_mut};
pub use buffer::AlignedBuf;
pub use foreign::ForeignMemory;
pub(crate) use foreign::Results;
pub use request::IoOp;
pub(crate) use request::Request;
use request::{Complete, Stage, Step};
#[cfg(feature = "executor")]
pub(crate) use request::{Segment, Segments};

pub(crate) use pool::block_signals;
use pool::{Job, Pool};
use queue::Queue;
use ring::IoRing;

/// What does the work.
enum Engine {
    /// Nobody has asked for any.
    None,
    Ring(Box<IoRing>),
    Pool(Pool),
}

impl Engine {
    fn kind(&self) -> Option<IoEngine> {
        match self {
            Self::None => None,
            Self::Ring(_) => Some(IoEngine::IoUring),
            Self::Pool(_) => Some(IoEngine::Threads),
        }
    }

    /// Requests that it takes at once. A pool has no limit of its own: it is given as many as a
    /// ring of the common size.
    fn size(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Ring(ring) => ring.size(),
            Self::Pool(_) => 256,
        }
    }

    #[inline]
    fn is_ready(&self) -> bool {
        match self {
            Self::None => false,
            Self::Ring(ring) => ring.is_ready(),
            Self::Pool(pool) => pool.is_ready(),
        }
    }

    fn reap(&mut self, each: &mut impl FnMut(u32, i32)) {
        match self {
            Self::None => {}
            Self::Ring(ring) => ring.reap(each),
            Self::Pool(pool) => pool.reap(each),
        }
    }
}

/// The file I/O of a context.
pub(crate) struct Aio {
    pub params: AioParams,
    engine: Engine,
    /// Rings that the kernel serves no more, with requests that it had begun.
    dead: Vec<IoRing>,
    /// Requests that were not submitted yet, in their order.
    queue: Queue,
    in_flight: u32,
    /// Plugged sections, one inside the other.
    plugs: u32,
    /// Slots that are free, of requests of Rust.
    free: Vec<u32>,
    /// Requests so far.
    asked: u64,
    /// Where the other side of a binding reads results.
    results: Results,
}

impl Aio {
    pub fn new(params: AioParams) -> Self {
        Self {
            params,
            engine: Engine::None,
            dead: Vec::new(),
            queue: Queue::default(),
            in_flight: 0,
            plugs: 0,
            free: Vec::new(),
            asked: 0,
            results: Results::default(),
        }
    }

    /// Completions are there to be taken.
    #[inline]
    fn is_ready(&self) -> bool {
        self.engine.is_ready() || self.dead.iter().any(IoRing::has_completions)
    }
}

impl Registry {
    #[inline]
    fn io(&mut self, slot: u32) -> Option<&mut Request> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot { entry: Entry::Io(request), .. }) => Some(request),
            _ => None,
        }
    }

    fn io_ref(&self, slot: u32) -> Option<&Request> {
        match self.slots.get(slot as usize) {
            Some(Slot { entry: Entry::Io(request), .. }) => Some(request),
            _ => None,
        }
    }

    /// The requests that are there.
    fn io_slots(&self, stage: Stage) -> Vec<u32> {
        let is_there = |(slot, place): (u32, &Slot)| match &place.entry {
            Entry::Io(request) if request.stage == stage => Some(slot),
            _ => None,
        };
        (0_u32..).zip(&self.slots).filter_map(is_there).collect()
    }
}

/// Requests of which the kernel did not say what became of them, by address: never freed.
static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// How long a close waits in one call for requests to end, and how many calls in a row may fail.
const WAIT_NS: u64 = 100_000_000;
const TRIES_TO_FINISH: u32 = 64;

/// Why there are threads where a ring was tried.
fn threads_because(why: &str) -> String {
    format!("auto: {why}; threads")
}

impl State {
    /// The engine for what is asked for next.
    fn have_engine(&mut self, shared: &Arc<Shared>) -> Result<()> {
        let wanted = self.io.params.engine;
        let fits = match self.io.engine.kind() {
            None => false,
            Some(kind) => wanted == IoEngine::Auto || wanted == kind,
        };
        // Another engine takes over when this one has nothing to do.
        if fits || (self.io.in_flight != 0 && self.io.engine.kind().is_some()) {
            return Ok(());
        }
        self.make_engine(shared, wanted)
    }

    #[cold]
    pub(crate) fn make_engine(&mut self, shared: &Arc<Shared>, wanted: IoEngine) -> Result<()> {
        use rustix::fd::AsFd;
        let ring = |params: &RingParams| IoRing::new(params, shared.notifier.as_fd());
        let (engine, reason) = match wanted {
            IoEngine::Threads => (None, String::from("asked for")),
            IoEngine::IoUring if cfg!(wasi) => {
                let why = "a WebAssembly build has no rings; use 'auto' or 'threads'";
                return Err(Error::unsupported(format!("engine = 'io_uring' is refused: {why}")));
            }
            IoEngine::Auto if cfg!(wasi) => (None, threads_because("WebAssembly has no rings")),
            IoEngine::IoUring if self.ring.mode == RingMode::Off => return Err(turned_off()),
            IoEngine::IoUring => {
                let ring = ring(&self.ring)
                    .map_err(|refusal| refusal.to_error("engine", "io_uring", &self.ring))?;
                (Some(ring), String::from("asked for"))
            }
            IoEngine::Auto if self.ring.mode == RingMode::Off => {
                (None, threads_because("io_uring is turned off by ring.mode"))
            }
            IoEngine::Auto => match ring(&self.ring) {
                Ok(ring) => (Some(ring), String::from("auto: io_uring works here")),
                Err(refusal) => (None, threads_because(&format!("io_uring refused: {refusal}"))),
            },
        };
        self.io.engine = match engine {
            Some(ring) => Engine::Ring(Box::new(ring)),
            None => Engine::Pool(Pool::new(&self.io.params, shared)),
        };
        *lock(&shared.aio) = (self.io.engine.kind(), reason);
        Ok(())
    }

    /// New parameters. The error is that of an engine that cannot be had.
    pub(crate) fn set_io_params(&mut self, shared: &Arc<Shared>, params: AioParams) -> Result<()> {
        let is_ring = matches!(self.io.engine, Engine::Ring(_));
        if params.engine == IoEngine::IoUring && !is_ring {
            if self.io.in_flight == 0 {
                self.make_engine(shared, IoEngine::IoUring)?;
            } else if self.ring.mode == RingMode::Off {
                return Err(turned_off());
            }
        }
        if let Engine::Pool(pool) = &self.io.engine {
            pool.set_params(&params);
        }
        self.io.params = params;
        Ok(())
    }

    /// A request was put into this slot. It waits for others, or is submitted with those that wait.
    fn queue_io(&mut self, shared: &Arc<Shared>, slot: u32, number: u64) {
        self.reg.hints.set(Hints::IO);
        self.io.queue.push(slot, number);
        if self.io.queue.len() >= self.io.params.batch() as usize {
            self.submit_io(shared, false);
        }
    }

    /// Hands the engine what it can take: one submission for each `max_batch`. `look` = completions
    /// that are ready are to appear.
    fn submit_io(&mut self, shared: &Arc<Shared>, look: bool) {
        while !self.io.queue.is_empty() && self.io.in_flight < self.io.engine.size() {
            if !self.submit_batch(shared, look) {
                return;
            }
        }
    }

    /// `false` = the engine takes no more now.
    fn submit_batch(&mut self, shared: &Arc<Shared>, look: bool) -> bool {
        let Self { io, reg, .. } = self;
        let room = io.engine.size() - io.in_flight;
        let most = io.params.batch().min(room);
        let mut batch: u32 = 0;
        let result = match &mut io.engine {
            Engine::None => return false,
            Engine::Ring(ring) => {
                while batch < most
                    && let Some(slot) = io.queue.first(reg)
                    && let Some(request) = reg.io(slot)
                    && ring.push(slot, request)
                {
                    request.stage = Stage::InFlight;
                    io.queue.advance();
                    batch += 1;
                }
                if look { ring.flush() } else { ring.submit() }
            }
            Engine::Pool(pool) => {
                pool.submit(std::iter::from_fn(|| {
                    let slot = io.queue.first(reg).filter(|_| batch < most)?;
                    let request = reg.io(slot)?;
                    request.stage = Stage::InFlight;
                    io.queue.advance();
                    batch += 1;
                    Some(Job::of(slot, request))
                }));
                Ok(())
            }
        };
        io.in_flight += batch;
        shared.stats.io_in_flight.set(io.in_flight.into());
        if batch != 0 {
            shared.stats.submissions.bump();
            shared.stats.io_batch_max.raise_to(batch.into());
            if self.recorder.is_some() {
                self.record_io(Kind::Submitted, batch.into(), self.io.in_flight.into());
            }
        }
        match result {
            Ok(()) => batch != 0,
            // The kernel has no memory for requests, or a signal came: they stay on the ring.
            Err(Errno::INTR | Errno::AGAIN | Errno::BUSY) => false,
            Err(errno) => {
                self.abandon_ring(shared, errno);
                true
            }
        }
    }

    /// The kernel does not take requests any more. What it has not got goes to threads.
    #[cold]
    fn abandon_ring(&mut self, shared: &Arc<Shared>, errno: Errno) {
        let pool = Engine::Pool(Pool::new(&self.io.params, shared));
        let Engine::Ring(mut ring) = std::mem::replace(&mut self.io.engine, pool) else { return };
        let mut at = 0;
        for slot in ring.rewind() {
            let Some(request) = self.reg.io(slot) else { continue };
            self.io.in_flight -= 1;
            if request.cancelled {
                request.end(Errno::CANCELED);
                shared.stats.completions.bump();
                end(&mut self.reg, &mut self.io.results, slot);
                continue;
            }
            request.stage = Stage::Queued;
            self.io.queue.put_back(at, slot, request.number);
            at += 1;
        }
        self.io.dead.push(*ring);
        shared.stats.fallbacks.bump();
        let refusal = Refusal { call: "io_uring_enter", errno };
        let reason = format!("io_uring refused: {refusal}; threads");
        *lock(&shared.aio) = (Some(IoEngine::Threads), reason);
    }

    /// Submits, and puts what has completed on the list of what is due.
    pub(crate) fn drive_io(&mut self, shared: &Arc<Shared>) {
        loop {
            let waits = !self.io.queue.is_empty();
            if waits {
                self.submit_io(shared, true);
            }
            if let Engine::Ring(ring) = &mut self.io.engine
                && (ring.has_work() || ring.has_unsubmitted())
            {
                match ring.flush() {
                    Ok(()) | Err(Errno::INTR | Errno::AGAIN | Errno::BUSY) => {}
                    Err(errno) => self.abandon_ring(shared, errno),
                }
            }
            if !self.take_completions(shared) {
                break;
            }
        }
        if self.io.in_flight == 0 && self.io.queue.is_empty() {
            self.reg.hints.clear(Hints::IO);
        }
    }

    /// `true` = there is something to be submitted again.
    fn take_completions(&mut self, shared: &Shared) -> bool {
        let Self { io, reg, .. } = self;
        let Aio { engine, dead, queue, in_flight, results, .. } = io;
        let mut again = 0;
        let mut ended = 0;
        let mut take = |slot, result| {
            let Some(request) = reg.io(slot) else { return };
            *in_flight -= 1;
            if request.take(result) == Step::Again {
                request.stage = Stage::Queued;
                queue.put_back(again, slot, request.number); // before those that were asked for later
                again += 1;
            } else {
                end(reg, results, slot);
                ended += 1;
            }
        };
        engine.reap(&mut take);
        for ring in dead {
            ring.reap(&mut take);
        }
        shared.stats.completions.add(ended);
        let left = u64::from(*in_flight);
        shared.stats.io_in_flight.set(left);
        let more = again != 0 || (ended != 0 && !queue.is_empty());
        if ended != 0 && self.recorder.is_some() {
            self.record_io(Kind::Completed, ended, left);
        }
        // More may fit now.
        more
    }

    /// Completions are there, or would be after a call.
    #[inline]
    pub(crate) fn io_is_ready(&self) -> bool {
        self.reg.hints.any(Hints::IO) && self.io.is_ready()
    }

    /// In a round of a spin.
    #[inline]
    pub(crate) fn look_at_io(&mut self, shared: &Arc<Shared>, plan: &mut Plan) {
        if self.io_is_ready() && self.io_has_news(shared) {
            plan.hit = true;
            plan.awake = true;
        }
    }

    /// Takes what there is. What concerns nobody is no news: a part of a transfer that goes on, or
    /// the answer to a cancellation.
    #[cold]
    fn io_has_news(&mut self, shared: &Arc<Shared>) -> bool {
        self.drive_io(shared);
        self.reg.hints.any(Hints::DUE) && self.reg.has_due()
    }

    /// Before a sleep: everything is submitted, and completions wake it. `false` = there must be no
    /// sleep.
    pub(crate) fn io_lets_sleep(&mut self, shared: &Arc<Shared>) -> bool {
        if !self.reg.hints.any(Hints::IO) {
            return true;
        }
        if self.io_has_news(shared) {
            return false;
        }
        match &self.io.engine {
            Engine::Ring(ring) => {
                let quiet = !ring.has_unsubmitted() && ring.arm();
                if !quiet {
                    ring.disarm();
                }
                quiet
            }
            // Its threads notify.
            Engine::Pool(_) | Engine::None => !self.io.is_ready(),
        }
    }

    /// The kernel's wait has ended for nothing else: whether the sleep ends too. If not, completions
    /// wake it as before.
    #[inline]
    pub(crate) fn io_ends_sleep(&mut self, inner: &Inner, plan: &Plan) -> bool {
        self.io_is_ready() && self.io_ended_sleep(inner, plan)
    }

    #[inline(never)]
    fn io_ended_sleep(&mut self, inner: &Inner, plan: &Plan) -> bool {
        self.io_has_slept();
        self.collect_io(inner, plan);
        !self.io_lets_sleep(&inner.shared)
    }

    /// After a sleep: completions wake nobody any more.
    #[inline]
    pub(crate) fn io_has_slept(&mut self) {
        if self.reg.hints.any(Hints::IO)
            && let Engine::Ring(ring) = &self.io.engine
        {
            ring.disarm();
        }
    }

    /// A completion has ended a sleep: collects more of them, if it is to.
    fn collect_io(&mut self, inner: &Inner, plan: &Plan) {
        let Engine::Ring(ring) = &mut self.io.engine else { return };
        let AioParams { min_batch, min_wait_ns, .. } = self.io.params;
        let count = min_batch.min(self.io.in_flight);
        if count <= 1 || min_wait_ns == 0 || !plan.slept || !ring.is_ready() {
            return;
        }
        let mut ns = min_wait_ns;
        if let Some(deadline) = plan.deadline {
            ns = ns.min(deadline.saturating_sub(inner.clock.now()));
        }
        if ns != 0 && inner.clock.manual().is_none() {
            let _fewer = ring.collect(count, ns);
        }
    }

    /// A completion's turn has come.
    pub(crate) fn issue_io(&mut self, shared: &Shared, slot: u32, pending: u32) -> Option<Due> {
        let request = self.reg.io(slot)?;
        if pending & word::ISSUED == 0 {
            shared.stats.events.bump();
        }
        if request.complete.is_some() {
            self.reg.words.set(slot, 0);
            return Some(Due::Io(slot));
        }
        self.reg.words.set(slot, word::IO | word::ISSUED);
        Some(Due::Foreign(slot))
    }

    /// Asks for the end of a request, if it has not ended.
    fn cancel_io(&mut self, shared: &Shared, slot: u32) {
        let Self { io, reg, .. } = self;
        let Some(request) = reg.io(slot) else { return };
        if matches!(request.stage, Stage::Free | Stage::Ended) || request.cancelled {
            return;
        }
        request.cancelled = true;
        let mut is_back = false;
        if request.stage == Stage::Queued {
            request.stage = Stage::Ended;
            io.queue.withdrawn(reg);
            is_back = true;
        } else if let Engine::Pool(pool) = &io.engine
            && pool.cancel(slot)
        {
            io.in_flight -= 1;
            is_back = true;
        }
        if is_back {
            let Some(request) = reg.io(slot) else { return };
            request.end(Errno::CANCELED);
            shared.stats.completions.bump();
            shared.stats.io_in_flight.set(io.in_flight.into());
            end(reg, &mut io.results, slot);
        } else if let Engine::Ring(ring) = &mut io.engine {
            let _ = ring.cancel(slot); // refused: it ends by itself
        }
    }

    /// Ends all requests, whose memory is free then, and lets the engine go: how many had not ended.
    pub(crate) fn finish_io(&mut self, shared: &Shared) -> u32 {
        let mut left = self.io.in_flight;
        while let Some(slot) = self.io.queue.first(&self.reg) {
            self.io.queue.advance();
            if let Some(request) = self.reg.io(slot) {
                left += 1;
                request.end(Errno::CANCELED);
                end(&mut self.reg, &mut self.io.results, slot);
            }
        }
        let begun = self.reg.io_slots(Stage::InFlight);
        let Self { io, reg, .. } = self;
        let mut finished = Vec::new();
        if let Engine::Pool(pool) = &io.engine {
            pool.finish(|slot, result| finished.push((slot, result)));
        }
        if let Engine::Ring(ring) = &mut io.engine {
            for &slot in &begun {
                let _ = ring.cancel(slot);
            }
        }
        let mut tries = 0;
        while finished.len() < begun.len() && tries < TRIES_TO_FINISH {
            let result = match &mut io.engine {
                Engine::Ring(ring) => ring.collect(1, WAIT_NS),
                Engine::Pool(_) | Engine::None => Err(Errno::PERM), // it is on a dead ring
            };
            tries = if result.is_err() { tries + 1 } else { 0 };
            let mut each = |slot, result| finished.push((slot, result));
            io.engine.reap(&mut each);
            for ring in &mut io.dead {
                ring.reap(&mut each);
            }
        }
        for (slot, result) in finished {
            let Some(request) = reg.io(slot) else { continue };
            request.cancelled = true; // it does not go on
            if request.take(result) == Step::Again {
                request.end(Errno::CANCELED);
            }
            io.in_flight -= 1;
            end(reg, &mut io.results, slot);
        }
        if io.in_flight != 0 {
            // The kernel does not say what became of them: they keep their memory for ever, and the
            // other side of a binding is told to do so.
            for slot in reg.io_slots(Stage::InFlight) {
                if let Some(request) = reg.io(slot) {
                    if request.complete.is_none() {
                        io.results.set(slot, -i64::from(libc::EINPROGRESS));
                    }
                    let request = Box::new(std::mem::replace(request, Request::free()));
                    lock_std(&KEPT).push(Box::into_raw(request).expose_provenance());
                }
            }
        }
        shared.stats.io_in_flight.set(io.in_flight.into());
        io.engine = Engine::None;
        io.dead.clear();
        left
    }
}

impl State {
    /// Those of Rust that have ended and have not heard of it.
    pub(crate) fn take_ended(&mut self) -> Vec<(Box<dyn Complete>, std::io::Result<usize>)> {
        let slots = self.reg.io_slots(Stage::Ended);
        let ended = |slot| {
            let request = self.reg.io(slot)?;
            let outcome = request.outcome();
            request.stage = Stage::Free;
            Some((request.complete.take()?, outcome))
        };
        slots.into_iter().filter_map(ended).collect()
    }
}

/// A request has ended: it is due.
fn end(reg: &mut Registry, results: &mut Results, slot: u32) {
    let Some(request) = reg.io(slot) else { return };
    request.stage = Stage::Ended;
    if request.complete.is_none() {
        results.set(slot, request.result);
    }
    if reg.words.raise(slot, word::IO) {
        reg.halves_due.push_back(DueHalf::Slot(slot));
        reg.hints.set(Hints::DUE);
    }
}

#[cold]
fn turned_off() -> Error {
    Error::new(
        ErrorCode::InvalidArg,
        "engine = 'io_uring' is refused: ring.mode = 'off' turns it off; pass another ring.mode, \
         or use 'auto'",
    )
}

impl AioContext {
    /// A completion of Rust's.
    pub(crate) fn run_completion(&self, slot: u32) {
        let (complete, outcome) = {
            let mut st = self.0.state();
            let Some(request) = st.reg.io(slot) else { return };
            let outcome = request.outcome();
            request.stage = Stage::Free;
            let complete = request.complete.take();
            st.io.free.push(slot);
            st.io.plugs += 1;
            (complete, outcome)
        };
        if let Some(complete) = complete {
            self.0.guarded(|| complete.complete(self, outcome));
        }
        self.0.state().io.plugs -= 1;
    }
}
