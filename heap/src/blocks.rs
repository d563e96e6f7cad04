//! The live bitmap and the forwarding arithmetic.
//!
//! The moving range is divided into blocks of 64 words (512 bytes). Each has one 16-byte entry: 64
//! bits of bitmap and one word of metadata, side by side so that marking an object or forwarding a
//! reference to it costs one cache line.
//!
//! **Bitmap.** A live object sets two bits: its first word's and its last word's. Objects do not
//! overlap and have at least two words, so first and last bits alternate along the heap; a running
//! exclusive-or over the bits (a *prefix XOR*) is 1 from each first word up to just before the last,
//! and or-ing the bits themselves gives the mask of live words. One bitmap thus serves as mark bitmap
//! (is this object's first bit set?), as live-word bitmap (how many live words lie below?) and as
//! object-start bitmap (which bits open an object?), for 1/64 of the heap instead of 3/64.
//!
//! **Metadata**, written by the plan: the destination of the block's first live word, in words from
//! the to-range's start; whether the block begins inside a live object (*carry*); and whether it is
//! part of a *dense* run, which moves as a whole and in which every word counts as live.
//!
//! An object's new place is then `destination + popcount(live words below it in its block)`.
//!
//! **Queued.** Until the plan writes it, the metadata word has another use: one bit for each word of the
//! block, set by whoever queues a reference to the object there for the marker. So an overwritten reference
//! is queued once in a cycle, however often the program overwrites it, and no table is needed for that.
//! These bits are a word of their own because a single marker sets mark bits without atomic
//! read-modify-writes, and mutators must not lose one of its bits, nor it one of theirs.
//!
//! Invariants: bits are set only between the start and the end of marking; metadata is written only
//! by the plan, before the flip; after that both are constant until the reset at the cycle's end. Nobody
//! looks at a block's metadata before the plan has replaced what marking left there; pages of which nothing
//! is noted at all it leaves as they are.
//! The flip (stop-the-world) orders the plan's plain stores before every reader.

use crate::BLOCK_WORDS;
use crate::sys::map::MapError;
use crate::table::{Table, Zeroed};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// One block's entry.
#[repr(C, align(16))]
pub struct Block {
    bits: AtomicU64,
    meta: AtomicU64,
}

// SAFETY: two atomic integers.
unsafe impl Zeroed for Block {}

const CARRY: u64 = 1;
const DENSE: u64 = 2;

/// Running exclusive-or: bit *i* of the result is the parity of bits `0..=i`.
#[inline(always)]
pub fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ bits << 32
}

/// A block's entry, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockView {
    /// First and last words of live objects.
    pub bits: u64,
    meta: u64,
}

impl BlockView {
    /// Words from the to-range's start to where the block's first live word goes.
    #[inline(always)]
    pub fn destination(self) -> usize {
        (self.meta >> 2) as usize
    }

    /// Whether the block belongs to a run that moves as a whole.
    #[inline(always)]
    pub fn dense(self) -> bool {
        self.meta & DENSE != 0
    }

    /// Whether the block begins inside a live object.
    #[inline(always)]
    pub fn carry(self) -> bool {
        self.meta & CARRY != 0
    }

    /// 1 where the running parity says "inside an object, not at its last word".
    #[inline(always)]
    fn inside(self) -> u64 {
        prefix_xor(self.bits) ^ (self.meta & CARRY).wrapping_neg()
    }

    /// Mask of live words. In a dense block: of the live objects only, not of what lies between.
    #[inline(always)]
    pub fn live(self) -> u64 {
        self.inside() | self.bits
    }

    /// Mask of the first words of live objects.
    #[inline(always)]
    pub fn starts(self) -> u64 {
        self.bits & self.inside()
    }

    /// Whether the following block begins inside a live object.
    #[inline(always)]
    pub fn carries_out(self) -> bool {
        self.inside() >> 63 != 0
    }

    /// Where the word `offset` (0..64) of this block goes, in words from the to-range's start.
    #[inline(always)]
    pub fn forward(self, offset: u32) -> usize {
        let counted = self.live() | (self.meta >> 1 & 1).wrapping_neg();
        self.destination() + (counted & ((1u64 << offset) - 1)).count_ones() as usize
    }
}

/// The table of all blocks of a moving range.
pub struct BlockTable {
    blocks: Table<Block>,
}

impl BlockTable {
    /// A table for `blocks` blocks, all dead.
    pub fn new(blocks: usize) -> Result<BlockTable, MapError> {
        Ok(BlockTable { blocks: Table::new(blocks, "firn blocks")? })
    }

    /// Bytes of the table when the whole range is in use.
    pub fn bytes(&self) -> usize {
        self.blocks.bytes()
    }

    /// Number of blocks.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    #[inline(always)]
    fn entry(&self, block: usize) -> &Block {
        debug_assert!(block < self.blocks.len());
        // SAFETY: every caller computes the block from an address inside the range that this table
        // was made for; debug builds check it.
        unsafe { self.blocks.get_unchecked(block) }
    }

