//! What loom checks: the wake-up protocol, in every order in which threads and memory may run it.
//!
//! A model is a test: a context of the production source on the kernel of `monitor/model.rs`, with
//! one or two other threads that do something to it. Loom runs it once for each order that can make
//! a difference. A wake-up that is lost ends as a deadlock, a job that nobody drops as a leak.
//!
//! `npm run loom` runs all of them, and then each with one step of the protocol left out
//! (`sync::kept`), which must make one of them fail; docs/MODELS.md is what it found.

mod ack;
#[cfg(feature = "channel")]
mod channel;
mod close;
mod embed;
mod inbox;
mod remove;
mod schedule;
mod sleep;
mod spin;

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use loom::thread::{self, JoinHandle};

use crate::sync::{Arc, AtomicU32};
use crate::{AioContext, BottomHalf, EventNotifier, Handlers, MonitorKind, Remote};

/// Words: a turn takes more of the stack than loom gives to a thread.
const STACK: usize = 1 << 15;

/// Runs the model in every order.
fn check(model: impl Fn() + Sync + Send + 'static) {
    explore(None, model);
}

/// …in which a thread is interrupted at most so often where it could have gone on: where all orders
/// are too many.
fn check_within(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    explore(Some(preemptions), model);
}

/// Says how many orders there were, for `scripts/loom.mjs`.
fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let runs: &'static AtomicU64 = Box::leak(Box::default());
    let model = std::sync::Arc::new(model);
    let since = Instant::now();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    let bound = builder.preemption_bound.map_or_else(|| "any".into(), |bound| bound.to_string());
    builder.max_branches = 20_000;
    builder.check(move || {
        runs.fetch_add(1, Relaxed);
        let model = std::sync::Arc::clone(&model);
        at_home(move || model()).join().unwrap();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let ms = since.elapsed().as_millis();
    println!("model {name}: {} orders, {bound} preemptions, {ms} ms", runs.load(Relaxed));
}

/// A thread with room for turns.
fn at_home(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().stack_size(STACK).spawn(body).unwrap()
}

/// A context that never spins.
fn context(kind: MonitorKind) -> AioContext {
    AioContext::builder().monitor(kind).build().unwrap()
}

/// What another thread tells without any order of its own.
#[derive(Clone)]
struct News(Arc<AtomicU32>);

impl News {
    fn none() -> Self {
        Self(Arc::new(AtomicU32::new(0)))
    }

    fn tell(&self) {
        self.0.store(1, Relaxed);
    }

    fn is_told(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

/// Another thread, with the context's remote.
fn thread(ctx: &AioContext, body: impl FnOnce(Remote) + 'static) -> JoinHandle<()> {
    let remote = ctx.remote();
    thread::spawn(move || body(remote))
}

/// A bottom half that adds up what it sees told.
fn watching(ctx: &AioContext, news: &[&News]) -> (BottomHalf, Rc<std::cell::Cell<u32>>) {
    let seen = Rc::new(std::cell::Cell::new(0));
    let (news, count) = (news.iter().map(|&n| n.clone()).collect::<Vec<_>>(), Rc::clone(&seen));
    let half = ctx.bottom_half(move |_| {
        count.set(news.iter().filter(|news| news.is_told()).count() as u32);
        Ok(())
    });
    (half.unwrap(), seen)
}

/// An fd that the kernel is asked about, which never becomes ready.
fn idle_fd(ctx: &AioContext) {
    let bell = EventNotifier::new().unwrap();
    ctx.set_fd_handler(bell, Handlers::new().read(|_| unreachable!("nobody rings"))).unwrap();
}

/// A thread that tells something and then notifies the context.
fn notifies(ctx: &AioContext) -> (News, JoinHandle<()>) {
    let news = News::none();
    let told = news.clone();
    let other = thread(ctx, move |remote| {
        told.tell();
        remote.notify().unwrap();
    });
    (news, other)
}

/// A bottom half that counts what it sees told, and a thread that tells it and then schedules it.
fn schedules(ctx: &AioContext) -> (BottomHalf, Rc<std::cell::Cell<u32>>, JoinHandle<()>) {
    let news = News::none();
    let (half, seen) = watching(ctx, &[&news]);
    let id = half.id();
    let other = thread(ctx, move |remote| {
        news.tell();
        remote.schedule(&id).unwrap();
    });
    (half, seen, other)
}
