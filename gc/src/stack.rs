//! Lock-free stacks of numbered things: Treiber's, with a counter beside the head against ABA.
//!
//! Who holds a number owns the thing. A push hands it over, with all that was written to it before; a pop takes it, and
//! sees that. Several stacks share one table of links, since a thing is in one stack at most.
//!
//! **ABA.** A pop reads the link of the head that it has seen, which may be gone by then, and in another stack: what it
//! reads is nonsense in that case, and harmless, because each push and pop changes the counter, and the exchange
//! fails. The counter has 32 bits: it would take a thread that sleeps through exactly so many operations to fool it.
//!
//! This file is compiled a second time by the loom model in `tests/`, against loom's atomics. (A counter that stands
//! still, a push that publishes nothing, and a pop that acquires nothing each make the model fail.)

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A stack of numbers below that of the links it is used with.
pub struct Stack {
    /// The counter, and below it one more than the first number; 0: empty.
    head: AtomicU64,
}

impl Stack {
    /// An empty stack.
    pub fn new() -> Stack {
        Stack { head: AtomicU64::new(0) }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        // SeqCst: read by the marking's end, after a handshake; see `mark`.
        self.head.load(Ordering::SeqCst) as u32 == 0
    }

    /// Adds `number`, which the caller holds.
    pub fn push(&self, links: &[AtomicU32], number: u32) {
        // Relaxed: the exchange below publishes.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            links[number as usize].store(head as u32, Ordering::Relaxed);
            let new = (head >> 32).wrapping_add(1) << 32 | (number as u64 + 1);
            // AcqRel: the release pairs with the acquire in `pop`; contents and link are visible.
            match self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes the number added last.
    pub fn pop(&self, links: &[AtomicU32]) -> Option<u32> {
        // Acquire: pairs with the release in `push`.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let number = (head as u32).checked_sub(1)?;
            let next = links[number as usize].load(Ordering::Relaxed);
            let new = (head >> 32).wrapping_add(1) << 32 | next as u64;
            match self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(number),
                Err(now) => head = now,
            }
        }
    }
}
