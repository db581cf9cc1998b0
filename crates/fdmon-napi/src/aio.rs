//! File I/O as TypeScript's `FileIo` uses it; one request at a time goes through `hot::transfer`.
#![allow(unsafe_code, reason = "requests work on JavaScript's memory")]

use fdmon::{ErrorCode, ForeignMemory, IoOp};
use napi::Env;
use napi::bindgen_prelude::BigInt;
use napi_derive::napi;

use crate::context::{NativeContext, slot_or_full};
use crate::error::{Failure, guard};
use crate::fd::Bytes;
use crate::memory::Memory;

/// The operation of this number.
pub(crate) fn op(number: u32) -> IoOp {
    match number {
        0 => IoOp::Read,
        1 => IoOp::Write,
        2 => IoOp::Fsync,
        _ => IoOp::Fdatasync,
    }
}

pub(crate) fn is_sync(op: IoOp) -> bool {
    matches!(op, IoOp::Fsync | IoOp::Fdatasync)
}

#[napi]
impl NativeContext {
    /// Where results of file I/O go: two words a slot.
    #[napi]
    pub fn set_results(
        &self,
        env: Env,
        #[napi(ts_arg_type = "Int32Array")] results: Memory,
    ) -> napi::Result<()> {
        let owner = Box::new(results.pin_narrow("results")?);
        self.core.guard(&env, || {
            if let Some(ctx) = self.core.maybe() {
                // SAFETY: as in `set_words`.
                unsafe { ctx.adopt_results(results.data().cast(), results.len(), owner) };
            }
            Ok(())
        })
    }

    /// The slot of new requests, or -1.
    #[napi]
    pub fn io_slot(&self, env: Env) -> napi::Result<i32> {
        self.core.guard(&env, || Ok(slot_or_full(self.core.open()?.foreign_io()?)))
    }

    /// One request over several pieces of memory, or at a position beyond what a number can name.
    #[napi]
    pub fn transfer(
        &self,
        env: Env,
        slot: u32,
        number: u32,
        fd: i32,
        #[napi(ts_arg_type = "Uint8Array[]")] pieces: Vec<Bytes>,
        position: BigInt,
    ) -> napi::Result<()> {
        let pieces: Vec<_> = pieces.iter().map(Bytes::parts).collect();
        let memory = match *pieces {
            [(base, len)] => ForeignMemory::One(base, len),
            _ => ForeignMemory::Many(&pieces),
        };
        self.core.guard(&env, || {
            let position = position.get_u64().1;
            // SAFETY: as in `hot::transfer`.
            unsafe { self.core.open()?.foreign_transfer(slot, op(number), fd, memory, position) }?;
            self.core.touched();
            Ok(())
        })
    }

    /// Asks for the end of the request in this slot.
    #[napi]
    pub fn io_cancel(&self, env: Env, slot: u32) -> napi::Result<()> {
        self.core.with(&env, |ctx| {
            ctx.foreign_io_cancel(slot);
            self.core.touched();
        })
    }

    /// Submits what waits for more.
    #[napi]
    pub fn io_submit(&self, env: Env) -> napi::Result<()> {
        self.core.with(&env, |ctx| {
            ctx.foreign_submit();
            self.core.touched();
        })
    }
}

/// How many bytes lie between the memory's begin and the next multiple of `alignment`.
#[napi]
pub fn misalignment(
    env: Env,
    #[napi(ts_arg_type = "Uint8Array")] memory: Bytes,
    alignment: u32,
) -> napi::Result<u32> {
    guard(&env, || {
        let offset = memory.parts().0.as_ptr().align_offset(alignment as usize);
        u32::try_from(offset).map_err(|_| {
            Failure::new(ErrorCode::InvalidArg, "alignment is no power of two; pass 4096")
        })
    })
}
