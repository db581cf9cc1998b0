//! Programs that once failed.

use super::holds;
use crate::program::{Call, Code, Handler, Hook, Meanwhile, Poll, Program, Spin, Step, Steps};

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

/// Its predicate says yes whenever it is asked.
fn hits(ready: Vec<Step>) -> Handler {
    let code = Code { every: 1, ..Code::default() };
    let ready = Call { take: false, steps: Steps(ready) };
    Handler { poll: Poll::Code { code, ready }, ..Handler::default() }
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

/// SPEC 24, 44: a request completes once, for what is so then; what comes later is in the next.
#[test]
fn what_comes_after_a_ring_has_heard_is_reported_in_the_next_turn() {
    holds(&program(vec![
        Step::Register { at: 6, handler: reads(false, vec![]) },
        Step::Poll,
        Step::Fill { at: 5 },
        Step::HangUp { at: 5 },
        Step::Poll,
        Step::Poll,
        Step::Block { ns: 1 },
    ]));
}

/// SPEC 20, 25: the last look belongs to the next turn, for this one has run the handler.
#[test]
fn leaving_spin_mode_in_a_callback_runs_no_handler_twice_in_a_turn() {
    for leaves in [Step::Suspend, Step::Until { turns: 0, ns: 0 }, Step::Params { spin: Spin::Off }]
    {
        holds(&Program {
            spin: Spin::Fixed,
            ..program(vec![
                Step::Register { at: 0, handler: hits(vec![]) },
                Step::Poll,
                Step::Register { at: 4, handler: hits(vec![leaves]) },
                Step::Block { ns: 1 },
                Step::Block { ns: 1 },
            ])
        });
    }
}

/// SPEC 20, 50
#[test]
fn what_prepare_found_has_no_place_in_the_order_once_it_is_removed() {
    let word = || {
        let ready = Call::default();
        Handler { poll: Poll::Word { suppress: false, ready }, ..Handler::default() }
    };
    holds(&program(vec![
        Step::Ready { at: 1 },
        Step::Word { at: 1, on: true },
        Step::Word { at: 6, on: true },
        Step::Register { at: 1, handler: word() },
        Step::Register { at: 6, handler: word() },
        Step::Embed {
            between: Steps(vec![Step::Register { at: 1, handler: reads(false, vec![]) }]),
        },
    ]));
}

/// SPEC 50
#[test]
fn check_says_no_when_what_prepare_found_was_removed() {
    let ready = Handler { poll: Poll::Kernel, ..reads(false, vec![]) };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::Ready { at: 4 },
            Step::Register { at: 4, handler: ready },
            Step::Poll,
            Step::Embed { between: Steps(vec![Step::Remove { at: 4 }]) },
        ])
    });
}

/// SPEC 50
#[test]
fn check_looks_again_when_another_is_in_the_place_of_what_prepare_found() {
    let ready = Handler { poll: Poll::Kernel, ..reads(false, vec![]) };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::Ready { at: 4 },
            Step::Register { at: 4, handler: ready },
            Step::Poll,
            Step::Advance { ns: 50_000 },
            Step::Embed {
                between: Steps(vec![Step::Register { at: 4, handler: reads(false, vec![]) }]),
            },
        ])
    });
}

/// SPEC 15, 17: a look is no sleep.
#[test]
fn a_deadline_that_comes_while_a_predicate_is_asked_does_not_end_spin_mode() {
    let watched = || {
        let poll = Poll::Word { suppress: true, ready: Call::default() };
        Handler { poll, ..reads(false, vec![]) }
    };
    let code = Code { ns: 7_000, ..Code::default() };
    let slow = Handler { poll: Poll::Code { code, ready: Call::default() }, ..Handler::default() };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::Ready { at: 4 },
            Step::Register { at: 4, handler: watched() },
            Step::Block { ns: 0 },
            Step::Block { ns: 1 },
            Step::Params { spin: Spin::Doubling },
            Step::Register { at: 1, handler: slow },
            Step::Block { ns: 1 },
        ])
    });
}

/// SPEC 21: the error comes first, and the panic of the hook out of the next call.
#[test]
fn an_error_that_ends_a_loop_is_not_lost_to_a_panic_at_its_end() {
    let code = Code {
        end: Hook::Panics,
        ns: 300,
        meanwhile: Meanwhile::Notifies,
        every: 2,
        ..Code::default()
    };
    let panics =
        Handler { poll: Poll::Code { code, ready: Call::default() }, ..Handler::default() };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::Word { at: 1, on: true },
            Step::Register { at: 1, handler: panics },
            Step::Poll,
            Step::Word { at: 1, on: false },
            Step::Block { ns: 0 },
            Step::Block { ns: 20_000 },
            Step::Once { steps: Steps(vec![Step::Fail]) },
            Step::Until { turns: 1, ns: 1 },
            Step::Suspend,
            Step::Poll,
        ])
    });
}

