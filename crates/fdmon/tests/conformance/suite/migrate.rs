//! Moving handlers between contexts: removed here, added there, no event lost and none run twice.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fdmon::{
    AioContext, EventNotifier, Handlers, Interest, LeakReport, Left, MonitorKind, MoveError, Ops,
    Outcome, SendHandlers, Source, Token, WordSource,
};

use super::{context, manual, spinning};
use crate::support::{
    Log, Predicate, Spun, SpunHands, Tally, answer, at_end, awaited, block, drain, member, pair,
    polling, ringing, rung, sleep_for,
};

type Bell = SendHandlers<EventNotifier>;

fn register<S: Source>(ctx: &AioContext, source: S) -> Token<S> {
    ctx.register(source).map_err(|(error, _)| error).unwrap()
}

/// Moves it, and lets it arrive.
#[track_caller]
fn moved<S: Source + Send>(from: &AioContext, token: &Token<S>, to: &AioContext) -> Token<S> {
    let ack = from.move_to(token, &to.remote());
    assert!(!token.is_live(), "it is removed at once");
    assert!(to.poll(false).unwrap(), "its arrival is something that happens there");
    answer(ack).unwrap().to_local(to).unwrap()
}

/// A spun source that has begun, on the spin list of a context in spin mode.
fn begun(ctx: &AioContext) -> (Token<Spun>, EventNotifier, Arc<SpunHands>) {
    let (source, bell, hands) = Spun::new();
    let token = register(ctx, source);
    for _ in 0..2 {
        hands.say(true);
        assert!(ctx.poll(true).unwrap());
    }
    assert!(polling(ctx, bell.as_raw_fd()) && hands.has_begun());
    (token, bell, hands)
}

/// SPEC 4, 52
#[test]
fn a_moved_handler_runs_there_and_here_no_more() {
    let ((here, _clock), (there, _their_clock)) = (manual(), manual());
    let (bell, ids) = (EventNotifier::new().unwrap(), Arc::new(AtomicU32::new(0)));
    let (clear, ran_on) = (bell.clone(), ids.clone());
    let handlers = SendHandlers::new(bell.clone()).read(move |ops| {
        clear.test_and_clear()?;
        ran_on.store(u32::try_from(ops.remote().id())?, Ordering::SeqCst);
        Ok(())
    });
    let token = register(&here, handlers);
    let token = moved(&here, &token, &there);
    assert!(token.is_live());
    assert_eq!((here.stats().handlers.len(), there.stats().handlers.len()), (0, 1));
    bell.set().unwrap();
    assert_eq!(drain(&here), 0);
    assert!(block(&there));
    assert_eq!(u64::from(ids.load(Ordering::SeqCst)), there.id());
    let back = moved(&there, &token, &here);
    bell.set().unwrap();
    assert_eq!(drain(&there), 0);
    assert!(block(&here));
    assert_eq!(u64::from(ids.load(Ordering::SeqCst)), here.id());
    assert!(here.deregister(&back).is_some());
    assert_eq!((here.close(), there.close()), (LeakReport::default(), LeakReport::default()));
}

/// SPEC 10, 52
#[test]
fn an_event_that_is_pending_is_found_there_once() {
    for place in ["in the kernel", "collected"] {
        let ((here, _clock), (there, _their_clock)) = (manual(), manual());
        let (bell, runs) = (EventNotifier::new().unwrap(), Tally::new());
        let token = register(&here, ringing(&bell, &runs));
        bell.set().unwrap();
        let ack = Rc::new(RefCell::new(None));
        if place == "collected" {
            // The bottom half runs in the turn that has found the bell ready, before its handler.
            let (slot, remote) = (ack.clone(), there.remote());
            here.schedule(move |ops| {
                *slot.borrow_mut() = Some(ops.move_to(&token, &remote));
                Ok(())
            })
            .unwrap();
            assert!(block(&here));
        } else {
            *ack.borrow_mut() = Some(here.move_to(&token, &there.remote()));
        }
        assert_eq!(drain(&here), 0, "{place}");
        assert_eq!(runs.get(), 0, "{place}: it ran here after it was moved");
        assert!(there.poll(false).unwrap());
        assert!(answer(ack.take().unwrap()).is_ok());
        assert!(block(&there), "{place}");
        assert_eq!(drain(&there), 0, "{place}");
        assert_eq!(runs.get(), 1, "{place}");
    }
}

