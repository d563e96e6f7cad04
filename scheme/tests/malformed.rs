//! Programs that are wrong end with an error that says where, and with an exit code; they never bring the process
//! down. Programs that ask for too much get a condition that they can handle.

mod support;

use support::{interpreter, run_with};

const HEAP: &str = "heap=64m,backend=stw";

/// Wrong texts: each ends with a syntax error.
const WRONG_SYNTAX: &[&str] = &[
    "(display -1.0-0.5i)",
    "'+i",
    "(list 1@2)",
    "(display 1",
    "(display (list 1 2)",
    ")",
    "(display 1))",
    "(display '(1 . ))",
    "(display '(1 . 2 3))",
    "(display '( . 1))",
    "(display \"never closed)",
    "(display '|never closed)",
    "#| never closed",
    "(display #\\notacharacter)",
    "(display #u8(1 256))",
    "(display #u8(a))",
    "(display \"\\q\")",
    "(display \"\\xzz;\")",
    "(display \"\\x110000;\")",
    "#",
    "#<unreadable>",
    "(display '#0#)",
    "(display '(#1=a #2#))",
    "#!no-such-directive 1",
    "#;",
    "(if)",
    "(if 1 2 3 4)",
    "(quote)",
    "(quote 1 2)",
    "(lambda)",
    "(lambda (x))",
    "(lambda (1) 2)",
    "(lambda (x x) x)",
    "(lambda (x . 5) x)",
    "(let ((x)) x)",
    "(let ((x 1 2)) x)",
    "(let ((1 2)) 3)",
    "(let x)",
    "(let ((x 1) (x 2)) x)",
    "(let* ((x)) x)",
    "(letrec ((x)) x)",
    "(let-values ((x)) x)",
    "(define)",
    "(define 5 6)",
    "(define x 1 2)",
    "(set!)",
    "(set! x)",
    "(set! 5 6)",
    "(begin . 1)",
    "(cond (else))",
    "(cond)",
    "(case)",
    "(case 1 (2 3))",
    "(do ((i 0)) )",
    "(do 5)",
    "(named-lambda)",
    "(let loop)",
    "(define-syntax)",
    "(define-syntax x 5)",
    "(define-syntax x (syntax-rules))",
    "(define-syntax x (syntax-rules () ((_ a ... b ...) 1)))",
    "(define-syntax x (syntax-rules () ((_ a a) 1)))",
    "(define-syntax x (syntax-rules () ((_ a) (a ...)))) (x 1)",
    "(define-syntax x (syntax-rules () ((_ a ...) a))) (x 1 2)",
    "(define-syntax x (syntax-rules () ((_ a) a))) (x)",
    "(define-syntax x (syntax-rules () ((_ a) a))) x",
    "(let-syntax ((x)) 1)",
    "(define-record-type)",
    "(define-record-type x (make a) x? (b get-b))",
    "(guard)",
    "(parameterize ((x)) 1)",
    "(quasiquote)",
    "(syntax-error \"by the program\" 1 2)",
    "(import (no such library))",
    "(import (only (scheme base) no-such-name))",
    "(import)x)",
    "(define-library)",
    "(cond-expand (no-such-feature 1))",
    "else",
    "(else)",
    "(=> 1)",
    "()",
    "(1 . 2)",
    "(display . 5)",
    "(car . (1 . 2))",
    "(include \"/no/such/file.scm\")",
];

