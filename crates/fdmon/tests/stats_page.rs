//! The stats page of this process, read as another process reads it: docs/STATS-PAGE.md.
#![cfg(not(target_os = "wasi"))]
#![allow(unsafe_code)] // fork(2)

use std::fs::{File, metadata, set_permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use fdmon::{AioContext, EventNotifier, Handlers, MonitorKind, PollParams, publish_stats};

unsafe extern "C" {
    // std has none; the C library is linked anyway.
    fn fork() -> i32;
    fn _exit(code: i32) -> !;
}

const INSIDE: &str = "FDMON_TEST_ALONE";

/// Runs this test once more in a process of its own with this environment; `None` = this is it.
fn alone(environment: &[(&str, &str)]) -> Option<Output> {
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let thread = std::thread::current();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([thread.name().unwrap(), "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success(), "alone, it fails: {output:?}");
    Some(output)
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("fdmon-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    folder
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn u64_at(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).unwrap();
    u64::from_le_bytes(bytes)
}

/// Waits for this many updates from now on.
fn updates(file: &File, count: u64) {
    let before = u64_at(file, 40);
    while u64_at(file, 40) < before + count {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The blocks in use: where they begin, and their contexts.
fn contexts(file: &File) -> Vec<(u64, u64)> {
    let blocks = u64_at(file, 16) >> 32;
    let all = (0..blocks).map(|block| 512 + block * 16_384);
    all.map(|at| (at, u64_at(file, at + 8))).filter(|&(_, id)| id != 0).collect()
}

/// SPEC 53
#[test]
fn it_shows_the_contexts_of_the_process_while_they_live_and_goes_with_its_last_owner() {
    let home = folder("shows");
    if alone(&[("XDG_RUNTIME_DIR", home.to_str().unwrap())]).is_some() {
        assert_eq!(pages(&home), Vec::<PathBuf>::new());
        std::fs::remove_dir(home).unwrap();
        return;
    }
    let page = publish_stats().unwrap();
    let path = page.path().to_owned();
    assert_eq!(metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let file = File::open(&path).unwrap();
    assert_eq!(u64_at(&file, 0).to_le_bytes(), *b"fdmonST\0");
    assert_eq!(u64_at(&file, 24) & 0xffff_ffff, u64::from(std::process::id()));

    let spin = PollParams { max_ns: 1234, ..PollParams::default() };
    let ctx = AioContext::builder().monitor(MonitorKind::Epoll).poll(spin).build().unwrap();
    let bell = EventNotifier::new().unwrap();
    let clear = bell.clone();
    let read = move |_: &mut fdmon::Ops<'_>| Ok(clear.test_and_clear().map(drop)?);
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(read)).unwrap();
    for _ in 0..3 {
        bell.set().unwrap();
        ctx.poll(true).unwrap();
    }
    updates(&file, 2);
    let [(at, id)] = contexts(&file)[..] else { panic!("{:?}", contexts(&file)) };
    assert_eq!((id, u64_at(&file, at) % 2), (ctx.id(), 0));
    // Longest spin, turns, events; reads of the only handler.
    assert_eq!([40, 48, 120, 520].map(|field| u64_at(&file, at + field)), [1234, 3, 3, 3]);
    let mut name = [0; 10];
    file.read_exact_at(&mut name, at + 256).unwrap();
    assert_eq!(name, *b"context-1\0");

    // From a loop that lets nobody in, too.
    let (tell, told) = mpsc::channel();
    let looping = std::thread::spawn(move || {
        let ctx = AioContext::builder().build().unwrap();
        tell.send((ctx.id(), ctx.remote())).unwrap();
        ctx.run().unwrap();
    });
    let (other, remote) = told.recv().unwrap();
    updates(&file, 2);
    assert_eq!(contexts(&file).iter().map(|&(_, id)| id).collect::<Vec<_>>(), [ctx.id(), other]);
    remote.stop().unwrap();
    looping.join().unwrap();
    drop(ctx);
    updates(&file, 2);
    assert_eq!(contexts(&file), []);

    let again = publish_stats().unwrap();
    assert_eq!(again.path(), path);
    drop(page);
    updates(&file, 2);
    assert!(path.exists(), "the other owner wants it");
    drop(again);
    assert!(!path.exists());
    let page = publish_stats().unwrap();
    assert!(path.exists(), "it can be had anew");
    static KEPT: OnceLock<fdmon::StatsPage> = OnceLock::new();
    KEPT.set(page).unwrap(); // until the process ends
}

/// SPEC 53
#[test]
fn the_environment_asks_for_it_and_the_end_of_the_process_removes_it() {
    let home = folder("environment");
    let environment = [("XDG_RUNTIME_DIR", home.to_str().unwrap()), ("FDMON_STATS", "1")];
    if alone(&environment).is_some() {
        assert_eq!(pages(&home), Vec::<PathBuf>::new());
        std::fs::remove_dir(home).unwrap();
        return;
    }
    let inside = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap());
    assert_eq!(pages(&inside).len(), 0, "no context, no page");
    let ctx = AioContext::builder().build().unwrap();
    let [path] = &pages(&inside)[..] else { panic!("{:?}", pages(&inside)) };
    let file = File::open(path).unwrap();
    drop(ctx);
    updates(&file, 2);
    assert_eq!(contexts(&file), []);

    // A forked child leaves it alone, and has one of its own once it has a context. Between two
    // updates, the other thread holds nothing.
    updates(&file, 1);
    // SAFETY: no other thread of this process holds anything the child needs, and it leaves by
    // `_exit`.
    let child = unsafe { fork() };
    if child == 0 {
        let own = std::panic::catch_unwind(|| {
            let _ctx = AioContext::builder().build().unwrap();
            let page = publish_stats().unwrap();
            page.path() != path && page.path().exists() && path.exists()
        });
        // SAFETY: it ends the child, whose page stays as after any end that is not in good order.
        unsafe { _exit(if own.is_ok_and(|own| own) { 0 } else { 1 }) }
    }
    let pid = rustix::process::Pid::from_raw(child);
    let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    assert_eq!(status.unwrap().unwrap().1.exit_status(), Some(0));
    assert!(path.exists());
    for page in pages(&inside) {
        if page != *path {
            std::fs::remove_file(page).unwrap();
        }
    }
}

/// SPEC 13, 53
#[test]
fn nonsense_in_the_environment_and_a_place_that_is_taken_are_refused_by_name() {
    if alone(&[("FDMON_STATS", "yes")]).is_some() {
        return;
    }
    let error = AioContext::builder().build().unwrap_err();
    assert!(error.is_invalid_arg(), "{error}");
    assert!(error.to_string().starts_with("FDMON_STATS = 'yes'"), "{error}");
}

/// SPEC 13, 53
#[test]
fn a_page_that_was_left_behind_is_replaced_and_what_is_no_page_of_ours_is_not() {
    let home = folder("left");
    if alone(&[("XDG_RUNTIME_DIR", home.to_str().unwrap())]).is_some() {
        std::fs::remove_dir_all(home).unwrap();
        return;
    }
    let page = publish_stats().unwrap();
    let path = page.path().to_owned();
    drop(page);
    // As after a crash; a link is replaced, and where it leads is not touched.
    let victim = path.with_extension("victim");
    std::fs::write(&victim, "mine").unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    let page = publish_stats().unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    drop(page);
    // Others that were killed left theirs: nobody has the first number, everybody the second.
    let own = path.file_name().unwrap().to_str().unwrap();
    let named = |pid: u32| own.replacen(&std::process::id().to_string(), &pid.to_string(), 1);
    let of = |name: &str| path.with_file_name(name);
    let foreign = format!("fdmon-{}-1.stats", i32::MAX);
    for name in [&named(i32::MAX.unsigned_abs()), &named(1), &foreign] {
        std::fs::write(of(name), "left").unwrap();
    }
    drop(publish_stats().unwrap());
    assert_eq!(
        [named(i32::MAX.unsigned_abs()), named(1), foreign].map(|name| of(&name).exists()),
        [false, true, true]
    );
    std::fs::create_dir(&path).unwrap();
    let error = publish_stats().unwrap_err();
    assert!(error.is_syscall(), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}
