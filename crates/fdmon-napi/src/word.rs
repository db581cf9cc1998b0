//! Conditions on words of shared memory.
#![allow(unsafe_code, reason = "the words are JavaScript's memory")]

use std::any::Any;

use fdmon::{Differs, ErrorCode, RawWord, WordSource};
use napi::Either;
use napi::bindgen_prelude::BigInt;
use napi_derive::napi;

use crate::error::{Failure, Result};
use crate::fd::mapping_of;
use crate::memory::Memory;

/// `NativeWord`
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct NativeWord {
    #[napi(ts_type = "Int32Array | Uint32Array | BigInt64Array | BigUint64Array")]
    pub memory: Memory,
    pub index: u32,
    pub not_equal: Option<Either<f64, BigInt>>,
    pub other_index: Option<u32>,
    pub suppress_index: Option<u32>,
}

/// The suppress word, by its address.
pub(crate) fn suppress_address(word: &NativeWord) -> Option<usize> {
    let element = word.memory.element(word.suppress_index?)?;
    Some(element.addr().get())
}

/// The condition on memory that TypeScript has checked to be shared.
pub(crate) fn word_source(word: &NativeWord) -> Result<WordSource> {
    let memory = &word.memory;
    let raw = |index: u32| {
        let element = memory.element(index).ok_or_else(|| {
            let message = format!("index = {index} is not valid; pass one below {}", memory.len());
            Failure::new(ErrorCode::InvalidArg, message)
        })?;
        Ok::<_, Failure>(if memory.is_wide() {
            RawWord::U64(element.cast())
        } else {
            RawWord::U32(element.cast())
        })
    };
    let differs = match (word.other_index, &word.not_equal) {
        (Some(index), _) => Differs::FromWord(raw(index)?),
        (None, Some(value)) => Differs::FromValue(bits(value, memory.is_wide())),
        (None, None) => {
            let message = "notEqual = undefined is not valid; pass a value or { index }";
            return Err(Failure::new(ErrorCode::InvalidArg, message));
        }
    };
    let suppress = word.suppress_index.map(raw).transpose()?;
    // A mapping is kept by itself; any other memory by the array.
    let owner: Box<dyn Any> = match mapping_of(memory.data().addr().get(), memory.bytes()) {
        Some(mapping) => Box::new(mapping),
        None => Box::new(memory.pin().map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("{error}; report it with what led to it"))
        })?),
    };
    // SAFETY: the words lie in the array, aligned as its elements are; `owner` keeps its memory,
    // which is shared memory that does not move and that others write by `Atomics`. The source goes
    // to a handler of JavaScript, which stays in its thread as its owner must.
    Ok(unsafe { WordSource::raw(raw(word.index)?, differs, suppress, owner) }?)
}

/// The bits of a value as the array holds them.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "TypeScript checked it")]
fn bits(value: &Either<f64, BigInt>, wide: bool) -> u64 {
    match value {
        Either::A(number) => u64::from(*number as i64 as u32),
        Either::B(big) => {
            let magnitude = big.words.first().copied().unwrap_or(0);
            let bits = if big.sign_bit { magnitude.wrapping_neg() } else { magnitude };
            if wide { bits } else { u64::from(bits as u32) }
        }
    }
}
