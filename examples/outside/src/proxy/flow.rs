//! One direction of a connection: bytes that were read on one side and not yet written on the other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

/// What a direction holds at most; it is not read on while this is full.
pub const CAPACITY: usize = 64 * 1024;

/// A direction.
#[derive(Debug)]
pub struct Flow {
    buffer: Box<[u8]>,
    /// Bytes `start..end` wait to be written.
    start: usize,
    end: usize,
    /// The reading side has said that no more comes.
    ended: bool,
    /// …and the writing side was told.
    passed_on: bool,
}

impl Flow {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let buffer = vec![0; CAPACITY].into_boxed_slice();
        Self { buffer, start: 0, end: 0, ended: false, passed_on: false }
    }

    /// There is room: more may be read.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.ended && self.end < self.buffer.len()
    }

    /// Something waits to be written.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.start < self.end
    }

    /// Every byte and the end of them were passed on.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.passed_on
    }

    /// Reads once: the fd is reported again where more is there, and others get their turn.
    ///
    /// # Errors
    /// The connection broke.
    pub fn fill(&mut self, mut from: &TcpStream) -> io::Result<()> {
        if !self.wants_input() {
            return Ok(());
        }
        match from.read(&mut self.buffer[self.end..]) {
            Ok(0) => self.ended = true,
            Ok(count) => self.end += count,
            Err(error) if may_come_later(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes what it takes, and passes the end on after the last byte. Returns how many it were.
    ///
    /// # Errors
    /// The connection broke.
    pub fn drain(&mut self, mut to: &TcpStream) -> io::Result<usize> {
        let before = self.start;
        while self.has_output() {
            match to.write(&self.buffer[self.start..self.end]) {
                Ok(count) => self.start += count,
                Err(error) if may_come_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let count = self.start - before;
        if !self.has_output() {
            (self.start, self.end) = (0, 0);
            if self.ended && !self.passed_on {
                to.shutdown(Shutdown::Write)?;
                self.passed_on = true;
            }
        }
        Ok(count)
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

/// The loop says when to try again.
fn may_come_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
