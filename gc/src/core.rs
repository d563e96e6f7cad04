//! The collector's state: what mutators, collector threads and the fault handler share.
//!
//! A [`Core`] is a value; a process may have several. It owns the space, the back end, the meeting point of
//! the mutators, and the constants of the cycle under way. [`crate::cycle`] drives it.

use crate::backend::{Art, Backend, FlipPlan, Mprotect, PingPong, Stw};
use crate::build::{Builder, View};
use crate::compact::{Compactor, compact_in_pause};
use crate::config::{BackendKind, Config, FaultMode, InstallKind};
use crate::ephemerons::Ephemerons;
use crate::events::{Event, Listener};
use crate::fault::FaultDesk;
use crate::guardians::Guarded;
use crate::install::Installer;
use crate::mark::{Marker, RootQueue};
use crate::mutator::Mutator;
use crate::ready::ReadyChunks;
use crate::roots::GlobalRoots;
use crate::safepoint::{Entry, Operations, Safepoints, Slot};
use crate::segments::{Log, Segments};
use firn_heap::WORD;
use firn_heap::blocks::prefetch_for_write;
use firn_heap::space::Space;
use firn_heap::sys::Errno;
use firn_heap::sys::map::MapError;
use firn_heap::sys::probe::moves_a_page;
use firn_heap::sys::thread::{gettid, monotonic_ns};
use firn_heap::sys::uffd::{OpenError, Userfaultfd};
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// Mutators that a heap serves at a time.
const MUTATORS: usize = 1 << 13;
/// Segments of marking work for those that are no mutators: a collector thread each, and the roots' log.
const OTHERS: usize = 256;
/// Words of the smallest object: the bitmap needs its first and last word to differ.
const SMALLEST_OBJECT: usize = 2;

/// A collector could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// No address space.
    #[error(transparent)]
    Map(#[from] MapError),
    /// No userfaultfd.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A range could not be registered.
    #[error("cannot register {} MiB with userfaultfd: {errno} (a seccomp filter on ioctl? `--backend stw` works without)", bytes >> 20)]
    Register {
        /// Bytes of the range.
        bytes: usize,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A signal handler could not be installed.
    #[error("cannot install the fault handler: {0}")]
    Signal(Errno),
    /// Too many heaps.
    #[error("a process can have {0} heaps that serve faults; drop one first")]
    TooManyHeaps(usize),
    /// Too many threads are attached.
    #[error(
        "{0} threads are attached to this heap already, the most it can serve: let one detach first"
    )]
    TooManyMutators(usize),
    /// An option that this kernel cannot honour.
    #[error("{0}")]
    Unsupported(String),
}

/// The requests that the collector makes of mutators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Pause: barrier on, allocation goes on in the late region; each mutator's roots are taken before it
    /// runs on.
    StartMark,
    /// Handshake: hand the logs over.
    FlushLogs,
    /// Pause: hand the logs over; if there was nothing, marking has ended.
    FinalMark,
    /// Pause: addresses change.
    Flip,
    /// Pause: walk the heap.
    Verify,
}

/// Phases as the fault handler sees them.
pub(crate) mod phase {
    /// No page is missing.
    pub const IDLE: u32 = 0;
    /// Between the flip and the last page.
    pub const COMPACTING: u32 = 1;
}

/// Counters of the cycle under way.
#[derive(Default)]
pub struct Counters {
    /// Pages published by copying.
    pub copied: AtomicU64,
    /// Pages published by moving a staged run.
    pub moved: AtomicU64,
    /// Pages published by moving the from-page.
    pub dense: AtomicU64,
    /// Pages published by collector threads.
    pub by_collector: AtomicU64,
    /// Pages published by faulting threads.
    pub by_mutators: AtomicU64,
}

/// Called on the allocating thread when a cycle should be started.
pub type Trigger = Box<dyn Fn() + Send + Sync>;

