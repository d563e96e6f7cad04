//! What the threads of a run share, and how each logs its operations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use firn_heap::sys::thread::{self, Policy};

use crate::clock;
use crate::measure::latency::Recorder;
use crate::measure::notes::{Notes, Slow};
use crate::perf::Window;

/// Shared by all threads of a run.
#[derive(Debug)]
pub struct Stage {
    /// What counts.
    pub window: Arc<Window>,
    /// What threads tell of themselves.
    pub notes: Arc<Notes>,
    /// The seed.
    pub seed: u64,
    over: AtomicBool,
    arrived: AtomicUsize,
    logs: Mutex<BTreeMap<(String, &'static str), Logged>>,
    trouble: Mutex<Vec<String>>,
}

/// The operations of one name of one role, all its threads together.
#[derive(Debug, Clone, Default)]
pub struct Logged {
    /// In the window.
    pub recorder: Recorder,
}

impl Stage {
    /// A stage on which nothing has happened.
    pub fn new(window: Arc<Window>, notes: Arc<Notes>, seed: u64) -> Stage {
        Stage {
            window,
            notes,
            seed,
            over: AtomicBool::new(false),
            arrived: AtomicUsize::new(0),
            logs: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// Whether threads are to end.
    #[inline]
    pub fn over(&self) -> bool {
        // Relaxed: it publishes nothing else.
        self.over.load(Ordering::Relaxed)
    }

    /// The calling thread has prepared what it needs.
    pub fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have.
    pub fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Threads are to end.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// A thread could not do its part: the run goes on without it and says so.
    pub fn trouble(&self, what: String) {
        let mut all = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&what) && all.len() < 20 {
            all.push(what);
        }
    }

    /// What could not be done.
    pub fn troubles(&self) -> Vec<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All logs by role and operation.
    pub fn logs(&self) -> BTreeMap<(String, &'static str), Logged> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A log of operations called `what`, for the calling thread.
    pub fn log(&self, what: &'static str) -> Log<'_> {
        // A live view is told of the mutators' work, not of what is done to them.
        let slow = match what {
            "operation" => Slow::shown(what, &self.window),
            _ => Slow::new(what),
        };
        Log { stage: self, what, recorder: Recorder::new(), slow }
    }
}

/// One thread's operations of one name; handed over when dropped.
#[derive(Debug)]
pub struct Log<'a> {
    stage: &'a Stage,
    what: &'static str,
    recorder: Recorder,
    slow: Slow,
}

impl Log<'_> {
    /// An operation lasted from `begin` to `end`.
    #[inline]
    pub fn add(&mut self, begin: u64, end: u64) {
        let window = self.stage.window.get();
        if begin >= window.0 && end <= window.1 {
            self.recorder.record(end - begin);
            self.slow.offer(begin, end);
        }
    }

    /// Runs and logs an operation.
    #[inline]
    pub fn time<R>(&mut self, operation: impl FnOnce() -> R) -> R {
        let begin = clock::now();
        let result = operation();
        self.add(begin, clock::now());
        result
    }
}

impl Drop for Log<'_> {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let role = crate::perf::sampler::role(&name).to_owned();
        let mut logs = self.stage.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.entry((role, self.what)).or_default().recorder.merge(&self.recorder);
        drop(logs);
        self.stage.notes.slow(std::mem::replace(&mut self.slow, Slow::new(self.what)));
    }
}

/// How a thread is to be scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scheduling {
    /// Nice value, if not the usual.
    pub nice: Option<i32>,
    /// Class, if not the usual.
    pub policy: Option<Policy>,
}

impl Scheduling {
    /// Applies it to the calling thread; a refusal is a line for the report.
    pub fn apply(self, stage: &Stage, role: &str) {
        if let Some(nice) = self.nice
            && let Err(e) = thread::set_nice(0, nice)
        {
            stage.trouble(format!(
                "{role}: nice {nice} was refused ({e}): it needs root or RLIMIT_NICE; skipped"
            ));
        }
        if let Some(policy) = self.policy
            && let Err(e) = thread::set_scheduler(policy)
        {
            stage.trouble(format!(
                "{role}: {policy:?} was refused ({e}): it needs root or RLIMIT_RTPRIO; skipped"
            ));
        }
    }

    /// As reports have it.
    pub fn label(self) -> String {
        let nice = self.nice.map(|n| format!("nice {n}"));
        let policy = self.policy.map(|p| format!("{p:?}"));
        nice.into_iter().chain(policy).collect::<Vec<_>>().join(", ")
    }
}
