//! Percentile curves from buckets, with bootstrap bands over invocations.
//!
//! A curve is a list of points `(nines, value)`: `nines` is `-log10(1 - q)`, so the median lies at
//! 0.3, the 99th percentile at 2, the 99.9th at 3, and each further nine has the same room. A curve
//! ends where one value is left: beyond that there is nothing to know. Repetitions are merged by adding
//! their buckets; percentiles are never averaged.

use crate::compare::stats::quantile_of_sorted;
use crate::schema::Distribution;
use crate::workloads::rng::Rng;

/// Points to a nine.
const STEPS: usize = 16;
/// Resamples of a band.
const RESAMPLES: usize = 400;
/// Where the band's random numbers start.
const SEED: u64 = 0xBA2D;

/// A curve and its band.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// Nines.
    pub x: Vec<f64>,
    /// Nanoseconds.
    pub y: Vec<u64>,
    /// The band's low end at each point; empty for fewer than two invocations.
    pub low: Vec<u64>,
    /// The band's high end.
    pub high: Vec<u64>,
}

/// The points of a curve over `count` values: from the least value to the rank of the greatest.
fn grid(count: u64) -> Vec<f64> {
    let end = (count as f64).log10();
    let steps = (end * STEPS as f64).floor() as usize;
    let mut x: Vec<f64> = (0..=steps).map(|i| i as f64 / STEPS as f64).collect();
    if x.last().is_some_and(|&last| end - last > 1e-9) {
        x.push(end);
    }
    x
}

fn quantile(nines: f64) -> f64 {
    1.0 - 10f64.powf(-nines)
}

/// The curve of merged distributions, each of one invocation; `None` if there are no buckets to draw
/// from.
pub fn curve(parts: &[&Distribution]) -> Option<Curve> {
    let parts: Vec<&Distribution> =
        parts.iter().copied().filter(|d| !d.buckets.is_empty()).collect();
    let merged = Distribution::merged(parts.iter().copied());
    if merged.is_empty() {
        return None;
    }
    let x = grid(merged.count);
    let y: Vec<u64> = x.iter().map(|&nines| merged.at(quantile(nines))).collect();
    let (low, high) = if parts.len() < 2 { Default::default() } else { band(&parts, &merged, &x) };
    Some(Curve { x, y, low, high })
}

/// The 95 % band of a merged curve: invocations drawn with replacement, merged, read at each point.
fn band(parts: &[&Distribution], merged: &Distribution, x: &[f64]) -> (Vec<u64>, Vec<u64>) {
    let edges: Vec<u64> = merged.buckets.iter().map(|b| b.0).collect();
    let counts: Vec<Vec<(usize, u64)>> = parts
        .iter()
        .map(|part| {
            let at = |edge: u64| edges.binary_search(&edge).expect("merged has every edge");
            part.buckets.iter().map(|&(edge, n)| (at(edge), n)).collect()
        })
        .collect();
    let mut rng = Rng::new(SEED);
    let mut found: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); x.len()];
    let mut sum = vec![0u64; edges.len()];
    for _ in 0..RESAMPLES {
        sum.fill(0);
        let mut max = 0;
        for _ in 0..parts.len() {
            let drawn = rng.below(parts.len());
            counts[drawn].iter().for_each(|&(i, n)| sum[i] += n);
            max = max.max(parts[drawn].max);
        }
        let total: u64 = sum.iter().sum();
        // Points ascend, so one walk over the buckets serves all of them.
        let (mut below, mut bucket) = (0, 0);
        for (values, &nines) in found.iter_mut().zip(x) {
            let rank = ((quantile(nines) * total as f64).ceil() as u64).clamp(1, total.max(1));
            while below < rank && bucket < edges.len() {
                below += sum[bucket];
                bucket += 1;
            }
            values.push(edges[bucket.saturating_sub(1)].min(max) as f64);
        }
    }
    let ends = |q: f64| {
        found
            .iter()
            .map(|values| {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                quantile_of_sorted(&sorted, q).unwrap_or(0.0) as u64
            })
            .collect()
    };
    (ends(0.025), ends(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_reads_the_percentiles_at_the_nines() {
        let d = Distribution::of(1..=10_000);
        let c = curve(&[&d]).unwrap();
        assert_eq!(c.x.last(), Some(&4.0));
        let at = |nines: f64| c.y[c.x.iter().position(|x| (x - nines).abs() < 1e-9).unwrap()];
        assert_eq!((at(1.0), at(2.0), at(3.0)), (d.p90, d.p99, d.p999));
        assert_eq!(c.y.last(), Some(&10_000));
        assert!(c.y.windows(2).all(|w| w[0] <= w[1]));
        assert!(c.low.is_empty());
    }

    #[test]
    fn the_band_holds_the_curve_and_is_as_wide_as_the_runs_differ() {
        let a: Vec<Distribution> =
            (0..6).map(|i| Distribution::of((1..=1000).map(|n| n * 1000 + i * 100_000))).collect();
        let c = curve(&a.iter().collect::<Vec<_>>()).unwrap();
        for i in 0..c.x.len() {
            assert!(c.low[i] <= c.y[i] && c.y[i] <= c.high[i], "{i}: {c:?}");
        }
        let median = c.x.iter().position(|&x| x >= 0.3).unwrap();
        assert!(c.high[median] - c.low[median] > 50_000);
        let same: Vec<&Distribution> = std::iter::repeat_n(&a[0], 6).collect();
        let c = curve(&same).unwrap();
        assert_eq!(c.low, c.high);
    }

    #[test]
    fn nothing_gives_no_curve_and_one_value_one_point() {
        assert_eq!(curve(&[]), None);
        assert_eq!(curve(&[&Distribution::default()]), None);
        let c = curve(&[&Distribution::of([7])]).unwrap();
        assert_eq!((c.x, c.y), (vec![0.0], vec![7]));
    }
}
