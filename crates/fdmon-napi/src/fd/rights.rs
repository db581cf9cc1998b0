//! Descriptors that travel over a Unix socket beside bytes (SCM_RIGHTS, unix(7)).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use fdmon::ErrorCode;
use napi::Env;
use napi_derive::napi;
use rustix::cmsg_space;
use rustix::fd::OwnedFd;
use rustix::io::{Errno, fcntl_getfd, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};

use super::owned::give;
use super::raw::{self, Bytes};
use crate::error::{Failure, Result, guard};

/// SCM_MAX_FD of the kernel: how many one message carries.
const MOST: usize = 253;
/// Room for the descriptors, and for credentials where the socket was told to receive them.
const ROOM: usize = cmsg_space!(ScmRights(MOST), ScmCredentials(1));

/// A socket of another family drops the descriptors without a word.
fn unix(fd: i32) -> Result<BorrowedFd<'static>> {
    let socket = raw::require(fd)?;
    let domain = sockopt::socket_domain(socket).map_err(|errno| {
        let advice = "pass a Unix socket, such as one of socketpair()";
        Failure::syscall("getsockopt", errno, &format!("find the family of fd = {fd}"), advice)
    })?;
    if domain == AddressFamily::UNIX {
        return Ok(socket);
    }
    let message = format!(
        "fd = {fd} is not a Unix socket, and no other carries descriptors; pass one of socketpair(), connectUnix() or accept()"
    );
    Err(Failure::new(ErrorCode::InvalidArg, message))
}

/// sendmsg(2) of the whole view and the descriptors: the number of bytes, or `-EAGAIN`.
#[napi]
pub fn fds_send(
    env: Env,
    fd: i32,
    #[napi(ts_arg_type = "Uint8Array")] buffer: Bytes,
    fds: Vec<i32>,
) -> napi::Result<i32> {
    guard(&env, || {
        let socket = unix(fd)?;
        let rights = fds.iter().map(|&fd| raw::require(fd)).collect::<Result<Vec<_>>>()?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !rights.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&rights)) {
            let message =
                format!("fds.length = {} is not valid; pass at most {MOST} in one call", fds.len());
            return Err(Failure::new(ErrorCode::InvalidArg, message));
        }
        let bytes = [IoSlice::new(buffer.readable())];
        match retry_on_intr(|| sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)) {
            // Linux transfers at most 0x7ffff000 bytes a call.
            Ok(bytes) => Ok(i32::try_from(bytes).unwrap_or(i32::MAX)),
            Err(Errno::AGAIN) => Ok(-Errno::AGAIN.raw_os_error()),
            Err(errno) => Err(not_sent(fd, &fds, errno)),
        }
    })
}

fn not_sent(fd: i32, fds: &[i32], errno: Errno) -> Failure {
    let closed = |&fd: &i32| raw::borrow(fd).is_none_or(|fd| fcntl_getfd(fd).is_err());
    if errno == Errno::BADF
        && let Some(index) = fds.iter().position(closed)
    {
        return Failure {
            code: ErrorCode::BadFd,
            message: format!(
                "fds[{index}] = {} is not an open file descriptor; pass one that has not been closed",
                fds[index]
            ),
            errno: Some(errno.raw_os_error()),
            syscall: Some("sendmsg"),
        };
    }
    let advice = match errno {
        Errno::TOOMANYREFS => {
            "too many descriptors are under way: let the other side receive some first"
        }
        Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED => {
            "the other side is closed: remove the handler and close the descriptor"
        }
        Errno::NOTCONN => "connect the socket first",
        Errno::MSGSIZE => "send less at once",
        // What the message may not carry, such as an io_uring.
        Errno::INVAL => "pass descriptors that may be sent",
        _ => "see sendmsg(2), unix(7)",
    };
    let what = format!("send {} descriptors over fd = {fd}", fds.len());
    Failure::syscall("sendmsg", errno, &what, advice)
}

/// recvmsg(2) into the view: the number of bytes or `-EAGAIN`, then the descriptors that came.
#[napi]
pub fn fds_receive(
    env: Env,
    fd: i32,
    #[napi(ts_arg_type = "Uint8Array")] mut buffer: Bytes,
) -> napi::Result<Vec<i32>> {
    guard(&env, || {
        let socket = unix(fd)?;
        let mut space = [MaybeUninit::uninit(); ROOM];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [IoSliceMut::new(buffer.fillable())];
        let received =
            retry_on_intr(|| recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC));
        let message = match received {
            Ok(message) => message,
            Err(Errno::AGAIN) => return Ok(vec![-Errno::AGAIN.raw_os_error()]),
            Err(errno) => {
                let advice = match errno {
                    Errno::CONNRESET => {
                        "the other side is gone: remove the handler and close the descriptor"
                    }
                    Errno::NOTCONN | Errno::INVAL => "connect the socket first",
                    _ => "see recvmsg(2), unix(7)",
                };
                let what = format!("receive descriptors over fd = {fd}");
                return Err(Failure::syscall("recvmsg", errno, &what, advice));
            }
        };
        let mut fds = Vec::<OwnedFd>::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            // There was room for all: what is missing could not be opened. Those that came are
            // closed with `fds`.
            let message = format!(
                "recvmsg received only {} of the descriptors that came over fd = {fd}, and they were closed; close descriptors that are no longer used, or raise the limit with ulimit -n",
                fds.len()
            );
            return Err(Failure {
                code: ErrorCode::Syscall,
                message,
                errno: Some(Errno::MFILE.raw_os_error()),
                syscall: Some("recvmsg"),
            });
        }
        let bytes = i32::try_from(message.bytes).unwrap_or(i32::MAX);
        Ok([bytes].into_iter().chain(fds.into_iter().map(|fd| give(&env, fd))).collect())
    })
}
