//! Stream sockets with names (unix(7)), and connections of any listening socket.

use fdmon::ErrorCode;
use napi::Env;
use napi_derive::napi;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::owned::give;
use super::{duplicate, raw, set_nonblock};
use crate::error::{Failure, Result, guard};

/// As Node has it; the kernel takes less where net.core.somaxconn says so.
const BACKLOG: i32 = 511;

fn stream() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(
        |errno| Failure::syscall("socket", errno, "make a Unix socket", "see socket(2), unix(7)"),
    )
}

/// The address of a path, or of an abstract name, which begins with NUL.
fn address(path: &str) -> Result<SocketAddrUnix> {
    match path.strip_prefix('\0') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(path),
    }
    .map_err(|_| {
        let message = format!(
            "path = {path:?} is not valid; pass at most 107 bytes without NUL, or an abstract name: '\\0' and at most 107 bytes"
        );
        Failure::new(ErrorCode::InvalidArg, message)
    })
}

/// socket(2), bind(2), listen(2).
#[napi]
pub fn unix_listen(env: Env, path: String) -> napi::Result<i32> {
    guard(&env, || {
        let (socket, address) = (stream()?, address(&path)?);
        rustix::net::bind(&socket, &address).map_err(|errno| {
            let advice = match errno {
                Errno::ADDRINUSE if path.starts_with('\0') => {
                    "another socket has this name: close that one, or pass another name"
                }
                Errno::ADDRINUSE => {
                    "the file exists: remove it when no process listens there any more, or pass another path"
                }
                Errno::NOENT => "make the directory first",
                Errno::NOTDIR => "pass a path whose directories are directories",
                Errno::ACCESS | Errno::PERM => "pass a path in a directory that this user may write to",
                Errno::ROFS => "pass a path on a file system that can be written",
                _ => "see bind(2), unix(7)",
            };
            Failure::syscall("bind", errno, &format!("name a socket path = {path:?}"), advice)
        })?;
        rustix::net::listen(&socket, BACKLOG).map_err(|errno| {
            if !path.starts_with('\0') {
                // The file that bind(2) has just made would be in the way next time.
                let _ = rustix::fs::unlink(path.as_str());
            }
            let what = format!("listen at path = {path:?}");
            Failure::syscall("listen", errno, &what, "see listen(2)")
        })?;
        Ok(give(&env, socket))
    })
}

/// socket(2), connect(2). A Unix socket is connected at once or not at all.
#[napi]
pub fn unix_connect(env: Env, path: String) -> napi::Result<i32> {
    guard(&env, || {
        let (socket, address) = (stream()?, address(&path)?);
        // Not tried again after EINTR: this connect(2) does not wait, so nothing interrupts it.
        rustix::net::connect(&socket, &address).map_err(|errno| {
            let advice = match errno {
                Errno::NOENT => "start the server first, or pass the path that it listens at",
                Errno::CONNREFUSED => "nobody listens there: start the server first",
                Errno::AGAIN => {
                    "the server's queue is full: try again when it has accepted connections"
                }
                Errno::ACCESS | Errno::PERM => {
                    "pass a path that this user may reach, to a socket that it may write to"
                }
                Errno::PROTOTYPE => "pass the path of a stream socket",
                Errno::NOTDIR => "pass a path whose directories are directories",
                _ => "see connect(2), unix(7)",
            };
            Failure::syscall("connect", errno, &format!("connect to path = {path:?}"), advice)
        })?;
        Ok(give(&env, socket))
    })
}

/// accept4(2): a number, or `-EAGAIN` when nobody waits.
#[napi]
pub fn socket_accept(env: Env, fd: i32) -> napi::Result<i32> {
    guard(&env, || {
        let listener = raw::require(fd)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            return match rustix::net::accept_with(listener, flags) {
                Ok(socket) => Ok(give(&env, socket)),
                // The peer gave up while it waited; the next in the queue may not have.
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => Ok(-Errno::AGAIN.raw_os_error()),
                Err(errno) => {
                    let advice = match errno {
                        Errno::INVAL | Errno::OPNOTSUPP => {
                            "pass a stream socket that listens, such as one of listenUnix()"
                        }
                        Errno::NOTSOCK => "pass a socket",
                        _ => "see accept(2)",
                    };
                    let what = format!("take a connection of fd = {fd}");
                    Err(Failure::syscall("accept4", errno, &what, advice))
                }
            };
        }
    })
}

/// A descriptor of its own for an end of a pair of connected stream sockets that came from
/// elsewhere. It is non-blocking from here on, on all sides.
#[napi]
pub fn socket_adopt(env: Env, fd: i32) -> napi::Result<i32> {
    guard(&env, || {
        let own = duplicate(fd)?;
        let stream = sockopt::socket_domain(&own).is_ok_and(|domain| domain == AddressFamily::UNIX)
            && sockopt::socket_type(&own).is_ok_and(|kind| kind == SocketType::STREAM);
        if !stream {
            let message = format!("fd = {fd} is not a Unix stream socket; pass the bell of a port");
            return Err(Failure::new(ErrorCode::InvalidArg, message));
        }
        set_nonblock(own.as_fd(), true).map_err(|errno| {
            let what = format!("change the mode of fd = {fd}");
            Failure::syscall("fcntl", errno, &what, "see fcntl(2)")
        })?;
        Ok(give(&env, own))
    })
}

/// The number of the file that a descriptor leads to, by which a closed and reused one is told
/// apart; or the negative errno.
#[napi]
#[allow(clippy::cast_precision_loss, reason = "files in memory and sockets have small numbers")]
pub fn fd_inode(fd: i32) -> f64 {
    let inode = raw::borrow(fd).ok_or(Errno::BADF).and_then(fstat).map(|stat| stat.st_ino);
    inode.map_or_else(|errno| f64::from(-errno.raw_os_error()), |inode| inode as f64)
}
