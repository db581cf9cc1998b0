//! Runs the cases of a place, compares each with what is expected, and keeps count.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use fdmon::faults::Shortages;
use fdmon::{ErrorCode, MonitorKind};

use crate::injector::{Rule, Stage, Stray, inject};
use crate::ledger::{Log, open_files};
use crate::manual::NEVER_ASKED;
use crate::own_process::{self, CASE};
use crate::report::{self, Tally};
use crate::sites;
use crate::table::{ALWAYS, Expect, Fault, Life as Lives, On, PLACE, Site, errno};
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
    stage: Stage,
    shortages: Shortages,
}

fn live_with(lives: Lives, on: On, spins: bool, rules: &[Rule], stage: Stage) -> Life {
    let (stage, log) = (Arc::new(stage), Arc::new(Log::default()));
    let before = open_files();
    if let Err(panic) = inject(rules, on.shape(), &stage, || lives(on, spins, &stage, &log)) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
        log.wrong(format!("panic: {}", text.unwrap_or_default()));
    }
    let stage = Arc::into_inner(stage).expect("the thread of the case has ended");
    stage.forget();
    let shortages = *stage.shortages.lock().unwrap();
    let after = open_files();
    if before != after {
        log.wrong(format!("files before {before:?}, after {after:?}"));
    }
    Life { log, stage, shortages }
}

/// What a life is like without the fault.
struct Usual {
    trail: Vec<MonitorKind>,
    /// Calls that are made at each place, by its address.
    calls: HashMap<usize, u32>,
}

/// All places of the same life are counted at once.
fn usual(of: &Site, on: On, spins: bool) -> Arc<Usual> {
    type Key = (usize, usize, On, bool);
    static USUAL: LazyLock<Mutex<HashMap<Key, Arc<Usual>>>> = LazyLock::new(Mutex::default);
    let besides = |site: &Site| site.besides.map_or(0, |besides| besides.numbers.as_ptr() as usize);
    let key = (of.life as usize, besides(of), on, spins);
    let known = USUAL.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    known.unwrap_or_else(|| {
        let alike = |site: &&Site| site.life as usize == key.0 && besides(site) == key.1;
        let sites: Vec<_> = all_sites().filter(alike).collect();
        let mut rules: Vec<_> = sites.iter().map(|site| site.count()).collect();
        rules.extend(of.besides.map(|besides| besides.rule()));
        let life = live_with(of.life, on, spins, &rules, Stage::new(rules.len()));
        if is_undisturbed(of) {
            let complaints = compare(&life, None);
            assert!(complaints.is_empty(), "{on}, without any fault: {complaints:#?}");
        }
        let address = |site: &&Site| ptr::from_ref(*site) as usize;
        let calls = sites.iter().enumerate();
        let calls = calls.map(|(at, site)| (address(site), life.stage.seen(at))).collect();
        let usual = Arc::new(Usual { trail: kinds(&life.log), calls });
        USUAL.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&usual));
        usual
    })
}

fn all_sites() -> impl Iterator<Item = &'static Site> {
    sites::ALL.iter().flat_map(|group| group.sites)
}

/// The place is in the busy world, where everything goes well but for the fault.
fn is_undisturbed(site: &Site) -> bool {
    site.besides.is_none() && site.life as usize == live as Lives as usize
}

/// The calls of a life that belong to no place.
pub fn strays(on: On, spins: bool) -> BTreeMap<Stray, u32> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if on.needs_ring() && !rings_here() {
        return BTreeMap::new();
    }
    // A place is one phase of a life, of several in which the same call is made.
    let anytime = |site: &Site| Rule { phases: ALWAYS, ..site.count() };
    let rules: Vec<_> = all_sites().map(anytime).collect();
    let stage = Stage::new(rules.len()).look_for_strays(NEVER_ASKED);
    let life = live_with(live, on, spins, &rules, stage);
    let complaints = compare(&life, None);
    assert!(complaints.is_empty(), "{on}, without any fault: {complaints:#?}");
    life.stage.strays()
}

