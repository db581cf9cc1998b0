//! Programs: what a user may do with two contexts and ten files, as data.
//!
//! A program comes from a proptest strategy (`strategy.rs`), from the bytes of a fuzzer
//! (`Arbitrary`), or from a test somebody pasted: its `Debug` output is Rust.

use std::cell::Cell;
use std::fmt;

use arbitrary::{Arbitrary, Result, Unstructured};

/// Files; [`crate::files`] says what each number is.
pub const FILES: u8 = 10;
/// Bottom halves, and timers, of a context.
pub const OF_EACH: u8 = 3;
/// The longest spin of a program that spins.
pub const WINDOW: u64 = 100_000;
/// The delays there are: what the classic policy tells apart, and two that it calls long.
pub const TIMES: [u32; 8] = [0, 1, 3_999, 20_000, 50_000, 99_999, 150_000, 11_000_000];
/// What asking a predicate costs.
pub const COSTS: [u16; 3] = [0, 300, 7_000];
/// How many askings lie between what happens meanwhile.
pub const OFTEN: [u8; 6] = [0, 1, 2, 3, 5, 9];
/// Programs within programs.
pub const DEEPEST: u32 = 3;
/// Steps of one list.
pub const LONGEST: usize = 60;
/// Steps of a callback.
pub const LONGEST_INSIDE: usize = 6;

/// A whole life of two contexts.
#[derive(Clone, PartialEq)]
pub struct Program {
    /// How they spin at first.
    pub spin: Spin,
    /// What the bottom halves of both do.
    pub halves: [Steps; OF_EACH as usize],
    /// …and the timers.
    pub timers: [Steps; OF_EACH as usize],
    pub steps: Steps,
}

#[derive(Clone, Default, PartialEq)]
pub struct Steps(pub Vec<Step>);

/// Spin parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Arbitrary)]
pub enum Spin {
    #[default]
    Off,
    /// The window doubles from 4 µs on, and is reset by a long sleep.
    Doubling,
    /// It is at its longest at once, and halved by a long sleep.
    Jumping,
    /// It is always at its longest.
    Fixed,
}

