//! ② Monitors that a WebAssembly build does not have: types without a value, so that the rest of the
//! loop reads the same everywhere and the compiler drops what cannot be.

use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::Errno;

use super::refusal::Refusal;
use super::ring_features::RingFeatures;
use super::{FdMonitor, MonitorToken, Sink};
use crate::config::{RingMode, RingParams};
use crate::interest::Interest;

macro_rules! absent {
    ($name:ident) => {
        pub(crate) enum $name {}

        impl FdMonitor for $name {
            const SEES_READINESS: bool = false;

            fn update(
                &mut self,
                _: MonitorToken,
                _: RawFd,
                _: Interest,
                _: Interest,
            ) -> Result<(), Errno> {
                match *self {}
            }

            fn wait(&mut self, _: Option<u64>, _: &mut impl Sink) -> Result<(), Errno> {
                match *self {}
            }
        }
    };
}

pub(crate) mod poll {
    use super::*;

    absent!(PollMonitor);
}

pub(crate) mod epoll {
    use super::*;

    absent!(EpollMonitor);

    impl EpollMonitor {
        pub fn new() -> Result<Self, Errno> {
            Err(Errno::NOSYS)
        }

        pub fn fd(&self) -> BorrowedFd<'_> {
            match *self {}
        }

        pub fn has_always_ready(&self) -> bool {
            match *self {}
        }

        pub fn watch_notifier(&mut self, _: BorrowedFd<'_>) -> Result<(), Errno> {
            match *self {}
        }
    }
}

pub(crate) mod io_uring {
    use super::*;

    absent!(UringMonitor);

    impl UringMonitor {
        pub fn new(_: &RingParams, _: RawFd) -> Result<Self, Refusal> {
            Err(Refusal { call: "io_uring_setup", errno: Errno::NOSYS })
        }

        pub fn fd(&self) -> BorrowedFd<'_> {
            match *self {}
        }

        pub fn mode(&self) -> RingMode {
            match *self {}
        }

        pub fn notifier_must_be_read(&self) -> bool {
            match *self {}
        }
    }

    pub(crate) fn probe(_: RawFd) -> Result<RingFeatures, Refusal> {
        Err(Refusal { call: "io_uring_setup", errno: Errno::NOSYS })
    }
}
