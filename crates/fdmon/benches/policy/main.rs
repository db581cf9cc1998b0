//! How good is the policy? Latency and CPU time an event of every policy, over gaps, shapes of
//! traffic, numbers of sources and placements; simulated, or for real.
//!
//! ```text
//! cargo bench --bench policy -- simulate [--plots DIR]
//! cargo bench --bench policy -- measure [--plots DIR] [--rounds 9] [--only "two CPUs, constant"]
//! ```
//!
//! Prints a line of JSON for each cell, policy and round; `npm run bench:policy` makes the tables.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::PathBuf;

mod cell;
mod measure;
mod plot;
mod simulator;
mod spin;
mod traffic;

/// What the production files below name.
mod config {
    pub use fdmon::{PolicyKind, PollParams};
}

use lexopt::ValueExt as _;

use cell::{Cell, Contender, Outcome, Placement};
use traffic::{Shape, Sources};

/// Mean gaps, in µs.
const SIMULATED: [u64; 14] = [0, 1, 2, 5, 10, 15, 20, 28, 35, 50, 70, 100, 150, 200];
const MEASURED: [u64; 10] = [0, 2, 5, 10, 20, 35, 50, 70, 100, 200];
/// What a wake-up takes: a halted virtual CPU, an idle one, one that has just gone to sleep.
const WAKE_UPS: [u64; 3] = [35_000, 8000, 3000];
/// …and on the producer's own CPU, where it is a switch of threads.
const SWITCH_NS: u64 = 3000;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut simulates, mut measures, mut rounds, mut plots) = (false, false, 9, None);
    let mut only = String::new();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Value(value) if value == "simulate" => simulates = true,
            lexopt::Arg::Value(value) if value == "measure" => measures = true,
            lexopt::Arg::Long("rounds") => rounds = arguments.value()?.string()?.parse()?,
            lexopt::Arg::Long("only") => only = arguments.value()?.string()?,
            lexopt::Arg::Long("plots") => plots = Some(PathBuf::from(arguments.value()?)),
            lexopt::Arg::Long("bench" | "test") => {} // cargo's
            other => return Err(other.unexpected().into()),
        }
    }
    if simulates {
        simulate(plots.as_deref())?;
    }
    if measures {
        measure(plots.as_deref(), rounds, &only)?;
    }
    Ok(())
}

fn cells(placement: Placement, gaps_us: &'static [u64]) -> impl Iterator<Item = Cell> {
    let of = move |shape, sources| {
        gaps_us.iter().map(move |gap| Cell { placement, shape, sources, gap_ns: gap * 1000 })
    };
    Shape::ALL
        .into_iter()
        .flat_map(move |shape| Sources::ALL.into_iter().flat_map(move |sources| of(shape, sources)))
}

/// Outcomes with what they are of, for the plots.
type Row = (Cell, Contender, Outcome);

fn simulate(plots: Option<&std::path::Path>) -> Result<(), Box<dyn Error>> {
    for placement in Placement::ALL {
        let two = placement == Placement::TwoCpus;
        for wake_up_ns in if two { WAKE_UPS.to_vec() } else { vec![SWITCH_NS] } {
            let mut rows: Vec<Row> = Vec::new();
            for cell in cells(placement, &SIMULATED) {
                for contender in Contender::ALL {
                    let outcome = simulator::run(&cell, contender, wake_up_ns);
                    outcome.print(&cell, wake_up_ns, contender, 0);
                    rows.push((cell, contender, outcome));
                }
            }
            if let Some(folder) = plots {
                let title = format!(
                    "simulated: {}, a wake-up takes {} µs",
                    placement.as_str(),
                    wake_up_ns / 1000
                );
                let name = format!("simulated-{}-{}.svg", file_name(placement), wake_up_ns / 1000);
                draw(&folder.join(name), &title, &rows)?;
            }
        }
    }
    Ok(())
}

fn measure(
    plots: Option<&std::path::Path>,
    rounds: usize,
    only: &str,
) -> Result<(), Box<dyn Error>> {
    for placement in Placement::ALL {
        let mut rows: Vec<Row> = Vec::new();
        for cell in cells(placement, &MEASURED).filter(|cell| cell.name().contains(only)) {
            let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); Contender::ALL.len()];
            for round in 0..rounds {
                for (contender, outcomes) in Contender::ALL.into_iter().zip(&mut outcomes) {
                    let outcome = measure::run(&cell, contender)?;
                    outcome.print(&cell, 0, contender, round);
                    outcomes.push(outcome);
                }
            }
            for (contender, mut outcomes) in Contender::ALL.into_iter().zip(outcomes) {
                outcomes.sort_by(|a, b| a.total_ns().total_cmp(&b.total_ns()));
                rows.push((cell, contender, outcomes[outcomes.len() / 2]));
            }
        }
        if let Some(folder) = plots {
            let title = format!("measured: {}", placement.as_str());
            draw(&folder.join(format!("measured-{}.svg", file_name(placement))), &title, &rows)?;
        }
    }
    Ok(())
}

fn file_name(placement: Placement) -> String {
    placement.as_str().replace(' ', "-").to_lowercase()
}

fn draw(path: &std::path::Path, title: &str, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    #[allow(clippy::cast_precision_loss)]
    plot::draw(path, title, |shape, sources, contender| {
        rows.iter()
            .filter(|(cell, of, _)| {
                cell.shape == shape && cell.sources == sources && *of == contender
            })
            .map(|(cell, _, outcome)| (cell.gap_ns as f64 / 1000.0, outcome.total_ns() / 1000.0))
            .collect()
    })
}
