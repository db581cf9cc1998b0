//! After a fork the context is the parent's; the child must not touch what they share.
#![allow(unsafe_code)]

use fdmon::{AioContext, EventNotifier, Handlers};

use super::super::context;
use crate::support::{Count, alone, block};

unsafe extern "C" {
    // std has none; the C library is linked anyway.
    fn fork() -> i32;
}

/// Runs this in a forked child and expects it to hold there.
fn in_child(check: impl FnOnce()) {
    // SAFETY: this process runs one test alone, whose other thread only waits for this one; the
    // child leaves by `exit`.
    let pid = unsafe { fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        std::process::exit(i32::from(result.is_err()));
    }
    let pid = rustix::process::Pid::from_raw(pid);
    let (_, status) =
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child found something wrong");
}

/// SPEC 38
#[test]
fn a_forked_child_may_close_and_drop_the_context_and_the_parent_goes_on() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    for way in ["close", "drop"] {
        let ctx = context();
        let bell = EventNotifier::new().unwrap();
        let (clear, runs) = (bell.clone(), Count::new());
        let counter = runs.clone();
        let handlers = Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            counter.bump();
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
        let mut held = Some(ctx);
        in_child(|| {
            if way == "close" {
                held.as_ref().unwrap().close();
            }
            drop(held.take());
        });
        let ctx: AioContext = held.unwrap();
        bell.set().unwrap();
        assert!(block(&ctx));
        assert_eq!(runs.get(), 1, "{way}");
        ctx.notify();
        assert!(!block(&ctx));
    }
}
