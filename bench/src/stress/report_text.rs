//! The report as a person reads it on a terminal of 80 columns: the verdict in plain words first,
//! then what was done, what it cost, and where.

use std::fmt::Write;

use super::page::{LABEL, Page};
use super::units::{bytes, count, percent, signed_time, time};
use super::{Report, kernel_text};
use crate::measure::collect::GcReport;
use crate::measure::latency::Percentiles;

/// The whole report, with a newline at its end.
pub fn text(report: &Report) -> String {
    let mut page = Page::default();
    page.paragraph(&verdict(report));
    page.blank();
    run(&mut page, report);
    latencies(&mut page, report);
    frames(&mut page, report);
    pauses(&mut page, &report.gc);
    stalls(&mut page, &report.gc);
    phases(&mut page, &report.gc);
    moved(&mut page, &report.gc);
    utilization(&mut page, report);
    kernel_text::kernel(&mut page, &report.run);
    // What the collector had to do differently has been said above.
    for note in report.run.notes.iter().filter(|note| !report.setup.notes.contains(note)) {
        page.blank();
        page.entry("note", note);
    }
    surroundings(&mut page, report);
    page.finish()
}

/// What a run cost its mutators, of the collector alone: for programs that are no workload.
pub fn gc_text(gc: &GcReport) -> String {
    let mut page = Page::default();
    pauses(&mut page, gc);
    stalls(&mut page, gc);
    phases(&mut page, gc);
    moved(&mut page, gc);
    page.finish()
}

/// One or two sentences: did it hold, and what was the worst that a mutator met.
pub fn verdict(report: &Report) -> String {
    let (outcome, gc) = (&report.outcome, &report.gc);
    let mut said = String::new();
    if let Some(failed) = outcome.checks.iter().find(|check| !check.ok) {
        let _ = write!(said, "FAILED: {}: {}. ", failed.what, failed.detail);
    }
    if outcome.partial {
        let seconds = (outcome.window.1 - outcome.window.0) as f64 / 1e9;
        let _ = write!(said, "Interrupted after {seconds:.1} s; what follows is partial. ");
    }
    let all = gc.pauses.iter().find(|p| p.kind == "all");
    let collections = plural(gc.cycles as u64, "collection");
    let who = if outcome.mutators == 1 { "one mutator" } else { "the mutators" };
    match all {
        None if gc.cycles == 0 => {
            let _ = write!(said, "No collection ended in the measured window. ");
        }
        Some(p) if report.setup.backend == "stw" => {
            let _ = write!(
                said,
                "{collections} stopped {who} for {} in all, {} at the longest. ",
                time(p.total_ns),
                time(p.pause_ns.max),
            );
        }
        _ => {
            let _ = write!(said, "{collections} compacted the heap while {who} kept running");
            let pause = all.map(|p| format!("longest pause {}", time(p.pause_ns.max)));
            let stall = gc
                .stalls
                .faults
                .map(|f| format!("longest stall in a missing page {}", time(f.max)));
            let wait =
                gc.stalls.allocation.map(|w| format!("longest wait for memory {}", time(w.max)));
            let parts: Vec<_> = [pause, stall, wait].into_iter().flatten().collect();
            let _ = match parts.is_empty() {
                true => write!(said, ". "),
                false => write!(said, ": {}. ", parts.join(", ")),
            };
        }
    }
    if let Some(frames) = outcome.frames.iter().find(|f| f.hz == 120) {
        let _ = match frames.missed {
            0 => write!(said, "No frame of {} was late at 120 Hz. ", count(frames.frames)),
            n => write!(said, "{} of {} frames late at 120 Hz. ", count(n), count(frames.frames)),
        };
    }
    said.trim_end().to_owned()
}

fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

