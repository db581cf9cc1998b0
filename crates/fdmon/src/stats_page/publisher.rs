//! The thread that writes the page.
//!
//! Each block has a sequence number: odd while the block is being written. The page is written by
//! pwrite(2), whose locks keep the order; so nothing here can fault, whatever becomes of the file.

use std::fs::{File, remove_file};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::layout::{self, BLOCKS, Context};
use super::place;
use crate::aio::block_signals;
use crate::clock::monotonic_ns;
use crate::error::{Error, Result};
use crate::remote::{self, lock};
use crate::sync::lock_std;

const PERIOD: Duration = Duration::from_millis(100);
/// It copies numbers and little else.
const STACK: usize = 128 * 1024;

/// The page of one process, as long as anybody wants it.
#[derive(Debug)]
pub(super) struct Publisher {
    pid: u32,
    path: PathBuf,
    end: Arc<End>,
}

#[derive(Debug, Default)]
struct End {
    over: Mutex<bool>,
    wake: Condvar,
}

impl Publisher {
    /// The first update is written when this returns.
    pub fn start(pid: u32) -> Result<Self> {
        let (file, path) =
            place::create(pid).map_err(|(error, path)| failed("open", &error, &path))?;
        let publisher = Self { pid, path, end: Arc::default() };
        let mut page = Page { file, updates: 0, blocks: Vec::new() };
        let begin = page.begin(pid).and_then(|()| page.update());
        begin.map_err(|error| failed("pwrite", &error, &publisher.path))?;
        let end = Arc::clone(&publisher.end);
        std::thread::Builder::new()
            .name("fdmon-stats".into())
            .stack_size(STACK)
            .spawn(move || {
                block_signals();
                while !end.passed() {
                    let _ = page.update(); // no memory now may be memory later
                }
            })
            .map_err(|error| failed("clone", &error, &publisher.path))?;
        Ok(publisher)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_of(&self, pid: u32) -> bool {
        self.pid == pid
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if !self.is_of(std::process::id()) {
            return; // a forked child: thread and page are the parent's
        }
        *lock_std(&self.end.over) = true;
        self.end.wake.notify_all();
        let _ = remove_file(&self.path); // somebody else may have
    }
}

impl End {
    /// Waits for a period, or for the end.
    fn passed(&self) -> bool {
        let over = lock_std(&self.over);
        let waited = self.wake.wait_timeout_while(over, PERIOD, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn failed(call: &'static str, error: &io::Error, path: &Path) -> Error {
    let errno = rustix::io::Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO));
    let advice = "make room and access there, or do without FDMON_STATS and publish_stats()";
    Error::syscall(call, errno, &format!("this is for the page {}; {advice}", path.display()))
}

struct Page {
    file: File,
    updates: u64,
    blocks: Vec<Block>,
}

/// A block of the file, and the context that has it.
struct Block {
    sequence: u64,
    /// 0 = it is free.
    id: u64,
}

impl Page {
    fn begin(&self, pid: u32) -> io::Result<()> {
        let period = u32::try_from(PERIOD.as_millis()).unwrap_or(u32::MAX);
        self.file.write_all_at(layout::header(pid, period, place::start_time()).as_slice(), 0)
    }

    fn update(&mut self) -> io::Result<()> {
        let alive = remote::alive();
        for at in 0..self.blocks.len() {
            let id = self.blocks[at].id;
            if id != 0 && !alive.iter().any(|shared| shared.id == id) {
                self.blocks[at].id = 0;
                self.write(at, &[0; 8])?;
            }
        }
        let mut left_out = 0;
        for shared in &alive {
            let Some(at) = self.block_of(shared.id) else {
                left_out += 1;
                continue;
            };
            let poll = lock(&shared.wanted).poll.clone();
            let context = Context {
                id: shared.id,
                name: &shared.name,
                now_ns: monotonic_ns(),
                poll: &poll,
                stats: shared.stats(),
            };
            self.write(at, &context.encode().as_slice()[8..])?;
        }
        self.updates += 1;
        let contexts = u32::try_from(alive.len()).unwrap_or(u32::MAX);
        let changing = layout::changing(self.updates, monotonic_ns(), contexts, left_out);
        self.file.write_all_at(changing.as_slice(), layout::CHANGING)?;
        let blocks = u32::try_from(self.blocks.len()).unwrap_or(BLOCKS);
        self.file.write_all_at(&blocks.to_le_bytes(), 20)
    }

    /// The block of a context, perhaps a new one.
    fn block_of(&mut self, id: u64) -> Option<usize> {
        let with = |id: u64| self.blocks.iter().position(|block| block.id == id);
        let at = with(id).or_else(|| with(0)).or_else(|| {
            if self.blocks.len() == BLOCKS as usize {
                return None;
            }
            self.blocks.push(Block { sequence: 0, id });
            Some(self.blocks.len() - 1)
        })?;
        self.blocks[at].id = id;
        Some(at)
    }

    /// Writes what stands behind the sequence number. If that fails halfway, the number stays odd.
    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let position = layout::position(u32::try_from(at).unwrap_or(BLOCKS));
        let block = &mut self.blocks[at];
        block.sequence = (block.sequence + 1) | 1; // also after a write that failed
        self.file.write_all_at(&block.sequence.to_le_bytes(), position)?;
        self.file.write_all_at(bytes, position + 8)?;
        block.sequence += 1;
        self.file.write_all_at(&block.sequence.to_le_bytes(), position)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn scratch() -> (File, File) {
        let name = format!("fdmon-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let mut options = File::options();
        let write = options.write(true).create_new(true).open(&path).unwrap();
        let read = File::open(&path).unwrap();
        remove_file(&path).unwrap();
        (write, read)
    }

    /// As docs/STATS-PAGE.md tells a reader to do it: `None` = it was being written.
    fn read(file: &File, length: usize) -> Option<Vec<u8>> {
        let position = layout::position(0);
        let sequence = || {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, position).unwrap();
            u64::from_le_bytes(bytes)
        };
        let before = sequence();
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, position + 8).unwrap();
        (before % 2 == 0 && sequence() == before).then_some(bytes)
    }

    /// SPEC 53
    #[test]
    fn a_reader_that_looks_at_the_sequence_number_never_sees_half_of_an_update() {
        const LENGTH: usize = 8000;
        let (write, reader) = scratch();
        let mut page = Page { file: write, updates: 0, blocks: vec![Block { sequence: 0, id: 1 }] };
        page.write(0, &[0; LENGTH]).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in (0..=255).cycle() {
                    page.write(0, &[value; LENGTH]).unwrap();
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let (mut whole, mut values) = (0, std::collections::BTreeSet::new());
            while whole < 200 || values.len() < 20 {
                let Some(bytes) = read(&reader, LENGTH) else { continue };
                whole += 1;
                values.insert(bytes[0]);
                let alike = bytes.iter().all(|&byte| byte == bytes[0]);
                over.store(!alike, Ordering::Relaxed);
                assert!(alike, "half of an update");
            }
            over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn blocks_are_used_again_and_never_more_than_there_are() {
        let (file, _) = scratch();
        let mut page = Page { file, updates: 0, blocks: Vec::new() };
        for id in 1..=u64::from(BLOCKS) {
            assert_eq!(page.block_of(id), Some(usize::try_from(id).unwrap() - 1));
        }
        assert_eq!((page.block_of(7), page.block_of(1000)), (Some(6), None));
        page.blocks[3].id = 0;
        assert_eq!((page.block_of(1000), page.block_of(1001)), (Some(3), None));
    }
}