/// The collector's state.
pub struct Core {
    /// Ranges and tables.
    pub space: Space,
    /// What was chosen.
    pub config: Config,
    /// How pages come and go.
    pub backend: Box<dyn Backend>,
    /// Where mutators stop.
    pub safepoints: Safepoints<Core>,
    /// Marking work.
    pub segments: Segments,
    /// One for each collector thread. The final pause uses the first.
    pub(crate) markers: Vec<Mutex<Marker>>,
    /// Ephemerons with unmarked keys.
    pub ephemerons: Ephemerons,
    /// Guardians' notes of unmarked objects.
    pub(crate) guarded: Guarded,
    /// Chunks that mutators can take without populating them.
    pub(crate) ready: ReadyChunks,
    /// Roots outside mutators.
    pub(crate) roots: GlobalRoots,
    /// Fault slots and records.
    pub faults: FaultDesk,
    /// Counters of the cycle under way.
    pub counters: Counters,
    /// Remarks on the set-up: what was asked for and could not be had.
    pub notes: Vec<String>,
    view: UnsafeCell<View>,
    pub(crate) phase: AtomicU32,
    marking: AtomicBool,
    /// The last final pause found nothing left to mark.
    pub(crate) mark_complete: AtomicBool,
    /// No root was being added or removed in it.
    pub(crate) roots_settled: AtomicBool,
    /// Marking is not to end even so: guardians come first.
    pub(crate) hold_marking: AtomicBool,
    pub(crate) mark_ended: AtomicBool,
    /// Weak reads must look at marks: from the start of marking to the flip.
    weak_reads: AtomicBool,
    /// Flips so far.
    flips: AtomicU64,
    pub(crate) large_born_marked: AtomicBool,
    late_page: AtomicUsize,
    pub(crate) planned_pages: AtomicUsize,
    /// For a back end that builds all pages in the pause, in which there may be no memory to be had.
    pause_compactor: Mutex<Option<Compactor>>,
    pub(crate) flip_failed: Mutex<Option<Errno>>,
    pub(crate) verify_failure: Mutex<Option<String>>,
    /// Replaced as a whole, so that nobody is called under the lock.
    listeners: RwLock<Arc<[Arc<dyn Listener>]>>,
    next_mutator: AtomicU32,
    /// Kernel ids of mutators' threads, for the fault thread.
    threads: Mutex<Vec<(u32, u32)>>,
    pub(crate) cycle: AtomicU64,
    /// Pages handed out in the current range at which a cycle should start.
    pub start_at: AtomicUsize,
    /// Bytes of pages that allocation has taken, ever.
    pub allocated_bytes: AtomicU64,
    pub(crate) trigger: Mutex<Option<Trigger>>,
    pub(crate) triggered: AtomicBool,
    /// Changes whenever memory may have become available; see [`Core::wait_for_memory`].
    pub(crate) memory_epoch: AtomicU32,
    pub(crate) memory_waiters: AtomicU32,
}

// SAFETY: the one non-Sync field, `view`, is written only with the world stopped and no handler inside
// (`set_view`), and read by threads that the release from that pause, or the acquire load of the phase,
// orders after it.
unsafe impl Sync for Core {}
// SAFETY: nothing is tied to a thread.
unsafe impl Send for Core {}

