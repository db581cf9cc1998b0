//! For bindings: requests whose callbacks live in another language.
//!
//! The other side owns slots ([`AioContext::foreign_io`]), uses each again once its request has
//! ended, and reads what a request came to from an array that it shares with the core
//! ([`AioContext::adopt_results`]). The end itself comes in the batch of a turn, as everything does.
#![allow(unsafe_code)] // memory shared with the embedder's language

use std::any::Any;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::fd::RawFd;

use super::api::check_offset;
use super::request::{IoOp, Request, Segment, Segments, Stage};
use crate::context::AioContext;
use crate::error::{Error, Result};
use crate::registry::Entry;

/// Two 32-bit words a slot, the low one first: bytes, or an errno if negative.
#[derive(Default)]
pub(crate) struct Results(Option<Array>);

struct Array {
    base: NonNull<AtomicU32>,
    /// Slots that it has room for.
    len: usize,
    _owner: Box<dyn Any>,
}

impl Results {
    fn reaches(&self, slot: u32) -> bool {
        self.0.as_ref().is_some_and(|array| (slot as usize) < array.len)
    }

    #[allow(clippy::cast_possible_truncation, reason = "halves")]
    pub fn set(&self, slot: u32, result: i64) {
        let Some(array) = self.0.as_ref().filter(|array| (slot as usize) < array.len) else {
            return;
        };
        for (half, value) in [result as u32, (result >> 32) as u32].into_iter().enumerate() {
            // SAFETY: below the number of words that `_owner` keeps at `base`.
            let word = unsafe { array.base.add(2 * slot as usize + half) };
            // SAFETY: as above.
            unsafe { word.as_ref() }.store(value, Relaxed);
        }
    }
}

impl AioContext {
    /// Uses the embedder's memory for the results of requests. To be called before the first
    /// request, and again with more memory when [`AioContext::foreign_io`] returns `None`.
    ///
    /// # Safety
    /// `base` points at `len` aligned 32-bit words that live and stay in place until `owner` is
    /// dropped, and that only this thread writes.
    pub unsafe fn adopt_results(&self, base: NonNull<u32>, len: usize, owner: Box<dyn Any>) {
        let array = Array { base: base.cast(), len: len / 2, _owner: owner };
        self.0.state().io.results = Results(Some(array));
    }

    /// A slot for requests, one at a time; `None` = more words or results are needed first.
    ///
    /// # Errors
    /// `Closed`, `InvalidArg` when all slots are in use.
    pub fn foreign_io(&self) -> Result<Option<u32>> {
        let mut st = self.0.open_state()?;
        let Some(slot) = st.reg.reserve()? else { return Ok(None) };
        if !st.io.results.reaches(slot) {
            return Ok(None);
        }
        st.reg.fill(slot, Entry::Io(Box::new(Request::free())));
        Ok(Some(slot))
    }

    /// Asks for one operation. `memory` are the pieces, one after the other; none for a sync. `true` =
    /// it is the first that waits since requests were submitted: who is about to sleep must not.
    ///
    /// # Safety
    /// Until the request has ended (its slot came in a batch, or the context is closed), each piece
    /// stays in place, nobody writes it, nor reads it where `op` is [`IoOp::Read`], and `fd` is open.
    /// If its result is `-EINPROGRESS` then, the kernel has not said that it is done: for ever.
    ///
    /// # Errors
    /// `Closed`; `InvalidArg` for a slot that is not a free one of [`AioContext::foreign_io`], or an
    /// offset that no file has; `Unsupported` when the engine asked for cannot be had.
    pub unsafe fn foreign_transfer(
        &self,
        slot: u32,
        op: IoOp,
        fd: RawFd,
        memory: ForeignMemory<'_>,
        offset: u64,
    ) -> Result<bool> {
        check_offset(offset)?;
        let shared = &self.0.shared;
        let mut st = self.0.open_state()?;
        st.have_engine(shared)?;
        let is_free = |request: &mut Request| {
            request.complete.is_none() && matches!(request.stage, Stage::Free | Stage::Ended)
        };
        if !st.reg.io(slot).is_some_and(is_free) {
            return Err(Error::invalid_arg("slot", slot, "a slot of requests that is free"));
        }
        let segment = |&(base, len): &(NonNull<u8>, usize)| Segment::new(base.as_ptr(), len);
        let segments = match memory {
            ForeignMemory::None => Segments::One(Segment::NONE),
            ForeignMemory::One(base, len) => Segments::One(segment(&(base, len))),
            ForeignMemory::Many(pieces) => {
                Segments::Many { all: pieces.iter().map(segment).collect(), at: 0 }
            }
        };
        st.ask_io(shared, slot, op, fd, offset, segments, None);
        Ok(st.io.queue.len() <= 1)
    }

    /// Asks for the end of the request in this slot.
    pub fn foreign_io_cancel(&self, slot: u32) {
        if self.0.home.is_here() {
            self.0.state().cancel_io(&self.0.shared, slot);
        }
    }

    /// Submits what waits for more.
    pub fn foreign_submit(&self) {
        self.plug(|| {});
    }

    /// Requests are under way that the other side waits for.
    #[must_use]
    pub fn has_io(&self) -> bool {
        self.0.state().reg.hints.any(crate::registry::Hints::IO)
    }
}

/// Memory of a request of another language.
#[derive(Clone, Copy, Debug)]
pub enum ForeignMemory<'a> {
    /// A sync has none.
    None,
    /// One piece.
    One(NonNull<u8>, usize),
    /// Several, one after the other.
    Many(&'a [(NonNull<u8>, usize)]),
}
