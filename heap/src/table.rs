//! Zero-initialised arrays outside the heap: the side tables.
//!
//! A [`Table`] is a reserved stretch of anonymous memory seen as a slice of atomics (or of structs of
//! atomics). It costs address space until an entry is first written. Invariants: an entry that was
//! never written reads as all zeroes, so zero must be each table's "nothing known"; a table never
//! moves or shrinks, so the fault handler may read it. Resetting is done by storing zeroes to the used
//! part, not by giving pages back: that would fault them in again in the next cycle.

use crate::sys::map::{Advice, MapError, Reservation, advise};
use std::marker::PhantomData;
use std::ops::Deref;

/// Types of which all-zero bytes are a valid shared value.
///
/// # Safety
/// The type must be valid when all its bytes are zero, must not need `Drop`, and must be `Sync`.
pub unsafe trait Zeroed: Sync {}

// SAFETY: an atomic integer of zeroes is the integer 0.
unsafe impl Zeroed for std::sync::atomic::AtomicU64 {}
// SAFETY: as above.
unsafe impl Zeroed for std::sync::atomic::AtomicU32 {}
// SAFETY: as above.
unsafe impl Zeroed for std::sync::atomic::AtomicU16 {}
// SAFETY: as above.
unsafe impl Zeroed for std::sync::atomic::AtomicU8 {}

/// Tables of at least this many bytes ask for huge pages.
const HUGE: usize = 2 << 20;

/// A fixed-length array of zero-initialised entries in its own reservation.
///
/// ```
/// use firn_heap::table::Table;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// let table = Table::<AtomicU64>::new(1000, "example").unwrap();
/// assert_eq!(table[999].load(Relaxed), 0);
/// table[999].store(7, Relaxed);
/// assert_eq!(table[999].load(Relaxed), 7);
/// ```
pub struct Table<T: Zeroed> {
    memory: Reservation,
    len: usize,
    entries: PhantomData<T>,
}

impl<T: Zeroed> Table<T> {
    /// Reserves a table of `len` entries; `name` shows in `/proc/PID/maps` where the kernel has it.
    pub fn new(len: usize, name: &str) -> Result<Table<T>, MapError> {
        let page = crate::sys::page_size();
        let bytes = (len.max(1) * size_of::<T>()).next_multiple_of(page);
        let align = if bytes >= HUGE { HUGE } else { page.max(align_of::<T>()) };
        let memory = Reservation::anonymous(bytes, align, name)?;
        if bytes >= HUGE {
            // Tables are read at random, in the fault handler too: with small pages the processor's
            // address translation would miss on most reads. A refusal costs only that.
            // SAFETY: touches no contents.
            let _ = unsafe { advise(memory.base(), bytes, Advice::Hugepage) };
        }
        Ok(Table { memory, len, entries: PhantomData })
    }

    /// Bytes the whole table would take if every entry were in use.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T: Zeroed> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the reservation is page-aligned, at least `len * size_of::<T>()` long, readable and
        // writable for as long as `self` lives, zero-filled by the kernel (a valid `T` by `Zeroed`),
        // and only ever accessed as shared `T`s.
        unsafe { std::slice::from_raw_parts(self.memory.base() as *const T, self.len) }
    }
}
