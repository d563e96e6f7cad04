//! Forks of a large process with many mappings.

use firn_heap::sys::ops::{Scratch, fork_and_reap};
use firn_heap::sys::{Protection, page_size};
use nix::sys::resource::{UsageWho, getrusage};

use super::Pace;
use crate::clock;
use crate::scenario::stage::Stage;

/// Memory that makes a fork expensive: touched, and cut into mappings.
#[derive(Debug)]
pub struct Ballast {
    /// Kept until the run is over.
    _memory: Scratch,
}

impl Ballast {
    /// `bytes` touched, in about `vmas` mappings (every second stretch has another protection, so that
    /// neighbours do not merge).
    ///
    /// # Errors
    /// A line that says what was refused, with the remedy.
    pub fn make(bytes: usize, vmas: usize) -> Result<Ballast, String> {
        let pages = (bytes / page_size()).max(2 * vmas);
        let memory = Scratch::anonymous(pages).map_err(|e| {
            format!("fork-vs-fault: mapping {bytes} bytes failed with {e}; give --touched less")
        })?;
        memory.fill();
        let stretch = pages / vmas;
        for cut in (0..vmas).step_by(2) {
            memory.protect(cut * stretch, stretch, Protection::Read).map_err(|e| {
                format!(
                    "fork-vs-fault: cutting memory into {vmas} mappings failed with {e}: raise \
                     vm.max_map_count or give --vmas less"
                )
            })?;
        }
        Ok(Ballast { _memory: memory })
    }
}

/// Forks five times a second; the child ends at once. `fork` is the call itself.
pub fn forker(stage: &Stage) {
    let mut log = stage.log("fork");
    let mut pace = Pace::new(5);
    while !stage.over() {
        pace.wait();
        let begin = clock::now();
        let mut end = begin;
        if let Err(e) = fork_and_reap(|| end = clock::now()) {
            stage.trouble(format!("Forker: fork failed with {e}"));
        } else {
            log.add(begin, end);
        }
    }
}

/// Page faults of the calling thread so far that needed no disk.
fn faults() -> i64 {
    // Fails for no thread of ours.
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.minor_page_faults())
}

/// Faults on fresh mappings, whose first fault needs an anon_vma, and on old ones, which a fork has made
/// copy-on-write.
pub fn fresh(stage: &Stage) {
    let (mut first, mut later) = (stage.log("first fault"), stage.log("copy-on-write fault"));
    let Ok(old) = Scratch::anonymous(256) else {
        return stage.trouble("Neighbour: mmap failed".to_owned());
    };
    old.fill();
    let mut pace = Pace::new(1000);
    for round in 0usize.. {
        if stage.over() {
            break;
        }
        pace.wait();
        if let Ok(memory) = Scratch::anonymous(2) {
            first.time(|| memory.write(0));
        }
        for page in 0..8 {
            // Most pages are this process's own again since the last fork: only an access that faulted counts.
            let before = faults();
            let begin = clock::now();
            old.write((round * 8 + page) % old.pages());
            let end = clock::now();
            if faults() != before {
                later.add(begin, end);
            }
        }
    }
}
