//! No descriptor is left, or only a few: what needs one fails with a typed error and leaves none
//! behind, and what needs none goes on.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fdmon::{AioContext, Error, EventNotifier, Handlers, MonitorKind};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{builder, monitor};
use crate::support::{Dice, Time, alone, open_fds};

/// The limit of this process.
const LIMIT: u64 = 256;

/// Takes all descriptors but this many.
fn take_all_but(left: usize) -> Vec<EventNotifier> {
    let mut taken = Vec::new();
    loop {
        match EventNotifier::new() {
            Ok(bell) => taken.push(bell),
            Err(error) => {
                assert_eq!(error.errno(), Some(Errno::MFILE.raw_os_error()), "{error}");
                break;
            }
        }
    }
    taken.truncate(taken.len().saturating_sub(left));
    taken
}

/// How many more can be opened now. A listing of /proc would need one itself.
fn free_fds() -> usize {
    std::iter::from_fn(|| EventNotifier::new().ok()).collect::<Vec<_>>().len()
}

/// It says which call found no descriptor, and what to do.
fn check_refusal(error: &Error) {
    assert!(error.is_syscall() || error.is_unsupported(), "{error:?}");
    assert_eq!(error.errno(), Some(Errno::MFILE.raw_os_error()), "{error:?}");
    assert!(error.to_string().contains("; "), "{error}");
}

/// A turn for a timer and a bottom half, which need no descriptor.
fn goes_on(ctx: &AioContext) {
    let runs = Rc::new(Cell::new(0));
    let (one, two) = (runs.clone(), runs.clone());
    let timer = ctx.timer(move |_| {
        one.set(one.get() + 1);
        Ok(())
    });
    let timer = timer.unwrap();
    timer.arm(Duration::from_micros(10)).unwrap();
    ctx.schedule(move |_| {
        two.set(two.get() + 1);
        Ok(())
    })
    .unwrap();
    while runs.get() < 2 {
        ctx.poll(true).unwrap();
    }
}

/// An event on an fd that was open before.
fn hears(ctx: &AioContext, bell: &EventNotifier, heard: &Rc<Cell<u32>>) {
    let before = heard.get();
    bell.set().unwrap();
    while heard.get() == before {
        ctx.poll(true).unwrap();
    }
}

/// SPEC 13, 45
#[test]
fn without_a_descriptor_left_nothing_is_lost_leaked_or_unexplained() {
    if !alone() {
        return;
    }
    let mut dice = Dice::new();
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum }).unwrap();
    let ctx = builder().build().unwrap();
    let (bell, heard) = (EventNotifier::new().unwrap(), Rc::new(Cell::new(0)));
    let handler = || {
        let (clear, counter) = (bell.clone(), heard.clone());
        Handlers::new().read(move |_| {
            counter.set(counter.get() + u32::from(clear.test_and_clear()?));
            Ok(())
        })
    };
    ctx.set_fd_handler(bell.clone(), handler()).unwrap();
    ctx.poll(false).unwrap();
    let start = open_fds();
    let (mut built, mut refused) = (0, 0);
    let time = Time::begins();
    while time.goes_on() {
        let left = dice.below(8);
        let taken = take_all_but(left);
        // The old context goes on: events, timers, registrations, its monitor.
        goes_on(&ctx);
        hears(&ctx, &bell, &heard);
        ctx.set_fd_handler(bell.clone(), handler()).unwrap();
        hears(&ctx, &bell, &heard);
        // Whatever needs descriptors gets them or says that there are none.
        let kind = if dice.below(3) == 0 { MonitorKind::Auto } else { monitor() };
        match AioContext::builder().monitor(kind).build() {
            Ok(other) => {
                built += 1;
                goes_on(&other);
                match other.backend_fd() {
                    Ok(_) => {
                        other.prepare().unwrap();
                        other.check().unwrap();
                    }
                    Err(error) => check_refusal(&error),
                }
                goes_on(&other);
                let own = taken.first().cloned();
                if let Some(own) = own {
                    let heard = Rc::new(Cell::new(0));
                    let (clear, counter) = (own.clone(), heard.clone());
                    let handlers = Handlers::new().read(move |_| {
                        counter.set(counter.get() + u32::from(clear.test_and_clear()?));
                        Ok(())
                    });
                    other.set_fd_handler(own.clone(), handlers).unwrap();
                    hears(&other, &own, &heard);
                }
            }
            Err(error) => {
                refused += 1;
                check_refusal(&error);
            }
        }
        assert_eq!(free_fds(), left, "something was left open");
        drop(taken);
        assert_eq!(open_fds(), start, "something was left open");
    }
    println!("{built} contexts built, {refused} refused");
    assert!(built > 0 && refused > 0);
    assert_eq!(ctx.stats().fallbacks, 0, "{}", ctx.monitor_reason());
}
