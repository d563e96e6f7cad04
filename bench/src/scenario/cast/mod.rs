//! The threads of the scenarios. Each role is a function that plays until the stage is over, and logs its
//! operations under names of its own. Thread names are the role and a number; they are part of the
//! interface, because lock figures and traces are told apart by them.
//!
//! | role | what it does | in |
//! |---|---|---|
//! | `Mutator` | works on a heap: lookups, replacements | [`mutator`] |
//! | `UiMutator` | renders at 120 Hz out of a heap, and needs the lock for reading and for writing | [`mutator`] |
//! | `Requester` | asks for one collection after the other | [`mutator`] |
//! | `VmaWriter` | maps, splits, unmaps | [`writers`] |
//! | `Churner` | the same on neighbours of faulting threads | [`writers`] |
//! | `Registrar` | registers and unregisters parts of a range with userfaultfd | [`writers`] |
//! | `Neighbour` | faults on memory whose mapping never changes | [`readers`] |
//! | `VmaReader` | needs mappings looked up, in every way there is | [`readers`] |
//! | `FileFaulter` | faults on a file that must be read from disk | [`files`] |
//! | `Forker` | forks | [`forks`] |
//! | `CpuHog` | computes | [`mutator`] |

pub mod files;
pub mod forks;
pub mod mutator;
pub mod readers;
pub mod writers;

use crate::clock;

/// Calls at fixed times: the next one at [`Pace::wait`]'s return. What is missed is not caught up with.
#[derive(Debug)]
pub struct Pace {
    next: u64,
    period: u64,
}

impl Pace {
    /// `rate` times a second; 0 is without a pause.
    pub fn new(rate: u64) -> Pace {
        Pace { next: clock::now(), period: 1_000_000_000u64.checked_div(rate).unwrap_or(0) }
    }

    /// The time that the next call is due, skipping those that are past.
    pub fn due(&mut self) -> u64 {
        if self.period > 0 {
            let now = clock::now();
            self.next += self.period * (1 + now.saturating_sub(self.next) / self.period);
        }
        self.next
    }

    /// Waits for it.
    pub fn wait(&mut self) {
        if self.period > 0 {
            let due = self.due();
            clock::sleep_until(due);
        }
    }
}
