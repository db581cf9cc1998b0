//! Where traces go: one file of the process for any number of contexts, and the thread that writes it.
//!
//! While it is written the file is a JSON array, which readers take without its closing bracket: so
//! what a killed process leaves can be looked at. When its last trace has ended, the head is written
//! anew and the file is a JSON object, with the unit that viewers are to show times in.
//!
//! A lock on the file (flock) keeps other processes out, such as children with the same environment.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, TryLockError};
use std::thread::Thread;
use std::time::Duration;

use super::caller;
use super::json::{Json, Text, Track, Wake, name_of};
use super::process;
use super::ring::Ring;
use crate::aio::block_signals;
use crate::at_exit::at_exit;
use crate::clock::monotonic_ns;
use crate::error::{Error, ErrorCode, Result};
use crate::fork::Home;
use crate::sync::lock_std;

/// Bytes of the file that the head and the first event take.
const HEAD: usize = 512;
const OBJECT: &str = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[";
/// So often what was recorded is written.
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// Events of a context that become text in one go.
const PIECE: u64 = 4096;
/// Text that is written in one go.
const CHUNK: usize = 1 << 16;

/// Where a trace is written to.
pub struct TraceOutput(pub(crate) Target);

pub(crate) enum Target {
    /// With `%p` for the process, and which option named it.
    File(PathBuf),
    Writer(Box<dyn Write + Send>),
}

impl TraceOutput {
    /// A file, which is made or emptied; contexts whose traces name the same file share it. `%p` in
    /// its name stands for the number of the process.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self(Target::File(path.as_ref().to_owned()))
    }

    /// Anything that takes bytes. They are those of a JSON array, for nobody can write its beginning
    /// anew. Written to by a thread of its own, except the end.
    #[must_use]
    pub fn writer(writer: impl Write + Send + 'static) -> Self {
        Self(Target::Writer(Box::new(writer)))
    }
}

impl std::fmt::Debug for TraceOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Target::File(path) => f.debug_tuple("File").field(path).finish(),
            Target::Writer(_) => f.write_str("Writer"),
        }
    }
}

enum Out {
    /// Can be written anew from its beginning.
    File(File),
    Stream(Box<dyn Write + Send>),
}

/// One file of this process.
pub(crate) struct Sink {
    home: Home,
    path: Option<PathBuf>,
    /// Which file it is.
    identity: Option<(u64, u64)>,
    /// Named by FDMON_TRACE: goes on when another context comes.
    stays: bool,
    state: Mutex<Writing>,
}

struct Source {
    track: Track,
    ring: Arc<Ring>,
    /// Drops that the file tells of.
    told: u64,
    /// Events that are text, but not in the file.
    unwritten: u64,
    /// When the last event that is text ended.
    last: u64,
}

struct Writing {
    out: Out,
    text: Text,
    sources: Vec<Source>,
    /// Tracks that have shown their name.
    named: HashSet<u64>,
    wakes: u64,
    /// Of the tracks that have ended: events that are not in the file.
    missing: u64,
    /// It ends as such a file does, and nobody writes.
    sealed: bool,
    /// The first that went wrong; nothing is written after it.
    error: Option<io::Error>,
    writer: Option<Thread>,
}

static SINKS: Mutex<Vec<Arc<Sink>>> = Mutex::new(Vec::new());
static AT_EXIT: Once = Once::new();

/// `%p` is the number of the process.
fn expand(path: &Path) -> PathBuf {
    match path.to_str() {
        Some(text) => PathBuf::from(text.replace("%p", &process().to_string())),
        None => path.to_owned(),
    }
}

/// `trace.json` → `trace.123.json`
fn beside(path: &Path) -> PathBuf {
    let pid = process().to_string();
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".");
    name.push(&pid);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

fn open(option: &str, path: &Path) -> Result<File> {
    let given = path.as_os_str().as_encoded_bytes();
    if given.is_empty() || given.contains(&0) {
        return Err(Error::invalid_arg(option, format_args!("{path:?}"), "the path of a file"));
    }
    // Not emptied yet: it may be another process's.
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(|error| {
        let message = format!(
            "{option} = {path:?} cannot be written: {error}; name a file in a folder that is there and may be written to"
        );
        Error::of_io(message, "openat", &error)
    })
}