/// Takes one byte a call.
fn sipping(socket: OwnedFd, taken: &Arc<std::sync::Mutex<Vec<u8>>>) -> SendHandlers<OwnedFd> {
    let taken = taken.clone();
    SendHandlers::new(socket).read(move |ops| {
        let mut byte = [0];
        rustix::io::read(ops.fd(), &mut byte)?;
        taken.lock().unwrap().push(byte[0]);
        Ok(())
    })
}

/// SPEC 44, 52
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn unread_bytes_of_a_socket_move_along_in_order() {
    let ((here, _clock), (there, _their_clock)) = (manual(), manual());
    let (ours, theirs) = pair();
    let taken = Arc::default();
    let mut token = register(&here, sipping(ours, &taken));
    rustix::io::write(&theirs, b"0123456789").unwrap();
    // One byte on each, in turn: what is left behind is unread, and no new edge comes for it.
    for round in 0..5 {
        assert!(block(&here));
        token = moved(&here, &token, &there);
        assert!(block(&there));
        token = moved(&there, &token, &here);
        assert_eq!(taken.lock().unwrap().len(), 2 * round + 2);
    }
    assert_eq!(&taken.lock().unwrap()[..], b"0123456789");
    assert_eq!(drain(&here) + drain(&there), 0);
    drop(theirs);
    assert!(block(&here), "the hang-up is heard where it is now");
}

/// A handler that moves itself to the other context in its callback.
struct Nomad {
    bell: EventNotifier,
    homes: [fdmon::Remote; 2],
    visits: Arc<std::sync::Mutex<Vec<u64>>>,
    inside: Tally,
    nested: bool,
}

impl AsFd for Nomad {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Source for Nomad {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        assert_eq!(self.inside.get() % 2, 0, "entered while it runs");
        self.inside.bump();
        self.bell.test_and_clear()?;
        let here = ops.remote().id();
        self.visits.lock().unwrap().push(here);
        let there = self.homes.iter().find(|home| home.id() != here).unwrap();
        let own = ops.token_of::<Self>(&*self).unwrap();
        let ack = if self.nested {
            // By a request that a nested turn serves.
            let ack = ops.remote().move_to(&own.to_send(), there);
            assert!(ops.poll(false)?);
            ack
        } else {
            ops.move_to(&own, there)
        };
        assert!(!own.is_live() && !ack.is_done());
        assert!(ops.context().stats().handlers.is_empty());
        self.bell.set()?; // an event while neither has it
        ops.poll(false)?;
        self.inside.bump();
        Ok(())
    }
}

/// SPEC 10, 19, 52
#[test]
fn a_handler_that_moves_in_its_own_callback_goes_when_that_returns() {
    for nested in [false, true] {
        let ((here, _clock), (there, _their_clock)) = (manual(), manual());
        let (bell, visits) = (rung(), Arc::default());
        let nomad = Nomad {
            bell: bell.clone(),
            homes: [here.remote(), there.remote()],
            visits: Arc::clone(&visits),
            inside: Tally::new(),
            nested,
        };
        register(&here, nomad);
        let mut expected = Vec::new();
        for _ in 0..3 {
            for ctx in [&here, &there] {
                assert!(block(ctx));
                expected.push(ctx.id());
                assert_eq!(*visits.lock().unwrap(), expected);
                // Now it is on its way to the other one, which lets it in.
                let other = if std::ptr::eq(ctx, &here) { &there } else { &here };
                assert!(other.poll(false).unwrap());
            }
        }
        assert_eq!((here.close().handlers, there.close().handlers), (1, 0));
    }
}