/// Programs that go wrong when they run.
const WRONG_PROGRAMS: &[&str] = &[
    "(car 5)",
    "(cdr '())",
    "(vector-ref (vector 1 2) 2)",
    "(vector-ref (vector 1 2) -1)",
    "(vector-ref '(1) 0)",
    "(string-ref \"abc\" 3)",
    "(no-such-procedure 1)",
    "no-such-variable",
    "(set! no-such-variable 1)",
    "(5 5)",
    "(\"text\")",
    "((lambda (x) x))",
    "((lambda (x) x) 1 2)",
    "(define (f x) x) (f)",
    "(car)",
    "(car 1 2)",
    "(cons 1)",
    "(+ 'a 1)",
    "(+ 1 \"2\")",
    "(< 1 'x)",
    "(/ 1 0)",
    "(modulo 5 0)",
    "(exact +nan.0)",
    "(sqrt 'x)",
    "(string-append \"a\" 5)",
    "(symbol->string 5)",
    "(list->string '(1 2))",
    "(integer->char -1)",
    "(integer->char #xD800)",
    "(length '(1 . 2))",
    "(reverse 'x)",
    "(list-tail '(1 2) 3)",
    "(apply + 1)",
    "(apply + '(1 . 2))",
    "(map car '(1 2))",
    "(hash-table-ref)",
    "(raise 'oops)",
    "(raise (list 1 2 3))",
    "(error \"my message\" 1 2 3)",
    "(with-exception-handler (lambda (e) 1) (lambda () (raise 'x)))",
    "(letrec ((a b) (b 1)) a)",
    "(call-with-values (lambda () (values 1 2)) (lambda (a) a))",
    "(open-input-file \"/no/such/file\")",
    "(delete-file \"/no/such/file\")",
    "(read (open-input-string \"(1 2\"))",
    "(read-u8 (open-input-string \"x\"))",
    "(let ((p (open-input-string \"x\"))) (close-port p) (read-char p))",
    "(utf8->string (bytevector 255 254))",
    "(bytevector-u8-set! (bytevector 1) 0 256)",
    "(let-values (((a b) (values 1))) a)",
    "(make-vector -1)",
    "(make-vector 'a)",
    "(make-string 3 5)",
    "(list-set! (list 1) 1 2)",
    "(eval '(if) (environment '(scheme base)))",
    "(eval 'unbound-in-eval (environment '(scheme base)))",
    "(dynamic-wind 1 2 3)",
    "(call/cc 5)",
    "(force (delay (car 1)))",
    "(parameterize ((5 1)) 1)",
    "(string->symbol 5)",
    "(char-upcase \"a\")",
    "(exact->inexact 'a)",
    "(number->string 1 1)",
    "(expt 0 -1)",
    "(exact-integer-sqrt -1)",
    "(vector-copy! (vector 1) 0 (vector 1 2))",
];

/// A location in the program: `file:line`.
fn has_location(message: &str) -> bool {
    message
        .match_indices("wrong.scm:")
        .any(|(at, name)| message[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

#[test]
fn wrong_texts_end_with_a_located_error() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    for text in WRONG_SYNTAX {
        let run = run_with(&scheme, text, "wrong.scm", &[], "");
        assert_ne!(run.exit, 0, "{text} printed {}", run.output);
        assert!(has_location(&run.errors), "{text}: {}", run.errors);
    }
}

#[test]
fn wrong_programs_end_with_a_located_error() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    for text in WRONG_PROGRAMS {
        // On the second line, and not in tail position, so that there is a frame to tell of.
        let program = format!("(define ignored 0)\n(begin {text} ignored)\n");
        let run = run_with(&scheme, &program, "wrong.scm", &[], "");
        assert_ne!(run.exit, 0, "{text} printed {}", run.output);
        assert!(run.errors.contains("wrong.scm:2"), "{text}: {}", run.errors);
    }
}

#[test]
fn a_call_trace_names_the_procedures() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    let text = "(define (inner x)\n  (+ 1 (car x)))\n(define (outer x)\n  (+ 1 (inner x)))\n(display (outer 5))\n";
    let run = run_with(&scheme, text, "wrong.scm", &[], "");
    for part in ["car", "inner", "outer", "wrong.scm:2", "wrong.scm:4"] {
        assert!(run.errors.contains(part), "{part} is not in: {}", run.errors);
    }
}

