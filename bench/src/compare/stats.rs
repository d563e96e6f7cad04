//! Figures of two groups of invocations: medians with intervals, and how large a difference is.
//!
//! The invocation is the sampling unit: what varies between two runs of a program (where memory
//! lay, what else the machine did) does not vary within one, so thousands of pauses of one run are
//! no thousand pieces of evidence. Each invocation gives one value per metric.
//!
//! Intervals are percentile bootstraps of medians from a fixed seed: the same files give the same
//! interval. A bootstrapped median never leaves the range of its values, and the range of `n`
//! values holds the true median with a probability of `1 - 2^(1 - n)`; for fewer than six values
//! that is less than 95 %, so [`Interval::confidence`] is the smaller of the two and reports print
//! it.

use crate::workloads::rng::Rng;

use super::rank::MannWhitney;

/// Resamples of a bootstrap. The 2.5 % tails then hold 100 values each.
const RESAMPLES: usize = 4_000;
/// Where the bootstrap's random numbers start.
const SEED: u64 = 0xB007;
/// The confidence that is aimed at.
pub const CONFIDENCE: f64 = 0.95;

/// An interval of confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its low end.
    pub low: f64,
    /// Its high end.
    pub high: f64,
    /// The confidence that so few values allow, at most [`CONFIDENCE`].
    pub confidence: f64,
}

/// The median; the mean of the middle two of an even number. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    match n {
        0 => None,
        n if n % 2 == 1 => Some(sorted[n / 2]),
        n => Some(0.5 * (sorted[n / 2 - 1] + sorted[n / 2])),
    }
}

/// The value at share `q` of sorted values, interpolated between neighbours.
pub fn quantile_of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(last);
    Some(sorted[low] + part * (sorted[high] - sorted[low]))
}

/// The confidence with which the range of `n` values holds the median that they were drawn around.
fn attainable(n: usize) -> f64 {
    CONFIDENCE.min(1.0 - 0.5f64.powi(n as i32 - 1))
}

fn tails(mut found: Vec<f64>, confidence: f64) -> Option<Interval> {
    found.retain(|x| x.is_finite());
    found.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some(Interval {
        low: quantile_of_sorted(&found, tail)?,
        high: quantile_of_sorted(&found, 1.0 - tail)?,
        confidence,
    })
}

fn resample(rng: &mut Rng, values: &[f64], into: &mut Vec<f64>) -> f64 {
    into.clear();
    into.extend((0..values.len()).map(|_| values[rng.below(values.len())]));
    into.sort_by(f64::total_cmp);
    median_of_sorted(into).unwrap_or(f64::NAN)
}

/// The interval of the median of one group; `None` for fewer than two values.
pub fn median_interval(values: &[f64]) -> Option<Interval> {
    if values.len() < 2 {
        return None;
    }
    let (mut rng, mut scratch) = (Rng::new(SEED), Vec::new());
    let found = (0..RESAMPLES).map(|_| resample(&mut rng, values, &mut scratch)).collect();
    tails(found, attainable(values.len()))
}

/// The interval of the relative change of medians, `after / before - 1`; `None` for fewer than two
/// values on either side, or if a median before may be zero.
pub fn change_interval(before: &[f64], after: &[f64]) -> Option<Interval> {
    if before.len() < 2 || after.len() < 2 {
        return None;
    }
    let (mut rng, mut scratch) = (Rng::new(SEED), Vec::new());
    let mut found = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let was = resample(&mut rng, before, &mut scratch);
        let is = resample(&mut rng, after, &mut scratch);
        if was == 0.0 {
            return None;
        }
        found.push(is / was - 1.0);
    }
    tails(found, attainable(before.len().min(after.len())))
}

/// The Hodges–Lehmann shift: the median of all differences `after - before`, in the metric's own
/// unit. `None` if a group is empty.
pub fn shift(before: &[f64], after: &[f64]) -> Option<f64> {
    let differences: Vec<f64> =
        before.iter().flat_map(|b| after.iter().map(move |a| a - b)).collect();
    median(&differences)
}

/// One metric before and after.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The values before, one an invocation.
    pub before: Vec<f64>,
    /// The values after.
    pub after: Vec<f64>,
    /// The median before.
    pub median_before: f64,
    /// The median after.
    pub median_after: f64,
    /// The interval of the median before.
    pub interval_before: Option<Interval>,
    /// The interval of the median after.
    pub interval_after: Option<Interval>,
    /// `median_after / median_before - 1`; `None` if it was zero.
    pub change: Option<f64>,
    /// The interval of that change.
    pub change_interval: Option<Interval>,
    /// The Hodges–Lehmann shift.
    pub shift: f64,
    /// Cliff's delta: the share of pairs in which the value after is greater, less the share in
    /// which it is smaller. -1: every run after is below every run before.
    pub delta: f64,
    /// The test.
    pub test: MannWhitney,
}

