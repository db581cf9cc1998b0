//! How a port gets to another owner: as two descriptors, which a Unix socket carries (SCM_RIGHTS).

use rustix::fd::{AsFd, OwnedFd};

use super::endpoint::{Endpoint, duplicate};
use super::port::ChannelPort;
use super::{Bell, ChannelSide, Memory};
use crate::error::{Error, ErrorCode, Result};
use crate::sync::{Arc, Ordering};

impl ChannelPort {
    /// The descriptors of a port that was not used yet, for another owner: first the memory, then
    /// the bell. The number of its [`side`](Self::side) has to go along.
    ///
    /// Whoever has sent them closes them, or the death of the new owner is not noticed.
    ///
    /// ```
    /// use fdmon::ChannelPort;
    /// let (mut one, two) = ChannelPort::pair(64)?;
    /// one.send(b"for whoever takes it")?;
    /// let side = two.side();
    /// let [memory, bell] = two.into_fds().map_err(|(error, _)| error)?;
    /// // …to another process, by sendmsg(2).
    /// let mut two = ChannelPort::from_fds(memory, bell, side)?;
    /// assert_eq!(two.receive()?.unwrap(), b"for whoever takes it");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InUse` when the port has sent or received; `Closed` when it is over; `Syscall` when there is
    /// no descriptor left. The port comes back.
    pub fn into_fds(self) -> std::result::Result<[OwnedFd; 2], (Error, Self)> {
        match self.duplicate() {
            Ok(fds) => {
                self.receiver.shared.hand_over();
                Ok(fds)
            }
            Err(error) => Err((error, self)),
        }
    }

    fn duplicate(&self) -> Result<[OwnedFd; 2]> {
        let shared = &self.receiver.shared;
        shared.check()?;
        if !self.producer.is_new() || !self.receiver.consumer.is_new() {
            let message = format!(
                "port {} has sent or received; hand over one that was not used",
                shared.side.number()
            );
            return Err(Error::new(ErrorCode::InUse, message));
        }
        Ok([shared.memory.duplicate()?, duplicate(shared.bell.as_fd())?])
    }

    /// The port of this side whose descriptors were handed over, by [`into_fds`](Self::into_fds) or
    /// by a program in another language.
    ///
    /// ```
    /// # use fdmon::ChannelPort;
    /// # let (one, two) = ChannelPort::pair(64)?;
    /// # let side = two.side();
    /// # let [memory, bell] = two.into_fds().map_err(|(error, _)| error)?;
    /// let (again, bell_again) = (memory.try_clone().unwrap(), bell.try_clone().unwrap());
    /// let two = ChannelPort::from_fds(memory, bell, side)?;
    /// let error = ChannelPort::from_fds(again, bell_again, side).unwrap_err();
    /// assert!(error.is_in_use(), "it has an owner");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArg` when these are not the descriptors of a channel: not a memfd that is sealed against
    /// shrinking, another version, sizes that do not belong together. `InUse` when the port has or
    /// had an owner. `Syscall`.
    pub fn from_fds(memory: OwnedFd, bell: OwnedFd, side: ChannelSide) -> Result<Self> {
        let (memory, bell) = (Memory::adopt(memory)?, Bell::adopt(bell)?);
        if !memory.port(side).claim() {
            let message = format!(
                "port {} of the channel has an owner, or had one; a port has one owner",
                side.number()
            );
            return Err(Error::new(ErrorCode::InUse, message));
        }
        let port = Self::of(Endpoint::new(Arc::new(memory), bell, side));
        let shared = &port.receiver.shared;
        let moved = [shared.out().head, shared.incoming().tail]
            .map(|word| word.load(Ordering::Relaxed))
            .into_iter()
            .any(|position| position != 0);
        if moved {
            let value = format!("one whose port {} was used", side.number());
            return Err(Error::invalid_arg("memory", value, "one whose port was not used"));
        }
        // The other side may keep copies of what this one has now.
        if shared.peer().must_ring() {
            shared.ring_peer();
        }
        Ok(port)
    }
}