fn run(page: &mut Page, report: &Report) {
    let (setup, outcome) = (&report.setup, &report.outcome);
    let windows = if report.quick { ", quick" } else { "" };
    page.entry(
        "workload",
        &format!(
            "{}, {}, seed {}, heap {}{windows}",
            report.workload,
            plural(u64::from(outcome.mutators), "mutator"),
            report.seed,
            bytes(setup.heap_bytes as u64),
        ),
    );
    let mut how = setup.backend.clone();
    if let Some(fault) = &setup.fault {
        let _ = write!(how, ", faults by {fault}");
    }
    if let Some(install) = &setup.install {
        let _ = write!(how, ", pages by {install}");
    }
    let _ = write!(how, ", {}", plural(setup.workers as u64, "worker"));
    if setup.verify {
        how += ", every cycle verified";
    }
    page.entry("collector", &how);
    for note in &setup.notes {
        page.entry("note", note);
    }
    let t = &outcome.throughput;
    let loop_ = outcome.latencies.first().map_or("", |l| l.mode.label());
    page.entry(
        "throughput",
        &format!("{} {}/s {loop_}", count(t.per_second.round() as u64), t.unit),
    );
    if !outcome.walls.is_empty() {
        let mut walls = outcome.walls.clone();
        walls.sort_by(f64::total_cmp);
        let median = walls[walls.len() / 2];
        let text = match walls.len() {
            1 => format!("{median:.3} s"),
            n => format!("{median:.3} s, the median of {n} repetitions"),
        };
        page.entry("wall", &text);
    }
    if let Some(digest) = outcome.digest {
        page.entry("digest", &format!("{digest:016x}"));
    }
    if let (Some(checksum), true) = (outcome.checksum, outcome.checks.is_empty()) {
        page.entry("checksum", &checksum.to_string());
    }
    for check in &outcome.checks {
        let ok = if check.ok { "ok" } else { "FAILED" };
        page.entry("check", &format!("{}: {}: {ok}", check.what, check.detail));
    }
    for (name, value) in &outcome.facts {
        page.entry("", &format!("{name}: {value}"));
    }
}

fn latencies(page: &mut Page, report: &Report) {
    let latencies = &report.outcome.latencies;
    if latencies.is_empty() {
        return;
    }
    page.blank();
    let heads = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
    page.head("latency", LABEL, 11, &heads);
    for l in latencies {
        let p = &l.percentiles;
        let cells = [p.p50, p.p90, p.p99, p.p999, p.p9999, p.max].map(time);
        page.row(&format!("  {}", l.mode.label()), LABEL, 11, &cells);
    }
    for l in latencies {
        let Some(offered) = l.offered_ops_s else { continue };
        let saturated = if l.saturated { "; SATURATED, it gave up" } else { "" };
        page.entry(
            "",
            &format!(
                "{}: {} ops/s offered, {} reached{saturated}",
                l.mode.label(),
                count(offered.round() as u64),
                count(l.reached_ops_s.round() as u64),
            ),
        );
    }
}

fn frames(page: &mut Page, report: &Report) {
    let frames = &report.outcome.frames;
    if frames.is_empty() {
        return;
    }
    page.blank();
    let heads = ["missed", "of", "run", "p50", "p90", "p99", "max"];
    page.head("frames", LABEL, 9, &heads);
    for f in frames {
        let o = &f.overrun_ns;
        let mut cells = vec![count(f.missed), count(f.frames), count(f.worst_run)];
        cells.extend([o.p50, o.p90, o.p99, o.max].map(|x| signed_time(x).replace(' ', "")));
        page.row(&format!("  {} Hz", f.hz), LABEL, 9, &cells);
    }
    let what = report.outcome.frames_are;
    page.entry("", &format!("{what}; percentiles of overrun (negative: early)"));
}

fn pauses(page: &mut Page, gc: &GcReport) {
    page.blank();
    if gc.pauses.is_empty() {
        page.entry("pauses", "none in the measured window");
        return;
    }
    let heads = ["count", "p50", "p99", "max", "ttsp p50", "p99", "max"];
    page.head("pauses", LABEL, 9, &heads);
    for pause in &gc.pauses {
        let (p, s) = (&pause.pause_ns, &pause.time_to_safepoint_ns);
        let cells = [p.p50, p.p99, p.max, s.p50, s.p99, s.max].map(|ns| time(ns).replace(' ', ""));
        let cells: Vec<_> = std::iter::once(count(p.count)).chain(cells).collect();
        page.row(&format!("  {}", pause.kind), LABEL, 9, &cells);
    }
    page.entry("", "ttsp: time to safepoint, from the request to the last mutator's stop");
}

