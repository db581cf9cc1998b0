//! Where random programs come from: a proptest strategy, whose shrinking leaves of a failing
//! program what makes it fail.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

use crate::program::{
    COSTS, Call, Code, FILES, Handler, Hook, LONGEST, LONGEST_INSIDE, Meanwhile, OF_EACH, OFTEN,
    Poll, Program, Spin, Step, Steps, TIMES,
};

/// How deep steps lie in steps: a random program is nested less than a fuzzer's may be.
const DEPTH: usize = 3;

/// Programs of anything, and some that come to what is rare among those: long spins, files that
/// change while a ring waits for them, and moves that do not arrive.
pub fn programs() -> BoxedStrategy<Program> {
    let mut inside = Just(Steps::default()).boxed();
    for _ in 0..DEPTH {
        inside = steps(&inside, LONGEST_INSIDE);
    }
    let three = [inside.clone(), inside.clone(), inside.clone()];
    let any = (spin(), three.clone(), three.clone(), steps(&inside, LONGEST));
    let spins = select(vec![Spin::Fixed, Spin::Jumping, Spin::Doubling]);
    let spinning = (spins, three.clone(), three.clone(), spinning(&inside));
    let changing = (spin(), three.clone(), three.clone(), changing());
    let moving = (spin(), three.clone(), three, moving(&inside));
    prop_oneof![8 => any, 4 => spinning, 1 => changing, 1 => moving]
        .prop_map(|(spin, halves, timers, steps)| Program { spin, halves, timers, steps })
        .boxed()
}

/// Some handlers with predicates become members, and then there are long spins that much happens
/// in. On poll and epoll a handler without a predicate would prevent that.
fn spinning(inside: &BoxedStrategy<Steps>) -> BoxedStrategy<Steps> {
    let member = || {
        // What asking costs is what lets a spin take several rounds.
        let code = (select(vec![300, 7_000]), select(vec![2, 3, 5, 9]), meanwhile(few()));
        let ready = call(inside);
        let code = (code, hook(), ready).prop_map(|((ns, every, meanwhile), end, ready)| {
            let code = Code { ns, every, meanwhile, end, ..Code::default() };
            Poll::Code { code, ready }
        });
        let poll = prop_oneof![3 => code, 2 => predicate(inside)];
        let handler = (weighted(0.3, call(inside)), poll, any::<bool>());
        (few(), handler).prop_map(|(at, (read, poll, movable))| {
            let handler = Handler { read, poll, movable, ..Handler::default() };
            vec![
                Step::Register { at, handler },
                Step::Word { at, on: true },
                Step::Poll,
                Step::Word { at, on: false },
            ]
        })
    };
    let then = prop_oneof![
        8 => time().prop_map(|ns| Step::Block { ns }),
        3 => few().prop_map(|at| Step::Word { at, on: false }),
        1 => few().prop_map(|at| Step::Word { at, on: true }),
        1 => few().prop_map(|at| Step::Produce { at }),
        2 => few().prop_map(|at| Step::Take { at }),
        1 => (one_of_three(), time()).prop_map(|(turns, ns)| Step::Until { turns, ns }),
        1 => inside.clone().prop_map(|between| Step::Embed { between }),
        2 => step(inside),
    ];
    (vec(member(), 1..4), vec(then, 0..=LONGEST / 2))
        .prop_map(|(members, then)| Steps(members.into_iter().flatten().chain(then).collect()))
        .boxed()
}

/// A handler waits for a socket, of which the other side is used in many ways.
fn changing() -> BoxedStrategy<Steps> {
    let sockets = || select(vec![4_u8, 5, 6, 9]);
    let callback =
        || weighted(0.7, any::<bool>().prop_map(|take| Call { take, ..Call::default() }));
    let register = (sockets(), callback(), callback(), any::<bool>());
    let then = prop_oneof![
        4 => Just(Step::Poll),
        2 => time().prop_map(|ns| Step::Block { ns }),
        3 => sockets().prop_map(|at| Step::Ready { at }),
        2 => sockets().prop_map(|at| Step::Take { at }),
        2 => sockets().prop_map(|at| Step::Fill { at }),
        2 => sockets().prop_map(|at| Step::Drain { at }),
        1 => sockets().prop_map(|at| Step::ShutDown { at }),
        1 => sockets().prop_map(|at| Step::HangUp { at }),
        1 => sockets().prop_map(|at| Step::Remove { at }),
        1 => sockets().prop_map(|at| Step::Reopen { at }),
        3 => register.prop_map(|(at, read, write, movable)| {
            let handler = Handler { read, write, movable, ..Handler::default() };
            Step::Register { at, handler }
        }),
        1 => (sockets(), any::<bool>(), any::<bool>())
            .prop_map(|(at, read, write)| Step::Interest { at, read, write }),
    ];
    // What is ready in two ways, one after the other, while a ring has been asked.
    let twice = (sockets(), callback(), any::<bool>()).prop_map(|(at, write, hangs_up)| {
        let read = Some(Call { take: true, ..Call::default() });
        let handler = Handler { read, write, ..Handler::default() };
        let then = if hangs_up { Step::HangUp { at } } else { Step::Drain { at } };
        vec![
            Step::Reopen { at },
            Step::Fill { at },
            Step::Register { at, handler },
            Step::Poll,
            Step::Poll,
            Step::Fill { at },
            Step::Ready { at },
            then,
        ]
    });
    (vec(then, 0..=LONGEST), prop::option::of(twice))
        .prop_map(|(then, twice)| Steps(twice.into_iter().flatten().chain(then).collect()))
        .boxed()
}

