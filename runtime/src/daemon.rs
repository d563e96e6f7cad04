//! The `HeapTaskDaemon`: the thread that collects, as in ART.
//!
//! A queue of tasks ordered by the time they are due. Requests for a collection carry the number of the cycle
//! they want to see completed: whatever asks while such a cycle is already on its way asks for nothing new.
//! The thread's name is part of the interface; its nice value, scheduling class and processors are options.
//!
//! Mutators reach it by a bounded channel that needs no allocation when used.

use crate::Options;
use crate::policy::Policy;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use firn_gc::core::{Core, CoreError};
use firn_gc::cycle::Collector;
use firn_gc::events::{Cause, CycleSummary};
use firn_gc::fault::FAULT_SIGNALS;
use firn_gc::floor::Floors;
use firn_heap::sys::signal::Unblocked;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long after a cycle free memory goes back to the kernel.
const TRIM_AFTER: Duration = Duration::from_secs(5);

/// What the daemon can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    /// A cycle, unless one that started later than the request's has been completed.
    Collect { cause: Cause, wanted: u64 },
    /// Give free pages beyond the target back.
    Trim,
    /// The program went to the background (true) or came back.
    Transition(bool),
    /// Measure the floors of what is in the heap.
    Floors,
    /// End.
    Stop,
}

/// A task and when it is due; ordered so that the earliest is the greatest.
struct Due(Instant, u64, Task);

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

#[derive(Default)]
struct Progress {
    completed: u64,
    last: Option<CycleSummary>,
    floors: Option<Result<Floors, String>>,
    ended: bool,
}

struct Shared {
    core: Arc<Core>,
    /// Cycles that have begun.
    begun: AtomicU64,
    /// The highest cycle number asked for.
    wanted: AtomicU64,
    /// As `wanted`, of collections of last resort.
    wanted_last_resort: AtomicU64,
    background: AtomicBool,
    /// The daemon is to end, although there may be more in its queue.
    stopping: AtomicBool,
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// A handle on the daemon.
pub(crate) struct Daemon {
    tasks: Sender<Task>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    refused: Arc<Mutex<Vec<String>>>,
    /// The process that has the threads.
    process: u32,
}

impl Daemon {
    /// Starts the daemon, its workers, and the fault thread if there is to be one.
    pub(crate) fn start(core: Arc<Core>, options: &Options) -> Result<Daemon, CoreError> {
        let (tasks, inbox) = bounded(256);
        let shared = Arc::new(Shared {
            core: core.clone(),
            begun: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            wanted_last_resort: AtomicU64::new(0),
            background: AtomicBool::new(options.background),
            stopping: AtomicBool::new(false),
            progress: Mutex::default(),
            changed: Condvar::new(),
        });
        let refused = Arc::new(Mutex::new(Vec::new()));
        let schedule = {
            let (options, refused) = (options.clone(), refused.clone());
            move || {
                // For as long as the thread lives: who made the heap may have blocked all signals.
                std::mem::forget(Unblocked::new(&FAULT_SIGNALS));
                *refused.lock().unwrap() = options.schedule();
            }
        };
        let collector = Collector::new(core.clone(), schedule.clone())?;
        let mut policy = Policy::new(options);
        apply(&core, policy.initial(options.background), options, false);
        let mut threads = Vec::new();
        let (ready, started) = bounded(1);
        let body = {
            let (shared, options) = (shared.clone(), options.clone());
            move || {
                schedule();
                let _ = ready.send(());
                let queue = BinaryHeap::new();
                let work =
                    Loop { collector, shared, policy, options, queue, serial: 0, ahead: false };
                // A cycle that ends half-way leaves every thread that needs the heap waiting for ever; the
                // panic's message is out.
                if catch_unwind(AssertUnwindSafe(|| work.run(&inbox))).is_err() {
                    std::process::abort();
                }
            }
        };
        threads.push(spawn("HeapTaskDaemon", body)?);
        // The scheduling notes are complete before anyone asks for them.
        let _ = started.recv();
        if let Some(installer) = core.backend.installer()
            && !installer.uffd.is_sigbus()
        {
            let core = core.clone();
            threads.push(spawn("FaultThread", move || core.serve_descriptor())?);
        }
        if options.concurrent {
            // Weak: the daemon's state holds the core, and the core holds the trigger.
            let (tasks, shared) = (tasks.clone(), Arc::downgrade(&shared));
            core.set_trigger(Box::new(move || {
                if let Some(shared) = shared.upgrade() {
                    request(&tasks, &shared, Cause::Threshold);
                }
            }));
        }
        let process = std::process::id();
        Ok(Daemon { tasks, shared, threads: Mutex::new(threads), refused, process })
    }

