//! There are no rings on WASI: file I/O is done by threads, or in the call where there are none.

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::request::Request;
use crate::config::RingParams;
use crate::monitor::refusal::Refusal;

pub(crate) enum IoRing {}

impl IoRing {
    pub fn new(_: &RingParams, _: BorrowedFd<'_>) -> Result<Self, Refusal> {
        Err(Refusal { call: "io_uring_setup", errno: Errno::NOSYS })
    }

    pub fn size(&self) -> u32 {
        match *self {}
    }

    pub fn push(&mut self, _: u32, _: &Request) -> bool {
        match *self {}
    }

    pub fn cancel(&mut self, _: u32) -> Result<(), Errno> {
        match *self {}
    }

    pub fn has_unsubmitted(&self) -> bool {
        match *self {}
    }

    pub fn rewind(&mut self) -> impl Iterator<Item = u32> + use<> {
        std::iter::empty()
    }

    pub fn submit(&mut self) -> Result<(), Errno> {
        match *self {}
    }

    pub fn flush(&mut self) -> Result<(), Errno> {
        match *self {}
    }

    pub fn collect(&mut self, _: u32, _: u64) -> Result<(), Errno> {
        match *self {}
    }

    pub fn is_ready(&self) -> bool {
        match *self {}
    }

    pub fn has_work(&self) -> bool {
        match *self {}
    }

    pub fn arm(&self) -> bool {
        match *self {}
    }

    pub fn disarm(&self) {
        match *self {}
    }

    pub fn reap(&mut self, _: impl FnMut(u32, i32)) {
        match *self {}
    }

    pub fn has_completions(&self) -> bool {
        match *self {}
    }
}
