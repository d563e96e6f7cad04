//! Programs at the limits: deep recursion, deep data, the end of memory, many arguments.

mod support;

use support::run;

/// Runs a program in a heap of these options; what it printed. `None` if there is no heap to be had.
fn output(options: &str, text: &str) -> Option<String> {
    let done = run(options, text, "limits.scm", &[], "")?;
    assert_eq!(done.exit, 0, "{}{}", done.output, done.errors);
    Some(done.output)
}

#[test]
fn a_million_calls_that_are_no_tail_calls_return() {
    let text = "(define (count n) (if (= n 0) 0 (+ 1 (count (- n 1))))) (display (count 1000000))";
    for options in ["heap=128m", "heap=128m,stress-every=200003"] {
        assert!(output(options, text).is_none_or(|out| out == "1000000"), "{options}");
    }
}

#[test]
fn data_of_a_million_levels_are_printed_read_and_compared() {
    let text = "(define (nest n x) (if (= n 0) x (nest (- n 1) (list x))))
        (define deep (nest 1000000 '()))
        (define text (call-with-output-string (lambda (port) (write deep port))))
        (display (string-length text))
        (display (equal? deep (read (open-input-string text))))";
    assert!(output("heap=256m", text).is_none_or(|out| out == "2000002#t"));
}

#[test]
fn the_end_of_memory_is_a_condition_again_and_again() {
    let text = "(define (endless n) (+ 1 (endless n)))
        (define (hog list) (hog (cons (make-vector 1000 0) list)))
        (define (try thunk) (guard (e ((error-object? e) (display (error-object-message e)) (newline))) (thunk)))
        (try (lambda () (endless 1)))
        (try (lambda () (hog '())))
        (try (lambda () (make-vector 1000000000 0)))
        (try (lambda () (endless 1)))
        (display (length (iota 100000)))";
    let wanted = "out of memory\n".repeat(4) + "100000";
    assert!(output("heap=32m", text).is_none_or(|out| out == wanted));
}

#[test]
fn many_arguments_come_from_a_list() {
    let text = "(define numbers (iota 100000))
        (define (count . rest) (length rest))
        (display (list (apply + numbers) (apply max numbers) (length (apply list numbers)) (apply count numbers)))";
    let wanted = "(4999950000 99999 100000 100000)";
    assert!(output("heap=64m,stress-every=5003", text).is_none_or(|out| out == wanted));
}

#[test]
fn a_continuation_is_entered_again_and_again() {
    let text = "(define again #f) (define count 0)
        (define (deep n) (if (= n 0) (call/cc (lambda (k) (set! again k) 0)) (+ 1 (deep (- n 1)))))
        (define sum (deep 10000))
        (set! count (+ count 1))
        (if (< count 50) (again count))
        (display (list count sum))";
    // Each top-level form is a continuation of its own, so the re-entry ends with the definition.
    let program = format!(
        "(let () {})",
        text.replace(
            "(define again #f) (define count 0)",
            "(define again #f) (define count 0) (define sum #f)"
        )
        .replace("(define sum (deep 10000))", "(set! sum (deep 10000))")
    );
    assert!(output("heap=64m,stress-every=5003", &program).is_none_or(|out| out == "(50 10049)"));
}

#[test]
fn what_lies_outside_the_heap_ends_as_a_condition_too() {
    // A text of 2^45 numbers, of an object that shares its parts; names of symbols, which are never freed; an expansion
    // that does not end; numbers of many digits.
    for hog in [
        "(let loop ((i 0) (x '(1))) (if (< i 45) (loop (+ i 1) (list x x)) (write x (open-output-string))))",
        "(let loop ((i 0)) (string->symbol (string-append (make-string 100000 #\\a) (number->string i))) (loop (+ i 1)))",
        "(let loop () (gensym (make-string 100000 #\\a)) (loop))",
        "(eval '(letrec-syntax ((m (syntax-rules () ((_ a) (m (a a)))))) (m 1)) (interaction-environment))",
        "(expt 10 (expt 10 9))",
        "(expt 10 (expt 10 10))",
        "(expt 2/3 (expt 10 9))",
    ] {
        let text = format!("(display (guard (e ((error-object? e) 'condition)) {hog}))");
        assert!(output("heap=32m", &text).is_none_or(|out| out == "condition"), "{hog}");
    }
}

#[test]
fn a_builtin_makes_what_is_large_whatever_comes_before_it() {
    // Sums of several bignums of more than 32 KiB, and a fraction both of whose parts are large.
    let text = "(define a (expt 7 100000))
        (define r (/ (expt 3 90000) (expt 7 52000)))
        (display (list (= (apply + (list a a a)) (* 3 a)) (= (apply * (list a 2 2)) (* 4 a)) (= (apply - (list a a a)) (- a))
                       (= (numerator r) (expt 3 90000)) (= (denominator r) (expt 7 52000))
                       (apply + 1 2 '(3.5)) (apply / 1 '(2 3)) (apply - 1 2 '(3)) (apply * '(1/2 4 5))))";
    let wanted = "(#t #t #t #t #t 6.5 1/6 -4 10)";
    for options in ["heap=64m", "heap=64m,stress-every=10007"] {
        assert!(output(options, text).is_none_or(|out| out == wanted), "{options}");
    }
}

#[test]
fn the_end_of_memory_ends_a_thread_as_a_condition() {
    let text = "(define (endless n) (+ 1 (endless n)))
        (define (try thunk)
          ;; While another thread takes all there is, this one may be the one that has none.
          (display (guard (e (#t (error-object-message (if (uncaught-exception? e) (uncaught-exception-reason e) e))))
                     (thread-join! (thread-start! (make-thread thunk)))))
          (newline))
        (try (lambda () (let count ((n 1000000)) (if (= n 0) 0 (+ 1 (count (- n 1)))))))
        (try (lambda () (endless 1)))
        (try (lambda () (let loop ((l '())) (loop (cons 1 l)))))
        (try (lambda () (make-vector (expt 10 12) 0)))
        (try (lambda () (make-string (expt 10 12) #\\a)))";
    let wanted = "1000000\n".to_string() + &"out of memory\n".repeat(4);
    for options in ["heap=128m", "heap=128m,backend=stw"] {
        assert!(output(options, text).is_none_or(|out| out == wanted), "{options}");
    }
}

/// What follows is not compiled, however long it is.
#[test]
fn a_procedure_that_is_too_large_is_refused_where_it_becomes_so() {
    let many = "1 ".repeat(2000);
    let text =
        format!("(define (f x)\n(car x)\n(g (vector {many}))\n(cdr x)\n(g (vector {many})))");
    let done = run("heap=32m,backend=stw", &text, "limits.scm", &[], "").expect("no userfaultfd");
    assert_eq!(done.errors, "limits.scm:2:1: this procedure is too large: divide it");
}
