//! What this kernel and container allow: each thing is tried, nothing is assumed from a version.

use fdmon::{
    AioContext, BusyPoll, Cpus, MonitorKind, PollParams, RingFeatures, explain_refusal,
    probe_io_uring,
};
use napi::Env;
use napi_derive::napi;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, inotify, memfd_create};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use crate::error::guard;

/// Whether a monitor can be had.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Availability {
    pub available: bool,
    pub reason: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// All monitors by name.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Monitors {
    #[napi(js_name = "io_uring")]
    pub io_uring: Availability,
    pub epoll: Availability,
    pub poll: Availability,
    pub wasi: Availability,
}

/// What the kernel lets this process make.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Features {
    pub eventfd: bool,
    pub timerfd: bool,
    pub inotify: bool,
    pub pidfd: bool,
    pub memfd: bool,
    pub epoll_busy_poll: bool,
    pub io_uring_defer_taskrun: bool,
    pub io_uring_cooperative: bool,
    pub io_uring_ext_arg: bool,
    pub io_uring_no_iowait: bool,
    pub io_uring_no_sqarray: bool,
    pub io_uring_registered_ring: bool,
    pub io_uring_restrictions: bool,
    pub io_uring_napi: bool,
    pub io_uring_multishot_poll: bool,
    pub io_uring_min_timeout: bool,
    pub io_uring_skip_success: bool,
}

/// `Capabilities`
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct NativeCapabilities {
    pub native: bool,
    pub monitors: Monitors,
    pub features: Features,
    pub cpus: u32,
    pub cpu_quota: napi::Either<f64, napi::bindgen_prelude::Null>,
}

/// Tries everything.
#[napi]
pub fn capabilities(env: Env) -> napi::Result<NativeCapabilities> {
    guard(&env, || Ok(try_everything()))
}

fn try_everything() -> NativeCapabilities {
    let cpus = Cpus::now();
    let ring = probe_io_uring();
    let (epoll, poll) = (built(MonitorKind::Epoll), built(MonitorKind::Poll));
    NativeCapabilities {
        native: true,
        monitors: Monitors {
            io_uring: availability(ring.as_ref().err()),
            epoll: availability(epoll.as_ref().err()),
            poll: availability(poll.as_ref().err()),
            wasi: Availability {
                available: false,
                reason: "for WebAssembly builds, and this is a native one".into(),
                advice: None,
            },
        },
        features: features(ring.unwrap_or_default()),
        cpus: cpus.affinity,
        cpu_quota: match cpus.quota {
            Some(quota) => napi::Either::A(quota),
            None => napi::Either::B(napi::bindgen_prelude::Null),
        },
    }
}

/// Builds a context on it and drops it again.
fn built(kind: MonitorKind) -> fdmon::Result<()> {
    AioContext::builder().monitor(kind).build().map(drop)
}

fn availability(refusal: Option<&fdmon::Error>) -> Availability {
    let Some(error) = refusal else {
        return Availability { available: true, reason: "works here".into(), advice: None };
    };
    let (reason, advice) = explain_refusal(error).map_or_else(
        || as_it_says(&error.to_string()),
        |(reason, advice)| (reason, Some(advice.into())),
    );
    Availability { available: false, reason, advice }
}

/// "monitor = … is refused: <reason>; <what to do>"
fn as_it_says(text: &str) -> (String, Option<String>) {
    let text = text.split_once(": ").map_or(text, |(_, rest)| rest);
    match text.split_once("; ") {
        Some((reason, advice)) => (reason.into(), Some(advice.into())),
        None => (text.into(), None),
    }
}

fn features(ring: RingFeatures) -> Features {
    Features {
        eventfd: eventfd(0, EventfdFlags::CLOEXEC).is_ok(),
        timerfd: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).is_ok(),
        inotify: inotify::init(inotify::CreateFlags::CLOEXEC).is_ok(),
        pidfd: pidfd_open(getpid(), PidfdFlags::empty()).is_ok(),
        memfd: memfd_create("fdmon", MemfdFlags::CLOEXEC).is_ok(),
        epoll_busy_poll: epoll_busy_poll(),
        io_uring_defer_taskrun: ring.defer_taskrun,
        io_uring_cooperative: ring.cooperative,
        io_uring_ext_arg: ring.ext_arg,
        io_uring_no_iowait: ring.no_iowait,
        io_uring_no_sqarray: ring.no_sqarray,
        io_uring_registered_ring: ring.registered_ring,
        io_uring_restrictions: ring.restrictions,
        io_uring_napi: ring.napi,
        io_uring_multishot_poll: ring.multishot_poll,
        io_uring_min_timeout: ring.min_timeout,
        io_uring_skip_success: ring.skip_success,
    }
}

/// Sets the parameters of a fresh epoll set.
fn epoll_busy_poll() -> bool {
    let busy_poll = BusyPoll { usecs: 1, budget: 0, prefer: false };
    let params = PollParams { kernel_busy_poll: Some(busy_poll), ..PollParams::default() };
    AioContext::builder().monitor(MonitorKind::Epoll).poll(params).build().is_ok()
}
