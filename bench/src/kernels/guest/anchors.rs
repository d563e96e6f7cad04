//! Tracepoints that stay switched on from before the command to the end of the guest.
//!
//! Switching a tracepoint on or off rewrites the kernel's code while it runs: an `int3` in the place of an
//! instruction, for a moment. Multi-threaded TCG of qemu before 8.1 can go on executing such an `int3` after
//! the kernel has taken it away, if another virtual processor translates the page at that moment, and the
//! kernel then panics over a trap that nobody set. So the code is rewritten once, here, while the guest is
//! idle: an event that counts nothing of interest is opened on each tracepoint that commands use, and none of
//! their own openings rewrites anything.
//!
//! It is done under every accelerator, so that guests are alike. The cost is that of an enabled tracepoint
//! without a listener.

use crate::perf::event::{Event, Mode, Target};
use crate::perf::tracefs::Tracefs;

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

/// Opens them; whoever holds the result keeps them on. What this kernel does not have is left out.
pub(super) fn drop_anchors() -> Vec<Event> {
    let Ok(tracefs) = Tracefs::find() else { return Vec::new() };
    let open = |(system, name)| {
        let format = tracefs.event(system, name, "").ok()?;
        let event = |target| Event::open(&format, target, Mode::Count, None, "").ok();
        // Events on a thread switch on more than events on a processor.
        Some([event(Target::Cpu(0)), event(Target::Thread(0))])
    };
    TRACEPOINTS.into_iter().filter_map(open).flatten().flatten().collect()
}
