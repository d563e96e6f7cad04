//! The structs of the operations above as the kernel lays them out, and their ioctl numbers: layouts
//! that the kernel has promised never to change.

/// `struct procmap_query`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct ProcmapQuery {
    pub(super) size: u64,
    pub(super) query_flags: u64,
    pub(super) query_addr: u64,
    pub(super) vma_start: u64,
    pub(super) vma_end: u64,
    pub(super) vma_flags: u64,
    pub(super) vma_page_size: u64,
    pub(super) vma_offset: u64,
    pub(super) inode: u64,
    pub(super) dev_major: u32,
    pub(super) dev_minor: u32,
    pub(super) vma_name_size: u32,
    pub(super) build_id_size: u32,
    pub(super) vma_name_addr: u64,
    pub(super) build_id_addr: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct PmScanArg {
    pub(super) size: u64,
    pub(super) flags: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) walk_end: u64,
    pub(super) vec: u64,
    pub(super) vec_len: u64,
    pub(super) max_pages: u64,
    pub(super) category_inverted: u64,
    pub(super) category_mask: u64,
    pub(super) category_anyof_mask: u64,
    pub(super) return_mask: u64,
}

/// `struct uffdio_register`; also `uffdio_writeprotect`, `uffdio_continue` and `uffdio_poison`, which
/// begin with a range and a mode as it does and end with one number.
#[repr(C)]
pub(super) struct RangeMode {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
    pub(super) out: i64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
pub(super) struct RangeOnly {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
}

const _: () = {
    assert!(size_of::<ProcmapQuery>() == 104);
    assert!(size_of::<PmScanArg>() == 96);
    assert!(size_of::<RangeMode>() == 32);
    assert!(size_of::<RangeOnly>() == 24);
};

nix::ioctl_readwrite!(procmap_query, b'f', 17, ProcmapQuery);
nix::ioctl_readwrite!(pagemap_scan, b'f', 16, PmScanArg);
nix::ioctl_readwrite!(uffd_register, 0xAA, 0x00, RangeMode);
nix::ioctl_readwrite!(uffd_writeprotect, 0xAA, 0x06, RangeOnly);
nix::ioctl_readwrite!(uffd_continue, 0xAA, 0x07, RangeMode);
nix::ioctl_readwrite!(uffd_poison, 0xAA, 0x08, RangeMode);
