;; Ports: the optional arguments, and the procedures that take procedures.

(define current-input-port (make-parameter (%standard-port 0)))
(define current-output-port (make-parameter (%standard-port 1)))
(define current-error-port (make-parameter (%standard-port 2)))

(define-syntax %define-reader
  (syntax-rules ()
    ((_ name builtin)
     (define name
       (case-lambda
         (() (builtin (current-input-port)))
         ((port) (builtin port)))))))
(%define-reader read-char %read-char)
(%define-reader peek-char %peek-char)
(%define-reader read-line %read-line)
(%define-reader read %read)
(%define-reader char-ready? %char-ready?)
(%define-reader read-u8 %read-u8)
(%define-reader peek-u8 %peek-u8)
(%define-reader u8-ready? %u8-ready?)

(define-syntax %define-counted-reader
  (syntax-rules ()
    ((_ name builtin)
     (define name
       (case-lambda
         ((k) (builtin k (current-input-port)))
         ((k port) (builtin k port)))))))
(%define-counted-reader read-string %read-string)
(%define-counted-reader read-bytevector %read-bytevector)

(define read-bytevector!
  (case-lambda
    ((to) (%read-bytevector! to (current-input-port)))
    ((to port) (%read-bytevector! to port))
    ((to port start) (%read-bytevector! to port start))
    ((to port start end) (%read-bytevector! to port start end))))

(define-syntax %define-writer
  (syntax-rules ()
    ((_ name builtin)
     (define name
       (case-lambda
         ((object) (builtin object (current-output-port)))
         ((object port) (builtin object port)))))))
(%define-writer write %write)
(%define-writer write-shared %write-shared)
(%define-writer write-simple %write-simple)
(%define-writer display %display)
(%define-writer write-char %write-char)
(%define-writer write-u8 %write-u8)

(define-syntax %define-part-writer
  (syntax-rules ()
    ((_ name builtin)
     (define name
       (case-lambda
         ((object) (builtin object (current-output-port)))
         ((object port) (builtin object port))
         ((object port start) (builtin object port start))
         ((object port start end) (builtin object port start end)))))))
(%define-part-writer write-string %write-string)
(%define-part-writer write-bytevector %write-bytevector)

(define newline
  (case-lambda
    (() (%write-char #\newline (current-output-port)))
    ((port) (%write-char #\newline port))))

(define flush-output-port
  (case-lambda
    (() (%flush (current-output-port)))
    ((port) (%flush port))))

(define (pp object) (write object) (newline))

(define (call-with-port port f)
  (call-with-values (lambda () (f port))
    (lambda results
      (close-port port)
      (apply values results))))

(define (call-with-input-file name f) (call-with-port (open-input-file name) f))
(define (call-with-output-file name f) (call-with-port (open-output-file name) f))

(define (with-input-from-file name thunk)
  (let ((port (open-input-file name)))
    (call-with-values (lambda () (parameterize ((current-input-port port)) (thunk)))
      (lambda results
        (close-port port)
        (apply values results)))))

(define (with-output-to-file name thunk)
  (let ((port (open-output-file name)))
    (call-with-values (lambda () (parameterize ((current-output-port port)) (thunk)))
      (lambda results
        (close-port port)
        (apply values results)))))

(define (call-with-output-string f)
  (let ((port (open-output-string)))
    (f port)
    (get-output-string port)))

(define (with-output-to-string thunk)
  (let ((port (open-output-string)))
    (parameterize ((current-output-port port)) (thunk))
    (get-output-string port)))

(define load
  (case-lambda
    ((name) (load name (interaction-environment)))
    ((name environment)
     ;; A procedure for each form, and at the end what is wrong with the next one, if something is.
     (let* ((forms (%compile-file name environment)) (last (- (vector-length forms) 1)))
       (let loop ((i 0))
         (if (< i last)
             (begin
               ((vector-ref forms i))
               (loop (+ i 1)))))
       (let ((wrong (vector-ref forms last)))
         (if wrong (raise (%make-condition (%trace) (car wrong) (cdr wrong)))))))))
