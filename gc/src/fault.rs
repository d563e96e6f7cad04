//! Faults: from the signal to the page.
//!
//! **Rules of the handler.** It allocates nothing, takes no lock, calls no embedder code, and reads only
//! from-pages and side tables, so it cannot fault again. What it needs is preallocated: a slot (a hazard and
//! a page-sized buffer), claimed by one compare-and-swap, and room for a record; a wide buffer for what it builds
//! together with its page (`around.rs`) it takes only if one is free. It never waits for a thread
//! that may be descheduled: a page that somebody else has claimed is built a second time after a short spin.
//! The signals' only process-wide state is the registry below; whatever is not a fault of one of its heaps
//! goes on to the handler that was there before.

use crate::around::Wide;
use crate::build::Builder;
use crate::config::FaultOutcome;
use crate::core::{Core, CoreError, phase};
use crate::events::Event;
use firn_heap::pages::{Access, Hazard, StateCell};
use firn_heap::sys::Errno;
use firn_heap::sys::futex;
use firn_heap::sys::map::{Advice, MapError, Reservation, advise};
use firn_heap::sys::signal::{self, Previous, preserve_errno};
use firn_heap::sys::thread::{give_way, monotonic_ns};
use firn_heap::table::{Table, Zeroed};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Threads that can serve faults at the same time; more wait for a slot.
const SLOTS: usize = 64;
/// Faults recorded in one cycle; more are counted as lost.
const RECORDS: usize = 1 << 16;
/// Turns a faulting thread spins for a page that somebody else has claimed: about a microsecond, less than
/// building it takes.
const SPINS: usize = 100;
/// Heaps that can serve faults.
const HEAPS: usize = 64;

thread_local! {
    /// The calling thread's mutator number, for the records.
    static MUTATOR: Cell<u32> = const { Cell::new(u32::MAX) };
    /// The last address that faulted without need, in which cycle, and how often in a row.
    static REPEATED: Cell<(usize, u64, u32)> = const { Cell::new((0, 0, 0)) };
}

/// The calling thread's mutator number.
pub fn thread() -> u32 {
    MUTATOR.get()
}

/// Tells the fault records which mutator the calling thread is.
pub fn set_thread(mutator: Option<u32>) {
    MUTATOR.set(mutator.unwrap_or(u32::MAX));
}

/// One builder's means: a hazard and a buffer.
pub struct FaultSlot {
    busy: AtomicU32,
    /// What it is building.
    pub hazard: Hazard,
    /// A page to build in.
    pub buffer: usize,
}

/// A fault that has been served.
struct Fault {
    begin: u64,
    end: u64,
    page: usize,
    /// Mutator number.
    thread: u32,
    outcome: FaultOutcome,
    /// Pages that the handler published.
    published: u64,
}

/// The same, where a handler leaves it.
#[repr(C)]
struct Record {
    begin: AtomicU64,
    end: AtomicU64,
    page: AtomicU32,
    thread: AtomicU32,
    /// 1 + outcome.
    outcome: AtomicU32,
    published: AtomicU32,
}

// SAFETY: atomic integers only.
unsafe impl Zeroed for Record {}

/// Everything the handler needs, preallocated.
pub struct FaultDesk {
    /// Slots for faulting threads, then one for each collector thread.
    pub slots: Vec<FaultSlot>,
    /// Room for pages that are built together.
    pub(crate) wide: Wide,
    records: Table<Record>,
    recorded: AtomicUsize,
    inside: AtomicUsize,
    /// Whether the finisher wants to be told when a handler leaves.
    awaited: AtomicBool,
    /// Handlers that have left while it did.
    departures: AtomicU32,
    _buffers: Reservation,
}

/// Buffers of `bytes` bytes that the handler does not have to fault in.
pub(crate) fn populated(
    bytes: usize,
    page: usize,
    name: &'static str,
) -> Result<Reservation, MapError> {
    let buffers = Reservation::anonymous(bytes, page, name)?;
    // SAFETY: touches no contents.
    let _ = unsafe { advise(buffers.base(), buffers.len(), Advice::PopulateWrite) };
    Ok(buffers)
}

impl FaultDesk {
    /// Slots for faults, and for `workers` collector threads; buffers for `around` pages that are built together.
    pub fn new(page: usize, workers: usize, around: usize) -> Result<FaultDesk, MapError> {
        let count = SLOTS + workers;
        let buffers = populated(count * page, page, "firn fault buffers")?;
        let slots = (0..count)
            .map(|index| FaultSlot {
                busy: AtomicU32::new(0),
                hazard: Hazard::new(),
                buffer: buffers.base() + index * page,
            })
            .collect();
        Ok(FaultDesk {
            slots,
            wide: Wide::new(page, around)?,
            records: Table::new(RECORDS, "firn fault records")?,
            recorded: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            departures: AtomicU32::new(0),
            _buffers: buffers,
        })
    }