impl Comparison {
    /// Compares; `None` if a group is empty or a value is no number.
    pub fn new(before: Vec<f64>, after: Vec<f64>) -> Option<Comparison> {
        // The second group's U counts pairs in which the value after is the greater one.
        let test = MannWhitney::test(&after, &before)?;
        let (was, is) = (median(&before)?, median(&after)?);
        let pairs = (before.len() * after.len()) as f64;
        Some(Comparison {
            median_before: was,
            median_after: is,
            interval_before: median_interval(&before),
            interval_after: median_interval(&after),
            change: (was != 0.0).then(|| is / was - 1.0),
            change_interval: change_interval(&before, &after),
            shift: shift(&before, &after)?,
            delta: 2.0 * test.u / pairs - 1.0,
            test,
            before,
            after,
        })
    }
}

/// Benjamini and Hochberg's adjustment: for each `p`, the least rate of false discoveries at which
/// it would be among the discoveries. With forty metrics, two fall below 0.05 by chance alone.
pub fn adjusted(p: &[f64]) -> Vec<f64> {
    let n = p.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut out = vec![1.0; n];
    let mut least = 1.0f64;
    for (place, &i) in order.iter().enumerate().rev() {
        least = least.min(p[i] * n as f64 / (place + 1) as f64);
        out[i] = least;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles_are_those_of_the_textbook() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(quantile_of_sorted(&[0.0, 10.0], 0.25), Some(2.5));
    }

    #[test]
    fn the_interval_of_a_median_has_the_coverage_it_claims() {
        let mut rng = Rng::new(77);
        let mut held = 0;
        for _ in 0..300 {
            // Skewed, as latencies are; the true median is 0.25.
            let values: Vec<f64> = (0..15)
                .map(|_| {
                    let x = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                    x * x
                })
                .collect();
            let i = median_interval(&values).unwrap();
            held += u32::from(i.low <= 0.25 && 0.25 <= i.high);
        }
        assert!((273..=297).contains(&held), "{held} of 300");
    }

    #[test]
    fn few_values_claim_no_more_than_they_can() {
        assert_eq!(median_interval(&[1.0]), None);
        assert_eq!(median_interval(&[1.0, 2.0, 3.0]).unwrap().confidence, 0.75);
        assert_eq!(median_interval(&[1.0; 6]).unwrap().confidence, CONFIDENCE);
        assert_eq!(change_interval(&[0.0, 0.0, 1.0], &[1.0, 2.0, 3.0]), None);
    }

    #[test]
    fn the_same_values_give_the_same_interval() {
        let values = [5.0, 9.0, 7.0, 8.0, 30.0, 6.0];
        assert_eq!(median_interval(&values), median_interval(&values));
        let i = median_interval(&values).unwrap();
        assert!(5.0 <= i.low && i.low < 7.5 && 7.5 < i.high && i.high <= 30.0, "{i:?}");
    }

    #[test]
    fn a_clear_halving_is_seen_as_one() {
        let before = vec![100.0, 104.0, 98.0, 101.0, 99.0, 103.0];
        let after: Vec<f64> = before.iter().map(|x| x / 2.0).collect();
        let c = Comparison::new(before, after).unwrap();
        assert_eq!(c.change, Some(-0.5));
        let interval = c.change_interval.unwrap();
        assert!(interval.low > -0.55 && interval.high < -0.45, "{interval:?}");
        assert_eq!(c.delta, -1.0);
        assert!((c.shift + 50.0).abs() < 3.0);
        assert!((c.test.p - 2.0 / 924.0).abs() < 1e-12);
        let same = Comparison::new(vec![1.0, 2.0], vec![1.0, 2.0]).unwrap();
        assert_eq!((same.delta, same.shift, same.test.p), (0.0, 0.0, 1.0));
    }

    /// The example of Benjamini and Hochberg's paper of 1995: at a rate of 0.05, four of the fifteen
    /// are discoveries.
    #[test]
    fn false_discoveries_are_held_back() {
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0,
        ];
        let q = adjusted(&p);
        assert_eq!(q.iter().filter(|&&q| q <= 0.05).count(), 4);
        assert!(q.windows(2).all(|w| w[0] <= w[1]));
    }
}
