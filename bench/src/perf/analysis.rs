//! From records in order of time to what each thread did: lock waits and holds by operation, and time off
//! the processor by reason.
//!
//! Only what lies in the [`Window`] counts, which may be set while events stream past: they arrive here at
//! least a tenth of a second late. Single acquisitions and switches are kept when they are long,
//! those of the collector's threads always, so that causes and phases can be told afterwards.
//!
//! **Switches that nobody reports.** A thread comes back to a processor by the switch of the thread before it, and
//! that is often the idle thread. There are machines on which the idle thread of a processor emits no event at all
//! (seen on a guest's second processor, with `ftrace` as with perf). So whatever a thread records itself proves that it
//! runs: if it was last seen going to sleep, its way back was missed. Sleep in the lock has ended with that record
//! then, which is the acquisition; other sleep with the wake-up, which is the waker's record; and where none was seen, the
//! end is unknown and nothing is counted. [`Analysis::missed_switches`] says how often.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::formats::Seen;
use super::histogram::Decades;
use super::pair::{LockEvent, Pairing, Span, What};
use super::registers::{Arguments, Within};
use super::symbols::Place;
use super::syscalls::{self, COLLECTORS_CALLS, PAGE_FAULT};
use crate::live::tally::Tally;
use crate::measure::latency::Recorder;

/// Begin and end of what counts, in monotonic nanoseconds; open at first. Records are looked at late, so the
/// begin must be set before it passes, or [`Window::closed`] must have kept everything out until then.
#[derive(Debug)]
pub struct Window {
    begin: AtomicU64,
    end: AtomicU64,
    tally: Tally,
}

impl Default for Window {
    fn default() -> Window {
        Window { begin: AtomicU64::new(0), end: AtomicU64::new(u64::MAX), tally: Tally::default() }
    }
}

impl Window {
    /// One in which nothing counts before [`Window::begin`].
    pub fn closed() -> Window {
        Window { begin: AtomicU64::new(u64::MAX), ..Window::default() }
    }

    /// What happens from `at` on counts.
    pub fn begin(&self, at: u64) {
        // Relaxed, here and below: the numbers publish nothing else.
        self.begin.store(at, Ordering::Relaxed);
    }

    /// What happens after `at` does not count.
    pub fn end(&self, at: u64) {
        self.end.store(at, Ordering::Relaxed);
    }

    /// Running totals of what counted so far, for a live view.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Both.
    pub fn get(&self) -> (u64, u64) {
        (self.begin.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed))
    }
}

/// How a thread used the lock in one mode for one operation.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Waits, one for each acquisition.
    pub wait: Durations,
    /// Holds.
    pub hold: Durations,
    /// Acquisitions that met contention.
    pub contended: u64,
    /// Holds for writing that became holds for reading.
    pub downgraded: u64,
}

impl Usage {
    /// Adds all of another's.
    pub fn merge(&mut self, other: &Usage) {
        self.wait.merge(&other.wait);
        self.hold.merge(&other.hold);
        self.contended += other.contended;
        self.downgraded += other.downgraded;
    }

    /// Adds one acquisition.
    pub fn add(&mut self, span: &Span) {
        // What a downgrade began was not acquired.
        let continued = span.downgrade && !span.write;
        if !continued {
            self.wait.add(span.acquired.saturating_sub(span.start));
            self.contended += u64::from(span.contended);
        }
        self.hold.add(span.released.saturating_sub(span.acquired));
        self.downgraded += u64::from(span.downgrade && span.write);
    }
}

/// Durations in decades and finely.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    /// Decades.
    pub decades: Decades,
    /// Finely; nothing before the first.
    pub fine: Option<Box<Recorder>>,
}

impl Durations {
    fn add(&mut self, ns: u64) {
        self.decades.add(ns);
        self.fine.get_or_insert_default().record(ns);
    }

    fn merge(&mut self, other: &Durations) {
        self.decades.merge(&other.decades);
        if let Some(fine) = &other.fine {
            self.fine.get_or_insert_default().merge(fine);
        }
    }
}

