//! Native streams: files, the standard streams, or whatever an embedder connects.
//!
//! Ports in the heap name streams by a handle. Reading may block; builtins look at what is buffered and trap with a
//! blocking action when that is not enough. Output is buffered and written in a blocking action when there is much
//! of it. A stream whose port is lost is closed when the next file is opened ([`crate::builtins`]' files).
//!
//! Invariants: nobody waits for a stream's lock in a stretch without collection, because its holder may be waiting for
//! input ([`Streams::try_lock`]); and nobody waits for input for longer than [`PATIENCE`] before it looks whether
//! the program is to end.

use crate::numbers::large::{Stopped, Watch};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::Duration;

/// Longest wait in a blocking action, so that Ctrl-C and the end of a thread are noticed; what was waited for is then
/// waited for again.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// Flags of a port object.
pub mod flag {
    /// Characters or bytes can be read.
    pub const INPUT: u64 = 1;
    /// Characters or bytes can be written.
    pub const OUTPUT: u64 = 2;
    /// A port of characters.
    pub const TEXT: u64 = 4;
    /// A port of bytes.
    pub const BINARY: u64 = 8;
    /// Not closed.
    pub const OPEN: u64 = 16;
    /// On a native stream.
    pub const STREAM: u64 = 32;
    /// Identifiers are case-folded by `read`.
    pub const FOLD: u64 = 64;
}

/// Where a stream reads from.
enum Source {
    /// It may have to be waited for.
    Descriptor(Box<dyn Descriptor>),
    /// It answers at once, or nobody minds.
    Other(Box<dyn Read + Send>),
}

trait Descriptor: Read + Send {
    fn descriptor(&self) -> BorrowedFd<'_>;
}

impl<T: Read + AsFd + Send> Descriptor for T {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// A native stream.
pub struct Stream {
    open: bool,
    /// How many streams had this place before.
    generation: u32,
    reader: Option<Source>,
    writer: Option<Box<dyn Write + Send>>,
    buffer: Vec<u8>,
    position: usize,
    ended: bool,
    failed: Option<String>,
    /// Written out at each line's end.
    by_line: bool,
    /// What waits has the end of a line in it.
    line_ended: bool,
    /// Ends of lines that were read.
    lines: u32,
    /// Characters that were read since.
    columns: u32,
}

impl Stream {
    /// A stream to read from.
    pub fn input(reader: Box<dyn Read + Send>) -> Stream {
        Stream { open: true, reader: Some(Source::Other(reader)), ..Stream::closed() }
    }

    /// A stream to read from a file, a terminal or a pipe: a wait for it can be interrupted.
    pub fn file(file: File) -> Stream {
        Stream::descriptor(Box::new(file))
    }

    /// Opens a file to read from. Nobody waits in the kernel for whoever is to write: a pipe is opened at once, and its
    /// readers wait where they can be interrupted.
    ///
    /// # Errors
    /// Why it cannot be opened.
    ///
    /// # Examples
    /// ```
    /// use firn_scheme::port::Stream;
    ///
    /// let mut nothing = Stream::open("/dev/null".as_ref())?;
    /// nothing.fill();
    /// assert!(nothing.ended() && nothing.available().is_empty());
    /// # Ok::<_, std::io::Error>(())
    /// ```
    pub fn open(path: &Path) -> io::Result<Stream> {
        let nonblocking = OFlag::O_NONBLOCK.bits();
        OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map(Stream::file)
    }

    fn descriptor(reader: Box<dyn Descriptor>) -> Stream {
        Stream { open: true, reader: Some(Source::Descriptor(reader)), ..Stream::closed() }
    }

    /// A stream to write to.
    pub fn output(writer: Box<dyn Write + Send>, by_line: bool) -> Stream {
        Stream { open: true, writer: Some(writer), by_line, ..Stream::closed() }
    }

    fn closed() -> Stream {
        Stream {
            open: false,
            generation: 0,
            reader: None,
            writer: None,
            buffer: Vec::new(),
            position: 0,
            ended: false,
            failed: None,
            by_line: false,
            line_ended: false,
            lines: 0,
            columns: 0,
        }
    }

    /// The bytes that are there to be read.
    pub fn available(&self) -> &[u8] {
        &self.buffer[self.position..]
    }

    /// Takes bytes that were there.
    pub fn consume(&mut self, count: usize) {
        for byte in &self.buffer[self.position..self.position + count] {
            // A character's first byte.
            let begins = *byte & 0xc0 != 0x80;
            (self.lines, self.columns) = match byte {
                b'\n' => (self.lines.wrapping_add(1), 0),
                _ => (self.lines, self.columns.wrapping_add(u32::from(begins))),
            };
        }
        self.position += count;
    }

