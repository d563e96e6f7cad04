//! What a real userfaultfd does with each request. Where the machine refuses one, each test says so
//! and stops; `tests/sys_limits.rs` shows that refusals are explained.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::sys::{Advice, Reservation, map, map::resident_pages, page_size};

fn open(sigbus: bool) -> Option<Userfaultfd> {
    Userfaultfd::open(sigbus).inspect_err(|e| println!("skipped: {e}")).ok()
}

fn open_with_move() -> Option<Userfaultfd> {
    let uffd = open(true)?;
    let have = uffd.features_available();
    if !have.contains(Features::MOVE) {
        println!("skipped: this kernel has no MOVE ({have})");
        return None;
    }
    Some(uffd)
}

fn pages(n: usize) -> Reservation {
    let range = Reservation::anonymous(n * page_size(), page_size(), "firn: test").unwrap();
    // SAFETY: fresh memory of ours.
    let _ = unsafe { map::advise(range.base(), range.len(), Advice::NoHugepage) };
    range
}

/// Writes a number that tells the page into each page but those of `holes`.
fn fill(range: &Reservation, holes: &[usize]) {
    for i in (0..range.len() / page_size()).filter(|i| !holes.contains(i)) {
        // SAFETY: memory of ours.
        unsafe { ((range.base() + i * page_size()) as *mut usize).write_volatile(1000 + i) };
    }
}

/// What the page of a range says.
fn tag(range: &Reservation, page: usize) -> usize {
    // SAFETY: memory of ours; present, or the test dies by a signal.
    unsafe { ((range.base() + page * page_size()) as *const usize).read_volatile() }
}

fn present(range: &Reservation) -> Vec<bool> {
    resident_pages(range.base(), range.len()).unwrap()
}

#[test]
fn opening_grants_what_the_mode_needs_and_nothing_else() {
    let Some(uffd) = open(true) else { return };
    assert!(uffd.is_sigbus());
    assert_eq!(uffd.features_granted(), Features::SIGBUS);
    assert!(uffd.features_available().contains(Features::SIGBUS));
    let Some(uffd) = open(false) else { return };
    assert!(!uffd.is_sigbus());
    assert_eq!(uffd.features_granted().difference(Features::THREAD_ID), Features::NONE);
    assert!(uffd.read_fault(Some(Duration::ZERO)).unwrap().is_none());
}

#[test]
fn registering_tells_the_operations_of_the_range() {
    let Some(uffd) = open(true) else { return };
    let range = pages(4);
    let ioctls = uffd.register_missing(range.base(), range.len()).unwrap();
    assert_eq!(ioctls & range_ioctls::MISSING_BASIC, range_ioctls::MISSING_BASIC);
    let have_move = uffd.features_available().contains(Features::MOVE);
    assert_eq!(ioctls & range_ioctls::MOVE != 0, have_move);
    let Some(other) = open(true) else { return };
    assert_eq!(other.register_missing(range.base(), range.len()), Err(Errno::EBUSY));
    assert_eq!(uffd.register_missing(range.base() + 1, range.len()), Err(Errno::EINVAL));
    uffd.unregister(range.base(), range.len()).unwrap();
    assert_eq!(tag(&range, 0), 0, "an unregistered page reads as zeros again");
    other.register_missing(range.base(), range.len()).unwrap();
}

#[test]
fn copy_installs_pages_and_a_second_copy_finds_them() {
    let Some(uffd) = open(true) else { return };
    let (to, from, page) = (pages(4), pages(4), page_size());
    fill(&from, &[]);
    uffd.register_missing(to.base(), to.len()).unwrap();
    let one = uffd.copy(to.base() + 2 * page, from.base(), page, false);
    assert_eq!(one, Outcome::complete(page));
    assert_eq!(present(&to), [false, false, true, false]);
    assert_eq!(tag(&to, 2), 1000);
    // Stops at the page that is there already: as progress, and asked again with the reason.
    assert_eq!(uffd.copy(to.base(), from.base(), 4 * page, false), Outcome::partial(2 * page));
    let again = uffd.copy(to.base() + 2 * page, from.base(), 2 * page, false);
    assert_eq!(again, Outcome::failed(Errno::EEXIST));
    assert_eq!(tag(&to, 2), 1000, "the page that was there is untouched");
}

