//! Millions of events of every kind: memory stays as it is.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fdmon::{EventNotifier, Handlers, WordSource};

use super::{builder, spin};
use crate::support::{alone, live_bytes, of_ten_million, open_fds, resident_bytes};

/// What may be there more at the end than after the first tenth.
const SLACK: usize = 64 * 1024;
/// …of pages: the allocator's, and the kernel's rings.
const RESIDENT_SLACK: usize = 2 * 1024 * 1024;

/// SPEC 10, 36, 39
#[test]
fn ten_million_events_with_flat_memory() {
    if !alone() {
        return;
    }
    let ctx = builder().poll(spin(100_000)).build().unwrap();
    let events = Rc::new(Cell::new(0_u64));
    let count = || {
        let events = events.clone();
        move || events.set(events.get() + 1)
    };

    let bells: Vec<_> = (0..32).map(|_| EventNotifier::new().unwrap()).collect();
    for bell in &bells {
        let (clear, count) = (bell.clone(), count());
        let handlers = Handlers::new().poll_kernel().read(move |_| {
            clear.test_and_clear()?;
            count();
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    }
    let words: Vec<_> = (0..32).map(|_| Arc::new(AtomicU32::new(0))).collect();
    for word in &words {
        let (taken, count) = (word.clone(), count());
        let source = WordSource::differs_from(word.clone(), 0);
        let handlers = Handlers::new().poll(source).poll_ready(move |_| {
            taken.store(0, Ordering::Relaxed);
            count();
            Ok(())
        });
        ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    }
    let halves: Vec<_> = (0..8)
        .map(|_| {
            let count = count();
            let half = ctx.bottom_half(move |_| {
                count();
                Ok(())
            });
            half.unwrap()
        })
        .collect();
    let timers: Vec<_> = (0..8)
        .map(|_| {
            let count = count();
            let timer = ctx.timer(move |_| {
                count();
                Ok(())
            });
            timer.unwrap()
        })
        .collect();
    let passing = EventNotifier::with_value(1).unwrap();

    let goal = of_ten_million();
    let (mut rounds, mut before) = (0_usize, None);
    while events.get() < goal {
        rounds += 1;
        // Words most of the time, since they cost no system call.
        for word in &words {
            word.store(1, Ordering::Relaxed);
        }
        bells[rounds % bells.len()].set().unwrap();
        halves[rounds % halves.len()].schedule();
        timers[rounds % timers.len()].arm(Duration::ZERO).unwrap();
        if rounds % 16 == 0 {
            // What comes and goes: a one-shot, a job from afar, a handler, a timer.
            let (one, two, three, four) = (count(), count(), count(), count());
            ctx.schedule(move |_| {
                one();
                Ok(())
            })
            .unwrap();
            ctx.remote().run(move |_| ()).unwrap();
            two();
            let handlers = Handlers::new().read(move |ops| {
                three();
                let fd = std::os::fd::AsRawFd::as_raw_fd(&ops.fd());
                ops.remove_fd_handler(fd);
                Ok(())
            });
            ctx.set_fd_handler(passing.clone(), handlers).unwrap();
            let timer = ctx.timer(move |_| {
                four();
                Ok(())
            });
            timer.unwrap().arm(Duration::ZERO).unwrap();
        }
        while ctx.poll(false).unwrap() {}
        if before.is_none() && events.get() >= goal / 10 {
            before = Some((live_bytes(), resident_bytes(), open_fds()));
        }
    }
    let (live, resident, fds) = before.unwrap();
    let grown = live_bytes().saturating_sub(live);
    let more = resident_bytes().saturating_sub(resident);
    println!("{} events in {rounds} rounds: {grown} bytes more, {more} resident", events.get());
    assert!(grown <= SLACK, "{grown} bytes more after {} events", events.get());
    assert!(more <= RESIDENT_SLACK, "{more} bytes more are resident");
    assert_eq!(open_fds(), fds);
    let report = ctx.close();
    assert_eq!((report.handlers, report.bottom_halves, report.timers), (64, 8, 8));
}
