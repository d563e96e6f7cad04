//! [`Heap`]: a value that owns everything, and the way in for threads.

use crate::daemon::Daemon;
use crate::field::WordRule;
use crate::options::{Options, OptionsError};
use crate::scope::Scope;
use crate::trace::{Trace, register};
use firn_gc::config::{BackendKind, FaultMode, InstallKind};
use firn_gc::core::{Core, CoreError};
use firn_gc::events::{Cause, CycleSummary, Event, Listener};
use firn_gc::fault::FAULT_SIGNALS;
use firn_gc::mutator::Mutator;
use firn_gc::safepoint::Slot;
use firn_heap::layout::{Layout, LayoutId, Tail};
use firn_heap::sys::signal::{AltStack, Unblocked};
use firn_heap::sys::thread::monotonic_ns;
use std::any::TypeId;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A heap could not be made.
///
/// ```
/// use firn::{Heap, Options};
/// let options = Options { min_free: 2, max_free: 1, ..Options::default() };
/// let error = Heap::new(&options).unwrap_err();
/// assert!(error.to_string().contains("min-free"));
/// assert!(!error.is_userfaultfd_refused());
/// ```
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// The options do not go together.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The machine does not give what the options need.
    #[error(transparent)]
    Core(#[from] CoreError),
}

impl HeapError {
    /// Whether the reason is that no userfaultfd could be had (`backend=stw` works without).
    pub fn is_userfaultfd_refused(&self) -> bool {
        matches!(self, HeapError::Core(CoreError::Open(_) | CoreError::Register { .. }))
    }
}

/// The heap is full of live objects. Nothing was lost: drop references and go on.
///
/// ```
/// # use firn::*;
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let mut kept = Vec::new();
/// let error = loop {
///     match cx.alloc_data::<u8>(1 << 20) {
///         Ok(array) => kept.push(array),
///         Err(error) => break error,
///     }
/// };
/// assert_eq!(error.limit, 16 << 20);
/// assert_eq!(kept[0].get(cx).len(), 1 << 20); // nothing was lost
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {requested} bytes asked for, {live} bytes live of at most {limit}")]
pub struct OutOfMemory {
    /// Bytes of the allocation that failed.
    pub requested: usize,
    /// Bytes live after the last collection.
    pub live: usize,
    /// The heap's maximum in bytes.
    pub limit: usize,
}

/// The calling thread cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It is attached already, to this heap or another.
    #[error("this thread is attached to a heap already: use its scope, or end it first")]
    Already,
    /// No memory for its stacks.
    #[error("cannot attach this thread: {0}")]
    Memory(String),
    /// The heap serves as many threads as it can.
    #[error("cannot attach this thread: {0}")]
    TooMany(CoreError),
}

/// How a heap was really set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Back end.
    pub backend: BackendKind,
    /// Fault delivery.
    pub fault: FaultMode,
    /// Installation, where the back end installs pages through userfaultfd.
    pub install: Option<InstallKind>,
    /// Collector threads.
    pub workers: usize,
    /// Userfaultfd: how it was opened and what it offers.
    pub userfaultfd: Option<String>,
    /// What was asked for and could not be had.
    pub notes: Vec<String>,
}

/// Numbers about a heap.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    /// Cycles completed.
    pub cycles: u64,
    /// Bytes of pages that allocation has taken, ever.
    pub bytes_allocated: u64,
    /// Bytes of live objects found by the last cycle, large ones included.
    pub live_bytes_after_last: usize,
    /// Bytes of pages in use: committed and not free.
    pub used_bytes: usize,
    /// Bytes of pages committed in all ranges.
    pub footprint_bytes: usize,
    /// The most bytes of pages that were ever committed at a time. Pages that are copied while their
    /// originals are still read may exceed the maximum for a part of a cycle.
    pub most_footprint_bytes: usize,
    /// The maximum.
    pub limit_bytes: usize,
    /// Bytes of side tables for a heap of the maximum size.
    pub side_table_bytes: usize,
}

struct Inner {
    core: Arc<Core>,
    daemon: Daemon,
    serial: u64,
    options: Options,
    setup: Setup,
    layouts: Mutex<HashMap<TypeId, LayoutId>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.daemon.stop();
    }
}

