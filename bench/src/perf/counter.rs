//! How often `mmap_lock` was taken, by mode: numbers that the kernel counts, at no visible cost.
//!
//! A process-wide event does not exist in perf. There are two ways to have one: an event on each
//! processor for everyone, filtered down to this process, or an event on each thread that the thread's
//! own new threads inherit. The second is used, because a filter knows thread ids only, and because it
//! counts what *this process's threads* did: a khugepaged that collapses our pages, or a `ps` that reads
//! our mappings, takes our lock too and would spoil a count that must be zero.
//!
//! For that to be exact, each thread must be counted once: a thread started while the counters are being
//! opened may have inherited one already, or not. So the list of threads is read again after opening,
//! and if it has changed, everything is opened anew; once it is stable, every thread has its own
//! counter and everyone later inherits. Child processes do not.
//!
//! **What is a lock taken.** `acquire_returned` with success; a downgrade from writing to reading
//! (`munmap` does it) emits the same event for reading, without a `start_locking` before it, and a
//! trylock that failed emits both without success. So with *A* acquisitions for reading, *F* failed
//! ones and *S* starts for reading: locks taken for reading = S − F, downgrades = A + F − S.
//!
//! A kernel before 5.11 has no such events. There [`super::kprobes`] counts calls of the functions that take
//! the lock, and says how that is less.

use std::collections::BTreeSet;
use std::fs;

use super::event::{Event, Mode, Target};
use super::kprobes::{Probe, Probes, Sign};
use super::tracefs::{Format, Tracefs};
use super::{Unavailable, formats};

/// Which kernels have the lock's events.
pub(super) const NEEDS: &str = "Linux 5.11 or newer with CONFIG_TRACING";

/// How often the threads of a process took `mmap_lock` (of their own address space or, in `fork` and
/// when reading another's `/proc` files, of another).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockCounts {
    /// Taken for reading.
    pub read: u64,
    /// Taken for writing.
    pub write: u64,
    /// Of those for writing, turned into one for reading before the release.
    pub downgraded: u64,
    /// Acquisitions that met the lock taken and waited in the kernel's slow path, of our own address
    /// space's lock. A writer that spins until it is free is not among them. `None` where this cannot be
    /// known: it needs Linux 5.19, the kernel's type information, and the right to record events.
    pub contended: Option<u64>,
    /// Attempts that did not wait and failed (the kernel falls back to a per-VMA lock or retries).
    pub failed: u64,
}

/// Counts locks taken, from [`LockCounter::start`] to [`LockCounter::stop`].
#[derive(Debug)]
pub struct LockCounter {
    // Before the source: events are closed before the probes that they are of are taken away.
    threads: Vec<ThreadEvents>,
    source: Source,
}

/// Where counts come from.
#[derive(Debug)]
enum Source {
    Tracepoints(Formats),
    Probes(Probes),
}

/// The events of one thread, a group: they are enabled at one moment. The first of `write` leads it.
#[derive(Debug)]
struct ThreadEvents {
    write: Vec<Event>,
    read: Read,
    contended: Option<Event>,
}

/// What is read off for reading.
#[derive(Debug)]
enum Read {
    Tracepoints {
        acquired: Event,
        starts: Event,
        failed: Event,
        /// Failed attempts for reading, which are among the starts.
        failed_reads: Event,
    },
    Probes {
        taken: Vec<Event>,
        downgraded: Vec<Event>,
    },
}

#[derive(Debug)]
struct Formats {
    acquired: Format,
    starting: Format,
    contention: Option<(Format, String)>,
}

/// How often a changing list of threads is read before giving up.
const TRIES: usize = 64;

impl LockCounter {
    /// Starts counting for all threads of this process, and those they start.
    ///
    /// # Errors
    /// [`Unavailable`], with what is missing and the remedy.
    pub fn start() -> Result<LockCounter, Unavailable> {
        let source = Source::find()?;
        for _ in 0..TRIES {
            let before = threads();
            let mut opened = Vec::with_capacity(before.len());
            for &tid in &before {
                match ThreadEvents::open(&source, Target::ThreadAndItsThreads(tid)) {
                    Ok(events) => opened.push(events),
                    // It has ended: the lists will differ.
                    Err(Unavailable::Refused { errno, .. })
                        if errno == firn_heap::sys::Errno::ESRCH => {}
                    Err(e) => return Err(e),
                }
            }
            if threads() == before {
                for events in &opened {
                    events.leader().enable_group()?;
                }
                return Ok(LockCounter { threads: opened, source });
            }
        }
        Err(Unavailable::ThreadsUnstable { tries: TRIES })
    }

    /// Prepares counting for the calling thread alone; [`LockCounter::resume`] begins it. Threads
    /// that it starts are not counted.
    ///
    /// # Errors
    /// [`Unavailable`], with what is missing and the remedy.
    pub fn this_thread() -> Result<LockCounter, Unavailable> {
        let source = Source::find()?;
        let events = ThreadEvents::open(&source, Target::Thread(0))?;
        Ok(LockCounter { threads: vec![events], source })
    }

    /// Whether other address spaces' locks are not counted, as that of the child in `fork`: so it is on
    /// kernels without the lock's tracepoints.
    pub fn sees_own_only(&self) -> bool {
        matches!(self.source, Source::Probes(_))
    }