/// Handlers move, and the other context closes before they are there.
fn moving(inside: &BoxedStrategy<Steps>) -> BoxedStrategy<Steps> {
    let register = (few(), handler(inside)).prop_map(|(at, handler)| Step::Register {
        at,
        handler: Handler { movable: true, ..handler },
    });
    let register = register.boxed();
    let then = prop_oneof![
        3 => register.clone(),
        4 => few().prop_map(|at| Step::Move { at }),
        1 => few().prop_map(|at| Step::Other { steps: Steps(vec![Step::Move { at }]) }),
        3 => (few(), any::<bool>(), any::<bool>())
            .prop_map(|(at, read, write)| Step::Interest { at, read, write }),
        3 => few().prop_map(|at| Step::Ready { at }),
        2 => Just(Step::Other { steps: Steps(vec![Step::Poll]) }),
        2 => Just(Step::Poll),
        3 => step(inside),
    ];
    let then = then.boxed();
    // One that hears less than it could, and goes on doing so over there.
    let silent = (few(), any::<bool>(), any::<bool>()).prop_map(|(at, read, write)| {
        let call = || Some(Call { take: true, ..Call::default() });
        let handler = Handler { read: call(), write: call(), movable: true, ..Handler::default() };
        vec![
            Step::Register { at, handler },
            Step::Interest { at, read, write },
            Step::Move { at },
            Step::Ready { at },
            Step::Other { steps: Steps(vec![Step::Poll, Step::Poll]) },
        ]
    });
    let ends = vec(then.clone(), 0..=LONGEST / 4);
    let begins = (prop::option::of(silent), vec(then, 0..=LONGEST / 2));
    (begins, register, few(), prop::bool::weighted(0.8), ends)
        .prop_map(|((silent, then), register, at, other, ends)| {
            let mut steps: Vec<_> = silent.into_iter().flatten().chain(then).collect();
            let close = Step::Close;
            steps.extend([register, Step::Move { at }]);
            steps.push(if other { Step::Other { steps: Steps(vec![close]) } } else { close });
            Steps(steps.into_iter().chain(ends).collect())
        })
        .boxed()
}

fn steps(inside: &BoxedStrategy<Steps>, longest: usize) -> BoxedStrategy<Steps> {
    vec(step(inside), 0..=longest).prop_map(Steps).boxed()
}

fn file() -> impl Strategy<Value = u8> + Clone {
    0..FILES
}

/// So few files that the same one is met again.
fn few() -> impl Strategy<Value = u8> + Clone {
    0_u8..4
}

fn one_of_three() -> impl Strategy<Value = u8> {
    0..OF_EACH
}

fn time() -> impl Strategy<Value = u32> {
    select(&TIMES[..])
}

fn spin() -> impl Strategy<Value = Spin> {
    select(vec![Spin::Off, Spin::Doubling, Spin::Jumping, Spin::Fixed])
}

