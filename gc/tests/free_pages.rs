//! `pingpong`'s free pages, without a collector around it: where they are after every step, and what happens when the
//! kernel or a bug puts something in their way.

use firn_gc::backend::{Backend, FlipPlan, PingPong};
use firn_gc::config::InstallKind;
use firn_gc::install::Installer;
use firn_heap::pool::RUN;
use firn_heap::space::Space;
use firn_heap::sys::map::resident_pages;
use firn_heap::sys::probe::moves_a_page;
use firn_heap::sys::uffd::{Injector, Op, Outcome, Userfaultfd, Verdict};
use firn_heap::sys::{Errno, page_size};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "../../tests/tests/support/mod.rs"]
mod support;
use support::in_child;

/// Refuses every move of a page: the one so many bytes into the next move that is long enough. And every copy to
/// another one.
#[derive(Default)]
struct Pinned {
    /// 0: no page.
    offset: AtomicUsize,
    address: AtomicUsize,
    uncopied: AtomicUsize,
}

impl Injector for Pinned {
    fn before(&self, op: Op, dst: usize, src: usize, len: usize) -> Verdict {
        let offset = self.offset.load(Ordering::SeqCst);
        if offset != 0 && op == Op::Move && offset < len {
            self.offset.store(0, Ordering::SeqCst);
            self.address.store(src + offset, Ordering::SeqCst);
        }
        let pinned = self.address.load(Ordering::SeqCst);
        let uncopied = self.uncopied.load(Ordering::SeqCst);
        match op {
            Op::Move if src == pinned => Verdict::Return(Outcome::failed(Errno::EBUSY)),
            Op::Move if (src..src + len).contains(&pinned) => Verdict::Shorten(pinned - src),
            Op::Copy if dst == uncopied => Verdict::Return(Outcome::failed(Errno::EINVAL)),
            Op::Copy if (dst..dst + len).contains(&uncopied) => Verdict::Shorten(uncopied - dst),
            _ => Verdict::Pass,
        }
    }
}

struct Fixture {
    space: Space,
    backend: PingPong,
    pinned: Arc<Pinned>,
}

/// `None` where this machine cannot move pages; says so.
fn fixture() -> Option<Fixture> {
    fixture_with(None)
}

/// With a page of the parking range that refuses to be filled at start-up, if there is to be one.
fn fixture_with(refused: Option<usize>) -> Option<Fixture> {
    let uffd = match Userfaultfd::open(true) {
        Ok(uffd) if moves_a_page(&uffd).is_ok() => uffd,
        Ok(_) => {
            println!("left out: this kernel has no UFFDIO_MOVE");
            return None;
        }
        Err(error) => {
            println!("left out: {error}");
            return None;
        }
    };
    let pinned = Arc::<Pinned>::default();
    assert!(uffd.set_injector(pinned.clone()));
    let space = Space::new(256 * page_size(), false).unwrap();
    if let Some(page) = refused {
        pinned.uncopied.store(space.parking.base() + page * page_size(), Ordering::SeqCst);
    }
    let backend =
        PingPong::new(&space, Installer::new(uffd, false), InstallKind::Move, false).unwrap();
    Some(Fixture { space, backend, pinned })
}

impl Fixture {
    /// Makes `pages` pages of range `range` from `first` on free and present.
    fn free(&self, range: usize, first: usize, pages: usize) {
        let base = self.space.ranges[range].base();
        for page in first..first + pages {
            let installer = self.backend.installer().unwrap();
            let done = installer.copy(base + page * page_size(), self.space.zeroes(), 1);
            assert_eq!(done.published, 1);
        }
        self.space.commit_regardless(pages);
        self.space.ranges[range].pool.put(first, pages);
    }

    /// Pages present in a range (2: parking).
    fn present(&self, range: usize) -> usize {
        let range = if range == 2 { &self.space.parking } else { &self.space.ranges[range] };
        let resident = resident_pages(range.base(), range.len()).unwrap();
        resident.into_iter().filter(|resident| *resident).count()
    }

