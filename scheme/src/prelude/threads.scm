;; SRFI 18 over the machine's threads. Times are jiffies since the interpreter was made.

(define make-thread
  (case-lambda
    ((thunk) (%make-thread thunk #f))
    ((thunk name) (%make-thread thunk name))))

(define (thread-start! thread)
  (let ((thunk (%thread-thunk thread)) (parameters (%parameters)))
    (%thread-start!
     thread
     (lambda ()
       (%set-parameters! parameters)
       (call-with-current-continuation
        (lambda (end)
          (with-exception-handler
           (lambda (condition)
             (%thread-finish! thread 3 condition)
             (end #f))
           (lambda ()
             (%thread-finish! thread 2 (thunk))))))))))

(define-record-type <thread-exception>
  (%make-thread-exception kind reason) %thread-exception?
  (kind %thread-exception-kind) (reason uncaught-exception-reason))
(define (%is-thread-exception? object kind)
  (and (%thread-exception? object) (eq? (%thread-exception-kind object) kind)))
(define (join-timeout-exception? object) (%is-thread-exception? object 'join-timeout))
(define (abandoned-mutex-exception? object) (%is-thread-exception? object 'abandoned-mutex))
(define (terminated-thread-exception? object) (%is-thread-exception? object 'terminated-thread))
(define (uncaught-exception? object) (%is-thread-exception? object 'uncaught))

(define (current-time) (current-jiffy))
(define (time? object) (and (exact-integer? object) (>= object 0)))
(define (time->seconds time) (inexact (/ time (jiffies-per-second))))
(define (seconds->time seconds) (exact (round (* seconds (jiffies-per-second)))))

;; A timeout is #f, a time, or seconds from now.
(define (%deadline timeout)
  (cond ((not timeout) #f)
        ((and (exact-integer? timeout) (> timeout 100000000)) timeout)
        (else (max 0 (+ (current-jiffy) (seconds->time timeout))))))

(define (thread-sleep! timeout)
  (%sleep-until (%deadline timeout)))

(define thread-join!
  (case-lambda
    ((thread) (%join thread #f #f #f))
    ((thread timeout) (%join thread timeout #f #f))
    ((thread timeout value) (%join thread timeout #t value))))

(define (%join thread timeout value? value)
  (if (%thread-wait thread (%deadline timeout))
      (case (%thread-state thread)
        ((2) (%thread-result thread))
        ((3) (raise (%make-thread-exception 'uncaught (%thread-result thread))))
        (else (raise (%make-thread-exception 'terminated-thread #f))))
      (if value? value (raise (%make-thread-exception 'join-timeout #f)))))

(define make-mutex
  (case-lambda (() (%make-mutex #f)) ((name) (%make-mutex name))))

(define (mutex-state mutex)
  (if (%mutex-locked? mutex)
      (or (%mutex-owner mutex) 'not-owned)
      'not-abandoned))

(define mutex-lock!
  (case-lambda
    ((mutex) (%mutex-lock! mutex #f (current-thread)))
    ((mutex timeout) (%mutex-lock! mutex (%deadline timeout) (current-thread)))
    ((mutex timeout thread) (%mutex-lock! mutex (%deadline timeout) thread))))

(define mutex-unlock!
  (case-lambda
    ((mutex) (%mutex-unlock! mutex) #t)
    ((mutex variable) (mutex-unlock! mutex variable #f))
    ((mutex variable timeout)
     (let ((ticket (%enqueue variable (current-thread))) (deadline (%deadline timeout)))
       (%mutex-unlock! mutex)
       (%wait-signal variable ticket deadline)))))

(define make-condition-variable
  (case-lambda (() (%make-condition-variable #f)) ((name) (%make-condition-variable name))))
