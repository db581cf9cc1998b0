//! Bad input: a typed error that names the option and the value; the context stays usable.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};

use fdmon::{
    AioContext, AioParams, BusyPoll, EventNotifier, ForeignHandler, Handlers, Interest,
    MonitorKind, Ops, Outcome, PollParams, Source,
};

use super::{builder, context, manual};
use crate::support::{Count, block, by_number, private, rung, spin};

#[track_caller]
fn usable(ctx: &AioContext) {
    let runs = Count::new();
    let bell = rung();
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(runs.callback())).unwrap();
    assert!(block(ctx));
    assert_eq!(runs.get(), 1);
    ctx.remove_fd_handler(bell.as_raw_fd());
}

/// SPEC 13
#[test]
#[cfg_attr(wasi, ignore = "WASI duplicates no fds")]
fn a_closed_fd_is_refused_with_its_number_and_the_context_stays_usable() {
    let (ctx, _clock) = manual();
    let gone = private(EventNotifier::new().unwrap()).into_raw_fd();
    crate::support::close_number(gone);
    let error = ctx.set_fd_handler(by_number(gone), Handlers::new().read(|_| Ok(()))).unwrap_err();
    assert!(error.is_bad_fd(), "{error}");
    assert_eq!(error.code().as_str(), "ERR_FDMON_BAD_FD");
    assert_eq!(error.errno(), Some(9));
    assert!(error.to_string().starts_with(&format!("fd = {gone} ")), "{error}");
    usable(&ctx);
}

/// SPEC 8, 13
#[test]
#[cfg_attr(wasi, ignore = "WASI duplicates no fds")]
fn a_closed_fd_is_refused_also_where_the_kernel_would_never_see_it() {
    let (ctx, _clock) = manual();
    let gone = private(EventNotifier::new().unwrap()).into_raw_fd();
    crate::support::close_number(gone);
    let handlers = Handlers::new().poll(|| false).poll_ready(|_| Ok(()));
    assert!(ctx.set_fd_handler(by_number(gone), handlers).unwrap_err().is_bad_fd());
    usable(&ctx);
}

/// SPEC 13
#[test]
fn a_negative_fd_is_refused_with_its_number() {
    let (ctx, _clock) = manual();
    for fd in [-1, -2, i32::MIN, i32::MAX] {
        let error = ctx.foreign_handler(fd, ForeignHandler::default()).unwrap_err();
        assert!(error.is_bad_fd(), "{error}");
        assert!(error.to_string().contains(&fd.to_string()), "{error}");
    }
    usable(&ctx);
}

/// SPEC 13
#[test]
#[cfg_attr(wasi, ignore = "WASI duplicates no fds")]
fn a_source_that_is_refused_comes_back() {
    struct Broken(BorrowedFd<'static>, &'static str);
    impl AsFd for Broken {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0
        }
    }
    impl Source for Broken {
        fn interest(&self) -> Interest {
            Interest::READ
        }
        fn read(&mut self, _: &mut Ops<'_>) -> Outcome {
            Ok(())
        }
    }
    let (ctx, _clock) = manual();
    let gone = private(EventNotifier::new().unwrap()).into_raw_fd();
    crate::support::close_number(gone);
    let (error, source) = ctx.register(Broken(by_number(gone), "mine")).unwrap_err();
    assert!(error.is_bad_fd());
    assert_eq!(source.1, "mine");
    ctx.close();
    let bell = rung();
    let (error, source) = ctx.register(Broken(by_number(bell.as_raw_fd()), "again")).unwrap_err();
    assert!(error.is_closed());
    assert_eq!(source.1, "again");
}

/// SPEC 7, 13
#[test]
fn a_replacement_that_is_refused_leaves_the_old_handler_in_place() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let runs = Count::new();
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(runs.callback())).unwrap();
    assert!(ctx.set_fd_handler(bell, Handlers::new()).unwrap_err().is_invalid_arg());
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}

