//! ① Which readiness runs which callback.

use std::cell::Cell;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use fdmon::{Events, Handlers, Interest, Ops, Outcome, Source};

use rustix::net::{Shutdown, shutdown};

use super::manual;
use crate::support::{Count, Log, Predicate, block, drain, empty, fill, pair, pipe, sleep_for};

/// Handlers whose callbacks write their names and the events they are given.
fn named(log: &Log, events: &Rc<Cell<Events>>, names: &[&'static str]) -> Handlers {
    let callback = |name: &'static str| {
        let (log, events) = (log.clone(), events.clone());
        move |ops: &mut Ops<'_>| {
            log.add(name);
            events.set(ops.events());
            Ok(())
        }
    };
    let mut handlers = Handlers::new();
    for &name in names {
        handlers = match name {
            "read" => handlers.read(callback("read")),
            "write" => handlers.write(callback("write")),
            _ => handlers.priority(callback("priority")),
        };
    }
    handlers
}

fn ran(fd: impl AsFd + 'static, names: &[&'static str]) -> (Vec<&'static str>, Events) {
    let (ctx, _clock) = manual();
    let (log, events) = (Log::new(), Rc::default());
    ctx.set_fd_handler(fd, named(&log, &events, names)).unwrap();
    ctx.poll(false).unwrap();
    (log.take(), events.get())
}

/// SPEC 8
#[test]
fn read_hears_in_and_write_hears_out() {
    let (ours, theirs) = pair();
    assert_eq!(ran(rustix::io::dup(&ours).unwrap(), &["read"]).0, [""; 0]);
    assert_eq!(ran(rustix::io::dup(&ours).unwrap(), &["write"]), (vec!["write"], Events::OUT));
    rustix::io::write(&theirs, b"x").unwrap();
    assert_eq!(ran(rustix::io::dup(&ours).unwrap(), &["read"]), (vec!["read"], Events::IN));
    fill(&ours);
    assert_eq!(ran(ours, &["write"]).0, [""; 0]);
}

/// SPEC 8, 20
#[test]
fn read_runs_before_write_and_both_see_all_events() {
    let (ours, theirs) = pair();
    rustix::io::write(&theirs, b"x").unwrap();
    let (log, events) = ran(ours, &["write", "read"]);
    assert_eq!(log, ["read", "write"]);
    assert_eq!(events, Events::IN | Events::OUT);
}

/// SPEC 8
#[test]
fn read_hears_a_hang_up() {
    let (reader, writer) = pipe();
    drop(writer);
    assert_eq!(ran(reader, &["read"]), (vec!["read"], Events::HUP));
}

/// SPEC 8, 20
#[test]
fn an_error_runs_read_and_write() {
    let (reader, writer) = pipe();
    drop(reader);
    let again = || rustix::io::dup(&writer).unwrap();
    for names in [&["write"][..], &["read"], &["priority"], &["read", "write", "priority"]] {
        let (log, events) = ran(again(), names);
        assert!(events.contains(Events::ERR), "{events:?}");
        assert_eq!(log, names);
    }
}

/// SPEC 8, 20
#[test]
fn a_hang_up_runs_a_handler_that_only_writes_or_only_hears_urgent_data() {
    for name in ["write", "priority"] {
        let (reader, writer) = pipe();
        drop(writer);
        assert_eq!(ran(reader, &[name]), (vec![name], Events::HUP));
    }
}

/// SPEC 20
#[test]
fn a_hang_up_does_not_run_write_beside_read() {
    let (reader, writer) = pipe();
    drop(writer);
    assert_eq!(ran(reader, &["read", "write"]).0, ["read"]);
}

/// SPEC 8
#[test]
fn priority_hears_urgent_data() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    let (ctx, _clock) = manual();
    let (log, events) = (Log::new(), Rc::default());
    let ours = OwnedFd::from(ours);
    let copy = rustix::io::dup(&ours).unwrap();
    ctx.set_fd_handler(ours, named(&log, &events, &["read", "priority"])).unwrap();
    theirs.write_all(b"plain").unwrap();
    assert!(found(&ctx));
    assert_eq!(log.take(), ["read"]);
    empty_socket(&copy);
    rustix::net::send(&theirs, b"!", rustix::net::SendFlags::OOB).unwrap();
    assert!(found(&ctx));
    let ran = log.take();
    assert!(ran.contains(&"priority"), "{ran:?}");
    assert!(events.get().contains(Events::PRI));
}

/// The loopback device delivers when it likes, whatever the test's clock says.
fn found(ctx: &fdmon::AioContext) -> bool {
    (0..5000).any(|_| {
        let progress = ctx.poll(false).unwrap();
        if !progress {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        progress
    })
}

fn empty_socket(fd: &OwnedFd) {
    rustix::io::ioctl_fionbio(fd, true).unwrap();
    empty(fd);
}

/// SPEC 20
#[test]
fn an_fd_left_unread_is_reported_in_every_turn() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    let copy = rustix::io::dup(&ours).unwrap();
    let runs = Count::new();
    ctx.set_fd_handler(ours, Handlers::new().read(runs.callback())).unwrap();
    rustix::io::write(&theirs, b"x").unwrap();
    for turn in 1..=5 {
        assert!(block(&ctx));
        assert_eq!(runs.get(), turn);
    }
    empty(&copy);
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 20
#[test]
fn write_does_not_run_when_read_dropped_the_interest() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    rustix::io::write(&theirs, b"x").unwrap();
    let log = Log::new();
    let token: Rc<std::cell::RefCell<Option<fdmon::Token<OwnedFd>>>> = Rc::default();
    let (writes, own) = (log.clone(), token.clone());
    let handlers = Handlers::new().write(log.callback("write")).read(move |_| {
        writes.add("read");
        own.borrow().as_ref().unwrap().set_interest(Interest::READ)?;
        Ok(())
    });
    *token.borrow_mut() = Some(ctx.set_fd_handler(ours, handlers).unwrap());
    assert!(block(&ctx));
    assert_eq!(log.take(), ["read"]);
}

