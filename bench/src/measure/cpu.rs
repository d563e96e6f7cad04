//! Processor time: of the whole process, and of the collector's own threads.
//!
//! The collector's share is that of the threads named `HeapTaskDaemon` and `GcWorker-N` (thread
//! names are part of the interface). What mutators do for the collector, barriers and the pages
//! that they build, is in the process's time but not in this share.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

/// Processor time since the process began.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuClock {
    process_ns: u64,
    collector_ns: u64,
}

/// Processor time within a window.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct CpuUse {
    /// Of all threads, in seconds.
    pub process_s: f64,
    /// Of the collector's threads, in seconds.
    pub collector_s: f64,
}

impl CpuClock {
    /// Reads both clocks; some tens of microseconds.
    pub fn now() -> CpuClock {
        let process_ns = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
            (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) * 1000
        });
        CpuClock { process_ns: process_ns as u64, collector_ns: collector_ns() }
    }

    /// What was used since this reading.
    pub fn elapsed(&self) -> CpuUse {
        let now = CpuClock::now();
        let seconds = |now: u64, then: u64| now.saturating_sub(then) as f64 / 1e9;
        CpuUse {
            process_s: seconds(now.process_ns, self.process_ns),
            collector_s: seconds(now.collector_ns, self.collector_ns),
        }
    }
}

/// Whether a thread of this name belongs to the collector.
fn is_collector(name: &str) -> bool {
    name == "HeapTaskDaemon" || name.starts_with("GcWorker-")
}

fn collector_ns() -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    tasks
        .flatten()
        .filter_map(|task| {
            // A thread may end between the reads; then it simply does not count.
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            if !is_collector(name.trim_end()) {
                return None;
            }
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use firn_heap::sys::thread::thread_cpu_time_ns;

    use super::*;

    /// Uses this much processor time, however busy the machine is.
    fn burn(ns: u64) {
        let begin = thread_cpu_time_ns();
        while thread_cpu_time_ns() - begin < ns {}
    }

    #[test]
    fn burning_time_is_seen() {
        let before = CpuClock::now();
        burn(20_000_000);
        assert!(before.elapsed().process_s > 0.015);
    }

    #[test]
    fn a_thread_with_a_collector_s_name_counts_as_collector() {
        assert!(is_collector("GcWorker-3") && is_collector("HeapTaskDaemon"));
        assert!(!is_collector("Mutator-0") && !is_collector("firn"));
        let before = CpuClock::now();
        std::thread::scope(|s| {
            let busy = || {
                burn(20_000_000);
                // The scheduler's statistics are brought up to date when a thread gives way.
                std::thread::yield_now();
                before.elapsed().collector_s
            };
            let named = std::thread::Builder::new().name("GcWorker-9".into());
            let seen = named.spawn_scoped(s, busy).unwrap().join().unwrap();
            assert!(seen > 0.01, "{seen}");
        });
    }
}