    /// The slot of collector thread `worker`.
    pub fn worker(&self, worker: usize) -> &FaultSlot {
        &self.slots[SLOTS + worker]
    }

    /// Takes a free slot; looks first where the calling thread is likely to find one.
    fn claim(&self) -> &FaultSlot {
        let here = 0u8;
        let hint = (&raw const here as usize >> 14) % SLOTS;
        for round in 0.. {
            for step in 0..SLOTS {
                let slot = &self.slots[(hint + step) % SLOTS];
                // Acquire: pairs with the release in `serve`.
                let free = slot.busy.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
                if free.is_ok() {
                    return slot;
                }
            }
            // All are taken, perhaps by threads that do not run.
            give_way(round);
        }
        unreachable!("the rounds do not end")
    }

    fn record(&self, fault: Fault) {
        // Relaxed, all: read after the last handler has left (`drain`).
        let index = self.recorded.fetch_add(1, Ordering::Relaxed);
        if let Some(record) = self.records.get(index) {
            record.begin.store(fault.begin, Ordering::Relaxed);
            record.end.store(fault.end, Ordering::Relaxed);
            record.page.store(fault.page as u32, Ordering::Relaxed);
            record.thread.store(fault.thread, Ordering::Relaxed);
            record.outcome.store(fault.outcome as u32 + 1, Ordering::Relaxed);
            record.published.store(fault.published as u32, Ordering::Relaxed);
        }
    }

    /// Delivers the records of a cycle whose handlers have all left.
    pub fn drain(&self, core: &Core, cycle: u64) {
        let recorded = self.recorded.swap(0, Ordering::Acquire);
        for record in &self.records[..recorded.min(RECORDS)] {
            let outcome = record.outcome.load(Ordering::Relaxed) as usize - 1;
            core.emit(Event::Fault {
                cycle,
                thread: record.thread.load(Ordering::Relaxed),
                begin: record.begin.load(Ordering::Relaxed),
                end: record.end.load(Ordering::Relaxed),
                outcome: FaultOutcome::ALL[outcome],
                page: record.page.load(Ordering::Relaxed),
                published: record.published.load(Ordering::Relaxed),
            });
        }
        if recorded > RECORDS {
            core.emit(Event::FaultsLost { count: (recorded - RECORDS) as u64 });
        }
    }

    /// Whether some builder other than `slot`'s has announced to-page `page`.
    pub(crate) fn read_by_others(&self, page: usize, slot: &FaultSlot) -> bool {
        self.slots.iter().any(|other| !std::ptr::eq(other, slot) && other.hazard.covers(page, 1))
    }

    /// Whether a handler is inside.
    pub fn occupied(&self) -> bool {
        // SeqCst: pairs with the handler's entry (Dekker with the phase).
        self.inside.load(Ordering::SeqCst) != 0
    }

    fn enter(&self) {
        // SeqCst: either the finisher sees this handler inside, or this handler sees the phase change.
        self.inside.fetch_add(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        // SeqCst: what this handler has done comes before it, and the look at `awaited` after: either that is
        // seen, or the finisher sees this handler gone and all it has done.
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if self.awaited.load(Ordering::SeqCst) {
            self.departures.fetch_add(1, Ordering::SeqCst);
            futex::wake_all(&self.departures);
        }
    }

    /// Sleeps until `reached`, which a handler brings about by what it does before it leaves. Sleeps, because the
    /// handler's thread may need this very processor, and yielding does not give that to a thread of a lower
    /// scheduling class. Only for the coordinating thread.
    pub(crate) fn await_departures(&self, reached: impl Fn() -> bool) {
        // SeqCst: see `leave`.
        self.awaited.store(true, Ordering::SeqCst);
        loop {
            let departures = self.departures.load(Ordering::SeqCst);
            if reached() {
                break;
            }
            futex::wait(&self.departures, departures, None);
        }
        self.awaited.store(false, Ordering::SeqCst);
    }
}

/// What a fault turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// A to-page that is there now.
    Page(FaultOutcome),
    /// Nothing is missing any more: the access can be repeated.
    Repeat,
    /// An access that no page of this heap can satisfy.
    NotMissing,
}

impl Core {
    /// Makes the page at `address` present, if it is a to-page. Safe in a signal handler.
    pub fn serve_fault(&self, address: usize, thread: u32) -> Served {
        self.faults.enter();
        let served = self.serve(address, thread);
        self.faults.leave();
        served
    }

