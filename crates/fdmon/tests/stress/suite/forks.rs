//! A thread forks while the loop sleeps: the child can do no harm, and the parent notices nothing.
#![allow(unsafe_code, reason = "std has no fork; the C library is linked anyway")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fdmon::{AioContext, EventNotifier, Handlers, Remote};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::{context, monitor};
use crate::support::{Time, alone};

unsafe extern "C" {
    fn fork() -> i32;
    fn _exit(code: i32) -> !;
}

/// Runs this in a forked child: its exit code, 0 = all was as it should be.
fn in_child(check: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child has this thread alone, uses nothing that another may have locked but the
    // allocator, which the C library makes fit for it, and ends by `_exit`.
    let pid = unsafe { fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).unwrap_or(false);
        // SAFETY: ends the child, and runs nothing of the parent's.
        unsafe { _exit(i32::from(!fine)) }
    }
    let status = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().unwrap().1;
    status.exit_status().unwrap_or(-1)
}

/// What a child may do with a remote of its parent's context, and with a context of its own.
fn as_a_child(parent: &Remote) -> bool {
    let refused = [parent.notify(), parent.stop(), parent.run(|_| ())];
    if !refused.iter().all(|result| result.as_ref().is_err_and(fdmon::Error::is_closed)) {
        return false;
    }
    let own = AioContext::builder().monitor(monitor()).build().unwrap();
    let bell = EventNotifier::with_value(1).unwrap();
    let (clear, heard) = (bell.clone(), Rc::new(Cell::new(0)));
    let counter = heard.clone();
    let handlers = Handlers::new().read(move |_| {
        counter.set(counter.get() + u32::from(clear.test_and_clear()?));
        Ok(())
    });
    own.set_fd_handler(bell, handlers).unwrap();
    own.poll(true).unwrap() && heard.get() == 1 && own.stats().fallbacks == 0
}

/// SPEC 32, 38
#[test]
fn forks_while_the_loop_sleeps_disturb_neither_it_nor_the_child() {
    if !alone() {
        return;
    }
    let ctx = context();
    let bell = EventNotifier::new().unwrap();
    let (clear, heard) = (bell.clone(), Arc::new(AtomicU64::new(0)));
    let counter = heard.clone();
    let handlers = Handlers::new().read(move |_| {
        counter.fetch_add(u64::from(clear.test_and_clear()?), Ordering::Release);
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let limit = ctx.timer(|_| panic!("nothing happened for long")).unwrap();
    limit.arm(Duration::from_secs(60)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let home = rustix::thread::gettid();
    let forks = std::thread::scope(|scope| {
        let (remote, over) = (ctx.remote(), over.clone());
        let forker = scope.spawn({
            let over = over.clone();
            move || {
                let time = Time::begins();
                let mut forks = 0;
                while time.goes_on() {
                    let sleeps = asleep(&remote, home);
                    let code = in_child(|| as_a_child(&remote));
                    assert_eq!(code, 0, "the child found something wrong");
                    assert_eq!(remote.stats().sleeps, sleeps, "the fork woke the loop");
                    // The next event and the next notification are heard as ever.
                    bell.set().unwrap();
                    forks += 1;
                    while heard.load(Ordering::Acquire) < forks {
                        std::thread::yield_now();
                    }
                    asleep(&remote, home);
                    let seen = Arc::new(AtomicBool::new(false));
                    let flag = seen.clone();
                    remote.run(move |_| flag.store(true, Ordering::Release)).unwrap();
                    while !seen.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                }
                over.store(true, Ordering::Release);
                remote.notify().unwrap();
                forks
            }
        });
        ctx.poll_until(|| {
            limit.arm(Duration::from_secs(60)).unwrap();
            over.load(Ordering::Acquire) || forker.is_finished()
        })
        .unwrap();
        forker.join().unwrap()
    });
    println!("{forks} forks");
    assert!(forks > 10);
    assert_eq!(ctx.stats().fallbacks, 0);
    limit.delete();
}

/// Waits until the loop sleeps: how often it had to by then.
fn asleep(remote: &Remote, home: Pid) -> u64 {
    loop {
        let before = remote.stats().sleeps;
        // One that waits for a CPU is not asleep. Nothing else makes this thread sleep.
        let stat = std::fs::read_to_string(format!("/proc/self/task/{home}/stat")).unwrap();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        if state.starts_with('S') && before > 0 && remote.stats().sleeps == before {
            return before;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
