//! A context as TypeScript's `Loop` uses it: slots in, slots out.
//!
//! Callbacks stay on the other side, in a table by slot. Nothing of the core is borrowed while
//! JavaScript runs: each method calls the core, and the core calls hooks with nothing borrowed.
#![allow(
    unsafe_code,
    reason = "the words of a context and those that it polls are JavaScript's memory"
)]

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;

use fdmon::{
    AioContext, Callbacks, ErrorCode, ForeignHandler, Interest, TraceKinds, TraceOptions,
    TraceOutput,
};
use napi::bindgen_prelude::{BigInt, Function, Object, Unknown};
use napi::{Either, Env, JsValue};
use napi_derive::napi;

use crate::core::Core;
use crate::error::{Failure, guard};
use crate::handler::{Hooks, Trampoline};
use crate::hot;
use crate::memory::{Memory, Pinned};
use crate::options::{self, NativeAioParams, NativeOptions, NativePollParams, whole};
use crate::reservation;
use crate::stats::{Leaks, Stats};
use crate::trace::Point;
use crate::word::{NativeWord, suppress_address, word_source};

/// The slots are used up: TypeScript supplies more words and calls again.
const FULL: i32 = -1;

const EXTERNAL: u32 = 1;
const JS_PREDICATE: u32 = 2;
const JS_BEGIN: u32 = 4;
const JS_END: u32 = 8;
const KERNEL: u32 = 16;

/// `NativeContext`
#[napi]
pub struct NativeContext {
    pub(crate) core: Rc<Core>,
}

impl std::fmt::Debug for NativeContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeContext").field("ctx", &self.core.maybe()).finish_non_exhaustive()
    }
}

impl Drop for NativeContext {
    fn drop(&mut self) {
        // Collected, or its environment ends: no hook can run.
        self.core.trampoline.cut();
    }
}

#[napi]
impl NativeContext {
    /// `invoke(kind, slot)` runs hooks and never throws.
    #[napi(constructor)]
    pub fn new(
        env: Env,
        options: NativeOptions,
        #[napi(ts_arg_type = "(kind: number, slot: number) => number")] invoke: Function<
            '_,
            Unknown<'static>,
            Unknown<'static>,
        >,
    ) -> napi::Result<Self> {
        // SAFETY: `invoke` came with this call; contexts are dropped by their finalizer, on the
        // thread of their environment.
        let invoke = unsafe { Pinned::new(env.raw(), invoke.raw()) }?;
        guard(&env, || {
            let builder = AioContext::builder()
                .monitor(options::monitor(&options.monitor)?)
                .monitor_by_environment(options.by_environment)
                .ring(options.ring.apply(fdmon::RingParams::default())?)
                .trace_by_environment(options.trace.map(PathBuf::from));
            let builder = match options.reserved {
                Some(id) => builder.reserved(reservation::take(whole(id))?),
                None => builder
                    .poll(options.poll.apply(fdmon::PollParams::default())?)
                    .aio(options.aio.apply(fdmon::AioParams::default())?)
                    .name(options.name),
            };
            let ctx = builder.build()?;
            let trampoline = Rc::new(Trampoline::new(invoke, ctx.remote()));
            Ok(Self { core: Rc::new(Core::new(ctx, trampoline)) })
        })
    }

    #[napi(getter)]
    #[allow(clippy::cast_precision_loss, reason = "ids are counted from 1")]
    pub fn id(&self) -> f64 {
        self.core.id as f64
    }

    #[napi(getter)]
    pub fn closed(&self, env: Env) -> napi::Result<bool> {
        self.core.guard(&env, || Ok(self.core.maybe().is_none_or(|ctx| ctx.is_closed())))
    }