/// SPEC 24
#[test]
fn a_source_without_read_interest_gets_a_hit_by_poll_ready_also_beside_a_hang_up() {
    struct Writer(OwnedFd, Count);
    impl AsFd for Writer {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl Source for Writer {
        fn interest(&self) -> Interest {
            Interest::WRITE
        }
        fn poll(&self) -> bool {
            true
        }
        fn poll_ready(&mut self, _: &mut Ops<'_>) -> Outcome {
            self.1.bump();
            Ok(())
        }
    }
    let (ctx, _clock) = manual();
    let (reader, writer) = pipe();
    drop(writer);
    let runs = Count::new();
    let _token = ctx.register(Writer(reader, runs.clone())).map_err(|(e, _)| e).unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}

/// SPEC 24
#[test]
fn a_hit_alone_runs_poll_ready_and_with_readable_data_read_instead() {
    let (ctx, _clock) = manual();
    for (data, callbacks, want) in [
        (false, "read", vec!["ready"]),
        (true, "read", vec!["read"]),
        (false, "read and write", vec!["ready", "write"]),
        (true, "read and write", vec!["read", "write"]),
        (true, "", vec!["ready"]),
    ] {
        let (ours, theirs) = pair();
        if data {
            rustix::io::write(&theirs, b"x").unwrap();
        }
        let (log, predicate) = (Log::new(), Predicate::new());
        predicate.say(true);
        let mut handlers =
            Handlers::new().poll(predicate.clone()).poll_ready(log.callback("ready"));
        if callbacks.contains("read") {
            handlers = handlers.read(log.callback("read"));
        }
        if callbacks.contains("write") {
            handlers = handlers.write(log.callback("write"));
        }
        let token = ctx.set_fd_handler(ours, handlers).unwrap();
        assert!(ctx.poll(false).unwrap());
        assert_eq!(log.take(), want, "data: {data}, {callbacks}");
        ctx.deregister(&token);
    }
}

/// SPEC 8, 16, 46
#[test]
fn a_peer_that_only_ends_its_writing_wakes_nobody_who_waits_to_write() {
    let ctx = super::context(); // in real time, which a busy loop would use up
    let (ours, theirs) = pair();
    fill(&ours);
    shutdown(&theirs, Shutdown::Write).unwrap();
    let writes = Count::new();
    let mut token = ctx.set_fd_handler(ours, Handlers::new().write(writes.callback())).unwrap();
    for round in 1..4 {
        let before = ctx.stats().waits;
        sleep_for(&ctx, 10_000_000);
        let waits = ctx.stats().waits - before;
        assert!(waits < 10, "{waits} waits in one sleep");
        empty(&theirs);
        assert!(block(&ctx));
        assert_eq!(writes.get(), round);
        let ours = ctx.deregister(&token).unwrap();
        fill(&ours);
        token = ctx.set_fd_handler(ours, Handlers::new().write(writes.callback())).unwrap();
    }
    drop(ctx.deregister(&token));
    empty(&theirs);
    assert_eq!(rustix::io::read(&theirs, &mut [0; 1]), Ok(0), "the other side sees it closed");
}

/// SPEC 8, 46
#[test]
fn data_that_is_not_urgent_does_not_run_priority() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    let (reads, urgent) = (Count::new(), Count::new());
    let (ring, alone) = (rustix::io::dup(&ours).unwrap(), Count::new());
    ctx.set_fd_handler(ring, Handlers::new().priority(alone.callback())).unwrap();
    let take = rustix::io::dup(&ours).unwrap();
    let mut counted = reads.callback();
    let read = move |ops: &mut Ops<'_>| {
        empty(&take);
        counted(ops)
    };
    let handlers = Handlers::new().read(read).priority(urgent.callback());
    ctx.set_fd_handler(ours, handlers).unwrap();
    for round in 1..4 {
        sleep_for(&ctx, 1_000); // watched by the time that it comes
        rustix::io::write(&theirs, b"x").unwrap();
        assert!(block(&ctx));
        assert_eq!((reads.get(), urgent.get(), alone.get()), (round, 0, 0));
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (served, _) = server.accept().unwrap();
    ctx.set_fd_handler(served, Handlers::new().priority(urgent.callback())).unwrap();
    sleep_for(&ctx, 1_000);
    rustix::net::send(&client, b"!", rustix::net::SendFlags::OOB).unwrap();
    assert!(block(&ctx));
    assert_eq!(urgent.get(), 1);
}
