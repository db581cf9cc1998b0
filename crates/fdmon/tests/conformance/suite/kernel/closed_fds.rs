//! Fds that were closed while registered: the caller's error, and yet no crash and no busy loop.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use fdmon::{AioContext, EventNotifier, Handlers, MonitorKind};

use crate::support::{
    Count, Predicate, block, by_number, close_number, private, regular_file, rung,
};

use super::super::{context, monitor, spinning};

/// A readable fd, registered by its number and closed since. The duplicate keeps its file open.
fn closed(ctx: &AioContext, runs: &Count) -> (RawFd, EventNotifier) {
    let bell = rung();
    let fd = private(&bell).into_raw_fd();
    ctx.set_fd_handler(by_number(fd), Handlers::new().read(runs.callback())).unwrap();
    (fd, bell)
}

/// A blocking turn that a timer ends; how often the kernel was asked.
#[track_caller]
fn waits_of_a_sleep(ctx: &AioContext) -> u64 {
    let before = ctx.stats().waits;
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    timer.arm(Duration::from_millis(20)).unwrap();
    let mut turns = 0;
    while fired.get() == 0 {
        ctx.poll(true).unwrap();
        turns += 1;
        assert!(turns < 100, "a busy loop");
    }
    ctx.stats().waits - before
}

/// SPEC 13
#[test]
fn poll_reports_it_once_as_bad_fd_and_removes_the_handler() {
    if monitor() != MonitorKind::Poll {
        return;
    }
    let ctx = context();
    let runs = Count::new();
    let (fd, _bell) = closed(&ctx, &runs);
    close_number(fd);
    let error = ctx.poll(true).unwrap_err();
    let [cause] = error.callback_errors() else { panic!("{error}") };
    let cause = cause.downcast_ref::<fdmon::Error>().unwrap();
    assert!(cause.is_bad_fd());
    assert!(cause.to_string().contains(&fd.to_string()), "{cause}");
    assert!(ctx.stats().handlers.is_empty());
    assert!(!ctx.poll(false).unwrap());
    assert!(waits_of_a_sleep(&ctx) <= 4);
    assert_eq!(runs.get(), 0);
}

/// SPEC 13
#[test]
fn its_last_copy_closed_it_neither_runs_nor_keeps_the_loop_busy() {
    let ctx = context();
    let runs = Count::new();
    let (fd, bell) = closed(&ctx, &runs);
    drop(bell);
    close_number(fd);
    let _reported_by_poll = ctx.poll(false);
    assert!(waits_of_a_sleep(&ctx) <= 4);
    assert_eq!(runs.get(), 0);
}

/// SPEC 13
#[test]
fn removal_after_the_close_succeeds_in_silence_and_leaves_no_busy_loop() {
    for copy_lives in [false, true] {
        let ctx = context();
        let runs = Count::new();
        let (fd, bell) = closed(&ctx, &runs);
        close_number(fd);
        if !copy_lives {
            drop(bell.clone());
        }
        ctx.remove_fd_handler(fd);
        ctx.remove_fd_handler(fd);
        let waits = waits_of_a_sleep(&ctx);
        assert!(waits <= 6, "{waits} waits for one sleep, copy alive: {copy_lives}");
        assert!(waits_of_a_sleep(&ctx) <= 4);
        assert_eq!(runs.get(), 0);
    }
}

/// SPEC 13
#[test]
fn closing_the_context_after_the_close_succeeds_in_silence() {
    let ctx = context();
    let (fd, _bell) = closed(&ctx, &Count::new());
    close_number(fd);
    assert_eq!(ctx.close().handlers, 1);
}

/// SPEC 8, 13
#[test]
fn a_number_that_is_used_again_belongs_to_the_new_registration() {
    let ctx = context();
    let (old, new) = (Count::new(), Count::new());
    let (fd, _bell) = closed(&ctx, &old);
    close_number(fd);
    // The number now means another file; registering it says so.
    let next = rung();
    let reused = rustix::io::fcntl_dupfd_cloexec(&next, fd).unwrap();
    assert_eq!(reused.as_raw_fd(), fd);
    ctx.set_fd_handler(reused, Handlers::new().read(new.callback())).unwrap();
    for turn in 1..=3 {
        assert!(block(&ctx));
        assert_eq!((old.get(), new.get()), (0, turn));
    }
    next.test_and_clear().unwrap();
    assert!(waits_of_a_sleep(&ctx) <= 6);
    ctx.remove_fd_handler(fd);
    assert!(waits_of_a_sleep(&ctx) <= 4);
}

