//! Why a monitor is not to be had here, and what can be done about it, in words for a person.

use std::fs;

use rustix::io::Errno;

/// What is known of a refusal.
#[derive(Debug, Default)]
pub struct Facts {
    pub errno: Option<i32>,
    pub call: Option<&'static str>,
    /// The sysctl kernel.io_uring_disabled, which Linux has since 6.6.
    pub disabled: Option<String>,
    /// The kernel's release.
    pub release: Option<String>,
}

impl Facts {
    pub fn of(error: &fdmon::Error) -> Self {
        let read = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
            Some(text.trim().to_owned())
        };
        Self {
            errno: error.errno(),
            call: error.syscall_name(),
            disabled: read("io_uring_disabled"),
            release: read("osrelease"),
        }
    }
}

/// The reason, and one line of advice; none when only the error itself knows more.
pub fn explain(facts: &Facts) -> Option<(String, &'static str)> {
    let call = facts.call?;
    let said = |what: &str| format!("{what} ({call})");
    let explained = match Errno::from_raw_os_error(facts.errno?) {
        Errno::PERM | Errno::ACCESS => refused(facts, call),
        Errno::NOSYS if facts.is_old() => (
            said("ENOSYS: this kernel's rings cannot wait with a timeout, IORING_FEAT_EXT_ARG"),
            "use Linux 5.11 or newer",
        ),
        Errno::NOSYS => (
            said("ENOSYS: the kernel was built without it, or a sandbox hides it"),
            "use a kernel with CONFIG_IO_URING, and a sandbox that passes its three calls on",
        ),
        Errno::INVAL => (
            said("EINVAL: this kernel makes no ring of a kind that fdmon can use"),
            "use Linux 5.11 or newer",
        ),
        Errno::NOMEM => (
            said("ENOMEM: there is no memory for a ring"),
            "raise the limits on memory: of the cgroup, RLIMIT_AS (ulimit -v), and before Linux \
             5.12 RLIMIT_MEMLOCK (ulimit -l)",
        ),
        Errno::MFILE => (
            said("EMFILE: this process has as many open files as it may"),
            "raise the limit (ulimit -n)",
        ),
        Errno::NFILE => (
            said("ENFILE: the system has as many open files as it may"),
            "raise the sysctl fs.file-max",
        ),
        _ => return None,
    };
    Some(explained)
}

/// The sysctl refuses only the making of rings.
fn refused(facts: &Facts, call: &str) -> (String, &'static str) {
    match facts.disabled.as_deref() {
        Some("2") if call == "io_uring_setup" => (
            "EPERM: the sysctl kernel.io_uring_disabled is 2, which is for everybody".into(),
            "run: sysctl -w kernel.io_uring_disabled=0",
        ),
        Some("1") if call == "io_uring_setup" => (
            "EPERM: the sysctl kernel.io_uring_disabled is 1, which is for who has no \
             CAP_SYS_ADMIN and is not in the group of kernel.io_uring_group"
                .into(),
            "run: sysctl -w kernel.io_uring_disabled=0, or join the group of \
             kernel.io_uring_group",
        ),
        sysctl => {
            let but = sysctl.map_or(String::new(), |value| {
                format!("; the sysctl kernel.io_uring_disabled is {value} and allows it")
            });
            (
                format!("EPERM: a seccomp profile refuses {call}{but}"),
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile; \
                 those of Docker and Kubernetes refuse them (docker run --security-opt \
                 seccomp=PROFILE.json)",
            )
        }
    }
}

impl Facts {
    /// Only for the words: what there is was tried.
    fn is_old(&self) -> bool {
        let mut numbers = self.release.as_deref().unwrap_or_default().split(['.', '-']);
        let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
        matches!((next(), next()), (Some(major), Some(minor)) if (major, minor) < (5, 11))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(call: &'static str, errno: Errno, disabled: &str, release: &str) -> Facts {
        Facts {
            errno: Some(errno.raw_os_error()),
            call: Some(call),
            disabled: (!disabled.is_empty()).then(|| disabled.into()),
            release: Some(release.into()),
        }
    }

    /// SPEC 45
    #[test]
    fn each_refusal_has_a_reason_and_an_advice_of_its_own() {
        let (setup, enter) = ("io_uring_setup", "io_uring_enter");
        let cases = [
            (facts(setup, Errno::PERM, "2", "6.18.0"), "io_uring_disabled is 2", "sysctl -w"),
            (facts(setup, Errno::PERM, "1", "6.18.0"), "io_uring_disabled is 1", "io_uring_group"),
            (facts(setup, Errno::PERM, "0", "6.18.0"), "seccomp profile refuses", "docker run"),
            (facts(setup, Errno::PERM, "", "5.15.0"), "seccomp profile refuses", "docker run"),
            (facts(enter, Errno::PERM, "2", "6.18.0"), "refuses io_uring_enter", "docker run"),
            (facts(setup, Errno::NOSYS, "", "6.1.0"), "built without it", "CONFIG_IO_URING"),
            (facts(setup, Errno::NOSYS, "", "5.10.0-30-amd64"), "EXT_ARG", "5.11"),
            (facts(setup, Errno::NOSYS, "", "4.19.0"), "EXT_ARG", "5.11"),
            (facts(setup, Errno::INVAL, "", "5.15.0"), "EINVAL", "5.11"),
            (facts("mmap", Errno::NOMEM, "0", "6.18.0"), "ENOMEM", "RLIMIT_AS"),
            (facts(setup, Errno::MFILE, "0", "6.18.0"), "EMFILE", "ulimit -n"),
            (facts(setup, Errno::NFILE, "0", "6.18.0"), "ENFILE", "fs.file-max"),
        ];
        for (facts, reason, advice) in cases {
            let (said, advised) = explain(&facts).unwrap();
            assert!(said.contains(reason), "{facts:?}: {said}");
            assert!(advised.contains(advice), "{facts:?}: {advised}");
            assert!(!said.contains("  ") && !advised.contains("  "));
        }
        assert!(explain(&facts(setup, Errno::IO, "0", "6.18.0")).is_none());
        assert!(explain(&Facts::default()).is_none());
    }

    /// SPEC 45
    #[test]
    fn the_sysctl_is_named_with_its_value_where_it_allows_rings() {
        let (said, _) = explain(&facts("io_uring_setup", Errno::PERM, "0", "6.18.0")).unwrap();
        assert!(said.contains("kernel.io_uring_disabled is 0"), "{said}");
        let (said, _) = explain(&facts("io_uring_setup", Errno::PERM, "", "5.15.0")).unwrap();
        assert!(!said.contains("sysctl"), "{said}");
    }
}
