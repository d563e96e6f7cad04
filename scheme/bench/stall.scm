;; The longest stall that a program sees, measured by the program itself: the longest time between two readings of
;; the clock that have only a few allocations between them. Runs unchanged on any R7RS system.
;;   stall.scm trees DEPTH    short-lived trees beside a long-lived tree and array, as gcbench has them
;;   stall.scm live MIB       a live set of MIB MiB (vectors of 64 bytes), replaced piece by piece until twice its
;;                            size has been allocated
(import (scheme base) (scheme write) (scheme inexact) (scheme time) (scheme process-context))

(define last-tick (current-jiffy))
(define longest 0)
(define over-1ms 0)
(define one-ms (quotient (jiffies-per-second) 1000))

(define (tick!)
  (let* ((now (current-jiffy)) (gap (- now last-tick)))
    (if (> gap longest) (set! longest gap))
    (if (> gap one-ms) (set! over-1ms (+ over-1ms 1)))
    (set! last-tick now)))

(define (restart!)
  (set! longest 0)
  (set! over-1ms 0)
  (set! last-tick (current-jiffy)))

(define (report phase started)
  (let ((ms (lambda (jiffies) (/ (round (* 1e6 (/ (inexact jiffies) (jiffies-per-second)))) 1000))))
    (display phase)
    (display " longest-ms ") (write (ms longest))
    (display " over-1ms ") (write over-1ms)
    (display " seconds ") (write (/ (round (* 1000.0 (/ (- (current-jiffy) started) (jiffies-per-second)))) 1000))
    (newline)))

(define-record-type node (make-node left right) node? (left left set-left!) (right right set-right!))

(define (bottom-up depth)
  (tick!)
  (if (= depth 0) (make-node #f #f) (make-node (bottom-up (- depth 1)) (bottom-up (- depth 1)))))

(define (top-down! depth tree)
  (tick!)
  (if (> depth 0)
      (begin
        (set-left! tree (make-node #f #f))
        (set-right! tree (make-node #f #f))
        (top-down! (- depth 1) (left tree))
        (top-down! (- depth 1) (right tree)))))

(define (size tree) (if (left tree) (+ 1 (size (left tree)) (size (right tree))) 1))

(define (trees depth)
  (let* ((started (current-jiffy))
         (long-lived (make-node #f #f))
         (array (make-vector (expt 2 depth) 0.0)))
    (top-down! depth long-lived)
    (do ((i 0 (+ i 1))) ((= i (quotient (vector-length array) 2)))
      (tick!)
      (vector-set! array i (/ 1.0 (+ i 1))))
    (restart!)
    (do ((d 4 (+ d 2))) ((> d depth))
      (do ((i 0 (+ i 1))) ((= i (expt 2 (- (+ depth 1) d))))
        (top-down! d (make-node #f #f))
        (bottom-up d)))
    (report "trees" started)
    (if (not (= (size long-lived) (- (expt 2 (+ depth 1)) 1))) (begin (display "the tree is damaged") (exit 1)))))

(define chunk 1000)

(define (make-chunk number)
  (let loop ((i 0) (list #f))
    (tick!)
    (if (= i chunk) list (loop (+ i 1) (vector list number i #f #f #f #f)))))

(define (check-chunk c number)
  (let loop ((c c) (n 0))
    (if c
        (begin
          (if (not (= (vector-ref c 1) number)) (begin (display "the live set is damaged") (exit 1)))
          (loop (vector-ref c 0) (+ n 1)))
        (if (not (= n chunk)) (begin (display "the live set is damaged") (exit 1))))))

(define (live mib)
  (let* ((started (current-jiffy))
         (chunks (quotient (* mib 1024 1024) (* 64 chunk)))
         (all (make-vector chunks #f)))
    (do ((i 0 (+ i 1))) ((= i chunks)) (vector-set! all i (make-chunk i)))
    (report "build" started)
    (restart!)
    (let ((started (current-jiffy)))
      (let loop ((step 0) (at 0))
        (if (< step (* 2 chunks))
            (begin
              (vector-set! all at (make-chunk at))
              (loop (+ step 1) (modulo (+ (* at 1103515245) 12345) chunks)))))
      (report "live" started))
    (do ((i 0 (+ i 1))) ((= i chunks)) (check-chunk (vector-ref all i) i))))

(let* ((arguments (cdr (command-line)))
       (n (string->number (cadr arguments))))
  (if (string=? (car arguments) "trees") (trees n) (live n)))
