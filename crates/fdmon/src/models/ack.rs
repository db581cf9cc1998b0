//! An answer is given while somebody begins to wait for it, in each of the ways.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::{News, check, check_within, context};
use crate::MonitorKind;
use crate::ack::{Answer, pair};
use crate::sync::{Arc, Condvar, Mutex};

/// A thread that tells something and then answers.
fn answers(answer: Answer<u32>, news: &News) -> thread::JoinHandle<()> {
    let news = news.clone();
    thread::spawn(move || {
        news.tell();
        answer.give(7);
    })
}

#[test]
fn a_thread_that_waits_for_an_answer_gets_it() {
    check(|| {
        let ((mut ack, answer), news) = (pair(), News::none());
        let other = answers(answer, &news);
        assert_eq!(ack.wait().unwrap(), 7);
        assert!(news.is_told());
        other.join().unwrap();
    });
}

/// SPEC 36
#[test]
fn the_turn_that_an_answer_wakes_hears_it() {
    check_within(3, || {
        let ctx = context(MonitorKind::Epoll);
        let ((ack, answer), news) = (pair(), News::none());
        let other = answers(answer, &news);
        let (heard, told) = (Rc::new(Cell::new(0)), news.clone());
        let place = Rc::clone(&heard);
        let then = ack.then(&ctx, move |_, value| {
            assert!(told.is_told());
            place.set(value);
            Ok(())
        });
        assert!(then.is_ok());
        while heard.get() == 0 {
            ctx.poll(true).unwrap();
        }
        assert_eq!(heard.get(), 7);
        other.join().unwrap();
    });
}

/// SPEC 35
#[test]
fn an_answer_goes_to_a_context_that_another_thread_named_for_it() {
    check_within(3, || {
        let ctx = context(MonitorKind::Poll);
        let ((ack, answer), news) = (pair(), News::none());
        let other = answers(answer, &news);
        let (remote, heard) = (ctx.remote(), News::none());
        let told = heard.clone();
        let asker = thread::spawn(move || {
            let then = ack.then_on(&remote, move |ops, value| {
                assert!(value == 7 && news.is_told());
                told.tell();
                ops.stop();
            });
            assert!(then.is_ok());
        });
        ctx.run().unwrap();
        assert!(heard.is_told());
        asker.join().unwrap();
        other.join().unwrap();
    });
}

/// What an executor sleeps on.
#[derive(Default)]
struct Sleeper {
    woken: Mutex<bool>,
    wakes: Condvar,
}

/// `Wake` is of the `Arc` of `std`.
struct Wakes(Arc<Sleeper>);

impl Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        *self.0.woken.lock().unwrap() = true;
        self.0.wakes.notify_one();
    }
}

#[test]
fn a_task_that_awaits_an_answer_is_woken() {
    check(|| {
        let ((ack, answer), news) = (pair(), News::none());
        let other = answers(answer, &news);
        let sleeper = Arc::new(Sleeper::default());
        let waker = Waker::from(std::sync::Arc::new(Wakes(Arc::clone(&sleeper))));
        let mut ack = pin!(ack);
        let value = loop {
            if let Poll::Ready(value) = ack.as_mut().poll(&mut Context::from_waker(&waker)) {
                break value;
            }
            let mut woken = sleeper.woken.lock().unwrap();
            while !std::mem::take(&mut *woken) {
                woken = sleeper.wakes.wait(woken).unwrap();
            }
        };
        assert!(value == 7 && news.is_told());
        other.join().unwrap();
    });
}
