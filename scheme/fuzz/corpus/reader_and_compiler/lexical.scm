'(#t #false 1 -2 +3 1/2 -3/4 1.5 .5 1. 1e10 -1.5E-3 #xff #b-101 #e1.5 #i1/2 +inf.0 -nan.0 #x#e1f)
'(#\a #\space #\x41 #\( #\newline #\λ "str\n\t\\\"\x41; \
   continued" |sym bol| |a\x41;| ... + - -> a.b .c)
#| block #| nested |# |# #;(ignored (datum)) ; line
'#(1 #(2) #u8(0 255)) '(a . b) '(a b . (c d)) ''quoted '`(q ,u ,@s)
'#0=(a . #0#) '(#1=(x) #1# #2=#(y #2#)) #!fold-case ABC #!no-fold-case ABC
