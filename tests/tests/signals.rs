//! The heap's fault handler among others: faults that are not the heap's reach whoever handled them before,
//! stale accesses are named, and serving a fault allocates nothing.

use firn::{DataArray, Event, FaultOutcome, Field, Heap, Listener, Trace};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[path = "support/heap.rs"]
mod heaps;
mod support;
use heaps::heap;
use support::{in_child, killed_by, succeeded};

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: passes everything on to the system's allocator; the count is a thread-local without initialiser.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

/// Faults of its own that the embedder's handler has served.
static SERVED: AtomicUsize = AtomicUsize::new(0);

/// An embedder's handler: gives a truncated file's page a memory of zeroes.
extern "C" fn embedder(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SERVED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: called by the kernel (or passed on by the heap's handler) with a fault's information; the page
    // at the fault is replaced by a fresh one.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let place = ((*info).si_addr() as usize & !(page - 1)) as *mut libc::c_void;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        libc::mmap(place, page, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
    }
}

/// Reads a page of a file that has been truncated under its mapping.
fn read_beyond_a_truncated_file() -> u8 {
    // SAFETY: a file of our own, mapped where the kernel likes; the read faults, which is the purpose.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let fd = libc::memfd_create(c"truncated".as_ptr(), 0);
        let file = <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd);
        file.set_len(page as u64).unwrap();
        let read = libc::PROT_READ;
        let fd = file.as_raw_fd();
        let place = libc::mmap(std::ptr::null_mut(), page, read, libc::MAP_SHARED, fd, 0);
        assert_ne!(place, libc::MAP_FAILED);
        file.set_len(0).unwrap();
        place.cast::<u8>().read_volatile()
    }
}

/// Keeps the heap busy with cycles and faults.
fn churn(heap: &Heap) {
    heap.attach(|cx| {
        let table = cx.alloc_refs::<DataArray<u64>>(2_000).unwrap();
        for round in 0..5 {
            for index in 0..2_000 {
                cx.scope(|cx| {
                    let data = cx.alloc_data::<u64>(16).unwrap();
                    data.get(cx).set(0, index as u64 + round);
                    table.get(cx).store(cx, index, Some(data.get(cx)));
                });
            }
            cx.collect();
            let table = table.get(cx);
            assert!((0..2_000).all(|i| table.load(cx, i).unwrap().get(0) == i as u64 + round));
        }
    });
}

#[test]
fn an_embedders_own_sigbus_handler_still_gets_its_own_faults() {
    let output = in_child("an_embedders_own_sigbus_handler_still_gets_its_own_faults", || {
        // SAFETY: a complete sigaction with a handler that is signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = embedder as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()), 0);
        }
        let heap = heap("heap=16m").or_else(|| heap("heap=16m,backend=stw")).unwrap();
        for turn in 1..=5 {
            churn(&heap);
            assert_eq!(read_beyond_a_truncated_file(), 0);
            assert_eq!(SERVED.load(Ordering::Relaxed), turn, "only its own faults reach it");
        }
        // On an attached thread too.
        heap.attach(|_| assert_eq!(read_beyond_a_truncated_file(), 0));
        assert_eq!(SERVED.load(Ordering::Relaxed), 6);
    });
    succeeded(&output);
}

#[test]
fn a_fault_that_nobody_handles_kills_the_process_by_its_signal() {
    let output = in_child("a_fault_that_nobody_handles_kills_the_process_by_its_signal", || {
        let heap = heap("heap=16m").or_else(|| heap("heap=16m,backend=stw")).unwrap();
        churn(&heap);
        read_beyond_a_truncated_file();
    });
    killed_by(&output, libc::SIGBUS);
}

/// Uses up any stack.
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + std::hint::black_box(frame)[1] }
}

#[test]
fn a_stack_overflow_is_still_reported_by_rust() {
    let output = in_child("a_stack_overflow_is_still_reported_by_rust", || {
        let heap = heap("heap=16m").or_else(|| heap("heap=16m,backend=stw")).unwrap();
        churn(&heap);
        let overflow = || heap.attach(|_| recurse(0));
        std::thread::scope(|threads| {
            let thread = std::thread::Builder::new().name("Overflowing".into());
            thread.spawn_scoped(threads, overflow).unwrap().join().unwrap();
        });
    });
    let text = killed_by(&output, libc::SIGABRT);
    assert!(text.contains("has overflowed its stack"), "{text}");
}

#[test]
fn a_stale_access_is_named_under_verification() {
    let output = in_child("a_stale_access_is_named_under_verification", || {
        let Some(heap) = heap("heap=16m,verify=true") else {
            eprintln!("firn: access to an address: not tried");
            // SAFETY: raises the signal that the parent waits for.
            unsafe { libc::raise(libc::SIGBUS) };
            return;
        };
        heap.attach(|cx| {
            let node = cx.alloc(Node { key: 7, next: Field::null() }).unwrap();
            let text = format!("{:?}", node.get(cx));
            let address = text.trim_start_matches("Gc(0x").trim_end_matches(')');
            let address =
                usize::from_str_radix(address, 16).expect("a reference shows its address");
            cx.collect();
            assert_eq!(node.get(cx).key, 7);
            // SAFETY: none: this is the bug that is to be diagnosed.
            let stale = unsafe { ((address + 8) as *const u64).read_volatile() };
            println!("read {stale}");
        });
    });
    let text = killed_by(&output, libc::SIGBUS);
    assert!(text.contains("firn: access to an address"), "{text}");
}

/// Counts pages that faulting threads built.
#[derive(Default)]
struct Built(AtomicU64);

impl Listener for Built {
    fn event(&self, event: &Event) {
        if let Event::Fault { outcome: FaultOutcome::Built, .. } = event {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn serving_faults_allocates_nothing() {
    for way in
        ["backend=pingpong", "backend=pingpong,install=copy", "backend=art", "backend=mprotect"]
    {
        let Some(heap) = heap(&format!("heap=64m,{way}")) else { continue };
        let built = Arc::<Built>::default();
        heap.add_listener(built.clone());
        const OBJECTS: usize = 40_000;
        heap.attach(|cx| {
            let table = cx.alloc_refs::<DataArray<u64>>(OBJECTS).unwrap();
            for index in 0..OBJECTS {
                cx.scope(|cx| {
                    let data = cx.alloc_data::<u64>(24).unwrap();
                    data.get(cx).set(23, index as u64);
                    table.get(cx).store(cx, index, Some(data.get(cx)));
                });
            }
            for _ in 0..10 {
                std::thread::scope(|threads| {
                    let before = format!("{:?}", table.get(cx));
                    let collection = threads.spawn(|| heap.collect());
                    // Until the flip has moved the table (the art back end keeps addresses: until the end).
                    while !collection.is_finished() && format!("{:?}", table.get(cx)) == before {
                        cx.safepoint();
                    }
                    let allocations = ALLOCATIONS.get();
                    let all = table.get(cx);
                    let sum =
                        (0..OBJECTS).rev().map(|i| all.load(cx, i).unwrap().get(23)).sum::<u64>();
                    assert_eq!(
                        ALLOCATIONS.get(),
                        allocations,
                        "{way}: the fault handler allocated"
                    );
                    assert_eq!(sum, (OBJECTS * (OBJECTS - 1) / 2) as u64);
                    cx.blocking(|| collection.join().unwrap());
                });
            }
        });
        if way != "backend=art" {
            assert!(built.0.load(Ordering::Relaxed) > 0, "{way}: no page was built by a fault");
        }
    }
}
