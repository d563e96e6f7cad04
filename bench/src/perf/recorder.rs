//! Waits and holds of this process's `mmap_lock`, by thread and role, while something runs.
//!
//! Events come from one buffer for each processor, with a filter on the address space, so that every
//! thread is seen however short it lives, and everyone who takes *our* lock (khugepaged, a reader of
//! our `/proc` files) is seen as what it is. A thread of this process named `firn-locks` empties the
//! buffers; its own locks are in the report under its own name.
//!
//! A thread that changes processors leaves its events in two buffers, and pairing needs them in order
//! of time. So each round's records are sorted, and only those older than the beginning of the round
//! before are passed on: every buffer has been emptied since. One that comes later all the same is
//! counted as late.

use std::collections::HashMap;
use std::fs;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::JoinHandle;

use firn_heap::sys::{Reservation, page_size};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::event::{Event, Mode, Target};
use super::pair::{LockEvent, Pairing, Span, ThreadStats, What};
use super::record::{self, Record, Sample};
use super::ring::Ring;
use super::tracefs::{Field, Format, Tracefs};
use super::{Unavailable, btf, counter};
use crate::clock;

/// How much to record.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of buffer for each processor. A record has 72 bytes.
    pub buffer_bytes: usize,
    /// Acquisitions whose wait or hold takes at least so many nanoseconds are kept one by one, for
    /// saying who held the lock while another waited.
    pub keep_from_ns: u64,
    /// At most so many of them.
    pub keep_at_most: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { buffer_bytes: 4 << 20, keep_from_ns: 100_000, keep_at_most: 100_000 }
    }
}

/// One thread's figures.
#[derive(Debug, Clone)]
pub struct ThreadLocks {
    /// The kernel's id.
    pub tid: u32,
    /// Its name, as it was last.
    pub name: String,
    /// How it used the lock.
    pub stats: ThreadStats,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct LockReport {
    /// By thread, in the order of ids.
    pub threads: Vec<ThreadLocks>,
    /// The long acquisitions, in the order of their ends.
    pub long: Vec<Span>,
    /// Long acquisitions that were not kept, for there were too many.
    pub long_dropped: u64,
    /// How good the data is.
    pub quality: Quality,
    /// Whether contended acquisitions could be told (the kernel has the events and says where its
    /// lock lies); if not, those counts are zero and mean nothing.
    pub contention_known: bool,
}

/// How good recorded data is: everything that is not zero here says what may be missing from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Quality {
    /// Events recorded.
    pub records: u64,
    /// Events that the kernel dropped because a buffer was full.
    pub lost: u64,
    /// Events without their counterpart (a few at the beginning and the end are normal).
    pub unpaired: u64,
    /// Events that came out of order.
    pub late: u64,
    /// Bytes that were no records.
    pub damaged_bytes: u64,
}

impl LockReport {
    /// The figures of all threads with the same role, by role. A role is a name without its number:
    /// `Mutator-3` is a `Mutator`.
    pub fn by_role(&self) -> Vec<(String, ThreadStats)> {
        let mut roles: HashMap<&str, ThreadStats> = HashMap::new();
        for t in &self.threads {
            roles.entry(role(&t.name)).or_default().merge(&t.stats);
        }
        let mut roles: Vec<_> = roles.into_iter().map(|(r, s)| (r.to_owned(), s)).collect();
        roles.sort_by(|a, b| a.0.cmp(&b.0));
        roles
    }

    /// The figures of everyone together.
    pub fn total(&self) -> ThreadStats {
        let mut sum = ThreadStats::default();
        self.threads.iter().for_each(|t| sum.merge(&t.stats));
        sum
    }
}

/// A thread's name without the number at its end.
pub fn role(name: &str) -> &str {
    match name.rsplit_once(['-', ':']) {
        Some((role, n)) if !role.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => role,
        _ => name,
    }
}

/// Records from [`LockRecorder::start`] to [`LockRecorder::stop`].
#[derive(Debug)]
pub struct LockRecorder {
    /// Dropping it tells the reader to finish.
    stop: Option<PipeWriter>,
    reader: Option<JoinHandle<LockReport>>,
}

