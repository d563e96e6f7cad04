//! Facts about this machine, for diagnoses and reports. Every fact is found out or says why not;
//! nothing here fails.

use super::map::{Advice, Reservation, advise, remap_dontunmap};
use super::uffd::{Features, OpenPath, Userfaultfd};
use std::fs::read_to_string;

/// What was found out about userfaultfd.
#[derive(Clone, Debug)]
pub struct UffdFacts {
    /// How it could be opened.
    pub path: OpenPath,
    /// What the kernel offers.
    pub features: Features,
    /// `UFFDIO_MOVE` really moved a page.
    pub move_works: bool,
}

/// What this machine can do.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// The first two numbers of the release.
    pub kernel_version: (u32, u32),
    /// Page size in bytes.
    pub page_size: usize,
    /// Processors this process may use.
    pub cpus: usize,
    /// The processor's name.
    pub cpu_model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The chosen mode of transparent huge pages.
    pub transparent_huge_pages: String,
    /// userfaultfd, or the diagnosis.
    pub userfaultfd: Result<UffdFacts, String>,
    /// `mremap(MREMAP_DONTUNMAP)` works on anonymous memory.
    pub remap_dontunmap: bool,
    /// Page faults take the per-VMA lock (by release: 6.4).
    pub per_vma_locks: bool,
    /// userfaultfd's fill operations take the per-VMA lock (by release: 6.9).
    pub per_vma_userfaultfd: bool,
    /// The `mmap_lock` tracepoints can be used, or why not.
    pub mmap_lock_tracepoints: Result<(), String>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i32>,
    /// RLIMIT_AS in bytes, if limited.
    pub address_space_limit: Option<u64>,
    /// `vm.max_map_count`.
    pub max_map_count: Option<u64>,
    /// `vm.overcommit_memory`.
    pub overcommit_memory: Option<i32>,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: Option<i32>,
}

fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    read_to_string(path).ok()?.trim().parse().ok()
}

fn field(path: &str, key: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line[key.len()..].trim_start_matches([':', ' ', '\t']).trim().to_owned())
}

/// The process's seccomp mode: 0 none, 1 strict, 2 filter.
pub fn seccomp_mode() -> Option<i32> {
    field("/proc/self/status", "Seccomp:")?.parse().ok()
}

fn kib(path: &str, key: &str) -> u64 {
    let text = field(path, key).unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Most memory this process ever had resident, in bytes.
pub fn peak_rss_bytes() -> u64 {
    kib("/proc/self/status", "VmHWM:")
}

/// Memory this process has resident, in bytes.
pub fn rss_bytes() -> u64 {
    kib("/proc/self/status", "VmRSS:")
}

/// Starts the peak anew; returns whether the kernel allowed it.
pub fn reset_peak_rss() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Where the tracing files are, if they can be read.
pub fn tracefs() -> Option<&'static str> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .find(|root| std::fs::read_dir(format!("{root}/events")).is_ok())
}

/// The running kernel's release and its first two numbers.
pub fn kernel_release() -> (String, (u32, u32)) {
    let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let version = (next(), next());
    (release, version)
}

impl Machine {
    /// Finds out. Takes a few milliseconds.
    pub fn probe() -> Machine {
        let (kernel, kernel_version) = kernel_release();
        let thp = read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        let thp = thp.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(m, _)| m);
        Machine {
            kernel,
            kernel_version,
            page_size: super::page_size(),
            cpus: super::online_cpus(),
            cpu_model: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            memory_bytes: kib("/proc/meminfo", "MemTotal:"),
            transparent_huge_pages: thp.unwrap_or("unknown").to_owned(),
            userfaultfd: probe_uffd(),
            remap_dontunmap: probe_remap(),
            per_vma_locks: kernel_version >= (6, 4),
            per_vma_userfaultfd: kernel_version >= (6, 9),
            mmap_lock_tracepoints: probe_tracepoints(),
            perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
            address_space_limit: super::map::address_space_limit(),
            max_map_count: number("/proc/sys/vm/max_map_count"),
            overcommit_memory: number("/proc/sys/vm/overcommit_memory"),
            seccomp: seccomp_mode(),
        }
    }
}

fn probe_uffd() -> Result<UffdFacts, String> {
    let uffd = Userfaultfd::open(true).map_err(|error| error.to_string())?;
    let features = uffd.features_available();
    Ok(UffdFacts { path: uffd.path(), features, move_works: move_works(&uffd) })
}

/// Whether `UFFDIO_MOVE` really moves a page between two throw-away mappings.
pub fn move_works(uffd: &Userfaultfd) -> bool {
    let page = super::page_size();
    let pair = Reservation::anonymous(page, page, "firn probe")
        .and_then(|a| Ok((a, Reservation::anonymous(page, page, "firn probe")?)));
    let Ok((from, to)) = pair else { return false };
    if uffd.register_missing(to.base(), page).is_err() {
        return false;
    }
    // SAFETY: a mapped, writable page of our own.
    unsafe { (from.base() as *mut u64).write_volatile(42) };
    let outcome = uffd.move_pages(to.base(), from.base(), page, false, false);
    // SAFETY: only read if the move succeeded, so the page is present.
    let moved = outcome.error.is_none() && unsafe { (to.base() as *const u64).read_volatile() } == 42;
    let _ = uffd.unregister(to.base(), page);
    moved
}

fn probe_remap() -> bool {
    let page = super::page_size();
    let pair = Reservation::anonymous(page, page, "firn probe")
        .and_then(|a| Ok((a, Reservation::anonymous(page, page, "firn probe")?)));
    let Ok((from, to)) = pair else { return false };
    // SAFETY: both pages are ours and hold nothing of worth.
    unsafe {
        let _ = advise(from.base(), page, Advice::NoHugepage);
        (from.base() as *mut u64).write_volatile(7);
        remap_dontunmap(from.base(), page, to.base()).is_ok()
            && (to.base() as *const u64).read_volatile() == 7
            && (from.base() as *const u64).read_volatile() == 0
    }
}

fn probe_tracepoints() -> Result<(), String> {
    let Some(root) = tracefs() else {
        return Err("tracefs is not readable: as root, `mount -t tracefs none /sys/kernel/tracing`".into());
    };
    let format = format!("{root}/events/mmap_lock/mmap_lock_acquire_returned/format");
    read_to_string(&format).map(drop).map_err(|error| {
        format!("{format}: {error} (the tracepoints exist since 5.11; reading them needs root)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_knows_the_basics_of_any_machine() {
        let machine = Machine::probe();
        assert!(machine.kernel_version.0 >= 4, "{}", machine.kernel);
        assert!(machine.page_size.is_power_of_two() && machine.memory_bytes > 0);
        assert!(peak_rss_bytes() >= rss_bytes() / 2);
        println!("{machine:#?}");
    }
}
