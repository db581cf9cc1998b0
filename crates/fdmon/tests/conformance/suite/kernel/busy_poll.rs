//! Kernel busy polling of network queues: set, changed, carried along, or refused by a typed error.
//!
//! The tests read what is in force from the kernel itself, and ask it, not the loop, whether it can
//! do this at all. Where it cannot, they expect the refusal. A ring has no budget of its own; what
//! is in force on it stands in its fdinfo, and is seen once an outer loop may watch it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::rc::Rc;
use std::time::Duration;

use fdmon::{
    AioContext, BusyPoll, Error, EventNotifier, Handlers, MonitorKind, PollParams, RingMode,
    RingParams, probe_io_uring,
};
use rustix::event::epoll;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io_uring::{IoringRegisterOp, io_uring_napi, io_uring_register};
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::super::{builder, context, monitor, ring_params};
use super::monitors::{EPOLL_AT, auto, deep_epolls, overridden};
use crate::sandbox::refuse;
use crate::support::{Count, Log, block, by_number, close_number, private, rung, spin};

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
fn overwrite(ctx: &AioContext, params: Raw) {
    let fd = inner(ctx);
    if ctx.monitor() == MonitorKind::IoUring {
        let mut napi = io_uring_napi::default();
        napi.busy_poll_to = params.0;
        napi.prefer_busy_poll = params.2;
        let pointer = (&raw mut napi).cast();
        // SAFETY: the kernel reads and writes one `struct io_uring_napi`, during the call.
        unsafe { io_uring_register(fd, IoringRegisterOp::RegisterNapi, pointer, 1) }.unwrap();
        return;
    }
    // SAFETY: EPIOCSPARAMS reads a `struct epoll_params`, which `Raw` is.
    let request = unsafe { Setter::<SET, Raw>::new(params) };
    // SAFETY: the kernel only reads the structure.
    unsafe { ioctl(fd, request) }.unwrap();
}

/// epoll can do it here.
fn epoll_can() -> bool {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    read_back(set.as_fd()).is_ok()
}

/// Rings can do it here.
fn rings_can() -> bool {
    probe_io_uring().is_ok_and(|features| features.napi)
}

/// The monitor under test can do it here.
fn offered() -> bool {
    match monitor() {
        MonitorKind::Epoll => epoll_can(),
        MonitorKind::IoUring => rings_can(),
        _ => false,
    }
}

/// The epoll set of the monitor, or its ring, which the set for outer loops holds.
#[track_caller]
fn inner(ctx: &AioContext) -> BorrowedFd<'_> {
    let kind = match ctx.monitor() {
        MonitorKind::Epoll => "eventpoll",
        MonitorKind::IoUring => "io_uring",
        other => panic!("{other} has none"),
    };
    let outer = ctx.backend_fd().unwrap().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{outer}")).unwrap();
    let inner = info
        .lines()
        .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok())
        .find(|fd: &i32| {
            let file = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            file.to_string_lossy().contains(kind)
        });
    by_number(inner.unwrap())
}

#[track_caller]
fn assert_in_force(ctx: &AioContext, params: Raw) {
    let fd = inner(ctx);
    if ctx.monitor() == MonitorKind::Epoll {
        return assert_eq!(read_back(fd).unwrap(), params);
    }
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let value = |name| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let Some(state) = value("NAPI") else { return }; // older kernels do not say
    assert_eq!(state, if params.0 == 0 { "disabled" } else { "enabled" }, "{info}");
    if params.0 != 0 {
        assert_eq!(value("napi_prefer_busy_poll"), Some(["false", "true"][usize::from(params.2)]));
        let ns = (1_000 * params.0).to_string();
        assert!(value("napi_busy_poll_dt").is_none_or(|value| value == ns), "{info}");
    }
}

const BUSY: BusyPoll = BusyPoll { usecs: 50, budget: 8, prefer: true };
const CALM: BusyPoll = BusyPoll { usecs: 7, budget: 0, prefer: false };
/// What the kernel has then.
const BUSY_RAW: Raw = Raw(50, 8, 1, 0);
const CALM_RAW: Raw = Raw(7, 0, 0, 0);
/// More than epoll allows without CAP_NET_ADMIN.
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

