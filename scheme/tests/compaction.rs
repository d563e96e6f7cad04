//! Programs with threads while the heap is compacted without a break: whatever else runs, one more thread asks for one
//! collection after the other, so that all of them always run over pages that are not built yet. Each program is run
//! until it has seen a number of cycles.

mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use support::{directory, interpreter, run_with};

/// Cycles that a program must have seen.
const CYCLES: u64 = 10;

/// Runs a program under continuous compaction, again and again; `check` sees what each run printed.
fn under_compaction(options: &str, file: &str, arguments: &[&str], check: impl Fn(&str)) {
    let file = directory(file);
    let text = std::fs::read_to_string(&file).expect("readable");
    let name = file.to_str().expect("UTF-8");
    let Some(scheme) = interpreter(options) else { return };
    let heap = scheme.world().heap.clone();
    let before = heap.stats().cycles;
    let over = AtomicBool::new(false);
    let runs = std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Relaxed) {
                heap.collect();
            }
        });
        let mut runs = Vec::new();
        loop {
            let run = run_with(&scheme, &text, name, arguments, "");
            let ended = run.exit != 0 || heap.stats().cycles - before >= CYCLES;
            runs.push(run);
            if ended {
                break;
            }
        }
        over.store(true, Relaxed);
        runs
    });
    for run in runs {
        assert_eq!(run.exit, 0, "{name} with {options}: {}{}", run.output, run.errors);
        check(&run.output);
    }
}

const HEAPS: [&str; 5] = [
    "heap=64m,backend=pingpong",
    "heap=64m,backend=art",
    "heap=64m,backend=mprotect",
    "heap=64m,backend=pingpong,fault=thread,install=copy",
    "heap=64m,backend=pingpong,verify=true",
];

#[test]
fn the_tests_of_threads_pass_under_continuous_compaction() {
    for options in HEAPS {
        under_compaction(options, "tests/suite/threads.scm", &[], |output| {
            let passed = output.lines().filter(|line| line.ends_with(" passed")).count();
            assert_eq!(passed, 3, "{options}: {output}");
        });
    }
}

#[test]
fn the_cache_of_several_threads_is_whole_under_continuous_compaction() {
    for options in HEAPS {
        under_compaction(options, "examples/cache.scm", &["3", "5000"], |output| {
            let expected = "15000 operations by 3 threads, 0 wrong answers, rings whole";
            assert!(output.lines().any(|line| line.ends_with(expected)), "{options}: {output}");
        });
    }
}

#[test]
fn programs_of_one_thread_run_under_continuous_compaction() {
    for options in HEAPS {
        for file in ["tests/suite/control.scm", "tests/suite/programs.scm"] {
            under_compaction(options, file, &[], |_| {});
        }
    }
}
