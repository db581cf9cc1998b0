//! Nothing is left out: no errno of a man page, and no call that a context makes.

use std::fmt::Write as _;

use crate::injector::Stray;
use crate::manual::{ERRORS, OF_SANDBOXES, STRANGERS, Stranger, errors};
use crate::run::{CONTEXTS, strays};
use crate::sites;
use crate::table::{Expect, Site};

/// Each errno of the man page is injected, or listed with the reason why it never comes.
pub fn check_errnos() {
    let mut wrong = String::new();
    for site in
        sites::ALL.iter().filter(|group| !group.is_of_queues()).flat_map(|group| group.sites)
    {
        let name = format!("{} ({})", site.call, site.what);
        let Some(manual) = errors(site.call) else {
            let _ = writeln!(wrong, "{name}: its man page is not in tests/faults/manual.rs");
            continue;
        };
        let injected: Vec<_> = site.faults.iter().map(|fault| fault.errno).collect();
        let impossible: Vec<_> =
            site.impossible.iter().flat_map(|(errnos, _)| errnos.split_whitespace()).collect();
        let manual: Vec<_> = manual.split_whitespace().collect();
        for errno in &manual {
            match (injected.contains(errno), impossible.contains(errno)) {
                (false, false) => {
                    let _ = writeln!(wrong, "{name}: {errno} is neither injected nor impossible");
                }
                (true, true) => {
                    let _ = writeln!(wrong, "{name}: {errno} is injected, and called impossible");
                }
                _ => {}
            }
        }
        for errno in injected.iter().chain(&impossible).filter(|errno| !manual.contains(errno)) {
            if !OF_SANDBOXES.contains(&(site.call, errno)) {
                let _ = writeln!(wrong, "{name}: {errno} is not in its man page");
            }
        }
        wrong.push_str(&without_words(site, &name));
    }
    for (call, _) in ERRORS {
        if !sites::ALL.iter().flat_map(|group| group.sites).any(|site| site.call == *call) {
            let _ = writeln!(wrong, "{call}: its man page is there, and no place of it");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A reason is a sentence, and so is what is expected.
fn without_words(site: &Site, name: &str) -> String {
    let mut wrong = String::new();
    for (errnos, why) in site.impossible {
        if why.len() < 8 {
            let _ = writeln!(wrong, "{name}: {errnos} is impossible for no reason");
        }
    }
    for fault in site.faults {
        let said = match fault.expect {
            Expect::Unnoticed(words) | Expect::Moves(_, words) | Expect::Stays(words) => words,
            Expect::Error(_, words) => words,
            _ => continue,
        };
        if said.is_empty() || fault.on.is_empty() {
            let _ = writeln!(wrong, "{name}: {} has no expected result", fault.errno);
        }
    }
    wrong
}

/// A whole life on each monitor makes no call that is not in the tables.
pub fn check_calls() {
    let mut wrong = String::new();
    for (on, spins) in CONTEXTS.iter().flat_map(|&on| [(on, false), (on, true)]) {
        for (stray, times) in strays(on, spins) {
            if !stranger(&stray).is_some_and(|stranger| (stranger.is)(&stray)) {
                let spins = if spins { ", spinning" } else { "" };
                let _ = writeln!(wrong, "{on}{spins}: {times} times {}", words(&stray));
            }
        }
    }
    assert!(wrong.is_empty(), "calls of no place in tests/faults/sites:\n{wrong}");
}

fn stranger(stray: &Stray) -> Option<&'static Stranger> {
    STRANGERS.iter().find(|stranger| stranger.number == stray.number)
}

fn words(stray: &Stray) -> String {
    let Stray { number, file, second, phase, at_home } = stray;
    let whose = if *at_home { "the context's thread" } else { "another thread" };
    let made = format!("file {file:?}, second argument {second}, phase {phase}, by {whose}");
    match stranger(stray) {
        Some(Stranger { call, why, .. }) => format!("{call}, {made}: not what is left out ({why})"),
        None => format!("call number {number}, {made}"),
    }
}
