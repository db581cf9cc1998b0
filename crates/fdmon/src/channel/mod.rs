//! Channels: messages between two threads, processes or languages through shared memory, with a bell
//! for whoever sleeps.
//!
//! `docs/CHANNEL-LAYOUT.md` is the contract, byte by byte and rule by rule. `ring` has the steps of
//! the rules, which the models check; `memory` is the mapping, `bell` the descriptor; `endpoint` is
//! what the halves of a port share, `port`, `sender` and `receiver` what users hold, `handover` how a
//! port gets into another process, `listener` (①, ②′, ④) how it takes part in a loop.

mod endpoint;
#[cfg(not(loom))]
mod handover;
mod listener;
mod port;
mod receiver;
mod ring;
mod sender;

#[cfg(not(loom))]
mod bell;
#[cfg(not(loom))]
mod memory;
#[cfg(loom)]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(not(loom))]
use self::{bell::Bell, memory::Memory};
#[cfg(loom)]
use self::{model::Bell, model::Memory};

pub use self::listener::{ChannelHandler, ChannelListener};
pub use self::port::ChannelPort;
pub use self::receiver::ChannelReceiver;
pub use self::sender::ChannelSender;

use crate::error::{Error, Result};

/// The largest capacity.
const MOST: u32 = (1 << 30) - 64;

/// Which of the two ports of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelSide {
    /// Port 1
    One,
    /// Port 2
    Two,
}

impl ChannelSide {
    /// The number that says which port it is to another program: 1 or 2.
    ///
    /// ```
    /// assert_eq!(fdmon::ChannelSide::Two.number(), 2);
    /// ```
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The port of this number.
    ///
    /// ```
    /// assert_eq!(fdmon::ChannelSide::from_number(1)?, fdmon::ChannelSide::One);
    /// assert!(fdmon::ChannelSide::from_number(3).unwrap_err().is_invalid_arg());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArg` when it is neither 1 nor 2.
    pub fn from_number(number: u8) -> Result<Self> {
        match number {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            _ => Err(Error::invalid_arg("number", number, "1 or 2")),
        }
    }

    /// The other one.
    ///
    /// ```
    /// assert_eq!(fdmon::ChannelSide::One.other(), fdmon::ChannelSide::Two);
    /// ```
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }

    fn index(self) -> usize {
        usize::from(self.number()) - 1
    }
}

/// How a channel came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelEnd {
    /// One of the sides closed its port.
    Closed,
    /// The owner of the other port ended without closing it.
    PeerDied,
    /// The memory holds what no rule of the channel can have written.
    Corrupt,
}

impl std::fmt::Display for ChannelEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::PeerDied => "died",
            Self::Corrupt => "corrupt",
        })
    }
}

/// The two sizes of a channel, as its makers agreed on them: loaded once, never again.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Bytes of the largest message.
    capacity: u32,
    /// Bytes of the data of each ring.
    ring: u32,
}

impl Sizes {
    fn of(capacity: u32) -> Option<Self> {
        let ring = (1..=MOST).contains(&capacity).then(|| ring::record(capacity))?;
        Some(Self { capacity, ring })
    }
}
