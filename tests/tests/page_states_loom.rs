//! Loom models of `heap/src/pages.rs`: whatever the interleaving of builders, an owner that wants to move the
//! from-page, and a recycler, every page is published exactly once and no from-page goes away under a reader.
//!
//! The source file itself is compiled here, against loom's atomics. Loom treats sequentially consistent loads
//! as acquire only, but models sequentially consistent *fences*; so the wrappers below put a fence before each
//! such load: one of the two ways in which compilers implement the ordering. Operations of other orderings get
//! none, so weakening a load in `pages.rs` makes a model fail.

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use pages::{Access, Hazard, PageState, StateCell};

#[allow(dead_code)]
#[path = "../../heap/src/pages.rs"]
mod pages;

/// What `pages.rs` takes its atomics from.
mod sync {
    pub use loom::sync::atomic::Ordering;
    use loom::sync::atomic::fence;

    macro_rules! atomic {
        ($name:ident, $int:ty) => {
            /// Loom's atomic with a fence before each sequentially consistent load.
            pub struct $name(loom::sync::atomic::$name);

            #[allow(dead_code)]
            impl $name {
                pub fn new(value: $int) -> Self {
                    $name(loom::sync::atomic::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $int {
                    if order == Ordering::SeqCst {
                        fence(Ordering::SeqCst);
                        // Acquire: loom would give more than the language does.
                        return self.0.load(Ordering::Acquire);
                    }
                    self.0.load(order)
                }

                pub fn store(&self, value: $int, order: Ordering) {
                    let release = order == Ordering::SeqCst;
                    self.0.store(value, if release { Ordering::Release } else { order });
                }

                pub fn compare_exchange(
                    &self,
                    old: $int,
                    new: $int,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$int, $int> {
                    self.0.compare_exchange(old, new, success, failure)
                }
            }
        };
    }

    atomic!(AtomicU8, u8);
    atomic!(AtomicU64, u64);
}

/// What the content of the from-page is as long as nobody has taken it.
const CONTENT: u32 = 42;
/// The one to-page of the models.
const PAGE: usize = 7;

/// The page tables: the kernel's operations are atomic steps under its own locks.
struct Kernel {
    source: bool,
    present: bool,
    publications: usize,
}

/// One to-page with one from-page, and builders' hazards.
struct World {
    state: sync::AtomicU8,
    hazards: [Hazard; 3],
    from: UnsafeCell<u32>,
    kernel: Mutex<Kernel>,
}

impl World {
    fn new() -> Arc<World> {
        Arc::new(World {
            state: sync::AtomicU8::new(PageState::Missing as u8),
            hazards: [Hazard::new(), Hazard::new(), Hazard::new()],
            from: UnsafeCell::new(CONTENT),
            kernel: Mutex::new(Kernel { source: true, present: false, publications: 0 }),
        })
    }

    fn cell(&self) -> StateCell<'_> {
        StateCell(&self.state)
    }

    /// Reads the from-page. Loom fails the model if a take is not ordered before or after it.
    fn read(&self) -> u32 {
        // SAFETY: the models are about exactly this: no concurrent `take`; loom checks it.
        self.from.with(|content| unsafe { *content })
    }

    /// The from-page goes away.
    fn take(&self) {
        // SAFETY: as `read`.
        self.from.with_mut(|content| unsafe { *content = 0 });
    }

    /// `UFFDIO_COPY` of a page built elsewhere; true if it was this one that got there.
    fn copy(&self) -> bool {
        let mut kernel = self.kernel.lock().unwrap();
        if kernel.present {
            return false;
        }
        kernel.present = true;
        kernel.publications += 1;
        true
    }

    /// `UFFDIO_MOVE` of the from-page itself.
    fn move_source(&self) -> bool {
        let mut kernel = self.kernel.lock().unwrap();
        if kernel.present || !kernel.source {
            return false;
        }
        self.take();
        kernel.source = false;
        kernel.present = true;
        kernel.publications += 1;
        true
    }

    fn present(&self) -> bool {
        self.kernel.lock().unwrap().present
    }

    fn build_and_copy(&self) {
        assert_eq!(self.read(), CONTENT, "the from-page was taken before this read");
        self.copy();
        self.cell().set_mapped();
    }

    /// What a faulting thread does with hazard `number`: `Core::ensure`.
    fn ensure(&self, number: usize) {
        let cell = self.cell();
        if !cell.get().is_published() {
            cell.claim();
            self.hazards[number].announce(PAGE, 1);
            match cell.access() {
                Access::Published => self.hazards[number].withdraw(),
                Access::Move => {
                    self.hazards[number].withdraw();
                    self.move_source();
                    cell.set_consumed();
                }
                Access::Read => {
                    self.build_and_copy();
                    self.hazards[number].withdraw();
                }
            }
        }
        assert!(self.present(), "a builder went on without the page");
    }

    /// What a collector thread does with hazard 0 and a page that could move as it is.
    fn own(&self, readers: &[usize]) {
        self.hazards[0].announce(PAGE, 1);
        if self.cell().claim() {
            let read_by_others = || readers.iter().any(|&n| self.hazards[n].covers(PAGE, 1));
            if self.cell().close(read_by_others) {
                self.move_source();
                self.cell().set_consumed();
            } else {
                self.build_and_copy();
            }
            assert!(self.present(), "the owner went on without the page");
        }
        self.hazards[0].withdraw();
    }

    /// Takes the from-page for another use if nobody can read it any more; returns whether it did.
    fn recycle(&self) -> bool {
        let free = self.cell().get() == PageState::Mapped
            && !self.hazards.iter().any(|hazard| hazard.covers(PAGE, 1));
        if free {
            self.take();
        }
        free
    }

    /// After everyone is done.
    fn check(&self) {
        let kernel = self.kernel.lock().unwrap();
        assert!(kernel.present && kernel.publications == 1, "published other than exactly once");
        // What is left to recycle must be what the state says.
        let left = match self.cell().get() {
            PageState::Mapped => true,
            PageState::Consumed => false,
            other => panic!("the page ended as {other:?}"),
        };
        assert_eq!(left, kernel.source, "the from-page is lost, or would be recycled twice");
        assert!(self.hazards.iter().all(|hazard| hazard.announced().is_none()));
    }
}

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(body);
}

#[test]
fn two_builders_publish_a_page_once_and_neither_goes_on_without_it() {
    model(|| {
        let world = World::new();
        let other = world.clone();
        let thread = loom::thread::spawn(move || other.ensure(1));
        world.ensure(2);
        thread.join().unwrap();
        world.check();
    });
}

#[test]
fn a_recycler_never_takes_what_a_late_builder_reads() {
    model(|| {
        let world = World::new();
        let (first, late) = (world.clone(), world.clone());
        let first = loom::thread::spawn(move || first.ensure(1));
        let late = loom::thread::spawn(move || late.ensure(2));
        // One look is all: what it finds in use is left for the next round.
        let recycled = world.recycle();
        first.join().unwrap();
        late.join().unwrap();
        assert!(recycled || world.recycle(), "when all are out, the from-page is free");
    });
}

#[test]
fn a_from_page_is_never_moved_while_a_builder_reads_it() {
    model(|| {
        let world = World::new();
        let owner = world.clone();
        let owner = loom::thread::spawn(move || owner.own(&[1, 2]));
        world.ensure(1);
        owner.join().unwrap();
        world.check();
    });
}

#[test]
fn a_from_page_is_never_moved_while_either_of_two_builders_reads_it() {
    model(|| {
        let world = World::new();
        let (owner, other) = (world.clone(), world.clone());
        let owner = loom::thread::spawn(move || owner.own(&[1, 2]));
        let other = loom::thread::spawn(move || other.ensure(1));
        world.ensure(2);
        owner.join().unwrap();
        other.join().unwrap();
        world.check();
    });
}

#[test]
fn a_page_in_moving_is_moved_by_whoever_comes_first() {
    model(|| {
        let world = World::new();
        world.hazards[0].announce(PAGE, 1);
        assert!(world.cell().claim() && world.cell().close(|| false));
        world.hazards[0].withdraw();
        let other = world.clone();
        let other = loom::thread::spawn(move || other.ensure(1));
        world.ensure(2);
        other.join().unwrap();
        assert_eq!(world.cell().get(), PageState::Consumed);
        world.check();
    });
}

#[test]
fn hazards_cover_exactly_the_pages_they_announce() {
    model(|| {
        let hazard = Hazard::new();
        assert_eq!(hazard.announced(), None);
        hazard.announce(10, 4);
        assert_eq!(hazard.announced(), Some((10, 4)));
        for (first, pages, meets) in [
            (9, 1, false),
            (9, 2, true),
            (10, 1, true),
            (13, 1, true),
            (14, 1, false),
            (0, 99, true),
        ] {
            assert_eq!(hazard.covers(first, pages), meets, "{first} {pages}");
        }
        hazard.withdraw();
        assert!(!hazard.covers(10, 4));
    });
}
