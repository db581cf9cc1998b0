//! How the two ends meet: over a Unix socket the driver sends the memory and the two eventfds
//! (`SCM_RIGHTS`), and the device answers with the size of the disk. Afterwards the socket carries
//! nothing; that it closes tells either side that the other is gone.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The first and only byte: the version of the layout.
const VERSION: u8 = 1;

/// What the driver hands over.
#[derive(Debug)]
pub struct Offer {
    /// The memory.
    pub memory: OwnedFd,
    /// The driver signals it after it pushed.
    pub kick: OwnedFd,
    /// The device signals it after it pushed.
    pub call: OwnedFd,
}

/// A counter that is close-on-exec and does not block.
///
/// # Errors
/// No fd left.
pub fn bell() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Sends these fds; those of an offer are the memory, kick and call.
///
/// # Errors
/// The other side is gone.
pub fn send(socket: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(&[VERSION])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes an offer; `None` = the socket was closed without one.
///
/// # Errors
/// `InvalidData` for anything else than an offer.
pub fn receive(socket: &UnixStream) -> io::Result<Option<Offer>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    let refused = |text| io::Error::new(ErrorKind::InvalidData, text);
    let [memory, kick, call] =
        <[OwnedFd; 3]>::try_from(fds).map_err(|_| refused("an offer has three fds"))?;
    if byte != [VERSION] {
        return Err(refused("the offer is of another version"));
    }
    for bell in [&kick, &call] {
        // A read or write of what the peer sent must not hold up the loop.
        let flags = fcntl_getfl(bell.as_fd())?;
        fcntl_setfl(bell.as_fd(), flags | OFlags::NONBLOCK)?;
    }
    Ok(Some(Offer { memory, kick, call }))
}
