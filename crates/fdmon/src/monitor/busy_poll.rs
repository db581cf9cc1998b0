//! ② Kernel busy polling of network queues: a sleep begins with asking the network card's queue.
//!
//! Opt-in, since the kernel spins there. On epoll by ioctl_eventpoll(2), on a ring by
//! IORING_REGISTER_NAPI (which has no budget of its own), both from Linux 6.9 on, for sockets with
//! a NAPI queue. Limits: it is at work only while the loop itself sleeps, in epoll_wait(2) or
//! io_uring_enter(2). Not in what is left of a timeout below a millisecond, for which epoll waits
//! by ppoll(2), and not while an outer loop sleeps, which has a set of its own.

use rustix::io::Errno;

use super::refusal::Refusal;
use super::{FdMonitor, Monitor, switch};
use crate::config::{BusyPoll, MonitorKind};
use crate::context::State;
use crate::error::{Error, Result, errno_name};
use crate::registry::Hints;
use crate::remote::{Shared, lock};

pub(crate) const BUSY_POLL_REASON: &str = "auto: epoll, since kernel busy polling was asked for";

/// What follows in `monitor_reason` when it was asked for and the monitor does not do it.
const OFF: &str = "; kernel busy polling is off: ";

/// A queue is asked for at most this many packets without CAP_NET_ADMIN (NAPI_POLL_WEIGHT).
const FREE_BUDGET: u16 = 64;

#[cfg(epoll)]
pub(super) use set::on_epoll as set_on_epoll;

/// Why it cannot be had, and what to do.
fn explain(kind: MonitorKind, budget: u16, errno: Errno) -> (&'static str, &'static str) {
    match (kind, errno) {
        (MonitorKind::Wasi, _) => ("a WebAssembly build cannot do it", "leave it out"),
        (MonitorKind::Poll, _) => (
            "monitor 'poll' cannot do it",
            "ask for monitor 'epoll' or 'io_uring', or leave it out",
        ),
        (MonitorKind::IoUring, Errno::INVAL) => {
            ("this kernel's rings cannot do it", "use Linux 6.9 or newer, or leave it out")
        }
        (_, Errno::NOTTY) => {
            ("this kernel's epoll cannot do it", "use Linux 6.9 or newer, or leave it out")
        }
        (_, Errno::OPNOTSUPP) => (
            "this kernel cannot do it",
            "use one that is built with CONFIG_NET_RX_BUSY_POLL, or leave it out",
        ),
        (MonitorKind::Epoll, Errno::PERM) if budget > FREE_BUDGET => (
            "a budget above 64 needs CAP_NET_ADMIN",
            "pass a budget of at most 64, or grant the capability",
        ),
        (_, Errno::INVAL) => (
            "this kernel does not take these values",
            "pass fewer usecs or a smaller budget, or leave it out",
        ),
        _ => ("the kernel says no", "allow it in the sandbox, or leave it out"),
    }
}

fn refused(kind: MonitorKind, params: Option<BusyPoll>, errno: Errno) -> Error {
    let value = params.map_or_else(|| String::from("off"), |params| params.to_string());
    let (why, what_to_do) = explain(kind, params.map_or(0, |params| params.budget), errno);
    if matches!(kind, MonitorKind::Poll | MonitorKind::Wasi) {
        return Error::unsupported(format!(
            "kernel_busy_poll = {value} is refused: {why}; {what_to_do}"
        ));
    }
    let name = errno_name(errno);
    let message = format!("kernel_busy_poll = {value} is refused: {why} ({name}); {what_to_do}");
    let call = if kind == MonitorKind::IoUring { "io_uring_register" } else { "ioctl" };
    Error::refused(message, call, errno)
}

/// `auto` cannot move to epoll, which busy polling needs.
fn no_epoll(params: BusyPoll, Refusal { call, errno }: Refusal) -> Error {
    let message = format!(
        "kernel_busy_poll = {params} is refused: it needs epoll, and {call} failed with {}; \
         leave it out, or ask for monitor 'epoll' to see what is in the way",
        errno_name(errno)
    );
    Error::refused(message, call, errno)
}

