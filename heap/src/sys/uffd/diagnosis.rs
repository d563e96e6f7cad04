//! Why a userfaultfd was refused, in words that say what to do.
//!
//! The same `EPERM` comes from a container's seccomp filter, from a sysctl and from a security
//! module; the remedy differs. So a failed open looks once at everything that could have caused it
//! and keeps it with the attempts. Making the sentence from those facts is a pure function, so that
//! every case can be tested on any machine.

use std::{fmt, fs, io};

use super::{Features, OpenPath};
use crate::sys::Errno;

/// The device of 6.1 or newer.
pub(super) const DEVICE: &str = "/dev/userfaultfd";

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Opening the device file failed.
    OpenDevice,
    /// The kernel did not give a descriptor.
    Create,
    /// The handshake (`UFFDIO_API`) failed.
    Handshake,
    /// These features are needed and missing.
    Features(Features),
}

/// One door that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which door.
    pub path: OpenPath,
    /// How far it came.
    pub stage: Stage,
    /// What the kernel said.
    pub errno: Errno,
}

/// State of `/dev/userfaultfd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    /// There is none: the kernel is older than 6.1, or this container has not got it.
    Absent,
    /// There is one that this process may not open.
    NotPermitted,
    /// There is one that this process may open.
    Usable,
    /// It could not be found out.
    Unknown(Errno),
}

/// What stands between a process and a userfaultfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sandbox {
    /// `Seccomp:` of the thread's `/proc` status: 0 none, 1 strict, 2 a filter; `None` if not told.
    pub seccomp: Option<u32>,
    /// `vm.unprivileged_userfaultfd`; `None` on kernels without it.
    pub unprivileged_sysctl: Option<u32>,
    /// State of `/dev/userfaultfd`.
    pub device: DeviceState,
}

impl Sandbox {
    /// Looks at this process and thread. Never fails: what is not told stays open.
    pub fn look() -> Sandbox {
        // A filter belongs to a thread: "self" would be the first thread of the process, which may
        // have another. Kernels before 3.17 have no "thread-self", and no userfaultfd either.
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let seccomp = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp:"))
            .and_then(|value| value.trim().parse().ok());
        let unprivileged_sysctl = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd")
            .ok()
            .and_then(|value| value.trim().parse().ok());
        let device = match fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
            Ok(_) => DeviceState::Usable,
            Err(e) if e.kind() == io::ErrorKind::NotFound => DeviceState::Absent,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => DeviceState::NotPermitted,
            Err(e) => DeviceState::Unknown(Errno(e.raw_os_error().unwrap_or(0))),
        };
        Sandbox { seccomp, unprivileged_sysctl, device }
    }

    fn filtered(&self) -> bool {
        self.seccomp == Some(2)
    }
}

/// No door was open: each attempt, and what stands in the way. Its text says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenError {
    /// Every door that was tried, in order.
    pub attempts: Vec<Attempt>,
    /// What was found in the way.
    pub sandbox: Sandbox,
}

impl std::error::Error for OpenError {}

impl OpenError {
    /// The features that are needed and that this kernel lacks, if that is the reason.
    pub fn missing_features(&self) -> Option<Features> {
        self.attempts.iter().find_map(|a| match a.stage {
            Stage::Features(missing) => Some(missing),
            _ => None,
        })
    }

    fn errno_of(&self, path: OpenPath) -> Option<Errno> {
        self.attempts.iter().find(|a| a.path == path).map(|a| a.errno)
    }

    /// The most likely reason and its remedy, in one or two sentences.
    fn reason(&self) -> String {
        if let Some(missing) = self.missing_features() {
            return format!(
                "This kernel's userfaultfd lacks {missing}: use a newer kernel (4.14 or newer for \
                 SIGBUS), or fault delivery by a thread (`--fault thread`)."
            );
        }
        if self.attempts.iter().any(|a| a.errno == Errno::EMFILE) {
            return "The process has too many files open: raise the limit (`ulimit -n`)."
                .to_owned();
        }
        let first = self.errno_of(OpenPath::SyscallUserModeOnly);
        match first {
            Some(errno @ (Errno::EPERM | Errno::EACCES | Errno::ENOSYS))
                if self.sandbox.filtered() =>
            {
                let or_kernel = if errno == Errno::ENOSYS {
                    " (or the kernel is built without CONFIG_USERFAULTFD)"
                } else {
                    ""
                };
                format!(
                    "A seccomp filter is active (/proc/thread-self/status says Seccomp: 2) and refuses the \
                     system call{or_kernel}: Docker's default profile does so. Run the container \
                     with a profile that allows `userfaultfd` (`--security-opt \
                     seccomp=PROFILE.json`), or hand it the device (`--device {DEVICE}`)."
                )
            }
            Some(Errno::ENOSYS) => "This kernel is built without CONFIG_USERFAULTFD: use one that \
                                    has it."
                .to_owned(),
            Some(Errno::EINVAL) => format!(
                "This kernel is older than 5.11 and admits only privileged processes. {}",
                self.sysctl_remedy()
            ),
            Some(Errno::EPERM | Errno::EACCES) => format!(
                "No seccomp filter is active, so a security module (SELinux, AppArmor) refuses: look \
                 for `userfaultfd` in the audit log and allow it. {}",
                self.sysctl_remedy()
            ),
            _ => self.sysctl_remedy(),
        }
    }

