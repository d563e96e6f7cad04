//! Why a range was refused, in words that name the limit and the remedy.
//!
//! The kernel says `ENOMEM` for four different limits. So a refusal looks at them once, when it
//! happens; making the sentence from what was found is a pure function, so that every case can be
//! tested on any machine.

use std::{fmt, fs, ptr};

use crate::sys::{Errno, human_bytes, page_size};

/// Why a range could not be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A length or alignment that no range can have.
    #[error(
        "cannot reserve {len} bytes aligned to {align} for {name}: the length must be a positive \
         multiple of the page size ({page}) and the alignment a power of two"
    )]
    BadRequest {
        /// What the range was for.
        name: String,
        /// Bytes asked for.
        len: usize,
        /// Alignment asked for, in bytes.
        align: usize,
        /// Bytes in a page here.
        page: usize,
    },
    /// The kernel refused.
    #[error("cannot reserve {} for {name}: {call} failed with {errno}{diagnosis}", human_bytes(*.len as u64))]
    Refused {
        /// What the range was for.
        name: String,
        /// Bytes asked for.
        len: usize,
        /// The system call that failed.
        call: &'static str,
        /// Its error.
        errno: Errno,
        /// Which limits stand in the way.
        diagnosis: Diagnosis,
    },
}

impl MapError {
    pub(super) fn refused(name: &str, len: usize, call: &'static str, errno: Errno) -> MapError {
        let diagnosis =
            if errno == Errno::ENOMEM { Diagnosis::look() } else { Diagnosis::default() };
        MapError::Refused { name: name.to_owned(), len, call, errno, diagnosis }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            MapError::BadRequest { .. } => None,
            MapError::Refused { errno, .. } => Some(*errno),
        }
    }
}

/// The limits that can stand behind an `ENOMEM` of a mapping, as they were when it failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// RLIMIT_AS in bytes, if the process has one.
    pub address_space_limit: Option<u64>,
    /// Bytes of address space in use, if a limit makes that interesting.
    pub address_space_used: Option<u64>,
    /// `vm.max_map_count`, and how many mappings the process has.
    pub mappings: Option<(u64, u64)>,
    /// `vm.overcommit_memory`, if it is 2: every private writable range counts in full.
    pub strict_overcommit: bool,
}

impl Diagnosis {
    fn look() -> Diagnosis {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limit = address_space_limit();
        let used = fs::read_to_string("/proc/self/statm")
            .ok()
            .and_then(|s| s.split(' ').next()?.parse::<u64>().ok())
            .map(|pages| pages * page_size() as u64);
        let count = fs::read("/proc/self/maps")
            .ok()
            .map(|maps| maps.iter().filter(|&&b| b == b'\n').count() as u64);
        Diagnosis {
            address_space_limit: limit,
            address_space_used: limit.and(used),
            mappings: number("/proc/sys/vm/max_map_count").zip(count),
            strict_overcommit: number("/proc/sys/vm/overcommit_memory") == Some(2),
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(limit) = self.address_space_limit {
            write!(f, ". The address space limit (RLIMIT_AS) is {}", human_bytes(limit))?;
            if let Some(used) = self.address_space_used {
                write!(f, ", of which {} are used", human_bytes(used))?;
            }
            f.write_str(": raise it (`ulimit -v unlimited`) or ask for a smaller heap")?;
        }
        if let Some((max, have)) = self.mappings {
            // A split or a guard page needs a few mappings more than the one asked for.
            if have + 16 >= max {
                write!(
                    f,
                    ". The process has {have} of at most {max} mappings: raise \
                     vm.max_map_count (`sysctl -w vm.max_map_count={}`)",
                    max * 4
                )?;
            }
        }
        if self.strict_overcommit {
            f.write_str(
                ". vm.overcommit_memory is 2, so reserved memory counts as used: set it to 0 or 1 \
                 (`sysctl -w vm.overcommit_memory=0`), raise vm.overcommit_ratio, or ask for a \
                 smaller heap",
            )?;
        }
        Ok(())
    }
}

/// RLIMIT_AS of this process in bytes; `None` if there is none.
pub fn address_space_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the struct, which outlives the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_AS, ptr::from_mut(&mut limit)) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
