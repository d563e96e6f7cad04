//! The lines of the live view, from what was read. Nothing here draws.

use super::feed::Collected;
use super::tally::Seen;
use crate::stress::units::{count, percent, time};

/// How many lines there are.
pub const LINES: usize = 8;

/// What was read at one moment.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// Monotonic nanoseconds.
    pub now: u64,
    /// The collector; `None` for a run without a heap.
    pub collected: Option<Collected>,
    /// Waits for reading.
    pub read: Seen,
    /// Waits for writing.
    pub write: Seen,
    /// Hiccups.
    pub hiccups: Seen,
    /// Frames by lateness.
    pub frames: Seen,
    /// Operations, for a workload that has no frames.
    pub operations: Seen,
    /// Late frames.
    pub late: u64,
    /// The window has begun.
    pub measuring: bool,
}

/// Events a second between two moments.
fn rate(before: u64, now: u64, seconds: f64) -> String {
    let rate = now.saturating_sub(before) as f64 / seconds.max(1e-3);
    format!("{}/s", count(rate.round() as u64))
}

/// The lines, each with its label; `recent` are the longest stalls of the last looks, oldest first.
pub fn lines(before: &Moment, now: &Moment, recent: &[u64]) -> [String; LINES] {
    let seconds = now.now.saturating_sub(before.now) as f64 / 1e9;
    let entry = |label: &str, text: String| format!("{label:<11}{text}");
    let none = Collected::default();
    let (was, is) =
        (before.collected.as_ref().unwrap_or(&none), now.collected.as_ref().unwrap_or(&none));
    let heap =
        |text: String| if now.collected.is_some() { text } else { "no heap in this run".into() };
    let state = match &is.now.under_way {
        Some((cycle, cause, phase, since)) => {
            let lasted = time(now.now.saturating_sub(*since));
            format!("cycle {cycle} ({cause}): {phase} for {lasted}; {} done", count(is.now.cycles))
        }
        None => format!("idle; {} cycles done", count(is.now.cycles)),
    };
    let lock = |was: &Seen, is: &Seen| match is.count {
        0 => "none seen".to_owned(),
        n => format!(
            "{} ({}), waited {} in all, longest {}",
            count(n),
            rate(was.count, n, seconds),
            time(is.total),
            time(is.longest)
        ),
    };
    let frames = match now.frames.count {
        0 if now.operations.count > 0 => format!(
            "{} ({}), mean {}, longest {}",
            count(now.operations.count),
            rate(before.operations.count, now.operations.count, seconds),
            time(now.operations.total / now.operations.count),
            time(now.operations.longest)
        ),
        0 => "no frames and no operations told yet".to_owned(),
        n => format!(
            "{} ({}), {} late ({}), latest by {}",
            count(n),
            rate(before.frames.count, n, seconds),
            count(now.late),
            percent(now.late as f64 / n as f64),
            time(now.frames.longest)
        ),
    };
    let told_by_operations = now.frames.count == 0 && now.operations.count > 0;
    let phase = if now.measuring { "" } else { " (warming up: nothing counts yet)" };
    [
        entry("collector", heap(state) + phase),
        entry(
            "pauses",
            heap(format!(
                "{}, longest {}; to safepoint at most {}",
                count(is.pauses.count),
                time(is.pauses.longest),
                time(is.safepoints.longest)
            )),
        ),
        entry(
            "stalls",
            heap(format!(
                "{} faults ({}), longest {}; {} memory waits, longest {}",
                count(is.faults.count),
                rate(was.faults.count, is.faults.count, seconds),
                time(is.faults.longest),
                count(is.waits.count),
                time(is.waits.longest)
            )),
        ),
        entry(if told_by_operations { "operations" } else { "frames" }, frames),
        entry("mmap_lock", format!("write: {}", lock(&before.write, &now.write))),
        entry("", format!("read:  {}", lock(&before.read, &now.read))),
        entry(
            "hiccups",
            format!("longest {} of {}", time(now.hiccups.longest), count(now.hiccups.count)),
        ),
        entry("longest", sparks(recent)),
    ]
}

/// A character for each duration, one step for each factor of about 3.2 from a microsecond on, and what
/// the highest means.
pub fn sparks(recent: &[u64]) -> String {
    const STEPS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let step = |ns: u64| match ns {
        0..1_000 => usize::from(ns > 0),
        ns => (((ns as f64 / 1_000.0).log10() * 2.0) as usize + 1).min(8),
    };
    let drawn: String = recent.iter().map(|&ns| STEPS[step(ns)]).collect();
    let most = recent.iter().copied().max().unwrap_or(0);
    match most {
        0 => "no stall of a mutator yet".to_owned(),
        most => format!("{drawn} {} at most", time(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::feed::Now;
    use super::*;

    #[test]
    fn the_lines_say_what_goes_on() {
        let before = Moment { now: 1_000_000_000, measuring: true, ..Moment::default() };
        let now = Moment {
            now: 2_000_000_000,
            collected: Some(Collected {
                now: Now {
                    cycles: 4,
                    under_way: Some((5, "threshold".into(), "compacting", 1_900_000_000)),
                },
                faults: Seen { count: 1_500, total: 9, longest: 8_050_000 },
                ..Collected::default()
            }),
            write: Seen { count: 40, total: 3_000_000, longest: 2_000_000 },
            frames: Seen { count: 120, total: 9, longest: 12_300_000 },
            late: 6,
            measuring: true,
            ..Moment::default()
        };
        let text = lines(&before, &now, &[0, 5_000_000]).join("\n");
        for part in [
            "cycle 5 (threshold): compacting for 100 ms; 4 done",
            "1,500 faults (1,500/s), longest 8.05 ms",
            "120 (120/s), 6 late (5.0 %), latest by 12.3 ms",
            "write: 40 (40/s), waited 3.00 ms in all, longest 2.00 ms",
            "read:  none seen",
            "5.00 ms at most",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_workload_without_frames_shows_its_operations() {
        let before = Moment { now: 1_000_000_000, ..Moment::default() };
        let operations = Seen { count: 2_000, total: 4_000_000, longest: 700_000 };
        let now = Moment { now: 2_000_000_000, operations, ..Moment::default() };
        let text = lines(&before, &now, &[]).join("\n");
        let line = "operations 2,000 (2,000/s), mean 2.00 us, longest 700 us";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("frames"), "{text}");
    }

    #[test]
    fn a_run_without_a_heap_says_so() {
        let text = lines(&Moment::default(), &Moment::default(), &[]).join("\n");
        assert!(text.contains("no heap in this run (warming up"), "{text}");
    }

    #[test]
    fn sparks_rise_with_the_logarithm() {
        assert_eq!(
            sparks(&[0, 500, 1_000, 3_300, 1_000_000, 9_000_000_000]),
            " ▁▁▂▇█ 9.00 s at most"
        );
    }
}
