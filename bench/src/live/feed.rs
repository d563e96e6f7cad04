//! What the collector is doing, from its event stream, for a live view.
//!
//! Phases are told when they end, so what is going on now is the phase after the one told last. Faults
//! are told at the end of a cycle: their numbers stand still in between.

use std::sync::{Mutex, MutexGuard, PoisonError};

use firn::events::{Event, Listener, Phase};

use super::tally::{Running, Seen};
use crate::measure::collect::label;

/// Listens to one heap.
#[derive(Debug, Default)]
pub struct Feed {
    now: Mutex<Now>,
    pauses: Running,
    safepoints: Running,
    faults: Running,
    waits: Running,
}

/// Where the collector is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Now {
    /// Cycles that have ended.
    pub cycles: u64,
    /// The cycle under way, why it runs, and the phase it is in since when.
    pub under_way: Option<(u64, String, &'static str, u64)>,
}

/// Everything, read.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Where the collector is.
    pub now: Now,
    /// Pauses.
    pub pauses: Seen,
    /// Times to safepoint.
    pub safepoints: Seen,
    /// Stalls in missing pages.
    pub faults: Seen,
    /// Waits for memory.
    pub waits: Seen,
    /// The longest stall of any kind since the last look.
    pub recent: u64,
}

/// The name of the phase that follows one that has ended.
fn after(phase: Phase) -> &'static str {
    match phase {
        Phase::Start => "marking",
        Phase::Mark => "final mark",
        Phase::FinalMark => "planning",
        Phase::Plan => "flip",
        Phase::Flip => "compacting",
        Phase::Compact => "finishing",
        Phase::Finish | Phase::Verify => "verifying or ending",
    }
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is so far.
    pub fn read(&self) -> Collected {
        let recent = [&self.pauses, &self.faults, &self.waits].map(Running::recent);
        Collected {
            now: self.lock().clone(),
            pauses: self.pauses.seen(),
            safepoints: self.safepoints.seen(),
            faults: self.faults.seen(),
            waits: self.waits.seen(),
            recent: recent.into_iter().max().unwrap_or(0),
        }
    }
}

impl Listener for Feed {
    fn event(&self, event: &Event) {
        match event {
            Event::CycleBegin { cycle, cause, at } => {
                self.lock().under_way = Some((*cycle, label(cause), "starting", *at));
            }
            Event::Phase { phase, end, .. } => {
                if let Some(under_way) = &mut self.lock().under_way {
                    (under_way.2, under_way.3) = (after(*phase), *end);
                }
            }
            Event::Pause { requested, stopped, released, .. } => {
                self.pauses.add(released.saturating_sub(*stopped));
                self.safepoints.add(stopped.saturating_sub(*requested));
            }
            Event::Fault { begin, end, .. } => self.faults.add(end.saturating_sub(*begin)),
            Event::AllocStall { begin, end, .. } => self.waits.add(end.saturating_sub(*begin)),
            Event::CycleEnd { .. } => {
                let mut now = self.lock();
                now.cycles += 1;
                now.under_way = None;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn::events::{Cause, PauseKind};

    #[test]
    fn the_phase_is_the_one_after_what_ended() {
        let feed = Feed::default();
        assert_eq!(feed.read().now, Now::default());
        feed.event(&Event::CycleBegin { cycle: 3, cause: Cause::Threshold, at: 5 });
        assert_eq!(feed.read().now.under_way, Some((3, "threshold".into(), "starting", 5)));
        feed.event(&Event::Phase { cycle: 3, phase: Phase::Flip, begin: 6, end: 9 });
        assert_eq!(feed.read().now.under_way, Some((3, "threshold".into(), "compacting", 9)));
        feed.event(&Event::Pause {
            cycle: 3,
            kind: PauseKind::Flip,
            requested: 10,
            stopped: 14,
            released: 20,
            mutators: 2,
        });
        let read = feed.read();
        assert_eq!((read.pauses.longest, read.safepoints.longest, read.recent), (6, 4, 6));
        assert_eq!(feed.read().recent, 0);
    }
}
