//! What a context tells of itself: points of the loop that tracing follows.
//!
//! A point is noted where it happens, which is mostly while the state is borrowed, so nobody else's
//! code runs there. A binding takes what was noted after its turn ([`AioContext::foreign_trace`]);
//! with the feature `tracing`, the subscriber of the crate of that name is told as soon as nothing
//! is borrowed. A spin is a span, open while it lasts; everything else is an event.
//!
//! While nobody wants to know, a turn does not even ask: the hint that somebody does keeps turns
//! off the short ways, and the full way asks it together with hints that it reads anyway.

use std::cell::RefCell;
use std::rc::Rc;

#[cfg(feature = "tracing")]
use tracing::{
    Level,
    level_filters::{LevelFilter, STATIC_MAX_LEVEL},
};

use crate::clock::Clock;
use crate::config::MonitorKind;
use crate::context::{AioContext, State};
use crate::record::Kind;
use crate::registry::Hints;
use crate::remote::Shared;
use crate::turn::{Held, Plan};

bitflags::bitflags! {
    /// Kinds of points.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct TraceKinds: u8 {
        /// [`TracePoint::SpinBegin`]
        const SPIN_BEGIN = 1;
        /// [`TracePoint::SpinEnd`]
        const SPIN_END = 1 << 1;
        /// [`TracePoint::Window`]
        const WINDOW = 1 << 2;
        /// [`TracePoint::Joined`] and [`TracePoint::Left`]
        const SPIN_LIST = 1 << 3;
        /// [`TracePoint::Monitor`]
        const MONITOR = 1 << 4;
    }
}

impl TraceKinds {
    /// Those that happen in turns which nothing else takes off the short ways.
    const OF_TURNS: Self = Self::SPIN_BEGIN.union(Self::SPIN_END).union(Self::WINDOW);
}

/// What ended a spin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpinResult {
    /// A predicate said yes.
    Hit,
    /// The kernel has something.
    Ready,
    /// Another thread notified.
    Notified,
    /// The window is over, and nothing was found.
    Miss,
    /// The turn's timeout came first.
    Timeout,
    /// The outer loop has something else to do.
    Interrupted,
    /// A predicate failed.
    Failed,
}

impl SpinResult {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Ready => "ready",
            Self::Notified => "notified",
            Self::Miss => "miss",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }

    pub(crate) fn to_u64(self) -> u64 {
        self as u64
    }

    pub(crate) fn from_u64(number: u64) -> Self {
        let all = [
            Self::Hit,
            Self::Ready,
            Self::Notified,
            Self::Miss,
            Self::Timeout,
            Self::Interrupted,
            Self::Failed,
        ];
        let at = |result: &Self| result.to_u64() == number;
        all.into_iter().find(at).unwrap_or(Self::Failed)
    }

    fn of(plan: &Plan, shared: &Shared, now: u64) -> Self {
        let found = plan.awake && !plan.interrupted;
        if plan.hit {
            Self::Hit
        } else if plan.asked {
            Self::Ready
        } else if plan.interrupted {
            Self::Interrupted
        } else if shared.is_notified() {
            Self::Notified
        } else if plan.deadline.is_some_and(|deadline| deadline <= now) {
            Self::Timeout
        } else if found {
            Self::Failed
        } else {
            Self::Miss
        }
    }
}

/// Something that happened in the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TracePoint {
    /// A turn begins to spin, for this long at most.
    SpinBegin {
        /// Nanoseconds.
        window_ns: u64,
    },
    /// …and stops.
    SpinEnd {
        /// How long it might have spun, in nanoseconds.
        window_ns: u64,
        /// How long it spun, in nanoseconds.
        spent_ns: u64,
        /// What ended it.
        result: SpinResult,
    },
    /// The policy changed how long turns spin.
    Window {
        /// Nanoseconds before.
        from_ns: u64,
        /// Nanoseconds from now on.
        to_ns: u64,
    },
    /// A handler was added to the spin list.
    Joined {
        /// Its fd.
        fd: i32,
    },
    /// A handler was removed from the spin list.
    Left {
        /// Its fd.
        fd: i32,
    },
    /// Another monitor took over.
    Monitor {
        /// The one before.
        from: MonitorKind,
        /// The one that runs now.
        to: MonitorKind,
        /// Why, in words.
        reason: String,
    },
}

