//! What this kernel and container allow: each thing is tried, nothing is assumed from a version.

use fdmon::{AioContext, BusyPoll, Cpus, MonitorKind, PollParams};
use napi_derive::napi;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, inotify, memfd_create};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

/// Whether a monitor can be had.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Availability {
    pub available: bool,
    pub reason: String,
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
#[must_use]
pub fn capabilities() -> NativeCapabilities {
    let cpus = Cpus::now();
    NativeCapabilities {
        native: true,
        monitors: Monitors {
            io_uring: availability(MonitorKind::IoUring),
            epoll: availability(MonitorKind::Epoll),
            poll: availability(MonitorKind::Poll),
            wasi: Availability {
                available: false,
                reason: "for WebAssembly builds, and this is a native one".into(),
            },
        },
        features: features(),
        cpus: cpus.affinity,
        cpu_quota: match cpus.quota {
            Some(quota) => napi::Either::A(quota),
            None => napi::Either::B(napi::bindgen_prelude::Null),
        },
    }
}

/// Builds a context on it and drops it again.
fn availability(kind: MonitorKind) -> Availability {
    match AioContext::builder().monitor(kind).build() {
        Ok(_) => Availability { available: true, reason: "works here".into() },
        Err(error) => {
            // "monitor = … is refused: <reason>; <what to do>"
            let text = error.to_string();
            let reason = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
            let reason = reason.split_once("; ").map_or(reason, |(reason, _)| reason);
            Availability { available: false, reason: reason.into() }
        }
    }
}

fn features() -> Features {
    Features {
        eventfd: eventfd(0, EventfdFlags::CLOEXEC).is_ok(),
        timerfd: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).is_ok(),
        inotify: inotify::init(inotify::CreateFlags::CLOEXEC).is_ok(),
        pidfd: pidfd_open(getpid(), PidfdFlags::empty()).is_ok(),
        memfd: memfd_create("fdmon", MemfdFlags::CLOEXEC).is_ok(),
        epoll_busy_poll: epoll_busy_poll(),
    }
}

/// Sets the parameters of a fresh epoll set.
fn epoll_busy_poll() -> bool {
    let busy_poll = BusyPoll { usecs: 1, budget: 0, prefer: false };
    let params = PollParams { kernel_busy_poll: Some(busy_poll), ..PollParams::default() };
    AioContext::builder().monitor(MonitorKind::Epoll).poll(params).build().is_ok()
}
