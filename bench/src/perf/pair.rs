//! From the lock's events to waits and holds.
//!
//! A thread that takes the lock emits `start_locking`, `acquire_returned` and, when it is done,
//! `released`. The wait lies between the first two (the kernel's contention events would miss writers
//! that spin), the hold between the last two. The rules for what does not fit that:
//!
//! - **A trylock that failed** emits `start_locking` and `acquire_returned` without success: counted,
//!   neither wait nor hold.
//! - **A downgrade** emits `acquire_returned` for reading while the lock is held for writing, with
//!   no start: the hold for writing ends there and one for reading begins, which is no acquisition.
//! - **An end without a beginning** (events began in between, or records were lost): counted as
//!   unpaired; nothing is made up.
//! - **Probes** (kernels without the lock's events, [`super::kprobes`]) see a thread come to the function that takes
//!   the lock, wait in its slow path, and leave that. So a thread that has come is presumed to have the lock at once
//!   ([`What::Entered`]); if it waits after all, its attempt goes on ([`What::Contended`]); and if it presumably
//!   got it without waiting and then comes again, that trylock had failed.
//! - **After a loss** everything in flight is forgotten: a start and an end around a gap may belong to
//!   different acquisitions.
//!
//! A thread can hold the locks of two address spaces (`fork` does), so state is kept by thread and
//! address space. Events must be given in order of time.

use std::collections::HashMap;

use super::histogram::Decades;

/// What happened to a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A thread begins to take it.
    Start {
        /// For writing.
        write: bool,
    },
    /// A thread calls a function that takes it, and has it then unless [`What::Contended`] follows.
    Entered {
        /// For writing.
        write: bool,
        /// The function does not wait.
        tries: bool,
    },
    /// The thread that takes it found it taken and waits (without having spun it free).
    Contended,
    /// It has it, or has failed to get it without waiting.
    Acquired {
        /// For writing.
        write: bool,
        /// Whether it has it.
        success: bool,
    },
    /// It gives it back.
    Released {
        /// It was held for writing.
        write: bool,
    },
}

/// One event of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockEvent {
    /// Monotonic nanoseconds.
    pub time: u64,
    /// The kernel's id of the thread.
    pub tid: u32,
    /// The address space whose lock it is, as the kernel names it.
    pub mm: u64,
    /// What happened.
    pub what: What,
}

/// One acquisition, from the first attempt to the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The kernel's id of the thread.
    pub tid: u32,
    /// Whether it was held for writing (until a downgrade, if there was one).
    pub write: bool,
    /// When the thread began to take it, in monotonic nanoseconds; equal to `acquired` after a
    /// downgrade.
    pub start: u64,
    /// When it had it.
    pub acquired: u64,
    /// When it gave it back, or downgraded it.
    pub released: u64,
    /// It met the lock taken and waited in the kernel's slow path.
    pub contended: bool,
    /// What ended one held for writing, or began one held for reading, was a downgrade.
    pub downgrade: bool,
}

/// One mode's figures of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModeStats {
    /// Waits, one for each acquisition (most are next to zero).
    pub wait: Decades,
    /// Holds, one for each release or downgrade.
    pub hold: Decades,
    /// Acquisitions that went to sleep or spun as the kernel's slow path does.
    pub contended: u64,
}

/// The figures of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadStats {
    /// For reading.
    pub read: ModeStats,
    /// For writing.
    pub write: ModeStats,
    /// Holds for writing that became holds for reading.
    pub downgraded: u64,
    /// Attempts that did not wait and failed.
    pub failed: u64,
}

impl ModeStats {
    fn merge(&mut self, other: &ModeStats) {
        self.wait.merge(&other.wait);
        self.hold.merge(&other.hold);
        self.contended += other.contended;
    }
}

impl ThreadStats {
    /// Adds all of another's.
    pub fn merge(&mut self, other: &ThreadStats) {
        self.read.merge(&other.read);
        self.write.merge(&other.write);
        self.downgraded += other.downgraded;
        self.failed += other.failed;
    }

