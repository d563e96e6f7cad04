//! Distributions: percentiles for reading, and the buckets from which any other figure or curve follows.
//!
//! The buckets are those of an HdrHistogram with two significant digits (128 to an octave), so that the
//! value of a bucket is at most 1 % above the values in it. Only occupied buckets are listed.
//! Distributions of several runs are merged by adding buckets; percentiles are never averaged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::measure::latency::Recorder;

/// Durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub total: u64,
    /// The arithmetic mean, rounded down; 0 of nothing.
    pub mean: u64,
    /// The median: like the other percentiles the upper edge of its bucket, but at most `max`.
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
    /// Occupied buckets: upper edge (inclusive) and number, ascending.
    pub buckets: Vec<(u64, u64)>,
}

impl Distribution {
    /// The distribution of a list of durations.
    pub fn of(durations: impl IntoIterator<Item = u64>) -> Distribution {
        let mut recorder = Recorder::new();
        let mut total = 0u64;
        for ns in durations {
            recorder.record(ns);
            total = total.saturating_add(ns);
        }
        Distribution::from_parts(recorder.buckets(), total, recorder.max())
    }

    /// From occupied buckets (upper edge and number, ascending), the exact sum and the exact maximum.
    pub fn from_parts(buckets: Vec<(u64, u64)>, total: u64, max: u64) -> Distribution {
        let count = buckets.iter().map(|b| b.1).sum();
        let mut d = Distribution { count, total, max, buckets, ..Distribution::default() };
        if let Some(mean) = total.checked_div(count) {
            d.mean = mean;
            (d.p50, d.p90, d.p99) = (d.at(0.5), d.at(0.9), d.at(0.99));
            (d.p999, d.p9999) = (d.at(0.999), d.at(0.9999));
        }
        d
    }

    /// The value at a quantile from 0 to 1: the upper edge of the bucket that holds the value at rank
    /// `ceil(q * count)`, at most the maximum; 0 of nothing.
    pub fn at(&self, q: f64) -> u64 {
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        for &(edge, n) in &self.buckets {
            below += n;
            if below >= rank {
                return edge.min(self.max);
            }
        }
        self.max
    }

    /// All of several, as one.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Distribution>) -> Distribution {
        let (mut buckets, mut total, mut max) = (BTreeMap::new(), 0u64, 0);
        for part in parts {
            for &(edge, n) in &part.buckets {
                *buckets.entry(edge).or_insert(0) += n;
            }
            total = total.saturating_add(part.total);
            max = max.max(part.max);
        }
        Distribution::from_parts(buckets.into_iter().collect(), total, max)
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Signed durations in nanoseconds, exact: a frame's overrun is negative when it was early.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SignedDistribution {
    /// How many.
    pub count: u64,
    /// The least.
    pub min: i64,
    /// The median: like the others, the value at rank `ceil(q * count)`.
    pub p50: i64,
    /// The 90th percentile.
    pub p90: i64,
    /// The 95th percentile.
    pub p95: i64,
    /// The 99th percentile.
    pub p99: i64,
    /// The 99.9th percentile.
    pub p999: i64,
    /// The greatest.
    pub max: i64,
    /// Buckets of 100 microseconds: upper edge (exclusive, a multiple of 100 µs) and number, ascending,
    /// occupied ones only.
    pub buckets: Vec<(i64, u64)>,
}

/// Width of a bucket of a [`SignedDistribution`], nanoseconds.
const SIGNED_BUCKET: i64 = 100_000;

impl SignedDistribution {
    /// The distribution of a list.
    pub fn of(values: impl IntoIterator<Item = i64>) -> SignedDistribution {
        let mut all: Vec<i64> = values.into_iter().collect();
        all.sort_unstable();
        let Some((&min, &max)) = all.first().zip(all.last()) else {
            return SignedDistribution::default();
        };
        let rank = |q: f64| all[((q * all.len() as f64).ceil() as usize).clamp(1, all.len()) - 1];
        let mut buckets: Vec<(i64, u64)> = Vec::new();
        for v in &all {
            let edge = (v.div_euclid(SIGNED_BUCKET) + 1) * SIGNED_BUCKET;
            match buckets.last_mut() {
                Some(last) if last.0 == edge => last.1 += 1,
                _ => buckets.push((edge, 1)),
            }
        }
        SignedDistribution {
            count: all.len() as u64,
            min,
            p50: rank(0.5),
            p90: rank(0.9),
            p95: rank(0.95),
            p99: rank(0.99),
            p999: rank(0.999),
            max,
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::latency::Percentiles;

    #[test]
    fn percentiles_are_those_of_the_recorder() {
        let values = || (1..=10_000u64).map(|n| n * n);
        let (d, p) = (Distribution::of(values()), Percentiles::of(values()).unwrap());
        assert_eq!((d.p50, d.p90, d.p99, d.p999, d.p9999), (p.p50, p.p90, p.p99, p.p999, p.p9999));
        assert_eq!((d.count, d.max, d.total), (10_000, 100_000_000, values().sum()));
    }

    #[test]
    fn merging_is_the_same_as_counting_together() {
        let (a, b) = (Distribution::of(1..500), Distribution::of(400..90_000));
        assert_eq!(Distribution::merged([&a, &b]), Distribution::of((1..500).chain(400..90_000)));
        assert_eq!(Distribution::of([]), Distribution::default());
    }

    #[test]
    fn signed_buckets_meet_at_zero() {
        let d = SignedDistribution::of([-1, 0, 99_999, 100_000, -100_000, -100_001]);
        assert_eq!(d.buckets, [(-100_000, 1), (0, 2), (100_000, 2), (200_000, 1)]);
        assert_eq!((d.min, d.max, d.p50), (-100_001, 100_000, -1));
    }
}
