//! What a ring could get wrong where others cannot: its queues are finite, its requests hold files,
//! and a completion may be older than what the loop has done since. All of it holds everywhere.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use fdmon::{AioContext, EventNotifier, Handlers, Interest, MonitorKind, RingParams};

use super::super::{builder, context, manual, monitor, ring_params, spinning};
use crate::support::{
    Count, Predicate, WINDOW, alone, block, drain, empty, member, no_copies, pair, rung, sleep_for,
};

/// More than the submission queue has room for…
const MANY: usize = 300;
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
fn one_turn_reports_more_than_fits_either_queue() {
    for count in [MANY, VERY_MANY] {
        let (ctx, _clock) = manual();
        let runs = Count::new();
        let bells = bells(&ctx, count, &runs);
        for _ in 0..3 {
            ring_all(&bells);
            assert!(block(&ctx));
            assert_eq!(runs.take() as usize, count);
            // Watched already when they ring.
            assert!(!ctx.poll(false).unwrap());
            ring_all(&bells);
            assert!(ctx.poll(false).unwrap());
            assert_eq!(runs.take() as usize, count);
        }
        sleep_for(&ctx, 1_000_000);
    }
}

/// SPEC 44
#[test]
fn what_was_removed_while_ready_is_not_heard_and_its_successor_hears_only_its_own() {
    let (ctx, _clock) = manual();
    let old = Count::new();
    let first = bells(&ctx, 40, &old);
    assert!(!ctx.poll(false).unwrap());
    ring_all(&first);
    // Ready, and not yet reported: the slots are used again, by other fds and by the same.
    for bell in &first {
        ctx.remove_fd_handler(bell.as_raw_fd());
        assert!(bell.test_and_clear().unwrap());
    }
    let new = Count::new();
    let second = bells(&ctx, 20, &new);
    for bell in &first[20..] {
        counted(&ctx, bell, &new);
    }
    sleep_for(&ctx, 1_000_000);
    assert_eq!((old.get(), new.get()), (0, 0));
    ring_all(&second);
    ring_all(&first[20..]);
    assert!(block(&ctx));
    assert_eq!((old.get(), new.get()), (0, 40));
}

