//! ① Registration: what a handler wants to hear, what the kernel says, what there is to call.

use bitflags::bitflags;

bitflags! {
    /// What a handler wants to be told about its fd.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Interest: u8 {
        /// Data to read, hang-up, error.
        const READ = 1;
        /// Room to write, error.
        const WRITE = 2;
        /// Urgent data (GPIO edges, socket out-of-band data, cgroup files), error.
        const PRIORITY = 4;
    }
}

bitflags! {
    /// The kernel's readiness mask, with the values of poll(2), which are those of epoll too.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Events: u32 {
        /// There is data to read.
        const IN = 0x1;
        /// There is urgent data to read.
        const PRI = 0x2;
        /// Writing will not block.
        const OUT = 0x4;
        /// An error is pending on the fd. Always reported.
        const ERR = 0x8;
        /// The other side hung up. Always reported.
        const HUP = 0x10;
        /// The fd is not open (poll only).
        const NVAL = 0x20;
        /// The other side shut down its writing half.
        const RDHUP = 0x2000;
    }
}

bitflags! {
    /// The callbacks that a handler has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Callbacks: u8 {
        /// `read`
        const READ = 1;
        /// `write`
        const WRITE = 2;
        /// `priority`
        const PRIORITY = 4;
        /// `poll_ready`
        const POLL_READY = 8;
    }
}

impl Interest {
    /// The mask handed to the kernel. ERR and HUP come unasked.
    #[inline]
    pub(crate) fn to_events(self) -> Events {
        let mut events = Events::empty();
        if self.contains(Self::READ) {
            events |= Events::IN;
        }
        if self.contains(Self::WRITE) {
            events |= Events::OUT;
        }
        if self.contains(Self::PRIORITY) {
            events |= Events::PRI;
        }
        events
    }

    /// The interests that these callbacks can serve.
    #[inline]
    pub(crate) fn of(callbacks: Callbacks) -> Self {
        Self::from_bits_truncate(callbacks.bits() & 7)
    }
}

/// A pending word: everything that is due for one slot, in 32 bits. `0` = nothing is due.
///
/// The low 16 bits are [`Events`]; the rest says why the slot is due and, once the core has
/// issued it, which callbacks are to run.
pub mod word {
    /// The events part.
    pub const EVENTS: u32 = 0xffff;
    /// A `poll` predicate said yes.
    pub const HIT: u32 = 1 << 16;
    /// Run `read`.
    pub const RUN_READ: u32 = 1 << 17;
    /// Run `write`.
    pub const RUN_WRITE: u32 = 1 << 18;
    /// Run `priority`.
    pub const RUN_PRIORITY: u32 = 1 << 19;
    /// Run `poll_ready`.
    pub const RUN_READY: u32 = 1 << 20;
    /// A bottom half is due.
    pub const BOTTOM_HALF: u32 = 1 << 21;
    /// That bottom half is an idle one: no progress.
    pub const IDLE: u32 = 1 << 22;
    /// A timer expired.
    pub const TIMER: u32 = 1 << 23;
    /// A request of file I/O has ended.
    pub const IO: u32 = 1 << 24;
    /// Handed out in a batch whose other side has not taken it yet.
    pub const ISSUED: u32 = 1 << 30;
    /// All `RUN_*` bits.
    pub const RUN: u32 = RUN_READ | RUN_WRITE | RUN_PRIORITY | RUN_READY;
}

/// Which callbacks serve this readiness (the order in which they run is `poll_ready`, `read`,
/// `write`, `priority`).
///
/// A hit runs `poll_ready`; together with readable readiness it runs `read` instead; an event
/// that no callback can take runs the one there is, so that a level-triggered monitor never loops.
#[inline]
pub(crate) fn actions(pending: u32, interest: Interest) -> u32 {
    let events = Events::from_bits_truncate(pending & word::EVENTS);
    let readable = events.intersects(Events::IN | Events::HUP | Events::ERR | Events::RDHUP);
    let mut run = 0;
    if pending & word::HIT != 0 {
        run |= if readable && interest.contains(Interest::READ) {
            word::RUN_READ
        } else {
            word::RUN_READY
        };
    } else if readable && interest.contains(Interest::READ) {
        run |= word::RUN_READ;
    }
    if interest.contains(Interest::WRITE) && events.intersects(Events::OUT | Events::ERR) {
        run |= word::RUN_WRITE;
    }
    if interest.contains(Interest::PRIORITY) && events.intersects(Events::PRI | Events::ERR) {
        run |= word::RUN_PRIORITY;
    }
    if run == 0 && !events.is_empty() {
        run = if interest.contains(Interest::READ) {
            word::RUN_READ
        } else if interest.contains(Interest::WRITE) {
            word::RUN_WRITE
        } else if interest.contains(Interest::PRIORITY) {
            word::RUN_PRIORITY
        } else {
            0
        };
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: Events, hit: bool, callbacks: Callbacks) -> u32 {
        let pending = events.bits() | if hit { word::HIT } else { 0 };
        actions(pending, Interest::of(callbacks))
    }

    /// SPEC 24
    #[test]
    fn a_hit_with_readable_readiness_runs_read_and_alone_runs_poll_ready() {
        let all = Callbacks::all();
        assert_eq!(run(Events::empty(), true, all), word::RUN_READY);
        assert_eq!(run(Events::IN, true, all), word::RUN_READ);
        assert_eq!(run(Events::HUP, true, all), word::RUN_READ);
        assert_eq!(run(Events::OUT, true, all), word::RUN_READY | word::RUN_WRITE);
        let no_read = Callbacks::WRITE | Callbacks::POLL_READY;
        assert_eq!(run(Events::IN, true, no_read), word::RUN_READY);
    }

    /// SPEC 8, 20
    #[test]
    fn an_event_that_no_callback_takes_runs_the_callback_there_is() {
        assert_eq!(run(Events::HUP, false, Callbacks::WRITE), word::RUN_WRITE);
        assert_eq!(run(Events::HUP, false, Callbacks::PRIORITY), word::RUN_PRIORITY);
        assert_eq!(
            run(Events::ERR, false, Callbacks::READ | Callbacks::WRITE),
            word::RUN_READ | word::RUN_WRITE
        );
        assert_eq!(run(Events::PRI, false, Callbacks::READ), word::RUN_READ);
    }
}
