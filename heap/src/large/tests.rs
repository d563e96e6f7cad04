//! The large-object space: what is free, what has memory, and that all of it is handed out as zeroes.

use super::*;
use crate::layout::LayoutId;
use crate::sys::map::resident_pages;
use std::ptr::NonNull;

struct Fixture {
    space: LargeSpace,
    layouts: LayoutTable,
    page: usize,
}

impl Fixture {
    fn new() -> Fixture {
        let geometry = Geometry::new(16 << 20);
        let space = LargeSpace::new(&geometry).unwrap();
        // Pages are counted here.
        // SAFETY: touches no contents.
        unsafe { advise(space.base(), space.memory.len(), Advice::NoHugepage) }.unwrap();
        Fixture { space, layouts: LayoutTable::new().unwrap(), page: geometry.page }
    }

    /// An object that fills `pages` pages, and how many of them had no memory.
    fn object(&self, pages: usize, marked: bool) -> (usize, usize) {
        let header = Header::new(LayoutId::DATA[0], pages * self.page - WORD);
        let words = self.layouts.get(header.layout()).words(header);
        assert_eq!(self.space.pages_for(words), pages);
        let stretch = self.space.take(pages).unwrap();
        let unmapped = stretch.unmapped();
        (self.space.place(stretch, header, marked), unmapped)
    }

    /// Writes `value` to all words behind an object's header.
    fn fill(&self, object: usize, pages: usize, value: u64) {
        // SAFETY: inside an object of so many pages, which nobody else looks at.
        unsafe { self.words(object, pages).as_mut().fill(value) };
    }

    /// Whether all of these words are `value`.
    fn is_filled(&self, object: usize, pages: usize, value: u64) -> bool {
        // SAFETY: as above.
        unsafe { self.words(object, pages).as_ref() }.iter().all(|word| *word == value)
    }

    fn words(&self, object: usize, pages: usize) -> NonNull<[u64]> {
        let first = NonNull::new((object + WORD) as *mut u64).unwrap();
        NonNull::slice_from_raw_parts(first, pages * self.page / WORD - 1)
    }

    fn sweep(&self) -> (usize, usize) {
        self.space.sweep(&self.layouts, |_| panic!("no object is long"))
    }

    /// Gives up so many pages, or all there are.
    fn release(&self, pages: usize) -> usize {
        let mut released = 0;
        while released < pages {
            match self.space.release(pages - released) {
                0 => break,
                some => released += some,
            }
        }
        released
    }

    fn resident(&self) -> usize {
        let top = self.space.top.load(Ordering::Relaxed);
        resident_pages(self.space.base(), top * self.page).unwrap().iter().filter(|r| **r).count()
    }
}

#[test]
fn unmarked_objects_are_freed_and_their_pages_are_used_again_cleared() {
    let heap = Fixture::new();
    let ((a, new), (b, _)) = (heap.object(4, false), heap.object(4, false));
    assert_eq!(new, 4);
    heap.fill(a, 4, 9);
    assert!(heap.space.mark(b) && !heap.space.mark(b));
    assert_eq!(heap.sweep(), (4, 4));
    assert!(!heap.space.is_object(a) && heap.space.is_object(b));
    assert_eq!((heap.space.free_pages(), heap.resident()), (4, 5), "of b only the header");
    assert_eq!(heap.object(4, true), (a, 0));
    assert!(heap.is_filled(a, 4, 0));
    assert_eq!(heap.space.free_pages(), 0);
    assert_eq!(heap.sweep(), (4, 4), "b lost its mark, `a` was born with one");
}

#[test]
fn free_pages_are_given_up_from_the_end_and_need_memory_again() {
    let heap = Fixture::new();
    let objects: Vec<usize> = (0..4).map(|_| heap.object(3, false).0).collect();
    objects.iter().for_each(|&object| heap.fill(object, 3, 9));
    heap.space.mark(objects[2]);
    assert_eq!(heap.sweep(), (9, 3));
    assert_eq!((heap.space.free_pages(), heap.resident()), (9, 12));
    assert_eq!(heap.release(4), 4);
    assert_eq!((heap.space.free_pages(), heap.resident()), (5, 8));
    assert!(heap.is_filled(objects[2], 3, 9), "alive");
    assert_eq!(heap.object(6, false), (objects[0], 1));
    assert!(heap.is_filled(objects[0], 6, 0));
    assert_eq!(heap.release(usize::MAX), 0);
    assert_eq!(heap.sweep(), (6 + 3, 0));
    assert_eq!(heap.release(usize::MAX), 9);
    assert_eq!((heap.space.free_pages(), heap.resident()), (0, 0));
    assert_eq!(heap.object(9, false), (objects[0], 9));
}

#[test]
fn a_stretch_that_is_put_back_is_what_it_was() {
    let heap = Fixture::new();
    heap.fill(heap.object(2, false).0, 2, 9);
    heap.sweep();
    let stretch = heap.space.take(5).unwrap();
    assert_eq!((stretch.unmapped(), heap.space.free_pages()), (3, 0));
    heap.space.put_back(stretch);
    assert_eq!(heap.space.free_pages(), 2);
    let (object, unmapped) = heap.object(3, false);
    assert_eq!((unmapped, heap.space.free_pages()), (1, 0));
    assert!(heap.is_filled(object, 3, 0));
    heap.sweep();
    heap.space.put_back(heap.space.take(5).unwrap());
    assert_eq!(heap.release(usize::MAX), 3);
    assert_eq!(heap.resident(), 0);
}

#[test]
fn long_objects_give_their_pages_back_and_leave_those_of_others_alone() {
    let heap = Fixture::new();
    let pages = CLEARED / heap.page + 1;
    let ((short, _), (long, _)) = (heap.object(4, false), heap.object(pages, false));
    heap.fill(short, 4, 9);
    heap.fill(long, pages, 9);
    let mut returned = 0;
    assert_eq!(heap.space.sweep(&heap.layouts, |pages| returned += pages), (4 + pages, 0));
    assert_eq!((returned, heap.space.free_pages(), heap.resident()), (pages, 4, 4));
    assert_eq!(heap.object(pages, true), (short + 4 * heap.page, pages));
    assert_eq!(heap.resident(), 4 + 1);
    // There is no other place for this one.
    let most = heap.space.kinds.len() - pages;
    heap.space.put_back(heap.space.take(most - 4).unwrap());
    assert_eq!(heap.space.free_pages(), 4);
    assert_eq!(heap.sweep(), (0, pages));
    returned = 0;
    assert_eq!(heap.space.sweep(&heap.layouts, |pages| returned += pages), (pages, 0));
    assert_eq!(heap.object(most + pages, false), (short, most + pages - 4));
    assert_eq!(heap.resident(), 1);
    assert!(heap.is_filled(short, most + pages, 0));
}
