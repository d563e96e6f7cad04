;; Numbers: the procedures with two values. Each value is computed by a builtin of its own.

(define (floor/ n d) (values (floor-quotient n d) (floor-remainder n d)))

(define (truncate/ n d) (values (truncate-quotient n d) (truncate-remainder n d)))

(define (exact-integer-sqrt k)
  (let ((root (%integer-sqrt k)))
    (values root (- k (* root root)))))
