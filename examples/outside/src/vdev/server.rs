//! The device's process: a listener, and a device for each driver that connects.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use fdmon::{AioContext, Handlers, Ops, Token};

use super::device::{Counts, Device, Disk};
use super::handover::receive;

/// Serves the disk to whoever connects. The counts are those of all devices together.
///
/// # Errors
/// The context is closed, or the kernel refuses the listener.
pub fn serve(ctx: &AioContext, listener: UnixListener, disk: Disk) -> io::Result<Rc<Cell<Counts>>> {
    listener.set_nonblocking(true)?;
    let counts = Rc::new(Cell::new(Counts::default()));
    let (acceptor, all) = (listener.try_clone()?, Rc::clone(&counts));
    let accept = move |ops: &mut Ops<'_>| match acceptor.accept() {
        Ok((socket, _)) => Ok(welcome(ops, socket, disk.clone(), Rc::clone(&all))?),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    };
    ctx.set_fd_handler(listener, Handlers::new().read(accept).external(true))
        .map_err(io::Error::other)?;
    Ok(counts)
}

/// The socket's first message is the offer, and its end is the driver's.
fn welcome(
    ops: &mut Ops<'_>,
    socket: UnixStream,
    disk: Disk,
    counts: Rc<Cell<Counts>>,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = Rc::new(socket);
    let (stream, device) = (Rc::clone(&socket), RefCell::new(None::<Token<Device>>));
    let hear = move |ops: &mut Ops<'_>| {
        let device = &mut *device.borrow_mut();
        let attached = match (receive(&stream), &device) {
            (Err(error), _) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            (Ok(Some(offer)), None) => {
                Device::attach(ops.context(), offer, disk.clone(), Rc::clone(&counts)).map(Some)
            }
            (Ok(Some(_)), Some(_)) => Err(io::Error::other("a second offer")),
            (Ok(None), _) => Ok(None),
            (Err(error), _) => Err(error),
        };
        match attached {
            Ok(Some(token)) => {
                *device = Some(token);
                // Eight bytes fit into a socket that nothing was written to.
                let told = (&*stream).write_all(&disk.sectors().to_ne_bytes());
                return if told.is_ok() { Ok(()) } else { part(ops, &stream, device.as_ref()) };
            }
            Ok(None) => {}
            Err(error) => eprintln!("vdev: a driver is refused: {error}"),
        }
        part(ops, &stream, device.as_ref())
    };
    let handlers = Handlers::new().read(hear).external(true);
    ops.set_fd_handler(socket, handlers).map(drop).map_err(io::Error::other)
}

/// The device goes, and with its handler the socket is closed.
fn part(
    ops: &mut Ops<'_>,
    stream: &Rc<UnixStream>,
    device: Option<&Token<Device>>,
) -> fdmon::Outcome {
    if let Some(token) = device {
        ops.deregister(token);
    }
    if let Some(own) = ops.token_of::<Rc<UnixStream>>(stream) {
        ops.deregister(&own);
    }
    Ok(())
}
