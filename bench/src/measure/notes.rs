//! What running threads tell the measurement: who they are, when the window begins, frames, and which of
//! their operations took long.
//!
//! A thread collects on its own ([`Slow`], a comparison an operation) and hands over at its end; only
//! frames, some hundred a second, are told at once.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use firn_heap::sys::thread::gettid;

use crate::live::tally::Seen;
use crate::perf::Window;

/// An operation of less than this is not worth a note, nanoseconds.
pub const SLOW_FROM: u64 = 20_000;
/// Slow operations that a thread keeps one by one.
const KEPT: usize = 64;
/// Length of the intervals whose worst operation is kept, nanoseconds.
pub const INTERVAL: u64 = 100_000_000;
/// Frames that are kept: half an hour at 120 Hz.
const FRAMES: usize = 216_000;

/// A mutator's number in the heap, its thread, and the thread's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutator {
    /// In the heap, in order of attachment.
    pub id: u32,
    /// The kernel's id.
    pub tid: u32,
    /// The thread's name.
    pub name: String,
}

/// One frame; monotonic nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct NotedFrame {
    /// Its number.
    pub number: u64,
    /// When it should have begun.
    pub vsync: u64,
    /// When it began.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
    /// When it should have ended.
    pub deadline: u64,
}

/// The slow operations of one thread.
#[derive(Debug, Clone)]
pub struct Slow {
    /// What the operations were.
    pub what: &'static str,
    /// The thread, filled in when it is handed over.
    pub tid: u32,
    /// The longest, as (length, begin), negated so that the heap's greatest is the shortest.
    longest: BinaryHeap<(std::cmp::Reverse<u64>, u64)>,
    /// The worst of each interval, by number of the interval on the monotonic clock.
    worst: BTreeMap<u64, u64>,
    /// Whose live view is told of all operations, slow or not.
    shown: Option<Arc<Window>>,
    /// What it has not been told yet.
    untold: Seen,
}

/// Operations that a live view is told of together: each telling is a write to memory that all threads share.
const TOGETHER: u64 = 128;

impl Slow {
    /// For operations called `what`.
    pub fn new(what: &'static str) -> Slow {
        Slow {
            what,
            tid: 0,
            longest: BinaryHeap::with_capacity(KEPT + 1),
            worst: BTreeMap::new(),
            shown: None,
            untold: Seen::default(),
        }
    }

    /// The same, which also tells the live view of `window` of all operations.
    pub fn shown(what: &'static str, window: &Arc<Window>) -> Slow {
        Slow { shown: Some(window.clone()), ..Slow::new(what) }
    }

    /// An operation lasted from `begin` to `end`.
    #[inline]
    pub fn offer(&mut self, begin: u64, end: u64) {
        let ns = end.saturating_sub(begin);
        if ns >= SLOW_FROM {
            self.keep(begin, ns);
        }
        if let Some(window) = &self.shown {
            let Seen { count, total, longest } = &mut self.untold;
            (*count, *total, *longest) = (*count + 1, *total + ns, ns.max(*longest));
            if *count >= TOGETHER || ns >= SLOW_FROM {
                window.tally().operations.add_all(std::mem::take(&mut self.untold));
            }
        }
    }

    #[cold]
    fn keep(&mut self, begin: u64, ns: u64) {
        let worst = self.worst.entry((begin + ns) / INTERVAL).or_insert(0);
        *worst = ns.max(*worst);
        self.longest.push((std::cmp::Reverse(ns), begin));
        if self.longest.len() > KEPT {
            self.longest.pop();
        }
    }

    /// The longest operations as begin and end, in any order.
    pub fn longest(&self) -> impl Iterator<Item = (u64, u64)> {
        self.longest.iter().map(|&(std::cmp::Reverse(ns), begin)| (begin, begin + ns))
    }

    /// The worst of each interval: end of the interval's beginning on the monotonic clock, and length.
    pub fn worst(&self) -> impl Iterator<Item = (u64, u64)> {
        self.worst.iter().map(|(&i, &ns)| (i * INTERVAL, ns))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Notes {
    window: Arc<Window>,
    mutators: Mutex<Vec<Mutator>>,
    frames: Mutex<Vec<(u32, NotedFrame)>>,
    slow: Mutex<Vec<Slow>>,
    unwanted: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Notes {
    /// Notes about what happens in `window`.
    pub fn new(window: Arc<Window>) -> Notes {
        Notes { window, ..Notes::default() }
    }

    /// Notes that nobody takes.
    pub fn nobody() -> &'static Notes {
        static NOBODY: OnceLock<Notes> = OnceLock::new();
        NOBODY.get_or_init(|| Notes { unwanted: true, ..Notes::default() })
    }

    /// The window: a workload begins it when its measurement begins.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// The calling thread is the mutator `id`.
    pub fn mutator(&self, id: u32) {
        if !self.unwanted {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            lock(&self.mutators).push(Mutator { id, tid: gettid(), name });
        }
    }

    /// The calling thread has finished a frame.
    pub fn frame(&self, frame: NotedFrame) {
        if !self.unwanted {
            self.window.tally().frame(frame.end, frame.deadline);
            let mut frames = lock(&self.frames);
            if frames.len() < FRAMES {
                frames.push((gettid(), frame));
            }
        }
    }

    /// The calling thread's slow operations.
    pub fn slow(&self, slow: Slow) {
        if !self.unwanted {
            lock(&self.slow).push(Slow { tid: gettid(), ..slow });
        }
    }

    /// Who the mutators were.
    pub fn mutators(&self) -> Vec<Mutator> {
        lock(&self.mutators).clone()
    }

    /// Frames with their threads, in the order of their ends.
    pub fn frames(&self) -> Vec<(u32, NotedFrame)> {
        lock(&self.frames).clone()
    }

    /// Everybody's slow operations.
    pub fn all_slow(&self) -> Vec<Slow> {
        lock(&self.slow).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_are_kept_and_short_ones_cost_nothing() {
        let mut slow = Slow::new("operation");
        for i in 0..1000 {
            slow.offer(i * 1_000_000, i * 1_000_000 + i * 100);
        }
        let mut lengths: Vec<_> = slow.longest().map(|(b, e)| e - b).collect();
        lengths.sort_unstable();
        assert_eq!((lengths.len(), lengths[0], lengths[KEPT - 1]), (KEPT, 93_600, 99_900));
        assert_eq!(slow.worst().last(), Some((900_000_000, 99_900)));
        assert_eq!(slow.worst().next().unwrap().0, 200_000_000);
    }
}
