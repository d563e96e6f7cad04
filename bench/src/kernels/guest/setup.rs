//! Making a guest a place to measure in: file systems, modules, and equal ground.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};

use super::{Hello, trouble};
use crate::exit::Failure;

/// File systems: type, place, and whether a command can do without (a small kernel of one's own may lack
/// it).
const MOUNTS: [(&str, &str, bool); 7] = [
    ("proc", "/proc", false),
    ("sysfs", "/sys", false),
    ("devtmpfs", "/dev", false),
    ("tmpfs", "/tmp", true),
    ("tracefs", "/sys/kernel/tracing", true),
    ("debugfs", "/sys/kernel/debug", true),
    ("cgroup2", "/sys/fs/cgroup", true),
];

/// What is set on every kernel, where it can be: the place, the value, why.
const SETTINGS: [(&str, &str); 10] = [
    // Statistics of blocked time in /proc/PID/sched.
    ("/proc/sys/kernel/sched_schedstats", "1"),
    ("/proc/sys/kernel/task_delayacct", "1"),
    ("/proc/sys/kernel/perf_event_paranoid", "-1"),
    ("/proc/sys/kernel/kptr_restrict", "0"),
    // Probes are not rewritten into jumps behind one's back.
    ("/proc/sys/debug/kprobes-optimization", "0"),
    // Sampling must not be cut short because an emulated machine is slow.
    ("/proc/sys/kernel/perf_cpu_time_max_percent", "0"),
    ("/proc/sys/kernel/sysrq", "1"),
    // An oops ends the run instead of being one line in a log.
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
    // The loopback interface, up.
    ("/sys/class/net/lo/flags", "0x1"),
];

/// What else is worth comparing: a name and a place.
const FOUND: [(&str, &str); 5] = [
    ("preempt", "/sys/kernel/debug/sched/preempt"),
    ("clocksource", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    ("transparent_hugepage", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("khugepaged_defrag", "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag"),
    ("lru_gen", "/sys/kernel/mm/lru_gen/enabled"),
];

/// Files that a measuring process may have open.
const OPEN_FILES: u64 = 65_536;

/// Mounts the file systems.
///
/// # Errors
/// One that nothing works without.
pub(super) fn mounts() -> Result<(), Failure> {
    for (kind, place, optional) in MOUNTS {
        let _ = fs::create_dir_all(place);
        let done = mount(Some("none"), place, Some(kind), MsFlags::empty(), None::<&str>);
        if let Err(errno) = done
            && !optional
            // The kernel may have mounted it by itself.
            && errno != nix::errno::Errno::EBUSY
        {
            return Err(trouble(place, &errno));
        }
    }
    Ok(())
}

/// Loads a module.
///
/// # Errors
/// The kernel refuses it; that it is there already is fine.
pub(super) fn module(path: &str) -> Result<(), Failure> {
    let file = fs::File::open(path).map_err(|e| trouble(path, &e))?;
    match nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(errno) => Err(trouble(path, &errno)),
    }
}

/// Makes the ground equal, and tells what it is.
pub(super) fn conditions() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (place, value) in SETTINGS {
        let name = place.trim_start_matches("/proc/sys/").trim_start_matches("/sys/");
        let said = match fs::write(place, value) {
            Ok(()) => value.to_owned(),
            Err(_) if !Path::new(place).exists() => "not on this kernel".to_owned(),
            Err(error) => format!("refused: {error}"),
        };
        found.insert(name.replace('/', "."), said);
    }
    for (name, place) in FOUND {
        if let Ok(text) = fs::read_to_string(place) {
            found.insert(name.to_owned(), text.trim().to_owned());
        }
    }
    let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    found
}

/// What the guest says of itself.
pub(super) fn hello(conditions: BTreeMap<String, String>) -> Hello {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let memory = read("/proc/meminfo");
    let kib = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    Hello {
        release: read("/proc/sys/kernel/osrelease"),
        version: read("/proc/version"),
        command_line: read("/proc/cmdline"),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kib.unwrap_or(0u64) << 10,
        conditions,
        uptime_s: read("/proc/uptime")
            .split(' ')
            .next()
            .and_then(|s| s.parse().ok())
            .unwrap_or(0.0),
    }
}