impl LockRecorder {
    /// Begins to record.
    ///
    /// # Errors
    /// [`Unavailable`], with what is missing and the remedy.
    pub fn start(options: Options) -> Result<LockRecorder, Unavailable> {
        let formats = Formats::read()?;
        let mm = own_mm_by(&formats)?;
        let cpus = online_cpus();
        let mut buffers = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            buffers.push(Buffer::open(&formats, mm, cpu, options.buffer_bytes)?);
        }
        for buffer in &buffers {
            buffer.events[0].enable_group()?;
        }
        let failed = |e: std::io::Error| {
            let errno = firn_heap::sys::Errno(e.raw_os_error().unwrap_or(0));
            buffers[0].events[0].failed("pipe or clone", errno)
        };
        let (wake, stop) = std::io::pipe().map_err(failed)?;
        let contention_known = formats.contention.is_some();
        let mut names = HashMap::new();
        name_threads(&mut names);
        let state = State {
            options,
            names,
            formats,
            pairing: Pairing::default(),
            waiting: Vec::new(),
            passed: 0,
            report: LockReport { contention_known, ..LockReport::default() },
        };
        // The descriptors must live until the thread has ended, and an early failure must drop them.
        let builder = std::thread::Builder::new().name("firn-locks".to_owned());
        match builder.spawn(move || read(buffers, state, &wake)) {
            Ok(reader) => Ok(LockRecorder { stop: Some(stop), reader: Some(reader) }),
            Err(e) => Err(Unavailable::Call {
                call: "clone",
                event: "the reader of mmap_lock:*".to_owned(),
                errno: firn_heap::sys::Errno(e.raw_os_error().unwrap_or(0)),
            }),
        }
    }

    /// Ends recording and returns what was seen.
    pub fn stop(mut self) -> LockReport {
        self.finish().expect("finished once only, here")
    }

    fn finish(&mut self) -> Option<LockReport> {
        drop(self.stop.take());
        let reader = self.reader.take()?;
        Some(reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for LockRecorder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(reader) = self.reader.take() {
            // Its panic has been printed; dropping is no place for another.
            let _ = reader.join();
        }
    }
}

/// The events' descriptions, and the fields that are used.
struct Formats {
    start: LockFormat,
    acquired: LockFormat,
    success: Field,
    released: LockFormat,
    /// Contention on any lock, and how far `mmap_lock` lies from the start of its address space.
    contention: Option<(Format, Field, u64)>,
    kind: Field,
}

struct LockFormat {
    format: Format,
    mm: Field,
    write: Field,
}

impl LockFormat {
    fn read(tracefs: &Tracefs, name: &str) -> Result<LockFormat, Unavailable> {
        let format = tracefs.event("mmap_lock", name, counter::NEEDS)?;
        let (mm, write) = (format.field("mm", 8)?.clone(), format.field("write", 1)?.clone());
        Ok(LockFormat { format, mm, write })
    }
}

impl Formats {
    fn read() -> Result<Formats, Unavailable> {
        let tracefs = Tracefs::find()?;
        let acquired = LockFormat::read(&tracefs, "mmap_lock_acquire_returned")?;
        Ok(Formats {
            start: LockFormat::read(&tracefs, "mmap_lock_start_locking")?,
            success: acquired.format.field("success", 1)?.clone(),
            kind: acquired.format.field("common_type", 2)?.clone(),
            acquired,
            released: LockFormat::read(&tracefs, "mmap_lock_released")?,
            contention: contention(&tracefs),
        })
    }

    /// What a sample says, if it is one of ours.
    fn event(&self, sample: &Sample<'_>, lock_of: u64) -> Option<LockEvent> {
        let (id, raw) = (self.kind.value(sample.raw)?, sample.raw);
        let mode = |f: &LockFormat| Some((f.mm.value(raw)?, f.write.value(raw)? != 0));
        let (mm, what) = if id == self.start.format.id {
            let (mm, write) = mode(&self.start)?;
            (mm, What::Start { write })
        } else if id == self.acquired.format.id {
            let (mm, write) = mode(&self.acquired)?;
            (mm, What::Acquired { write, success: self.success.value(raw)? != 0 })
        } else if id == self.released.format.id {
            let (mm, write) = mode(&self.released)?;
            (mm, What::Released { write })
        } else if self.contention.as_ref().is_some_and(|(f, ..)| f.id == id) {
            // The filter lets through the lock of one address space only.
            (lock_of, What::Contended)
        } else {
            return None;
        };
        Some(LockEvent { time: sample.time, tid: sample.tid, mm, what })
    }
}

