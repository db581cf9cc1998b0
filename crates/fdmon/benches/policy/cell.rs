//! A cell of the sweep, the policies that compete in it, and what is told of each.

use fdmon::{PolicyKind, PollParams};

use crate::traffic::{Shape, Sources};

/// The longest spin, the default of an I/O thread.
pub const MAX_NS: u64 = 32_768;
/// What fruitless spins may take where there is a budget.
pub const BUDGET: f64 = 0.1;

/// The policies, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Blocking,
    Fixed,
    Classic,
    PerHandler,
    Cost,
    CostBudget,
    /// Latency is worth 20 times as much; for its own goal alone.
    CostLatency,
}

impl Contender {
    pub const ALL: [Self; 7] = [
        Self::Blocking,
        Self::Fixed,
        Self::Classic,
        Self::PerHandler,
        Self::Cost,
        Self::CostBudget,
        Self::CostLatency,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Fixed => "fixed",
            Self::Classic => "classic",
            Self::PerHandler => "handler",
            Self::Cost => "cost",
            Self::CostBudget => "cost + budget",
            Self::CostLatency => "cost, latency × 20",
        }
    }

    pub fn params(self) -> PollParams {
        let spinning = |policy| PollParams { max_ns: MAX_NS, policy, ..PollParams::default() };
        match self {
            Self::Blocking => PollParams::default(),
            Self::Fixed => spinning(PolicyKind::Fixed),
            Self::Classic => spinning(PolicyKind::Classic),
            Self::PerHandler => spinning(PolicyKind::PerHandler),
            Self::Cost => spinning(PolicyKind::Cost),
            Self::CostBudget => PollParams { cpu_budget: BUDGET, ..spinning(PolicyKind::Cost) },
            Self::CostLatency => PollParams { latency_weight: 20.0, ..spinning(PolicyKind::Cost) },
        }
    }
}

/// Where the two sides run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    TwoCpus,
    OneCpu,
    OneCpuUnguarded,
}

impl Placement {
    pub const ALL: [Self; 3] = [Self::TwoCpus, Self::OneCpu, Self::OneCpuUnguarded];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::TwoCpus => "two CPUs",
            Self::OneCpu => "one CPU",
            Self::OneCpuUnguarded => "one CPU without guards",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub placement: Placement,
    pub shape: Shape,
    pub sources: Sources,
    pub gap_ns: u64,
}

impl Cell {
    /// "two CPUs, constant, one source, 10 µs"
    pub fn name(&self) -> String {
        let Self { placement, shape, sources, gap_ns } = self;
        let (placement, shape, sources) = (placement.as_str(), shape.as_str(), sources.as_str());
        format!("{placement}, {shape}, {sources}, {} µs", gap_ns / 1000)
    }
}

/// What an event cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub mean_ns: f64,
    pub p50_ns: f64,
    pub cpu_ns: f64,
    pub calls: f64,
}

impl Outcome {
    #[allow(clippy::cast_precision_loss)]
    pub fn of(mut latencies: Vec<u64>, cpu_ns: u64, calls: u64) -> Self {
        latencies.sort_unstable();
        let events = latencies.len().max(1) as f64;
        Self {
            mean_ns: latencies.iter().map(|&ns| ns as f64).sum::<f64>() / events,
            p50_ns: latencies.get(latencies.len() / 2).copied().unwrap_or(0) as f64,
            cpu_ns: cpu_ns as f64 / events,
            calls: calls as f64 / events,
        }
    }

    /// What policies are compared by.
    pub fn total_ns(&self) -> f64 {
        self.mean_ns + self.cpu_ns
    }

    /// One line of JSON.
    pub fn print(&self, cell: &Cell, wake_up_ns: u64, contender: Contender, round: usize) {
        let Cell { placement, shape, sources, gap_ns } = cell;
        let Self { mean_ns, p50_ns, cpu_ns, calls } = self;
        println!(
            "{{\"placement\":\"{}\",\"wakeUpNs\":{wake_up_ns},\"shape\":\"{}\",\"sources\":\"{}\",\
             \"gapNs\":{gap_ns},\"policy\":\"{}\",\"round\":{round},\"meanNs\":{mean_ns:.1},\
             \"p50Ns\":{p50_ns:.1},\"cpuNs\":{cpu_ns:.1},\"calls\":{calls:.3}}}",
            placement.as_str(),
            shape.as_str(),
            sources.as_str(),
            contender.as_str(),
        );
    }
}