    /// Goes on counting after [`LockCounter::pause`].
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known.
    pub fn resume(&self) -> Result<(), Unavailable> {
        self.threads.iter().try_for_each(|t| t.leader().enable_group())
    }

    /// Stops counting until [`LockCounter::resume`]; counts are kept.
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known.
    pub fn pause(&self) -> Result<(), Unavailable> {
        self.threads.iter().try_for_each(|t| t.leader().disable_group())
    }

    /// Sets all counts to zero.
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known.
    pub fn reset(&self) -> Result<(), Unavailable> {
        self.threads.iter().try_for_each(|t| t.leader().reset_group())
    }

    /// The counts so far.
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known.
    pub fn counts(&self) -> Result<LockCounts, Unavailable> {
        let mut sum = LockCounts::default();
        let count = |events: &[Event]| {
            events.iter().try_fold(0, |sum, event| Ok::<_, Unavailable>(sum + event.count()?))
        };
        for t in &self.threads {
            sum.write += count(&t.write)?;
            match &t.read {
                Read::Tracepoints { acquired, starts, failed, failed_reads } => {
                    let (acquired, failed_reads) = (acquired.count()?, failed_reads.count()?);
                    let starts = starts.count()?;
                    // A lock that was being waited for when counting began has no start, one that is
                    // waited for when it ends no end: hence saturating.
                    sum.read += starts.saturating_sub(failed_reads);
                    sum.downgraded += (acquired + failed_reads).saturating_sub(starts);
                    sum.failed += failed.count()?;
                }
                Read::Probes { taken, downgraded } => {
                    sum.read += count(taken)?;
                    sum.downgraded += count(downgraded)?;
                }
            }
            if let Some(contended) = &t.contended {
                *sum.contended.get_or_insert(0) += contended.count()?;
            }
        }
        Ok(sum)
    }

    /// Ends counting and returns the counts.
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known.
    pub fn stop(self) -> Result<LockCounts, Unavailable> {
        self.pause()?;
        self.counts()
    }
}

impl Formats {
    fn read() -> Result<Formats, Unavailable> {
        let tracefs = Tracefs::find()?;
        let acquired = tracefs.event("mmap_lock", "mmap_lock_acquire_returned", NEEDS)?;
        let starting = tracefs.event("mmap_lock", "mmap_lock_start_locking", NEEDS)?;
        // The filters below name these fields.
        acquired.field("write", 1)?;
        acquired.field("success", 1)?;
        starting.field("write", 1)?;
        Ok(Formats { acquired, starting, contention: formats::own_contention() })
    }
}

impl Source {
    /// The lock's tracepoints, or else probes.
    fn find() -> Result<Source, Unavailable> {
        match Formats::read() {
            Ok(formats) => Ok(Source::Tracepoints(formats)),
            // What tracepoints need is the better remedy.
            Err(missing @ Unavailable::NoEvent { .. }) => {
                Probes::counting().map(Source::Probes).map_err(|_| missing)
            }
            Err(other) => Err(other),
        }
    }
}

impl ThreadEvents {
    fn open(source: &Source, target: Target) -> Result<ThreadEvents, Unavailable> {
        match source {
            Source::Tracepoints(formats) => ThreadEvents::of_tracepoints(formats, target),
            Source::Probes(probes) => ThreadEvents::of_probes(probes, target),
        }
    }

    fn of_tracepoints(formats: &Formats, target: Target) -> Result<ThreadEvents, Unavailable> {
        let Formats { acquired, starting, contention } = formats;
        let write = Event::open(acquired, target, Mode::Count, None, "write == 1 && success == 1")?;
        let member = |format: &Format, filter: &str| {
            Event::open(format, target, Mode::Count, Some(&write), filter)
        };
        Ok(ThreadEvents {
            read: Read::Tracepoints {
                acquired: member(acquired, "write == 0 && success == 1")?,
                starts: member(starting, "write == 0")?,
                failed: member(acquired, "success == 0")?,
                failed_reads: member(acquired, "write == 0 && success == 0")?,
            },
            contended: contention.as_ref().map(|(f, filter)| member(f, filter)).transpose()?,
            write: vec![write],
        })
    }

    fn of_probes(probes: &Probes, target: Target) -> Result<ThreadEvents, Unavailable> {
        let open = |leader: Option<&Event>, probes: &[&Probe]| {
            let one = |p: &&Probe| Event::open(&p.format, target, Mode::Count, leader, &p.filter);
            probes.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let entered =
            |mode| move |sign| matches!(sign, Sign::Entered { write, .. } if write == mode);
        let (writing, reading) = (probes.of(entered(true)), probes.of(entered(false)));
        let (first, others) = writing.split_at(1);
        let mut write = open(None, first)?;
        let leader = &write[0];
        let taken = open(Some(leader), &reading)?;
        let downgraded = open(Some(leader), &probes.of(|sign| sign == Sign::Downgraded))?;
        let others = open(Some(leader), others)?;
        write.extend(others);
        Ok(ThreadEvents { read: Read::Probes { taken, downgraded }, contended: None, write })
    }

    fn leader(&self) -> &Event {
        &self.write[0]
    }
}

/// The ids of this process's threads.
fn threads() -> BTreeSet<i32> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
