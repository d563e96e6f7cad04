//! The sampling layer: everything that the kernel tells of this process while something runs.
//!
//! Events come from buffers of each processor: the lock's with a filter on the address space, so that
//! every thread is seen however short it lives, and everyone who takes *our* lock (khugepaged, a reader of
//! our `/proc` files) is seen as what it is; switches and wake-ups of everybody, because a wake-up happens in
//! somebody else; system calls that may take the lock. Call chains are recorded only where a thread goes
//! to sleep, in a buffer of their own, since they cost ten times a plain record. A thread named
//! `firn-sampler` empties the buffers; its own locks are in the report under its own name.
//!
//! A thread that changes processors leaves its events in two buffers, and pairing needs them in order
//! of time. So each round's records are sorted, and only those older than the beginning of the round
//! before are passed on: every buffer has been emptied since. One that comes later all the same is
//! counted as late.

use std::collections::HashMap;
use std::fs;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use firn_heap::sys::{Errno, thread};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::analysis::{Analysis, Limits, Window};
use super::event::{Event, Mode, Target};
use super::formats::{Formats, LockFormats, NO_TID, Seen};
use super::record::{self, Record};
use super::ring::Ring;
use super::symbols::{Place, Symbols};
use super::tracefs::Format;
use super::{Unavailable, registers, syscalls};
use crate::clock;
use crate::schema::{LockQuality, Source};

/// How much to record.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of buffer for each processor. A record has 72 to 112 bytes.
    pub buffer_bytes: usize,
    /// What is kept one by one.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Options {
        Options { buffer_bytes: 16 << 20, limits: Limits::default() }
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Recording {
    /// Threads, acquisitions, times off the processor.
    pub analysis: Analysis,
    /// Attempts that failed without waiting, by thread.
    pub failed: HashMap<u32, u64>,
    /// How good the data is.
    pub quality: LockQuality,
    /// Records with a call chain among them.
    pub chained: u64,
    /// Records of system calls among them.
    pub calls: u64,
    /// What told of the lock.
    pub locks_from: Source,
    /// Whether contended acquisitions could be told.
    pub contention_known: bool,
    /// Whether switches were recorded.
    pub switches_known: bool,
    /// Whether system calls were recorded: if not, every operation is called a page fault.
    pub calls_known: bool,
    /// From the first to the last record, nanoseconds.
    pub span: (u64, u64),
    /// Processor time of the sampler's own thread, nanoseconds.
    pub cpu_ns: u64,
    /// What could not be had, with remedies.
    pub missing: Vec<String>,
}

/// A thread's name without the number at its end.
pub fn role(name: &str) -> &str {
    match name.rsplit_once(['-', ':']) {
        Some((role, n)) if !role.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => role,
        _ => name,
    }
}

/// Records from [`Sampler::start`] to [`Sampler::stop`].
#[derive(Debug)]
pub struct Sampler {
    /// Dropping it tells the reader to finish.
    stop: Option<PipeWriter>,
    reader: Option<JoinHandle<Recording>>,
    events: Arc<Vec<Events>>,
    /// Last: probes can be taken away when no event is of them any more.
    _formats: Arc<Formats>,
}

impl Sampler {
    /// Begins to record; what lies in `window` counts.
    ///
    /// # Errors
    /// [`Unavailable`], with what is missing and the remedy.
    pub fn start(options: Options, window: Arc<Window>) -> Result<Sampler, Unavailable> {
        let formats = Arc::new(Formats::read()?);
        let mm = formats.locks.own()?;
        let symbols = Symbols::read();
        let mut missing = Vec::new();
        if !symbols.known() {
            missing.push(
                "kernel symbols are hidden: sleep in VMA locks and userfaults is not told apart; \
                 run as root with `sysctl kernel.kptr_restrict=0`"
                    .to_owned(),
            );
        }
        let (mut rings, mut events) = (Vec::new(), Vec::new());
        for cpu in online_cpus() {
            let (ring, own) = open_plain(&formats, mm, cpu, options.buffer_bytes)?;
            rings.push((ring, false));
            events.push(own);
            if let Some(sched) = &formats.sched {
                let (ring, own) = open_chained(&sched.switch, cpu, options.buffer_bytes / 2)?;
                rings.push((ring, true));
                events.push(own);
            }
        }
        for own in &events {
            own.0[0].enable_group()?;
        }
        let failed = |call, e: std::io::Error| Unavailable::Call {
            call,
            event: "the reader of the kernel's events".to_owned(),
            errno: Errno(e.raw_os_error().unwrap_or(0)),
        };
        let (wake, stop) = std::io::pipe().map_err(|e| failed("pipe", e))?;
        let events = Arc::new(events);
        let mut analysis = Analysis::new(options.limits, window, mm, symbols.known());
        name_threads(&mut analysis);
        let recording = Recording {
            analysis,
            failed: HashMap::new(),
            quality: LockQuality::default(),
            chained: 0,
            calls: 0,
            locks_from: match &formats.locks {
                LockFormats::Tracepoints(_) => Source::Tracepoints,
                LockFormats::Probes(_) => Source::Probes,
            },
            contention_known: formats.locks.contention_known(),
            switches_known: formats.sched.is_some(),
            calls_known: formats.calls.is_some(),
            span: (clock::now(), 0),
            cpu_ns: 0,
            missing,
        };
        let pid = std::process::id();
        let mut waiting = Vec::new();
        let _ = waiting.try_reserve_exact(WAITING);
        let state =
            State { recording, formats: formats.clone(), symbols, mm, pid, waiting, passed: 0 };
        let builder = std::thread::Builder::new().name("firn-sampler".to_owned());
        let shared = events.clone();
        let reader = builder
            .spawn(move || {
                // A reader that starves loses records; where this is refused, it may.
                let _ = thread::set_nice(0, -10);
                read(rings, &shared, state, &wake)
            })
            .map_err(|e| failed("clone", e))?;
        Ok(Sampler { stop: Some(stop), reader: Some(reader), events, _formats: formats })
    }

