//! What a mutator pays: faults, allocation, locks; and the side tables.

use super::{Bar, Figure, Sizes, heap, median};
use crate::exit::Failure;
use crate::perf::LockCounter;
use firn::{DataArray, Field, NoGc, OutOfMemory, Trace};
use firn_heap::sys::thread::{self, monotonic_ns};

#[derive(Trace)]
struct Cell {
    next: Field<Cell>,
    value: [u64; 2],
}

fn failed(error: OutOfMemory) -> Failure {
    Failure::gate(error.to_string())
}

/// A page built by a faulting mutator, against a bare SIGBUS with a COPY. Both as accesses timed one by one, and the
/// page alone: what is built around it otherwise would be in the time of an access and of no other.
pub(super) fn fault(sizes: Sizes) -> Result<Vec<Figure>, Failure> {
    const NAME: &str = "fault_vs_floor";
    // The daemon must not be faster than the mutator, nor disturb it: the least priority, on the same
    // processor.
    let before = thread::affinity().unwrap_or_default();
    let cpu = before.first().copied().unwrap_or(0);
    let _ = thread::set_affinity(&[cpu]);
    let heap = heap(&format!(
        "heap={}m,concurrent=false,daemon-policy=idle,daemon-cpus={cpu},dense=101,large-object=64m,fault-around=1",
        sizes.heap_mib
    ))?;
    let mut ours = Vec::new();
    let mut floor = Vec::new();
    let length = firn_heap::sys::page_size() / 8 - 64;
    for _ in 0..5 {
        let samples = heap.attach(|cx| {
            let pages = (sizes.heap_mib << 20) / 4 / firn_heap::sys::page_size();
            let table = cx.alloc_refs::<DataArray<u64>>(pages)?;
            for index in 0..pages {
                // A dead neighbour makes every page slide.
                let bytes = NoGc::size_of_data::<u64>(length) + NoGc::size_of_data::<u64>(16);
                let nogc = cx.reserve(bytes)?;
                nogc.alloc_data::<u64>(16);
                let piece = nogc.alloc_data::<u64>(length);
                table.get(&nogc).store(&nogc, index, Some(piece));
            }
            let before = heap.stats().cycles;
            let other = heap.clone();
            let collecting = std::thread::spawn(move || other.collect());
            // Poll until the addresses change: then the flip is over and pages are missing.
            let old = table.get(cx).address_now();
            while table.get(cx).address_now() == old {
                cx.blocking(std::thread::yield_now);
            }
            let table = table.get(cx);
            let mut samples = Vec::with_capacity(pages);
            for step in 0..pages {
                // In turn, and closely: the processor's speed changes with what else the machine does.
                if step % 512 == 0 {
                    floor.push(firn::floor::raw_faults(64));
                }
                let index = step.wrapping_mul(0x9E37_79B1) % pages;
                let piece = table.load(cx, index).expect("stored above");
                let begin = monotonic_ns();
                // The header and the word behind it: one page, but for one piece in a page's words.
                std::hint::black_box(piece.get(0));
                samples.push(monotonic_ns() - begin);
                if heap.stats().cycles > before {
                    break;
                }
            }
            cx.blocking(|| collecting.join().expect("collected"));
            Ok(samples)
        });
        ours.extend(samples.map_err(failed)?);
    }
    let _ = thread::set_affinity(&before);
    let floor: Result<Vec<Vec<u64>>, String> = floor.into_iter().collect();
    let mut floor = floor.map_err(Failure::missing)?.concat();
    // An access to a page that is there takes a few nanoseconds; one that faults, more than half a floor.
    let least = median(&mut floor.clone()) / 2.0;
    let mut faults: Vec<u64> = ours.into_iter().filter(|time| *time as f64 > least).collect();
    if faults.len() < 200 {
        return Ok(vec![Figure::unmeasured(
            NAME,
            format!("only {} faults were met", faults.len()),
        )]);
    }
    let (count, floors) = (faults.len(), floor.len());
    let (ours, floor) = (median(&mut faults) / 1e3, median(&mut floor) / 1e3);
    let note =
        format!("medians of {count} accesses; floor: SIGBUS + COPY of a page, {floors} accesses");
    Ok(vec![Figure::new(NAME, (ours, "us"), floor, ours / floor, Bar::AtMost(1.5), note)])
}