/// Time in which a thread did not run, in the window; nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Uninterruptible sleep.
    pub uninterruptible: u64,
    /// How often.
    pub uninterruptible_count: u64,
    /// The longest.
    pub uninterruptible_max: u64,
    /// Of that, inside the acquisition of `mmap_lock`.
    pub in_mmap_lock: u64,
    /// Of that, where a writer of a VMA waits for its readers.
    pub in_vma_lock: u64,
    /// Sleep inside the handling of a userfault.
    pub in_userfault: u64,
    /// Other interruptible sleep.
    pub interruptible: u64,
    /// Runnable, not running.
    pub run_queue: u64,
    /// The longest of those.
    pub run_queue_max: u64,
    /// Running.
    pub running: u64,
    /// Taken off while it could have run on.
    pub preempted: u64,
    /// Off the processor while it held `mmap_lock`.
    pub off_holding: u64,
}

/// A kept acquisition.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// The acquisition.
    pub span: Span,
    /// What for.
    pub operation: &'static str,
    /// Off the processor during the hold, nanoseconds.
    pub off: u64,
    /// Where its holders stand in [`Analysis::holders`]: first and number.
    pub holders: (u32, u32),
}

/// Somebody who had the lock while another waited.
#[derive(Debug, Clone, Copy)]
pub struct Holder {
    /// The thread.
    pub tid: u32,
    /// For writing.
    pub write: bool,
    /// What for.
    pub operation: &'static str,
    /// Nanoseconds of the wait.
    pub held: u64,
    /// How many times.
    pub times: u64,
    /// Nanoseconds off the processor.
    pub off: u64,
}

/// A thread's time off a processor.
#[derive(Debug, Clone, Copy)]
pub struct OffCpu {
    /// The thread.
    pub tid: u32,
    /// Since when.
    pub begin: u64,
    /// When it was woken; `begin` if it was preempted.
    pub woken: u64,
    /// Until when.
    pub end: u64,
    /// Why.
    pub state: State,
    /// Where it slept.
    pub place: Option<Sleep>,
}

/// Why a thread is off its processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It could run.
    Preempted,
    /// S.
    Interruptible,
    /// D.
    Uninterruptible,
}

/// Where a thread sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// Taking `mmap_lock`.
    MmapLock,
    /// Waiting for the readers of a VMA.
    VmaLock,
    /// In a userfault.
    Userfault,
}

/// What is known of one thread.
#[derive(Debug, Default)]
pub struct Thread {
    /// Its name, as it was last.
    pub name: String,
    /// Whether it belongs to this process.
    pub ours: bool,
    /// How it used the lock, by mode (for writing) and operation.
    pub usage: HashMap<(bool, &'static str), Usage>,
    /// Why it did not run.
    pub blocked: Blocked,
    /// The last followed call that began.
    entered: Option<(&'static str, Arguments)>,
    off: Option<OffCpu>,
    on_since: Option<u64>,
    /// Off the processor since the lock was acquired.
    off_in_hold: u64,
    keep_always: bool,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Waits of at least so many nanoseconds are kept, with their holders.
    pub wait_ns: u64,
    /// Holds of at least so many nanoseconds are kept.
    pub hold_ns: u64,
    /// Times off the processor of at least so many nanoseconds are kept.
    pub off_ns: u64,
    /// At most so many of each.
    pub at_most: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { wait_ns: 20_000, hold_ns: 50_000, off_ns: 20_000, at_most: 500_000 }
    }
}

/// Holds that are remembered for those who waited meanwhile.
const REMEMBERED: usize = 65_536;
/// Holds that are looked at for one wait.
const LOOKED_AT: usize = 16_384;
/// Holders that are kept for one wait.
const HOLDERS: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct Analysis {
    limits: Limits,
    window: Arc<Window>,
    mm: u64,
    /// Whether call chains can be read.
    pub places_known: bool,
    /// By the kernel's id.
    pub threads: HashMap<u32, Thread>,
    pairing: Pairing,
    by_global_id: HashMap<i32, u32>,
    recent: VecDeque<Kept>,
    /// Kept acquisitions in the order of their ends.
    pub kept: Vec<Kept>,
    /// Who had the lock during kept waits.
    pub holders: Vec<Holder>,
    /// Kept times off a processor.
    pub off: Vec<OffCpu>,
    /// Acquisitions and times that were to be kept and had no room.
    pub dropped: u64,
    /// Of those, the ones that were to be kept always: of the collector's threads, and [`COLLECTORS_CALLS`].
    pub dropped_always: u64,
    /// Times that a thread's way back to a processor was not seen.
    pub missed_switches: u64,
}

/// State bits of a thread that does not come back: `EXIT_DEAD` and `EXIT_ZOMBIE`.
const ENDED: u64 = 0x30;

/// Whether a thread of this name is the collector's.
pub fn is_collector(name: &str) -> bool {
    name == "HeapTaskDaemon" || name == "FaultThread" || name.starts_with("GcWorker-")
}

impl Analysis {
    /// For the address space that the kernel calls `mm`.
    pub fn new(limits: Limits, window: Arc<Window>, mm: u64, places_known: bool) -> Analysis {
        // Room for all of it, which costs nothing before it is used: a buffer that grew in the middle of a measurement
        // would take the very lock for writing. Where so much is refused, it grows.
        let (mut kept, mut holders, mut off) = (Vec::new(), Vec::new(), Vec::new());
        let _ = kept.try_reserve_exact(limits.at_most);
        let _ = holders.try_reserve_exact(limits.at_most);
        let _ = off.try_reserve_exact(limits.at_most);
        Analysis {
            limits,
            window,
            mm,
            places_known,
            threads: HashMap::new(),
            pairing: Pairing::default(),
            by_global_id: HashMap::new(),
            recent: VecDeque::with_capacity(REMEMBERED + 1),
            kept,
            holders,
            off,
            dropped: 0,
            dropped_always: 0,
            missed_switches: 0,
        }
    }

