//! Programs that once failed.

use super::holds;
use crate::program::{Call, Handler, Program, Spin, Step, Steps};

fn program(steps: Vec<Step>) -> Program {
    Program {
        spin: Spin::Off,
        halves: Default::default(),
        timers: Default::default(),
        steps: Steps(steps),
    }
}

fn reads(take: bool, steps: Vec<Step>) -> Handler {
    Handler { read: Some(Call { take, steps: Steps(steps) }), ..Handler::default() }
}

/// SPEC 19, 36
#[test]
fn a_bottom_half_that_schedules_itself_and_nests_is_not_lost() {
    let itself = vec![Step::Schedule { half: 0 }, Step::Poll];
    let steps = vec![Step::Schedule { half: 0 }, Step::Poll, Step::Poll, Step::Block { ns: 1 }];
    holds(&Program {
        halves: [Steps(itself), Steps::default(), Steps::default()],
        ..program(steps)
    });
}

/// SPEC 19, 39
#[test]
fn a_timer_that_arms_itself_and_nests_is_not_lost() {
    let itself = vec![Step::Arm { timer: 0, ns: 0 }, Step::Poll];
    let steps = vec![Step::Arm { timer: 0, ns: 0 }, Step::Poll, Step::Poll, Step::Block { ns: 1 }];
    holds(&Program {
        timers: [Steps(itself), Steps::default(), Steps::default()],
        ..program(steps)
    });
}

/// SPEC 8
#[test]
fn a_hang_up_is_not_heard_without_an_interest() {
    let silences = |at| vec![Step::Interest { at, read: false, write: false }];
    holds(&program(vec![
        Step::HangUp { at: 5 },
        Step::Register { at: 5, handler: reads(false, silences(6)) },
        Step::Register { at: 6, handler: reads(false, silences(5)) },
        Step::Poll,
    ]));
}

/// SPEC 21
#[test]
fn what_fails_in_a_turn_that_panics_is_reported_by_the_next() {
    holds(&program(vec![
        Step::Ready { at: 0 },
        Step::Ready { at: 1 },
        Step::Register { at: 0, handler: reads(true, vec![Step::Panic]) },
        Step::Register { at: 1, handler: reads(true, vec![Step::Fail]) },
        Step::Poll,
        Step::Poll,
    ]));
}

/// SPEC 19, 44, 50
#[test]
fn a_file_that_is_watched_anew_while_its_callback_is_due_is_reported_once() {
    let watches = vec![Step::Register { at: 6, handler: reads(false, vec![]) }];
    holds(&program(vec![
        Step::Ready { at: 0 },
        Step::Ready { at: 1 },
        Step::Embed {
            between: Steps(vec![
                Step::Register { at: 0, handler: reads(true, watches.clone()) },
                Step::Register { at: 1, handler: reads(true, watches) },
                Step::Poll,
            ]),
        },
        Step::Poll,
    ]));
}