#[test]
fn an_error_object_tells_where_it_comes_from() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    // Raised by the machine, by a builtin, by the program; inside and outside of a thread.
    for inner in ["(car x)", "(vector-ref (vector 1 x) 10)", "(error \"by the program\" x)"] {
        for outer in
            ["(outer 5)", "(thread-join! (thread-start! (make-thread (lambda () (outer 5)))))"]
        {
            let text = format!(
                "(define (inner x)\n  (+ 1 {inner}))\n(define (outer x)\n  (+ 1 (inner x)))\n(define e (guard (e (#t e)) {outer}))\n\
                 (display (error-object-trace (if (uncaught-exception? e) (uncaught-exception-reason e) e)))"
            );
            let run = run_with(&scheme, &text, "wrong.scm", &[], "");
            for part in ["inner at wrong.scm:2", "outer at wrong.scm:4"] {
                assert!(
                    run.output.contains(part),
                    "{part} is not in: {}{}",
                    run.output,
                    run.errors
                );
            }
            // And if nobody handles it, the message has the same.
            let run = run_with(
                &scheme,
                &text.replace("(guard (e (#t e)) ", "(begin "),
                "wrong.scm",
                &[],
                "",
            );
            for part in ["inner at wrong.scm:2", "outer at wrong.scm:4"] {
                assert!(run.exit != 0 && run.errors.contains(part), "{part}: {}", run.errors);
            }
        }
    }
}

#[test]
fn an_error_that_is_raised_last_is_located_too() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    for raise in
        ["(error \"no\" 1)", "(raise 'no)", "(cond (#f 1) (else (error \"no\")))", "(assert #f)"]
    {
        for text in [format!("\n{raise}"), format!("(define (f)\n  {raise})\n(f)")] {
            let run = run_with(&scheme, &text, "wrong.scm", &[], "");
            assert!(run.exit != 0 && run.errors.contains("wrong.scm:2:"), "{text}: {}", run.errors);
        }
    }
}

#[test]
fn an_error_of_what_is_done_between_two_stretches_is_located_where_it_is_called() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    for call in [
        "(open-input-file \"/no/such\")",
        "(eval '(if) (interaction-environment))",
        "(make-vector 1000000000000 0)",
    ] {
        let text = format!("(define (f)\n  (list {call}\n     (car 1)\n   (car 2)))\n(list (f))");
        let run = run_with(&scheme, &text, "wrong.scm", &[], "");
        assert!(
            run.exit != 0 && run.errors.contains("f at wrong.scm:2:"),
            "{call}: {}",
            run.errors
        );
    }
}

/// Runs a program that must end well, and returns what it printed.
fn prints(text: &str) -> String {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    let run = run_with(&scheme, text, "right.scm", &[], "");
    assert_eq!(run.exit, 0, "{}\n{}", run.output, run.errors);
    run.output
}

#[test]
fn a_million_levels_of_data_are_read_and_printed() {
    let levels = 1_000_000;
    let deep = "(".repeat(levels) + &")".repeat(levels);
    let scheme = interpreter("heap=512m,backend=stw").expect("needs no userfaultfd");
    let run = run_with(&scheme, "(write (read))", "right.scm", &[], &deep);
    assert_eq!((run.exit, run.output.len()), (0, 2 * levels), "{}", run.errors);
    assert!(run.output == deep);
}

#[test]
fn a_million_levels_in_a_program_are_no_trouble() {
    let levels = 1_000_000;
    let quoted = format!("(write '{}x{})", "(".repeat(levels), ")".repeat(levels));
    let scheme = interpreter("heap=512m,backend=stw").expect("needs no userfaultfd");
    let run = run_with(&scheme, &quoted, "right.scm", &[], "");
    assert_eq!((run.exit, run.output.len()), (0, 2 * levels + 1), "{}", run.errors);
    // Unbalanced at depth: an error, not a crash.
    let run = run_with(&scheme, &"(".repeat(levels), "wrong.scm", &[], "");
    assert!(run.exit != 0 && has_location(&run.errors), "{}", run.errors);
    for open in ["(quote ", "#(", "`(", "'", "(lambda (x) ", "(+ 1 ", "(let ((x 1)) ", "(begin "] {
        let levels = 100_000;
        let text = open.repeat(levels);
        let run = run_with(&scheme, &text, "wrong.scm", &[], "");
        assert!(run.exit != 0 && has_location(&run.errors), "{open}: {}", run.errors);
        // Balanced: it may be refused, but with an error.
        let close = if open.contains('(') { ")" } else { "" };
        let text = text + "1" + &close.repeat(levels);
        let run = run_with(&scheme, &text, "wrong.scm", &[], "");
        assert!(run.exit == 0 || has_location(&run.errors), "{open}: {}", run.errors);
    }
}

