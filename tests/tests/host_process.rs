//! What the process around a heap may do: block its signals, lock its memory, fork in the middle of a compaction, run out
//! of address space, ask for a type that is refused, and drop the last handle where the daemon runs.

use firn::{
    Event, Field, Heap, Listener, NoGc, Options, OutOfMemory, Scope, TagRule, Trace, WordRule,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

#[path = "support/heap.rs"]
mod heaps;
mod support;
use heaps::heap;
use support::{in_child, succeeded, text};

const MIB: usize = 1 << 20;

#[derive(Trace)]
struct Node {
    next: Field<Node>,
    key: u64,
    pad: [u64; 5],
}

/// Every other one of `count` objects stays, in a list; returns the sum of their keys.
fn list(cx: &mut Scope<'_>, count: u64) -> Result<(firn::Root<Node>, u64), OutOfMemory> {
    let (list, mut sum) = (cx.var::<Node>(), 0);
    for key in 0..count {
        let nogc = cx.reserve(NoGc::size_of::<Node>())?;
        let node = nogc.alloc(Node { next: Field::null(), key, pad: [key; 5] });
        if key % 2 == 0 {
            node.next.store(&nogc, list.get(&nogc));
            list.set(&nogc, Some(node));
            sum += key;
        }
    }
    let head = list.get(cx).expect("not empty");
    Ok((cx.global(head), sum))
}

fn sum(cx: &Scope<'_>, root: &firn::Root<Node>) -> u64 {
    let (mut next, mut sum) = (Some(root.get(cx)), 0);
    while let Some(node) = next {
        assert!(node.pad.iter().all(|word| *word == node.key));
        sum += node.key;
        next = node.next.load(cx);
    }
    sum
}

/// Reads everything while it is being compacted; returns how often it did.
fn read_while_compacting(heap: &Heap) -> Result<usize, OutOfMemory> {
    heap.attach(|cx| {
        let (root, expected) = list(cx, 200_000)?;
        for _ in 0..5 {
            let before = cx.address_epoch();
            let other = heap.clone();
            let collecting = std::thread::spawn(move || other.collect());
            while cx.address_epoch() == before {
                cx.blocking(std::thread::yield_now);
            }
            assert_eq!(sum(cx, &root), expected);
            cx.blocking(|| collecting.join().unwrap());
        }
        Ok(5)
    })
}

#[test]
fn a_thread_that_blocks_all_signals_meets_its_faults() {
    let output = in_child("a_thread_that_blocks_all_signals_meets_its_faults", || {
        // SAFETY: live sets; the mask is this thread's, and of those that it starts.
        let blocked = |set: Option<libc::sigset_t>| unsafe {
            let mut before = std::mem::zeroed();
            let set = set.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, set, &raw mut before), 0);
            [libc::SIGBUS, libc::SIGSEGV].map(|signal| libc::sigismember(&raw const before, signal))
        };
        // SAFETY: a live set.
        let all = unsafe {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            all
        };
        blocked(Some(all));
        for way in ["pingpong", "art", "mprotect"] {
            let Some(heap) = heap(&format!("heap=64m,backend={way}")) else { continue };
            assert_eq!(read_while_compacting(&heap).unwrap(), 5);
            assert_eq!(blocked(None), [1, 1], "{way}: blocked again once the thread is detached");
            println!("{way}: read");
        }
    });
    println!("{}", succeeded(&output));
}

#[test]
fn a_process_that_locks_all_its_memory_has_a_heap_that_uses_what_it_needs() {
    let output =
        in_child("a_process_that_locks_all_its_memory_has_a_heap_that_uses_what_it_needs", || {
            // SAFETY: no memory is touched.
            if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
                println!("left out: memory cannot be locked (RLIMIT_MEMLOCK, or CAP_IPC_LOCK)");
                return;
            }
            for way in ["pingpong", "art", "mprotect", "stw"] {
                let before = resident();
                let Some(heap) = heap(&format!("heap=512m,backend={way}")) else { continue };
                let made = resident() - before;
                assert!(made < 64 * MIB, "{way}: {} MiB as soon as it is made", made / MIB);
                assert_eq!(read_while_compacting(&heap).unwrap(), 5);
            }
        });
    println!("{}", succeeded(&output));
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * firn_heap::sys::page_size()
}

