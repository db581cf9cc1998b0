//! fdmon: handlers and bottom halves on a context. Its kinds are the monitors, `+spin` spins up to 200 µs.

use std::cell::{Cell, OnceCell};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use fdmon::{
    AioContext, BottomHalfId, EventNotifier, Handlers, MonitorKind, PolicyKind, PollParams, Remote,
    WordSource,
};

use crate::run::{
    Fan, Outcome, PING, Peer, Run, clear, connection, drain, events, expect, receive, send, signal,
};

pub const PEER: Peer = Peer {
    name: "fdmon",
    workloads: &[
        ("notify-awake", notify_awake),
        ("call-awake", call_awake),
        ("notify-storm", notify_storm),
        ("polled-hit", polled_hit),
        ("async", pings),
        ("async-pummel", pummel),
        ("ping-pongs", ping_pongs),
        ("million-timers", million_timers),
        ("poll-bench", poll_bench),
        ("dispatch", dispatch),
        ("register", register),
        ("idle", idle),
    ],
};

const WINDOW: Duration = Duration::from_micros(200);

/// The monitor, and whether it spins.
fn kind(run: &Run) -> Outcome<(MonitorKind, bool)> {
    let (monitor, spins) = match run.kind.strip_suffix("+spin") {
        Some(monitor) => (monitor, true),
        None => (run.kind.as_str(), false),
    };
    Ok((monitor.parse()?, spins))
}

fn context(run: &Run) -> Outcome<AioContext> {
    let (monitor, spins) = kind(run)?;
    let params = if spins { PollParams::spin(WINDOW) } else { PollParams::default() };
    Ok(AioContext::builder().monitor(monitor).poll(params).build()?)
}

/// Registers fds that never become ready.
fn idle_fds(ctx: &AioContext, count: usize) -> Outcome {
    for fd in events(count)? {
        ctx.set_fd_handler(fd, Handlers::new().read(|_| Ok(())))?;
    }
    Ok(())
}

fn notify_awake(run: &Run) -> Outcome {
    let ctx = context(run)?;
    idle_fds(&ctx, 1)?;
    let remote = ctx.remote();
    run.measure(|| {
        for _ in 0..run.ops {
            remote.notify()?;
            ctx.poll(false)?;
        }
        Ok(())
    })
}

fn call_awake(run: &Run) -> Outcome {
    let ctx = context(run)?;
    idle_fds(&ctx, 1)?;
    let ran = Rc::new(Cell::new(0));
    let count = ran.clone();
    let half = ctx.bottom_half(move |_| {
        count.set(count.get() + 1);
        Ok(())
    })?;
    let (remote, id) = (ctx.remote(), half.id());
    run.measure(|| {
        for _ in 0..run.ops {
            remote.schedule(&id)?;
            ctx.poll(false)?;
        }
        expect("bottom halves", ran.get(), run.ops)
    })
}

fn notify_storm(run: &Run) -> Outcome {
    let ctx = context(run)?;
    let ran = Rc::new(Cell::new(0));
    let count = ran.clone();
    let half = ctx.bottom_half(move |_| {
        count.set(count.get() + 1);
        Ok(())
    })?;
    let (remote, id, ops) = (ctx.remote(), half.id(), run.ops);
    run.measure(|| {
        let storm = thread::spawn(move || (0..ops).try_for_each(|_| remote.schedule(&id)));
        storm.join().expect("no panic")?;
        ctx.poll(false)?;
        expect("bottom halves", ran.get(), 1)
    })
}

