//! ② What each monitor owes, and moving from one to another.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use fdmon::{
    AioContext, EventNotifier, Events, Handlers, MonitorKind, RingMode, RingParams, Token,
};
use rustix::event::epoll;

use super::super::{builder, context, manual, monitor};
use crate::support::{Count, alone, block, drain, pair, pipe, regular_file, rung, sleep_for};

/// `auto` goes to epoll at so many fds.
pub(super) const EPOLL_AT: usize = 64;

/// What `auto` does where there is no ring.
pub(super) fn auto() -> AioContext {
    let none = RingParams { mode: RingMode::Off, ..RingParams::default() };
    AioContext::builder().monitor(MonitorKind::Auto).ring(none).build().unwrap()
}

/// The environment decides for `auto`; these tests are about what it decides by itself.
pub(super) fn overridden() -> bool {
    std::env::var_os("FDMON_MONITOR").is_some()
}

/// SPEC 41, 46
#[test]
fn every_kind_of_fd_is_waited_for() {
    let ctx = context();
    let (ours, theirs) = pair();
    let (reader, writer) = pipe();
    let bell = EventNotifier::new().unwrap();
    let runs: Vec<_> = (0..3).map(|_| Count::new()).collect();
    let drains = |count: &Count| {
        let count = count.clone();
        Handlers::new().read(move |ops| {
            crate::support::empty(ops.fd());
            count.bump();
            Ok(())
        })
    };
    ctx.set_fd_handler(ours, drains(&runs[0])).unwrap();
    ctx.set_fd_handler(reader, drains(&runs[1])).unwrap();
    ctx.set_fd_handler(bell.clone(), drains(&runs[2])).unwrap();
    for round in 1..=3 {
        rustix::io::write(&theirs, b"x").unwrap();
        assert!(block(&ctx));
        rustix::io::write(&writer, b"x").unwrap();
        assert!(block(&ctx));
        bell.set().unwrap();
        assert!(block(&ctx));
        assert!(runs.iter().all(|count| count.get() == round));
    }
}

/// SPEC 42, 43
#[test]
fn watched_fds_come_and_go_in_any_order() {
    let (ctx, _clock) = manual();
    let mut seed = 1_u32;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % below
    };
    let bells: Vec<_> = (0..40).map(|_| EventNotifier::new().unwrap()).collect();
    let mut live: Vec<Option<(Token<EventNotifier>, Count)>> = bells.iter().map(|_| None).collect();
    for _ in 0..2_000 {
        let at = random(bells.len());
        match (live[at].take(), random(3)) {
            (Some((token, _)), 0) => drop(ctx.deregister(&token)),
            (None, _) | (Some(_), 1) => {
                let count = Count::new();
                let (clear, counter) = (bells[at].clone(), count.clone());
                let handlers = Handlers::new().read(move |_| {
                    clear.test_and_clear()?;
                    counter.bump();
                    Ok(())
                });
                let token = ctx.set_fd_handler(bells[at].clone(), handlers).unwrap();
                live[at] = Some((token, count));
            }
            (Some(entry), _) => {
                bells[at].set().unwrap();
                assert!(ctx.poll(false).unwrap());
                assert_eq!(entry.1.take(), 1);
                live[at] = Some(entry);
            }
        }
        bells[at].test_and_clear().unwrap();
    }
    for bell in &bells {
        bell.set().unwrap();
    }
    drain(&ctx);
    assert!(live.iter().flatten().all(|(_, count)| count.get() == 1));
}

/// SPEC 43
#[test]
fn one_turn_reports_all_that_is_ready_however_much_that_is() {
    let (ctx, _clock) = manual();
    let counts: Vec<_> = (0..150).map(|_| Count::new()).collect();
    for count in &counts {
        ctx.set_fd_handler(rung(), Handlers::new().read(count.callback())).unwrap();
    }
    assert!(block(&ctx));
    assert!(counts.iter().all(|count| count.get() == 1));
    assert_eq!(ctx.stats().events, 150);
}

