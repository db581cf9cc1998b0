//! Kernel busy polling of network queues: set, changed, carried along, or refused by a typed error.
//!
//! The tests read what is in force from the kernel itself, and ask it, not the loop, whether it can
//! do this at all. Where it cannot, they expect the refusal.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::rc::Rc;
use std::time::Duration;

use fdmon::{AioContext, BusyPoll, Error, EventNotifier, Handlers, MonitorKind, PollParams};
use rustix::event::epoll;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::super::{builder, context, monitor};
use super::monitors::{EPOLL_AT, auto, deep_epolls, overridden};
use crate::support::{
    Count, Log, block, by_number, close_number, private, rung, spin, without_io_uring,
};

/// `struct epoll_params`: microseconds, budget, whether it is preferred, and a 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Raw(u32, u16, u8, u8);

const SET: Opcode = opcode::write::<Raw>(0x8A, 0x01);
const GET: Opcode = opcode::read::<Raw>(0x8A, 0x02);
const OFF: Raw = Raw(0, 0, 0, 0);

fn read_back(set: BorrowedFd<'_>) -> rustix::io::Result<Raw> {
    // SAFETY: EPIOCGPARAMS writes a `struct epoll_params`, which `Raw` is.
    let request = unsafe { Getter::<GET, Raw>::new() };
    // SAFETY: the kernel writes the structure and nothing else.
    unsafe { ioctl(set, request) }
}

/// Behind the loop's back.
fn overwrite(set: BorrowedFd<'_>, params: Raw) {
    // SAFETY: EPIOCSPARAMS reads a `struct epoll_params`, which `Raw` is.
    let request = unsafe { Setter::<SET, Raw>::new(params) };
    // SAFETY: the kernel only reads the structure.
    unsafe { ioctl(set, request) }.unwrap();
}

fn kernel_can() -> bool {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    read_back(set.as_fd()).is_ok()
}

/// The monitor under test can do it here.
fn offered() -> bool {
    monitor() == MonitorKind::Epoll && kernel_can()
}

/// The epoll set of the monitor, which the set for outer loops holds.
#[track_caller]
fn set_of(ctx: &AioContext) -> BorrowedFd<'_> {
    assert_eq!(ctx.monitor(), MonitorKind::Epoll);
    let outer = ctx.backend_fd().unwrap().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{outer}")).unwrap();
    let inner = info
        .lines()
        .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok())
        .find(|fd: &i32| {
            let file = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            file.to_string_lossy().contains("eventpoll")
        });
    by_number(inner.unwrap())
}

#[track_caller]
fn in_force(ctx: &AioContext) -> Raw {
    read_back(set_of(ctx)).unwrap()
}

const BUSY: BusyPoll = BusyPoll { usecs: 50, budget: 8, prefer: true };
const CALM: BusyPoll = BusyPoll { usecs: 7, budget: 0, prefer: false };
/// More than is allowed without CAP_NET_ADMIN.
const GREEDY: BusyPoll = BusyPoll { usecs: 50, budget: 65, prefer: false };

fn with(busy: impl Into<Option<BusyPoll>>) -> PollParams {
    PollParams { kernel_busy_poll: busy.into(), ..PollParams::default() }
}

#[track_caller]
fn is_refusal_of(error: &Error, busy: BusyPoll) {
    assert!(error.is_unsupported(), "{error}");
    assert_eq!(error.code().as_str(), "ERR_FDMON_UNSUPPORTED");
    assert_eq!(error.errno().is_some(), error.syscall_name().is_some());
    let text = error.to_string();
    assert!(text.starts_with(&format!("kernel_busy_poll = {busy} is refused: ")), "{text}");
    assert!(text.contains("; "), "what to do: {text}");
}

/// Takes CAP_NET_ADMIN from this thread and no other. `false` = it did not have it.
fn give_up_net_admin() -> bool {
    let mut sets = capabilities(None).unwrap();
    let had = sets.effective.contains(CapabilitySet::NET_ADMIN);
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).unwrap();
    had
}

/// In a thread of its own, which may give up its capabilities.
fn in_a_thread(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(test).join().unwrap();
}

