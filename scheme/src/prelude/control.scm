;; Control: what the machine does not do by itself. Loaded into environment 0, before everything else.
;; Names that begin with % are not exported.

(define (call-with-values producer consumer) (%apply-values consumer (producer)))

;;; dynamic-wind: the entries are vectors (before after handlers parameters), innermost first. The last two are the
;;; dynamic environment of the call of dynamic-wind, in which both thunks run, wherever a jump comes from.

(define (dynamic-wind before thunk after)
  (before)
  (%set-winders! (cons (vector before after (%handlers) (%parameters)) (%winders)))
  (let ((result (thunk)))
    (%set-winders! (cdr (%winders)))
    (after)
    result))

(define (%wind entry which)
  (%set-handlers! (vector-ref entry 2))
  (%set-parameters! (vector-ref entry 3))
  ((vector-ref entry which)))

;; Leaves all that were entered beyond `outer`.
(define (%leave-until outer)
  (if (not (eq? (%winders) outer))
      (let ((entry (car (%winders))))
        (%set-winders! (cdr (%winders)))
        (%wind entry 1)
        (%leave-until outer))))

(define (%common-tail a b)
  (let ((la (length a)) (lb (length b)))
    (let loop ((a (if (> la lb) (list-tail a (- la lb)) a))
               (b (if (> lb la) (list-tail b (- lb la)) b)))
      (if (eq? a b) a (loop (cdr a) (cdr b))))))

;; Leaves and enters, then goes to the continuation.
(define (%rewind k values)
  (let* ((to (%continuation-winders k))
         (common (%common-tail (%winders) to)))
    (%leave-until common)
    (let enter ((entries to))
      (if (not (eq? entries common))
          (begin
            (enter (cdr entries))
            (%wind (car entries) 0)
            (%set-winders! entries))))
    (%throw k values)))

;;; Exceptions: handlers are procedures, innermost first.

(define (with-exception-handler handler thunk)
  (if (not (procedure? handler)) (error "with-exception-handler: not a procedure" handler))
  (let ((outer (%handlers)))
    (%set-handlers! (cons handler outer))
    (let ((result (thunk)))
      (%set-handlers! outer)
      result)))

(define (raise-continuable object)
  (let ((handlers (%handlers)))
    (if (null? handlers)
        (%uncaught object)
        (begin
          (%set-handlers! (cdr handlers))
          (let ((result ((car handlers) object)))
            (%set-handlers! handlers)
            result)))))

(define (raise object)
  (let ((handlers (%handlers)))
    (if (null? handlers)
        (%uncaught object)
        (begin
          (%set-handlers! (cdr handlers))
          ((car handlers) object)
          ;; The handler has returned: an exception of the same dynamic environment as the handler's.
          (raise (%make-condition (%trace) 'handler-returned "a handler returned from a non-continuable exception" object))))))

(define (%raise-error condition) (raise condition))

(define (error message . irritants)
  (raise (apply %make-condition (%trace) 'error message irritants)))

(define (current-exception-handler)
  (let ((handlers (%handlers)))
    (if (null? handlers) %uncaught (car handlers))))

(define (assert true . irritants)
  (if (not true) (apply error "assertion failed" irritants)))

(define-syntax guard
  (syntax-rules ()
    ((guard (var clause ...) body ...)
     ((call-with-current-continuation
       (lambda (guard-k)
         (with-exception-handler
          (lambda (condition)
            ((call-with-current-continuation
              (lambda (handler-k)
                (guard-k
                 (lambda ()
                   (let ((var condition))
                     (%guard-clauses
                      (handler-k (lambda () (raise-continuable condition)))
                      clause ...))))))))
          (lambda ()
            (call-with-values (lambda () body ...)
              (lambda results
                (guard-k (lambda () (apply values results)))))))))))))

(define-syntax %guard-clauses
  (syntax-rules (else =>)
    ((_ reraise (else result ...)) (begin result ...))
    ((_ reraise (test => result))
     (let ((temp test)) (if temp (result temp) reraise)))
    ((_ reraise (test => result) clause ...)
     (let ((temp test)) (if temp (result temp) (%guard-clauses reraise clause ...))))
    ((_ reraise (test)) (or test reraise))
    ((_ reraise (test) clause ...) (or test (%guard-clauses reraise clause ...)))
    ((_ reraise (test result ...)) (if test (begin result ...) reraise))
    ((_ reraise (test result ...) clause ...)
     (if test (begin result ...) (%guard-clauses reraise clause ...)))))

;;; Parameters: the bindings are a list of pairs (parameter . cell), innermost first.

(define make-parameter
  (case-lambda
    ((value) (%make-parameter value #f))
    ((value converter) (%make-parameter (converter value) converter))))

(define (%convert parameter value)
  (let ((converter (%parameter-converter parameter)))
    (if converter (converter value) value)))

(define (%with-parameters bindings thunk)
  (let* ((outer (%parameters))
         (inner (let loop ((bindings bindings))
                  (if (null? bindings)
                      outer
                      (cons (cons (car (car bindings)) (%make-cell (cdr (car bindings))))
                            (loop (cdr bindings)))))))
    (%set-parameters! inner)
    (let ((result (thunk)))
      (%set-parameters! outer)
      result)))

(define-syntax parameterize
  (syntax-rules ()
    ((_ ((parameter value) ...) body ...)
     (%with-parameters
      (list (let ((p parameter)) (cons p (%convert p value))) ...)
      (lambda () body ...)))))

;;; Promises: the state is a pair (done . value or thunk), shared by promises that delay-force chained.

(define-syntax delay-force
  (syntax-rules () ((_ expression) (%make-promise #f (lambda () expression)))))

(define-syntax delay
  (syntax-rules () ((_ expression) (delay-force (%make-promise #t expression)))))

(define (make-promise object)
  (if (promise? object) object (%make-promise #t object)))

(define (force promise)
  (if (promise? promise)
      (let loop ()
        (let ((state (%promise-state promise)))
          (if (car state)
              (cdr state)
              (let* ((next ((cdr state))) (state (%promise-state promise)))
                (if (not (car state))
                    (let ((next-state (%promise-state next)))
                      (set-car! state (car next-state))
                      (set-cdr! state (cdr next-state))
                      (%promise-share! next state)))
                (loop)))))
      promise))

(define-syntax let*-values
  (syntax-rules ()
    ((_ () body ...) (let () body ...))
    ((_ (binding) body ...) (let-values (binding) body ...))
    ((_ (binding rest ...) body ...)
     (let-values (binding) (let*-values (rest ...) body ...)))))

;;; Evaluation.

(define (eval expression . environment)
  ((if (null? environment)
       (%compile expression)
       (%compile expression (car environment)))))

(define (environment . sets)
  (let ((made (%new-environment)))
    (eval (cons 'import sets) made)
    made))

(define (scheme-report-environment version) (environment '(scheme r5rs)))
(define (null-environment version) (environment '(scheme r5rs)))
(define system-global-environment (interaction-environment))
(define (nearest-repl/environment) (interaction-environment))

(define exit
  (case-lambda
    (() (exit #t))
    ((code)
     (%leave-until '())
     (%exit code))))
