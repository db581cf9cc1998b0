//! Producers that are told not to signal while the loop spins, and notifications that end a spin.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use loom::thread::{self, JoinHandle};

use super::{News, check, check_within, notifies};
use crate::sync::{Arc, AtomicU32, Ordering, fence, in_order, kept, ordered};
use crate::{
    AioContext, EventNotifier, Handlers, ManualClock, MonitorKind, PolicyKind, PollParams,
    PollSource, WordSource,
};

pub(super) const WINDOW: u64 = 100_000;

/// The policy that opens the whole window after two short sleeps.
fn classic(max_ns: u64) -> PollParams {
    let policy = PolicyKind::Classic;
    PollParams { policy, max_ns, grow: u32::MAX, guards: false, ..PollParams::default() }
}

/// A context whose next blocking turn spins; on its clock one round is the whole window.
pub(super) fn spinning(kind: MonitorKind, idle_ns: u64) -> (AioContext, ManualClock) {
    let clock = ManualClock::new();
    let params = PollParams { idle_ns, ..classic(WINDOW) };
    let ctx = AioContext::builder().monitor(kind).poll(params).manual_clock(clock.clone()).build();
    let ctx = ctx.unwrap();
    for _ in 0..2 {
        let timer = ctx.timer(|_| Ok(())).unwrap();
        timer.arm(Duration::from_nanos(WINDOW - 1)).unwrap();
        assert!(ctx.poll(true).unwrap());
    }
    (ctx, clock)
}

/// A ring of which only the indices matter, and a doorbell that is silent on demand.
#[derive(Clone)]
pub(super) struct Ring {
    head: Arc<AtomicU32>,
    tail: Arc<AtomicU32>,
    suppress: Arc<AtomicU32>,
    news: News,
    bell: EventNotifier,
}

impl Ring {
    fn new() -> Self {
        let word = || Arc::new(AtomicU32::new(0));
        let (head, tail, suppress) = (word(), word(), word());
        Self { head, tail, suppress, news: News::none(), bell: EventNotifier::new().unwrap() }
    }

    /// What a producer does, as the documentation of [`WordSource::suppress`] has it.
    fn publish(&self) {
        let publish = || {
            let head = self.head.load(Ordering::Relaxed);
            self.head.store(head + 1, ordered("producer: release", Ordering::Release));
            if kept("producer: barrier") {
                fence(Ordering::SeqCst);
            }
        };
        let suppressed = || self.suppress.load(Ordering::Relaxed) != 0;
        let ((), suppressed) = in_order("producer: order", publish, suppressed);
        if !suppressed {
            self.bell.set().unwrap();
        }
    }

    /// A thread that publishes once, with news.
    pub fn producer(&self) -> JoinHandle<()> {
        let ring = self.clone();
        thread::spawn(move || {
            ring.news.tell();
            ring.publish();
        })
    }

    fn words(&self) -> WordSource {
        let source = WordSource::words_differ(Arc::clone(&self.head), Arc::clone(&self.tail));
        source.suppress(Arc::clone(&self.suppress)).unwrap()
    }