#[test]
fn copy_refuses_by_the_documented_errors() {
    let Some(uffd) = open(true) else { return };
    let (to, from, plain, page) = (pages(1), pages(1), pages(1), page_size());
    fill(&from, &[]);
    uffd.register_missing(to.base(), page).unwrap();
    let copy = |to, from, len| uffd.copy(to, from, len, false).error;
    assert_eq!(copy(plain.base(), from.base(), page), Some(Errno::ENOENT));
    assert_eq!(copy(to.base() + 8, from.base(), page), Some(Errno::EINVAL));
    assert_eq!(copy(to.base(), from.base(), 0), Some(Errno::EINVAL));
    // The first page of the address space is never mapped.
    assert_eq!(copy(to.base(), page / 2, page), Some(Errno::EFAULT));
    assert_eq!(copy(to.base(), from.base(), page), None);
}

#[test]
fn zeropage_installs_zeros() {
    let Some(uffd) = open(true) else { return };
    let range = pages(3);
    uffd.register_missing(range.base(), range.len()).unwrap();
    assert!(uffd.zeropage(range.base(), range.len(), false).is_complete());
    assert_eq!(tag(&range, 1), 0);
    fill(&range, &[]);
    assert_eq!(tag(&range, 1), 1001);
    let again = uffd.zeropage(range.base(), range.len(), false);
    assert_eq!(again, Outcome::failed(Errno::EEXIST));
}

#[test]
fn move_takes_sixty_four_pages_away_and_brings_them() {
    let Some(uffd) = open_with_move() else { return };
    let (to, from) = (pages(64), pages(64));
    fill(&from, &[]);
    uffd.register_missing(to.base(), to.len()).unwrap();
    let outcome = uffd.move_pages(to.base(), from.base(), to.len(), false, false);
    assert_eq!(outcome, Outcome::complete(to.len()));
    for i in 0..64 {
        assert_eq!(tag(&to, i), 1000 + i);
    }
    assert!(present(&from).iter().all(|there| !there));
    assert_eq!(tag(&from, 7), 0, "an unregistered source reads as zeros");
}

#[test]
fn move_stops_at_a_hole_unless_holes_are_allowed() {
    let Some(uffd) = open_with_move() else { return };
    let (to, from, page) = (pages(8), pages(8), page_size());
    fill(&from, &[5]);
    uffd.register_missing(to.base(), to.len()).unwrap();
    let outcome = uffd.move_pages(to.base(), from.base(), 8 * page, false, false);
    assert_eq!(outcome, Outcome::partial(5 * page));
    let (to_hole, from_hole) = (to.base() + 5 * page, from.base() + 5 * page);
    let outcome = uffd.move_pages(to_hole, from_hole, 3 * page, false, false);
    assert_eq!(outcome, Outcome::failed(Errno::ENOENT));
    let outcome = uffd.move_pages(to_hole, from_hole, 3 * page, true, false);
    assert_eq!(outcome, Outcome::complete(3 * page));
    assert_eq!(present(&to), [true, true, true, true, true, false, true, true]);
    assert_eq!(tag(&to, 7), 1007);
}

#[test]
fn move_refuses_by_the_documented_errors() {
    let Some(uffd) = open_with_move() else { return };
    let (to, from, plain, page) = (pages(2), pages(2), pages(1), page_size());
    fill(&from, &[]);
    uffd.register_missing(to.base(), to.len()).unwrap();
    let mv = |to, from| uffd.move_pages(to, from, page, false, false).error;
    assert_eq!(mv(plain.base(), from.base()), Some(Errno::EINVAL));
    assert!(uffd.copy(to.base(), from.base(), page, false).is_complete());
    assert_eq!(mv(to.base(), from.base()), Some(Errno::EEXIST));
    // SAFETY: memory of ours that nobody reads.
    unsafe { map::protect(from.base(), page, crate::sys::Protection::Read) }.unwrap();
    assert_eq!(mv(to.base() + page, from.base()), Some(Errno::EINVAL));
    assert_eq!(mv(to.base() + page, from.base() + page), None);
}

