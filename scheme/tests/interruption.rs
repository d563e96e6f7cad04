//! Ctrl-C ends a program whatever it waits for, and so does the end of a thread.

mod support;

use firn_scheme::port::{Stream, Streams};
use firn_scheme::vm::Outcome;
use firn_scheme::vm::load::Stopped;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use support::interpreter;

/// Runs a program that says something before it waits for ever, and interrupts it then.
fn interrupted(text: &str) -> Result<(), Stopped> {
    let scheme = interpreter("heap=32m,backend=stw").expect("needs no userfaultfd");
    // Nobody ever writes to the one, and the other is how the program says that it is about to wait.
    let (silent, _keep_open) = std::io::pipe().expect("pipes can be had");
    let (mut said, says) = std::io::pipe().expect("pipes can be had");
    let streams = &scheme.world().streams;
    streams.replace(Streams::INPUT, Stream::file(File::from(OwnedFd::from(silent))));
    streams.replace(Streams::OUTPUT, Stream::output(Box::new(says), true));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let _ = said.read(&mut [0; 1]);
            scheme.world().interrupted.store(true, Relaxed);
        });
        let ended = scheme.with(|vm| vm.run_program(text, "interruption.scm"));
        scheme.world().interrupted.store(true, Relaxed);
        scheme.stop_threads();
        // The other thread hears no more.
        streams.replace(Streams::OUTPUT, Stream::output(Box::new(std::io::sink()), false));
        ended.expect("there is room")
    })
}

#[test]
fn ctrl_c_ends_whatever_a_program_waits_for() {
    let waits = [
        "(read-line)",
        "(read-char)",
        "(read)",
        "(thread-sleep! 1000)",
        "(let ((m (make-mutex))) (mutex-lock! m) (mutex-lock! m))",
        "(let ((m (make-mutex))) (mutex-lock! m) (mutex-unlock! m (make-condition-variable)))",
        "(thread-join! (thread-start! (make-thread (lambda () (read-char)))))",
        "(let loop () (loop))",
        "(let loop () (make-vector 100 0) (loop))",
        "(let loop () (make-vector 100000 0) (loop))",
        "(let loop () (gc) (loop))",
        "(let loop ((l '())) (loop (cons 1 (if (pair? l) '() l))))",
        "(letrec-syntax ((m (syntax-rules () ((_ a) (m (a a)))))) (m 1))",
    ];
    for wait in waits {
        let ended = interrupted(&format!("(display 'now) (newline) {wait}"));
        assert!(matches!(ended, Err(Stopped::Outcome(Outcome::Interrupted))), "{wait}: {ended:?}");
    }
}

#[test]
fn a_thread_that_waits_for_input_can_be_ended() {
    let ended = interrupted(
        "(define reader (thread-start! (make-thread (lambda () (read-char)))))
         (thread-terminate! reader)
         (guard (e ((terminated-thread-exception? e) (display 'ended) (newline))) (thread-join! reader))
         (let loop () (loop))",
    );
    assert!(matches!(ended, Err(Stopped::Outcome(Outcome::Interrupted))), "{ended:?}");
}

#[test]
fn a_thread_can_end_the_program() {
    for wait in ["(let loop () (loop))", "(read-line)", "(thread-sleep! 1000)", "(thread-join! t)"]
    {
        let ended = interrupted(&format!(
            "(define t (thread-start! (make-thread (lambda ()
               (dynamic-wind (lambda () #f) (lambda () (thread-sleep! 0.01) (exit 9)) (lambda () #f))))))
             {wait}"
        ));
        assert!(matches!(ended, Err(Stopped::Outcome(Outcome::Quit(9)))), "{wait}: {ended:?}");
    }
}
