//! What a ring could easily get wrong, and every monitor owes: many fds, files that are held,
//! events that are on their way, and descriptors of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use fdmon::{
    AioContext, EventNotifier, Handlers, Interest, MonitorKind, PollParams, RingMode, RingParams,
    probe_io_uring,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::{builder, context, monitor, ring_params};
use crate::support::{
    Count, Log, Predicate, alone, block, drain, no_copies, often, pair, rung, spin,
};

/// Watches it, and counts how often it was heard and cleared.
fn counted(ctx: &AioContext, bell: &EventNotifier) -> Count {
    let (runs, clear) = (Count::new(), bell.clone());
    let counter = runs.clone();
    let handlers = Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    runs
}

/// Raises the limit of open files as far as it goes, up to this; what it is then.
fn more_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum.map(|m| m.max(wanted)) };
    if limit.current.is_none_or(|now| now >= wanted) || setrlimit(Resource::Nofile, raised).is_ok()
    {
        return wanted;
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.unwrap_or(wanted)
}

/// SPEC 44
#[test]
fn one_turn_hears_more_fds_than_a_queue_has_room_for() {
    if !alone("FDMON_MANY", "1") {
        return;
    }
    assert!(more_files(4_000) >= 4_000, "too few open files are allowed; run: ulimit -n 4000");
    for ready in [20, 64, 300, 1_500] {
        let ctx = context();
        let bells: Vec<_> = (0..ready).map(|_| EventNotifier::new().unwrap()).collect();
        let counts: Vec<_> = bells.iter().map(|bell| counted(&ctx, bell)).collect();
        assert!(!ctx.poll(false).unwrap());
        for round in 1..=4 {
            bells.iter().for_each(|bell| bell.set().unwrap());
            assert!(if round % 2 == 0 { block(&ctx) } else { ctx.poll(false).unwrap() });
            let heard = counts.iter().filter(|count| count.get() == round).count();
            assert_eq!(heard, ready, "round {round}");
            assert!(!ctx.poll(false).unwrap(), "each of them once");
        }
        // The kept part of the queue must not make a sleep end early, nor a wake-up get lost.
        let (remote, bell) = (ctx.remote(), bells[0].clone());
        let late = std::thread::spawn(move || {
            while remote.stats().sleeps == 0 {
                std::thread::yield_now();
            }
            bell.set()
        });
        assert!(block(&ctx));
        late.join().unwrap().unwrap();
        assert_eq!(counts[0].get(), 5);
    }
}

/// SPEC 3, 44: as many as the process may open, up to 100,000.
#[test]
fn very_many_fds_are_watched_and_the_last_is_heard() {
    if !alone("FDMON_VERY_MANY", "1") {
        return;
    }
    let most = u64::from(often(100_000)).max(4_000);
    let fds = usize::try_from(more_files(most + 1_000) - 1_000).unwrap();
    assert!(fds >= 3_000, "too few open files are allowed; run: ulimit -n 101000");
    let ctx = context();
    let (quiet, last) = (EventNotifier::new().unwrap(), EventNotifier::new().unwrap());
    for _ in 1..fds {
        let copy: OwnedFd = rustix::io::fcntl_dupfd_cloexec(&quiet, 0).unwrap();
        ctx.set_fd_handler(copy, Handlers::new().read(|_| Ok(()))).unwrap();
    }
    let runs = counted(&ctx, &last);
    assert!(!ctx.poll(false).unwrap());
    for round in 1..=3 {
        last.set().unwrap();
        assert!(block(&ctx));
        assert_eq!(runs.get(), round);
    }
    assert_eq!(ctx.close().handlers as usize, fds);
    assert!(rustix::io::read(&quiet, &mut [0; 8]).is_err(), "nobody rang it");
}

/// SPEC 10, 44
#[test]
fn an_event_on_its_way_does_not_reach_who_has_the_slot_or_the_number_next() {
    let ctx = context();
    for _ in 0..50 {
        let bell = EventNotifier::new().unwrap();
        let fd = bell.as_raw_fd();
        let old = counted(&ctx, &bell);
        assert!(!ctx.poll(false).unwrap()); // it is watched
        bell.set().unwrap(); // on its way
        ctx.remove_fd_handler(fd);
        bell.test_and_clear().unwrap();
        let heir = counted(&ctx, &bell);
        assert_eq!(drain(&ctx), 0);
        assert_eq!((old.get(), heir.get()), (0, 0));
        bell.set().unwrap();
        assert!(block(&ctx));
        assert_eq!((old.get(), heir.get()), (0, 1));
        ctx.remove_fd_handler(fd);
    }
}

