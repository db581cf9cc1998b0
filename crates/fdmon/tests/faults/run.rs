//! Runs the cases of a place, compares each with what is expected, and keeps count.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use fdmon::faults::Shortages;
use fdmon::{ErrorCode, MonitorKind};

use crate::injector::{Rule, Stage, inject};
use crate::ledger::{Log, open_files};
use crate::table::{Expect, Fault, Life as Lives, On, Site, errno};
use crate::world::live;

/// One case after the other: files are counted.
static ALONE: Mutex<()> = Mutex::new(());

/// How far the n-th call goes; `FDMON_FAULTS_N` says otherwise.
fn last() -> u32 {
    std::env::var("FDMON_FAULTS_N").map_or(3, |text| {
        text.parse().unwrap_or_else(|_| panic!("FDMON_FAULTS_N={text} is no number"))
    })
}

/// There is a ring here, or these cases are left out on purpose.
fn rings_here() -> bool {
    static HERE: LazyLock<bool> = LazyLock::new(|| match fdmon::probe_io_uring() {
        Ok(_) => true,
        Err(error) => {
            let left_out = std::env::var("FDMON_WITHOUT_IO_URING").is_ok_and(|value| value == "1");
            assert!(
                left_out,
                "{error}; set FDMON_WITHOUT_IO_URING=1 to leave out what needs io_uring"
            );
            false
        }
    });
    *HERE
}

/// What a case left behind.
struct Life {
    log: Arc<Log>,
    seen: u32,
    hits: u32,
    shortages: Shortages,
}

fn live_with(lives: Lives, on: On, spins: bool, rules: &[Rule]) -> Life {
    let (stage, log) = (Arc::new(Stage::default()), Arc::new(Log::default()));
    let before = open_files();
    if let Err(panic) = inject(rules, on.shape(), &stage, || lives(on, spins, &stage, &log)) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
        log.wrong(format!("panic: {}", text.unwrap_or_default()));
    }
    let (seen, hits) = (stage.seen(), stage.hits());
    let shortages = *stage.shortages.lock().unwrap();
    drop(stage);
    let after = open_files();
    if before != after {
        log.wrong(format!("files before {before:?}, after {after:?}"));
    }
    Life { log, seen, hits, shortages }
}

/// The monitors of a life without faults.
fn trail_of(on: On, spins: bool) -> Vec<MonitorKind> {
    static TRAILS: LazyLock<Mutex<HashMap<(On, bool), Vec<MonitorKind>>>> =
        LazyLock::new(Mutex::default);
    let known = TRAILS.lock().unwrap_or_else(PoisonError::into_inner).get(&(on, spins)).cloned();
    known.unwrap_or_else(|| {
        let life = live_with(live, on, spins, &[]);
        let complaints = compare(&life, None);
        assert!(complaints.is_empty(), "{on}, without any fault: {complaints:#?}");
        let trail = kinds(&life.log);
        TRAILS.lock().unwrap_or_else(PoisonError::into_inner).insert((on, spins), trail.clone());
        trail
    })
}

fn kinds(log: &Log) -> Vec<MonitorKind> {
    let mut kinds: Vec<_> = log.trail.lock().unwrap().iter().map(|(kind, _)| *kind).collect();
    kinds.dedup();
    kinds
}

/// A fault that was met.
struct Met<'a> {
    site: &'a Site,
    fault: &'a Fault,
    trail: &'a [MonitorKind],
}

/// What is not as it should be.
fn compare(life: &Life, met: Option<&Met<'_>>) -> Vec<String> {
    let log = &life.log;
    let mut wrong = std::mem::take(&mut *log.wrong.lock().unwrap());
    let told = log.told.lock().unwrap().clone();
    let spurious = log.spurious.load(Ordering::SeqCst);
    let trail = log.trail.lock().unwrap().clone();
    let expect = met.map(|met| met.fault.expect);
    let mut errors = 0;
    match expect {
        Some(Expect::Moves(to, reason)) => {
            let moved = trail.iter().any(|(kind, said)| *kind == to && said.contains(reason));
            if !moved {
                wrong.push(format!("it should move to {to}, '{reason}'; it was on {trail:?}"));
            }
        }
        Some(Expect::Stays(reason)) => {
            if !trail.iter().any(|(_, said)| said.contains(reason)) {
                wrong.push(format!("it should say '{reason}'; it said {trail:?}"));
            }
        }
        Some(Expect::Error(code, words)) => {
            errors = 1;
            let met = met.unwrap();
            let errno = Some(errno(met.fault.errno).raw_os_error());
            for told in &told {
                let names = code == ErrorCode::BadFd || told.syscall == Some(met.site.call);
                let right = told.code == code && told.errno == errno && names;
                if !right || !told.text.contains(words) || !told.text.contains("; ") {
                    wrong.push(format!("not the expected error: {told:?}"));
                }
            }
        }
        Some(Expect::BadFd) => {
            errors = 1;
            for told in told.iter().filter(|told| told.code != ErrorCode::BadFd) {
                wrong.push(format!("not BAD_FD: {told:?}"));
            }
        }
        _ => {}
    }
    if told.len() != errors {
        wrong.push(format!("{} errors instead of {errors}: {told:?}", told.len()));
    }
    let may_be_spurious = u32::from(matches!(expect, Some(Expect::CalledAgain)));
    if spurious != may_be_spurious {
        wrong.push(format!(
            "{spurious} callbacks were called for nothing instead of {may_be_spurious}"
        ));
    }
    let undisturbed = !matches!(expect, Some(Expect::Moves(..) | Expect::Stays(_) | Expect::BadFd));
    if let Some(met) = met.filter(|_| undisturbed)
        && kinds(log) != met.trail
    {
        wrong.push(format!("it moved: {trail:?} instead of {:?}", met.trail));
    }
    wrong
}