    /// How many ends of lines were read, and how many characters since the last.
    pub fn place(&self) -> (u32, u32) {
        (self.lines, self.columns)
    }

    /// Whether reading would answer at once, perhaps with the end. `whole` says whether some bytes begin with what is to be
    /// read.
    pub fn is_ready(&mut self, whole: impl Fn(&[u8]) -> bool) -> bool {
        while !self.ended && (self.available().is_empty() || !whole(self.available())) {
            match &self.reader {
                Some(Source::Descriptor(reader))
                    if is_ready(reader.descriptor(), Duration::ZERO) =>
                {
                    self.fill();
                }
                Some(Source::Descriptor(_)) => return false,
                _ => return true,
            }
        }
        true
    }

    /// Whether nothing follows what is there.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What went wrong, once.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failed.take()
    }

    /// Reads more, as much as waits already or more, so that a long datum is not looked at in many small steps. May
    /// block, but comes back now and then with nothing.
    pub fn fill(&mut self) {
        const PIECE: usize = 16 << 10;
        self.buffer.drain(..self.position);
        self.position = 0;
        let before = self.buffer.len();
        let result = match &mut self.reader {
            None => Ok(0),
            Some(Source::Descriptor(reader)) if !is_ready(reader.descriptor(), PATIENCE) => return,
            Some(source) => {
                self.buffer.resize(before + before.max(PIECE), 0);
                match source {
                    Source::Descriptor(reader) => reader.read(&mut self.buffer[before..]),
                    Source::Other(reader) => reader.read(&mut self.buffer[before..]),
                }
            }
        };
        self.buffer.truncate(before + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            // Or somebody else has read what was there.
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => {
                self.failed = Some(error.to_string());
                self.ended = true;
            }
        }
    }

    /// Buffered output beyond this is to be written out first.
    pub const FULL: usize = 32 << 10;

    /// Bytes of output that wait.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Adds output.
    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.line_ended |= self.by_line && bytes.contains(&b'\n');
    }

    /// Whether somebody is to see what waits now: a line of a terminal.
    pub fn wants_flush(&self) -> bool {
        self.line_ended
    }

    /// Writes out. May block.
    pub fn flush(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        self.line_ended = false;
        if let Err(error) = writer.write_all(&self.buffer).and_then(|()| writer.flush()) {
            self.failed = Some(error.to_string());
        }
        self.buffer.clear();
    }
}

