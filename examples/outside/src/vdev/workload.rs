//! Random reads and writes that know what each sector must hold.
//!
//! Workers ask one request at a time, each in sectors of its own, so that there is one right answer.
//! Now and then one flushes, or pauses for some microseconds: long enough that spinning ends and must begin again,
//! which is when a kick or a call could be lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fdmon::{AioContext, Ops, Outcome};

use super::SECTOR;
use super::driver::Driver;
use super::memory::SLOTS;
use crate::Failure;

/// Sectors of one request at most.
const MOST_SECTORS: u64 = 4;
/// Nothing was answered for this long: a signal was lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much is asked, and by how many at once.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Requests altogether.
    pub requests: u64,
    /// Workers, each with one request in flight.
    pub workers: usize,
    /// Decides everything that is random.
    pub seed: u64,
}

/// How often each sector was written, by which [`fill`] says what it holds.
pub type Versions = Vec<u32>;

/// What a sector holds after it was written so often.
pub fn fill(sector: u64, version: u32, bytes: &mut [u8]) {
    let mut random = Random::new(sector << 32 | u64::from(version));
    for piece in bytes.chunks_exact_mut(8) {
        let value = if version == 0 { 0 } else { random.next() };
        piece.copy_from_slice(&value.to_le_bytes());
    }
}

/// Runs the plan on a disk of zeroes; every answer is looked at.
///
/// # Errors
/// The first answer that was wrong, or that did not come.
pub fn run(ctx: &AioContext, driver: &Driver, plan: Plan) -> Result<Versions, Failure> {
    let workers = plan.workers.clamp(1, SLOTS) as u64;
    let share = driver.sectors() / workers;
    if share < MOST_SECTORS {
        return Err(
            format!("{} sectors are too few for {workers} workers", driver.sectors()).into()
        );
    }
    let load = Rc::new(Load {
        driver: driver.clone(),
        left: Cell::new(plan.requests),
        busy: Cell::new(workers),
        share,
        versions: RefCell::new(vec![0; usize::try_from(driver.sectors())?]),
    });
    let (watched, seen) = (Rc::clone(&load), Cell::new(u64::MAX));
    let watch = Rc::new(RefCell::new(None::<fdmon::Timer>));
    let again = Rc::clone(&watch);
    *watch.borrow_mut() = Some(ctx.timer(move |_| {
        if seen.replace(watched.left.get()) == watched.left.get() {
            return Err("no answer came for seconds: an event was lost".into());
        }
        again.borrow().as_ref().map_or(Ok(()), |timer| Ok(timer.arm(PATIENCE)?))
    })?);
    if let Some(timer) = &*watch.borrow() {
        timer.arm(PATIENCE)?;
    }
    let begin = Rc::clone(&load);
    ctx.schedule(move |ops| {
        (0..workers).try_for_each(|worker| {
            Rc::clone(&begin).next(ops, worker, Random::new(plan.seed << 8 | worker))
        })
    })?;
    let result = ctx.run();
    if let Some(timer) = watch.take() {
        timer.delete();
    }
    result?;
    Ok(load.versions.take())
}

struct Load {
    driver: Driver,
    left: Cell<u64>,
    /// Workers that have not ended.
    busy: Cell<u64>,
    /// Sectors of one worker.
    share: u64,
    versions: RefCell<Versions>,
}

impl Load {
    /// A worker's next request, or its end.
    fn next(self: Rc<Self>, ops: &mut Ops<'_>, worker: u64, mut random: Random) -> Outcome {
        let Some(left) = self.left.get().checked_sub(1) else {
            self.busy.set(self.busy.get() - 1);
            if self.busy.get() == 0 {
                ops.stop();
            }
            return Ok(());
        };
        self.left.set(left);
        let count = 1 + random.next() % MOST_SECTORS;
        let sector = worker * self.share + random.next() % (self.share - count + 1);
        let writes = random.next().is_multiple_of(2);
        let versions = self.expect(sector, count, u32::from(writes));
        let driver = self.driver.clone();
        if writes {
            let data = contents(sector, &versions);
            driver.write(sector, &data, move |ops, result| {
                result?;
                let first = usize::try_from(sector)?;
                self.versions.borrow_mut()[first..first + versions.len()]
                    .copy_from_slice(&versions);
                self.go_on(ops, worker, random)
            })?;
        } else {
            let len = versions.len() * SECTOR;
            driver.read(sector, len, move |ops, result| {
                if result? != contents(sector, &versions) {
                    return Err(format!("sectors {sector} and on hold something else").into());
                }
                self.go_on(ops, worker, random)
            })?;
        }
        Ok(())
    }

    fn go_on(self: Rc<Self>, ops: &mut Ops<'_>, worker: u64, mut random: Random) -> Outcome {
        match random.next() % 512 {
            0 | 1 => {}
            2 => {
                let driver = self.driver.clone();
                return Ok(driver.flush(move |ops, result| {
                    result?;
                    self.next(ops, worker, random)
                })?);
            }
            _ => return self.next(ops, worker, random),
        }
        let pause = Duration::from_micros(random.next() % 300);
        let mut rest = Some((self, random));
        ops.arm(pause, move |ops| {
            rest.take().map_or(Ok(()), |(load, random)| load.next(ops, worker, random))
        })?;
        Ok(())
    }

    /// The versions of these sectors, so many writes later.
    fn expect(&self, sector: u64, count: u64, later: u32) -> Versions {
        let versions = self.versions.borrow();
        let all = versions.iter().skip(usize::try_from(sector).unwrap_or(usize::MAX));
        all.take(usize::try_from(count).unwrap_or(0)).map(|version| version + later).collect()
    }
}

fn contents(sector: u64, versions: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; versions.len() * SECTOR];
    for ((sector, version), bytes) in (sector..).zip(versions).zip(bytes.chunks_exact_mut(SECTOR)) {
        fill(sector, *version, bytes);
    }
    bytes
}

/// xorshift64*: quick, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}
