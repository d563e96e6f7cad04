//! Making an operation again and again, and what its runs agree on.
//!
//! **Refusals that pass.** A kernel may refuse what it knows well, because a page is locked or on another
//! processor's list at that moment: `EAGAIN` says so by its name, and `EBUSY` means it where this is about pages
//! (`MADV_COLLAPSE` gives both, `UFFDIO_MOVE` too). Such a run is made again from its preparation on, some times.
//! What a refused attempt took of the lock is in no count: only a run that succeeded is.

use std::collections::HashMap;

use firn_heap::sys::Errno;

use super::known::Locks;
use crate::perf::{LockCounter, Unavailable};

/// Why an operation has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The kernel does not have it.
    Absent(String),
    /// This machine is not set up for it, which says nothing about the kernel.
    Skipped(String),
    /// The kernel refused it for the moment.
    Refused(Errno),
    /// It, or its preparation, failed.
    Failed(String),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Trouble {
        Trouble::Failed(format!("the preparation failed with {errno}"))
    }
}

impl From<Unavailable> for Trouble {
    fn from(why: Unavailable) -> Trouble {
        Trouble::Failed(why.to_string())
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble::Failed(format!("the preparation failed: {error}"))
    }
}

/// What the runs of an operation agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Locks taken in one run.
    pub locks: Locks,
    /// Runs that agree.
    pub agree: u32,
    /// Runs.
    pub runs: u32,
    /// Attempts beside them that were refused for the moment.
    pub refused: u32,
}

/// Attempts at one run.
const TRIES: u32 = 20;

/// Whether an errno may be gone at the next attempt.
fn passes(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EBUSY)
}

/// Counts what an operation does, run by run.
pub struct Bench<'a> {
    counter: &'a LockCounter,
    /// Runs that [`Bench::repeat`] makes.
    pub runs: u32,
    seen: Vec<Locks>,
    refused: u32,
}

