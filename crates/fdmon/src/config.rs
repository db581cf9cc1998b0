//! ① Parameters: what can be set, in which unit, within which range.

use crate::error::{Error, Result};

/// Which facility of the kernel waits for fds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MonitorKind {
    /// The best one there is; falls back in silence and says so in `monitor_reason()`.
    #[default]
    Auto,
    /// ppoll(2): cost grows with the number of fds.
    Poll,
    /// epoll(7): cost grows with the number of ready fds.
    Epoll,
    /// io_uring(7).
    IoUring,
    /// poll_oneoff of WASI: the one of WebAssembly builds, and of no other.
    Wasi,
}

impl MonitorKind {
    /// The name, as `FDMON_MONITOR` and the npm package spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Poll => "poll",
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
            Self::Wasi => "wasi",
        }
    }
}

impl std::fmt::Display for MonitorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for MonitorKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Auto, Self::Poll, Self::Epoll, Self::IoUring, Self::Wasi]
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| {
                Error::invalid_arg(
                    "monitor",
                    format_args!("'{name}'"),
                    "'auto', 'poll', 'epoll', 'io_uring' or 'wasi'",
                )
            })
    }
}

/// How the spin window follows the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PolicyKind {
    /// One window: doubled while events come soon after it, reset when they come late.
    Classic,
    /// One estimate a source; the window serves the slowest source that is worth spinning for.
    PerHandler,
    /// The window of the least expected cost, by what is known of the times between events.
    #[default]
    Cost,
    /// Always the longest window: for a CPU that has nothing else to do.
    Fixed,
}

impl PolicyKind {
    /// The name, as the npm package spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::PerHandler => "handler",
            Self::Cost => "cost",
            Self::Fixed => "fixed",
        }
    }
}

/// Longest times and sizes that are taken: a day, and what fits the arithmetic.
const DAY_NS: u64 = 86_400_000_000_000;

/// Kernel busy polling of network queues: while the loop sleeps, the kernel asks the queue of the
/// network card instead of waiting for its interrupt.
///
/// It shortens the way of a packet and costs the CPU time of the asking. It helps for sockets of a
/// card with NAPI queues, and does nothing for other fds. It needs epoll or io_uring, on Linux 6.9
/// or newer; where it cannot be had, a typed error says why.
///
/// ```
/// use fdmon::{AioContext, BusyPoll, PollParams};
///
/// let busy = BusyPoll { usecs: 50, budget: 0, prefer: false };
/// let params = PollParams { kernel_busy_poll: Some(busy), ..PollParams::default() };
/// match AioContext::builder().poll(params).build() {
///     Ok(ctx) => println!("busy polling on {}", ctx.monitor()),
///     Err(error) => assert!(error.is_unsupported(), "{error}"),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BusyPoll {
    /// How long one sleep asks the queue, in microseconds: 1 to 2147483647.
    pub usecs: u32,
    /// On epoll, packets taken each time the queue is asked; 0 = 8, the kernel's default. Above 64
    /// needs CAP_NET_ADMIN. A ring has no budget of its own: it is ignored there.
    pub budget: u16,
    /// Keep the card's interrupts off as long as the queue is asked often enough.
    pub prefer: bool,
}

/// The kernel takes no more (Linux 6.9).
const BUSY_POLL_MAX_USECS: u32 = i32::MAX as u32;

impl BusyPoll {
    fn validate(self) -> Result<()> {
        if !(1..=BUSY_POLL_MAX_USECS).contains(&self.usecs) {
            return Err(Error::invalid_arg(
                "kernel_busy_poll.usecs",
                self.usecs,
                "1 to 2147483647 µs, or None as kernel_busy_poll to turn it off",
            ));
        }
        Ok(())
    }
}

impl std::fmt::Display for BusyPoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { usecs, budget, prefer } = self;
        write!(f, "{{ usecs: {usecs}, budget: {budget}, prefer: {prefer} }}")
    }
}

/// How a context spins before it sleeps. Spinning is off by default.
#[derive(Clone, Debug, PartialEq)]
pub struct PollParams {
    /// Longest spin in nanoseconds; 0 = never. Default 0, at most a day.
    pub max_ns: u64,
    /// Factor by which the window grows; 0 = 2. Default 0.
    pub grow: u32,
    /// Divisor by which the window shrinks; 0 = reset to 0 (classic), 2 (per handler). Default 0.
    pub shrink: u32,
    /// How the window follows the traffic. Default [`PolicyKind::Cost`].
    pub policy: PolicyKind,
    /// Of the cost policy: nanoseconds of CPU that a nanosecond of latency is worth. Default 1.
    pub latency_weight: f64,
    /// Of the per-handler policy: history shift. Default 3, at most 32.
    pub weight: u32,
    /// Share of time that fruitless spins may take, above 0 and at most 1. Default 1: no limit.
    pub cpu_budget: f64,
    /// A source without a hit for this long leaves the spin list. Default 7 s, at most a day.
    pub idle_ns: u64,
    /// No spin where one CPU is usable; yield while spinning. Default true.
    pub guards: bool,
    /// Kernel busy polling of network queues. Default `None`: off. An `auto` context does it on its
    /// ring, and moves to epoll where it has none that can.
    pub kernel_busy_poll: Option<BusyPoll>,
}

