//! A seccomp(2) filter that asks a supervisor about single system calls; for tests alone.
//!
//! The filter belongs to the thread that installs it and to what that thread starts; the supervisor
//! is another thread and is not asked itself. It sees the number and the arguments of each call, and
//! lets it go on or fails it with an errno of its choice, so it can count: see seccomp_unotify(2).

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The name that the filter knows this machine by (linux/audit.h).
const ARCH: u32 = if cfg!(target_arch = "aarch64") { 0xC000_00B7 } else { 0xC000_003E };

/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
const SYNC_WAKE_UP: u64 = 1;

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    id: u64,
    /// The thread that makes it.
    pub thread: u32,
    pub number: i64,
    pub args: [u64; 6],
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    GoesOn,
    Fails(Errno),
}

/// What a supervisor hears.
#[derive(Debug)]
pub enum Heard {
    Call(Call),
    /// Nobody asked for this long.
    Nothing,
    /// The last thread of the filter has ended.
    Over,
}

/// The supervisor's end of a filter.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// Which calls are asked about.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "a program that shares this file asks in one way")]
pub enum Asks<'a> {
    About(&'a [i64]),
    AboutAllBut(&'a [i64]),
}

/// From now on this thread, what it starts and what it becomes ask before these calls.
///
/// Nothing is allocated after the filter is in force, so that any call may be among them.
pub fn supervise(asks: Asks<'_>) -> io::Result<Listener> {
    let (calls, named, others) = match asks {
        Asks::About(calls) => (calls, libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW),
        Asks::AboutAllBut(calls) => (calls, libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF),
    };
    let jump = |code: u32, k: u32, then: u8, otherwise: u8| libc::sock_filter {
        code: code as u16,
        jt: then,
        jf: otherwise,
        k,
    };
    let load =
        |offset: usize| jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0, 0);
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = |action: u32| jump(libc::BPF_RET | libc::BPF_K, action, 0, 0);
    let mut program = vec![
        load(std::mem::offset_of!(libc::seccomp_data, arch)),
        jump(equal, ARCH, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        load(std::mem::offset_of!(libc::seccomp_data, nr)),
    ];
    for (at, &call) in calls.iter().enumerate() {
        program.push(jump(equal, call as u32, (calls.len() - at) as u8, 0));
    }
    program.push(answer(others));
    program.push(answer(named));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true)?;
    let install = |flags: libc::c_ulong| {
        let operation = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel reads the program during the call.
        unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const filter) }
    };
    let listens = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // Who was heard is not interrupted. The work that a ring does in its thread would do so, and the
    // call would be made anew, without the answer.
    let mut fd = install(listens | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    if fd < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        fd = install(listens); // before Linux 5.19
    }
    match i32::try_from(fd) {
        // SAFETY: a new descriptor, close-on-exec, that nobody else knows.
        Ok(fd) if fd >= 0 => Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Listener {
    /// Who asks and who answers take turns, so the CPU of one serves both soonest. For the thread
    /// that answers. Without it (before Linux 6.6) all takes longer and is the same.
    pub fn take_turns(&self) {
        let (fd, request) = (self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS);
        // SAFETY: the argument is a number.
        unsafe { libc::ioctl(fd, request, SYNC_WAKE_UP) };
    }

    /// The next call, waited for at most this long.
    pub fn hear(&self, timeout: Duration) -> Heard {
        let timeout = Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&timeout)).unwrap_or(0);
        if ready == 0 {
            return Heard::Nothing;
        }
        if !fds[0].revents().contains(PollFlags::IN) {
            return Heard::Over;
        }
        // SAFETY: all zero is what the kernel wants to find there.
        let mut asked: libc::seccomp_notif = unsafe { zeroed() };
        let (fd, request) = (self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV);
        // SAFETY: the kernel fills the structure during the call.
        if unsafe { libc::ioctl(fd, request, &raw mut asked) } != 0 {
            return Heard::Nothing; // who asked was interrupted, and asks anew
        }
        Heard::Call(Call {
            id: asked.id,
            thread: asked.pid,
            number: asked.data.nr.into(),
            args: asked.data.args,
        })
    }

    pub fn answer(&self, call: &Call, answer: Answer) {
        let (error, flags) = match answer {
            Answer::GoesOn => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Fails(errno) => (-errno.raw_os_error(), 0),
        };
        let response = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        let (fd, request) = (self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND);
        // SAFETY: the kernel reads the structure during the call. It fails when who asked is gone.
        unsafe { libc::ioctl(fd, request, &raw const response) };
    }
}
