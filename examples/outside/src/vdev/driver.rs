//! The driver: puts requests on the ring, and hands each answer to whoever asked.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use fdmon::{AioContext, Handlers, Interest, Ops, Outcome, Source};

use super::handover::{bell, send};
use super::memory::{MOST_DATA, Memory, SLOT, SLOTS};
use super::request::{Kind, NEXT, Status, WRITE};
use super::ring::{AVAIL, BROKEN, Consumer, DATA, DESCRIPTORS, Producer, USED};

/// Hears the answer: the data of a read, empty otherwise.
type Done = Box<dyn FnOnce(&mut Ops<'_>, io::Result<Vec<u8>>) -> Outcome>;

/// A driver; a clone is the same one. Its context's `run` ends with an error when the device is gone.
#[derive(Clone)]
pub struct Driver(Rc<Shared>);

struct Shared {
    memory: Rc<Memory>,
    avail: Producer,
    used: Consumer,
    sectors: u64,
    calls: Cell<u64>,
    /// Slots without a request.
    free: RefCell<Vec<u32>>,
    /// By slot: the bytes that a read gets, and who asked.
    asked: RefCell<Vec<Option<(usize, Done)>>>,
}

impl Driver {
    /// Connects to a device, and hears its answers in this context.
    ///
    /// # Errors
    /// Nobody listens there, or it refuses.
    pub fn connect(ctx: &AioContext, path: &Path) -> io::Result<Self> {
        let mut socket = UnixStream::connect(path)?;
        let (memory, kick, call) = (Memory::create()?, bell()?, bell()?);
        send(&socket, &[memory.as_fd(), kick.as_fd(), call.as_fd()])?;
        let mut sectors = [0; 8];
        socket.read_exact(&mut sectors)?;
        let memory = Rc::new(memory);
        let shared = Rc::new(Shared {
            avail: Producer::new(Rc::clone(&memory), AVAIL, kick),
            used: Consumer::new(Rc::clone(&memory), USED, call),
            memory,
            sectors: u64::from_ne_bytes(sectors),
            calls: Cell::new(0),
            free: RefCell::new((0..SLOTS as u32).collect()),
            asked: RefCell::new((0..SLOTS).map(|_| None).collect()),
        });
        ctx.register(Call(Rc::clone(&shared))).map_err(|(error, _)| io::Error::other(error))?;
        let gone = Handlers::new().read(|_| Err("the device is gone".into()));
        ctx.set_fd_handler(socket, gone).map_err(io::Error::other)?;
        Ok(Self(shared))
    }

    /// How many sectors the disk has.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.0.sectors
    }

    /// How often the device had to signal.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.calls.get()
    }

    /// Reads `len` bytes, whole sectors.
    ///
    /// # Errors
    /// As [`Driver::flush`]; and too much at once.
    pub fn read(
        &self,
        sector: u64,
        len: usize,
        done: impl FnOnce(&mut Ops<'_>, io::Result<Vec<u8>>) -> Outcome + 'static,
    ) -> io::Result<()> {
        self.0.submit(Kind::Read, sector, len, &[], Box::new(done))
    }

    /// Writes whole sectors.
    ///
    /// # Errors
    /// As [`Driver::read`].
    pub fn write(
        &self,
        sector: u64,
        data: &[u8],
        done: impl FnOnce(&mut Ops<'_>, io::Result<Vec<u8>>) -> Outcome + 'static,
    ) -> io::Result<()> {
        self.0.submit(Kind::Write, sector, data.len(), data, Box::new(done))
    }

    /// What was written and answered before reaches the disk.
    ///
    /// # Errors
    /// All slots are taken (`WouldBlock`), or the device cannot be kicked.
    pub fn flush(
        &self,
        done: impl FnOnce(&mut Ops<'_>, io::Result<Vec<u8>>) -> Outcome + 'static,
    ) -> io::Result<()> {
        self.0.submit(Kind::Flush, 0, 0, &[], Box::new(done))
    }
}

impl Shared {
    fn submit(
        &self,
        kind: Kind,
        sector: u64,
        len: usize,
        data: &[u8],
        done: Done,
    ) -> io::Result<()> {
        if len > MOST_DATA {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{len} bytes at once")));
        }
        let slot = self.free.borrow_mut().pop().ok_or(ErrorKind::WouldBlock)?;
        let base = DATA + slot as usize * SLOT;
        let (status, at) = (base + 16, base + 64);
        let (low, high) = (sector as u32, (sector >> 32) as u32);
        let header = [kind as u32, low, high, 0].map(u32::to_ne_bytes);
        self.memory.copy_in(base, header.as_flattened());
        self.memory.copy_in(status, &[0; 4]);
        self.memory.copy_in(at, data);
        let (first, way) = (slot * 3, if kind == Kind::Read { WRITE } else { 0 });
        if kind == Kind::Flush {
            self.describe(first, base, 16, NEXT, first + 2);
        } else {
            self.describe(first, base, 16, NEXT, first + 1);
            self.describe(first + 1, at, len, NEXT | way, first + 2);
        }
        self.describe(first + 2, status, 4, WRITE, 0);
        let wanted = if kind == Kind::Read { len } else { 0 };
        self.asked.borrow_mut()[slot as usize] = Some((wanted, done));
        self.avail.push(&[first])
    }

    fn describe(&self, number: u32, offset: usize, len: usize, flags: u32, next: u32) {
        let at = DESCRIPTORS + 4 * number as usize;
        let values = [offset as u32, len as u32, flags, next];
        for (word, value) in self.memory.words()[at..at + 4].iter().zip(values) {
            word.store(value, Ordering::Relaxed); // the push publishes them
        }
    }

    /// Every answer there is. The device is not trusted either.
    fn take_all(&self, ops: &mut Ops<'_>) -> Outcome {
        if self.memory.words()[BROKEN].load(Ordering::Acquire) != 0 {
            return Err("the device says that this driver broke the rules".into());
        }
        while let Some([head, _]) = self.used.pop().map_err(|_| "the device overran its ring")? {
            let slot = head / 3;
            let asked = self.asked.borrow_mut().get_mut(slot as usize).and_then(Option::take);
            let Some((len, done)) = asked.filter(|_| head % 3 == 0) else {
                return Err("the device answered what was not asked".into());
            };
            let base = DATA + slot as usize * SLOT;
            let (mut status, mut data) = ([0; 4], vec![0; len]);
            self.memory.copy_out(base + 16, &mut status);
            self.memory.copy_out(base + 64, &mut data);
            self.free.borrow_mut().push(slot);
            let done_well = u32::from_ne_bytes(status) == Status::Ok as u32;
            let failed = || io::Error::other("the device could not do it");
            done(ops, if done_well { Ok(data) } else { Err(failed()) })?;
        }
        Ok(())
    }
}

/// The handler of the device's calls.
struct Call(Rc<Shared>);

impl AsFd for Call {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.used.as_fd()
    }
}

impl Source for Call {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        self.0.used.silence()?;
        self.0.calls.set(self.0.calls.get() + 1);
        self.0.take_all(ops)
    }

    fn poll(&self) -> bool {
        self.0.used.has_more()
    }

    fn poll_ready(&mut self, ops: &mut Ops<'_>) -> Outcome {
        self.0.take_all(ops)
    }

    fn poll_begin(&mut self) {
        self.0.used.suppress(true);
    }

    fn poll_end(&mut self) {
        self.0.used.suppress(false);
    }
}