/// SPEC 11, 25, 52
#[test]
fn begin_and_end_are_balanced_over_a_move_in_spin_mode() {
    let ((here, _clock), (there, _their_clock)) = (spinning(), spinning());
    let (token, bell, hands) = begun(&here);
    let token = moved(&here, &token, &there);
    assert!(!hands.has_begun(), "ended at its removal");
    assert!(!polling(&here, bell.as_raw_fd()) && !polling(&there, bell.as_raw_fd()));
    for _ in 0..2 {
        hands.say(true);
        assert!(there.poll(true).unwrap());
    }
    assert!(polling(&there, bell.as_raw_fd()) && hands.has_begun());
    assert_eq!((hands.begins.get(), hands.ends.get()), (2, 1));
    there.close();
    assert_eq!((hands.begins.get(), hands.ends.get(), hands.dropped.get()), (2, 2, 1));
    assert!(!token.is_live());
}

/// SPEC 22, 25, 52
#[test]
fn a_hit_that_comes_between_removal_and_arrival_is_found_by_the_first_look_there() {
    let ((here, _clock), (there, _their_clock)) = (spinning(), spinning());
    let (token, _bell, hands) = begun(&here);
    let ack = here.move_to(&token, &there.remote());
    assert!(!hands.has_begun());
    hands.say(true); // and no signal: the predicate alone must find it
    assert_eq!(drain(&here), 0);
    let runs = hands.runs.get();
    assert!(there.poll(true).unwrap());
    assert!(answer(ack).is_ok());
    assert_eq!(hands.runs.get(), runs, "it has only arrived");
    assert!(there.poll(true).unwrap(), "asked before any sleep");
    assert_eq!(hands.runs.get(), runs + 1);
    sleep_for(&there, 1_000_000);
    assert_eq!(hands.runs.get(), runs + 1);
}

/// SPEC 25, 52
#[test]
fn the_producer_is_told_to_signal_before_the_handler_travels() {
    let ((here, _clock), (there, _their_clock)) = (spinning(), spinning());
    let [head, tail, suppress] = [(); 3].map(|()| Arc::new(AtomicU32::new(0)));
    let source = WordSource::words_differ(head.clone(), tail.clone());
    let source = source.suppress(suppress.clone()).unwrap();
    let (published, end) = (head.clone(), tail.clone());
    let bell = EventNotifier::new().unwrap();
    let handlers = SendHandlers::new(bell).poll(source).poll_ready(move |_| {
        end.store(published.load(Ordering::SeqCst), Ordering::SeqCst);
        Ok(())
    });
    let token = register(&here, handlers);
    for event in 1..=2 {
        head.store(event, Ordering::SeqCst);
        assert!(here.poll(true).unwrap());
    }
    assert_eq!(suppress.load(Ordering::SeqCst), 1);
    let ack = here.move_to(&token, &there.remote());
    assert_eq!(suppress.load(Ordering::SeqCst), 0);
    head.store(3, Ordering::SeqCst);
    assert!(there.poll(true).unwrap());
    assert!(answer(ack).is_ok());
    assert!(there.poll(true).unwrap());
    assert_eq!(tail.load(Ordering::SeqCst), 3);
    head.store(4, Ordering::SeqCst);
    assert!(there.poll(true).unwrap());
    assert_eq!(suppress.load(Ordering::SeqCst), 1, "the word has come along");
    there.close();
    assert_eq!(suppress.load(Ordering::SeqCst), 0);
}

