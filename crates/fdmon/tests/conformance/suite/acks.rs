//! The ways to hear an acknowledgement: a future, a bottom half, a wait, a look.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use fdmon::{AioContext, EventNotifier, SendHandlers};

use super::{context, io_thread, manual};
use crate::support::{Spun, Tally, answer, block, drain, ringing, rung, turn_until};

struct Counting(Tally);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.bump();
    }
}

fn counting() -> (Waker, Tally) {
    let woken = Tally::new();
    (Waker::from(Arc::new(Counting(woken.clone()))), woken)
}

/// All that an executor needs.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// SPEC 4
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn as_a_future_it_wakes_the_last_one_who_asked_and_once() {
    let (ctx, _clock) = manual();
    let mut ack = pin!(ctx.remote().register_send(ringing(&rung(), &Tally::new())));
    let ((first, first_woken), (second, second_woken)) = (counting(), counting());
    for waker in [&first, &second, &second] {
        assert!(ack.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    assert_eq!(first_woken.holders(), 2, "of the first one nothing is kept");
    assert!(ctx.poll(false).unwrap());
    assert_eq!((first_woken.get(), second_woken.get()), (0, 1));
    let ready = ack.as_mut().poll(&mut Context::from_waker(&first));
    assert!(matches!(ready, Poll::Ready(Ok(_))));
    let again = catch_unwind(AssertUnwindSafe(|| ack.poll(&mut Context::from_waker(&first))));
    assert!(again.is_err(), "a future that is over is not polled again");
    drain(&ctx);
    assert_eq!((first_woken.get(), second_woken.get()), (0, 1));
}

/// SPEC 4
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn futures_of_requests_are_awaited_one_after_the_other_without_an_executor_of_the_loop() {
    let thread = io_thread().spawn().unwrap();
    let (remote, runs, bell) = (thread.remote(), Tally::new(), rung());
    let (ringer, heard) = (bell.clone(), runs.clone());
    let back = block_on(async move {
        let token = remote.register_send(ringing(&ringer, &heard)).await.map_err(|(e, _)| e)?;
        heard.wait_for(1);
        remote.deregister(&token).await
    });
    let back: SendHandlers<EventNotifier> = back.unwrap().unwrap();
    back.into_fd().set().unwrap();
    assert_eq!(thread.stop().unwrap().handlers, 0);
    assert_eq!(runs.get(), 1);
}

/// SPEC 4
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_home_thread_does_not_wait_and_the_request_goes_on() {
    let (ctx, _clock) = manual();
    let second = context();
    let mut ack = ctx.remote().register_send(ringing(&rung(), &Tally::new()));
    for result in [ack.wait().map(drop), ack.wait_for(Duration::ZERO).map(drop)] {
        let error = result.unwrap_err();
        assert_eq!(error.code(), fdmon::ErrorCode::WrongThread);
        assert!(error.to_string().contains("2 open contexts"), "{error}");
    }
    assert!(ctx.poll(false).unwrap());
    assert!(ack.wait().unwrap().is_ok(), "what is here needs no waiting");

    let thread = io_thread().spawn().unwrap();
    let (go, held) = std::sync::mpsc::channel();
    thread.remote().run(move |_| held.recv().unwrap()).unwrap(); // it answers nobody till then
    let mut there = thread.remote().register_send(ringing(&rung(), &Tally::new()));
    ctx.close();
    assert!(there.wait().unwrap_err().to_string().contains("1 open contexts"));
    go.send(()).unwrap();
    drop(second);
    drop(ctx);
    assert!(there.wait().unwrap().is_ok(), "this thread is nobody's home any more");
}

/// SPEC 4
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_wait_may_be_limited_and_an_answer_is_taken_once() {
    let (send, receive) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel();
    let home = std::thread::spawn(move || {
        let ctx = context();
        send.send(ctx.remote()).unwrap();
        wait.recv().unwrap();
        ctx.run().unwrap();
    });
    let remote = receive.recv().unwrap();
    let mut ack = remote.register_send(ringing(&rung(), &Tally::new()));
    assert!(ack.wait_for(Duration::ZERO).unwrap().is_none());
    assert!(ack.wait_for(Duration::from_millis(1)).unwrap().is_none());
    assert!(ack.try_take().is_none() && !ack.is_done());
    go.send(()).unwrap();
    let token = ack.wait_for(Duration::MAX).unwrap().unwrap().unwrap();
    assert!(ack.is_done() && ack.try_take().is_none());
    assert!(ack.wait().unwrap_err().is_invalid_arg());
    assert!(remote.deregister(&token).wait().unwrap().unwrap().is_some());
    remote.stop().unwrap();
    home.join().unwrap();
}

/// SPEC 4
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_bottom_half_of_the_asker_gets_the_answer_and_may_hold_what_stays_in_its_thread() {
    let ctx = context();
    let thread = io_thread().spawn().unwrap();
    let token = Rc::new(Cell::new(None));
    let (place, home) = (token.clone(), std::thread::current().id());
    let ack = thread.remote().register_send(ringing(&rung(), &Tally::new()));
    ack.then(&ctx, move |ops, registered| {
        assert_eq!(std::thread::current().id(), home);
        assert_ne!(ops.remote().id(), registered.as_ref().unwrap().context_id());
        place.set(Some(registered.unwrap()));
        Ok(())
    })
    .unwrap();
    assert!(block(&ctx), "the answer wakes the asker");
    assert!(token.get().is_some());
    assert_eq!(drain(&ctx), 0);
    assert_eq!(ctx.close(), fdmon::LeakReport::default());
}

/// SPEC 4, 21
#[test]
fn what_that_bottom_half_returns_is_reported_by_the_turn() {
    let (ctx, _clock) = manual();
    let (other, _other_clock) = manual();
    let ack = other.remote().register_send(ringing(&rung(), &Tally::new()));
    other.poll(false).unwrap();
    ack.then(&ctx, |_, _| Err("not what I asked for".into())).unwrap();
    let error = ctx.poll(true).unwrap_err();
    assert!(error.to_string().contains("not what I asked for"), "{error}");
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 4
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn who_has_only_a_remote_of_the_asker_leaves_a_closure_there() {
    let ctx = context();
    let thread = io_thread().spawn().unwrap();
    let (there, asker, told) = (thread.remote(), ctx.remote(), Tally::new());
    let heard = told.clone();
    let messenger = std::thread::spawn(move || {
        let ack = there.register_send(ringing(&rung(), &Tally::new()));
        let home = asker.id();
        ack.then_on(&asker, move |ops, registered| {
            assert!(registered.is_ok() && ops.remote().id() == home);
            heard.bump();
        })
        .unwrap_or_else(|_| panic!("it is open"));
    });
    turn_until(&ctx, &messenger);
    messenger.join().unwrap();
    while told.get() == 0 {
        assert!(block(&ctx));
    }
    assert_eq!((drain(&ctx), told.get()), (0, 1));
}

/// SPEC 4, 38
#[test]
fn an_asker_that_closes_first_drops_the_answer_and_counts_its_bottom_half() {
    for remote in [false, true] {
        let ((ctx, _clock), (target, _their_clock)) = (manual(), manual());
        let (source, _bell, hands) = Spun::new();
        let ack = target.remote().register_send(source);
        let never = |_: &mut fdmon::Ops<'_>| panic!("the asker is closed");
        if remote {
            let asker = ctx.remote();
            ack.then_on(&asker, move |ops, _| never(ops)).unwrap();
        } else {
            ack.then(&ctx, move |ops, _| {
                never(ops);
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(ctx.close().bottom_halves, u32::from(!remote));
        target.close();
        assert_eq!(hands.dropped.get(), 1, "the source came back, and nobody was there");
    }
}

/// SPEC 4, 38
#[test]
fn of_an_asker_that_is_closed_already_the_acknowledgement_comes_back() {
    let ((ctx, _clock), (target, _their_clock)) = (manual(), manual());
    let ack = target.remote().register_send(ringing(&rung(), &Tally::new()));
    ctx.close();
    let (error, ack) = ack.then(&ctx, |_, _| Ok(())).unwrap_err();
    assert!(error.is_closed());
    let (error, ack) = ack.then_on(&ctx.remote(), |_, _| ()).unwrap_err();
    assert!(error.is_closed());
    target.poll(false).unwrap();
    assert!(answer(ack).is_ok());
}

/// SPEC 4
#[test]
fn a_request_goes_on_when_nobody_waits_for_its_answer() {
    let (ctx, _clock) = manual();
    let (bell, runs) = (rung(), Tally::new());
    drop(ctx.remote().register_send(ringing(&bell, &runs)));
    assert!(block(&ctx));
    assert!(block(&ctx));
    assert_eq!((runs.get(), ctx.stats().handlers.len()), (1, 1));
}

/// SPEC 4, 21, 38
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_waker_that_panics_is_a_failure_of_the_turn_and_nothing_at_the_end_and_the_others_hear() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker fell asleep");
        }
    }
    let waker = Waker::from(Arc::new(Bad));
    for closes in [false, true] {
        let (ctx, _clock) = manual();
        let register = || ctx.remote().register_send(ringing(&rung(), &Tally::new()));
        let mut bad = [pin!(register()), pin!(register())];
        for ack in &mut bad {
            assert!(ack.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let other = register();
        if closes {
            ctx.close();
        } else {
            let turn = catch_unwind(AssertUnwindSafe(|| ctx.poll(false)));
            assert_eq!(turn.unwrap_err().downcast_ref(), Some(&"a waker fell asleep"));
        }
        assert!(other.is_done() && bad.iter().all(|ack| ack.is_done()));
        assert_eq!(answer(other).is_ok(), !closes);
    }
}

/// SPEC 4, 38
#[test]
fn a_waker_may_use_the_context_that_answers_also_one_that_closes() {
    thread_local! {
        static HOME: RefCell<Option<Rc<AioContext>>> = const { RefCell::new(None) };
    }
    struct Meddling(Tally);
    impl Wake for Meddling {
        fn wake(self: Arc<Self>) {
            let ctx = HOME.with_borrow(|home| home.clone().unwrap());
            match ctx.poll(false) {
                Ok(_) => ctx.schedule(|_| Ok(())).unwrap(),
                Err(error) => assert!(error.is_closed() && ctx.is_closed()),
            }
            self.0.bump();
        }
    }
    let ctx = Rc::new(context());
    HOME.set(Some(ctx.clone()));
    let woken = Tally::new();
    let waker = Waker::from(Arc::new(Meddling(woken.clone())));
    let register = || ctx.remote().register_send(ringing(&rung(), &Tally::new()));
    for closes in [false, true] {
        let mut ack = pin!(register());
        assert!(ack.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        if closes {
            assert_eq!(ctx.close().handlers, 1);
        } else {
            assert!(ctx.poll(false).unwrap());
        }
        assert_eq!(woken.get(), 1 + u32::from(closes));
    }
    HOME.set(None);
}
