//! What a chain of descriptors asks for: copied out of the memory once, and then checked.
//!
//! ```text
//! header, 16 bytes, read by the device:  kind, sector (low word, high word), 0
//! data, whole sectors:                   read by the device for Write, written for Read; none for Flush
//! status, 4 bytes, written by the device
//! ```

use std::sync::atomic::Ordering;

use super::SECTOR;
use super::memory::{MOST_DATA, Memory, SIZE};
use super::ring::{DATA, DESCRIPTORS, ENTRIES};

/// Flag of a descriptor: another one follows.
pub const NEXT: u32 = 1;
/// Flag of a descriptor: the device writes what it names.
pub const WRITE: u32 = 2;

/// What the device is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Reads sectors.
    Read = 0,
    /// Writes sectors.
    Write = 1,
    /// What was written and answered before reaches the disk.
    Flush = 2,
}

/// What the device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 1,
    /// The file could not be read or written, or has no such sector.
    IoError = 2,
}

/// A request that keeps the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The chain's first descriptor, which names it in the answer.
    pub head: u32,
    /// What is to be done.
    pub kind: Kind,
    /// The first sector; whether the disk has it was not looked at.
    pub sector: u64,
    /// Offset of the data in the memory.
    pub data: usize,
    /// Bytes of data, whole sectors.
    pub len: usize,
    /// Offset of the status in the memory.
    pub status: usize,
}

/// What a driver did that no driver may do: it gets no answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// A descriptor, copied: the driver may change the original at any time.
#[derive(Clone, Copy)]
struct Descriptor {
    offset: usize,
    len: usize,
    flags: u32,
    next: u32,
}

impl Descriptor {
    /// The descriptor with this number, if it names a part of the data.
    fn read(memory: &Memory, number: u32) -> Result<Self, Broken> {
        let number = number as usize;
        if number >= ENTRIES {
            return Err(Broken("a descriptor's number is too large"));
        }
        let at = DESCRIPTORS + 4 * number;
        let words = &memory.words()[at..at + 4];
        let [offset, len, flags, next] =
            std::array::from_fn(|index| words[index].load(Ordering::Relaxed));
        let (offset, len) = (offset as usize, len as usize);
        if offset < DATA || offset.checked_add(len).is_none_or(|end| end > SIZE) {
            return Err(Broken("a descriptor names memory outside the data"));
        }
        if len == 0 || !offset.is_multiple_of(4) || !len.is_multiple_of(4) {
            return Err(Broken("a descriptor does not name whole words"));
        }
        if flags & !(NEXT | WRITE) != 0 {
            return Err(Broken("a descriptor has flags that there are not"));
        }
        Ok(Self { offset, len, flags, next })
    }

    fn next(self, memory: &Memory) -> Result<Self, Broken> {
        if self.flags & NEXT == 0 {
            return Err(Broken("a chain ends too early"));
        }
        Self::read(memory, self.next)
    }

    fn is_written(self) -> bool {
        self.flags & WRITE != 0
    }
}

impl Request {
    /// What the chain at this head asks for. No loop: a chain has three descriptors, or two.
    ///
    /// # Errors
    /// It breaks the rules.
    pub fn parse(memory: &Memory, head: u32) -> Result<Self, Broken> {
        let header = Descriptor::read(memory, head)?;
        if header.len != 16 || header.is_written() {
            return Err(Broken("a chain does not begin with a header"));
        }
        let mut words = [0; 16];
        memory.copy_out(header.offset, &mut words);
        let word = |at: usize| words[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
        let kind = match word(0) {
            0 => Kind::Read,
            1 => Kind::Write,
            2 => Kind::Flush,
            _ => return Err(Broken("a request is of no kind")),
        };
        let sector = u64::from(word(4)) | u64::from(word(8)) << 32;
        let mut last = header.next(memory)?;
        let (mut data, mut len) = (0, 0);
        if kind != Kind::Flush {
            if last.is_written() != (kind == Kind::Read) {
                return Err(Broken("the data goes the wrong way"));
            }
            if !last.len.is_multiple_of(SECTOR) || last.len > MOST_DATA {
                return Err(Broken("the data is not of whole sectors, or too much"));
            }
            (data, len) = (last.offset, last.len);
            last = last.next(memory)?;
        }
        if last.len != 4 || !last.is_written() || last.flags & NEXT != 0 {
            return Err(Broken("a chain does not end with a status"));
        }
        Ok(Self { head, kind, sector, data, len, status: last.offset })
    }
}
