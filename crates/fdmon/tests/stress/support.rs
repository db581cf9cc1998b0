//! What the stress tests share: how long, how many, a process of their own, dice, and what is held.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a run did, and its seed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes that are allocated now.
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: by the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: by the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: by the caller's contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that this process has allocated and not freed.
pub fn live_bytes() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Bytes of memory that this process occupies.
pub fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}

/// Descriptors that this process has open, without the one that counts.
pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// How many seconds each test takes.
pub fn seconds() -> u64 {
    match std::env::var("FDMON_STRESS_SECONDS") {
        Ok(text) => text.parse().unwrap_or_else(|_| {
            panic!("FDMON_STRESS_SECONDS = '{text}'; set it to a whole number of seconds")
        }),
        Err(_) => 3,
    }
}

/// Ten million in 30 seconds' worth, and in fewer their share.
pub fn of_ten_million() -> u64 {
    10_000_000 * seconds().min(30) / 30
}

/// A time that is over when the test's seconds are.
pub struct Time(Instant);

impl Time {
    pub fn begins() -> Self {
        Self(Instant::now() + Duration::from_secs(seconds()))
    }

    pub fn goes_on(&self) -> bool {
        Instant::now() < self.0
    }
}

/// Dice that fall the same way for the same seed.
pub struct Dice(u64);

impl Dice {
    /// Says the seed on standard error, which a failing test shows.
    pub fn new() -> Self {
        let given = std::env::var("FDMON_STRESS_SEED").ok().and_then(|text| text.parse().ok());
        let clock = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let seed = given.unwrap_or_else(|| u64::from(clock.subsec_nanos()) ^ clock.as_secs());
        eprintln!("FDMON_STRESS_SEED={seed}");
        Self(seed)
    }

    /// A number below this.
    pub fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap_or_default()
    }
}

/// Runs this test once more in a process of its own and expects it to pass there. `true` = this is
/// that process: its memory, descriptors and limits are the test's alone.
pub fn alone() -> bool {
    const INSIDE: &str = "FDMON_STRESS_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "alone, it fails:\n{said}\n{complaints}");
    assert!(said.contains("1 passed"), "alone, it did not run:\n{said}\n{complaints}");
    println!("{said}");
    false
}