/// SPEC 11, 25, 52
#[test]
fn one_that_moves_in_its_own_callback_has_ended_before_it_arrives() {
    struct Mover(Spun, Option<fdmon::Remote>, Tally);
    impl AsFd for Mover {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl Source for Mover {
        fn interest(&self) -> Interest {
            Interest::READ
        }
        fn poll(&self) -> bool {
            self.0.poll()
        }
        fn poll_ready(&mut self, ops: &mut Ops<'_>) -> Outcome {
            if self.2.get() == 2
                && let Some(to) = self.1.take()
            {
                let own = ops.token_of::<Self>(&*self).unwrap();
                let ends = self.0.hands.ends.get();
                let _moving = ops.move_to(&own, &to);
                assert_eq!(self.0.hands.ends.get(), ends, "its own hook is not entered now");
            }
            self.2.bump();
            self.0.poll_ready(ops)
        }
        fn poll_begin(&mut self) {
            self.0.poll_begin();
        }
        fn poll_end(&mut self) {
            self.0.poll_end();
        }
    }
    let ((here, _clock), (there, _their_clock)) = (spinning(), spinning());
    let (source, _bell, hands) = Spun::new();
    register(&here, Mover(source, Some(there.remote()), Tally::new()));
    for _ in 0..3 {
        hands.say(true);
        assert!(here.poll(true).unwrap());
    }
    assert!(!hands.has_begun() && hands.ends.get() == 1);
    assert!(there.poll(true).unwrap());
    for _ in 0..2 {
        hands.say(true);
        assert!(there.poll(true).unwrap());
    }
    assert!(hands.has_begun());
    assert_eq!(hands.runs.get(), 5);
}

/// SPEC 14, 52
#[test]
fn an_external_handler_moves_while_it_is_held_back_and_hears_what_came_meanwhile() {
    for held_there in [false, true] {
        let ((here, _clock), (there, _their_clock)) = (manual(), manual());
        let (source, bell, hands) = Spun::new();
        hands.external.store(true, Ordering::SeqCst);
        let token = register(&here, source);
        here.disable_external();
        bell.set().unwrap();
        hands.say(true);
        assert_eq!(drain(&here), 0);
        if held_there {
            there.disable_external();
        }
        moved(&here, &token, &there);
        if held_there {
            assert_eq!(drain(&there), 0);
            sleep_for(&there, 1_000_000);
            there.enable_external();
        }
        assert!(block(&there));
        assert_eq!(hands.runs.get(), 1, "held back there: {held_there}");
        here.enable_external();
        assert_eq!(drain(&here) + drain(&there), 0);
    }
}

/// SPEC 7, 11, 52
#[test]
fn the_handler_that_its_fd_has_there_is_replaced_as_by_any_registration() {
    let ((here, _clock), (there, _their_clock)) = (manual(), spinning());
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    let theirs = member(&there, &bell, &predicate);
    predicate.say(true);
    assert!(there.poll(true).unwrap());
    assert!(predicate.has_begun() && theirs.take() == 1);
    let runs = Tally::new();
    let token = register(&here, ringing(&bell, &runs));
    bell.set().unwrap();
    moved(&here, &token, &there);
    assert!(!predicate.has_begun());
    assert!(block(&there));
    assert_eq!((runs.get(), theirs.get(), there.stats().handlers.len()), (1, 0, 1));
}

/// SPEC 8, 52, 53
#[test]
fn its_interest_and_its_counters_go_with_it() {
    let ((here, _clock), (there, _their_clock)) = (manual(), manual());
    let (bell, runs) = (rung(), Tally::new());
    let token = register(&here, ringing(&bell, &runs));
    assert!(block(&here));
    assert!(token.set_interest(Interest::empty()).unwrap());
    bell.set().unwrap();
    let token = moved(&here, &token, &there);
    assert_eq!(drain(&there), 0, "it did not want to hear anything");
    assert!(token.set_interest(Interest::READ).unwrap());
    assert!(block(&there));
    assert_eq!(there.stats().handlers[0].reads, 2);
    assert!(here.stats().handlers.is_empty());
}

/// SPEC 46, 52
#[test]
#[cfg_attr(wasi, ignore = "there is one monitor on WASI")]
fn handlers_move_between_contexts_on_different_monitors() {
    let here = context();
    for kind in [MonitorKind::Poll, MonitorKind::Epoll, MonitorKind::Auto] {
        let there = AioContext::builder().monitor(kind).build().unwrap();
        let (bell, runs) = (rung(), Tally::new());
        let token = register(&here, ringing(&bell, &runs));
        let token = moved(&here, &token, &there);
        assert!(block(&there));
        bell.set().unwrap();
        let token = moved(&there, &token, &here);
        assert!(block(&here));
        assert_eq!(runs.get(), 2);
        assert!(here.deregister(&token).is_some());
    }
}

/// SPEC 52
#[test]
fn a_move_to_the_same_context_is_a_removal_and_a_registration() {
    let (ctx, _clock) = manual();
    let (bell, runs) = (rung(), Tally::new());
    let token = register(&ctx, ringing(&bell, &runs));
    let again = moved(&ctx, &token, &ctx);
    assert!(again.is_live() && !token.is_live());
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}

/// SPEC 4, 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn any_thread_may_ask_for_a_move_by_the_remotes_alone() {
    let (here, there) = (context(), context());
    let (bell, runs) = (EventNotifier::new().unwrap(), Tally::new());
    let token = register(&here, ringing(&bell, &runs)).to_send();
    let (from, to) = (here.remote(), there.remote());
    let ask = move || awaited(from.move_to(&token, &to)).map_err(|refused| refused.error);
    let asker = std::thread::spawn(ask);
    while !asker.is_finished() {
        here.poll(false).unwrap();
        there.poll(false).unwrap();
    }
    assert_eq!(asker.join().unwrap().unwrap().context_id(), there.id());
    bell.set().unwrap();
    assert!(block(&there));
    assert_eq!(runs.get(), 1);
}

