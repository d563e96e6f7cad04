//! The userfaultfd interface as the kernel lays it out in memory, and its ioctl numbers.
//!
//! Written by hand rather than generated: seven structs that the kernel has promised never to
//! change, against a generator that needs a C compiler's library at build time. The assertions hold
//! the sizes, which the ioctl numbers contain.

use std::mem::{offset_of, size_of};

/// `struct uffdio_api`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct UffdioApi {
    pub(super) api: u64,
    pub(super) features: u64,
    pub(super) ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct UffdioRange {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
pub(super) struct UffdioRegister {
    pub(super) range: UffdioRange,
    pub(super) mode: u64,
    pub(super) ioctls: u64,
}

/// `struct uffdio_copy`; `copy` is written by the kernel.
#[repr(C)]
pub(super) struct UffdioCopy {
    pub(super) dst: u64,
    pub(super) src: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
    pub(super) copy: i64,
}

/// `struct uffdio_move`; `moved` (`move` in C) is written by the kernel.
#[repr(C)]
pub(super) struct UffdioMove {
    pub(super) dst: u64,
    pub(super) src: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
    pub(super) moved: i64,
}

/// `struct uffdio_zeropage`; `zeropage` is written by the kernel.
#[repr(C)]
pub(super) struct UffdioZeropage {
    pub(super) range: UffdioRange,
    pub(super) mode: u64,
    pub(super) zeropage: i64,
}

/// `struct uffd_msg` with the arm of its union for page faults, the only one that we ask for.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct UffdMsg {
    pub(super) event: u8,
    pub(super) reserved1: u8,
    pub(super) reserved2: u16,
    pub(super) reserved3: u32,
    pub(super) flags: u64,
    pub(super) address: u64,
    pub(super) ptid: u32,
    pub(super) padding: u32,
}

const _: () = {
    assert!(size_of::<UffdioApi>() == 24);
    assert!(size_of::<UffdioRange>() == 16);
    assert!(size_of::<UffdioRegister>() == 32);
    assert!(size_of::<UffdioCopy>() == 40);
    assert!(size_of::<UffdioMove>() == 40);
    assert!(size_of::<UffdioZeropage>() == 32);
    assert!(size_of::<UffdMsg>() == 32);
    assert!(offset_of!(UffdMsg, address) == 16);
    assert!(offset_of!(UffdMsg, ptid) == 24);
};

/// `UFFD_API`: the only version there is.
pub(super) const UFFD_API: u64 = 0xAA;
/// `UFFD_USER_MODE_ONLY`, a flag of the system call.
pub(super) const USER_MODE_ONLY: libc::c_int = 1;
/// `UFFDIO_REGISTER_MODE_MISSING`.
pub(super) const REGISTER_MODE_MISSING: u64 = 1 << 0;
/// `UFFDIO_{COPY,ZEROPAGE,MOVE}_MODE_DONTWAKE`, the same bit in all three.
pub(super) const MODE_DONTWAKE: u64 = 1 << 0;
/// `UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES`.
pub(super) const MOVE_MODE_ALLOW_SRC_HOLES: u64 = 1 << 1;
/// `UFFD_EVENT_PAGEFAULT`.
pub(super) const EVENT_PAGEFAULT: u8 = 0x12;
/// `UFFD_PAGEFAULT_FLAG_WRITE`.
pub(super) const PAGEFAULT_FLAG_WRITE: u64 = 1 << 0;

/// Operations on a registered range, as bits of what
/// [`Userfaultfd::register_missing`](super::Userfaultfd::register_missing) returns.
pub mod range_ioctls {
    /// Waking the threads that wait for a page.
    pub const WAKE: u64 = 1 << 0x02;
    /// Installing copies.
    pub const COPY: u64 = 1 << 0x03;
    /// Installing the page of zeros.
    pub const ZEROPAGE: u64 = 1 << 0x04;
    /// Installing pages by moving them (6.8 or newer).
    pub const MOVE: u64 = 1 << 0x05;
    /// What every kernel with userfaultfd offers on private anonymous memory.
    pub const MISSING_BASIC: u64 = WAKE | COPY | ZEROPAGE;
}

const TYPE: u8 = 0xAA;

// UNREGISTER and WAKE only read their argument, but the interface has them as reads *by user space*;
// nix's names follow the direction bits of the number.
nix::ioctl_readwrite!(uffdio_api, TYPE, 0x3F, UffdioApi);
nix::ioctl_readwrite!(uffdio_register, TYPE, 0x00, UffdioRegister);
nix::ioctl_read!(uffdio_unregister, TYPE, 0x01, UffdioRange);
nix::ioctl_read!(uffdio_wake, TYPE, 0x02, UffdioRange);
nix::ioctl_readwrite!(uffdio_copy, TYPE, 0x03, UffdioCopy);
nix::ioctl_readwrite!(uffdio_zeropage, TYPE, 0x04, UffdioZeropage);
nix::ioctl_readwrite!(uffdio_move, TYPE, 0x05, UffdioMove);

/// `USERFAULTFD_IOC_NEW` of `/dev/userfaultfd`: its argument is flags, not a pointer.
pub(super) const IOC_NEW: nix::sys::ioctl::ioctl_num_type = nix::request_code_none!(TYPE, 0x00);