/// `false` = another process writes it.
#[cfg(not(wasi))]
fn is_free(file: &File) -> bool {
    use rustix::fd::AsFd;
    use rustix::fs::{FlockOperation, flock};
    // Where there are no locks nobody is kept out.
    flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)
        != Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(wasi)]
fn is_free(_: &File) -> bool {
    true
}

/// What cannot be opened here at all.
fn check_platform(option: &str) -> Result<()> {
    if cfg!(wasi) {
        let why = "a WebAssembly build has no thread to write it; use the addon of the platform";
        return Err(Error::unsupported(format!("{option} is refused: {why}")));
    }
    Ok(())
}

#[cfg(not(wasi))]
fn identity(file: &File) -> io::Result<((u64, u64), bool)> {
    use std::os::unix::fs::MetadataExt;
    let meta = file.metadata()?;
    Ok(((meta.dev(), meta.ino()), meta.is_file()))
}

#[cfg(wasi)]
fn identity(_: &File) -> io::Result<((u64, u64), bool)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Adds a context to the file that this output names, which is opened first where it is not open.
/// `by_environment`: FDMON_TRACE named it. Returns the file and the thread that writes it.
pub(crate) fn join(
    output: TraceOutput,
    by_environment: bool,
    track: Track,
    ring: &Arc<Ring>,
) -> Result<(Arc<Sink>, Thread)> {
    let option = if by_environment { "FDMON_TRACE" } else { "file" };
    check_platform(option)?;
    let mut sinks = lock_std(&SINKS);
    let sink = match output.0 {
        Target::Writer(writer) => Arc::new(Sink::new(Out::Stream(writer), None, None, false)),
        Target::File(path) => open_shared(option, &expand(&path), by_environment, &mut sinks)?,
    };
    let writer = sink.take_in(track, ring)?;
    at_exit(&AT_EXIT, finish);
    if !sinks.iter().any(|known| Arc::ptr_eq(known, &sink)) {
        sinks.push(Arc::clone(&sink));
    }
    Ok((sink, writer))
}

fn open_shared(
    option: &str,
    wanted: &Path,
    by_environment: bool,
    sinks: &mut Vec<Arc<Sink>>,
) -> Result<Arc<Sink>> {
    // Those of the process that forked this one are its own.
    sinks.retain(|sink| sink.home.is_here());
    let mut path = wanted.to_owned();
    for first in [true, false] {
        // Another name than was asked for belongs to FDMON_TRACE alone, which has it open.
        let file = open(option, &path)?;
        let (identity, regular) = identity(&file).map_err(|error| {
            Error::of_io(format!("{option} = {path:?}: {error}"), "fstat", &error)
        })?;
        if let Some(known) = sinks.iter().find(|sink| sink.identity == Some(identity)) {
            return Ok(Arc::clone(known));
        }
        if is_free(&file) {
            let out = if regular { Out::File(file) } else { Out::Stream(Box::new(file)) };
            return Ok(Arc::new(Sink::new(out, Some(path), Some(identity), by_environment)));
        }
        if !by_environment || !first {
            break;
        }
        path = beside(&path);
    }
    Err(Error::new(
        ErrorCode::InUse,
        format!(
            "{option} = {path:?} is being written by another process; put %p into the name, which stands for the process"
        ),
    ))
}

/// The process ends: what was recorded is written, and files get their end.
fn finish_all() {
    let Some(sinks) = lock_in_time(&SINKS) else { return };
    for sink in sinks.iter().filter(|sink| sink.home.is_here()) {
        let Some(mut writing) = lock_in_time(&sink.state) else { continue };
        writing.drain(u64::MAX);
        while let Some(source) = writing.sources.first() {
            let ring = Arc::clone(&source.ring);
            writing.end(&ring);
        }
        writing.flush();
        if !writing.sealed {
            writing.seal(false);
        }
    }
}