/// SPEC 13, 52
#[test]
fn what_cannot_move_stays_where_it_is() {
    let ((here, _clock), (there, _their_clock)) = (manual(), manual());
    let (bell, runs) = (rung(), Tally::new());
    let token = register(&here, ringing(&bell, &runs));

    // To a context that is closed.
    let closed = context();
    closed.close();
    for ack in [here.move_to(&token, &closed.remote()), {
        let ack = here.remote().move_to(&token.to_send(), &closed.remote());
        assert!(here.poll(false).unwrap());
        ack
    }] {
        let MoveError { error, left } = answer(ack).unwrap_err();
        assert!(error.is_closed(), "{error}");
        assert!(matches!(left, Left::Registered(left) if left.to_local(&here).is_some()));
        assert!(token.is_live());
    }

    // By the wrong context.
    for ack in [
        there.move_to(&token, &here.remote()),
        there.remote().move_to(&token.to_send(), &here.remote()),
    ] {
        let MoveError { error, left } = answer(ack).unwrap_err();
        assert!(error.is_invalid_arg(), "{error}");
        assert!(matches!(left, Left::Registered(left) if left.context_id() == here.id()));
        assert!(token.is_live());
    }

    // Closures that belong to this thread, whatever their fd is.
    struct Both(EventNotifier);
    impl AsFd for Both {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl Source for Both {
        fn interest(&self) -> Interest {
            Interest::READ
        }
    }
    let log = Log::new();
    let handlers = Handlers::new().read(log.callback("still here"));
    let theirs: Token<Both> = here.set_fd_handler(Both(rung()), handlers).unwrap();
    let MoveError { error, left } = answer(here.move_to(&theirs, &there.remote())).unwrap_err();
    assert!(error.is_invalid_arg() && error.to_string().contains("SendHandlers"), "{error}");
    assert!(matches!(left, Left::Registered(_)) && theirs.is_live());
    assert!(block(&here));
    assert!(!log.take().is_empty());

    // What is gone.
    assert!(here.deregister(&token).is_some());
    for ack in [here.move_to(&token, &there.remote()), {
        let ack = here.remote().move_to(&token.to_send(), &there.remote());
        assert!(here.poll(false).unwrap());
        ack
    }] {
        let MoveError { error, left } = answer(ack).unwrap_err();
        assert!(error.is_invalid_arg() && matches!(left, Left::Gone), "{error}");
    }
    drop(here);
    let MoveError { error, left } = answer(there.move_to(&token, &there.remote())).unwrap_err();
    assert!(error.is_invalid_arg() && matches!(left, Left::Gone), "{error}");
}

/// SPEC 4, 38, 52
#[test]
fn if_the_target_closes_on_the_way_the_handler_comes_back_to_its_context() {
    for in_its_turn in [false, true] {
        let ((here, _clock), (there, _their_clock)) = (manual(), manual());
        let (bell, runs) = (EventNotifier::new().unwrap(), Tally::new());
        let token = register(&here, ringing(&bell, &runs));
        if in_its_turn {
            // A bottom half of the turn that was to let it in, before that.
            there
                .schedule(|ops| {
                    assert_eq!(ops.close(), LeakReport::default());
                    Ok(())
                })
                .unwrap();
        }
        let ack = here.move_to(&token, &there.remote());
        bell.set().unwrap();
        if in_its_turn {
            assert!(there.poll(true).unwrap());
        }
        assert_eq!(there.close(), LeakReport::default());
        assert!(!ack.is_done());
        assert!(here.poll(false).unwrap());
        let MoveError { error, left } = answer(ack).unwrap_err();
        assert!(error.is_closed(), "{error}");
        let Left::Registered(left) = left else { panic!("{left:?}") };
        let back = left.to_local(&here).unwrap();
        assert!(back.is_live() && !token.is_live());
        assert!(block(&here), "what came meanwhile is heard here");
        assert_eq!(runs.get(), 1);
    }
}

/// SPEC 4, 38, 52
#[test]
fn if_both_contexts_close_the_asker_gets_the_handler() {
    for first in ["source", "target"] {
        let ((here, _clock), (there, _their_clock)) = (manual(), manual());
        let (source, _bell, hands) = Spun::new();
        let token = register(&here, source);
        let ack = here.move_to(&token, &there.remote());
        let reports = match first {
            "source" => [here.close(), there.close()],
            _ => [there.close(), here.close()],
        };
        assert_eq!(reports, [LeakReport::default(); 2], "{first}");
        let MoveError { error, left } = answer(ack).unwrap_err();
        assert!(error.is_closed(), "{first}: {error}");
        let Left::Source(source) = left else { panic!("{first}: {left:?}") };
        assert!(Arc::ptr_eq(&source.hands, &hands) && hands.dropped.get() == 0);
    }
}

/// SPEC 38, 52
#[test]
fn a_handler_that_has_left_arrives_although_its_context_closes() {
    for asked_from_afar in [false, true] {
        let ((here, _clock), (there, _their_clock)) = (manual(), manual());
        let (bell, runs) = (rung(), Tally::new());
        let token = register(&here, ringing(&bell, &runs));
        // A request that came before the end is served by it.
        let ack = if asked_from_afar {
            here.remote().move_to(&token.to_send(), &there.remote())
        } else {
            here.move_to(&token, &there.remote())
        };
        assert_eq!(here.close(), LeakReport::default(), "it is not among the leaks");
        assert!(there.poll(false).unwrap());
        assert_eq!(answer(ack).unwrap().context_id(), there.id());
        assert!(block(&there));
        assert_eq!(runs.get(), 1);
    }
}

/// SPEC 38, 52
#[test]
fn a_handler_that_closes_its_context_in_the_callback_it_moves_in_moves_all_the_same() {
    let ((here, _clock), (there, _their_clock)) = (manual(), manual());
    let (bell, to, report) = (rung(), there.remote(), Arc::new(AtomicU32::new(9)));
    let (clear, leaks) = (bell.clone(), report.clone());
    let handlers = SendHandlers::new(bell.clone()).read(move |ops| {
        clear.test_and_clear()?;
        let own = ops.token_of::<Bell>(ops.fd()).unwrap();
        let _moving = ops.move_to(&own, &to);
        leaks.store(ops.close().handlers, Ordering::SeqCst);
        Ok(())
    });
    register(&here, handlers);
    assert!(here.poll(true).unwrap());
    assert!(here.is_closed());
    assert_eq!(report.load(Ordering::SeqCst), 0);
    assert!(there.poll(false).unwrap());
    assert_eq!(there.stats().handlers.len(), 1);
}

/// Panics when it is registered for the second time, and not at the third.
struct Picky {
    inner: Bell,
    asked: Tally,
}

impl AsFd for Picky {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Source for Picky {
    fn interest(&self) -> Interest {
        self.asked.bump();
        assert_ne!(self.asked.get(), 2, "not here");
        Interest::READ
    }

    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        Source::read(&mut self.inner, ops)
    }
}

/// SPEC 52
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_handler_that_the_target_refuses_comes_back_with_the_error() {
    let ((here, _clock), (there, _their_clock)) = (manual(), manual());
    let (bell, runs) = (rung(), Tally::new());
    let token = register(&here, Picky { inner: ringing(&bell, &runs), asked: Tally::new() });
    let ack = here.move_to(&token, &there.remote());
    let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| there.poll(false)));
    assert!(turn.is_err(), "the panic is the target's");
    assert!(there.stats().handlers.is_empty() && !ack.is_done());
    assert!(here.poll(false).unwrap());
    let MoveError { error, left } = answer(ack).unwrap_err();
    assert!(error.is_callback(), "{error}");
    let Left::Registered(left) = left else { panic!("{left:?}") };
    assert!(left.to_local(&here).unwrap().is_live());
    assert!(block(&here));
    assert_eq!(runs.get(), 1);
}

