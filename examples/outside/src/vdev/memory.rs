//! The shared memory: a sealed memfd, as words that both sides read and write atomically.
#![allow(unsafe_code)] // mmap(2), and the words behind it

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::ring::{DATA, ENTRIES};

/// Bytes of a request's slot: a header, a status, and data of at most [`MOST_DATA`].
pub const SLOT: usize = MOST_DATA + 64;
/// Data of one request at most.
pub const MOST_DATA: usize = 4096;
/// Requests in flight at most: each takes three descriptors.
pub const SLOTS: usize = ENTRIES / 3;
/// Bytes of the whole memory, in whole pages.
pub const SIZE: usize = (DATA + SLOTS * SLOT).next_multiple_of(4096);

/// A mapping of the memory, and the memfd behind it.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<AtomicU32>,
    fd: OwnedFd,
}

impl Memory {
    /// New memory of zeroes, which can neither shrink nor grow.
    ///
    /// # Errors
    /// No memory or no fd left.
    pub fn create() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("vdev", flags)?;
        ftruncate(&fd, SIZE as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(fd)
    }

    /// The memory of a peer that is not trusted. Without the seal it could cut the memfd short, and
    /// the next access would end this process (SIGBUS).
    ///
    /// # Errors
    /// `InvalidInput` for anything but memory of the right size that was sealed.
    pub fn from_peer(fd: OwnedFd) -> io::Result<Self> {
        let refused = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        match fcntl_get_seals(&fd) {
            Ok(seals) if seals.contains(SealFlags::SHRINK) => {}
            Ok(_) => return refused("the memory may shrink"),
            Err(_) => return refused("the memory is no memfd"),
        }
        if usize::try_from(fstat(&fd)?.st_size) != Ok(SIZE) {
            return refused("the memory has another size");
        }
        Self::map(fd)
    }

    fn map(fd: OwnedFd) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap(ptr::null_mut(), SIZE, access, MapFlags::SHARED, &fd, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, fd })
    }

    /// All of it. Atomics, because the other side may write any word at any time.
    #[must_use]
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping has this many bytes for as long as `self` lives, aligned to a page;
        // the memfd is sealed against shrinking; and atomics may change under a shared reference.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), SIZE / 4) }
    }

    /// Copies out of the memory, from a byte offset that is a multiple of 4.
    ///
    /// # Panics
    /// The range is not within the memory, or not of whole words.
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let words = self.range(offset, bytes.len());
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
    }

    /// Copies into the memory, as [`Memory::copy_out`].
    ///
    /// # Panics
    /// As there.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let words = self.range(offset, bytes.len());
        for (from, word) in bytes.chunks_exact(4).zip(words) {
            let value = u32::from_ne_bytes(from.try_into().unwrap_or_default()); // they are four
            word.store(value, Ordering::Relaxed);
        }
    }

    fn range(&self, offset: usize, len: usize) -> &[AtomicU32] {
        assert!(offset.is_multiple_of(4) && len.is_multiple_of(4), "whole words");
        &self.words()[offset / 4..(offset + len) / 4]
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and borrowed by nobody any more.
        let result = unsafe { munmap(self.base.as_ptr().cast(), SIZE) };
        debug_assert!(result.is_ok());
    }
}
