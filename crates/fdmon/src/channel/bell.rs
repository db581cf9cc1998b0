//! The bell of a port: one end of a pair of connected Unix stream sockets. unix(7)
//!
//! A byte to the own end makes the other one readable. When nobody has the other end any more, the
//! own one hangs up: that is how the death of the other side is heard.

use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair, sockopt,
};

use crate::error::{Error, Result};

/// How often it may have been rung before it is heard: a liar rings more often, and wakes up more.
const MOST_RINGS: usize = 64;

#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub fn pair() -> Result<[Self; 2]> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, two) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| Error::syscall("socketpair", e, "see socketpair(2)"))?;
        Ok([Self(one), Self(two)])
    }

    /// One that was handed over.
    pub fn adopt(fd: OwnedFd) -> Result<Self> {
        let is_bell = sockopt::socket_domain(&fd) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&fd) == Ok(SocketType::STREAM);
        if !is_bell {
            let expected = "one of a pair of Unix stream sockets";
            return Err(Error::invalid_arg("bell", "another kind of descriptor", expected));
        }
        Ok(Self(fd))
    }

    /// Rings that of the other side. `true` = there is nobody any more.
    pub fn ring(&self) -> bool {
        loop {
            // The flags, because who made the socket may have left it blocking.
            match send(&self.0, &[1], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) | Err(Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS) => return false,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// It has been heard. `true` = it hung up.
    pub fn clear(&self) -> bool {
        let mut rings = [0_u8; MOST_RINGS];
        loop {
            match recv(&self.0, &mut rings, RecvFlags::DONTWAIT) {
                Ok((_, bytes)) => return bytes == 0,
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                // ECONNRESET: gone, and it had not heard what this side rang last.
                Err(_) => return true,
            }
        }
    }

    /// Wakes whoever of this side waits for it: the port is closed.
    pub fn shut(&self) {
        let _ = shutdown(&self.0, Shutdown::Read); // nothing is lost where it was not connected
    }

    /// Until it rings or hangs up. `false` = not by this time.
    pub fn wait(&self, until: Option<Instant>) -> Result<bool> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::syscall("ppoll", e, "see poll(2)")),
            }
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