/// SPEC 52
#[test]
fn one_that_comes_back_replaces_nobody_who_came_meanwhile() {
    let ((here, _clock), (there, _their_clock)) = (manual(), manual());
    let (bell, runs) = (rung(), Tally::new());
    let token = register(&here, ringing(&bell, &runs));
    let ack = here.move_to(&token, &there.remote());
    let heirs = Tally::new();
    let heir = register(&here, ringing(&bell, &heirs));
    there.close();
    assert!(here.poll(false).unwrap());
    let MoveError { error, left } = answer(ack).unwrap_err();
    assert!(error.is_closed() && matches!(left, Left::Source(_)), "{error}");
    assert!(heir.is_live());
    drain(&here);
    assert_eq!((heirs.get(), runs.get()), (1, 0));
}

/// SPEC 52
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn one_that_is_refused_on_both_sides_goes_to_the_asker() {
    let ((here, _clock), (there, _their_clock)) = (manual(), manual());
    let (fd, _other) = pair();
    let number = crate::support::private(&fd);
    let raw = std::os::fd::IntoRawFd::into_raw_fd(number);
    let handlers = SendHandlers::new(crate::support::by_number(raw)).read(|_| Ok(()));
    let token = register(&here, handlers);
    let ack = here.move_to(&token, &there.remote());
    crate::support::close_number(raw);
    assert!(there.poll(false).unwrap());
    assert!(here.poll(false).unwrap());
    let MoveError { error, left } = answer(ack).unwrap_err();
    assert!(error.is_bad_fd() && matches!(left, Left::Source(_)), "{error}");
    let text = MoveError { error, left }.to_string();
    assert!(text.contains(&raw.to_string()), "{text}");
}