/// A producer's word, with a doorbell that it need not ring while the loop spins.
fn polled_hit(run: &Run) -> Outcome {
    // Always the longest window, which outlasts the run; a program that is pinned to one CPU would not spin without a word.
    let params = PollParams {
        policy: PolicyKind::Fixed,
        guards: false,
        ..PollParams::spin(Duration::from_secs(1))
    };
    let ctx = AioContext::builder().monitor(kind(run)?.0).poll(params).build()?;
    let (head, tail, suppress) = <(Arc<AtomicU32>, Arc<AtomicU32>, Arc<AtomicU32>)>::default();
    let word = WordSource::words_differ(head.clone(), tail.clone()).suppress(suppress.clone())?;
    let hits = Rc::new(Cell::new(0));
    let take = {
        let (head, hits) = (head.clone(), hits.clone());
        move || {
            tail.store(head.load(Ordering::Acquire), Ordering::Release);
            hits.set(hits.get() + 1);
        }
    };
    let bell = EventNotifier::new()?;
    let (rung, taken) = (bell.clone(), take.clone());
    let handlers = Handlers::new()
        .poll(word)
        .poll_ready(move |_| {
            take();
            Ok(())
        })
        .read(move |_| {
            rung.test_and_clear()?;
            taken();
            Ok(())
        });
    ctx.set_fd_handler(bell.clone(), handlers)?;
    let push = || -> Outcome {
        head.fetch_add(1, Ordering::SeqCst);
        if suppress.load(Ordering::SeqCst) == 0 {
            bell.set()?;
        }
        Ok(())
    };
    // The window opens after the first blocking turn; the first hit joins the spin list.
    ctx.schedule(|_| Ok(()))?;
    push()?;
    ctx.poll_until(|| hits.get() > 0)?;
    ctx.schedule(|_| Ok(()))?;
    ctx.poll(true)?;
    hits.set(0);
    run.measure(|| {
        for _ in 0..run.ops {
            push()?;
            ctx.poll(true)?;
        }
        expect("hits", hits.get(), run.ops)
    })
}

fn pings(run: &Run) -> Outcome {
    let ctx = context(run)?;
    let open = Rc::new(Cell::new(run.threads));
    let mut halves = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..run.threads {
        let (open, ops) = (open.clone(), run.ops);
        let worker = Rc::new(OnceCell::<(Remote, BottomHalfId)>::new());
        let (answer, mut seen) = (worker.clone(), 0);
        let half = ctx.bottom_half(move |main| {
            let (remote, half) = answer.get().expect("it has introduced itself");
            remote.schedule(half)?;
            seen += 1;
            if seen == ops {
                open.set(open.get() - 1);
                if open.get() == 0 {
                    main.stop();
                }
            }
            Ok(())
        })?;
        let (introduce, introduced) = channel();
        let (main, id) = (ctx.remote(), half.id());
        let kind = run.of_kind();
        let (start, started) = channel();
        threads.push((
            start,
            thread::spawn(move || -> Outcome {
                let ctx = context(&kind)?;
                let (to_main, to_half, mut seen) = (main.clone(), id.clone(), 0);
                let half = ctx.bottom_half(move |worker| {
                    seen += 1;
                    if seen == ops {
                        worker.stop();
                        return Ok(());
                    }
                    Ok(to_main.schedule(&to_half)?)
                })?;
                introduce.send((ctx.remote(), half.id()))?;
                started.recv()?;
                main.schedule(&id)?;
                Ok(ctx.run()?)
            }),
        ));
        worker.set(introduced.recv()?).expect("once");
        halves.push(half);
    }
    run.measure(|| {
        for (start, _) in &threads {
            start.send(())?;
        }
        ctx.run()?;
        threads.into_iter().try_for_each(|(_, thread)| thread.join().expect("no panic"))
    })
}

fn pummel(run: &Run) -> Outcome {
    let ctx = context(run)?;
    let (ops, mut seen) = (run.ops, 0);
    let half = ctx.bottom_half(move |main| {
        seen += 1;
        if seen == ops {
            main.stop();
        }
        Ok(())
    })?;
    let sender = || {
        let (remote, id) = (ctx.remote(), half.id());
        move || {
            remote.schedule(&id).expect("the context is open");
        }
    };
    run.measure_pummelled(sender, || {
        ctx.run()?;
        Ok(())
    })
}

fn ping_pongs(run: &Run) -> Outcome {
    let (client, server) = connection()?;
    let kind = run.of_kind();
    let echo = thread::spawn(move || -> Outcome {
        let ctx = context(&kind)?;
        let server = Rc::new(server);
        let stream = server.clone();
        let read = move |ops: &mut fdmon::Ops<'_>| {
            let mut buffer = [0; 4096];
            match receive(&*stream, &mut buffer) {
                Ok(Some(count)) => send(&*stream, &buffer[..count])?,
                Ok(None) => {}
                Err(_) => ops.stop(),
            }
            Ok(())
        };
        ctx.set_fd_handler(server, watched(&kind)?.read(read))?;
        Ok(ctx.run()?)
    });
    let ctx = context(run)?;
    let client = Rc::new(client);
    let (stream, mut left, mut bytes) = (client.clone(), run.ops, 0);
    let read = move |ops: &mut fdmon::Ops<'_>| {
        bytes += receive(&*stream, &mut [0; 4096])?.unwrap_or(0);
        if bytes >= PING.len() {
            bytes -= PING.len();
            left -= 1;
            if left == 0 {
                ops.stop();
            } else {
                send(&*stream, PING)?;
            }
        }
        Ok(())
    };
    ctx.set_fd_handler(client.clone(), watched(run)?.read(read))?;
    run.measure(|| {
        send(&*client, PING)?;
        Ok(ctx.run()?)
    })?;
    client.shutdown(std::net::Shutdown::Both)?;
    echo.join().expect("no panic")
}

