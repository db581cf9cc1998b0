//! Programs that nobody wrote.

use std::ops::RangeInclusive;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::on;
use crate::coverage::{Tally, expected};
use crate::program::Program;
use crate::reduce::reduce;
use crate::report::report;
use crate::strategy::programs;
use crate::world::{Failure, fails, run};

/// How many programs are enough to exercise everything.
const MANY: u64 = 1000;
const STACK: usize = 64 << 20;
/// Shrinking ends after so many attempts.
const ATTEMPTS: u32 = 2_000;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} = '{text}' is no number")),
        Err(_) => default,
    }
}

/// `FDMON_SEED=7` or `FDMON_SEED=1-4`
fn seeds() -> RangeInclusive<u64> {
    let text = std::env::var("FDMON_SEED").unwrap_or_else(|_| "1".into());
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => first..=last,
        _ => panic!("FDMON_SEED = '{text}' is neither a seed nor a range of them, as 7 or 1-4"),
    }
}

/// Each program has a seed of its own, so that one can be run again without those before it.
fn runner(seed: u64, at: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&at.to_le_bytes());
    // Of neighbouring seeds, a simpler generator makes the same choices at first.
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config::default(), random)
}

/// The simplest program on the way from this one that fails as well.
fn shrink(tree: &mut impl ValueTree<Value = Program>) -> (Program, Failure) {
    let mut last = tree.current();
    for _ in 0..ATTEMPTS {
        let program = tree.current();
        let moved = if fails(&program, on()) {
            last = program;
            tree.simplify()
        } else {
            tree.complicate()
        };
        if !moved {
            break;
        }
    }
    let program = reduce(last, |program| fails(program, on()));
    let failure = run(&program, on()).unwrap_err();
    (program, failure)
}

/// SPEC 3, 7, 10, 11, 14, 15, 16, 17, 19, 20, 21, 22, 23, 24, 25, 26, 31, 36, 37, 38, 39, 46, 50
#[test]
fn random_programs_do_what_the_model_says() {
    // Strategies within strategies lie on the stack, as turns within turns do.
    let run = || seeds().for_each(run_programs);
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[allow(clippy::print_stdout, reason = "what was exercised; shown when it fails or is asked for")]
fn run_programs(seed: u64) {
    let (first, count) = (number("FDMON_FIRST", 0), number("FDMON_PROGRAMS", 1000));
    let strategy = programs();
    // What to see of a fault that was made on purpose: how many programs notice it, and which.
    let (counts, mut failures) = (number("FDMON_COUNT_FAILURES", 0) != 0, 0);
    let mut all = Tally::default();
    for at in first..first + count {
        let mut tree = strategy.new_tree(&mut runner(seed, at)).unwrap();
        match run(&tree.current(), on()) {
            Ok(tally) => {
                for (what, times) in tally {
                    *all.entry(what).or_default() += times;
                }
            }
            Err(failure) if counts => {
                println!("{at} of seed {seed}, {}: {}", on(), failure.what);
                failures += 1;
            }
            Err(_) => {
                let (program, failure) = shrink(&mut tree);
                let which = format!(
                    "{at} of seed {seed} (FDMON_SEED={seed} FDMON_FIRST={at} FDMON_PROGRAMS=1)"
                );
                panic!("{}", report(&which, &program, &failure));
            }
        }
    }
    println!("seed {seed}: {all:#?}");
    assert!(failures == 0, "{failures} of {count} programs of seed {seed} fail");
    // Those of a plain run exercise everything, or they would prove less than they seem to; and so do
    // a few thousand of any seed.
    if first == 0 && count >= if seed == 1 { MANY } else { 5 * MANY } {
        let never: Vec<_> = expected(on()).filter(|what| !all.contains_key(what)).collect();
        assert!(
            never.is_empty(),
            "in {count} programs of seed {seed} these never happened: {never:?}"
        );
    }
}
