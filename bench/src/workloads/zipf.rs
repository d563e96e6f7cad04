//! Zipf-distributed ranks by an alias table (Walker, Vose), built in double precision exactly as
//! the peers' specification says, so that every implementation draws the same keys.
//!
//! The table is one word a rank, `threshold << 32 | alias`, so a sample costs one random number
//! and one read; it is built in native memory and copied into the heap by the workload that uses
//! it.

/// The exponent of the specification's distribution.
pub const THETA: f64 = 0.99;

/// The alias table over ranks `0..n`, most frequent first. `n` must be in `1..=2^32`.
pub fn table(n: usize, theta: f64) -> Vec<u64> {
    assert!(n >= 1 && n as u64 <= 1 << 32, "a Zipf table has 1 to 2^32 ranks, not {n}");
    let mut share: Vec<f64> = (0..n).map(|i| ((i + 1) as f64).powf(-theta)).collect();
    let sum = share.iter().fold(0.0, |sum, w| sum + w);
    for p in &mut share {
        *p = *p * n as f64 / sum;
    }
    let (mut small, mut large) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for (i, &p) in share.iter().enumerate() {
        if p < 1.0 { small.push(i) } else { large.push(i) }
    }
    let mut table = vec![0u64; n];
    while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
        small.pop();
        large.pop();
        let threshold = ((share[s] * 4_294_967_296.0) as u64).min(u64::from(u32::MAX));
        table[s] = threshold << 32 | l as u64;
        share[l] = (share[l] + share[s]) - 1.0;
        if share[l] < 1.0 { small.push(l) } else { large.push(l) }
    }
    for i in small.into_iter().chain(large) {
        table[i] = u64::from(u32::MAX) << 32 | i as u64;
    }
    table
}

/// The rank that the random number `r` selects. `entry(i)` reads word `i` of a table of `n` words.
#[inline]
pub fn sample(n: usize, r: u64, entry: impl FnOnce(usize) -> u64) -> u64 {
    let i = ((r >> 32) * n as u64) >> 32;
    let e = entry(i as usize);
    if (r & 0xFFFF_FFFF) < e >> 32 { i } else { e & 0xFFFF_FFFF }
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::*;

    /// The exact probability of each rank that a table encodes.
    fn encoded(table: &[u64]) -> Vec<f64> {
        let n = table.len() as f64;
        let mut p = vec![0.0; table.len()];
        for (i, e) in table.iter().enumerate() {
            let keep = (e >> 32) as f64 / 4_294_967_296.0;
            p[i] += keep / n;
            p[(e & 0xFFFF_FFFF) as usize] += (1.0 - keep) / n;
        }
        p
    }

    #[test]
    fn the_table_encodes_the_zipf_weights() {
        let n = 1000;
        let sum: f64 = (1..=n).map(|i| (i as f64).powf(-THETA)).sum();
        for (i, p) in encoded(&table(n, THETA)).into_iter().enumerate() {
            let want = ((i + 1) as f64).powf(-THETA) / sum;
            assert!((p - want).abs() < 1e-8, "rank {i}: {p} instead of {want}");
        }
    }

    #[test]
    fn a_single_rank_is_always_drawn() {
        let t = table(1, THETA);
        assert!((0..100u64).all(|r| sample(1, r << 40 | r, |i| t[i]) == 0));
    }

    #[test]
    fn samples_fall_as_often_as_the_weights_say() {
        let n = 64;
        let t = table(n, THETA);
        let p = encoded(&t);
        let mut rng = Rng::new(11);
        let draws = 400_000;
        let mut count = vec![0u32; n];
        for _ in 0..draws {
            count[sample(n, rng.next_u64(), |i| t[i]) as usize] += 1;
        }
        for i in 0..n {
            let want = p[i] * f64::from(draws);
            // Six standard deviations of a binomial count.
            let slack = 6.0 * want.sqrt();
            assert!((f64::from(count[i]) - want).abs() < slack, "rank {i}");
        }
    }

    #[test]
    fn every_alias_is_a_rank() {
        let n = 4260;
        assert!(table(n, THETA).iter().all(|e| ((e & 0xFFFF_FFFF) as usize) < n));
    }
}
