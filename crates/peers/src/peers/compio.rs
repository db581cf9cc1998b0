//! compio: a task for each thing that waits, on a runtime over io_uring. Its readiness requests are one-shot, made anew
//! for each wait, so there is nothing to register.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use compio::io::{AsyncReadExt, AsyncWriteExt};
use compio::net::TcpStream;
use compio::runtime::fd::PollFd;
use compio::runtime::{Runtime, spawn};
use compio::time::{sleep, sleep_until};
use tokio::sync::Notify; // of no runtime

use crate::run::{
    Fan, Outcome, PING, Peer, Run, clear, connection, drain, events, expect, look, signal,
    yield_once,
};

pub const PEER: Peer = Peer {
    name: "compio",
    workloads: &[
        ("call-awake", call_awake),
        ("notify-storm", notify_storm),
        ("polled-hit", polled_hit),
        ("async", pings),
        ("async-pummel", pummel),
        ("ping-pongs", ping_pongs),
        ("million-timers", million_timers),
        ("poll-bench", poll_bench),
        ("dispatch", dispatch),
        ("idle", idle),
    ],
};

/// A task that counts how often it is told.
fn listener(runtime: &Runtime) -> (Arc<Notify>, Arc<AtomicU32>) {
    let (told, heard) = <(Arc<Notify>, Arc<AtomicU32>)>::default();
    let (hear, count) = (told.clone(), heard.clone());
    let task = async move {
        loop {
            hear.notified().await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    runtime.spawn(task).detach();
    runtime.block_on(yield_once());
    (told, heard)
}

/// Told from outside the runtime, as by another thread, while it does not sleep.
fn call_awake(run: &Run) -> Outcome {
    let runtime = Runtime::new()?;
    let (told, heard) = listener(&runtime);
    run.measure(|| {
        for op in 1..=run.ops {
            told.notify_one();
            runtime.block_on(async {
                while (heard.load(Ordering::Relaxed) as usize) < op {
                    yield_once().await;
                }
            });
        }
        Ok(())
    })
}

fn notify_storm(run: &Run) -> Outcome {
    let runtime = Runtime::new()?;
    let (told, heard) = listener(&runtime);
    let ops = run.ops;
    run.measure(|| {
        let storm = thread::spawn(move || (0..ops).for_each(|_| told.notify_one()));
        storm.join().expect("no panic");
        runtime.block_on(async {
            while heard.load(Ordering::Relaxed) == 0 {
                yield_once().await;
            }
        });
        Ok(())
    })
}

/// A task that looks at the word each time the runtime comes round to it.
fn polled_hit(run: &Run) -> Outcome {
    let task = look(run.ops, yield_once);
    let hits = Runtime::new()?.block_on(
        run.measure_async(async { spawn(task).await.map_err(|_| "the task failed".into()) }),
    )?;
    expect("hits", hits, run.ops)
}

fn pings(run: &Run) -> Outcome {
    let mut workers = Vec::new();
    for _ in 0..run.threads {
        let (to_main, to_worker) = <(Arc<Notify>, Arc<Notify>)>::default();
        let (main, worker, ops) = (to_main.clone(), to_worker.clone(), run.ops);
        let (start, started) = channel();
        let thread = thread::spawn(move || -> Outcome {
            let runtime = Runtime::new()?;
            started.recv()?;
            runtime.block_on(async {
                for _ in 0..ops {
                    main.notify_one();
                    worker.notified().await;
                }
            });
            Ok(())
        });
        workers.push((to_main, to_worker, start, thread));
    }
    let runtime = Runtime::new()?;
    run.measure(|| {
        workers.iter().try_for_each(|(.., start, _)| start.send(()))?;
        let mut threads = Vec::new();
        let mut tasks = Vec::new();
        for (to_main, to_worker, _, thread) in workers {
            let ops = run.ops;
            tasks.push(runtime.spawn(async move {
                for _ in 0..ops {
                    to_main.notified().await;
                    to_worker.notify_one();
                }
            }));
            threads.push(thread);
        }
        for task in tasks {
            runtime.block_on(task).map_err(|_| "a task failed")?;
        }
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn pummel(run: &Run) -> Outcome {
    let runtime = Runtime::new()?;
    let told = Arc::new(Notify::new());
    let sender = || {
        let told = told.clone();
        move || {
            told.notify_one();
        }
    };
    run.measure_pummelled(sender, || {
        runtime.block_on(async {
            for _ in 0..run.ops {
                told.notified().await;
            }
        });
        Ok(())
    })
}

fn ping_pongs(run: &Run) -> Outcome {
    let (client, server) = connection()?;
    let echo = thread::spawn(move || -> Outcome {
        Runtime::new()?.block_on(async {
            let mut server = TcpStream::from_std(server)?;
            let mut buffer = Vec::with_capacity(4096);
            loop {
                buffer.clear();
                let compio::BufResult(count, read) = server.append(buffer).await;
                if count? == 0 {
                    return Ok(());
                }
                let compio::BufResult(sent, written) = server.write_all(read).await;
                sent?;
                buffer = written;
            }
        })
    });
    Runtime::new()?.block_on(async {
        let mut client = TcpStream::from_std(client)?;
        run.measure_async(async {
            let mut buffer = vec![0; PING.len()];
            for _ in 0..run.ops {
                client.write_all(PING).await.0?;
                let compio::BufResult(received, read) = client.read_exact(buffer).await;
                received?;
                buffer = read;
            }
            Ok(())
        })
        .await
    })?;
    echo.join().expect("no panic")
}

fn million_timers(run: &Run) -> Outcome {
    let fired = Rc::new(Cell::new(0));
    Runtime::new()?.block_on(run.measure_async(async {
        let now = Instant::now();
        let mut tasks = Vec::with_capacity(run.ops);
        for timeout in run.timeouts() {
            let fired = fired.clone();
            tasks.push(spawn(async move {
                sleep_until(now + timeout).await;
                fired.set(fired.get() + 1);
            }));
        }
        for task in tasks {
            task.await.map_err(|_| "a task failed")?;
        }
        Ok(())
    }))?;
    expect("timers", fired.get(), run.ops)
}

/// A task for each reader; the last one of a round tells the main one.
fn poll_bench(run: &Run) -> Outcome {
    let mut fan = Fan::new(run.ready)?;
    let readers = std::mem::take(&mut fan.readers);
    let (seen, all) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
    Runtime::new()?.block_on(async {
        let waiting = Rc::new(Notify::new());
        for reader in readers {
            let reader = PollFd::new(reader)?;
            let (seen, all, last, next) = (seen.clone(), all.clone(), run.ready, waiting.clone());
            spawn(async move {
                loop {
                    reader.read_ready().await.expect("the runtime is there");
                    seen.set(seen.get() + 1);
                    let again = next.notified();
                    if seen.get() == last {
                        drain(&*reader).expect("there is a byte");
                        all.notify_one();
                    }
                    again.await; // or it would find the same byte again
                }
            })
            .detach();
        }
        run.measure_async(async {
            for _ in 0..run.rounds() {
                seen.set(0);
                waiting.notify_waiters();
                fan.signal()?;
                all.notified().await;
            }
            Ok(())
        })
        .await
    })
}

fn dispatch(run: &Run) -> Outcome {
    let (seen, all) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
    Runtime::new()?.block_on(async {
        let fds: Vec<Arc<OwnedFd>> = events(run.of)?.into_iter().map(Arc::new).collect();
        for fd in &fds {
            let fd = PollFd::new(fd.clone())?;
            let (seen, all, ready) = (seen.clone(), all.clone(), run.ready);
            spawn(async move {
                loop {
                    fd.read_ready().await.expect("the runtime is there");
                    clear(&*fd).expect("it was signalled");
                    seen.set(seen.get() + 1);
                    if seen.get() % ready == 0 {
                        all.notify_one();
                    }
                }
            })
            .detach();
        }
        for _ in 0..=run.of / 32 {
            yield_once().await; // each task waits before anything is measured
        }
        run.measure_async(async {
            for _ in 0..run.rounds() {
                run.last_ready(&fds).iter().try_for_each(signal)?;
                all.notified().await;
            }
            expect("events", seen.get(), run.rounds() * run.ready)
        })
        .await
    })
}

fn idle(run: &Run) -> Outcome {
    Runtime::new()?.block_on(async {
        for fd in events(100)? {
            let fd = PollFd::new(fd)?;
            spawn(async move { fd.read_ready().await }).detach();
        }
        yield_once().await;
        run.measure_async(async {
            sleep(run.idle_time()).await;
            Ok(())
        })
        .await
    })
}
