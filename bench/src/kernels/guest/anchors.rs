//! Tracepoints that stay switched on from before the command to the end of the guest.
//!
//! Switching a tracepoint on or off rewrites the kernel's code while it runs: an `int3` in the place of an
//! instruction, for a moment. Multi-threaded TCG of qemu before 8.1 can go on executing such an `int3` after
//! the kernel has taken it away, if another virtual processor translates the page at that moment, and the
//! kernel then panics over a trap that nobody set. So the code is rewritten once, here, while the guest is
//! idle: an event that counts nothing of interest is opened on each tracepoint that commands use, and none of
//! their own openings rewrites anything.
//!
//! Probes are code that is rewritten, too, so a kernel that needs them for the lock has anchors on the same functions:
//! probes of commands join them. (Without, 5.10 jumped to address 0 at the entrance of `up_read` on both
//! processors, in the storm of `compact-vs-writers`, whose threads call it all the time.)
//!
//! It is done under every accelerator, so that guests are alike. The cost is that of an enabled tracepoint
//! without a listener.

use crate::perf::event::{Event, Mode, Target};
use crate::perf::kprobes::Probes;
use crate::perf::tracefs::{Format, Tracefs};

/// What the sampling layer records and counts.
const TRACEPOINTS: [(&str, &str); 10] = [
    ("mmap_lock", "mmap_lock_start_locking"),
    ("mmap_lock", "mmap_lock_acquire_returned"),
    ("mmap_lock", "mmap_lock_released"),
    ("lock", "contention_begin"),
    ("lock", "contention_end"),
    ("sched", "sched_switch"),
    ("sched", "sched_wakeup"),
    ("sched", "sched_waking"),
    ("raw_syscalls", "sys_enter"),
    ("raw_syscalls", "sys_exit"),
];

/// What keeps them on, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    // Before the probes that they are of.
    _events: Vec<Event>,
    _probes: Option<Probes>,
}

/// Opens them. What this kernel does not have is left out.
pub(super) fn drop_anchors() -> Anchors {
    let Ok(tracefs) = Tracefs::find() else { return Anchors::default() };
    // Events on a thread switch on more than events on a processor.
    let open = |format: &Format| {
        [Target::Cpu(0), Target::Thread(0)]
            .into_iter()
            .filter_map(|target| Event::open(format, target, Mode::Count, None, "").ok())
            .collect::<Vec<_>>()
    };
    let found = TRACEPOINTS.map(|(system, name)| tracefs.event(system, name, "").ok());
    let probes = if found[0].is_none() { Probes::recording().ok() } else { None };
    let probed = probes.iter().flat_map(|probes| &probes.all).map(|probe| &probe.format);
    let events = found.iter().flatten().chain(probed).flat_map(open).collect();
    Anchors { _events: events, _probes: probes }
}
