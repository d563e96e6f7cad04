//! The exact Mann–Whitney test: how likely so clear a separation of two groups is if the groups are
//! alike.
//!
//! The null distribution is computed, not approximated: of all ways to call `m` of the `m + n`
//! values "the first group", the share whose rank sum is at least as extreme as the one seen.
//! Equal values share the mean of their ranks, and the distribution is then that of these very
//! ranks, so ties cost no exactness. Ranks are doubled to stay whole numbers. Beyond
//! what is affordable the normal approximation with corrections for ties and continuity takes over, and
//! [`MannWhitney::exact`] says so.

/// Steps of the exact count that are affordable (a fraction of a second); 100 values against 100
/// need less.
const EXACT_WORK: u64 = 500_000_000;

/// The outcome of a test of two groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MannWhitney {
    /// Of all pairs of a value of the first group and one of the second, in how many the first is
    /// greater; pairs of equals count half.
    pub u: f64,
    /// Two-sided: twice the smaller tail, at most 1.
    pub p: f64,
    /// Whether `p` is exact; otherwise it is the normal approximation.
    pub exact: bool,
}

impl MannWhitney {
    /// Tests the two groups; `None` if one of them is empty or holds a value that is no number.
    pub fn test(first: &[f64], second: &[f64]) -> Option<MannWhitney> {
        let (m, n) = (first.len(), second.len());
        if m == 0 || n == 0 || first.iter().chain(second).any(|x| x.is_nan()) {
            return None;
        }
        let ranks = doubled_ranks(first, second);
        let sum: u64 = ranks[..m].iter().sum();
        let u = sum as f64 / 2.0 - (m * (m + 1)) as f64 / 2.0;
        let all: u64 = ranks.iter().sum();
        // The count runs over the smaller group; a subset and its complement are equally likely.
        let (few, seen) = if m <= n { (m, sum) } else { (n, all - sum) };
        let work = (m + n) as u64 * few as u64 * all;
        let exact = work <= EXACT_WORK;
        let p = match exact {
            true => exact_p(&ranks, few, seen),
            false => normal_p(&ranks, m, n, u),
        };
        Some(MannWhitney { u, p, exact })
    }

    /// The least two-sided `p` that groups of these sizes can reach: 2 of all ways to divide them.
    /// If it is above 0.05, no result whatever can be called significant.
    pub fn least_p(m: usize, n: usize) -> f64 {
        // 2 / C(m + n, m), by factors, so that nothing overflows.
        let choose = (1..=m).fold(1.0f64, |c, i| c * (n + i) as f64 / i as f64);
        (2.0 / choose).min(1.0)
    }
}

/// Twice the rank of each value among all, the first group's first; equals share their mean rank.
fn doubled_ranks(first: &[f64], second: &[f64]) -> Vec<u64> {
    let values: Vec<f64> = first.iter().chain(second).copied().collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0; values.len()];
    let mut at = 0;
    while at < order.len() {
        let equals = order[at..].iter().take_while(|&&i| values[i] == values[order[at]]).count();
        // Ranks at+1 ..= at+equals: twice their mean is the sum of the first and the last.
        let doubled = (2 * at + equals + 1) as u64;
        order[at..at + equals].iter().for_each(|&i| ranks[i] = doubled);
        at += equals;
    }
    ranks
}

/// Twice the smaller tail of the rank sum of `few` values drawn from `ranks`, at `seen`.
fn exact_p(ranks: &[u64], few: usize, seen: u64) -> f64 {
    let top = ranks.iter().sum::<u64>() as usize;
    // ways[k][s]: in how many ways k of the ranks so far sum to s. As floating point: the counts
    // outgrow integers, and sums of positive numbers lose no more than rounding.
    let mut ways = vec![vec![0.0f64; top + 1]; few + 1];
    ways[0][0] = 1.0;
    for (taken, &rank) in ranks.iter().enumerate() {
        let rank = rank as usize;
        for k in (1..=few.min(taken + 1)).rev() {
            let (below, here) = ways.split_at_mut(k);
            for s in rank..=top {
                here[0][s] += below[k - 1][s - rank];
            }
        }
    }
    let last = &ways[few];
    let all: f64 = last.iter().sum();
    let lower: f64 = last[..=seen as usize].iter().sum();
    let upper: f64 = last[seen as usize..].iter().sum();
    (2.0 * lower.min(upper) / all).min(1.0)
}

/// The normal approximation, corrected for ties and for continuity.
fn normal_p(ranks: &[u64], m: usize, n: usize, u: f64) -> f64 {
    let (m, n) = (m as f64, n as f64);
    let total = m + n;
    let mut sorted = ranks.to_vec();
    sorted.sort_unstable();
    let ties: f64 = sorted
        .chunk_by(|a, b| a == b)
        .map(|equals| {
            let t = equals.len() as f64;
            t * t * t - t
        })
        .sum();
    let variance = m * n / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((u - m * n / 2.0).abs() - 0.5).max(0.0);
    complementary_error(distance / variance.sqrt() / std::f64::consts::SQRT_2).min(1.0)
}

