//! `mmap_lock` on a kernel without its tracepoints (before 5.11): probes on the functions that take any
//! reader-writer semaphore, narrowed down to one semaphore by its address.
//!
//! There the lock's wrappers are inlined, so what can be probed is `down_read` and its family, with the
//! semaphore's address as argument. The address of ours is learnt: mapping memory takes it for writing with
//! a function that nothing else in that call uses, and a recorded probe shows the argument.
//!
//! Less is seen than through tracepoints. Only our own address space's lock is counted, so `fork` shows one
//! lock and not the child's. An attempt that fails and is then made by waiting counts twice, which matters
//! under contention only. And there is nothing to measure a wait by.
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

/// Functions that take a semaphore for reading.
const READ: [&str; 3] = ["down_read", "down_read_killable", "down_read_trylock"];
/// Functions that take one for writing.
const WRITE: [&str; 3] = ["down_write", "down_write_killable", "down_write_trylock"];
/// The one that turns writing into reading.
const DOWNGRADE: [&str; 1] = ["downgrade_write"];
/// What `mmap` takes the lock with, and takes nothing else with.
const TELLTALE: &str = "down_write_killable";
/// The first argument of a function, as probes name it.
#[cfg(target_arch = "x86_64")]
const FIRST_ARGUMENT: &str = "%di";
#[cfg(target_arch = "aarch64")]
const FIRST_ARGUMENT: &str = "%x0";

const NEEDS: &str =
    "root, and a kernel with CONFIG_KPROBE_EVENTS (or Linux 5.11, which needs no probes)";

/// Installed probes; taken away when dropped.
#[derive(Debug)]
pub struct Probes {
    control: PathBuf,
    group: String,
    /// Probes of acquisitions for reading.
    pub read: Vec<Format>,
    /// Probes of acquisitions for writing.
    pub write: Vec<Format>,
    /// The probe of downgrades.
    pub downgrade: Vec<Format>,
    /// The filter that leaves our own lock.
    pub filter: String,
}

impl Probes {
    /// Installs them, and finds our lock's address.
    ///
    /// # Errors
    /// [`Unavailable`] without root or without probes.
    pub fn install() -> Result<Probes, Unavailable> {
        // Relaxed: only the numbers' distinctness matters.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tracefs = Tracefs::find()?;
        let control = tracefs.control("kprobe_events");
        let group = format!("firn_{}_{number}", std::process::id());
        let mut probes = Probes {
            control,
            group,
            read: Vec::new(),
            write: Vec::new(),
            downgrade: Vec::new(),
            filter: String::new(),
        };
        for function in READ.iter().chain(&WRITE).chain(&DOWNGRADE) {
            let group = &probes.group;
            probes.tell(&format!("p:{group}/{function} {function} lock={FIRST_ARGUMENT}:x64"))?;
        }
        let formats = |functions: &[&str]| -> Result<Vec<Format>, Unavailable> {
            functions.iter().map(|name| tracefs.event(&probes.group, name, NEEDS)).collect()
        };
        (probes.read, probes.write, probes.downgrade) =
            (formats(&READ)?, formats(&WRITE)?, formats(&DOWNGRADE)?);
        let telltale = WRITE.iter().position(|name| *name == TELLTALE).unwrap_or_default();
        let address = own_lock(&probes.write[telltale])?;
        probes.filter = format!("lock == {address:#x}");
        Ok(probes)
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
        for function in READ.iter().chain(&WRITE).chain(&DOWNGRADE) {
            let name = format!("{}/{function}", self.group);
            if installed.contains(&name) {
                // Of a probe that is in use still: events are closed before.
                let _ = self.tell(&format!("-:{name}"));
            }
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