fn step(inside: &BoxedStrategy<Steps>) -> BoxedStrategy<Step> {
    let nested = || inside.clone();
    let mut weights: Vec<(u32, BoxedStrategy<Step>)> = Vec::new();
    let mut add = |weight, strategy| weights.push((weight, strategy));
    // The simplest come first: shrinking goes that way.
    add(12, Just(Step::Poll).boxed());
    add(12, time().prop_map(|ns| Step::Block { ns }).boxed());
    add(8, file().prop_map(|at| Step::Ready { at }).boxed());
    add(2, file().prop_map(|at| Step::Take { at }).boxed());
    add(2, file().prop_map(|at| Step::Fill { at }).boxed());
    add(2, file().prop_map(|at| Step::Drain { at }).boxed());
    add(1, file().prop_map(|at| Step::ShutDown { at }).boxed());
    add(1, file().prop_map(|at| Step::HangUp { at }).boxed());
    add(1, file().prop_map(|at| Step::Reopen { at }).boxed());
    add(5, (file(), any::<bool>()).prop_map(|(at, on)| Step::Word { at, on }).boxed());
    add(5, file().prop_map(|at| Step::Produce { at }).boxed());
    add(2, time().prop_map(|ns| Step::Advance { ns }).boxed());
    let register = (file(), handler(inside));
    add(14, register.prop_map(|(at, handler)| Step::Register { at, handler }).boxed());
    add(2, file().prop_map(|at| Step::Remove { at }).boxed());
    add(2, file().prop_map(|at| Step::Deregister { at }).boxed());
    let interest = (file(), any::<bool>(), any::<bool>());
    add(4, interest.prop_map(|(at, read, write)| Step::Interest { at, read, write }).boxed());
    add(2, file().prop_map(|at| Step::Move { at }).boxed());
    add(3, one_of_three().prop_map(|half| Step::Schedule { half }).boxed());
    add(2, one_of_three().prop_map(|half| Step::ScheduleIdle { half }).boxed());
    add(1, one_of_three().prop_map(|half| Step::Cancel { half }).boxed());
    add(1, one_of_three().prop_map(|half| Step::Delete { half }).boxed());
    add(2, nested().prop_map(|steps| Step::Once { steps }).boxed());
    add(2, nested().prop_map(|steps| Step::Job { steps }).boxed());
    add(3, (one_of_three(), time()).prop_map(|(timer, ns)| Step::Arm { timer, ns }).boxed());
    add(1, one_of_three().prop_map(|timer| Step::Disarm { timer }).boxed());
    add(2, (one_of_three(), time()).prop_map(|(turns, ns)| Step::Until { turns, ns }).boxed());
    add(1, Just(Step::Stop).boxed());
    add(2, nested().prop_map(|between| Step::Embed { between }).boxed());
    add(2, Just(Step::Suspend).boxed());
    add(1, Just(Step::Notify).boxed());
    add(2, Just(Step::DisableExternal).boxed());
    add(3, Just(Step::EnableExternal).boxed());
    add(1, spin().prop_map(|spin| Step::Params { spin }).boxed());
    add(1, spin().prop_map(|spin| Step::RemoteParams { spin }).boxed());
    add(1, Just(Step::Fail).boxed());
    add(1, Just(Step::Panic).boxed());
    add(2, nested().prop_map(|steps| Step::Other { steps }).boxed());
    let mut all = Union::new_weighted(weights).boxed();
    // Nothing happens after it but errors, so it is rarer than a weight can be.
    all = Union::new_weighted(vec![(300, all), (1, Just(Step::Close).boxed())]).boxed();
    all
}

fn call(inside: &BoxedStrategy<Steps>) -> impl Strategy<Value = Call> + use<> {
    // Those that take nothing are called again in every turn.
    (prop::bool::weighted(0.8), inside.clone()).prop_map(|(take, steps)| Call { take, steps })
}

fn handler(inside: &BoxedStrategy<Steps>) -> impl Strategy<Value = Handler> + use<> {
    let callback = |likely| weighted(likely, call(inside));
    let external = prop::bool::weighted(0.25);
    let calls = (callback(0.8), callback(0.2), callback(0.1));
    (calls, poll(inside), external, any::<bool>()).prop_map(
        |((read, write, priority), poll, external, movable)| Handler {
            read,
            write,
            priority,
            poll,
            external,
            movable,
        },
    )
}

fn poll(inside: &BoxedStrategy<Steps>) -> impl Strategy<Value = Poll> + use<> {
    prop_oneof![3 => Just(Poll::No), 1 => Just(Poll::Kernel), 6 => predicate(inside)]
}

fn predicate(inside: &BoxedStrategy<Steps>) -> impl Strategy<Value = Poll> + use<> {
    prop_oneof![
        (any::<bool>(), call(inside)).prop_map(|(suppress, ready)| Poll::Word { suppress, ready }),
        (code(), call(inside)).prop_map(|(code, ready)| Poll::Code { code, ready }),
    ]
}

fn code() -> impl Strategy<Value = Code> {
    let never = prop_oneof![9 => Just(0), 1 => one_of_three()];
    let often = prop_oneof![1 => Just(0), 2 => select(&OFTEN[..])];
    (select(&COSTS[..]), often, meanwhile(file()), never, hook(), hook()).prop_map(
        |(ns, every, meanwhile, panics_at, begin, end)| Code {
            ns,
            every,
            meanwhile,
            panics_at,
            begin,
            end,
        },
    )
}

fn meanwhile(
    file: impl Strategy<Value = u8> + Clone + 'static,
) -> impl Strategy<Value = Meanwhile> {
    prop_oneof![
        2 => Just(Meanwhile::Sets),
        2 => file.clone().prop_map(|at| Meanwhile::Wakes { at }),
        1 => file.prop_map(|at| Meanwhile::Readies { at }),
        1 => Just(Meanwhile::Notifies),
        1 => Just(Meanwhile::Sends),
    ]
}

fn hook() -> impl Strategy<Value = Hook> {
    let others = vec![Hook::Sets, Hook::Schedules, Hook::Arms, Hook::Removes, Hook::Panics];
    prop_oneof![4 => Just(Hook::Nothing), 1 => select(others)]
}
