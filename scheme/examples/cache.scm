;; A key-value cache with least-recently-used eviction, in shards, used by several threads at once.
;;   firn scheme cache.scm [THREADS [OPERATIONS]]
;; Each thread looks keys up and computes and stores what is missing. A value tells its key, so every answer is
;; checked. What is printed does not depend on the threads' order, except between --stats and the end of the line.
(import (scheme base) (scheme write) (scheme process-context) (srfi 18))

(define shards 8)
(define buckets 256)
(define capacity 400)

;; Entries are chained in their bucket, and in a ring by age: the ring's head is the shard's sentinel.
(define-record-type entry (make-entry key value next older newer) entry?
  (key entry-key) (value entry-value) (next entry-next set-next!) (older older set-older!) (newer newer set-newer!))

(define-record-type shard (make-shard-raw lock table ring count) shard?
  (lock shard-lock) (table shard-table) (ring shard-ring) (count shard-count set-count!))

(define (make-shard)
  (let ((ring (make-entry #f #f #f #f #f)))
    (set-older! ring ring)
    (set-newer! ring ring)
    (make-shard-raw (make-mutex) (make-vector buckets '()) ring 0)))

(define (unlink! e)
  (set-newer! (older e) (newer e))
  (set-older! (newer e) (older e)))

;; Makes it the newest: the one just older than the sentinel.
(define (touch! s e)
  (let ((ring (shard-ring s)))
    (set-newer! e ring)
    (set-older! e (older ring))
    (set-newer! (older ring) e)
    (set-older! ring e)))

(define (find s key)
  (let search ((e (vector-ref (shard-table s) (modulo (quotient key shards) buckets))))
    (cond ((null? e) #f)
          ((= (entry-key e) key) e)
          (else (search (entry-next e))))))

(define (remove! s key)
  (let* ((table (shard-table s)) (at (modulo (quotient key shards) buckets)))
    (let walk ((e (vector-ref table at)) (before #f))
      (cond ((null? e) #f)
            ((= (entry-key e) key)
             (if before (set-next! before (entry-next e)) (vector-set! table at (entry-next e)))
             (unlink! e)
             (set-count! s (- (shard-count s) 1)))
            (else (walk (entry-next e) e))))))

(define (insert! s key value)
  (if (>= (shard-count s) capacity)
      (remove! s (entry-key (newer (shard-ring s)))))
  (let* ((table (shard-table s))
         (at (modulo (quotient key shards) buckets))
         (e (make-entry key value (vector-ref table at) #f #f)))
    (vector-set! table at e)
    (touch! s e)
    (set-count! s (+ (shard-count s) 1))))

(define (with-lock s body)
  (dynamic-wind (lambda () (mutex-lock! (shard-lock s))) body (lambda () (mutex-unlock! (shard-lock s)))))

(define cache (let ((v (make-vector shards))) (do ((i 0 (+ i 1))) ((= i shards) v) (vector-set! v i (make-shard)))))

;; What a slow source would say of a key.
(define (compute key)
  (let ((text (number->string (* key key))))
    (cons key (string-append "value of " (number->string key) ": " text))))

;; #t if it was there.
(define (get! key check)
  (let* ((s (vector-ref cache (modulo key shards)))
         (found (with-lock s (lambda ()
                               (let ((e (find s key)))
                                 (and e (begin (unlink! e) (touch! s e) (entry-value e))))))))
    (check (or found
               (let ((value (compute key)))
                 (with-lock s (lambda () (if (not (find s key)) (insert! s key value))))
                 value)))
    (if found #t #f)))

;; Small keys are asked for much more often than large ones.
(define (make-keys seed)
  (lambda ()
    (set! seed (modulo (+ (* seed 1103515245) 12345) 2147483648))
    (let ((u (quotient seed 32768)))
      (quotient (* u (modulo (quotient seed 8) 4096)) 24000))))

(define (worker number operations)
  (lambda ()
    (let ((next-key (make-keys (+ 17 (* 7919 number)))) (hits 0) (wrong 0))
      (do ((i 0 (+ i 1))) ((= i operations) (list hits wrong))
        (let ((key (next-key)))
          (if (get! key (lambda (value) (if (not (= key (car value))) (set! wrong (+ wrong 1)))))
              (set! hits (+ hits 1))))))))

(define (sum items) (apply + items))

(define (ring-length s)
  (let ((ring (shard-ring s)))
    (let walk ((e (newer ring)) (n 0)) (if (eq? e ring) n (walk (newer e) (+ n 1))))))

(define (main threads operations stats?)
  (let* ((workers (let make ((i 0)) (if (= i threads) '() (cons (thread-start! (make-thread (worker i operations))) (make (+ i 1))))))
         (results (map thread-join! workers))
         (hits (sum (map car results)))
         (kept (sum (map shard-count (vector->list cache)))))
    (display (* threads operations)) (display " operations by ") (display threads) (display " threads, ")
    (display (sum (map cadr results))) (display " wrong answers, rings ")
    (display (if (= kept (sum (map ring-length (vector->list cache)))) "whole" "broken"))
    (newline)
    (if stats?
        (begin (display "hits ") (display hits) (display ", kept ") (display kept) (newline)))))

(let* ((arguments (cdr (command-line)))
       (stats? (member "--stats" arguments))
       (number (lambda (at default)
                 (let ((n (and (> (length arguments) at) (string->number (list-ref arguments at))))) (or n default)))))
  (main (number 0 4) (number 1 20000) stats?))