    /// All pages that are present are free, and counted as committed.
    fn check(&self) {
        let pools = [&self.space.ranges[0], &self.space.ranges[1], &self.space.parking];
        for (index, range) in pools.into_iter().enumerate() {
            assert_eq!(range.pool.count(), self.present(index), "range {index}");
        }
        assert_eq!(self.space.committed(), self.space.free_pages());
    }
}

#[test]
fn the_to_range_is_empty_at_the_flip_although_a_taker_put_pages_back_behind_preparation() {
    let Some(heap) = fixture() else { return };
    heap.free(1, 0, 200);
    heap.backend.prepare(&heap.space);
    assert_eq!(heap.present(1), 0, "prepared");
    // A thread that took a run to have a part of it puts the rest back in a second step.
    heap.free(1, 64, 30);
    let committed = heap.space.committed();
    let plan = FlipPlan { marked_pages: 0, late_page: 0, top_page: 0 };
    heap.backend.flip(&heap.space, &plan).unwrap();
    assert_eq!((heap.space.current_index(), heap.present(1)), (1, 0), "flipped");
    assert_eq!(heap.space.committed(), committed, "nothing is given back");
    heap.check();
}

#[test]
fn what_allocation_took_from_the_reserve_is_replaced_before_pages_are_moved_ahead() {
    let Some(heap) = fixture() else { return };
    let reserve = heap.space.parking.pool.count();
    assert!(reserve >= RUN);
    // A heap at its limit: fresh pages are used up first, the reserve last.
    let fresh = heap.space.geometry.limit_pages - reserve;
    for begin in (0..fresh + reserve).step_by(RUN) {
        let left = if begin < fresh { reserve } else { fresh + reserve - begin };
        assert_eq!(heap.space.parking.pool.count(), left, "before page {begin}");
        let first = heap.space.grab(RUN).unwrap();
        assert_eq!((first, heap.backend.populate(&heap.space, first, RUN)), (begin, RUN));
    }
    assert_eq!(heap.space.parking.pool.count(), 0);
    heap.space.ranges[0].pool.put(0, fresh + reserve);
    heap.free(1, 0, reserve + RUN);
    let first = heap.space.grab(RUN).unwrap();
    assert_eq!(heap.backend.move_ahead(&heap.space, first, RUN), RUN);
    assert_eq!(heap.space.parking.pool.count(), reserve);
    heap.space.ranges[0].pool.put(first, RUN);
    heap.check();
}

#[test]
fn a_page_that_cannot_be_moved_ahead_costs_itself_only() {
    let Some(heap) = fixture() else { return };
    let runs = heap.space.geometry.pages / RUN;
    let page = page_size();
    // The first page of a run, one in the middle, and the last one.
    for (index, pinned) in [2 * RUN, 3 * RUN + 17, 5 * RUN + 63].into_iter().enumerate() {
        let parked = heap.space.parking.pool.count();
        heap.free(1, 0, (runs - 1) * RUN);
        heap.backend.prepare(&heap.space);
        assert_eq!(heap.space.parking.pool.count(), parked + (runs - 1) * RUN);
        let first = heap.space.grab(8 * RUN).unwrap();
        heap.pinned.offset.store(pinned * page, Ordering::SeqCst);
        let committed = heap.space.committed();
        let have = heap.backend.move_ahead(&heap.space, first, 8 * RUN);
        assert_eq!(have, pinned, "it ends at the page that cannot be moved");
        heap.pinned.address.store(0, Ordering::SeqCst);
        assert_eq!(heap.space.committed(), committed - 1, "the pinned page, and no other");
        // What has arrived is free again, and everything goes back to the kernel.
        heap.space.ranges[0].pool.put(first, have);
        heap.check();
        heap.backend.release(&heap.space, usize::MAX);
        assert_eq!(heap.space.committed(), 0, "round {index}");
        heap.space.ungrab(first, 8 * RUN);
    }
    // Every place of the parking range can be used again: it takes pages until all are taken.
    let places = heap.space.geometry.parking_pages();
    let mut parked = 0;
    while parked < places {
        let pages = (places - parked).min(runs * RUN);
        heap.free(1, 0, pages);
        heap.backend.prepare(&heap.space);
        parked += pages;
        assert_eq!(heap.space.parking.pool.count(), parked, "of {places} places");
    }
    heap.check();
}

