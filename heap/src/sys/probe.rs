//! What this machine can do, found out by trying where that is possible.
//!
//! For `firn doctor` and for the head of every report: a measurement is worth little without the
//! kernel, its features and its limits beside it. [`Machine::probe`] never fails; each fact is known
//! or carries the reason why not, so that a report from a locked-down container is still a report.
//!
//! Nothing here disturbs a running heap: the trials use throw-away ranges, and no fork, which would
//! share every page of the process and so make it unmovable until rewritten.

mod trial;
pub use trial::moves_a_page;

use std::{
    ffi::CStr,
    fmt, fs, io,
    mem::MaybeUninit,
    path::{Path, PathBuf},
};

use super::{
    map::address_space_limit,
    online_cpus, page_size,
    rss::parse_kib,
    thread,
    uffd::{Features, OpenPath, Sandbox, Userfaultfd},
};

pub use super::rss::{peak_rss_bytes, reset_peak_rss, rss_bytes};

/// Something about the machine, or why it is not known (or not possible), with the remedy if there
/// is one.
pub type Fact<T> = Result<T, String>;

/// A kernel version, such as 6.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Release {
    /// From what `uname` says, `6.18.44-something`.
    pub fn parse(text: &str) -> Option<Release> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Release { major, minor })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Something that is known by the kernel's release only, because no behaviour shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByRelease {
    /// Whether this kernel should have it. A distributor may have added or removed it.
    pub expected: bool,
    /// The release it came with.
    pub since: Release,
}

impl fmt::Display for ByRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.expected { "yes" } else { "no" };
        write!(f, "{word}, by its release (since {})", self.since)
    }
}

/// How userfaultfd opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uffd {
    /// By which door.
    pub path: OpenPath,
    /// What the kernel offers.
    pub features: Features,
}

/// Where the kernel's tracing is, and whether the lock events can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Where tracefs is mounted.
    pub mount: PathBuf,
    /// Whether this process can read the format of the `mmap_lock` tracepoints: present and
    /// permitted, or why not.
    pub mmap_lock_events: Fact<()>,
}

/// Everything that is known about this machine and this process's place in it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `uname -r`.
    pub kernel: Fact<String>,
    /// The same as numbers.
    pub release: Fact<Release>,
    /// `uname -m`.
    pub architecture: Fact<String>,
    /// Bytes in a page.
    pub page_size: usize,
    /// Processors online.
    pub cpus_online: usize,
    /// Processors that this process may use.
    pub cpus_allowed: Fact<usize>,
    /// Bytes of memory of the machine (a container may have less).
    pub memory_bytes: Fact<u64>,
    /// The mode of transparent huge pages: `always`, `madvise` or `never`.
    pub thp: Fact<String>,
    /// How userfaultfd opened.
    pub uffd: Fact<Uffd>,
    /// Whether a touch of a missing page raised SIGBUS on the touching thread, which then installed
    /// the page: tried.
    pub sigbus: Fact<()>,
    /// Whether a page could be moved: tried.
    pub move_pages: Fact<()>,
    /// Whether `mremap(MREMAP_DONTUNMAP)` moved a page: tried.
    pub remap_dontunmap: Fact<()>,
    /// Whether ordinary faults avoid `mmap_lock`.
    pub per_vma_locks: Fact<ByRelease>,
    /// Whether SIGBUS faults on a userfaultfd range avoid `mmap_lock`.
    pub uffd_fault_per_vma: Fact<ByRelease>,
    /// Whether COPY and MOVE avoid `mmap_lock`.
    pub uffd_ops_per_vma: Fact<ByRelease>,
    /// Tracing of locks.
    pub tracing: Fact<Tracing>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Fact<i64>,
    /// RLIMIT_AS in bytes; `None` if unlimited.
    pub address_space_limit: Option<u64>,
    /// `vm.max_map_count`.
    pub max_map_count: Fact<i64>,
    /// `vm.overcommit_memory`.
    pub overcommit_memory: Fact<i64>,
    /// `vm.unprivileged_userfaultfd`.
    pub unprivileged_userfaultfd: Fact<i64>,
    /// `Seccomp:` of this thread's `/proc` status: 0 none, 1 strict, 2 a filter.
    pub seccomp: Fact<u32>,
}

