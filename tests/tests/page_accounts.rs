//! Whatever threads, the collector and the kernel did to each other: afterwards each page of the heap's memory is in
//! one place, and counted once. Nothing is present where nothing is known of it: there it would turn up as
//! somebody's object a cycle later.
//!
//! The audit is made by a listener at the end of a cycle, when the mutators are gone and the daemon is in the listener.

use firn::events::Phase;
use firn::{DataArray, Event, Heap, Listener, Options, OutOfMemory, RefArray, Root, Scope};
use firn_gc::core::Core;
use firn_heap::sys::Errno;
use firn_heap::sys::map::resident_pages;
use firn_heap::sys::uffd::{Injector, Op, Outcome, Verdict};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

mod support;
use support::in_child;

/// Mutators at a time.
const THREADS: u64 = 3;
/// Arrays that each of them holds.
const SLOTS: usize = 1200;
/// Rounds, each followed by an audit.
const ROUNDS: u64 = 4;
/// Things that each mutator does in a round.
const TURNS: usize = 30_000;

/// Where the pages are, as the kernel and as the heap have it.
struct Audit {
    core: Weak<Core>,
    armed: AtomicBool,
    made: AtomicU64,
}

impl Listener for Audit {
    fn event(&self, event: &Event) {
        let Event::CycleEnd { summary } = event else { return };
        if !self.armed.load(Ordering::SeqCst) {
            return;
        }
        let core = self.core.upgrade().expect("it is collecting");
        let space = &core.space;
        let page = space.geometry.page;
        let present = |base: usize, len: usize| {
            resident_pages(base, len).unwrap().into_iter().filter(|resident| *resident).count()
        };
        let [current, other, parking] = [space.current(), space.other(), &space.parking]
            .map(|range| (present(range.base(), range.len()), range.pool.count()));
        let entered =
            (0..space.top()).filter(|&number| space.records().live_words(number).is_some()).count();
        let committed = space.committed();
        // Ready chunks belong to nobody and are in no pool.
        let large_free = space.large.free_pages();
        let ready = committed - space.free_pages() - large_free - core.in_use();
        let large = summary.large_live_bytes / page + large_free;
        let text = format!(
            "present and free: current {current:?}, other {other:?}, parking {parking:?}; entered {entered}, ready \
             {ready}, large {large}, committed {committed}, cycle {}",
            summary.cycle
        );
        assert_eq!(other.0, other.1, "other range: {text}");
        assert_eq!(parking.0, parking.1, "parking range: {text}");
        assert_eq!(current.0, entered + current.1 + ready, "current range: {text}");
        assert_eq!(current.0 + other.0 + parking.0 + large, committed, "in all: {text}");
        self.made.fetch_add(1, Ordering::SeqCst);
    }
}

/// A kernel in a bad mood: refuses to move a page now and then, and stops half-way.
struct Moody(AtomicU64);

impl Injector for Moody {
    fn before(&self, op: Op, _dst: usize, _src: usize, len: usize) -> Verdict {
        let call = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let pages = len / firn_heap::sys::page_size();
        match op {
            Op::Move if call.is_multiple_of(13) => Verdict::Return(Outcome::failed(Errno::EBUSY)),
            Op::Move | Op::Copy if call.is_multiple_of(7) && pages > 1 => {
                Verdict::Shorten((1 + call as usize % (pages - 1)) * firn_heap::sys::page_size())
            }
            Op::Copy if call.is_multiple_of(5) => Verdict::Return(Outcome::failed(Errno::EAGAIN)),
            _ => Verdict::Pass,
        }
    }
}

type Table = Root<RefArray<DataArray<u64>>>;

/// An array of `len` words that begins and ends with what follows from `key`.
fn put(
    cx: &mut Scope<'_>,
    table: &Table,
    slot: usize,
    key: u64,
    len: usize,
) -> Result<(), OutOfMemory> {
    cx.scope(|cx| {
        let data = cx.alloc_data::<u64>(len)?;
        let data = data.get(cx);
        data.set(0, key);
        data.set(len - 1, !key);
        table.get(cx).store(cx, slot, Some(data));
        Ok(())
    })
}

fn check(cx: &Scope<'_>, table: &Table, slot: usize) {
    if let Some(data) = table.get(cx).load(cx, slot) {
        assert_eq!(data.get(data.len() - 1), !data.get(0));
    }
}

fn storm(cx: &mut Scope<'_>, table: &Table, seed: u64) {
    let mut random = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for turn in 0..TURNS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let slot = (random >> 20) as usize % SLOTS;
        check(cx, table, slot);
        let done = match random % 500 {
            // Beside the moving ranges.
            0 => put(cx, table, slot, random, 20_000),
            // Pages of its own in the moving range.
            1 => cx.scope(|cx| cx.alloc_refs::<DataArray<u64>>(30_000).map(|_| ())),
            2 => {
                cx.blocking(|| ());
                Ok(())
            }
            3 => {
                drop(cx.global(table.get(cx)));
                Ok(())
            }
            4..200 => {
                table.get(cx).store(cx, slot, None);
                Ok(())
            }
            _ => put(cx, table, slot, random, 2 + (random >> 40) as usize % 400),
        };
        if done.is_err() {
            // More is live than there is room for: half of it goes.
            for slot in (turn % 2..SLOTS).step_by(2) {
                table.get(cx).store(cx, slot, None);
            }
        }
    }
    for slot in 0..SLOTS {
        check(cx, table, slot);
    }
}