/// SPEC 13
#[test]
fn parameters_out_of_range_are_refused_at_every_door() {
    let day = 86_400_000_000_000;
    let busy = |usecs| Some(BusyPoll { usecs, budget: 8, prefer: true });
    let cases = [
        (PollParams { max_ns: day + 1, ..spin() }, "max_ns = 86400000000001"),
        (PollParams { max_ns: u64::MAX, ..spin() }, "max_ns = 18446744073709551615"),
        (PollParams { idle_ns: day + 1, ..spin() }, "idle_ns = 86400000000001"),
        (PollParams { weight: 33, ..spin() }, "weight = 33"),
        (PollParams { cpu_budget: f64::NAN, ..spin() }, "cpu_budget = NaN"),
        (PollParams { cpu_budget: -0.5, ..spin() }, "cpu_budget = -0.5"),
        (PollParams { cpu_budget: 0.0, ..spin() }, "cpu_budget = 0"),
        (PollParams { cpu_budget: 1.5, ..spin() }, "cpu_budget = 1.5"),
        (PollParams { cpu_budget: f64::INFINITY, ..spin() }, "cpu_budget = inf"),
        (PollParams { latency_weight: f64::NAN, ..spin() }, "latency_weight = NaN"),
        (PollParams { latency_weight: -1.0, ..spin() }, "latency_weight = -1"),
        (PollParams { latency_weight: 1e300, ..spin() }, "latency_weight = 1"),
        (PollParams { kernel_busy_poll: busy(0), ..spin() }, "kernel_busy_poll.usecs = 0 "),
        (
            PollParams { kernel_busy_poll: busy(u32::MAX), ..spin() },
            "kernel_busy_poll.usecs = 4294967295 ",
        ),
    ];
    let (ctx, _clock) = manual();
    for (params, message) in cases {
        for error in [
            builder().poll(params.clone()).build().unwrap_err(),
            ctx.set_poll_params(params.clone()).unwrap_err(),
            ctx.remote().set_poll_params(params.clone()).unwrap_err(),
        ] {
            assert!(error.is_invalid_arg());
            assert!(error.to_string().starts_with(message), "{error}");
            assert!(error.to_string().contains("; pass "), "{error}");
        }
    }
    for error in [
        builder().aio(AioParams { max_batch: 4_097, ..AioParams::default() }).build().unwrap_err(),
        ctx.set_aio_params(AioParams { max_batch: 4_097, ..AioParams::default() }).unwrap_err(),
    ] {
        assert!(error.to_string().starts_with("max_batch = 4097"), "{error}");
    }
    usable(&ctx);
    assert_eq!(ctx.poll_params(), PollParams::default());
}

/// SPEC 13
#[test]
fn the_extremes_of_every_range_are_taken() {
    let day = 86_400_000_000_000;
    let params = PollParams {
        max_ns: day,
        grow: u32::MAX,
        shrink: u32::MAX,
        weight: 32,
        idle_ns: day,
        cpu_budget: f64::MIN_POSITIVE,
        latency_weight: 1e9,
        guards: false,
        ..PollParams::default()
    };
    let (ctx, _clock) = super::manual_with(params);
    usable(&ctx);
    crate::support::sleep_for(&ctx, 1_000_000);
}

/// SPEC 13, 45
#[test]
fn an_unknown_monitor_is_refused_by_name() {
    let error = "kqueue".parse::<MonitorKind>().unwrap_err();
    assert!(error.is_invalid_arg());
    assert!(error.to_string().starts_with("monitor = 'kqueue'"), "{error}");
    for name in ["auto", "poll", "epoll", "io_uring"] {
        assert_eq!(name.parse::<MonitorKind>().unwrap().as_str(), name);
    }
}

/// SPEC 13
#[test]
fn errors_say_what_to_do() {
    let ctx = context();
    ctx.close();
    let error = ctx.poll(false).unwrap_err();
    assert_eq!(error.to_string(), "the context is closed; create a new AioContext");
    assert_eq!(error.code().as_str(), "ERR_FDMON_CLOSED");
    assert_eq!((error.errno(), error.syscall_name()), (None, None));
}
