//! The collector's threads: `GcWorker-1` and up. The coordinating thread works along as worker 0.
//!
//! Jobs are given out in the middle of a cycle, where nothing must be allocated: there is one job at a time, in a place
//! of its own, and no channel (which allocates in the first thread that waits at it).

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// What the workers are to do.
#[derive(Default)]
struct Orders {
    /// Jobs that have been given out.
    number: u64,
    /// The last of them.
    job: Option<Job<'static>>,
    /// Workers that have not ended it.
    working: usize,
    /// The threads are to end.
    ending: bool,
}

#[derive(Default)]
struct Desk {
    orders: Mutex<Orders>,
    /// Workers wait here, for a job.
    given: Condvar,
    /// Who gave the job waits here.
    done: Condvar,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("nobody panics with the orders")
    }

    /// A worker's life.
    fn work(&self, worker: usize) {
        let mut seen = 0;
        loop {
            let wait = |orders: &mut Orders| orders.number == seen && !orders.ending;
            let orders = self.given.wait_while(self.lock(), wait);
            let orders = orders.expect("nobody panics with the orders");
            let (Some(job), false) = (orders.job, orders.ending) else { return };
            seen = orders.number;
            drop(orders);
            run_or_abort(|| job(worker));
            let mut orders = self.lock();
            orders.working -= 1;
            if orders.working == 0 {
                self.done.notify_one();
            }
        }
    }
}

/// A collector thread that panics leaves the heap half moved: nothing can go on.
fn run_or_abort(part: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(part));
    if result.is_err() {
        std::process::abort();
    }
}

/// Threads that run the same job together.
pub struct Workers {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count - 1` threads; `set_up` runs first on each.
    pub fn new(
        count: usize,
        set_up: impl Fn() + Send + Clone + 'static,
    ) -> std::io::Result<Workers> {
        let mut workers = Workers { desk: Arc::default(), threads: Vec::new() };
        for worker in 1..count {
            let (desk, set_up) = (workers.desk.clone(), set_up.clone());
            let thread = std::thread::Builder::new().name(format!("GcWorker-{worker}"));
            workers.threads.push(thread.spawn(move || {
                run_or_abort(set_up);
                desk.work(worker);
            })?);
        }
        Ok(workers)
    }

    /// Number of workers, the caller included.
    pub fn count(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs `job(worker)` on all workers at once, on the calling thread as worker 0; returns when all are
    /// done. One thread at a time may call this.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.threads.is_empty() {
            return run_or_abort(|| job(0));
        }
        // SAFETY: this function returns only when every worker has ended the job, so that outlives its use. The
        // calling thread cannot unwind in between: a panic in the job aborts, and nobody panics with the orders.
        let forever = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        let mut orders = self.desk.lock();
        assert_eq!(orders.working, 0, "one job at a time");
        orders.number += 1;
        orders.job = Some(forever);
        orders.working = self.threads.len();
        drop(orders);
        self.desk.given.notify_all();
        run_or_abort(|| job(0));
        let orders = self.desk.done.wait_while(self.desk.lock(), |orders| orders.working > 0);
        orders.expect("nobody panics with the orders").job = None;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.desk.lock().ending = true;
        self.desk.given.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