/// SPEC 43, 46
#[test]
fn a_regular_file_is_always_ready_and_changes_no_monitor() {
    let (ctx, clock) = manual();
    let (reads, writes, bells) = (Count::new(), Count::new(), Count::new());
    let file = regular_file();
    let events = Rc::new(RefCell::new(Vec::new()));
    let (seen, counter) = (events.clone(), reads.clone());
    let handlers = Handlers::new().write(writes.callback()).read(move |ops| {
        seen.borrow_mut().push(ops.events());
        counter.bump();
        Ok(())
    });
    let token = ctx.set_fd_handler(file, handlers).unwrap();
    let bell = rung();
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(bells.callback())).unwrap();
    let start = clock.now_ns();
    for turn in 1..=3 {
        assert!(block(&ctx));
        assert_eq!((reads.get(), writes.get(), bells.get()), (turn, turn, turn));
    }
    assert_eq!(clock.now_ns(), start, "no sleep while something is always ready");
    assert_eq!(*events.borrow(), [Events::IN | Events::OUT; 3]);
    token.set_interest(fdmon::Interest::WRITE).unwrap();
    assert!(block(&ctx));
    assert_eq!((reads.get(), writes.get()), (3, 4));
    token.set_interest(fdmon::Interest::empty()).unwrap();
    bell.test_and_clear().unwrap();
    sleep_for(&ctx, 1_000_000_000);
    token.set_interest(fdmon::Interest::READ).unwrap();
    assert!(block(&ctx));
    assert_eq!((reads.get(), writes.get()), (4, 4));
    drop(ctx.deregister(&token).unwrap());
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!((ctx.monitor(), ctx.stats().fallbacks), (monitor(), 0));
}

/// SPEC 43, 46
#[test]
fn a_regular_file_never_has_urgent_data() {
    let (ctx, _clock) = manual();
    let urgent = Count::new();
    ctx.set_fd_handler(regular_file(), Handlers::new().priority(urgent.callback())).unwrap();
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!(urgent.get(), 0);
}

/// SPEC 19, 43
#[test]
fn a_regular_file_whose_callback_runs_does_not_keep_a_nested_sleep_awake() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    let counter = runs.clone();
    let file = regular_file();
    let handlers = Handlers::new().read(move |ops| {
        counter.bump();
        if counter.get() == 1 {
            sleep_for(ops.context(), 1_000_000_000);
        }
        Ok(())
    });
    ctx.set_fd_handler(file, handlers).unwrap();
    assert!(block(&ctx));
    assert!(block(&ctx));
    assert_eq!(runs.get(), 2);
}

/// Epoll sets inside one another, deeper than the kernel lets another set watch.
pub(super) fn deep_epolls() -> (Vec<OwnedFd>, EventNotifier) {
    let bell = EventNotifier::new().unwrap();
    let mut chain: Vec<OwnedFd> = Vec::new();
    for _ in 0..5 {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let data = epoll::EventData::new_u64(0);
        let inner = chain.last().map_or(bell.as_fd(), AsFd::as_fd);
        epoll::add(&set, inner, data, epoll::EventFlags::IN).unwrap();
        chain.push(set);
    }
    (chain, bell)
}

