//! ② Refusals: why a monitor is not to be had here, and what can be done about it, for a person.

use std::fs;

use rustix::io::Errno;

use crate::config::{RingMode, RingParams};
use crate::error::{Error, errno_name};

/// Which call the kernel refused, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub call: &'static str,
    pub errno: Errno,
}

impl Refusal {
    pub fn of(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { call, errno }
    }

    /// Who asked for this monitor hears why there is none. `option` names where the request came
    /// from.
    pub fn to_error(self, option: &str, monitor: &str, ring: &RingParams) -> Error {
        let (reason, advice) = self.explain(ring);
        let message = format!("{option} = '{monitor}' is refused: {reason}; {advice}");
        Error::refused(message, self.call, self.errno)
    }

    fn explain(self, ring: &RingParams) -> (String, String) {
        let made = matches!((self.call, self.errno), ("io_uring_setup", Errno::INVAL));
        let since = match ring.mode {
            RingMode::Deferred => "6.1",
            RingMode::Cooperative => "5.19",
            _ => "",
        };
        if made && !since.is_empty() {
            let mode = ring.mode.as_str();
            return (
                format!(
                    "EINVAL: this kernel makes no ring with ring.mode = '{mode}' ({})",
                    self.call
                ),
                format!("use Linux {since} or newer, ring.mode 'auto', or 'auto'"),
            );
        }
        match explain(&Facts::of(Some(self.errno), Some(self.call))) {
            Some((reason, advice)) if self.call == "io_uring_register" => {
                (reason, format!("{advice}, leave out ring.restricted, or use 'auto'"))
            }
            Some((reason, advice)) => (reason, format!("{advice}, or use 'auto'")),
            None => (self.to_string(), "use 'auto'".into()),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", errno_name(self.errno), self.call)
    }
}

/// The reason and the advice in the error of a refused monitor, without what else could be asked
/// for; none where only the error itself knows more. For bindings.
#[doc(hidden)]
#[must_use]
pub fn explain_refusal(error: &Error) -> Option<(String, &'static str)> {
    explain(&Facts::of(error.errno().map(Errno::from_raw_os_error), error.syscall_name()))
}

/// What is known of a refusal.
#[derive(Debug, Default)]
struct Facts {
    errno: Option<Errno>,
    call: Option<&'static str>,
    /// The sysctl kernel.io_uring_disabled, which Linux has since 6.6.
    disabled: Option<String>,
    /// The kernel's release.
    release: Option<String>,
}

impl Facts {
    fn of(errno: Option<Errno>, call: Option<&'static str>) -> Self {
        let read = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
            Some(text.trim().to_owned())
        };
        Self { errno, call, disabled: read("io_uring_disabled"), release: read("osrelease") }
    }
}