impl Core {
    /// Reserves memory, opens what the back end needs, and makes faults reach the new collector.
    pub fn new(mut config: Config) -> Result<Arc<Core>, CoreError> {
        let space = Space::new(config.limit, config.backend == BackendKind::Mprotect)?;
        let mut notes = Vec::new();
        let backend: Box<dyn Backend> = match config.backend {
            BackendKind::Stw => Box::new(Stw),
            BackendKind::Mprotect => Box::new(Mprotect::new(&space)?),
            BackendKind::PingPong | BackendKind::Art => {
                let uffd = Userfaultfd::open(config.fault == FaultMode::Sigbus)?;
                let default = if config.backend == BackendKind::Art {
                    InstallKind::Copy
                } else {
                    InstallKind::Move
                };
                let mut install = config.install.unwrap_or(default);
                if install == InstallKind::Move && moves_a_page(&uffd).is_err() {
                    if config.install == Some(InstallKind::Move) {
                        return Err(CoreError::Unsupported(
                            "install=move: this kernel has no working UFFDIO_MOVE (it came with Linux 6.8); use install=copy".into(),
                        ));
                    }
                    notes.push("this kernel has no UFFDIO_MOVE (it came with Linux 6.8): pages are installed by COPY".into());
                    install = InstallKind::Copy;
                }
                let installer = Installer::new(uffd, config.fault == FaultMode::Thread);
                if config.backend == BackendKind::Art {
                    if config.verify {
                        notes.push("with the art back end old and new addresses coincide: stale references are found by walking only".into());
                    }
                    Box::new(Art::new(installer, install))
                } else {
                    Box::new(PingPong::new(&space, installer, install, config.verify)?)
                }
            }
        };
        config.workers = config.workers.max(1);
        config.batch = config.batch.clamp(1, 64);
        let objects = space.geometry.range_bytes() / (SMALLEST_OBJECT * WORD);
        // Large objects, of a page at least, are queued by who marks them.
        let segments = Segments::new(objects + space.geometry.pages, MUTATORS + OTHERS)?;
        let markers = (0..config.workers).map(|_| Mutex::default()).collect();
        let ephemerons = Ephemerons::new(&space)?;
        config.fault_around =
            if backend.builds_around() { config.fault_around.clamp(1, 64) } else { 1 };
        let faults = FaultDesk::new(space.geometry.page, config.workers, config.fault_around)?;
        let ready = ReadyChunks::new(space.geometry.pages, config.chunk_pages)?;
        let start_at = AtomicUsize::new(space.geometry.pages);
        let in_pause = backend.builds_in_pause().then(|| Compactor::new(space.geometry.page));
        let pause_compactor = in_pause.transpose()?;
        let core = Arc::new(Core {
            space,
            config,
            backend,
            safepoints: Safepoints::new(),
            segments,
            markers,
            ephemerons,
            guarded: Guarded::default(),
            ready,
            roots: GlobalRoots::default(),
            faults,
            counters: Counters::default(),
            notes,
            view: UnsafeCell::default(),
            phase: AtomicU32::new(phase::IDLE),
            marking: AtomicBool::new(false),
            mark_complete: AtomicBool::new(false),
            roots_settled: AtomicBool::new(false),
            hold_marking: AtomicBool::new(false),
            mark_ended: AtomicBool::new(false),
            weak_reads: AtomicBool::new(false),
            flips: AtomicU64::new(0),
            large_born_marked: AtomicBool::new(false),
            late_page: AtomicUsize::new(0),
            planned_pages: AtomicUsize::new(0),
            pause_compactor: Mutex::new(pause_compactor),
            flip_failed: Mutex::default(),
            verify_failure: Mutex::default(),
            listeners: RwLock::new(Arc::new([])),
            next_mutator: AtomicU32::new(0),
            threads: Mutex::default(),
            cycle: AtomicU64::new(0),
            start_at,
            allocated_bytes: AtomicU64::new(0),
            trigger: Mutex::new(None),
            triggered: AtomicBool::new(false),
            memory_epoch: AtomicU32::new(0),
            memory_waiters: AtomicU32::new(0),
        });
        crate::fault::register(&core)?;
        Ok(core)
    }

    /// Who is told when allocation reaches the start threshold.
    pub fn set_trigger(&self, trigger: Trigger) {
        *self.trigger.lock().unwrap() = Some(trigger);
    }

    /// Adds a listener to the event stream. A listener may do so too: the new one hears what comes next.
    pub fn add_listener(&self, listener: Arc<dyn Listener>) {
        let mut listeners = self.listeners.write().unwrap();
        *listeners = listeners.iter().cloned().chain([listener]).collect();
    }

    /// Delivers an event.
    pub fn emit(&self, event: Event) {
        let listeners = self.listeners.read().unwrap().clone();
        let deliver = || listeners.iter().for_each(|listener| listener.event(&event));
        if catch_unwind(AssertUnwindSafe(deliver)).is_err() {
            eprintln!(
                "firn: a listener panicked in the middle of a cycle; the process cannot go on"
            );
            std::process::abort();
        }
    }

    /// First page of the late region (allocated after marking began).
    #[inline(always)]
    pub fn late_page(&self) -> usize {
        // Relaxed: set before the handshake that starts marking.
        self.late_page.load(Ordering::Relaxed)
    }