/// erfc for arguments from 0 on, with an error below 1.5e-7 (Abramowitz and Stegun, 7.1.26).
fn complementary_error(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let coefficients =
        [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    coefficients.iter().fold(0.0, |sum, c| (sum + c) * t) * (-x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(first: &[f64], second: &[f64]) -> f64 {
        MannWhitney::test(first, second).unwrap().p
    }

    /// Two groups without ties whose U is `u`: the first group has the lowest ranks, then its
    /// members are moved up until U is reached.
    fn groups(m: usize, n: usize, u: usize) -> (Vec<f64>, Vec<f64>) {
        let mut place: Vec<usize> = (0..m).collect();
        let mut left = u;
        for i in (0..m).rev() {
            let step = left.min(n);
            place[i] += step;
            left -= step;
        }
        assert_eq!(left, 0);
        let first = place.iter().map(|&x| x as f64).collect();
        let second = (0..m + n).filter(|x| !place.contains(x)).map(|x| x as f64).collect();
        (first, second)
    }

    /// The textbook example of membrane permeability (Hollander and Wolfe, 1973, page 69): W = 35,
    /// one-sided p 0.1272.
    #[test]
    fn the_textbook_example_comes_out() {
        let term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let early = [1.15, 0.88, 0.90, 0.74, 1.21];
        let test = MannWhitney::test(&term, &early).unwrap();
        assert_eq!(test.u, 35.0);
        assert!((test.p - 2.0 * 0.1272).abs() < 1e-4, "{}", test.p);
        assert!(test.exact);
        let turned = MannWhitney::test(&early, &term).unwrap();
        assert_eq!((turned.u, turned.p), (15.0, test.p));
    }

    /// The published table of critical values of U, two-sided, level 0.05: at the value the test is
    /// significant, at the next it is not.
    #[test]
    fn the_table_of_critical_values_comes_out() {
        for (m, n, critical) in [
            (4, 4, 0),
            (5, 5, 2),
            (5, 6, 3),
            (6, 6, 5),
            (6, 10, 11),
            (7, 7, 8),
            (8, 8, 13),
            (9, 12, 26),
            (10, 10, 23),
            (15, 15, 64),
            (20, 20, 127),
        ] {
            let (a, b) = groups(m, n, critical);
            assert_eq!(MannWhitney::test(&a, &b).unwrap().u, critical as f64);
            assert!(p(&a, &b) <= 0.05, "{m} {n} {critical}: {}", p(&a, &b));
            let (a, b) = groups(m, n, critical + 1);
            assert!(p(&a, &b) > 0.05, "{m} {n} {}: {}", critical + 1, p(&a, &b));
        }
    }

    #[test]
    fn ties_are_counted_as_every_division_of_the_values_says() {
        let mut rng = crate::workloads::rng::Rng::new(11);
        for _ in 0..100 {
            let mut draw = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.below(5) as f64).collect() };
            let (a, b) = (draw(4), draw(5));
            let ranks = doubled_ranks(&a, &b);
            let seen: u64 = ranks[..4].iter().sum();
            let (mut all, mut lower, mut upper) = (0.0, 0.0, 0.0);
            for set in 0u32..1 << 9 {
                if set.count_ones() == 4 {
                    let sum: u64 = (0..9).filter(|i| set >> i & 1 == 1).map(|i| ranks[i]).sum();
                    all += 1.0;
                    lower += f64::from(u8::from(sum <= seen));
                    upper += f64::from(u8::from(sum >= seen));
                }
            }
            let want = f64::min(2.0 * f64::min(lower, upper) / all, 1.0);
            assert!((p(&a, &b) - want).abs() < 1e-12, "{a:?} {b:?}");
        }
    }

    #[test]
    fn the_approximation_meets_the_exact_value_where_it_takes_over() {
        let mut rng = crate::workloads::rng::Rng::new(3);
        let a: Vec<f64> = (0..60).map(|_| rng.below(1000) as f64).collect();
        let b: Vec<f64> = (0..60).map(|_| rng.below(1000) as f64 + 90.0).collect();
        let exact = MannWhitney::test(&a, &b).unwrap();
        assert!(exact.exact);
        let normal = normal_p(&doubled_ranks(&a, &b), 60, 60, exact.u);
        assert!((normal - exact.p).abs() < 0.003, "{normal} {}", exact.p);
        let many: Vec<f64> = (0..500).map(f64::from).collect();
        let test = MannWhitney::test(&many, &many).unwrap();
        assert!(!test.exact && test.p > 0.99);
    }

    #[test]
    fn too_few_runs_can_show_nothing_and_that_is_known() {
        assert!((MannWhitney::least_p(3, 3) - 0.1).abs() < 1e-12);
        assert!((MannWhitney::least_p(4, 4) - 2.0 / 70.0).abs() < 1e-12);
        assert_eq!(MannWhitney::least_p(1, 1), 1.0);
        assert_eq!(p(&[1.0], &[2.0]), 1.0);
        assert!((p(&[1.0, 2.0, 3.0], &[7.0, 8.0, 9.0]) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn equal_groups_show_nothing_and_nonsense_is_refused() {
        assert_eq!(p(&[5.0; 6], &[5.0; 7]), 1.0);
        assert_eq!(MannWhitney::test(&[], &[1.0]), None);
        assert_eq!(MannWhitney::test(&[f64::NAN], &[1.0]), None);
    }
}