/// The event of contention, its address field, and where to look for `mmap_lock`; `None` where the
/// kernel has no such event (before 5.19) or does not say where its lock lies.
fn contention(tracefs: &Tracefs) -> Option<(Format, Field, u64)> {
    let format = tracefs.event("lock", "contention_begin", "Linux 5.19 or newer").ok()?;
    let field = format.field("lock_addr", 8).ok()?.clone();
    Some((format, field, btf::mmap_lock_offset()?))
}

/// The filter that lets contention on the lock of this process's address space through, and the
/// event it is for; `None` where the one or the other is not to be known.
pub(super) fn own_contention() -> Option<(Format, String)> {
    let formats = Formats::read().ok()?;
    let mm = own_mm_by(&formats).ok()?;
    let (format, field, offset) = formats.contention?;
    let filter = format!("{} == {:#x}", field.name, mm.wrapping_add(offset));
    Some((format, filter))
}

/// What the kernel calls the address space of this process in its events: learnt from an event that
/// this thread causes.
fn own_mm_by(formats: &Formats) -> Result<u64, Unavailable> {
    let mode = Mode::Record { callchain: false, names: false, wakeup_bytes: 1 };
    let event = Event::open(&formats.start.format, Target::Thread(0), mode, None, "write == 1")?;
    let mut ring = Ring::new(&event, page_size())?;
    event.enable_group()?;
    drop(Reservation::anonymous(page_size(), page_size(), "firn: lock probe"));
    event.disable_group()?;
    let mut mm = None;
    ring.drain(|bytes| {
        if let Some(Record::Sample(sample)) = record::parse(bytes, false) {
            mm = mm.or(formats.start.mm.value(sample.raw));
        }
    });
    mm.ok_or_else(|| Unavailable::Format {
        event: event.name().to_owned(),
        what: "mapping memory did not cause the event".to_owned(),
    })
}

/// One processor's events and their buffer.
struct Buffer {
    /// Dropped before the events.
    ring: Ring,
    events: Vec<Event>,
    mm: u64,
}

impl Buffer {
    fn open(formats: &Formats, mm: u64, cpu: i32, bytes: usize) -> Result<Buffer, Unavailable> {
        let wakeup_bytes = (bytes / 4).clamp(1, u32::MAX as usize) as u32;
        let mode = |names| Mode::Record { callchain: false, names, wakeup_bytes };
        let filter = |f: &LockFormat| format!("{} == {mm:#x}", f.mm.name);
        let target = Target::Cpu(cpu);
        let first = &formats.acquired;
        let leader = Event::open(&first.format, target, mode(true), None, &filter(first))?;
        let ring = Ring::new(&leader, bytes)?;
        let mut others = Vec::new();
        for f in [&formats.start, &formats.released] {
            others.push(Event::open(&f.format, target, mode(false), Some(&leader), &filter(f))?);
        }
        if let Some((format, field, offset)) = &formats.contention {
            let filter = format!("{} == {:#x}", field.name, mm.wrapping_add(*offset));
            others.push(Event::open(format, target, mode(false), Some(&leader), &filter)?);
        }
        for event in &others {
            event.redirect_to(&leader)?;
        }
        let events = std::iter::once(leader).chain(others).collect();
        Ok(Buffer { ring, events, mm })
    }
}

/// What the reader has in hand.
struct State {
    options: Options,
    formats: Formats,
    names: HashMap<u32, String>,
    pairing: Pairing,
    /// Read and not yet passed on; `None` is a loss.
    waiting: Vec<(u64, Option<LockEvent>)>,
    /// Everything older has been passed on.
    passed: u64,
    report: LockReport,
}

/// Milliseconds between two rounds, if no buffer fills faster.
const ROUND_MS: u8 = 50;

