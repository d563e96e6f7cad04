//! A cap on the collector's share of a processor, by a cgroup: the other way in which a low-priority thread
//! comes to hold a lock for long. Version 1 of the interface takes single threads; version 2 does only in
//! threaded groups, which are the system manager's to set up, and is declined with a line.

use std::fs;
use std::path::Path;

use crate::perf::analysis::is_collector;

const CONTROLLER: &str = "/sys/fs/cgroup/cpu";
/// The length of a period in which the share is given, microseconds.
const PERIOD_US: u64 = 100_000;

/// Puts the collector's threads of this process into a group of `percent` of one processor.
///
/// # Errors
/// A line that says what is missing.
pub fn cap_collector(percent: u32) -> Result<(), String> {
    let refuse = |what: &str, e: &dyn std::fmt::Display| {
        format!(
            "--daemon-cap {percent}: {what} ({e}): it needs root and the cpu controller of cgroup v1 at {CONTROLLER}; skipped"
        )
    };
    if !Path::new(CONTROLLER).join("cpu.cfs_quota_us").exists()
        && !Path::new(CONTROLLER).join("tasks").exists()
    {
        return Err(refuse("no such controller", &"not mounted"));
    }
    let group = Path::new(CONTROLLER).join(format!("firn-{}", std::process::id()));
    if !group.exists() {
        fs::create_dir(&group).map_err(|e| refuse("making a group failed", &e))?;
    }
    let write = |file: &str, value: u64| {
        fs::write(group.join(file), value.to_string())
            .map_err(|e| refuse(&format!("writing {file} failed"), &e))
    };
    write("cpu.cfs_period_us", PERIOD_US)?;
    write("cpu.cfs_quota_us", PERIOD_US * u64::from(percent) / 100)?;
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if is_collector(name.trim_end())
            && let Some(tid) = task.file_name().to_str().and_then(|t| t.parse().ok())
        {
            write("tasks", tid)?;
        }
    }
    Ok(())
}

/// Removes the group, which is possible once its threads have ended.
pub fn remove() {
    let group = Path::new(CONTROLLER).join(format!("firn-{}", std::process::id()));
    if group.exists() {
        // A group that is still in use stays until the process ends; it holds nobody back then.
        let _ = fs::remove_dir(group);
    }
}
