//! Two programs that use fdmon as any crate would.
//!
//! - [`proxy`]: a TCP proxy. Non-blocking sockets, back-pressure by interest, half-close, a graceful end.
//! - [`vdev`]: a block device behind rings in shared memory, both ends of it. Kicks that are left out
//!   while the other side spins, file I/O, and a peer that is not trusted.
//!
//! `src/bin` has the programs; [`options`] and [`signals`] are what both take from outside.
#![deny(unsafe_code)] // opened where memory is mapped and where a signal becomes an fd

pub mod options;
pub mod proxy;
pub mod signals;
pub mod vdev;

/// What can go wrong in a program: fdmon's errors, the kernel's, and those of the command line.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