/// The bytes of a file, for as long as they are wanted; or why they cannot be had. May block.
///
/// # Errors
/// If they are wanted no more.
///
/// # Examples
/// ```
/// use firn_scheme::numbers::large::Watch;
/// use firn_scheme::port::contents;
///
/// assert_eq!(contents(&Watch::NOBODY, "/dev/null".as_ref()), Ok(Ok(Vec::new())));
/// assert!(contents(&Watch::NOBODY, "/dev".as_ref()).expect("nobody stops it").is_err());
/// ```
pub fn contents(watch: &Watch<'_>, path: &Path) -> Result<Result<Vec<u8>, String>, Stopped> {
    let mut stream = match Stream::open(path) {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut all = Vec::new();
    while !stream.ended {
        watch.look()?;
        stream.fill();
        // None of it stays in the buffer, which would grow as much again each time.
        all.append(&mut stream.buffer);
    }
    Ok(stream.failed.map_or(Ok(all), Err))
}

/// Whether there is something to read, or nothing more to wait for.
fn is_ready(descriptor: BorrowedFd<'_>, patience: Duration) -> bool {
    let patience = PollTimeout::from(patience.as_millis() as u16);
    let mut wanted = [PollFd::new(descriptor, PollFlags::POLLIN)];
    // What cannot be asked is read: that says what is wrong with it.
    !matches!(nix::poll::poll(&mut wanted, patience), Ok(0) | Err(nix::errno::Errno::EINTR))
}

/// Streams of the first piece of the table; each piece has twice as many as the one before it.
const FIRST: usize = 8;
const PIECES: usize = 24;

/// All streams of an interpreter, by handle: a place in the table, and in the upper half which of the streams that had
/// this place it is. The table grows by pieces and never moves, so that finding a stream takes no lock.
pub struct Streams {
    pieces: [OnceLock<Box<[Slot]>>; PIECES],
    /// Places that no stream has, and how many there are in all.
    free: Mutex<(Vec<usize>, usize)>,
}

/// A place in the table.
struct Slot {
    stream: Mutex<Stream>,
    /// Whether the stream is one of output.
    output: AtomicBool,
}

impl Slot {
    fn put(&self, stream: Stream) {
        self.output.store(stream.writer.is_some(), Relaxed);
        *self.stream.lock().expect("a stream is whole") = stream;
    }
}

/// Somebody else has the stream's lock.
pub struct Busy;

impl Streams {
    /// Handle of the standard input.
    pub const INPUT: usize = 0;
    /// Handle of the standard output.
    pub const OUTPUT: usize = 1;
    /// Handle of the standard error output.
    pub const ERROR: usize = 2;

    pub(crate) fn new() -> Streams {
        use std::io::IsTerminal;
        let terminal = std::io::stdout().is_terminal();
        let streams =
            Streams { pieces: [const { OnceLock::new() }; PIECES], free: Mutex::default() };
        streams.add(Stream::descriptor(Box::new(std::io::stdin())));
        streams.add(Stream::output(Box::new(std::io::stdout()), terminal));
        streams.add(Stream::output(Box::new(std::io::stderr()), true));
        streams
    }

    fn slot(&self, handle: usize) -> Option<&Slot> {
        let place = handle & 0xffff_ffff;
        let piece = (place / FIRST + 1).ilog2() as usize;
        let before = FIRST * ((1 << piece) - 1);
        self.pieces.get(piece)?.get()?.get(place - before)
    }

    /// Puts another stream in place of one: so an embedder takes the output of programs.
    ///
    /// # Panics
    /// If there is no such stream.
    pub fn replace(&self, handle: usize, stream: Stream) {
        let slot = self.slot(handle).expect("the stream to be replaced is there");
        slot.put(Stream { generation: (handle >> 32) as u32, ..stream });
    }

    /// Adds a stream.
    pub fn add(&self, stream: Stream) -> usize {
        let mut free = self.free.lock().expect("streams are whole");
        let place = match free.0.pop() {
            Some(place) => place,
            None => {
                free.1 += 1;
                free.1 - 1
            }
        };
        let piece = (place / FIRST + 1).ilog2() as usize;
        let fresh = || Slot { stream: Mutex::new(Stream::closed()), output: false.into() };
        self.pieces[piece].get_or_init(|| (0..FIRST << piece).map(|_| fresh()).collect());
        let slot = self.slot(place).expect("its piece has been made");
        // The standard streams have the handles that are known.
        let generation = match place {
            0..=Streams::ERROR => 0,
            _ => slot.stream.lock().expect("a stream is whole").generation.wrapping_add(1),
        };
        slot.put(Stream { generation, ..stream });
        (generation as usize) << 32 | place
    }

    fn checked(handle: usize, stream: MutexGuard<'_, Stream>) -> Option<MutexGuard<'_, Stream>> {
        Some(stream).filter(|stream| stream.open && stream.generation as usize == handle >> 32)
    }

    /// A stream, if it is open; may block.
    pub fn lock(&self, handle: usize) -> Option<MutexGuard<'_, Stream>> {
        let stream = self.slot(handle)?.stream.lock().expect("a stream is whole");
        Streams::checked(handle, stream)
    }

    /// A stream, if it is open and nobody else is at it.
    ///
    /// # Errors
    /// Somebody is.
    #[inline]
    pub fn try_lock(&self, handle: usize) -> Result<Option<MutexGuard<'_, Stream>>, Busy> {
        let Some(slot) = self.slot(handle) else { return Ok(None) };
        match slot.stream.try_lock() {
            Ok(stream) => Ok(Streams::checked(handle, stream)),
            Err(TryLockError::WouldBlock) => Err(Busy),
            Err(TryLockError::Poisoned(_)) => panic!("a stream is whole"),
        }
    }

    /// Closes a stream: what waits is written out. Says what went wrong with that.
    pub fn close(&self, handle: usize) -> Option<String> {
        let mut stream = self.lock(handle)?;
        if stream.writer.is_some() {
            stream.flush();
        }
        let failure = stream.take_failure();
        *stream = Stream { generation: stream.generation, ..Stream::closed() };
        drop(stream);
        self.free.lock().expect("streams are whole").0.push(handle & 0xffff_ffff);
        failure
    }

    /// Writes out everything.
    pub fn flush_all(&self) {
        for slot in self.pieces.iter().filter_map(OnceLock::get).flatten() {
            // A stream of input may be locked for as long as nothing comes.
            if slot.output.load(Relaxed) {
                slot.stream.lock().expect("a stream is whole").flush();
            }
        }
    }
}
