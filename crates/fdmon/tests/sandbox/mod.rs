//! A seccomp(2) profile that refuses single system calls, as containers do; for tests alone.

use rustix::io::Errno;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter};

/// Their numbers are the same on every architecture.
const CALLS: [(&str, i64); 4] = [
    ("io_uring_setup", 425),
    ("io_uring_enter", 426),
    ("io_uring_register", 427),
    ("epoll_pwait2", 441),
];

macro_rules! errnos {
    ($($name:literal $value:ident,)*) => {
        const ERRNOS: &[(&str, Errno)] = &[$(($name, Errno::$value),)*];
    };
}

errnos! {
    "EACCES" ACCESS, "EADDRINUSE" ADDRINUSE, "EADDRNOTAVAIL" ADDRNOTAVAIL, "EAFNOSUPPORT" AFNOSUPPORT,
    "EAGAIN" AGAIN, "EALREADY" ALREADY, "EBADF" BADF, "EBADFD" BADFD, "EBADR" BADR, "EBUSY" BUSY,
    "ECANCELED" CANCELED, "ECONNABORTED" CONNABORTED, "ECONNREFUSED" CONNREFUSED,
    "ECONNRESET" CONNRESET, "EDESTADDRREQ" DESTADDRREQ, "EDQUOT" DQUOT, "EEXIST" EXIST,
    "EFBIG" FBIG, "EFAULT" FAULT, "EINTR" INTR, "EINVAL" INVAL, "EIO" IO, "EISCONN" ISCONN,
    "EISDIR" ISDIR, "ELOOP" LOOP, "EMFILE" MFILE, "EMSGSIZE" MSGSIZE, "ENAMETOOLONG" NAMETOOLONG,
    "ENETDOWN" NETDOWN, "ENFILE" NFILE, "ENOBUFS" NOBUFS, "ENODEV" NODEV, "ENOENT" NOENT,
    "ENOMEM" NOMEM, "ENOPROTOOPT" NOPROTOOPT, "ENOSPC" NOSPC, "ENOSYS" NOSYS, "ENOTCONN" NOTCONN,
    "ENOTDIR" NOTDIR, "ENOTSOCK" NOTSOCK, "ENOTTY" NOTTY, "ENXIO" NXIO, "EOPNOTSUPP" OPNOTSUPP,
    "EOVERFLOW" OVERFLOW, "EPERM" PERM, "EPIPE" PIPE, "EPROTO" PROTO,
    "EPROTONOSUPPORT" PROTONOSUPPORT, "EPROTOTYPE" PROTOTYPE, "EROFS" ROFS, "ESRCH" SRCH,
    "ETIMEDOUT" TIMEDOUT, "ETOOMANYREFS" TOOMANYREFS, "ETXTBSY" TXTBSY,
}

/// The errno of this name.
pub fn errno_named(name: &str) -> Result<Errno, String> {
    find("errno", name, ERRNOS)
}

/// One call that is answered with one errno.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    call: i64,
    errno: Errno,
}

impl std::str::FromStr for Refused {
    type Err = String;

    /// `io_uring_setup=EPERM`
    fn from_str(pair: &str) -> Result<Self, String> {
        let (call, errno) = pair
            .split_once('=')
            .ok_or_else(|| format!("'{pair}' is not a pair such as io_uring_setup=EPERM"))?;
        Ok(Self { call: find("call", call, &CALLS)?, errno: errno_named(errno)? })
    }
}

/// What stands beside this name.
pub fn find<T: Copy>(what: &str, name: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(known, _)| *known == name);
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("{what} '{name}' is unknown; use {}", names.join(", ")))
}

/// From now on this thread, what it starts and what it becomes are refused these calls.
pub fn refuse(refused: &[Refused]) -> Result<(), String> {
    for one in refused {
        // A filter has one errno; several of them add up.
        let program = program(*one).map_err(|error| error.to_string())?;
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn program(Refused { call, errno }: Refused) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(
        [(call, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.raw_os_error().unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}