    /// Stops or continues recording without ending it: to find out what it costs. What was under way is
    /// not to be believed afterwards.
    pub fn enable(&self, on: bool) {
        for own in self.events.iter() {
            // Fails for no event of ours.
            let _ = if on { own.0[0].enable_group() } else { own.0[0].disable_group() };
        }
    }

    /// Ends recording and returns what was seen.
    pub fn stop(mut self) -> Recording {
        drop(self.stop.take());
        let reader = self.reader.take().expect("stopped once only, here");
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(reader) = self.reader.take() {
            // Its panic has been printed; dropping is no place for another.
            let _ = reader.join();
        }
    }
}

/// The events of one buffer, the group's leader first.
#[derive(Debug)]
struct Events(Vec<Event>);

/// What a record has besides the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    Nothing,
    /// The registers, for those that may end a hold: they say what the lock was taken for.
    Registers,
    /// Registers, and a record of each new name of a thread.
    RegistersAndNames,
    CallChain,
}

fn mode(with: With, bytes: usize) -> Mode {
    Mode::Record {
        callchain: with == With::CallChain,
        names: with == With::RegistersAndNames,
        registers: matches!(with, With::Registers | With::RegistersAndNames),
        wakeup_bytes: (bytes / 4).clamp(1, u32::MAX as usize) as u32,
    }
}

/// A switch of a thread that could run on: no call chain is needed.
const RUNNABLE: &str = "prev_state == 0 || prev_state == 256";
/// A switch of one that goes to sleep.
const ASLEEP: &str = "prev_state != 0 && prev_state != 256";

fn open_plain(
    formats: &Formats,
    mm: u64,
    cpu: i32,
    bytes: usize,
) -> Result<(Ring, Events), Unavailable> {
    let target = Target::Cpu(cpu);
    let mut locks = formats.locks.events(mm).into_iter().map(|lock| {
        let with = if lock.ends_hold { With::Registers } else { With::Nothing };
        (lock.format, lock.filter, with)
    });
    let (first, ours, _) = locks.next().expect("the lock has events");
    let all = mode(With::RegistersAndNames, bytes);
    let leader = Event::open(first, target, all, None, &ours)?;
    let ring = Ring::new(&leader, bytes)?;
    let mut others: Vec<(&Format, String, With)> = locks.collect();
    if let Some(sched) = &formats.sched {
        others.push((&sched.switch, RUNNABLE.to_owned(), With::Nothing));
        others.push((&sched.waking, String::new(), With::Nothing));
    }
    if let Some(calls) = &formats.calls {
        others.push((&calls.enter, syscalls::filter(), With::Nothing));
        if registers::WANTED == 0 {
            others.push((&calls.exit, syscalls::filter(), With::Nothing));
        }
    }
    let mut events = vec![leader];
    for (format, filter, with) in others {
        let event = Event::open(format, target, mode(with, bytes), Some(&events[0]), &filter)?;
        event.redirect_to(&events[0])?;
        events.push(event);
    }
    Ok((ring, Events(events)))
}

fn open_chained(switch: &Format, cpu: i32, bytes: usize) -> Result<(Ring, Events), Unavailable> {
    let mode = mode(With::CallChain, bytes);
    let event = Event::open(switch, Target::Cpu(cpu), mode, None, ASLEEP)?;
    Ok((Ring::new(&event, bytes)?, Events(vec![event])))
}

/// A record that waits for its turn; `None` is a loss.
type Waiting = (u64, Option<(u32, Seen, Option<Place>)>);

/// What the reader has in hand.
struct State {
    recording: Recording,
    formats: Arc<Formats>,
    symbols: Symbols,
    mm: u64,
    pid: u32,
    /// Read and not yet passed on.
    waiting: Vec<Waiting>,
    /// Everything older has been passed on.
    passed: u64,
}

/// Records that there is room for between two rounds, so that the reader takes no lock for writing to hold them.
const WAITING: usize = 1 << 18;

