//! tokio: a task for each thing that waits, on a current-thread runtime, its cheapest.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use crate::run::{
    Fan, Outcome, PING, Peer, Run, clear, connection, drain, event, events, expect, look, signal,
};

pub const PEER: Peer = Peer {
    name: "tokio",
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
        ("register", register),
        ("idle", idle),
    ],
};

fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// What owns an fd, alone or with others.
trait Owned: AsRawFd {}
impl Owned for OwnedFd {}
impl Owned for Arc<OwnedFd> {}

fn watch<F: Owned>(fd: F) -> io::Result<AsyncFd<F>> {
    // SAFETY: what owns an fd goes on naming the same file, open, until the `AsyncFd` that has it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Told from outside the runtime, as by another thread, while it does not sleep.
fn call_awake(run: &Run) -> Outcome {
    let runtime = runtime()?;
    let told = Arc::new(Notify::new());
    let heard = Arc::new(AtomicU32::new(0));
    let idle = runtime.block_on(async { Outcome::Ok(watch(event()?)?) })?;
    let (tell, count) = (told.clone(), heard.clone());
    runtime.spawn(async move {
        loop {
            told.notified().await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    runtime.block_on(yield_now());
    run.measure(|| {
        for op in 1..=run.ops {
            tell.notify_one();
            runtime.block_on(async {
                while (heard.load(Ordering::Relaxed) as usize) < op {
                    yield_now().await;
                }
            });
        }
        Ok(())
    })?;
    drop(idle);
    expect("wake-ups", heard.load(Ordering::Relaxed) as usize, run.ops)
}

fn notify_storm(run: &Run) -> Outcome {
    let runtime = runtime()?;
    let told = Arc::new(Notify::new());
    let heard = Arc::new(AtomicU32::new(0));
    let (tell, count) = (told.clone(), heard.clone());
    runtime.spawn(async move {
        loop {
            told.notified().await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    runtime.block_on(yield_now());
    let ops = run.ops;
    run.measure(|| {
        let storm = thread::spawn(move || (0..ops).for_each(|_| tell.notify_one()));
        storm.join().expect("no panic");
        runtime.block_on(async {
            while heard.load(Ordering::Relaxed) == 0 {
                yield_now().await;
            }
        });
        Ok(())
    })
}

/// A task that looks at the word each time the runtime comes round to it.
fn polled_hit(run: &Run) -> Outcome {
    let task = look(run.ops, yield_now);
    let hits = runtime()?.block_on(run.measure_async(async { Ok(tokio::spawn(task).await?) }))?;
    expect("hits", hits, run.ops)
}

fn pings(run: &Run) -> Outcome {
    let mut workers = Vec::new();
    for _ in 0..run.threads {
        let (to_main, to_worker) = <(Arc<Notify>, Arc<Notify>)>::default();
        let (main, worker, ops) = (to_main.clone(), to_worker.clone(), run.ops);
        let (start, started) = channel();
        let thread = thread::spawn(move || -> Outcome {
            let runtime = runtime()?;
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
    let runtime = runtime()?;
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
        tasks.into_iter().try_for_each(|task| runtime.block_on(task))?;
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn pummel(run: &Run) -> Outcome {
    let runtime = runtime()?;
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
        runtime()?.block_on(async {
            let mut server = TcpStream::from_std(server)?;
            let mut buffer = [0; 4096];
            while let count @ 1.. = server.read(&mut buffer).await? {
                server.write_all(&buffer[..count]).await?;
            }
            Ok(())
        })
    });
    runtime()?.block_on(async {
        let mut client = TcpStream::from_std(client)?;
        run.measure_async(async {
            for _ in 0..run.ops {
                client.write_all(PING).await?;
                client.read_exact(&mut [0; PING.len()]).await?;
            }
            Ok(())
        })
        .await
    })?;
    echo.join().expect("no panic")
}

fn million_timers(run: &Run) -> Outcome {
    let runtime = runtime()?;
    let fired = Arc::new(AtomicUsize::new(0));
    runtime.block_on(run.measure_async(async {
        let now = Instant::now();
        let mut tasks = Vec::with_capacity(run.ops);
        for timeout in run.timeouts() {
            let fired = fired.clone();
            tasks.push(tokio::spawn(async move {
                sleep_until(now + timeout).await;
                fired.fetch_add(1, Ordering::Relaxed);
            }));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    }))?;
    expect("timers", fired.load(Ordering::Relaxed), run.ops)
}

/// A task for each reader; the last one of a round tells the main one.
fn poll_bench(run: &Run) -> Outcome {
    let runtime = runtime()?;
    let mut fan = Fan::new(run.ready)?;
    let readers = std::mem::take(&mut fan.readers);
    let (seen, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    runtime.block_on(async {
        for reader in readers {
            let (reader, seen, all, last) = (watch(reader)?, seen.clone(), all.clone(), run.ready);
            tokio::spawn(async move {
                loop {
                    let mut guard = reader.readable().await.expect("the runtime is there");
                    guard.clear_ready();
                    if seen.fetch_add(1, Ordering::Relaxed) + 1 == last {
                        drain(&reader).expect("there is a byte");
                        all.notify_one();
                    }
                }
            });
        }
        run.measure_async(async {
            for _ in 0..run.rounds() {
                seen.store(0, Ordering::Relaxed);
                fan.signal()?;
                all.notified().await;
            }
            Ok(())
        })
        .await
    })
}

/// A task for each fd. A read of an eventfd takes all there is, so that readiness is cleared without a second read.
fn dispatch(run: &Run) -> Outcome {
    let runtime = runtime()?;
    let (seen, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    runtime.block_on(async {
        let fds: Vec<Arc<OwnedFd>> = events(run.of)?.into_iter().map(Arc::new).collect();
        for fd in &fds {
            let (fd, seen, all, ready) = (watch(fd.clone())?, seen.clone(), all.clone(), run.ready);
            tokio::spawn(async move {
                loop {
                    let mut guard = fd.readable().await.expect("the runtime is there");
                    clear(guard.get_inner()).expect("it was signalled");
                    guard.clear_ready();
                    if (seen.fetch_add(1, Ordering::Relaxed) + 1) % ready == 0 {
                        all.notify_one();
                    }
                }
            });
        }
        for _ in 0..=run.of / 32 {
            yield_now().await; // each task waits before anything is measured
        }
        run.measure_async(async {
            for _ in 0..run.rounds() {
                run.last_ready(&fds).iter().try_for_each(signal)?;
                all.notified().await;
            }
            expect("events", seen.load(Ordering::Relaxed), run.rounds() * run.ready)
        })
        .await
    })
}

fn register(run: &Run) -> Outcome {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut fds = events(run.of)?;
        let used: Vec<_> = fds.drain(..run.ops).collect();
        run.measure_async(async {
            let watched = used.into_iter().map(watch).collect::<io::Result<Vec<_>>>()?;
            yield_now().await;
            let fds: Vec<_> = watched.into_iter().map(AsyncFd::into_inner).collect();
            yield_now().await;
            Ok(fds)
        })
        .await
        .map(drop) // none of the peers closes them in what is measured
    })
}

fn idle(run: &Run) -> Outcome {
    let runtime = runtime()?;
    runtime.block_on(async {
        let fds = events(100)?.into_iter().map(watch).collect::<io::Result<Vec<_>>>()?;
        run.measure_async(async {
            sleep(run.idle_time()).await;
            Ok(())
        })
        .await?;
        drop(fds);
        Ok(())
    })
}
