//! `mmap_lock` on a kernel without its tracepoints (before 5.11): probes on the functions that take any
//! reader-writer semaphore, narrowed down to one semaphore by its address.
//!
//! There the lock's wrappers are inlined, so what can be probed is `down_read` and its family, with the
//! semaphore's address as argument. The address of ours is learnt: mapping memory takes it for writing with
//! a function that nothing else in that call uses, and a recorded probe shows the argument.
//!
//! For a count, their calls are enough ([`Probes::counting`]). For waits and holds ([`Probes::recording`]) there
//! are also probes on the functions that give it back, on the slow paths that a thread comes into when the lock is taken, and on
//! the way out of these: they return the semaphore, so that these records too can be narrowed down to ours.
//!
//! Less is seen than through tracepoints. Only our own address space's lock is seen, so `fork` shows one
//! lock and not the child's. An attempt that fails and is then made by waiting counts twice in a count, which matters
//! under contention only. What a thread does between the call and the slow path (a few instructions, and a yield to
//! others where the kernel is not preemptible) is taken for holding the lock, if it then gets it without waiting.
//!
//! The probes are the kernel's, not the process's: they are named after the process and taken away when
//! this is dropped.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use firn_heap::sys::{Errno, Reservation, page_size};

use super::Unavailable;
use super::event::{Event, Mode, Target};
use super::record::{self, Record};
use super::ring::Ring;
use super::tracefs::{Format, Tracefs};

/// What a probe's record says of the semaphore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A function that takes it is called.
    Entered {
        /// For writing.
        write: bool,
        /// The function does not wait.
        tries: bool,
    },
    /// It is taken: the caller waits.
    Waits,
    /// The wait has ended, and the caller has it.
    Through {
        /// For writing.
        write: bool,
    },
    /// Writing turns into reading.
    Downgraded,
    /// It is given back.
    Released {
        /// It was held for writing.
        write: bool,
    },
}

const READ: Sign = Sign::Entered { write: false, tries: false };
const WRITE: Sign = Sign::Entered { write: true, tries: false };

/// What counting needs: functions, and what a call of them says.
const CALLS: [(&str, Sign); 7] = [
    ("down_read", READ),
    ("down_read_killable", READ),
    ("down_read_trylock", Sign::Entered { write: false, tries: true }),
    ("down_write", WRITE),
    ("down_write_killable", WRITE),
    ("down_write_trylock", Sign::Entered { write: true, tries: true }),
    ("downgrade_write", Sign::Downgraded),
];
/// What recording needs besides.
const MORE_CALLS: [(&str, Sign); 4] = [
    ("up_read", Sign::Released { write: false }),
    ("up_write", Sign::Released { write: true }),
    ("rwsem_down_read_slowpath", Sign::Waits),
    ("rwsem_down_write_slowpath", Sign::Waits),
];
/// Functions whose return is looked at. They return the semaphore, or an error if the caller was killed.
const RETURNS: [(&str, Sign); 2] = [
    ("rwsem_down_read_slowpath", Sign::Through { write: false }),
    ("rwsem_down_write_slowpath", Sign::Through { write: true }),
];
/// Threads that may be inside a function whose return is looked at, at a time; more are not seen to return.
const INSIDE: usize = 4096;
/// What `mmap` takes the lock with, and takes nothing else with.
const TELLTALE: &str = "down_write_killable";
/// The first argument of a function, as probes name it.
#[cfg(target_arch = "x86_64")]
const FIRST_ARGUMENT: &str = "%di";
#[cfg(target_arch = "aarch64")]
const FIRST_ARGUMENT: &str = "%x0";

const NEEDS: &str =
    "root, and a kernel with CONFIG_KPROBE_EVENTS (or Linux 5.11, which needs no probes)";

/// One of the probes.
#[derive(Debug)]
pub struct Probe {
    /// Its event.
    pub format: Format,
    /// What a record of it says.
    pub sign: Sign,
    /// The filter that leaves our own lock.
    pub filter: String,
}

/// Installed probes; taken away when dropped.
#[derive(Debug)]
pub struct Probes {
    control: PathBuf,
    group: String,
    /// All of them.
    pub all: Vec<Probe>,
    /// Our own lock's address.
    pub lock: u64,
}

impl Probes {
    /// Installs what a count needs, and finds our lock's address.
    ///
    /// # Errors
    /// [`Unavailable`] without root or without probes.
    pub fn counting() -> Result<Probes, Unavailable> {
        Probes::install(&CALLS, &[])
    }

