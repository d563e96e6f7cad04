//! Making an operation again and again, and what its runs agree on.

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
}

/// Counts what an operation does, run by run.
pub struct Bench<'a> {
    counter: &'a LockCounter,
    runs: u32,
    seen: Vec<Locks>,
}

impl<'a> Bench<'a> {
    /// For `runs` runs, with a counter of the calling thread.
    pub fn new(counter: &'a LockCounter, runs: u32) -> Bench<'a> {
        Bench { counter, runs, seen: Vec::new() }
    }

    /// Repeats `round` as often as is wanted, and once more before, uncounted: the first one also pays
    /// for whatever is first touched in it.
    pub fn repeat(
        &mut self,
        mut round: impl FnMut(&mut Bench<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        round(self)?;
        self.seen.clear();
        (0..self.runs).try_for_each(|_| round(self))
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
            Err(errno) => Err(Trouble::Failed(format!("it failed with {errno}"))),
        }
    }

    /// What the runs agree on.
    ///
    /// # Errors
    /// [`Trouble::Failed`] if nothing was counted.
    pub fn answer(&self) -> Result<Counted, Trouble> {
        most_credible(&self.seen).ok_or_else(|| Trouble::Failed("nothing was counted".to_owned()))
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
    Some(Counted { locks, agree, runs })
}

#[cfg(test)]
mod tests {
    use super::*;

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
