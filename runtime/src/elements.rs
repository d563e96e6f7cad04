//! Runs of elements of data arrays, copied and filled as if one by one.
//!
//! Other threads may read and write an array's elements at any time, so each has to be accessed by itself, atomically:
//! a `memcpy` would be a data race, and compilers do not combine atomic accesses. On x86-64 the string instructions are
//! defined as one access for each element, in any order that others can see, and the processor makes lines of them; so
//! long runs use those. Short ones, runs that overlap the wrong way, and other processors have a loop.
//!
//! A missing page in the middle is a fault like any other: the instruction goes on where it was.
//!
//! For [`crate::array`] only. Private memory may stand for an array on either side.

use crate::Plain;

/// Elements from which on the string instructions are faster than the loop. With 32 bits each, in the caches: 24 take 5.6 ns in
/// the loop and 5.3 so, 48 10.7 and 5.3, 1,024 232 and 49 (AMD EPYC); processors without fast short strings take longer to begin.
#[cfg(target_arch = "x86_64")]
const LONG: usize = 48;

/// Copies `count` elements, which may overlap.
///
/// # Safety
/// Both runs must be aligned elements of live arrays, or of memory that is the caller's.
#[inline]
pub(crate) unsafe fn copy<E: Plain>(from: *const E, to: *mut E, count: usize) {
    if (to as usize).wrapping_sub(from as usize) < count * size_of::<E>() {
        for index in (0..count).rev() {
            // SAFETY: the caller's promise.
            unsafe { E::store(to.add(index), E::load(from.add(index))) };
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if count >= LONG {
        // SAFETY: the caller's promise; the runs do not overlap, or so that going up reads before it writes. The
        // direction flag is clear at the beginning of any `asm!`.
        unsafe { x86::copy(from, to, count) };
        return;
    }
    for index in 0..count {
        // SAFETY: the caller's promise.
        unsafe { E::store(to.add(index), E::load(from.add(index))) };
    }
}

/// Makes `count` elements `value`.
///
/// # Safety
/// They must be aligned elements of a live array.
#[inline]
pub(crate) unsafe fn fill<E: Plain>(to: *mut E, count: usize, value: E) {
    #[cfg(target_arch = "x86_64")]
    if count >= LONG {
        // SAFETY: the caller's promise.
        unsafe { x86::fill(to, count, value) };
        return;
    }
    for index in 0..count {
        // SAFETY: the caller's promise.
        unsafe { E::store(to.add(index), value) };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::Plain;
    use std::arch::asm;

    /// A string instruction, in its form for elements of `E`.
    macro_rules! for_elements {
        ($instruction:literal, $($operand:tt)*) => {
            match size_of::<E>() {
                1 => asm!(concat!($instruction, "b"), $($operand)*),
                2 => asm!(concat!($instruction, "w"), $($operand)*),
                4 => asm!(concat!($instruction, "l"), $($operand)*),
                _ => asm!(concat!($instruction, "q"), $($operand)*),
            }
        };
    }

    /// # Safety
    /// As [`super::copy`], upwards.
    #[inline(always)]
    pub(super) unsafe fn copy<E: Plain>(from: *const E, to: *mut E, count: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            for_elements!(
                "rep movs",
                inout("rcx") count => _, inout("rsi") from => _, inout("rdi") to => _,
                options(att_syntax, nostack, preserves_flags)
            )
        }
    }

    /// # Safety
    /// As [`super::fill`].
    #[inline(always)]
    pub(super) unsafe fn fill<E: Plain>(to: *mut E, count: usize, value: E) {
        let mut bits = 0u64;
        // SAFETY: an element has at most eight bytes; this processor is little-endian.
        unsafe { (&raw mut bits).cast::<E>().write(value) };
        // SAFETY: the caller's promise.
        unsafe {
            for_elements!(
                "rep stos",
                inout("rcx") count => _, inout("rdi") to => _, in("rax") bits,
                options(att_syntax, nostack, preserves_flags)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees<E: Plain + PartialEq + std::fmt::Debug>(of: fn(usize) -> E) {
        let original: Vec<E> = (0..420).map(of).collect();
        for count in [0, 1, 2, 47, 48, 49, 130, 200] {
            for (from, to) in [(0, 200), (3, 201), (100, 100), (100, 99), (99, 100), (60, 90)] {
                let (mut ours, mut expected) = (original.clone(), original.clone());
                expected.copy_within(from..from + count, to);
                let base = ours.as_mut_ptr();
                // SAFETY: inside of this function's own vector.
                unsafe { copy(base.add(from), base.add(to), count) };
                assert_eq!(ours, expected, "{count} from {from} to {to}");
                expected[to..to + count].fill(of(7));
                // SAFETY: as above.
                unsafe { fill(base.add(to), count, of(7)) };
                assert_eq!(ours, expected, "{count} at {to}");
            }
        }
    }

    #[test]
    fn runs_of_every_size_are_copied_and_filled_as_slices_are() {
        agrees::<u8>(|index| index as u8 ^ 0x5a);
        agrees::<i16>(|index| -(index as i16));
        agrees::<f32>(|index| index as f32 / 3.0);
        agrees::<u32>(|index| (index as u32).wrapping_mul(0x9e37_79b1));
        agrees::<u64>(|index| (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}
