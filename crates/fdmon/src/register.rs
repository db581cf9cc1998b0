//! ① Registering: from what the user hands over to a slot that the monitor watches.

use std::any::TypeId;
use std::marker::PhantomData;
use std::rc::Rc;

use rustix::fd::{AsFd, AsRawFd, RawFd};
use rustix::io::Errno;

use crate::bottom_half::no_words;
use crate::context::{AioContext, Inner, State};
use crate::error::{Error, Result};
use crate::handler::{Handler, Handlers, Source, SourceBody, Token, describe};
use crate::interest::{Callbacks, Interest, word};
use crate::monitor::{Monitor, is_open};
use crate::registry::{Entry, Hints};
use crate::remote::{Shared, lock};
use crate::sync::{Arc, kept};

impl AioContext {
    /// Registers a device or connection; replaces the handler that its fd may have.
    ///
    /// # Errors
    /// `BadFd`, `Closed`, `Syscall` when the kernel refuses the fd. The source comes back.
    pub fn register<S: Source>(&self, source: S) -> std::result::Result<Token<S>, (Error, S)> {
        match self.describe(&source) {
            Ok(handler) => self.register_as(handler, source),
            Err(error) => Err((error, source)),
        }
    }

    /// All of a source's handler but its body: asks the source what it is.
    pub(crate) fn describe<S: Source>(&self, source: &S) -> Result<Handler> {
        let fd = source.as_fd().as_raw_fd();
        self.check_fd(fd)?;
        let handler = describe(source, fd);
        if handler.callbacks.is_empty() {
            return Err(no_callback());
        }
        Ok(handler)
    }

    /// Registers a source that was described before.
    pub(crate) fn register_as<S: Source>(
        &self,
        mut handler: Handler,
        source: S,
    ) -> std::result::Result<Token<S>, (Error, S)> {
        handler.body = Some(Box::new(SourceBody(source)));
        let added = self.add_handler(handler);
        self.resume_panic();
        match added {
            Ok((slot, generation)) => Ok(self.token(slot, generation)),
            Err((error, handler)) => {
                let source = handler.body.and_then(|body| body.into_any().downcast::<S>().ok());
                match source {
                    Some(source) => Err((error, *source)),
                    None => unreachable!("the handler was made of this source just above"),
                }
            }
        }
    }

