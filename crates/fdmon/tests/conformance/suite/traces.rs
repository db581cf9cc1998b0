//! Traces: what they say of a turn, that their steps nest whatever happens, and that nothing of it
//! disturbs the loop. The schema of the text is looked at by the tests of the package.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use fdmon::{AioContext, EventNotifier, Handlers, IoEngine, Trace, TraceOptions, TraceOutput};
use serde_json::Value;

use super::file_io;
use super::{builder, context, manual, spinning};
use crate::support::{Count, Predicate, WINDOW, block, member, rung, sleep_for};

/// Where a trace is written to, and may be looked at.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn trace(ctx: &AioContext) -> (Trace, Paper) {
    let paper = Paper::default();
    let trace = ctx.trace_with(TraceOutput::writer(paper.clone()), &TraceOptions::default());
    (trace.unwrap(), paper)
}

/// A step from begin to end, in nanoseconds.
#[derive(Debug)]
struct Slice {
    name: String,
    track: u64,
    begin: u64,
    end: u64,
    args: Value,
}

impl Slice {
    fn holds(&self, other: &Self) -> bool {
        self.track == other.track && self.begin < other.begin && other.end < self.end
    }

    fn arg(&self, name: &str) -> u64 {
        self.args[name].as_u64().unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

/// What a trace has said.
struct Said {
    events: Vec<Value>,
    slices: Vec<Slice>,
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times")]
fn ns(micros: &Value) -> u64 {
    (micros.as_f64().unwrap() * 1000.0).round() as u64
}

impl Said {
    /// The steps of a track lie one within the other, or one behind the other.
    #[track_caller]
    fn of(paper: &Paper) -> Self {
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        let slices = events.iter().filter(|event| event["ph"] == "X").map(|event| Slice {
            name: event["name"].as_str().unwrap().into(),
            track: event["tid"].as_u64().unwrap(),
            begin: ns(&event["ts"]),
            end: ns(&event["ts"]) + ns(&event["dur"]),
            args: event["args"].clone(),
        });
        let mut slices: Vec<Slice> = slices.collect();
        slices.sort_by_key(|slice| slice.begin);
        for (at, one) in slices.iter().enumerate() {
            for other in &slices[at + 1..] {
                let apart = one.end < other.begin || one.track != other.track;
                assert!(apart || one.holds(other), "{one:?} crosses {other:?}");
            }
        }
        Self { events, slices }
    }

    #[track_caller]
    fn finished(trace: Trace, paper: &Paper) -> Self {
        assert_eq!(trace.dropped(), 0);
        trace.finish().unwrap();
        Self::of(paper)
    }

    fn slices(&self, name: &str) -> Vec<&Slice> {
        self.slices.iter().filter(|slice| slice.name == name).collect()
    }

    #[track_caller]
    fn slice(&self, name: &str) -> &Slice {
        let found = self.slices(name);
        assert_eq!(found.len(), 1, "{name}");
        found[0]
    }

    fn events(&self, name: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["name"] == name).collect()
    }
}

/// SPEC 54
#[test]
fn a_turn_a_spin_and_a_sleep_are_steps_with_what_there_is_to_say_of_them() {
    let (ctx, clock) = spinning();
    let predicate = Predicate::new();
    let runs = member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let (trace, paper) = trace(&ctx);
    sleep_for(&ctx, 10 * WINDOW);
    assert_eq!(ctx.stats().window_ns, 0, "the policy did not like that");
    let middle = clock.now_ns();
    predicate.say(true);
    assert!(ctx.poll(false).unwrap());
    assert_eq!(runs.get(), 1);
    let said = Said::finished(trace, &paper);

    let turns = said.slices("turn");
    assert_eq!(turns.len(), 2);
    assert!(turns.iter().all(|turn| turn.args["progress"] == true));
    assert_eq!(
        (&turns[0].args["blocking"], &turns[1].args["blocking"]),
        (&true.into(), &false.into())
    );
    let spin = said.slices("spin")[0];
    assert!(turns[0].holds(spin));
    assert_eq!((spin.arg("window_ns"), spin.args["result"].as_str()), (WINDOW, Some("miss")));
    assert_eq!(spin.arg("rounds"), 1, "the clock stood still after the first");
    let sleep = said.slice("sleep");
    assert!(turns[0].holds(sleep) && spin.end < sleep.begin);
    assert_eq!((sleep.arg("timeout_ns"), sleep.arg("ready")), (9 * WINDOW, 0));
    assert!((sleep.end - sleep.begin).abs_diff(9 * WINDOW) < 100);
    assert!(turns[1].begin >= middle);
    assert!(turns[0].holds(said.slice("timer")));
    let windows: Vec<_> = said.events.iter().filter(|event| event["ph"] == "C").collect();
    let windows: Vec<_> = windows.iter().map(|event| event["args"]["ns"].as_u64()).collect();
    assert_eq!(windows[..2], [Some(WINDOW), Some(0)]);
    let ended = said.events("trace ended");
    assert_eq!(ended[0]["args"]["dropped"], 0);
}

/// SPEC 54
#[test]
fn rounds_of_a_spin_are_counted() {
    let (ctx, clock) = spinning();
    clock.set_step_ns(100);
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let (asked, late) = (Count::new(), predicate.clone());
    let rounds = asked.clone();
    predicate.on_poll(move || {
        rounds.bump();
        late.say(rounds.get() == 7);
    });
    let (trace, paper) = trace(&ctx);
    assert!(block(&ctx));
    let said = Said::finished(trace, &paper);
    let spin = said.slice("spin");
    assert_eq!((spin.arg("rounds"), spin.args["result"].as_str()), (7, Some("hit")));
    assert_eq!(asked.get(), 7);
}

/// SPEC 54
#[test]
fn callbacks_say_whose_they_are() {
    let (ctx, _clock) = manual();
    let named = rung();
    let plain = rung();
    let clear = |bell: &EventNotifier| {
        let bell = bell.clone();
        Handlers::new().read(move |_| {
            bell.test_and_clear()?;
            Ok(())
        })
    };
    // Longer than what is shown, with a letter of two bytes across its end.
    let name = format!("{}ß and more", "n".repeat(39));
    ctx.set_fd_handler(named.clone(), clear(&named).name(name)).unwrap();
    ctx.set_fd_handler(plain.clone(), clear(&plain)).unwrap();
    let (trace, paper) = trace(&ctx);
    assert!(ctx.poll(true).unwrap());
    named.set().unwrap();
    assert!(ctx.poll(true).unwrap());
    ctx.schedule(|_| Ok(())).unwrap();
    ctx.remote().run(|_| ()).unwrap();
    assert!(ctx.poll(true).unwrap());
    let said = Said::finished(trace, &paper);
    let shown = "n".repeat(39);
    let runs = said.slices(&shown);
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert_eq!(run.args["name"], shown.as_str());
        assert_eq!(run.arg("fd"), u64::try_from(named.as_raw_fd()).unwrap());
        assert_eq!(
            (run.args["callbacks"].as_str(), run.args["events"].as_str()),
            (Some("read"), Some("IN"))
        );
    }
    assert_eq!(said.slice(&format!("fd {}", plain.as_raw_fd())).args["name"], Value::Null);
    assert_eq!((said.slices("bottom half").len(), said.slices("job").len()), (1, 1));
    let turns = said.slices("turn");
    assert_eq!(turns.len(), 3);
    assert!(said.slices.iter().all(|slice| slice.name == "turn"
        || slice.name == "notify"
        || turns.iter().any(|turn| turn.holds(slice))));
}

/// SPEC 19, 21, 54
#[test]
fn steps_nest_also_where_turns_do_and_callbacks_panic() {
    let (ctx, _clock) = manual();
    let (trace, paper) = trace(&ctx);
    ctx.schedule(|ops| {
        ops.schedule(|_| panic!("on purpose"))?;
        ops.schedule(|_| Err("on purpose".into()))?;
        let inner = catch_unwind(AssertUnwindSafe(|| ops.poll(true)));
        assert!(inner.is_err());
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).is_err());
    ctx.schedule(|_| panic!("on purpose")).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| ctx.poll(true))).is_err());
    let said = Said::finished(trace, &paper);
    let (turns, halves) = (said.slices("turn"), said.slices("bottom half"));
    assert_eq!((turns.len(), halves.len()), (3, 4));
    assert!(turns[0].holds(halves[0]) && halves[0].holds(turns[1]));
    assert!(turns[1].holds(halves[1]) && turns[1].holds(halves[2]) && turns[2].holds(halves[3]));
}

