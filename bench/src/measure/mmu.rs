//! Bounded minimum mutator utilisation: the least share of any window of at least `w` that a
//! thread had to itself.
//!
//! Counted against a thread is every interval in which the collector kept it from its work: the
//! pauses, its own stops (handshakes and root fix-up), the stalls in missing pages, and the waits
//! for memory. Pauses alone flatter a collector that works through page faults, for it moves its
//! cost out of the pauses. Loss of a core to a collector thread is not in the intervals; it shows
//! in the latencies.
//!
//! "Bounded" (BMU) takes the minimum over all windows of length `w` *or more*, which makes the
//! figure monotone in `w`. The exact value is found by bisection on the lost share: a share `f`
//! can be lost if some window `[s, e]` with `e - s >= w` satisfies `lost(s, e) >= f * (e - s)`,
//! which one sweep over the intervals with a running minimum decides. The worst window is bounded
//! by a begin and an end of intervals, or is exactly `w` long: any other gets worse when one of
//! its ends is moved.

use serde::Serialize;

/// The window lengths of a report, in milliseconds.
pub const WINDOWS_MS: [u64; 7] = [1, 2, 5, 10, 20, 50, 100];

/// An interval of time, in nanoseconds; the end is not before the begin.
pub type Interval = (u64, u64);

/// One thread's utilisation.
#[derive(Debug, Clone, Serialize)]
pub struct ThreadMmu {
    /// The mutator's id, in order of attachment.
    pub thread: u32,
    /// Nanoseconds that the thread lost in the whole window.
    pub lost_ns: u64,
    /// For each window length: the least share left to the thread, from 0 to 1.
    pub windows: Vec<WindowMmu>,
}

/// Utilisation at one window length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WindowMmu {
    /// The shortest window considered, in milliseconds.
    pub window_ms: u64,
    /// The least share of any window of this length or more that was left to the thread, from 0
    /// to 1; `None` if the run was shorter than the window.
    pub utilization: Option<f64>,
}

/// The utilisation of one thread within `span`, given the intervals it lost (in any order; they
/// may overlap).
pub fn of_thread(thread: u32, lost: Vec<Interval>, span: Interval) -> ThreadMmu {
    let lost = normalize(lost, span);
    let windows = WINDOWS_MS
        .iter()
        .map(|&window_ms| WindowMmu {
            window_ms,
            utilization: bounded(&lost, span, window_ms * 1_000_000),
        })
        .collect();
    ThreadMmu { thread, lost_ns: lost.iter().map(|(b, e)| e - b).sum(), windows }
}

/// Sorts, clips to `span` and merges overlapping intervals: what remains is disjoint, ascending
/// and not empty.
pub fn normalize(mut lost: Vec<Interval>, span: Interval) -> Vec<Interval> {
    for (begin, end) in &mut lost {
        *begin = (*begin).clamp(span.0, span.1);
        *end = (*end).clamp(span.0, span.1);
    }
    lost.retain(|(begin, end)| begin < end);
    lost.sort_unstable();
    let mut merged: Vec<Interval> = Vec::with_capacity(lost.len());
    for (begin, end) in lost {
        match merged.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((begin, end)),
        }
    }
    merged
}