/// The monitors that a context may have.
pub const CONTEXTS: &[On] = &[
    On::Poll,
    On::Epoll,
    On::Deferred,
    On::Cooperative,
    On::Plain,
    On::Restricted,
    On::Noisy,
    On::Auto,
    On::AutoWithoutRing,
];

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
            let says = trail.iter().any(|(_, said)| said.contains(reason));
            if !says {
                wrong.push(format!("it should say '{reason}'; it said {trail:?}"));
            }
        }
        Some(Expect::Error(code, words)) => {
            errors = 1;
            let met = met.unwrap();
            let errno = Some(errno(met.fault.told).raw_os_error());
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

/// All faults of the places of this table.
pub fn check(title: &str) {
    let group = sites::group(title);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Ok(case) = std::env::var(CASE) {
        return own_process::run_the_case(group, &case);
    }
    let only = std::env::var("FDMON_FAULTS_ONLY").unwrap_or_default();
    let mut failed = String::new();
    for (s, site) in group.sites.iter().enumerate() {
        for (f, fault) in site.faults.iter().enumerate() {
            let name = format!("{} ({}) {}", site.call, site.what, fault.errno);
            if name.contains(&only) {
                let tally = check_fault(site, fault, [s, f], &name, &mut failed);
                report::result(group, site, fault, [group.number(), s, f], &tally);
            }
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
}

fn check_fault(
    site: &'static Site,
    fault: &'static Fault,
    at: [usize; 2],
    name: &str,
    failed: &mut String,
) -> Tally {
    let mut tally = Tally::default();
    for &on in fault.on {
        if on.needs_ring() && !rings_here() {
            continue;
        }
        let mut met_first = false;
        for &spins in site.spins {
            // There may be fewer calls after a fault, but not before it; timing may add some.
            let mut calls = match site.once {
                Some(_) => u32::MAX,
                None => usual(site, on, spins).calls[&(ptr::from_ref(site) as usize)],
            };
            for nth in 1..=last().min(site.most) {
                if nth > 1 && site.skip + nth > calls {
                    break;
                }
                let case = Case { at, on, spins, nth };
                let ended = match site.once {
                    Some(test) => own_process::start(test, &case),
                    None => case.run(site, fault),
                };
                if ended.hits == 0 {
                    break; // there are no more such calls
                }
                calls = calls.max(ended.seen);
                met_first = true;
                tally.hit(nth);
                tally.told_by.extend(ended.told_by);
                if !ended.complaints.is_empty() {
                    tally.wrong += 1;
                    let spins = if spins { ", spinning" } else { "" };
                    let _ =
                        writeln!(failed, "{name} on {on}{spins}, call {nth} of {}:", ended.seen);
                    for complaint in ended.complaints {
                        let _ = writeln!(failed, "  {complaint}");
                    }
                }
            }
        }
        if !met_first {
            let _ = writeln!(failed, "{name} on {on}: no such call is made");
        }
    }
    tally
}

/// One life with one fault.
pub struct Case {
    /// Place and fault, in their group.
    pub at: [usize; 2],
    pub on: On,
    pub spins: bool,
    pub nth: u32,
}

/// What became of it.
#[derive(Default)]
pub struct Ended {
    pub seen: u32,
    pub hits: u32,
    pub told_by: Vec<String>,
    pub complaints: Vec<String>,
}

impl Case {
    pub fn run(&self, site: &'static Site, fault: &'static Fault) -> Ended {
        let &Self { on, spins, nth, .. } = self;
        let mut rules = vec![site.rule(fault, nth)];
        rules.extend(site.besides.map(|besides| besides.rule()));
        let life = live_with(site.life, on, spins, &rules, Stage::new(rules.len()));
        let (seen, hits) = (life.stage.seen(0), life.stage.hits());
        if hits == 0 {
            return Ended { seen, ..Ended::default() };
        }
        let told = life.log.told.lock().unwrap().clone();
        // Afterwards, so that what is done once a process is done in this life.
        let usual = usual(if site.besides.is_none() { site } else { &PLACE }, on, spins);
        let met = Met { site, fault, trail: &usual.trail };
        let told_by = told.iter().map(|told| told.op.to_owned()).collect();
        Ended { seen, hits, told_by, complaints: compare(&life, Some(&met)) }
    }
}

/// Rings whose queues are too small for what happens.
pub fn check_small_queues(title: &str) {
    let group = sites::group(title);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let [full, overflow] = group.sites else { panic!("two queues") };
    let mut failed = String::new();
    let mut tallies = [Tally::default(), Tally::default()];
    for &on in full.faults[0].on.iter().filter(|_| rings_here()) {
        for spins in [false, true] {
            let life = live_with(live, on, spins, &[], Stage::new(0));
            let Shortages { full, overflows } = life.shortages;
            let complaints = compare(&life, None);
            for (tally, times) in tallies.iter_mut().zip([full, overflows]) {
                if times == 0 {
                    let _ = writeln!(
                        failed,
                        "{on}: its queues were large enough: {full} times full, {overflows} overflows"
                    );
                } else {
                    tally.hit(1);
                }
                tally.wrong += u32::from(!complaints.is_empty());
            }
            for complaint in complaints {
                let _ = writeln!(failed, "{on}: {complaint}");
            }
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
    for (s, (site, tally)) in [full, overflow].into_iter().zip(&tallies).enumerate() {
        report::result(group, site, &site.faults[0], [group.number(), s, 0], tally);
    }
}
