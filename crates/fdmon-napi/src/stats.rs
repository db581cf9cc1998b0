//! Statistics and the leak report, as JavaScript objects.

use fdmon::ContextStats;
use napi::Either;
use napi::bindgen_prelude::Null;
use napi_derive::napi;

/// `LeakReport`
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Leaks {
    pub handlers: u32,
    pub bottom_halves: u32,
    pub timers: u32,
    pub io: u32,
}

/// `ContextStats`
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Stats {
    pub monitor: &'static str,
    pub monitor_reason: String,
    pub guard: Either<&'static str, Null>,
    pub turns: f64,
    pub waits: f64,
    pub sleeps: f64,
    pub spin_hits: f64,
    pub spin_misses: f64,
    pub spin_ns: f64,
    pub spin_wasted_ns: f64,
    pub window_ns: f64,
    pub wake_up_ns: f64,
    pub events: f64,
    pub dispatch_ns: f64,
    pub cpu_ns: f64,
    pub notifies_sent: f64,
    pub notifies_elided: f64,
    pub submissions: f64,
    pub completions: f64,
    pub batch_max: f64,
    pub fallbacks: f64,
    pub aio: AioStats,
    pub handlers: Vec<HandlerStats>,
}

/// `ContextStats.aio`
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct AioStats {
    pub engine: Either<&'static str, Null>,
    pub reason: String,
    pub in_flight: f64,
    pub batch_max: f64,
}

/// One row of `ContextStats.handlers`
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct HandlerStats {
    pub fd: i32,
    pub reads: f64,
    pub writes: f64,
    pub poll_hits: f64,
    pub polling: bool,
    pub estimate_ns: f64,
}

#[allow(clippy::cast_precision_loss, reason = "counts below 2^53 are exact")]
impl From<&ContextStats> for Stats {
    fn from(stats: &ContextStats) -> Self {
        Self {
            monitor: stats.monitor.as_str(),
            monitor_reason: stats.monitor_reason.clone(),
            guard: stats.guard.map_or(Either::B(Null), |guard| Either::A(guard.as_str())),
            turns: stats.turns as f64,
            waits: stats.waits as f64,
            sleeps: stats.sleeps as f64,
            spin_hits: stats.spin_hits as f64,
            spin_misses: stats.spin_misses as f64,
            spin_ns: stats.spin_ns as f64,
            spin_wasted_ns: stats.spin_wasted_ns as f64,
            window_ns: stats.window_ns as f64,
            wake_up_ns: stats.wake_up_ns as f64,
            events: stats.events as f64,
            dispatch_ns: stats.dispatch_ns as f64,
            cpu_ns: stats.cpu_ns as f64,
            notifies_sent: stats.notifies_sent as f64,
            notifies_elided: stats.notifies_elided as f64,
            submissions: stats.submissions as f64,
            completions: stats.completions as f64,
            batch_max: stats.batch_max as f64,
            fallbacks: stats.fallbacks as f64,
            aio: AioStats {
                engine: stats
                    .aio_engine
                    .map_or(Either::B(Null), |engine| Either::A(engine.as_str())),
                reason: stats.aio_reason.clone(),
                in_flight: stats.io_in_flight as f64,
                batch_max: stats.io_batch_max as f64,
            },
            handlers: stats
                .handlers
                .iter()
                .map(|row| HandlerStats {
                    fd: row.fd,
                    reads: row.reads as f64,
                    writes: row.writes as f64,
                    poll_hits: row.poll_hits as f64,
                    polling: row.polling,
                    estimate_ns: row.estimate_ns as f64,
                })
                .collect(),
        }
    }
}
