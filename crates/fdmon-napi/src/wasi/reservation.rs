//! Contexts of threads that are still starting: a worker has a WebAssembly memory of its own, so
//! nothing can be kept for it here.

use fdmon::{ErrorCode, Reserved};

use crate::error::{Failure, Result};

/// None has been made.
pub(crate) fn take(id: u64) -> Result<Reserved> {
    let message =
        format!("reserved = {id} is of another WebAssembly memory; make the context here");
    Err(Failure::new(ErrorCode::Unsupported, message))
}
