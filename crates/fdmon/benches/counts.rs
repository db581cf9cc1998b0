//! Workloads of a chosen length, for tools that count: `npm run bench:counts` runs each of them at
//! two lengths under callgrind or strace and takes the difference, so that start-up cancels.
//!
//! ```text
//! counts event    --monitor epoll --idle 64 --rounds 1000 [--turn blocking|nonblocking]
//! counts hit      --monitor epoll --rounds 1000 [--doorbell] [--clock-step NS]
//! counts idle     --monitor epoll --rounds 1000 [--handlers N] [--kernel]
//! counts schedule --monitor epoll --rounds 1000
//! counts register --monitor epoll --fds 10000 --rounds 10000
//! counts burst    --monitor epoll --ready 64 --idle 192 --rounds 1000
//! counts reads    --monitor epoll --engine io_uring --rounds 10000
//! counts pingpong --monitor epoll --rounds 1000 --max-ns 200000
//! counts oneway   --monitor epoll --rounds 1000 --max-ns 200000 [--bare]
//! ```
//!
//! It prints one line: what the context counted, as `name=value` pairs.
#![allow(clippy::print_stdout, reason = "a program for scripts, which read its output")]

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use fdmon::{
    AioContext, AioParams, EventNotifier, Handlers, IoEngine, ManualClock, MonitorKind, PolicyKind,
    PollParams, Trace, TraceOptions, TraceOutput, WordSource,
};
use lexopt::ValueExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What the command line asks for.
struct Args {
    workload: String,
    monitor: MonitorKind,
    rounds: u32,
    idle: usize,
    fds: usize,
    ready: usize,
    handlers: usize,
    blocking: bool,
    doorbell: bool,
    kernel: bool,
    bare: bool,
    engine: IoEngine,
    max_ns: u64,
    clock_step: Option<u64>,
    trace: bool,
}

