//! Sizing: when to start the next cycle, and how much memory to keep. ART's policy.
//!
//! After a cycle the *target* is `live + clamp(live × (1/u − 1), min_free, max_free) × m`, where *u* is the
//! utilization and *m* is 2 in the foreground and 1 in the background; the hard maximum caps it. The next
//! cycle starts when what is in use comes within a *margin* of the target: as much as was allocated during
//! the last cycles, so that allocation does not run dry before the next one is over.

use crate::Options;
use firn_gc::events::CycleSummary;

/// The policy's memory of past cycles.
#[derive(Debug)]
pub struct Policy {
    utilization: f64,
    min_free: usize,
    max_free: usize,
    limit: usize,
    /// Bytes allocated during each of the last cycles.
    during: [usize; 3],
    /// Target before the current one.
    previous_target: usize,
    /// What is aimed at, in bytes in use.
    target: usize,
}

/// What the policy decides after a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Bytes in use at which the next cycle starts.
    pub start_at: usize,
    /// Bytes to keep committed; what is free beyond that goes back to the kernel.
    pub keep: usize,
}

impl Policy {
    /// The policy of these options.
    pub fn new(options: &Options) -> Policy {
        Policy {
            utilization: options.utilization,
            min_free: options.min_free,
            max_free: options.max_free,
            limit: options.heap,
            during: [0; 3],
            previous_target: 0,
            target: 0,
        }
    }

    /// Before the first cycle.
    pub fn initial(&mut self, background: bool) -> Decision {
        self.decide(0, background)
    }

    /// After a cycle in which `allocated` bytes were allocated.
    pub fn after(
        &mut self,
        summary: &CycleSummary,
        allocated: usize,
        background: bool,
    ) -> Decision {
        self.during.rotate_right(1);
        self.during[0] = allocated;
        self.decide(summary.live_bytes + summary.large_live_bytes, background)
    }

    fn decide(&mut self, live: usize, background: bool) -> Decision {
        let wanted = (live as f64 * (1.0 / self.utilization - 1.0)) as usize;
        let free = wanted.max(self.min_free).min(self.max_free);
        let free = if background { free } else { free.saturating_mul(2) };
        self.previous_target = self.target;
        self.target = live.saturating_add(free).min(self.limit);
        let room = self.target.saturating_sub(live);
        let recent = self.during.into_iter().max().unwrap_or(0);
        let lately = self.during[0].max(self.during[1]);
        let margin = (recent + recent / 4).clamp(room / 16, room / 2);
        Decision {
            start_at: self.target - margin,
            // Two cycles must agree before memory goes back: a spike's own end is not yet a trend. What
            // was allocated during a cycle came on top of the target and will be wanted again.
            keep: self.target.max(self.previous_target).saturating_add(lately).min(self.limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_gc::events::Cause;

    fn summary(live: usize) -> CycleSummary {
        CycleSummary {
            cycle: 1,
            cause: Cause::Explicit,
            begin: 0,
            end: 0,
            live_bytes: live,
            large_live_bytes: 0,
            used_before: 0,
            used_after: 0,
            marked_objects: 0,
            pages_copied: 0,
            pages_moved: 0,
            pages_dense: 0,
            pages_by_collector: 0,
            pages_by_mutators: 0,
            pages_released: 0,
            ephemerons_broken: 0,
            guarded_ready: 0,
        }
    }

    #[test]
    fn the_target_stays_within_the_hard_maximum() {
        let mut policy = Policy::new(&Options { heap: 100 << 20, ..Options::default() });
        let decision = policy.after(&summary(90 << 20), 0, false);
        assert!(decision.start_at < 100 << 20 && decision.keep == 100 << 20);
    }

    #[test]
    fn fast_allocation_starts_the_next_cycle_earlier() {
        let mut policy = Policy::new(&Options { heap: 1 << 30, ..Options::default() });
        let slow = policy.after(&summary(100 << 20), 1 << 20, false).start_at;
        let fast = policy.after(&summary(100 << 20), 100 << 20, false).start_at;
        assert!(fast < slow);
    }

    #[test]
    fn a_spikes_memory_is_let_go_after_two_cycles() {
        let mut policy = Policy::new(&Options { heap: 1 << 30, ..Options::default() });
        policy.after(&summary(300 << 20), 0, false);
        let first = policy.after(&summary(10 << 20), 0, false).keep;
        let second = policy.after(&summary(10 << 20), 0, false).keep;
        assert!(first > 300 << 20 && second < 100 << 20, "{first} {second}");
    }

    #[test]
    fn what_was_allocated_during_a_spikes_cycles_is_let_go_with_it() {
        let mut policy = Policy::new(&Options { heap: 1 << 30, ..Options::default() });
        policy.after(&summary(300 << 20), 200 << 20, false);
        policy.after(&summary(10 << 20), 0, false);
        let keep = policy.after(&summary(10 << 20), 0, false).keep;
        assert!(keep < 100 << 20, "{keep}");
    }

    #[test]
    fn the_background_keeps_less() {
        let options = Options { heap: 1 << 30, ..Options::default() };
        let foreground = Policy::new(&options).after(&summary(100 << 20), 0, false).keep;
        let background = Policy::new(&options).after(&summary(100 << 20), 0, true).keep;
        assert!(background < foreground);
    }
}