/// One step, on the context that runs it: at the top the first one, in a callback its own.
#[derive(Clone, Debug, PartialEq, Arbitrary)]
pub enum Step {
    /// A turn that does not block.
    Poll,
    /// A turn that does, for so long at most.
    Block {
        #[arbitrary(with = time)]
        ns: u32,
    },
    /// Something arrives that can be read.
    Ready {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// Everything is read.
    Take {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// Written to until that would block.
    Fill {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// The other side reads everything.
    Drain {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// The other side writes no more, and goes on reading.
    ShutDown {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// The other side goes away.
    HangUp {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// A new file in its place, unless a handler has it.
    Reopen {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// The word that the handlers of this file look at.
    Word {
        #[arbitrary(with = file)]
        at: u8,
        on: bool,
    },
    /// As a producer does it: the word, and a signal to who was not told to go without.
    Produce {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// Time goes by.
    Advance {
        #[arbitrary(with = time)]
        ns: u32,
    },
    /// Registers, or replaces.
    Register {
        #[arbitrary(with = file)]
        at: u8,
        handler: Handler,
    },
    /// Removes by number.
    Remove {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// Removes by the token of the last registration, which may be gone.
    Deregister {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// Changes the interest by that token.
    Interest {
        #[arbitrary(with = file)]
        at: u8,
        read: bool,
        write: bool,
    },
    /// Moves the handler to the other context, if it is one that can move.
    Move {
        #[arbitrary(with = file)]
        at: u8,
    },
    Schedule {
        #[arbitrary(with = one_of_three)]
        half: u8,
    },
    ScheduleIdle {
        #[arbitrary(with = one_of_three)]
        half: u8,
    },
    Cancel {
        #[arbitrary(with = one_of_three)]
        half: u8,
    },
    Delete {
        #[arbitrary(with = one_of_three)]
        half: u8,
    },
    /// A bottom half of its own, once.
    Once {
        steps: Steps,
    },
    /// A job, as from another thread.
    Job {
        steps: Steps,
    },
    Arm {
        #[arbitrary(with = one_of_three)]
        timer: u8,
        #[arbitrary(with = time)]
        ns: u32,
    },
    Disarm {
        #[arbitrary(with = one_of_three)]
        timer: u8,
    },
    /// `poll_until` so many turns are over, each blocking for so long at most.
    Until {
        #[arbitrary(with = one_of_three)]
        turns: u8,
        #[arbitrary(with = time)]
        ns: u32,
    },
    Stop,
    /// A turn as an outer loop runs it, with something else between `prepare` and `check`.
    Embed {
        between: Steps,
    },
    Suspend,
    Notify,
    DisableExternal,
    EnableExternal,
    Params {
        spin: Spin,
    },
    /// …from another thread.
    RemoteParams {
        spin: Spin,
    },
    /// The callback ends here, failing; outside of one it is nothing.
    Fail,
    /// …panicking.
    Panic,
    /// Steps on the other context.
    Other {
        steps: Steps,
    },
    Close,
}

/// The callbacks for one file.
#[derive(Clone, Default, PartialEq, Arbitrary)]
pub struct Handler {
    pub read: Option<Call>,
    pub write: Option<Call>,
    pub priority: Option<Call>,
    pub poll: Poll,
    pub external: bool,
    /// It is a source that may leave its thread, so that it can move.
    pub movable: bool,
}

/// A callback.
#[derive(Clone, Debug, Default, PartialEq, Arbitrary)]
pub struct Call {
    /// It takes what it was called for: reads everything, fills it, clears the word.
    pub take: bool,
    pub steps: Steps,
}

/// A predicate.
#[derive(Clone, Debug, Default, PartialEq, Arbitrary)]
pub enum Poll {
    #[default]
    No,
    /// The kernel's readiness.
    Kernel,
    /// The file's word, read in place.
    Word { suppress: bool, ready: Call },
    /// The file's word, asked by code.
    Code { code: Code, ready: Call },
}

/// A predicate in code, with its hooks.
#[derive(Clone, Debug, Default, PartialEq, Arbitrary)]
pub struct Code {
    /// What asking costs.
    #[arbitrary(with = cost)]
    pub ns: u16,
    /// Each time it was asked so often, this happens at that very moment; 0 = never.
    #[arbitrary(with = often)]
    pub every: u8,
    pub meanwhile: Meanwhile,
    /// Asked so often, it panics; 0 = never.
    #[arbitrary(with = one_of_three)]
    pub panics_at: u8,
    /// What `poll_begin` does.
    pub begin: Hook,
    /// …and `poll_end`.
    pub end: Hook,
}

/// What somebody on another CPU does while this one spins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Arbitrary)]
pub enum Meanwhile {
    /// Sets the word that is being asked; that happens at any time.
    #[default]
    Sets,
    /// Sets the word of another file.
    Wakes {
        #[arbitrary(with = file)]
        at: u8,
    },
    /// Makes a file readable.
    Readies {
        #[arbitrary(with = file)]
        at: u8,
    },
    Notifies,
    /// Sends a job.
    Sends,
}

/// What a hook does. Anything but a turn could be allowed; but what hooks do to other handlers is
/// what `conformance/suite/random.rs` is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Arbitrary)]
pub enum Hook {
    #[default]
    Nothing,
    /// Sets its word.
    Sets,
    Schedules,
    Arms,
    /// Removes its own handler.
    Removes,
    Panics,
}

fn file(u: &mut Unstructured<'_>) -> Result<u8> {
    u.int_in_range(0..=FILES - 1)
}

fn time(u: &mut Unstructured<'_>) -> Result<u32> {
    u.choose(&TIMES).copied()
}

fn one_of_three(u: &mut Unstructured<'_>) -> Result<u8> {
    u.int_in_range(0..=OF_EACH - 1)
}

fn often(u: &mut Unstructured<'_>) -> Result<u8> {
    u.choose(&OFTEN).copied()
}

fn cost(u: &mut Unstructured<'_>) -> Result<u16> {
    u.choose(&COSTS).copied()
}

impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        // The steps come first, so that a short input has some.
        let (spin, steps) = (u.arbitrary()?, Steps::decode(u, LONGEST)?);
        Ok(Self { spin, steps, halves: u.arbitrary()?, timers: u.arbitrary()? })
    }
}

impl<'a> Arbitrary<'a> for Steps {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Self::decode(u, LONGEST_INSIDE)
    }

    fn size_hint(_: usize) -> (usize, Option<usize>) {
        (0, None)
    }
}

impl Steps {
    fn decode(u: &mut Unstructured<'_>, longest: usize) -> Result<Self> {
        thread_local! {
            static DEPTH: Cell<u32> = const { Cell::new(0) };
        }
        let depth = DEPTH.get();
        let mut steps = Vec::new();
        if depth > DEEPEST {
            return Ok(Self(steps));
        }
        DEPTH.set(depth + 1);
        let mut result = Ok(());
        while result.is_ok() && steps.len() < longest && !u.is_empty() {
            match u
                .ratio(7, 8)
                .and_then(|more| if more { u.arbitrary().map(Some) } else { Ok(None) })
            {
                Ok(Some(step)) => steps.push(step),
                Ok(None) => break,
                Err(error) => result = Err(error),
            }
        }
        DEPTH.set(depth);
        result.map(|()| Self(steps))
    }
}

/// The names of the steps, and which one is which.
macro_rules! names {
    ($($name:ident)*) => {
        impl Step {
            pub const NAMES: &[&str] = &[$(concat!("step ", stringify!($name))),*];

            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => concat!("step ", stringify!($name)),)*
                }
            }
        }
    };
}

names! {
    Poll Block Ready Take Fill Drain ShutDown HangUp
    Reopen Word Produce Advance Register Remove Deregister Interest
    Move Schedule ScheduleIdle Cancel Delete Once Job Arm
    Disarm Until Stop Embed Suspend Notify DisableExternal EnableExternal
    Params RemoteParams Fail Panic Other Close
}

impl Handler {
    /// `Some` = set_fd_handler takes it.
    pub fn has_callback(&self) -> bool {
        self.read.is_some() || self.write.is_some() || self.priority.is_some() || self.has_poll()
    }

    pub fn has_poll(&self) -> bool {
        matches!(self.poll, Poll::Word { .. } | Poll::Code { .. })
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("Steps::default()");
        }
        f.write_str("Steps(vec!")?;
        f.debug_list().entries(&self.0).finish()?;
        f.write_str(")")
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = Self::default();
        f.write_str("Handler { ")?;
        let mut field = |name: &str, value: &dyn fmt::Debug, given: bool| {
            if !given {
                return Ok(());
            }
            write!(f, "{name}: ")?;
            value.fmt(f)?;
            f.write_str(", ")
        };
        field("read", &self.read, self.read.is_some())?;
        field("write", &self.write, self.write.is_some())?;
        field("priority", &self.priority, self.priority.is_some())?;
        field("poll", &self.poll, self.poll != none.poll)?;
        field("external", &self.external, self.external)?;
        field("movable", &self.movable, self.movable)?;
        f.write_str("..Handler::default() }")
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("spin", &self.spin)
            .field("halves", &self.halves)
            .field("timers", &self.timers)
            .field("steps", &self.steps)
            .finish()
    }
}
