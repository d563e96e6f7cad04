//! Reservations and what can be done with them.

use std::{fs, os::fd::AsFd};

use super::*;

fn word(addr: usize) -> *mut usize {
    addr as *mut usize
}

#[test]
fn a_range_is_aligned_exactly_as_long_and_zero() {
    let (page, align) = (page_size(), 1 << 30);
    let range = Reservation::anonymous(3 * page, align, "firn: test").unwrap();
    assert!(range.base().is_multiple_of(align));
    assert_eq!((range.len(), range.end()), (3 * page, range.base() + 3 * page));
    assert!(range.contains(range.base()) && range.contains(range.end() - 1));
    assert!(!range.contains(range.end()) && !range.contains(range.base() - 1));
    // SAFETY: memory of ours.
    unsafe {
        assert_eq!(word(range.end() - 8).read_volatile(), 0);
        word(range.end() - 8).write_volatile(1);
    }
    assert_eq!(resident_pages(range.base(), range.len()).unwrap(), [false, false, true]);
    assert_eq!(resident_mask(range.base(), 3), Ok(0b100));
    assert_eq!(resident_mask(range.base() + 2 * page, 1), Ok(1));
}

#[test]
fn dropping_a_range_unmaps_all_of_it() {
    let (page, tries) = (page_size(), 100);
    // Another test may map something at the same place at once; not every time.
    let gone = (0..tries).any(|_| {
        let range = Reservation::anonymous(4 * page, 64 * page, "firn: test").unwrap();
        let base = range.base();
        assert!(resident_pages(base, 4 * page).is_ok());
        drop(range);
        (0..4).all(|i| resident_pages(base + i * page, page).is_err())
    });
    assert!(gone);
}

#[test]
fn a_range_is_named_where_the_kernel_has_names() {
    let page = page_size();
    let range = Reservation::anonymous(page, page, "firn: a name").unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|l| l.starts_with(&format!("{:x}-", range.base())));
    let named = line.is_some_and(|l| l.ends_with("[anon:firn: a name]"));
    // Whether the kernel has names shows in the answer to a name that it must accept.
    let bare = Reservation::anonymous(page, page, "").unwrap();
    let label = label("x");
    // SAFETY: the kernel copies a NUL-terminated name.
    let answer = unsafe {
        let (base, name) = (bare.base() as libc::c_ulong, label.as_ptr() as libc::c_ulong);
        let what = libc::PR_SET_VMA_ANON_NAME as libc::c_ulong;
        libc::prctl(libc::PR_SET_VMA, what, base, page as libc::c_ulong, name)
    };
    assert_eq!(named, answer == 0);
}

#[test]
fn exact_reservations_need_no_room_for_the_alignment() {
    let page = page_size();
    let first = Reservation::aligned_exact(2 * page, 1 << 30).unwrap();
    let second = Reservation::aligned_exact(2 * page, 1 << 30).unwrap();
    for range in [&first, &second] {
        assert!(range.base().is_multiple_of(1 << 30));
        assert_eq!(range.len(), 2 * page);
    }
    assert_ne!(first.base(), second.base(), "a taken place is not taken again");
}

#[test]
fn sizes_and_alignments_that_no_range_can_have_are_refused() {
    let page = page_size();
    for (len, align) in [(0, page), (page + 1, page), (page, 3 * page), (page, 0)] {
        let error = Reservation::anonymous(len, align, "firn: test").unwrap_err();
        assert!(matches!(error, MapError::BadRequest { .. }), "{error}");
    }
    let error = Reservation::anonymous(usize::MAX & !(page - 1), 1 << 30, "all").unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOMEM));
}

