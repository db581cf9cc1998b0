//! Cases of calls that are made once a process: each has a process of its own, the test anew with
//! `FDMON_FAULTS_CASE` set.

use std::process::Command;

use crate::run::{Case, Ended};
use crate::table::{Group, On};

/// Which case the process is for: place, fault, monitor, spinning or not, n.
pub const CASE: &str = "FDMON_FAULTS_CASE";
const ENDED: &str = "case ended: ";
const WRONG: &str = "case wrong: ";

/// Runs the case in a process of this test.
pub fn start(test: &str, case: &Case) -> Ended {
    let Case { at: [s, f], on, spins, nth } = case;
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CASE, format!("{s} {f} {} {} {nth}", *on as usize, u32::from(*spins)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.split_once(ENDED));
    let words: Vec<&str> = line.map(|(_, end)| end.split(' ').collect()).unwrap_or_default();
    let [seen, hits, told_by @ ..] = &*words else {
        let complaint = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
        return Ended { seen: 0, hits: 1, told_by: Vec::new(), complaints: vec![complaint] };
    };
    let complaints = said.lines().filter_map(|line| line.split_once(WRONG));
    Ended {
        seen: seen.parse().unwrap(),
        hits: hits.parse().unwrap(),
        told_by: told_by.iter().map(|op| (*op).to_owned()).collect(),
        complaints: complaints.map(|(_, complaint)| complaint.to_owned()).collect(),
    }
}

/// In that process.
#[allow(clippy::print_stdout, reason = "for the process that started this one")]
pub fn run_the_case(group: &Group, case: &str) {
    let numbers: Vec<usize> = case.split(' ').map(|number| number.parse().unwrap()).collect();
    let &[s, f, on, spins, nth] = &*numbers else { panic!("{CASE}={case} is no case") };
    let on = On::ALL[on];
    let case = Case { at: [s, f], on, spins: spins == 1, nth: nth.try_into().unwrap() };
    let site = &group.sites[s];
    let Ended { seen, hits, told_by, complaints } = case.run(site, &site.faults[f]);
    for complaint in complaints {
        println!("\n{WRONG}{}", complaint.replace('\n', " "));
    }
    let told_by: String = told_by.iter().map(|op| format!(" {op}")).collect();
    println!("\n{ENDED}{seen} {hits}{told_by}");
}
