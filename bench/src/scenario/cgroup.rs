//! A cap on the collector's share of a processor, by a cgroup: the other way in which a low-priority thread
//! comes to hold a lock for long.
//!
//! Version 1 of the interface takes single threads into any group. Version 2 does so only in *threaded* groups, whose
//! parent must be the group that the process is in. That is tried where the process is; if its group does not have the
//! cpu controller (a login session's usually has not), the process moves to the root of the hierarchy for as long as
//! the cap lasts. [`Cap`] undoes all of it when dropped, which must be after the collector's threads have ended.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::perf::analysis::is_collector;

/// Where version 1 has its cpu controller.
const VERSION_1: &str = "/sys/fs/cgroup/cpu";
/// The length of a period in which the share is given, microseconds.
const PERIOD_US: u64 = 100_000;
/// How long the collector's threads may take to have their names, nanoseconds.
const STARTING: u64 = 1_000_000_000;
/// How long a group may take to become empty once its threads have ended, nanoseconds.
const EMPTYING: u64 = 200_000_000;

/// Files of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The file that takes threads.
    fn threads(self) -> &'static str {
        match self {
            Version::One => "tasks",
            Version::Two => "cgroup.threads",
        }
    }
}

/// A group of this process's collector; removed when dropped.
#[derive(Debug)]
pub struct Cap {
    group: PathBuf,
    version: Version,
    /// The group that the process was in, if it had to leave it.
    home: Option<PathBuf>,
    /// The group whose children were given the cpu controller, if they had not had it.
    enabled: Option<PathBuf>,
}

impl Cap {
    /// Puts the collector's threads of this process into a group of `percent` of one processor.
    ///
    /// # Errors
    /// A line that says what is missing.
    pub fn collector(percent: u32) -> Result<Cap, String> {
        let quota = PERIOD_US * u64::from(percent) / 100;
        let one = Path::new(VERSION_1);
        let made = if one.join("cpu.cfs_quota_us").exists() || one.join("tasks").exists() {
            Cap::version_1(one, quota)
        } else {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            match (mounted(&mounts), path_of(&own)) {
                (Some(root), Some(path)) => Cap::version_2(&root, path, quota),
                _ => Err("no cgroup file system is mounted".to_owned()),
            }
        };
        made.and_then(Cap::fill).map_err(|why| {
            format!(
                "--daemon-cap {percent}: {why}: it needs root and the cpu controller of cgroups \
                 (version 1 at {VERSION_1}, or version 2); skipped"
            )
        })
    }

    fn version_1(controller: &Path, quota: u64) -> Result<Cap, String> {
        let cap = Cap::in_group(controller.join(name()), Version::One)?;
        write(&cap.group.join("cpu.cfs_period_us"), &PERIOD_US)?;
        write(&cap.group.join("cpu.cfs_quota_us"), &quota)?;
        Ok(cap)
    }

    fn version_2(root: &Path, path: &str, quota: u64) -> Result<Cap, String> {
        let own = root.join(path.trim_start_matches('/'));
        match Cap::threaded(&own, quota) {
            Err(_) if own != root => {
                write(&root.join("cgroup.procs"), &std::process::id())?;
                match Cap::threaded(root, quota) {
                    Ok(mut cap) => {
                        cap.home = Some(own);
                        Ok(cap)
                    }
                    Err(why) => {
                        write(&own.join("cgroup.procs"), &std::process::id())?;
                        Err(why)
                    }
                }
            }
            done => done,
        }
    }

    /// A threaded group below `parent`, which the process is in.
    fn threaded(parent: &Path, quota: u64) -> Result<Cap, String> {
        let has = |file: &str| {
            let text = fs::read_to_string(parent.join(file)).unwrap_or_default();
            text.split_whitespace().any(|word| word == "cpu")
        };
        if !has("cgroup.controllers") {
            return Err(format!("{} has no cpu controller", parent.display()));
        }
        let mut cap = Cap::in_group(parent.join(name()), Version::Two)?;
        // Before the controller: a parent that has processes may give it to threaded groups only.
        write(&cap.group.join("cgroup.type"), &"threaded")?;
        if !has("cgroup.subtree_control") {
            write(&parent.join("cgroup.subtree_control"), &"+cpu")?;
            cap.enabled = Some(parent.to_owned());
        }
        write(&cap.group.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
        Ok(cap)
    }

    fn in_group(group: PathBuf, version: Version) -> Result<Cap, String> {
        if !group.exists() {
            fs::create_dir(&group).map_err(|e| format!("making {} ({e})", group.display()))?;
        }
        Ok(Cap { group, version, home: None, enabled: None })
    }

    /// Moves the collector's threads in, as soon as there is one.
    fn fill(self) -> Result<Cap, String> {
        // A thread gives itself its name, at some time after it has been started.
        let end = clock::now() + STARTING;
        while clock::now() < end && self.move_in()? == 0 {
            clock::sleep_until(clock::now() + 1_000_000);
        }
        match self.move_in()? {
            0 => Err("the collector has no thread".to_owned()),
            _ => Ok(self),
        }
    }

    /// Moves the collector's threads that there are; how many.
    fn move_in(&self) -> Result<usize, String> {
        let mut moved = 0;
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if is_collector(name.trim_end())
                && let Some(tid) = task.file_name().to_str()
            {
                write(&self.group.join(self.version.threads()), &tid)?;
                moved += 1;
            }
        }
        Ok(moved)
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        // A thread is in its group for some microseconds after it has been joined.
        let end = clock::now() + EMPTYING;
        let inside = || fs::read_to_string(self.group.join(self.version.threads()));
        while clock::now() < end && inside().is_ok_and(|threads| !threads.trim().is_empty()) {
            clock::sleep_until(clock::now() + 1_000_000);
        }
        // What fails here leaves an empty group behind, which holds nobody back.
        let _ = fs::remove_dir(&self.group);
        if let Some(parent) = &self.enabled {
            let _ = write(&parent.join("cgroup.subtree_control"), &"-cpu");
        }
        if let Some(home) = &self.home {
            let _ = write(&home.join("cgroup.procs"), &std::process::id());
        }
    }
}

fn name() -> String {
    format!("firn-{}", std::process::id())
}

fn write(file: &Path, value: &dyn Display) -> Result<(), String> {
    fs::write(file, value.to_string()).map_err(|e| format!("writing {} ({e})", file.display()))
}

/// Where version 2 is mounted, from `/proc/self/mounts`.
fn mounted(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    let line = lines.find(|words| words.get(2) == Some(&"cgroup2"))?;
    Some(PathBuf::from(line[1]))
}

/// The group of this process in version 2, from `/proc/self/cgroup`.
fn path_of(own: &str) -> Option<&str> {
    own.lines().find_map(|l| l.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_version_2_is_and_which_group_is_ours() {
        let mounts = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        assert_eq!(mounted(mounts), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(mounted("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
        assert_eq!(path_of("1:cpu:/\n0::/user.slice/x.scope\n"), Some("/user.slice/x.scope"));
    }
}