impl TracePoint {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> TraceKinds {
        match self {
            Self::SpinBegin { .. } => TraceKinds::SPIN_BEGIN,
            Self::SpinEnd { .. } => TraceKinds::SPIN_END,
            Self::Window { .. } => TraceKinds::WINDOW,
            Self::Joined { .. } | Self::Left { .. } => TraceKinds::SPIN_LIST,
            Self::Monitor { .. } => TraceKinds::MONITOR,
        }
    }
}

/// What was noted, and when on the context's clock, in nanoseconds.
pub type Noted = (u64, TracePoint);

/// Where a context notes points for a binding, which takes them when it likes, also when the context
/// is closed. A clone is the same buffer.
#[derive(Clone, Debug, Default)]
pub struct TraceBuffer(Rc<RefCell<Vec<Noted>>>);

impl TraceBuffer {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was noted since this was last asked, in order.
    #[must_use]
    pub fn take(&self) -> Vec<Noted> {
        self.0.take()
    }

    /// Nothing was noted since then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

/// What a context notes of itself.
pub(crate) struct Points {
    clock: Clock,
    /// What a binding wants to know.
    wanted: TraceKinds,
    noted: TraceBuffer,
    /// The window when the turn began.
    window_ns: u64,
    /// What the subscriber was not told yet.
    #[cfg(feature = "tracing")]
    untold: Vec<TracePoint>,
}

impl Points {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            wanted: TraceKinds::empty(),
            noted: TraceBuffer::default(),
            window_ns: 0,
            #[cfg(feature = "tracing")]
            untold: Vec::new(),
        }
    }
}

/// Somebody may listen to what the crate `tracing` is told.
#[inline(always)]
pub(crate) fn has_subscriber() -> bool {
    #[cfg(feature = "tracing")]
    return STATIC_MAX_LEVEL >= Level::DEBUG && LevelFilter::current() >= Level::DEBUG;
    #[cfg(not(feature = "tracing"))]
    false
}

impl State {
    /// Somebody wants to know of spins and windows.
    #[inline(always)]
    pub(crate) fn is_traced(&self) -> bool {
        self.reg.hints.any(Hints::TRACED) || has_subscriber()
    }

    #[cold]
    fn note(&mut self, point: TracePoint) {
        #[cfg(feature = "tracing")]
        if has_subscriber() {
            self.trace.untold.push(point.clone());
            self.reg.hints.set(Hints::UNTOLD);
        }
        self.record_point(&point);
        let trace = &self.trace;
        if trace.wanted.contains(point.kind()) {
            trace.noted.0.borrow_mut().push((trace.clock.glance(), point));
        }
    }

    #[inline]
    fn wants(&self, kind: TraceKinds) -> bool {
        self.trace.wanted.contains(kind) || self.recorder.is_some() || has_subscriber()
    }

    /// The handler in this slot joined or left the spin list.
    #[inline]
    pub(crate) fn note_member(&mut self, slot: u32, joined: bool) {
        if self.wants(TraceKinds::SPIN_LIST)
            && let Some(fd) = self.reg.handler(slot).map(|handler| handler.fd)
        {
            self.note(if joined { TracePoint::Joined { fd } } else { TracePoint::Left { fd } });
        }
    }

    /// A turn begins.
    pub(crate) fn begin_noting(&mut self, shared: &Shared) {
        self.trace.window_ns = shared.stats.window_ns.get();
    }

    /// Turns heed whoever listens now.
    pub(crate) fn heed_listeners(&mut self) {
        if self.trace.wanted.intersects(TraceKinds::OF_TURNS) || self.recorder.is_some() {
            self.reg.hints.set(Hints::TRACED);
        } else {
            self.reg.hints.clear(Hints::TRACED);
        }
    }

    /// A turn has waited, and its policy may have changed the window.
    pub(crate) fn note_turn(&mut self, shared: &Shared) {
        self.record_wake_up(shared);
        let to_ns = shared.stats.window_ns.get();
        let from_ns = std::mem::replace(&mut self.trace.window_ns, to_ns);
        self.note_window(from_ns, to_ns);
    }

    pub(crate) fn note_window(&mut self, from_ns: u64, to_ns: u64) {
        if from_ns != to_ns && self.wants(TraceKinds::WINDOW) {
            self.note(TracePoint::Window { from_ns, to_ns });
        }
    }

