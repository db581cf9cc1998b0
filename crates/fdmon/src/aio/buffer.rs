//! Memory for O_DIRECT, which wants it aligned.
#![allow(unsafe_code)] // memory of a layout that `Vec` does not make

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use stable_deref_trait::StableDeref;

use crate::error::{Error, Result};

/// A buffer whose address is a multiple of a power of two, as files opened with O_DIRECT want it:
/// of the block size of the disk, 512 or 4096. So must be offsets and lengths there.
///
/// ```
/// let buffer = fdmon::AlignedBuf::new(8192, 4096)?;
/// assert_eq!((buffer.len(), buffer.as_ptr() as usize % 4096), (8192, 0));
/// assert!(fdmon::AlignedBuf::new(8192, 1000).unwrap_err().is_invalid_arg());
/// # Ok::<(), fdmon::Error>(())
/// ```
pub struct AlignedBuf {
    base: NonNull<u8>,
    layout: Layout,
    len: usize,
}

impl AlignedBuf {
    /// `len` zeroes.
    ///
    /// # Errors
    /// `InvalidArg` when `alignment` is no power of two, or the length is more than memory can be.
    pub fn new(len: usize, alignment: usize) -> Result<Self> {
        if !alignment.is_power_of_two() {
            return Err(Error::invalid_arg("alignment", alignment, "a power of two, such as 4096"));
        }
        let layout = Layout::from_size_align(len.max(1), alignment).map_err(|_| {
            Error::invalid_arg("len", len, format_args!("less than {}", isize::MAX))
        })?;
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Ok(Self { base, layout, len })
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: allocated with at least `len` initialised bytes, which live as long as `self`.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed by nobody else.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

// SAFETY: the bytes lie on the heap, and stay there when the buffer moves.
unsafe impl StableDeref for AlignedBuf {}

// SAFETY: it owns its bytes, as a `Vec<u8>` does.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above.
unsafe impl Sync for AlignedBuf {}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout by `new`.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuf")
            .field("len", &self.len)
            .field("alignment", &self.layout.align())
            .finish_non_exhaustive()
    }
}
