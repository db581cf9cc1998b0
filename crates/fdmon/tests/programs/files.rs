//! The ten files of a program, and what the kernel says of them.
//!
//! | number | what it is |
//! | --- | --- |
//! | 0, 1 | eventfds |
//! | 2 | the reading end of a pipe |
//! | 3 | the writing end of another |
//! | 4 | a socket |
//! | 5, 6 | two sockets, connected to each other |
//! | 7 | a regular file, which epoll refuses and which is always ready |
//! | 8 | a duplicate of 0 |
//! | 9 | a duplicate of 4 |

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{dup, read, write};
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, send, shutdown, socketpair,
    sockopt::set_socket_send_buffer_size,
};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::program::FILES;

/// The file that is always ready.
pub const REGULAR: u8 = 7;

/// A file that a handler and the program share.
#[derive(Clone)]
pub struct Shared(Arc<OwnedFd>);

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[derive(Clone)]
struct File {
    fd: Shared,
    /// The other side, as long as it is there.
    peer: Option<Shared>,
}

pub struct Files(Vec<File>);

/// What poll(2) says of each file.
pub type Readiness = [u32; FILES as usize];

impl Files {
    pub fn new() -> Self {
        let mut files = Self(Vec::new());
        while files.0.len() < FILES.into() {
            let made = files.make(files.0.len());
            files.0.extend(made);
        }
        files
    }

    /// The file of this number; 5 comes with 6.
    fn make(&self, at: usize) -> Vec<File> {
        match at {
            0 | 1 => {
                let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
                vec![File { fd: shared(fd), peer: None }]
            }
            2 | 3 => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
                fcntl_setpipe_size(&writer, 4096).unwrap(); // soon full
                let (reader, writer) = (shared(reader), shared(writer));
                let (fd, peer) = if at == 2 { (reader, writer) } else { (writer, reader) };
                vec![File { fd, peer: Some(peer) }]
            }
            4..=6 => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let (a, b) =
                    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
                for end in [&a, &b] {
                    set_socket_send_buffer_size(end, 4096).unwrap();
                }
                let (a, b) = (shared(a), shared(b));
                let first = File { fd: a.clone(), peer: Some(b.clone()) };
                let second = File { fd: b, peer: Some(a) };
                if at == 4 { vec![first] } else { vec![first, second] }
            }
            7 => {
                let fd = memfd_create("fdmon-test", MemfdFlags::CLOEXEC).unwrap();
                vec![File { fd: shared(fd), peer: None }]
            }
            _ => {
                let original = &self.0[if at == 8 { 0 } else { 4 }];
                vec![File { fd: shared(dup(&original.fd).unwrap()), ..original.clone() }]
            }
        }
    }

    pub fn get(&self, at: u8) -> Shared {
        self.0[usize::from(at)].fd.clone()
    }

    pub fn number(&self, at: u8) -> RawFd {
        self.0[usize::from(at)].fd.as_fd().as_raw_fd()
    }

    fn is_counter(at: u8) -> bool {
        matches!(at, 0 | 1 | 8)
    }

    fn is_socket(at: u8) -> bool {
        matches!(at, 4 | 5 | 6 | 9)
    }

    /// Something to read arrives.
    pub fn ready(&self, at: u8) {
        let file = &self.0[usize::from(at)];
        match &file.peer {
            None if Self::is_counter(at) => drop(write(&file.fd, &1_u64.to_ne_bytes())),
            Some(peer) if Self::is_socket(at) => drop(send(peer, b"x", SendFlags::NOSIGNAL)),
            Some(peer) if at == 2 => drop(write(peer, b"x")),
            _ => {}
        }
    }

    /// All of it is read.
    pub fn take(&self, at: u8) {
        if at != 3 {
            empty(&self.0[usize::from(at)].fd);
        }
    }

    /// It is written to until that would block.
    pub fn fill(&self, at: u8) {
        let file = &self.0[usize::from(at)];
        if Self::is_counter(at) {
            let full = (u64::MAX - 1).to_ne_bytes();
            let is_full = self.readiness()[usize::from(at)] & u32::from(PollFlags::OUT.bits()) == 0;
            // One that is full is not emptied in between, which a ring would notice.
            if !is_full && write(&file.fd, &full).is_err() {
                empty(&file.fd);
                let _ = write(&file.fd, &full);
            }
        } else if Self::is_socket(at) {
            while send(&file.fd, &[0; 1024], SendFlags::NOSIGNAL).is_ok() {}
        } else if at == 3 && file.peer.is_some() {
            while write(&file.fd, &[0; 4096]).is_ok() {}
        }
    }

    /// The other side reads everything.
    pub fn drain(&self, at: u8) {
        let file = &self.0[usize::from(at)];
        match &file.peer {
            None if Self::is_counter(at) => empty(&file.fd),
            Some(peer) if at != 2 => empty(peer),
            _ => {}
        }
    }

    /// The other side writes no more.
    pub fn shut_down(&mut self, at: u8) {
        if let Some(peer) = self.0[usize::from(at)].peer.as_ref().filter(|_| Self::is_socket(at)) {
            let _ = shutdown(peer, Shutdown::Write);
        }
    }

    /// The other side goes away.
    pub fn hang_up(&mut self, at: u8) {
        let file = &mut self.0[usize::from(at)];
        match &file.peer {
            Some(peer) if Self::is_socket(at) => drop(shutdown(peer, Shutdown::Both)),
            _ => file.peer = None,
        }
    }

    /// A new file in place of this one.
    pub fn reopen(&mut self, at: u8) {
        let index = usize::from(if at == 6 { 5 } else { at });
        let made = self.make(index);
        self.0.splice(index..index + made.len(), made);
    }

    /// Which files [`Files::reopen`] replaces.
    pub fn reopened(at: u8) -> std::ops::RangeInclusive<u8> {
        if matches!(at, 5 | 6) { 5..=6 } else { at..=at }
    }

    /// What the kernel says, by the system call whose answer level-triggered readiness is.
    pub fn readiness(&self) -> Readiness {
        let asked = PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP;
        let mut fds: Vec<PollFd<'_>> =
            self.0.iter().map(|file| PollFd::new(&file.fd, asked)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while poll(&mut fds, Some(&now)).is_err() {} // a signal
        std::array::from_fn(|at| fds[at].revents().bits().into())
    }
}

fn shared(fd: OwnedFd) -> Shared {
    Shared(Arc::new(fd))
}

fn empty(fd: &Shared) {
    let mut buffer = [0; 4096];
    while read(fd, &mut buffer).is_ok_and(|n| n > 0) {}
}