    /// The constants of the compaction under way.
    ///
    /// # Safety
    /// A flip must have happened before, in the order that the caller sees things.
    #[inline(always)]
    pub unsafe fn view(&self) -> &View {
        // SAFETY: written only by `set_view`; the caller's promise orders this after it.
        unsafe { &*self.view.get() }
    }

    /// # Safety
    /// The world must be stopped, with no handler inside and no compaction under way.
    pub(crate) unsafe fn set_view(&self, view: View) {
        // SAFETY: no reader exists by the caller's promise.
        unsafe { *self.view.get() = view };
    }

    /// A builder for the compaction under way.
    ///
    /// # Safety
    /// As [`Core::view`].
    #[inline(always)]
    pub unsafe fn builder(&self) -> Builder<'_> {
        // SAFETY: the caller's promise.
        Builder { space: &self.space, view: unsafe { self.view() } }
    }

    /// Makes the calling thread a mutator.
    ///
    /// # Errors
    /// If there are too many mutators, or there is no address space for the new one's handles.
    pub fn attach(&self) -> Result<Arc<Slot<Mutator>>, CoreError> {
        // Relaxed: only uniqueness matters.
        let id = self.next_mutator.fetch_add(1, Ordering::Relaxed);
        let mutator = Mutator::new(id, false)?;
        let mut threads = self.threads.lock().unwrap();
        if threads.len() >= MUTATORS {
            return Err(CoreError::TooManyMutators(MUTATORS));
        }
        threads.push((gettid(), id));
        drop(threads);
        Ok(self.safepoints.attach(|| {
            // SAFETY: nobody else has it yet.
            let local = unsafe { mutator.local() };
            local.marking = self.marking.load(Ordering::Relaxed);
            local.weak_reads = self.weak_reads.load(Ordering::Relaxed);
            local.flips = self.flips.load(Ordering::Relaxed);
            local.range = (self.space.current().base(), self.space.current().len());
            mutator
        }))
    }

    /// Ends the calling thread's being a mutator.
    pub fn detach(&self, slot: &Arc<Slot<Mutator>>) {
        self.safepoints.detach(self, slot, |mutator| {
            // SAFETY: the mutator's own thread, with nothing due.
            let local = unsafe { mutator.local() };
            local.log.flush(&self.segments);
            self.retire(mutator);
        });
        self.threads.lock().unwrap().retain(|&(_, id)| id != slot.mutator.id);
    }

    /// The mutator on the thread with this kernel id, for the fault thread (not for the handler).
    pub(crate) fn mutator_of(&self, tid: u32) -> u32 {
        let threads = self.threads.lock().unwrap();
        threads.iter().find(|&&(known, _)| known == tid).map_or(u32::MAX, |&(_, id)| id)
    }

    /// The write barrier's slow path: `old` was overwritten while marking is on.
    #[inline(never)]
    pub fn log_overwritten(&self, mutator: &Mutator, old: u64) {
        // SAFETY: the mutator's own running thread.
        self.remember(&mut unsafe { mutator.local() }.log, old);
    }

    /// Sees to it that the object at `address` gets marked in this cycle: adds it to `log`, unless it is marked or
    /// was added to any log before. Only while marking is on.
    #[inline]
    pub(crate) fn remember(&self, log: &mut Log, address: u64) {
        let offset = (address as usize).wrapping_sub(self.space.current().base());
        if offset < self.late_page() * self.space.geometry.page {
            let (blocks, word) = (&self.space.blocks, offset / WORD);
            if !blocks.is_marked(word) && blocks.queue_once(word) {
                log.push(&self.segments, address);
            }
        } else if self.space.large.contains(address as usize)
            && self.space.large.mark(address as usize)
        {
            // For what depends on it as a key.
            log.push(&self.segments, address);
        }
    }

    /// Adds a global root; returns its place. The caller must be a running mutator.
    pub fn add_root(&self, address: u64) -> usize {
        self.roots.add(address)
    }

    /// The address that a global root holds. The caller must be a running mutator.
    #[inline]
    pub fn root(&self, place: usize) -> u64 {
        self.roots.get(place, |address| {
            // SAFETY: there was a flip, or no root would have to be forwarded.
            unsafe { self.builder() }.forward(address)
        })
    }

    /// Makes a global root hold another address. The caller must be a running mutator.
    pub fn set_root(&self, place: usize, address: u64) {
        let old = self.roots.set(place, address);
        // Relaxed: a running mutator has seen the pause that switched it on.
        if self.marking.load(Ordering::Relaxed) {
            self.roots.log(|log| self.remember(log, old));
        }
    }

    /// Forgets a global root. Any thread may.
    pub fn remove_root(&self, place: usize) {
        // SeqCst: after the root was cleared; pairs with the store in `begin_marking`.
        let marking = || self.marking.load(Ordering::SeqCst);
        self.roots.remove(place, marking, |log, old| self.remember(log, old));
    }

    /// Forwards all global roots: after the flip, before side tables are reset.
    pub(crate) fn forward_roots(&self) {
        // SAFETY: the flip has happened.
        let builder = unsafe { self.builder() };
        self.roots.forward_all(|address| builder.forward(address));
    }

    fn begin_marking(&self) {
        // Ready chunks stay ready if they lie at the end of what was handed out.
        let top = self.space.top();
        let late_page = self.ready.lowest(top).unwrap_or_else(|| {
            self.ready.withdraw(false);
            top
        });
        // Relaxed: the release from the pause publishes them.
        self.late_page.store(late_page, Ordering::Relaxed);
        self.large_born_marked.store(true, Ordering::Relaxed);
        self.mark_ended.store(false, Ordering::Relaxed);
        self.weak_reads.store(true, Ordering::Relaxed);
        // SeqCst: before any root is read; pairs with the load in `remove_root`.
        self.marking.store(true, Ordering::SeqCst);
    }

    /// Forwards every word of a mutator's handles.
    fn forward_handles(&self, mutator: &Mutator) {
        // SAFETY: a flip has happened.
        let builder = unsafe { self.builder() };
        // SAFETY: the mutator's part of a request.
        let local = unsafe { mutator.local() };
        local.range = (self.space.current().base(), self.space.current().len());
        for word in local.handles.words() {
            *word = builder.forward(*word);
        }
    }
}

