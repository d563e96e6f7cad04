//! Faults on a file whose pages are not in memory: the kernel reads from disk while it handles them.

use firn_heap::sys::ops::Scratch;
use firn_heap::sys::page_size;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::Pace;
use crate::scenario::stage::Stage;
use crate::workloads::rng::Rng;

/// Pages of the file.
const PAGES: usize = 2048;
/// Faults between two droppings of the cache.
const FAULTS: usize = 16;

/// A file that is deleted when dropped.
#[derive(Debug)]
pub struct Cold {
    file: File,
    path: PathBuf,
}

impl Cold {
    /// Makes one in `folder`.
    ///
    /// # Errors
    /// A line that says why not, with the remedy.
    pub fn make(folder: &Path) -> Result<Cold, String> {
        let path = folder.join(format!("firn-file-fault-{}", std::process::id()));
        let wrong = |what: &str, e: &dyn std::fmt::Display| {
            format!("file-fault: {what} in {} failed: {e}; give --folder", folder.display())
        };
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create_new(true).open(&path);
        let file = opened.map_err(|e| wrong("making a file", &e))?;
        let mut cold = Cold { file, path };
        if fstatfs(&cold.file).is_ok_and(|s| s.filesystem_type() == TMPFS_MAGIC) {
            return Err(format!(
                "file-fault: {} is in memory (tmpfs), its files are never read from disk; give \
                 --folder on a disk",
                folder.display()
            ));
        }
        let page = vec![0x5a; page_size()];
        for _ in 0..PAGES {
            cold.file.write_all(&page).map_err(|e| wrong("writing", &e))?;
        }
        // Only what is on the disk can be dropped from memory.
        cold.file.sync_all().map_err(|e| wrong("writing to the disk", &e))?;
        Ok(cold)
    }

    fn drop_cache(&self) -> Result<(), nix::Error> {
        posix_fadvise(self.file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
    }
}

impl Drop for Cold {
    fn drop(&mut self) {
        // It is a temporary file: nothing depends on its being gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Touches random pages of a cold file; `file fault` is one.
pub fn faulter(stage: &Stage, cold: &Cold, n: usize) {
    let memory = match Scratch::of_file(cold.file.as_fd(), PAGES, false) {
        Ok(memory) => memory,
        Err(e) => return stage.trouble(format!("FileFaulter: mapping the file failed with {e}")),
    };
    // No reading ahead: each touch shall be a read of its own.
    if let Err(e) = memory.advise(0, PAGES, libc::MADV_RANDOM) {
        stage.trouble(format!("FileFaulter: madvise failed with {e}"));
    }
    let mut rng = Rng::new(stage.seed ^ (0xf11e + n as u64));
    let mut log = stage.log("file fault");
    let mut pace = Pace::new(200);
    while !stage.over() {
        pace.wait();
        for _ in 0..FAULTS {
            let page = (rng.next_u64() % PAGES as u64) as usize;
            log.time(|| memory.read(page));
        }
        // Pages that are mapped stay in memory: unmap them first.
        let unmapped = memory.advise(0, PAGES, libc::MADV_DONTNEED);
        if let (Err(e), _) | (_, Err(e)) =
            (unmapped.map_err(|e| e.to_string()), cold.drop_cache().map_err(|e| e.to_string()))
        {
            stage.trouble(format!("FileFaulter: dropping the cache failed with {e}"));
        }
    }
}