    /// A thread has this name now.
    pub fn named(&mut self, tid: u32, name: &str, ours: bool) {
        let thread = self.threads.entry(tid).or_default();
        thread.name = name.to_owned();
        thread.ours |= ours;
        thread.keep_always = thread.ours && is_collector(name);
    }

    /// Whether this thread has been seen.
    pub fn knows(&self, tid: u32) -> bool {
        self.threads.contains_key(&tid)
    }

    /// A thread of this process is called `global` in the first namespace.
    pub fn identify(&mut self, tid: u32, global: i32) {
        self.by_global_id.insert(global, tid);
    }

    /// Events without a counterpart.
    pub fn unpaired(&self) -> u64 {
        self.pairing.unpaired()
    }

    /// Attempts that failed without waiting, by thread.
    pub fn failed(self) -> (HashMap<u32, u64>, Analysis) {
        let Analysis { pairing, .. } = self;
        let failed = pairing.into_threads().into_iter().map(|(tid, s)| (tid, s.failed)).collect();
        (failed, Analysis { pairing: Pairing::default(), ..self })
    }

    /// Records were lost: what is under way is forgotten.
    pub fn lost(&mut self) {
        self.pairing.lost();
        for thread in self.threads.values_mut() {
            (thread.off, thread.on_since, thread.entered) = (None, None, None);
        }
    }

    /// The next record, of a thread of any process; `place` is where its call chain leads.
    pub(super) fn seen(&mut self, time: u64, tid: u32, what: Seen, place: Option<Place>) {
        if !matches!(what, Seen::Wake(_)) {
            self.runs(time, tid);
        }
        match what {
            Seen::Lock(event, within) => self.lock(event, within),
            Seen::Enter(name, arguments) => {
                if let Some(thread) = self.ours(tid) {
                    thread.entered = Some((name, arguments));
                }
            }
            Seen::Exit => {
                if let Some(thread) = self.ours(tid) {
                    thread.entered = None;
                }
            }
            Seen::Wake(global) => {
                let woken = self.by_global_id.get(&global).and_then(|t| self.threads.get_mut(t));
                if let Some(off) = woken.and_then(|t| t.off.as_mut())
                    && off.woken == off.begin
                    && off.state != State::Preempted
                {
                    // A wake-up at the very nanosecond of the switch would look like none.
                    off.woken = time.max(off.begin + 1);
                }
            }
            Seen::Gone { global, state, next } => match self.by_global_id.get(&global) {
                Some(&tid) => self.seen(time, tid, Seen::Switch { state, next }, place),
                // Of one that was never seen before nothing ends.
                None => self.came_on(time, next),
            },
            Seen::Switch { state, next } => {
                match state & ENDED {
                    0 => self.switched_out(time, tid, state, place),
                    _ => self.ended(time, tid),
                }
                self.came_on(time, next);
            }
        }
    }

