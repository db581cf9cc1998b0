//! What mio and polling have alike: a loop that hands out the number with which an fd was registered, and calls nothing. The
//! workloads in which they differ have their own functions there.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::run::{Fan, Outcome, Run, clear, drain, event, events, expect, signal};

pub trait ByToken: Sized {
    fn new() -> Outcome<Self>;

    fn watch(&self, fd: &impl AsRawFd, token: usize) -> io::Result<()>;

    fn forget(&self, fd: &impl AsFd) -> io::Result<()>;

    /// One turn; each event's token goes to `each`.
    fn turn(&mut self, timeout: Option<Duration>, each: impl FnMut(usize) -> Outcome) -> Outcome;
}

/// There is nothing but the fd to look at: the producer signals it, the loop asks without a timeout.
pub fn polled_hit<L: ByToken>(run: &Run) -> Outcome {
    let mut main = L::new()?;
    let fd = event()?;
    main.watch(&fd, 0)?;
    let mut hits = 0;
    run.measure(|| {
        for _ in 0..run.ops {
            signal(&fd)?;
            main.turn(Some(Duration::ZERO), |_| {
                clear(&fd)?;
                hits += 1;
                Ok(())
            })?;
        }
        expect("hits", hits, run.ops)
    })
}

pub fn poll_bench<L: ByToken>(run: &Run) -> Outcome {
    let mut main = L::new()?;
    let fan = Fan::new(run.ready)?;
    for (token, reader) in fan.readers.iter().enumerate() {
        main.watch(reader, token)?;
    }
    run.measure(|| {
        for _ in 0..run.rounds() {
            let mut seen = 0;
            fan.signal()?;
            while seen < run.ready {
                main.turn(None, |token| {
                    seen += 1;
                    if seen == run.ready {
                        drain(&fan.readers[token])?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}

pub fn dispatch<L: ByToken>(run: &Run) -> Outcome {
    let mut main = L::new()?;
    let fds = events(run.of)?;
    for (token, fd) in fds.iter().enumerate() {
        main.watch(fd, token)?;
    }
    let mut seen = 0;
    run.measure(|| {
        for round in 1..=run.rounds() {
            run.last_ready(&fds).iter().try_for_each(signal)?;
            while seen < round * run.ready {
                main.turn(None, |token| {
                    clear(&fds[token])?;
                    seen += 1;
                    Ok(())
                })?;
            }
        }
        expect("events", seen, run.rounds() * run.ready)
    })
}

pub fn register<L: ByToken>(run: &Run) -> Outcome {
    let mut main = L::new()?;
    let fds = events(run.of)?;
    run.measure(|| {
        for (token, fd) in fds[..run.ops].iter().enumerate() {
            main.watch(fd, token)?;
        }
        main.turn(Some(Duration::ZERO), |_| Ok(()))?;
        for fd in &fds[..run.ops] {
            main.forget(fd)?;
        }
        main.turn(Some(Duration::ZERO), |_| Ok(()))
    })
}

pub fn idle<L: ByToken>(run: &Run) -> Outcome {
    let mut main = L::new()?;
    let fds = events(100)?;
    for (token, fd) in fds.iter().enumerate() {
        main.watch(fd, token)?;
    }
    run.measure(|| main.turn(Some(run.idle_time()), |_| Ok(())))
}
