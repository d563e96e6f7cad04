//! Whoever changes mappings: the lock for writing.

use firn_heap::sys::ops::Scratch;
use firn_heap::sys::{Protection, Userfaultfd, page_size};

use super::Pace;
use crate::scenario::stage::Stage;

/// One writer's habits.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Pages that it maps, touches, splits and unmaps in a round.
    pub pages: usize,
    /// Pages of its own that it protects and opens again in a round: the lock is held for writing for as long
    /// as their page tables take.
    pub held: usize,
    /// Rounds a second; 0 is without a pause.
    pub rate: u64,
}

/// Maps some pages, touches them, splits the mapping by protecting its half, and unmaps it; then protects a
/// larger range of its own and opens it again.
pub fn writer(stage: &Stage, habits: Habits) {
    let (mut maps, mut protects) = (stage.log("mmap"), stage.log("mprotect"));
    let (mut unmaps, mut seals) = (stage.log("munmap"), stage.log("mprotect, large"));
    let mut pace = Pace::new(habits.rate);
    let Ok(own) = Scratch::anonymous(habits.held) else {
        return stage.trouble("VmaWriter: mmap failed".to_owned());
    };
    own.fill();
    while !stage.over() {
        pace.wait();
        match maps.time(|| Scratch::anonymous(habits.pages)) {
            Ok(memory) => {
                memory.fill();
                let half = habits.pages / 2;
                if let Err(e) = protects.time(|| memory.protect(0, half, Protection::Read)) {
                    stage.trouble(format!("VmaWriter: mprotect failed with {e}"));
                }
                unmaps.time(|| drop(memory));
            }
            Err(e) => {
                stage.trouble(format!("VmaWriter: mmap failed with {e}"));
                return;
            }
        }
        for access in [Protection::Read, Protection::ReadWrite] {
            if let Err(e) = seals.time(|| own.protect(0, habits.held, access)) {
                stage.trouble(format!("VmaWriter: mprotect failed with {e}"));
            }
        }
    }
}

/// A range whose middle is taken in and out of protection (split and merge), and whose tail is unmapped and
/// mapped again, beside pages on which neighbours fault.
pub fn churner(stage: &Stage, pages: usize) {
    let (mut splits, mut merges) = (stage.log("split"), stage.log("merge"));
    let mut unmaps = stage.log("munmap");
    while !stage.over() {
        let Ok(mut memory) = Scratch::anonymous(2 * pages) else {
            stage.trouble("Churner: mmap failed".to_owned());
            return;
        };
        memory.fill();
        for _ in 0..8 {
            let (third, none) = (pages * 2 / 3, Protection::None);
            let done = splits.time(|| memory.protect(third, third.max(1) / 2 + 1, none));
            let again = Protection::ReadWrite;
            let undone = merges.time(|| memory.protect(third, third.max(1) / 2 + 1, again));
            if let Err(e) = done.and(undone) {
                stage.trouble(format!("Churner: mprotect failed with {e}"));
            }
        }
        if let Err(e) = unmaps.time(|| memory.unmap_tail(pages)) {
            stage.trouble(format!("Churner: munmap failed with {e}"));
        }
        unmaps.time(|| drop(memory));
    }
}

/// Pages of the range that the registrar works on, and of a sub-range.
const RANGE: usize = 4096;
const PART: usize = 16;

/// Registers and unregisters sub-ranges of a heap-like range, `rate` pairs a second: each splits a mapping and
/// merges it again, as a collector does that registers what it is going to compact.
pub fn registrar(stage: &Stage, rate: u64) {
    let uffd = match Userfaultfd::open(true) {
        Ok(uffd) => uffd,
        Err(e) => return stage.trouble(format!("Registrar: {e}")),
    };
    let Ok(range) = Scratch::anonymous(RANGE) else {
        return stage.trouble("Registrar: mmap failed".to_owned());
    };
    range.fill();
    let (mut registers, mut unregisters) = (stage.log("register"), stage.log("unregister"));
    let mut pace = Pace::new(rate);
    let mut at = 0;
    while !stage.over() {
        pace.wait();
        // Every second part, so that each one is a mapping of its own.
        at = (at + 2 * PART) % (RANGE - PART);
        let (addr, len) = (range.page(at), PART * page_size());
        let done = registers.time(|| uffd.register_missing(addr, len));
        let undone = unregisters.time(|| uffd.unregister(addr, len));
        if let Err(e) = done.map(|_| ()).and(undone) {
            stage.trouble(format!("Registrar: register and unregister failed with {e}"));
        }
    }
}
