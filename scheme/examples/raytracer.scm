;; A ray tracer: spheres over a checkered plane, two lights, shadows, mirrors. Writes a binary PPM.
;;   firn scheme raytracer.scm [WIDTH [HEIGHT [FILE]]]
;; Every vector is a fresh record of three fresh flonums: some hundred bytes of garbage for each operation.
(import (scheme base) (scheme write) (scheme inexact) (scheme file) (scheme process-context))

(define-record-type <vec> (vec x y z) vec? (x vec-x) (y vec-y) (z vec-z))

(define (v+ a b) (vec (+ (vec-x a) (vec-x b)) (+ (vec-y a) (vec-y b)) (+ (vec-z a) (vec-z b))))
(define (v- a b) (vec (- (vec-x a) (vec-x b)) (- (vec-y a) (vec-y b)) (- (vec-z a) (vec-z b))))
(define (v* a k) (vec (* (vec-x a) k) (* (vec-y a) k) (* (vec-z a) k)))
(define (tint a b) (vec (* (vec-x a) (vec-x b)) (* (vec-y a) (vec-y b)) (* (vec-z a) (vec-z b))))
(define (dot a b) (+ (* (vec-x a) (vec-x b)) (* (vec-y a) (vec-y b)) (* (vec-z a) (vec-z b))))
(define (unit a) (v* a (/ 1.0 (sqrt (dot a a)))))
(define (reflect direction normal) (v- direction (v* normal (* 2.0 (dot direction normal)))))

(define-record-type <sphere> (make-sphere center radius color shine mirror) sphere?
  (center sphere-center) (radius sphere-radius) (color sphere-color) (shine sphere-shine) (mirror sphere-mirror))

(define spheres
  (list (make-sphere (vec 0.0 1.0 6.0) 1.0 (vec 0.9 0.3 0.25) 60.0 0.25)
        (make-sphere (vec -2.1 0.8 5.0) 0.8 (vec 0.3 0.6 0.95) 25.0 0.15)
        (make-sphere (vec 1.9 0.6 4.4) 0.6 (vec 0.95 0.85 0.3) 90.0 0.35)
        (make-sphere (vec 0.6 0.35 3.2) 0.35 (vec 0.5 0.9 0.45) 15.0 0.1)))

(define lights
  (list (cons (vec -5.0 8.0 -2.0) (vec 0.75 0.72 0.68))
        (cons (vec 6.0 4.0 0.0) (vec 0.25 0.3 0.4))))

(define ambient (vec 0.12 0.12 0.14))
(define far 1e9)

;; A hit: distance, point, normal, colour, shine, mirror.
(define-record-type <hit> (make-hit distance point normal color shine mirror) hit?
  (distance hit-distance) (point hit-point) (normal hit-normal) (color hit-color) (shine hit-shine) (mirror hit-mirror))