    fn take(&self) {
        // Only the home thread writes it.
        self.tail.store(self.head.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub fn taken(&self) -> u32 {
        self.tail.load(Ordering::Relaxed)
    }

    /// Registers the ring; the handler joins the spin list, and after a hit the context is in spin
    /// mode.
    fn spun(&self, ctx: &AioContext, source: impl PollSource) {
        let (rung, hit) = (self.clone(), self.clone());
        let handlers = Handlers::new()
            .read(move |_| {
                rung.bell.test_and_clear()?;
                rung.take();
                Ok(())
            })
            .poll(source)
            .poll_ready(move |_| {
                hit.take();
                assert!(hit.taken() != 3 || hit.news.is_told(), "found before it was written");
                Ok(())
            });
        ctx.set_fd_handler(self.bell.clone(), handlers).unwrap();
        for published in 1..=2 {
            self.publish();
            while self.taken() != published {
                ctx.poll(true).unwrap();
            }
        }
        assert_eq!(self.suppress.load(Ordering::Relaxed), 1, "in spin mode");
        self.bell.test_and_clear().unwrap();
    }

    /// Turns until the third is taken.
    fn takes(&self, ctx: &AioContext, producer: JoinHandle<()>) {
        while self.taken() != 3 {
            ctx.poll(true).unwrap();
        }
        producer.join().unwrap();
    }
}

/// A predicate whose hooks store and nothing else: the barrier is the loop's.
struct Bare(Ring);

impl PollSource for Bare {
    fn poll(&self) -> bool {
        self.0.head.load(Ordering::Acquire) != self.0.tail.load(Ordering::Relaxed)
    }

    fn poll_begin(&mut self) {
        self.0.suppress.store(1, Ordering::Relaxed);
    }

    fn poll_end(&mut self) {
        self.0.suppress.store(0, Ordering::Relaxed);
    }
}

/// Hooks as those of [`Bare`]; the next end runs something.
struct Nests {
    bare: Bare,
    at_end: Rc<RefCell<Option<Box<dyn FnOnce()>>>>,
}

impl PollSource for Nests {
    fn poll(&self) -> bool {
        self.bare.poll()
    }

    fn poll_begin(&mut self) {
        self.bare.poll_begin();
    }

    fn poll_end(&mut self) {
        self.bare.poll_end();
        let at_end = self.at_end.take();
        at_end.into_iter().for_each(|run| run());
    }
}

/// A context in spin mode, and what it spins on.
pub(super) fn in_spin_mode(kind: MonitorKind) -> (AioContext, Ring) {
    let (ctx, _clock) = spinning(kind, 1 << 40);
    let ring = Ring::new();
    ring.spun(&ctx, ring.words());
    (ctx, ring)
}

/// A context in spin mode whose `poll_end` will run this, in the turn that goes to sleep next.
pub(super) fn nesting(kind: MonitorKind, at_end: fn(&AioContext)) -> Rc<AioContext> {
    let (ctx, _clock) = spinning(kind, 1 << 40);
    let ctx = Rc::new(ctx);
    let ring = Ring::new();
    let hook = Rc::new(RefCell::new(None));
    ring.spun(&ctx, Nests { bare: Bare(ring.clone()), at_end: Rc::clone(&hook) });
    let weak = Rc::downgrade(&ctx);
    // Where no turn went to sleep it runs when the context is dropped, which is nothing's end.
    let nests = move || weak.upgrade().iter().for_each(|ctx| at_end(ctx));
    *hook.borrow_mut() = Some(Box::new(nests) as Box<dyn FnOnce()>);
    ctx
}

/// A turn that sleeps, and is woken by a bell of its own.
pub(super) fn nap(ctx: &AioContext) {
    let bell = EventNotifier::with_value(1).unwrap();
    let (clear, woken) = (bell.clone(), Rc::new(Cell::new(false)));
    let wakes = Rc::clone(&woken);
    let handlers = Handlers::new().read(move |_| {
        wakes.set(clear.test_and_clear()?);
        Ok(())
    });
    let token = ctx.set_fd_handler(bell, handlers).unwrap();
    while !woken.get() {
        ctx.poll(true).unwrap();
    }
    ctx.deregister(&token).unwrap();
}

/// SPEC 25
#[test]
fn a_producer_with_a_suppress_word_loses_no_event_when_a_turn_goes_to_sleep() {
    check(|| {
        let (ctx, _clock) = spinning(MonitorKind::Epoll, 1 << 40);
        let ring = Ring::new();
        ring.spun(&ctx, ring.words());
        let producer = ring.producer();
        ring.takes(&ctx, producer);
    });
}

/// SPEC 25
#[test]
fn hooks_that_only_store_lose_no_event_when_a_turn_goes_to_sleep() {
    check(|| {
        let (ctx, _clock) = spinning(MonitorKind::Epoll, 1 << 40);
        let ring = Ring::new();
        ring.spun(&ctx, Bare(ring.clone()));
        let producer = ring.producer();
        ring.takes(&ctx, producer);
    });
}

/// SPEC 25, 29
#[test]
fn a_producer_whose_handler_leaves_the_spin_list_loses_no_event() {
    check(|| {
        let (ctx, clock) = spinning(MonitorKind::IoUring, 1 << 40);
        let ring = Ring::new();
        ring.spun(&ctx, ring.words());
        clock.advance_ns(1 << 41);
        // Another, that begins anew in the same spin: the context stays in spin mode.
        let producer = ring.producer();
        ring.takes(&ctx, producer);
    });
}

/// SPEC 7, 11, 25
#[test]
fn a_producer_whose_handler_is_replaced_loses_no_event() {
    check_within(6, || {
        let (ctx, _clock) = spinning(MonitorKind::Epoll, 1 << 40);
        let ring = Ring::new();
        ring.spun(&ctx, ring.words());
        let producer = ring.producer();
        let (rung, hit) = (ring.clone(), ring.clone());
        let handlers = Handlers::new()
            .read(move |_| {
                rung.bell.test_and_clear()?;
                rung.take();
                Ok(())
            })
            .poll(WordSource::words_differ(Arc::clone(&ring.head), Arc::clone(&ring.tail)))
            .poll_ready(move |_| {
                hit.take();
                Ok(())
            });
        ctx.set_fd_handler(ring.bell.clone(), handlers).unwrap();
        ring.takes(&ctx, producer);
    });
}

/// SPEC 25
#[test]
fn whoever_looks_at_the_ring_after_the_removal_of_its_handler_loses_no_event() {
    check_within(6, || {
        let (ctx, _clock) = spinning(MonitorKind::Epoll, 1 << 40);
        let ring = Ring::new();
        ring.spun(&ctx, ring.words());
        let producer = ring.producer();
        ctx.remove_fd_handler(ring.bell.as_raw_fd());
        ring.take();
        let taken = ring.taken();
        producer.join().unwrap();
        assert!(taken == 3 || ring.bell.test_and_clear().unwrap(), "neither seen nor signalled");
    });
}

/// SPEC 23, 35
#[test]
fn a_notification_ends_a_spin() {
    check(|| {
        let clock = ManualClock::new();
        let endless = 1_000_000_000;
        let ctx = AioContext::builder().monitor(MonitorKind::Epoll).poll(classic(endless));
        let ctx = ctx.manual_clock(clock.clone()).build().unwrap();
        for _ in 0..2 {
            let timer = ctx.timer(|_| Ok(())).unwrap();
            timer.arm(Duration::from_nanos(endless - 1)).unwrap();
            assert!(ctx.poll(true).unwrap());
        }
        clock.set_step_ns(1);
        let (news, other) = notifies(&ctx);
        while !news.is_told() {
            ctx.poll(true).unwrap();
        }
        other.join().unwrap();
    });
}

/// SPEC 19, 33, 34
#[test]
fn a_turn_is_woken_although_a_nested_one_slept_and_took_notifications_in_its_hook() {
    check_within(4, || {
        let ctx = nesting(MonitorKind::Epoll, nap);
        let (news, other) = notifies(&ctx);
        while !news.is_told() {
            ctx.poll(true).unwrap();
        }
        other.join().unwrap();
    });
}

/// SPEC 19, 25
#[test]
fn a_turn_whose_hook_enters_spin_mode_again_loses_no_event() {
    check(|| {
        let (ctx, _clock) = spinning(MonitorKind::Epoll, 1 << 40);
        let ctx = Rc::new(ctx);
        let (first, second) = (Ring::new(), Ring::new());
        let hook = Rc::new(RefCell::new(None));
        first.news.tell();
        first.spun(&ctx, first.words());
        second.spun(&ctx, Nests { bare: Bare(second.clone()), at_end: Rc::clone(&hook) });
        let (weak, ring) = (Rc::downgrade(&ctx), first.clone());
        let nests = move || {
            ring.publish();
            while ring.taken() != 3 {
                assert!(weak.upgrade().unwrap().poll(true).unwrap());
            }
            ring.bell.test_and_clear().unwrap();
        };
        *hook.borrow_mut() = Some(Box::new(nests) as Box<dyn FnOnce()>);
        ctx.poll(true).unwrap();
        let producer = first.producer();
        while first.taken() != 4 {
            ctx.poll(true).unwrap();
        }
        producer.join().unwrap();
    });
}