/// SPEC 43
#[test]
fn an_fd_that_epoll_refuses_moves_the_context_to_poll_without_losing_or_doubling_an_event() {
    let (ctx, _clock) = manual();
    let counts: Vec<_> = (0..10).map(|_| Count::new()).collect();
    let bells: Vec<_> = counts
        .iter()
        .map(|count| {
            let bell = EventNotifier::new().unwrap();
            let (clear, counter) = (bell.clone(), count.clone());
            let handlers = Handlers::new().read(move |_| {
                clear.test_and_clear()?;
                counter.bump();
                Ok(())
            });
            ctx.set_fd_handler(bell.clone(), handlers).unwrap();
            bell
        })
        .collect();
    let (mut chain, innermost) = deep_epolls();
    // While half of the events of a turn have been dispatched.
    let (outermost, deep) = (Rc::new(RefCell::new(chain.pop())), Count::new());
    let (first, fd, counter) = (rung(), outermost.clone(), deep.clone());
    let clear = first.clone();
    let handlers = Handlers::new().read(move |ops| {
        clear.test_and_clear()?;
        if let Some(fd) = fd.take() {
            ops.set_fd_handler(fd, Handlers::new().read(counter.callback()))?;
        }
        Ok(())
    });
    ctx.set_fd_handler(first, handlers).unwrap();
    for bell in &bells {
        bell.set().unwrap();
    }
    assert!(block(&ctx));
    drain(&ctx);
    assert!(counts.iter().all(|count| count.get() == 1));
    assert_eq!(deep.get(), 0);
    innermost.set().unwrap();
    assert!(block(&ctx));
    assert_eq!(deep.get(), 1);
    if monitor() == MonitorKind::Epoll {
        assert_eq!((ctx.monitor(), ctx.stats().fallbacks), (MonitorKind::Poll, 1));
        assert!(ctx.monitor_reason().contains("refused"), "{}", ctx.monitor_reason());
    }
}

/// SPEC 43
#[test]
fn auto_starts_on_poll_and_moves_to_epoll_at_64_fds() {
    if overridden() {
        return;
    }
    let ctx = auto();
    let bells: Vec<_> = (0..EPOLL_AT).map(|_| EventNotifier::new().unwrap()).collect();
    let counts: Vec<_> = bells.iter().map(|_| Count::new()).collect();
    for (at, bell) in bells.iter().enumerate() {
        assert_eq!(ctx.monitor(), MonitorKind::Poll, "with {at} fds: {}", ctx.monitor_reason());
        assert!(!ctx.poll(false).unwrap());
        let (clear, counter) = (bell.clone(), counts[at].clone());
        let handlers = Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            counter.bump();
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    }
    for bell in &bells {
        bell.set().unwrap();
    }
    assert!(block(&ctx));
    assert_eq!(ctx.monitor(), MonitorKind::Epoll, "{}", ctx.monitor_reason());
    assert!(ctx.monitor_reason().contains("epoll from 64 fds on"), "{}", ctx.monitor_reason());
    assert!(counts.iter().all(|count| count.get() == 1));
    assert!(!ctx.poll(false).unwrap());
    for bell in &bells[10..] {
        ctx.remove_fd_handler(bell.as_raw_fd());
    }
    ctx.poll(false).unwrap();
    assert_eq!(ctx.monitor(), MonitorKind::Epoll, "it does not move back and forth");
    ctx.notify();
    assert!(!block(&ctx));
    assert_eq!(ctx.stats().fallbacks, 0);
}

/// SPEC 44, 45
#[test]
fn a_ring_that_is_turned_off_is_never_made_and_the_reason_says_so() {
    let ring = RingParams { mode: RingMode::Off, ..RingParams::default() };
    let error =
        AioContext::builder().monitor(MonitorKind::IoUring).ring(ring.clone()).build().unwrap_err();
    assert!(error.is_invalid_arg(), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("monitor = 'io_uring' is refused: ring.mode = 'off'"), "{text}");
    assert!(text.contains("; "), "what to do: {text}");
    if overridden() {
        return;
    }
    let ctx = auto();
    let reason = "auto: io_uring is turned off by ring.mode; ";
    assert_eq!(ctx.monitor_reason(), format!("{reason}poll below 64 fds"));
    for _ in 0..EPOLL_AT {
        ctx.set_fd_handler(EventNotifier::new().unwrap(), Handlers::new().read(|_| Ok(())))
            .unwrap();
    }
    ctx.poll(false).unwrap();
    assert_eq!(ctx.monitor_reason(), format!("{reason}epoll from 64 fds on"));
}

