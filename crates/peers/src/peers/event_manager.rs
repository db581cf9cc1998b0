//! event-manager (rust-vmm's): subscribers whose `process` is called; level-triggered. It has no timers.

use std::cell::Cell;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, RemoteEndpoint, SubscriberOps,
};

use crate::run::{
    Fan, Outcome, PING, Peer, Run, clear, connection, drain, event, events, expect, receive, send,
    signal,
};

pub const PEER: Peer = Peer {
    name: "event-manager",
    workloads: &[
        ("notify-awake", notify_awake),
        ("call-awake", call_awake),
        ("notify-storm", notify_storm),
        ("polled-hit", polled_hit),
        ("async", pings),
        ("async-pummel", pummel),
        ("ping-pongs", ping_pongs),
        ("poll-bench", poll_bench),
        ("dispatch", dispatch),
        ("register", register),
        ("idle", idle),
    ],
};

/// An fd, and what is done when it is readable.
struct Watched<F> {
    fd: F,
    read: Box<dyn FnMut(&F)>,
}

impl<F: AsRawFd> MutEventSubscriber for Watched<F> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        (self.read)(&self.fd);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        ops.add(Events::new(&self.fd, EventSet::IN)).expect("the fd is open and can be polled");
    }
}

type Manager<F> = EventManager<Watched<F>>;

fn watched<F>(fd: F, read: impl FnMut(&F) + 'static) -> Watched<F> {
    Watched { fd, read: Box::new(read) }
}

fn notify_awake(run: &Run) -> Outcome {
    let mut main = Manager::<OwnedFd>::new()?;
    main.add_subscriber(watched(event()?, |_| ()));
    let endpoint = main.remote_endpoint();
    run.measure(|| {
        for _ in 0..run.ops {
            endpoint.kick()?;
            main.run_with_timeout(0)?;
        }
        Ok(())
    })
}

fn call_awake(run: &Run) -> Outcome {
    let mut main = Manager::<OwnedFd>::new()?;
    main.add_subscriber(watched(event()?, |_| ()));
    let endpoint = main.remote_endpoint();
    let ran = Arc::new(AtomicUsize::new(0));
    run.measure(|| {
        for _ in 0..run.ops {
            let ran = ran.clone();
            endpoint.fire(move |_| {
                ran.fetch_add(1, Ordering::Relaxed);
            })?;
            main.run_with_timeout(0)?;
        }
        expect("calls", ran.load(Ordering::Relaxed), run.ops)
    })
}

fn notify_storm(run: &Run) -> Outcome {
    let mut main = Manager::<OwnedFd>::new()?;
    let (endpoint, ops) = (main.remote_endpoint(), run.ops);
    run.measure(|| {
        let storm = thread::spawn(move || (0..ops).try_for_each(|_| endpoint.kick()));
        storm.join().expect("no panic")?;
        expect("wake-ups", main.run_with_timeout(0)?, 1)
    })
}

/// There is nothing but the fd to look at: the producer signals it, the loop asks without a timeout.
fn polled_hit(run: &Run) -> Outcome {
    let mut main = Manager::new()?;
    let (fd, hits) = (Rc::new(event()?), Rc::new(Cell::new(0)));
    let count = hits.clone();
    main.add_subscriber(watched(fd.clone(), move |fd: &Rc<OwnedFd>| {
        clear(&**fd).expect("it was signalled");
        count.set(count.get() + 1);
    }));
    run.measure(|| {
        for _ in 0..run.ops {
            signal(&*fd)?;
            main.run_with_timeout(0)?;
        }
        expect("hits", hits.get(), run.ops)
    })
}

/// What a thread is told by: the manager is kicked, and a flag says by whom.
#[derive(Clone)]
struct Flag {
    endpoint: RemoteEndpoint<Watched<OwnedFd>>,
    raised: Arc<AtomicBool>,
}

impl Flag {
    fn new(manager: &Manager<OwnedFd>) -> Self {
        Self { endpoint: manager.remote_endpoint(), raised: Arc::default() }
    }

    fn raise(&self) -> event_manager::Result<()> {
        self.raised.store(true, Ordering::Release);
        self.endpoint.kick()
    }

    fn lower(&self) -> bool {
        self.raised.load(Ordering::Relaxed) && self.raised.swap(false, Ordering::Acquire)
    }
}