    /// Removes the source and gives it back. `None` = it was gone already, or is another context's,
    /// or this is called from one of its own callbacks, after which it is dropped.
    pub fn deregister<S: 'static>(&self, token: &Token<S>) -> Option<S> {
        if !self.made(token) {
            return None;
        }
        self.0.state().reg.live_handler(token.slot, token.generation)?;
        let handler = self.remove_slot(token.slot);
        self.resume_panic();
        let handler = handler?;
        handler.body?.into_any().downcast::<S>().ok().map(|source| *source)
    }

    /// The token of the handler that this fd has, if its type is this one: that of a source, or of
    /// the fd that belongs to closures. So a source finds its own token in its callbacks, wherever
    /// it was moved to.
    ///
    /// ```
    /// use fdmon::{AioContext, EventNotifier, Handlers, SendHandlers};
    /// let ctx = AioContext::builder().build()?;
    /// let bell = EventNotifier::new()?;
    /// ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(())))?;
    /// assert!(ctx.token_of::<SendHandlers<EventNotifier>>(&bell).is_none());
    /// let token = ctx.token_of::<EventNotifier>(&bell).expect("it has a handler");
    /// assert!(token.is_live());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn token_of<S: 'static>(&self, fd: impl AsFd) -> Option<Token<S>> {
        let fd = fd.as_fd().as_raw_fd();
        let mut st = self.0.state();
        let slot = st.reg.slot_of(fd)?;
        let generation = st.reg.generation(slot);
        let handler = st.reg.handler(slot)?;
        (handler.kind == TypeId::of::<S>()).then(|| self.token(slot, generation))
    }

    /// The token is of this context.
    pub(crate) fn made<S>(&self, token: &Token<S>) -> bool {
        std::ptr::eq(token.context.as_ptr(), Rc::as_ptr(&self.0))
    }

    /// Registers callbacks for an fd, which the context owns from now on; replaces the handler
    /// that the fd may have. [`AioContext::deregister`] gives the fd back.
    ///
    /// ```
    /// # use std::{cell::Cell, rc::Rc};
    /// use fdmon::{AioContext, EventNotifier, Handlers};
    /// let ctx = AioContext::builder().build()?;
    /// let bell = EventNotifier::new()?;
    /// let rings = Rc::new(Cell::new(0));
    /// let (counter, clear) = (rings.clone(), bell.clone());
    /// ctx.set_fd_handler(bell.clone(), Handlers::new().read(move |_ops| {
    ///     counter.set(counter.get() + u32::from(clear.test_and_clear()?));
    ///     Ok(())
    /// }))?;
    /// bell.set()?;
    /// assert!(ctx.poll(true)?);
    /// assert_eq!(rings.get(), 1);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `BadFd`, `Closed`, `InvalidArg` without any callback, `Syscall` when the kernel refuses
    /// the fd.
    pub fn set_fd_handler<F: AsFd + 'static>(&self, fd: F, handlers: Handlers) -> Result<Token<F>> {
        let raw = fd.as_fd().as_raw_fd();
        self.check_fd(raw)?;
        let handler = handlers.into_handler(fd, raw);
        if handler.callbacks.is_empty() {
            return Err(no_callback());
        }
        let added = self.add_handler(handler);
        self.resume_panic();
        let (slot, generation) = added.map_err(|(error, _)| error)?;
        Ok(self.token(slot, generation))
    }

    /// Removes the handler of this fd, if there is one. Nothing of it runs any more.
    pub fn remove_fd_handler(&self, fd: RawFd) {
        if let Some(slot) = self.registered_slot(fd) {
            self.remove_slot(slot);
            self.resume_panic();
        }
    }

    pub(crate) fn registered_slot(&self, fd: RawFd) -> Option<u32> {
        self.0.state().reg.slot_of(fd)
    }

    /// Holds external handlers back: not spun, not waited for, not dispatched. Counts.
    pub fn disable_external(&self) {
        let slots = {
            let mut st = self.0.state();
            st.reg.external_disabled += 1;
            if st.reg.external_disabled > 1 {
                return;
            }
            st.external_slots()
        };
        for &slot in &slots {
            self.end_one(slot);
        }
        let mut st = self.0.state();
        for slot in slots {
            st.leave_spin_list(slot);
            // Collected readiness is level-triggered and is reported again after the enable.
            st.reg.words.set(slot, 0);
            let _ = st.sync(&self.0.shared, slot);
        }
        drop(st);
        self.tell();
        self.resume_panic();
    }

    /// Undoes one [`AioContext::disable_external`]; after the last one, the next turn hears them
    /// again and asks their predicates before it sleeps.
    pub fn enable_external(&self) {
        let mut st = self.0.state();
        if st.reg.external_disabled == 0 {
            return;
        }
        st.reg.external_disabled -= 1;
        if st.reg.external_disabled > 0 {
            return;
        }
        for slot in st.external_slots() {
            st.sync_or_report(&self.0.shared, slot);
            st.want_look(slot);
        }
    }

    pub(crate) fn token<S>(&self, slot: u32, generation: u32) -> Token<S> {
        Token { slot, generation, context: Rc::downgrade(&self.0), source: PhantomData }
    }

    pub(crate) fn check_fd(&self, fd: RawFd) -> Result<()> {
        drop(self.0.open_state()?);
        if fd < 0 || !is_open(fd) {
            return Err(Error::bad_fd(fd, "pass the number of an open one"));
        }
        Ok(())
    }

    /// Registers, replacing; the caller has checked the fd.
    pub(crate) fn add_handler(
        &self,
        handler: Handler,
    ) -> std::result::Result<(u32, u32), (Error, Box<Handler>)> {
        let mut handler = Box::new(handler);
        let reads = handler.callbacks == Callbacks::READ && !handler.has_poll;
        handler.only_reads = reads && !handler.foreign;
        // Again if a hook of the old one registers the fd meanwhile: the last one to register wins.
        while let Some(old) = self.registered_slot(handler.fd) {
            self.remove_slot(old);
        }
        let mut st = match self.0.open_state() {
            Ok(st) => st,
            Err(error) => return Err((error, handler)),
        };
        let slot = match st.reg.reserve().and_then(|slot| slot.ok_or_else(no_words)) {
            Ok(slot) => slot,
            Err(error) => return Err((error, handler)),
        };
        let fd = handler.fd;
        let counters = Arc::clone(&handler.counters);
        let generation = st.reg.fill(slot, Entry::Handler(handler));
        st.reg.set_fd(fd, Some(slot));
        if let Err(errno) = st.sync(&self.0.shared, slot) {
            st.reg.set_fd(fd, None);
            let entry = st.give_up(slot);
            drop(st);
            let Entry::Handler(handler) = entry else { unreachable!("filled just above") };
            let error = if errno == Errno::BADF {
                Error::bad_fd(fd, "pass the number of an open one")
            } else {
                Error::syscall("epoll_ctl", errno, "pass an fd that can be polled")
            };
            return Err((error, handler));
        }
        let mut rows = lock(&self.0.shared.handlers);
        if slot as usize >= rows.len() {
            rows.resize(slot as usize + 1, None);
        }
        rows[slot as usize] = Some(counters);
        drop(rows);
        if kept("add: look") {
            st.want_look(slot);
        }
        if st.depth == 0 {
            st.maybe_move_up(&self.0.shared);
        } else {
            st.reg.hints.set(Hints::MOVE_UP); // when the outermost turn begins
        }
        drop(st);
        self.tell();
        Ok((slot, generation))
    }

    /// Removes a handler: nothing of it runs any more. What is returned holds users' values,
    /// except while one of its callbacks runs.
    pub(crate) fn remove_slot(&self, slot: u32) -> Option<Box<Handler>> {
        let mut st = self.0.state();
        st.reg.handler(slot)?;
        let generation = st.reg.generation(slot);
        // From here on nothing collects it: a hook that runs a turn finds it gone.
        st.leave_spin_list(slot);
        st.disarm(&self.0.shared, slot);
        st.reg.words.set(slot, 0);
        if st.reg.handler(slot).is_some_and(|handler| handler.begun) {
            drop(st);
            self.end_one(slot);
            st = self.0.state();
            // The hook may have removed it itself, and given its number to another.
            st.reg.live_handler(slot, generation)?;
            st.disarm(&self.0.shared, slot);
        }
        let handler = st.reg.live_handler(slot, generation)?;
        let (fd, end_owed) = (handler.fd, handler.end_owed);
        if st.reg.slot_of(fd) == Some(slot) {
            st.reg.set_fd(fd, None);
        }
        if let Some(row) = lock(&self.0.shared.handlers).get_mut(slot as usize) {
            *row = None;
        }
        let entry = st.reg.vacate(slot, end_owed);
        if st.depth == 0 {
            st.reg.bury();
        }
        drop(st);
        self.tell();
        match entry {
            Entry::Handler(handler) => Some(handler),
            _ => None,
        }
    }
}