#[test]
fn a_system_call_on_a_missing_page_fails_without_a_signal() {
    let Some(uffd) = open(true) else { return };
    let range = pages(1);
    uffd.register_missing(range.base(), range.len()).unwrap();
    // SAFETY: the kernel checks the pointer: that is what is tested.
    let n = unsafe { libc::getrandom(range.base() as *mut libc::c_void, 16, 0) };
    assert_eq!((n, Errno::last()), (-1, Errno::EFAULT));
}

#[test]
fn operations_leave_errno_as_it_was() {
    let Some(uffd) = open(true) else { return };
    nix::errno::Errno::set_raw(libc::EDOM);
    assert_eq!(uffd.copy(8, 8, 8, false), Outcome::failed(Errno::EINVAL));
    assert_eq!(uffd.zeropage(8, 8, false), Outcome::failed(Errno::EINVAL));
    assert!(uffd.move_pages(8, 8, 8, false, false).error.is_some());
    assert_eq!(uffd.wake(8, 8), Err(Errno::EINVAL));
    assert_eq!(Errno::last(), Errno(libc::EDOM));
}

/// Answers the n-th request with the n-th verdict, and passes all after the last.
struct Script {
    next: AtomicUsize,
    verdicts: Vec<Verdict>,
}

impl Injector for Script {
    fn before(&self, _: Op, _: usize, _: usize, _: usize) -> Verdict {
        let i = self.next.fetch_add(1, Ordering::Relaxed);
        self.verdicts.get(i).copied().unwrap_or(Verdict::Pass)
    }
}

fn script(uffd: &Userfaultfd, verdicts: Vec<Verdict>) {
    assert!(uffd.set_injector(Arc::new(Script { next: AtomicUsize::new(0), verdicts })));
}

#[test]
fn an_injector_answers_shortens_and_passes() {
    let Some(uffd) = open(true) else { return };
    let (to, from, page) = (pages(4), pages(4), page_size());
    fill(&from, &[]);
    uffd.register_missing(to.base(), to.len()).unwrap();
    let verdicts = vec![
        Verdict::Return(Outcome::failed(Errno::ENOMEM)),
        Verdict::Shorten(0),
        Verdict::Shorten(page),
        Verdict::Shorten(page),
        Verdict::Shorten(64 * page),
        Verdict::Pass,
    ];
    script(&uffd, verdicts);
    let copy = |i: usize, n: usize| {
        uffd.copy(to.base() + i * page, from.base() + i * page, n * page, false)
    };
    assert_eq!(copy(0, 4), Outcome::failed(Errno::ENOMEM));
    assert_eq!(copy(0, 4), Outcome::failed(Errno::EAGAIN));
    assert_eq!(present(&to), [false; 4], "the kernel was not asked");
    assert_eq!(copy(0, 4), Outcome::partial(page));
    assert_eq!(copy(0, 4), Outcome::failed(Errno::EEXIST), "a shortened request can fail too");
    assert_eq!(copy(1, 2), Outcome::complete(2 * page));
    assert_eq!(copy(3, 1), Outcome::complete(page));
    assert_eq!(tag(&to, 3), 1003);
}

#[test]
fn an_injector_can_refuse_ranges() {
    let Some(uffd) = open(true) else { return };
    let range = pages(1);
    let refuse = |errno| Verdict::Return(Outcome::failed(errno));
    script(&uffd, vec![refuse(Errno::ENOMEM), Verdict::Shorten(0), refuse(Errno::EINVAL)]);
    assert_eq!(uffd.register_missing(range.base(), range.len()), Err(Errno::ENOMEM));
    uffd.register_missing(range.base(), range.len()).unwrap();
    assert_eq!(uffd.unregister(range.base(), range.len()), Err(Errno::EINVAL));
    uffd.unregister(range.base(), range.len()).unwrap();
    assert!(!uffd.set_injector(Arc::new(Script { next: AtomicUsize::new(0), verdicts: vec![] })));
}

