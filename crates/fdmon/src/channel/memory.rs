//! The memory of a channel: a memfd that cannot shrink, mapped, and the words in it.
//!
//! Everything outside of this file sees atomics: words of 32 bits, and data in words of 64 bits that
//! are copied one by one. So whatever others do to the memory at the same time is a value that was
//! not expected, and never a data race. No access can be outside of the mapping, or fail in it.
#![allow(unsafe_code)] // mmap(2), and atomics in a mapping

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::slice;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::ring::{PortWords, Ring, Word};
use super::{ChannelSide, Sizes};
use crate::error::{Error, Result};
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering};
use crate::word_source::WordSource;

/// `f d m C`
const MAGIC: u32 = 0x436d_6466;
const VERSION: u32 = 1;

/// Bytes before the data.
const HEADER: usize = 448;
const WORDS: usize = HEADER / 4;
/// Where the words are, in words: of port 1 and port 2…
const PORTS: [usize; 2] = [64 / 4, 128 / 4];
/// …and the head and tail of ring 1 and ring 2.
const RINGS: [(usize, usize); 2] = [(192 / 4, 256 / 4), (320 / 4, 384 / 4)];

/// Eight bytes of a message.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Data(AtomicU64);

impl Data {
    #[inline]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn store(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// Unmapped on drop.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<c_void>,
    sizes: Sizes,
    fd: OwnedFd,
}

// SAFETY: the mapping is of no thread, and all access to it is by atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// New memory, with both ports free.
    pub fn new(sizes: Sizes) -> Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match memfd_create("fdmon-channel", flags | MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3 there is no MFD_NOEXEC_SEAL.
            Err(Errno::INVAL) => memfd_create("fdmon-channel", flags),
            made => made,
        };
        let fd = fd.map_err(|e| Error::syscall("memfd_create", e, "see memfd_create(2)"))?;
        retry_on_intr(|| ftruncate(&fd, length(sizes) as u64))
            .map_err(|e| Error::syscall("ftruncate", e, "pass a smaller capacity"))?;
        fcntl_add_seals(&fd, SealFlags::SHRINK)
            .map_err(|e| Error::syscall("fcntl", e, "see F_ADD_SEALS in fcntl(2)"))?;
        let memory = Self::map(fd, sizes)?;
        for (word, value) in [MAGIC, VERSION, sizes.capacity, sizes.ring].into_iter().enumerate() {
            Word(&memory.words()[word]).store(value, Ordering::Relaxed);
        }
        Ok(memory)
    }

    /// Memory that somebody else made.
    pub fn adopt(fd: OwnedFd) -> Result<Self> {
        let refused = |value: &dyn std::fmt::Display, expected: &str| {
            Err(Error::invalid_arg("memory", value, expected))
        };
        match fcntl_get_seals(&fd) {
            Ok(seals) if seals.contains(SealFlags::SHRINK) => {}
            Ok(_) => return refused(&"a memfd that may shrink", "one sealed with F_SEAL_SHRINK"),
            Err(_) => return refused(&"no memfd", "the memfd of a channel"),
        }
        let size = fstat(&fd).map_err(|e| Error::syscall("fstat", e, "see fstat(2)"))?.st_size;
        let mut header = [0; 16];
        let read = retry_on_intr(|| pread(&fd, &mut header, 0))
            .map_err(|e| Error::syscall("pread64", e, "pass a memfd that can be read"))?;
        let mut words = header[..read].chunks_exact(4).map(|bytes| {
            u32::from_le_bytes(bytes.try_into().unwrap_or_default()) // they are four
        });
        let mut next = || words.next().unwrap_or(0);
        let (magic, version, capacity, ring) = (next(), next(), next(), next());
        if magic != MAGIC {
            return refused(&format_args!("one with the magic {magic:#010x}"), "that of a channel");
        }
        if version != VERSION {
            return refused(&format_args!("one of version {version}"), "one of version 1");
        }
        let sizes = Sizes::of(capacity).filter(|sizes| sizes.ring == ring);
        let Some(sizes) = sizes else {
            let said = format!("one with a capacity of {capacity} and rings of {ring} bytes");
            return refused(&said, "one with sizes that belong together");
        };
        if usize::try_from(size).unwrap_or(usize::MAX) < length(sizes) {
            let said = format!("one of {size} bytes");
            return refused(&said, "one that is as long as its rings take");
        }
        Self::map(fd, sizes)
    }

    fn map(fd: OwnedFd, sizes: Sizes) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base =
            unsafe { mmap(ptr::null_mut(), length(sizes), access, MapFlags::SHARED, &fd, 0) };
        let base = base.map_err(|e| {
            Error::syscall("mmap", e, "pass less capacity, or a memfd that can be written")
        })?;
        let base = NonNull::new(base).expect("the kernel never maps page 0 unless it is told to");
        Ok(Self { base, sizes, fd })
    }

    pub fn capacity(&self) -> u32 {
        self.sizes.capacity
    }

    /// Another descriptor of it.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        super::endpoint::duplicate(self.fd.as_fd())
    }

    #[inline]
    fn words(&self) -> &[AtomicU32; WORDS] {
        // SAFETY: the mapping begins with these, is aligned to pages, lives as long as `self`, and
        // the file behind it cannot shrink. Any value is one of an atomic, which others may write.
        unsafe { self.base.cast().as_ref() }
    }

    #[inline]
    pub fn port(&self, side: ChannelSide) -> PortWords<'_> {
        let (words, at) = (self.words(), PORTS[side.index()]);
        PortWords {
            state: Word(&words[at]),
            suppress: Word(&words[at + 1]),
            rung: Word(&words[at + 2]),
            room: Word(&words[at + 3]),
        }
    }

    /// The ring that this side produces.
    #[inline]
    pub fn ring(&self, side: ChannelSide) -> Ring<'_> {
        let (words, (head, tail)) = (self.words(), RINGS[side.index()]);
        let capacity = self.sizes.capacity;
        Ring { head: Word(&words[head]), tail: Word(&words[tail]), capacity, data: self.data(side) }
    }

    #[inline]
    fn data(&self, side: ChannelSide) -> &[Data] {
        let ring = self.sizes.ring as usize;
        let offset = HEADER + ring * side.index();
        // SAFETY: the mapping is as long as `length` says, which is beyond this.
        let first = unsafe { self.base.as_ptr().byte_add(offset) };
        // SAFETY: as in `words`; `ring` bytes from there on are in the mapping, and both the offset
        // and they are multiples of 8.
        unsafe { slice::from_raw_parts(first.cast::<Data>(), ring / 8) }
    }

    /// What the loop of this side spins on: ready when its ring has something, and the other side
    /// rings no bell meanwhile.
    pub fn word_source(memory: &Arc<Self>, side: ChannelSide) -> WordSource {
        let (ring, own) = (memory.ring(side.other()), memory.port(side));
        let words = [ring.head.0, ring.tail.0, own.suppress.0].map(NonNull::from);
        // SAFETY: the words lie in the mapping, which this `Arc` keeps. Whoever claimed the port has
        // the suppress word alone.
        unsafe { WordSource::owned(words, Box::new(Arc::clone(memory))) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and everything in it is borrowed from `self`.
        let done = unsafe { munmap(self.base.as_ptr(), length(self.sizes)) };
        debug_assert_eq!(done, Ok(()), "an own mapping can be unmapped");
    }
}

fn length(sizes: Sizes) -> usize {
    HEADER + 2 * sizes.ring as usize
}