impl Args {
    fn parse() -> Outcome<Self> {
        let mut args = Self {
            workload: String::new(),
            monitor: MonitorKind::Epoll,
            rounds: 1000,
            idle: 1,
            fds: 0,
            ready: 1,
            handlers: 1,
            blocking: true,
            doorbell: false,
            kernel: false,
            bare: false,
            engine: IoEngine::Auto,
            max_ns: 32_768,
            clock_step: None,
            trace: false,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                lexopt::Arg::Value(name) => args.workload = name.string()?,
                lexopt::Arg::Long("monitor") => args.monitor = parser.value()?.parse()?,
                lexopt::Arg::Long("rounds") => args.rounds = parser.value()?.parse()?,
                lexopt::Arg::Long("idle") => args.idle = parser.value()?.parse()?,
                lexopt::Arg::Long("fds") => args.fds = parser.value()?.parse()?,
                lexopt::Arg::Long("ready") => args.ready = parser.value()?.parse()?,
                lexopt::Arg::Long("handlers") => args.handlers = parser.value()?.parse()?,
                lexopt::Arg::Long("turn") => args.blocking = parser.value()? == "blocking",
                lexopt::Arg::Long("engine") => args.engine = parser.value()?.parse()?,
                lexopt::Arg::Long("doorbell") => args.doorbell = true,
                lexopt::Arg::Long("kernel") => args.kernel = true,
                lexopt::Arg::Long("bare") => args.bare = true,
                lexopt::Arg::Long("max-ns") => args.max_ns = parser.value()?.parse()?,
                lexopt::Arg::Long("clock-step") => args.clock_step = Some(parser.value()?.parse()?),
                lexopt::Arg::Long("trace") => args.trace = true,
                lexopt::Arg::Long("bench") => {} // cargo bench says so
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(args)
    }

    fn context(&self, max_ns: u64) -> Outcome<AioContext> {
        let params = PollParams {
            policy: PolicyKind::Fixed,
            ..PollParams::spin(Duration::from_nanos(max_ns))
        };
        let mut builder = AioContext::builder().monitor(self.monitor).poll(params);
        if let Some(step) = self.clock_step {
            let clock = ManualClock::new();
            clock.advance_ns(1_000_000_000);
            clock.set_step_ns(step);
            builder = builder.manual_clock(clock);
        }
        Ok(builder.build()?)
    }
}

fn main() -> Outcome<()> {
    let args = Args::parse()?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let line = match args.workload.as_str() {
        "event" => event(&args)?,
        "hit" => hit(&args)?,
        "idle" => idle(&args)?,
        "schedule" => schedule(&args)?,
        "register" => register(&args)?,
        "burst" => burst(&args)?,
        "reads" => reads(&args)?,
        "pingpong" => pingpong(&args)?,
        "oneway" => oneway(&args)?,
        "" => return Ok(()), // cargo bench runs it without a word
        other => {
            return Err(format!("workload '{other}': see the head of benches/counts.rs").into());
        }
    };
    println!("{line}");
    Ok(())
}

/// Somebody writes down what it does, if that is asked for; how much he has is told at the end.
fn traced(ctx: &AioContext, args: &Args) -> Outcome<Option<Trace>> {
    let start = || ctx.trace_with(TraceOutput::writer(std::io::sink()), &TraceOptions::default());
    Ok(args.trace.then(start).transpose()?)
}

fn with_events(line: String, trace: Option<Trace>) -> Outcome<String> {
    let Some(trace) = trace else { return Ok(line) };
    // The thread that writes has done so by then; what is left the end would do, in this thread.
    std::thread::sleep(Duration::from_millis(300));
    let line = format!("{line} events={} dropped={}", trace.events(), trace.dropped());
    trace.finish()?;
    Ok(line)
}

fn counters(ctx: &AioContext, ran: u32) -> String {
    let stats = ctx.stats();
    let row = stats.handlers.first();
    format!(
        "ran={ran} turns={} waits={} sleeps={} hits={} reads={}",
        stats.turns,
        stats.waits,
        stats.sleeps,
        row.map_or(0, |row| row.poll_hits),
        row.map_or(0, |row| row.reads)
    )
}

/// One ready eventfd among idle ones: each round writes it and runs the turn that reads it.
fn event(args: &Args) -> Outcome<String> {
    let ctx = args.context(0)?;
    let ran = Rc::new(Cell::new(0));
    let watch = |bell: &EventNotifier| {
        let (clear, ran) = (bell.clone(), ran.clone());
        ctx.set_fd_handler(
            bell.clone(),
            Handlers::new().read(move |_| {
                clear.test_and_clear()?;
                ran.set(ran.get() + 1);
                Ok(())
            }),
        )
    };
    let idle = (0..args.idle).map(|_| EventNotifier::new()).collect::<Result<Vec<_>, _>>()?;
    for bell in &idle {
        watch(bell)?;
    }
    let bell = EventNotifier::new()?;
    watch(&bell)?;
    let blocking = args.blocking;
    let trace = traced(&ctx, args)?;
    for _ in 0..args.rounds {
        bell.set()?;
        ctx.poll(blocking)?;
    }
    assert_eq!(ran.get(), args.rounds, "each round runs one handler");
    with_events(counters(&ctx, ran.get()), trace)
}

/// Several eventfds are ready in each turn, beside idle ones.
fn burst(args: &Args) -> Outcome<String> {
    let ctx = args.context(0)?;
    let ran = Rc::new(Cell::new(0));
    let mut bells = Vec::new();
    for _ in 0..args.ready + args.idle {
        let bell = EventNotifier::new()?;
        let (clear, ran) = (bell.clone(), ran.clone());
        let handlers = Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            ran.set(ran.get() + 1);
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers)?;
        bells.push(bell);
    }
    for _ in 0..args.rounds {
        for bell in &bells[..args.ready] {
            bell.set()?;
        }
        ctx.poll(true)?;
    }
    assert_eq!(ran.get() as usize, args.ready * args.rounds as usize, "one turn runs all");
    Ok(counters(&ctx, ran.get()))
}