#[test]
fn a_memfd_has_two_views_of_the_same_memory() {
    let page = page_size();
    let (first, alias, fd) = Reservation::memfd(4 * page, 4 * page, "firn: test").unwrap();
    // SAFETY: memory of ours; both views are live.
    unsafe {
        word(first.base() + page).write_volatile(7);
        assert_eq!(word(alias.base() + page).read_volatile(), 7);
        protect(first.base(), first.len(), Protection::None).unwrap();
        word(alias.base() + page).write_volatile(8);
        protect(first.base(), first.len(), Protection::ReadWrite).unwrap();
        assert_eq!(word(first.base() + page).read_volatile(), 8);
        punch_hole(fd.as_fd(), page, page).unwrap();
        assert_eq!(word(first.base() + page).read_volatile(), 0);
    }
}

#[test]
fn dont_need_gives_pages_back_and_populate_brings_them() {
    let page = page_size();
    let range = Reservation::anonymous(4 * page, page, "firn: test").unwrap();
    // SAFETY: memory of ours.
    unsafe {
        advise(range.base(), range.len(), Advice::DontFork).unwrap();
        advise(range.base(), range.len(), Advice::DontDump).unwrap();
        word(range.base()).write_volatile(7);
        advise(range.base(), range.len(), Advice::DontNeed).unwrap();
        assert_eq!(word(range.base()).read_volatile(), 0);
        match advise(range.base(), range.len(), Advice::PopulateWrite) {
            Ok(()) => assert_eq!(resident_pages(range.base(), range.len()).unwrap(), [true; 4]),
            Err(errno) => assert_eq!(errno, Errno::EINVAL, "only kernels before 5.14 refuse"),
        }
        assert_eq!(advise(range.base() + 1, page, Advice::DontNeed), Err(Errno::EINVAL));
    }
}

#[test]
fn remapping_moves_the_pages_and_leaves_the_range() {
    let page = page_size();
    let from = Reservation::anonymous(2 * page, page, "firn: test").unwrap();
    let to = Reservation::anonymous(2 * page, page, "firn: test").unwrap();
    // SAFETY: memory of ours, on both sides.
    unsafe {
        word(from.base() + page).write_volatile(7);
        match remap_dontunmap(from.base(), from.len(), to.base()) {
            Ok(()) => {
                assert_eq!(word(to.base() + page).read_volatile(), 7);
                assert_eq!(word(from.base() + page).read_volatile(), 0);
            }
            Err(errno) => assert_eq!(errno, Errno::EINVAL, "only kernels before 5.7 refuse"),
        }
    }
}

#[test]
fn names_lose_what_the_kernel_refuses() {
    assert_eq!(label("firn: [a]`$\\ü").to_str(), Ok("firn: _a______"));
    assert_eq!(label(&"x".repeat(200)).as_bytes().len(), 79);
}

#[test]
fn each_limit_is_named_with_its_remedy() {
    let refused = |diagnosis| {
        let (name, call) = ("the heap".to_owned(), "mmap");
        MapError::Refused { name, len: 4 << 30, call, errno: Errno::ENOMEM, diagnosis }.to_string()
    };
    let text = refused(Diagnosis {
        address_space_limit: Some(2 << 30),
        address_space_used: Some(1 << 20),
        ..Diagnosis::default()
    });
    let start = "cannot reserve 4 GiB for the heap: mmap failed with ENOMEM (12). ";
    let rest = "The address space limit (RLIMIT_AS) is 2 GiB, of which 1 MiB are used: raise it \
                (`ulimit -v unlimited`) or ask for a smaller heap";
    assert_eq!(text, format!("{start}{rest}"));
    let text = refused(Diagnosis { mappings: Some((65530, 65529)), ..Diagnosis::default() });
    assert!(text.contains("65529 of at most 65530 mappings: raise vm.max_map_count"), "{text}");
    let text = refused(Diagnosis { strict_overcommit: true, ..Diagnosis::default() });
    assert!(text.contains("vm.overcommit_memory is 2"), "{text}");
    let text = refused(Diagnosis { mappings: Some((65530, 40)), ..Diagnosis::default() });
    assert!(text.ends_with("ENOMEM (12)"), "{text}");
}
