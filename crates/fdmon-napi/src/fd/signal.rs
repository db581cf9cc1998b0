//! `signalfd`: signals as records in a pipe, each 128 bytes, laid out as signalfd(2) does.
//!
//! A signalfd reports what is blocked, and Node's threads block nothing, so it would never fire. A
//! handler (sigaction(2)) writes the record instead. Handlers are process-wide, hence the statics;
//! each belongs to the [`SignalPipe`] that installed it, which puts the old action back on drop.
#![allow(unsafe_code, reason = "sigaction and what a handler may do exist as unsafe calls only")]

use std::collections::BTreeMap;
use std::mem::{self, MaybeUninit, size_of};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use fdmon::ErrorCode;
use libc::{c_int, c_void, sigaction, siginfo_t};
use napi::Env;
use napi_derive::napi;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::owned::give;
use super::siginfo::{Words, record};
use crate::error::{Failure, Result, guard, with_descriptors};

/// What a handler knows of a signal. It must not lock or allocate, so this is atomics only.
struct Slot {
    /// The end that is written, or -1.
    pipe: AtomicI32,
    /// Handlers that may use the number in `pipe` at this moment.
    running: AtomicU32,
    /// Records that found the pipe full.
    overruns: AtomicU32,
}

static SLOTS: [Slot; 65] = [const {
    Slot { pipe: AtomicI32::new(-1), running: AtomicU32::new(0), overruns: AtomicU32::new(0) }
}; 65];

/// The actions before ours, by signal. A handler does not look here.
static OLD: Mutex<BTreeMap<i32, sigaction>> = Mutex::new(BTreeMap::new());

fn old_actions() -> MutexGuard<'static, BTreeMap<i32, sigaction>> {
    // Changed by single insertions and removals only: a panic elsewhere leaves it whole.
    OLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slot(signal: c_int) -> Option<&'static Slot> {
    SLOTS.get(usize::try_from(signal).ok()?)
}

const _: () =
    assert!(size_of::<Words>() <= libc::PIPE_BUF, "a record is written whole or not at all");

/// Runs on any thread, in the middle of anything: write(2), atomics and plain computation only.
extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    let Some(slot) = slot(signal) else { return };
    // SAFETY: the address of this thread's errno, which the interrupted code may be about to read.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { errno.read() };
    // Before the look at `pipe`, and SeqCst as in `SignalPipe::drop`: either the closing thread sees
    // this handler, or this handler sees that the number is gone.
    slot.running.fetch_add(1, Ordering::SeqCst);
    let pipe = slot.pipe.load(Ordering::SeqCst);
    if pipe >= 0 {
        // SAFETY: with SA_SIGINFO the kernel passes a siginfo_t and has filled all 128 bytes.
        let words = unsafe { info.cast::<Words>().read() };
        let record = record(&words);
        // SAFETY: the record is on the stack, and the number stays open while `running` is not 0.
        let written = unsafe { libc::write(pipe, record.as_ptr().cast(), size_of::<Words>()) };
        if written < 0 {
            // SAFETY: as above.
            if unsafe { errno.read() } == libc::EAGAIN {
                slot.overruns.fetch_add(1, Ordering::Relaxed);
            } else {
                // Somebody has closed the other end. Every further write would raise SIGPIPE, which
                // may be the signal of this very handler.
                slot.pipe.store(-1, Ordering::SeqCst);
            }
        }
    }
    slot.running.fetch_sub(1, Ordering::SeqCst);
    // SAFETY: as above.
    unsafe { errno.write(saved) };
}

/// A signal that is somebody else's, by its action: libuv restarts calls, and SIGUSR1 is Node's
/// inspector. What restores the terminal and dies (SIGINT, SIGTERM: SA_RESETHAND) may be replaced.
fn refuse(signal: i32, name: &str, action: &sigaction) -> Result<()> {
    let handler = action.sa_sigaction;
    let flags = action.sa_flags;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN || is_ours(action) {
        return Ok(());
    }
    let message = if flags & libc::SA_RESTART != 0 {
        let advice = if signal == libc::SIGCHLD {
            "Node takes it while it has children: use pidfd() for each child"
        } else {
            "remove the listeners of process.on(), or use them and not signalfd()"
        };
        format!("signals = {name} is a signal that Node or a library listens to; {advice}")
    } else if flags & libc::SA_RESETHAND != 0 {
        return Ok(());
    } else if signal == libc::SIGUSR1 {
        format!(
            "signals = {name} starts Node's inspector; use another signal, such as SIGUSR2, or run Node with --disable-sigusr1 where it has that"
        )
    } else {
        format!("signals = {name} is handled by a library of this process; use another signal")
    };
    Err(Failure::new(ErrorCode::Unsupported, message))
}

