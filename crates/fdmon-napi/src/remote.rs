//! A context as other threads hold it.

use fdmon::Remote;
use napi::Env;
use napi_derive::napi;

use crate::error::guard;
use crate::options::{NativeAioParams, NativePollParams, whole};
use crate::stats::Stats;

/// `NativeRemote`
#[napi]
#[derive(Debug)]
pub struct NativeRemote {
    remote: Remote,
}

#[napi]
impl NativeRemote {
    /// The context with this id.
    #[napi(factory)]
    pub fn open(env: Env, id: f64) -> napi::Result<Self> {
        guard(&env, || Ok(Self { remote: Remote::from_id(whole(id))? }))
    }

    #[napi]
    pub fn notify(&self, env: Env) -> napi::Result<()> {
        guard(&env, || Ok(self.remote.notify()?))
    }

    #[napi]
    pub fn stop(&self, env: Env) -> napi::Result<()> {
        guard(&env, || Ok(self.remote.stop()?))
    }

    #[napi]
    pub fn stats(&self, env: Env) -> napi::Result<Stats> {
        // Counters outlive their context; looked up anew, a closed one is an error here as well.
        guard(&env, || Ok(Stats::from(&Remote::from_id(self.remote.id())?.stats())))
    }

    #[napi]
    pub fn set_poll_params(&self, env: Env, params: NativePollParams) -> napi::Result<()> {
        guard(&env, || {
            let params = params.apply(self.remote.poll_params())?;
            Ok(self.remote.set_poll_params(params)?)
        })
    }

    #[napi]
    pub fn set_aio_params(&self, env: Env, params: NativeAioParams) -> napi::Result<()> {
        guard(&env, || {
            let params = params.apply(self.remote.aio_params())?;
            Ok(self.remote.set_aio_params(params)?)
        })
    }

    /// Schedules the bottom half of this number.
    #[napi]
    pub fn schedule(&self, env: Env, bottom_half_id: f64) -> napi::Result<()> {
        guard(&env, || {
            let half = self.remote.bottom_half(whole(bottom_half_id))?;
            Ok(self.remote.schedule(&half)?)
        })
    }
}