/// SPEC 32, 54
#[test]
fn a_wake_up_from_another_thread_is_an_arrow_between_two_tracks() {
    let ctx = context();
    let (trace, paper) = trace(&ctx);
    for round in 0..3 {
        let remote = ctx.remote();
        let waker = std::thread::Builder::new().name(format!("waker {round}"));
        let waker = waker.spawn(move || {
            while remote.stats().sleeps == round {
                std::thread::yield_now();
            }
            remote.run(|_| ()).unwrap();
        });
        assert!(block(&ctx));
        waker.unwrap().join().unwrap();
    }
    let said = Said::finished(trace, &paper);
    let phase = |phase: &str| {
        let of = said.events.iter().filter(|event| event["ph"] == *phase);
        of.collect::<Vec<_>>()
    };
    let (starts, ends) = (phase("s"), phase("f"));
    assert_eq!((starts.len(), ends.len()), (3, 3));
    let names = said.events("thread_name");
    for (round, (start, end)) in starts.iter().zip(&ends).enumerate() {
        assert_eq!(start["id"], end["id"]);
        assert!(ns(&start["ts"]) <= ns(&end["ts"]));
        assert_ne!(start["tid"], end["tid"]);
        assert_eq!(end["tid"], ctx.id());
        let name = names.iter().find(|name| name["tid"] == start["tid"]).unwrap();
        let name = name["args"]["name"].as_str().unwrap();
        assert!(name.starts_with(&format!("waker {round} ")), "{name}");
        let at = ns(&end["ts"]);
        assert!(said.slices("turn").iter().any(|turn| turn.begin < at && at < turn.end));
        let at = ns(&start["ts"]);
        assert!(said.slices("notify").iter().any(|notify| notify.begin == at));
    }
}

