//! Operations on numbers of megabytes: they can be interrupted, hold up no collection, and come to what they should.

mod support;

use firn_scheme::Interpreter;
use firn_scheme::port::{Stream, Streams};
use firn_scheme::vm::Outcome;
use firn_scheme::vm::load::Stopped;
use std::io::Read;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use support::{interpreter, run};

/// Numbers of 19 and 38 million bits, without regularities that would make any operation on them a quick one, and a text of
/// 10 million digits.
const NUMBERS: &str = "(define x (expt 3 12000000))
    (define y (- (* x (+ x 2)) 5))
    (define digits (make-string 10000000 #\\7))";

/// Each takes seconds to hours.
const OPERATIONS: [&str; 18] = [
    "(* x x)",
    "(square x)",
    "(apply * (list x 3 x))",
    "(expt 7 20000000)",
    "(quotient y x)",
    "(remainder y x)",
    "(modulo y x)",
    "(exact-integer-sqrt y)",
    "(sqrt y)",
    "(gcd x y)",
    "(lcm x (+ x 2))",
    "(/ y x)",
    "(number->string x)",
    "(string->number digits)",
    "(write x (open-output-string))",
    "(display (list 1 x 2))",
    "(apply + (map (lambda (i) (/ 1 (+ i 1))) (iota 100000)))",
    "(rationalize (/ (- (expt 3 300000) 2) (expt 2 450000)) (/ 1 (expt 5 180000)))",
];

/// Runs `operation` in the first thread. A second one collects twice while it is at it, says so, and the program is
/// interrupted. How it ended, and how long after that.
fn interrupted(scheme: &Interpreter, operation: &str) -> (Result<String, Stopped>, Duration) {
    let text = format!(
        "(thread-start! (make-thread (lambda ()
           (thread-sleep! 0.3) (gc) (gc) (display \"now\") (newline))))
         {operation}
         (display \"through\") (newline)"
    );
    let (mut said, says) = std::io::pipe().expect("pipes can be had");
    let streams = &scheme.world().streams;
    streams.replace(Streams::OUTPUT, Stream::output(Box::new(says), true));
    std::thread::scope(|threads| {
        let interrupts = threads.spawn(|| {
            let mut word = [0; 3];
            said.read_exact(&mut word).expect("it says something");
            assert_eq!(&word, b"now", "{operation} was through before");
            let now = Instant::now();
            scheme.world().interrupted.store(true, Relaxed);
            (now, said)
        });
        let ended = scheme.eval_to_string(&text);
        let end = Instant::now();
        let (began, _said) = interrupts.join().expect("it does not panic");
        scheme.stop_threads();
        streams.replace(Streams::OUTPUT, Stream::output(Box::new(std::io::sink()), false));
        scheme.world().interrupted.store(false, Relaxed);
        (ended, end.duration_since(began))
    })
}

/// The longest piece takes some 20 ms, without optimization and beside other work some more; the operations take much
/// longer.
#[test]
fn ctrl_c_ends_one_operation_and_collections_go_on_during_it() {
    for backend in ["stw", "pingpong"] {
        let options = format!("heap=512m,backend={backend}");
        let Some(scheme) = interpreter(&options) else { continue };
        scheme.eval_to_string(NUMBERS).expect("there is room");
        for operation in OPERATIONS {
            let (ended, after) = interrupted(&scheme, operation);
            let is_interrupted = matches!(ended, Err(Stopped::Outcome(Outcome::Interrupted)));
            assert!(is_interrupted, "{operation}: {ended:?}");
            assert!(after < Duration::from_secs(2), "{operation} took {after:?} to end");
        }
        // The same interpreter goes on.
        assert_eq!(scheme.eval_to_string("(* 6 7)").ok().as_deref(), Some("42"));
    }
}

#[test]
fn a_thread_that_computes_can_be_ended() {
    let text = format!(
        "{NUMBERS}
         (define t (thread-start! (make-thread (lambda () (gcd x y)))))
         (thread-sleep! 0.2)
         (thread-terminate! t)
         (display (guard (e ((terminated-thread-exception? e) 'ended)) (thread-join! t)))"
    );
    let done = run("heap=512m,backend=stw", &text, "large.scm", &[], "").expect("no userfaultfd");
    assert_eq!((done.output.as_str(), done.errors.as_str()), ("ended", ""));
}

#[test]
fn results_are_what_the_laws_of_arithmetic_say() {
    let text = "(define a (+ (expt 3 700000) 17))
        (define b (- (expt 7 250000) 5))
        (define p (* a b))
        (define (same . truths) (display (if (memq #f truths) truths 'same)) (newline))
        (same (= (quotient p b) a) (= (quotient (- p 1) b) (- a 1)) (= (remainder p b) 0)
              (= (+ (* (quotient a b) b) (remainder a b)) a)
              (= (+ (* (floor-quotient a b) b) (modulo a b)) a)
              (= (* (+ a b) (- a b)) (- (* a a) (* b b)))
              (= (expt a 3) (* a a a) (apply * (list a a a))))
        (call-with-values (lambda () (exact-integer-sqrt (+ (* a a) a)))
          (lambda (root rest) (same (= root a) (= rest a))))
        (same (eqv? (sqrt (* b b)) b) (= (quotient (- p) b) (- a)) (= (modulo (- 1 p) b) 1) (= (modulo (- p 1) (- b)) -1))
        (define t (number->string p))
        (same (= (string->number t) p) (= (string->number (number->string (- p))) (- p)) (= (string->number (number->string p 7) 7) p)
              (= (string->number (string-append \"1/\" t)) (/ p))
              (string=? t (call-with-output-string (lambda (port) (display p port))))
              (string=? (string-append \"(\" t \" \" t \" . #(1 \" t \"))\")
                        (call-with-output-string (lambda (port) (write (cons p (cons p (vector 1 p))) port))))
              (= p (read (open-input-string t))))
        (define n (expt 6 18000))
        (define m (* 35 (expt 10 7000)))
        (same (= (gcd n m) (expt 2 7000)) (= (* (gcd n m) (lcm n m)) (* n m))
              (= (numerator (/ n m)) (/ n (expt 2 7000)))
              (= (- (+ (/ n m) (/ m n)) (/ n m)) (/ m n))
              (< (/ n m) (/ (+ n 1) m)) (not (< (/ n (+ m 1)) (/ n (+ m 2)))))
        (define-syntax message
          (syntax-rules () ((_ e) (begin (display (guard (x (#t (condition-report-string x))) e 'none)) (newline)))))
        (message (modulo p 0))
        (message (/ p 0))
        (message (let ((huge (arithmetic-shift 1 40000000))) (* huge huge)))
        (message (let ((huge (arithmetic-shift 1 40000000))) (apply * (list huge 3 huge))))
        (message (expt p 1000))
        (message (string->number t 99))
        (message (number->string 'a))";
    for options in ["heap=256m", "heap=256m,backend=stw"] {
        let Some(done) = run(options, text, "large.scm", &[], "") else { continue };
        let lines: Vec<&str> = done.output.lines().collect();
        assert_eq!(done.exit, 0, "{}", done.errors);
        assert_eq!(lines[..5], ["same"; 5]);
        assert!(lines[5].starts_with("modulo: division by zero: #<number of "), "{}", lines[5]);
        assert!(lines[6].starts_with("/: division by zero: #<number of "), "{}", lines[6]);
        for (line, name) in [(7, "*"), (8, "*"), (9, "expt")] {
            assert_eq!(lines[line], format!("{name}: the result has too many digits"));
        }
        assert_eq!(lines[10], "string->number: radix (2 to 36) out of range: 99");
        assert_eq!(lines[11], "number->string: not a number: a");
    }
}

#[test]
fn a_result_that_the_heap_has_no_room_for_is_the_end_of_memory() {
    let text = "(define x (arithmetic-shift 1 16000000))
        (define (full list) (guard (e (#t list)) (full (cons (make-vector 1000 0) list))))
        (define all (list (full '())))
        (display (guard (e ((error-object? e) (error-object-message e))) (* (+ x 1) (- x 1)) 'made))
        (set! all #f)
        (display (guard (e ((error-object? e) (error-object-message e))) (* (+ x 1) (- x 1)) 'made))";
    for backend in ["stw", "pingpong"] {
        let options = format!("heap=32m,backend={backend}");
        let Some(done) = run(&options, text, "large.scm", &[], "") else { continue };
        assert_eq!((done.output.as_str(), done.exit), ("out of memorymade", 0), "{}", done.errors);
    }
}
