//! The order of boots: a run of every kernel, then the next run of every kernel, so that whatever drifts
//! on the host hits all kernels alike; and the part of it that a shard makes.

use super::set::Shard;

/// One boot of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Index of the kernel.
    pub kernel: usize,
    /// The run, from 1.
    pub run: usize,
    /// Its place in the whole order, from 0.
    pub place: usize,
}

/// The boots of `kernels` kernels, `runs` of each, or a shard's part of them.
///
/// A shard takes whole runs, each with every kernel, while there are as many runs as shards: then its
/// machine has seen all kernels, and a difference between machines is no difference between kernels. With
/// fewer runs than shards single boots are dealt out.
pub fn cells(kernels: usize, runs: usize, shard: Option<Shard>) -> Vec<Cell> {
    let all = (0..runs).flat_map(|run| {
        // Each run begins with another kernel: what comes first in a run is not always the same.
        (0..kernels).map(move |i| (run, (i + run) % kernels))
    });
    let all = all.enumerate().map(|(place, (run, kernel))| Cell { kernel, run: run + 1, place });
    let ours = |cell: &Cell| match shard {
        None => true,
        Some(Shard { index, count }) if runs >= count => (cell.run - 1) % count == index - 1,
        Some(Shard { index, count }) => cell.place % count == index - 1,
    };
    all.filter(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_a_run_before_any_has_the_next() {
        let all = cells(3, 2, None);
        assert_eq!(all.len(), 6);
        let runs: Vec<_> = all.iter().map(|c| c.run).collect();
        assert_eq!(runs, [1, 1, 1, 2, 2, 2]);
        assert_eq!(all.iter().map(|c| c.kernel).collect::<Vec<_>>(), [0, 1, 2, 1, 2, 0]);
    }

    #[test]
    fn shards_are_disjoint_and_together_the_whole() {
        for (kernels, runs, count) in [(3, 4, 2), (5, 3, 3), (2, 1, 4), (4, 2, 3), (1, 1, 1)] {
            let whole = cells(kernels, runs, None);
            let shards =
                (1..=count).map(|index| cells(kernels, runs, Some(Shard { index, count })));
            let mut together: Vec<_> = shards.flatten().collect();
            together.sort_by_key(|cell| cell.place);
            assert_eq!(together, whole, "{kernels} {runs} {count}");
        }
    }

    #[test]
    fn a_shard_with_enough_runs_sees_every_kernel() {
        let part = cells(3, 4, Some(Shard { index: 2, count: 2 }));
        assert_eq!(part.len(), 6);
        for kernel in 0..3 {
            assert_eq!(part.iter().filter(|c| c.kernel == kernel).count(), 2);
        }
    }
}
