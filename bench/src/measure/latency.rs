//! Latencies of single operations, in HdrHistograms.
//!
//! Two ways of counting, always labelled, because they answer different questions:
//!
//! - **closed**: the time between two successive clock readings, one after each operation.
//!   Nothing falls between operations, so no pause goes unseen, but a slow operation delays the
//!   ones behind it without counting against them.
//! - **metered**: operations fall due on a schedule, and each is counted from the moment it fell
//!   due, however late the thread is; so a stall counts against everything that it delays (no
//!   coordinated omission).
//!
//! Two significant decimal digits: 128 buckets an octave, 30 KiB for the whole range. A third
//! digit would cost an eighth of a megabyte of cache a thread, and the recorder must not disturb
//! the loop that it measures. The maximum is kept exactly.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart, in nanoseconds (ten minutes); longer ones count as this
/// in the percentiles. The maximum is exact at any length.
const LONGEST: u64 = 600_000_000_000;

/// One thread's latencies. Recording is a few nanoseconds and never allocates.
#[derive(Debug, Clone)]
pub struct Recorder {
    histogram: Histogram<u64>,
    max: u64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// An empty recorder.
    pub fn new() -> Recorder {
        let histogram =
            Histogram::new_with_bounds(1, LONGEST, 2).expect("constant bounds are valid");
        Recorder { histogram, max: 0 }
    }

    /// One with these latencies, in nanoseconds.
    pub fn of(latencies: impl IntoIterator<Item = u64>) -> Recorder {
        let mut recorder = Recorder::new();
        latencies.into_iter().for_each(|ns| recorder.record(ns));
        recorder
    }

    /// The sum of the latencies, to the precision of the buckets.
    pub fn total(&self) -> u64 {
        (self.histogram.mean() * self.histogram.len() as f64) as u64
    }

    /// Counts one latency, in nanoseconds.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns);
        self.max = self.max.max(ns);
    }

    /// How many latencies were recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The longest, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The occupied buckets: upper edge (inclusive, nanoseconds) and number, ascending.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        let buckets = self.histogram.iter_recorded();
        buckets.map(|b| (b.value_iterated_to(), b.count_since_last_iteration())).collect()
    }

    /// Adds another thread's latencies to this one's.
    pub fn merge(&mut self, other: &Recorder) {
        self.histogram.add(&other.histogram).expect("all recorders have the same bounds");
        self.max = self.max.max(other.max);
    }

    /// The figures of a report; `None` if nothing was recorded.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.histogram.is_empty() {
            return None;
        }
        // The upper edge of a bucket can lie above the exact maximum.
        let at = |q: f64| self.histogram.value_at_quantile(q).min(self.max);
        Some(Percentiles {
            count: self.histogram.len(),
            mean: self.histogram.mean() as u64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: self.max,
        })
    }
}

/// Percentiles of a set of durations, in nanoseconds. Each is the upper edge of its bucket (at
/// most 1 % above the true value), and no more than the exact maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// How many durations there were.
    pub count: u64,
    /// The arithmetic mean.
    pub mean: u64,
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The 99.99th percentile.
    pub p9999: u64,
    /// The exact maximum.
    pub max: u64,
}

impl Percentiles {
    /// The figures of a list of durations in nanoseconds; `None` for an empty one.
    pub fn of(durations: impl IntoIterator<Item = u64>) -> Option<Percentiles> {
        Recorder::of(durations).percentiles()
    }
}

/// How the operations of a window were offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Discipline {
    /// One after the other, as fast as they go.
    Closed,
    /// On a schedule, at half the rate of this run's own closed loop or at the rate given.
    Metered,
    /// On a schedule, at a rate that is the same for every runtime compared.
    Fixed,
    /// One frame at each vertical synchronisation of a 120 Hz display.
    Paced,
}

impl Discipline {
    /// The label of reports.
    pub fn label(self) -> &'static str {
        match self {
            Discipline::Closed => "closed",
            Discipline::Metered => "metered",
            Discipline::Fixed => "fixed",
            Discipline::Paced => "paced",
        }
    }
}

/// The latencies of one measured window, all threads together.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// How the operations were offered.
    pub mode: Discipline,
    /// The offered rate, operations a second of all threads together, when there was one.
    pub offered_ops_s: Option<f64>,
    /// The rate that was reached, operations a second of all threads together.
    pub reached_ops_s: f64,
    /// Whether a thread fell so far behind its schedule that it gave up: the percentiles are then
    /// those of an overloaded program.
    pub saturated: bool,
    /// The figures.
    #[serde(flatten)]
    pub percentiles: Percentiles,
    /// All of them.
    #[serde(skip)]
    pub recorder: Recorder,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_percent_and_the_maximum_is_exact() {
        let p = Percentiles::of(1..=100_000u64).unwrap();
        assert_eq!(p.count, 100_000);
        assert_eq!(p.max, 100_000);
        for (got, want) in [
            (p.p50, 50_000.0),
            (p.p90, 90_000.0),
            (p.p99, 99_000.0),
            (p.p999, 99_900.0),
            (p.p9999, 99_990.0),
        ] {
            assert!(got as f64 >= want && got as f64 <= want * 1.01, "{got} for {want}");
        }
    }

    #[test]
    fn nothing_recorded_gives_no_figures() {
        assert_eq!(Recorder::new().percentiles(), None);
    }

    #[test]
    fn merging_is_the_same_as_recording_in_one_place() {
        let (mut a, mut b) = (Recorder::new(), Recorder::new());
        (1..500).for_each(|n| a.record(n));
        (500..1000).for_each(|n| b.record(n));
        a.merge(&b);
        assert_eq!(a.percentiles(), Percentiles::of(1..1000));
    }

    #[test]
    fn a_latency_beyond_the_range_keeps_its_exact_maximum() {
        let mut r = Recorder::new();
        r.record(LONGEST * 3);
        assert_eq!(r.percentiles().unwrap().max, LONGEST * 3);
    }
}
