//! The real half: a producer thread and a context, on two CPUs or on one.
//!
//! A source is a word that the producer changes, with an eventfd as its doorbell that it rings
//! only while the context is not spinning. Its next event is due a gap after the last one was
//! handled, and its latency runs from the moment at which it was due: what keeps the producer from
//! its work counts as well.

use std::cell::RefCell;
use std::error::Error;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use fastrand::Rng;
use fdmon::{AioContext, EventNotifier, Handlers, Ops, PollParams, WordSource};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};
use rustix::time::{ClockId, clock_gettime};

use crate::cell::{Cell, Contender, Outcome, Placement};
use crate::traffic::Gaps;

/// Events before anything is counted, and counted events.
const WARM_UP: usize = 200;
const EVENTS: usize = 300;
/// No event is due.
const NEVER: u64 = u64::MAX;
/// On one CPU the producer sleeps at most this long before it looks again.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// One source, as both sides see it.
struct Line {
    word: Arc<AtomicU32>,
    suppress: Arc<AtomicU32>,
    bell: EventNotifier,
    /// When its event is due.
    due: AtomicU64,
    /// When the event in the word was due.
    stamp: AtomicU64,
}

struct Stage {
    lines: Vec<Line>,
    /// Wakes a producer that sleeps: one CPU has no room for one that waits awake.
    acknowledged: Option<EventNotifier>,
    over: AtomicBool,
}

pub fn run(cell: &Cell, contender: Contender) -> Result<Outcome, Box<dyn Error>> {
    let home = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| home.is_set(cpu)).collect();
    let one = cell.placement != Placement::TwoCpus;
    let [first, .., last] = cpus.as_slice() else {
        return Err("two CPUs are needed; run on a machine that has them".into());
    };
    let producer_on = if one { *first } else { *last };
    sched_setaffinity(None, &set_of(*first))?;
    let result = on_stage(cell, contender, producer_on, one);
    sched_setaffinity(None, &home)?;
    result
}