/// Two contexts that hooks can reach; the first one spins.
fn reachable() -> [Rc<AioContext>; 2] {
    [Rc::new(spinning().0), Rc::new(spinning().0)]
}

/// SPEC 10, 52
#[test]
fn a_hook_that_takes_the_handler_itself_leaves_nothing_to_move() {
    for way in ["removes it", "closes its context"] {
        let [here, there] = reachable();
        let (token, bell, hands) = begun(&here);
        let ctx = here.clone();
        at_end(move || match way {
            "removes it" => ctx.remove_fd_handler(bell.as_raw_fd()),
            _ => assert_eq!(ctx.close().handlers, 1),
        });
        let MoveError { error, left } = answer(here.move_to(&token, &there.remote())).unwrap_err();
        assert!(matches!(left, Left::Gone), "{way}: {left:?}");
        assert_eq!(error.is_closed(), way != "removes it", "{way}: {error}");
        assert_eq!((hands.dropped.get(), hands.has_begun()), (1, false), "{way}");
        assert_eq!(drain(&there), 0, "{way}");
    }
}

/// SPEC 4, 10
#[test]
fn a_hook_that_closes_the_context_while_a_removal_is_served_answers_it() {
    let [here, _] = reachable();
    let (token, _bell, hands) = begun(&here);
    let ack = here.remote().deregister(&token.to_send());
    let ctx = here.clone();
    at_end(move || assert_eq!(ctx.close().handlers, 1));
    assert!(here.poll(true).unwrap());
    assert!(answer(ack).unwrap_err().is_closed());
    assert_eq!(hands.dropped.get(), 1);
}

