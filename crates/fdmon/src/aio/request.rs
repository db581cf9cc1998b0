//! One request of file I/O: what is asked, how far it has come, and who hears of its end.

use std::io;

use rustix::fd::RawFd;
use rustix::io::Errno;

use crate::context::AioContext;

/// The kernel takes so many segments in one call, and transfers no more than this many bytes.
const SEGMENTS_A_CALL: usize = 1024;
const BYTES_A_CALL: usize = 0x7fff_f000;

/// A request that the kernel puts off for now is made again so often.
const TRIES: u8 = 64;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoOp {
    /// From the file into memory.
    Read,
    /// From memory into the file.
    Write,
    /// The file's data and attributes reach the disk.
    Fsync,
    /// The file's data reach the disk, and what is needed to read them.
    Fdatasync,
}

/// A piece of memory. Whoever made the request vouches for it until the request has ended.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Segment(libc::iovec);

impl Segment {
    pub const NONE: Self = Self(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });

    pub fn new(base: *mut u8, len: usize) -> Self {
        Self(libc::iovec { iov_base: base.cast(), iov_len: len })
    }

    fn shorten(&mut self, by: usize) {
        self.0.iov_base = self.0.iov_base.wrapping_byte_add(by);
        self.0.iov_len -= by;
    }
}

/// The part of the memory that one call of the kernel is to fill or to write.
#[derive(Clone, Copy)]
pub(crate) enum Memory {
    One {
        base: *mut libc::c_void,
        len: usize,
    },
    /// So many segments from here on.
    Many {
        first: *const libc::iovec,
        count: usize,
    },
}

/// The memory of a request that is left.
pub(crate) enum Segments {
    One(Segment),
    Many { all: Box<[Segment]>, at: usize },
}

impl Segments {
    pub fn left(&self) -> usize {
        match self {
            Self::One(segment) => segment.0.iov_len,
            Self::Many { all, at } => all[*at..].iter().map(|segment| segment.0.iov_len).sum(),
        }
    }

    /// So many bytes are done.
    fn advance(&mut self, mut bytes: usize) {
        match self {
            Self::One(segment) => segment.shorten(bytes),
            Self::Many { all, at } => {
                while let Some(segment) = all.get_mut(*at) {
                    if bytes < segment.0.iov_len {
                        return segment.shorten(bytes);
                    }
                    bytes -= segment.0.iov_len;
                    *at += 1;
                }
            }
        }
    }

    /// For the next call. It stays in place as long as the request does, and is not moved on.
    pub fn memory(&self) -> Memory {
        match self {
            Self::One(segment) => {
                Memory::One { base: segment.0.iov_base, len: segment.0.iov_len.min(BYTES_A_CALL) }
            }
            Self::Many { all, at } => {
                let left = &all[*at..];
                Memory::Many {
                    first: left.as_ptr().cast::<libc::iovec>(),
                    count: left.len().min(SEGMENTS_A_CALL),
                }
            }
        }
    }
}

/// Who hears of the end.
pub(crate) trait Complete {
    fn complete(self: Box<Self>, ctx: &AioContext, result: io::Result<usize>);
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nowhere: its place is free.
    Free,
    /// Waits to be submitted.
    Queued,
    /// The engine has it.
    InFlight,
    /// It has ended, and nobody has heard of it yet.
    Ended,
}

/// What follows from a result of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Ended,
    /// It goes on: submit it again.
    Again,
}

pub(crate) struct Request {
    pub op: IoOp,
    pub fd: RawFd,
    pub position: u64,
    pub segments: Segments,
    pub stage: Stage,
    /// Somebody has asked for its end.
    pub cancelled: bool,
    tries: u8,
    /// Names it among all requests of its context.
    pub number: u64,
    /// None = the other side of a binding knows.
    pub complete: Option<Box<dyn Complete>>,
    /// Bytes so far; of one that has ended, what it came to: bytes, or an errno if negative.
    pub result: i64,
}

impl Request {
    /// A place that is free.
    pub fn free() -> Self {
        Self {
            op: IoOp::Fsync,
            fd: -1,
            position: 0,
            segments: Segments::One(Segment::NONE),
            stage: Stage::Free,
            cancelled: false,
            tries: 0,
            number: 0,
            complete: None,
            result: 0,
        }
    }

    /// Fills the place anew.
    pub fn ask(&mut self, op: IoOp, fd: RawFd, position: u64, segments: Segments, number: u64) {
        *self = Self {
            op,
            fd,
            position,
            segments,
            stage: Stage::Queued,
            number,
            complete: self.complete.take(),
            ..Self::free()
        };
    }