impl Default for PollParams {
    fn default() -> Self {
        Self {
            max_ns: 0,
            grow: 0,
            shrink: 0,
            policy: PolicyKind::default(),
            latency_weight: 1.0,
            weight: 3,
            cpu_budget: 1.0,
            idle_ns: 7_000_000_000,
            guards: true,
            kernel_busy_poll: None,
        }
    }
}

impl PollParams {
    /// Spin for at most this long, everything else as by default.
    #[must_use]
    pub fn spin(max: std::time::Duration) -> Self {
        Self { max_ns: u64::try_from(max.as_nanos()).unwrap_or(u64::MAX), ..Self::default() }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.max_ns > DAY_NS {
            return Err(Error::invalid_arg("max_ns", self.max_ns, "0 to 86400000000000 (a day)"));
        }
        if self.idle_ns > DAY_NS {
            return Err(Error::invalid_arg("idle_ns", self.idle_ns, "0 to 86400000000000 (a day)"));
        }
        if self.weight > 32 {
            return Err(Error::invalid_arg("weight", self.weight, "0 to 32"));
        }
        if !(self.cpu_budget > 0.0 && self.cpu_budget <= 1.0) {
            return Err(Error::invalid_arg(
                "cpu_budget",
                self.cpu_budget,
                "a number above 0 and at most 1",
            ));
        }
        if !(self.latency_weight >= 0.0 && self.latency_weight <= 1e9) {
            return Err(Error::invalid_arg("latency_weight", self.latency_weight, "0 to 1e9"));
        }
        self.kernel_busy_poll.map_or(Ok(()), BusyPoll::validate)
    }
}

/// How completions reach the loop on an io_uring ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RingMode {
    /// The cheapest one that the kernel has and that fits the use: deferred for a loop that owns
    /// its thread, cooperative when embedded in an outer loop.
    #[default]
    Auto,
    /// They wait until the loop asks for them (Linux 6.1). Such a ring cannot wake an outer loop,
    /// which gets a cooperative one in its place.
    Deferred,
    /// They wait for the thread's next system call (Linux 5.19).
    Cooperative,
    /// They interrupt the thread.
    Plain,
    /// No ring: `auto` does without, and asking for io_uring is refused.
    Off,
}

impl RingMode {
    /// The name, as the npm package spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Deferred => "deferred",
            Self::Cooperative => "cooperative",
            Self::Plain => "plain",
            Self::Off => "off",
        }
    }
}

/// What kind of ring the io_uring monitor makes.
///
/// A ring keeps the credentials of the thread that made it: one that was made before a process
/// drops its privileges keeps them. Make contexts afterwards.
///
/// ```
/// use fdmon::{AioContext, RingMode, RingParams};
///
/// let restricted = RingParams { restricted: true, ..RingParams::default() };
/// let ctx = AioContext::builder().ring(restricted).build()?;
/// println!("{}: {}", ctx.monitor(), ctx.monitor_reason());
/// let none = RingParams { mode: RingMode::Off, ..RingParams::default() };
/// println!("{}", AioContext::builder().ring(none).build()?.monitor_reason());
/// # Ok::<(), fdmon::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RingParams {
    /// How completions reach the loop.
    pub mode: RingMode,
    /// Limits the ring to the operations that a context needs: whoever gets hold of its fd or its
    /// memory can poll, read, write and sync with it, and nothing else. Default false.
    pub restricted: bool,
}

/// What does the file I/O of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum IoEngine {
    /// A ring where there is one, else threads; which, the statistics say.
    #[default]
    Auto,
    /// io_uring(7), of the context's own, whatever its monitor is.
    IoUring,
    /// A bounded pool of threads.
    Threads,
}

impl IoEngine {
    /// The name, as the npm package spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
        }
    }
}

impl std::fmt::Display for IoEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for IoEngine {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Auto, Self::IoUring, Self::Threads]
            .into_iter()
            .find(|engine| engine.as_str() == name)
            .ok_or_else(|| {
                Error::invalid_arg(
                    "engine",
                    format_args!("'{name}'"),
                    "'auto', 'io_uring' or 'threads'",
                )
            })
    }
}