/// From now on, in this thread, the kernel refuses what the monitor would do about `GREEDY`: the
/// budget, or on a ring, which has none, all of it.
fn refuse_greed() {
    give_up_net_admin();
    if monitor() == MonitorKind::IoUring {
        refuse(&["io_uring_register=EPERM".parse().unwrap()]).unwrap();
    }
}

/// In a thread of its own, which may give up its capabilities.
fn in_a_thread(test: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
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
    assert_in_force(&ctx, OFF);
    let ctx = builder().poll(with(BUSY)).build().unwrap();
    usable(&ctx);
    assert_in_force(&ctx, BUSY_RAW);
    for (busy, raw) in [(Some(CALM), CALM_RAW), (None, OFF), (Some(BUSY), BUSY_RAW)] {
        ctx.set_poll_params(with(busy)).unwrap();
        assert_eq!(ctx.poll_params().kernel_busy_poll, busy);
        assert_in_force(&ctx, raw);
        usable(&ctx);
    }
    assert_eq!((ctx.monitor(), ctx.monitor_reason().as_str()), (monitor(), "asked for"));
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
    overwrite(&ctx, foreign);
    ctx.set_poll_params(PollParams { kernel_busy_poll: Some(BUSY), ..spin() }).unwrap();
    ctx.remote().set_poll_params(with(BUSY)).unwrap();
    usable(&ctx);
    assert_in_force(&ctx, foreign);
    ctx.set_poll_params(with(CALM)).unwrap();
    assert_in_force(&ctx, CALM_RAW);
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
fn what_is_refused_leaves_the_old_parameters_in_force() {
    in_a_thread(|| {
        if offered() {
            set_and_refuse();
        } else {
            is_refusal_of(&builder().poll(with(GREEDY)).build().unwrap_err(), GREEDY);
        }
    });

    fn set_and_refuse() {
        let old = PollParams { kernel_busy_poll: Some(BUSY), ..spin() };
        let ctx = builder().poll(old.clone()).build().unwrap();
        assert_in_force(&ctx, BUSY_RAW);
        refuse_greed();
        let error = ctx.set_poll_params(with(GREEDY)).unwrap_err();
        is_refusal_of(&error, GREEDY);
        let on_ring = monitor() == MonitorKind::IoUring;
        let (call, words) =
            if on_ring { ("io_uring_register", "sandbox") } else { ("ioctl", "CAP_NET_ADMIN") };
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!((error.errno(), error.syscall_name()), (Some(1), Some(call)));
        assert_eq!((ctx.poll_params(), ctx.remote().poll_params()), (old.clone(), old));
        assert_in_force(&ctx, BUSY_RAW);
        usable(&ctx);
        assert_eq!(ctx.set_poll_params(with(None)).is_err(), on_ring);
        assert_in_force(&ctx, if on_ring { BUSY_RAW } else { OFF });
    }
}

/// SPEC 30
#[test]
fn a_ring_has_no_budget_of_its_own_and_takes_any() {
    in_a_thread(|| {
        give_up_net_admin();
        let result = builder().poll(with(GREEDY)).build();
        assert_eq!(result.is_ok(), offered() && monitor() == MonitorKind::IoUring, "{result:?}");
        if let Ok(ctx) = result {
            assert_eq!(ctx.poll_params().kernel_busy_poll, Some(GREEDY));
            assert_in_force(&ctx, Raw(50, 0, 0, 0));
        }
    });
}

/// SPEC 30, 31
#[test]
fn another_thread_may_ask_for_it_and_the_next_turn_reports_a_refusal() {
    in_a_thread(|| {
        let old = PollParams { kernel_busy_poll: offered().then_some(BUSY), ..spin() };
        let ctx = builder().build().unwrap();
        ctx.remote().set_poll_params(old.clone()).unwrap();
        assert!(!ctx.poll(false).unwrap());
        assert_eq!(ctx.poll_params(), old);
        if offered() {
            assert_in_force(&ctx, BUSY_RAW);
        }
        refuse_greed();
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
        let ctx = context();
        refuse_greed();
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
    // A sleep whose time was over before it began, on a busy machine, does not meet it.
    let held = format!("tfd:{fd:>9} ");
    let set = || format!("/proc/self/fdinfo/{}", inner(ctx).as_raw_fd());
    assert!(std::fs::read_to_string(set()).unwrap().contains(&held));
    while std::fs::read_to_string(set()).unwrap().contains(&held) {
        crate::support::sleep_for(ctx, 1_000_000);
    }
    bell
}

/// SPEC 30, 43
#[test]
fn a_new_epoll_set_or_ring_gets_it_too() {
    if !offered() {
        return is_refusal_of(&builder().poll(with(BUSY)).build().unwrap_err(), BUSY);
    }
    let ctx = builder().poll(with(BUSY)).build().unwrap();
    if monitor() == MonitorKind::Epoll {
        overwrite(&ctx, OFF);
        let _copy = leave_an_orphan(&ctx);
    }
    // A ring is replaced by the first look of an outer loop.
    assert_in_force(&ctx, BUSY_RAW);
    assert_eq!(ctx.monitor_reason(), "asked for");
    usable(&ctx);
}

/// SPEC 30, 43
#[test]
fn a_new_epoll_set_that_is_refused_it_works_without_and_the_reason_says_so() {
    if monitor() == MonitorKind::Epoll {
        in_a_thread(refuse_it_to_a_new_set);
    }

    fn refuse_it_to_a_new_set() {
        let result = builder().poll(with(GREEDY)).build();
        let had_it = give_up_net_admin();
        if !(had_it && offered()) {
            return is_refusal_of(&result.unwrap_err(), GREEDY);
        }
        let ctx = result.unwrap();
        assert_in_force(&ctx, Raw(50, 65, 0, 0));
        let reason = "asked for; kernel busy polling is off: a budget above 64 needs CAP_NET_ADMIN";
        for _ in 0..2 {
            let _copy = leave_an_orphan(&ctx);
            assert_in_force(&ctx, OFF);
            assert_eq!(ctx.monitor_reason(), reason);
            usable(&ctx);
        }
        ctx.set_poll_params(with(BUSY)).unwrap();
        assert_in_force(&ctx, BUSY_RAW);
        assert_eq!(ctx.monitor_reason(), "asked for");
    }
}

/// SPEC 30, 44
#[test]
fn a_new_ring_that_is_refused_it_works_without_and_the_reason_says_so() {
    // Only a deferred ring is replaced.
    if super::super::instance() == "io_uring" && offered() {
        in_a_thread(|| {
            let ctx = builder().poll(with(BUSY)).build().unwrap();
            refuse_greed();
            ctx.backend_fd().unwrap();
            // Only a deferred ring is replaced for an outer loop.
            let deferred = probe_io_uring().unwrap().defer_taskrun;
            let (off, raw) = if deferred && ring_params().mode == RingMode::Auto {
                ("; kernel busy polling is off: the kernel says no", OFF)
            } else {
                ("", BUSY_RAW)
            };
            assert_eq!(ctx.monitor_reason(), format!("asked for{off}"));
            assert_in_force(&ctx, raw);
            usable(&ctx);
        });
    }
}

/// SPEC 30, 45
#[test]
fn where_a_ring_is_refused_later_it_goes_on_on_epoll() {
    if monitor() == MonitorKind::IoUring && offered() {
        in_a_thread(|| {
            let ctx = builder().poll(with(BUSY)).build().unwrap();
            usable(&ctx);
            refuse(&["io_uring_enter=EPERM".parse().unwrap()]).unwrap();
            usable(&ctx);
            let reason = ctx.monitor_reason();
            assert_eq!(ctx.monitor(), MonitorKind::Epoll, "{reason}");
            assert_eq!(reason.contains("kernel busy polling is off"), !epoll_can(), "{reason}");
            if epoll_can() {
                assert_in_force(&ctx, BUSY_RAW);
            }
        });
    }
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
    if monitor() != MonitorKind::Epoll || !offered() {
        // The others watch such an fd.
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
    if epoll_can() { MonitorKind::Epoll } else { MonitorKind::Poll }
}

const AUTO_REASON: &str = "auto: epoll, since kernel busy polling was asked for";

/// SPEC 30, 45
#[test]
fn auto_with_a_ring_does_it_there() {
    if overridden() || !rings_can() {
        return;
    }
    let ctx = AioContext::builder().build().unwrap();
    let reason = ctx.monitor_reason();
    assert_eq!(ctx.monitor(), MonitorKind::IoUring, "{reason}");
    let built = AioContext::builder().poll(with(BUSY)).build().unwrap();
    let runs = Count::new();
    ctx.set_fd_handler(rung(), Handlers::new().read(runs.callback())).unwrap();
    for busy in [Some(BUSY), Some(GREEDY), None, Some(CALM)] {
        ctx.set_poll_params(with(busy)).unwrap();
        assert_eq!(ctx.poll_params().kernel_busy_poll, busy);
        assert!(block(&ctx));
    }
    for ctx in [&ctx, &built] {
        assert_eq!((ctx.monitor(), ctx.monitor_reason()), (MonitorKind::IoUring, reason.clone()));
        assert_eq!(ctx.stats().fallbacks, 0);
    }
    assert_eq!(runs.get(), 4);
}

/// SPEC 30, 45
#[test]
fn auto_with_a_ring_that_is_refused_it_moves_to_epoll() {
    if !overridden() && rings_can() {
        in_a_thread(move_off_the_ring);
    }

    fn move_off_the_ring() {
        let ctx = AioContext::builder().build().unwrap();
        let runs = Count::new();
        ctx.set_fd_handler(rung(), Handlers::new().read(runs.callback())).unwrap();
        assert!(block(&ctx));
        refuse(&["io_uring_register=EPERM".parse().unwrap()]).unwrap();
        let result = ctx.set_poll_params(with(BUSY));
        assert_eq!(result.is_ok(), epoll_can(), "{result:?}");
        if epoll_can() {
            assert_eq!(ctx.monitor_reason(), AUTO_REASON);
            assert_in_force(&ctx, BUSY_RAW);
        } else {
            assert_eq!(ctx.monitor(), MonitorKind::IoUring);
        }
        assert!(block(&ctx));
        assert_eq!((runs.get(), ctx.stats().fallbacks), (2, 0));
    }
}

/// SPEC 30, 45
#[test]
fn for_auto_on_poll_it_is_a_wish_for_epoll() {
    if !overridden() {
        auto_moves_to_epoll();
    }
}

fn auto_moves_to_epoll() {
    let none = RingParams { mode: RingMode::Off, ..RingParams::default() };
    let built = AioContext::builder().ring(none).poll(with(BUSY)).build();
    let ctx = auto();
    let runs = Count::new();
    let bell = rung();
    ctx.set_fd_handler(bell, Handlers::new().read(runs.callback())).unwrap();
    assert!(block(&ctx));
    let result = ctx.set_poll_params(with(BUSY));
    if !epoll_can() {
        is_refusal_of(&built.unwrap_err(), BUSY);
        is_refusal_of(&result.unwrap_err(), BUSY);
        assert_eq!((ctx.monitor(), ctx.poll_params()), (MonitorKind::Poll, PollParams::default()));
        return assert!(block(&ctx));
    }
    result.unwrap();
    for ctx in [&built.unwrap(), &ctx] {
        assert_eq!(ctx.monitor_reason(), AUTO_REASON);
        assert_in_force(ctx, BUSY_RAW);
    }
    assert!(block(&ctx));
    assert_eq!(runs.get(), 2, "nothing lost, nothing doubled");
    ctx.set_poll_params(with(None)).unwrap();
    assert_eq!(ctx.monitor(), MonitorKind::Epoll, "it does not move back");
    assert_in_force(&ctx, OFF);
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
        auto_moves_in_a_callback();
        auto_waits_for_the_end_of_a_nested_turn();
    }
}

fn auto_moves_in_a_callback() {
    let ctx = auto();
    ctx.schedule(move |ops| {
        let result = ops.context().set_poll_params(with(BUSY));
        assert_eq!((result.is_ok(), ops.context().monitor()), (epoll_can(), after_the_wish()));
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
            assert_eq!(result.is_ok(), epoll_can(), "{result:?}");
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
    if epoll_can() {
        assert_eq!(ctx.monitor_reason(), AUTO_REASON);
        assert_in_force(&ctx, BUSY_RAW);
    }
}

/// SPEC 30, 43
#[test]
fn auto_that_watches_what_epoll_refuses_stays_on_poll_and_says_why() {
    if !overridden() {
        auto_cannot_move();
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
    if epoll_can() {
        assert_eq!(error.syscall_name(), Some("epoll_ctl"));
    }
    assert_eq!((ctx.monitor(), ctx.poll_params()), (MonitorKind::Poll, PollParams::default()));
    innermost.set().unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}
