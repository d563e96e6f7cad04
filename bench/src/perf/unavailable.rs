//! Why the kernel's events cannot be had on this machine, and what to do about it.
//!
//! Every measuring command prints this once, with the remedy, and goes on with what is left.

use std::io;
use std::path::PathBuf;

use firn_heap::sys::Errno;

/// What is missing for measuring through the kernel's tracepoints.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No tracefs at any of the usual places.
    #[error(
        "the kernel's tracing directory is not mounted: as root, `mount -t tracefs none \
         /sys/kernel/tracing`"
    )]
    NotMounted,
    /// A file of tracefs could not be read.
    #[error(
        "{path} cannot be read ({error}): run as root, or as root `mount -o \
         remount,mode=755 /sys/kernel/tracing`", path = path.display()
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The kernel does not have the event.
    #[error("this kernel has no event {event}: it needs {needs}")]
    NoEvent {
        /// `system:name`.
        event: String,
        /// Which kernels have it.
        needs: &'static str,
    },
    /// An event's description is not as this program can use it.
    #[error("the kernel describes its event {event} in a way this program does not know: {what}")]
    Format {
        /// `system:name`.
        event: String,
        /// What was expected and not found.
        what: String,
    },
    /// `perf_event_open` was refused.
    #[error("perf_event_open for {event} failed with {errno}: {remedy}")]
    Refused {
        /// `system:name`.
        event: String,
        /// The kernel's answer.
        errno: Errno,
        /// What to do.
        remedy: String,
    },
    /// A step after the opening failed.
    #[error("{call} for {event} failed with {errno}")]
    Call {
        /// Which system call.
        call: &'static str,
        /// `system:name`.
        event: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Threads were started and ended faster than they could be listed.
    #[error(
        "the threads of this process changed {tries} times while counters were being opened on \
         them: start counting before the threads, or after they have settled"
    )]
    ThreadsUnstable {
        /// How often the list was read.
        tries: usize,
    },
}

impl Unavailable {
    /// The refusal of an event, with the remedy that fits the error.
    pub(super) fn refused(event: &str, errno: Errno) -> Unavailable {
        let remedy = match errno {
            Errno::EACCES | Errno::EPERM => {
                let now = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
                let now = now.map_or("unknown".to_owned(), |s| s.trim().to_owned());
                format!(
                    "run as root, grant CAP_PERFMON, or as root `sysctl \
                     kernel.perf_event_paranoid=-1` (it is {now})"
                )
            }
            Errno::EMFILE => "six files are open for each thread: raise `ulimit -n`".to_owned(),
            Errno::ENOSYS => {
                "this kernel was built without CONFIG_PERF_EVENTS, or a seccomp filter refuses the \
                 call: run outside the sandbox"
                    .to_owned()
            }
            _ => "this kernel does not support the event as it was asked for".to_owned(),
        };
        Unavailable::Refused { event: event.to_owned(), errno, remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_remedy() {
        assert!(Unavailable::NotMounted.to_string().contains("mount -t tracefs none"));
        for (errno, remedy) in [
            (Errno::EACCES, "CAP_PERFMON"),
            (Errno::EPERM, "perf_event_paranoid"),
            (Errno::EMFILE, "ulimit -n"),
            (Errno::ENOSYS, "CONFIG_PERF_EVENTS"),
        ] {
            let text = Unavailable::refused("mmap_lock:x", errno).to_string();
            assert!(text.contains(remedy) && text.contains("mmap_lock:x"), "{text}");
        }
    }
}
