//! What is written down of each row, as lines of JSON, for `npm run faults`.
//!
//! `FDMON_FAULTS_ROWS=FILE` gets the rows that there are, `FDMON_FAULTS_REPORT=FILE` what became of
//! those that were run.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;

use crate::sites;
use crate::table::{Fault, Group, Site};

/// What became of the cases of a row.
#[derive(Default)]
pub struct Tally {
    /// Cases whose fault was met, by n: the first is n = 1.
    pub hits: Vec<u32>,
    /// Cases that were not as expected.
    pub wrong: u32,
    /// The calls of the user that returned the error.
    pub told_by: BTreeSet<String>,
}

impl Tally {
    pub fn hit(&mut self, nth: u32) {
        let at = nth as usize - 1;
        if self.hits.len() <= at {
            self.hits.resize(at + 1, 0);
        }
        self.hits[at] += 1;
    }
}

/// Each row, and each pair that is impossible.
pub fn rows() {
    let Some(path) = std::env::var_os("FDMON_FAULTS_ROWS") else { return };
    let mut text = String::new();
    for (g, group) in sites::ALL.iter().enumerate() {
        for (s, site) in group.sites.iter().enumerate() {
            for (f, fault) in site.faults.iter().enumerate() {
                let _ = writeln!(text, "{{{}}}", row(group, site, fault, [g, s, f]));
            }
            for (errnos, why) in site.impossible {
                let place = place(group, site);
                let _ = writeln!(
                    text,
                    "{{{place},\"at\":[{g},{s}],\"impossible\":{errnos:?},\"why\":{why:?}}}"
                );
            }
        }
    }
    append(path, &text);
}

/// What became of this row.
pub fn result(group: &Group, site: &Site, fault: &Fault, at: [usize; 3], tally: &Tally) {
    let Some(path) = std::env::var_os("FDMON_FAULTS_REPORT") else { return };
    let Tally { hits, wrong, told_by } = tally;
    let row = row(group, site, fault, at);
    let told_by: Vec<_> = told_by.iter().collect();
    let result = format!("\"hits\":{hits:?},\"wrong\":{wrong},\"toldBy\":{told_by:?}");
    append(path, &format!("{{{row},{result}}}\n"));
}

fn row(group: &Group, site: &Site, fault: &Fault, at: [usize; 3]) -> String {
    let on: Vec<String> = fault.on.iter().map(ToString::to_string).collect();
    format!(
        "{},\"at\":{at:?},\"errno\":{:?},\"on\":{on:?},\"expect\":{:?}",
        place(group, site),
        fault.errno,
        fault.expect.to_string()
    )
}

fn place(group: &Group, site: &Site) -> String {
    format!(
        "\"group\":{:?},\"call\":{:?},\"what\":{:?},\"file\":{:?}",
        group.title, site.call, site.what, site.file
    )
}

fn append(path: OsString, text: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
}
