//! Conditions on words of shared memory: TypeScript asks them, since a WebAssembly build cannot see
//! memory other than its own.

use fdmon::{ErrorCode, WordSource};
use napi_derive::napi;

use crate::error::{Failure, Result};

/// `NativeWord`; TypeScript passes none.
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct NativeWord {
    pub index: u32,
}

pub(crate) fn suppress_address(_: &NativeWord) -> Option<usize> {
    None
}

pub(crate) fn word_source(word: &NativeWord) -> Result<WordSource> {
    let message = format!("index = {} is not valid here; report this", word.index);
    Err(Failure::new(ErrorCode::Internal, message))
}