/// SPEC 43
#[test]
fn moving_to_epoll_keeps_what_was_collected_and_doubles_nothing() {
    if overridden() {
        return;
    }
    let ctx = auto();
    let counts: Vec<_> = (0..EPOLL_AT + 20).map(|_| Count::new()).collect();
    let bells: Vec<_> = counts.iter().map(|_| rung()).collect();
    let add = |at: usize| {
        let (clear, counter) = (bells[at].clone(), counts[at].clone());
        let handlers = Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            counter.bump();
            Ok(())
        });
        ctx.set_fd_handler(bells[at].clone(), handlers).unwrap();
    };
    (0..EPOLL_AT - 1).for_each(add);
    // Collected on poll…
    ctx.set_poll_params(crate::support::spin()).unwrap();
    let predicate = crate::support::Predicate::new();
    let hits = Count::new();
    predicate.say(true);
    let handlers = Handlers::new().poll(predicate.clone()).poll_ready(predicate.taken(&hits));
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    // …and dispatched on epoll.
    (EPOLL_AT - 1..counts.len()).for_each(add);
    drain(&ctx);
    assert_eq!(ctx.monitor(), MonitorKind::Epoll);
    assert!(counts.iter().all(|count| count.get() == 1));
    assert_eq!(hits.get(), 1);
}