/// SPEC 13
#[test]
fn a_callback_that_closes_its_own_fd_and_removes_itself_is_no_error() {
    let ctx = context();
    let bell = rung();
    let fd = private(&bell).into_raw_fd();
    let runs = Count::new();
    let counter = runs.clone();
    let handlers = Handlers::new().read(move |ops| {
        counter.bump();
        close_number(fd);
        ops.remove_fd_handler(fd);
        Ok(())
    });
    ctx.set_fd_handler(by_number(fd), handlers).unwrap();
    assert!(block(&ctx));
    assert!(waits_of_a_sleep(&ctx) <= 6);
    assert_eq!(runs.get(), 1);
}

/// SPEC 10, 13
#[test]
fn one_callback_may_close_and_remove_what_another_one_is_about_to_hear() {
    let ctx = context();
    let first = rung();
    let runs = Count::new();
    let second = rung();
    let fd = private(&second).into_raw_fd();
    let mut open = true;
    let clear = first.clone();
    let handlers = Handlers::new().read(move |ops| {
        clear.test_and_clear()?;
        if std::mem::take(&mut open) {
            close_number(fd);
            ops.remove_fd_handler(fd);
        }
        Ok(())
    });
    ctx.set_fd_handler(first, handlers).unwrap();
    ctx.set_fd_handler(by_number(fd), Handlers::new().read(runs.callback())).unwrap();
    assert!(block(&ctx));
    assert!(waits_of_a_sleep(&ctx) <= 6);
    assert!(runs.get() <= 1, "at most before it was removed");
}

/// SPEC 13, 43
#[test]
fn a_regular_file_that_was_closed_is_reported_once_and_keeps_nothing_busy() {
    let ctx = context();
    let runs = Count::new();
    let fd = private(regular_file()).into_raw_fd();
    ctx.set_fd_handler(by_number(fd), Handlers::new().read(runs.callback())).unwrap();
    assert!(block(&ctx));
    close_number(fd);
    let error = ctx.poll(false).unwrap_err();
    assert_eq!(error.callback_errors().len(), 1);
    assert!(waits_of_a_sleep(&ctx) <= 4);
    assert_eq!(runs.get(), 1);
}

/// SPEC 13
#[test]
fn set_interest_on_a_closed_fd_is_an_error_or_reported_by_the_turn() {
    let ctx = context();
    let handlers = Handlers::new().read(|_| Ok(())).write(|_| Ok(()));
    let fd = private(rung()).into_raw_fd();
    let token = ctx.set_fd_handler(by_number(fd), handlers).unwrap();
    close_number(fd);
    let now = token.set_interest(fdmon::Interest::WRITE);
    let later = ctx.poll(false);
    let is_bad = |error: &fdmon::Error| {
        error.is_bad_fd()
            || error.callback_errors().iter().any(|cause| {
                cause.downcast_ref::<fdmon::Error>().is_some_and(fdmon::Error::is_bad_fd)
            })
    };
    assert!(
        now.as_ref().is_err_and(is_bad) ^ later.as_ref().is_err_and(is_bad),
        "reported once: {now:?}, {later:?}"
    );
    assert!(waits_of_a_sleep(&ctx) <= 4);
}

/// SPEC 13
#[test]
fn a_member_of_the_spin_list_that_was_closed_is_survived() {
    let (ctx, _clock) = spinning();
    let file = private(EventNotifier::new().unwrap()).into_raw_fd();
    let (predicate, runs) = (Predicate::new(), Count::new());
    predicate.say(true);
    let handlers =
        Handlers::new().read(|_| Ok(())).poll(predicate.clone()).poll_ready(predicate.taken(&runs));
    ctx.set_fd_handler(by_number(file), handlers).unwrap();
    assert!(block(&ctx));
    close_number(file);
    let reports = (0..5)
        .map(|_| {
            let timer = ctx.timer(|_| Ok(())).unwrap();
            timer.arm(Duration::from_secs(1)).unwrap();
            ctx.poll(true)
        })
        .filter(Result::is_err)
        .count();
    assert_eq!(reports, usize::from(monitor() == MonitorKind::Poll));
    assert!(!predicate.has_begun());
    ctx.remove_fd_handler(file);
}

/// SPEC 13
#[test]
fn the_owner_of_a_registered_fd_may_be_given_back_and_closed() {
    let ctx = context();
    let fd: OwnedFd = private(rung());
    let token = ctx.set_fd_handler(fd, Handlers::new().read(|_| Ok(()))).unwrap();
    drop(ctx.deregister(&token).unwrap());
    assert!(waits_of_a_sleep(&ctx) <= 4);
}
