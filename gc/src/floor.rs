//! Floors: the least that a mechanism could cost on this machine, measured on the same data in the same run.
//!
//! `firn micro` prints its figures as ratios against these. They are plain loops without any of the
//! collector's machinery around them; only for measurement, with the mutators blocked.

use crate::core::{Core, Op};
use crate::cycle::Collector;
use crate::plan::blocks_below;
use firn_heap::WORD;
use firn_heap::blocks::prefetch_for_write;
use firn_heap::layout::{Header, Slot};
use firn_heap::sys::map::{Advice, MapError, Reservation, advise};
use firn_heap::sys::signal::{self, Previous, Replaced};
use firn_heap::sys::thread::monotonic_ns;
use firn_heap::sys::uffd::Userfaultfd;
use firn_heap::tlab::AHEAD;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// What the floors of a heap's present contents took.
#[derive(Clone, Copy, Debug)]
pub struct Floors {
    /// Nanoseconds of the slide of everything live into a range that is mapped already.
    pub slide_ns: u64,
    /// To-pages of that slide.
    pub slide_pages: usize,
    /// Nanoseconds of a plain traversal with an explicit stack that sets one bit an object.
    pub traverse_ns: u64,
    /// Objects it met.
    pub objects: u64,
}

impl Collector {
    /// Measures the floors on what is reachable from global roots. Nothing moves.
    ///
    /// # Errors
    /// If there is no address space for the mapped range.
    pub fn floors(&mut self) -> Result<Floors, MapError> {
        let core = self.core().clone();
        let (traverse_ns, objects) = traverse(&core)?;
        core.safepoints.request(&*core, Op::StartMark);
        core.return_withdrawn();
        self.mark_for_measurement();
        let plan = crate::plan::plan(&core.space, core.late_page(), 101);
        let page = core.space.geometry.page;
        let target = Reservation::anonymous((plan.marked_pages.max(1)) * page, page, "firn floor")?;
        // SAFETY: touches no contents: the target is to be a mapped range, without huge pages as the heap.
        unsafe {
            let _ = advise(target.base(), target.len(), Advice::NoHugepage);
            std::ptr::write_bytes(target.base() as *mut u8, 1, target.len());
        }
        let base = core.space.current().base();
        let late = core.late_page() * page;
        let view = crate::build::View {
            old_base: base,
            read_base: base,
            new_base: target.base(),
            late_from: late,
            old_top: late,
            marked_pages: plan.marked_pages,
            total_pages: plan.marked_pages,
            ..crate::build::View::default()
        };
        let builder = crate::build::Builder { space: &core.space, view: &view };
        let begin = monotonic_ns();
        for number in 0..plan.marked_pages {
            let place = (target.base() + number * page) as *mut u64;
            // SAFETY: marked and planned above; the mutators are blocked; the target is this function's.
            unsafe { builder.build(number, place) };
        }
        let slide_ns = monotonic_ns() - begin;
        core.space.blocks.reset(0, blocks_below(&core.space, core.late_page()));
        Ok(Floors { slide_ns, slide_pages: plan.marked_pages, traverse_ns, objects })
    }
}

/// The plain traversal: pop, look at each reference, test and set a bit, push.
fn traverse(core: &Core) -> Result<(u64, u64), MapError> {
    let base = core.space.current().base();
    let bytes = core.space.top() * core.space.geometry.page;
    let mut bits = vec![0u64; bytes / WORD / 64 + 1];
    // The stack must not be reallocated while the clock runs.
    let mut stack: Vec<u64> = Vec::with_capacity(1 << 24);
    let mut objects = 0u64;
    let mut first = |address: u64, stack: &mut Vec<u64>| {
        let word = (address as usize).wrapping_sub(base) / WORD;
        if word < bytes / WORD && bits[word / 64] >> (word % 64) & 1 == 0 {
            bits[word / 64] |= 1 << (word % 64);
            stack.push(address);
        }
    };
    let begin = monotonic_ns();
    core.each_global_root(|root| first(root, &mut stack));
    while let Some(address) = stack.pop() {
        objects += 1;
        // SAFETY: reachable objects, with the mutators blocked.
        let header = Header(unsafe { (address as *const u64).read() });
        // SAFETY: an object's header.
        let descriptor = unsafe { core.space.layouts.get_unchecked(header.layout()) };
        if descriptor.is_leaf() {
            continue;
        }
        descriptor.each_slot(0, descriptor.words(header), |index, slot| {
            // SAFETY: a slot of the object.
            let value = unsafe { (address as *const u64).add(index).read() };
            match slot {
                Slot::Ref => first(value, &mut stack),
                Slot::Tagged if descriptor.rule().is_reference(value) => {
                    first(descriptor.rule().address_of(value), &mut stack);
                }
                Slot::Tagged => {}
            }
        });
    }
    Ok((monotonic_ns() - begin, objects))
}

