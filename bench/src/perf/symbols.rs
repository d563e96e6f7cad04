//! Where in the kernel a thread sleeps, from its call chain.
//!
//! `/proc/kallsyms` gives each function's address; what lies between it and the next one belongs to it.
//! Only a few functions matter here, so only their ranges are kept. Where the file shows zeroes (to
//! users without privilege, or with `kernel.kptr_restrict`), nothing is recognised.

use std::fs;
use std::ops::Range;

/// A place in the kernel that a thread sleeps at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In a reader-writer semaphore's slow path: `mmap_lock`, if the thread is about to take it.
    Semaphore,
    /// A writer of a VMA waits for the faults that use it.
    VmaLock,
    /// In a userfault: somebody else shall supply the page.
    Userfault,
}

/// Names of functions, and the place that each stands for. A name that ends with `*` is a prefix.
/// The first that is found in a chain decides, so the particular ones stand before the general one.
const NAMES: [(&str, Place); 8] = [
    ("handle_userfault", Place::Userfault),
    // From 6.15 on a count inside the VMA; before, a semaphore of its own.
    ("__vma_start_write*", Place::VmaLock),
    ("__vma_enter_locked*", Place::VmaLock),
    ("__vma_start_exclude_readers*", Place::VmaLock),
    ("vma_mark_detached*", Place::VmaLock),
    ("rwsem_down_read_slowpath*", Place::Semaphore),
    ("rwsem_down_write_slowpath*", Place::Semaphore),
    ("__down_read_common*", Place::Semaphore),
];

/// The ranges of the functions that matter.
#[derive(Debug, Default)]
pub struct Symbols {
    ranges: Vec<(Range<u64>, Place)>,
}

impl Symbols {
    /// Reads the running kernel's.
    pub fn read() -> Symbols {
        Symbols::parse(&fs::read_to_string("/proc/kallsyms").unwrap_or_default())
    }

    fn parse(text: &str) -> Symbols {
        let mut starts = Vec::new();
        let mut found = Vec::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(address) = words.next().and_then(|w| u64::from_str_radix(w, 16).ok()) else {
                continue;
            };
            let Some(name) = words.nth(1) else { continue };
            if address == 0 {
                continue;
            }
            starts.push(address);
            if let Some(place) = place(name) {
                found.push((address, place));
            }
        }
        starts.sort_unstable();
        let ranges = found.into_iter().map(|(start, place)| {
            let next = starts.partition_point(|&s| s <= start);
            (start..starts.get(next).copied().unwrap_or(u64::MAX), place)
        });
        Symbols { ranges: ranges.collect() }
    }

    /// Whether call chains can be read at all.
    pub fn known(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// The place that a call chain (addresses in the machine's order, innermost first) goes through:
    /// the most particular one.
    pub fn place(&self, chain: &[u8]) -> Option<Place> {
        let mut general = None;
        for address in chain.chunks_exact(8) {
            let address = u64::from_ne_bytes(address.try_into().expect("eight bytes"));
            match self.ranges.iter().find(|(range, _)| range.contains(&address)) {
                Some((_, Place::Semaphore)) => general = Some(Place::Semaphore),
                Some((_, place)) => return Some(*place),
                None => {}
            }
        }
        general
    }
}

fn place(name: &str) -> Option<Place> {
    let known = NAMES.iter().find(|(known, _)| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *known,
    });
    known.map(|k| k.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ffffffff81000100 T schedule
ffffffff81000200 t rwsem_down_write_slowpath
ffffffff81000300 T __vma_start_write
ffffffff81000400 T handle_userfault
ffffffff81000480 T next_function
0000000000000000 T hidden
";

    fn chain(addresses: &[u64]) -> Vec<u8> {
        addresses.iter().flat_map(|a| a.to_ne_bytes()).collect()
    }

    #[test]
    fn the_most_particular_function_of_a_chain_decides() {
        let symbols = Symbols::parse(TEXT);
        assert!(symbols.known());
        let (schedule, semaphore) = (0xffff_ffff_8100_0110, 0xffff_ffff_8100_02ff);
        let (vma, userfault) = (0xffff_ffff_8100_0300, 0xffff_ffff_8100_0401);
        assert_eq!(symbols.place(&chain(&[schedule, semaphore])), Some(Place::Semaphore));
        assert_eq!(symbols.place(&chain(&[schedule, semaphore, vma])), Some(Place::VmaLock));
        assert_eq!(symbols.place(&chain(&[schedule, userfault])), Some(Place::Userfault));
        assert_eq!(symbols.place(&chain(&[schedule, 0xffff_ffff_8100_0480])), None);
    }

    #[test]
    fn hidden_addresses_give_nothing() {
        let symbols = Symbols::parse("0000000000000000 T handle_userfault\n");
        assert!(!symbols.known());
        assert_eq!(symbols.place(&chain(&[0])), None);
    }
}