#[track_caller]
fn usable(ctx: &AioContext) {
    let runs = Count::new();
    let bell = rung();
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(runs.callback())).unwrap();
    assert!(block(ctx));
    assert_eq!(runs.get(), 1);
    ctx.remove_fd_handler(bell.as_raw_fd());
}

/// SPEC 30
#[test]
fn it_is_off_by_default_and_can_be_turned_on_changed_and_turned_off() {
    let ctx = context();
    assert_eq!(ctx.poll_params().kernel_busy_poll, None);
    if !offered() {
        let params = PollParams { max_ns: 5, ..with(BUSY) };
        is_refusal_of(&builder().poll(params.clone()).build().unwrap_err(), BUSY);
        is_refusal_of(&ctx.set_poll_params(params).unwrap_err(), BUSY);
        assert_eq!(ctx.poll_params(), PollParams::default());
        ctx.set_poll_params(with(None)).unwrap();
        assert_eq!((ctx.monitor(), ctx.monitor_reason().as_str()), (monitor(), "asked for"));
        return usable(&ctx);
    }
    assert_eq!(in_force(&ctx), OFF);
    let ctx = builder().poll(with(BUSY)).build().unwrap();
    assert_eq!(in_force(&ctx), Raw(50, 8, 1, 0));
    for (busy, raw) in [(Some(CALM), Raw(7, 0, 0, 0)), (None, OFF), (Some(BUSY), Raw(50, 8, 1, 0))]
    {
        ctx.set_poll_params(with(busy)).unwrap();
        assert_eq!((in_force(&ctx), ctx.poll_params().kernel_busy_poll), (raw, busy));
        usable(&ctx);
    }
}

/// SPEC 30
#[test]
fn only_a_change_asks_the_kernel() {
    if !offered() {
        // What is off already is not turned off.
        return context().set_poll_params(with(None)).unwrap();
    }
    let ctx = builder().poll(with(BUSY)).build().unwrap();
    let foreign = Raw(3, 3, 0, 0);
    overwrite(set_of(&ctx), foreign);
    ctx.set_poll_params(PollParams { kernel_busy_poll: Some(BUSY), ..spin() }).unwrap();
    ctx.remote().set_poll_params(with(BUSY)).unwrap();
    usable(&ctx);
    assert_eq!(in_force(&ctx), foreign);
    ctx.set_poll_params(with(CALM)).unwrap();
    assert_eq!(in_force(&ctx), Raw(7, 0, 0, 0));
}

/// SPEC 30
#[test]
fn loopback_traffic_arrives_whether_it_is_on_changed_or_off() {
    let ctx = context();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    fcntl_setfl(&ours, OFlags::NONBLOCK).unwrap();
    theirs.set_nodelay(true).unwrap();
    let (ours, got) = (Rc::new(ours), Count::new());
    let (stream, counter) = (ours.clone(), got.clone());
    let handlers = Handlers::new().read(move |_| {
        let mut byte = [0];
        while (&*stream).read(&mut byte).is_ok_and(|n| n == 1) {
            counter.bump();
        }
        Ok(())
    });
    ctx.set_fd_handler(by_number(ours.as_raw_fd()), handlers).unwrap();
    for busy in [Some(BUSY), Some(CALM), None, Some(BUSY)] {
        let result = ctx.set_poll_params(with(busy));
        assert_eq!(result.is_ok(), busy.is_none() || offered(), "{result:?}");
        for _ in 0..20 {
            theirs.write_all(b"x").unwrap();
            while got.get() == 0 {
                block(&ctx);
            }
            assert_eq!(got.take(), 1);
        }
        assert!(!ctx.poll(false).unwrap());
    }
    // A sleep that traffic does not end is ended by its deadline, and by another thread.
    crate::support::sleep_for(&ctx, 3_000_000);
    let remote = ctx.remote();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(3));
        remote.stop()
    });
    ctx.run().unwrap();
    thread.join().unwrap().unwrap();
}

