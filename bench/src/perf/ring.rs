//! A buffer that the kernel fills with records: one for each processor (or thread).
//!
//! It is a shared mapping: a page of control words, then a power of two of data pages. The kernel
//! writes records and moves `data_head`; we read them and move `data_tail`. What does not fit is
//! dropped and counted by the kernel, which says so in a record of its own.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_heap::sys::Errno;
use firn_heap::sys::ops::SharedMapping;
use firn_heap::sys::page_size;

use super::Unavailable;
use super::event::Event;
use super::record;

/// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// The records of an event, and of those redirected to it.
#[derive(Debug)]
pub struct Ring {
    mapping: SharedMapping,
    /// Reused by each [`Ring::drain`].
    copy: Vec<u8>,
}

impl Ring {
    /// The buffer of `event`, of about `bytes` bytes (a power of two of pages). Where the kernel
    /// refuses so much locked memory, half is tried, down to one page.
    ///
    /// # Errors
    /// [`Unavailable::Call`] when not even a page is to be had.
    pub fn new(event: &Event, bytes: usize) -> Result<Ring, Unavailable> {
        let mut pages = (bytes / page_size()).next_power_of_two();
        loop {
            match SharedMapping::of(event.as_fd(), (1 + pages) * page_size()) {
                Ok(mapping) => {
                    let mut copy = Vec::new();
                    // Used as far as it is needed. Where it is refused, it grows.
                    let _ = copy.try_reserve_exact(pages * page_size());
                    return Ok(Ring { mapping, copy });
                }
                Err(Errno::EPERM | Errno::ENOMEM) if pages > 1 => pages /= 2,
                Err(errno) => return Err(event.failed("mmap", errno)),
            }
        }
    }

    /// Bytes of records that fit.
    pub fn capacity(&self) -> usize {
        self.mapping.len() - page_size()
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the control page is mapped as long as `self`, the offsets are those of two aligned
        // 64-bit words in it, and the kernel accesses them as atomics too.
        unsafe { &*((self.mapping.base() + offset) as *const AtomicU64) }
    }

    /// Calls `each` with every record that is there, whole, in the order of writing, and gives their
    /// room back to the kernel. Returns the number of bytes that could not be read as records.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        // Acquire: the kernel stores the head with release after it has written the records.
        let head = self.word(DATA_HEAD).load(Ordering::Acquire);
        // Relaxed: only we store it.
        let tail = self.word(DATA_TAIL).load(Ordering::Relaxed);
        let (size, len) = (self.capacity(), (head - tail) as usize);
        let start = (tail as usize) & (size - 1);
        let first = len.min(size - start);
        let data = (self.mapping.base() + page_size()) as *const u8;
        self.copy.clear();
        self.copy.reserve(len);
        // SAFETY: `[tail, head)` holds records that the kernel has finished and does not overwrite
        // before we move the tail; both parts lie within the data pages; the vector has room.
        unsafe {
            let out = self.copy.as_mut_ptr();
            std::ptr::copy_nonoverlapping(data.add(start), out, first);
            std::ptr::copy_nonoverlapping(data, out.add(first), len - first);
            self.copy.set_len(len);
        }
        // Release: the kernel reads the tail before it writes into the room it gives.
        self.word(DATA_TAIL).store(head, Ordering::Release);
        let mut rest = &self.copy[..];
        while let Some(size) = record::size(rest) {
            let (this, next) = rest.split_at(size);
            each(this);
            rest = next;
        }
        rest.len()
    }
}
