;; SRFI 18 over the machine's threads. Times are jiffies since the interpreter was made.

(define make-thread
  (case-lambda
    ((thunk) (%make-thread thunk #f))
    ((thunk name) (%make-thread thunk name))))

;; Whatever a thread was doing is left, `dynamic-wind`s included, before it counts as ended.
(define (thread-start! thread)
  (let ((thunk (%thread-thunk thread)) (parameters (%parameters)))
    (%thread-start!
     thread
     (lambda ()
       (%set-parameters! parameters)
       ((call-with-current-continuation
         (lambda (end)
           (with-exception-handler
            (lambda (condition)
              (end (lambda () (%end-thread thread 3 condition))))
            (lambda ()
              (let ((result (thunk)))
                (lambda () (%end-thread thread 2 result))))))))))))

;; A continuation may be invoked by another thread than the one that made it. But its end is the end of the thread that
;; made it, and so no place for another one to come to.
(define (%end-thread thread state object)
  (cond ((eq? thread (current-thread)) (%thread-finish! thread state object))
        ((= state 3) (%uncaught object))
        (else
         (%uncaught
          (%make-condition (%trace) 'error "the continuation of another thread has come to its end" thread)))))

(define (thread-terminate! thread)
  (%thread-terminate! thread)
  (%thread-wait thread #f)
  (if #f #f))

;; These are error objects, so that one that nobody handles says what happened.
(define (%is-kind object kind)
  (and (error-object? object) (eq? (%condition-kind object) kind)))
(define (join-timeout-exception? object) (%is-kind object 'join-timeout))
(define (abandoned-mutex-exception? object) (%is-kind object 'abandoned-mutex))
(define (terminated-thread-exception? object) (%is-kind object 'terminated-thread))
(define (uncaught-exception? object) (%is-kind object 'uncaught))
(define (uncaught-exception-reason object)
  (if (uncaught-exception? object)
      (car (error-object-irritants object))
      (error "uncaught-exception-reason: not an uncaught exception" object)))

;;; Times: jiffies since the interpreter was made.

(define-record-type time (%make-time jiffies) time? (jiffies %time-jiffies))
(define (current-time) (%make-time (current-jiffy)))
(define (time->seconds time) (inexact (/ (%time-jiffies time) (jiffies-per-second))))
(define (%jiffies seconds)
  (if (not (and (real? seconds) (finite? seconds))) (error "not a time or a number of seconds" seconds))
  (exact (round (* seconds (jiffies-per-second)))))
(define (seconds->time seconds) (%make-time (%jiffies seconds)))

;; A timeout is #f, a time, or seconds from now. What is beyond the life of any program is no timeout.
(define (%deadline timeout)
  (and timeout
       (let ((jiffies (if (time? timeout) (%time-jiffies timeout) (+ (current-jiffy) (%jiffies timeout)))))
         (and (< jiffies 1000000000000000000) (max 0 jiffies)))))

(define (thread-sleep! timeout)
  (if (not timeout) (error "thread-sleep!: not a time or a number of seconds" timeout))
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
        ((3) (%raise-kind 'uncaught "uncaught exception in a thread" (%thread-result thread)))
        (else (%raise-kind 'terminated-thread "the thread was terminated" thread)))
      (if value? value (%raise-kind 'join-timeout "the thread has not ended in time" thread))))

(define (%raise-kind kind message irritant)
  (raise (%make-condition (%trace) kind message irritant)))

(define make-mutex
  (case-lambda (() (%make-mutex #f)) ((name) (%make-mutex name))))

(define (mutex-state mutex)
  (if (%mutex-locked? mutex)
      (let ((owner (%mutex-owner mutex)))
        (cond ((not owner) 'not-owned)
              ((>= (%thread-state owner) 2) 'abandoned)
              (else owner)))
      'not-abandoned))

(define mutex-lock!
  (case-lambda
    ((mutex) (mutex-lock! mutex #f (current-thread)))
    ((mutex timeout) (mutex-lock! mutex timeout (current-thread)))
    ((mutex timeout thread)
     (let ((got (%mutex-lock! mutex (%deadline timeout) thread)))
       (if (eq? got 'abandoned)
           (%raise-kind 'abandoned-mutex "the thread that had locked the mutex has ended" mutex)
           got)))))

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
