//! Running programs in this process, with their output taken.

#![allow(dead_code)] // each test file uses a part

use firn::Options;
use firn_scheme::port::{Stream, Streams};
use firn_scheme::vm::Outcome;
use firn_scheme::vm::load::Stopped;
use firn_scheme::{Interpreter, StartError};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// 0 if it ended well or called `(exit 0)`.
    pub exit: i32,
    /// Its standard output.
    pub output: String,
    /// What ended it, in words; its standard error output before that.
    pub errors: String,
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics with it")).into_owned()
    }
}

/// An interpreter with these options; `None`, with a line that says so, where an unprivileged process is refused
/// userfaultfd. Root must have it.
pub fn interpreter(options: &str) -> Option<Interpreter> {
    let parsed = Options::parse(options).expect("valid options");
    match Interpreter::new(&parsed) {
        Ok(interpreter) => Some(interpreter),
        Err(StartError::Heap(why)) if !is_root() => {
            eprintln!("skipped ({options}): {why}");
            None
        }
        Err(why) => panic!("{options}: {why}"),
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Runs a program. `file` is its name in messages, and where `include` looks.
pub fn run_with(
    scheme: &Interpreter,
    text: &str,
    file: &str,
    arguments: &[&str],
    input: &str,
) -> Run {
    let (output, errors) = (Sink::default(), Sink::default());
    let world = scheme.world();
    let input = Cursor::new(input.as_bytes().to_vec());
    world.streams.replace(Streams::INPUT, Stream::input(Box::new(input)));
    world.streams.replace(Streams::OUTPUT, Stream::output(Box::new(output.clone()), false));
    world.streams.replace(Streams::ERROR, Stream::output(Box::new(errors.clone()), false));
    let line = std::iter::once(file).chain(arguments.iter().copied()).map(String::from).collect();
    *world.command_line.lock().expect("nobody panics with it") = line;
    let ended = scheme.with(|vm| vm.run_program(text, file)).map_err(Stopped::from).and_then(|r| r);
    world.streams.flush_all();
    let (exit, why) = match ended {
        Ok(()) => (0, String::new()),
        Err(Stopped::Outcome(Outcome::Quit(code))) => (code, String::new()),
        Err(Stopped::Outcome(Outcome::Uncaught { message, trace })) => {
            (70, format!("{message}\n{}", trace.join("\n")))
        }
        Err(Stopped::Outcome(other)) => (70, format!("{other:?}")),
        Err(Stopped::Syntax(error)) => (65, error.to_string()),
    };
    Run { exit, output: output.text(), errors: errors.text() + &why }
}

/// Runs a program in an interpreter of its own.
pub fn run(options: &str, text: &str, file: &str, arguments: &[&str], input: &str) -> Option<Run> {
    let scheme = interpreter(options)?;
    Some(run_with(&scheme, text, file, arguments, input))
}

/// A directory of this crate.
pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The Scheme files of a directory, by name.
pub fn programs(of: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory(of)).expect("the directory is part of the tree");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "scm"));
    files.sort();
    assert!(!files.is_empty(), "{of} has no programs");
    files
}

/// Configurations under which every program must do the same. The heap is roomy in all of them; programs in a
/// squeezed heap are tests of their own.
pub const CONFIGURATIONS: [(&str, &str); 6] = [
    ("pingpong", "heap=128m,backend=pingpong"),
    ("art", "heap=128m,backend=art"),
    ("mprotect", "heap=128m,backend=mprotect"),
    ("stw", "heap=128m,backend=stw"),
    ("verify", "heap=128m,verify=true"),
    ("stress", "heap=128m,stress-every=20011"),
];
