//! Which call of a command fails, by its number: what a supervisor needs to know; for tests alone.
//!
//! The calls of the thread that does `kill(getpid(), 0)` are counted, from then on until it does so
//! again.

use std::fs::read_link;
use std::str::FromStr;

use rustix::io::Errno;

use crate::sandbox::{errno_named, find};
use crate::supervise::{Answer, Call};

/// Names, as man pages have them, and the numbers that stand for them.
const CALLS: &[(&str, &[i64])] = &[
    ("accept4", &[libc::SYS_accept4]),
    ("bind", &[libc::SYS_bind]),
    ("close", &[libc::SYS_close]),
    ("connect", &[libc::SYS_connect]),
    ("epoll_create1", &[libc::SYS_epoll_create1]),
    ("epoll_ctl", &[libc::SYS_epoll_ctl]),
    ("epoll_wait", &[libc::SYS_epoll_pwait]),
    ("eventfd2", &[libc::SYS_eventfd2]),
    ("fcntl", &[libc::SYS_fcntl]),
    ("fstat", &[libc::SYS_fstat]),
    ("ftruncate", &[libc::SYS_ftruncate]),
    ("getsockopt", &[libc::SYS_getsockopt]),
    ("inotify_add_watch", &[libc::SYS_inotify_add_watch]),
    ("inotify_init1", &[libc::SYS_inotify_init1]),
    ("inotify_rm_watch", &[libc::SYS_inotify_rm_watch]),
    ("io_uring_enter", &[libc::SYS_io_uring_enter]),
    ("io_uring_register", &[libc::SYS_io_uring_register]),
    ("io_uring_setup", &[libc::SYS_io_uring_setup]),
    ("ioctl", &[libc::SYS_ioctl]),
    ("listen", &[libc::SYS_listen]),
    ("memfd_create", &[libc::SYS_memfd_create]),
    ("mmap", &[libc::SYS_mmap]),
    ("open", &[libc::SYS_openat]),
    ("pidfd_open", &[libc::SYS_pidfd_open]),
    ("pipe2", &[libc::SYS_pipe2]),
    ("ppoll", &[libc::SYS_ppoll]),
    ("read", &[libc::SYS_read]),
    ("readlink", &[libc::SYS_readlinkat, READLINK]),
    ("recvmsg", &[libc::SYS_recvmsg]),
    ("sendmsg", &[libc::SYS_sendmsg]),
    ("sigaction", &[libc::SYS_rt_sigaction]),
    ("socket", &[libc::SYS_socket]),
    ("socketpair", &[libc::SYS_socketpair]),
    ("timerfd_create", &[libc::SYS_timerfd_create]),
    ("timerfd_settime", &[libc::SYS_timerfd_settime]),
    ("write", &[libc::SYS_write]),
];

/// Newer architectures have only readlinkat(2).
#[cfg(target_arch = "x86_64")]
const READLINK: i64 = libc::SYS_readlink;
#[cfg(not(target_arch = "x86_64"))]
const READLINK: i64 = libc::SYS_readlinkat;

/// What a call is for: the value of one of its arguments.
const OPERATIONS: &[(&str, i64, usize, u64)] = &[
    ("add", libc::SYS_epoll_ctl, 1, 1),
    ("del", libc::SYS_epoll_ctl, 1, 2),
    ("mod", libc::SYS_epoll_ctl, 1, 3),
    ("dupfd", libc::SYS_fcntl, 1, libc::F_DUPFD_CLOEXEC as u64),
    ("getfd", libc::SYS_fcntl, 1, libc::F_GETFD as u64),
    ("getfl", libc::SYS_fcntl, 1, libc::F_GETFL as u64),
    ("setfl", libc::SYS_fcntl, 1, libc::F_SETFL as u64),
    ("add_seals", libc::SYS_fcntl, 1, libc::F_ADD_SEALS as u64),
    ("get_seals", libc::SYS_fcntl, 1, libc::F_GET_SEALS as u64),
    ("fionread", libc::SYS_ioctl, 1, libc::FIONREAD),
    ("siocgifindex", libc::SYS_ioctl, 1, libc::SIOCGIFINDEX),
    ("shared", libc::SYS_mmap, 3, libc::MAP_SHARED as u64),
];

