//! Two sockets and the two flows between them.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use fdmon::{Handlers, Interest, Ops, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::Shared;
use super::flow::Flow;

/// Index of the socket that was accepted, and of the flow that is read from it.
const CLIENT: usize = 0;
/// Index of the socket that the proxy connected.
const TARGET: usize = 1;

/// A connection through the proxy. Its two handlers own it; it ends when they are deregistered.
#[derive(Debug)]
pub(super) struct Relay {
    sockets: [Rc<TcpStream>; 2],
    /// `flows[i]` is read from `sockets[i]` and written to the other one.
    flows: [Flow; 2],
    /// Until the target has accepted, nothing is read.
    connected: bool,
    tokens: Vec<Token<Rc<TcpStream>>>,
    /// What the loop was told last.
    interests: [Interest; 2],
    shared: Rc<Shared>,
}

impl Relay {
    /// Begins to connect, and registers both sockets.
    pub(super) fn start(
        ops: &mut Ops<'_>,
        client: TcpStream,
        target: SocketAddr,
        shared: Rc<Shared>,
    ) -> io::Result<()> {
        client.set_nonblocking(true)?;
        let target = start_to_connect(target)?;
        for socket in [&client, &target] {
            socket.set_nodelay(true)?; // what is read in one piece is written in one piece
        }
        let relay = Rc::new(RefCell::new(Self {
            sockets: [Rc::new(client), Rc::new(target)],
            flows: [Flow::new(), Flow::new()],
            connected: false,
            tokens: Vec::new(),
            interests: [Interest::READ | Interest::WRITE; 2], // what handlers begin with
            shared,
        }));
        let registered = Self::register(&relay, ops);
        let this = &mut *relay.borrow_mut();
        let started = registered.and_then(|()| this.tell_interest()).map_err(io::Error::other);
        if started.is_err() {
            this.forget(ops);
        }
        started
    }

    fn register(relay: &Rc<RefCell<Self>>, ops: &mut Ops<'_>) -> fdmon::Result<()> {
        for side in [CLIENT, TARGET] {
            let (reader, writer) = (Rc::clone(relay), Rc::clone(relay));
            let handlers = Handlers::new()
                .read(move |ops| {
                    reader.borrow_mut().on_readable(ops, side);
                    Ok(())
                })
                .write(move |ops| {
                    writer.borrow_mut().on_writable(ops, side);
                    Ok(())
                })
                .poll_kernel()
                .external(true);
            let socket = Rc::clone(&relay.borrow().sockets[side]);
            let token = ops.set_fd_handler(socket, handlers)?;
            relay.borrow_mut().tokens.push(token);
        }
        Ok(())
    }

    fn on_readable(&mut self, ops: &mut Ops<'_>, side: usize) {
        // A connection that is refused may be reported as readable.
        let result = if self.connected { self.pump(side) } else { self.finish_connecting() };
        self.go_on(ops, result);
    }

    fn on_writable(&mut self, ops: &mut Ops<'_>, side: usize) {
        let result = if self.connected { self.drain(1 - side) } else { self.finish_connecting() };
        self.go_on(ops, result);
    }

    /// Reads from this side, and writes at once what came: most often the other side takes it.
    fn pump(&mut self, side: usize) -> io::Result<()> {
        self.flows[side].fill(&self.sockets[side])?;
        self.drain(side)
    }

    fn drain(&mut self, flow: usize) -> io::Result<()> {
        let count = self.flows[flow].drain(&self.sockets[1 - flow])?;
        self.shared.count_bytes(count);
        Ok(())
    }

    fn finish_connecting(&mut self) -> io::Result<()> {
        match self.sockets[TARGET].take_error()? {
            Some(error) => Err(error),
            None => {
                self.connected = true;
                Ok(())
            }
        }
    }

    /// After each step: is it over, broken, or what is to be watched now?
    fn go_on(&mut self, ops: &mut Ops<'_>, result: io::Result<()>) {
        let result = result.and_then(|()| self.tell_interest().map_err(io::Error::other));
        if result.is_ok() && !self.flows.iter().all(Flow::is_over) {
            return;
        }
        self.forget(ops); // closes both sockets once the handlers are gone
        self.shared.connection_ended(ops, result);
    }

    /// The back-pressure: a side is read while its flow has room, and watched for room to write
    /// while something waits. So a slow reader stops the writer through TCP itself.
    fn tell_interest(&mut self) -> fdmon::Result<()> {
        for side in [CLIENT, TARGET] {
            let mut interest = Interest::empty();
            interest.set(Interest::READ, self.connected && self.flows[side].wants_input());
            let connecting = side == TARGET && !self.connected;
            interest.set(Interest::WRITE, connecting || self.flows[1 - side].has_output());
            if interest != self.interests[side] {
                self.tokens[side].set_interest(interest)?;
                self.interests[side] = interest;
            }
        }
        Ok(())
    }

    fn forget(&mut self, ops: &mut Ops<'_>) {
        for token in self.tokens.drain(..) {
            ops.deregister(&token);
        }
    }
}

/// Does not wait for the answer: the socket becomes writable, or has an error.
fn start_to_connect(target: SocketAddr) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(errno) => Err(errno.into()),
    }
}