impl Operations for Core {
    type Mutator = Mutator;
    type Op = Op;

    fn stops(op: Op) -> bool {
        !matches!(op, Op::FlushLogs)
    }

    fn each(&self, op: Op, mutator: &Mutator) {
        // SAFETY: the mutator's part of a request.
        let local = unsafe { mutator.local() };
        local.stop_began = monotonic_ns();
        match op {
            Op::FlushLogs | Op::FinalMark => {
                local.log.flush(&self.segments);
            }
            Op::StartMark | Op::Flip => self.retire(mutator),
            Op::Verify => {}
        }
        if !Self::stops(op) {
            self.stop_ended(mutator);
        }
    }

    fn rehearse(&self, op: Op) {
        if op == Op::Flip {
            self.flip(None);
        }
    }

    #[inline(always)]
    fn world(&self, op: Op, mutators: &[Entry<Mutator>]) {
        match op {
            Op::Flip => self.flip(Some(mutators)),
            other => self.stopped(other, mutators),
        }
    }

    fn after(&self, op: Op, mutator: &Mutator) {
        if op == Op::Flip && self.flip_failed.lock().unwrap().is_none() {
            self.forward_handles(mutator);
        }
        if op == Op::StartMark {
            let mut queue = RootQueue::new(self);
            // SAFETY: the mutator's part of a request.
            for word in unsafe { mutator.local() }.handles.words() {
                queue.push(*word);
            }
        }
        self.stop_ended(mutator);
    }

    fn now(&self) -> u64 {
        monotonic_ns()
    }
}