    /// Adds an acquisition that has ended.
    fn ended(&mut self, span: &Span) {
        let mode = if span.write { &mut self.write } else { &mut self.read };
        // What a downgrade began was not acquired.
        if span.write || !span.downgrade {
            mode.wait.add(span.acquired.saturating_sub(span.start));
            mode.contended += u64::from(span.contended);
        }
        mode.hold.add(span.released.saturating_sub(span.acquired));
        self.downgraded += u64::from(span.write && span.downgrade);
    }
}

/// Why a lock is presumed to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presumed {
    /// A function was called that takes it.
    Waits,
    /// A function was called that takes it if nobody has it.
    Tries,
}

#[derive(Debug, Clone, Copy, Default)]
struct InFlight {
    /// When an attempt began, its mode, and whether it met contention.
    trying: Option<(u64, bool, bool)>,
    /// The acquisition under way, with `released` not known yet.
    held: Option<Span>,
    /// That it is held is presumed, from a call of a function that waits or of one that only tries.
    presumed: Option<Presumed>,
}

/// Pairs events; see the module.
#[derive(Debug, Default)]
pub struct Pairing {
    threads: HashMap<u32, ThreadStats>,
    flight: HashMap<(u32, u64), InFlight>,
    unpaired: u64,
}

impl Pairing {
    /// Takes the next event; returns the span that it ends, if it ends one.
    pub fn event(&mut self, event: LockEvent) -> Option<Span> {
        let LockEvent { time, tid, mm, what } = event;
        let stats = self.threads.entry(tid).or_default();
        let flight = self.flight.entry((tid, mm)).or_default();
        match what {
            What::Start { write } => {
                if flight.trying.replace((time, write, false)).is_some() {
                    self.unpaired += 1;
                }
                // Nobody takes a lock that they hold: the release was not seen.
                if flight.held.take().is_some() {
                    self.unpaired += 1;
                }
                None
            }
            What::Entered { write, tries } => {
                // A killed thread's attempt has no end.
                self.unpaired += u64::from(flight.trying.take().is_some());
                if flight.held.is_some() {
                    match flight.presumed {
                        Some(Presumed::Tries) => stats.failed += 1,
                        _ => self.unpaired += 1,
                    }
                }
                flight.presumed = Some(if tries { Presumed::Tries } else { Presumed::Waits });
                flight.held = Some(Span {
                    tid,
                    write,
                    start: time,
                    acquired: time,
                    released: time,
                    contended: false,
                    downgrade: false,
                });
                None
            }
            What::Contended => {
                if let Some((_, _, contended)) = &mut flight.trying {
                    *contended = true;
                } else if flight.presumed == Some(Presumed::Waits)
                    && let Some(span) = flight.held.take()
                {
                    flight.trying = Some((span.start, span.write, true));
                }
                None
            }
            What::Acquired { write, success } => match (flight.trying.take(), flight.held) {
                (Some((start, mode, contended)), _) if mode == write => {
                    if success {
                        flight.presumed = None;
                        flight.held = Some(Span {
                            tid,
                            write,
                            start,
                            acquired: time,
                            released: time,
                            contended,
                            downgrade: false,
                        });
                    } else {
                        stats.failed += 1;
                    }
                    None
                }
                (None, Some(held)) if held.write && !write && success => {
                    let first = Span { released: time, downgrade: true, ..held };
                    stats.ended(&first);
                    flight.presumed = None;
                    flight.held = Some(Span {
                        tid,
                        write: false,
                        start: time,
                        acquired: time,
                        released: time,
                        contended: false,
                        downgrade: true,
                    });
                    Some(first)
                }
                _ => {
                    self.unpaired += 1;
                    flight.held = None;
                    None
                }
            },
            What::Released { write } => match flight.held.take() {
                Some(held) if held.write == write => {
                    let span = Span { released: time, ..held };
                    stats.ended(&span);
                    // Thousands of short-lived threads and children must not pile up.
                    self.flight.remove(&(tid, mm));
                    Some(span)
                }
                _ => {
                    self.unpaired += 1;
                    None
                }
            },
        }
    }

