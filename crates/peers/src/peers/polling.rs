//! polling (smol's): a `Poller`, whose events the program matches by key itself. Level-triggered here, as its oneshot
//! default would take a call more for each event. It has no callbacks and no timers.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};

use super::by_token::{self, ByToken};
use crate::run::{Outcome, PING, Peer, Run, connection, event, receive, send};

pub const PEER: Peer = Peer {
    name: "polling",
    workloads: &[
        ("notify-awake", notify_awake),
        ("notify-storm", notify_storm),
        ("polled-hit", by_token::polled_hit::<Loop>),
        ("async", pings),
        ("async-pummel", pummel),
        ("ping-pongs", ping_pongs),
        ("poll-bench", by_token::poll_bench::<Loop>),
        ("dispatch", by_token::dispatch::<Loop>),
        ("register", by_token::register::<Loop>),
        ("idle", by_token::idle::<Loop>),
    ],
};

struct Loop {
    poller: Arc<Poller>,
    events: Events,
}

impl ByToken for Loop {
    fn new() -> Outcome<Self> {
        Ok(Self { poller: Arc::new(Poller::new()?), events: Events::new() })
    }

    /// The fd outlives the loop's use of it, or is deleted from it: no caller closes one before.
    fn watch(&self, fd: &impl AsRawFd, key: usize) -> io::Result<()> {
        // SAFETY: as above.
        unsafe { self.poller.add_with_mode(fd.as_raw_fd(), Event::readable(key), PollMode::Level) }
    }

    fn forget(&self, fd: &impl AsFd) -> io::Result<()> {
        self.poller.delete(fd)
    }

    /// Being notified is no event.
    fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut each: impl FnMut(usize) -> Outcome,
    ) -> Outcome {
        self.events.clear();
        self.poller.wait(&mut self.events, timeout)?;
        self.events.iter().try_for_each(|event| each(event.key))
    }
}

fn notify_awake(run: &Run) -> Outcome {
    let mut main = Loop::new()?;
    let idle = event()?;
    main.watch(&idle, 0)?;
    let poller = main.poller.clone();
    run.measure(|| {
        for _ in 0..run.ops {
            poller.notify()?;
            main.turn(Some(Duration::ZERO), |_| Ok(()))?;
        }
        Ok(())
    })
}

fn notify_storm(run: &Run) -> Outcome {
    let mut main = Loop::new()?;
    let (poller, ops) = (main.poller.clone(), run.ops);
    run.measure(|| {
        let storm = thread::spawn(move || (0..ops).try_for_each(|_| poller.notify()));
        storm.join().expect("no panic")?;
        main.turn(None, |_| Ok(()))
    })
}

/// What a thread is told by: the loop is notified, and a flag says by whom.
#[derive(Clone)]
struct Flag {
    poller: Arc<Poller>,
    raised: Arc<AtomicBool>,
}

impl Flag {
    fn new(main: &Loop) -> Self {
        Self { poller: main.poller.clone(), raised: Arc::default() }
    }

    fn raise(&self) -> io::Result<()> {
        self.raised.store(true, Ordering::Release);
        self.poller.notify()
    }

    fn lower(&self) -> bool {
        self.raised.load(Ordering::Relaxed) && self.raised.swap(false, Ordering::Acquire)
    }
}

fn pings(run: &Run) -> Outcome {
    let mut main = Loop::new()?;
    let mut workers = Vec::new();
    for _ in 0..run.threads {
        let (mine, ops) = (Flag::new(&main), run.ops);
        let told = mine.clone();
        let ((introduce, introduced), (start, started)) = (channel(), channel());
        let thread = thread::spawn(move || -> Outcome {
            let mut worker = Loop::new()?;
            let own = Flag::new(&worker);
            introduce.send(own.clone())?;
            started.recv()?;
            told.raise()?;
            let mut seen = 0;
            while seen < ops {
                worker.turn(None, |_| Ok(()))?;
                if own.lower() {
                    seen += 1;
                    if seen < ops {
                        told.raise()?;
                    }
                }
            }
            Ok(())
        });
        workers.push((mine, introduced.recv()?, start, thread));
    }
    run.measure(|| {
        workers.iter().try_for_each(|(.., start, _)| start.send(()))?;
        let mut seen = 0;
        while seen < run.ops * run.threads {
            main.turn(None, |_| Ok(()))?;
            for (mine, worker, ..) in &workers {
                if mine.lower() {
                    seen += 1;
                    worker.raise()?;
                }
            }
        }
        workers.into_iter().try_for_each(|(.., thread)| thread.join().expect("no panic"))
    })
}

fn pummel(run: &Run) -> Outcome {
    let mut main = Loop::new()?;
    let flag = Flag::new(&main);
    let sender = || {
        let flag = flag.clone();
        move || {
            flag.raise().expect("the loop is there");
        }
    };
    run.measure_pummelled(sender, || {
        let mut seen = 0;
        while seen < run.ops {
            main.turn(None, |_| Ok(()))?;
            seen += usize::from(flag.lower());
        }
        Ok(())
    })
}

fn ping_pongs(run: &Run) -> Outcome {
    let (client, server) = connection()?;
    let echo = thread::spawn(move || -> Outcome {
        let (mut main, mut open) = (Loop::new()?, true);
        main.watch(&server, 0)?;
        while open {
            main.turn(None, |_| {
                let mut buffer = [0; 4096];
                match receive(&server, &mut buffer) {
                    Ok(Some(count)) => send(&server, &buffer[..count])?,
                    Ok(None) => {}
                    Err(_) => open = false,
                }
                Ok(())
            })?;
        }
        Ok(main.forget(&server)?)
    });
    let mut main = Loop::new()?;
    main.watch(&client, 0)?;
    let (mut left, mut bytes) = (run.ops, 0);
    run.measure(|| {
        send(&client, PING)?;
        while left > 0 {
            main.turn(None, |_| {
                bytes += receive(&client, &mut [0; 4096])?.unwrap_or(0);
                if bytes >= PING.len() {
                    bytes -= PING.len();
                    left -= 1;
                    if left > 0 {
                        send(&client, PING)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    client.shutdown(std::net::Shutdown::Both)?;
    echo.join().expect("no panic")
}