/// Reads of 4 KiB from a file in memory, 32 in flight, each asking for the next: a round is a read.
fn reads(args: &Args) -> Outcome<String> {
    struct Reading {
        file: Rc<OwnedFd>,
        left: Cell<u32>,
        flying: Cell<u32>,
    }

    fn ask(ctx: &AioContext, reading: &Rc<Reading>, buffer: Vec<u8>) -> fdmon::Result<()> {
        let Some(left) = reading.left.get().checked_sub(1) else { return Ok(()) };
        reading.left.set(left);
        reading.flying.set(reading.flying.get() + 1);
        let (file, again) = (Rc::clone(&reading.file), Rc::clone(reading));
        let offset = u64::from(left % 64) * 4096;
        let done = move |ops: &mut fdmon::Ops<'_>, result: std::io::Result<usize>, buffer| {
            assert_eq!(result.ok(), Some(4096));
            again.flying.set(again.flying.get() - 1);
            ask(ops.context(), &again, buffer).expect("the context is open");
        };
        ctx.read_at(file, buffer, offset, done).map(drop)
    }

    let aio = AioParams { engine: args.engine, ..AioParams::default() };
    let ctx = AioContext::builder().monitor(args.monitor).aio(aio).build()?;
    // This program, which is in the page cache.
    let file = std::fs::File::open(std::env::current_exe()?)?;
    let reading = Rc::new(Reading {
        file: Rc::new(file.into()),
        left: Cell::new(args.rounds),
        flying: Cell::new(0),
    });
    ctx.plug(|| (0..32).try_for_each(|_| ask(&ctx, &reading, vec![0; 4096])))?;
    ctx.poll_until(|| reading.flying.get() == 0)?;
    let stats = ctx.stats();
    assert_eq!(stats.completions, args.rounds.into());
    Ok(format!(
        "reads={} submissions={} turns={}",
        stats.completions, stats.submissions, stats.turns
    ))
}

/// A ring's two words, and a handler that spins on them.
struct Ring {
    head: Arc<AtomicU32>,
    tail: Arc<AtomicU32>,
    suppress: Arc<AtomicU32>,
    bell: EventNotifier,
    ran: Rc<Cell<u32>>,
}

impl Ring {
    fn watch(ctx: &AioContext, doorbell: bool) -> Outcome<Rc<Self>> {
        let ring = Rc::new(Self {
            head: Arc::default(),
            tail: Arc::default(),
            suppress: Arc::default(),
            bell: EventNotifier::new()?,
            ran: Rc::default(),
        });
        let word = WordSource::words_differ(ring.head.clone(), ring.tail.clone())
            .suppress(ring.suppress.clone())?;
        let ready = ring.clone();
        let mut handlers = Handlers::new().poll(word).poll_ready(move |_| {
            ready.take();
            Ok(())
        });
        if doorbell {
            let rung = ring.clone();
            handlers = handlers.read(move |_| {
                rung.bell.test_and_clear()?;
                rung.take();
                Ok(())
            });
        }
        ctx.set_fd_handler(ring.bell.clone(), handlers)?;
        // The window opens after the first blocking turn; the first hit joins the spin list.
        ctx.schedule(|_| Ok(()))?;
        ring.push()?;
        while ring.ran.get() == 0 {
            ctx.poll(true)?;
        }
        ring.ran.set(0);
        Ok(ring)
    }

    fn push(&self) -> Outcome<()> {
        self.head.fetch_add(1, Ordering::SeqCst);
        if self.suppress.load(Ordering::SeqCst) == 0 {
            self.bell.set()?;
        }
        Ok(())
    }

    fn take(&self) {
        self.tail.store(self.head.load(Ordering::Acquire), Ordering::Release);
        self.ran.set(self.ran.get() + 1);
    }
}

/// A predicate that says yes in each turn.
fn hit(args: &Args) -> Outcome<String> {
    let ctx = args.context(args.max_ns)?;
    let ring = Ring::watch(&ctx, args.doorbell)?;
    for _ in 0..args.rounds {
        ring.push()?;
        ctx.poll(true)?;
    }
    assert_eq!(ring.ran.get(), args.rounds, "each round is a hit");
    Ok(counters(&ctx, ring.ran.get()))
}

/// A bottom half that is scheduled as another thread would, while the loop is awake, and its turn.
fn schedule(args: &Args) -> Outcome<String> {
    let ctx = args.context(0)?;
    let bell = EventNotifier::new()?;
    ctx.set_fd_handler(bell, Handlers::new().read(|_| Ok(())))?;
    let ran = Rc::new(Cell::new(0));
    let count = ran.clone();
    let half = ctx.bottom_half(move |_| {
        count.set(count.get() + 1);
        Ok(())
    })?;
    let (remote, id) = (ctx.remote(), half.id());
    for _ in 0..args.rounds {
        remote.schedule(&id)?;
        ctx.poll(false)?;
    }
    Ok(format!("ran={}", ran.get()))
}