fn stalls(page: &mut Page, gc: &GcReport) {
    page.blank();
    let stalls = &gc.stalls;
    let row = |p: &Percentiles| vec![count(p.count), time(p.p50), time(p.p99), time(p.max)];
    page.head("stalls", 24, 12, &["count", "p50", "p99", "max"]);
    match &stalls.faults {
        None => page.line("  missing pages: none"),
        Some(all) => page.row("  missing pages", 24, 12, &row(all)),
    }
    for outcome in &stalls.by_outcome {
        page.row(&format!("    {}", outcome.kind), 24, 12, &row(&outcome.stall_ns));
    }
    match &stalls.allocation {
        None => page.line("  waits for memory: none"),
        Some(waits) => page.row("  waits for memory", 24, 12, &row(waits)),
    }
    if stalls.faults_lost > 0 {
        page.entry("", &format!("{} not recorded", plural(stalls.faults_lost, "fault")));
    }
}

fn phases(page: &mut Page, gc: &GcReport) {
    if gc.phases.is_empty() {
        return;
    }
    page.blank();
    page.head("phases", 24, 12, &["runs", "total", "p50", "max"]);
    for phase in &gc.phases {
        let w = &phase.wall_ns;
        let cells = [count(w.count), time(phase.total_ns), time(w.p50), time(w.max)];
        page.row(&format!("  {}", phase.phase), 24, 12, &cells);
    }
}

fn moved(page: &mut Page, gc: &GcReport) {
    let m = &gc.moved;
    page.blank();
    page.entry(
        "cycles",
        &format!(
            "{} in the measured window, {} in all; {} live after the last",
            count(gc.cycles as u64),
            count(gc.cycles_total as u64),
            bytes(m.live_bytes_last),
        ),
    );
    page.entry(
        "freed",
        &format!(
            "{} by collections; {} pages given back to the kernel",
            bytes(m.bytes_freed),
            count(m.pages_released),
        ),
    );
    let retries: Vec<_> =
        gc.retries.iter().map(|r| format!("{} {}: {}", r.op, r.errno, count(r.count))).collect();
    let retries = if retries.is_empty() { "none".into() } else { retries.join(", ") };
    page.entry("retries", &retries);
    page.blank();
    page.head("moved", 24, 24, &["pages", "bytes"]);
    let dense = m.pages_dense * (m.bytes_by_move / (m.pages_by_move + m.pages_dense).max(1));
    for (how, pages, size) in [
        ("  by copy", m.pages_by_copy, m.bytes_by_copy),
        ("  by remapping", m.pages_by_move + m.pages_dense, m.bytes_by_move),
        ("    dense, not copied", m.pages_dense, dense),
        ("  by the collector", m.pages_by_collector, m.bytes_by_collector),
        ("  by mutators", m.pages_by_mutators, m.bytes_by_mutators),
    ] {
        page.row(how, 24, 24, &[count(pages), bytes(size)]);
    }
}

/// Mutators that get a line of their own; beyond that only the worst of all is shown.
const MMU_LINES: usize = 4;

fn utilization(page: &mut Page, report: &Report) {
    let mmu = &report.gc.mmu;
    let Some(first) = mmu.first() else { return };
    page.blank();
    let windows: Vec<_> = first.windows.iter().map(|w| format!("{} ms", w.window_ms)).collect();
    page.row("utilization", LABEL, 9, &windows);
    let cell = |u: Option<f64>| u.map_or("-".into(), percent);
    if mmu.len() <= MMU_LINES {
        for thread in mmu {
            let cells: Vec<_> = thread.windows.iter().map(|w| cell(w.utilization)).collect();
            page.row(&format!("  mutator {}", thread.thread), LABEL, 9, &cells);
        }
    } else {
        let worst =
            |i: usize| mmu.iter().filter_map(|t| t.windows[i].utilization).min_by(f64::total_cmp);
        let cells: Vec<_> = (0..first.windows.len()).map(|i| cell(worst(i))).collect();
        page.row("  worst", LABEL, 9, &cells);
    }
    page.entry(
        "",
        "least share of any window of that length or more that was left to a mutator; counts \
         pauses, stops, faults and waits for memory",
    );
}

