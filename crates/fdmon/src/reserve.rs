//! A context before it has a home: its id, its parameters, and what other threads hold of it.

use std::fmt;

use crate::config::{AioParams, PollParams};
use crate::cpu_clock::CpuClock;
use crate::error::{Error, Result};
use crate::remote::{Remote, Shared, Wanted, lock};
use crate::sync::Arc;

/// The remote side of a context that some thread builds later, with
/// [`Builder::reserved`](crate::Builder::reserved): for bindings whose threads take long to start. What is asked
/// of it until then is kept. Dropped without that it is closed, like a context.
pub struct Reserved {
    shared: Arc<Shared>,
    built: bool,
}

impl Reserved {
    /// An id that is never used again, for a context with this name and these parameters.
    ///
    /// # Errors
    /// `InvalidArg` for a parameter out of range, `Syscall` when there is no fd left.
    pub fn new(name: impl Into<String>, poll: PollParams, aio: AioParams) -> Result<Self> {
        poll.validate()?;
        aio.validate()?;
        Ok(Self { shared: Shared::new(name.into(), poll, aio)?, built: false })
    }

    /// What other threads hold.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote(Arc::clone(&self.shared))
    }

    /// The calling thread becomes its home, with the parameters as they are now: later ones are for
    /// its turns.
    pub(crate) fn move_in(&self) -> Result<(Arc<Shared>, PollParams, AioParams)> {
        if !self.shared.home.is_here() {
            return Err(Error::closed());
        }
        let _ = self.shared.cpu_clock.set(CpuClock::here());
        let mut wanted = lock(&self.shared.wanted);
        wanted.poll_changed = false;
        let Wanted { poll, aio, .. } = wanted.clone();
        Ok((Arc::clone(&self.shared), poll, aio))
    }

    /// The context is there, and closes it from now on.
    pub(crate) fn built(mut self) {
        self.built = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.built {
            self.shared.close();
            self.shared.inbox.drain(drop);
        }
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved").field("id", &self.shared.id).finish_non_exhaustive()
    }
}
