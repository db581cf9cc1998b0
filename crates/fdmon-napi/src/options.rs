//! Options and parameters, as TypeScript hands them over: checked, and only those that are set.

use fdmon::{
    AioParams, BusyPoll, ErrorCode, MonitorKind, PolicyKind, PollParams, RingMode, RingParams,
};
use napi_derive::napi;

use crate::error::{Failure, Result};

/// `NativePollParams`
#[napi(object, object_to_js = false)]
#[derive(Debug, Default)]
pub struct NativePollParams {
    pub max_ns: Option<f64>,
    pub grow: Option<u32>,
    pub shrink: Option<u32>,
    pub policy: Option<String>,
    pub latency_weight: Option<f64>,
    pub weight: Option<u32>,
    pub cpu_budget: Option<f64>,
    pub idle_ns: Option<f64>,
    pub guards: Option<bool>,
    pub kernel_busy_poll: Option<NativeBusyPoll>,
}

/// `usecs` 0 = off.
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct NativeBusyPoll {
    pub usecs: u32,
    pub budget: u16,
    pub prefer: bool,
}

impl NativeBusyPoll {
    fn wanted(&self) -> Option<BusyPoll> {
        (self.usecs != 0).then_some(BusyPoll {
            usecs: self.usecs,
            budget: self.budget,
            prefer: self.prefer,
        })
    }
}

/// `NativeAioParams`
#[napi(object, object_to_js = false)]
#[derive(Debug, Default)]
pub struct NativeAioParams {
    pub max_batch: Option<u32>,
    pub min_batch: Option<u32>,
    pub min_wait_ns: Option<f64>,
    pub thread_pool_min: Option<u32>,
    pub thread_pool_max: Option<u32>,
    pub engine: Option<String>,
}

/// `NativeRingParams`
#[napi(object, object_to_js = false)]
#[derive(Debug, Default)]
pub struct NativeRingParams {
    pub mode: Option<String>,
    pub restricted: Option<bool>,
}

/// `NativeOptions`
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct NativeOptions {
    pub monitor: String,
    /// `FDMON_MONITOR` named it; a worker has an environment of its own.
    pub by_environment: bool,
    /// The id of a reservation, whose name and parameters count then.
    pub reserved: Option<f64>,
    /// The file that `FDMON_TRACE` names.
    pub trace: Option<String>,
    pub name: String,
    pub poll: NativePollParams,
    pub aio: NativeAioParams,
    pub ring: NativeRingParams,
}

/// Checked in TypeScript to be a whole number that is not negative.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked, and `as` clamps"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number as u64
}

impl NativePollParams {
    /// The parameters with those that are set changed.
    pub(crate) fn apply(&self, mut to: PollParams) -> Result<PollParams> {
        if let Some(value) = self.max_ns {
            to.max_ns = whole(value);
        }
        if let Some(value) = self.grow {
            to.grow = value;
        }
        if let Some(value) = self.shrink {
            to.shrink = value;
        }
        if let Some(value) = &self.policy {
            to.policy = policy(value)?;
        }
        if let Some(value) = self.latency_weight {
            to.latency_weight = value;
        }
        if let Some(value) = self.weight {
            to.weight = value;
        }
        if let Some(value) = self.cpu_budget {
            to.cpu_budget = value;
        }
        if let Some(value) = self.idle_ns {
            to.idle_ns = whole(value);
        }
        if let Some(value) = self.guards {
            to.guards = value;
        }
        if let Some(busy) = &self.kernel_busy_poll {
            to.kernel_busy_poll = busy.wanted();
        }
        Ok(to)
    }
}

fn policy(name: &str) -> Result<PolicyKind> {
    [PolicyKind::Classic, PolicyKind::PerHandler, PolicyKind::Cost, PolicyKind::Fixed]
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .ok_or_else(|| {
            let message = format!("policy = '{name}' is not known; pass 'cost'");
            Failure::new(ErrorCode::InvalidArg, message)
        })
}

impl NativeAioParams {
    /// The parameters with those that are set changed.
    pub(crate) fn apply(&self, mut to: AioParams) -> Result<AioParams> {
        if let Some(value) = self.max_batch {
            to.max_batch = value;
        }
        if let Some(value) = self.min_batch {
            to.min_batch = value;
        }
        if let Some(value) = self.min_wait_ns {
            to.min_wait_ns = whole(value);
        }
        if let Some(value) = self.thread_pool_min {
            to.pool_min = value;
        }
        if let Some(value) = self.thread_pool_max {
            to.pool_max = value;
        }
        if to.pool_min > to.pool_max {
            let message = format!(
                "threadPoolMin = {} is out of range; pass 0 to threadPoolMax, which is {}",
                to.pool_min, to.pool_max
            );
            return Err(Failure::new(ErrorCode::InvalidArg, message));
        }
        if let Some(value) = &self.engine {
            to.engine = value.parse()?;
        }
        Ok(to)
    }
}

impl NativeRingParams {
    /// The parameters with those that are set changed.
    pub(crate) fn apply(&self, mut to: RingParams) -> Result<RingParams> {
        if let Some(value) = &self.mode {
            to.mode = ring_mode(value)?;
        }
        if let Some(value) = self.restricted {
            to.restricted = value;
        }
        Ok(to)
    }
}

fn ring_mode(name: &str) -> Result<RingMode> {
    [RingMode::Auto, RingMode::Deferred, RingMode::Cooperative, RingMode::Plain, RingMode::Off]
        .into_iter()
        .find(|mode| mode.as_str() == name)
        .ok_or_else(|| {
            let message = format!("ring.mode = '{name}' is not known; pass 'auto'");
            Failure::new(ErrorCode::InvalidArg, message)
        })
}

/// The monitor of this name.
pub(crate) fn monitor(name: &str) -> Result<MonitorKind> {
    Ok(name.parse()?)
}