/// All faults of these places.
pub fn check(sites: &[Site]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let only = std::env::var("FDMON_FAULTS_ONLY").unwrap_or_default();
    let mut failed = String::new();
    for site in sites {
        for fault in site.faults {
            let name = format!("{} ({}) {}", site.call, site.what, fault.errno);
            if name.contains(&only) {
                check_fault(site, fault, &name, &mut failed);
            }
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
}

fn check_fault(site: &Site, fault: &Fault, name: &str, failed: &mut String) {
    let (mut hits, mut furthest) = (0, 0);
    for &on in fault.on {
        if on.needs_ring() && !rings_here() {
            continue;
        }
        let mut met_first = false;
        for &spins in site.spins {
            let trail = trail_of(on, spins);
            for nth in 1..=last().min(site.most) {
                let mut rules = vec![site.rule(fault, nth)];
                rules.extend(site.besides.map(|besides| besides.rule()));
                let life = live_with(site.life, on, spins, &rules);
                if life.hits == 0 {
                    break; // there are no more such calls
                }
                met_first = true;
                hits += 1;
                furthest = furthest.max(nth);
                let met = Met { site, fault, trail: &trail };
                let complaints = compare(&life, Some(&met));
                if !complaints.is_empty() {
                    let spins = if spins { ", spinning" } else { "" };
                    let _ = writeln!(failed, "{name} on {on}{spins}, call {nth} of {}:", life.seen);
                    for complaint in complaints {
                        let _ = writeln!(failed, "  {complaint}");
                    }
                }
            }
        }
        if !met_first {
            let _ = writeln!(failed, "{name} on {on}: no such call is made");
        }
    }
    report(site, fault, hits, furthest);
}

/// Rings whose queues are too small for what happens.
pub fn check_small_queues(full: &Site, overflow: &Site) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failed = String::new();
    let mut met = (0, 0);
    for &on in full.faults[0].on.iter().filter(|_| rings_here()) {
        let mut shortages = Shortages::default();
        for spins in [false, true] {
            let life = live_with(live, on, spins, &[]);
            shortages.full += life.shortages.full;
            shortages.overflows += life.shortages.overflows;
            for complaint in compare(&life, None) {
                let _ = writeln!(failed, "{on}: {complaint}");
            }
        }
        if shortages.full == 0 || shortages.overflows == 0 {
            let _ = writeln!(failed, "{on}: its queues were large enough: {shortages:?}");
        }
        met = (met.0 + u32::from(shortages.full > 0), met.1 + u32::from(shortages.overflows > 0));
    }
    assert!(failed.is_empty(), "\n{failed}");
    report(full, &full.faults[0], met.0, 1);
    report(overflow, &overflow.faults[0], met.1, 1);
}

/// Into the file that `FDMON_FAULTS_OUT` names: one line of JSON a row.
fn report(site: &Site, fault: &Fault, hits: u32, furthest: u32) {
    let Some(path) = std::env::var_os("FDMON_FAULTS_OUT") else { return };
    let on: Vec<String> = fault.on.iter().map(ToString::to_string).collect();
    let row = format!(
        "{{\"call\":{:?},\"what\":{:?},\"file\":{:?},\"errno\":{:?},\"on\":{:?},\"expect\":{:?},\"hits\":{hits},\"furthest\":{furthest}}}\n",
        site.call,
        site.what,
        site.file,
        fault.errno,
        on,
        fault.expect.to_string()
    );
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(row.as_bytes())).unwrap();
}