/// SPEC 8, 44
#[test]
fn interest_changes_while_the_kernel_watches() {
    let ctx = context();
    let (ours, theirs) = pair();
    let log = Log::new();
    let (reads, writes) = (log.clone(), log.clone());
    let handlers = Handlers::new()
        .read(move |ops| {
            crate::support::empty(ops.fd());
            reads.add("read");
            Ok(())
        })
        .write(move |_| {
            writes.add("write");
            Ok(())
        });
    let token = ctx.set_fd_handler(ours, handlers).unwrap();
    for _ in 0..3 {
        token.set_interest(Interest::READ).unwrap();
        drain(&ctx);
        log.take();
        token.set_interest(Interest::READ | Interest::WRITE).unwrap();
        assert!(block(&ctx));
        assert_eq!(log.take(), ["write"]);
        token.set_interest(Interest::READ).unwrap();
        assert!(!ctx.poll(false).unwrap());
        rustix::io::write(&theirs, b"x").unwrap();
        assert!(block(&ctx));
        assert_eq!(log.take(), ["read"]);
        token.set_interest(Interest::empty()).unwrap();
        rustix::io::write(&theirs, b"x").unwrap();
        assert!(!ctx.poll(false).unwrap());
        token.set_interest(Interest::READ).unwrap();
        assert!(block(&ctx));
        assert_eq!(log.take(), ["read"]);
    }
}

fn hung_up(peer: impl AsFd) -> bool {
    rustix::io::read(&peer, &mut [0_u8; 8]) == Ok(0)
}

/// SPEC 6, 44
#[test]
fn what_was_removed_or_whose_context_is_closed_or_dropped_holds_no_file() {
    let _kept = no_copies();
    for how in ["remove", "close", "drop"] {
        let ctx = context();
        let peers: Vec<_> = (0..400)
            .map(|_| {
                let (ours, theirs) = pair();
                let fd = ours.as_raw_fd();
                ctx.set_fd_handler(ours, Handlers::new().read(|_| Ok(()))).unwrap();
                (theirs, fd)
            })
            .collect();
        assert!(!ctx.poll(false).unwrap()); // all are watched
        assert!(!hung_up(&peers[0].0));
        match how {
            "remove" => peers.iter().for_each(|(_, fd)| ctx.remove_fd_handler(*fd)),
            "close" => drop(ctx.close()),
            _ => drop(ctx),
        }
        assert!(peers.iter().all(|(peer, _)| hung_up(peer)), "{how}: a peer hears it at once");
    }
}

/// SPEC 6, 44
#[test]
fn a_port_is_free_when_its_listener_was_removed_and_closed() {
    let _kept = no_copies();
    let ctx = context();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..10 {
        let listener = TcpListener::bind(address);
        drop(listener); // while the first one lives it is taken
    }
    let token = ctx.set_fd_handler(listener, Handlers::new().read(|_| Ok(()))).unwrap();
    assert!(!ctx.poll(false).unwrap());
    assert!(TcpListener::bind(address).is_err());
    drop(ctx.deregister(&token).unwrap());
    TcpListener::bind(address).unwrap();
}

/// SPEC 24, 44
#[test]
fn what_a_hit_has_consumed_is_not_dispatched_from_an_event_on_its_way() {
    // A turn that takes long on a busy machine does not close the window.
    let params = PollParams { max_ns: 5_000_000_000, ..spin() };
    let ctx = builder().poll(params).build().unwrap();
    let bell = EventNotifier::new().unwrap();
    let (predicate, runs) = (Predicate::new(), Count::new());
    let takes_all = || {
        let (clear, took, counter) = (bell.clone(), predicate.clone(), runs.clone());
        move |_: &mut fdmon::Ops<'_>| {
            took.say(false);
            clear.test_and_clear()?;
            counter.bump();
            Ok(())
        }
    };
    let handlers =
        Handlers::new().read(takes_all()).poll(predicate.clone()).poll_ready(takes_all());
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    bell.set().unwrap();
    assert!(block(&ctx)); // and it joins the spin list
    for round in 2..=20 {
        predicate.say(true);
        // The bell rings when the hit was seen, and before its callback runs.
        let (ringer, mut rings) = (bell.clone(), true);
        predicate.on_poll(move || {
            if std::mem::take(&mut rings) {
                ringer.set().unwrap();
            }
        });
        assert!(if round % 2 == 0 { ctx.poll(false).unwrap() } else { block(&ctx) });
        predicate.on_poll(|| ());
        assert_eq!(drain(&ctx), 0, "round {round}");
        assert_eq!(runs.get(), round, "heard once");
    }
}

