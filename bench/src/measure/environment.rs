//! Where a measurement was made: everything that two files may differ in without anybody having meant it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::machine::MachineReport;
use crate::schema::{Environment, Measuring};

/// Settings of the kernel that change what is measured.
const SETTINGS: [&str; 12] = [
    "/proc/sys/kernel/sched_schedstats",
    "/proc/sys/kernel/perf_event_paranoid",
    "/proc/sys/kernel/kptr_restrict",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/swappiness",
    "/proc/sys/vm/unprivileged_userfaultfd",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/defrag",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/lru_gen/enabled",
    "/sys/kernel/debug/sched/preempt",
];

/// Looks at the machine; a few milliseconds.
pub fn probe(measuring: Measuring) -> Environment {
    let machine = MachineReport::probe();
    let uts = nix::sys::utsname::uname().ok();
    let word =
        |s: Option<&std::ffi::OsStr>| s.map_or(String::new(), |s| s.to_string_lossy().into());
    let settings: BTreeMap<String, String> =
        SETTINGS.iter().filter_map(|path| Some(((*path).to_owned(), read(path)?))).collect();
    Environment {
        firn_version: env!("CARGO_PKG_VERSION").to_owned(),
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        command: std::env::args().skip(1).collect(),
        started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        kernel: machine.kernel,
        kernel_build: word(uts.as_ref().map(|u| u.version())),
        architecture: word(uts.as_ref().map(|u| u.machine())),
        cpus: machine.cpus,
        cpus_online: firn_heap::sys::online_cpus(),
        cpu_model: machine.cpu_model,
        governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        hypervisor: hypervisor(),
        clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        memory_bytes: machine.memory_bytes,
        page_bytes: machine.page_bytes,
        transparent_huge_pages: machine.transparent_huge_pages,
        load_average: load_average(),
        userfaultfd: machine.userfaultfd,
        features: machine.features,
        uffdio_move: machine.uffdio_move,
        per_vma_locks: machine.per_vma_locks,
        per_vma_userfaultfd: machine.per_vma_userfaultfd,
        root: nix::unistd::geteuid().is_root(),
        measuring,
        settings,
    }
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn load_average() -> Option<[f64; 3]> {
    let text = read("/proc/loadavg")?;
    let mut words = text.split_whitespace().map(|w| w.parse().ok());
    Some([words.next()??, words.next()??, words.next()??])
}

/// What the machine calls itself, where the processor says that it is a virtual one.
fn hypervisor() -> Option<String> {
    let flags = fs::read_to_string("/proc/cpuinfo").ok()?;
    let virtual_ = flags.lines().any(|l| l.starts_with("flags") && l.contains(" hypervisor"));
    virtual_.then(|| read("/sys/class/dmi/id/sys_vendor").unwrap_or_else(|| "unknown".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_what_two_files_may_differ_in() {
        let e = probe(Measuring::default());
        assert!(!e.kernel.is_empty() && !e.kernel_build.is_empty() && e.cpus > 0);
        assert!(e.page_bytes.is_power_of_two() && e.started_unix_s > 1_700_000_000);
        assert_eq!(e.build == "debug", cfg!(debug_assertions));
    }
}
