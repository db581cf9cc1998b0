//! A TCP proxy: accepts connections, and carries their bytes to and from a target.
//!
//! One loop, no thread, no copy but the one through [`flow::Flow`]'s buffer. A connection keeps at most
//! [`flow::CAPACITY`] bytes a direction, whatever its two sides do; there are at most `most` connections,
//! and while there are that many, others wait in the kernel's queue. Nothing times out by itself.

pub mod flow;
mod relay;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use fdmon::{AioContext, Handlers, Interest, Ops, Timer, Token};

use relay::Relay;

/// What the proxy did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub accepted: u64,
    /// …of which the target could not be reached, or one side broke.
    pub failed: u64,
    /// Bytes that were passed on, both directions together.
    pub bytes: u64,
}

/// A running proxy; a clone is the same one. It lives in the context that [`Proxy::start`] was given.
#[derive(Clone, Debug)]
pub struct Proxy(Rc<Shared>);

/// What the listener and all connections know together.
#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// Connections at most.
    most: usize,
    open: Cell<usize>,
    counts: Cell<Counts>,
    /// None once no connection is accepted any more.
    listener: RefCell<Option<Token<TcpListener>>>,
    /// Runs when the connections that are left have had their time.
    grace: RefCell<Option<Timer>>,
}

impl Proxy {
    /// Accepts from now on.
    ///
    /// # Errors
    /// The context is closed, or the kernel refuses the listener.
    pub fn start(
        ctx: &AioContext,
        listener: TcpListener,
        target: SocketAddr,
        most: usize,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let acceptor = listener.try_clone()?;
        let shared = Rc::new(Shared {
            target,
            most: most.max(1),
            open: Cell::new(0),
            counts: Cell::default(),
            listener: RefCell::new(None),
            grace: RefCell::new(None),
        });
        let own = Rc::clone(&shared);
        let handlers = Handlers::new().read(move |ops| Ok(own.accept(ops, &acceptor)?));
        let handlers = handlers.poll_kernel().external(true);
        let token = ctx.set_fd_handler(listener, handlers).map_err(io::Error::other)?;
        *shared.listener.borrow_mut() = Some(token);
        Ok(Self(shared))
    }

    /// The graceful end: accepts no more, and stops the loop when the last connection has ended, or
    /// when this time is over. A second call stops it at once.
    ///
    /// # Errors
    /// The context is closed.
    pub fn end(&self, ops: &mut Ops<'_>, grace: Duration) -> fdmon::Result<()> {
        let Some(listener) = self.0.listener.take() else {
            ops.stop();
            return Ok(());
        };
        ops.deregister(&listener);
        if self.0.open.get() == 0 {
            ops.stop();
            return Ok(());
        }
        let timer = ops.arm(grace, |ops| {
            ops.stop();
            Ok(())
        })?;
        *self.0.grace.borrow_mut() = Some(timer);
        Ok(())
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts.get()
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.open.get()
    }
}

impl Shared {
    /// One connection a turn: the listener is reported again where more wait.
    fn accept(self: &Rc<Self>, ops: &mut Ops<'_>, listener: &TcpListener) -> fdmon::Result<()> {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if self.open.get() > 0 && is_out_of_fds(&error) => {
                return self.listen(false); // until a connection has ended
            }
            Err(error) => {
                eprintln!("tcp-proxy: cannot accept: {error}"); // the peer gave up, for example
                return Ok(());
            }
        };
        self.count(|counts| counts.accepted += 1);
        self.open.set(self.open.get() + 1);
        let started = Relay::start(ops, client, self.target, Rc::clone(self));
        if started.is_err() {
            self.connection_ended(ops, started);
        }
        if self.open.get() >= self.most { self.listen(false) } else { Ok(()) }
    }

    fn connection_ended(&self, ops: &mut Ops<'_>, result: io::Result<()>) {
        self.open.set(self.open.get() - 1);
        if result.is_err() {
            self.count(|counts| counts.failed += 1);
        }
        if self.listener.borrow().is_none() {
            if self.open.get() == 0 {
                ops.stop();
            }
        } else if let Err(error) = self.listen(true) {
            eprintln!("tcp-proxy: cannot listen on: {error}");
            ops.stop();
        }
    }

    fn listen(&self, on: bool) -> fdmon::Result<()> {
        let interest = if on { Interest::READ } else { Interest::empty() };
        match &*self.listener.borrow() {
            Some(token) => token.set_interest(interest).map(drop),
            None => Ok(()),
        }
    }

    fn count_bytes(&self, bytes: usize) {
        self.count(|counts| counts.bytes += bytes as u64);
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

fn is_out_of_fds(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
