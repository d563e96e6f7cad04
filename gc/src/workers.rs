//! The collector's threads: `GcWorker-1` and up. The coordinating thread works along as worker 0.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Worker {
    /// `None` ends the thread.
    jobs: Sender<Option<Job<'static>>>,
    done: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Threads that run the same job together.
pub struct Workers(Vec<Worker>);

impl Workers {
    /// Starts `count - 1` threads; `set_up` runs first on each.
    pub fn new(
        count: usize,
        set_up: impl Fn() + Send + Clone + 'static,
    ) -> std::io::Result<Workers> {
        let start = |index: usize| {
            let (jobs, inbox) = channel::<Option<Job<'static>>>();
            let (outbox, done) = channel();
            let set_up = set_up.clone();
            let thread =
                std::thread::Builder::new().name(format!("GcWorker-{index}")).spawn(move || {
                    set_up();
                    while let Ok(Some(job)) = inbox.recv() {
                        // A collector thread that panics leaves the heap half moved: nothing can go on.
                        let result =
                            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index)));
                        if result.is_err() {
                            std::process::abort();
                        }
                        let _ = outbox.send(());
                    }
                })?;
            Ok(Worker { jobs, done: Mutex::new(done), thread: Some(thread) })
        };
        Ok(Workers((1..count).map(start).collect::<std::io::Result<_>>()?))
    }

    /// Number of workers, the caller included.
    pub fn count(&self) -> usize {
        self.0.len() + 1
    }

    /// Runs `job(worker)` on all workers at once, on the calling thread as worker 0; returns when all are
    /// done.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        // SAFETY: the loop below waits for every worker to be done before this function returns, so the
        // job outlives its use. The calling thread cannot unwind in between: a panic aborts.
        let forever = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        for worker in &self.0 {
            worker.jobs.send(Some(forever)).expect("a worker lives as long as the pool");
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(0)));
        if result.is_err() {
            std::process::abort();
        }
        for worker in &self.0 {
            worker.done.lock().unwrap().recv().expect("a worker lives as long as the pool");
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            let _ = worker.jobs.send(None);
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}
