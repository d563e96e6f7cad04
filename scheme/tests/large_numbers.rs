//! Operations on numbers of megabytes, and the reading of such: they can be interrupted, hold up no collection, and come to
//! what they should.

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

/// Nearly equal fractions of 38 million bits each, and texts of numbers in a string and in files.
const MORE: &str = "(define p (/ (+ x 2) x))
    (define q (/ (+ x 4) (+ x 2)))
    (define literal (string-append digits \"/\" digits \"1\"))
    (define (put file . texts)
      (call-with-output-file file
        (lambda (port) (for-each (lambda (text) (write-string text port)) texts))))";

/// So do these, which compare and read.
const READING_AND_COMPARING: [&str; 13] = [
    "(if (< p q) 'less 'more)",
    "(if (not (<= p q)) 'more 'less)",
    "(if (= q p) 'equal 'not)",
    "(if (> q p) 'more 'less)",
    "(apply < (list p q 7))",
    "(list (>= p q))",
    "(max 1 p q)",
    "(read (open-input-string digits))",
    "(read (open-input-string (string-append \"(#(1 2 \" literal \"))\")))",
    "(read (open-input-file \"DATA\"))",
    "(load \"DATA\")",
    "(eval '(include \"DATA\"))",
    "(string->number literal)",
];

/// Evaluates `operation` in the first thread. A second one collects twice while it is at it, says so, and the program is
/// interrupted. How it ended, and how long after that.
fn interrupted(scheme: &Interpreter, operation: &str) -> (Result<String, Stopped>, Duration) {
    let collector = "(thread-start! (make-thread (lambda ()
           (thread-sleep! 0.3) (gc) (gc) (display \"now\") (newline))))";
    let (mut said, says) = std::io::pipe().expect("pipes can be had");
    let streams = &scheme.world().streams;
    streams.replace(Streams::OUTPUT, Stream::output(Box::new(says), true));
    std::thread::scope(|threads| {
        let interrupts = threads.spawn(|| {
            let mut word = [0; 3];
            said.read_exact(&mut word).expect("it says something");
            let now = Instant::now();
            scheme.world().interrupted.store(true, Relaxed);
            (word, now, said)
        });
        scheme.eval_to_string(collector).expect("a thread can be had");
        let ended = scheme.eval_to_string(operation);
        let end = Instant::now();
        let (word, began, _said) = interrupts.join().expect("it does not panic");
        assert_eq!(&word, b"now", "{}", named(operation));
        scheme.stop_threads();
        streams.replace(Streams::OUTPUT, Stream::output(Box::new(std::io::sink()), false));
        scheme.world().interrupted.store(false, Relaxed);
        assert!(end > began, "{} was through before", named(operation));
        (ended, end.duration_since(began))
    })
}

/// What is interrupted, for messages: it may be a text of megabytes.
fn named(operation: &str) -> &str {
    &operation[..operation.len().min(100)]
}

/// Each of the operations is interrupted. The longest piece takes some 20 ms, without optimization and beside other work
/// some more; the operations take much longer.
fn all_are_interrupted<T: AsRef<str>>(definitions: &[&str], operations: &[T]) {
    for backend in ["stw", "pingpong"] {
        let options = format!("heap=512m,backend={backend}");
        let Some(scheme) = interpreter(&options) else { continue };
        for definition in definitions {
            scheme.eval_to_string(definition).expect("there is room");
        }
        for operation in operations {
            let operation = operation.as_ref();
            let (ended, after) = interrupted(&scheme, operation);
            let is_interrupted = matches!(ended, Err(Stopped::Outcome(Outcome::Interrupted)));
            let name = named(operation);
            assert!(is_interrupted, "{name}: {:?}", ended.as_deref().map(named));
            assert!(after < Duration::from_secs(2), "{name} took {after:?} to end");
        }
        // The same interpreter goes on.
        assert_eq!(scheme.eval_to_string("(* 6 7)").ok().as_deref(), Some("42"));
    }
}

#[test]
fn ctrl_c_ends_one_operation_and_collections_go_on_during_it() {
    all_are_interrupted(&[NUMBERS], &OPERATIONS);
}

/// A file for a test, which goes away with it.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        Temporary(std::env::temp_dir().join(format!("firn-{name}-{}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn ctrl_c_ends_what_is_read_and_compared_and_collections_go_on_meanwhile() {
    let file = Temporary::new("literal");
    let name = file.0.to_str().expect("UTF-8");
    let data = format!("(put {name:?} \"(define z (quote (1 2 \" literal \")))\")");
    let mut operations = READING_AND_COMPARING.map(|text| text.replace("DATA", name)).to_vec();
    // Texts of programs.
    let digits = "7".repeat(10_000_000);
    operations.push(digits.clone());
    operations.push(format!("(define z '({digits}/{digits}1))"));
    operations.push("#e1e900000 #e1.5e-900000 ".repeat(1000));
    all_are_interrupted(&[NUMBERS, MORE, &data], &operations);
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
              (= p (read (open-input-string t)))
              (string=? (string-append \"|\" t \"|\")
                        (call-with-output-string (lambda (port) (write (string->symbol t) port)))))
        (define n (expt 6 18000))
        (define m (* 35 (expt 10 7000)))
        (same (= (gcd n m) (expt 2 7000)) (= (* (gcd n m) (lcm n m)) (* n m))
              (= (numerator (/ n m)) (/ n (expt 2 7000)))
              (= (- (+ (/ n m) (/ m n)) (/ n m)) (/ m n))
              (< (/ n m) (/ (+ n 1) m)) (not (< (/ n (+ m 1)) (/ n (+ m 2)))))
        (define-values (v w z) (values (/ (+ a 3) (+ a 1)) (/ (+ a 5) (+ a 3)) (/ (+ a 7) (+ a 5))))
        (same (if (< w v) #t #f) (if (< v w) #f #t) (if (<= v v) #t #f) (if (<= v w) #f #t) (if (> v w) #t #f)
              (if (not (>= v w)) #f #t) (if (= v w) #f #t) (if (not (= v w)) #t #f) (if (and (< w v) (< z w)) #t #f)
              (< z w v 2) (not (< w z v)) (not (apply = (list v v w))) (apply > (list v w z))
              (eqv? (max 1 w v z) v) (eqv? (min 2 w v z) z) (eqv? (max 1.0 w v) 1.0) (nan? (max v w +nan.0))
              (< (- v) (- w)) (if (< (- w) (- v)) #f #t))
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
        assert_eq!(lines[..6], ["same"; 6]);
        assert!(lines[6].starts_with("modulo: division by zero: #<number of "), "{}", lines[6]);
        assert!(lines[7].starts_with("/: division by zero: #<number of "), "{}", lines[7]);
        for (line, name) in [(8, "*"), (9, "*"), (10, "expt")] {
            assert_eq!(lines[line], format!("{name}: the result has too many digits"));
        }
        assert_eq!(lines[11], "string->number: radix (2 to 36) out of range: 99");
        assert_eq!(lines[12], "number->string: not a number: a");
    }
}

/// Data of all lengths around what is read at once, from strings, files and programs, beside each other and with numbers that
/// take long in them; and what is wrong with such, and where.
#[test]
fn long_data_are_read_as_short_ones_are() {
    let file = Temporary::new("data");
    let text = r##"(define n (expt 7 300000))
        (define digits (number->string n))
        (define (text object) (call-with-output-string (lambda (port) (write object port))))
        (define (list-of size) (map (lambda (i) (if (even? i) i (string->symbol (number->string i 7)))) (iota size)))
        (define data (list n (list-of 9000) 'short (list-of 60000) (vector n (/ 1 n) "λ") (make-string 65536 #\λ) (- n) "end"))
        (define all (apply string-append (map (lambda (datum) (string-append (text datum) "
")) data)))
        (define (read-all port)
          (let ((datum (read port))) (if (eof-object? datum) '() (cons datum (read-all port)))))
        (define (put file . texts)
          (call-with-output-file file (lambda (port) (for-each (lambda (text) (write-string text port)) texts))))
        (define (show x) (display x) (newline))
        (show (equal? (read-all (open-input-string all)) data))
        (put FILE all)
        (show (equal? (call-with-input-file FILE read-all) data))
        (put FILE "(define literal '(" all "))")
        (load FILE)
        (show (equal? literal data))
        (define literal #f)
        (eval '(include FILE) (interaction-environment))
        (show (equal? (eval 'literal (interaction-environment)) data))
        (define zeros (make-string 200000 #\0))
        (show (equal? (read (open-input-string (string-append "#u8(1 " zeros "7 #e2e-0 #e10e" zeros ")"))) #u8(1 7 2 10)))
        (define wrongs (list (string-append "
(" digits "
  )) ") (string-append "

(" digits " #(1 . 2)) more")
                             (string-append "#e" digits "e9999999 more") (string-append "(1 " digits)
                             (string-append "(#u8(1 #e1e5000) " digits ")") (string-append digits " " digits "x/ #e1/0")))
        (define (what port)
          (guard (e ((read-error? e) (condition-report-string e)))
            (let ((datum (read port))) (if (eof-object? datum) 'end (begin (if (eqv? datum n) 'number 'datum))))))
        (define (first-of text) (if (string? text) (substring text 0 (min 76 (string-length text))) text))
        (for-each (lambda (wrong)
                    (put FILE wrong)
                    (let* ((string (open-input-string wrong)) (file (open-input-file FILE))
                           (one (what string)) (two (what string)) (three (what file)) (four (what file)))
                      (show (list (equal? one three) (equal? two four) (first-of one) (first-of two)))))
          wrongs)
        (for-each (lambda (form)
                    (put FILE "#e" digits "e9999999 more")
                    (show (guard (e (#t (string-length (condition-report-string e)))) (eval form))))
          '((load FILE) (include FILE)))"##;
    let name = file.0.to_str().expect("UTF-8");
    let text = text.replace("FILE", &format!("{name:?}"));
    for options in ["heap=256m", "heap=256m,backend=stw"] {
        let Some(done) = run(options, &text, "data.scm", &[], "") else { continue };
        let lines: Vec<&str> = done.output.lines().collect();
        assert_eq!(done.exit, 0, "{}", done.errors);
        assert_eq!(lines[..5], ["#t"; 5]);
        assert_eq!(lines[5..], WRONG);
    }
}

const WRONG: [&str; 8] = [
    "(#t #t datum read: line 3, column 4: this parenthesis closes nothing)",
    "(#t #t read: line 3, column 253537: a dot stands only before the last element of a  datum)",
    "(#t #t read: line 1, column 1: #e25822856215547727292960222510526166360381028809565 datum)",
    "(#t #t read: line 1, column 1: the parenthesis that opens here is never closed end)",
    "(#t #t read: line 1, column 8: a bytevector holds exact integers from 0 to 255 read: line 1, column 16: this parenthesis closes nothing)",
    "(#t #t number datum)",
    "2000",
    "2000",
];

/// Dividing them again and again takes tens of thousands of steps.
#[test]
fn fractions_that_are_neighbours_in_a_series_of_convergents_are_compared() {
    let text = "(define (numbers n)
          (let loop ((a 0) (b 1) (n n)) (if (= n 0) (list a b (+ a b)) (loop b (+ a b) (- n 1)))))
        (define (show n)
          (let* ((f (numbers n)) (p (/ (cadr f) (car f))) (q (/ (caddr f) (cadr f))))
            (display (list (if (< p q) '< '>=) (if (= p q) '= '/=) (> p q) (max p q 1)))))
        (show 2) (show 3)
        (define (order n)
          (let* ((f (numbers n)) (p (/ (cadr f) (car f))) (q (/ (caddr f) (cadr f)))) (display (list (< p q) (> p q)))))
        (order 20000) (order 20001)";
    let done = run("heap=64m,backend=stw", text, "large.scm", &[], "").expect("no userfaultfd");
    let wanted = "(>= /= #t 2)(< /= #f 5/3)(#f #t)(#t #f)";
    assert_eq!((done.output.as_str(), done.errors.as_str()), (wanted, ""));
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