/// SPEC 19, 44
#[test]
fn what_a_callback_reads_after_a_nested_turn_is_not_dispatched_again() {
    let ctx = Rc::new(context());
    let (ours, theirs) = pair();
    let (runs, weak) = (Count::new(), Rc::downgrade(&ctx));
    let (counter, theirs) = (runs.clone(), Rc::new(theirs));
    let writer = theirs.clone();
    let handlers = Handlers::new().read(move |ops| {
        crate::support::empty(ops.fd());
        weak.upgrade().unwrap().poll(false)?; // its fd is not watched now, or what it says is old
        rustix::io::write(&*writer, b"again")?;
        crate::support::empty(ops.fd());
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(ours, handlers).unwrap();
    for round in 1..=10 {
        rustix::io::write(&*theirs, b"x").unwrap();
        assert!(block(&ctx));
        assert_eq!(drain(&ctx), 0, "round {round}");
        assert_eq!(runs.get(), round);
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// SPEC 1, 44
#[test]
fn contexts_leave_no_fd_behind_and_a_thread_may_have_many() {
    if !alone("FDMON_MANY_CONTEXTS", "1") {
        return;
    }
    let before = open_files();
    for _ in 0..20 {
        // A thread has room for 16 registered rings.
        let contexts: Vec<_> = (0..24).map(|_| context()).collect();
        for ctx in &contexts {
            let runs = counted(ctx, &rung());
            assert!(block(ctx));
            assert_eq!(runs.get(), 1);
        }
    }
    assert_eq!(open_files(), before);
}

/// SPEC 44
#[test]
fn what_a_context_opens_is_closed_on_exec() {
    if !alone("FDMON_EXEC", "1") {
        return;
    }
    let names = || -> Vec<i32> {
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect()
    };
    let before = names();
    let ctx = context();
    ctx.backend_fd().unwrap();
    let mut opened = 0;
    for fd in names().into_iter().filter(|fd| !before.contains(fd)) {
        let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert!(flags & rustix::fs::OFlags::CLOEXEC.bits() != 0, "{fd}: {info}");
        opened += 1;
    }
    assert!(opened >= 2, "the notifier and the set for outer loops at least");
}

/// SPEC 44
#[test]
fn a_restricted_ring_does_all_that_a_context_needs() {
    let params = RingParams { restricted: true, ..ring_params() };
    let ctx = builder().ring(params).poll(spin()).build().unwrap();
    assert_eq!(ctx.monitor(), monitor());
    let (bell, runs) = (EventNotifier::new().unwrap(), Count::new());
    let (clear, counter) = (bell.clone(), runs.clone());
    let handlers = Handlers::new().poll_kernel().read(move |_| {
        clear.test_and_clear()?;
        counter.bump();
        Ok(())
    });
    let token = ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    for round in 1..=5 {
        bell.set().unwrap();
        assert!(block(&ctx));
        assert_eq!(runs.get(), round);
        token.set_interest(Interest::empty()).unwrap();
        token.set_interest(Interest::READ).unwrap();
    }
    ctx.remote().notify().unwrap();
    ctx.poll(true).unwrap();
    assert!(ctx.deregister(&token).is_some());
    assert_eq!(ctx.stats().fallbacks, 0, "{}", ctx.monitor_reason());
}

/// SPEC 44, 50
#[test]
fn a_ring_that_cannot_wake_an_outer_loop_is_replaced_but_not_inside_a_callback() {
    let ctx = context();
    let deferred = monitor() == MonitorKind::IoUring
        && ring_params().mode == RingMode::Auto
        && probe_io_uring().unwrap().defer_taskrun;
    let bell = rung();
    let runs = counted(&ctx, &bell);
    let refused = Count::new();
    let counter = refused.clone();
    ctx.schedule(move |ops| {
        if let Err(error) = ops.context().backend_fd() {
            assert!(error.is_in_use(), "{error}");
            counter.bump();
        }
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    drain(&ctx);
    assert_eq!((refused.get(), runs.take()), (u64::from(deferred) as _, 1));
    for _ in 0..3 {
        assert_eq!(ctx.prepare().unwrap(), None);
        let bell = bell.clone();
        let ringer = std::thread::spawn(move || bell.set());
        let mut outer = [rustix::event::PollFd::new(&ctx, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        while rustix::event::poll(&mut outer, Some(&limit)) == Err(rustix::io::Errno::INTR) {}
        ringer.join().unwrap().unwrap();
        assert!(ctx.check().unwrap());
        assert!(ctx.dispatch().unwrap());
        assert_eq!(runs.take(), 1);
    }
    assert_eq!(ctx.monitor(), monitor());
}
