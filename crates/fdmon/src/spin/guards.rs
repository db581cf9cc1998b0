//! ②′ Guards: no spin where only one CPU is usable, since it would keep the producer from running.

use std::fs;

use crate::stats::Guard;

/// How often affinity and quota are read again.
const REREAD_NS: u64 = 1_000_000_000;

/// CPUs usable by this thread, and the quota of its cgroup in CPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Cpus {
    /// CPUs in the thread's affinity mask.
    pub affinity: u32,
    /// CPU time the cgroup grants, in CPUs; `None` = no limit.
    pub quota: Option<f64>,
}

impl Cpus {
    /// What holds for the calling thread now.
    #[must_use]
    pub fn now() -> Self {
        Self { affinity: affinity(), quota: quota() }
    }

    fn guard(self) -> Option<Guard> {
        if self.affinity <= 1 {
            Some(Guard::OneCpu)
        } else if self.quota.is_some_and(|cpus| cpus.ceil() <= 1.0) {
            Some(Guard::CpuQuota)
        } else {
            None
        }
    }
}

/// When all events of so long a time came only when the CPU was yielded, the producer shares it
/// for good: the scheduler would have moved one of the two by then if it could.
const SHARED_NS: u64 = 200_000_000;
/// For how long the context then sleeps instead.
const REST_NS: u64 = 1_000_000_000;

/// The guards in force, read again now and then.
#[derive(Default)]
pub(crate) struct Guards {
    read_at: Option<u64>,
    guard: Option<Guard>,
    /// Since when every event came right after a yield.
    shared_since: Option<u64>,
    rests_until: u64,
}

impl Guards {
    pub fn check(&mut self, now: u64) -> Option<Guard> {
        if now < self.rests_until {
            return Some(Guard::SharedCpu);
        }
        self.check_with(now, Cpus::now)
    }

    /// A spin found something, right after it yielded the CPU or not.
    pub fn found(&mut self, yielded: bool, now: u64) {
        if !yielded {
            self.shared_since = None;
            return;
        }
        let since = *self.shared_since.get_or_insert(now);
        if now.saturating_sub(since) >= SHARED_NS {
            self.shared_since = None;
            self.rests_until = now.saturating_add(REST_NS);
        }
    }

    #[inline]
    fn check_with(&mut self, now: u64, read: impl FnOnce() -> Cpus) -> Option<Guard> {
        if self.read_at.is_none_or(|at| now.saturating_sub(at) >= REREAD_NS) {
            self.read_at = Some(now);
            self.guard = read().guard();
        }
        self.guard
    }
}

/// WebAssembly is not told.
#[cfg(wasi)]
fn affinity() -> u32 {
    u32::MAX
}

#[cfg(not(wasi))]
fn affinity() -> u32 {
    // Fails only where there are more CPUs than the set can hold.
    rustix::thread::sched_getaffinity(None).map_or(u32::MAX, |set| set.count())
}

/// The least quota along the way up the cgroup tree, version 2 or 1.
fn quota() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let v1 = controllers.split(',').any(|c| c == "cpu");
        if !v1 && !controllers.is_empty() {
            continue;
        }
        let root = if v1 { "/sys/fs/cgroup/cpu" } else { "/sys/fs/cgroup" };
        let mut path = path;
        loop {
            let dir = format!("{root}{path}");
            let here = if v1 { quota_v1(&dir) } else { quota_v2(&dir) };
            least = match (least, here) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            match path.rfind('/') {
                Some(at) if path.len() > 1 => path = &path[..at],
                _ => break,
            }
        }
    }
    least
}

fn quota_v2(dir: &str) -> Option<f64> {
    parse_quota(&fs::read_to_string(format!("{dir}/cpu.max")).ok()?)
}

fn quota_v1(dir: &str) -> Option<f64> {
    let quota = fs::read_to_string(format!("{dir}/cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(format!("{dir}/cpu.cfs_period_us")).ok()?;
    parse_quota(&format!("{} {}", quota.trim(), period.trim()))
}

/// "quota period"; "max" and negative quotas are no limit.
fn parse_quota(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC 28
    #[test]
    fn one_cpu_or_a_quota_of_one_forbids_spinning() {
        let guard = |affinity, quota| Cpus { affinity, quota }.guard();
        assert_eq!(guard(1, None), Some(Guard::OneCpu));
        assert_eq!(guard(2, None), None);
        assert_eq!(guard(4, Some(0.5)), Some(Guard::CpuQuota));
        assert_eq!(guard(4, Some(1.0)), Some(Guard::CpuQuota));
        assert_eq!(guard(4, Some(1.5)), None);
    }

    /// SPEC 28
    #[test]
    fn cpus_are_read_again_now_and_then() {
        let mut guards = Guards::default();
        let one = || Cpus { affinity: 1, quota: None };
        let two = || Cpus { affinity: 2, quota: None };
        assert_eq!(guards.check_with(0, one), Some(Guard::OneCpu));
        assert_eq!(guards.check_with(REREAD_NS - 1, two), Some(Guard::OneCpu));
        assert_eq!(guards.check_with(REREAD_NS, two), None);
    }

    /// SPEC 28
    #[test]
    fn a_producer_that_runs_only_when_the_cpu_is_yielded_forbids_spinning_for_a_while() {
        let mut guards = Guards::default();
        guards.check_with(0, || Cpus { affinity: 2, quota: None });
        guards.found(true, 0);
        guards.found(false, SHARED_NS - 1);
        guards.found(true, SHARED_NS);
        assert_eq!(guards.check(SHARED_NS), None, "one of them came by itself");
        guards.found(true, 2 * SHARED_NS);
        assert_eq!(guards.check(2 * SHARED_NS), Some(Guard::SharedCpu));
        assert_eq!(guards.check(2 * SHARED_NS + REST_NS - 1), Some(Guard::SharedCpu));
        guards.read_at = Some(2 * SHARED_NS + REST_NS);
        assert_eq!(guards.check(2 * SHARED_NS + REST_NS), None);
    }

    #[test]
    fn quotas_are_parsed_as_the_kernel_writes_them() {
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota("50000 100000\n"), Some(0.5));
        assert_eq!(parse_quota("-1 100000"), None);
        assert_eq!(parse_quota(""), None);
    }
}
