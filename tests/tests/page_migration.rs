//! The kernel may move a page's content to another place in memory at any time, under the heap's feet. The oracle's
//! workload goes on while it does nothing else.

use firn::{Heap, Options};
use firn_bench::progress::{Progress, Stop};
use firn_bench::workloads::Bench;
use firn_bench::workloads::graph::{self, GraphParams};
use std::sync::atomic::{AtomicBool, Ordering};

/// Compacts all memory of the machine.
const COMPACT: &str = "/proc/sys/vm/compact_memory";

fn migrated() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    let line = text.lines().find(|line| line.starts_with("pgmigrate_success "))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn the_heap_stays_intact_while_the_kernel_migrates_pages() {
    if let Err(why) = std::fs::write(COMPACT, "1") {
        println!("skipped: memory cannot be compacted here: {COMPACT}: {why}");
        return;
    }
    let Some(before) = migrated() else {
        println!("skipped: /proc/vmstat does not count migrated pages");
        return;
    };
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                std::fs::write(COMPACT, "1").expect("as before");
            }
        });
        for (seed, way) in [
            "backend=pingpong",
            "backend=pingpong,dense=101",
            "backend=pingpong,fault=thread",
            "backend=pingpong,install=copy",
            "backend=art",
            "backend=art,install=move",
        ]
        .into_iter()
        .enumerate()
        {
            let heap = match Heap::new(&Options::parse(&format!("heap=32m,{way}")).unwrap()) {
                Ok(heap) => heap,
                Err(error) => {
                    println!("left out: {way}: {error}");
                    continue;
                }
            };
            let params = GraphParams {
                threads: 2,
                rounds: 6,
                operations: 5_000,
                live_bytes: 12 << 20,
                collect_continuously: true,
                ..GraphParams::small(seed as u64)
            };
            let (stop, progress) = (Stop::new(), Progress::silent());
            let ran = graph::run_on(Bench::new(&heap, &stop, &progress), &params);
            ran.unwrap_or_else(|error| panic!("{way}: {error}"));
        }
        end.store(true, Ordering::Relaxed);
    });
    let pages = migrated().unwrap_or(before) - before;
    // Where memory is not in disorder there is nothing to do for the kernel.
    match pages {
        0 => println!("skipped: nothing was migrated, so this has shown nothing"),
        _ => println!("{pages} pages were migrated"),
    }
}