/// Spinning, by the kernel's readiness: nothing else tells of a socket.
fn watched(run: &Run) -> Outcome<Handlers> {
    Ok(if kind(run)?.1 { Handlers::new().poll_kernel() } else { Handlers::new() })
}

fn million_timers(run: &Run) -> Outcome {
    let ctx = context(run)?;
    let fired = Rc::new(Cell::new(0));
    run.measure(|| {
        let mut timers = Vec::with_capacity(run.ops);
        let now = ctx.now_ns();
        for timeout in run.timeouts() {
            let fired = fired.clone();
            let timer = ctx.timer(move |_| {
                fired.set(fired.get() + 1);
                Ok(())
            })?;
            timer.arm_at(now + u64::try_from(timeout.as_nanos())?)?;
            timers.push(timer);
        }
        ctx.poll_until(|| fired.get() == run.ops)?;
        drop(timers);
        Ok(())
    })
}

fn poll_bench(run: &Run) -> Outcome {
    let ctx = context(run)?;
    let mut fan = Fan::new(run.ready)?;
    let seen = Rc::new(Cell::new(0));
    for reader in std::mem::take(&mut fan.readers) {
        let (reader, seen, last) = (Rc::new(reader), seen.clone(), run.ready);
        let taken = reader.clone();
        let read = move |_: &mut fdmon::Ops<'_>| {
            seen.set(seen.get() + 1);
            if seen.get() == last {
                drain(&*taken)?;
            }
            Ok(())
        };
        ctx.set_fd_handler(reader, Handlers::new().read(read))?;
    }
    run.measure(|| {
        for _ in 0..run.rounds() {
            seen.set(0);
            fan.signal()?;
            while seen.get() < run.ready {
                ctx.poll(true)?;
            }
        }
        expect("readers", seen.get(), run.ready)
    })
}

fn dispatch(run: &Run) -> Outcome {
    let ctx = context(run)?;
    let seen = Rc::new(Cell::new(0));
    let fds: Vec<Rc<OwnedFd>> = events(run.of)?.into_iter().map(Rc::new).collect();
    for fd in &fds {
        let (taken, seen) = (fd.clone(), seen.clone());
        let read = move |_: &mut fdmon::Ops<'_>| {
            clear(&*taken)?;
            seen.set(seen.get() + 1);
            Ok(())
        };
        ctx.set_fd_handler(fd.clone(), Handlers::new().read(read))?;
    }
    ctx.poll(false)?; // a ring or an array of all that is watched is made once
    run.measure(|| {
        for round in 1..=run.rounds() {
            run.last_ready(&fds).iter().try_for_each(|fd| signal(&**fd))?;
            while seen.get() < round * run.ready {
                ctx.poll(true)?;
            }
        }
        expect("events", seen.get(), run.rounds() * run.ready)
    })
}

fn register(run: &Run) -> Outcome {
    let ctx = context(run)?;
    let fds: Vec<Rc<OwnedFd>> = events(run.of)?.into_iter().map(Rc::new).collect();
    run.measure(|| {
        for fd in &fds[..run.ops] {
            ctx.set_fd_handler(fd.clone(), Handlers::new().read(|_| Ok(())))?;
        }
        ctx.poll(false)?;
        for fd in &fds[..run.ops] {
            ctx.remove_fd_handler(fd.as_raw_fd());
        }
        ctx.poll(false)?;
        Ok(())
    })
}

fn idle(run: &Run) -> Outcome {
    let ctx = context(run)?;
    idle_fds(&ctx, 100)?;
    run.measure(|| Ok(ctx.run_for(run.idle_time())?))
}