/// Turns that do not block and find nothing: all handlers on the spin list, or a plain fd.
fn idle(args: &Args) -> Outcome<String> {
    let ctx = args.context(if args.kernel { 0 } else { args.max_ns })?;
    if args.kernel {
        ctx.set_fd_handler(EventNotifier::new()?, Handlers::new().read(|_| Ok(())))?;
    } else {
        for _ in 0..args.handlers {
            Ring::watch(&ctx, args.doorbell)?;
        }
        ctx.suspend()?;
        while ctx.poll(false)? {}
    }
    let mut ran = 0;
    for _ in 0..args.rounds {
        ran += u32::from(ctx.poll(false)?);
    }
    assert_eq!(ran, 0, "there is nothing to do");
    Ok(counters(&ctx, ran))
}

/// Registers `rounds` of `fds` eventfds.
fn register(args: &Args) -> Outcome<String> {
    let ctx = args.context(0)?;
    let bells = (0..args.fds).map(|_| EventNotifier::new()).collect::<Result<Vec<_>, _>>()?;
    for bell in bells.iter().take(args.rounds as usize) {
        ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(())))?;
    }
    let counted = counters(&ctx, 0);
    // Nothing is freed or closed: that would be counted as well.
    Box::leak(Box::new((ctx, bells)));
    Ok(counted)
}

/// Messages of 64 bytes from one thread to another, with a doorbell for the sleeper.
struct Pipe {
    slots: [[AtomicU64; 8]; 16],
    head: Arc<AtomicU32>,
    tail: Arc<AtomicU32>,
    suppress: Arc<AtomicU32>,
    bell: EventNotifier,
}

impl Pipe {
    fn new() -> Outcome<Arc<Self>> {
        Ok(Arc::new(Self {
            slots: Default::default(),
            head: Arc::default(),
            tail: Arc::default(),
            suppress: Arc::default(),
            bell: EventNotifier::new()?,
        }))
    }

    fn send(&self, message: [u64; 8]) -> Outcome<()> {
        let head = self.head.load(Ordering::Relaxed);
        for (word, value) in self.slots[head as usize % self.slots.len()].iter().zip(message) {
            word.store(value, Ordering::Relaxed);
        }
        self.head.store(head.wrapping_add(1), Ordering::Release);
        fence(Ordering::SeqCst);
        if self.suppress.load(Ordering::Relaxed) == 0 {
            self.bell.set()?;
        }
        Ok(())
    }

    fn receive(&self) -> Option<[u64; 8]> {
        let tail = self.tail.load(Ordering::Relaxed);
        if self.head.load(Ordering::Acquire) == tail {
            return None;
        }
        let slot = &self.slots[tail as usize % self.slots.len()];
        let message = std::array::from_fn(|i| slot[i].load(Ordering::Relaxed));
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        Some(message)
    }

    /// Runs `each` for every message that arrives.
    fn listen(
        self: &Arc<Self>,
        ctx: &AioContext,
        each: impl FnMut([u64; 8]) -> Outcome<()> + 'static,
    ) -> Outcome<()> {
        let each = Rc::new(std::cell::RefCell::new(each));
        let drain = |pipe: &Arc<Self>| {
            let (pipe, each) = (pipe.clone(), each.clone());
            move || -> Outcome<()> {
                while let Some(message) = pipe.receive() {
                    (each.borrow_mut())(message)?;
                }
                Ok(())
            }
        };
        let word = WordSource::words_differ(self.head.clone(), self.tail.clone())
            .suppress(self.suppress.clone())?;
        let (clear, rung, ready) = (self.bell.clone(), drain(self), drain(self));
        ctx.set_fd_handler(
            self.bell.clone(),
            Handlers::new().poll(word).poll_ready(move |_| ready()).read(move |_| {
                clear.test_and_clear()?;
                rung()
            }),
        )?;
        Ok(())
    }
}

