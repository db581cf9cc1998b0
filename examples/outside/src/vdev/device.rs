//! The device: takes requests off a driver's ring and does them on a file, through fdmon's file I/O.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use fdmon::{AioContext, Interest, Ops, Outcome, Source, Token};

use super::SECTOR;
use super::handover::Offer;
use super::memory::Memory;
use super::request::{Broken, Kind, Request, Status};
use super::ring::{AVAIL, BROKEN, Consumer, ENTRIES, Producer, USED};

/// The file behind the device; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Disk {
    file: Rc<File>,
    sectors: u64,
}

impl Disk {
    /// A file of whole sectors, whose size stays as it is.
    ///
    /// # Errors
    /// Its size cannot be had.
    pub fn new(file: File) -> io::Result<Self> {
        let sectors = file.metadata()?.len() / SECTOR as u64;
        Ok(Self { file: Rc::new(file), sectors })
    }

    /// How many sectors it has.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Where the sectors lie in the file, if it has all of them.
    fn offset(&self, request: &Request) -> Option<u64> {
        let end = request.sector.checked_add((request.len / SECTOR) as u64)?;
        (end <= self.sectors).then(|| request.sector * SECTOR as u64)
    }
}

/// What a device did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were answered.
    pub requests: u64,
    /// Kicks that were read: how often the driver had to signal.
    pub kicks: u64,
}

/// A device that serves one driver, registered as the handler of its kick.
#[derive(Debug)]
pub struct Device(Rc<Session>);

/// What the device and the requests in flight know together; it outlives the device.
#[derive(Debug)]
struct Session {
    memory: Rc<Memory>,
    avail: Consumer,
    used: Producer,
    disk: Disk,
    /// By head: taken, and not answered yet.
    in_flight: RefCell<[bool; ENTRIES]>,
    counts: Rc<Cell<Counts>>,
}

impl Device {
    /// Serves the driver that made this offer, from now on.
    ///
    /// # Errors
    /// The offer is none, or the context is closed.
    pub fn attach(
        ctx: &AioContext,
        offer: Offer,
        disk: Disk,
        counts: Rc<Cell<Counts>>,
    ) -> io::Result<Token<Self>> {
        let memory = Rc::new(Memory::from_peer(offer.memory)?);
        let device = Self(Rc::new(Session {
            avail: Consumer::new(Rc::clone(&memory), AVAIL, offer.kick),
            used: Producer::new(Rc::clone(&memory), USED, offer.call),
            memory,
            disk,
            in_flight: RefCell::new([false; ENTRIES]),
            counts,
        }));
        ctx.register(device).map_err(|(error, _)| io::Error::other(error))
    }

    /// Everything that was pushed. A driver that breaks the rules is told so and is served no more.
    fn serve(&self, ops: &mut Ops<'_>) -> Outcome {
        // What is asked for in one go is submitted in one go.
        let Err(broken) = ops.plug(|ops| self.0.take_all(ops)) else { return Ok(()) };
        eprintln!("vdev: a driver broke the rules: {broken}");
        if let Some(own) = ops.token_of::<Self>(self) {
            ops.deregister(&own);
        }
        self.0.memory.words()[BROKEN].store(1, Ordering::Release);
        let _ = self.0.used.ring(); // whether it can hear that is its own affair
        Ok(())
    }
}

impl Session {
    fn take_all(self: &Rc<Self>, ops: &mut Ops<'_>) -> Result<(), Broken> {
        let overrun = |_| Broken("more was pushed than a ring has room for");
        while let Some([head, _]) = self.avail.pop().map_err(overrun)? {
            let request = Request::parse(&self.memory, head)?;
            if !self.take(head) {
                return Err(Broken("a chain was pushed again before it was answered"));
            }
            self.start(ops, request);
        }
        Ok(())
    }

    /// Marks the chain as taken; `false` = it is so already.
    fn take(&self, head: u32) -> bool {
        !std::mem::replace(&mut self.in_flight.borrow_mut()[head as usize], true)
    }

    fn start(self: &Rc<Self>, ops: &mut Ops<'_>, request: Request) {
        let Some(offset) = self.disk.offset(&request) else {
            return self.answer(request, Status::IoError);
        };
        let (own, file) = (Rc::clone(self), Rc::clone(&self.disk.file));
        let mut buffer = vec![0; request.len];
        let started = match request.kind {
            Kind::Read => ops.read_at(file, buffer, offset, move |_, result, buffer| {
                own.memory.copy_in(request.data, &buffer);
                own.end(request, result);
            }),
            Kind::Write => {
                self.memory.copy_out(request.data, &mut buffer);
                ops.write_at(file, buffer, offset, move |_, result, _| own.end(request, result))
            }
            Kind::Flush => {
                ops.fdatasync(file, move |_, result| own.end(request, result.map(|()| 0)))
            }
        };
        if started.is_err() {
            self.answer(request, Status::IoError);
        }
    }

    fn end(&self, request: Request, result: io::Result<usize>) {
        let whole = result.is_ok_and(|count| count == request.len);
        self.answer(request, if whole { Status::Ok } else { Status::IoError });
    }

    fn answer(&self, request: Request, status: Status) {
        self.memory.copy_in(request.status, &(status as u32).to_ne_bytes());
        self.in_flight.borrow_mut()[request.head as usize] = false;
        self.count(|counts| counts.requests += 1);
        let len = if request.kind == Kind::Read { request.len } else { 0 };
        // A driver that cannot be called any more is one whose socket closes.
        let _ = self.used.push(&[request.head, u32::try_from(len + 4).unwrap_or(u32::MAX)]);
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.avail.as_fd()
    }
}

impl Source for Device {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    /// Slept, and was kicked.
    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        self.0.avail.silence()?;
        self.0.count(|counts| counts.kicks += 1);
        self.serve(ops)
    }

    fn poll(&self) -> bool {
        self.0.avail.has_more()
    }

    /// Spun, and saw the index move.
    fn poll_ready(&mut self, ops: &mut Ops<'_>) -> Outcome {
        self.serve(ops)
    }

    fn poll_begin(&mut self) {
        self.0.avail.suppress(true);
    }

    fn poll_end(&mut self) {
        self.0.avail.suppress(false);
    }
}