/// Empties the buffers until `wake` is closed at its other end.
fn read(mut buffers: Vec<Buffer>, mut state: State, wake: &PipeReader) -> LockReport {
    let mut before = 0;
    loop {
        let stopping = wait(&buffers, wake.as_fd());
        if stopping {
            for buffer in &buffers {
                // Fails for no event of ours; then a few more are recorded, and that is all.
                let _ = buffer.events[0].disable_group();
            }
        }
        let now = clock::now();
        for buffer in &mut buffers {
            let mm = buffer.mm;
            let damaged = buffer.ring.drain(|bytes| state.take(bytes, mm));
            state.report.quality.damaged_bytes += damaged as u64;
        }
        state.pass_on(if stopping { u64::MAX } else { before });
        before = now;
        if stopping {
            return state.finish();
        }
    }
}

/// Waits for a buffer that is filling up, for the end of the round, or for the end: true.
fn wait(buffers: &[Buffer], wake: BorrowedFd<'_>) -> bool {
    let mut fds = vec![PollFd::new(wake, PollFlags::POLLIN)];
    fds.extend(buffers.iter().map(|b| PollFd::new(b.events[0].as_fd(), PollFlags::POLLIN)));
    // An error is an interruption, which is as good as the end of the round.
    let _ = poll(&mut fds, PollTimeout::from(ROUND_MS));
    fds[0].any() == Some(true)
}

impl State {
    fn take(&mut self, bytes: &[u8], mm: u64) {
        match record::parse(bytes, false) {
            Some(Record::Sample(sample)) => {
                self.report.quality.records += 1;
                match self.formats.event(&sample, mm) {
                    Some(event) => self.waiting.push((event.time, Some(event))),
                    None => self.report.quality.damaged_bytes += bytes.len() as u64,
                }
            }
            Some(Record::Lost { lost, time }) => {
                self.report.quality.lost += lost;
                self.waiting.push((time, None));
            }
            Some(Record::Comm { pid, tid, name }) if pid == std::process::id() => {
                self.names.insert(tid, name.to_owned());
            }
            Some(_) => {}
            None => self.report.quality.damaged_bytes += bytes.len() as u64,
        }
    }

    /// Passes everything older than `horizon` to the pairing, in order of time.
    fn pass_on(&mut self, horizon: u64) {
        self.waiting.sort_by_key(|&(time, _)| time);
        let ready = self.waiting.partition_point(|&(time, _)| time < horizon);
        for (time, event) in self.waiting.drain(..ready) {
            if time < self.passed {
                self.report.quality.late += 1;
            }
            self.passed = self.passed.max(time);
            let Some(event) = event else {
                self.pairing.lost();
                continue;
            };
            self.names.entry(event.tid).or_insert_with(|| name_of(event.tid));
            if let Some(span) = self.pairing.event(event)
                && span.released.saturating_sub(span.start) >= self.options.keep_from_ns
            {
                match self.report.long.len() < self.options.keep_at_most {
                    true => self.report.long.push(span),
                    false => self.report.long_dropped += 1,
                }
            }
        }
    }

    fn finish(mut self) -> LockReport {
        name_threads(&mut self.names);
        let mut report = self.report;
        report.quality.unpaired = self.pairing.unpaired();
        report.threads = self
            .pairing
            .into_threads()
            .into_iter()
            .map(|(tid, stats)| ThreadLocks {
                tid,
                name: self.names.get(&tid).cloned().unwrap_or_default(),
                stats,
            })
            .collect();
        report.threads.sort_by_key(|t| t.tid);
        report
    }
}

/// The name of a thread of any process, if it still lives.
fn name_of(tid: u32) -> String {
    fs::read_to_string(format!("/proc/{tid}/comm"))
        .map_or_else(|_| format!("ended-{tid}"), |s| s.trim_end().to_owned())
}

/// The names of this process's threads as they are now.
fn name_threads(names: &mut HashMap<u32, String>) {
    for entry in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        if let Some(tid) = entry.file_name().to_str().and_then(|s| s.parse().ok())
            && let Ok(name) = fs::read_to_string(entry.path().join("comm"))
        {
            names.insert(tid, name.trim_end().to_owned());
        }
    }
}

/// The processors that are online, by number.
fn online_cpus() -> Vec<i32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    match parse_cpus(&list) {
        cpus if !cpus.is_empty() => cpus,
        _ => (0..firn_heap::sys::online_cpus() as i32).collect(),
    }
}

/// `0-3,8` as numbers; what is no number is left out.
fn parse_cpus(list: &str) -> Vec<i32> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests;
