;; An interpreter in the interpreter in the interpreter: an evaluator for a part of Scheme, written in that part, so
;; that it can evaluate itself.
;;   firn scheme evaluator.scm [N]      computes (fib N) on each floor of the tower
(import (scheme base) (scheme write) (scheme eval) (scheme process-context))

;; The evaluator turns expressions into closures of one argument, the environment: a list of frames, each a pair of
;; a list of names and a list of values. Its source is data; its value is a procedure (evaluate expression).
(define source
  '(begin
     (define (lookup name frames)
       (if (null? frames)
           (error "unbound variable" name)
           (let search ((names (car (car frames))) (values (cdr (car frames))))
             (cond ((null? names) (lookup name (cdr frames)))
                   ((eq? name (car names)) values)
                   (else (search (cdr names) (cdr values)))))))

     (define (extend names values frames) (cons (cons names values) frames))

     (define (define! name value frames)
       (set-car! frames (cons (cons name (car (car frames))) (cons value (cdr (car frames))))))

     (define (frame-for parameters arguments)
       (cond ((null? parameters) (cons '() '()))
             ((symbol? parameters) (cons (list parameters) (list arguments)))
             (else (let ((rest (frame-for (cdr parameters) (cdr arguments))))
                     (cons (cons (car parameters) (car rest)) (cons (car arguments) (cdr rest)))))))

     (define (map1 f items) (if (null? items) '() (cons (f (car items)) (map1 f (cdr items)))))

     (define (analyze-sequence body)
       (let ((first (analyze (car body))))
         (if (null? (cdr body))
             first
             (let ((rest (analyze-sequence (cdr body))))
               (lambda (frames) (first frames) (rest frames))))))

     (define (analyze-lambda parameters body)
       (let ((code (analyze-sequence body)))
         (lambda (frames)
           (lambda arguments
             (code (cons (frame-for parameters arguments) frames))))))

     (define (analyze-cond clauses)
       (cond ((null? clauses) (lambda (frames) #f))
             ((eq? (car (car clauses)) 'else) (analyze-sequence (cdr (car clauses))))
             (else
              (let ((test (analyze (car (car clauses))))
                    (body (analyze-sequence (cdr (car clauses))))
                    (rest (analyze-cond (cdr clauses))))
                (lambda (frames) (if (test frames) (body frames) (rest frames)))))))

     (define (analyze-let form)
       (if (symbol? (car (cdr form)))
           (let ((name (car (cdr form))) (bindings (car (cdr (cdr form)))) (body (cdr (cdr (cdr form)))))
             (let ((code (analyze-lambda (map1 car bindings) body))
                   (inits (map1 (lambda (b) (analyze (car (cdr b)))) bindings)))
               (lambda (frames)
                 (let ((inner (extend (list name) (list #f) frames)))
                   (let ((loop (code inner)))
                     (set-car! (cdr (car inner)) loop)
                     (apply loop (map1 (lambda (init) (init frames)) inits)))))))
           (let ((code (analyze-lambda (map1 car (car (cdr form))) (cdr (cdr form))))
                 (inits (map1 (lambda (b) (analyze (car (cdr b)))) (car (cdr form)))))
             (lambda (frames) (apply (code frames) (map1 (lambda (init) (init frames)) inits))))))

     (define (analyze form)
       (cond ((symbol? form) (lambda (frames) (car (lookup form frames))))
             ((not (pair? form)) (lambda (frames) form))
             ((eq? (car form) 'quote) (let ((datum (car (cdr form)))) (lambda (frames) datum)))
             ((eq? (car form) 'lambda) (analyze-lambda (car (cdr form)) (cdr (cdr form))))
             ((eq? (car form) 'begin) (analyze-sequence (cdr form)))
             ((eq? (car form) 'cond) (analyze-cond (cdr form)))
             ((eq? (car form) 'let) (analyze-let form))
             ((eq? (car form) 'define)
              (if (pair? (car (cdr form)))
                  (let ((code (analyze-lambda (cdr (car (cdr form))) (cdr (cdr form)))) (name (car (car (cdr form)))))
                    (lambda (frames) (define! name (code frames) frames)))
                  (let ((code (analyze (car (cdr (cdr form))))) (name (car (cdr form))))
                    (lambda (frames) (define! name (code frames) frames)))))
             ((eq? (car form) 'set!)
              (let ((name (car (cdr form))) (code (analyze (car (cdr (cdr form))))))
                (lambda (frames) (set-car! (lookup name frames) (code frames)))))
             ((eq? (car form) 'if)
              (let ((test (analyze (car (cdr form))))
                    (yes (analyze (car (cdr (cdr form)))))
                    (no (if (null? (cdr (cdr (cdr form)))) (lambda (frames) #f) (analyze (car (cdr (cdr (cdr form))))))))
                (lambda (frames) (if (test frames) (yes frames) (no frames)))))
             ((eq? (car form) 'and)
              (if (null? (cdr (cdr form)))
                  (analyze (car (cdr form)))
                  (let ((first (analyze (car (cdr form)))) (rest (analyze (cons 'and (cdr (cdr form))))))
                    (lambda (frames) (if (first frames) (rest frames) #f)))))
             (else
              (let ((operator (analyze (car form))) (operands (map1 analyze (cdr form))))
                (lambda (frames)
                  (apply (operator frames) (map1 (lambda (operand) (operand frames)) operands)))))))

     (define (make-evaluator names values)
       (let ((global (extend names values '())))
         (lambda (form) ((analyze form) global))))

     make-evaluator))

;; What each floor lends to the one above.
(define names
  '(car cdr cons list null? pair? symbol? eq? not set-car! apply error + - * < = >))
(define procedures
  (list car cdr cons list null? pair? symbol? eq? not set-car! apply error + - * < = >))

(define program
  '(begin
     (define (fib n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
     fib))

(define (report floor value)
  (write-string (string-append "floor " (number->string floor) ": "))
  (write value)
  (newline))

(define (main n)
  (let* ((ground (environment '(scheme base)))
         ;; A body, so that its definitions are local.
         (make-first ((eval (list 'lambda '() (cons 'let (cons '() (cdr source)))) ground)))
         (first (make-first names procedures))
         (make-second (first source))
         (second (make-second names procedures)))
    (report 0 ((eval (list 'let '() (cadr program) 'fib) ground) n))
    (report 1 ((first program) n))
    (report 2 ((second program) n))
    (report 2 (second '(let loop ((i 0) (squares '()))
                         (cond ((= i 10) squares) (else (loop (+ i 1) (cons (* i i) squares)))))))))

(let ((arguments (cdr (command-line))))
  (main (if (pair? arguments) (string->number (car arguments)) 10)))