(define (sphere-distance s origin direction)
  (let* ((to (v- (sphere-center s) origin))
         (b (dot to direction))
         (d (- (* (sphere-radius s) (sphere-radius s)) (- (dot to to) (* b b)))))
    (and (> d 0.0)
         (let* ((root (sqrt d)) (near (- b root)) (other (+ b root)))
           (cond ((> near 1e-4) near)
                 ((> other 1e-4) other)
                 (else #f))))))

(define (plane-distance origin direction)
  (and (< (vec-y direction) -1e-6)
       (let ((d (/ (- (vec-y origin)) (vec-y direction))))
         (and (> d 1e-4) (< d 60.0) d))))

(define (plane-hit distance point)
  (let ((even (even? (+ (exact (floor (vec-x point))) (exact (floor (vec-z point)))))))
    (make-hit distance point (vec 0.0 1.0 0.0)
              (if even (vec 0.85 0.85 0.82) (vec 0.18 0.2 0.22)) 5.0 (if even 0.05 0.12))))

(define (nearest origin direction)
  (let search ((rest spheres) (best #f) (distance far))
    (if (pair? rest)
        (let ((d (sphere-distance (car rest) origin direction)))
          (if (and d (< d distance))
              (search (cdr rest) (car rest) d)
              (search (cdr rest) best distance)))
        (let ((d (plane-distance origin direction)))
          (cond ((and d (< d distance))
                 (plane-hit d (v+ origin (v* direction d))))
                (best
                 (let ((point (v+ origin (v* direction distance))))
                   (make-hit distance point (unit (v- point (sphere-center best)))
                             (sphere-color best) (sphere-shine best) (sphere-mirror best))))
                (else #f))))))

(define (blocked? origin direction limit)
  (let search ((rest spheres))
    (and (pair? rest)
         (let ((d (sphere-distance (car rest) origin direction)))
           (or (and d (< d limit)) (search (cdr rest)))))))

(define (sky direction)
  (let ((t (* 0.5 (+ 1.0 (vec-y direction)))))
    (v+ (v* (vec 0.95 0.95 1.0) (- 1.0 t)) (v* (vec 0.35 0.55 0.85) t))))

(define (shade h direction)
  (let loop ((rest lights) (sum (tint ambient (hit-color h))))
    (if (null? rest)
        sum
        (let* ((to (v- (caar rest) (hit-point h)))
               (distance (sqrt (dot to to)))
               (l (v* to (/ 1.0 distance)))
               (facing (dot l (hit-normal h))))
          (if (or (<= facing 0.0) (blocked? (hit-point h) l distance))
              (loop (cdr rest) sum)
              (let* ((glint (max 0.0 (dot (reflect direction (hit-normal h)) l)))
                     (highlight (expt glint (hit-shine h))))
                (loop (cdr rest)
                      (v+ sum (v+ (v* (tint (cdar rest) (hit-color h)) facing)
                                  (v* (cdar rest) (* 0.6 highlight)))))))))))

(define (trace origin direction depth)
  (let ((h (nearest origin direction)))
    (if (not h)
        (sky direction)
        (let ((color (shade h direction)) (mirror (hit-mirror h)))
          (if (or (= depth 0) (= mirror 0.0))
              color
              (v+ (v* color (- 1.0 mirror))
                  (v* (trace (hit-point h) (unit (reflect direction (hit-normal h))) (- depth 1)) mirror)))))))

(define (channel x) (exact (floor (min 255.0 (max 0.0 (* 255.99 (sqrt x)))))))

(define (render width height put!)
  (let ((eye (vec 0.0 1.4 -1.5)) (aspect (/ (inexact width) height)))
    (do ((y 0 (+ y 1))) ((= y height))
      (do ((x 0 (+ x 1))) ((= x width))
        (let* ((u (* aspect (- (/ (* 2.0 (+ x 0.5)) width) 1.0)))
               (v (- 1.0 (/ (* 2.0 (+ y 0.5)) height)))
               (color (trace eye (unit (vec (* 0.62 u) (- (* 0.62 v) 0.12) 1.0)) 3)))
          (put! (channel (vec-x color)) (channel (vec-y color)) (channel (vec-z color))))))))

(define (main width height file)
  (let ((pixels (make-bytevector (* 3 width height))) (at 0) (sum 0))
    (render width height
            (lambda (r g b)
              (bytevector-u8-set! pixels at r)
              (bytevector-u8-set! pixels (+ at 1) g)
              (bytevector-u8-set! pixels (+ at 2) b)
              (set! at (+ at 3))
              (set! sum (modulo (+ (* 31 sum) (+ (* 65536 r) (* 256 g) b)) 1000003))))
    (if file
        (call-with-port (open-binary-output-file file)
          (lambda (port)
            (write-bytevector
             (string->utf8 (string-append "P6\n" (number->string width) " " (number->string height) "\n255\n"))
             port)
            (write-bytevector pixels port))))
    (write-string (string-append (number->string width) " x " (number->string height)
                                 (if file (string-append " to " file) "")
                                 ", checksum " (number->string sum)))
    (newline)))

(let* ((arguments (cdr (command-line)))
       (size (lambda (at default) (if (> (length arguments) at) (string->number (list-ref arguments at)) default))))
  (main (size 0 160) (size 1 100) (and (> (length arguments) 2) (list-ref arguments 2))))
