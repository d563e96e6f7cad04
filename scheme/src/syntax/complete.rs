//! Whether a text that somebody is typing can be evaluated, or goes on in the next line.
//!
//! A prompt asks this of all that has been typed whenever a line ends, and can be interrupted by no key meanwhile. So the
//! text is read for its structure only: that takes one pass over it, whatever numbers it denotes, and leaves nothing behind.

use super::Forms;
use super::reader::{Reader, Text};
use crate::numbers::large::Watch;

/// Whether the text ends between two data. A text with something wrong in it that no more text could mend is complete,
/// too: whoever evaluates it says what that is.
///
/// # Examples
/// ```
/// use firn_scheme::syntax::complete::is_complete;
///
/// assert!(is_complete("(list #\\( \"(\" '|(| 1) ; ("));
/// assert!(!is_complete("(define (f x)"));
/// assert!(is_complete("(define (f x]"));
/// ```
pub fn is_complete(text: &str) -> bool {
    let mut forms = Forms::new();
    let mut reader = Reader::new(Watch::NOBODY, Text::new(text));
    reader.leave_out_atoms();
    loop {
        match reader.read(&mut forms) {
            Ok(Some(_)) => forms.truncate(0),
            Ok(None) => return true,
            Err(unread) => return !unread.wrong().expect("nobody stops it").incomplete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::Number;
    use crate::syntax::Node;

    const COMPLETE: &[&str] = &[
        "",
        "42 'x (a . b)",
        "(list #\\( #\\) #\\; #\\\" #\\space #\\x28)",
        "\"(\" \"a;b\" \"\\\"(\" \"\\x28;\" \"#|\"",
        "|(| '(|a b| x|)|y)",
        "; (\n1",
        "#| ( #| ) |# \" |# 1",
        "#;(a (b)) 1 #;x",
        "`(a ,b ,@(c))",
        "#(1 #u8(2 3) \"x\")",
        "#0=(a . #0#)",
        "#!fold-case (A)",
        "(#t #false #d12 #e1.5 1/2 -inf.0 + ... 1e1000000 #e1e1000000)",
    ];

    const INCOMPLETE: &[&str] = &[
        "(",
        "1 (2 (3)",
        "(a . ",
        "\"a",
        "\"a\\",
        "\"a\\  ",
        "\"(\\\")",
        "|a",
        "(x|)|",
        "#\\",
        "(#\\)",
        "(1 ; )",
        "#| |",
        "1 #| #| |#",
        "#;",
        "(1 #;",
        "(1 #;(2)",
        "'",
        "(quote . `",
        "#(1 2",
        "#u8(1 2",
        "#0=",
    ];

    const WRONG: &[&str] = &[
        ")",
        "(a]",
        "[",
        "(a . )",
        "(a . b c",
        "(#foo",
        "(1 #<x",
        "(#\\nonsense",
        "(\"\\q",
        "(#u8(a",
        "(1 #!nonsense",
        "#0# (",
    ];

    #[test]
    fn a_text_goes_on_where_a_datum_does() {
        for text in COMPLETE.iter().chain(WRONG) {
            assert!(is_complete(text), "{text}");
        }
        for text in INCOMPLETE {
            assert!(!is_complete(text), "{text}");
        }
    }

    /// What each beginning of these texts comes to when it is read for its structure, and when it is read.
    #[test]
    fn the_structure_is_that_of_what_is_read() {
        for text in [COMPLETE, INCOMPLETE, WRONG].concat() {
            for (end, _) in text.char_indices().chain([(text.len(), ' ')]) {
                let text = &text[..end];
                let mut readers = [0, 1].map(|_| Reader::new(Watch::NOBODY, Text::new(text)));
                readers[1].leave_out_atoms();
                loop {
                    let [all, structure] = readers.each_mut().map(|reader| {
                        let mut forms = Forms::new();
                        reader.read(&mut forms).map(|id| id.map(|_| forms.len()))
                    });
                    assert_eq!(all, structure, "{text}");
                    if !matches!(all, Ok(Some(_))) {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn no_number_is_computed_and_no_name_is_kept() {
        let mut forms = Forms::new();
        let mut read = |text: &str| {
            let mut reader = Reader::new(Watch::NOBODY, Text::new(text));
            reader.leave_out_atoms();
            let datum = reader.read(&mut forms).expect("nothing is wrong").expect("there is one");
            (forms.node(datum).clone(), reader.has_left_out())
        };
        let many = "7".repeat(1_000_000);
        for number in ["7", "-1.5", "1/3", "#xff", "#e1e999999", "+inf.0", &many] {
            assert!(matches!(read(number), (Node::Number(Number::Small(0)), true)));
        }
        let mut name = |text: &str| match read(text) {
            (Node::Ident(ident), false) => ident.as_symbol().expect("it was read").name(),
            other => panic!("{text}: {other:?}"),
        };
        for text in ["never-typed", "|never typed|", "...", "+"] {
            assert_eq!(&*name(text), "_");
        }
    }
}