/// Round trips between two threads that spin.
fn pingpong(args: &Args) -> Outcome<String> {
    let (there, back) = (Pipe::new()?, Pipe::new()?);
    let params = PollParams {
        policy: PolicyKind::Fixed,
        ..PollParams::spin(Duration::from_nanos(args.max_ns))
    };
    let (monitor, rounds) = (args.monitor, u64::from(args.rounds));
    let echo = {
        let (there, back) = (there.clone(), back.clone());
        std::thread::spawn(move || -> Outcome<()> {
            let ctx = AioContext::builder().monitor(monitor).poll(params).build()?;
            let seen = Rc::new(Cell::new(0));
            let count = seen.clone();
            there.listen(&ctx, move |message| {
                count.set(count.get() + 1);
                back.send(message)
            })?;
            Ok(ctx.poll_until(|| seen.get() == rounds)?)
        })
    };
    let ctx = args.context(args.max_ns)?;
    let seen = Rc::new(Cell::new(0));
    let count = seen.clone();
    back.listen(&ctx, move |message| {
        assert_eq!(message[0], count.get(), "messages arrive in order");
        count.set(count.get() + 1);
        Ok(())
    })?;
    for round in 0..rounds {
        there.send([round; 8])?;
        while seen.get() == round {
            ctx.poll(true)?;
        }
    }
    echo.join().map_err(|_| "the echo thread panicked")??;
    Ok(counters(&ctx, args.rounds))
}

/// One event after 50 µs of nothing, from a thread on one CPU to a context on another that sleeps
/// or, with a window, spins on the kernel's readiness. Tells the median latency and what it costs.
/// With `bare` there is no context but a loop that asks the kernel every 1.5 µs, as a context does:
/// nothing that asks it so often is sooner.
fn oneway(args: &Args) -> Outcome<String> {
    const GAP: Duration = Duration::from_micros(50);
    let cpus = sched_getaffinity(None)?;
    let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu));
    let (Some(ours), Some(theirs)) = (usable.next(), usable.next()) else {
        return Err("it needs two CPUs".into());
    };
    let pin = |cpu| {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)
    };
    let rounds = args.rounds;
    let (bell, start) = (EventNotifier::new()?, Instant::now());
    let (stamp, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU32::new(0)));
    let sender = {
        let (bell, stamp, seen) = (bell.clone(), stamp.clone(), seen.clone());
        std::thread::spawn(move || -> Outcome<()> {
            pin(theirs)?;
            for round in 0..rounds {
                while seen.load(Ordering::Acquire) != round {
                    std::hint::spin_loop();
                }
                let pause = Instant::now();
                while pause.elapsed() < GAP {
                    std::hint::spin_loop();
                }
                stamp.store(nanoseconds(start.elapsed()), Ordering::Release);
                bell.set()?;
            }
            Ok(())
        })
    };
    pin(ours)?;
    let spin = PollParams {
        policy: PolicyKind::Fixed,
        ..PollParams::spin(Duration::from_nanos(args.max_ns))
    };
    // A pinned thread looks to the guards like a machine with one CPU.
    let params = PollParams { guards: false, ..spin };
    let ctx = AioContext::builder().monitor(args.monitor).poll(params).build()?;
    let latencies = Rc::new(std::cell::RefCell::new(Vec::new()));
    let (clear, all, count) = (bell.clone(), latencies.clone(), seen.clone());
    let take = move || -> Outcome<()> {
        if clear.test_and_clear()? {
            let sent = stamp.load(Ordering::Acquire);
            all.borrow_mut().push(nanoseconds(start.elapsed()) - sent);
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
        Ok(())
    };
    let before = clock_gettime(ClockId::ThreadCPUTime);
    if args.bare {
        let mut looked = Instant::now();
        while seen.load(Ordering::Relaxed) != rounds {
            if looked.elapsed() < Duration::from_nanos(1500) {
                std::hint::spin_loop();
                continue;
            }
            looked = Instant::now();
            let mut fds = [PollFd::new(&bell, PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec::default()))? > 0 {
                take()?;
            }
        }
    } else {
        ctx.set_fd_handler(bell, Handlers::new().poll_kernel().read(move |_| take()))?;
        ctx.poll_until(|| seen.load(Ordering::Relaxed) == rounds)?;
    }
    let cpu = clock_gettime(ClockId::ThreadCPUTime) - before;
    sender.join().map_err(|_| "the sender panicked")??;
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    let median = latencies[latencies.len() / 2];
    let cpu = (cpu.tv_sec * 1_000_000_000 + cpu.tv_nsec) / i64::from(rounds);
    Ok(format!("{} p50={median} cpu={cpu}", counters(&ctx, rounds)))
}

#[allow(clippy::cast_possible_truncation, reason = "a run takes seconds")]
fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}
