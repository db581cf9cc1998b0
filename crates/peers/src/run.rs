//! What each peer's function is given, what it measures with, and the fds that all of them use.

use std::cell::Cell;
use std::error::Error;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// One workload, done as this peer's users do it.
pub type Workload = fn(&Run) -> Outcome;

/// A peer, and what it can do.
pub struct Peer {
    pub name: &'static str,
    pub workloads: &'static [(&'static str, Workload)],
}

/// How much to do, and what it took.
pub struct Run {
    /// Which of the peer's kinds: for fdmon, its monitor.
    pub kind: String,
    /// How often.
    pub ops: usize,
    /// Fds that are registered.
    pub of: usize,
    /// Fds of these that are ready at once.
    pub ready: usize,
    /// Threads beside the loop's own.
    pub threads: usize,
    /// How long an idle loop is left alone.
    pub seconds: u64,
    took: Cell<Usage>,
}

impl Default for Run {
    fn default() -> Self {
        let (kind, took) = (String::new(), Cell::default());
        Self { kind, ops: 1000, of: 1, ready: 1, threads: 1, seconds: 1, took }
    }
}

impl Run {
    /// Measures this part: time, CPU time and context switches of the whole process.
    pub fn measure<T>(&self, part: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let since = Instant::now();
        let before = Usage::now(since);
        let done = part()?;
        self.took.set(Usage::now(since).less(before));
        Ok(done)
    }

    /// The same, with an `await` in it.
    pub async fn measure_async<T>(&self, part: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let since = Instant::now();
        let before = Usage::now(since);
        let done = part.await?;
        self.took.set(Usage::now(since).less(before));
        Ok(done)
    }

    /// Measures `hear` while threads send without a pause, each with a sender of its own.
    pub fn measure_pummelled<S: FnMut() + Send + 'static>(
        &self,
        sender: impl Fn() -> S,
        hear: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let done = Arc::new(AtomicBool::new(false));
        self.measure(|| {
            let spawn = |mut send: S| {
                let done = done.clone();
                thread::spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        send();
                    }
                })
            };
            let threads: Vec<_> = (0..self.threads).map(|_| spawn(sender())).collect();
            let heard = hear();
            done.store(true, Ordering::Relaxed);
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
            heard
        })
    }

    /// What was measured, a line of JSON.
    pub fn report(&self) -> String {
        let Usage { ns, cpu_ns, voluntary, involuntary } = self.took.get();
        format!(
            "{{\"ns\":{ns},\"cpuNs\":{cpu_ns},\"voluntary\":{voluntary},\"involuntary\":{involuntary}}}"
        )
    }

    /// Another of this kind, for another thread.
    pub fn of_kind(&self) -> Self {
        Self { kind: self.kind.clone(), ..Self::default() }
    }

    pub fn idle_time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// When each timer of `million-timers` is due, as in libuv's benchmark: a thousand each millisecond.
    pub fn timeouts(&self) -> impl Iterator<Item = Duration> {
        (0..self.ops as u64).map(|i| Duration::from_millis(i / 1000 + 1))
    }

    /// Rounds in which `ready` fds are signalled.
    pub fn rounds(&self) -> usize {
        self.ops / self.ready
    }

    /// Those that become ready: the last, where whoever looks at all of them finds them latest.
    pub fn last_ready<'a, T>(&self, fds: &'a [T]) -> &'a [T] {
        &fds[fds.len() - self.ready..]
    }

    /// 10,000 fds need it.
    pub fn raise_limit(&self) {
        let limit = getrlimit(Resource::Nofile);
        let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, all).expect("the soft limit may be the hard one");
    }
}

/// Of the whole process, all its threads.
#[derive(Clone, Copy, Default)]
struct Usage {
    ns: u64,
    cpu_ns: i64,
    voluntary: i64,
    involuntary: i64,
}

impl Usage {
    fn now(since: Instant) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let mut usage = MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: the kernel writes one `rusage` to where the pointer leads.
        let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        assert_eq!(result, 0, "RUSAGE_SELF is always there");
        // SAFETY: the call above filled it in.
        let usage = unsafe { usage.assume_init() };
        Self {
            ns: u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX),
            cpu_ns: cpu.tv_sec * 1_000_000_000 + cpu.tv_nsec,
            voluntary: usage.ru_nvcsw,
            involuntary: usage.ru_nivcsw,
        }
    }

    fn less(self, before: Self) -> Self {
        Self {
            ns: self.ns - before.ns,
            cpu_ns: self.cpu_ns - before.cpu_ns,
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
        }
    }
}

/// What was asked for has happened that often.
pub fn expect(what: &str, happened: usize, wanted: usize) -> Outcome {
    if happened == wanted {
        return Ok(());
    }
    Err(format!("{what}: {happened}, not {wanted}").into())
}

/// An fd that is ready once it is signalled, until it is cleared.
pub fn event() -> Outcome<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

pub fn events(count: usize) -> Outcome<Vec<OwnedFd>> {
    (0..count).map(|_| event()).collect()
}

#[inline]
pub fn signal(fd: impl AsFd) -> rustix::io::Result<()> {
    rustix::io::write(fd, &1_u64.to_ne_bytes()).map(drop)
}

#[inline]
pub fn clear(fd: impl AsFd) -> rustix::io::Result<()> {
    rustix::io::read(fd, &mut [0_u8; 8]).map(drop)
}

/// The two ends of a pipe, of which the first is there many times: they are ready together.
pub struct Fan {
    pub readers: Vec<OwnedFd>,
    writer: OwnedFd,
}

impl Fan {
    pub fn new(readers: usize) -> Outcome<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(
            rustix::pipe::PipeFlags::NONBLOCK | rustix::pipe::PipeFlags::CLOEXEC,
        )?;
        let readers = (0..readers).map(|_| reader.try_clone()).collect::<Result<_, _>>()?;
        Ok(Self { readers, writer })
    }

    pub fn signal(&self) -> rustix::io::Result<()> {
        rustix::io::write(&self.writer, &[0]).map(drop)
    }
}

/// Takes the byte that made all readers ready.
pub fn drain(reader: impl AsFd) -> rustix::io::Result<()> {
    rustix::io::read(reader, &mut [0_u8; 1]).map(drop)
}

/// What the client of `ping-pongs` sends, as in libuv's benchmark.
pub const PING: &[u8] = b"PING\n";

/// A connection of loopback TCP, neither end of which blocks.
pub fn connection() -> Outcome<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    Ok((client, server))
}

/// Reads once; `None` when there is nothing, an error at the end.
pub fn receive(mut stream: impl Read, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn send(mut stream: impl Write, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(message)
}

/// Lets the runtime come round once: for those that have no such function of their own.
pub async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// A producer's word, and who looks at it each time the runtime comes round; how often it found something.
pub async fn look<F: Future<Output = ()>>(ops: usize, come_round: impl Fn() -> F) -> usize {
    let (head, mut tail, mut hits) = (AtomicU32::new(0), 0, 0);
    for _ in 0..ops {
        head.fetch_add(1, Ordering::SeqCst);
        come_round().await;
        let now = head.load(Ordering::Acquire);
        if now != tail {
            tail = now;
            hits += 1;
        }
    }
    hits
}
