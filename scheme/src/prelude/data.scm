;; Procedures that take procedures, over lists, vectors, strings and tables.

(define member
  (case-lambda
    ((object list) (%member object list))
    ((object list same?)
     (let loop ((list list))
       (cond ((null? list) #f)
             ((same? object (car list)) list)
             (else (loop (cdr list))))))))

(define assoc
  (case-lambda
    ((key list) (%assoc key list))
    ((key list same?)
     (let loop ((list list))
       (cond ((null? list) #f)
             ((same? key (car (car list))) (car list))
             (else (loop (cdr list))))))))

(define (%any-null? lists)
  (and (pair? lists) (or (not (pair? (car lists))) (%any-null? (cdr lists)))))
(define (%cars lists) (if (null? lists) '() (cons (car (car lists)) (%cars (cdr lists)))))
(define (%cdrs lists) (if (null? lists) '() (cons (cdr (car lists)) (%cdrs (cdr lists)))))

(define (%proper-end end)
  (if (not (null? end)) (error "not a list" end)))

(define map
  (case-lambda
    ((f list)
     (let loop ((list list) (done '()))
       (if (pair? list)
           (loop (cdr list) (cons (f (car list)) done))
           (begin (%proper-end list) (reverse done)))))
    ((f a b)
     (let loop ((a a) (b b) (done '()))
       (if (and (pair? a) (pair? b))
           (loop (cdr a) (cdr b) (cons (f (car a) (car b)) done))
           (reverse done))))
    ((f . lists)
     (let loop ((lists lists) (done '()))
       (if (%any-null? lists)
           (reverse done)
           (loop (%cdrs lists) (cons (apply f (%cars lists)) done)))))))

(define for-each
  (case-lambda
    ((f list)
     (let loop ((list list))
       (if (pair? list)
           (begin (f (car list)) (loop (cdr list)))
           (%proper-end list))))
    ((f a b)
     (let loop ((a a) (b b))
       (if (and (pair? a) (pair? b))
           (begin (f (car a) (car b)) (loop (cdr a) (cdr b))))))
    ((f . lists)
     (let loop ((lists lists))
       (if (not (%any-null? lists))
           (begin (apply f (%cars lists)) (loop (%cdrs lists))))))))

(define (append-map f . lists) (apply append (apply map f lists)))

(define (%least-length lengths) (apply min lengths))

(define vector-map
  (case-lambda
    ((f v)
     (let ((n (vector-length v)))
       (let loop ((i 0) (done '()))
         (if (< i n)
             (loop (+ i 1) (cons (f (vector-ref v i)) done))
             (list->vector (reverse done))))))
    ((f . vectors)
     (let ((n (%least-length (map vector-length vectors))))
       (let loop ((i 0) (done '()))
         (if (< i n)
             (loop (+ i 1) (cons (apply f (map (lambda (v) (vector-ref v i)) vectors)) done))
             (list->vector (reverse done))))))))

(define vector-for-each
  (case-lambda
    ((f v)
     (let ((n (vector-length v)))
       (let loop ((i 0))
         (if (< i n)
             (begin (f (vector-ref v i)) (loop (+ i 1)))))))
    ((f . vectors)
     (let ((n (%least-length (map vector-length vectors))))
       (let loop ((i 0))
         (if (< i n)
             (begin (apply f (map (lambda (v) (vector-ref v i)) vectors)) (loop (+ i 1)))))))))

(define string-map
  (case-lambda
    ((f s)
     (let ((n (string-length s)))
       (let loop ((i 0) (done '()))
         (if (< i n)
             (loop (+ i 1) (cons (f (string-ref s i)) done))
             (list->string (reverse done))))))
    ((f . strings)
     (let ((n (%least-length (map string-length strings))))
       (let loop ((i 0) (done '()))
         (if (< i n)
             (loop (+ i 1) (cons (apply f (map (lambda (s) (string-ref s i)) strings)) done))
             (list->string (reverse done))))))))

(define string-for-each
  (case-lambda
    ((f s)
     (let ((n (string-length s)))
       (let loop ((i 0))
         (if (< i n)
             (begin (f (string-ref s i)) (loop (+ i 1)))))))
    ((f . strings)
     (let ((n (%least-length (map string-length strings))))
       (let loop ((i 0))
         (if (< i n)
             (begin (apply f (map (lambda (s) (string-ref s i)) strings)) (loop (+ i 1)))))))))

;;; Beyond R7RS.

(define (filter keep? list)
  (let loop ((list list) (done '()))
    (cond ((null? list) (reverse done))
          ((keep? (car list)) (loop (cdr list) (cons (car list) done)))
          (else (loop (cdr list) done)))))

(define (delete object list) (filter (lambda (other) (not (equal? object other))) list))

(define (delete-duplicates list)
  (let loop ((list list) (done '()))
    (cond ((null? list) (reverse done))
          ((member (car list) done) (loop (cdr list) done))
          (else (loop (cdr list) (cons (car list) done))))))

(define (fold f start list)
  (if (null? list) start (fold f (f (car list) start) (cdr list))))
(define (fold-left f start list)
  (if (null? list) start (fold-left f (f start (car list)) (cdr list))))
(define (fold-right f start list)
  (fold f start (reverse list)))
(define (reduce f start list)
  (if (null? list) start (fold f (car list) (cdr list))))

(define (any pred list)
  (and (pair? list) (or (pred (car list)) (any pred (cdr list)))))
(define (every pred list)
  (or (null? list)
      (if (null? (cdr list)) (pred (car list)) (and (pred (car list)) (every pred (cdr list))))))
(define (list-index pred list)
  (let loop ((list list) (i 0))
    (cond ((null? list) #f) ((pred (car list)) i) (else (loop (cdr list) (+ i 1))))))

(define (first list) (car list))
(define (second list) (cadr list))
(define (third list) (caddr list))
(define (1+ n) (+ n 1))
(define (-1+ n) (- n 1))

;; Merge sort; stable.
(define (%merge a b less?)
  (let loop ((a a) (b b) (done '()))
    (cond ((null? a) (append! (reverse! done) b))
          ((null? b) (append! (reverse! done) a))
          ((less? (car b) (car a)) (loop a (cdr b) (cons (car b) done)))
          (else (loop (cdr a) b (cons (car a) done))))))

(define (%sort-list list n less?)
  (if (< n 2)
      (list-head list n)
      (let ((half (quotient n 2)))
        (%merge (%sort-list list half less?)
                (%sort-list (list-tail list half) (- n half) less?)
                less?))))

(define (sort sequence less?)
  (if (vector? sequence)
      (list->vector (sort (vector->list sequence) less?))
      (%sort-list sequence (length sequence) less?)))
(define (list-sort less? list) (sort list less?))

(define (string-index string wanted)
  (let ((n (string-length string)))
    (let loop ((i 0))
      (cond ((= i n) #f)
            ((if (char? wanted) (char=? wanted (string-ref string i)) (wanted (string-ref string i))) i)
            (else (loop (+ i 1)))))))

(define (string-search-forward pattern string start)
  (let ((m (string-length pattern)) (n (string-length string)))
    (let loop ((i start))
      (cond ((> (+ i m) n) #f)
            ((let same ((j 0))
               (or (= j m)
                   (and (char=? (string-ref pattern j) (string-ref string (+ i j))) (same (+ j 1)))))
             i)
            (else (loop (+ i 1)))))))
(define (string-contains string pattern) (string-search-forward pattern string 0))

(define string-join
  (case-lambda
    ((strings) (string-join strings " "))
    ((strings between)
     (if (null? strings)
         ""
         (apply string-append
                (car strings)
                (append-map (lambda (s) (list between s)) (cdr strings)))))))

;;; Hash tables.

(define hash-table-ref
  (case-lambda
    ((table key) (hash-table-ref table key (lambda () (error "hash-table-ref: no such key" key))))
    ((table key default)
     (let* ((nothing (list #f)) (value (hash-table-ref/default table key nothing)))
       (if (eq? value nothing) (default) value)))
    ((table key default found)
     (let* ((nothing (list #f)) (value (hash-table-ref/default table key nothing)))
       (if (eq? value nothing) (default) (found value))))))

(define hash-table-update!
  (case-lambda
    ((table key f) (hash-table-set! table key (f (hash-table-ref table key))))
    ((table key f default) (hash-table-set! table key (f (hash-table-ref table key default))))))
(define (hash-table-update!/default table key f default)
  (hash-table-set! table key (f (hash-table-ref/default table key default))))

(define (hash-table-walk table f)
  (hash-table-fold table (lambda (k v done) (f k v) done) (if #f #f)))
(define (hash-table-fold table f start)
  (if (weak-hash-table? table)
      ;; Keys and values in turn.
      (let ((entries (%weak-table-entries table)))
        (let loop ((i 0) (result start))
          (if (= i (vector-length entries))
              result
              (loop (+ i 2) (f (vector-ref entries i) (vector-ref entries (+ i 1)) result)))))
      (let ((entries (%hash-table-entries table)))
        (let loop ((i 0) (result start))
          (if (= i (vector-length entries))
              result
              (let ((entry (vector-ref entries i)))
                (loop (+ i 1) (f (car entry) (cdr entry) result))))))))
(define (hash-table-keys table) (hash-table-fold table (lambda (k v done) (cons k done)) '()))
(define (hash-table-values table) (hash-table-fold table (lambda (k v done) (cons v done)) '()))
(define (hash-table->alist table)
  (hash-table-fold table (lambda (k v done) (cons (cons k v) done)) '()))
(define (alist->hash-table alist . options)
  (let ((table (apply make-hash-table options)))
    (for-each (lambda (entry)
                (if (not (hash-table-exists? table (car entry)))
                    (hash-table-set! table (car entry) (cdr entry))))
              alist)
    table))
(define (hash-table-copy table . options)
  (let ((copy (if (weak-hash-table? table) (make-weak-hash-table) (make-hash-table))))
    (hash-table-walk table (lambda (k v) (hash-table-set! copy k v)))
    copy))

;; A guardian: with an argument it registers that; without, it gives something that it was given and that
;; nothing else holds any more, or #f.
(define (make-guardian)
  (let ((guardian (%make-guardian)))
    (case-lambda
      (() (%guardian-poll guardian))
      ((object) (%guardian-register! guardian object)))))
