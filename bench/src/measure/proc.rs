//! Blocked time without tracing: what `/proc` says of each thread, read twenty times a second.
//!
//! `schedstat` has running time and run-queue delay exactly, also for users without privilege. With
//! `kernel.sched_schedstats=1` the file `sched` has uninterruptible sleep and its longest. What sleep was
//! for is not to be known here. A thread that begins within the window is counted from its beginning; one
//! that ends, until the last reading before.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::clock;
use crate::perf::Window;
use crate::perf::sampler::role;
use crate::schema::{BlockedThread, Source};

/// Time between two readings, nanoseconds.
const PERIOD: u64 = 50_000_000;

/// One reading of one thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reading {
    running: u64,
    queued: u64,
    preempted: u64,
    /// Uninterruptible sleep: sum and longest, nanoseconds.
    asleep: Option<(u64, u64)>,
}

impl Reading {
    fn of(task: &Path) -> Option<Reading> {
        let stat = fs::read_to_string(task.join("schedstat")).ok()?;
        let mut words = stat.split_whitespace().map(|w| w.parse::<u64>().ok());
        let (running, queued) = (words.next()??, words.next()??);
        let status = fs::read_to_string(task.join("status")).ok()?;
        let preempted = field(&status, "nonvoluntary_ctxt_switches").unwrap_or(0.0) as u64;
        let sched = fs::read_to_string(task.join("sched")).unwrap_or_default();
        let ms = |name| field(&sched, name).map(|ms: f64| (ms * 1e6) as u64);
        let asleep = ms("sum_block_runtime").zip(ms("block_max"));
        Some(Reading { running, queued, preempted, asleep })
    }
}

/// The number behind `name` and a colon, wherever blanks are; a prefix like `se.statistics.` may stand before.
fn field(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(key, _)| key.trim().rsplit('.').next() == Some(name))?.1;
    value.trim().parse().ok()
}

/// The first and the last reading within the window, by thread.
type Seen = HashMap<u32, (String, Reading, Reading)>;

/// The running reader.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Watch {
    /// Starts it; `None` if no thread can be started.
    pub fn start(window: Arc<Window>) -> Option<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let builder = std::thread::Builder::new().name("firn-proc".to_owned());
        let thread = builder.spawn(move || watch(&window, &seen)).ok()?;
        Some(Watch { stop, thread: Some(thread) })
    }

    /// Ends it and returns what was read.
    pub fn stop(mut self) -> Vec<BlockedThread> {
        // Relaxed: the join orders everything.
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once only, here");
        rows(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(window: &Window, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::new();
    let mut inside = false;
    loop {
        let now = clock::now();
        let (begin, end) = window.get();
        if now >= begin && now <= end {
            read(&mut seen, !inside);
            inside = true;
        }
        if stop.load(Ordering::Relaxed) {
            return seen;
        }
        clock::sleep_until(now + PERIOD);
    }
}

fn read(seen: &mut Seen, first: bool) {
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let Some(tid) = task.file_name().to_str().and_then(|s| s.parse().ok()) else { continue };
        let Some(now) = Reading::of(&task.path()) else { continue };
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let name = name.trim_end().to_owned();
        // What was not there at the first reading has begun since, from zero.
        let start = if first { now } else { Reading::default() };
        let entry = seen.entry(tid).or_insert_with(|| (String::new(), start, now));
        (entry.0, entry.2) = (name, now);
    }
}

fn rows(seen: Seen) -> Vec<BlockedThread> {
    let mut rows: Vec<_> = seen
        .into_iter()
        .map(|(tid, (name, from, to))| BlockedThread {
            tid,
            role: role(&name).to_owned(),
            name,
            source: if to.asleep.is_some() { Source::Schedstats } else { Source::Proc },
            uninterruptible_ns: to.asleep.map(|a| {
                let before = from.asleep.map_or(0, |b| b.0);
                a.0.saturating_sub(before)
            }),
            uninterruptible_count: None,
            uninterruptible_max_ns: to.asleep.map(|a| a.1),
            in_mmap_lock_ns: None,
            in_vma_lock_ns: None,
            in_userfault_ns: None,
            interruptible_ns: None,
            run_queue_ns: Some(to.queued.saturating_sub(from.queued)),
            run_queue_max_ns: None,
            running_ns: Some(to.running.saturating_sub(from.running)),
            preempted_count: Some(to.preempted.saturating_sub(from.preempted)),
            off_cpu_holding_ns: None,
        })
        .collect();
    rows.sort_by(|a, b| (&a.role, a.tid).cmp(&(&b.role, b.tid)));
    rows
}

#[cfg(test)]
mod tests {
    use firn_heap::sys::thread::thread_cpu_time_ns;

    use super::*;

    #[test]
    fn numbers_are_found_whatever_the_kernel_puts_before_their_names() {
        let text = "se.statistics.sum_block_runtime   :    12.500000\nblock_max : 3\n";
        assert_eq!(field(text, "sum_block_runtime"), Some(12.5));
        assert_eq!(field(text, "block_max"), Some(3.0));
        assert_eq!(field(text, "sum"), None);
    }

    #[test]
    fn a_thread_s_running_time_is_read_without_privilege() {
        let watch = Watch::start(Arc::new(Window::default())).unwrap();
        let busy = std::thread::Builder::new().name("Busy-1".into()).spawn(|| {
            while thread_cpu_time_ns() < 150_000_000 {}
            // The scheduler's statistics are brought up to date when a thread gives way.
            std::thread::yield_now();
            std::thread::sleep(std::time::Duration::from_millis(150));
        });
        busy.unwrap().join().unwrap();
        let rows = watch.stop();
        let busy = rows.iter().find(|r| r.role == "Busy").expect("seen");
        assert!(busy.running_ns.unwrap() >= 100_000_000, "{busy:?}");
        assert_ne!(busy.source, Source::Tracepoints);
    }
}