/// SPEC 4, 52
#[test]
fn a_handler_whose_new_context_closes_is_back_with_all_that_was_ready() {
    let handler = Handler { movable: true, ..reads(true, vec![]) };
    let close = || Step::Other { steps: Steps(vec![Step::Close]) };
    holds(&program(vec![
        Step::Register { at: 0, handler: handler.clone() },
        Step::Ready { at: 0 },
        Step::Move { at: 0 },
        close(),
        Step::Poll,
        Step::Poll,
        Step::Move { at: 0 },
    ]));
    holds(&program(vec![
        Step::Register { at: 0, handler: handler.clone() },
        Step::Move { at: 0 },
        Step::Register { at: 0, handler },
        close(),
        Step::Poll,
    ]));
}

/// SPEC 50: what a ring has seen of a notification makes the next `prepare` return 0 once.
#[test]
fn a_notification_that_a_turn_took_between_prepare_and_check_wakes_once_more_at_most() {
    let between = vec![Step::Notify, Step::Poll, Step::Embed { between: Steps::default() }];
    holds(&program(vec![
        Step::Embed { between: Steps(between) },
        Step::Embed { between: Steps::default() },
    ]));
}

/// SPEC 18, 50
#[test]
fn a_check_long_after_its_prepare_does_not_put_off_the_look_at_the_kernel() {
    let ready = Call { take: false, steps: Steps::default() };
    let word = Poll::Word { suppress: false, ready };
    let spun = Step::Register { at: 6, handler: Handler { poll: word, ..Handler::default() } };
    let handler = Handler { poll: Poll::Kernel, ..reads(false, vec![spun]) };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::ShutDown { at: 4 },
            Step::Register { at: 4, handler },
            Step::Embed {
                between: Steps(vec![Step::Advance { ns: 50_000 }, Step::Produce { at: 6 }]),
            },
            Step::Block { ns: 0 },
        ])
    });
}

/// SPEC 11, 21: its `poll_end` comes from the removal, and not from the end of the loop.
#[test]
fn a_handler_that_its_own_beginning_removes_ends_within_the_turn_that_fails() {
    let begins = |begin| {
        let code = Code { begin, ..Code::default() };
        Handler { poll: Poll::Code { code, ready: Call::default() }, ..reads(false, vec![]) }
    };
    let member = |at, begin| {
        vec![Step::Register { at, handler: begins(begin) }, Step::Ready { at }, Step::Poll]
    };
    let slow = Code { ns: 300, ..Code::default() };
    let slow = Poll::Code { code: slow, ready: Call::default() };
    let steps = [
        vec![Step::Register { at: 0, handler: Handler { poll: slow, ..Handler::default() } }],
        vec![Step::Word { at: 0, on: true }, Step::Poll, Step::Word { at: 0, on: false }],
        member(5, Hook::Panics),
        member(4, Hook::Removes),
        vec![Step::Until { turns: 1, ns: 1 }],
    ];
    holds(&Program { spin: Spin::Fixed, ..program(steps.concat()) });
}

/// SPEC 21, 50: `prepare` reports nothing, and the next call does.
#[test]
fn what_the_end_of_a_loop_panicked_with_comes_out_of_a_call_between_prepare_and_check() {
    let code = Code { end: Hook::Panics, ..Code::default() };
    let panics =
        Handler { poll: Poll::Code { code, ready: Call::default() }, ..Handler::default() };
    let word = |steps| {
        let ready = Call { take: false, steps: Steps(steps) };
        Handler { poll: Poll::Word { suppress: false, ready }, ..Handler::default() }
    };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::Register { at: 0, handler: panics },
            Step::Word { at: 0, on: true },
            Step::Register { at: 3, handler: word(vec![Step::Fail]) },
            Step::Word { at: 3, on: true },
            Step::Poll,
            Step::Embed { between: Steps::default() },
            Step::Until { turns: 1, ns: 0 },
            Step::Embed { between: Steps(vec![Step::Register { at: 0, handler: word(vec![]) }]) },
        ])
    });
}

