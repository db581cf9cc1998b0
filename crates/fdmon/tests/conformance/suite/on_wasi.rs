//! What is only so on WASI: the monitor, notifiers that are numbers, files that are always ready, and
//! file I/O.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use fdmon::{AioContext, EventNotifier, Handlers, MonitorKind};

use super::{context, manual};
use crate::support::{Count, block, by_number, drain, regular_file, rung};

/// The first number that no host gives.
const FIRST: RawFd = 1 << 30;

/// SPEC 45
#[test]
fn auto_is_the_wasi_monitor_and_any_other_is_refused_by_name() {
    let auto = AioContext::builder().build().unwrap();
    assert_eq!(auto.monitor(), MonitorKind::Wasi);
    for kind in [MonitorKind::Poll, MonitorKind::Epoll, MonitorKind::IoUring] {
        let error = AioContext::builder().monitor(kind).build().unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        assert!(
            error.to_string().starts_with(&format!("monitor = '{kind}' is refused")),
            "{error}"
        );
    }
    assert!(fdmon::probe_io_uring().unwrap_err().is_unsupported());
}

/// SPEC 50
#[test]
fn an_outer_loop_is_refused_since_nothing_wakes_it() {
    let ctx = context();
    assert!(ctx.prepare().unwrap_err().is_unsupported());
    assert!(ctx.backend_fd().unwrap_err().is_unsupported());
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.poll(true).unwrap(), "it goes on");
}

/// SPEC 13, 54
#[test]
fn a_trace_is_refused_since_no_thread_could_write_it() {
    let ctx = context();
    let error = ctx.trace("trace.json").unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert!(error.to_string().starts_with("file is refused: "), "{error}");
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.poll(true).unwrap(), "it goes on");
}

/// SPEC 3, 13
#[test]
fn a_notifier_has_the_lowest_number_that_is_free_above_those_of_files() {
    let bells = [(); 3].map(|()| EventNotifier::new().unwrap());
    let numbers = bells.each_ref().map(AsRawFd::as_raw_fd);
    assert!(numbers.is_sorted() && numbers[0] >= FIRST);
    let [first, second, third] = bells;
    drop(second);
    assert_eq!(EventNotifier::new().unwrap().as_raw_fd(), numbers[1]);
    drop((first, third));
    let ctx = context();
    let gone = ctx.set_fd_handler(by_number(numbers[2]), Handlers::new().read(|_| Ok(())));
    assert!(gone.unwrap_err().is_bad_fd());
}

/// SPEC 13
#[test]
fn a_notifier_that_goes_while_only_its_number_is_registered_is_reported_once() {
    let ctx = context();
    let bell = rung();
    let number = bell.as_raw_fd();
    let runs = Count::new();
    ctx.set_fd_handler(by_number(number), Handlers::new().read(runs.callback())).unwrap();
    drop(bell);
    let error = ctx.poll(true).unwrap_err();
    assert!(error.to_string().contains(&number.to_string()), "{error}");
    assert_eq!((runs.get(), drain(&ctx)), (0, 0));
}

/// SPEC 8
#[test]
fn a_notifier_has_room_until_it_is_full() {
    let ctx = context();
    let bell = EventNotifier::new().unwrap();
    let writes = Count::new();
    ctx.set_fd_handler(bell, Handlers::new().write(writes.callback())).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(writes.get(), 1);
}

/// SPEC 43
#[test]
fn a_regular_file_is_always_ready_beside_everything_else() {
    let ctx = context();
    let (reads, rings) = (Count::new(), Count::new());
    let bell = rung();
    ctx.set_fd_handler(bell, Handlers::new().read(rings.callback())).unwrap();
    let file = regular_file();
    let token = ctx.set_fd_handler(file, Handlers::new().read(reads.callback())).unwrap();
    assert!(block(&ctx));
    assert!(block(&ctx));
    assert_eq!((reads.take(), rings.take()), (2, 2));
    drop(ctx.deregister(&token));
    assert!(block(&ctx));
    assert_eq!((reads.take(), rings.take()), (0, 1));
}

/// SPEC 39, 40
#[test]
fn a_timer_ends_a_sleep_without_and_with_files_and_is_never_early() {
    let ctx = context();
    for watched in [false, true] {
        let token = watched.then(|| {
            // Standard error: nobody ever reads from it.
            ctx.set_fd_handler(by_number(2), Handlers::new().priority(|_| Ok(()))).unwrap()
        });
        let start = ctx.now_ns();
        let fired = Count::new();
        let timer = ctx.timer(fired.callback()).unwrap();
        timer.arm(Duration::from_millis(3)).unwrap();
        while fired.get() == 0 {
            ctx.poll(true).unwrap();
        }
        assert!(ctx.now_ns() - start >= 3_000_000);
        timer.delete();
        assert_eq!(token.is_some(), watched);
    }
}

/// SPEC 47
#[test]
fn files_are_written_synced_and_read_at_an_offset() {
    let (ctx, _clock) = manual();
    let file = Rc::new(regular_file());
    let log = Rc::new(RefCell::new(Vec::new()));
    let done = |what: &'static str| {
        let log = Rc::clone(&log);
        move |_: &mut fdmon::Ops<'_>, result: std::io::Result<usize>, bytes: Vec<u8>| {
            log.borrow_mut().push((what, result.unwrap(), bytes));
        }
    };
    ctx.write_at(Rc::clone(&file), b"hello world".to_vec(), 3, done("write")).unwrap();
    while log.borrow().is_empty() {
        ctx.poll(true).unwrap();
    }
    ctx.read_at(Rc::clone(&file), vec![0; 5], 9, done("read")).unwrap();
    while log.borrow().len() < 2 {
        ctx.poll(true).unwrap();
    }
    let expected = [("write", 11, b"hello world".to_vec()), ("read", 5, b"world".to_vec())];
    assert_eq!(*log.borrow(), expected);
    assert_eq!(ctx.stats().aio_reason, "auto: WebAssembly has no rings; threads");
}