    /// Installs what a recording of waits and holds needs, and finds our lock's address.
    ///
    /// # Errors
    /// [`Unavailable`] without root or without probes.
    pub fn recording() -> Result<Probes, Unavailable> {
        let calls: Vec<_> = CALLS.into_iter().chain(MORE_CALLS).collect();
        Probes::install(&calls, &RETURNS)
    }

    fn install(calls: &[(&str, Sign)], returns: &[(&str, Sign)]) -> Result<Probes, Unavailable> {
        // Relaxed: only the numbers' distinctness matters.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tracefs = Tracefs::find()?;
        let control = tracefs.control("kprobe_events");
        let group = format!("firn_{}_{number}", std::process::id());
        let mut probes = Probes { control, group, all: Vec::new(), lock: 0 };
        for &(function, sign) in calls {
            let line =
                format!("p:{}/{function} {function} lock={FIRST_ARGUMENT}:x64", probes.group);
            probes.add(&tracefs, &line, function, sign)?;
        }
        for &(function, sign) in returns {
            let name = format!("{function}_returns");
            let line = format!("r{INSIDE}:{}/{name} {function} lock=$retval:x64", probes.group);
            probes.add(&tracefs, &line, &name, sign)?;
        }
        let of_telltale = |probe: &&Probe| probe.format.event.ends_with(TELLTALE);
        let telltale = probes.all.iter().find(of_telltale).expect("it is among the calls");
        probes.lock = own_lock(&telltale.format)?;
        for probe in &mut probes.all {
            probe.filter = format!("lock == {:#x}", probes.lock);
        }
        Ok(probes)
    }

    fn add(
        &mut self,
        tracefs: &Tracefs,
        line: &str,
        name: &str,
        sign: Sign,
    ) -> Result<(), Unavailable> {
        self.tell(line)?;
        let format = tracefs.event(&self.group, name, NEEDS)?;
        self.all.push(Probe { format, sign, filter: String::new() });
        Ok(())
    }

    /// Those whose sign fulfils a condition.
    pub fn of(&self, wanted: impl Fn(Sign) -> bool) -> Vec<&Probe> {
        self.all.iter().filter(|probe| wanted(probe.sign)).collect()
    }

    fn tell(&self, line: &str) -> Result<(), Unavailable> {
        let written = OpenOptions::new()
            .append(true)
            .open(&self.control)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Unavailable::NoEvent { event: "kprobe_events".to_owned(), needs: NEEDS }
            }
            _ => Unavailable::Unreadable { path: self.control.clone(), error },
        })
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let installed = fs::read_to_string(&self.control).unwrap_or_default();
        let ours = format!(":{}/", self.group);
        // As `p:group/name function …`.
        let names = installed.lines().filter_map(|line| {
            let name = &line[line.find(&ours)? + 1..];
            name.split_whitespace().next()
        });
        for name in names {
            // Of a probe that is in use still: events are closed before.
            let _ = self.tell(&format!("-:{name}"));
        }
    }
}

/// The address of our own `mmap_lock`: the one that mapping memory takes for writing.
fn own_lock(telltale: &Format) -> Result<u64, Unavailable> {
    const RING_BYTES: usize = 1 << 16;
    const MAPPINGS: usize = 4;
    let field = telltale.field("lock", 8)?.clone();
    let mode = Mode::Record { callchain: false, names: false, registers: false, wakeup_bytes: 1 };
    let event = Event::open(telltale, Target::Thread(0), mode, None, "")?;
    let mut ring = Ring::new(&event, RING_BYTES)?;
    event.enable_group()?;
    for _ in 0..MAPPINGS {
        let mapped = Reservation::anonymous(page_size(), page_size(), "firn: lock")
            .map_err(|_| event.failed("mmap", Errno::ENOMEM))?;
        drop(mapped);
    }
    event.disable_group()?;
    let mut seen = Vec::new();
    ring.drain(|bytes| {
        if let Some(Record::Sample(sample)) = record::parse(bytes, false)
            && let Some(lock) = field.value(sample.raw)
        {
            seen.push(lock);
        }
    });
    match seen.first() {
        Some(&lock) if seen.len() >= MAPPINGS && seen.iter().all(|&other| other == lock) => {
            Ok(lock)
        }
        _ => Err(Unavailable::Format {
            event: telltale.event.clone(),
            what: format!("mapping memory took {} different locks with it", seen.len()),
        }),
    }
}