    /// Records were lost: forgets everything in flight.
    pub fn lost(&mut self) {
        self.flight.clear();
    }

    /// What a thread does with a lock right now: whether it tries to get it, and whether it has it.
    pub fn now(&self, tid: u32, mm: u64) -> (bool, bool) {
        let flight = self.flight.get(&(tid, mm));
        flight.map_or((false, false), |f| (f.trying.is_some(), f.held.is_some()))
    }

    /// Events that had no counterpart.
    pub fn unpaired(&self) -> u64 {
        self.unpaired
    }

    /// The figures by thread.
    pub fn into_threads(self) -> HashMap<u32, ThreadStats> {
        self.threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MM: u64 = 0xffff_8880_0000_1000;
    const START_R: What = What::Start { write: false };
    const START_W: What = What::Start { write: true };
    const GOT_R: What = What::Acquired { write: false, success: true };
    const GOT_W: What = What::Acquired { write: true, success: true };
    const FAILED_R: What = What::Acquired { write: false, success: false };
    const REL_R: What = What::Released { write: false };
    const REL_W: What = What::Released { write: true };

    fn paired(events: &[(u64, u32, u64, What)]) -> (Vec<Span>, Pairing) {
        let mut pairing = Pairing::default();
        let spans = events
            .iter()
            .filter_map(|&(time, tid, mm, what)| pairing.event(LockEvent { time, tid, mm, what }));
        (spans.collect(), pairing)
    }

    #[test]
    fn wait_and_hold_lie_between_the_three_events_of_one_thread() {
        let (spans, pairing) = paired(&[
            (0, 1, MM, START_W),
            (10, 2, MM, START_R),
            (100, 1, MM, GOT_W),
            (20_100, 1, MM, REL_W),
            (20_200, 2, MM, GOT_R),
            (20_300, 2, MM, REL_R),
        ]);
        let (contended, downgrade) = (false, false);
        let writer = Span {
            tid: 1,
            write: true,
            start: 0,
            acquired: 100,
            released: 20_100,
            contended,
            downgrade,
        };
        let reader = Span {
            tid: 2,
            write: false,
            start: 10,
            acquired: 20_200,
            released: 20_300,
            contended,
            downgrade,
        };
        assert_eq!(spans, [writer, reader]);
        assert_eq!(pairing.unpaired(), 0);
        let threads = pairing.into_threads();
        assert_eq!((threads[&1].write.wait.total, threads[&1].write.hold.total), (100, 20_000));
        assert_eq!((threads[&2].read.wait.max, threads[&2].read.hold.max), (20_190, 100));
        assert_eq!(threads[&2].read.wait.buckets[2], 1);
        assert_eq!(threads[&1].read, ModeStats::default());
    }

    #[test]
    fn a_downgrade_ends_the_hold_for_writing_and_is_no_acquisition() {
        let (spans, pairing) = paired(&[
            (0, 1, MM, START_W),
            (5, 1, MM, GOT_W),
            (50, 1, MM, GOT_R),
            (900, 1, MM, REL_R),
        ]);
        assert_eq!(spans.len(), 2);
        assert_eq!((spans[0].write, spans[0].released), (true, 50));
        assert_eq!((spans[1].write, spans[1].start, spans[1].released), (false, 50, 900));
        assert_eq!(pairing.unpaired(), 0);
        let t = pairing.into_threads()[&1];
        assert_eq!((t.write.wait.count, t.read.wait.count, t.downgraded), (1, 0, 1));
        assert_eq!((t.write.hold.total, t.read.hold.total), (45, 850));
    }

    #[test]
    fn a_failed_trylock_is_neither_wait_nor_hold() {
        let (spans, pairing) = paired(&[
            (0, 1, MM, START_R),
            (1, 1, MM, FAILED_R),
            (2, 1, MM, START_R),
            (3, 1, MM, GOT_R),
            (4, 1, MM, REL_R),
        ]);
        assert_eq!((spans.len(), pairing.unpaired()), (1, 0));
        let t = pairing.into_threads()[&1];
        assert_eq!((t.failed, t.read.wait.count, t.read.hold.count), (1, 1, 1));
    }

    #[test]
    fn contention_belongs_to_the_attempt_it_lies_in() {
        let (_, pairing) = paired(&[
            (0, 1, MM, What::Contended),
            (1, 1, MM, START_W),
            (2, 1, MM, What::Contended),
            (3, 1, MM, What::Contended),
            (4, 1, MM, GOT_W),
            (5, 1, MM, REL_W),
        ]);
        assert_eq!(pairing.into_threads()[&1].write.contended, 1);
    }

    #[test]
    fn a_presumed_acquisition_becomes_a_wait_when_the_slow_path_is_seen() {
        let entered = |write, tries| What::Entered { write, tries };
        let (spans, pairing) = paired(&[
            (0, 1, MM, entered(true, false)),
            (100, 1, MM, REL_W),
            (200, 1, MM, entered(true, false)),
            (210, 1, MM, What::Contended),
            (5_000, 1, MM, GOT_W),
            (5_100, 1, MM, GOT_R),
            (6_000, 1, MM, REL_R),
        ]);
        let times: Vec<_> =
            spans.iter().map(|s| (s.start, s.acquired, s.released, s.contended)).collect();
        assert_eq!(
            times,
            [(0, 0, 100, false), (200, 5_000, 5_100, true), (5_100, 5_100, 6_000, false)]
        );
        assert_eq!(pairing.unpaired(), 0);
        let t = pairing.into_threads()[&1];
        assert_eq!((t.write.wait.count, t.write.wait.max, t.write.contended), (2, 4_800, 1));
        assert_eq!((t.read.wait.count, t.downgraded), (0, 1));
    }

    #[test]
    fn a_trylock_that_is_followed_by_another_attempt_had_failed() {
        let entered = |tries| What::Entered { write: false, tries };
        let (spans, pairing) = paired(&[
            (0, 1, MM, entered(true)),
            (10, 1, MM, entered(false)),
            (11, 1, MM, What::Contended),
            (500, 1, MM, GOT_R),
            (600, 1, MM, REL_R),
            (700, 1, MM, entered(true)),
            (800, 1, MM, REL_R),
        ]);
        assert_eq!(
            spans.iter().map(|s| (s.start, s.acquired)).collect::<Vec<_>>(),
            [(10, 500), (700, 700)]
        );
        assert_eq!(pairing.unpaired(), 0);
        let t = pairing.into_threads()[&1];
        assert_eq!((t.failed, t.read.wait.count), (1, 2));
    }

    #[test]
    fn a_fork_holds_two_locks_at_once() {
        let child = MM + 0x400;
        let (spans, pairing) = paired(&[
            (0, 1, MM, START_W),
            (1, 1, MM, GOT_W),
            (2, 1, child, START_W),
            (3, 1, child, GOT_W),
            (7, 1, child, REL_W),
            (9, 1, MM, REL_W),
        ]);
        assert_eq!((spans.len(), pairing.unpaired()), (2, 0));
        assert_eq!(pairing.into_threads()[&1].write.hold.total, 4 + 8);
    }

    #[test]
    fn ends_without_beginnings_are_counted_and_give_no_times() {
        let (spans, pairing) = paired(&[(5, 1, MM, REL_R), (6, 2, MM, GOT_W), (9, 2, MM, REL_W)]);
        assert!(spans.is_empty());
        assert_eq!(pairing.unpaired(), 3);
        assert!(pairing.into_threads().values().all(|t| *t == ThreadStats::default()));
    }

    #[test]
    fn a_gap_does_not_become_a_long_wait() {
        let mut pairing = Pairing::default();
        let event = |time, what| LockEvent { time, tid: 1, mm: MM, what };
        pairing.event(event(0, START_R));
        pairing.lost();
        pairing.event(event(5_000_000_000, GOT_R));
        assert_eq!(pairing.event(event(5_000_000_001, REL_R)), None);
        assert_eq!(pairing.unpaired(), 2);
        assert_eq!(pairing.into_threads()[&1], ThreadStats::default());
    }
}