/// A compacting heap. Cheap to clone; the last clone's drop ends its threads and returns its memory.
///
/// ```
/// use firn::{Field, Heap, NoGc, Options, OutOfMemory, Trace};
///
/// #[derive(Trace)]
/// struct Node {
///     key: u64,
///     next: Field<Node>,
/// }
///
/// let heap = Heap::new(&Options::parse("heap=64m")?)?;
/// let sum = heap.attach(|cx| {
///     let list = cx.var::<Node>();
///     for key in 0..1000 {
///         let nogc = cx.reserve(NoGc::size_of::<Node>())?;
///         let node = nogc.alloc(Node { key, next: Field::null() });
///         node.next.store(&nogc, list.get(&nogc));
///         list.set(&nogc, Some(node));
///     }
///     cx.collect();
///     let mut sum = 0;
///     let mut at = list.get(cx);
///     while let Some(node) = at {
///         sum += node.key;
///         at = node.next.load(cx);
///     }
///     Ok::<_, OutOfMemory>(sum)
/// })?;
/// assert_eq!(sum, 499_500);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Heap(Arc<Inner>);

impl PartialEq for Heap {
    fn eq(&self, other: &Heap) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Heap {}

/// Layouts of a word rule, as distances from that of its arrays.
#[derive(Clone, Copy)]
pub(crate) enum TaggedKind {
    Ephemeron = 1,
    Guarded = 2,
    Guardian = 3,
}

impl TaggedKind {
    /// The layout, given that of the arrays.
    #[inline(always)]
    pub(crate) fn of(self, array: LayoutId) -> LayoutId {
        LayoutId(array.0 + self as u16)
    }
}

thread_local! {
    /// Whether this thread is attached to some heap. One at a time: that is what keeps references of two
    /// heaps apart without a type parameter on every reference.
    static ATTACHED: Cell<bool> = const { Cell::new(false) };
}

/// How often a thread climbs the ladder again because others were faster.
const OVERTAKEN: u32 = 8;

impl Heap {
    /// Makes a heap and starts its threads.
    ///
    /// ```
    /// use firn::{Heap, Options};
    /// let mut options = Options::default();
    /// options.set("heap", "64m")?;
    /// let heap = match Heap::new(&options) {
    ///     Err(error) if error.is_userfaultfd_refused() => {
    ///         eprintln!("{error}");
    ///         options.set("backend", "stw")?;
    ///         Heap::new(&options)?
    ///     }
    ///     heap => heap?,
    /// };
    /// for note in &heap.setup().notes {
    ///     eprintln!("note: {note}");
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A diagnosis: which option, limit, privilege or kernel feature is missing, and the remedy.
    pub fn new(options: &Options) -> Result<Heap, HeapError> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        options.check()?;
        let core = Core::new(options.config())?;
        let daemon = Daemon::start(core.clone(), options)?;
        let mut notes = core.notes.clone();
        notes.extend(daemon.refused());
        let setup = Setup {
            backend: core.backend.kind(),
            fault: core.config.fault,
            install: core.backend.install(),
            workers: core.config.workers,
            userfaultfd: core.backend.installer().map(|installer| {
                let uffd = &installer.uffd;
                format!("{}; features {}", uffd.path(), uffd.features_available())
            }),
            notes,
        };
        // Relaxed: only uniqueness matters.
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let options = options.clone();
        Ok(Heap(Arc::new(Inner {
            core,
            daemon,
            serial,
            options,
            setup,
            layouts: Mutex::default(),
        })))
    }