    /// Remarks on scheduling that was refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    /// Asks for a cycle without waiting; returns the number of the cycle that will satisfy it.
    pub(crate) fn request(&self, cause: Cause) -> u64 {
        request(&self.tasks, &self.shared, cause)
    }

    /// Collects: waits for a cycle that begins after this call. The caller must not be a running mutator.
    pub(crate) fn collect(&self, cause: Cause) -> CycleSummary {
        let wanted = self.request(cause);
        let mut progress = self.shared.progress.lock().unwrap();
        while progress.completed < wanted && !progress.ended {
            progress = self.shared.changed.wait(progress).unwrap();
        }
        progress.last.expect("a cycle was completed")
    }

    /// Cycles completed.
    pub(crate) fn completed(&self) -> u64 {
        self.shared.progress.lock().unwrap().completed
    }

    /// The last cycle's summary.
    pub(crate) fn last(&self) -> Option<CycleSummary> {
        self.shared.progress.lock().unwrap().last
    }

    /// The program goes to the background, or comes back.
    pub(crate) fn transition(&self, background: bool) {
        let _ = self.tasks.send(Task::Transition(background));
    }

    /// Measures the floors; the caller must not be a running mutator.
    pub(crate) fn floors(&self) -> Result<Floors, String> {
        self.shared.progress.lock().unwrap().floors = None;
        let _ = self.tasks.send(Task::Floors);
        let mut progress = self.shared.progress.lock().unwrap();
        while progress.floors.is_none() && !progress.ended {
            progress = self.shared.changed.wait(progress).unwrap();
        }
        progress.floors.clone().unwrap_or_else(|| Err("the daemon has ended".into()))
    }