impl State {
    /// Brings the monitor in line with new parameters; after an error the old ones are in force.
    pub(crate) fn set_busy_poll(
        &mut self,
        shared: &Shared,
        wanted: Option<BusyPoll>,
    ) -> Result<()> {
        if wanted == self.spin.params.kernel_busy_poll {
            return Ok(());
        }
        if let Err(errno) = self.monitor.busy_poll(wanted) {
            let may_move = self.may_move_up || matches!(self.monitor, Monitor::IoUring(_));
            match wanted.filter(|_| self.auto && may_move) {
                Some(params) => self.move_for_busy_poll(shared, params)?,
                None => return Err(refused(self.monitor.kind(), wanted, errno)),
            }
        }
        self.spin.params.kernel_busy_poll = wanted;
        note(shared, None);
        Ok(())
    }

    /// `auto` goes to epoll: at once or, from poll in a nested turn, when the next outermost one
    /// begins.
    fn move_for_busy_poll(&mut self, shared: &Shared, params: BusyPoll) -> Result<()> {
        let mut set = switch::epoll(shared).map_err(|refusal| no_epoll(params, refusal))?;
        set.busy_poll(Some(params)).map_err(|e| refused(MonitorKind::Epoll, Some(params), e))?;
        if self.depth > 1 && matches!(self.monitor, Monitor::Poll(_)) {
            self.reg.hints.set(Hints::MOVE_UP);
            return Ok(());
        }
        let monitor =
            self.fill(Monitor::Epoll(set)).map_err(|refusal| no_epoll(params, refusal))?;
        self.may_move_up = false;
        self.monitor = monitor;
        self.fill_outer(shared);
        shared.set_monitor(MonitorKind::Epoll, BUSY_POLL_REASON.into());
        Ok(())
    }

    /// After a move to another monitor or to a new set: it goes on there, or the reason says that
    /// it does not.
    pub(super) fn renew_busy_poll(&mut self, shared: &Shared) {
        let Some(params) = self.spin.params.kernel_busy_poll else { return };
        let refusal = self.monitor.busy_poll(Some(params)).err();
        let kind = self.monitor.kind();
        note(shared, refusal.map(|errno| explain(kind, params.budget, errno).0));
    }
}

fn note(shared: &Shared, off: Option<&str>) {
    let reason = &mut lock(&shared.monitor).1;
    reason.truncate(reason.find(OFF).unwrap_or(reason.len()));
    if let Some(why) = off {
        reason.push_str(OFF);
        reason.push_str(why);
    }
}

#[cfg(epoll)]
mod set {
    use rustix::fd::BorrowedFd;
    use rustix::io::Errno;
    use rustix::ioctl::{self, Setter, opcode};

    use crate::config::BusyPoll;

    /// `struct epoll_params` of linux/eventpoll.h.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EpollParams {
        pub busy_poll_usecs: u32,
        pub busy_poll_budget: u16,
        pub prefer_busy_poll: u8,
        /// Must be 0.
        pub pad: u8,
    }

    const EPIOCSPARAMS: ioctl::Opcode = opcode::write::<EpollParams>(0x8A, 0x01);

    /// Sets the parameters of an epoll set; `None` = off.
    #[allow(unsafe_code)]
    pub fn on_epoll(epoll: BorrowedFd<'_>, params: Option<BusyPoll>) -> Result<(), Errno> {
        let params = EpollParams {
            busy_poll_usecs: params.map_or(0, |params| params.usecs),
            busy_poll_budget: params.map_or(0, |params| params.budget),
            prefer_busy_poll: params.is_some_and(|params| params.prefer).into(),
            pad: 0,
        };
        // SAFETY: EPIOCSPARAMS reads a `struct epoll_params`, which `EpollParams` is.
        let request = unsafe { Setter::<EPIOCSPARAMS, EpollParams>::new(params) };
        // SAFETY: the fd is an epoll set, so the kernel takes the number as no other request; it only
        // reads the structure, during the call.
        unsafe { ioctl::ioctl(epoll, request) }
    }
}

#[cfg(all(test, epoll))]
mod tests {
    use rustix::fd::BorrowedFd;
    use rustix::ioctl::{self, Getter, opcode};

    use super::super::epoll::EpollMonitor;
    use super::set::EpollParams;
    use super::*;