#[test]
fn a_page_that_could_not_be_had_at_start_up_costs_itself_only() {
    for refused in [0, 17, RUN - 1] {
        let Some(heap) = fixture_with(Some(refused)) else { return };
        heap.check();
        let parked = heap.space.parking.pool.count();
        assert_eq!(parked % RUN, RUN - 1, "page {refused}");
        // What is parked next does not meet what is there.
        heap.free(1, 0, 2 * RUN);
        heap.backend.prepare(&heap.space);
        assert_eq!(heap.space.parking.pool.count(), parked + 2 * RUN);
        heap.check();
        let first = heap.space.grab(RUN).unwrap();
        assert_eq!(heap.backend.populate(&heap.space, first, RUN), RUN);
    }
}

/// Puts a page where none may be, and has `step` meet it.
fn a_stale_page_ends_the_process(test: &str, place: fn(&Fixture) -> usize, step: fn(&Fixture)) {
    let output = in_child(test, || {
        let Some(heap) = fixture() else { std::process::exit(77) };
        let place = place(&heap);
        let done = heap.backend.installer().unwrap().copy(place, heap.space.zeroes(), 1);
        assert_eq!(done.published, 1);
        println!("stale: {place:#x}");
        step(&heap);
    });
    if output.status.code() == Some(77) {
        return;
    }
    let text = support::killed_by(&output, libc::SIGABRT);
    let place = text.split("stale: ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(text.contains(&format!("the page at {place} of the heap is present")), "{text}");
}

#[test]
fn a_page_present_where_allocation_moves_free_pages_to_is_named() {
    a_stale_page_ends_the_process(
        "a_page_present_where_allocation_moves_free_pages_to_is_named",
        |heap| heap.space.current().base() + 5 * page_size(),
        |heap| {
            let first = heap.space.grab(16).unwrap();
            assert_eq!(first, 0);
            heap.backend.populate(&heap.space, first, 16);
        },
    );
}

#[test]
fn a_page_present_where_allocation_copies_zeroes_to_is_named() {
    a_stale_page_ends_the_process(
        "a_page_present_where_allocation_copies_zeroes_to_is_named",
        |heap| {
            heap.backend.release(&heap.space, usize::MAX);
            heap.space.current().base() + 5 * page_size()
        },
        |heap| {
            let first = heap.space.grab(16).unwrap();
            heap.backend.populate(&heap.space, first, 16);
        },
    );
}

#[test]
fn a_page_present_where_chunks_are_made_ready_is_named() {
    a_stale_page_ends_the_process(
        "a_page_present_where_chunks_are_made_ready_is_named",
        |heap| heap.space.current().base() + 70 * page_size(),
        |heap| {
            // Nothing is made ready before the reserve is there.
            heap.free(1, 0, 10 * RUN);
            heap.backend.prepare(&heap.space);
            let first = heap.space.grab(8 * RUN).unwrap();
            heap.backend.move_ahead(&heap.space, first, 8 * RUN);
        },
    );
}

#[test]
fn a_page_present_where_free_pages_are_parked_is_named() {
    a_stale_page_ends_the_process(
        "a_page_present_where_free_pages_are_parked_is_named",
        |heap| heap.space.parking.base() + 3 * RUN * page_size(),
        |heap| {
            heap.free(1, 0, 6 * RUN);
            heap.backend.prepare(&heap.space);
        },
    );
}