#[test]
fn a_million_calls_deep_is_an_ordinary_computation() {
    let text = "(define (count n) (if (= n 0) 0 (+ 1 (count (- n 1)))))\n(display (count 1000000))";
    let scheme = interpreter("heap=256m,backend=stw").expect("needs no userfaultfd");
    let run = run_with(&scheme, text, "right.scm", &[], "");
    assert_eq!((run.exit, run.output.as_str()), (0, "1000000"), "{}", run.errors);
}

#[test]
fn the_end_of_memory_is_a_condition() {
    for hog in [
        "(let loop ((l '())) (loop (cons 1 l)))",
        "(let loop ((n 0)) (+ 1 (loop (+ n 1))))",
        "(make-vector 1000000000000 0)",
        "(make-vector 100000000 0)",
        "(make-string 1000000000000)",
        "(make-bytevector 500000000 7)",
        "(expt 2 (expt 2 40))",
        "(expt 7 (expt 10 20))",
        "(let loop ((s \"x\")) (loop (string-append s s)))",
        "(let loop ((n 2)) (loop (* n n)))",
        "(let loop ((v '#(1))) (loop (vector-append v v)))",
    ] {
        let text = format!(
            "(define outcome (guard (e (#t (if (error-object? e) 'condition 'other))) {hog}))\n\
             (display (list outcome (length (make-list 1000 1))))"
        );
        let scheme = interpreter("heap=32m,backend=stw").expect("needs no userfaultfd");
        let run = run_with(&scheme, &text, "hog.scm", &[], "");
        assert_eq!(
            (run.exit, run.output.as_str()),
            (0, "(condition 1000)"),
            "{hog}: {}",
            run.errors
        );
        // And without a handler, an error with an exit code.
        let run = run_with(&scheme, &format!("\n(+ 1 {hog})"), "wrong.scm", &[], "");
        assert!(run.exit != 0 && run.errors.contains("wrong.scm:"), "{hog}: {}", run.errors);
    }
}

#[test]
fn huge_literals_are_read() {
    let digits = "7".repeat(100_000);
    let text = format!(
        "(display (modulo {digits} 1000007))(newline)(display (string-length (number->string {digits})))"
    );
    let printed = prints(&text);
    assert!(printed.ends_with("\n100000"), "{printed}");
    let long = "x".repeat(1_000_000);
    assert_eq!(prints(&format!("(display (string-length \"{long}\"))")), "1000000");
    assert_eq!(prints(&format!("(display (string-length (symbol->string '{long})))")), "1000000");
    let list = "1 ".repeat(100_000);
    assert_eq!(prints(&format!("(display (length '({list})))")), "100000");
    assert_eq!(prints(&format!("(display (apply + (vector->list '#({list}))))")), "100000");
}

#[test]
fn circular_data_are_printed_and_compared() {
    assert_eq!(
        prints(
            "(define l (list 1 2)) (set-cdr! (cdr l) l) (write l) (display l) (write (equal? l l))"
        ),
        "#0=(1 2 . #0#)#0=(1 2 . #0#)#t"
    );
}

#[test]
fn an_error_shows_circular_irritants() {
    let scheme = interpreter(HEAP).expect("needs no userfaultfd");
    let text = "(define l (list 1 2))\n(set-cdr! (cdr l) l)\n(begin (error \"circular\" l) 1)";
    let run = run_with(&scheme, text, "wrong.scm", &[], "");
    assert!(run.exit != 0 && run.errors.contains("#0=(1 2 . #0#)"), "{}", run.errors);
}
