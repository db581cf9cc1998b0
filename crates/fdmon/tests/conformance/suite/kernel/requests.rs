//! Requests of a ring that are being woken while they are taken back or changed.

use std::os::fd::{AsRawFd, OwnedFd};

use fdmon::{AioContext, EventNotifier, Handlers, Interest};

use super::super::{context, manual};
use crate::support::{Count, block, drain, empty, pair, sleep_for};

/// …and more than the completion queue has.
const VERY_MANY: usize = 1_500;

/// A handler that clears its bell and counts.
fn counted(ctx: &AioContext, bell: &EventNotifier, runs: &Count) {
    let (clear, counter) = (bell.clone(), runs.clone());
    let handlers = Handlers::new().read(move |_| {
        assert!(clear.test_and_clear()?, "dispatched with nothing to read");
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
}

fn bells(ctx: &AioContext, count: usize, runs: &Count) -> Vec<EventNotifier> {
    let bells: Vec<_> = (0..count).map(|_| EventNotifier::new().unwrap()).collect();
    bells.iter().for_each(|bell| counted(ctx, bell, runs));
    bells
}

fn ring_all(bells: &[EventNotifier]) {
    bells.iter().for_each(|bell| bell.set().unwrap());
}

/// The other end of a socket pair sees that this end is closed.
fn is_hung_up(peer: &OwnedFd) -> bool {
    rustix::io::read(peer, &mut [0_u8; 8]) == Ok(0)
}

/// SPEC 44
#[test]
fn a_removed_fd_is_released_at_once_whatever_else_is_ready() {
    for others in [0, 1, 100, VERY_MANY] {
        let (ctx, _clock) = manual();
        let runs = Count::new();
        let (ours, theirs) = pair();
        let fd = ours.as_raw_fd();
        let others_before = bells(&ctx, others / 2, &runs);
        ctx.set_fd_handler(ours, Handlers::new().read(|_| Ok(()))).unwrap();
        let others_after = bells(&ctx, others - others / 2, &runs);
        assert!(!ctx.poll(false).unwrap());
        ring_all(&others_before);
        ring_all(&others_after);
        ctx.remove_fd_handler(fd); // the handler owned the fd
        assert!(is_hung_up(&theirs), "with {others} others ready");
        assert_eq!(drain(&ctx), u32::from(others != 0));
        assert_eq!(runs.get() as usize, others);
    }
}

/// SPEC 44
#[test]
fn a_removed_fd_is_released_at_once_though_it_was_woken_for_nothing() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    let reader = rustix::io::dup(&ours).unwrap();
    let fd = ours.as_raw_fd();
    ctx.set_fd_handler(ours, Handlers::new().read(|_| Ok(()))).unwrap();
    assert!(!ctx.poll(false).unwrap());
    for _ in 0..2 {
        rustix::io::write(&theirs, b"x").unwrap();
    }
    empty(&reader);
    drop(reader);
    ctx.remove_fd_handler(fd);
    assert!(is_hung_up(&theirs));
    sleep_for(&ctx, 1_000_000);
}

/// SPEC 44
#[test]
fn an_interest_that_changes_after_a_wake_up_for_nothing_is_what_is_heard() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    let reader = rustix::io::dup(&ours).unwrap();
    let (reads, writes) = (Count::new(), Count::new());
    let handlers = Handlers::new().write(writes.callback()).read(reads.callback());
    let token = ctx.set_fd_handler(ours, handlers).unwrap();
    token.set_interest(Interest::READ).unwrap();
    assert!(!ctx.poll(false).unwrap());
    for _ in 0..2 {
        rustix::io::write(&theirs, b"x").unwrap();
    }
    empty(&reader);
    token.set_interest(Interest::WRITE).unwrap();
    assert!(block(&ctx));
    assert_eq!((reads.get(), writes.get()), (0, 1));
}

/// SPEC 35, 50
#[test]
fn a_removal_between_prepare_and_check_loses_no_wake_up() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let ctx = context();
    let is_readable = || {
        let at_most = Timespec { tv_sec: 10, tv_nsec: 0 };
        poll(&mut [PollFd::new(&ctx, PollFlags::IN)], Some(&at_most)).unwrap() == 1
    };
    let runs = Count::new();
    let others = bells(&ctx, 40, &runs);
    assert!(!ctx.check().unwrap());
    for round in 0..30 {
        assert_eq!(ctx.prepare().unwrap(), None);
        // Reported to the ring, and still unheard when the removal looks at it.
        if round % 2 == 0 {
            ctx.remote().notify().unwrap();
        } else {
            others[39].set().unwrap();
        }
        ctx.remove_fd_handler(others[round].as_raw_fd());
        assert!(is_readable(), "round {round}: the outer loop sleeps on");
        if ctx.check().unwrap() {
            ctx.dispatch().unwrap();
        }
        assert_eq!(runs.take() as usize, round % 2);
    }
}
