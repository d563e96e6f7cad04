//! Native streams: files, the standard streams, or whatever an embedder connects.
//!
//! Ports in the heap name streams by number. Reading may block; builtins look at what is buffered and trap with a
//! blocking action when that is not enough. Output is buffered and written in a blocking action when there is much
//! of it. A stream that is not closed stays open until the interpreter ends: there are no finalizers yet.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

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

/// A native stream.
pub struct Stream {
    reader: Option<Box<dyn Read + Send>>,
    writer: Option<Box<dyn Write + Send>>,
    buffer: Vec<u8>,
    position: usize,
    ended: bool,
    failed: Option<String>,
    /// Written out at each line's end.
    by_line: bool,
}

impl Stream {
    /// A stream to read from.
    pub fn input(reader: Box<dyn Read + Send>) -> Stream {
        Stream { reader: Some(reader), ..Stream::closed() }
    }

    /// A stream to write to.
    pub fn output(writer: Box<dyn Write + Send>, by_line: bool) -> Stream {
        Stream { writer: Some(writer), by_line, ..Stream::closed() }
    }

    fn closed() -> Stream {
        Stream {
            reader: None,
            writer: None,
            buffer: Vec::new(),
            position: 0,
            ended: false,
            failed: None,
            by_line: false,
        }
    }

    /// The bytes that are there to be read.
    pub fn available(&self) -> &[u8] {
        &self.buffer[self.position..]
    }

    /// Takes bytes that were there.
    pub fn consume(&mut self, count: usize) {
        self.position += count;
    }

    /// Whether nothing follows what is there.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What went wrong, once.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failed.take()
    }

    /// Reads more. May block.
    pub fn fill(&mut self) {
        self.buffer.drain(..self.position);
        self.position = 0;
        let Some(reader) = &mut self.reader else {
            self.ended = true;
            return;
        };
        let mut piece = [0; 16 << 10];
        match reader.read(&mut piece) {
            Ok(0) => self.ended = true,
            Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
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
        if self.by_line && bytes.contains(&b'\n') {
            self.flush();
        }
    }

    /// Writes out. May block.
    pub fn flush(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = writer.write_all(&self.buffer).and_then(|()| writer.flush()) {
            self.failed = Some(error.to_string());
        }
        self.buffer.clear();
    }
}

/// All streams of an interpreter, by number.
pub struct Streams(Mutex<Vec<Option<Arc<Mutex<Stream>>>>>);

impl Streams {
    /// Number of the standard input.
    pub const INPUT: usize = 0;
    /// Number of the standard output.
    pub const OUTPUT: usize = 1;
    /// Number of the standard error output.
    pub const ERROR: usize = 2;

    pub(crate) fn new() -> Streams {
        use std::io::IsTerminal;
        let terminal = std::io::stdout().is_terminal();
        let standard = [
            Stream::input(Box::new(std::io::stdin())),
            Stream::output(Box::new(std::io::stdout()), terminal),
            Stream::output(Box::new(std::io::stderr()), true),
        ];
        Streams(Mutex::new(standard.into_iter().map(|s| Some(Arc::new(Mutex::new(s)))).collect()))
    }

    /// Puts another stream in a number's place: so an embedder takes the output of programs.
    pub fn replace(&self, number: usize, stream: Stream) {
        self.0.lock().expect("streams are whole")[number] = Some(Arc::new(Mutex::new(stream)));
    }

    /// Adds a stream.
    pub fn add(&self, stream: Stream) -> usize {
        let mut all = self.0.lock().expect("streams are whole");
        let stream = Some(Arc::new(Mutex::new(stream)));
        match all.iter().position(Option::is_none) {
            Some(free) => {
                all[free] = stream;
                free
            }
            None => {
                all.push(stream);
                all.len() - 1
            }
        }
    }

    /// A stream that is open.
    pub fn get(&self, number: usize) -> Option<Arc<Mutex<Stream>>> {
        self.0.lock().expect("streams are whole").get(number).cloned().flatten()
    }

    /// Closes a stream: what waits is written out.
    pub fn close(&self, number: usize) -> Option<String> {
        let stream = self.0.lock().expect("streams are whole").get_mut(number)?.take()?;
        let mut stream = stream.lock().expect("a stream is whole");
        if stream.writer.is_some() {
            stream.flush();
        }
        stream.take_failure()
    }

    /// Writes out everything.
    pub fn flush_all(&self) {
        let all = self.0.lock().expect("streams are whole").clone();
        for stream in all.into_iter().flatten() {
            let mut stream = stream.lock().expect("a stream is whole");
            if stream.writer.is_some() {
                stream.flush();
            }
        }
    }
}