impl State {
    /// Takes the handler off the monitor for good.
    pub(crate) fn disarm(&mut self, shared: &Shared, slot: u32) {
        let generation = self.reg.generation(slot);
        let Some(handler) = self.reg.handler(slot) else { return };
        let (fd, old) = (handler.fd, handler.armed);
        handler.wanted = Interest::empty();
        if old.is_empty() || !self.home.is_here() {
            return;
        }
        let token = crate::monitor::MonitorToken::new(slot, generation);
        let result = self.monitor.update(token, fd, old, Interest::empty());
        self.tally(slot, |handler| handler.armed = Interest::empty());
        self.watch_from_outside(shared, token, fd, old, Interest::empty());
        // A ring that is refused goes on holding the file. What an epoll set goes on reporting is
        // noticed, and the set replaced.
        if let (Err(errno), Monitor::IoUring(_)) = (result, &self.monitor) {
            self.move_down(shared, errno);
        }
    }

    /// The handler's predicate runs once in the next turn, before any sleep.
    pub(crate) fn want_look(&mut self, slot: u32) {
        let Some(handler) = self.reg.handler(slot) else { return };
        if handler.has_poll && !handler.look {
            handler.look = true;
            self.spin.looks.push(slot);
            self.reg.hints.set(Hints::LOOKS);
        }
    }

    fn external_slots(&mut self) -> Vec<u32> {
        let slots: Vec<u32> = self.reg.handler_slots().collect();
        slots
            .into_iter()
            .filter(|&slot| self.reg.handler(slot).is_some_and(|handler| handler.external))
            .collect()
    }
}

impl Inner {
    pub(crate) fn set_interest(
        &self,
        slot: u32,
        generation: u32,
        interest: Interest,
    ) -> Result<bool> {
        let mut st = self.open_state()?;
        let Some(handler) = st.reg.live_handler(slot, generation) else { return Ok(false) };
        let missing = interest - Interest::of(handler.callbacks);
        if !missing.is_empty() {
            return Err(Error::invalid_arg(
                "interest",
                format_args!("{missing:?}"),
                "only what the handler has a callback for",
            ));
        }
        let fd = handler.fd;
        handler.wanted = interest;
        // Readiness that was collected for what is no longer wanted is not dispatched.
        let pending = st.reg.words.get(slot);
        if pending != 0 {
            let dropped = Interest::all() - interest;
            st.reg.words.set(slot, without(pending, dropped));
        }
        match st.sync(&self.shared, slot) {
            Ok(()) => Ok(true),
            Err(Errno::BADF) => {
                Err(Error::bad_fd(fd, "it was closed while registered: remove its handler first"))
            }
            Err(errno) => Err(Error::syscall("epoll_ctl", errno, "pass an fd that can be polled")),
        }
    }

    pub(crate) fn is_live(&self, slot: u32, generation: u32) -> bool {
        self.state().reg.live_handler(slot, generation).is_some()
    }
}

#[cold]
fn no_callback() -> Error {
    Error::invalid_arg("handlers", "none", "at least one callback")
}

/// The word without the events of these interests; without any interest there are no events.
fn without(pending: u32, dropped: Interest) -> u32 {
    let mut gone = if dropped.is_all() { word::EVENTS } else { dropped.to_events().bits() };
    if dropped.contains(Interest::READ) {
        gone |= word::RUN_READ;
    }
    if dropped.contains(Interest::WRITE) {
        gone |= word::RUN_WRITE;
    }
    if dropped.contains(Interest::PRIORITY) {
        gone |= word::RUN_PRIORITY;
    }
    let left = pending & !gone;
    if left & (word::EVENTS | word::HIT) == 0 { 0 } else { left }
}
