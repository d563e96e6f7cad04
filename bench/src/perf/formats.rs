//! The descriptions of all events that are recorded, and which of this process's records mean what.

use firn_heap::sys::{Reservation, page_size};

use super::event::{Event, Mode, Target};
use super::kprobes::{Probes, Sign};
use super::pair::{LockEvent, What};
use super::record::{self, Record, Sample};
use super::registers::{self, Arguments, Within};
use super::ring::Ring;
use super::tracefs::{Field, Format, Tracefs};
use super::{Unavailable, btf, counter, syscalls};

/// The events' descriptions, and the fields that are used.
#[derive(Debug)]
pub(super) struct Formats {
    pub(super) locks: LockFormats,
    pub(super) sched: Option<SchedFormats>,
    pub(super) calls: Option<CallFormats>,
    kind: Field,
    common_pid: Field,
}

/// What tells of the lock.
#[derive(Debug)]
pub(super) enum LockFormats {
    /// The lock's own events.
    Tracepoints(Box<LockTracepoints>),
    /// Probes, on kernels before 5.11.
    Probes(Probes),
}

/// The lock's own events.
#[derive(Debug)]
pub(super) struct LockTracepoints {
    start: LockFormat,
    acquired: LockFormat,
    success: Field,
    released: LockFormat,
    /// Contention on any lock, and how far `mmap_lock` lies from the start of its address space.
    contention: Option<(Format, Field, u64)>,
}

/// An event that tells of the lock.
#[derive(Debug)]
pub(super) struct LockSource<'a> {
    pub(super) format: &'a Format,
    /// Leaves one lock.
    pub(super) filter: String,
    /// Whether its records may end a hold: these must say what the lock was taken for.
    pub(super) ends_hold: bool,
}

#[derive(Debug)]
pub(super) struct LockFormat {
    pub(super) format: Format,
    pub(super) mm: Field,
    write: Field,
}

/// Who runs and who is woken.
#[derive(Debug)]
pub(super) struct SchedFormats {
    pub(super) switch: Format,
    prev_state: Field,
    next_pid: Field,
    pub(super) waking: Format,
    woken: Field,
}

/// System calls.
#[derive(Debug)]
pub(super) struct CallFormats {
    pub(super) enter: Format,
    enter_id: Field,
    args: usize,
    pub(super) exit: Format,
}

/// The id in records of threads that the kernel has taken off its lists: -1.
pub(super) const NO_TID: u32 = u32::MAX;

/// What a record says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    /// Of the lock, and where its thread had entered the kernel.
    Lock(LockEvent, Within),
    /// The thread was taken off its processor in `state`, and `next` came on it.
    Switch {
        /// The kernel's state bits; 0 and 256 are runnable.
        state: u64,
        /// The thread that runs now, by its id in the first namespace.
        next: i32,
    },
    /// As [`Seen::Switch`], of a thread that has ended but for this: it has no id any more, and is told by the one that
    /// it had in the first namespace.
    Gone {
        /// That id.
        global: i32,
        /// The kernel's state bits; the thread may also be preempted on its way out.
        state: u64,
        /// The thread that runs now, by its id in the first namespace.
        next: i32,
    },
    /// A thread was made runnable, by its id in the first namespace.
    Wake(i32),
    /// A followed system call began.
    Enter(&'static str, Arguments),
    /// It ended; recorded only where registers do not tell.
    Exit,
}

impl LockFormat {
    fn read(tracefs: &Tracefs, name: &str) -> Result<LockFormat, Unavailable> {
        let format = tracefs.event("mmap_lock", name, counter::NEEDS)?;
        let (mm, write) = (format.field("mm", 8)?.clone(), format.field("write", 1)?.clone());
        Ok(LockFormat { format, mm, write })
    }
}

impl SchedFormats {
    fn read(tracefs: &Tracefs) -> Result<SchedFormats, Unavailable> {
        let needs = "a kernel with CONFIG_TRACING";
        let switch = tracefs.event("sched", "sched_switch", needs)?;
        // Not `sched_wakeup`: that is emitted by the processor that the thread will run on, which may be asleep, and
        // this one by whoever wakes it, at that moment.
        let waking = tracefs.event("sched", "sched_waking", needs)?;
        Ok(SchedFormats {
            prev_state: switch.field("prev_state", 8)?.clone(),
            next_pid: switch.field("next_pid", 4)?.clone(),
            woken: waking.field("pid", 4)?.clone(),
            switch,
            waking,
        })
    }
}

