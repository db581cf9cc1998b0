//! The deterministic half: the production policies, compiled from their own files, on a clock that
//! this moves by hand. No thread, no kernel, no noise: the same figures on every machine.

use fastrand::Rng;

use crate::cell::{Cell, Contender, Outcome, Placement};
use crate::spin::budget::Budget;
use crate::spin::classic::Classic;
use crate::spin::per_handler::{Estimate, PerHandler};
use crate::spin::policy::{Policy, Seen, WakeUp};

/// Events of one run.
const EVENTS: usize = 6000;
/// What the handler of an event takes.
const HANDLER_NS: u64 = 300;
/// CPU time of a sleep and its wake-up.
const SLEEP_CPU_NS: u64 = 4000;
/// From an event to the round of the spin that sees it.
const ROUND_NS: u64 = 100;
/// A turn that finds something at once asks the kernel, or looks at a word: it is counted as one.
const LOOK_CPU_NS: u64 = 100;

/// One cell under one policy, where a wake-up takes this long.
pub fn run(cell: &Cell, contender: Contender, wake_up_ns: u64) -> Outcome {
    let params = contender.params();
    let wake_up = WakeUp { latency_ns: wake_up_ns, cpu_ns: SLEEP_CPU_NS };
    let mut rng = Rng::with_seed(7);
    let mut gaps = cell.sources.gaps(cell.shape, cell.gap_ns);
    let mut due: Vec<u64> = gaps.iter_mut().map(|gaps| gaps.draw(&mut rng)).collect();
    let mut estimates = vec![Estimate::default(); due.len()];
    let mut policy = policy_of(contender);
    if let Some(policy) = &mut policy {
        policy.try_once();
    }
    let mut budget = Budget::default();
    let (mut now, mut cpu_ns, mut calls) = (0, 0, 0);
    let mut latencies = Vec::with_capacity(EVENTS + due.len());
    while latencies.len() < EVENTS {
        let start = now;
        let next = due.iter().copied().min().unwrap_or(0);
        if let Some(policy) = &mut policy {
            policy.prepare(wake_up, &params);
        }
        let window = match &policy {
            // Guards: one usable CPU, no spin.
            Some(policy) if cell.placement != Placement::OneCpu => {
                policy.window(&params).min(budget.allows(now, params.cpu_budget))
            }
            _ => 0,
        };
        // Who spins on the producer's own CPU keeps it from its work.
        let comes_at = match cell.placement {
            Placement::TwoCpus => next,
            _ => next.max(start + window),
        };
        let mut seen = Seen::default();
        if next <= now {
            cpu_ns += LOOK_CPU_NS;
            calls += u64::from(window == 0);
        } else if comes_at < start + window {
            now = comes_at + ROUND_NS;
            seen.spun_ns = now - start;
            cpu_ns += seen.spun_ns;
        } else {
            now = comes_at + wake_up_ns;
            seen.spun_ns = window;
            seen.slept = true;
            budget.pay(window);
            cpu_ns += window + SLEEP_CPU_NS;
            calls += 1;
        }
        seen.block_ns = now - start;
        let ready: Vec<bool> = due.iter().map(|&at| at <= now).collect();
        seen.events = ready.iter().filter(|&&ready| ready).count() as u64;
        if let Some(policy) = &mut policy {
            let sources = estimates.iter_mut().zip(ready.iter().copied());
            policy.on_turn(&seen, wake_up, &params, sources);
        }
        for (source, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            latencies.push(now - due[source]);
            now += HANDLER_NS;
            due[source] = now + gaps[source].draw(&mut rng);
        }
    }
    Outcome::of(latencies, cpu_ns, calls)
}

fn policy_of(contender: Contender) -> Option<Policy> {
    Some(match contender {
        Contender::Blocking => return None,
        Contender::Fixed => Policy::Fixed,
        Contender::Classic => Policy::Classic(Classic::default()),
        Contender::PerHandler => Policy::PerHandler(PerHandler::default()),
        Contender::Cost | Contender::CostBudget | Contender::CostLatency => {
            Policy::Cost(Box::default())
        }
    })
}