/// Nanoseconds in which the processor writes an object of 32 bytes behind the last one, over and over through `bytes` of
/// mapped memory: the floor of any allocation that goes once around so much memory between two cycles. The median of
/// nine rounds.
///
/// # Errors
/// If there is no address space.
pub fn writes(bytes: usize) -> Result<f64, MapError> {
    const OBJECT: usize = 4 * WORD;
    const ROUNDS: usize = 9;
    // What is asked for ahead of the last object is there, too.
    let page = firn_heap::sys::page_size();
    let all = (bytes + AHEAD).next_multiple_of(page);
    let memory = Reservation::anonymous(all, page, "firn floor")?;
    // SAFETY: fresh memory of this function's, without huge pages as the heap.
    unsafe {
        let _ = advise(memory.base(), memory.len(), Advice::NoHugepage);
        std::ptr::write_bytes(memory.base() as *mut u8, 1, memory.len());
    }
    let mut rounds = [0.0; ROUNDS];
    for each in &mut rounds {
        let begin = monotonic_ns();
        for number in 0..bytes / OBJECT {
            let object = (memory.base() + number * OBJECT) as *mut u64;
            prefetch_for_write(object.wrapping_byte_add(AHEAD).cast());
            for word in 0..OBJECT / WORD {
                // SAFETY: inside of the memory above.
                unsafe { object.add(word).write_volatile(number as u64) };
            }
        }
        *each = (monotonic_ns() - begin) as f64 / (bytes / OBJECT) as f64;
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

static RAW: AtomicPtr<Userfaultfd> = AtomicPtr::new(std::ptr::null_mut());
static RAW_BASE: AtomicUsize = AtomicUsize::new(0);
static RAW_LEN: AtomicUsize = AtomicUsize::new(0);
static RAW_SOURCE: AtomicUsize = AtomicUsize::new(0);
static RAW_PREVIOUS: AtomicPtr<Previous> = AtomicPtr::new(std::ptr::null_mut());

/// # Safety
/// For the kernel to call.
unsafe extern "C" fn raw_handler(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel's arguments.
    let address = unsafe { signal::fault_address(info) };
    let uffd = RAW.load(Ordering::Acquire);
    let offset = address.wrapping_sub(RAW_BASE.load(Ordering::Relaxed));
    if !uffd.is_null() && offset < RAW_LEN.load(Ordering::Relaxed) {
        let page = firn_heap::sys::page_size();
        let place = address & !(page - 1);
        // SAFETY: set by `raw_faults`, which waits for its own thread only, the one that faults here.
        let _ = unsafe { &*uffd }.copy(place, RAW_SOURCE.load(Ordering::Relaxed), page, false);
        return;
    }
    // Acquire: pairs with the release in `Replaced::new`, which stores it before this handler can run.
    let previous = RAW_PREVIOUS.load(Ordering::Acquire);
    // SAFETY: never freed; called from a handler with the kernel's arguments.
    unsafe { signal::chain(signal, info, context, &*previous) };
}

/// Nanoseconds of each of `pages` accesses to missing pages that a SIGBUS handler fills by COPY: the floor of
/// any page fault served on the faulting thread. Not to be called on several threads at once.
///
/// # Errors
/// What was missing.
pub fn raw_faults(pages: usize) -> Result<Vec<u64>, String> {
    let page = firn_heap::sys::page_size();
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let uffd = Box::new(Userfaultfd::open(true).map_err(|error| text(&error))?);
    let range = Reservation::anonymous(pages * page, 1 << 21, "firn raw").map_err(|e| text(&e))?;
    let source = Reservation::anonymous(page, page, "firn raw").map_err(|e| text(&e))?;
    // SAFETY: fresh ranges that nobody else uses.
    unsafe {
        let _ = advise(range.base(), range.len(), Advice::NoHugepage);
        (range.base() as *mut u64).write_volatile(0);
        let _ = advise(range.base(), range.len(), Advice::DontNeed);
        (source.base() as *mut u64).write_volatile(1);
    }
    uffd.register_missing(range.base(), range.len()).map_err(|error| text(&error))?;
    RAW_BASE.store(range.base(), Ordering::Relaxed);
    RAW_LEN.store(range.len(), Ordering::Relaxed);
    RAW_SOURCE.store(source.base(), Ordering::Relaxed);
    RAW.store(&raw const *uffd as *mut Userfaultfd, Ordering::Release);
    // In front of the collector's own handler for as long as this takes: passing signals on costs time, which
    // must not count on either side.
    // SAFETY: the handler is signal-safe and chains.
    let handler = unsafe { Replaced::new(libc::SIGBUS, raw_handler, &RAW_PREVIOUS) };
    let handler = handler.map_err(|error| format!("SIGBUS handler: {error}"))?;
    let mut times = Vec::with_capacity(pages);
    for number in 0..pages {
        // Scattered, as a program's faults are: by a stride that meets every page.
        let number = number.wrapping_mul(0x9E37_79B1) % pages;
        let begin = monotonic_ns();
        // SAFETY: the handler makes the page present.
        unsafe { ((range.base() + number * page) as *const u64).read_volatile() };
        times.push(monotonic_ns() - begin);
    }
    drop(handler);
    RAW.store(std::ptr::null_mut(), Ordering::Release);
    Ok(times)
}
