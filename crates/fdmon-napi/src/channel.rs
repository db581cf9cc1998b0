//! What a channel needs of native code: that the end of a worker is seen by the other port.
//!
//! Everything else of a channel is TypeScript on shared memory (`ts/channel`); the words are those
//! of docs/CHANNEL-LAYOUT.md.
#![allow(unsafe_code, reason = "the words are JavaScript's memory")]

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use fdmon::ErrorCode;
use napi::Env;
use napi_derive::napi;

use crate::error::{Failure, guard, with_marks};
use crate::fd::ring_bell;
use crate::memory::{Kept, Memory};

const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const DIED: u32 = 3;

/// The ports that this environment owns. Dropped when it ends, while Node-API still answers: then
/// each port that was not closed is said to have died.
#[derive(Default)]
pub(crate) struct Marks {
    marks: BTreeMap<u32, Mark>,
    next: u32,
}

struct Mark {
    /// Keeps the words alive and in place.
    _memory: Kept,
    state: NonNull<AtomicU32>,
    /// The other port's.
    rung: NonNull<AtomicU32>,
    bell: i32,
}

impl Marks {
    fn add(&mut self, mark: Mark) -> u32 {
        let id = self.next;
        self.next = id.wrapping_add(1);
        self.marks.insert(id, mark);
        id
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        for mark in self.marks.values() {
            // SAFETY: the word lies in the memory that the mark keeps; others use atomics too.
            let state = unsafe { mark.state.as_ref() };
            // SAFETY: as above.
            let rung = unsafe { mark.rung.as_ref() };
            let order = Ordering::SeqCst;
            // It fails where the port was being closed.
            let _ = state.compare_exchange(CLAIMED, DIED, order, order);
            // Also if it was 1: the thread may have been ended between that and the bell.
            rung.store(1, order);
            // Nobody is left to be told of a failure.
            let _ = ring_bell(mark.bell);
        }
    }
}

/// Claims a port: the word `state` from 0 to 1, which is in one step with what follows, as a worker
/// can be ended between any two steps of JavaScript. From here on the end of this environment stores
/// 3 into it, and rings `bell` with the word `rung`. The number is for [`channel_unmark`]; `None` =
/// the port has an owner.
#[napi]
pub fn channel_claim(
    env: Env,
    #[napi(ts_arg_type = "Int32Array")] words: Memory,
    state: u32,
    rung: u32,
    bell: i32,
) -> napi::Result<Option<u32>> {
    guard(&env, || {
        let word = |index: u32| {
            words.element(index).map(NonNull::cast::<AtomicU32>).ok_or_else(|| {
                let message = format!("index = {index} is not valid; pass one of a port");
                Failure::new(ErrorCode::InvalidArg, message)
            })
        };
        let (state, rung) = (word(state)?, word(rung)?);
        let memory = words
            .pin_narrow("words")
            .map_err(|error| Failure::new(ErrorCode::Internal, format!("{error}; report it")))?;
        with_marks(&env, |marks| {
            // SAFETY: the word lies in the memory that `memory` keeps; others use atomics too.
            let claimed = unsafe { state.as_ref() };
            let order = Ordering::SeqCst;
            claimed.compare_exchange(FREE, CLAIMED, order, order).ok()?;
            Some(marks.add(Mark { _memory: memory, state, rung, bell }))
        })
        .ok_or_else(|| {
            Failure::new(ErrorCode::Internal, "the addon was not initialised; report it")
        })
    })
}

/// The port was closed, and the other one told: nothing is to be said at the end.
#[napi]
pub fn channel_unmark(env: Env, id: u32) {
    with_marks(&env, |marks| drop(marks.marks.remove(&id)));
}