/// SPEC 43
#[test]
fn auto_does_not_move_while_a_nested_turn_runs() {
    if overridden() {
        return;
    }
    let ctx = auto();
    let log = crate::support::Log::new();
    let writes = log.clone();
    ctx.schedule(move |ops| {
        for _ in 0..EPOLL_AT + 10 {
            ops.set_fd_handler(rung(), Handlers::new().read(|_| Ok(())))?;
        }
        assert!(ops.poll(true)?);
        let mut inner = MonitorKind::Auto;
        for _ in 0..3 {
            ops.poll(true)?;
            inner = ops.context().monitor();
        }
        assert_eq!(inner, MonitorKind::Poll);
        writes.add("nested");
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!((log.take(), ctx.monitor()), (vec!["nested"], MonitorKind::Poll));
    assert!(ctx.poll(true).unwrap());
    assert_eq!(ctx.monitor(), MonitorKind::Epoll);
}

/// SPEC 43
#[test]
fn auto_counts_only_what_the_kernel_watches() {
    if overridden() {
        return;
    }
    let ctx = auto();
    for _ in 0..EPOLL_AT + 10 {
        let handlers = Handlers::new().poll(|| false).poll_ready(|_| Ok(()));
        ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    }
    ctx.poll(false).unwrap();
    assert_eq!(ctx.monitor(), MonitorKind::Poll);
}

/// SPEC 45
#[test]
fn what_was_asked_for_runs_and_says_so() {
    let ctx = context();
    assert_eq!(ctx.monitor(), monitor());
    assert_eq!(ctx.monitor_reason(), "asked for");
    for _ in 0..EPOLL_AT + 10 {
        ctx.set_fd_handler(EventNotifier::new().unwrap(), Handlers::new().read(|_| Ok(())))
            .unwrap();
    }
    ctx.poll(false).unwrap();
    assert_eq!(ctx.monitor(), monitor(), "asked for, so it does not move");
}

/// SPEC 45
#[test]
fn the_environment_replaces_auto_and_an_option_beats_it() {
    let name = monitor().as_str();
    if !alone("FDMON_MONITOR", name) {
        return;
    }
    let ctx = AioContext::builder().build().unwrap();
    assert_eq!(ctx.monitor(), monitor());
    assert!(ctx.monitor_reason().contains("FDMON_MONITOR"), "{}", ctx.monitor_reason());
    let other = if monitor() == MonitorKind::Poll { MonitorKind::Epoll } else { MonitorKind::Poll };
    assert_eq!(builder().monitor(other).build().unwrap().monitor(), other);
    for _ in 0..EPOLL_AT + 10 {
        ctx.set_fd_handler(EventNotifier::new().unwrap(), Handlers::new().read(|_| Ok(())))
            .unwrap();
    }
    ctx.poll(false).unwrap();
    assert_eq!(ctx.monitor(), monitor(), "an explicit request");
}

/// SPEC 45
#[test]
fn io_uring_is_there_or_refused_by_a_typed_error_that_says_why() {
    match AioContext::builder().monitor(MonitorKind::IoUring).build() {
        Ok(ctx) => assert_eq!(ctx.monitor(), MonitorKind::IoUring),
        Err(error) => {
            assert!(error.is_unsupported(), "{error}");
            assert!(error.to_string().starts_with("monitor = 'io_uring' is refused: "), "{error}");
        }
    }
}

/// SPEC 13, 45
#[test]
fn nonsense_in_the_environment_is_refused_by_name() {
    if !alone("FDMON_MONITOR", "kqueue") {
        return;
    }
    let error = AioContext::builder().build().unwrap_err();
    assert!(error.is_invalid_arg());
    assert!(error.to_string().starts_with("FDMON_MONITOR = 'kqueue'"), "{error}");
    assert_eq!(context().monitor(), monitor(), "an option beats it");
}

/// SPEC 43, 45
#[test]
fn where_no_fd_is_left_the_error_says_so_and_auto_stays_on_poll() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    if overridden() && std::env::var_os("FDMON_TEST_ALONE").is_none() {
        return;
    }
    if !alone("FDMON_NO_FDS", "1") {
        return;
    }
    let ctx = auto();
    let runs = Count::new();
    for _ in 0..EPOLL_AT - 1 {
        let bell = rung();
        let (clear, counter) = (bell.clone(), runs.clone());
        let handlers = Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            counter.bump();
            Ok(())
        });
        ctx.set_fd_handler(bell, handlers).unwrap();
    }
    let last = rung();
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(200), maximum: limit.maximum };
    setrlimit(Resource::Nofile, few).unwrap();
    let full: Vec<_> = std::iter::from_fn(|| rustix::io::dup(&last).ok()).collect();
    let error = builder().build().unwrap_err();
    assert!(error.is_syscall() || error.is_unsupported(), "{error}");
    ctx.set_fd_handler(last, Handlers::new().read(runs.callback())).unwrap();
    assert!(block(&ctx));
    assert_eq!((runs.get(), ctx.monitor()), (EPOLL_AT as u32, MonitorKind::Poll));
    assert!(ctx.monitor_reason().contains("refused"), "{}", ctx.monitor_reason());
    drop(full);
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// SPEC 46
#[test]
fn a_long_mixed_run_gives_the_same_log_everywhere() {
    let (ctx, clock) = manual();
    let log = crate::support::Log::new();
    let (ours, theirs) = pair();
    let (writes, out) = (log.clone(), theirs);
    let handlers = Handlers::new().read(move |ops| {
        crate::support::empty(ops.fd());
        writes.add("read");
        Ok(())
    });
    ctx.set_fd_handler(ours, handlers).unwrap();
    let bell = EventNotifier::new().unwrap();
    let (clear, writes) = (bell.clone(), log.clone());
    let handlers = Handlers::new().read(move |ops| {
        clear.test_and_clear()?;
        writes.add("bell");
        let writes = writes.clone();
        ops.schedule(move |_| {
            writes.add("after the bell");
            Ok(())
        })?;
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let timer = ctx.timer(log.callback("timer")).unwrap();
    for round in 0..5_u64 {
        timer.arm(Duration::from_millis(round + 1)).unwrap();
        rustix::io::write(&out, b"x").unwrap();
        assert!(ctx.poll(true).unwrap());
        bell.set().unwrap();
        assert!(ctx.poll(true).unwrap());
        assert!(ctx.poll(true).unwrap());
        assert!(ctx.poll(true).unwrap());
        assert!(!ctx.poll(false).unwrap());
        assert_eq!(log.take(), ["read", "bell", "after the bell", "timer"]);
    }
    assert_eq!(clock.now_ns(), 15_000_000);
}
