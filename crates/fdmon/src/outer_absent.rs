//! There is no outer loop on WASI: nothing there can wake one. A type without a value, so that the
//! rest of the loop reads the same.

use std::convert::Infallible;

use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::Errno;

use crate::embed::OuterLoop;
use crate::error::{Error, Result};
use crate::interest::Interest;
use crate::monitor::{Monitor, MonitorToken};
use crate::turn::Plan;

pub(crate) struct Outer {
    never: Infallible,
    pub timer_at: Option<u64>,
    pub unwatched: Vec<MonitorToken>,
    pub unseen: bool,
    pub plan: Option<(Plan, u64)>,
    pub around: OuterLoop,
    pub whole: bool,
    pub version: u64,
}

impl Outer {
    pub fn new() -> Result<Self> {
        Err(Error::unsupported(
            "an outer loop cannot be woken by a WebAssembly build; run the context with poll or run",
        ))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        match self.never {}
    }

    pub fn timer(&self) -> BorrowedFd<'_> {
        match self.never {}
    }

    pub fn watch(&self, _: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        match self.never {}
    }

    pub fn set_timer(&mut self, _: Option<u64>, _: u64) -> std::result::Result<(), Errno> {
        match self.never {}
    }

    pub fn events<'a>(&'a self, _: &'a Monitor) -> BorrowedFd<'a> {
        match self.never {}
    }

    pub fn has_other_work(&self) -> bool {
        match self.never {}
    }

    pub fn update(&mut self, _: MonitorToken, _: RawFd, _: Interest, _: Interest) -> bool {
        match self.never {}
    }

    pub fn begin_anew(&mut self, _: Option<BorrowedFd<'_>>, _: BorrowedFd<'_>) -> bool {
        match self.never {}
    }
}