impl Core {
    /// What the pauses but the flip do with every mutator stopped.
    #[inline(never)]
    fn stopped(&self, op: Op, mutators: &[Entry<Mutator>]) {
        match op {
            Op::StartMark => {
                self.begin_marking();
                for entry in mutators {
                    // SAFETY: the world is stopped.
                    let local = unsafe { entry.mutator().local() };
                    (local.marking, local.weak_reads) = (true, true);
                }
            }
            Op::FinalMark => {
                // Until it has been found out, for this pause.
                self.mark_complete.store(false, Ordering::Relaxed);
                // A thread that is no mutator may be about to log a root: then marking goes on.
                let settled = self.roots.settled(|log| {
                    log.flush(&self.segments);
                    let complete = self.markers[0].lock().unwrap().finish(self);
                    self.mark_complete.store(complete, Ordering::Relaxed);
                    if complete && !self.hold_marking.load(Ordering::Relaxed) {
                        self.marking.store(false, Ordering::SeqCst);
                        self.mark_ended.store(true, Ordering::Relaxed);
                        let weak = self.ephemerons.begin_breaking();
                        self.weak_reads.store(weak, Ordering::Relaxed);
                        for entry in mutators {
                            // SAFETY: the world is stopped.
                            let local = unsafe { entry.mutator().local() };
                            (local.marking, local.weak_reads) = (false, weak);
                        }
                    }
                });
                self.roots_settled.store(settled, Ordering::Relaxed);
            }
            Op::Verify => {
                let failure = crate::verify::walk(self, mutators).err();
                *self.verify_failure.lock().unwrap() = failure;
            }
            Op::Flip => unreachable!("has a function of its own"),
            Op::FlushLogs => unreachable!("a handshake has no world part"),
        }
    }

    fn stop_ended(&self, mutator: &Mutator) {
        // SAFETY: the mutator's part of a request.
        let local = unsafe { mutator.local() };
        let begin = std::mem::take(&mut local.stop_began);
        let (thread, end) = (mutator.id, monotonic_ns());
        self.emit(Event::ThreadStop { thread, begin, end });
    }

    /// The flip itself: the world is stopped. Or, without mutators, its rehearsal, which changes nothing.
    ///
    /// Hardly anything of what the flip executes and looks at has been touched since the last one, so on the thread that
    /// arrives last most of the pause was waiting for memory: 0.8 to 1.0 us with 64 MiB live, and 1.3 to 1.6 with 4 GiB, of
    /// which marking leaves nothing in any cache. So the requester, before it asks, and each mutator that arrives
    /// go through it once: the same code, hence never inlined, as far as it only reads. (What the mutator that arrives last
    /// waits for then is part of the time to the safepoint.)
    #[inline(never)]
    fn flip(&self, mutators: Option<&[Entry<Mutator>]>) {
        let builds_in_pause = self.backend.builds_in_pause();
        let top = self.space.top();
        let plan = FlipPlan {
            marked_pages: self.planned_pages.load(Ordering::Relaxed),
            late_page: self.late_page(),
            top_page: self.ready.lowest(top).unwrap_or(top),
        };
        let Some(mutators) = mutators else {
            // Before the flip, concurrently: only atomics are read, and what never changes; the plan need not be right.
            prefetch_for_write(self.view.get().cast());
            prefetch_for_write((&raw const self.phase).cast());
            self.roots.rehearse_flip();
            prefetch_for_write((&raw const self.weak_reads).cast());
            return self.backend.rehearse_flip(&self.space, &plan);
        };
        self.ready.withdraw(true);
        match self.backend.flip(&self.space, &plan) {
            Err(errno) => *self.flip_failed.lock().unwrap() = Some(errno),
            Ok(view) => {
                // SAFETY: the world is stopped, and between two compactions no handler is inside.
                unsafe { self.set_view(view) };
                if builds_in_pause {
                    let mut compactor = self.pause_compactor.lock().unwrap();
                    compact_in_pause(self, compactor.as_mut().expect("made with the back end"));
                } else {
                    // Release: pairs with the acquire in the fault handler.
                    self.phase.store(phase::COMPACTING, Ordering::Release);
                }
                self.roots.flip();
            }
        }
        self.weak_reads.store(false, Ordering::Relaxed);
        let flips = self.flips.fetch_add(1, Ordering::Relaxed) + 1;
        for entry in mutators {
            // SAFETY: the world is stopped.
            let local = unsafe { entry.mutator().local() };
            (local.weak_reads, local.flips) = (false, flips);
        }
    }

    /// Calls `visit` with every global root. Not between a flip and the end of its cycle.
    pub fn each_global_root(&self, visit: impl FnMut(u64)) {
        self.roots.each(visit);
    }
}