impl<'a> Bench<'a> {
    /// For `runs` runs, with a counter of the calling thread.
    pub fn new(counter: &'a LockCounter, runs: u32) -> Bench<'a> {
        Bench { counter, runs, seen: Vec::new(), refused: 0 }
    }

    /// Repeats `round` as often as is wanted, and once more before, uncounted: the first one also pays
    /// for whatever is first touched in it.
    pub fn repeat(
        &mut self,
        mut round: impl FnMut(&mut Bench<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let before = self.seen.len();
        self.succeed(&mut round)?;
        self.seen.truncate(before);
        (0..self.runs).try_for_each(|_| self.succeed(&mut round))
    }

    /// Makes `round` until it is not refused for the moment, but not for ever.
    fn succeed(
        &mut self,
        round: &mut impl FnMut(&mut Bench<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        for _ in 1..TRIES {
            match round(self) {
                Err(Trouble::Refused(_)) => self.refused += 1,
                done => return done,
            }
        }
        round(self).map_err(|trouble| match trouble {
            Trouble::Refused(errno) => {
                Trouble::Failed(format!("it was refused with {errno} at each of {TRIES} attempts"))
            }
            other => other,
        })
    }

    /// Counts what `operation` does. It may stop counting early, by calling what it is given.
    pub fn count(
        &mut self,
        operation: impl FnOnce(&dyn Fn()) -> Result<(), Errno>,
    ) -> Result<(), Trouble> {
        let counter = self.counter;
        counter.reset()?;
        counter.resume()?;
        let done = operation(&|| {
            // Of a counter that could be started: if it went on, the result would show it.
            let _ = counter.pause();
        });
        counter.pause()?;
        match done {
            Ok(()) => {
                let c = counter.counts()?;
                self.seen.push(Locks { read: c.read, write: c.write, downgraded: c.downgraded });
                Ok(())
            }
            // How kernels refuse what they do not know.
            Err(errno @ (Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS | Errno::EOPNOTSUPP)) => {
                Err(Trouble::Absent(format!("refused with {errno}")))
            }
            Err(errno) if passes(errno) => Err(Trouble::Refused(errno)),
            Err(errno) => Err(Trouble::Failed(format!("it failed with {errno}"))),
        }
    }

    /// What the runs agree on.
    ///
    /// # Errors
    /// [`Trouble::Failed`] if nothing was counted.
    pub fn answer(&self) -> Result<Counted, Trouble> {
        let found =
            most_credible(&self.seen).map(|found| Counted { refused: self.refused, ..found });
        found.ok_or_else(|| Trouble::Failed("nothing was counted".to_owned()))
    }
}

/// The fewest locks that at least a fifth of the runs agree on: what disturbs a run can only add (a thread that
/// is preempted has its `rseq` area written by the kernel, which is one more fault), and on a busy machine it
/// can do so in most of them.
fn most_credible(seen: &[Locks]) -> Option<Counted> {
    let mut counts: HashMap<Locks, u32> = HashMap::new();
    for &locks in seen {
        *counts.entry(locks).or_default() += 1;
    }
    let runs = seen.len() as u32;
    let all = |locks: &Locks| locks.read + locks.write + locks.downgraded;
    let often = counts.iter().filter(|&(_, &agree)| agree * 5 >= runs);
    let least = often.min_by_key(|&(locks, &agree)| (all(locks), std::cmp::Reverse(agree)));
    let most = || counts.iter().max_by_key(|&(locks, n)| (n, std::cmp::Reverse(locks)));
    let (&locks, &agree) = least.or_else(most)?;
    Some(Counted { locks, agree, runs, refused: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_heap::sys::ops::Scratch;

    /// Counts `runs` runs of an operation that takes the lock, and is refused with `errno` afterwards as often as
    /// `refusals` says of the attempt's number. `None` where the kernel does not tell about its lock.
    fn refusing(
        runs: u32,
        errno: Errno,
        refusals: impl Fn(u32) -> bool,
    ) -> Option<Result<Counted, Trouble>> {
        let counter = match LockCounter::this_thread() {
            Ok(counter) => counter,
            Err(why) => {
                println!("skipped: {why}");
                return None;
            }
        };
        let mut bench = Bench::new(&counter, runs);
        let mut attempts = 0;
        let done = bench.repeat(|bench| {
            let mut made = None;
            bench.count(|_| {
                attempts += 1;
                made = Some(Scratch::anonymous(4)?);
                if refusals(attempts) { Err(errno) } else { Ok(()) }
            })
        });
        Some(done.and_then(|()| bench.answer()))
    }

    #[test]
    fn passes_add_up_and_one_that_is_disturbed_throughout_does_not_decide() {
        let Ok(counter) = LockCounter::this_thread().map_err(|why| println!("skipped: {why}"))
        else {
            return;
        };
        let mut bench = Bench::new(&counter, 5);
        for disturbed in [false, true, false] {
            let done = bench.repeat(|bench| {
                let mut made = Vec::with_capacity(5);
                bench.count(|_| {
                    for _ in 0..if disturbed { 5 } else { 1 } {
                        made.push(Scratch::anonymous(4)?);
                    }
                    Ok(())
                })
            });
            done.unwrap();
        }
        let found = bench.answer().unwrap();
        assert_eq!(found.locks, Locks { write: 1, ..Locks::default() });
        assert_eq!((found.agree, found.runs), (10, 15));
    }

    #[test]
    fn a_refusal_for_the_moment_is_asked_again_and_in_no_count() {
        for errno in [Errno::EAGAIN, Errno::EBUSY] {
            // Two of three attempts: twice as many refusals as successes, the uncounted run included.
            let Some(found) = refusing(10, errno, |attempt| attempt % 3 != 0) else { return };
            let found = found.unwrap();
            assert_eq!((found.runs, found.refused), (10, 22), "{errno}");
            assert_eq!(found.locks, Locks { write: 1, ..Locks::default() }, "{errno}");
        }
    }

    #[test]
    fn what_is_refused_for_ever_is_told_with_its_errno_and_the_number_of_attempts() {
        let Some(found) = refusing(10, Errno::EAGAIN, |attempt| attempt > 3) else { return };
        let Err(Trouble::Failed(why)) = found else { panic!("{found:?}") };
        assert!(why.contains("EAGAIN") && why.contains(&format!("{TRIES} attempts")), "{why}");
        // And what is no refusal for the moment is not asked again.
        let once = refusing(10, Errno::ENOMEM, |attempt| attempt == 3).unwrap();
        assert_eq!(once, Err(Trouble::Failed(format!("it failed with {}", Errno::ENOMEM))));
    }

    #[test]
    fn disturbances_are_told_from_what_the_operation_does() {
        let (clean, disturbed) =
            (Locks { read: 1, ..Locks::default() }, Locks { read: 2, ..Locks::default() });
        let found = most_credible(&[clean, disturbed, clean]).unwrap();
        assert_eq!((found.locks, found.agree, found.runs), (clean, 2, 3));
        assert_eq!(most_credible(&[disturbed, clean]).unwrap().locks, clean);
        let busy: Vec<_> = (0..20).map(|i| if i < 6 { clean } else { disturbed }).collect();
        assert_eq!(
            (most_credible(&busy).unwrap().locks, most_credible(&busy).unwrap().agree),
            (clean, 6)
        );
        let once: Vec<_> = (0..20).map(|i| if i < 1 { clean } else { disturbed }).collect();
        assert_eq!(most_credible(&once).unwrap().locks, disturbed);
        assert_eq!(most_credible(&[]), None);
    }
}
