//! Which file the page of a process is, and how it is made so that nobody else's file is touched.

use std::fs::{
    File, OpenOptions, metadata, read_dir, read_to_string, remove_file, symlink_metadata,
};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Where there is no folder of the user's own: everybody may make files here, and nobody remove
/// those of others.
const SHARED_MEMORY: &str = "/dev/shm";

/// `$XDG_RUNTIME_DIR` where it is the user's alone.
fn folder() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute() && is_private(folder))
        .unwrap_or_else(|| PathBuf::from(SHARED_MEMORY))
}

fn is_private(folder: &Path) -> bool {
    metadata(folder).is_ok_and(|found| {
        found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0
    })
}

/// Numbers of processes mean something within their namespace alone; 0 = there is no /proc.
pub(super) fn pid_namespace() -> u64 {
    metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

/// When this process began, in clock ticks since the machine did: with its number, its identity.
pub(super) fn start_time() -> u64 {
    read_to_string("/proc/self/stat").ok().and_then(|line| start_in(&line)).unwrap_or(0)
}

/// The 22nd field; the second, a name in parentheses, may contain anything.
fn start_in(line: &str) -> Option<u64> {
    line.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Makes the file, readable by its owner alone. One that lies there is of a process that had the
/// same number and is gone.
pub(super) fn create(pid: u32) -> Result<(File, PathBuf), (io::Error, PathBuf)> {
    let (folder, namespace) = (folder(), pid_namespace());
    if namespace != 0 {
        clean(&folder, namespace);
    }
    let path = folder.join(format!("fdmon-{pid}-{namespace}.stats"));
    let made = match open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_ours(&path) => {
            remove_file(&path).and_then(|()| open(&path))
        }
        made => made,
    };
    match made {
        Ok(file) => Ok((file, path)),
        Err(error) => Err((error, path)),
    }
}

/// Removes what processes left behind that were killed: a service that crashes again and again must
/// not fill the memory. Of another namespace nobody here can tell.
fn clean(folder: &Path, namespace: u64) {
    let Ok(entries) = read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let dead = name.to_str().and_then(|name| pid_in(name, namespace)).is_some_and(|pid| {
            symlink_metadata(format!("/proc/{pid}"))
                .is_err_and(|error| error.kind() == ErrorKind::NotFound)
        });
        if dead && is_ours(&entry.path()) {
            let _ = remove_file(entry.path()); // somebody else may have
        }
    }
}

/// Whose page has this name.
fn pid_in(name: &str, namespace: u64) -> Option<u32> {
    let rest = name.strip_prefix("fdmon-")?.strip_suffix(".stats")?;
    let (pid, of) = rest.split_once('-')?;
    (of.parse() == Ok(namespace)).then(|| pid.parse().ok()).flatten()
}

#[allow(clippy::cast_possible_wrap, reason = "flags")]
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(path)
}

fn is_ours(path: &Path) -> bool {
    symlink_metadata(path).is_ok_and(|found| found.uid() == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::{pid_in, start_in, start_time};

    #[test]
    fn the_start_is_found_behind_a_name_with_parentheses() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_in(&format!("9 (a) b) c) {fields}")), Some(4711));
        assert_eq!(start_in("9 a"), None);
        assert_ne!(start_time(), 0);
    }

    #[test]
    fn only_names_of_pages_of_this_namespace_name_a_process() {
        assert_eq!(pid_in("fdmon-12-34.stats", 34), Some(12));
        for name in [
            "fdmon-12-35.stats",
            "fdmon-x-34.stats",
            "fdmon-12.stats",
            "fdmon-12-34",
            "12-34.stats",
        ] {
            assert_eq!(pid_in(name, 34), None, "{name}");
        }
    }
}