    /// What the engine says of one call. Short transfers go on, to the end or to the end of the
    /// file; what was interrupted or put off is made again.
    pub fn take(&mut self, result: i32) -> Step {
        let Ok(bytes) = usize::try_from(result) else {
            return self.fail(Errno::from_raw_os_error(-result));
        };
        if matches!(self.op, IoOp::Fsync | IoOp::Fdatasync) {
            return Step::Ended;
        }
        let left = self.segments.left();
        let bytes = bytes.min(left);
        self.tries = 0;
        self.result += i64::try_from(bytes).unwrap_or(i64::MAX);
        self.position += bytes as u64;
        self.segments.advance(bytes);
        if bytes == left {
            return Step::Ended;
        }
        if bytes == 0 {
            if self.op == IoOp::Write {
                return self.end(Errno::IO); // the kernel takes no byte, and does not say why
            }
            return Step::Ended; // the file ends here
        }
        if self.cancelled { self.end(Errno::CANCELED) } else { Step::Again }
    }

    fn fail(&mut self, errno: Errno) -> Step {
        match errno {
            Errno::INTR | Errno::AGAIN | Errno::CANCELED if self.cancelled => {
                self.end(Errno::CANCELED)
            }
            Errno::INTR => Step::Again,
            Errno::AGAIN if self.tries < TRIES => {
                self.tries += 1;
                Step::Again
            }
            errno => self.end(errno),
        }
    }

    /// It ends with an error.
    pub fn end(&mut self, errno: Errno) -> Step {
        self.result = -i64::from(errno.raw_os_error());
        Step::Ended
    }

    /// Its result, for Rust.
    pub fn outcome(&self) -> io::Result<usize> {
        match usize::try_from(self.result) {
            Ok(bytes) => Ok(bytes),
            Err(_) => {
                let errno = i32::try_from(-self.result).unwrap_or(libc::EIO);
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(op: IoOp, lens: &[usize]) -> Request {
        let segment = |&len: &usize| Segment::new(std::ptr::null_mut(), len);
        let segments = match lens {
            [len] => Segments::One(segment(len)),
            lens => Segments::Many { all: lens.iter().map(segment).collect(), at: 0 },
        };
        let mut request = Request::free();
        request.ask(op, 3, 100, segments, 1);
        request
    }

    fn left(request: &Request) -> (usize, u64) {
        (request.segments.left(), request.position)
    }

    /// SPEC 47
    #[test]
    fn a_short_transfer_goes_on_where_it_stopped() {
        for lens in [&[10][..], &[3, 4, 3], &[0, 10, 0]] {
            let mut request = request(IoOp::Read, lens);
            assert_eq!(request.take(4), Step::Again);
            assert_eq!(left(&request), (6, 104));
            assert_eq!(request.take(1), Step::Again);
            assert_eq!(left(&request), (5, 105));
            assert_eq!(request.take(5), Step::Ended);
            assert_eq!(request.outcome().unwrap(), 10);
        }
    }

    /// SPEC 47
    #[test]
    fn a_read_ends_at_the_end_of_the_file_and_a_write_that_takes_nothing_is_an_error() {
        let mut read = request(IoOp::Read, &[10]);
        assert_eq!(read.take(7), Step::Again);
        assert_eq!(read.take(0), Step::Ended);
        assert_eq!(read.outcome().unwrap(), 7);
        let mut write = request(IoOp::Write, &[10]);
        assert_eq!(write.take(0), Step::Ended);
        assert_eq!(write.outcome().unwrap_err().raw_os_error(), Some(libc::EIO));
        let mut nothing = request(IoOp::Write, &[0]);
        assert_eq!(nothing.take(0), Step::Ended);
        assert_eq!(nothing.outcome().unwrap(), 0);
    }

    /// SPEC 47
    #[test]
    fn what_is_interrupted_or_put_off_is_made_again_but_not_for_ever() {
        let mut request = request(IoOp::Write, &[10]);
        for _ in 0..1000 {
            assert_eq!(request.take(-libc::EINTR), Step::Again);
        }
        let again = std::iter::repeat_with(|| request.take(-libc::EAGAIN))
            .take_while(|&step| step == Step::Again)
            .count();
        assert_eq!(again, usize::from(TRIES));
        assert_eq!(request.outcome().unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    }

    /// SPEC 49
    #[test]
    fn one_that_is_cancelled_does_not_go_on() {
        for result in [4, -libc::EINTR, -libc::EAGAIN, -libc::ECANCELED] {
            let mut request = request(IoOp::Read, &[10]);
            request.cancelled = true;
            assert_eq!(request.take(result), Step::Ended);
            assert_eq!(request.outcome().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        }
        let mut done = request(IoOp::Read, &[10]);
        done.cancelled = true;
        assert_eq!(done.take(10), Step::Ended);
        assert_eq!(done.outcome().unwrap(), 10, "it was done before");
    }

    /// SPEC 47
    #[test]
    fn a_call_takes_no_more_than_the_kernel_does() {
        let long = request(IoOp::Read, &[usize::MAX / 4]);
        assert!(matches!(long.segments.memory(), Memory::One { len: BYTES_A_CALL, .. }));
        let many = request(IoOp::Read, &[1; 3000]);
        assert!(matches!(many.segments.memory(), Memory::Many { count: SEGMENTS_A_CALL, .. }));
    }
}
