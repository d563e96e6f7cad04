//! A thread that reads a program's file, expands it, or waits for the compiler is ended by `thread-terminate!` and by
//! Ctrl-C alike.
//!
//! The files are named pipes. So it is known how far a thread has come: a pipe can be opened for writing when somebody
//! reads from it, and no more when whoever did has all of it.

mod support;

use firn_scheme::port::{Stream, Streams};
use firn_scheme::vm::Outcome;
use firn_scheme::vm::load::Stopped;
use nix::errno::Errno;
use nix::sys::stat::Mode;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::time::Duration;
use support::interpreter;

/// How long an end may take. What is to be ended takes longer, or never ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a named pipe, and files that include it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let directory = Directory(
            std::env::temp_dir().join(format!("firn-termination-{name}-{}", std::process::id())),
        );
        std::fs::create_dir_all(&directory.0).expect("writable");
        nix::unistd::mkfifo(&directory.pipe(), Mode::S_IRWXU).expect("a directory for it");
        let files = [
            ("includes.scm", "(include \"pipe\")"),
            ("imports.scm", "(import (of pipes))"),
            (
                "of/pipes.sld",
                "(define-library (of pipes) (import (scheme base)) (include \"../pipe\"))",
            ),
            ("declares.sld", "(define-library (declares) (include-library-declarations \"pipe\"))"),
            ("declares.scm", "(import (declares))"),
            ("small.scm", "(define small 1)"),
        ];
        std::fs::create_dir_all(directory.0.join("of")).expect("writable");
        for (file, text) in files {
            std::fs::write(directory.0.join(file), text).expect("writable");
        }
        directory
    }

    fn pipe(&self) -> PathBuf {
        self.0.join("pipe")
    }

    /// An expression in which `DIR` stands for this directory.
    fn expression(&self, text: &str) -> String {
        text.replace("DIR", self.0.to_str().expect("UTF-8"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// All ways in which a file of program text comes to be read.
const WAYS: [&str; 6] = [
    "(eval '(include \"DIR/pipe\"))",
    "(eval '(let () (include-ci \"DIR/pipe\") 1))",
    "(load \"DIR/pipe\")",
    "(load \"DIR/includes.scm\")",
    "(load \"DIR/imports.scm\")",
    "(load \"DIR/declares.scm\")",
];

/// What comes out of the pipe.
#[derive(Clone, Copy)]
enum Supply<'t> {
    /// This, and nothing more.
    Whole(&'t str),
    /// Who reads waits for more.
    Endless,
}

/// Opens the pipe when somebody reads from it, and writes. It is closed with the result, or was already.
fn supply(pipe: &Path, supply: Supply<'_>) -> Option<File> {
    let mut writer = OpenOptions::new().write(true).open(pipe).expect("somebody reads");
    match supply {
        Supply::Endless => {
            writer.write_all(b"(define begun 1) (define").expect("somebody reads");
            Some(writer)
        }
        Supply::Whole(text) => {
            writer.write_all(text.as_bytes()).expect("somebody reads");
            drop(writer);
            let mut again = OpenOptions::new();
            again.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
            loop {
                match again.open(pipe) {
                    Ok(_) => std::thread::yield_now(),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(Errno::ENXIO as i32), "{error}");
                        return None;
                    }
                }
            }
        }
    }
}

/// What ends whoever reads.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// The program goes on when it is told that they have come so far, by a character of its input.
    ItsInput,
    CtrlC,
}

/// Runs a program that reads from the pipe; the value of its last form.
fn run(directory: &Directory, program: &str, given: Supply<'_>, by: By) -> Result<String, Stopped> {
    let program = directory.expression(program);
    let scheme = interpreter("heap=64m,backend=stw").expect("needs no userfaultfd");
    let world = scheme.world().clone();
    let (input, mut tells) = std::io::pipe().expect("pipes can be had");
    world.streams.replace(Streams::INPUT, Stream::file(File::from(OwnedFd::from(input))));
    let (sends, ended) = channel();
    let name = program.clone();
    // Whoever does not end is left behind: the test has failed then.
    std::thread::spawn(move || sends.send(scheme.eval_to_string(&program)));
    let _open = supply(&directory.pipe(), given);
    match by {
        By::ItsInput => tells.write_all(b"!").expect("the program reads it"),
        By::CtrlC => world.interrupted.store(true, Relaxed),
    }
    ended.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{name} does not end"))
}

/// A thread does `what`, and is terminated when the program is told to.
fn terminating(what: &str) -> String {
    format!(
        "(let ((t (thread-start! (make-thread (lambda () {what})))))
           (read-char)
           (thread-terminate! t)
           (guard (e ((terminated-thread-exception? e) 'ended)) (thread-join! t)))"
    )
}

fn all_ways_end(name: &str, given: Supply<'_>) {
    let directory = Directory::new(name);
    for way in WAYS {
        let ended = run(&directory, &terminating(way), given, By::ItsInput);
        assert_eq!(ended.expect("it has a value"), "ended", "{way}");
        let ended = run(&directory, way, given, By::CtrlC);
        assert!(
            matches!(ended, Err(Stopped::Outcome(Outcome::Interrupted))),
            "{way}: {:?}",
            ended.map(|value| value.chars().take(100).collect::<String>())
        );
    }
}

#[test]
fn a_thread_that_waits_for_the_text_of_a_file_can_be_ended() {
    all_ways_end("bytes", Supply::Endless);
}

/// The fraction takes hours.
#[test]
fn a_thread_that_reads_a_long_text_can_be_ended() {
    let digits = "7".repeat(3_000_000);
    all_ways_end("text", Supply::Whole(&format!("(define z '({digits}/{digits}1))")));
}

#[test]
fn a_thread_that_expands_a_macro_without_end_can_be_ended() {
    let macro_use = "(letrec-syntax ((m (syntax-rules () ((_ a) (m (a a)))))) (m 1))";
    let directory = Directory::new("macro");
    for way in &WAYS[..5] {
        let given = Supply::Whole(macro_use);
        let ended = run(&directory, &terminating(way), given, By::ItsInput);
        assert_eq!(ended.expect("it has a value"), "ended", "{way}");
    }
}

/// Only one thread compiles at a time. Who waits for that one is not kept by it.
#[test]
fn a_thread_that_waits_for_the_compiler_can_be_ended() {
    let directory = Directory::new("compiler");
    for waits in ["(eval '(list 1))", "(load \"DIR/small.scm\")"] {
        let program = format!(
            "(let* ((begun #f)
                    (start (lambda (thunk) (thread-start! (make-thread thunk))))
                    (end (lambda (t)
                           (thread-terminate! t)
                           (guard (e ((terminated-thread-exception? e) 'ended)) (thread-join! t))))
                    (compiles (start (lambda () {}))))
               (read-char)
               (let ((waits (start (lambda () (set! begun #t) {waits}))))
                 (let loop () (if (not begun) (begin (thread-yield!) (loop))))
                 (let ((ended (end waits))) (list ended (end compiles)))))",
            WAYS[0]
        );
        let ended = run(&directory, &program, Supply::Endless, By::ItsInput);
        assert_eq!(ended.expect("it has a value"), "(ended ended)", "{waits}");
    }
}