/// How file I/O is done and batched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AioParams {
    /// Requests submitted together at most; 0 = 32. At most 4096.
    pub max_batch: u32,
    /// Completions that a sleep collects once there is one, for [`AioParams::min_wait_ns`] at most:
    /// fewer wake-ups, and later ones. Only on a ring. Default 0: none but the first; at most 4096.
    pub min_batch: u32,
    /// How long, in nanoseconds, a sleep goes on for [`AioParams::min_batch`]; every other event
    /// waits as long. Default 0, at most a day.
    pub min_wait_ns: u64,
    /// Threads that the pool keeps when there is nothing to do. Default 0, at most 4096.
    pub pool_min: u32,
    /// Threads that the pool has at most: 1 to 4096. Default 64.
    pub pool_max: u32,
    /// What does it. Default [`IoEngine::Auto`].
    pub engine: IoEngine,
}

impl Default for AioParams {
    fn default() -> Self {
        Self {
            max_batch: 0,
            min_batch: 0,
            min_wait_ns: 0,
            pool_min: 0,
            pool_max: 64,
            engine: IoEngine::Auto,
        }
    }
}

/// The most that the counts of [`AioParams`] may be.
const MOST: u32 = 4096;

impl AioParams {
    pub(crate) fn validate(&self) -> Result<()> {
        let Self { max_batch, min_batch, min_wait_ns, pool_min, pool_max, engine: _ } = *self;
        if max_batch > MOST {
            return Err(Error::invalid_arg("max_batch", max_batch, "0 to 4096 (0 = 32)"));
        }
        if min_batch > MOST {
            return Err(Error::invalid_arg("min_batch", min_batch, "0 to 4096"));
        }
        if min_wait_ns > DAY_NS {
            return Err(Error::invalid_arg(
                "min_wait_ns",
                min_wait_ns,
                "0 to 86400000000000 (a day)",
            ));
        }
        if !(1..=MOST).contains(&pool_max) {
            return Err(Error::invalid_arg("pool_max", pool_max, "1 to 4096"));
        }
        if pool_min > pool_max {
            return Err(Error::invalid_arg(
                "pool_min",
                pool_min,
                format_args!("0 to pool_max, which is {pool_max}"),
            ));
        }
        Ok(())
    }

    /// Requests in one submission.
    pub(crate) fn batch(&self) -> u32 {
        if self.max_batch == 0 { 32 } else { self.max_batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC 13
    #[test]
    fn parameters_out_of_range_name_the_option_and_the_value() {
        let nan = f64::NAN;
        let busy = |usecs| Some(BusyPoll { usecs, budget: 0, prefer: false });
        let cases = [
            (PollParams { max_ns: u64::MAX, ..Default::default() }, "max_ns"),
            (PollParams { idle_ns: u64::MAX, ..Default::default() }, "idle_ns"),
            (PollParams { weight: 33, ..Default::default() }, "weight"),
            (PollParams { cpu_budget: 0.0, ..Default::default() }, "cpu_budget"),
            (PollParams { cpu_budget: nan, ..Default::default() }, "cpu_budget"),
            (PollParams { cpu_budget: -1.0, ..Default::default() }, "cpu_budget"),
            (PollParams { latency_weight: nan, ..Default::default() }, "latency_weight"),
            (
                PollParams { kernel_busy_poll: busy(0), ..Default::default() },
                "kernel_busy_poll.usecs = 0 ",
            ),
            (
                PollParams { kernel_busy_poll: busy(1 << 31), ..Default::default() },
                "kernel_busy_poll.usecs = 2147483648 ",
            ),
        ];
        for (params, option) in cases {
            let error = params.validate().unwrap_err();
            assert!(error.is_invalid_arg());
            assert!(error.to_string().starts_with(option), "{error}");
        }
    }

    /// SPEC 13, 48
    #[test]
    fn parameters_of_file_io_out_of_range_name_the_option_and_the_value() {
        let cases = [
            (AioParams { max_batch: 4097, ..Default::default() }, "max_batch = 4097 "),
            (AioParams { min_batch: 4097, ..Default::default() }, "min_batch = 4097 "),
            (AioParams { min_wait_ns: u64::MAX, ..Default::default() }, "min_wait_ns = "),
            (AioParams { pool_max: 0, ..Default::default() }, "pool_max = 0 "),
            (AioParams { pool_min: 65, ..Default::default() }, "pool_min = 65 "),
        ];
        for (params, option) in cases {
            let error = params.validate().unwrap_err();
            assert!(error.is_invalid_arg());
            assert!(error.to_string().starts_with(option), "{error}");
        }
        assert!("threads".parse::<IoEngine>().is_ok_and(|engine| engine == IoEngine::Threads));
        assert!("disk".parse::<IoEngine>().unwrap_err().to_string().starts_with("engine = 'disk'"));
    }
}
