//! ⑤ What is due, as slots in one typed array a level of nesting.
//!
//! A frame has 1 + n entries: `[0]` is the position of the slot whose callback runs at this level
//! now (-1 = none), the rest are the slots of the batch. So a nested turn sees which handlers are
//! busy, and which slots of the turns around it have not been walked yet.
#![allow(unsafe_code, reason = "frames are memory that JavaScript reads and writes between calls")]

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use fdmon::{ErrorCode, ForeignBatch};

use crate::error::{Failure, Result};
use crate::memory::{Kept, Memory};

// What the calls that fill a batch answer; the low bits are the number of slots.
const MORE: u32 = 1 << 20;
const ERRORS: u32 = 1 << 21;
const STOP: u32 = 1 << 22;
const PROGRESS: u32 = 1 << 23;
const CLEANUP: u32 = 1 << 24;
/// Instead of a batch: the context had to leave Node's loop.
#[cfg(not(target_os = "wasi"))]
pub(crate) const LEFT: u32 = 1 << 25;

struct Frame {
    /// All of it, the position first.
    cells: NonNull<[i32]>,
    /// Slots in it now.
    count: Cell<usize>,
    _memory: Kept,
}

impl Frame {
    fn cells(&self) -> &[Cell<i32>] {
        let cells = self.cells.as_ptr() as *const [Cell<i32>];
        // SAFETY: `_memory` keeps them in place, and only this thread uses them.
        unsafe { &*cells }
    }

    /// Where JavaScript is in the batch.
    fn position(&self) -> Option<usize> {
        let position = usize::try_from(self.cells().first()?.get()).ok()?;
        (position > 0).then_some(position)
    }

    /// The slot whose callback runs now; an impossible one when there is none.
    fn running(&self) -> u32 {
        let cell = self.position().and_then(|position| self.cells().get(position));
        cell.and_then(|slot| u32::try_from(slot.get()).ok()).unwrap_or(u32::MAX)
    }

    /// The slots behind it.
    fn rest(&self) -> impl Iterator<Item = u32> {
        let position = self.position().unwrap_or(usize::MAX - 1);
        let behind = self.cells().get(position + 1..=self.count.get()).unwrap_or_default();
        behind.iter().filter_map(|slot| u32::try_from(slot.get()).ok())
    }
}

/// The frames of a context, by depth.
#[derive(Default)]
pub(crate) struct Frames(RefCell<Vec<Frame>>);

impl Frames {
    /// The frame of the next depth.
    pub(crate) fn add(&self, memory: &Memory) -> napi::Result<()> {
        if memory.len() < 2 || memory.is_wide() {
            return Err(napi::Error::from_reason("a frame is too short; pass an Int32Array"));
        }
        let frame = Frame {
            cells: NonNull::slice_from_raw_parts(memory.data().cast(), memory.len()),
            count: Cell::new(0),
            _memory: memory.pin()?,
        };
        self.0.borrow_mut().push(frame);
        Ok(())
    }

    /// The slots that run in the turns around `depth`, and those that wait there.
    pub(crate) fn around(&self, depth: u32) -> (Vec<u32>, Vec<u32>) {
        let frames = self.0.borrow();
        let outer = &frames[..frames.len().min(depth as usize)];
        let running = outer.iter().map(Frame::running).collect();
        let waiting = outer.iter().flat_map(Frame::rest).collect();
        (running, waiting)
    }

    /// The slots of the frame at `depth`, to be filled.
    ///
    /// JavaScript does not touch them until the call that fills them returns, since no turn of a
    /// context can be entered from its hooks.
    pub(crate) fn batch<'turn>(&self, depth: u32) -> Result<&'turn mut [i32]> {
        let frames = self.0.borrow();
        let Some(frame) = frames.get(depth as usize) else {
            let message = format!("no frame for depth {depth}; report this with what led to it");
            return Err(Failure::new(ErrorCode::Internal, message));
        };
        let mut cells = frame.cells;
        // SAFETY: the memory outlives the call, for frames are dropped with their context, which
        // the call borrows; nobody else looks at it meanwhile.
        let cells = unsafe { cells.as_mut() };
        Ok(&mut cells[1..])
    }

    /// What JavaScript is told about a filled batch.
    pub(crate) fn answer(&self, depth: u32, found: ForeignBatch, stop: bool) -> u32 {
        if let Some(frame) = self.0.borrow().get(depth as usize) {
            frame.count.set(found.count);
        }
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        #[allow(clippy::cast_possible_truncation, reason = "a frame has fewer than 2^20 slots")]
        let count = found.count as u32;
        count
            | flag(found.more, MORE)
            | flag(found.failed, ERRORS)
            | flag(stop, STOP)
            | flag(found.progress, PROGRESS)
            | flag(found.cleanup, CLEANUP)
    }
}