impl CallFormats {
    fn read(tracefs: &Tracefs) -> Result<CallFormats, Unavailable> {
        let needs = "a kernel with CONFIG_FTRACE_SYSCALLS";
        let enter = tracefs.event("raw_syscalls", "sys_enter", needs)?;
        let exit = tracefs.event("raw_syscalls", "sys_exit", needs)?;
        let args = enter.field("args", 48)?.offset;
        exit.field("id", 8)?;
        Ok(CallFormats { enter_id: enter.field("id", 8)?.clone(), args, enter, exit })
    }
}

impl LockTracepoints {
    fn read(tracefs: &Tracefs) -> Result<LockTracepoints, Unavailable> {
        let acquired = LockFormat::read(tracefs, "mmap_lock_acquire_returned")?;
        Ok(LockTracepoints {
            start: LockFormat::read(tracefs, "mmap_lock_start_locking")?,
            success: acquired.format.field("success", 1)?.clone(),
            acquired,
            released: LockFormat::read(tracefs, "mmap_lock_released")?,
            contention: contention(tracefs),
        })
    }

    /// What a record of the event `id` says, and of which address space.
    fn seen(&self, id: u64, raw: &[u8], own: u64) -> Option<(u64, What)> {
        let mode = |f: &LockFormat| Some((f.mm.value(raw)?, f.write.value(raw)? != 0));
        if id == self.start.format.id {
            let (mm, write) = mode(&self.start)?;
            return Some((mm, What::Start { write }));
        }
        if id == self.acquired.format.id {
            let (mm, write) = mode(&self.acquired)?;
            return Some((mm, What::Acquired { write, success: self.success.value(raw)? != 0 }));
        }
        if id == self.released.format.id {
            let (mm, write) = mode(&self.released)?;
            return Some((mm, What::Released { write }));
        }
        // The filter lets through the lock of one address space only.
        let contended = self.contention.as_ref().is_some_and(|(f, ..)| f.id == id);
        contended.then_some((own, What::Contended))
    }
}

/// What a record of a probe says: the filter lets our own lock through only.
fn probed(sign: Sign) -> What {
    match sign {
        Sign::Entered { write, tries } => What::Entered { write, tries },
        Sign::Waits => What::Contended,
        Sign::Through { write } => What::Acquired { write, success: true },
        Sign::Downgraded => What::Acquired { write: false, success: true },
        Sign::Released { write } => What::Released { write },
    }
}

impl LockFormats {
    fn read(tracefs: &Tracefs) -> Result<LockFormats, Unavailable> {
        match LockTracepoints::read(tracefs) {
            Ok(tracepoints) => Ok(LockFormats::Tracepoints(Box::new(tracepoints))),
            // What tracepoints need is the better remedy.
            Err(missing @ Unavailable::NoEvent { .. }) => {
                Probes::recording().map(LockFormats::Probes).map_err(|_| missing)
            }
            Err(other) => Err(other),
        }
    }

    /// What this process's lock, or its address space, is called in records.
    pub(super) fn own(&self) -> Result<u64, Unavailable> {
        match self {
            LockFormats::Tracepoints(tracepoints) => own_mm(tracepoints),
            LockFormats::Probes(probes) => Ok(probes.lock),
        }
    }

