//! A context as other threads hold it.

use fdmon::{ErrorCode, Remote};
use napi::Env;
use napi_derive::napi;

use crate::error::{Failure, Result, guard};
use crate::options::{NativeAioParams, NativePollParams, whole};
use crate::stats::Stats;

/// `NativeRemote`
#[napi]
#[derive(Debug)]
pub struct NativeRemote {
    id: u64,
    /// None once released: it holds a descriptor of the context as long as it lives.
    remote: Option<Remote>,
}

impl NativeRemote {
    fn remote(&self) -> Result<&Remote> {
        self.remote.as_ref().ok_or_else(|| {
            let message = format!("context {} is closed; create a new AioContext", self.id);
            Failure::new(ErrorCode::Closed, message)
        })
    }
}

#[napi]
impl NativeRemote {
    /// The context with this id.
    #[napi(factory)]
    pub fn open(env: Env, id: f64) -> napi::Result<Self> {
        guard(&env, || {
            let id = whole(id);
            Ok(Self { id, remote: Some(Remote::from_id(id)?) })
        })
    }

    /// It is used no more.
    #[napi]
    pub fn release(&mut self) {
        self.remote = None;
    }

    #[napi]
    pub fn notify(&self, env: Env) -> napi::Result<()> {
        guard(&env, || Ok(self.remote()?.notify()?))
    }

    #[napi]
    pub fn stop(&self, env: Env) -> napi::Result<()> {
        guard(&env, || Ok(self.remote()?.stop()?))
    }

    #[napi]
    pub fn stats(&self, env: Env) -> napi::Result<Stats> {
        // Counters outlive their context; looked up anew, a closed one is an error here as well.
        guard(&env, || Ok(Stats::from(&Remote::from_id(self.id)?.stats())))
    }

    #[napi]
    pub fn set_poll_params(&self, env: Env, params: NativePollParams) -> napi::Result<()> {
        guard(&env, || {
            let remote = self.remote()?;
            Ok(remote.set_poll_params(params.apply(remote.poll_params())?)?)
        })
    }

    #[napi]
    pub fn set_aio_params(&self, env: Env, params: NativeAioParams) -> napi::Result<()> {
        guard(&env, || {
            let remote = self.remote()?;
            Ok(remote.set_aio_params(params.apply(remote.aio_params())?)?)
        })
    }

    /// Schedules the bottom half of this number.
    #[napi]
    pub fn schedule(&self, env: Env, bottom_half_id: f64) -> napi::Result<()> {
        guard(&env, || {
            let remote = self.remote()?;
            Ok(remote.schedule(&remote.bottom_half(whole(bottom_half_id))?)?)
        })
    }
}
