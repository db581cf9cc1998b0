//! ① Registering, replacing, looking up; tokens.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;

use fdmon::{EventNotifier, Events, Handlers, Interest, Ops, Outcome, Source, Token};

use super::{manual, spinning};
use crate::support::{Count, Log, Predicate, block, drain, member, polling, rung};

/// SPEC 2, 8, 16
#[test]
fn a_ready_handler_runs_with_its_fd_and_the_event_mask_and_is_progress() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let seen = Rc::new(Cell::new((-1, Events::empty())));
    let (sees, clear) = (seen.clone(), bell.clone());
    let handlers = Handlers::new().read(move |ops| {
        sees.set((ops.fd().as_raw_fd(), ops.events()));
        clear.test_and_clear()?;
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(seen.get(), (bell.as_raw_fd(), Events::IN));
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 3
#[test]
fn every_one_of_many_handlers_is_found_by_its_fd() {
    let (ctx, _clock) = manual();
    let bells: Vec<_> = (0..100).map(|_| EventNotifier::new().unwrap()).collect();
    let seen: Rc<RefCell<Vec<RawFd>>> = Rc::default();
    for bell in &bells {
        let (sees, clear) = (seen.clone(), bell.clone());
        let handlers = Handlers::new().read(move |ops| {
            sees.borrow_mut().push(ops.fd().as_raw_fd());
            clear.test_and_clear()?;
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    }
    for bell in bells.iter().step_by(2) {
        ctx.remove_fd_handler(bell.as_raw_fd());
    }
    for bell in &bells {
        bell.set().unwrap();
    }
    drain(&ctx);
    let mut fds = seen.take();
    fds.sort_unstable();
    let mut want: Vec<_> = bells.iter().skip(1).step_by(2).map(AsRawFd::as_raw_fd).collect();
    want.sort_unstable();
    assert_eq!(fds, want);
}

/// SPEC 3
#[test]
fn a_handler_that_a_callback_adds_runs_from_the_next_turn_on() {
    let (ctx, _clock) = manual();
    let (first, second) = (rung(), rung());
    let runs = Count::new();
    let (clear, added) = (first.clone(), second.clone());
    let counter = runs.clone();
    let handlers = Handlers::new().read(move |ops| {
        clear.test_and_clear()?;
        let (clear, counter) = (added.clone(), counter.clone());
        ops.set_fd_handler(
            added.clone(),
            Handlers::new().read(move |_| {
                clear.test_and_clear()?;
                counter.bump();
                Ok(())
            }),
        )?;
        Ok(())
    });
    ctx.set_fd_handler(first, handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 0);
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}

/// SPEC 5
#[test]
fn poll_without_poll_ready_is_ignored() {
    let (ctx, _clock) = spinning();
    let bell = rung();
    let predicate = Predicate::new();
    predicate.say(true);
    let runs = Count::new();
    let (clear, counter) = (bell.clone(), runs.clone());
    let handlers = Handlers::new().poll(predicate.clone()).read(move |_| {
        clear.test_and_clear()?;
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(predicate.asked(), 0);
    assert!(!polling(&ctx, bell.as_raw_fd()));
}

/// SPEC 5, 13
#[test]
fn handlers_without_any_callback_are_refused() {
    let (ctx, _clock) = manual();
    let bell = rung();
    for handlers in [
        Handlers::new(),
        Handlers::new().poll(Predicate::new()),
        Handlers::new().external(true),
        Handlers::new().poll_ready(|_| Ok(())),
    ] {
        let error = ctx.set_fd_handler(bell.clone(), handlers).unwrap_err();
        assert!(error.is_invalid_arg(), "{error}");
        assert!(error.to_string().starts_with("handlers = none"), "{error}");
    }
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 6
#[test]
fn removing_an_unknown_fd_does_nothing() {
    let (ctx, _clock) = manual();
    for fd in [-1, 0, 4711, RawFd::MAX, RawFd::MIN] {
        ctx.remove_fd_handler(fd);
    }
    let bell = rung();
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).unwrap();
    ctx.remove_fd_handler(bell.as_raw_fd());
    ctx.remove_fd_handler(bell.as_raw_fd());
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 6, 10
#[test]
fn a_removed_handler_does_not_run_and_gives_its_fd_back() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let fd = bell.as_raw_fd();
    let runs = Count::new();
    let token = ctx.set_fd_handler(bell, Handlers::new().read(runs.callback())).unwrap();
    assert!(token.is_live());
    let bell = ctx.deregister(&token).unwrap();
    assert_eq!(bell.as_raw_fd(), fd);
    assert!(!token.is_live());
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(runs.get(), 0);
    assert!(ctx.stats().handlers.is_empty());
}

/// SPEC 7
#[test]
fn replacing_drops_the_old_handler_and_reports_readiness_to_the_new_one() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let (old, new) = (Count::new(), Count::new());
    let kept = Rc::new(());
    let lives = kept.clone();
    let handlers = Handlers::new().read(move |_| {
        let _ = &lives;
        Ok(())
    });
    let old_token = ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let token = ctx.set_fd_handler(bell.clone(), Handlers::new().read(new.callback())).unwrap();
    assert_eq!(Rc::strong_count(&kept), 1, "the old callbacks are dropped");
    assert!(!old_token.is_live());
    assert!(token.is_live());
    assert!(block(&ctx));
    assert_eq!((old.get(), new.get()), (0, 1));
    assert_eq!(ctx.stats().handlers.len(), 1);
}

/// SPEC 7
#[test]
fn replacing_drops_collected_events_and_readiness_comes_again_in_the_next_turn() {
    let (ctx, _clock) = manual();
    let (first, second) = (EventNotifier::new().unwrap(), EventNotifier::new().unwrap());
    let log = Log::new();
    let (clear, replaced, writes) = (first.clone(), second.clone(), log.clone());
    let handlers = Handlers::new().read(move |ops| {
        clear.test_and_clear()?;
        writes.add("replace");
        let (clear, writes) = (replaced.clone(), writes.clone());
        let handlers = Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            writes.add("new");
            Ok(())
        });
        ops.set_fd_handler(replaced.clone(), handlers)?;
        Ok(())
    });
    ctx.set_fd_handler(first.clone(), handlers).unwrap();
    ctx.set_fd_handler(second.clone(), Handlers::new().read(log.callback("old"))).unwrap();
    first.set().unwrap();
    second.set().unwrap();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["replace"]);
    assert!(block(&ctx));
    assert_eq!(log.take(), ["new"]);
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 7
#[test]
fn a_replacement_starts_outside_the_spin_list() {
    let (ctx, _clock) = spinning();
    let bell = EventNotifier::new().unwrap();
    member(&ctx, &bell, &Predicate::new());
    let next = Predicate::new();
    let handlers = Handlers::new().read(|_| Ok(())).poll(next.clone()).poll_ready(|_| Ok(()));
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    assert!(!polling(&ctx, bell.as_raw_fd()));
    ctx.poll(false).unwrap();
    assert_eq!(next.asked(), 1, "the first look");
    ctx.poll(false).unwrap();
    assert_eq!(next.asked(), 0);
}

/// SPEC 8
#[test]
fn a_handler_with_only_poll_is_never_handed_to_the_kernel() {
    let (ctx, _clock) = spinning();
    let bell = rung();
    let predicate = Predicate::new();
    let runs = Count::new();
    let handlers = Handlers::new().poll(predicate.clone()).poll_ready(predicate.taken(&runs));
    ctx.set_fd_handler(bell, handlers).unwrap();
    let waits = ctx.stats().waits;
    for _ in 0..3 {
        assert!(!ctx.poll(false).unwrap());
    }
    assert_eq!(ctx.stats().waits, waits);
    predicate.say(true);
    crate::support::sleep_for(&ctx, 1_000_000_000);
    assert_eq!(runs.get(), 0, "not on the spin list yet, and looked at once already");
}

/// SPEC 8
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn interest_alone_can_change_in_both_directions() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = crate::support::pair();
    let log = Log::new();
    let handlers = Handlers::new().read(log.callback("read")).write(log.callback("write"));
    let token = ctx.set_fd_handler(ours, handlers).unwrap();
    rustix::io::write(&theirs, b"x").unwrap();
    for (interest, runs) in [
        (Interest::READ | Interest::WRITE, vec!["read", "write"]),
        (Interest::READ, vec!["read"]),
        (Interest::WRITE, vec!["write"]),
        (Interest::empty(), vec![]),
        (Interest::READ | Interest::WRITE, vec!["read", "write"]),
    ] {
        assert!(token.set_interest(interest).unwrap());
        assert_eq!(ctx.poll(false).unwrap(), !runs.is_empty());
        assert_eq!(log.take(), runs, "{interest:?}");
    }
}

/// SPEC 8
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn set_interest_keeps_the_place_on_the_spin_list() {
    let (ctx, _clock) = spinning();
    let (ours, _theirs) = crate::support::pair();
    let fd = ours.as_raw_fd();
    let predicate = Predicate::new();
    let runs = Count::new();
    let handlers = Handlers::new()
        .read(|_| Ok(()))
        .write(|_| Ok(()))
        .poll(predicate.clone())
        .poll_ready(predicate.taken(&runs));
    let token = ctx.set_fd_handler(ours, handlers).unwrap();
    token.set_interest(Interest::READ).unwrap();
    predicate.say(true);
    assert!(block(&ctx));
    crate::support::sleep_for(&ctx, 1_000_000_000);
    assert!(polling(&ctx, fd));
    let (begins, ends) = (predicate.begins(), predicate.ends());
    for interest in [Interest::READ | Interest::WRITE, Interest::READ, Interest::empty()] {
        assert!(token.set_interest(interest).unwrap());
        assert!(polling(&ctx, fd));
    }
    assert_eq!((predicate.begins(), predicate.ends()), (begins, ends));
    predicate.asked();
    ctx.poll(false).unwrap();
    assert_eq!(predicate.asked(), 1);
}

/// SPEC 8
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn readiness_that_is_no_longer_wanted_is_not_dispatched() {
    let (ctx, _clock) = manual();
    let (bell, (ours, _theirs)) = (EventNotifier::new().unwrap(), crate::support::pair());
    let writes = Count::new();
    let target: Rc<RefCell<Option<Token<_>>>> = Rc::default();
    let (clear, token) = (bell.clone(), target.clone());
    let handlers = Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        token.borrow().as_ref().unwrap().set_interest(Interest::empty())?;
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let token = ctx.set_fd_handler(ours, Handlers::new().write(writes.callback())).unwrap();
    // epoll's order is that of becoming ready: the bell must come first.
    token.set_interest(Interest::empty()).unwrap();
    bell.set().unwrap();
    token.set_interest(Interest::WRITE).unwrap();
    *target.borrow_mut() = Some(token);
    assert!(block(&ctx));
    assert_eq!(writes.get(), 0);
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 8, 13
#[test]
fn an_interest_without_a_callback_is_refused_by_name() {
    let (ctx, _clock) = manual();
    let token = ctx.set_fd_handler(rung(), Handlers::new().read(|_| Ok(()))).unwrap();
    let error = token.set_interest(Interest::READ | Interest::WRITE).unwrap_err();
    assert!(error.is_invalid_arg());
    assert!(error.to_string().contains("WRITE"), "{error}");
    assert!(block(&ctx), "the old interest stays");
}

/// SPEC 8
#[test]
fn a_token_does_nothing_once_its_handler_is_gone_and_its_fd_has_another() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let runs = Count::new();
    let stale = ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).unwrap();
    ctx.remove_fd_handler(bell.as_raw_fd());
    assert!(!stale.set_interest(Interest::empty()).unwrap());
    let token = ctx.set_fd_handler(bell, Handlers::new().read(runs.callback())).unwrap();
    assert!(!stale.is_live());
    assert!(!stale.set_interest(Interest::empty()).unwrap());
    assert!(ctx.deregister(&stale).is_none());
    assert!(token.is_live());
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}

/// A source that keeps count of itself.
struct Bell {
    bell: EventNotifier,
    rings: u32,
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Source for Bell {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    fn read(&mut self, _: &mut Ops<'_>) -> Outcome {
        self.rings += u32::from(self.bell.test_and_clear()?);
        Ok(())
    }
}

/// SPEC 2, 6
#[test]
fn a_source_is_registered_dispatched_and_given_back() {
    let (ctx, _clock) = manual();
    let token = ctx.register(Bell { bell: rung(), rings: 0 }).map_err(|(e, _)| e).unwrap();
    assert!(block(&ctx));
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(ctx.deregister(&token).unwrap().rings, 1);
    assert!(ctx.deregister(&token).is_none());
}

/// SPEC 5, 9
#[test]
fn a_source_without_a_predicate_of_its_own_is_not_spun() {
    let (ctx, _clock) = spinning();
    let bell = rung();
    let fd = bell.as_raw_fd();
    let _token = ctx.register(Bell { bell, rings: 0 }).map_err(|(e, _)| e).unwrap();
    assert!(block(&ctx));
    assert!(!polling(&ctx, fd));
}

/// SPEC 10
#[test]
fn a_source_that_removes_itself_is_dropped_when_its_callback_has_returned() {
    struct Leaver(EventNotifier, Rc<Cell<&'static str>>, Rc<RefCell<Option<Token<Leaver>>>>);
    impl AsFd for Leaver {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl Source for Leaver {
        fn interest(&self) -> Interest {
            Interest::READ
        }
        fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
            let token = self.2.borrow().clone().unwrap();
            assert!(ops.deregister(&token).is_none(), "it runs, so it cannot be given away");
            assert!(!token.is_live());
            self.1.set("left");
            Ok(())
        }
    }
    impl Drop for Leaver {
        fn drop(&mut self) {
            assert_eq!(self.1.replace("dropped"), "left");
        }
    }
    let (ctx, _clock) = manual();
    let (state, token) = (Rc::new(Cell::new("new")), Rc::default());
    let source = Leaver(rung(), state.clone(), Rc::clone(&token));
    *token.borrow_mut() = Some(ctx.register(source).map_err(|(e, _)| e).unwrap());
    assert!(block(&ctx));
    assert_eq!(state.get(), "dropped");
    assert!(!ctx.poll(false).unwrap());
}