/// SPEC 30
#[test]
fn a_refused_budget_leaves_the_old_parameters_in_force() {
    in_a_thread(|| {
        if give_up_net_admin() && offered() {
            set_and_refuse();
        } else {
            is_refusal_of(&builder().poll(with(GREEDY)).build().unwrap_err(), GREEDY);
        }
    });

    fn set_and_refuse() {
        let old = PollParams { kernel_busy_poll: Some(BUSY), ..spin() };
        let ctx = builder().poll(old.clone()).build().unwrap();
        let error = ctx.set_poll_params(with(GREEDY)).unwrap_err();
        is_refusal_of(&error, GREEDY);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        assert_eq!((error.errno(), error.syscall_name()), (Some(1), Some("ioctl")));
        assert_eq!((ctx.poll_params(), ctx.remote().poll_params()), (old.clone(), old));
        assert_eq!(in_force(&ctx), Raw(50, 8, 1, 0));
        usable(&ctx);
        ctx.set_poll_params(with(None)).unwrap();
        assert_eq!(in_force(&ctx), OFF);
    }
}

/// SPEC 30, 31
#[test]
fn another_thread_may_ask_for_it_and_the_next_turn_reports_a_refusal() {
    in_a_thread(|| {
        give_up_net_admin();
        let old = PollParams { kernel_busy_poll: offered().then_some(BUSY), ..spin() };
        let ctx = builder().build().unwrap();
        ctx.remote().set_poll_params(old.clone()).unwrap();
        assert!(!ctx.poll(false).unwrap());
        assert_eq!(ctx.poll_params(), old);
        if offered() {
            assert_eq!(in_force(&ctx), Raw(50, 8, 1, 0));
        }
        for blocking in [true, false] {
            let ran = Count::new();
            ctx.schedule(ran.callback()).unwrap();
            ctx.remote().set_poll_params(with(GREEDY)).unwrap();
            assert_eq!(ctx.remote().poll_params(), with(GREEDY), "asked for");
            let error = ctx.poll(blocking).unwrap_err();
            let [cause] = error.callback_errors() else { panic!("{error}") };
            is_refusal_of(cause.downcast_ref().unwrap(), GREEDY);
            assert_eq!(ran.get(), 1, "the others of the turn run");
            assert_eq!((ctx.poll_params(), ctx.remote().poll_params()), (old.clone(), old.clone()));
        }
        usable(&ctx);
        ctx.remote().set_poll_params(with(GREEDY)).unwrap();
        assert!(ctx.poll(true).unwrap_err().is_callback(), "it does not sleep before it reports");
    });
}

/// SPEC 30, 50
#[test]
fn a_refusal_that_prepare_finds_is_reported_by_dispatch() {
    in_a_thread(|| {
        give_up_net_admin();
        let ctx = context();
        ctx.remote().set_poll_params(with(GREEDY)).unwrap();
        assert_eq!(ctx.prepare().unwrap(), Some(0));
        assert!(ctx.check().unwrap());
        let error = ctx.dispatch().unwrap_err();
        is_refusal_of(error.callback_errors()[0].downcast_ref().unwrap(), GREEDY);
        assert_eq!(ctx.prepare().unwrap(), None);
        assert!(!ctx.check().unwrap());
    });
}

/// The kernel reports an fd that was closed while a copy of it lives: epoll takes a new set then.
fn leave_an_orphan(ctx: &AioContext) -> EventNotifier {
    let bell = EventNotifier::new().unwrap();
    let fd = private(&bell).into_raw_fd();
    ctx.set_fd_handler(by_number(fd), Handlers::new().read(|_| Ok(()))).unwrap();
    close_number(fd);
    ctx.remove_fd_handler(fd);
    bell.set().unwrap();
    crate::support::sleep_for(ctx, 1_000_000);
    bell
}

/// SPEC 30, 43
#[test]
fn a_new_epoll_set_gets_it_too() {
    if !offered() {
        return is_refusal_of(&builder().poll(with(BUSY)).build().unwrap_err(), BUSY);
    }
    let ctx = builder().poll(with(BUSY)).build().unwrap();
    let before = set_of(&ctx);
    overwrite(before, OFF);
    let _copy = leave_an_orphan(&ctx);
    assert_eq!(in_force(&ctx), Raw(50, 8, 1, 0), "it was the old set that had been overwritten");
    assert_eq!(ctx.monitor_reason(), "asked for");
    usable(&ctx);
}

