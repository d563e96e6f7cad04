//! The feature bits of a userfaultfd.
//!
//! A kernel tells what it can do in one word. Bits that this code does not know are kept, so that a
//! report from a newer kernel loses nothing.

use std::fmt;

/// A set of `UFFD_FEATURE_*` bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(
    /// The bits as the kernel has them.
    pub u64,
);

impl Features {
    /// None.
    pub const NONE: Features = Features(0);
    /// Write-protection faults on anonymous memory (`PAGEFAULT_FLAG_WP`, 5.7).
    pub const WP: Features = Features(1 << 0);
    /// Events for fork.
    pub const EVENT_FORK: Features = Features(1 << 1);
    /// Events for mremap.
    pub const EVENT_REMAP: Features = Features(1 << 2);
    /// Events for madvise(DONTNEED, REMOVE).
    pub const EVENT_REMOVE: Features = Features(1 << 3);
    /// Missing faults on hugetlbfs.
    pub const MISSING_HUGETLBFS: Features = Features(1 << 4);
    /// Missing faults on shared memory.
    pub const MISSING_SHMEM: Features = Features(1 << 5);
    /// Events for munmap.
    pub const EVENT_UNMAP: Features = Features(1 << 6);
    /// SIGBUS on the faulting thread instead of a message (4.14).
    pub const SIGBUS: Features = Features(1 << 7);
    /// The faulting thread's id in messages (4.14).
    pub const THREAD_ID: Features = Features(1 << 8);
    /// Minor faults on hugetlbfs (5.13).
    pub const MINOR_HUGETLBFS: Features = Features(1 << 9);
    /// Minor faults on shared memory (5.14).
    pub const MINOR_SHMEM: Features = Features(1 << 10);
    /// Addresses in messages are not rounded down to the page (5.18).
    pub const EXACT_ADDRESS: Features = Features(1 << 11);
    /// Write protection of hugetlbfs and shared memory (5.19).
    pub const WP_HUGETLBFS_SHMEM: Features = Features(1 << 12);
    /// Write protection of pages that are not there (6.4).
    pub const WP_UNPOPULATED: Features = Features(1 << 13);
    /// Poisoned pages (6.6).
    pub const POISON: Features = Features(1 << 14);
    /// Write protection without messages (6.7).
    pub const WP_ASYNC: Features = Features(1 << 15);
    /// Moving pages (6.8).
    pub const MOVE: Features = Features(1 << 16);
    /// Protection of present pages against reading and writing (7.3).
    pub const RWP: Features = Features(1 << 17);
    /// The same without messages (7.3).
    pub const RWP_ASYNC: Features = Features(1 << 18);

    const NAMES: [&'static str; 19] = [
        "WP",
        "EVENT_FORK",
        "EVENT_REMAP",
        "EVENT_REMOVE",
        "MISSING_HUGETLBFS",
        "MISSING_SHMEM",
        "EVENT_UNMAP",
        "SIGBUS",
        "THREAD_ID",
        "MINOR_HUGETLBFS",
        "MINOR_SHMEM",
        "EXACT_ADDRESS",
        "WP_HUGETLBFS_SHMEM",
        "WP_UNPOPULATED",
        "POISON",
        "WP_ASYNC",
        "MOVE",
        "RWP",
        "RWP_ASYNC",
    ];

    /// Whether all of `other` are in this set.
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in either set.
    pub const fn union(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// Those in both sets.
    pub const fn intersection(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    /// Those in this set and not in `other`.
    pub const fn difference(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// The bits that have no name here: features of a newer kernel.
    pub const fn unknown(self) -> Features {
        Features(self.0 & !((1 << Features::NAMES.len()) - 1))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut between = "";
        for (bit, name) in Features::NAMES.iter().enumerate() {
            if self.0 & (1 << bit) != 0 {
                write!(f, "{between}{name}")?;
                between = " ";
            }
        }
        if !self.unknown().is_empty() {
            write!(f, "{between}{:#x}", self.unknown().0)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_bits_are_kept_and_shown() {
        let f = Features(Features::SIGBUS.0 | Features::MOVE.0 | 1 << 40);
        assert_eq!(f.to_string(), "SIGBUS MOVE 0x10000000000");
        assert_eq!(f.unknown(), Features(1 << 40));
        assert!(f.contains(Features::MOVE) && !f.contains(Features::WP));
        assert_eq!(Features::NONE.to_string(), "none");
    }

    #[test]
    fn names_lie_at_their_bits() {
        assert_eq!(Features::THREAD_ID.to_string(), "THREAD_ID");
        assert_eq!(Features::EXACT_ADDRESS.to_string(), "EXACT_ADDRESS");
        assert_eq!(Features::POISON.to_string(), "POISON");
        assert_eq!(Features::RWP_ASYNC.to_string(), "RWP_ASYNC");
        // What 6.12 to 7.2 offer: everything up to MOVE.
        assert!(Features(0x1ffff).unknown().is_empty());
    }
}