/// Whoever holds it may be waiting for this thread, or be gone.
fn lock_in_time<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..1000 {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

extern "C" fn finish() {
    let _nobody_to_be_told = catch_unwind(finish_all);
}

impl Sink {
    fn new(out: Out, path: Option<PathBuf>, identity: Option<(u64, u64)>, stays: bool) -> Self {
        Self {
            home: Home::here(),
            path,
            identity,
            stays,
            state: Mutex::new(Writing {
                out,
                text: Text::default(),
                sources: Vec::new(),
                named: HashSet::new(),
                wakes: 0,
                missing: 0,
                sealed: true,
                error: None,
                writer: None,
            }),
        }
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// A track more. The thread that writes.
    fn take_in(self: &Arc<Self>, track: Track, ring: &Arc<Ring>) -> Result<Thread> {
        let mut writing = lock_std(&self.state);
        let thread = match &writing.writer {
            Some(writer) => writer.clone(),
            None => {
                let sink = Arc::clone(self);
                let builder = std::thread::Builder::new().name("fdmon-trace".into());
                let writer = builder.spawn(move || sink.write_on()).map_err(|error| {
                    let message = format!(
                        "no thread can be had to write the trace: {error}; end some threads"
                    );
                    Error::of_io(message, "clone", &error)
                })?;
                writer.thread().clone()
            }
        };
        writing.writer = Some(thread.clone());
        writing.open_up();
        writing.named.insert(track.tid);
        track.begin(&mut writing.text);
        let ring = Arc::clone(ring);
        writing.sources.push(Source { track, ring, told: 0, unwritten: 0, last: monotonic_ns() });
        Ok(thread)
    }

    /// The thread's work.
    fn write_on(&self) {
        block_signals();
        loop {
            std::thread::park_timeout(WRITE_EVERY);
            loop {
                let mut writing = lock_std(&self.state);
                if writing.sources.is_empty() {
                    writing.writer = None;
                    return;
                }
                let more = writing.drain(PIECE);
                writing.flush();
                drop(writing);
                if !more {
                    break;
                }
                std::thread::yield_now(); // a context that ends waits for the lock
            }
        }
    }

    /// A track has ended: all of it is in the file when this returns. The error is the first that
    /// the file has met, whoever's track it was.
    pub fn leave(self: &Arc<Self>, ring: &Arc<Ring>) -> Result<()> {
        if !self.home.is_here() {
            return Ok(()); // its writer is in the process that forked this one
        }
        let mut sinks = lock_std(&SINKS);
        let mut writing = lock_std(&self.state);
        // What others have recorded is not this thread's work.
        if let Some(at) = writing.sources.iter().position(|source| Arc::ptr_eq(&source.ring, ring))
        {
            writing.drain_source(at, u64::MAX);
        }
        writing.end(ring);
        writing.flush();
        if writing.sources.is_empty() && !writing.sealed {
            writing.seal(self.stays);
            if let Some(writer) = &writing.writer {
                writer.unpark(); // to end
            }
            if !self.stays {
                sinks.retain(|sink| !Arc::ptr_eq(sink, self));
                writing.out = Out::Stream(Box::new(io::sink()));
            }
        }
        let Some(error) = &writing.error else { return Ok(()) };
        let file =
            self.path.as_deref().map_or_else(String::new, |path| format!("file = {path:?}: "));
        let message = format!(
            "{file}the trace is not complete, for writing failed: {error}; make room, or name another file"
        );
        Err(Error::of_io(message, "write", error))
    }
}

impl Writing {
    /// What has been recorded becomes text, so much of each source at most. `true` = there is more.
    fn drain(&mut self, most: u64) -> bool {
        let mut more = false;
        for at in 0..self.sources.len() {
            more |= self.drain_source(at, most);
        }
        more
    }

    /// …of one source; `true` = that much was there.
    fn drain_source(&mut self, at: usize, most: u64) -> bool {
        // No more than the ring holds: a fast loop must not keep this one for ever.
        let most = most.min(self.sources[at].ring.len());
        let mut taken = 0;
        while taken < most && self.take_one(at) {
            taken += 1;
            if self.text.bytes.len() >= CHUNK {
                self.flush();
            }
        }
        let Source { track, ring, told, last, .. } = &mut self.sources[at];
        let dropped = ring.dropped();
        let new = dropped - std::mem::replace(told, dropped);
        if new != 0 {
            track.gap(&mut self.text, *last, new);
        }
        taken == most
    }

    /// `false` = this source has nothing.
    fn take_one(&mut self, at: usize) -> bool {
        let Self { text, sources, named, wakes, error, .. } = self;
        let Source { track, ring, unwritten, last, .. } = &mut sources[at];
        let Some(record) = ring.pop() else { return false };
        if error.is_some() {
            ring.lose(1);
            return true;
        }
        *unwritten += 1;
        *last = record[1].max(record[2]);
        let wake = Track::waker(&record).map(|by| {
            if named.insert(by) {
                track.name_other(text, by, &caller::name_of(by));
            }
            *wakes += 1;
            Wake { by, number: *wakes }
        });
        track.write(text, &record, wake.as_ref());
        true
    }

    /// The last of a source.
    fn end(&mut self, ring: &Arc<Ring>) {
        let Some(at) = self.sources.iter().position(|source| Arc::ptr_eq(&source.ring, ring))
        else {
            return;
        };
        self.flush(); // what is lost with it is known then
        let Source { track, ring, last, .. } = self.sources.remove(at);
        self.missing += ring.missing();
        track.end(&mut self.text, last, ring.written(), ring.missing());
    }

    fn flush(&mut self) {
        if self.error.is_none() && !self.text.bytes.is_empty() {
            let Self { out, text, .. } = self;
            let written = match out {
                Out::File(file) => write_at(file, &text.bytes, text.base),
                Out::Stream(writer) => writer.write_all(&text.bytes).and_then(|()| writer.flush()),
            };
            match written {
                Ok(()) => text.base += text.bytes.len() as u64,
                Err(error) => self.fail(error),
            }
        }
        self.text.bytes.clear();
        let failed = self.error.is_some();
        for Source { ring, unwritten, .. } in &mut self.sources {
            let events = std::mem::take(unwritten);
            if failed {
                ring.lose(events);
            }
        }
    }

    /// The file stays as it was before.
    #[cold]
    fn fail(&mut self, error: io::Error) {
        if let Out::File(file) = &self.out {
            let _nothing_to_be_done = file.set_len(self.text.base);
        }
        self.error.get_or_insert(error);
    }

    /// Begins the file, or takes its end back.
    fn open_up(&mut self) {
        if !std::mem::take(&mut self.sealed) || self.error.is_some() {
            return;
        }
        if self.text.base == 0 {
            self.text.bytes = head("[");
        }
        let Out::File(file) = &self.out else { return };
        let base = self.text.base;
        let mut begun = file.set_len(base);
        if base != 0 {
            begun = begun.and_then(|()| write_at(file, &head("["), 0));
        }
        if let Err(error) = begun {
            self.fail(error);
        }
    }

    /// Ends the file; `stays` = for now.
    fn seal(&mut self, stays: bool) {
        self.sealed = true;
        if self.error.is_some() {
            return;
        }
        let base = self.text.base;
        let sealed = match &mut self.out {
            Out::File(file) => {
                let others = format!(
                    ",\"otherData\":{{\"fdmon\":\"{}\",\"clock\":\"CLOCK_MONOTONIC\",\"dropped\":\"{}\"}}}}\n",
                    env!("CARGO_PKG_VERSION"),
                    self.missing
                );
                // An array until the last moment.
                write_at(file, b"\n]", base)
                    .and_then(|()| write_at(file, &head(OBJECT), 0))
                    .and_then(|()| write_at(file, others.as_bytes(), base + 2))
            }
            Out::Stream(_) if stays => Ok(()), // it could not be taken back
            Out::Stream(writer) => writer.write_all(b"\n]\n").and_then(|()| writer.flush()),
        };
        if let Err(error) = sealed {
            self.error.get_or_insert(error);
        }
    }
}

/// The beginning of the file, as array or as object, always as long: with the name of the process.
fn head(form: &str) -> Vec<u8> {
    let program = std::env::args_os().next().unwrap_or_default();
    let program =
        Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let plain = |c: &char| !c.is_control() && !matches!(c, '"' | '\\');
    let name: String = program.chars().filter(plain).take(48).collect();
    let mut bytes = form.as_bytes().to_vec();
    name_of(&mut Json(&mut bytes), "process_name", process(), 0, &name);
    bytes.resize(HEAD, b' ');
    bytes
}

#[cfg(not(wasi))]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(wasi)]
fn write_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