    /// Another monitor runs, or the same for another reason.
    #[cold]
    pub(crate) fn set_monitor_reason(&mut self, shared: &Shared, to: MonitorKind, reason: String) {
        let from = shared.set_monitor(to, reason.clone());
        if from != to && self.wants(TraceKinds::MONITOR) {
            self.note(TracePoint::Monitor { from, to, reason });
        }
    }
}

impl AioContext {
    /// Notes points of these kinds in this buffer from now on.
    ///
    /// # Errors
    /// `Closed`
    pub fn foreign_trace(&self, kinds: TraceKinds, buffer: TraceBuffer) -> crate::Result<()> {
        let mut st = self.0.open_state()?;
        st.begin_noting(&self.0.shared);
        (st.trace.wanted, st.trace.noted) = (kinds, buffer);
        st.heed_listeners();
        Ok(())
    }

    /// The spin of a turn that somebody watches.
    #[cold]
    pub(crate) fn spin_traced<'a>(
        &'a self,
        mut st: Held<'a>,
        plan: &mut Plan,
        window_ns: u64,
    ) -> Held<'a> {
        let began = st.trace.clock.glance();
        st.note(TracePoint::SpinBegin { window_ns });
        st.step_begins(Kind::Spin, [window_ns, 0, 0]);
        drop(st);
        self.tell();
        self.in_span(window_ns, || {
            let mut st = self.spin_for::<true>(self.0.state(), plan, window_ns);
            let now = st.trace.clock.glance();
            let result = SpinResult::of(plan, &self.0.shared, now);
            st.spin_ends(window_ns, result, plan);
            let spent_ns = now.saturating_sub(began);
            st.note(TracePoint::SpinEnd { window_ns, spent_ns, result });
            drop(st);
            self.tell();
        });
        self.0.state()
    }

    /// Tells the subscriber what was noted; called with nothing borrowed.
    #[cfg(not(feature = "tracing"))]
    #[inline(always)]
    pub(crate) fn tell(&self) {}

    #[cfg(not(feature = "tracing"))]
    #[inline(always)]
    fn in_span(&self, _window_ns: u64, spin: impl FnOnce()) {
        spin();
    }
}

#[cfg(feature = "tracing")]
mod subscriber {
    //! What the subscriber of the crate `tracing` hears, all of it with the target `fdmon`.

    use super::TracePoint;
    use crate::context::AioContext;
    use crate::registry::Hints;

    const TARGET: &str = "fdmon";

    impl AioContext {
        /// Tells the subscriber what was noted; called with nothing borrowed.
        #[inline]
        pub(crate) fn tell(&self) {
            if self.0.state().reg.hints.any(Hints::UNTOLD) {
                self.tell_all();
            }
        }

        #[cold]
        fn tell_all(&self) {
            let points = {
                let mut st = self.0.state();
                st.reg.hints.clear(Hints::UNTOLD);
                std::mem::take(&mut st.trace.untold)
            };
            for point in points {
                self.0.guarded(|| tell_one(self.id(), &point));
            }
        }

        pub(super) fn in_span(&self, window_ns: u64, spin: impl FnOnce()) {
            let context = self.id();
            let span = self.0.guarded(|| {
                tracing::trace_span!(target: TARGET, "spin", context, window_ns).entered()
            });
            spin();
            self.0.guarded(|| drop(span));
        }
    }

    fn tell_one(context: u64, point: &TracePoint) {
        match point {
            TracePoint::SpinBegin { .. } => {} // the span
            TracePoint::SpinEnd { window_ns, spent_ns, result } => {
                let result = result.as_str();
                tracing::trace!(target: TARGET, context, window_ns, spent_ns, result, "spin ended");
            }
            TracePoint::Window { from_ns, to_ns } => {
                let change = if to_ns > from_ns { "grown" } else { "shrunk" };
                tracing::trace!(target: TARGET, context, from_ns, to_ns, change, "window changed");
            }
            TracePoint::Joined { fd } => {
                tracing::debug!(target: TARGET, context, fd, "handler joined the spin list");
            }
            TracePoint::Left { fd } => {
                tracing::debug!(target: TARGET, context, fd, "handler left the spin list");
            }
            TracePoint::Monitor { from, to, reason } => {
                let (from, to) = (from.as_str(), to.as_str());
                tracing::debug!(target: TARGET, context, from, to, reason, "monitor switched");
            }
        }
    }
}
