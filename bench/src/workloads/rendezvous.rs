//! A barrier for mutator threads that a stop request opens: a thread that failed or was
//! interrupted never arrives, and the others must not wait for it for ever.
//!
//! Waiting belongs inside `Scope::blocking`, so that a collection can go on meanwhile.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::progress::Stop;

/// How often a waiting thread looks at the stop flag, which a signal raises without a wake-up.
const LOOK: Duration = Duration::from_millis(20);

/// A reusable barrier for a fixed number of threads.
#[derive(Debug)]
pub struct Rendezvous {
    threads: usize,
    state: Mutex<State>,
    met: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: usize,
    meeting: u64,
}

/// What [`Rendezvous::wait`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// All threads are here, and this one arrived last.
    Last,
    /// All threads are here.
    Met,
    /// The run is being stopped; not all threads will come.
    Stopped,
}

impl Rendezvous {
    /// A barrier for `threads` threads.
    pub fn new(threads: usize) -> Rendezvous {
        Rendezvous {
            threads,
            state: Mutex::new(State { waiting: 0, meeting: 0 }),
            met: Condvar::new(),
        }
    }

    /// Waits until all threads are here or `stop` is raised.
    pub fn wait(&self, stop: &Stop) -> Meeting {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if stop.requested() {
            return Meeting::Stopped;
        }
        state.waiting += 1;
        if state.waiting == self.threads {
            state.waiting = 0;
            state.meeting += 1;
            self.met.notify_all();
            return Meeting::Last;
        }
        let meeting = state.meeting;
        loop {
            (state, _) = self.met.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
            if state.meeting != meeting {
                return Meeting::Met;
            }
            if stop.requested() {
                return Meeting::Stopped;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn nobody_passes_before_everybody_came_and_one_is_last() {
        let (barrier, stop) = (Rendezvous::new(3), Stop::new());
        let (here, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for round in 1..=50 {
                        here.fetch_add(1, Ordering::SeqCst);
                        if barrier.wait(&stop) == Meeting::Last {
                            last.fetch_add(1, Ordering::SeqCst);
                        }
                        assert!(here.load(Ordering::SeqCst) >= 3 * round);
                        barrier.wait(&stop);
                    }
                });
            }
        });
        assert_eq!(last.load(Ordering::SeqCst), 50);
    }

    #[test]
    fn a_stop_request_releases_those_who_wait() {
        let (barrier, stop) = (Rendezvous::new(2), Stop::new());
        std::thread::scope(|s| {
            let waiting = s.spawn(|| barrier.wait(&stop));
            stop.abort();
            assert_eq!(waiting.join().unwrap(), Meeting::Stopped);
        });
    }
}