    /// The thread of this id in the first namespace, if it is one of this process, is on a processor.
    fn came_on(&mut self, time: u64, next: i32) {
        if let Some(&tid) = self.by_global_id.get(&next) {
            self.switched_in(time, tid);
        }
    }

    fn ours(&mut self, tid: u32) -> Option<&mut Thread> {
        self.threads.get_mut(&tid).filter(|t| t.ours)
    }

    /// A record of the thread's own: if it was last seen going to sleep, its way back was not reported.
    fn runs(&mut self, time: u64, tid: u32) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        let Some(off) = thread.off else { return };
        self.missed_switches += 1;
        match (off.place, off.woken > off.begin) {
            (Some(Sleep::MmapLock), _) => self.switched_in(time, tid),
            // Nothing else was on that processor, or its switch would have been seen: there was no queue.
            (_, true) => self.switched_in(off.woken, tid),
            _ => thread.off = None,
        }
    }

    /// A thread left its processor for ever. Its ids may be another's from now on.
    fn ended(&mut self, time: u64, tid: u32) {
        let window = self.window.get();
        let Some(thread) = self.ours(tid) else { return };
        if let Some(since) = thread.on_since.take() {
            thread.blocked.running += overlap((since, time), window);
        }
        self.by_global_id.retain(|_, known| *known != tid);
    }

    fn switched_out(&mut self, time: u64, tid: u32, state: u64, place: Option<Place>) {
        let (trying, _) = self.pairing.now(tid, self.mm);
        let (window, known) = (self.window.get(), self.places_known);
        let Some(thread) = self.ours(tid) else { return };
        if let Some(since) = thread.on_since.take() {
            thread.blocked.running += overlap((since, time), window);
        }
        let state = match state & 0xff {
            0 => State::Preempted,
            2 => State::Uninterruptible,
            _ => State::Interruptible,
        };
        let place = match place {
            Some(Place::VmaLock) => Some(Sleep::VmaLock),
            Some(Place::Userfault) => Some(Sleep::Userfault),
            Some(Place::Semaphore) if trying => Some(Sleep::MmapLock),
            // Without symbols, what sleeps between the attempt and the acquisition waits for the lock.
            None if trying && !known && state != State::Preempted => Some(Sleep::MmapLock),
            _ => None,
        };
        thread.off = Some(OffCpu { tid, begin: time, woken: time, end: time, state, place });
        thread.blocked.preempted +=
            u64::from(state == State::Preempted && window.0 <= time && time <= window.1);
    }

    fn switched_in(&mut self, time: u64, tid: u32) {
        let (_, holding) = self.pairing.now(tid, self.mm);
        let window = self.window.get();
        let Some(thread) = self.ours(tid) else { return };
        thread.on_since = Some(time);
        let Some(mut off) = thread.off.take() else { return };
        off.end = time;
        let asleep_until = match off.state {
            State::Preempted => off.begin,
            _ if off.woken == off.begin => time,
            _ => off.woken.min(time),
        };
        let asleep = overlap((off.begin, asleep_until), window);
        let queued = overlap((asleep_until, time), window);
        let b = &mut thread.blocked;
        match off.state {
            State::Preempted => {}
            State::Uninterruptible => {
                b.uninterruptible += asleep;
                b.uninterruptible_count += u64::from(asleep > 0);
                b.uninterruptible_max = b.uninterruptible_max.max(asleep);
                match off.place {
                    Some(Sleep::MmapLock) => b.in_mmap_lock += asleep,
                    Some(Sleep::VmaLock) => b.in_vma_lock += asleep,
                    // GUP waits for a userfault uninterruptibly.
                    Some(Sleep::Userfault) => b.in_userfault += asleep,
                    None => {}
                }
            }
            State::Interruptible => match off.place {
                Some(Sleep::Userfault) => b.in_userfault += asleep,
                _ => b.interruptible += asleep,
            },
        }
        b.run_queue += queued;
        b.run_queue_max = b.run_queue_max.max(queued);
        if holding {
            b.off_holding += overlap((off.begin, time), window);
            thread.off_in_hold += time - off.begin;
        }
        off.woken = asleep_until;
        let long = time - off.begin >= self.limits.off_ns;
        if long && overlap((off.begin, time), window) > 0 {
            match self.off.len() < self.limits.at_most {
                true => self.off.push(off),
                false => self.dropped += 1,
            }
        }
    }