/// The reason, and one line of advice; none when only the error itself knows more.
fn explain(facts: &Facts) -> Option<(String, &'static str)> {
    let call = facts.call?;
    let said = |what: &str| format!("{what} ({call})");
    let explained = match facts.errno? {
        Errno::PERM | Errno::ACCESS if call.starts_with("io_uring_") => refused(facts, call),
        Errno::PERM | Errno::ACCESS => (
            said(&format!("{}: a sandbox refuses it", errno_name(facts.errno?))),
            "allow it in the sandbox",
        ),
        // The ring was made, so the kernel has the other calls too.
        Errno::NOSYS if call != "io_uring_setup" => (
            said("ENOSYS: a sandbox hides it"),
            "use a sandbox that passes io_uring_setup, io_uring_enter and io_uring_register on",
        ),
        Errno::NOSYS if facts.is_old() => (
            said("ENOSYS: this kernel's rings cannot wait with a timeout, IORING_FEAT_EXT_ARG"),
            "use Linux 5.11 or newer",
        ),
        Errno::NOSYS => (
            said("ENOSYS: the kernel was built without it, or a sandbox hides it"),
            "use a kernel with CONFIG_IO_URING, and a sandbox that passes io_uring_setup, \
             io_uring_enter and io_uring_register on",
        ),
        Errno::INVAL => (
            said("EINVAL: this kernel makes no ring of a kind that fdmon can use"),
            "use Linux 5.11 or newer",
        ),
        Errno::NOMEM => (
            said(if call.starts_with("epoll_") {
                "ENOMEM: there is no memory for an epoll set"
            } else {
                "ENOMEM: there is no memory for a ring"
            }),
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
        Errno::NOSPC => (
            said("ENOSPC: this user watches as many fds by epoll as it may"),
            "raise the sysctl fs.epoll.max_user_watches",
        ),
        _ => return None,
    };
    Some(explained)
}

/// The sysctl refuses only the making of rings.
fn refused(facts: &Facts, call: &str) -> (String, &'static str) {
    let name = facts.errno.map_or("EPERM".into(), errno_name);
    match facts.disabled.as_deref() {
        Some("2") if call == "io_uring_setup" => (
            format!("{name}: the sysctl kernel.io_uring_disabled is 2, which is for everybody"),
            "run: sysctl -w kernel.io_uring_disabled=0",
        ),
        Some("1") if call == "io_uring_setup" => (
            format!(
                "{name}: the sysctl kernel.io_uring_disabled is 1, which is for who has no \
                 CAP_SYS_ADMIN and is not in the group of kernel.io_uring_group"
            ),
            "run: sysctl -w kernel.io_uring_disabled=0, or join the group of \
             kernel.io_uring_group",
        ),
        sysctl => {
            let but = sysctl.map_or(String::new(), |value| {
                format!(" (the sysctl kernel.io_uring_disabled is {value} and allows it)")
            });
            (
                format!("{name}: a seccomp profile refuses {call}{but}"),
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile, \
                 since those of Docker and Kubernetes refuse them (docker run --security-opt \
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
            errno: Some(errno),
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
            (facts(setup, Errno::ACCESS, "", "5.15.0"), "EACCES: a seccomp", "docker run"),
            (facts("epoll_create1", Errno::PERM, "2", "6.18.0"), "epoll_create1", "allow it"),
            (facts(setup, Errno::NOSYS, "", "6.1.0"), "built without it", "CONFIG_IO_URING"),
            (facts(enter, Errno::NOSYS, "", "6.1.0"), "a sandbox hides it", "sandbox that passes"),
            (facts(enter, Errno::NOSYS, "", "4.19.0"), "a sandbox hides it", "sandbox that passes"),
            (facts(setup, Errno::NOSYS, "", "5.10.0-30-amd64"), "EXT_ARG", "5.11"),
            (facts(setup, Errno::NOSYS, "", "4.19.0"), "EXT_ARG", "5.11"),
            (facts(setup, Errno::INVAL, "", "5.15.0"), "EINVAL", "5.11"),
            (facts("mmap", Errno::NOMEM, "0", "6.18.0"), "ENOMEM", "RLIMIT_AS"),
            (facts("epoll_ctl", Errno::NOMEM, "0", "6.18.0"), "for an epoll set", "limits"),
            (facts("epoll_ctl", Errno::NOSPC, "0", "6.18.0"), "ENOSPC", "max_user_watches"),
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

    /// SPEC 45
    #[test]
    fn the_error_names_where_the_request_came_from_and_what_could_be_asked_for_instead() {
        let params = |mode| RingParams { mode, ..RingParams::default() };
        let (setup, register) = ("io_uring_setup", "io_uring_register");
        let cases = [
            (setup, Errno::INVAL, RingMode::Auto, "EINVAL", "use Linux 5.11 or newer, or use"),
            (setup, Errno::INVAL, RingMode::Plain, "EINVAL", "use Linux 5.11 or newer, or use"),
            (
                setup,
                Errno::INVAL,
                RingMode::Deferred,
                "ring.mode = 'deferred'",
                "6.1 or newer, ring",
            ),
            (setup, Errno::INVAL, RingMode::Cooperative, "ring.mode = 'cooperative'", "5.19 or"),
            (setup, Errno::MFILE, RingMode::Deferred, "EMFILE", "ulimit -n"),
            (register, Errno::NOSYS, RingMode::Auto, "a sandbox hides it", "ring.restricted"),
            (setup, Errno::IO, RingMode::Auto, "(io_uring_setup)", "use 'auto'"),
        ];
        for (call, errno, mode, reason, advice) in cases {
            let error =
                Refusal { call, errno }.to_error("FDMON_MONITOR", "io_uring", &params(mode));
            let text = error.to_string();
            assert!(error.is_unsupported());
            assert_eq!(error.errno(), Some(errno.raw_os_error()));
            assert_eq!(error.syscall_name(), Some(call));
            assert!(text.starts_with("FDMON_MONITOR = 'io_uring' is refused: "), "{text}");
            let (first, last) = text.split_once("; ").unwrap();
            assert!(first.contains(reason) && last.contains(advice), "{text}");
            assert!(last.ends_with("'auto'"), "{text}");
        }
    }
}