/// SPEC 6, 13, 21: a panic that waits for the next call waits on.
#[test]
fn a_call_that_is_refused_or_has_nothing_to_do_throws_nothing() {
    let ends = |end| {
        let code = Code { end, ..Code::default() };
        Handler { poll: Poll::Code { code, ready: Call::default() }, ..reads(true, vec![]) }
    };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::Register { at: 2, handler: ends(Hook::Panics) },
            Step::Ready { at: 2 },
            Step::Poll,
            Step::Block { ns: 1 },
            Step::Once { steps: Steps(vec![Step::Fail]) },
            Step::Until { turns: 1, ns: 1 },
            Step::Register { at: 0, handler: Handler::default() },
            Step::Remove { at: 0 },
            Step::Suspend,
            Step::Suspend,
        ])
    });
}

/// SPEC 23: the round that finds one word ends the spin, and may be past the other.
#[test]
fn a_word_that_is_set_behind_a_round_which_hits_is_left_to_the_next_turn() {
    let word = |steps| {
        let ready = Call { take: false, steps: Steps(steps) };
        Handler { poll: Poll::Word { suppress: false, ready }, ..Handler::default() }
    };
    let code = Code { every: 1, meanwhile: Meanwhile::Wakes { at: 2 }, ..Code::default() };
    let ready = Call { take: true, ..Call::default() };
    let wakes = Handler { poll: Poll::Code { code, ready }, ..Handler::default() };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::Register { at: 3, handler: word(vec![]) },
            Step::Word { at: 3, on: true },
            Step::Register { at: 2, handler: word(vec![]) },
            Step::Word { at: 2, on: true },
            Step::Poll,
            Step::Register { at: 1, handler: wakes },
            Step::Word { at: 1, on: true },
            Step::Block { ns: 1 },
            Step::Word { at: 2, on: false },
            Step::Block { ns: 1 },
            Step::Block { ns: 1 },
        ])
    });
}

/// SPEC 19, 20: what the outer turn has collected stands before what the nested one finds.
#[test]
fn what_a_ring_told_the_outer_turn_keeps_its_place_when_it_is_told_again() {
    let again =
        Step::Once { steps: Steps(vec![Step::Ready { at: 4 }, Step::Take { at: 4 }, Step::Poll]) };
    let ready = Call { take: false, steps: Steps(vec![again]) };
    let word = Poll::Word { suppress: false, ready };
    holds(&Program {
        spin: Spin::Doubling,
        ..program(vec![
            Step::Produce { at: 7 },
            Step::Register { at: 7, handler: Handler { poll: word, ..Handler::default() } },
            Step::Register { at: 8, handler: reads(false, vec![Step::Poll]) },
            Step::Ready { at: 0 },
            Step::Register { at: 4, handler: reads(false, vec![]) },
            Step::Poll,
            Step::Suspend,
            Step::Poll,
        ])
    });
}

/// SPEC 44, 50: prepare returns 0 for a hint, which comes to nothing.
#[test]
fn what_a_ring_told_while_the_callback_ran_ends_an_outer_sleep_once_at_most() {
    holds(&program(vec![
        Step::Register { at: 6, handler: reads(true, vec![Step::Poll, Step::Produce { at: 6 }]) },
        Step::Ready { at: 6 },
        Step::Poll,
        Step::Take { at: 6 },
        Step::Embed { between: Steps::default() },
        Step::Embed { between: Steps::default() },
    ]));
}

/// SPEC 23, 50
#[test]
fn what_a_ring_told_in_the_spin_of_prepare_keeps_the_context_in_spin_mode() {
    let poll = Poll::Word { suppress: true, ready: Call::default() };
    let member = Handler { poll, ..reads(true, vec![]) };
    holds(&Program {
        spin: Spin::Fixed,
        ..program(vec![
            Step::Register { at: 1, handler: reads(false, vec![]) },
            Step::Register { at: 4, handler: member },
            Step::Ready { at: 4 },
            Step::Embed { between: Steps::default() },
            Step::Poll,
            Step::Ready { at: 1 },
            Step::Drain { at: 1 },
            Step::Embed { between: Steps::default() },
        ])
    });
}

/// SPEC 44, 50: every request on a ring waits for that as well, and completes for it once.
#[test]
fn the_end_of_what_the_other_side_writes_ends_an_outer_sleep_of_who_only_writes_once_at_most() {
    let write = Some(Call { take: true, ..Call::default() });
    holds(&program(vec![
        Step::Fill { at: 4 },
        Step::Register { at: 4, handler: Handler { write, ..Handler::default() } },
        Step::Poll,
        Step::ShutDown { at: 4 },
        Step::Poll,
        Step::Embed { between: Steps::default() },
        Step::Embed { between: Steps::default() },
        Step::Drain { at: 4 },
        Step::Embed { between: Steps::default() },
        Step::Embed { between: Steps::default() },
        Step::Embed { between: Steps::default() },
    ]));
}
