//! The other side of a channel, for a program in another language: takes a port that it is handed over
//! a Unix socket, or makes the channel and hands a port over, and sends back what it receives.
//!
//! ```text
//! channel_peer [--spin MICROSECONDS] [--count N] [--make BYTES] SOCKET
//! ```
//!
//! It connects to SOCKET and receives one message: its first byte is the number of the port, 1 or 2,
//! and with it come two descriptors (SCM_RIGHTS), the memory and the bell. With `--make BYTES` it makes
//! a channel of that capacity itself, and sends such a message instead. Then each message is sent
//! back, until the other side closes its port. With `--count N` it sends N messages of its own
//! instead, each of 64 bytes, a number from 0 on as a little-endian u32 and bytes that follow from it
//! ([`numbered`]), and expects N of the same kind, in order. The exit code is 0 if all went well, and 1
//! if a message was lost, out of order or torn, or the other side died.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fdmon::{
    AioContext, ChannelEnd, ChannelHandler, ChannelPort, ChannelSender, ChannelSide, Ops, Outcome,
    PollParams,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// What the command line asks for.
#[derive(Default)]
struct Options {
    socket: String,
    count: Option<u32>,
    make: Option<usize>,
    spin: Option<Duration>,
}

fn options() -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut parser, mut options) = (lexopt::Parser::from_env(), Options::default());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("count") => options.count = Some(parser.value()?.parse()?),
            Long("make") => options.make = Some(parser.value()?.parse()?),
            Long("spin") => {
                options.spin = Some(Duration::from_micros(parser.value()?.parse()?));
            }
            Value(socket) if options.socket.is_empty() => options.socket = socket.string()?,
            _ => return Err(argument.unexpected()),
        }
    }
    if options.socket.is_empty() {
        let usage = "channel_peer [--spin MICROSECONDS] [--count N] [--make BYTES] SOCKET";
        return Err(format!("usage: {usage}").into());
    }
    Ok(options)
}

/// The port that somebody sends over this socket.
fn receive_port(socket: &UnixStream) -> Result<ChannelPort, Box<dyn Error + Send + Sync>> {
    let mut number = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut number)];
    let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds: VecDeque<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    match (received.bytes, fds.pop_front(), fds.pop_front()) {
        (1, Some(memory), Some(bell)) => {
            Ok(ChannelPort::from_fds(memory, bell, ChannelSide::from_number(number[0])?)?)
        }
        _ => Err("the socket carried no port: send its number with its two descriptors".into()),
    }
}

/// A port of a new channel, whose other port goes to somebody over this socket.
fn make_channel(
    socket: &UnixStream,
    capacity: usize,
) -> Result<ChannelPort, Box<dyn Error + Send + Sync>> {
    let (mine, theirs) = ChannelPort::pair(capacity)?;
    let number = [theirs.side().number()];
    let fds = theirs.into_fds().map_err(|(error, _)| error)?;
    let fds = [fds[0].as_fd(), fds[1].as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(&number)], &mut control, SendFlags::empty())?;
    Ok(mine)
}

/// Sends what it receives back, in order.
#[derive(Default)]
struct Echo {
    /// What there was no room for.
    waiting: VecDeque<Vec<u8>>,
}

impl ChannelHandler for Echo {
    fn message(&mut self, _: &mut Ops<'_>, port: &ChannelSender, message: &[u8]) -> Outcome {
        if !self.waiting.is_empty() || !port.send(message)? {
            self.waiting.push_back(message.to_vec());
        }
        Ok(())
    }

    fn room(&mut self, _: &mut Ops<'_>, port: &ChannelSender) -> Outcome {
        while let Some(message) = self.waiting.front() {
            if !port.send(message)? {
                break;
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    fn closed(&mut self, ops: &mut Ops<'_>, end: ChannelEnd) -> Outcome {
        ops.stop();
        if end == ChannelEnd::Closed { Ok(()) } else { Err(format!("the channel {end}").into()) }
    }
}

/// Message `number`: itself, and then bytes from its lowest byte plus 4 on, each one more.
fn numbered(number: u32) -> [u8; 64] {
    let mut message = [0; 64];
    for (at, byte) in message.iter_mut().enumerate() {
        *byte = (number as u8).wrapping_add(at as u8);
    }
    message[..4].copy_from_slice(&number.to_le_bytes());
    message
}

/// Sends and expects numbered messages.
struct Count {
    all: u32,
    sent: u32,
    received: u32,
}

impl Count {
    fn send(&mut self, port: &ChannelSender) -> Outcome {
        while self.sent < self.all && port.send(&numbered(self.sent))? {
            self.sent += 1;
        }
        Ok(())
    }

    fn stop_when_done(&self, ops: &mut Ops<'_>) {
        if self.sent == self.all && self.received == self.all {
            ops.stop();
        }
    }
}

impl ChannelHandler for Count {
    fn message(&mut self, ops: &mut Ops<'_>, _: &ChannelSender, message: &[u8]) -> Outcome {
        if message != numbered(self.received) {
            return Err(format!("instead of message {} came {message:?}", self.received).into());
        }
        self.received += 1;
        self.stop_when_done(ops);
        Ok(())
    }

    fn room(&mut self, ops: &mut Ops<'_>, port: &ChannelSender) -> Outcome {
        self.send(port)?;
        self.stop_when_done(ops);
        Ok(())
    }

    fn closed(&mut self, ops: &mut Ops<'_>, end: ChannelEnd) -> Outcome {
        let Self { all, sent, received } = self;
        if sent == all && received == all {
            ops.stop();
            return Ok(()); // the other side was done sooner
        }
        Err(format!("the channel {end}: {sent} sent and {received} received of {all}").into())
    }
}

fn main() -> Outcome {
    let options = options()?;
    let socket = UnixStream::connect(&options.socket)?;
    let port = match options.make {
        Some(capacity) => make_channel(&socket, capacity)?,
        None => receive_port(&socket)?,
    };
    let params = options.spin.map_or_else(PollParams::default, PollParams::spin);
    let ctx = AioContext::builder().poll(params).build()?;
    if let Some(all) = options.count {
        let mut listener = port.listen(Count { all, sent: 0, received: 0 });
        let sender = listener.sender();
        listener.handler_mut().send(&sender)?; // the others follow where there is room
        ctx.register(listener).map_err(|(error, _)| error)?;
    } else {
        ctx.register(port.listen(Echo::default())).map_err(|(error, _)| error)?;
    }
    if options.count != Some(0) {
        ctx.run()?;
    }
    Ok(())
}