/// SPEC 10, 52
#[test]
fn a_hook_that_moves_the_handler_itself_moves_it_once() {
    // While it stands between turns, by `suspend`; in a turn that falls asleep; in another move.
    for place in ["suspend", "turn", "move"] {
        let [here, there] = reachable();
        let (token, _bell, hands) = begun(&here);
        let (ctx, to, own) = (here.clone(), there.remote(), token.clone());
        let ack = Rc::new(RefCell::new(None));
        let slot = ack.clone();
        at_end(move || *slot.borrow_mut() = Some(ctx.move_to(&own, &to)));
        match place {
            "suspend" => here.suspend().unwrap(),
            "turn" => sleep_for(&here, 1_000_000),
            _ => {
                let failed = answer(here.move_to(&token, &there.remote())).unwrap_err();
                assert!(matches!(failed.left, Left::Gone), "{failed:?}");
            }
        }
        assert!(here.stats().handlers.is_empty(), "{place}");
        assert!(!hands.has_begun() && hands.dropped.get() == 0, "{place}");
        assert!(there.poll(false).unwrap(), "{place}");
        let arrived = answer(ack.take().unwrap()).unwrap();
        assert!(arrived.to_local(&there).unwrap().is_live(), "{place}");
        hands.say(true);
        assert!(there.poll(true).unwrap(), "{place}");
    }
}

/// SPEC 4, 38, 52
#[test]
fn a_hook_that_closes_the_target_sends_the_handler_back() {
    for both in [false, true] {
        let [here, there] = reachable();
        let (token, _bell, hands) = begun(&here);
        let (ctx, target) = (here.clone(), there.clone());
        at_end(move || {
            target.close();
            if both {
                ctx.close();
            }
        });
        // It was open when the move began, and takes nothing in any more.
        let ack = here.move_to(&token, &there.remote());
        assert_eq!(ack.is_done(), both);
        let _ = here.poll(false);
        let MoveError { error, left } = answer(ack).unwrap_err();
        assert!(error.is_closed(), "{error}");
        match left {
            Left::Registered(token) if !both => assert!(token.to_local(&here).unwrap().is_live()),
            Left::Gone if both => assert_eq!(hands.dropped.get(), 1),
            other => panic!("{other:?}"),
        }
    }
}
