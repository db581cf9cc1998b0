//! The program vdev: the device is a process, the driver is this one, and the disk is looked at afterwards.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use fdmon::{AioContext, MonitorKind, PollParams};
use fdmon_outside::vdev::SECTOR;
use fdmon_outside::vdev::driver::Driver;
use fdmon_outside::vdev::workload::{Plan, fill, run};

const SPIN: u64 = 200;
/// A disk of 4 MiB.
const BYTES: u64 = 4 << 20;

/// A device in a process of its own, and a folder that is gone afterwards.
struct Device {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    folder: PathBuf,
}

impl Device {
    fn start(name: &str, options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("vdev-{}-{name}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_vdev"))
            .args(["device", "--size", &BYTES.to_string()])
            .arg("--socket")
            .arg(folder.join("socket"))
            .arg("--file")
            .arg(folder.join("disk"))
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "serving 8192 sectors");
        Self { process, lines, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Ends it: how many requests it answered, and how often it was kicked.
    fn end(&mut self) -> (u64, u64) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let line = self.lines.next().unwrap().unwrap();
        assert!(self.process.wait().unwrap().success());
        let (requests, kicks) = line.split_once(" requests, ").unwrap();
        (requests.parse().unwrap(), kicks.strip_suffix(" kicks").unwrap().parse().unwrap())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill(); // of a test that failed
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn context(monitor: MonitorKind, spin: u64) -> AioContext {
    let params = PollParams::spin(Duration::from_micros(spin));
    AioContext::builder().monitor(monitor).poll(params).build().unwrap()
}

fn disk_is_as_written(path: &Path, versions: &[u32]) {
    let (disk, mut expected) = (fs::read(path).unwrap(), [0; SECTOR]);
    assert_eq!(disk.len(), versions.len() * SECTOR);
    for ((sector, &version), found) in (0..).zip(versions).zip(disk.chunks(SECTOR)) {
        fill(sector, version, &mut expected);
        assert!(found == expected, "sector {sector} is not what was written to it last");
    }
}

/// The driver spins for `spin` microseconds or not at all, the device as its options say.
fn random_requests(name: &str, requests: u64, monitor: MonitorKind, spin: u64, options: &[&str]) {
    let mut device = Device::start(name, options);
    let ctx = context(monitor, spin);
    let driver = Driver::connect(&ctx, &device.socket()).unwrap();
    let versions = run(&ctx, &driver, Plan { requests, workers: 16, seed: spin }).unwrap();
    let calls = driver.calls();
    ctx.close();
    let (answered, kicks) = device.end();
    assert!(answered >= requests, "{answered} were answered, flushes among them");
    assert!(kicks <= answered && calls <= answered, "{kicks} kicks, {calls} calls");
    assert!(versions.iter().any(|&version| version > 1), "sectors are written again and again");
    disk_is_as_written(&device.folder.join("disk"), &versions);
}

#[test]
fn a_hundred_thousand_requests_are_right_without_spinning() {
    random_requests("sleep", 100_000, MonitorKind::Epoll, 0, &["--monitor", "epoll"]);
}

#[test]
fn a_hundred_thousand_requests_are_right_with_spinning() {
    random_requests("spin", 100_000, MonitorKind::Auto, SPIN, &["--spin", "200"]);
}

#[test]
fn requests_are_right_when_one_side_alone_spins() {
    random_requests("driver", 20_000, MonitorKind::Epoll, SPIN, &["--monitor", "poll"]);
    let device = ["--monitor", "poll", "--spin", "200"];
    random_requests("device", 20_000, MonitorKind::Auto, 0, &device);
}

#[test]
fn the_driver_program_verifies_a_disk() {
    let mut device = Device::start("program", &["--spin", "50"]);
    let output = Command::new(env!("CARGO_BIN_EXE_vdev"))
        .args(["driver", "--requests", "5000", "--spin", "50", "--socket"])
        .arg(device.socket())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("5000 requests, all as expected"), "{said}");
    assert!(output.status.success());
    device.end();
}

#[test]
fn a_disk_that_changes_behind_the_device_is_noticed() {
    let device = Device::start("changed", &[]);
    fs::write(device.folder.join("disk"), vec![1; BYTES as usize]).unwrap();
    let ctx = context(MonitorKind::Auto, 0);
    let driver = Driver::connect(&ctx, &device.socket()).unwrap();
    let error = run(&ctx, &driver, Plan { requests: 1000, workers: 4, seed: 1 }).unwrap_err();
    assert!(error.to_string().contains("hold something else"), "{error}");
}

#[test]
fn a_device_that_is_gone_ends_the_drivers_loop() {
    let mut device = Device::start("gone", &[]);
    let ctx = context(MonitorKind::Auto, 0);
    let _driver = Driver::connect(&ctx, &device.socket()).unwrap();
    device.end();
    let error = ctx.run().unwrap_err();
    assert!(error.to_string().contains("the device is gone"), "{error}");
}
