//! Compaction against the same slide between mapped ranges and against ART's way; marking against a plain
//! traversal. All on the same data: a table of 64-byte objects of which every other one has died.

use super::{Bar, Figure, Sizes, heap, median};
use crate::exit::Failure;
use firn::events::{Event, Listener, Phase};
use firn::{Field, Heap, NoGc, OutOfMemory, RefArray, Root, Trace};
use std::sync::{Arc, Mutex};

#[derive(Trace)]
struct Item {
    left: Field<Item>,
    right: Field<Item>,
    data: [u64; 5],
}

/// Gathers the lengths of phases.
#[derive(Default)]
pub(super) struct Phases(Mutex<Vec<(Phase, u64)>>);

impl Listener for Phases {
    fn event(&self, event: &Event) {
        if let Event::Phase { phase, begin, end, .. } = event {
            self.0.lock().unwrap().push((*phase, end - begin));
        }
    }
}

impl Phases {
    fn of(&self, phase: Phase) -> u64 {
        let phases = self.0.lock().unwrap();
        phases.iter().filter(|(p, _)| *p == phase).map(|(_, time)| time).sum()
    }
}

/// Fills the heap; half of what was allocated stays reachable from the root.
fn fill(heap: &Heap, bytes: usize) -> Result<Root<RefArray<Item>>, OutOfMemory> {
    let size = NoGc::size_of::<Item>();
    // The table itself takes 8 bytes for each live object.
    let live = bytes / (2 * size + 8);
    heap.attach(|cx| {
        let table = cx.alloc_refs::<Item>(live)?;
        let mut state = 1u64;
        for index in 0..live {
            let nogc = cx.reserve(2 * size)?;
            let item =
                || Item { left: Field::null(), right: Field::null(), data: [index as u64; 5] };
            let (kept, _dropped) = (nogc.alloc(item()), nogc.alloc(item()));
            let table = table.get(&nogc);
            if index > 0 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let other = (state >> 33) as usize % index;
                kept.left.store(&nogc, table.load(&nogc, index - 1));
                kept.right.store(&nogc, table.load(&nogc, other));
            }
            table.store(&nogc, index, Some(kept));
        }
        Ok(cx.global(table.get(cx)))
    })
}

struct Run {
    compact: u64,
    mark: u64,
    slide: u64,
    traverse: u64,
    pages: u64,
}

fn measure(options: &str, bytes: usize) -> Result<Run, Failure> {
    let heap = heap(options)?;
    let phases = Arc::new(Phases::default());
    heap.add_listener(phases.clone());
    let _root = fill(&heap, bytes).map_err(|error| Failure::gate(error.to_string()))?;
    let floors = heap.floors().map_err(Failure::missing)?;
    phases.0.lock().unwrap().clear();
    let summary = heap.collect();
    Ok(Run {
        compact: phases.of(Phase::Compact),
        mark: phases.of(Phase::Mark),
        slide: floors.slide_ns,
        traverse: floors.traverse_ns,
        pages: summary.pages_copied + summary.pages_moved + summary.pages_dense,
    })
}

/// Rounds of a run of each back end.
const ROUNDS: usize = 7;

/// A run of each back end in turn. Ratios are medians over the rounds, so that what the machine's memory is like
/// for some seconds is on both sides of each.
pub(super) fn figures(sizes: Sizes) -> Result<Vec<Figure>, Failure> {
    let bytes = sizes.heap_mib << 20;
    // Room for the data and what allocation rounds up; no cycle but the one asked for.
    let common = format!("heap={}m,concurrent=false,workers=1,dense=101", sizes.heap_mib * 9 / 8);
    let (mut ours, mut art) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure(&common, bytes)?);
        art.push(measure(&format!("{common},backend=art,install=copy,batch=1"), bytes)?);
    }
    let of = |runs: &[Run], f: fn(&Run) -> u64| {
        median(&mut runs.iter().map(f).collect::<Vec<_>>()) / 1e6
    };
    let pairs = |ratio: fn(&Run, &Run) -> f64| {
        let mut all: Vec<f64> = ours.iter().zip(&art).map(|(ours, art)| ratio(ours, art)).collect();
        all.sort_unstable_by(f64::total_cmp);
        all[ROUNDS / 2]
    };
    let (compact, slide) = (of(&ours, |r| r.compact), of(&ours, |r| r.slide));
    let art_compact = of(&art, |r| r.compact);
    let (mark, traverse) = (of(&ours, |r| r.mark), of(&ours, |r| r.traverse));
    let pages = ours[0].pages;
    Ok(vec![
        Figure::new(
            "compaction_vs_slide",
            (compact, "ms"),
            slide,
            pairs(|ours, _| ours.slide as f64 / ours.compact as f64),
            Bar::AtLeast(0.9),
            format!(
                "{} MiB half live, {pages} pages, {ROUNDS} rounds; floor: the slide into a mapped range",
                sizes.heap_mib
            ),
        ),
        Figure::new(
            "compaction_vs_art",
            (compact, "ms"),
            art_compact,
            pairs(|ours, art| art.compact as f64 / ours.compact as f64),
            Bar::AtLeast(1.6),
            "the same data; compared with art, COPY page by page",
        ),
        Figure::new(
            "mark_vs_traversal",
            (mark, "ms"),
            traverse,
            pairs(|ours, _| ours.mark as f64 / ours.traverse as f64),
            Bar::AtMost(1.2),
            "one marker; floor: explicit stack, one bit an object, same graph",
        ),
    ])
}
