;; A frame loop: bouncing balls in the terminal at 60 frames a second, and the frames that were missed.
;;   firn scheme frames.scm [SECONDS]
;;   firn scheme frames.scm --still N     computes N frames without a clock and prints the last one
;; Each frame is drawn from fresh lists and strings, as a program with a user interface would: the garbage is the
;; point. A frame is late when its work ends after its deadline.
(import (scheme base) (scheme write) (scheme inexact) (scheme time) (scheme process-context) (srfi 18))

(define width 72)
(define height 20)
(define rate 60)

(define-record-type ball (make-ball x y dx dy shape) ball? (x ball-x) (y ball-y) (dx ball-dx) (dy ball-dy) (shape ball-shape))

;; The next state of a ball: a new record. Coordinates are exact, so that every run draws the same.
(define (move b)
  (let* ((x (+ (ball-x b) (ball-dx b))) (y (+ (ball-y b) (ball-dy b)))
         (dx (if (or (< x 0) (>= x width)) (- (ball-dx b)) (ball-dx b)))
         (dy (if (>= y height) (- (abs (ball-dy b))) (+ (ball-dy b) 1/64))))
    (make-ball (max 0 (min (- width 1) x)) (max -10 (min (- height 1/8) y)) dx dy (ball-shape b))))

(define (make-balls n)
  (let loop ((i 0) (balls '()))
    (if (= i n)
        balls
        (loop (+ i 1)
              (cons (make-ball (modulo (* i 37) width) (modulo (* i 11) 12)
                               (/ (- (modulo (* i 29) 31) 15) 16) 0
                               (string-ref "o*@+x%#&" (modulo i 8)))
                    balls)))))

(define (draw balls number)
  (let ((rows (let make ((i 0)) (if (= i height) '() (cons (make-string width #\space) (make (+ i 1)))))))
    (for-each (lambda (b)
                (let ((y (exact (floor (ball-y b)))) (x (exact (floor (ball-x b)))))
                  (if (<= 0 y (- height 1))
                      (string-set! (list-ref rows y) x (ball-shape b)))))
              balls)
    (apply string-append
           (append (map (lambda (row) (string-append row "\n")) rows)
                   (list (make-string width #\-) "\nframe " (number->string number) "\n")))))

(define (milliseconds jiffies) (/ (round (* 100000.0 (/ jiffies (jiffies-per-second)))) 100))

(define (animate seconds)
  (let* ((frames (exact (round (* seconds rate))))
         (per-frame (/ (jiffies-per-second) rate))
         (start (current-jiffy)))
    (write-string "\x1b;[2J\x1b;[?25l")
    (let loop ((number 1) (balls (make-balls 60)) (missed 0) (worst 0))
      (write-string (string-append "\x1b;[H" (draw balls number)))
      (flush-output-port (current-output-port))
      (let* ((deadline (+ start (* number per-frame)))
             (now (current-jiffy))
             (late (- now deadline))
             (missed (if (> late 0) (+ missed 1) missed)))
        (if (< late 0)
            (thread-sleep! (/ (inexact (- late)) (jiffies-per-second))))
        (if (< number frames)
            (loop (+ number 1) (map move balls) missed (max worst late))
            (begin
              (write-string "\x1b;[?25h")
              (display (list frames 'frames missed 'missed 'worst (if (> worst 0) (milliseconds worst) 0) 'ms 'late))
              (newline)))))))

(define (still n)
  (let loop ((number 1) (balls (make-balls 60)))
    (if (< number n)
        (loop (+ number 1) (map move balls))
        (write-string (draw balls number)))))

(let ((arguments (cdr (command-line))))
  (cond ((and (pair? arguments) (string=? (car arguments) "--still"))
         (still (string->number (cadr arguments))))
        (else (animate (if (pair? arguments) (string->number (car arguments)) 10)))))
