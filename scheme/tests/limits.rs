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