    fn serve(&self, address: usize, thread: u32) -> Served {
        let current = self.space.current();
        if self.phase.load(Ordering::SeqCst) != phase::COMPACTING {
            let top = current.base() + self.space.top() * self.space.geometry.page;
            let inside = (current.base()..top).contains(&address);
            return if inside { Served::Repeat } else { Served::NotMissing };
        }
        // SAFETY: the phase says that a flip has happened; SeqCst includes acquire.
        let view = unsafe { self.view() };
        let page = address.wrapping_sub(view.new_base) / self.space.geometry.page;
        if page >= view.total_pages {
            return if current.contains(address) { Served::Repeat } else { Served::NotMissing };
        }
        // What the build will read is cold, one address leads to the next, and the sequentially consistent
        // operations below let nothing overtake them: start now.
        self.space.prefetch_page(page);
        let begin = monotonic_ns();
        // SAFETY: a compaction is under way.
        unsafe { self.builder() }.prefetch_source(page, Builder::SOURCE);
        let slot = self.faults.claim();
        let published = AtomicU64::new(0);
        let outcome = self.ensure(page, slot, &published);
        let published = published.into_inner();
        // Relaxed: a count.
        self.counters.by_mutators.fetch_add(published, Ordering::Relaxed);
        // Release: pairs with the acquire in `claim`.
        slot.busy.store(0, Ordering::Release);
        let end = monotonic_ns();
        self.faults.record(Fault { begin, end, page, thread, outcome, published });
        Served::Page(outcome)
    }

    /// Makes to-page `page` present, whoever has claimed it, without ever waiting for them.
    pub fn ensure(&self, page: usize, slot: &FaultSlot, count: &AtomicU64) -> FaultOutcome {
        let cell = StateCell(self.space.state(page));
        if cell.get().is_published() {
            self.wake(page);
            return FaultOutcome::AlreadyMapped;
        }
        let mine = cell.claim();
        if !mine {
            for _ in 0..SPINS {
                if cell.get().is_published() {
                    self.wake(page);
                    return FaultOutcome::Waited;
                }
                std::hint::spin_loop();
            }
        }
        slot.hazard.announce(page, 1);
        let access = cell.access();
        // SAFETY: a compaction is under way.
        let builder = unsafe { self.builder() };
        match access {
            Access::Published => {
                slot.hazard.withdraw();
                self.wake(page);
                return FaultOutcome::Waited;
            }
            Access::Move => {
                // The content is final in its from-page: nothing of it is read here.
                slot.hazard.withdraw();
                if self.move_around(&builder, page, count) {
                    self.give_up_on_endless_refusal(page);
                    return FaultOutcome::Waited;
                }
            }
            Access::Read => {
                let refused = if mine {
                    self.build_around(&builder, page, slot, count)
                } else {
                    self.build_alone(&builder, page, slot, count)
                };
                slot.hazard.withdraw();
                if refused {
                    // The access faults again, or the collector asks again.
                    self.give_up_on_endless_refusal(page);
                    return FaultOutcome::Waited;
                }
            }
        }
        REPEATED.set((usize::MAX, 0, 0));
        if mine { FaultOutcome::Built } else { FaultOutcome::Helped }
    }

    /// In fault-thread mode a thread may sleep in the kernel for a page that somebody else published.
    fn wake(&self, page: usize) {
        if let Some(installer) = self.backend.installer()
            && installer.wake
        {
            let bytes = self.space.geometry.page;
            // SAFETY: a compaction is under way.
            let address = unsafe { self.view() }.new_base + page * bytes;
            let _ = installer.uffd.wake(address, bytes);
        }
    }

    /// Serves faults read from the descriptor until it is told to stop: the fault thread's body.
    pub fn serve_descriptor(&self) {
        let Some(installer) = self.backend.installer() else { return };
        while let Ok(Some(fault)) = installer.uffd.read_fault(None) {
            let thread = fault.thread_id.map_or(u32::MAX, |tid| self.mutator_of(tid));
            match self.serve_fault(fault.addr, thread) {
                Served::Page(_) => {}
                Served::Repeat | Served::NotMissing => {
                    let page = self.space.geometry.page;
                    let _ = installer.uffd.wake(fault.addr & !(page - 1), page);
                }
            }
        }
    }
}

/// The heaps whose faults reach [`handler`].
static REGISTRY: [AtomicPtr<Core>; HEAPS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; HEAPS];
/// Handlers between reading a registry entry and leaving it.
static READING: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_BUS: OnceLock<Previous> = OnceLock::new();
static PREVIOUS_SEGV: OnceLock<Previous> = OnceLock::new();

/// The signals that faults come as. A thread that has one of them blocked dies of it.
pub const FAULT_SIGNALS: [libc::c_int; 2] = [libc::SIGBUS, libc::SIGSEGV];