#[test]
fn a_fault_thread_reads_the_fault_and_wakes_its_thread() {
    let Some(uffd) = open(false) else { return };
    let (to, from, page) = (pages(2), pages(2), page_size());
    fill(&from, &[]);
    uffd.register_missing(to.base(), to.len()).unwrap();
    for (i, wake) in [(0, true), (1, false)] {
        thread::scope(|s| {
            let toucher = s.spawn(|| (crate::sys::thread::gettid(), tag(&to, i)));
            let fault = uffd.read_fault(None).unwrap().expect("nobody interrupts");
            let (at, src) = (to.base() + i * page, from.base() + i * page);
            assert_eq!((fault.addr, fault.write), (at, false));
            assert_eq!(uffd.copy(at, src, page, wake), Outcome::complete(page));
            if !wake {
                // Time enough to end for a thread that was woken by mistake.
                assert_eq!(uffd.read_fault(Some(Duration::from_millis(20))).unwrap(), None);
                assert!(!toucher.is_finished(), "nobody has woken it");
                uffd.wake(at, page).unwrap();
            }
            let (tid, value) = toucher.join().unwrap();
            assert_eq!(value, 1000 + i);
            assert!(fault.thread_id.is_none_or(|t| t == tid));
            let told = uffd.features_granted().contains(Features::THREAD_ID);
            assert_eq!(fault.thread_id.is_some(), told);
        });
    }
}

#[test]
fn an_interrupt_ends_every_wait_until_resumed() {
    let Some(uffd) = open(false) else { return };
    thread::scope(|s| {
        let waiting = [s.spawn(|| uffd.read_fault(None)), s.spawn(|| uffd.read_fault(None))];
        uffd.interrupt();
        for w in waiting {
            assert_eq!(w.join().unwrap().unwrap(), None);
        }
    });
    assert_eq!(uffd.read_fault(None).unwrap(), None, "still interrupted");
    uffd.resume();
    uffd.resume();
    assert_eq!(uffd.read_fault(Some(Duration::from_millis(1))).unwrap(), None);
}

#[test]
fn a_write_fault_says_so() {
    let Some(uffd) = open(false) else { return };
    let range = pages(1);
    uffd.register_missing(range.base(), range.len()).unwrap();
    thread::scope(|s| {
        s.spawn(|| fill(&range, &[]));
        let fault = uffd.read_fault(None).unwrap().expect("nobody interrupts");
        assert!(fault.write);
        assert!(uffd.zeropage(range.base(), range.len(), true).is_complete());
        // The page of zeros is read-only: the write faults once more, without us, and is done.
    });
    assert_eq!(tag(&range, 0), 1000);
}

#[test]
fn sigbus_mode_has_no_messages() {
    let Some(uffd) = open(true) else { return };
    let error = uffd.read_fault(None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn what_the_kernel_wrote_decides_the_outcome() {
    let eagain = Err(nix::errno::Errno::EAGAIN);
    assert_eq!(Outcome::from_ioctl(Ok(0), 8192, 8192), Outcome::complete(8192));
    assert_eq!(Outcome::from_ioctl(eagain, 4096, 8192), Outcome::partial(4096));
    let busy = -i64::from(libc::EBUSY);
    let err = Err(nix::errno::Errno::EBUSY);
    assert_eq!(Outcome::from_ioctl(err, busy, 8192), Outcome::failed(Errno::EBUSY));
    // Refused before anything was written: the result's own error.
    assert_eq!(Outcome::from_ioctl(eagain, 0, 8192), Outcome::failed(Errno::EAGAIN));
}