/// SPEC 30, 43
#[test]
fn a_new_epoll_set_that_is_refused_it_works_without_and_the_reason_says_so() {
    in_a_thread(|| {
        let result = builder().poll(with(GREEDY)).build();
        let had_it = give_up_net_admin();
        if !(had_it && offered()) {
            return is_refusal_of(&result.unwrap_err(), GREEDY);
        }
        let ctx = result.unwrap();
        assert_eq!(in_force(&ctx), Raw(50, 65, 0, 0));
        let reason = "asked for; kernel busy polling is off: a budget above 64 needs CAP_NET_ADMIN";
        for _ in 0..2 {
            let _copy = leave_an_orphan(&ctx);
            assert_eq!((in_force(&ctx), ctx.monitor_reason().as_str()), (OFF, reason));
            usable(&ctx);
        }
        ctx.set_poll_params(with(BUSY)).unwrap();
        assert_eq!(in_force(&ctx), Raw(50, 8, 1, 0));
        assert_eq!(ctx.monitor_reason(), "asked for");
    });
}

/// SPEC 30, 43
#[test]
fn after_a_fallback_to_poll_the_reason_says_that_it_is_off() {
    let ctx = context();
    let _refused_on_poll = ctx.set_poll_params(with(offered().then_some(BUSY)));
    let (mut chain, innermost) = deep_epolls();
    let runs = Count::new();
    let deep = chain.pop().unwrap();
    ctx.set_fd_handler(deep, Handlers::new().read(runs.callback())).unwrap();
    innermost.set().unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    if !offered() {
        return assert!(!ctx.monitor_reason().contains("busy"), "{}", ctx.monitor_reason());
    }
    let off = "; kernel busy polling is off: monitor 'poll' cannot do it";
    let reason = ctx.monitor_reason();
    assert!(reason.starts_with("epoll refused an fd") && reason.ends_with(off), "{reason}");
    // Other parameters can still be changed, and it can be given up.
    ctx.set_poll_params(PollParams { kernel_busy_poll: Some(BUSY), ..spin() }).unwrap();
    is_refusal_of(&ctx.set_poll_params(with(CALM)).unwrap_err(), CALM);
    assert_eq!(ctx.poll_params().max_ns, spin().max_ns);
    ctx.set_poll_params(with(None)).unwrap();
    assert!(!ctx.monitor_reason().contains("busy"), "{}", ctx.monitor_reason());
}

/// Where `auto` without a ring is once it was asked for.
fn after_the_wish() -> MonitorKind {
    if kernel_can() { MonitorKind::Epoll } else { MonitorKind::Poll }
}

const AUTO_REASON: &str = "auto: epoll, since kernel busy polling was asked for";

/// SPEC 30, 45
#[test]
fn auto_with_a_ring_does_it_there_or_moves_to_epoll() {
    if overridden() {
        return;
    }
    let ctx = auto();
    let before = ctx.monitor();
    let runs = Count::new();
    ctx.set_fd_handler(rung(), Handlers::new().read(runs.callback())).unwrap();
    assert!(block(&ctx));
    let result = ctx.set_poll_params(with(BUSY));
    assert_eq!(result.is_ok(), kernel_can(), "{result:?}");
    if ctx.monitor() != before {
        assert_eq!(
            (ctx.monitor_reason().as_str(), in_force(&ctx)),
            (AUTO_REASON, Raw(50, 8, 1, 0))
        );
    }
    assert!(result.is_err() || ctx.monitor() != MonitorKind::Poll);
    assert!(block(&ctx));
    assert_eq!((runs.get(), ctx.stats().fallbacks), (2, 0));
}

/// SPEC 30, 45
#[test]
fn for_auto_on_poll_it_is_a_wish_for_epoll() {
    if !overridden() {
        without_io_uring(auto_moves_to_epoll);
    }
}