    fn lock(&mut self, event: LockEvent, within: Within) {
        if matches!(event.what, What::Acquired { success: true, .. } | What::Entered { .. })
            && let Some(thread) = self.threads.get_mut(&event.tid)
        {
            thread.off_in_hold = 0;
        }
        let Some(span) = self.pairing.event(event) else { return };
        let window = self.window.get();
        let thread = self.threads.entry(span.tid).or_default();
        let operation = operation(thread.entered, within);
        let off = std::mem::take(&mut thread.off_in_hold);
        let always = thread.keep_always || (thread.ours && COLLECTORS_CALLS.contains(&operation));
        let counts = span.acquired >= window.0 && span.start <= window.1;
        if counts {
            thread.usage.entry((span.write, operation)).or_default().add(&span);
            self.window.tally().lock(span.write, span.acquired.saturating_sub(span.start));
        }
        let mut kept = Kept { span, operation, off, holders: (0, 0) };
        let waited = span.acquired.saturating_sub(span.start) >= self.limits.wait_ns;
        let held = span.released.saturating_sub(span.acquired) >= self.limits.hold_ns;
        if counts && (always || waited || held) {
            if self.kept.len() < self.limits.at_most * if always { 4 } else { 1 } {
                if waited {
                    kept.holders = self.who_held(&span);
                }
                self.kept.push(kept);
            } else {
                self.dropped += 1;
                self.dropped_always += u64::from(always);
            }
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(kept);
    }

    /// Who had the lock while `span`'s thread waited for it.
    fn who_held(&mut self, span: &Span) -> (u32, u32) {
        let wait = (span.start, span.acquired);
        let mut found: Vec<Holder> = Vec::new();
        for hold in self.recent.iter().rev().take(LOOKED_AT) {
            if hold.span.released <= wait.0 {
                break;
            }
            let held = overlap((hold.span.acquired, hold.span.released), wait);
            if held == 0 || hold.span.tid == span.tid {
                continue;
            }
            let (tid, write, operation) = (hold.span.tid, hold.span.write, hold.operation);
            let same = |h: &&mut Holder| (h.tid, h.write, h.operation) == (tid, write, operation);
            match found.iter_mut().find(same) {
                Some(h) => {
                    h.held += held;
                    h.times += 1;
                    h.off += hold.off;
                }
                None => {
                    found.push(Holder { tid, write, operation, held, times: 1, off: hold.off });
                }
            }
        }
        found.sort_by_key(|h| std::cmp::Reverse(h.held));
        found.truncate(HOLDERS);
        let at = self.holders.len() as u32;
        self.holders.extend(&found);
        (at, found.len() as u32)
    }

    /// Threads that are off a processor, or on one, at the end are accounted for until `now`.
    pub fn close(&mut self, now: u64) {
        let sleeping: Vec<u32> =
            self.threads.iter().filter(|(_, t)| t.off.is_some()).map(|(tid, _)| *tid).collect();
        for tid in sleeping {
            self.switched_in(now, tid);
        }
        let window = self.window.get();
        for thread in self.threads.values_mut() {
            if let Some(since) = thread.on_since.take() {
                thread.blocked.running += overlap((since, now), window);
            }
        }
    }
}

/// What a thread took the lock for, given the last call that it began and where it is.
fn operation(entered: Option<(&'static str, Arguments)>, within: Within) -> &'static str {
    match (within, entered) {
        (Within::Unknown, Some((name, _))) => name,
        (Within::Call(now), Some((name, then))) if now == then => name,
        (Within::Call(now), _) => syscalls::request(now.second).unwrap_or(PAGE_FAULT),
        _ => PAGE_FAULT,
    }
}

/// Nanoseconds that two intervals have in common.
pub fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}

#[cfg(test)]
mod tests;
