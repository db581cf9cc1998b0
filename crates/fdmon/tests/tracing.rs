//! The feature `tracing`: what a subscriber hears of a context, and that it can do it no harm.
//!
//! Which points there are and what they say is tested on every monitor, in
//! `conformance/suite/tracing.rs`; here it is about how they reach a subscriber:
//! `cargo test --features tracing --test tracing`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fdmon::{
    AioContext, EventNotifier, Handlers, ManualClock, MonitorKind, PolicyKind, PollParams,
    RingMode, RingParams,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const WINDOW: u64 = 100_000;

/// Each span and event as one line: its level, message or name, and fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Fields {
    fn line(mut self, metadata: &Metadata<'_>) -> String {
        assert_eq!(metadata.target(), "fdmon");
        let name = self.0.remove("message").unwrap_or_else(|| metadata.name().to_owned());
        let fields: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {name}: {}", metadata.level(), fields.join(" "))
    }
}

/// Writes lines, and calls somebody for each.
struct Recorder {
    most: Level,
    lines: Lines,
    names: Mutex<Vec<String>>,
    ids: AtomicU64,
    each: fn(&str),
}

impl Recorder {
    fn new(lines: &Lines, most: Level, each: fn(&str)) -> Self {
        let (lines, names, ids) = (lines.clone(), Mutex::default(), AtomicU64::new(0));
        Self { most, lines, names, ids, each }
    }

    fn add(&self, line: String) {
        let words = line.clone();
        self.lines.add(line);
        (self.each)(&words);
    }