    /// Block `block`, as it stands.
    #[inline(always)]
    pub fn view(&self, block: usize) -> BlockView {
        let entry = self.entry(block);
        // Relaxed: marking's end and the flip order these loads after the stores they need to see.
        BlockView {
            bits: entry.bits.load(Ordering::Relaxed),
            meta: entry.meta.load(Ordering::Relaxed),
        }
    }

    /// Asks the processor to fetch the entry of the block that holds word `word`.
    #[inline(always)]
    pub fn prefetch(&self, word: usize) {
        prefetch(std::ptr::from_ref(self.entry(word / BLOCK_WORDS)).cast());
    }

    /// Whether the object that starts at word `word` is marked.
    #[inline(always)]
    pub fn is_marked(&self, word: usize) -> bool {
        // Relaxed: a stale "no" costs a mark attempt, which decides.
        self.entry(word / BLOCK_WORDS).bits.load(Ordering::Relaxed) >> (word % BLOCK_WORDS) & 1 != 0
    }

    /// Notes that the object that starts at word `word` has been queued for marking; returns whether it had
    /// not been. Only during marking.
    #[inline(always)]
    pub fn queue_once(&self, word: usize) -> bool {
        let bit = 1u64 << (word % BLOCK_WORDS);
        set::<true>(&self.entry(word / BLOCK_WORDS).meta, bit) & bit == 0
    }

    /// Sets the first bit of the object that starts at word `word`; returns whether it was unmarked. Whoever
    /// gets true must complete the mark by [`BlockTable::mark_end`].
    ///
    /// With `SHARED` false the caller must be the only one that marks: it saves the bus lock.
    #[inline(always)]
    pub fn mark_start<const SHARED: bool>(&self, word: usize) -> bool {
        let bit = 1u64 << (word % BLOCK_WORDS);
        set::<SHARED>(&self.entry(word / BLOCK_WORDS).bits, bit) & bit == 0
    }

    /// Sets the last bit, at word `last`, of an object whose first one this thread has set.
    #[inline(always)]
    pub fn mark_end<const SHARED: bool>(&self, last: usize) {
        set::<SHARED>(&self.entry(last / BLOCK_WORDS).bits, 1u64 << (last % BLOCK_WORDS));
    }

    /// Marks the object of `words` words that starts at word `word`; returns whether it was unmarked.
    #[inline(always)]
    pub fn mark<const SHARED: bool>(&self, word: usize, words: usize) -> bool {
        let fresh = self.mark_start::<SHARED>(word);
        if fresh {
            self.mark_end::<SHARED>(word + words - 1);
        }
        fresh
    }

    /// Writes a block's metadata. Only the plan does, before the flip.
    #[inline(always)]
    pub fn set_plan(&self, block: usize, destination: usize, dense: bool, carry: bool) {
        let meta = (destination as u64) << 2 | (dense as u64) << 1 | carry as u64;
        // Relaxed: the flip orders it before every reader.
        self.entry(block).meta.store(meta, Ordering::Relaxed);
    }

    /// Whether nothing is noted of the blocks `blocks`: no object marked, no plan.
    pub fn untouched(&self, blocks: Range<usize>) -> bool {
        // Relaxed, both: as in `view`.
        let noted =
            |entry: &Block| entry.bits.load(Ordering::Relaxed) | entry.meta.load(Ordering::Relaxed);
        self.blocks[blocks].iter().fold(0, |all, entry| all | noted(entry)) == 0
    }

    /// Where the object that starts at word `word` goes, in words from the to-range's start.
    #[inline(always)]
    pub fn forward(&self, word: usize) -> usize {
        self.view(word / BLOCK_WORDS).forward((word % BLOCK_WORDS) as u32)
    }

    /// Forgets blocks `from..to`.
    pub fn reset(&self, from: usize, to: usize) {
        for entry in &self.blocks[from..to] {
            entry.bits.store(0, Ordering::Relaxed);
            entry.meta.store(0, Ordering::Relaxed);
        }
    }
}

#[inline(always)]
fn set<const SHARED: bool>(word: &AtomicU64, bits: u64) -> u64 {
    // Relaxed: marking publishes nothing through the bits; its end is a handshake.
    let seen = word.load(Ordering::Relaxed);
    if seen & bits == bits {
        // Not written: most references lead to marked objects, and stores to lines all over the table would queue up.
        seen
    } else if SHARED {
        word.fetch_or(bits, Ordering::Relaxed)
    } else {
        word.store(seen | bits, Ordering::Relaxed);
        seen
    }
}

/// Asks the processor to fetch the cache line of `address`.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it cannot fault whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Asks the processor to fetch the line at `address`, to be written soon. On x86-64 by a prefetch for reading: what
/// nobody else has comes in a state that can be written, and PREFETCHW takes longer for it (4.4 ns for 32 bytes of
/// fresh memory, 4.05 so; medians of 15).
#[inline(always)]
pub fn prefetch_for_write(address: *const u8) {
    #[cfg(not(target_arch = "aarch64"))]
    prefetch(address);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}
