//! Contexts of threads that are still starting: made in one environment, built in another.

use std::collections::HashMap;
use std::ops::DerefMut;
use std::sync::{LazyLock, Mutex, PoisonError};

use fdmon::{ErrorCode, Reserved};
use napi::Env;
use napi_derive::napi;

use crate::error::{Failure, Result, guard};
use crate::options::{NativeAioParams, NativePollParams};

/// By id. What is here is the process's: the thread that takes it is not the one that made it.
static RESERVED: LazyLock<Mutex<HashMap<u64, Reserved>>> = LazyLock::new(Mutex::default);

fn reserved() -> impl DerefMut<Target = HashMap<u64, Reserved>> {
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one with this id, for the thread that builds it.
pub(crate) fn take(id: u64) -> Result<Reserved> {
    reserved().remove(&id).ok_or_else(|| {
        let message = format!("reserved = {id} is taken already; start a new IoThread");
        Failure::new(ErrorCode::Closed, message)
    })
}

/// `NativeReservation`
#[napi]
#[derive(Debug)]
pub struct NativeReservation {
    id: u64,
}

#[napi]
impl NativeReservation {
    #[napi(constructor)]
    pub fn new(
        env: Env,
        name: String,
        poll: NativePollParams,
        aio: NativeAioParams,
    ) -> napi::Result<Self> {
        guard(&env, || {
            let poll = poll.apply(fdmon::PollParams::default())?;
            let aio = aio.apply(fdmon::AioParams::default())?;
            let made = Reserved::new(name, poll, aio)?;
            let id = made.remote().id();
            reserved().insert(id, made);
            Ok(Self { id })
        })
    }

    #[napi(getter)]
    #[allow(clippy::cast_precision_loss, reason = "ids are counted from 1")]
    pub fn id(&self) -> f64 {
        self.id as f64
    }

    /// Closes it, if nobody has built it. The environment's end does the same.
    #[napi]
    pub fn release(&self) {
        let unbuilt = reserved().remove(&self.id);
        drop(unbuilt); // outside the lock
    }
}

impl Drop for NativeReservation {
    fn drop(&mut self) {
        self.release();
    }
}
