//! Pauses: the flip and the end of marking, with two mutators that allocate and mutate all the time.

use super::{Bar, Figure, Sizes, heap, median, percentile};
use crate::exit::Failure;
use firn::events::{Event, Listener, PauseKind};
use firn::{DataArray, Field, Heap, NoGc, OutOfMemory, RefArray, Root, Scope, Trace};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Trace)]
struct Pair {
    first: Field<Pair>,
    second: Field<Pair>,
}

/// Gathers pauses: (kind, length, time to safepoint).
#[derive(Default)]
struct Pauses(Mutex<Vec<(PauseKind, u64, u64)>>);

impl Listener for Pauses {
    fn event(&self, event: &Event) {
        if let Event::Pause { kind, requested, stopped, released, .. } = event {
            self.0.lock().unwrap().push((*kind, released - stopped, stopped - requested));
        }
    }
}

/// Live data of about `mib` MiB in 1 KiB pieces.
fn live(heap: &Heap, mib: usize) -> Result<Root<RefArray<DataArray<u64>>>, OutOfMemory> {
    heap.attach(|cx| {
        let pieces = mib << 10;
        let table = cx.alloc_refs::<DataArray<u64>>(pieces)?;
        for index in 0..pieces {
            let nogc = cx.reserve(NoGc::size_of_data::<u64>(126))?;
            let piece = nogc.alloc_data::<u64>(126);
            table.get(&nogc).store(&nogc, index, Some(piece));
        }
        Ok(cx.global(table.get(cx)))
    })
}

/// Allocates pairs and rewires them until told to stop.
fn mutate(cx: &mut Scope<'_>, stop: &AtomicBool) -> Result<(), OutOfMemory> {
    let table = cx.alloc_refs::<Pair>(4096)?;
    let mut turn = 0usize;
    // Relaxed: a flag.
    while !stop.load(Ordering::Relaxed) {
        let nogc = cx.reserve(NoGc::size_of::<Pair>())?;
        let pair = nogc.alloc(Pair { first: Field::null(), second: Field::null() });
        let table = table.get(&nogc);
        let other = table.load(&nogc, turn.wrapping_mul(0x9E37_79B1) % 4096);
        pair.first.store(&nogc, other);
        if let Some(other) = other {
            // Cut the chain now and then, or it would grow for ever.
            other.first.store(&nogc, None);
            other.second.store(&nogc, Some(pair));
            pair.second.store(&nogc, None);
        }
        if let Some(old) = table.load(&nogc, turn % 4096) {
            old.second.store(&nogc, None);
        }
        table.store(&nogc, turn % 4096, Some(pair));
        turn += 1;
        if turn.is_multiple_of(64) {
            cx.safepoint();
        }
    }
    Ok(())
}

fn measure(
    mib: usize,
    heap_mib: usize,
    cycles: usize,
) -> Result<Vec<(PauseKind, u64, u64)>, Failure> {
    let heap = heap(&format!("heap={heap_mib}m,concurrent=false"))?;
    let failed = |error: OutOfMemory| Failure::gate(error.to_string());
    let _live = live(&heap, mib).map_err(failed)?;
    let pauses = Arc::new(Pauses::default());
    heap.add_listener(pauses.clone());
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let mutators: Vec<_> =
            (0..2).map(|_| threads.spawn(|| heap.attach(|cx| mutate(cx, &stop)))).collect();
        for _ in 0..cycles {
            heap.collect();
        }
        stop.store(true, Ordering::Relaxed);
        mutators.into_iter().try_for_each(|thread| thread.join().expect("a mutator panicked"))
    })
    .map_err(failed)?;
    let taken = std::mem::take(&mut *pauses.0.lock().unwrap());
    Ok(taken)
}

fn lengths(pauses: &[(PauseKind, u64, u64)], kind: PauseKind) -> Vec<u64> {
    pauses.iter().filter(|(k, _, _)| *k == kind).map(|(_, length, _)| *length).collect()
}

/// The three figures.
pub(super) fn figures(sizes: Sizes) -> Result<Vec<Figure>, Failure> {
    let small = measure(64, 256, sizes.cycles)?;
    let large = measure(sizes.large_mib, sizes.large_mib * 5 / 4, (sizes.cycles / 10).max(9))?;
    let flip = percentile(&mut lengths(&small, PauseKind::Flip), 99.0) / 1e3;
    let of = |pauses: &[_], kind| median(&mut lengths(pauses, kind)) / 1e3;
    let (flip_small, flip_large) = (of(&small, PauseKind::Flip), of(&large, PauseKind::Flip));
    let mut ends = lengths(&small, PauseKind::FinalMark);
    ends.extend(lengths(&large, PauseKind::FinalMark));
    let end = percentile(&mut ends, 99.0) / 1e3;
    let mut to_safepoint: Vec<u64> =
        small.iter().filter(|(k, _, _)| *k == PauseKind::Flip).map(|(_, _, t)| *t).collect();
    Ok(vec![
        Figure::new(
            "flip_pause_p99_us",
            (flip, "us"),
            0.0,
            flip,
            Bar::AtMost(100.0),
            format!(
                "{} flips, 2 mutators; time to safepoint p50 {:.0} us, p99 {:.0} us",
                sizes.cycles,
                median(&mut to_safepoint.clone()) / 1e3,
                percentile(&mut to_safepoint, 99.0) / 1e3
            ),
        ),
        Figure::new(
            "flip_pause_growth",
            (flip_large, "us"),
            flip_small,
            flip_large / flip_small,
            Bar::AtMost(1.5),
            format!("median at {} MiB live against that at 64 MiB", sizes.large_mib),
        ),
        Figure::new(
            "final_mark_p99_us",
            (end, "us"),
            0.0,
            end,
            Bar::AtMost(200.0),
            format!(
                "median {:.1} us at 64 MiB, {:.1} us at {} MiB live",
                of(&small, PauseKind::FinalMark),
                of(&large, PauseKind::FinalMark),
                sizes.large_mib
            ),
        ),
    ])
}
