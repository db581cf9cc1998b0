//! fdmon: an event loop that spins before it sleeps.
//!
//! File-descriptor handlers may offer a user-space `poll` predicate beside their fd. While events
//! come fast, the loop asks the predicates in a self-tuning window instead of sleeping in the
//! kernel; when they come slowly, it sleeps as any loop does. Spinning is off unless asked for.
//!
//! One turn, [`AioContext::poll`]:
//!
//! ```text
//! read the parameters → compute the timeout
//!   → spin: ask the predicates until a hit, the window's end, a notification     ②′ user space
//!   → still nothing? raise notify_me, full barrier, was I notified meanwhile?
//!   → leave spin mode: poll_end, and one last look
//!   → wait: ask the kernel                                                       ② the kernel
//!   → lower notify_me, accept notifications, adjust the window
//!   → dispatch: bottom halves, ready handlers, timers                            ③ → ④
//! ```
//!
//! Registration (①) is [`AioContext::set_fd_handler`] with [`Handlers`], or
//! [`AioContext::register`] with a [`Source`]. Other threads hold a [`Remote`], register there with
//! [`Remote::register_send`] and move handlers with [`Remote::move_to`]; an [`IoThread`] has a
//! context of its own. Outer loops use [`AioContext::prepare`], [`AioContext::check`] and
//! [`AioContext::dispatch`].
//!
//! ```
//! use fdmon::{AioContext, EventNotifier, Handlers};
//!
//! let ctx = AioContext::builder().build()?;
//! let bell = EventNotifier::new()?;
//! let clear = bell.clone();
//! ctx.set_fd_handler(bell.clone(), Handlers::new().read(move |ops| {
//!     clear.test_and_clear()?;
//!     ops.stop();
//!     Ok(())
//! }))?;
//! let ringer = std::thread::spawn(move || bell.set());
//! ctx.run()?;
//! ringer.join().unwrap()?;
//! # Ok::<(), fdmon::Error>(())
//! ```
//!
//! With the feature `tracing`, the crate of that name is told what the loop does, with the target
//! `fdmon`: each spin is a span `spin` (TRACE) that ends with an event `spin ended`, and there are
//! events for the window (TRACE), the spin list and the monitor (DEBUG). Fields: `context`,
//! `window_ns`, `spent_ns`, `result`, `from_ns`, `to_ns`, `change`, `fd`, `from`, `to`, `reason`.
//! While the subscriber hears neither level, a turn costs one load more; without the feature nothing.
//!
//! With the feature `channel`, a `ChannelPort` sends and receives messages through memory that it
//! shares with another thread, process or language; `docs/CHANNEL-LAYOUT.md` is the protocol.
//!
//! The source goes the way of an event: ① registration (`interest`, `handler`, `send_handlers`,
//! `register`, `registry`), ② wait (`monitor`), ②′ spin (`spin`), ③ ready list (`words`, `registry`),
//! ④ dispatch (`dispatch`); `turn` has the turn itself.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(wasi, allow(dead_code, reason = "steps that only the other monitors take"))]
#![deny(unsafe_code)] // opened only where memory is shared with others; each use has its reason

mod ack;
mod aio;
mod at_exit;
#[cfg(wasi)]
mod bell;
mod bottom_half;
#[cfg(feature = "channel")]
mod channel;
mod clock;
mod config;
mod context;
#[cfg_attr(wasi, path = "cpu_clock_absent.rs")]
mod cpu_clock;
mod dispatch;
mod embed;
mod error;
#[cfg(feature = "executor")]
mod executor;
#[cfg(feature = "faults")]
#[doc(hidden)]
pub mod faults;
mod foreign;
mod fork;
mod handler;
mod inbox;
mod interest;
mod io_thread;
mod migrate;
#[cfg(all(loom, test))]
mod models;
mod monitor;
mod notifier;
mod ops;
#[cfg_attr(wasi, path = "outer_absent.rs")]
mod outer;
mod record;
mod register;
mod registry;
mod remote;
mod remote_handlers;
mod reserve;
mod send_handlers;
mod spin;
mod stats;
#[cfg(not(wasi))]
mod stats_page;
mod sync;
mod text;
mod timer;
mod trace;
mod turn;
mod wait;
mod wake;
#[cfg(wasi)]
mod wasi;
mod word_source;
mod words;

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use ack::Ack;
pub use aio::{AlignedBuf, ForeignMemory, IoOp, IoToken};
#[cfg(wasi)]
#[doc(hidden)]
pub use bell::OutsideNotifier;
pub use bottom_half::BottomHalf;
#[cfg(feature = "channel")]
pub use channel::{
    ChannelEnd, ChannelHandler, ChannelListener, ChannelPort, ChannelReceiver, ChannelSender,
    ChannelSide,
};
pub use clock::ManualClock;
pub use config::{
    AioParams, BusyPoll, IoEngine, MonitorKind, PolicyKind, PollParams, RingMode, RingParams,
};
pub use context::{AioContext, Builder, LeakReport};
pub use embed::{OuterLoop, WakeFds};
pub use error::{Error, ErrorCode, Outcome, Result};
#[cfg(feature = "executor")]
pub use executor::{IoFuture, Task};
pub use foreign::{ForeignBatch, ForeignHandler, ForeignHooks};
pub use handler::{Handlers, Probe, Source, Token};
pub use interest::{Callbacks, Events, Interest, word};
pub use io_thread::{Failure, IoThread, IoThreadBuilder, IoThreadError};
pub use migrate::{Left, MoveError, Moved};
pub use monitor::refusal::explain_refusal;
pub use monitor::ring_features::RingFeatures;
pub use monitor::switch::probe_io_uring;
pub use notifier::EventNotifier;
pub use ops::Ops;
pub use record::{Trace, TraceOptions, TraceOutput};
#[cfg(wasi)]
#[doc(hidden)]
pub use remote::start_ids;
pub use remote::{BottomHalfId, Remote};
pub use remote_handlers::{Registered, SendToken};
#[doc(hidden)]
pub use reserve::Reserved;
pub use send_handlers::SendHandlers;
pub use spin::guards::Cpus;
pub use stable_deref_trait::StableDeref;
pub use stats::{ContextStats, Guard, HandlerStats};
#[cfg(not(wasi))]
pub use stats_page::{StatsPage, publish_stats};
pub use timer::Timer;
pub use trace::{Noted, SpinResult, TraceBuffer, TraceKinds, TracePoint};
pub use word_source::{Differs, PollSource, RawWord, WordSource};