    /// Makes the calling thread a mutator for the length of `f`.
    ///
    /// ```
    /// use firn::{Heap, Options};
    /// let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// let heap = &heap;
    /// std::thread::scope(|threads| {
    ///     for _ in 0..2 {
    ///         threads.spawn(move || heap.attach(|cx| cx.alloc_data::<u8>(100).map(|_| ())));
    ///     }
    /// });
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the thread is attached already, or there is no memory for its stacks.
    pub fn attach<R>(&self, f: impl for<'s> FnOnce(&mut Scope<'s>) -> R) -> R {
        self.try_attach(f).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Heap::attach`], with an error instead of a panic.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// let inner = heap.attach(|_| heap.try_attach(|_| ()).is_err());
    /// assert!(inner, "a thread is attached once");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the thread is attached already, or there is no memory for its stacks.
    pub fn try_attach<R>(
        &self,
        f: impl for<'s> FnOnce(&mut Scope<'s>) -> R,
    ) -> Result<R, AttachError> {
        struct Detach<'a>(&'a Heap, Arc<Slot<Mutator>>);
        impl Drop for Detach<'_> {
            fn drop(&mut self) {
                self.0.core().detach(&self.1);
                firn_gc::fault::set_thread(None);
                ATTACHED.set(false);
            }
        }
        if ATTACHED.get() {
            return Err(AttachError::Already);
        }
        let memory = |error: &dyn std::fmt::Display| AttachError::Memory(error.to_string());
        let _stack = AltStack::install().map_err(|error| memory(&error))?;
        let _unblocked = Unblocked::new(&FAULT_SIGNALS);
        let slot = self.core().attach().map_err(|error| match error {
            CoreError::TooManyMutators(_) => AttachError::TooMany(error),
            error => memory(&error),
        })?;
        ATTACHED.set(true);
        firn_gc::fault::set_thread(Some(slot.mutator.id));
        let detach = Detach(self, slot);
        // SAFETY: this is the mutator's own thread, and nobody else holds a reference to its state.
        let local = unsafe { detach.1.mutator.local() };
        local.serial = self.0.serial;
        local.stress_left = self.0.options.stress_every;
        // SAFETY: heap and slot outlive the scope, and this thread owns the slot.
        let mut scope = unsafe { Scope::new(self, &detach.1) };
        Ok(f(&mut scope))
    }

    /// Collects now and waits for the end. From an attached thread use [`Scope::collect`].
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// let summary = heap.collect();
    /// println!("{} bytes live", summary.live_bytes + summary.large_live_bytes);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the calling thread is attached: it would wait for itself.
    pub fn collect(&self) -> CycleSummary {
        assert!(!ATTACHED.get(), "an attached thread collects through its scope: `cx.collect()`");
        self.daemon().collect(Cause::Explicit)
    }

    /// Tells the heap that the program went to the background (or came back): ART's transition. In the
    /// background the heap collects once and keeps less memory.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// heap.set_background(true);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_background(&self, background: bool) {
        self.daemon().transition(background);
    }

    /// Adds a listener to the event stream.
    ///
    /// ```
    /// use firn::{Event, Heap, Listener, Options};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// #[derive(Default)]
    /// struct LongestPause(AtomicU64);
    /// impl Listener for LongestPause {
    ///     fn event(&self, event: &Event) {
    ///         if let Event::Pause { stopped, released, .. } = event {
    ///             self.0.fetch_max(released - stopped, Ordering::Relaxed);
    ///         }
    ///     }
    /// }
    ///
    /// let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// let longest = Arc::new(LongestPause::default());
    /// heap.add_listener(longest.clone());
    /// heap.collect();
    /// println!("{} ns", longest.0.load(Ordering::Relaxed));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_listener(&self, listener: Arc<dyn Listener>) {
        self.core().add_listener(listener);
    }

    /// How the heap was really set up.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m,backend=stw")?)?;
    /// assert_eq!(heap.setup().backend, BackendKind::Stw);
    /// assert!(heap.setup().userfaultfd.is_none());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn setup(&self) -> &Setup {
        &self.0.setup
    }

    /// The options it was made with.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// assert_eq!(heap.options().heap, 16 << 20);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Numbers.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// heap.collect();
    /// let stats = heap.stats();
    /// assert_eq!((stats.cycles, stats.limit_bytes), (1, 16 << 20));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let page = core.space.geometry.page;
        let last = self.daemon().last();
        Stats {
            cycles: self.daemon().completed(),
            bytes_allocated: core.allocated_bytes.load(Ordering::Relaxed),
            live_bytes_after_last: last.map_or(0, |s| s.live_bytes + s.large_live_bytes),
            used_bytes: core.in_use() * page,
            footprint_bytes: core.space.committed() * page,
            most_footprint_bytes: core.space.most_committed() * page,
            limit_bytes: core.config.limit,
            side_table_bytes: core.space.side_table_bytes(),
        }
    }

    /// The collector behind the heap: for tests and measurement.
    #[doc(hidden)]
    pub fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    /// Floors for measurement, on what global roots reach; the other threads must be blocked.
    #[doc(hidden)]
    pub fn floors(&self) -> Result<firn_gc::floor::Floors, String> {
        self.daemon().floors()
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        &self.0.daemon
    }

    pub(crate) fn stress_every(&self) -> u32 {
        self.0.options.stress_every
    }

    #[inline(always)]
    pub(crate) fn large_threshold(&self) -> usize {
        self.0.core.config.large_object
    }

    /// A type that is refused panics under this lock, before anything is noted: the others are not concerned.
    fn layouts(&self) -> MutexGuard<'_, HashMap<TypeId, LayoutId>> {
        self.0.layouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    pub(crate) fn register<T: Trace>(&self) -> LayoutId {
        let mut layouts = self.layouts();
        let id = *layouts.entry(TypeId::of::<T>()).or_insert_with(|| {
            register::<T>(self.core()).unwrap_or_else(|error| panic!("{error}"))
        });
        T::cell().set(self.0.serial, id);
        id
    }

    /// Registers what there is of a word rule: arrays, and, with the ids that follow, ephemerons, guardians' notes
    /// and guardians ([`TaggedKind`]).
    #[cold]
    pub(crate) fn register_tagged<R: WordRule>(&self) -> LayoutId {
        let mut layouts = self.layouts();
        *layouts.entry(TypeId::of::<crate::TaggedArray<R>>()).or_insert_with(|| {
            let rule = Some(R::RULE);
            let array =
                Layout { tail: Tail::Tagged, rule: R::RULE, ..Layout::plain("tagged array", 0) };
            let kinds = [
                array,
                Layout::ephemeron("ephemeron of tagged words", rule),
                Layout::guarded("guarded tagged word", rule),
                Layout::guardian("guardian of tagged words"),
            ];
            // Nobody registers a layout in between: all do so under the lock of `layouts`.
            let ids = kinds.map(|layout| {
                let id = self.core().space.layouts.register(&layout);
                id.unwrap_or_else(|error| panic!("{error}"))
            });
            assert!((0..).zip(ids).all(|(kind, id)| id.0 == ids[0].0 + kind));
            ids[0]
        })
    }

    pub(crate) fn out_of_memory(&self, requested: usize) -> OutOfMemory {
        let stats = self.stats();
        OutOfMemory { requested, live: stats.live_bytes_after_last, limit: stats.limit_bytes }
    }

    /// The ladder that a failed allocation climbs: wait for the cycle under way or the next one; collect
    /// again; collect with everything compacted and all free memory given up; then fail, unless others have taken
    /// meanwhile what would have been enough: then the heap was not full, this thread was slow, and it climbs again.
    #[cold]
    #[inline(never)]
    pub(crate) fn with_ladder<T>(
        &self,
        slot: &Arc<Slot<Mutator>>,
        bytes: usize,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T, OutOfMemory> {
        if let Some(done) = attempt() {
            return Ok(done);
        }
        let core = self.core();
        let begin = monotonic_ns();
        let taken = || core.allocated_bytes.load(Ordering::Relaxed);
        let (mut first, mut taken_before) = (self.daemon().completed(), taken());
        let mut overtaken = 0;
        let mut result = None;
        let mut asked = None;
        loop {
            let epoch = core.memory_epoch();
            if let Some(done) = attempt() {
                result = Some(done);
                break;
            }
            let rung = self.daemon().completed() - first;
            let cause = match rung {
                0 | 1 => Cause::Allocation,
                2 | 3 => Cause::LastResort,
                _ if overtaken == OVERTAKEN || taken() - taken_before < bytes as u64 => break,
                _ => {
                    overtaken += 1;
                    (first, taken_before, asked) = (self.daemon().completed(), taken(), None);
                    continue;
                }
            };
            core.safepoints.block(core, slot);
            // Once on each rung: memory that comes back while a cycle runs wakes this thread many times.
            if asked.replace(rung) != Some(rung) {
                self.daemon().request(cause);
            }
            core.wait_for_memory(epoch);
            core.safepoints.unblock(core, slot);
        }
        let (thread, end) = (slot.mutator.id, monotonic_ns());
        core.emit(Event::AllocStall { thread, begin, end, bytes });
        result.ok_or_else(|| self.out_of_memory(bytes))
    }
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap").field("setup", self.setup()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_overtaken_climbs_again_and_who_is_alone_fails_after_four_cycles() {
        const ALL: u64 = 4 + 4 * OVERTAKEN as u64;
        let options = Options::parse("heap=16m,backend=stw,concurrent=false").unwrap();
        // What others take in each cycle of the 100 bytes that are wanted, how long they do, and the cycle that ends it.
        for (taken, until, end) in
            [(100, 9, 9), (100, u64::MAX, ALL), (24, u64::MAX, 4), (0, u64::MAX, 4)]
        {
            let heap = Heap::new(&options).unwrap();
            let slot = heap.core().attach().unwrap();
            let mut last = None;
            let result = heap.with_ladder(&slot, 100, || {
                let cycles = heap.daemon().completed();
                if last.replace(cycles) != Some(cycles) {
                    heap.core().allocated_bytes.fetch_add(taken, Ordering::Relaxed);
                }
                (cycles >= until).then_some(())
            });
            assert_eq!((result.is_ok(), last), (until == end, Some(end)), "{taken}: {result:?}");
            heap.core().detach(&slot);
        }
    }
}