    /// The events to record of the lock that `own` names.
    pub(super) fn events(&self, own: u64) -> Vec<LockSource<'_>> {
        match self {
            LockFormats::Tracepoints(t) => {
                let all = [(&t.acquired, true), (&t.start, false), (&t.released, true)];
                let mut events: Vec<_> = all
                    .map(|(event, ends_hold)| {
                        let filter = format!("{} == {own:#x}", event.mm.name);
                        LockSource { format: &event.format, filter, ends_hold }
                    })
                    .into();
                if let Some((format, field, offset)) = &t.contention {
                    let filter = format!("{} == {:#x}", field.name, own.wrapping_add(*offset));
                    events.push(LockSource { format, filter, ends_hold: false });
                }
                events
            }
            LockFormats::Probes(probes) => {
                let all = probes.all.iter().map(|probe| LockSource {
                    format: &probe.format,
                    filter: probe.filter.clone(),
                    ends_hold: probe.sign != Sign::Waits,
                });
                all.collect()
            }
        }
    }

    /// Whether acquisitions that waited can be told.
    pub(super) fn contention_known(&self) -> bool {
        match self {
            LockFormats::Tracepoints(t) => t.contention.is_some(),
            LockFormats::Probes(_) => true,
        }
    }

    fn seen(&self, id: u64, raw: &[u8], own: u64) -> Option<(u64, What)> {
        match self {
            LockFormats::Tracepoints(tracepoints) => tracepoints.seen(id, raw, own),
            LockFormats::Probes(probes) => {
                let probe = probes.all.iter().find(|probe| probe.format.id == id)?;
                Some((own, probed(probe.sign)))
            }
        }
    }
}

impl Formats {
    pub(super) fn read() -> Result<Formats, Unavailable> {
        let tracefs = Tracefs::find()?;
        let locks = LockFormats::read(&tracefs)?;
        // These fields are the same in every event.
        let any = match &locks {
            LockFormats::Tracepoints(tracepoints) => &tracepoints.acquired.format,
            LockFormats::Probes(probes) => &probes.all[0].format,
        };
        Ok(Formats {
            kind: any.field("common_type", 2)?.clone(),
            common_pid: any.field("common_pid", 4)?.clone(),
            locks,
            sched: SchedFormats::read(&tracefs).ok(),
            calls: CallFormats::read(&tracefs).ok(),
        })
    }

    /// The id, in the first namespace, of the thread that a record is of.
    pub(super) fn global_id(&self, sample: &Sample<'_>) -> Option<i32> {
        Some(self.common_pid.value(sample.raw)? as i32)
    }

    /// What a sample says, if it is one that is known; `mm` is this process's address space.
    pub(super) fn seen(&self, sample: &Sample<'_>, mm: u64) -> Option<Seen> {
        let (id, raw) = (self.kind.value(sample.raw)?, sample.raw);
        if let Some((mm, what)) = self.locks.seen(id, raw, mm) {
            let event = LockEvent { time: sample.time, tid: sample.tid, mm, what };
            return Some(Seen::Lock(event, registers::within(sample.registers)));
        }
        if let Some(calls) = &self.calls {
            if id == calls.enter.id {
                let number = calls.enter_id.value(raw)? as i64;
                let word =
                    |at: usize| Some(u64::from_ne_bytes(raw.get(at..at + 8)?.try_into().ok()?));
                let (first, second) = (word(calls.args)?, word(calls.args + 8)?);
                let name = syscalls::name(number, second);
                return Some(Seen::Enter(name, Arguments { first, second }));
            }
            if id == calls.exit.id {
                return Some(Seen::Exit);
            }
        }
        if let Some(sched) = &self.sched {
            if id == sched.switch.id {
                let state = sched.prev_state.value(raw)?;
                let next = sched.next_pid.value(raw)? as i32;
                return Some(match sample.tid {
                    NO_TID => Seen::Gone { global: self.global_id(sample)?, state, next },
                    _ => Seen::Switch { state, next },
                });
            }
            if id == sched.waking.id {
                return Some(Seen::Wake(sched.woken.value(raw)? as i32));
            }
        }
        None
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
    let tracepoints = LockTracepoints::read(&Tracefs::find().ok()?).ok()?;
    let mm = own_mm(&tracepoints).ok()?;
    let (format, field, offset) = tracepoints.contention?;
    let filter = format!("{} == {:#x}", field.name, mm.wrapping_add(offset));
    Some((format, filter))
}

/// What the kernel calls the address space of this process in its events: learnt from an event that
/// this thread causes.
fn own_mm(formats: &LockTracepoints) -> Result<u64, Unavailable> {
    let mode = Mode::Record { callchain: false, names: false, registers: false, wakeup_bytes: 1 };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_where_its_lock_lies() {
        let Some((_, filter)) = own_contention() else {
            println!("skipped: no type information, no contention event, or no right to use them");
            return;
        };
        assert!(filter.starts_with("lock_addr == 0xffff"), "{filter}");
    }
}