/// Whether the first argument leads to such a file: what its link in /proc begins with.
const FILES: &[(&str, &str)] = &[
    ("epoll", "anon_inode:[eventpoll]"),
    ("eventfd", "anon_inode:[eventfd]"),
    ("inotify", "anon_inode:inotify"),
    ("io_uring", "anon_inode:[io_uring]"),
    ("memfd", "/memfd:"),
    ("pipe", "pipe:"),
    ("proc", "/proc/"),
    ("socket", "socket:"),
    ("timerfd", "anon_inode:[timerfd]"),
];

#[derive(Clone, Copy, Debug)]
enum Filter {
    None,
    Operation(usize, u64),
    File(&'static str),
}

/// `epoll_ctl:add@2=ENOMEM`: the second such call. `@2+`: it and all that follow.
#[derive(Clone, Debug)]
pub struct Nth {
    pub text: String,
    numbers: &'static [i64],
    filter: Filter,
    errno: Errno,
    nth: u32,
    and_later: bool,
    seen: u32,
    pub hits: u32,
}

impl FromStr for Nth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a rule such as epoll_ctl:add@2=ENOMEM");
        let (place, errno) = text.split_once('=').ok_or_else(wrong)?;
        let (call, nth) = place.split_once('@').ok_or_else(wrong)?;
        let (call, filter) = call.split_once(':').unwrap_or((call, ""));
        let numbers = find("call", call, CALLS)?;
        let operation =
            OPERATIONS.iter().find(|(name, of, ..)| *name == filter && numbers[0] == *of);
        let filter = match operation {
            _ if filter.is_empty() => Filter::None,
            Some(&(_, _, argument, value)) => Filter::Operation(argument, value),
            None => Filter::File(find("file", filter, FILES)?),
        };
        let and_later = nth.ends_with('+');
        let nth = nth.trim_end_matches('+').parse().map_err(|_| wrong())?;
        let errno = errno_named(errno)?;
        Ok(Self { text: text.into(), numbers, filter, errno, nth, and_later, seen: 0, hits: 0 })
    }
}

impl Nth {
    fn concerns(&self, call: &Call) -> bool {
        self.numbers.contains(&call.number)
            && match self.filter {
                Filter::None => true,
                Filter::Operation(argument, value) => call.args[argument] == value,
                Filter::File(kind) => {
                    let link = format!("/proc/{}/fd/{}", call.thread, call.args[0] as u32);
                    read_link(link).is_ok_and(|to| to.to_string_lossy().starts_with(kind))
                }
            }
    }
}

/// Rules, and whose calls are counted.
#[derive(Debug, Default)]
pub struct Rules {
    pub all: Vec<Nth>,
    thread: Option<u32>,
}

impl Rules {
    /// The calls that must be asked about.
    pub fn numbers(&self) -> Vec<i64> {
        let mut numbers: Vec<i64> =
            self.all.iter().flat_map(|rule| rule.numbers).copied().collect();
        numbers.push(libc::SYS_kill);
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    pub fn decide(&mut self, call: &Call) -> Answer {
        if call.number == libc::SYS_kill {
            let is_mark = call.args[1] == 0 && call.args[0] == u64::from(call.thread);
            if is_mark {
                self.thread = if self.thread.is_none() { Some(call.thread) } else { None };
            }
            return Answer::GoesOn;
        }
        if self.thread != Some(call.thread) {
            return Answer::GoesOn;
        }
        let mut answer = Answer::GoesOn;
        // Each counts each call, though the first one answers.
        for rule in self.all.iter_mut().filter(|rule| rule.concerns(call)) {
            rule.seen += 1;
            let hit = rule.seen == rule.nth || (rule.and_later && rule.seen > rule.nth);
            if hit && answer == Answer::GoesOn {
                rule.hits += 1;
                answer = Answer::Fails(rule.errno);
            }
        }
        answer
    }
}