fn auto_moves_to_epoll() {
    let built = AioContext::builder().poll(with(BUSY)).build();
    let ctx = auto();
    let runs = Count::new();
    let bell = rung();
    ctx.set_fd_handler(bell, Handlers::new().read(runs.callback())).unwrap();
    assert!(block(&ctx));
    let result = ctx.set_poll_params(with(BUSY));
    if !kernel_can() {
        is_refusal_of(&built.unwrap_err(), BUSY);
        is_refusal_of(&result.unwrap_err(), BUSY);
        assert_eq!((ctx.monitor(), ctx.poll_params()), (MonitorKind::Poll, PollParams::default()));
        return assert!(block(&ctx));
    }
    result.unwrap();
    for ctx in [&built.unwrap(), &ctx] {
        assert_eq!(ctx.monitor_reason(), AUTO_REASON);
        assert_eq!(in_force(ctx), Raw(50, 8, 1, 0));
    }
    assert!(block(&ctx));
    assert_eq!(runs.get(), 2, "nothing lost, nothing doubled");
    ctx.set_poll_params(with(None)).unwrap();
    assert_eq!((ctx.monitor(), in_force(&ctx)), (MonitorKind::Epoll, OFF), "it does not move back");
    for _ in 0..EPOLL_AT {
        ctx.set_fd_handler(EventNotifier::new().unwrap(), Handlers::new().read(|_| Ok(())))
            .unwrap();
    }
    assert!(block(&ctx));
    assert_eq!(ctx.monitor_reason(), AUTO_REASON, "it moves once");
    assert_eq!(ctx.stats().fallbacks, 0);
}

/// SPEC 30, 43
#[test]
fn auto_on_poll_moves_at_once_in_a_callback_but_not_in_a_nested_turn() {
    if !overridden() {
        without_io_uring(auto_moves_in_a_callback);
        without_io_uring(auto_waits_for_the_end_of_a_nested_turn);
    }
}

fn auto_moves_in_a_callback() {
    let ctx = auto();
    ctx.schedule(move |ops| {
        let result = ops.context().set_poll_params(with(BUSY));
        assert_eq!((result.is_ok(), ops.context().monitor()), (kernel_can(), after_the_wish()));
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
}

fn auto_waits_for_the_end_of_a_nested_turn() {
    let ctx = auto();
    let log = Log::new();
    let writes = log.clone();
    ctx.schedule(move |ops| {
        let writes = writes.clone();
        ops.schedule(move |ops| {
            let result = ops.context().set_poll_params(with(BUSY));
            assert_eq!(result.is_ok(), kernel_can(), "{result:?}");
            assert_eq!(ops.context().monitor(), MonitorKind::Poll);
            writes.add("nested");
            Ok(())
        })?;
        assert!(ops.poll(true)?);
        assert!(!ops.poll(false)?);
        assert_eq!(ops.context().monitor(), MonitorKind::Poll);
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["nested"]);
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(ctx.monitor(), after_the_wish());
    if kernel_can() {
        assert_eq!(
            (ctx.monitor_reason().as_str(), in_force(&ctx)),
            (AUTO_REASON, Raw(50, 8, 1, 0))
        );
    }
}

/// SPEC 30, 43
#[test]
fn auto_that_watches_what_epoll_refuses_stays_on_poll_and_says_why() {
    if !overridden() {
        without_io_uring(auto_cannot_move);
    }
}

fn auto_cannot_move() {
    let ctx = auto();
    let (mut chain, innermost) = deep_epolls();
    let runs = Count::new();
    let deep = chain.pop().unwrap();
    ctx.set_fd_handler(deep, Handlers::new().read(runs.callback())).unwrap();
    let error = ctx.set_poll_params(with(BUSY)).unwrap_err();
    is_refusal_of(&error, BUSY);
    if kernel_can() {
        assert_eq!(error.syscall_name(), Some("epoll_ctl"));
    }
    assert_eq!((ctx.monitor(), ctx.poll_params()), (MonitorKind::Poll, PollParams::default()));
    innermost.set().unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}
