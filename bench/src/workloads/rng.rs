//! The random numbers of every workload: the SplitMix64 finalizer, as the peers' specification
//! defines it, so that a run here and a run of a peer see the same keys, sizes and kinds.
//!
//! All arithmetic is on wrapping 64-bit unsigned integers. Nothing here is cryptographic.

/// The odd constant (2^64 / golden ratio) by which the state advances.
pub const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Scrambles a word; a bijection on 64 bits.
#[inline]
pub const fn fin(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Hashes a word: the first output of a generator seeded with it.
#[inline]
pub const fn mix(x: u64) -> u64 {
    fin(x.wrapping_add(GOLDEN))
}

/// The seed that a workload's generator starts from: `mix(base)` for the user's seed 0, which is
/// the peers' specification, and another stream for every other user seed.
#[inline]
pub const fn stream(base: u64, user_seed: u64) -> u64 {
    if user_seed == 0 { mix(base) } else { mix(base ^ fin(user_seed)) }
}

/// A generator: one word of state, one addition and one [`fin`] a number.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator whose state starts as `seed` itself.
    pub const fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// The next 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        fin(self.state)
    }

    /// A number below `bound`, which must not be 0. The bias is below `bound / 2^32`: good enough
    /// to choose operations, not used where the specification defines the draw.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        debug_assert!(bound > 0 && bound <= u32::MAX as usize);
        (((self.next_u64() >> 32) * bound as u64) >> 32) as usize
    }

    /// True in `percent` of 100 draws.
    #[inline]
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_splitmix64_sequence() {
        // The reference outputs of SplitMix64 for the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let got: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        assert_eq!(
            got,
            [
                6457827717110365317,
                3203168211198807973,
                9817491932198370423,
                4593380528125082431,
                16408922859458223821
            ]
        );
    }

    #[test]
    fn mix_is_the_first_number_of_a_generator() {
        for seed in [0, 1, 0x5EED_0000, u64::MAX] {
            assert_eq!(mix(seed), Rng::new(seed).next_u64());
        }
    }

    #[test]
    fn seed_zero_is_the_specification_and_other_seeds_differ() {
        assert_eq!(stream(0x5EED_0000, 0), mix(0x5EED_0000));
        assert_ne!(stream(0x5EED_0000, 1), stream(0x5EED_0000, 0));
        assert_ne!(stream(0x5EED_0000, 1), stream(0x5EED_0001, 1));
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        let mut rng = Rng::new(7);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[rng.below(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