    fn name(&self, id: &Id) -> String {
        let at = usize::try_from(id.into_u64() - 1).unwrap();
        self.names.lock().unwrap()[at].clone()
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "fdmon" && *metadata.level() <= self.most
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        self.names.lock().unwrap().push(fields.line(span.metadata()));
        Id::from_u64(self.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.add(fields.line(event.metadata()));
    }

    fn enter(&self, id: &Id) {
        self.add(format!("> {}", self.name(id)));
    }

    fn exit(&self, id: &Id) {
        self.add(format!("< {}", self.name(id)));
    }
}

fn nothing(_: &str) {}

/// Runs it with a subscriber that hears this much, and returns the lines.
fn heard<T>(most: Level, each: fn(&str), run: impl FnOnce(&Lines) -> T) -> (T, Vec<String>) {
    let lines = Lines::default();
    let subscriber = Recorder::new(&lines, most, each);
    let result = tracing::subscriber::with_default(subscriber, || run(&lines));
    (result, lines.take())
}

fn spinning() -> (AioContext, ManualClock) {
    let clock = ManualClock::new();
    let policy = PolicyKind::Classic;
    let (grow, guards) = (u32::MAX, false);
    let params = PollParams { max_ns: WINDOW, grow, policy, guards, ..PollParams::default() };
    let builder = AioContext::builder().monitor(MonitorKind::Epoll).poll(params);
    (builder.manual_clock(clock.clone()).build().unwrap(), clock)
}

fn sleep_for(ctx: &AioContext, ns: u64) {
    let timer = ctx.timer(|_| Ok(())).unwrap();
    timer.arm(Duration::from_nanos(ns)).unwrap();
    ctx.poll(true).unwrap();
}

/// A handler whose predicate says yes when it is told to; it has joined the spin list.
fn member(ctx: &AioContext) -> (EventNotifier, Rc<Cell<bool>>) {
    let (bell, due) = (EventNotifier::new().unwrap(), Rc::new(Cell::new(false)));
    let (says, taken) = (due.clone(), due.clone());
    let handlers = Handlers::new().poll(move || says.get()).poll_ready(move |_| {
        taken.set(false);
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    due.set(true);
    assert!(ctx.poll(false).unwrap());
    (bell, due)
}

/// SPEC 54
#[test]
fn a_spin_is_a_span_and_the_rest_are_events_in_the_order_in_which_it_happened() {
    let (ctx, _clock) = spinning();
    let id = ctx.id();
    let (fd, lines) = heard(Level::TRACE, nothing, |_| {
        let (bell, due) = member(&ctx);
        sleep_for(&ctx, WINDOW - 1);
        sleep_for(&ctx, WINDOW - 1);
        due.set(true);
        ctx.poll(true).unwrap();
        sleep_for(&ctx, WINDOW / 2);
        ctx.remove_fd_handler(bell.as_raw_fd());
        ctx.set_poll_params(PollParams::default()).unwrap();
        bell.as_raw_fd()
    });
    let spin = |window: u64| format!("TRACE spin: context={id} window_ns={window}");
    let ended = |result, spent, window| {
        format!(
            "TRACE spin ended: context={id} result={result} spent_ns={spent} window_ns={window}"
        )
    };
    let window = |change, from, to| {
        format!("TRACE window changed: change={change} context={id} from_ns={from} to_ns={to}")
    };
    let expected = [
        format!("DEBUG handler joined the spin list: context={id} fd={fd}"),
        window("grown", 0, 4000),
        format!("> {}", spin(4000)),
        ended("miss", 4000, 4000),
        format!("< {}", spin(4000)),
        window("grown", 4000, WINDOW),
        format!("> {}", spin(WINDOW)),
        ended("hit", 0, WINDOW),
        format!("< {}", spin(WINDOW)),
        format!("> {}", spin(WINDOW / 2)),
        ended("timeout", WINDOW / 2, WINDOW / 2),
        format!("< {}", spin(WINDOW / 2)),
        format!("DEBUG handler left the spin list: context={id} fd={fd}"),
        window("shrunk", WINDOW, 0),
    ];
    assert!(has_in_order(&lines, &expected), "{lines:#?}\n{expected:#?}");
}

/// All of them, one after the other; others may stand between them.
fn has_in_order(lines: &[String], expected: &[String]) -> bool {
    let mut rest = lines.iter();
    expected.iter().all(|wanted| rest.any(|line| line == wanted))
}

/// SPEC 54
#[test]
fn another_monitor_is_an_event_with_the_reason() {
    let ring = RingParams { mode: RingMode::Off, ..RingParams::default() };
    let ((id, reason), lines) = heard(Level::DEBUG, nothing, |_| {
        let ctx = AioContext::builder().ring(ring).build().unwrap();
        for _ in 0..64 {
            let bell = EventNotifier::new().unwrap();
            ctx.set_fd_handler(bell, Handlers::new().read(|_| Ok(()))).unwrap();
        }
        ctx.poll(false).unwrap();
        (ctx.id(), ctx.monitor_reason())
    });
    let expected =
        format!("DEBUG monitor switched: context={id} from=poll reason={reason} to=epoll");
    assert_eq!(lines, [expected]);
}

/// SPEC 54
#[test]
fn what_a_subscriber_does_not_want_it_does_not_hear() {
    let run = |_: &Lines| {
        let (ctx, _clock) = spinning();
        let (_bell, due) = member(&ctx);
        sleep_for(&ctx, WINDOW - 1);
        due.set(true);
        ctx.poll(true).unwrap();
        sleep_for(&ctx, WINDOW - 1);
    };
    let (_, lines) = heard(Level::DEBUG, nothing, run);
    assert_eq!(lines.len(), 2, "joined, and left by the close: {lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with("DEBUG handler ")), "{lines:#?}");
    let (_, lines) = heard(Level::INFO, nothing, run);
    assert_eq!(lines, [""; 0]);
}

thread_local! {
    static CTX: RefCell<Option<Rc<AioContext>>> = const { RefCell::new(None) };
}

/// SPEC 54
#[test]
fn a_subscriber_may_use_the_context_that_it_is_told_of() {
    let (ctx, _clock) = spinning();
    let ctx = Rc::new(ctx);
    let ran = Rc::new(Cell::new(0));
    CTX.set(Some(ctx.clone()));
    let use_it: fn(&str) = |_| {
        CTX.with_borrow(|ctx| {
            let ctx = ctx.as_ref().unwrap();
            ctx.schedule(|_| Ok(())).unwrap();
            assert!(ctx.stats().turns < 1000);
            assert_eq!(ctx.poll_params().max_ns, WINDOW);
        });
    };
    let (_, lines) = heard(Level::TRACE, use_it, |_| {
        let (_bell, due) = member(&ctx);
        for _ in 0..5 {
            sleep_for(&ctx, WINDOW - 1);
            due.set(true);
            ctx.poll(true).unwrap();
        }
        let counter = ran.clone();
        let half = ctx.bottom_half(move |_| {
            counter.set(counter.get() + 1);
            Ok(())
        });
        let half = half.unwrap();
        half.schedule();
        ctx.poll(true).unwrap();
    });
    CTX.take();
    assert_eq!(ran.get(), 1);
    assert!(lines.len() >= 10, "{lines:#?}");
}

/// SPEC 21, 54
#[test]
fn a_subscriber_that_panics_breaks_no_turn_and_its_panic_is_reported_after_it() {
    let fail: fn(&str) = |line| assert!(!line.contains("window changed"), "on purpose");
    let (ran, lines) = heard(Level::TRACE, fail, |_| {
        let (ctx, _clock) = spinning();
        let (_bell, due) = member(&ctx);
        let ran = Rc::new(Cell::new(false));
        let flag = ran.clone();
        let timer = ctx.timer(move |_| {
            flag.set(true);
            Ok(())
        });
        let timer = timer.unwrap();
        timer.arm(Duration::from_nanos(WINDOW - 1)).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| ctx.poll(true))).is_err());
        assert!(ran.get(), "the callbacks of the turn ran");
        due.set(true);
        assert!(ctx.poll(false).unwrap(), "and the context goes on");
        ran.get()
    });
    assert!(ran);
    assert!(lines.iter().any(|line| line.contains("window changed")), "{lines:#?}");
}
