//! Raw sockets of a CAN bus (Documentation/networking/can.rst).
#![allow(unsafe_code, reason = "rustix has no address of a CAN socket, so it is described here")]

use std::mem;

use fdmon::ErrorCode;
use libc::sockaddr_can;
use napi::Env;
use napi_derive::napi;
use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType};

use super::owned::give;
use crate::error::{Failure, guard};

/// CAN_RAW of linux/can.h.
const CAN_RAW: Protocol = match RawProtocol::new(libc::CAN_RAW as u32) {
    Some(number) => Protocol::from_raw(number),
    None => panic!("CAN_RAW is 1"),
};

struct Interface(sockaddr_can);

impl Interface {
    fn new(index: i32) -> Self {
        // SAFETY: all zero is a valid sockaddr_can, whose padding is then zero too.
        let mut address: sockaddr_can = unsafe { mem::zeroed() };
        address.can_family = AddressFamily::CAN.as_raw();
        address.can_ifindex = index;
        Self(address)
    }
}

// SAFETY: the pointer is to a whole sockaddr_can that lives as long as the call.
unsafe impl SocketAddrArg for Interface {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let length = const { size_of::<sockaddr_can>() as SocketAddrLen };
        f((&raw const self.0).cast(), length)
    }
}

/// socket(2), if_nametoindex(3), bind(2).
#[napi]
pub fn can_create(env: Env, interface: String) -> napi::Result<i32> {
    guard(&env, || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::CAN, SocketType::RAW, flags, Some(CAN_RAW))
                .map_err(no_can)?;
        let index =
            rustix::net::netdevice::name_to_index(&socket, &interface).map_err(|errno| {
                let advice = "pass the name of an interface of this machine (ip link show type can), or make one (ip link add dev vcan0 type vcan)";
                let what = format!("find interface_ = {interface:?}");
                Failure::syscall("ioctl", errno, &what, advice)
            })?;
        let address = Interface::new(i32::try_from(index).unwrap_or(-1));
        rustix::net::bind(&socket, &address).map_err(|errno| {
            let advice = match errno {
                Errno::NODEV => "pass the name of a CAN interface (ip link show type can)",
                Errno::NETDOWN => "bring the interface up first (ip link set NAME up)",
                _ => "see bind(2) and the kernel's documentation of SocketCAN",
            };
            let what = format!("use interface_ = {interface:?} for CAN");
            Failure::syscall("bind", errno, &what, advice)
        })?;
        Ok(give(&env, socket))
    })
}

fn no_can(errno: Errno) -> Failure {
    let reason = match errno {
        Errno::AFNOSUPPORT => "this kernel has no CAN (CONFIG_CAN)",
        Errno::PROTONOSUPPORT => "this kernel has no raw CAN sockets (CONFIG_CAN_RAW)",
        Errno::PERM | Errno::ACCESS => "this sandbox allows no CAN sockets",
        _ => {
            return Failure::syscall("socket", errno, "make a CAN socket", "see socket(2)");
        }
    };
    Failure {
        code: ErrorCode::Unsupported,
        message: format!(
            "a CAN socket is refused: {reason}: {errno}; load the modules can and can_raw, or use a kernel and container that have them"
        ),
        errno: Some(errno.raw_os_error()),
        syscall: Some("socket"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_can_the_reason_is_said() {
        for (errno, word) in [
            (Errno::AFNOSUPPORT, "CONFIG_CAN)"),
            (Errno::PROTONOSUPPORT, "CONFIG_CAN_RAW"),
            (Errno::PERM, "sandbox"),
        ] {
            let failure = no_can(errno);
            assert_eq!(failure.code, ErrorCode::Unsupported);
            assert_eq!(failure.errno, Some(errno.raw_os_error()));
            assert!(failure.message.contains(word), "{}", failure.message);
        }
        assert_eq!(no_can(Errno::NOBUFS).code, ErrorCode::Syscall);
    }

    #[test]
    fn an_address_is_a_whole_sockaddr_can() {
        let interface = Interface::new(7);
        // SAFETY: only looks at the numbers.
        let length = unsafe { interface.with_sockaddr(|_, length| length) };
        assert_eq!(length, 24);
        assert_eq!((interface.0.can_family, interface.0.can_ifindex), (29, 7));
    }
}
