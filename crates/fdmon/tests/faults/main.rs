//! What a context does when the kernel refuses it something: each call, each errno that it allows.
//!
//! A context lives its whole life (`world.rs`) in a thread whose calls a supervisor answers
//! (`injector.rs`): the n-th call of a place fails. The tables of the places (`sites/`) say what is
//! expected then. Each event must still come, once.
//!
//! `FDMON_FAULTS_N=20` goes up to the 20th call of each place, `FDMON_FAULTS_ONLY=TEXT` runs the rows
//! whose call, purpose and errno contain the text. `complete.rs` checks that nothing is left out of the
//! tables: no errno of a man page (`manual.rs`), and no call that a context makes.

mod complete;
mod elsewhere;
mod file_io;
mod injector;
mod ledger;
mod lives;
mod manual;
mod own_process;
mod report;
mod run;
mod sites;
#[path = "../sandbox/supervise.rs"]
mod supervise;
mod table;
mod world;

use run::{check, check_small_queues};

#[test]
fn every_errno_of_a_call_is_injected_or_impossible_for_a_reason() {
    report::rows();
    complete::check_errnos();
}

#[test]
fn every_call_that_a_context_makes_is_in_the_tables() {
    complete::check_calls();
}

/// SPEC 43
#[test]
fn every_refusal_of_epoll_has_its_expected_result() {
    check("The epoll monitor");
}

/// SPEC 43
#[test]
fn every_failing_wait_has_its_expected_result() {
    check("Waits");
}

#[test]
fn every_failure_of_eventfds_timers_and_files_has_its_expected_result() {
    check("Eventfds, timers and files");
}

/// SPEC 50
#[test]
fn every_refusal_of_a_set_for_an_outer_loop_has_its_expected_result() {
    check("For an outer loop");
}

/// SPEC 30
#[test]
fn every_refusal_of_kernel_busy_polling_has_its_expected_result() {
    check("Kernel busy polling");
}

/// SPEC 44, 45
#[test]
fn every_refusal_of_a_ring_has_its_expected_result() {
    check("The ring");
}

/// SPEC 44
#[test]
fn every_failing_completion_has_its_expected_result() {
    check("Completions");
}

#[test]
fn every_failure_of_threads_clocks_and_memory_has_its_expected_result() {
    check("Threads, clocks and memory");
}

/// SPEC 44
#[test]
fn with_queues_that_are_too_small_everything_comes_once() {
    check_small_queues("Queues that are too small");
}
