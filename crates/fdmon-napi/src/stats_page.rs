//! The stats page, as one owner in JavaScript holds it.

use fdmon::{StatsPage, publish_stats};
use napi::Env;
use napi_derive::napi;

use crate::error::guard;

/// `NativeStatsPage`
#[napi]
#[derive(Debug)]
pub struct NativeStatsPage {
    path: String,
    /// None once closed. The environment's end drops it, too.
    page: Option<StatsPage>,
}

#[napi]
impl NativeStatsPage {
    #[napi(factory)]
    pub fn open(env: Env) -> napi::Result<Self> {
        guard(&env, || {
            let page = publish_stats()?;
            let path = page.path().to_string_lossy().into_owned();
            Ok(Self { path, page: Some(page) })
        })
    }

    #[napi(getter)]
    pub fn path(&self) -> &str {
        &self.path
    }

    #[napi]
    pub fn close(&mut self) {
        self.page = None;
    }
}