fn surroundings(page: &mut Page, report: &Report) {
    let (outcome, m) = (&report.outcome, &report.machine);
    page.blank();
    page.entry(
        "memory",
        &format!(
            "peak RSS {} (both heap ranges and everything else); side tables {}",
            report.rss_peak_bytes.map_or("unknown".into(), bytes),
            bytes(report.side_table_bytes),
        ),
    );
    let seconds = (outcome.window.1 - outcome.window.0) as f64 / 1e9;
    page.entry(
        "processor",
        &format!(
            "{:.2} s of {:.2} used in the window, {:.2} of them by the collector's threads",
            outcome.cpu.process_s,
            seconds * m.cpus as f64,
            outcome.cpu.collector_s,
        ),
    );
    page.entry(
        "machine",
        &format!(
            "Linux {}, {} ({}), {}, pages of {}, THP {}",
            m.kernel,
            plural(m.cpus as u64, "CPU"),
            m.cpu_model,
            bytes(m.memory_bytes),
            bytes(m.page_bytes as u64),
            m.transparent_huge_pages,
        ),
    );
    match &m.userfaultfd {
        Some(path) => page.entry("userfaultfd", &format!("{path}: {}", m.features)),
        None => page.entry("userfaultfd", &format!("none: {}", m.features)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::measure::collect::{Moved, StallFigures};
    use crate::measure::collect::{PauseFigures, PhaseFigures, RetryFigures, Stalls};
    use crate::measure::cpu::CpuUse;
    use crate::measure::frames::judge_latencies;
    use crate::measure::latency::{Discipline, Latency, Recorder};
    use crate::measure::machine::MachineReport;
    use crate::measure::mmu::of_thread;
    use crate::stress::SetupReport;
    use crate::workloads::{Check, Outcome, Throughput, Workload};

    fn percentiles(scale: u64) -> Percentiles {
        Percentiles::of((1..=1000).map(|n| n * scale)).unwrap()
    }

    /// A report with every section, of the widest figures that may occur.
    pub(in crate::stress) fn example() -> Report {
        let wide = percentiles(999_999_937);
        let stall = |kind: &str| StallFigures { kind: kind.into(), stall_ns: wide };
        Report {
            workload: Workload::Lru,
            setup: SetupReport {
                backend: "pingpong".into(),
                fault: Some("sigbus".into()),
                install: Some("copy".into()),
                heap_bytes: 64 << 30,
                workers: 2,
                verify: true,
                notes: vec!["the kernel has no UFFDIO_MOVE: pages are installed by copying".into()],
            },
            seed: u64::MAX,
            quick: true,
            outcome: Outcome {
                window: (0, 3_600_000_000_000),
                mutators: 2,
                cpu: CpuUse { process_s: 7123.4, collector_s: 1234.5 },
                throughput: Throughput {
                    operations: 1 << 40,
                    per_second: 123_456_789.0,
                    unit: "ops",
                },
                latencies: vec![
                    Latency {
                        mode: Discipline::Closed,
                        offered_ops_s: None,
                        reached_ops_s: 123_456_789.0,
                        saturated: false,
                        percentiles: wide,
                        recorder: Recorder::new(),
                    },
                    Latency {
                        mode: Discipline::Metered,
                        offered_ops_s: Some(123_456_789.0),
                        reached_ops_s: 123_456_789.0,
                        saturated: true,
                        percentiles: wide,
                        recorder: Recorder::new(),
                    },
                ],
                overruns: Vec::new(),
                frames: judge_latencies(&[1_000, 99_000_000_000, 3_000_000]),
                frames_are: "virtual: the operations a thread does in half a period, closed loop",
                checksum: Some(i64::MIN),
                digest: Some(u64::MAX),
                checks: vec![Check {
                    what: "checksum",
                    ok: true,
                    detail: "-7465970225685823761, as recomputed in native memory".into(),
                }],
                facts: vec![("hit ratio", "0.8423".into())],
                walls: vec![1.25, 1.5],
                partial: false,
            },
            gc: GcReport {
                cycles_total: 123_456,
                cycles: 123_456,
                pauses: ["all", "final mark", "flip", "stw"]
                    .map(|kind| PauseFigures {
                        kind: kind.into(),
                        pause_ns: wide,
                        time_to_safepoint_ns: wide,
                        total_ns: u64::MAX / 2,
                    })
                    .to_vec(),
                stalls: Stalls {
                    faults: Some(wide),
                    by_outcome: ["already mapped", "built", "helped", "waited"].map(stall).to_vec(),
                    faults_lost: 12_345_678,
                    allocation: Some(wide),
                },
                phases: ["mark", "final mark", "compact"]
                    .map(|phase| PhaseFigures {
                        phase: phase.into(),
                        wall_ns: wide,
                        total_ns: 3_600_000_000_000,
                    })
                    .to_vec(),
                moved: Moved {
                    bytes_by_copy: 1 << 52,
                    bytes_by_move: 1 << 52,
                    bytes_by_collector: 1 << 52,
                    bytes_by_mutators: 1 << 52,
                    pages_released: 1 << 40,
                    pages_by_copy: 1 << 40,
                    pages_by_move: 1 << 40,
                    pages_dense: 1 << 40,
                    pages_by_collector: 1 << 40,
                    pages_by_mutators: 1 << 40,
                    bytes_freed: 1 << 50,
                    live_bytes_last: 1 << 38,
                },
                retries: vec![RetryFigures {
                    op: "move".into(),
                    errno: "EAGAIN (11)".into(),
                    count: 1 << 40,
                }],
                mmu: (0..2).map(|t| of_thread(t, vec![(5, 500_000_000)], (0, 1 << 40))).collect(),
            },
            rss_peak_bytes: Some(1 << 40),
            side_table_bytes: 1 << 30,
            run: crate::stress::measured::empty("lru/x".into(), "lru".into(), "x".into(), 0),
            measuring: Default::default(),
            machine: MachineReport {
                kernel: "6.18.44-some-long-vendor-suffix".into(),
                cpus: 128,
                cpu_model: "Some Processor (R) With a Long Name CPU @ 2.00GHz".into(),
                memory_bytes: 1 << 42,
                page_bytes: 65_536,
                transparent_huge_pages: "madvise".into(),
                userfaultfd: Some("userfaultfd(UFFD_USER_MODE_ONLY)".into()),
                features: "event-fork event-remap missing-hugetlbfs missing-shmem sigbus \
                           thread-id minor-hugetlbfs minor-shmem exact-address move poison"
                    .into(),
                uffdio_move: true,
                per_vma_locks: true,
                per_vma_userfaultfd: true,
            },
        }
    }

    #[test]
    fn no_line_is_wider_than_the_page() {
        let mut report = example();
        for many in [false, true] {
            if many {
                report.gc.mmu =
                    (0..300).map(|t| of_thread(t, vec![(5, 500)], (0, 1 << 40))).collect();
            }
            for line in text(&report).lines() {
                assert!(
                    line.chars().count() <= crate::stress::page::WIDTH,
                    "{}: {line}",
                    line.chars().count()
                );
                assert!(!line.ends_with(' '), "trailing blanks: {line:?}");
            }
        }
    }

    #[test]
    fn the_verdict_comes_first_and_names_the_worst() {
        let report = example();
        let text = text(&report);
        assert!(text.starts_with("123,456 collections compacted the heap"), "{text}");
        assert!(verdict(&report).contains("longest pause 1000 s"), "{}", verdict(&report));
    }

    #[test]
    fn a_failed_check_is_the_first_thing_said() {
        let mut report = example();
        report.outcome.checks[0].ok = false;
        assert!(!report.passed());
        assert!(text(&report).starts_with("FAILED: checksum:"));
    }

    #[test]
    fn an_interrupted_run_says_that_it_is_partial() {
        let mut report = example();
        report.outcome.partial = true;
        assert!(verdict(&report).starts_with("Interrupted after 3600.0 s"));
    }

    #[test]
    fn stopping_the_world_is_not_called_running() {
        let mut report = example();
        report.setup.backend = "stw".into();
        assert!(verdict(&report).contains("stopped the mutators for"));
        assert!(!verdict(&report).contains("kept running"));
    }

    #[test]
    fn a_run_without_collections_says_so() {
        let mut report = example();
        report.gc.pauses.clear();
        report.gc.cycles = 0;
        assert!(verdict(&report).starts_with("No collection ended"));
    }
}
