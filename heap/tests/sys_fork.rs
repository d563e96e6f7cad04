//! What fork does to pages that are to be moved. Alone in its process: a fork elsewhere would do the
//! same to the pages of other tests.

use firn_heap::sys::{
    Errno, Outcome, Reservation, Userfaultfd, map, map::Advice, page_size, uffd::Features,
};

/// Makes a child that ends at once, and waits for its end.
fn fork_and_wait() {
    // SAFETY: the child calls nothing but `_exit`.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            -1 => panic!("fork: {}", Errno::last()),
            child => assert_eq!(libc::waitpid(child, std::ptr::null_mut(), 0), child),
        }
    }
}

#[test]
fn a_page_shared_by_fork_does_not_move_until_it_is_written_and_can_be_copied() {
    let uffd = match Userfaultfd::open(true) {
        Ok(uffd) if uffd.features_available().contains(Features::MOVE) => uffd,
        Ok(uffd) => return println!("skipped: no MOVE among {}", uffd.features_available()),
        Err(error) => return println!("skipped: {error}"),
    };
    let page = page_size();
    let range = |n: usize| {
        let range = Reservation::anonymous(n * page, page, "firn: test").unwrap();
        // SAFETY: fresh memory of ours.
        let _ = unsafe { map::advise(range.base(), range.len(), Advice::NoHugepage) };
        range
    };
    let (from, kept, to) = (range(3), range(1), range(4));
    let write = |addr: usize, value: usize| {
        // SAFETY: memory of ours.
        unsafe { (addr as *mut usize).write_volatile(value) }
    };
    let read = |addr: usize| {
        // SAFETY: memory of ours, installed below.
        unsafe { (addr as *const usize).read_volatile() }
    };
    for i in 0..3 {
        write(from.base() + i * page, i);
    }
    write(kept.base(), 9);
    // SAFETY: memory of ours; the child does not touch it.
    unsafe { map::advise(kept.base(), page, Advice::DontFork) }.unwrap();
    uffd.register_missing(to.base(), to.len()).unwrap();
    fork_and_wait();

    let mv = |to_page: usize, src: usize| {
        uffd.move_pages(to.base() + to_page * page, src, page, false, false)
    };
    assert_eq!(mv(0, from.base()), Outcome::failed(Errno::EBUSY));
    assert_eq!(uffd.copy(to.base(), from.base(), page, false), Outcome::complete(page));
    assert_eq!(mv(1, from.base() + page), Outcome::failed(Errno::EBUSY));
    write(from.base() + page, 11);
    assert_eq!(mv(1, from.base() + page), Outcome::complete(page));
    assert_eq!(mv(3, kept.base()), Outcome::complete(page), "not shared with the child");
    assert_eq!((read(to.base()), read(to.base() + page), read(to.base() + 3 * page)), (0, 11, 9));
}