/// Milliseconds between two rounds, if no buffer fills faster.
const ROUND_MS: u8 = 50;

/// Empties the buffers until `wake` is closed at its other end. Rings are dropped before the events.
fn read(
    mut rings: Vec<(Ring, bool)>,
    events: &[Events],
    mut state: State,
    wake: &PipeReader,
) -> Recording {
    let mut before = 0;
    loop {
        let stopping = wait(events, wake.as_fd());
        if stopping {
            for own in events {
                // Fails for no event of ours; then a few more are recorded, and that is all.
                let _ = own.0[0].disable_group();
            }
        }
        let now = clock::now();
        for (ring, chains) in &mut rings {
            let damaged = ring.drain(|bytes| state.take(bytes, *chains));
            state.recording.quality.damaged_bytes += damaged as u64;
        }
        state.pass_on(if stopping { u64::MAX } else { before });
        before = now;
        if stopping {
            return state.finish();
        }
    }
}

/// Waits for a buffer that is filling up, for the end of the round, or for the end: true.
fn wait(events: &[Events], wake: BorrowedFd<'_>) -> bool {
    let mut fds = vec![PollFd::new(wake, PollFlags::POLLIN)];
    fds.extend(events.iter().map(|own| PollFd::new(own.0[0].as_fd(), PollFlags::POLLIN)));
    // An error is an interruption, which is as good as the end of the round.
    let _ = poll(&mut fds, PollTimeout::from(ROUND_MS));
    fds[0].any() == Some(true)
}

impl State {
    fn take(&mut self, bytes: &[u8], chains: bool) {
        let quality = &mut self.recording.quality;
        match record::parse(bytes, chains) {
            Some(Record::Sample(sample)) => {
                quality.records += 1;
                self.recording.chained += u64::from(chains);
                let Some(seen) = self.formats.seen(&sample, self.mm) else {
                    quality.damaged_bytes += bytes.len() as u64;
                    return;
                };
                self.recording.calls += u64::from(matches!(seen, Seen::Enter(..) | Seen::Exit));
                let ours = sample.pid == self.pid;
                if ours
                    && sample.tid != NO_TID
                    && let Some(global) = self.formats.global_id(&sample)
                {
                    self.recording.analysis.identify(sample.tid, global);
                }
                match seen {
                    // System calls of other processes are none of ours.
                    Seen::Enter(..) | Seen::Exit if !ours => return,
                    Seen::Lock(..) | Seen::Switch { .. } | Seen::Enter(..)
                        if (ours || matches!(seen, Seen::Lock(..)))
                            && !self.recording.analysis.knows(sample.tid) =>
                    {
                        let name = name_of(sample.tid);
                        self.recording.analysis.named(sample.tid, &name, ours);
                    }
                    _ => {}
                }
                let place = if ours { self.symbols.place(sample.chain) } else { None };
                self.waiting.push((sample.time, Some((sample.tid, seen, place))));
            }
            Some(Record::Lost { lost, time }) => {
                quality.lost += lost;
                self.waiting.push((time, None));
            }
            Some(Record::Comm { pid, tid, name }) if pid == self.pid => {
                self.recording.analysis.named(tid, name, true);
            }
            Some(_) => {}
            None => quality.damaged_bytes += bytes.len() as u64,
        }
    }

    /// Passes everything older than `horizon` on, in order of time.
    fn pass_on(&mut self, horizon: u64) {
        self.waiting.sort_by_key(|&(time, _)| time);
        let ready = self.waiting.partition_point(|&(time, _)| time < horizon);
        for (time, event) in self.waiting.drain(..ready) {
            if time < self.passed {
                self.recording.quality.late += 1;
            }
            self.passed = self.passed.max(time);
            match event {
                None => self.recording.analysis.lost(),
                Some((tid, seen, place)) => self.recording.analysis.seen(time, tid, seen, place),
            }
        }
    }

    fn finish(mut self) -> Recording {
        let analysis = &mut self.recording.analysis;
        name_threads(analysis);
        let now = clock::now();
        analysis.close(now);
        self.recording.span.1 = now;
        self.recording.quality.unpaired = analysis.unpaired();
        self.recording.quality.missed_switches = analysis.missed_switches;
        self.recording.cpu_ns = thread::thread_cpu_time_ns();
        let (failed, analysis) = self.recording.analysis.failed();
        Recording { failed, analysis, ..self.recording }
    }
}

/// The name of a thread of any process, if it still lives.
fn name_of(tid: u32) -> String {
    fs::read_to_string(format!("/proc/{tid}/comm"))
        .map_or_else(|_| format!("ended-{tid}"), |s| s.trim_end().to_owned())
}

/// The names of this process's threads as they are now.
fn name_threads(analysis: &mut Analysis) {
    for entry in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        if let Some(tid) = entry.file_name().to_str().and_then(|s| s.parse().ok())
            && let Ok(name) = fs::read_to_string(entry.path().join("comm"))
        {
            analysis.named(tid, name.trim_end(), true);
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
