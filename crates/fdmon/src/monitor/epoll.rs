//! ② The epoll monitor: the kernel keeps the set, a wait costs what is ready.
//!
//! Limits: epoll refuses files without a poll operation (EPERM: regular files, directories);
//! these are always ready and are kept in a set of our own. A timeout is waited for in whole
//! milliseconds by epoll_wait(2), so that an event before the deadline costs one call, and the
//! rest of it by ppoll(2) on the epoll fd, which is exact to the nanosecond on every kernel.

use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;

use super::{FdMonitor, MonitorToken, Sink, borrow, busy_poll, is_open, timespec};
use crate::config::BusyPoll;
use crate::interest::{Events, Interest};

const NO_EVENT: epoll::Event =
    epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };

/// The longest timeout that epoll_wait takes.
const LONGEST_MS: u64 = i32::MAX as u64;
const MILLISECOND: u64 = 1_000_000;

pub(crate) struct EpollMonitor {
    epoll: OwnedFd,
    /// Room for an event of every watched fd, so that one call fetches all that is ready.
    buffer: Vec<epoll::Event>,
    watched: usize,
    /// Files that epoll refuses because they are always ready to be read and written…
    always: Vec<(MonitorToken, RawFd, Interest)>,
    /// …and how many of them anybody wants to read or write.
    always_ready: usize,
}

impl EpollMonitor {
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            buffer: vec![NO_EVENT; 16],
            watched: 1, // the notifier
            always: Vec::new(),
            always_ready: 0,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Some watched file is always ready, so the epoll fd alone does not tell.
    pub fn has_always_ready(&self) -> bool {
        self.always_ready != 0
    }

    /// The notifier is watched edge-triggered: each write is an edge, so it never needs a read.
    pub fn watch_notifier(&mut self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let data = epoll::EventData::new_u64(MonitorToken::NOTIFIER.0);
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN | epoll::EventFlags::ET)
    }

    /// The timeout for epoll_wait, 0 where something is ready; `None` = it has passed. Where ppoll
    /// is refused, epoll_wait waits a little longer instead.
    #[inline(never)]
    fn whole_milliseconds(&self, timeout: Option<u64>) -> Result<Option<Option<u64>>, Errno> {
        if self.always_ready != 0 {
            return Ok(Some(Some(0)));
        }
        let Some(ns) = timeout.filter(|ns| *ns < MILLISECOND) else {
            let longest = LONGEST_MS * MILLISECOND; // the caller goes on with what is left
            return Ok(Some(timeout.map(|ns| (ns - ns % MILLISECOND).min(longest))));
        };
        let mut own = [PollFd::new(&self.epoll, PollFlags::IN)];
        match poll(&mut own, Some(&timespec(ns))) {
            Ok(ready) => Ok((ready > 0).then_some(Some(0))),
            Err(Errno::INTR) => Err(Errno::INTR),
            Err(_) => Ok(Some(Some(MILLISECOND))),
        }
    }

    fn count_always_ready(&mut self) {
        let served = Interest::READ | Interest::WRITE;
        self.always_ready = self.always.iter().filter(|(.., i)| i.intersects(served)).count();
    }

    /// A closed fd is noticed here, since no kernel set holds it.
    #[cold]
    fn report_always_ready(&self, sink: &mut impl Sink) {
        for &(token, fd, interest) in &self.always {
            let events = interest.to_events() & (Events::IN | Events::OUT);
            match is_open(fd) {
                true if events.is_empty() => {}
                true => sink.ready(token, events),
                false => sink.ready(token, Events::NVAL),
            }
        }
    }

    fn add(&mut self, token: MonitorToken, fd: RawFd, new: Interest) -> Result<(), Errno> {
        let data = epoll::EventData::new_u64(token.0);
        self.watched += 1;
        if self.buffer.len() < self.watched {
            self.buffer.resize(self.watched.next_power_of_two(), NO_EVENT);
        }
        match epoll::add(&self.epoll, borrow(fd), data, flags(new)) {
            // A number that was closed and opened again while a duplicate kept the old file.
            Err(Errno::EXIST) => epoll::modify(&self.epoll, borrow(fd), data, flags(new)),
            Err(Errno::PERM) => {
                self.watched -= 1;
                self.always.push((token, fd, new));
                self.count_always_ready();
                Ok(())
            }
            Err(refusal) => {
                self.watched -= 1;
                Err(refusal)
            }
            Ok(()) => Ok(()),
        }
    }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    epoll::EventFlags::from_bits_retain(interest.to_events().bits())
}

impl FdMonitor for EpollMonitor {
    const SEES_READINESS: bool = false;

    fn update(
        &mut self,
        token: MonitorToken,
        fd: RawFd,
        old: Interest,
        new: Interest,
    ) -> Result<(), Errno> {
        if old.is_empty() {
            return if new.is_empty() { Ok(()) } else { self.add(token, fd, new) };
        }
        if let Some(at) = self.always.iter().position(|(t, ..)| *t == token) {
            if new.is_empty() {
                self.always.swap_remove(at);
            } else {
                self.always[at].2 = new;
            }
            self.count_always_ready();
            return Ok(());
        }
        if new.is_empty() {
            self.watched -= 1;
            // Closed already, or the number means another file now: it is gone either way.
            return match epoll::delete(&self.epoll, borrow(fd)) {
                Err(Errno::BADF | Errno::NOENT | Errno::PERM) => Ok(()),
                other => other,
            };
        }
        let data = epoll::EventData::new_u64(token.0);
        match epoll::modify(&self.epoll, borrow(fd), data, flags(new)) {
            Err(Errno::NOENT) => {
                self.watched -= 1;
                self.add(token, fd, new)
            }
            Err(Errno::BADF) => {
                self.watched -= 1;
                Err(Errno::BADF)
            }
            other => other,
        }
    }

    #[inline(always)] // the quick turn and the full one each have their own
    fn wait(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        let timeout = match timeout {
            None | Some(0) if self.always_ready == 0 => timeout,
            timeout => match self.whole_milliseconds(timeout)? {
                Some(timeout) => timeout,
                None => return Ok(()),
            },
        };
        let timeout = timeout.map(timespec);
        let count = epoll::wait(&self.epoll, &mut self.buffer[..], timeout.as_ref())?;
        for event in self.buffer.get(..count).unwrap_or_default() {
            let (data, events) = (event.data, event.flags);
            sink.ready(MonitorToken(data.u64()), Events::from_bits_retain(events.bits()));
        }
        if self.always_ready != 0 {
            self.report_always_ready(sink);
        }
        Ok(())
    }

    fn busy_poll(&mut self, params: Option<BusyPoll>) -> Result<(), Errno> {
        busy_poll::set_on_epoll(self.fd(), params)
    }
}
