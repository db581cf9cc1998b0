//! mio: a `Poll`, whose events the program matches by token itself; edge-triggered. It has no callbacks and no timers.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::by_token::{self, ByToken};
use crate::run::{Outcome, PING, Peer, Run, connection, event, expect, receive, send};

pub const PEER: Peer = Peer {
    name: "mio",
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

/// The token of the waker; the fds have theirs from 0 up.
const WAKER: usize = usize::MAX;

struct Loop {
    poll: Poll,
    events: Events,
}

impl Loop {
    fn waker(&self) -> Outcome<Arc<Waker>> {
        Ok(Arc::new(Waker::new(self.poll.registry(), Token(WAKER))?))
    }
}

impl ByToken for Loop {
    fn new() -> Outcome<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(1024) })
    }

    fn watch(&self, fd: &impl AsRawFd, token: usize) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), Token(token), Interest::READABLE)
    }

    fn forget(&self, fd: &impl AsFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&fd.as_fd().as_raw_fd()))
    }

    fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut each: impl FnMut(usize) -> Outcome,
    ) -> Outcome {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        self.events.iter().try_for_each(|event| each(event.token().0))
    }
}

fn notify_awake(run: &Run) -> Outcome {
    let mut main = Loop::new()?;
    let idle = event()?;
    main.watch(&idle, 0)?;
    let waker = main.waker()?;
    let mut woken = 0;
    run.measure(|| {
        for _ in 0..run.ops {
            waker.wake()?;
            main.turn(Some(Duration::ZERO), |token| {
                woken += usize::from(token == WAKER);
                Ok(())
            })?;
        }
        expect("wake-ups", woken, run.ops)
    })
}

fn notify_storm(run: &Run) -> Outcome {
    let mut main = Loop::new()?;
    let (waker, ops) = (main.waker()?, run.ops);
    let mut woken = 0;
    run.measure(|| {
        let storm = waker.clone(); // one must stay: with the last, its eventfd goes
        let storm = thread::spawn(move || (0..ops).try_for_each(|_| storm.wake()));
        storm.join().expect("no panic")?;
        main.turn(Some(Duration::ZERO), |token| {
            woken += usize::from(token == WAKER);
            Ok(())
        })?;
        expect("wake-ups", woken, 1)
    })
}

/// What a thread is told by: the loop has one waker, and a flag for each that may have woken it.
#[derive(Clone)]
struct Flag {
    waker: Arc<Waker>,
    raised: Arc<AtomicBool>,
}

impl Flag {
    fn new(waker: Arc<Waker>) -> Self {
        Self { waker, raised: Arc::default() }
    }

    fn raise(&self) -> io::Result<()> {
        self.raised.store(true, Ordering::Release);
        self.waker.wake()
    }

    fn lower(&self) -> bool {
        self.raised.load(Ordering::Relaxed) && self.raised.swap(false, Ordering::Acquire)
    }
}

fn pings(run: &Run) -> Outcome {
    let mut main = Loop::new()?;
    let waker = main.waker()?;
    let mut workers = Vec::new();
    for _ in 0..run.threads {
        let (mine, ops) = (Flag::new(waker.clone()), run.ops);
        let told = mine.clone();
        let ((introduce, introduced), (start, started)) = (channel(), channel());
        let thread = thread::spawn(move || -> Outcome {
            let mut worker = Loop::new()?;
            let own = Flag::new(worker.waker()?);
            introduce.send(own.clone())?;
            started.recv()?;
            told.raise()?;
            let mut seen = 0;
            while seen < ops {
                worker.turn(None, |_| {
                    if own.lower() {
                        seen += 1;
                        if seen < ops {
                            told.raise()?;
                        }
                    }
                    Ok(())
                })?;
            }
            Ok(())
        });
        workers.push((mine, introduced.recv()?, start, thread));
    }
    run.measure(|| {
        workers.iter().try_for_each(|(.., start, _)| start.send(()))?;
        let mut seen = 0;
        while seen < run.ops * run.threads {
            main.turn(None, |_| {
                for (mine, worker, ..) in &workers {
                    if mine.lower() {
                        seen += 1;
                        worker.raise()?;
                    }
                }
                Ok(())
            })?;
        }
        workers.into_iter().try_for_each(|(.., thread)| thread.join().expect("no panic"))
    })
}

fn pummel(run: &Run) -> Outcome {
    let mut main = Loop::new()?;
    let flag = Flag::new(main.waker()?);
    let sender = || {
        let flag = flag.clone();
        move || {
            flag.raise().expect("the loop is there");
        }
    };
    run.measure_pummelled(sender, || {
        let mut seen = 0;
        while seen < run.ops {
            main.turn(None, |_| {
                seen += usize::from(flag.lower());
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// An edge comes once: each event is read until there is nothing.
fn ping_pongs(run: &Run) -> Outcome {
    let (client, server) = connection()?;
    let echo = thread::spawn(move || -> Outcome {
        let mut server = TcpStream::from_std(server);
        let (mut main, mut open) = (Loop::new()?, true);
        main.poll.registry().register(&mut server, Token(0), Interest::READABLE)?;
        while open {
            main.turn(None, |_| {
                let mut buffer = [0; 4096];
                loop {
                    match receive(&server, &mut buffer) {
                        Ok(Some(count)) => send(&server, &buffer[..count])?,
                        Ok(None) => break,
                        Err(_) => {
                            open = false;
                            break;
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    });
    let mut client = TcpStream::from_std(client);
    let mut main = Loop::new()?;
    main.poll.registry().register(&mut client, Token(0), Interest::READABLE)?;
    let (mut left, mut bytes) = (run.ops, 0);
    run.measure(|| {
        send(&client, PING)?;
        while left > 0 {
            main.turn(None, |_| {
                while let Some(count) = receive(&client, &mut [0; 4096])? {
                    bytes += count;
                    if bytes >= PING.len() {
                        bytes -= PING.len();
                        left -= 1;
                        if left > 0 {
                            send(&client, PING)?;
                        }
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
