;; The test library: counters, sections, and a verdict.
;;
;; A test file imports what it needs, includes this file, opens sections with (section NAME), and closes with
;; (test-end). Each section prints "NAME: N passed"; a failure prints the expression, what was expected and
;; what came; a file with a failure ends with exit code 1.
;; It uses nothing but (scheme base), (scheme write) and (scheme process-context).

(define test-name #f)
(define test-passed 0)
(define test-failed 0)
(define test-failed-before 0)

(define (section name)
  (test-close-section)
  (set! test-name name))

(define (test-close-section)
  (if test-name
      (begin
        (display test-name)
        (display ": ")
        (display test-passed)
        (display " passed")
        (if (> test-failed 0)
            (begin (display ", ") (display test-failed) (display " failed")))
        (newline)))
  (set! test-failed-before (+ test-failed-before test-failed))
  (set! test-passed 0)
  (set! test-failed 0)
  (set! test-name #f))

(define (test-end)
  (test-close-section)
  (flush-output-port (current-output-port))
  (exit (if (= test-failed-before 0) 0 1)))

;; equal?, except that a NaN is the same as a NaN: eqv? may tell them apart.
(define (test-same? a b)
  (cond ((and (number? a) (number? b) (inexact? a) (not (= a a))) (not (= b b)))
        ((and (pair? a) (pair? b))
         (and (test-same? (car a) (car b)) (test-same? (cdr a) (cdr b))))
        (else (equal? a b))))

(define (test-report expression expected got)
  (set! test-failed (+ test-failed 1))
  (display "FAILED ")
  (write expression)
  (newline)
  (display "  expected: ")
  (write expected)
  (newline)
  (display "  got:      ")
  (display got)
  (newline))

(define (test-written object)
  (call-with-port (open-output-string)
    (lambda (port)
      (write object port)
      (get-output-string port))))

(define (test-condition condition)
  (if (error-object? condition)
      (string-append "raised: " (error-object-message condition) " "
                     (test-written (error-object-irritants condition)))
      (string-append "raised: " (test-written condition))))

(define (test-run expression expected thunk)
  (let ((got (guard (condition (#t (cons 'test-raised (test-condition condition))))
               (cons 'test-value (thunk)))))
    (cond ((eq? (car got) 'test-raised) (test-report expression expected (cdr got)))
          ((test-same? expected (cdr got)) (set! test-passed (+ test-passed 1)))
          (else (test-report expression expected (test-written (cdr got)))))))

;; The value of the expression is the same as the expected one.
(define-syntax test
  (syntax-rules ()
    ((_ expected expression) (test-run 'expression expected (lambda () expression)))))

;; The expression is true or false, not more.
(define-syntax test-true
  (syntax-rules () ((_ expression) (test-run 'expression #t (lambda () (if expression #t #f))))))
(define-syntax test-false
  (syntax-rules () ((_ expression) (test-run 'expression #f (lambda () expression)))))

;; The values of the expression, as a list.
(define-syntax test-values
  (syntax-rules ()
    ((_ (expected ...) expression)
     (test-run 'expression (list expected ...)
               (lambda () (call-with-values (lambda () expression) list))))))

;; The expression raises something.
(define-syntax test-error
  (syntax-rules ()
    ((_ expression)
     (test-run '(raises? expression) #t
               (lambda () (guard (condition (#t #t)) expression #f))))))

;; The expression raises what satisfies the predicate.
(define-syntax test-raises
  (syntax-rules ()
    ((_ predicate expression)
     (test-run '(raises predicate expression) #t
               (lambda () (guard (condition (#t (if (predicate condition) #t #f))) expression #f))))))

;; The inexact value is within a relative 1e-12 of the expected one.
(define-syntax test-close
  (syntax-rules ()
    ((_ expected expression)
     (test-run '(close expected expression) #t
               (lambda ()
                 (let ((e expected) (got expression))
                   (or (<= (abs (- got e)) (* 1e-12 (max 1.0 (abs e))))
                       (list 'off got))))))))

;; What is written to the port that the procedure gets, as a string.
(define (test-output writer)
  (let ((port (open-output-string)))
    (writer port)
    (get-output-string port)))