    /// Ends the daemon.
    pub(crate) fn stop(&self) {
        let mut threads = self.threads.lock().unwrap();
        if self.process != std::process::id() {
            // A fork: none of the threads is here.
            std::mem::forget(std::mem::take(&mut *threads));
            return;
        }
        // SeqCst: the daemon looks at it when it has received anything.
        self.shared.stopping.store(true, Ordering::SeqCst);
        // A full queue has something for it to receive, and this may be the daemon itself (a listener there may drop the
        // last handle), which must not wait for room.
        let _ = self.tasks.try_send(Task::Stop);
        let here = std::thread::current().id();
        if let Some(installer) = self.shared.core.backend.installer() {
            installer.uffd.interrupt();
        }
        for thread in threads.drain(..) {
            if thread.thread().id() != here {
                let _ = thread.join();
            }
        }
    }
}

fn request(tasks: &Sender<Task>, shared: &Shared, cause: Cause) -> u64 {
    // SeqCst: a cycle that begins after this reads everything the caller did before.
    let wanted = shared.begun.load(Ordering::SeqCst) + 1;
    if cause == Cause::Threshold {
        // The caller is a running mutator, for which the daemon may be waiting: it must not wait for room in the
        // queue. A full queue has collections in it.
        if shared.wanted.load(Ordering::SeqCst) < wanted
            && tasks.try_send(Task::Collect { cause, wanted }).is_ok()
        {
            shared.wanted.fetch_max(wanted, Ordering::SeqCst);
        }
        return wanted;
    }
    let mut before = shared.wanted.fetch_max(wanted, Ordering::SeqCst);
    if cause == Cause::LastResort {
        // Said once for each cycle too: a thread that waits for memory asks at each wake-up.
        before = shared.wanted_last_resort.fetch_max(wanted, Ordering::SeqCst);
    }
    if before < wanted {
        let _ = tasks.send(Task::Collect { cause, wanted });
    }
    wanted
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, CoreError> {
    let start = std::thread::Builder::new().name(name.into()).spawn(body);
    start.map_err(|error| CoreError::Unsupported(format!("cannot start {name}: {error}")))
}

fn apply(core: &Core, decision: crate::policy::Decision, options: &Options, release: bool) {
    let page = core.space.geometry.page;
    // Relaxed: a threshold.
    core.start_at.store((decision.start_at / page).max(1), Ordering::Relaxed);
    if release && options.trim {
        let over = core.space.committed().saturating_sub(decision.keep.div_ceil(page));
        core.give_up(over);
    }
}

/// The daemon's own state.
struct Loop {
    collector: Collector,
    shared: Arc<Shared>,
    policy: Policy,
    options: Options,
    queue: BinaryHeap<Due>,
    serial: u64,
    /// A cycle has ended: chunks can be made ready for what is allocated next.
    ahead: bool,
}

impl Loop {
    fn run(mut self, inbox: &Receiver<Task>) {
        loop {
            let next = match self.queue.peek() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => inbox.recv_deadline(due.0),
            };
            if self.shared.stopping.load(Ordering::SeqCst) {
                break;
            }
            match next {
                Ok(Task::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(task) => self.enqueue(Instant::now(), task),
                Err(RecvTimeoutError::Timeout) => {}
            }
            while self.queue.peek().is_some_and(|due| due.0 <= Instant::now()) {
                let Some(Due(_, _, task)) = self.queue.pop() else { break };
                self.perform(task);
            }
            if self.ahead {
                self.shared.core.make_ready(usize::MAX, || !inbox.is_empty());
                self.ahead = false;
            }
        }
        self.shared.progress.lock().unwrap().ended = true;
        self.shared.changed.notify_all();
    }

    fn enqueue(&mut self, at: Instant, task: Task) {
        self.serial += 1;
        self.queue.push(Due(at, self.serial, task));
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Collect { cause, wanted } => {
                let done = self.shared.progress.lock().unwrap().completed;
                if done < wanted || cause == Cause::LastResort {
                    self.collect(cause);
                }
            }
            Task::Trim => {
                let core = &self.shared.core;
                let limit = core.space.geometry.limit_pages;
                let committed = core.space.committed();
                let spare = committed.saturating_sub(core.in_use());
                core.release(committed.saturating_sub(limit).max(spare / 2));
            }
            Task::Transition(background) => {
                self.shared.background.store(background, Ordering::Relaxed);
                if background {
                    self.collect(Cause::Background);
                    let core = &self.shared.core;
                    core.release(usize::MAX);
                }
            }
            Task::Floors => {
                let floors = self.collector.floors().map_err(|error| error.to_string());
                self.shared.progress.lock().unwrap().floors = Some(floors);
                self.shared.changed.notify_all();
            }
            Task::Stop => {}
        }
    }

    fn collect(&mut self, cause: Cause) {
        let core = self.shared.core.clone();
        // SeqCst: pairs with `request`.
        self.shared.begun.fetch_add(1, Ordering::SeqCst);
        let before = core.allocated_bytes.load(Ordering::Relaxed);
        let summary = self.collector.collect(cause);
        let allocated = core.allocated_bytes.load(Ordering::Relaxed) - before;
        let background = self.shared.background.load(Ordering::Relaxed);
        let decision = self.policy.after(&summary, allocated as usize, background);
        apply(&core, decision, &self.options, true);
        if self.options.trim {
            self.queue.retain(|due| due.2 != Task::Trim);
            self.enqueue(Instant::now() + TRIM_AFTER, Task::Trim);
        }
        let mut progress = self.shared.progress.lock().unwrap();
        progress.completed += 1;
        progress.last = Some(summary);
        drop(progress);
        self.shared.changed.notify_all();
        core.memory_freed();
        // Who waits for memory after such a cycle may need all addresses that are left.
        self.ahead = !background && !matches!(cause, Cause::Allocation | Cause::LastResort);
    }
}
