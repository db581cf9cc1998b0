//! The stats page: what the contexts of this process did, in a file of shared memory that other
//! processes of the same user can read, as `npx fdmon top` does.
//!
//! Off unless asked for, by [`publish_stats`] or `FDMON_STATS=1`. Then one thread of the process,
//! asleep but for ten times a second, copies the counters that the loops keep anyway. A loop runs
//! not one instruction more; what it notices is a cache line that was read from another CPU.
//! `docs/STATS-PAGE.md` is the layout, `layout` its only writer, `place` says which file it is.

mod layout;
mod place;
mod publisher;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, Weak};

use publisher::Publisher;

use crate::at_exit::at_exit;
use crate::error::{Error, Result};
use crate::sync::lock_std;

/// The page that this process publishes, and who wants it.
static CURRENT: Mutex<Option<Current>> = Mutex::new(None);
static AT_EXIT: Once = Once::new();
/// Kept until the process ends, because its environment says so.
static BY_ENVIRONMENT: Mutex<Option<StatsPage>> = Mutex::new(None);
const VARIABLE: &str = "FDMON_STATS";

struct Current {
    /// A forked child has its parent's memory and a page of its own.
    pid: u32,
    path: PathBuf,
    publisher: Weak<Publisher>,
}

/// Says that the statistics of this process are published. The last one that is dropped ends that
/// and removes the page, and so does the end of the process.
#[derive(Debug)]
#[must_use = "the page goes when this is dropped"]
pub struct StatsPage(Arc<Publisher>);

impl StatsPage {
    /// The file, which only the user of this process may read.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Publishes what all contexts of this process do, for other processes of the same user to read:
/// `npx fdmon top` shows it live. `FDMON_STATS=1` in the environment of the process does the same
/// from its first context on.
///
/// A thread writes it ten times a second, and the loops do nothing for it. The page is a file of
/// mode 0600 in `$XDG_RUNTIME_DIR`, or in `/dev/shm` where there is none; `docs/STATS-PAGE.md` says
/// what is in it.
///
/// ```
/// let page = fdmon::publish_stats()?;
/// assert!(page.path().exists());
/// # Ok::<(), fdmon::Error>(())
/// ```
///
/// # Errors
/// `Syscall` when the file or the thread cannot be made.
pub fn publish_stats() -> Result<StatsPage> {
    let pid = std::process::id();
    let mut current = lock_std(&CURRENT);
    if let Some(there) = current.as_ref()
        && there.pid == pid
        && let Some(publisher) = there.publisher.upgrade()
    {
        return Ok(StatsPage(publisher));
    }
    let publisher = Arc::new(Publisher::start(pid)?);
    let path = publisher.path().to_owned();
    *current = Some(Current { pid, path, publisher: Arc::downgrade(&publisher) });
    drop(current);
    at_exit(&AT_EXIT, remove);
    Ok(StatsPage(publisher))
}

/// At each new context: does what `FDMON_STATS` says.
pub(crate) fn by_environment() -> Result<()> {
    match std::env::var_os(VARIABLE) {
        None => Ok(()),
        Some(value) => obey(&value),
    }
}

#[cold]
fn obey(value: &OsStr) -> Result<()> {
    match value.to_str() {
        Some("" | "0") => Ok(()),
        Some("1") => {
            let mut kept = lock_std(&BY_ENVIRONMENT);
            if kept.as_ref().is_none_or(|page| !page.0.is_of(std::process::id())) {
                *kept = Some(publish_stats()?);
            }
            Ok(())
        }
        _ => Err(Error::invalid_arg(
            VARIABLE,
            format_args!("'{}'", value.display()),
            "1 to publish statistics or 0, or unset it",
        )),
    }
}

/// The process ends in good order, and its page goes. After any other end, who looks at pages next
/// removes it.
extern "C" fn remove() {
    // Another thread may hold it for good by now.
    if let Ok(current) = CURRENT.try_lock()
        && let Some(page) = current.as_ref()
        && page.pid == std::process::id()
        && page.publisher.strong_count() > 0
    {
        let _ = std::fs::remove_file(&page.path); // nobody is left to be told
    }
}