impl Machine {
    /// Finds out everything. Takes a few system calls and a few milliseconds at most.
    pub fn probe() -> Machine {
        let (kernel, architecture) = uname();
        let release = kernel.clone().and_then(|text| {
            Release::parse(&text).ok_or_else(|| format!("`{text}` is not a release"))
        });
        let since = |major, minor| {
            let since = Release { major, minor };
            release.clone().map(|now| ByRelease { expected: now >= since, since })
        };
        let uffd = match Userfaultfd::open(false) {
            Ok(uffd) => Ok(Uffd { path: uffd.path(), features: uffd.features_available() }),
            Err(e) => Err(e.to_string()),
        };
        let sandbox = Sandbox::look();
        Machine {
            page_size: page_size(),
            cpus_online: online_cpus(),
            cpus_allowed: thread::affinity().map(|cpus| cpus.len()).map_err(|e| e.to_string()),
            memory_bytes: read("/proc/meminfo").and_then(|text| {
                parse_kib(&text, "MemTotal:").ok_or_else(|| "/proc/meminfo does not say".to_owned())
            }),
            thp: thp_mode(),
            sigbus: trial::sigbus(),
            move_pages: trial::move_pages(),
            remap_dontunmap: trial::remap_dontunmap(),
            per_vma_locks: since(6, 4),
            uffd_fault_per_vma: since(6, 6),
            uffd_ops_per_vma: since(6, 9),
            tracing: tracing(),
            perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
            address_space_limit: address_space_limit(),
            max_map_count: number("/proc/sys/vm/max_map_count"),
            overcommit_memory: number("/proc/sys/vm/overcommit_memory"),
            unprivileged_userfaultfd: number("/proc/sys/vm/unprivileged_userfaultfd"),
            seccomp: sandbox
                .seccomp
                .ok_or_else(|| "/proc/thread-self/status does not tell about seccomp".to_owned()),
            kernel,
            release,
            architecture,
            uffd,
        }
    }
}

fn uname() -> (Fact<String>, Fact<String>) {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the kernel fills a live struct, of which all-zero is valid too.
    let (result, name) = unsafe { (libc::uname(name.as_mut_ptr()), name.assume_init()) };
    if result != 0 {
        let why = io::Error::last_os_error().to_string();
        return (Err(why.clone()), Err(why));
    }
    let text = |field: &[libc::c_char]| {
        // SAFETY: the kernel ends each field with a NUL inside the array.
        let field = unsafe { CStr::from_ptr(field.as_ptr()) };
        Ok(field.to_string_lossy().into_owned())
    };
    (text(&name.release), text(&name.machine))
}

fn read(path: &str) -> Fact<String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))
}

fn number(path: &str) -> Fact<i64> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| format!("{path} says `{}`, not a number", text.trim()))
}

fn thp_mode() -> Fact<String> {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let text = read(path)?;
    selected(&text).map(str::to_owned).ok_or_else(|| format!("{path} says `{}`", text.trim()))
}

/// The word in brackets of a line such as `always [madvise] never`.
fn selected(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

fn tracing() -> Fact<Tracing> {
    let mounts = read("/proc/mounts")?;
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let path = fields.nth(1)?;
            (fields.next()? == "tracefs").then(|| PathBuf::from(path))
        })
        .next()
        .ok_or_else(|| {
            "tracefs is not mounted: `mount -t tracefs tracefs /sys/kernel/tracing` as root"
                .to_owned()
        })?;
    let mmap_lock_events = mmap_lock_events(&mount);
    Ok(Tracing { mount, mmap_lock_events })
}

fn mmap_lock_events(mount: &Path) -> Fact<()> {
    // Released and start_locking exist too; a kernel has all three or none (5.11 or newer).
    let format = mount.join("events/mmap_lock/mmap_lock_acquire_returned/format");
    match fs::read_to_string(&format) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(
            "this kernel has no mmap_lock tracepoints: 5.11 or newer with CONFIG_TRACING has them"
                .to_owned(),
        ),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(format!("{} is not readable for this user: run as root", mount.display()))
        }
        Err(e) => Err(format!("cannot read {}: {e}", format.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_from_what_kernels_call_themselves() {
        let release = |major, minor| Some(Release { major, minor });
        assert_eq!(Release::parse("6.18.44-custom+"), release(6, 18));
        assert_eq!(Release::parse("7.3-rc1"), release(7, 3));
        assert_eq!(Release::parse("linux"), None);
        assert!(release(6, 9) < release(6, 18));
    }

    #[test]
    fn the_selected_word_is_the_one_in_brackets() {
        assert_eq!(selected("always [madvise] never\n"), Some("madvise"));
        assert_eq!(selected("never"), None);
    }

    #[test]
    fn probing_this_machine_agrees_with_what_is_tried_directly() {
        let machine = Machine::probe();
        assert_eq!(machine.page_size, page_size());
        assert!(machine.release.is_ok() && machine.memory_bytes.is_ok(), "{machine:?}");
        match (&machine.uffd, Userfaultfd::open(true)) {
            (Ok(uffd), Ok(open)) => {
                assert_eq!(uffd.path, open.path());
                assert_eq!(machine.sigbus, Ok(()));
                assert_eq!(machine.move_pages.is_ok(), uffd.features.contains(Features::MOVE));
            }
            (Err(why), Err(_)) => {
                assert!(why.contains("--backend stw"), "{why}");
                assert!(machine.sigbus.is_err() && machine.move_pages.is_err());
            }
            (probed, opened) => panic!("probe: {probed:?}, open: {opened:?}"),
        }
    }
}
