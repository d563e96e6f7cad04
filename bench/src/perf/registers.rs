//! What a thread had in its registers when it entered the kernel: enough to know which call it is in, without a
//! record of the call's end, and for an `ioctl` without one of its beginning.
//!
//! Whoever installs pages does so by an `ioctl` each, thousands a second and per thread, and almost none of them
//! takes `mmap_lock`. So it is not those calls that are recorded: the lock's records carry three of the thread's
//! registers. On x86-64 a thread in a system call has −`ENOSYS` where the result will be, from the entry to the return;
//! a fault taken in user code has that code's own value there. The first two arguments are in their registers all the
//! while. If they are those of the last call that was recorded, the thread is still in it; and an `ioctl`'s request has
//! a value that no other call's second argument has by chance.
//!
//! Where an architecture keeps no such mark ([`WANTED`] is 0), ends of calls are recorded too, and `ioctl` like any other.

/// Registers that the lock's records carry, as bits of `sample_regs_user`, the lowest first in a record:
/// `PERF_REG_X86_AX`, `_SI` and `_DI`.
#[cfg(target_arch = "x86_64")]
pub const WANTED: u64 = 1 << 0 | 1 << 4 | 1 << 5;
/// None: the result's register is the first argument's here, and a call's number stays where it was after its return.
#[cfg(not(target_arch = "x86_64"))]
pub const WANTED: u64 = 0;

/// `PERF_SAMPLE_REGS_ABI_64`.
const ABI_64: u64 = 2;

/// The first two arguments of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arguments {
    /// The first.
    pub first: u64,
    /// The second: an `ioctl`'s request.
    pub second: u64,
}

/// Where a thread entered the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// The record does not say: it has no registers, or the thread is the kernel's own.
    Unknown,
    /// In user code: by a fault.
    UserCode,
    /// By a system call.
    Call(Arguments),
}

/// What the registers' part of a record says.
pub fn within(registers: &[u8]) -> Within {
    let word = |n: usize| {
        let bytes = registers.get(8 * n..8 * n + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (Some(ABI_64), Some(result), Some(second), Some(first)) =
        (word(0), word(1), word(2), word(3))
    else {
        return Within::Unknown;
    };
    match result as i64 == -i64::from(nix::libc::ENOSYS) {
        true => Within::Call(Arguments { first, second }),
        false => Within::UserCode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[u64]) -> Within {
        within(&words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn a_call_is_told_from_a_fault_by_where_its_result_will_be() {
        let in_a_call = -38i64 as u64;
        let arguments = Arguments { first: 3, second: 0xc020_aa00 };
        assert_eq!(of(&[ABI_64, in_a_call, 0xc020_aa00, 3]), Within::Call(arguments));
        // Back in user code, with the arguments still in their registers.
        assert_eq!(of(&[ABI_64, 0, 0xc020_aa00, 3]), Within::UserCode);
        // A kernel thread, a record without registers, and what pads one.
        for words in [&[0][..], &[]] {
            assert_eq!(of(words), Within::Unknown);
        }
        assert_eq!(within(&[0; 4]), Within::Unknown);
    }
}