/// SPEC 50, 54
#[test]
fn an_outer_loop_sleeps_between_two_steps() {
    let ctx = context();
    ctx.backend_fd().unwrap(); // before the first turn
    let (trace, paper) = trace(&ctx);
    ctx.schedule(|ops| {
        ops.context().prepare()?;
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    ctx.check().unwrap(); // of a sleep that began in a turn
    assert_eq!(ctx.prepare().unwrap(), None);
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    let said = Said::finished(trace, &paper);
    let sleep = said.slice("outer sleep");
    assert_eq!(sleep.args["timeout_ns"], Value::Null);
    let (prepare, check) = (said.slices("prepare"), said.slices("check"));
    assert!(prepare[1].end < sleep.begin && sleep.end < check[1].begin);
    assert_eq!((sleep.arg("ready"), check[1].arg("ready")), (1, 1));
    assert!(said.slice("dispatch").holds(said.slices("bottom half")[1]));
    assert_eq!(said.slice("dispatch").args["progress"], true);
}

/// SPEC 48, 54
#[test]
fn batches_of_file_io_say_how_many_requests_they_have() {
    for engine in file_io::ENGINES {
        let ctx = file_io::on(engine);
        let file = file_io::file(&[7; 4096]);
        let (trace, paper) = trace(&ctx);
        let done = Count::new();
        ctx.plug(|| {
            for at in 0..5 {
                let done = done.clone();
                let read =
                    ctx.read_at(Rc::clone(&file), vec![0; 16], at * 16, move |_, result, _| {
                        assert_eq!(result.unwrap(), 16);
                        done.bump();
                    });
                read.unwrap();
            }
        });
        while done.get() < 5 {
            ctx.poll(true).unwrap();
        }
        let said = Said::finished(trace, &paper);
        let sum = |name: &str| {
            let counts = said.events(name);
            counts.iter().map(|event| event["args"][name].as_u64().unwrap()).sum::<u64>()
        };
        assert_eq!((said.events("submitted").len(), sum("submitted"), sum("completed")), (1, 5, 5));
        assert_eq!(said.slices("completion").len(), 5, "{engine:?}");
        if engine == IoEngine::IoUring {
            assert_eq!(said.events("submitted")[0]["args"]["in_flight"], 5);
        }
    }
}

/// SPEC 38, 54
#[test]
fn a_trace_ends_with_its_context_also_in_a_callback() {
    let (ctx, _clock) = manual();
    let ctx = Rc::new(ctx);
    let (trace, paper) = trace(&ctx);
    let closing = Rc::clone(&ctx);
    ctx.schedule(move |_| {
        closing.close();
        Ok(())
    })
    .unwrap();
    let _ = ctx.poll(true);
    let said = Said::of(&paper);
    assert!(said.slice("turn").holds(said.slice("bottom half")));
    trace.finish().unwrap();
    assert!(ctx.trace("nowhere.json").unwrap_err().is_closed());
}

/// SPEC 13, 54
#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (ctx, _clock) = manual();
    for events in [0, 63, (1 << 24) + 1, u32::MAX] {
        let mut options = TraceOptions::default();
        options.events = events;
        let error = ctx.trace_with(TraceOutput::writer(io::sink()), &options).unwrap_err();
        assert!(error.is_invalid_arg());
        assert!(error.to_string().contains(&format!("events = {events}")), "{error}");
    }
    for path in ["", "a\0b"] {
        let error = ctx.trace(path).unwrap_err();
        assert!(error.is_invalid_arg() && error.to_string().contains("file = "), "{error}");
    }
    let error = ctx.trace("/proc/no/such/file.json").unwrap_err();
    assert_eq!((error.is_syscall(), error.syscall_name()), (true, Some("openat")));
    assert!(error.to_string().contains("/proc/no/such/file.json"), "{error}");
    let (trace, paper) = trace(&ctx);
    let error = ctx.trace_with(TraceOutput::writer(io::sink()), &TraceOptions::default());
    assert!(error.unwrap_err().is_in_use());
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(Said::finished(trace, &paper).slices("turn").len(), 1);
}

/// Takes some bytes, then none.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = bytes.len().min(self.0);
        self.0 -= size;
        if size == 0 { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(size) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// SPEC 54
#[test]
fn an_error_of_writing_disturbs_no_turn_and_comes_out_at_the_end() {
    let ctx = context();
    let trace = ctx.trace_with(TraceOutput::writer(Full(700)), &TraceOptions::default()).unwrap();
    let runs = Count::new();
    for _ in 0..50 {
        ctx.schedule(runs.callback()).unwrap();
        assert!(ctx.poll(true).unwrap());
    }
    assert_eq!(runs.get(), 50);
    let events = trace.events();
    let error = trace.stop().unwrap_err();
    assert_eq!(
        (error.is_syscall(), error.errno()),
        (true, Some(rustix::io::Errno::NOSPC.raw_os_error()))
    );
    assert_eq!(trace.dropped(), events, "all that is not in the file counts");
    assert!(ctx.poll(false).is_ok());
}

/// SPEC 54
#[test]
fn what_finds_no_room_is_counted() {
    let (ctx, _clock) = manual();
    let paper = Paper::default();
    let mut options = TraceOptions::default();
    options.events = 64;
    let trace = ctx.trace_with(TraceOutput::writer(paper.clone()), &options).unwrap();
    for _ in 0..20_000 {
        ctx.poll(false).unwrap();
    }
    let (events, dropped) = (trace.events(), trace.dropped());
    assert!(dropped > 0 && events + dropped > 20_000);
    trace.finish().unwrap();
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    let said: Vec<Value> = serde_json::from_str(&text).unwrap();
    let of = |name: &'static str| said.iter().filter(move |event| event["name"] == name);
    let told: u64 = of("dropped").map(|event| event["args"]["dropped"].as_u64().unwrap()).sum();
    assert_eq!(told, dropped);
    let ended = of("trace ended").next().unwrap();
    assert_eq!(
        (&ended["args"]["events"], &ended["args"]["dropped"]),
        (&events.into(), &dropped.into())
    );
}

/// A file that goes with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let file = format!("fdmon-{}-{}-{name}.json", super::instance(), std::process::id());
        Self(std::env::temp_dir().join(file))
    }

    fn read(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(&self.0).unwrap()).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// SPEC 54
#[test]
fn a_file_is_an_array_while_it_grows_and_an_object_in_the_end() {
    let file = Temporary::new("forms");
    let ctx = builder().name("first").build().unwrap();
    let trace = ctx.trace(&file.0).unwrap();
    let other = std::thread::spawn({
        let path = file.0.clone();
        move || {
            let ctx = builder().name("second").build().unwrap();
            let trace = ctx.trace(path).unwrap();
            ctx.poll(false).unwrap();
            trace.finish().unwrap();
        }
    });
    other.join().unwrap();
    let text = std::fs::read_to_string(&file.0).unwrap();
    assert!(text.starts_with("[{\"name\":\"process_name\""));
    let array: Value = serde_json::from_str(&(text + "]")).unwrap();
    assert!(array.as_array().unwrap().len() > 3);
    ctx.poll(false).unwrap();
    trace.finish().unwrap();
    let whole = file.read();
    assert_eq!(
        (&whole["displayTimeUnit"], &whole["otherData"]["dropped"]),
        (&"ns".into(), &"0".into())
    );
    let events = whole["traceEvents"].as_array().unwrap();
    assert_eq!(events.iter().filter(|event| event["name"] == "turn").count(), 2);
    assert_eq!(events.iter().filter(|event| event["name"] == "thread_name").count(), 2);
    assert_eq!(trace_length(&ctx, &file), 3, "the next trace begins anew");
}

fn trace_length(ctx: &AioContext, file: &Temporary) -> usize {
    ctx.trace(&file.0).unwrap().finish().unwrap();
    // The process, the track, the window; and the end.
    file.read()["traceEvents"].as_array().unwrap().len() - 1
}