fn handler_address() -> usize {
    on_signal as *const () as usize
}

fn is_ours(action: &sigaction) -> bool {
    action.sa_sigaction == handler_address()
}

/// The action that is in force.
fn action_of(signal: i32) -> Result<sigaction> {
    let mut action = MaybeUninit::<sigaction>::uninit();
    // SAFETY: without a new action nothing changes; the kernel's answer has room.
    let status = unsafe { sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    if status != 0 {
        return Err(refused(signal));
    }
    // SAFETY: after success it is filled.
    Ok(unsafe { action.assume_init() })
}

fn set_action(signal: i32, action: &sigaction) -> Result<()> {
    // SAFETY: `action` is an action that was in force before, or ours, whose handler is
    // async-signal-safe and lives as long as the process: an addon is never unloaded, neither by
    // glibc (napi-build links it with -z nodelete) nor by musl (which unloads nothing).
    let status = unsafe { sigaction(signal, action, ptr::null_mut()) };
    if status == 0 { Ok(()) } else { Err(refused(signal)) }
}

fn our_action() -> sigaction {
    // SAFETY: all zero is the default action with an empty mask.
    let mut action: sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler_address();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // Nothing interrupts the handler, so a thread needs the stack of one.
    // SAFETY: fills the mask that it is given.
    unsafe { libc::sigfillset(&mut action.sa_mask) };
    action
}

fn default_action() -> sigaction {
    // SAFETY: all zero is the default action with an empty mask.
    unsafe { mem::zeroed() }
}

fn refused(signal: i32) -> Failure {
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL);
    let what = format!("change the action of signal {signal}");
    Failure::syscall("sigaction", errno, &what, "see sigaction(2)")
}

/// The end of a pipe that handlers write to, and the signals that they handle.
#[derive(Debug)]
pub(super) struct SignalPipe {
    signals: Vec<i32>,
    end: OwnedFd,
}

impl SignalPipe {
    /// All of the signals or none.
    fn open(signals: &[i32], names: &[String]) -> Result<(OwnedFd, Self)> {
        let (read, end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|errno| {
            Failure::syscall("pipe2", errno, "make the pipe of a signalfd", "see pipe(2)")
        })?;
        let mut pipe = Self { signals: Vec::with_capacity(signals.len()), end };
        // After `pipe`, whose drop takes this lock: on failure it is given back before.
        let mut old = old_actions();
        for (&signal, name) in signals.iter().zip(names) {
            let Some(slot) = slot(signal) else { return Err(refused(signal)) };
            if old.contains_key(&signal) {
                let message = format!(
                    "signals = {name} is read by another SignalFd of this process; close that one first, or let it tell you"
                );
                return Err(Failure::new(ErrorCode::InUse, message));
            }
            let before = action_of(signal)?;
            refuse(signal, name, &before)?;
            slot.overruns.store(0, Ordering::Relaxed);
            slot.pipe.store(pipe.end.as_raw_fd(), Ordering::SeqCst);
            if let Err(failure) = set_action(signal, &our_action()) {
                slot.pipe.store(-1, Ordering::SeqCst);
                return Err(failure);
            }
            // Ours without an owner is what somebody saved and put back: it must not stay for ever.
            old.insert(signal, if is_ours(&before) { default_action() } else { before });
            pipe.signals.push(signal);
        }
        Ok((read, pipe))
    }

    fn overruns(&self) -> u32 {
        let all = self.signals.iter().filter_map(|&signal| slot(signal));
        all.map(|slot| slot.overruns.load(Ordering::Relaxed)).fold(0, u32::wrapping_add)
    }

