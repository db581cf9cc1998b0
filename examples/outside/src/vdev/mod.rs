//! A block device behind rings in shared memory, after the manner of virtio's split rings.
//!
//! ```text
//!  driver (a process)                 memory (a memfd)                  device (another process)
//!  writes a chain of descriptors  →   descriptors, data
//!  pushes its head                →   AVAIL ring                    →   takes it, checks it, reads or
//!  kick, unless the device spins  ––––– eventfd ––––––––––––––––––––→   writes the file
//!  takes the answer               ←   USED ring                     ←   pushes the head back
//!                                 ←–––– eventfd –––––––––––––––––––––   call, unless the driver spins
//! ```
//!
//! Both ends are fdmon sources whose predicate compares a ring's index with what was taken of it.
//! `poll_begin` sets the ring's suppress word, so that the other side leaves the eventfd alone, and
//! `poll_end` clears it; while both sides spin, a request takes no system call but those of the file.
//!
//! The device trusts nothing that lies in the memory: [`request`] copies what it looks at before it
//! looks, and a driver that breaks the rules loses its device, not the process. The layout is this
//! example's own: 32-bit words, one ring a direction, chains of at most three descriptors.

pub mod device;
pub mod driver;
pub mod handover;
pub mod memory;
pub mod request;
pub mod ring;
pub mod server;
pub mod workload;

/// Bytes of a sector; requests are whole sectors.
pub const SECTOR: usize = 512;
