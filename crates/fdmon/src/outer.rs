//! What an outer loop watches of a context: a set of epoll, and a timerfd for deadlines.

use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::embed::OuterLoop;
use crate::error::{Error, Result};
use crate::interest::Interest;
use crate::monitor::{Monitor, MonitorToken, borrow, timespec};
use crate::turn::Plan;

/// Deadlines closer than this are met by the timerfd.
const MILLISECOND: u64 = 1_000_000;

/// The side for an outer loop.
pub(crate) struct Outer {
    /// What the outer loop watches, the same for ever.
    epoll: OwnedFd,
    /// Under poll, a set within that set that holds the fds; it can be replaced.
    fds: Option<OwnedFd>,
    timer: OwnedFd,
    /// The time for which it is set, or was when it expired.
    pub timer_at: Option<u64>,
    /// Fds that epoll does not take: as long as there are any, `prepare` returns 0.
    pub unwatched: Vec<MonitorToken>,
    /// So it does while what wakes the context could not be put into a set, which it tries anew.
    pub unseen: bool,
    /// Between prepare and check: the turn that is going on, and how many turns there were then.
    pub plan: Option<(Plan, u64)>,
    pub around: OuterLoop,
    /// Somebody watches the set of the context's own, not what is behind it.
    pub whole: bool,
    /// How often it was filled anew.
    pub version: u64,
}

impl Outer {
    pub fn new() -> Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| Error::syscall("epoll_create1", errno, "see epoll_create1(2)"))?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(|errno| Error::syscall("timerfd_create", errno, "see timerfd_create(2)"))?;
        Ok(Self {
            epoll: set,
            fds: None,
            timer,
            timer_at: None,
            unwatched: Vec::new(),
            unseen: false,
            plan: None,
            around: OuterLoop::default(),
            whole: false,
            version: 0,
        })
    }

    /// The fd of the context's own set.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    pub fn watch(&self, fd: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        match epoll::add(&self.epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Sets the timer for a sleep until `deadline`. One that is set already is left alone where it
    /// is early enough: it wakes once too often, and saves a system call each time a deadline is
    /// put off.
    pub fn set_timer(&mut self, deadline: Option<u64>, now: u64) -> std::result::Result<(), Errno> {
        let deadline = deadline.filter(|deadline| {
            self.around.keeps_no_time || deadline.saturating_sub(now) < MILLISECOND
        });
        match (self.timer_at, deadline) {
            (None, None) => return Ok(()),
            (Some(at), Some(deadline)) if at > now && at <= deadline => return Ok(()),
            (Some(at), None) if at > now && self.around.keeps_no_time => return Ok(()),
            _ => self.timer_at = Some(0), // as it is, it is of no use
        }
        let ns = deadline.map_or(0, |deadline| deadline.saturating_sub(now).max(1));
        let spec =
            Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: timespec(ns) };
        // Also takes back an expiry that nobody has read.
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec) {
            Ok(_) => self.timer_at = deadline,
            Err(errno) if deadline.is_some() => return Err(errno),
            Err(_) => {} // it wakes the outer loop once more, and is taken back then
        }
        Ok(())
    }

    /// What is readable when an fd of the context is.
    pub fn events<'a>(&'a self, monitor: &'a Monitor) -> BorrowedFd<'a> {
        // Under poll without an fd left for its set, `prepare` returns 0.
        monitor.fd().unwrap_or_else(|| self.fds.as_ref().unwrap_or(&self.epoll).as_fd())
    }

    /// The outer loop has something to do itself.
    pub fn has_other_work(&self) -> bool {
        let Some(fd) = &self.around.fd else { return false };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        poll(&mut fds, Some(&timespec(0))).is_ok_and(|ready| ready > 0)
    }

    /// `false` = the set holds something that cannot be taken out: a closed fd of which a
    /// duplicate lives.
    #[must_use]
    pub fn update(&mut self, token: MonitorToken, fd: RawFd, old: Interest, new: Interest) -> bool {
        let Some(set) = &self.fds else { return true };
        let events = epoll::EventFlags::from_bits_retain(new.to_events().bits());
        let data = epoll::EventData::new_u64(0);
        if let Some(at) = self.unwatched.iter().position(|t| *t == token) {
            if new.is_empty() {
                self.unwatched.swap_remove(at);
            }
        } else if new.is_empty() {
            return epoll::delete(set, borrow(fd)).is_ok();
        } else if !old.is_empty() {
            return epoll::modify(set, borrow(fd), data, events).is_ok();
        } else if let Err(errno) = epoll::add(set, borrow(fd), data, events) {
            if errno == Errno::EXIST {
                return false; // a number that was closed and opened again
            }
            self.unwatched.push(token);
        }
        true
    }

    /// Empties it for what the monitor that runs needs. `true` = that has no fd of its own, and
    /// every fd is to be put in.
    #[must_use]
    pub fn begin_anew(&mut self, own: Option<BorrowedFd<'_>>, notifier: BorrowedFd<'_>) -> bool {
        self.version += 1;
        self.unwatched.clear();
        self.fds = None; // closing a set takes it out of the outer one
        if let Some(own) = own {
            self.unseen = self.whole && self.watch(own).is_err();
            return false;
        }
        let Ok(set) = epoll::create(epoll::CreateFlags::CLOEXEC) else {
            self.unseen = true; // no fd is left
            return false;
        };
        let data = epoll::EventData::new_u64(0);
        let refused = epoll::add(&set, notifier, data, epoll::EventFlags::IN).is_err();
        self.unseen = refused || (self.whole && self.watch(set.as_fd()).is_err());
        self.fds = Some(set);
        true
    }
}