fn pings(run: &Run) -> Outcome {
    let mut main = Manager::new()?;
    let mut workers = Vec::new();
    for _ in 0..run.threads {
        let (mine, ops) = (Flag::new(&main), run.ops);
        let told = mine.clone();
        let ((introduce, introduced), (start, started)) = (channel(), channel());
        let thread = thread::spawn(move || -> Outcome {
            let mut worker = Manager::new()?;
            let own = Flag::new(&worker);
            introduce.send(own.clone())?;
            started.recv()?;
            told.raise()?;
            let mut seen = 0;
            while seen < ops {
                worker.run()?;
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
            main.run()?;
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
    let mut main = Manager::new()?;
    let flag = Flag::new(&main);
    let sender = || {
        let flag = flag.clone();
        move || {
            flag.raise().expect("the manager is there");
        }
    };
    run.measure_pummelled(sender, || {
        let mut seen = 0;
        while seen < run.ops {
            main.run()?;
            seen += usize::from(flag.lower());
        }
        Ok(())
    })
}

fn ping_pongs(run: &Run) -> Outcome {
    let (client, server) = connection()?;
    let echo = thread::spawn(move || -> Outcome {
        let mut main = Manager::new()?;
        let open = Rc::new(Cell::new(true));
        let ended = open.clone();
        main.add_subscriber(watched(server, move |server: &TcpStream| {
            let mut buffer = [0; 4096];
            match receive(server, &mut buffer) {
                Ok(Some(count)) => send(server, &buffer[..count]).expect("the client reads"),
                Ok(None) => {}
                Err(_) => ended.set(false),
            }
        }));
        while open.get() {
            main.run()?;
        }
        Ok(())
    });
    let mut main = Manager::new()?;
    let (client, left) = (Rc::new(client), Rc::new(Cell::new(run.ops)));
    let (ops, mut bytes) = (left.clone(), 0);
    main.add_subscriber(watched(client.clone(), move |client: &Rc<TcpStream>| {
        let received = receive(&**client, &mut [0; 4096]).expect("the server is there");
        bytes += received.unwrap_or(0);
        if bytes >= PING.len() {
            bytes -= PING.len();
            ops.set(ops.get() - 1);
            if ops.get() > 0 {
                send(&**client, PING).expect("the server reads");
            }
        }
    }));
    run.measure(|| {
        send(&*client, PING)?;
        while left.get() > 0 {
            main.run()?;
        }
        Ok(())
    })?;
    client.shutdown(std::net::Shutdown::Both)?;
    echo.join().expect("no panic")
}

fn poll_bench(run: &Run) -> Outcome {
    let mut main = Manager::new()?;
    let mut fan = Fan::new(run.ready)?;
    let seen = Rc::new(Cell::new(0));
    for reader in std::mem::take(&mut fan.readers) {
        let (seen, last) = (seen.clone(), run.ready);
        main.add_subscriber(watched(reader, move |reader: &OwnedFd| {
            seen.set(seen.get() + 1);
            if seen.get() == last {
                drain(reader).expect("there is a byte");
            }
        }));
    }
    run.measure(|| {
        for _ in 0..run.rounds() {
            seen.set(0);
            fan.signal()?;
            while seen.get() < run.ready {
                main.run()?;
            }
        }
        Ok(())
    })
}

fn dispatch(run: &Run) -> Outcome {
    let mut main = Manager::new()?;
    let seen = Rc::new(Cell::new(0));
    let fds: Vec<Rc<OwnedFd>> = events(run.of)?.into_iter().map(Rc::new).collect();
    for fd in &fds {
        let seen = seen.clone();
        main.add_subscriber(watched(fd.clone(), move |fd: &Rc<OwnedFd>| {
            clear(&**fd).expect("it was signalled");
            seen.set(seen.get() + 1);
        }));
    }
    run.measure(|| {
        for round in 1..=run.rounds() {
            run.last_ready(&fds).iter().try_for_each(|fd| signal(&**fd))?;
            while seen.get() < round * run.ready {
                main.run()?;
            }
        }
        expect("events", seen.get(), run.rounds() * run.ready)
    })
}

fn register(run: &Run) -> Outcome {
    let mut main = Manager::new()?;
    let fds: Vec<Rc<OwnedFd>> = events(run.of)?.into_iter().map(Rc::new).collect();
    run.measure(|| {
        let ids: Vec<_> = fds[..run.ops]
            .iter()
            .map(|fd| main.add_subscriber(watched(fd.clone(), |_: &Rc<OwnedFd>| ())))
            .collect();
        main.run_with_timeout(0)?;
        for id in ids {
            main.remove_subscriber(id)?;
        }
        main.run_with_timeout(0)?;
        Ok(())
    })
}

fn idle(run: &Run) -> Outcome {
    let mut main = Manager::new()?;
    for fd in events(100)? {
        main.add_subscriber(watched(fd, |_: &OwnedFd| ()));
    }
    run.measure(|| {
        main.run_with_timeout(i32::try_from(run.idle_time().as_millis())?)?;
        Ok(())
    })
}