/// The bounded minimum mutator utilisation for windows of at least `window` nanoseconds within
/// `span`; `None` if the span is shorter than that. `lost` must be [`normalize`]d.
pub fn bounded(lost: &[Interval], span: Interval, window: u64) -> Option<f64> {
    if window == 0 || span.1 - span.0 < window {
        return None;
    }
    // before[i]: nanoseconds lost before interval i begins.
    let mut before = Vec::with_capacity(lost.len() + 1);
    before.push(0u64);
    for &(begin, end) in lost {
        before.push(before[before.len() - 1] + (end - begin));
    }
    let lost_before = |t: u64| {
        let n = lost.partition_point(|&(begin, _)| begin < t);
        // Of the last interval that began before `t`, only the part before `t`.
        before[n] - if n > 0 { lost[n - 1].1.saturating_sub(t) } else { 0 }
    };
    // Windows of exactly this length. The worst begins where an interval begins, or ends where
    // one ends, or leans on an end of the span.
    let exact = |begin: u64| lost_before(begin + window) - lost_before(begin);
    let latest = span.1 - window;
    let mut worst = exact(span.0).max(exact(latest));
    for &(begin, end) in lost {
        if begin <= latest {
            worst = worst.max(exact(begin));
        }
        if end >= span.0 + window {
            worst = worst.max(exact(end - window));
        }
    }
    // Longer windows. The worst begins where an interval begins and ends where one ends.
    let (mut low, mut high) = (worst as f64 / window as f64, 1.0f64);
    if low < high && longer_loses(lost, &before, span, window, low) {
        // Forty halvings leave an error far below a nanosecond in any window of a report.
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if longer_loses(lost, &before, span, window, middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
    }
    Some(1.0 - low)
}

/// Whether some window of at least `window`, from the begin of an interval to the end of one,
/// lost the share `f` of itself: with `F(t) = lost before t - f * t`, whether `F(end)` reaches
/// the least `F(begin)` of the begins that are early enough.
fn longer_loses(lost: &[Interval], before: &[u64], span: Interval, window: u64, f: f64) -> bool {
    let value = |lost: u64, t: u64| lost as f64 - f * (t - span.0) as f64;
    let (mut next, mut least) = (0, f64::INFINITY);
    for (i, &(_, end)) in lost.iter().enumerate() {
        while next <= i && lost[next].0 + window <= end {
            least = least.min(value(before[next], lost[next].0));
            next += 1;
        }
        if value(before[i + 1], end) > least {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::rng::Rng;

    /// The definition, tried at every whole nanosecond.
    fn naive(lost: &[Interval], span: Interval, window: u64) -> f64 {
        let mut worst = 0.0f64;
        for begin in span.0..=span.1 - window {
            for end in begin + window..=span.1 {
                let sum: u64 =
                    lost.iter().map(|&(b, e)| e.min(end).saturating_sub(b.max(begin))).sum();
                worst = worst.max(sum as f64 / (end - begin) as f64);
            }
        }
        1.0 - worst
    }

    #[test]
    fn the_sweep_agrees_with_the_definition() {
        let mut rng = Rng::new(5);
        for _ in 0..300 {
            let span = (100, 100 + 40 + rng.below(30) as u64);
            let lost: Vec<_> = (0..rng.below(8))
                .map(|_| {
                    let begin = 90 + rng.below(90) as u64;
                    (begin, begin + rng.below(12) as u64)
                })
                .collect();
            let lost = normalize(lost, span);
            for window in [1, 3, 10, 25, 40] {
                let got = bounded(&lost, span, window).unwrap();
                let want = naive(&lost, span, window);
                assert!((got - want).abs() < 1e-6, "{lost:?} in {span:?}: {window}: {got} {want}");
            }
        }
    }

    #[test]
    fn it_is_monotone_in_the_window() {
        let lost = [(10, 20), (21, 31), (80, 95)];
        let mut last = 0.0;
        for window in 1..100 {
            let u = bounded(&lost, (0, 100), window).unwrap();
            assert!(u >= last - 1e-9, "{window}");
            last = u;
        }
    }

    #[test]
    fn an_undisturbed_thread_keeps_everything() {
        assert_eq!(bounded(&[], (0, 1000), 10), Some(1.0));
    }

    #[test]
    fn a_window_inside_a_pause_leaves_nothing() {
        assert_eq!(bounded(&[(100, 200)], (0, 1000), 50), Some(0.0));
        assert_eq!(bounded(&[(100, 200)], (0, 1000), 200), Some(0.5));
    }

    #[test]
    fn a_window_longer_than_the_run_has_no_figure() {
        assert_eq!(bounded(&[(1, 2)], (0, 10), 11), None);
    }

    #[test]
    fn overlapping_intervals_are_counted_once_and_clipped() {
        let lost = vec![(50, 70), (0, 20), (60, 80), (95, 500)];
        assert_eq!(normalize(lost, (10, 100)), [(10, 20), (50, 80), (95, 100)]);
    }
}