    fn sysctl_remedy(&self) -> String {
        let sysctl = match self.sandbox.unprivileged_sysctl {
            Some(0) => {
                "vm.unprivileged_userfaultfd is 0: set it to 1 (`sysctl -w \
                        vm.unprivileged_userfaultfd=1`) or run with CAP_SYS_PTRACE."
            }
            Some(_) => "vm.unprivileged_userfaultfd is already 1.",
            None => "This kernel has no vm.unprivileged_userfaultfd.",
        };
        match self.sandbox.device {
            DeviceState::NotPermitted => format!(
                "{sysctl} Or give this user access to {DEVICE} (by its group, or a udev rule)."
            ),
            _ => sysctl.to_owned(),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "userfaultfd is not available: {}", self.reason())?;
        f.write_str(" Tried:")?;
        let mut between = " ";
        for Attempt { path, stage, errno } in &self.attempts {
            match stage {
                Stage::OpenDevice => write!(f, "{between}{path}: open failed with {errno}")?,
                Stage::Create => write!(f, "{between}{path}: {errno}")?,
                Stage::Handshake => write!(f, "{between}{path}: handshake failed with {errno}")?,
                Stage::Features(missing) => write!(f, "{between}{path}: lacks {missing}")?,
            }
            between = "; ";
        }
        f.write_str(". The back end `stw` (`--backend stw`) works without userfaultfd.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(first: Errno, device: (Stage, Errno), last: Errno, sandbox: Sandbox) -> String {
        let attempts = vec![
            Attempt { path: OpenPath::SyscallUserModeOnly, stage: Stage::Create, errno: first },
            Attempt { path: OpenPath::Device, stage: device.0, errno: device.1 },
            Attempt { path: OpenPath::SyscallPrivileged, stage: Stage::Create, errno: last },
        ];
        OpenError { attempts, sandbox }.to_string()
    }

    const BARE: Sandbox = Sandbox {
        seccomp: Some(0),
        unprivileged_sysctl: Some(0),
        device: DeviceState::NotPermitted,
    };

    #[test]
    fn a_seccomp_filter_is_named_with_the_container_profile() {
        let sandbox = Sandbox { seccomp: Some(2), device: DeviceState::Absent, ..BARE };
        let device = (Stage::OpenDevice, Errno::ENOENT);
        let text = refused(Errno::EPERM, device, Errno::EPERM, sandbox);
        assert!(text.contains("Seccomp: 2") && text.contains("Docker's default profile"), "{text}");
        assert!(text.contains("--security-opt") && text.contains("--backend stw"), "{text}");
        assert!(!text.contains("CONFIG_USERFAULTFD"), "{text}");
        let text = refused(Errno::ENOSYS, device, Errno::ENOSYS, sandbox);
        assert!(text.contains("seccomp") && text.contains("CONFIG_USERFAULTFD"), "{text}");
    }

    #[test]
    fn a_kernel_without_userfaultfd_is_named() {
        let device = (Stage::OpenDevice, Errno::ENOENT);
        let text = refused(Errno::ENOSYS, device, Errno::ENOSYS, BARE);
        assert!(text.contains("built without CONFIG_USERFAULTFD"), "{text}");
        assert!(!text.contains("seccomp"), "{text}");
    }

    #[test]
    fn an_old_kernel_names_the_sysctl_and_its_value() {
        let sandbox = Sandbox { device: DeviceState::Absent, ..BARE };
        let device = (Stage::OpenDevice, Errno::ENOENT);
        let text = refused(Errno::EINVAL, device, Errno::EPERM, sandbox);
        assert!(text.contains("vm.unprivileged_userfaultfd is 0"), "{text}");
        assert!(text.contains("older than 5.11"), "{text}");
        assert!(text.contains("userfaultfd(): EPERM (1)"), "{text}");
    }

    #[test]
    fn a_security_module_is_suspected_without_a_filter() {
        let device = (Stage::OpenDevice, Errno::EACCES);
        let text = refused(Errno::EACCES, device, Errno::EPERM, BARE);
        assert!(text.contains("security module"), "{text}");
        assert!(text.contains("access to /dev/userfaultfd"), "{text}");
    }

    #[test]
    fn missing_features_are_named() {
        let attempt = Attempt {
            path: OpenPath::SyscallUserModeOnly,
            stage: Stage::Features(Features::SIGBUS),
            errno: Errno::EINVAL,
        };
        let error = OpenError { attempts: vec![attempt], sandbox: BARE };
        assert_eq!(error.missing_features(), Some(Features::SIGBUS));
        assert!(error.to_string().contains("lacks SIGBUS"), "{error}");
        assert!(error.to_string().contains("--fault thread"), "{error}");
    }
}
