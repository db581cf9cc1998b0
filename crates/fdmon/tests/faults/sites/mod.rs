//! The places where system calls are made.

mod epoll;
mod fds;
mod ring;
mod waits;

pub use epoll::{BUSY_POLL, EPOLL, OUTER};
pub use fds::FDS;
pub use ring::{COMPLETIONS, FULL, OVERFLOW, RING};
pub use waits::WAITS;
