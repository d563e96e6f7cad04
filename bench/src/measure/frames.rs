//! Frames against their deadlines: how many came late at 60, 90 and 120 Hz, and by how much.
//!
//! A frame is due one period after the vertical synchronisation (vsync) that it belongs to. Its
//! *overrun* is signed: the time by which it ended after the deadline, negative when it was early.
//! The distribution of overruns says more than a count of misses, because a run whose frames all
//! end 0.1 ms early is one small disturbance away from missing every one.
//!
//! The `frames` workload paces real frames at 120 Hz and judges each against the three budgets.
//! The closed `lru` loop has no frames of its own; there a [`VirtualRenderer`] rides on the loop:
//! a frame is as many operations as the thread does in half a period at its warmed-up rate. It
//! starts at its vsync, or when the frame before it ends if that is later; no vsync is skipped. So
//! a miss means that the thread lost at least half a period to something.

use serde::Serialize;

/// The display rates that reports judge by, in frames a second.
pub const RATES: [u32; 3] = [60, 90, 120];

/// The period of a display rate, in nanoseconds (rounded down).
pub const fn period_ns(hz: u32) -> u64 {
    1_000_000_000 / hz as u64
}

/// The figures of one display rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FrameStats {
    /// The display rate, in frames a second.
    pub hz: u32,
    /// How many frames were judged.
    pub frames: u64,
    /// How many ended after their deadline.
    pub missed: u64,
    /// The longest run of consecutive missed frames.
    pub worst_run: u64,
    /// Signed overrun in nanoseconds (negative: early), at each percentile.
    pub overrun_ns: Overrun,
}

/// Percentiles of signed overrun, in nanoseconds; exact order statistics (the value at rank
/// `ceil(q * n)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Overrun {
    /// The median.
    pub p50: i64,
    /// The 90th percentile.
    pub p90: i64,
    /// The 99th percentile.
    pub p99: i64,
    /// The 99.9th percentile.
    pub p999: i64,
    /// The maximum.
    pub max: i64,
}

/// The figures of frames whose signed overruns, in order of time and one list a thread, are
/// given; `None` if there are none.
pub fn judge(hz: u32, threads: &[Vec<i64>]) -> Option<FrameStats> {
    let mut all: Vec<i64> = threads.iter().flatten().copied().collect();
    if all.is_empty() {
        return None;
    }
    let worst_run = threads.iter().map(|t| longest_run(t)).max().unwrap_or(0);
    all.sort_unstable();
    let rank = |q: f64| {
        let rank = (q * all.len() as f64).ceil() as usize;
        all[rank.clamp(1, all.len()) - 1]
    };
    Some(FrameStats {
        hz,
        frames: all.len() as u64,
        missed: all.iter().filter(|&&o| o > 0).count() as u64,
        worst_run,
        overrun_ns: Overrun {
            p50: rank(0.5),
            p90: rank(0.9),
            p99: rank(0.99),
            p999: rank(0.999),
            max: all[all.len() - 1],
        },
    })
}

/// The same frames judged at each of [`RATES`]: `latencies` are the times from vsync to end, in
/// nanoseconds, in order of time.
pub fn judge_latencies(latencies: &[u64]) -> Vec<FrameStats> {
    RATES
        .iter()
        .filter_map(|&hz| {
            let budget = period_ns(hz) as i64;
            judge(hz, &[latencies.iter().map(|&l| l as i64 - budget).collect()])
        })
        .collect()
}

/// The signed overruns behind [`judge_latencies`], by display rate.
pub fn overruns_of(latencies: &[u64]) -> Vec<(u32, Vec<i64>)> {
    let of = |hz| latencies.iter().map(|&l| l as i64 - period_ns(hz) as i64).collect();
    RATES.iter().map(|&hz| (hz, of(hz))).collect()
}

fn longest_run(overruns: &[i64]) -> u64 {
    let (mut run, mut worst) = (0u64, 0u64);
    for &o in overruns {
        run = if o > 0 { run + 1 } else { 0 };
        worst = worst.max(run);
    }
    worst
}

/// One display rate of a [`VirtualRenderer`].
#[derive(Debug)]
struct Lane {
    period: u64,
    /// Operations in a frame.
    work: u64,
    /// The vsync of the frame under way, or of the next one while waiting for it.
    vsync: u64,
    /// The operation count at which the frame under way is done; `u64::MAX` while waiting.
    target: u64,
    overruns: Vec<i64>,
}

/// Frames made of operations, on a closed loop. [`VirtualRenderer::operation`] costs two
/// predictable comparisons unless a frame begins or ends.
#[derive(Debug)]
pub struct VirtualRenderer {
    lanes: [Lane; RATES.len()],
    operations: u64,
    next_target: u64,
    next_vsync: u64,
}

