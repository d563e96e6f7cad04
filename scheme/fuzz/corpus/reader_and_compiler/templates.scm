;; Quasiquotation at every level, in lists and vectors, with shared and circular data.
`(1 ,(+ 1 1) ,@(list 3 4) . 5)
`#(1 ,@(map car '((2) (3))) `(4 ,(5 ,(+ 3 3) ,@(list 7))))
'#0=(a b . #0#)
`#1=#(1 #1# (2 . #1#))
`(,1 #2=(x #2#))
(let-values (((a . rest) (values 1 2 3)) (all (values))) `(,a ,rest ,@all))