    /// The signals whose action is somebody else's by now.
    fn lost(&self) -> Vec<i32> {
        let lost = |signal: &i32| action_of(*signal).is_ok_and(|action| !is_ours(&action));
        self.signals.iter().copied().filter(lost).collect()
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        let mut old = old_actions();
        for &signal in &self.signals {
            let before = old.remove(&signal);
            if let Some(before) = before
                && action_of(signal).is_ok_and(|action| is_ours(&action))
            {
                // What was in force once can be set again.
                let _ = set_action(signal, &before);
            }
            let Some(slot) = slot(signal) else { continue };
            slot.pipe.store(-1, Ordering::SeqCst);
            // A handler that runs on another thread has the number still: it only writes, without
            // waiting. None can be in progress on this thread.
            while slot.running.load(Ordering::SeqCst) != 0 {
                thread::yield_now();
            }
        }
    }
}

/// A pipe into which these signals are written from now on: the end to read.
#[napi]
pub fn signal_create(env: Env, signals: Vec<i32>, names: Vec<String>) -> napi::Result<i32> {
    guard(&env, || {
        let (read, pipe) = SignalPipe::open(&signals, &names)?;
        let fd = give(&env, read);
        // Without a keeper the pipe is dropped in here, which puts the old actions back.
        with_descriptors(&env, |descriptors| descriptors.keep_signals(fd, pipe)).ok_or_else(
            || Failure::new(ErrorCode::Internal, "no environment to keep signals in; report this"),
        )?;
        Ok(fd)
    })
}

/// How many records found the pipe full, of all signals of this fd.
#[napi]
pub fn signal_overruns(env: Env, fd: i32) -> napi::Result<u32> {
    guard(&env, || {
        let overruns =
            with_descriptors(&env, |descriptors| descriptors.signals(fd, SignalPipe::overruns));
        Ok(overruns.flatten().unwrap_or(0))
    })
}

/// The signals of this fd whose action was replaced since.
#[napi]
pub fn signal_lost(env: Env, fd: i32) -> napi::Result<Vec<i32>> {
    guard(&env, || {
        let lost = with_descriptors(&env, |descriptors| descriptors.signals(fd, SignalPipe::lost));
        Ok(lost.flatten().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_leaves_errno_alone_and_says_what_a_full_pipe_lost() {
        let signal = libc::SIGURG;
        let (read, pipe) = SignalPipe::open(&[signal], &["SIGURG".into()]).unwrap();
        // SAFETY: the address of this thread's errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { errno.write(77) };
        for _ in 0..1000 {
            // SAFETY: sends the signal to this thread, whose handler is the one above.
            assert_eq!(unsafe { libc::raise(signal) }, 0);
        }
        // SAFETY: as above.
        assert_eq!(unsafe { errno.read() }, 77);
        let mut records = 0;
        let mut bytes = [0; 128];
        while rustix::io::read(&read, &mut bytes) == Ok(128) {
            assert_eq!(i32::from_ne_bytes(bytes[..4].try_into().unwrap()), signal);
            records += 1;
        }
        assert!(records >= 32, "{records}");
        assert_eq!(records + pipe.overruns(), 1000);
        drop(pipe);
        assert!(action_of(signal).unwrap().sa_sigaction == libc::SIG_DFL);
    }

    #[test]
    fn an_action_that_somebody_else_set_is_left_in_force() {
        let signal = libc::SIGWINCH;
        let (_read, pipe) = SignalPipe::open(&[signal], &["SIGWINCH".into()]).unwrap();
        let mut ignore = default_action();
        ignore.sa_sigaction = libc::SIG_IGN;
        set_action(signal, &ignore).unwrap();
        assert_eq!(pipe.lost(), [signal]);
        drop(pipe);
        assert!(action_of(signal).unwrap().sa_sigaction == libc::SIG_IGN);
        set_action(signal, &default_action()).unwrap();
    }

    #[test]
    fn a_signal_in_use_keeps_its_reader_and_the_others_of_the_list_their_actions() {
        let name = |text: &str| text.to_owned();
        let (_read, first) = SignalPipe::open(&[libc::SIGCONT], &[name("SIGCONT")]).unwrap();
        let both = [name("SIGUSR2"), name("SIGCONT")];
        let failure = SignalPipe::open(&[libc::SIGUSR2, libc::SIGCONT], &both).unwrap_err();
        assert_eq!(failure.code, ErrorCode::InUse);
        assert!(action_of(libc::SIGUSR2).unwrap().sa_sigaction == libc::SIG_DFL);
        assert_eq!(first.lost(), []);
    }
}
