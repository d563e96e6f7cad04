;; N queens: all solutions, by lists of rows; the first one as a board.
;;   firn scheme queens.scm [N]
(import (scheme base) (scheme write) (scheme process-context))

(define (safe? row placed)
  (let check ((distance 1) (placed placed))
    (or (null? placed)
        (and (not (= row (car placed)))
             (not (= (abs (- row (car placed))) distance))
             (check (+ distance 1) (cdr placed))))))

;; Calls FOUND with each solution, a list of rows from the last column to the first.
(define (queens n found)
  (let place ((column 0) (placed '()))
    (if (= column n)
        (found placed)
        (do ((row 0 (+ row 1)))
            ((= row n))
          (if (safe? row placed)
              (place (+ column 1) (cons row placed)))))))

(define (show-board solution n)
  (for-each
   (lambda (queen)
     (do ((row 0 (+ row 1))) ((= row n))
       (write-string (if (= row queen) "♛ " "· ")))
     (newline))
   solution))

(define (main n)
  (let ((count 0) (first #f))
    (queens n (lambda (solution)
                (set! count (+ count 1))
                (if (not first) (set! first solution))))
    (write-string (string-append (number->string n) " queens: " (number->string count) " solutions"))
    (newline)
    (if first (show-board first n))))

(let ((arguments (cdr (command-line))))
  (main (if (pair? arguments) (string->number (car arguments)) 8)))
