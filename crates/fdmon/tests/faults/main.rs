//! What a context does when the kernel refuses it something: each call, each errno that it allows.
//!
//! A context lives its whole life (`world.rs`) in a thread whose calls a supervisor answers
//! (`injector.rs`): the n-th call of a place fails. The tables of the places (`sites/`) say what is
//! expected then. Each event must still come, once.
//!
//! `FDMON_FAULTS_N=20` goes up to the 20th call of each place, `FDMON_FAULTS_ONLY=TEXT` runs the rows
//! whose call, purpose and errno contain the text.

mod elsewhere;
mod injector;
mod ledger;
mod lives;
mod run;
mod sites;
#[path = "../sandbox/supervise.rs"]
mod supervise;
mod table;
mod world;

use run::{check, check_small_queues};

/// SPEC 43
#[test]
fn every_refusal_of_epoll_has_its_expected_result() {
    check(sites::EPOLL);
}

/// SPEC 43
#[test]
fn every_failing_wait_has_its_expected_result() {
    check(sites::WAITS);
}

#[test]
fn every_failure_of_eventfds_timers_and_files_has_its_expected_result() {
    check(sites::FDS);
}

/// SPEC 50
#[test]
fn every_refusal_of_a_set_for_an_outer_loop_has_its_expected_result() {
    check(sites::OUTER);
}

/// SPEC 30
#[test]
fn every_refusal_of_kernel_busy_polling_has_its_expected_result() {
    check(sites::BUSY_POLL);
}

/// SPEC 44, 45
#[test]
fn every_refusal_of_a_ring_has_its_expected_result() {
    check(sites::RING);
}

/// SPEC 44
#[test]
fn every_failing_completion_has_its_expected_result() {
    check(sites::COMPLETIONS);
}

/// SPEC 44
#[test]
fn with_queues_that_are_too_small_everything_comes_once() {
    check_small_queues(&sites::FULL, &sites::OVERFLOW);
}