/// Held while the handlers are installed: somebody whose slot is filled must find the handler in its place.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Makes faults in `core`'s ranges reach it.
pub fn register(core: &Arc<Core>) -> Result<(), CoreError> {
    let installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    for (signal, previous) in FAULT_SIGNALS.into_iter().zip([&PREVIOUS_BUS, &PREVIOUS_SEGV]) {
        // SAFETY: the handler follows the rules above and chains.
        match unsafe { signal::install(signal, handler, previous) } {
            // `EEXIST`: somebody handles the signal in front of us, and chains to us if well-behaved.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(CoreError::Signal(errno)),
        }
    }
    drop(installing);
    let pointer = Arc::as_ptr(core).cast_mut();
    for entry in &REGISTRY {
        // SeqCst: pairs with the handler's load.
        let free = entry.compare_exchange(
            std::ptr::null_mut(),
            pointer,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if free.is_ok() {
            return Ok(());
        }
    }
    Err(CoreError::TooManyHeaps(HEAPS))
}

impl Drop for Core {
    fn drop(&mut self) {
        let pointer: *mut Core = self;
        for entry in &REGISTRY {
            let _ = entry.compare_exchange(
                pointer,
                std::ptr::null_mut(),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
        }
        // SeqCst: a handler that read the entry before it was cleared is counted; wait for it to leave.
        for turn in 0.. {
            if READING.load(Ordering::SeqCst) == 0 {
                break;
            }
            give_way(turn);
        }
    }
}

/// The signal handler for SIGBUS and SIGSEGV. The rules at the head of this file hold from here on.
///
/// # Safety
/// For the kernel to call.
unsafe extern "C" fn handler(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel's arguments.
    let address = unsafe { signal::is_synchronous(info).then(|| signal::fault_address(info)) };
    if address.is_some_and(|address| preserve_errno(|| serve_registered(address))) {
        return;
    }
    let previous = if signal == libc::SIGBUS { &PREVIOUS_BUS } else { &PREVIOUS_SEGV };
    if let Some(previous) = previous.get() {
        // SAFETY: called from a handler with the kernel's arguments.
        unsafe { signal::chain(signal, info, context, previous) };
    }
}

/// Whether the fault was one of a registered heap's and the access can be repeated.
fn serve_registered(address: usize) -> bool {
    // SeqCst: pairs with `drop`.
    READING.fetch_add(1, Ordering::SeqCst);
    let mut served = false;
    for entry in &REGISTRY {
        let core = entry.load(Ordering::SeqCst);
        if core.is_null() {
            continue;
        }
        // SAFETY: a registered core is alive: its drop clears the entry and waits for `READING`.
        let core = unsafe { &*core };
        if core.space.ranges.iter().any(|range| range.contains(address)) {
            served = match core.serve_fault(address, MUTATOR.get()) {
                // It was there already: over and over, if this process is a fork, in which the heap is not mapped.
                Served::Page(FaultOutcome::AlreadyMapped) | Served::Repeat => {
                    !core.endless(address)
                }
                Served::Page(_) => true,
                Served::NotMissing => false,
            };
            if !served {
                complain(address);
            }
            break;
        }
    }
    READING.fetch_sub(1, Ordering::SeqCst);
    served
}

impl Core {
    /// Whether the same fault or refusal has repeated in this thread and cycle so often that the page will never come.
    fn endless(&self, address: usize) -> bool {
        // Relaxed: a count.
        let cycle = self.cycle.load(Ordering::Relaxed);
        let (last, then, times) = REPEATED.get();
        let times = if (last, then) == (address, cycle) { times + 1 } else { 0 };
        REPEATED.set((address, cycle, times));
        times > 10_000
    }

    /// Ends the process if the kernel has refused the same page so often that it always will: without the page
    /// nothing that touches it can go on.
    fn give_up_on_endless_refusal(&self, page: usize) {
        if self.endless(page) {
            const TEXT: &[u8] = b"firn: the kernel keeps refusing to install a page of the heap (a range that was unregistered or mapped over? no memory left in the cgroup?); the process cannot go on\n";
            // SAFETY: a valid buffer; write and abort are async-signal-safe.
            unsafe {
                libc::write(2, TEXT.as_ptr().cast(), TEXT.len());
                libc::abort();
            }
        }
    }
}

/// Says on standard error what kind of access this was; the previous handler then ends the process.
fn complain(_address: usize) {
    const TEXT: &[u8] = b"firn: access to an address of the heap that holds no object now: a reference was kept across a collection without a root, or memory was overwritten\n";
    // SAFETY: a valid buffer; write is async-signal-safe.
    unsafe { libc::write(2, TEXT.as_ptr().cast(), TEXT.len()) };
}
