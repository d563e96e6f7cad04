//! Ports on files and pipes: what is lost is closed, nobody who waits holds up the collector, failures are told, and
//! input without an end does not end the process.

mod support;

use firn_scheme::port::{Stream, Streams};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;
use support::{interpreter, run};

const HEAP: &str = "heap=32m,backend=stw";

/// Runs a program that must end well, and returns what it printed.
fn prints(options: &str, text: &str) -> String {
    let run = run(options, text, "ports.scm", &[], "").expect("needs no userfaultfd");
    assert_eq!(run.exit, 0, "{}\n{}", run.output, run.errors);
    run.output
}

/// A file that goes away in the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        Temporary(std::env::temp_dir().join(format!("firn-{name}-{}", std::process::id())))
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn descriptors_of(path: &std::path::Path) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").expect("Linux").flatten();
    all.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == path)).count()
}

#[test]
fn ports_that_nothing_holds_are_written_out_and_closed() {
    let file = Temporary::new("lost");
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    let text = format!(
        "(define (lose i) (if (< i 100) (begin (write 'kept (open-output-file {0:?})) (lose (+ i 1)))))
         (lose 0)
         (define held (open-input-file {0:?}))
         (gc)
         (close-port (open-input-file \"/dev/null\"))
         (display (list (input-port-open? held) (read held)))",
        file.name()
    );
    let run = support::run_with(&scheme, &text, "ports.scm", &[], "");
    assert_eq!((run.exit, run.output.as_str()), (0, "(#t kept)"), "{}", run.errors);
    // One is held.
    assert_eq!(descriptors_of(&file.0), 1);
}

#[test]
fn a_pipe_that_nobody_opens_at_the_other_end_does_not_hold_up_the_collector() {
    let pipe = Temporary::new("pipe");
    nix::unistd::mkfifo(&pipe.0, nix::sys::stat::Mode::S_IRWXU).expect("a directory for it");
    let program = |open: &str| {
        format!(
            "(define before #f)
             (define t (thread-start! (make-thread (lambda () (set! before #t) ({open} {:?})))))
             (let wait () (if (not before) (begin (thread-yield!) (wait))))
             (thread-sleep! 0.05)
             (gc)
             (thread-terminate! t)
             (display (guard (e ((terminated-thread-exception? e) 'ended)) (input-port? (thread-join! t))))",
            pipe.name()
        )
    };
    assert_eq!(prints(HEAP, &program("open-output-file")), "ended");
    // For reading it is opened; what waits is the reader.
    assert_eq!(prints(HEAP, &program("open-input-file")), "#t");
    assert_eq!(
        prints(
            HEAP,
            &program("call-with-input-file* ").replace(
                "call-with-input-file* ",
                "(lambda (name) (read-line (open-input-file name)))"
            )
        ),
        "ended"
    );
    // And with somebody at the other end it is an ordinary file. (Another one: a thread that has just ended may still
    // have the first one open, and what is written for it goes with it.)
    let pipe = Temporary::new("pipe-with-a-writer");
    nix::unistd::mkfifo(&pipe.0, nix::sys::stat::Mode::S_IRWXU).expect("a directory for it");
    let writer = {
        let path = pipe.0.clone();
        std::thread::spawn(move || File::options().write(true).open(path)?.write_all(b"line\nrest"))
    };
    let text = format!(
        "(define p (open-input-file {:?})) (write (list (read-line p) (read-line p) (eof-object? (read-line p))))",
        pipe.name()
    );
    assert_eq!(prints(HEAP, &text), "(\"line\" \"rest\" #t)");
    writer.join().expect("it does not panic").expect("somebody reads");
}

#[test]
fn a_reader_that_does_not_read_does_not_hold_up_the_collector() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    let (mut reader, writer) = std::io::pipe().expect("pipes can be had");
    // By lines, as to a terminal.
    scheme.world().streams.replace(Streams::OUTPUT, Stream::output(Box::new(writer), true));
    let heap = scheme.world().heap.clone();
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let text = "(let loop ((i 0)) (if (< i 3000) (begin (display (make-string 99 #\\x)) (newline) (loop (+ i 1)))))";
            let ended = scheme.with(|vm| vm.run_program(text, "ports.scm"));
            ended.expect("there is room").expect("the program is right");
            scheme.world().streams.flush_all();
            scheme.world().streams.replace(Streams::OUTPUT, Stream::output(Box::new(std::io::sink()), false));
        });
        threads.spawn(move || {
            // The first byte says that it has begun to write; a pipe is full after some 64 KiB.
            let mut all = vec![0];
            reader.read_exact(&mut all).expect("something is written");
            for _ in 0..3 {
                heap.collect();
            }
            done.send(()).expect("it is waited for");
            reader.read_to_end(&mut all).expect("readable");
            assert_eq!(all.len(), 300_000);
        });
        let collected = is_done.recv_timeout(Duration::from_secs(60));
        assert!(collected.is_ok(), "the collector waits for a writer");
    });
}

#[test]
fn what_cannot_be_written_is_a_file_error() {
    let text = "(define (try thunk) (display (guard (e ((file-error? e) 'error)) (thunk) 'none)) (newline))
        (define p (open-output-file \"/dev/full\"))
        (display \"x\" p)
        (try (lambda () (flush-output-port p)))
        (try (lambda () (call-with-output-file \"/dev/full\" (lambda (p) (display \"x\" p)))))
        (try (lambda () (let loop () (display \"xxxxxxxxxxxxxxxx\" p) (loop))))";
    assert_eq!(prints(HEAP, text), "error\nerror\nerror\n");
}

#[test]
fn input_that_never_ends_a_line_ends_as_a_condition() {
    for reading in ["(read-line p)", "(read p)", "(read-string 1000000000 p)"] {
        let text = format!(
            "(define p (open-input-file \"/dev/zero\"))
             (display (guard (e ((error-object? e) 'condition)) {reading} 'read))"
        );
        assert_eq!(prints(HEAP, &text), "condition", "{reading}");
    }
    let text = "(define p (open-binary-input-file \"/dev/zero\"))
        (display (guard (e ((error-object? e) 'condition)) (read-bytevector 100000000000 p) 'read))";
    assert_eq!(prints(HEAP, text), "condition");
}

#[test]
fn a_character_is_ready_when_all_of_it_is_there() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    let (reader, mut writer) = std::io::pipe().expect("pipes can be had");
    scheme.world().streams.replace(Streams::INPUT, Stream::file(File::from(OwnedFd::from(reader))));
    let answer = |text: &str| scheme.eval_to_string(text).expect("it is right");
    assert_eq!(answer("(char-ready?)"), "#f");
    writer.write_all(&"λ".as_bytes()[..1]).expect("it is read");
    assert_eq!(answer("(char-ready?)"), "#f");
    writer.write_all(&"λ".as_bytes()[1..]).expect("it is read");
    assert_eq!(answer("(list (char-ready?) (read-char) (char-ready?))"), "(#t #\\λ #f)");
    // The end in the middle of a character: it is none, and there is nothing more to wait for.
    writer.write_all(&"λ".as_bytes()[..1]).expect("it is read");
    drop(writer);
    assert_eq!(
        answer("(list (char-ready?) (read-char) (eof-object? (read-char)))"),
        "(#t #\\\u{fffd} #t)"
    );
}

#[test]
fn a_port_may_be_closed_again_and_says_that_it_is_closed() {
    let text = "(define p (open-input-file \"/dev/null\"))
        (define (try thunk) (display (guard (e ((error-object? e) (error-object-message e))) (thunk))) (newline))
        (close-port p) (close-port p) (close-input-port p)
        (try (lambda () (read-char p))) (try (lambda () (read-line p))) (try (lambda () (read p)))
        (try (lambda () (char-ready? p))) (try (lambda () (close-output-port p)))
        (define o (open-output-bytevector)) (write-u8 1 o) (close-port o) (close-output-port o)
        (try (lambda () (write-u8 1 o))) (display (get-output-bytevector o))";
    let wanted = "read-char: the port is closed\nread-line: the port is closed\nread: the port is closed\n\
        char-ready?: the port is closed\nclose-output-port: not an output port\nwrite-u8: the port is closed\n#u8(1)";
    assert_eq!(prints(HEAP, text), wanted);
}