fn thread_page_faults() -> u64 {
    // Field 10 of the thread's stat line: minor faults.
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(7).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Nanoseconds that the calling thread was ready to run but had no processor: not its own cost.
fn run_queue_delay() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Allocating 32-byte objects for some seconds, with the collector at work beside.
pub(super) fn allocation(sizes: Sizes) -> Result<Vec<Figure>, Failure> {
    let heap = heap("heap=256m")?;
    let object = NoGc::size_of::<Cell>();
    let run = |seconds: f64| {
        heap.attach(|cx| {
            let keep = cx.var::<Cell>();
            let delayed = run_queue_delay();
            let begin = monotonic_ns();
            let mut count = 0u64;
            while monotonic_ns() - begin < (seconds * 1e9) as u64 {
                for _ in 0..1000 {
                    let nogc = cx.reserve(8 * object)?;
                    for _ in 0..8 {
                        let cell = nogc.alloc(Cell { next: Field::null(), value: [count; 2] });
                        keep.set(&nogc, Some(cell));
                        count += 1;
                    }
                }
            }
            let time = monotonic_ns() - begin;
            Ok::<_, OutOfMemory>((count, time, run_queue_delay() - delayed))
        })
        .map_err(failed)
    };
    run(sizes.alloc_seconds / 3.0)?;
    // Before and after: the memory's speed changes with what other machines on this one do.
    let footprint = heap.stats().footprint_bytes;
    let floor = || firn::floor::writes(footprint).map_err(|e| Failure::missing(e.to_string()));
    let before = floor()?;
    let faults = thread_page_faults();
    let (count, time, delay) = run(sizes.alloc_seconds)?;
    let faults = thread_page_faults() - faults;
    let floor = (before + floor()?) / 2.0;
    let each = time.saturating_sub(delay) as f64 / count as f64;
    let pages = (count as f64 * object as f64) / firn_heap::sys::page_size() as f64;
    let rate = faults as f64 / pages * 1000.0;
    Ok(vec![
        Figure::new(
            "alloc_ns",
            (each, "ns"),
            floor,
            each,
            Bar::AtMost(6.0),
            format!(
                "{object}-byte objects, filling and stalls included, {} cycles beside; {:.1} ns with waits for a \
                 processor; floor: writing as much to {} MiB of memory one after the other, no collector",
                heap.stats().cycles,
                time as f64 / count as f64,
                footprint >> 20
            ),
        ),
        Figure::new(
            "alloc_faults_per_1000_pages",
            (rate, ""),
            0.0,
            rate,
            Bar::AtMost(1.0),
            format!("{faults} page faults of the thread in {pages:.0} pages allocated"),
        ),
    ])
}

/// `mmap_lock` taken for writing by any thread of this process during cycles.
pub(super) fn write_locks(_sizes: Sizes) -> Result<Vec<Figure>, Failure> {
    const NAME: &str = "mmap_write_locks_per_cycle";
    const CYCLES: u64 = 10;
    let heap = heap("heap=128m,concurrent=false")?;
    let counts = heap.attach(|cx| {
        let table = cx.alloc_refs::<Cell>(200_000)?;
        let mut counts = None;
        // The first cycles touch side tables and stacks for the first time.
        for cycle in 0..CYCLES + 3 {
            for index in 0..200_000 {
                if index % 3 != cycle as usize % 3 {
                    continue;
                }
                let nogc = cx.reserve(object_bytes())?;
                let cell = nogc.alloc(Cell { next: Field::null(), value: [cycle; 2] });
                table.get(&nogc).store(&nogc, index, Some(cell));
            }
            if cycle == 3 {
                counts = Some(LockCounter::start());
            }
            cx.collect();
        }
        Ok(counts.expect("started in the fourth cycle").and_then(LockCounter::stop))
    });
    Ok(vec![match counts.map_err(failed)? {
        Err(missing) => Figure::unmeasured(NAME, missing.to_string()),
        Ok(counts) => {
            let each = counts.write as f64 / CYCLES as f64;
            let note = format!(
                "{} for writing and {} for reading in {CYCLES} cycles, all threads",
                counts.write, counts.read
            );
            Figure::new(NAME, (each, ""), 0.0, each, Bar::AtMost(0.0), note)
        }
    }])
}

fn object_bytes() -> usize {
    NoGc::size_of::<Cell>()
}

/// Side tables for a full heap, in percent of it.
pub(super) fn side_tables(sizes: Sizes) -> Result<Vec<Figure>, Failure> {
    let heap = heap(&format!("heap={}m", sizes.heap_mib))?;
    let stats = heap.stats();
    let percent = stats.side_table_bytes as f64 / stats.limit_bytes as f64 * 100.0;
    Ok(vec![Figure::new(
        "side_table_percent",
        (percent, "%"),
        0.0,
        percent,
        Bar::AtMost(4.0),
        format!("{} bytes for {} MiB", stats.side_table_bytes, sizes.heap_mib),
    )])
}
