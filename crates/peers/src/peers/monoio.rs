//! monoio: a task for each thing that waits, on a runtime over io_uring. It waits for reads and writes, and has no
//! readiness of a plain fd, so there is nothing to dispatch or to register; and it is one thread's: other threads wake no
//! task of it, unless its feature `sync` is built, which has a dependency under another licence than ours.

use std::cell::Cell;
use std::rc::Rc;

use std::thread;

use monoio::io::{AsyncReadRent, AsyncReadRentExt, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::time::{Instant, TimeDriver, sleep, sleep_until};
use monoio::{IoUringDriver, Runtime, RuntimeBuilder, spawn};

use crate::run::{Outcome, PING, Peer, Run, connection, expect, look, yield_once};

pub const PEER: Peer = Peer {
    name: "monoio",
    workloads: &[
        ("polled-hit", polled_hit),
        ("ping-pongs", ping_pongs),
        ("million-timers", million_timers),
        ("idle", idle),
    ],
};

fn runtime() -> Outcome<Runtime<TimeDriver<IoUringDriver>>> {
    Ok(RuntimeBuilder::<IoUringDriver>::new().enable_timer().build()?)
}

/// A task that looks at the word each time the runtime comes round to it.
fn polled_hit(run: &Run) -> Outcome {
    let task = look(run.ops, yield_once);
    let hits = runtime()?.block_on(run.measure_async(async { Ok(spawn(task).await) }))?;
    expect("hits", hits, run.ops)
}

fn ping_pongs(run: &Run) -> Outcome {
    let (client, server) = connection()?;
    let echo = thread::spawn(move || -> Outcome {
        runtime()?.block_on(async {
            let mut server = TcpStream::from_std(server)?;
            let mut buffer = Vec::with_capacity(4096);
            loop {
                let (count, read) = server.read(buffer).await;
                if count? == 0 {
                    return Ok(());
                }
                let (sent, written) = server.write_all(read).await;
                sent?;
                buffer = written;
            }
        })
    });
    runtime()?.block_on(async {
        let mut client = TcpStream::from_std(client)?;
        run.measure_async(async {
            let mut buffer = vec![0; PING.len()];
            for _ in 0..run.ops {
                client.write_all(PING).await.0?;
                let (received, read) = client.read_exact(buffer).await;
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
    runtime()?.block_on(run.measure_async(async {
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
            task.await;
        }
        Ok(())
    }))?;
    expect("timers", fired.get(), run.ops)
}

fn idle(run: &Run) -> Outcome {
    runtime()?.block_on(run.measure_async(async {
        sleep(run.idle_time()).await;
        Ok(())
    }))
}