    const EPIOCGPARAMS: ioctl::Opcode = opcode::read::<EpollParams>(0x8A, 0x02);

    #[allow(unsafe_code)]
    fn in_force(epoll: BorrowedFd<'_>) -> std::result::Result<EpollParams, Errno> {
        // SAFETY: EPIOCGPARAMS writes a `struct epoll_params`, which `EpollParams` is.
        let request = unsafe { Getter::<EPIOCGPARAMS, EpollParams>::new() };
        // SAFETY: the fd is an epoll set; the kernel writes the structure and nothing else.
        unsafe { ioctl::ioctl(epoll, request) }
    }

    fn raw(usecs: u32, budget: u16, prefer: u8) -> EpollParams {
        EpollParams {
            busy_poll_usecs: usecs,
            busy_poll_budget: budget,
            prefer_busy_poll: prefer,
            pad: 0,
        }
    }

    /// SPEC 30
    #[test]
    fn the_kernel_has_what_the_epoll_monitor_was_told() {
        let mut monitor = EpollMonitor::new().unwrap();
        let offered = in_force(monitor.fd());
        let cases = [
            (Some(BusyPoll { usecs: 50, budget: 8, prefer: true }), raw(50, 8, 1)),
            (Some(BusyPoll { usecs: 1, budget: 64, prefer: false }), raw(1, 64, 0)),
            (
                Some(BusyPoll { usecs: i32::MAX as u32, budget: 0, prefer: true }),
                raw(!0 >> 1, 0, 1),
            ),
            (None, raw(0, 0, 0)),
        ];
        for (params, expected) in cases {
            assert_eq!(monitor.busy_poll(params).err(), offered.err(), "{params:?}");
            if offered.is_ok() {
                assert_eq!(in_force(monitor.fd()), Ok(expected));
            }
        }
    }

    /// SPEC 30
    #[test]
    fn a_refusal_says_what_was_asked_for_why_not_and_what_to_do() {
        let epoll = MonitorKind::Epoll;
        let cases = [
            (MonitorKind::Poll, 8, Errno::OPNOTSUPP, "monitor 'poll'", "monitor 'epoll'"),
            (MonitorKind::IoUring, 8, Errno::INVAL, "rings", "use Linux 6.9 or newer"),
            (MonitorKind::IoUring, 8, Errno::OPNOTSUPP, "this kernel", "CONFIG_NET_RX_BUSY_POLL"),
            (epoll, 8, Errno::NOTTY, "epoll", "use Linux 6.9 or newer"),
            (epoll, 8, Errno::OPNOTSUPP, "this kernel", "CONFIG_NET_RX_BUSY_POLL"),
            (epoll, 65, Errno::PERM, "budget above 64 needs CAP_NET_ADMIN", "at most 64"),
            (MonitorKind::IoUring, 65, Errno::PERM, "the kernel says no", "sandbox"),
            (epoll, 64, Errno::PERM, "the kernel says no", "sandbox"),
            (epoll, 8, Errno::INVAL, "these values", "fewer usecs"),
            (epoll, 8, Errno::ACCESS, "the kernel says no", "sandbox"),
        ];
        for (kind, budget, errno, why, what_to_do) in cases {
            let params = BusyPoll { usecs: 50, budget, prefer: false };
            let error = refused(kind, Some(params), errno);
            assert!(error.is_unsupported());
            let from_call = (error.errno(), error.syscall_name());
            let errno = Some(errno.raw_os_error());
            let call = match kind {
                MonitorKind::Poll => (None, None),
                MonitorKind::IoUring => (errno, Some("io_uring_register")),
                _ => (errno, Some("ioctl")),
            };
            assert_eq!(from_call, call);
            let text = error.to_string();
            let (reason, advice) = text.split_once("; ").unwrap();
            let value =
                format!("kernel_busy_poll = {{ usecs: 50, budget: {budget}, prefer: false }}");
            assert!(reason.starts_with(&value), "{text}");
            assert!(reason.contains(why) && advice.contains(what_to_do), "{text}");
        }
        let error = refused(epoll, None, Errno::PERM);
        assert!(error.to_string().starts_with("kernel_busy_poll = off is refused"), "{error}");
    }
}