#[test]
fn a_fork_in_the_middle_of_a_compaction_that_touches_the_heap_dies_and_one_that_drops_it_ends() {
    for drops in [false, true] {
        let Some(heap) = heap("heap=512m,workers=1") else { return };
        heap.attach(|cx| {
            let (root, _) = list(cx, 2_000_000).unwrap();
            let before = cx.address_epoch();
            let other = heap.clone();
            let collecting = std::thread::spawn(move || other.collect());
            while cx.address_epoch() == before {
                cx.safepoint();
            }
            let node = root.get(cx);
            // Its page is there now.
            let key = node.key;
            // SAFETY: the child touches memory, drops a handle and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                if drops {
                    drop(heap.clone());
                    // SAFETY: ends the child alone.
                    unsafe { libc::_exit(0) }
                }
                let same = node.key == key;
                // SAFETY: as above.
                unsafe { libc::_exit(i32::from(!same)) }
            }
            let mut status = 0;
            // SAFETY: a child of this process, and a place for its status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            if drops {
                assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
            } else {
                assert!(libc::WIFSIGNALED(status), "{status:#x}");
                assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
            }
            cx.blocking(|| collecting.join().unwrap());
        });
    }
}

#[test]
fn a_collection_needs_no_address_space_that_was_not_there_before() {
    let output = in_child("a_collection_needs_no_address_space_that_was_not_there_before", || {
        let limit = |bytes: u64| {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: the kernel reads a live struct.
            unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }
        };
        if limit(libc::RLIM_INFINITY) != 0 {
            println!("left out: the limit of address space cannot be raised again (ulimit -v)");
            return;
        }
        for way in ["pingpong", "art", "mprotect", "stw"] {
            let Some(heap) = heap(&format!("heap=64m,backend={way}")) else { continue };
            heap.attach(|cx| {
                let (root, expected) = list(cx, 1_000).unwrap();
                cx.collect();
                let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
                let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
                assert_eq!(limit(pages * firn_heap::sys::page_size() as u64), 0);
                cx.collect();
                assert_eq!(sum(cx, &root), expected);
                assert_eq!(limit(libc::RLIM_INFINITY), 0);
            });
            println!("{way}: collected");
        }
    });
    println!("{}", succeeded(&output));
}

/// Takes the low bits for a part of the address.
struct Unsound;
impl WordRule for Unsound {
    const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0xff, address: !0 };
}

#[test]
fn a_type_that_is_refused_does_not_concern_the_others() {
    let heap = Heap::new(&Options::parse("heap=16m,backend=stw").unwrap()).unwrap();
    let refused = catch_unwind(AssertUnwindSafe(|| {
        heap.attach(|cx| cx.alloc_tagged::<Unsound>(3).is_ok());
    }));
    assert!(refused.is_err());
    assert_eq!(heap.attach(|cx| list(cx, 10).map(|(root, _)| root.get(cx).key)).unwrap(), 8);
}

/// Drops a handle on the daemon, when it is told to.
struct Drops {
    handle: Mutex<Option<Heap>>,
    told: Mutex<Receiver<()>>,
    begun: Mutex<Sender<()>>,
    done: Mutex<Sender<()>>,
}

impl Listener for Drops {
    fn event(&self, event: &Event) {
        if let Event::CycleEnd { .. } = event
            && let Some(heap) = self.handle.lock().unwrap().take()
        {
            self.begun.lock().unwrap().send(()).unwrap();
            self.told.lock().unwrap().recv().unwrap();
            drop(heap);
            self.done.lock().unwrap().send(()).unwrap();
        }
    }
}

#[test]
fn the_last_handle_can_be_dropped_on_the_daemon_although_its_queue_is_full() {
    let output =
        in_child("the_last_handle_can_be_dropped_on_the_daemon_although_its_queue_is_full", || {
            let heap = Heap::new(&Options::parse("heap=16m,backend=stw").unwrap()).unwrap();
            let ((tell, told), (begins, begun), (ends, done)) = (channel(), channel(), channel());
            heap.add_listener(Arc::new(Drops {
                handle: Mutex::new(Some(heap.clone())),
                told: Mutex::new(told),
                begun: Mutex::new(begins),
                done: Mutex::new(ends),
            }));
            heap.set_background(true);
            begun.recv().unwrap();
            for _ in 0..256 {
                heap.set_background(false);
            }
            drop(heap);
            tell.send(()).unwrap();
            done.recv().unwrap();
        });
    println!("{}", text(&output));
    succeeded(&output);
}