    #[napi]
    pub fn monitor(&self, env: Env) -> napi::Result<&'static str> {
        self.core.guard(&env, || Ok(self.core.open()?.monitor().as_str()))
    }

    #[napi]
    pub fn monitor_reason(&self, env: Env) -> napi::Result<String> {
        self.core.guard(&env, || Ok(self.core.open()?.monitor_reason()))
    }

    /// Moves the pending words to this array; what is pending is copied.
    #[napi]
    pub fn set_words(
        &self,
        env: Env,
        #[napi(ts_arg_type = "Int32Array")] words: Memory,
    ) -> napi::Result<()> {
        let owner = Box::new(words.pin_narrow("words")?);
        self.core.guard(&env, || {
            if let Some(ctx) = self.core.maybe() {
                // SAFETY: the array lies over an ArrayBuffer of its own, whose memory stays in
                // place while `owner` keeps it; only the thread of this environment uses it.
                unsafe { ctx.adopt_words(words.data().cast(), words.len(), owner) };
            }
            Ok(())
        })
    }

    /// The frame of the next depth of nesting.
    #[napi]
    pub fn add_frame(&self, #[napi(ts_arg_type = "Int32Array")] frame: Memory) -> napi::Result<()> {
        self.core.frames.add(&frame)
    }

    /// The slot, or -1. `replaces` is the slot of the handler that the fd has, or -1.
    #[napi]
    #[allow(clippy::too_many_arguments, reason = "an object would cost more than the call")]
    pub fn register(
        &self,
        env: Env,
        fd: i32,
        interest: u32,
        callbacks: u32,
        flags: u32,
        #[napi(ts_arg_type = "NativeWord | null")] word: Option<NativeWord>,
        replaces: i32,
        name: Option<String>,
    ) -> napi::Result<i32> {
        self.core.guard(&env, || {
            let ctx = self.core.open()?;
            if ctx.foreign_next_slot()?.is_none() {
                return Ok(FULL);
            }
            let suppress = word.as_ref().and_then(suppress_address);
            self.core.free_suppress(suppress, replaces);
            let own_slot = Rc::new(Cell::new(u32::MAX));
            let hooks = (flags & (JS_PREDICATE | JS_BEGIN | JS_END) != 0).then(|| {
                let trampoline = Rc::clone(&self.core.trampoline);
                let (begin, end) = (flags & JS_BEGIN != 0, flags & JS_END != 0);
                Box::new(Hooks::new(trampoline, Rc::clone(&own_slot), begin, end))
                    as Box<dyn fdmon::ForeignHooks>
            });
            let handler = ForeignHandler {
                interest: Interest::from_bits_truncate(low(interest)),
                callbacks: Callbacks::from_bits_truncate(low(callbacks)),
                external: flags & EXTERNAL != 0,
                word: word.as_ref().map(word_source).transpose()?,
                predicate: flags & JS_PREDICATE != 0,
                hooks,
                kernel: flags & KERNEL != 0,
                name: name.map(String::into_boxed_str),
            };
            let Some(slot) = ctx.foreign_handler(fd, handler)? else { return Ok(FULL) };
            own_slot.set(slot);
            let mut suppressed = self.core.suppressed.borrow_mut();
            match suppress {
                Some(address) => suppressed.insert(slot, address),
                None => suppressed.remove(&slot),
            };
            drop(suppressed);
            self.core.touched();
            Ok(slot_or_full(Some(slot)))
        })
    }

    #[napi]
    pub fn remove(&self, env: Env, slot: u32) -> napi::Result<()> {
        self.core.guard(&env, || {
            self.core.open()?.foreign_remove(slot);
            self.core.touched();
            Ok(())
        })
    }

    #[napi]
    pub fn set_interest(&self, env: Env, slot: u32, bits: u32) -> napi::Result<()> {
        self.core.guard(&env, || {
            self.core
                .open()?
                .foreign_set_interest(slot, Interest::from_bits_truncate(low(bits)))?;
            self.core.touched();
            Ok(())
        })
    }

    /// The functions that are called most, without what a method costs.
    #[napi(
        ts_return_type = "{ turn(request: number): number; stepBegins(what: number): void; stepEnds(progress: number): void; callbackBegins(slot: number, word: number): void; callbackEnds(): void; schedule(slot: number): void; arm(slot: number, delayNs: number): void; transfer(slot: number, op: number, fd: number, view: Uint8Array | undefined, position: number): void }"
    )]
    pub fn hot<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        hot::functions(env, &self.core)
    }

    /// The next batch of the same turn.
    #[napi]
    pub fn more(&self, env: Env, depth: u32) -> napi::Result<u32> {
        self.core.guard(&env, || {
            let ctx = self.core.open()?;
            let found = ctx.foreign_more(depth as usize, self.core.frames.batch(depth)?);
            Ok(self.core.frames.answer(depth, found, ctx.foreign_stop_requested()))
        })
    }

    /// The first batch of what `check` found.
    #[napi]
    pub fn dispatch(&self, env: Env, depth: u32) -> napi::Result<u32> {
        self.core.fill(&env, depth, |ctx, running, waiting, batch| {
            ctx.foreign_dispatch(running, waiting, batch)
        })
    }

    /// The outermost turn is over.
    #[napi]
    pub fn end(&self, env: Env) -> napi::Result<()> {
        self.core.with(&env, |ctx| ctx.foreign_end())
    }

    /// What failed natively: `{ slot, error }` each, slot -1 = none. After a panic the context is
    /// closed.
    #[napi(ts_return_type = "{ slot: number; error: Error }[]")]
    pub fn take_errors<'env>(&self, env: &'env Env) -> napi::Result<Vec<Object<'env>>> {
        let Some(ctx) = self.core.maybe() else { return Ok(Vec::new()) };
        let (errors, panic) = self.core.guard(env, || Ok(ctx.foreign_failures()))?;
        let mut failures: Vec<(i32, Failure)> = errors
            .iter()
            .map(|(slot, error)| (slot_or_full(*slot), failure_of(&**error)))
            .collect();
        if let Some(text) = panic {
            self.core.close_after_panic();
            let message = format!("a defect of fdmon: {text}; report it with what led to it");
            failures.push((FULL, Failure::new(ErrorCode::Internal, message)));
        }
        failures
            .iter()
            .map(|(slot, failure)| {
                let mut row = Object::new(env)?;
                row.set("slot", *slot)?;
                row.set("error", failure.to_js(env)?)?;
                Ok(row)
            })
            .collect()
    }

    /// Writes a trace from now on: the file, whose name may have been completed.
    #[napi]
    pub fn start_trace(&self, env: Env, file: String, events: u32) -> napi::Result<String> {
        self.core.guard(&env, || {
            let mut options = TraceOptions::default();
            options.events = events;
            let trace = self.core.open()?.trace_with(TraceOutput::file(&file), &options)?;
            let file = trace.file().map_or(file, |file| file.to_string_lossy().into_owned());
            *self.core.file_trace.borrow_mut() = Some(trace);
            Ok(file)
        })
    }

    /// Ends it; also of a closed context, to say what became of it.
    #[napi]
    pub fn end_trace(&self, env: Env) -> napi::Result<()> {
        self.core.guard(&env, || {
            // Kept for its counts.
            self.core.file_trace.borrow().as_ref().map_or(Ok(()), |trace| Ok(trace.stop()?))
        })
    }

    /// Of the last trace: the events that were recorded, and those that are not in the file.
    #[napi]
    #[allow(clippy::cast_precision_loss, reason = "counts of events")]
    pub fn trace_counts(&self) -> Vec<f64> {
        let trace = self.core.file_trace.borrow();
        trace
            .as_ref()
            .map_or_else(Vec::new, |trace| vec![trace.events() as f64, trace.dropped() as f64])
    }

    /// Which points are noted from now on, as bits.
    #[napi]
    pub fn trace(&self, env: Env, kinds: u32) -> napi::Result<()> {
        self.core.guard(&env, || {
            let kinds = TraceKinds::from_bits_truncate(low(kinds));
            Ok(self.core.open()?.foreign_trace(kinds, self.core.points.clone())?)
        })
    }

    /// What was noted since this was last asked. Also of a closed context.
    #[napi]
    pub fn take_points(&self) -> Vec<Point> {
        self.core.points.take().into_iter().map(Point::from).collect()
    }

    #[napi]
    pub fn suspend(&self, env: Env) -> napi::Result<()> {
        self.core.guard(&env, || {
            self.core.open()?.suspend()?;
            self.core.touched();
            Ok(())
        })
    }

    #[napi]
    pub fn notify(&self, env: Env) -> napi::Result<()> {
        self.core.with(&env, |ctx| ctx.notify())
    }

    #[napi]
    pub fn stop(&self, env: Env) -> napi::Result<()> {
        self.core.with(&env, |ctx| ctx.stop())
    }

    #[napi]
    pub fn stop_requested(&self, env: Env) -> napi::Result<bool> {
        self.core.with(&env, |ctx| ctx.foreign_stop_requested())
    }

    #[napi]
    pub fn loop_begin(&self, env: Env) -> napi::Result<()> {
        self.core.guard(&env, || Ok(self.core.open()?.foreign_loop_begin()?))
    }

    /// Leaves spin mode; the outermost loop takes the stop.
    #[napi]
    pub fn loop_end(&self, env: Env) -> napi::Result<()> {
        self.core.with(&env, |ctx| ctx.foreign_loop_end())
    }

    #[napi]
    pub fn set_poll_params(&self, env: Env, params: NativePollParams) -> napi::Result<()> {
        self.core.guard(&env, || {
            let ctx = self.core.open()?;
            ctx.set_poll_params(params.apply(ctx.poll_params())?)?;
            self.core.touched();
            Ok(())
        })
    }

    #[napi]
    pub fn set_aio_params(&self, env: Env, params: NativeAioParams) -> napi::Result<()> {
        self.core.guard(&env, || {
            let ctx = self.core.open()?;
            Ok(ctx.set_aio_params(params.apply(ctx.aio_params())?)?)
        })
    }

    #[napi]
    pub fn disable_external(&self, env: Env) -> napi::Result<()> {
        self.core.guard(&env, || {
            self.core.open()?.disable_external();
            self.core.touched();
            Ok(())
        })
    }

    #[napi]
    pub fn enable_external(&self, env: Env) -> napi::Result<()> {
        self.core.guard(&env, || {
            self.core.open()?.enable_external();
            self.core.touched();
            Ok(())
        })
    }

    /// The slot of a new bottom half, or -1.
    #[napi]
    pub fn bottom_half(&self, env: Env) -> napi::Result<i32> {
        self.core.guard(&env, || Ok(slot_or_full(self.core.open()?.foreign_bottom_half()?)))
    }

    /// Its number for remotes.
    #[napi]
    #[allow(clippy::cast_precision_loss, reason = "these numbers are made to fit a double")]
    pub fn bh_id(&self, env: Env, slot: u32) -> napi::Result<f64> {
        let id = self.core.with(&env, |ctx| ctx.foreign_bottom_half_id(slot))?;
        Ok(id.map_or(-1.0, |id| id.as_u64() as f64))
    }

    #[napi]
    pub fn bh_schedule_idle(&self, env: Env, slot: u32) -> napi::Result<()> {
        self.core.with(&env, |ctx| {
            ctx.foreign_schedule(slot, true);
            self.core.touched();
        })
    }

    #[napi]
    pub fn bh_cancel(&self, env: Env, slot: u32) -> napi::Result<()> {
        self.core.with(&env, |ctx| {
            ctx.foreign_cancel(slot);
            self.core.touched();
        })
    }

    #[napi]
    pub fn bh_delete(&self, env: Env, slot: u32) -> napi::Result<()> {
        self.core.with(&env, |ctx| {
            ctx.foreign_delete(slot);
            self.core.touched();
        })
    }

    /// The slot of a new timer, or -1.
    #[napi]
    pub fn timer(&self, env: Env) -> napi::Result<i32> {
        self.core.guard(&env, || Ok(slot_or_full(self.core.open()?.foreign_timer()?)))
    }

    #[napi]
    pub fn timer_arm(
        &self,
        env: Env,
        slot: u32,
        delay_ns: Either<f64, BigInt>,
    ) -> napi::Result<()> {
        self.core.guard(&env, || {
            let delay = match delay_ns {
                Either::A(number) => whole(number),
                Either::B(big) => big.get_u64().1,
            };
            let ctx = self.core.open()?;
            self.core.arm(slot, ctx.now_ns().saturating_add(delay))
        })
    }

    #[napi]
    pub fn timer_arm_at(&self, env: Env, slot: u32, deadline_ns: BigInt) -> napi::Result<()> {
        self.core.guard(&env, || self.core.arm(slot, deadline_ns.get_u64().1))
    }

    #[napi]
    pub fn timer_cancel(&self, env: Env, slot: u32) -> napi::Result<()> {
        self.core.with(&env, |ctx| {
            ctx.foreign_timer_cancel(slot);
            self.core.touched();
        })
    }

    #[napi]
    pub fn timer_pending(&self, env: Env, slot: u32) -> napi::Result<bool> {
        self.core.with(&env, |ctx| ctx.foreign_timer_pending(slot))
    }

    #[napi]
    pub fn timer_delete(&self, env: Env, slot: u32) -> napi::Result<()> {
        self.core.with(&env, |ctx| {
            ctx.foreign_timer_delete(slot);
            self.core.touched();
        })
    }

    /// Nanoseconds that an outer loop may wait; -1 = for ever.
    #[napi]
    #[allow(
        clippy::cast_precision_loss,
        reason = "a timeout of 104 days is as good as a longer one"
    )]
    pub fn prepare(&self, env: Env) -> napi::Result<f64> {
        self.core.guard(&env, || Ok(self.core.open()?.prepare()?.map_or(-1.0, |ns| ns as f64)))
    }

    #[napi]
    pub fn check(&self, env: Env) -> napi::Result<bool> {
        self.core.guard(&env, || Ok(self.core.open()?.check()?))
    }

    #[napi]
    pub fn backend_fd(&self, env: Env) -> napi::Result<i32> {
        self.core.guard(&env, || Ok(self.core.open()?.backend_fd()?.as_raw_fd()))
    }

    /// Joins Node's own loop. `run(answer)` walks a batch in frame 0, which must be there.
    #[napi]
    pub fn attach(
        &self,
        env: Env,
        #[napi(ts_arg_type = "(answer: number) => void")] run: Function<
            '_,
            Unknown<'static>,
            Unknown<'static>,
        >,
    ) -> napi::Result<()> {
        self.core.guard(&env, || self.core.attach(&env, &run))
    }

    /// Leaves it, and spin mode.
    #[napi]
    pub fn detach(&self, env: Env) -> napi::Result<()> {
        self.core.guard(&env, || {
            self.core.detach();
            Ok(())
        })
    }

    /// Whether Node's loop may live for this context's sake.
    #[napi]
    pub fn set_referenced(&self, env: Env, on: bool) -> napi::Result<()> {
        self.core.guard(&env, || {
            if let Some(attachment) = self.core.attached() {
                attachment.set_referenced(on);
            }
            Ok(())
        })
    }

    /// Whether it has a handler for whose sake that loop lives.
    #[napi]
    pub fn keep(&self, env: Env, on: bool) -> napi::Result<()> {
        self.core.guard(&env, || {
            if let Some(attachment) = self.core.attached() {
                attachment.keep(on);
            }
            Ok(())
        })
    }

    #[napi]
    pub fn stats(&self, env: Env) -> napi::Result<Stats> {
        self.core.guard(&env, || Ok(Stats::from(&self.core.open()?.stats())))
    }

    /// Releases everything.
    #[napi]
    pub fn close(&self, env: Env) -> napi::Result<Leaks> {
        self.core.guard(&env, || {
            let report = self.core.close();
            Ok(Leaks {
                handlers: report.handlers,
                bottom_halves: report.bottom_halves,
                timers: report.timers,
                io: report.io,
            })
        })
    }
}

/// Flags that TypeScript has checked are small.
fn low(bits: u32) -> u8 {
    bits.to_le_bytes()[0]
}

pub(crate) fn slot_or_full(slot: Option<u32>) -> i32 {
    slot.and_then(|slot| i32::try_from(slot).ok()).unwrap_or(FULL)
}

fn failure_of(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    match error.downcast_ref::<fdmon::Error>() {
        Some(error) => Failure::from(error),
        None => {
            Failure::new(ErrorCode::Internal, format!("{error}; report it with what led to it"))
        }
    }
}