/// SPEC 44
#[test]
fn a_removed_fd_is_released_at_once_whatever_else_is_ready() {
    if !alone("FDMON_HELD", "1") {
        return; // a process that another test starts holds every fd until its exec
    }
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
    if !alone("FDMON_HELD", "1") {
        return; // a process that another test starts holds every fd until its exec
    }
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
fn a_port_can_be_bound_again_as_soon_as_its_listener_is_removed() {
    let _kept = no_copies();
    let ctx = context();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let fd = listener.as_raw_fd();
    ctx.set_fd_handler(listener, Handlers::new().read(|_| Ok(()))).unwrap();
    assert!(!ctx.poll(false).unwrap());
    ctx.remove_fd_handler(fd);
    let mut again = None;
    for _ in 0..3 {
        drop(again.take());
        again = Some(TcpListener::bind(address).unwrap());
    }
    drop(TcpStream::connect(address).unwrap());
}

/// SPEC 38, 44
#[test]
fn closing_or_dropping_a_context_releases_every_fd_at_once() {
    if !alone("FDMON_HELD", "1") {
        return; // a process that another test starts holds every fd until its exec
    }
    for (close, count) in [(true, 1), (false, 1), (true, 1_000), (false, 1_000)] {
        let ctx = context();
        let mut peers = Vec::new();
        for _ in 0..count {
            let (ours, theirs) = pair();
            ctx.set_fd_handler(ours, Handlers::new().read(|_| Ok(()))).unwrap();
            peers.push(theirs);
        }
        let runs = Count::new();
        let others = bells(&ctx, 100, &runs);
        assert!(!ctx.poll(false).unwrap());
        ring_all(&others);
        if close {
            assert_eq!(ctx.close().handlers as usize, count + others.len());
        } else {
            drop(ctx);
        }
        let held = peers.iter().filter(|peer| !is_hung_up(peer)).count();
        assert_eq!(held, 0, "of {count}, closed: {close}");
    }
}

/// SPEC 44
#[test]
fn an_interest_that_changes_while_it_is_watched_is_what_is_heard() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    let (reads, writes) = (Count::new(), Count::new());
    let counter = reads.clone();
    let handlers = Handlers::new().write(writes.callback()).read(move |ops| {
        empty(ops.fd());
        counter.bump();
        Ok(())
    });
    let token = ctx.set_fd_handler(ours, handlers).unwrap();
    token.set_interest(Interest::READ).unwrap();
    for _ in 0..5 {
        assert!(!ctx.poll(false).unwrap());
        for interest in [Interest::WRITE, Interest::READ] {
            token.set_interest(interest).unwrap();
        }
        sleep_for(&ctx, 1_000_000);
        assert_eq!((reads.get(), writes.get()), (0, 0));
        token.set_interest(Interest::WRITE).unwrap();
        assert!(block(&ctx));
        assert_eq!((reads.get(), writes.take()), (0, 1));
        rustix::io::write(&theirs, b"x").unwrap();
        token.set_interest(Interest::READ).unwrap();
        assert!(block(&ctx));
        assert_eq!((reads.take(), writes.get()), (1, 0));
    }
    // More changes than fit the submission queue.
    for _ in 0..MANY {
        token.set_interest(Interest::WRITE).unwrap();
        token.set_interest(Interest::READ).unwrap();
    }
    sleep_for(&ctx, 1_000_000);
    assert_eq!((reads.get(), writes.get()), (0, 0));
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

/// SPEC 24, 44
#[test]
fn readiness_that_a_hit_took_while_its_report_was_on_the_way_is_not_dispatched_again() {
    let (ctx, _clock) = spinning();
    let bell = EventNotifier::new().unwrap();
    let predicate = Predicate::new();
    let (runs, reads) = (Count::new(), Count::new());
    let (clear, quiet, counter) = (bell.clone(), predicate.clone(), runs.clone());
    let handlers =
        Handlers::new().read(reads.callback()).poll(predicate.clone()).poll_ready(move |_| {
            quiet.say(false);
            clear.test_and_clear()?;
            counter.bump();
            Ok(())
        });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    predicate.say(true);
    assert!(ctx.poll(false).unwrap());
    assert_eq!(runs.take(), 1);
    for _ in 0..50 {
        predicate.say(true);
        assert!(ctx.poll(true).unwrap());
        // It rings while it is handled, and is silenced by hand: the report is stale.
        bell.set().unwrap();
        assert!(bell.test_and_clear().unwrap());
        sleep_for(&ctx, WINDOW - 1);
        assert_eq!((runs.take(), reads.get()), (1, 0));
    }
}

/// SPEC 19, 44
#[test]
fn a_turn_within_a_callback_that_watches_its_fd_makes_nothing_stale() {
    for spins in [false, true] {
        let (ctx, _clock) = if spins { spinning() } else { manual() };
        let bell = EventNotifier::new().unwrap();
        let runs = Count::new();
        let (clear, counter) = (bell.clone(), runs.clone());
        let handlers = Handlers::new().read(move |ops| {
            assert!(clear.test_and_clear()?, "dispatched with nothing to read");
            counter.bump();
            sleep_for(ops.context(), 50_000);
            // What comes now is taken here, and nobody must hear of it later.
            clear.set()?;
            assert!(clear.test_and_clear()?);
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
        for round in 1..=5 {
            bell.set().unwrap();
            assert!(block(&ctx));
            assert!(!ctx.poll(false).unwrap());
            sleep_for(&ctx, 50_000);
            assert_eq!(runs.get(), round, "spinning: {spins}");
        }
    }
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

/// SPEC 44
#[test]
fn what_a_context_opens_is_closed_in_other_programs_and_when_it_is_dropped() {
    if !alone("FDMON_COUNT_FDS", "1") {
        return;
    }
    let open = || -> Vec<String> {
        let names = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut open: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        open.retain(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()); // not its own
        open
    };
    drop(context());
    let before = open();
    let ctx = context();
    let mut own = 0;
    for fd in open().iter().filter(|fd| !before.contains(fd)) {
        let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let flags = u32::from_str_radix(flags, 8).unwrap();
        assert_ne!(flags & 0o2_000_000, 0, "fd {fd} is inherited:\n{info}");
        own += 1;
    }
    assert!(own > usize::from(monitor() != MonitorKind::Poll));
    drop(ctx);
    for _ in 0..200 {
        let ctx = context();
        counted(&ctx, &rung(), &Count::new());
        assert!(block(&ctx));
    }
    assert_eq!(open().len(), before.len());
}

/// SPEC 44
#[test]
fn a_thread_may_have_more_contexts_than_the_kernel_registers_rings() {
    let contexts: Vec<_> = (0..40).map(|_| context()).collect();
    let runs = Count::new();
    let bells: Vec<_> = contexts.iter().map(|ctx| bells(ctx, 3, &runs)).collect();
    for (ctx, bells) in contexts.iter().zip(&bells) {
        ring_all(bells);
        assert!(block(ctx));
        assert_eq!(runs.take(), 3);
    }
    // Their places are free for others.
    let mut kept: Vec<_> = contexts.into_iter().step_by(3).collect();
    kept.extend((0..10).map(|_| context()));
    for ctx in &kept {
        counted(ctx, &rung(), &runs);
        assert!(block(ctx));
        assert_eq!(runs.take(), 1);
    }
}

/// SPEC 44, 46
#[test]
fn a_restricted_ring_does_what_a_context_does() {
    let params = RingParams { restricted: true, ..ring_params() };
    let ctx = builder().ring(params).build().unwrap();
    assert_eq!(ctx.monitor(), monitor());
    let (mut theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (into, fd) = (heard.clone(), ours.as_raw_fd());
    let mut reader = ours.try_clone().unwrap();
    let handlers = Handlers::new().write(|_| Ok(())).read(move |_| {
        let mut buffer = [0_u8; 8];
        let count = reader.read(&mut buffer)?;
        into.borrow_mut().extend_from_slice(&buffer[..count]);
        Ok(())
    });
    let token = ctx.set_fd_handler(ours, handlers).unwrap();
    token.set_interest(Interest::READ).unwrap();
    for word in [b"one", b"two"] {
        theirs.write_all(word).unwrap();
        assert!(block(&ctx));
        assert!(!ctx.poll(false).unwrap());
        token.set_interest(Interest::WRITE).unwrap();
        assert!(block(&ctx));
        token.set_interest(Interest::READ).unwrap();
    }
    assert_eq!(*heard.borrow(), b"onetwo");
    ctx.remote().notify().unwrap();
    assert!(!block(&ctx));
    ctx.remove_fd_handler(fd);
    sleep_for(&ctx, 1_000_000);
    assert_eq!((ctx.monitor(), ctx.stats().fallbacks), (monitor(), 0));
}

/// SPEC 22, 44
#[test]
fn members_and_plain_fds_together_are_each_heard_once() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    let hits = member(&ctx, &bell, &predicate);
    let runs = Count::new();
    let others = bells(&ctx, MANY, &runs);
    for round in 0..20 {
        ring_all(&others[..round]);
        predicate.say(true);
        bell.set().unwrap();
        drain(&ctx);
        assert_eq!((hits.take(), runs.take() as usize), (1, round));
        assert!(!bell.test_and_clear().unwrap(), "read took the doorbell's signal");
    }
}