fn set_of(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

fn on_stage(
    cell: &Cell,
    contender: Contender,
    producer_on: usize,
    one: bool,
) -> Result<Outcome, Box<dyn Error>> {
    let mut gaps = cell.sources.gaps(cell.shape, cell.gap_ns);
    let mut rng = Rng::with_seed(7);
    let stage = Arc::new(Stage {
        lines: gaps.iter().map(|_| Line::new()).collect::<Result<_, _>>()?,
        acknowledged: one.then(EventNotifier::new).transpose()?,
        over: AtomicBool::new(false),
    });
    // On two CPUs the context is pinned to one of them, which the guards would take for the only one.
    let guards = cell.placement == Placement::OneCpu;
    let params = PollParams { guards, ..contender.params() };
    let ctx = AioContext::builder().poll(params).build()?;
    let latencies = Rc::new(RefCell::new(Vec::with_capacity(WARM_UP + EVENTS + 64)));
    let now = now_ns();
    let firsts: Vec<u64> = gaps.iter_mut().map(|gaps| now + gaps.draw(&mut rng)).collect();
    let draw = Rc::new(RefCell::new((gaps, rng)));
    for (at, line) in stage.lines.iter().enumerate() {
        line.due.store(firsts[at], Ordering::Relaxed);
        register(&ctx, &stage, at, &latencies, &draw)?;
    }
    let producer = std::thread::spawn({
        let stage = Arc::clone(&stage);
        move || produce(&stage, producer_on)
    });
    let mut begun = None;
    loop {
        ctx.poll(true)?;
        let handled = latencies.borrow().len();
        if begun.is_none() && handled >= WARM_UP {
            latencies.borrow_mut().clear();
            begun = Some((thread_cpu_ns(), calls(&ctx)));
        } else if handled >= EVENTS
            && let Some((cpu, before)) = begun
        {
            let outcome =
                Outcome::of(latencies.take(), thread_cpu_ns() - cpu, calls(&ctx) - before);
            ctx.suspend()?;
            stage.over.store(true, Ordering::Release);
            if let Some(bell) = &stage.acknowledged {
                bell.set()?;
            }
            producer.join().map_err(|_| "the producer panicked")??;
            return Ok(outcome);
        }
    }
}

/// System calls of the loop and its handlers.
fn calls(ctx: &AioContext) -> u64 {
    let stats = ctx.stats();
    stats.waits + stats.handlers.iter().map(|handler| handler.reads).sum::<u64>()
}

type Draw = Rc<RefCell<(Vec<Gaps>, Rng)>>;

fn register(
    ctx: &AioContext,
    stage: &Arc<Stage>,
    at: usize,
    latencies: &Rc<RefCell<Vec<u64>>>,
    draw: &Draw,
) -> Result<(), Box<dyn Error>> {
    let line = &stage.lines[at];
    let seen = Arc::new(AtomicU32::new(0));
    let source = WordSource::words_differ(line.word.clone(), seen.clone())
        .suppress(line.suppress.clone())?;
    let handle = {
        let (stage, latencies, draw) = (stage.clone(), latencies.clone(), draw.clone());
        move |_: &mut Ops<'_>| {
            let line = &stage.lines[at];
            let word = line.word.load(Ordering::Acquire);
            if seen.swap(word, Ordering::Relaxed) == word {
                return Ok(()); // its doorbell came late
            }
            let now = now_ns();
            latencies.borrow_mut().push(now.saturating_sub(line.stamp.load(Ordering::Relaxed)));
            let (gaps, rng) = &mut *draw.borrow_mut();
            line.due.store(now + gaps[at].draw(rng), Ordering::Release);
            if let Some(bell) = &stage.acknowledged {
                bell.set()?;
            }
            Ok(())
        }
    };
    let on_hit = handle.clone();
    let on_bell = handle;
    let bell = line.bell.clone();
    let handlers =
        Handlers::new().poll(source).poll_ready(move |ops| on_hit(ops)).read(move |ops| {
            bell.test_and_clear()?;
            on_bell(ops)
        });
    ctx.set_fd_handler(line.bell.clone(), handlers)?;
    Ok(())
}

impl Line {
    fn new() -> Result<Self, fdmon::Error> {
        Ok(Self {
            word: Arc::default(),
            suppress: Arc::default(),
            bell: EventNotifier::new()?,
            due: AtomicU64::new(NEVER),
            stamp: AtomicU64::new(0),
        })
    }

    fn publish(&self, due: u64) -> Result<(), fdmon::Error> {
        self.stamp.store(due, Ordering::Relaxed);
        self.due.store(NEVER, Ordering::Relaxed);
        self.word.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.suppress.load(Ordering::Relaxed) == 0 {
            self.bell.set()?;
        }
        Ok(())
    }
}

fn produce(stage: &Stage, cpu: usize) -> Result<(), fdmon::Error> {
    // Both are only about how exact the gaps are.
    let _ = sched_setaffinity(None, &set_of(cpu));
    let _ = set_current_timer_slack(std::num::NonZeroU64::new(1));
    while !stage.over.load(Ordering::Acquire) {
        let mut next = NEVER;
        for line in &stage.lines {
            let due = line.due.load(Ordering::Acquire);
            if due <= now_ns() {
                line.publish(due)?;
            } else {
                next = next.min(due);
            }
        }
        match &stage.acknowledged {
            None => std::hint::spin_loop(),
            Some(bell) => {
                let left = Duration::from_nanos(next.saturating_sub(now_ns()));
                let left = Timespec::try_from(left).unwrap_or(NAP).min(NAP);
                let mut fds = [PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
                if poll(&mut fds, Some(&left)).is_ok_and(|ready| ready > 0) {
                    bell.test_and_clear()?;
                }
            }
        }
    }
    Ok(())
}

fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