impl VirtualRenderer {
    /// A renderer whose first vsyncs are at `begin` (nanoseconds), for a window of `seconds`, on
    /// a thread that does `ops_s` operations a second when undisturbed.
    pub fn new(begin: u64, seconds: f64, ops_s: f64) -> VirtualRenderer {
        let lanes = RATES.map(|hz| {
            let work = (ops_s / f64::from(hz) / 2.0).max(1.0) as u64;
            let room = (seconds * f64::from(hz)) as usize + 2;
            Lane {
                period: period_ns(hz),
                work,
                vsync: begin,
                target: u64::MAX,
                overruns: Vec::with_capacity(room),
            }
        });
        let mut renderer =
            VirtualRenderer { lanes, operations: 0, next_target: u64::MAX, next_vsync: begin };
        renderer.turn(begin);
        renderer
    }

    /// Counts one operation that ended at `now` (nanoseconds, never decreasing).
    #[inline]
    pub fn operation(&mut self, now: u64) {
        self.operations += 1;
        if self.operations >= self.next_target || now >= self.next_vsync {
            self.turn(now);
        }
    }

    /// Ends the frames that are done and begins those whose vsync has come.
    #[cold]
    fn turn(&mut self, now: u64) {
        (self.next_target, self.next_vsync) = (u64::MAX, u64::MAX);
        for lane in &mut self.lanes {
            if lane.target <= self.operations {
                lane.overruns.push(now as i64 - (lane.vsync + lane.period) as i64);
                lane.vsync += lane.period;
                lane.target = u64::MAX;
            }
            if lane.target == u64::MAX {
                if now >= lane.vsync {
                    lane.target = self.operations + lane.work;
                } else {
                    self.next_vsync = self.next_vsync.min(lane.vsync);
                }
            }
            self.next_target = self.next_target.min(lane.target);
        }
    }

    /// The signed overruns of the frames that ended, one list for each of [`RATES`].
    pub fn into_overruns(self) -> [Vec<i64>; RATES.len()] {
        self.lanes.map(|lane| lane.overruns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn overrun_is_signed_and_a_frame_on_its_deadline_is_not_missed() {
        let budget = period_ns(120);
        let stats = &judge_latencies(&[budget, budget + 1, budget - 1])[2];
        assert_eq!((stats.hz, stats.frames, stats.missed), (120, 3, 1));
        assert_eq!(stats.overrun_ns.p50, 0);
        assert_eq!(stats.overrun_ns.max, 1);
    }

    #[test]
    fn the_same_frames_are_judged_by_each_rate() {
        let stats = judge_latencies(&[9 * MS, 12 * MS, 17 * MS, 2 * MS]);
        let missed: Vec<_> = stats.iter().map(|s| (s.hz, s.missed)).collect();
        assert_eq!(missed, [(60, 1), (90, 2), (120, 3)]);
        assert_eq!(stats[2].worst_run, 3);
        assert_eq!(stats[0].overrun_ns.max, 17 * MS as i64 - period_ns(60) as i64);
    }

    #[test]
    fn a_run_of_late_frames_does_not_continue_in_another_thread() {
        let stats = judge(60, &[vec![-1, 1, 1], vec![1, -1]]).unwrap();
        assert_eq!((stats.missed, stats.worst_run), (3, 2));
    }

    #[test]
    fn no_frames_give_no_figures() {
        assert_eq!(judge(60, &[vec![]]), None);
        assert!(judge_latencies(&[]).is_empty());
    }

    /// Runs a loop of 1 us operations for `seconds`, standing still from `stall_at` for `stall`.
    fn drive(seconds: f64, stall_at: u64, stall: u64) -> [Vec<i64>; 3] {
        let begin = 5_000;
        let mut renderer = VirtualRenderer::new(begin, seconds, 1e6);
        let (mut now, mut stalled) = (begin, false);
        while now < begin + (seconds * 1e9) as u64 {
            now += 1_000;
            if !stalled && now >= begin.saturating_add(stall_at) {
                now += stall;
                stalled = true;
            }
            renderer.operation(now);
        }
        renderer.into_overruns()
    }

    #[test]
    fn an_undisturbed_virtual_renderer_uses_half_of_each_period() {
        for (hz, overruns) in RATES.iter().zip(drive(1.0, u64::MAX, 0)) {
            assert!((overruns.len() as i64 - i64::from(*hz)).abs() <= 1, "{hz}");
            let half = period_ns(*hz) as i64 / 2;
            assert!(overruns.iter().all(|o| (o + half).abs() < 5_000), "{hz}: {overruns:?}");
        }
    }

    #[test]
    fn a_stall_of_less_than_half_a_period_misses_no_virtual_frame() {
        let lists = drive(1.0, 500 * MS, 4 * MS);
        assert!(lists.iter().flatten().all(|&o| o <= 0));
    }

    #[test]
    fn a_stall_of_a_whole_period_misses_a_virtual_frame_by_about_half_a_period() {
        let lists = drive(1.0, 500 * MS, period_ns(60));
        for (i, hz) in RATES.iter().enumerate() {
            let stats = judge(*hz, &lists[i..=i]).unwrap();
            assert!(stats.missed >= 1, "{hz}");
            assert!(stats.overrun_ns.max > period_ns(*hz) as i64 * 4 / 10, "{hz}");
        }
        // No vsync is skipped: the frames that were held up still come.
        assert!(lists[2].len() >= 118);
    }
}
