//! Decade histograms of durations, in the form that kernel developers post: how many waits took less
//! than a microsecond, how many from one to ten, and so on to a second and more.

use serde::{Deserialize, Serialize};

/// Buckets: `[0, 1)` µs, `[1, 10)` µs, ... `[100, 1000)` ms, `[1 s, ∞)`.
pub const DECADES: usize = 8;

/// Names of the buckets, for tables.
pub const LABELS: [&str; DECADES] = [
    "[0,1) us",
    "[1,10) us",
    "[10,100) us",
    "[100us,1) ms",
    "[1,10) ms",
    "[10,100) ms",
    "[100ms,1) s",
    "[1 s,inf)",
];

/// Durations in nanoseconds: count, total, longest, and how many in each decade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Decades {
    /// How many.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub total: u64,
    /// The longest, in nanoseconds.
    pub max: u64,
    /// How many in each bucket, as [`LABELS`] names them.
    pub buckets: [u64; DECADES],
}

impl Decades {
    /// Adds one duration of `ns` nanoseconds.
    pub fn add(&mut self, ns: u64) {
        self.count += 1;
        self.total += ns;
        self.max = self.max.max(ns);
        self.buckets[bucket(ns)] += 1;
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Decades) {
        self.count += other.count;
        self.total += other.total;
        self.max = self.max.max(other.max);
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
    }

    /// The mean in nanoseconds; `None` of nothing.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.total as f64 / self.count as f64)
    }
}

/// The bucket of a duration in nanoseconds.
fn bucket(ns: u64) -> usize {
    match ns / 1_000 {
        0 => 0,
        us => (us.ilog10() as usize + 1).min(DECADES - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_decade_begins_where_its_label_says() {
        for (ns, expected) in [
            (0, 0),
            (999, 0),
            (1_000, 1),
            (9_999, 1),
            (10_000, 2),
            (99_999, 2),
            (100_000, 3),
            (999_999, 3),
            (1_000_000, 4),
            (10_000_000, 5),
            (100_000_000, 6),
            (999_999_999, 6),
            (1_000_000_000, 7),
            (u64::MAX, 7),
        ] {
            assert_eq!(bucket(ns), expected, "{ns}");
        }
    }

    #[test]
    fn merging_is_the_same_as_adding_to_one() {
        let (mut a, mut b, mut all) = (Decades::default(), Decades::default(), Decades::default());
        for ns in [5, 1_500, 70_000] {
            a.add(ns);
            all.add(ns);
        }
        for ns in [2_000_000_000, 3] {
            b.add(ns);
            all.add(ns);
        }
        a.merge(&b);
        assert_eq!(a, all);
        assert_eq!(a.count, a.buckets.iter().sum::<u64>());
        assert_eq!(a.mean(), Some(2_000_071_508.0 / 5.0));
        assert_eq!(Decades::default().mean(), None);
    }
}