fn every_page_is_accounted_for(way: &str, moody: bool) {
    let heap = match Heap::new(&Options::parse(&format!("heap=16m,min-free=1m,{way}")).unwrap()) {
        Ok(heap) => heap,
        Err(error) if error.is_userfaultfd_refused() => {
            println!("left out: {way}: {error}");
            return;
        }
        Err(error) => panic!("{way}: {error}"),
    };
    if moody {
        let uffd = &heap.core().backend.installer().unwrap().uffd;
        assert!(uffd.set_injector(Arc::new(Moody(AtomicU64::new(0)))));
    }
    let core = Arc::downgrade(heap.core());
    let audit = Audit { core, armed: AtomicBool::new(false), made: AtomicU64::new(0) };
    let audit = Arc::new(audit);
    heap.add_listener(audit.clone());
    let tables: Vec<Table> = heap.attach(|cx| {
        let table = |_| cx.scope(|cx| cx.alloc_refs(SLOTS).map(|table| cx.global(table.get(cx))));
        (0..THREADS).map(table).collect::<Result<_, _>>().unwrap()
    });
    for round in 0..ROUNDS {
        audit.armed.store(false, Ordering::SeqCst);
        std::thread::scope(|threads| {
            for (thread, table) in (0..THREADS).zip(&tables) {
                let heap = &heap;
                threads.spawn(move || heap.attach(|cx| storm(cx, table, round * THREADS + thread)));
            }
        });
        if round == 2 {
            // Gives back all that is free.
            heap.set_background(true);
            heap.set_background(false);
        }
        // What the mutators allocated last is looked at by the second cycle.
        heap.collect();
        audit.armed.store(true, Ordering::SeqCst);
        heap.collect();
        assert!(audit.made.load(Ordering::SeqCst) > round, "{way}: the audit failed");
    }
    let stats = heap.stats();
    println!("{way}: {} cycles, {} MiB allocated", stats.cycles, stats.bytes_allocated >> 20);
}

#[test]
fn every_page_is_in_one_place_and_counted_once() {
    for way in [
        "backend=pingpong",
        "backend=pingpong,workers=3,dense=50",
        "backend=pingpong,dense=101,batch=8",
        "backend=pingpong,fault=thread",
        "backend=pingpong,install=copy",
        "backend=pingpong,verify=true",
    ] {
        every_page_is_accounted_for(way, false);
    }
}

#[test]
fn so_it_is_when_the_kernel_refuses_moves_and_stops_half_way() {
    for way in
        ["backend=pingpong", "backend=pingpong,workers=2,dense=50", "backend=pingpong,install=copy"]
    {
        every_page_is_accounted_for(way, true);
    }
}

/// Puts a page into the to-range, just before the flip.
struct Foreign(Weak<Core>);

impl Listener for Foreign {
    fn event(&self, event: &Event) {
        if let Event::Phase { phase: Phase::Plan, .. } = event {
            let core = self.0.upgrade().expect("it is collecting");
            let place = core.space.other().base() + 3 * core.space.geometry.page;
            let installer = core.backend.installer().expect("pingpong has one");
            assert_eq!(installer.copy(place, core.space.zeroes(), 1).published, 1);
            println!("foreign: {place:#x}");
        }
    }
}

#[test]
fn a_page_that_nobody_put_where_one_is_to_be_moved_is_named() {
    let test = "a_page_that_nobody_put_where_one_is_to_be_moved_is_named";
    let output = in_child(test, || {
        let heap = match Heap::new(&Options::parse("heap=16m,backend=pingpong,dense=50").unwrap()) {
            Ok(heap) if heap.setup().install == Some(firn::InstallKind::Move) => heap,
            Ok(_) => std::process::exit(77),
            Err(error) if error.is_userfaultfd_refused() => std::process::exit(77),
            Err(error) => panic!("{error}"),
        };
        heap.add_listener(Arc::new(Foreign(Arc::downgrade(heap.core()))));
        heap.attach(|cx| {
            // Most of the heap is live, and moves as whole pages.
            let table = cx.alloc_refs::<DataArray<u64>>(SLOTS).unwrap();
            let table = cx.global(table.get(cx));
            (0..SLOTS).for_each(|slot| put(cx, &table, slot, 1, 400).unwrap());
            cx.collect();
        });
    });
    if output.status.code() == Some(77) {
        println!("left out: pages cannot be moved here");
        return;
    }
    let text = support::killed_by(&output, libc::SIGABRT);
    let place = text.split("foreign: ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(
        text.contains(&format!("the page at {place} of the heap was present before")),
        "{text}"
    );
}
