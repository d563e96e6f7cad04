//! The file system that a guest boots with: an archive in the `newc` format of cpio, which the kernel
//! unpacks into memory.
//!
//! It holds a static `firn`, the folders that are mounted over, a console, the job, and the modules
//! that were asked for: nothing else. Archives can be laid end to end, so the part with the program is
//! made once and each job is appended to it.

use std::io::{self, Write};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under construction.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    written: usize,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Archive<W> {
        Archive { out, written: 0, inode: 0 }
    }

    /// A folder. Those above it must have been added.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER, (0, 0), b"")
    }

    /// A program.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn program(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, (0, 0), bytes)
    }

    /// A file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(path, FILE, (0, 0), bytes)
    }

    /// A character device.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, CHARACTER_DEVICE, (major, minor), b"")
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), b"")?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len())
            .map_err(|_| io::Error::other(format!("{path} is too large for the archive")))?;
        self.inode += 1;
        let name = path.trim_start_matches('/');
        // In the format's order: inode, mode, uid, gid, links, time, size, device of the file (major,
        // minor), device that it is (major, minor), length of the name with its end, checksum.
        let numbers = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        let mut header = String::from("070701");
        numbers.iter().for_each(|n| header.push_str(&format!("{n:08X}")));
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(bytes)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    /// Names and contents begin at multiples of four.
    fn align(&mut self) -> io::Result<()> {
        let rest = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 4][..rest])
    }
}

/// The part that is the same for all jobs.
///
/// # Errors
/// It cannot be written.
pub fn base(firn: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::with_capacity(firn.len() + (1 << 16)));
    for path in ["/dev", "/proc", "/sys", "/tmp", "/modules", OTHER_PROGRAMS] {
        archive.folder(path)?;
    }
    // What the kernel opens for the first program, before anything is mounted.
    archive.device("/dev/console", 5, 1)?;
    archive.program(PROGRAM_PATH, firn)?;
    archive.finish()
}

/// Where the guest has its `firn`.
pub const PROGRAM_PATH: &str = "/firn";
/// The folder where the guest has a program that is not `firn`.
pub const OTHER_PROGRAMS: &str = "/program";
/// Where the guest has its job.
pub const JOB_PATH: &str = "/job.json";

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive as the format is described, independently of the writer's code.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, usize)> {
        let hex = |at: usize| {
            let digits = std::str::from_utf8(&bytes[at..at + 8]).unwrap();
            u32::from_str_radix(digits, 16).unwrap()
        };
        let (mut at, mut found) = (0, Vec::new());
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, size, name) = (hex(at + 14), hex(at + 54) as usize, hex(at + 94) as usize);
            let text = String::from_utf8(bytes[at + 110..at + 110 + name - 1].to_vec()).unwrap();
            let data = (at + 110 + name).next_multiple_of(4);
            at = (data + size).next_multiple_of(4);
            if text == "TRAILER!!!" {
                assert_eq!(at, bytes.len());
                return found;
            }
            found.push((text, mode, size));
        }
    }

    #[test]
    fn the_archive_is_a_newc_archive_with_what_a_guest_needs() {
        let found = entries(&base(b"program").unwrap());
        let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            ["dev", "proc", "sys", "tmp", "modules", "program", "dev/console", "firn"]
        );
        assert_eq!(found[7], ("firn".to_owned(), 0o100_755, 7));
        assert_eq!(found[6].1, 0o020_600);
    }
}
