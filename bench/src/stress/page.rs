//! Text for a terminal of 80 columns: paragraphs, labelled entries, and tables, wrapped and without
//! blanks at the ends of lines.

use std::fmt::Write;

/// Columns of a page.
pub const WIDTH: usize = 80;
/// Columns of the labels at the left.
pub const LABEL: usize = 13;

/// Lines of at most [`WIDTH`] columns.
#[derive(Debug, Default)]
pub struct Page {
    out: String,
}

impl Page {
    /// An empty line.
    pub fn blank(&mut self) {
        self.out.push('\n');
    }

    /// A line that is known to fit.
    pub fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    /// Text over the whole width.
    pub fn paragraph(&mut self, text: &str) {
        for line in wrap(text, WIDTH) {
            self.line(&line);
        }
    }

    /// A label of [`LABEL`] columns, and text that is wrapped beside it.
    pub fn entry(&mut self, label: &str, text: &str) {
        for (i, line) in wrap(text, WIDTH - LABEL).iter().enumerate() {
            let label = if i == 0 { label } else { "" };
            self.line(&format!("{label:<LABEL$}{line}"));
        }
    }

    /// A row of a table: a label of `first` columns and right-aligned cells of `cell` columns.
    pub fn row(&mut self, label: &str, first: usize, cell: usize, cells: &[String]) {
        let mut line = format!("{label:<first$}");
        for text in cells {
            let _ = write!(line, "{text:>cell$}");
        }
        self.line(&line);
    }

    /// The first row of a table.
    pub fn head(&mut self, label: &str, first: usize, cell: usize, heads: &[&str]) {
        let cells: Vec<_> = heads.iter().map(|h| (*h).to_owned()).collect();
        self.row(label, first, cell, &cells);
    }

    /// Everything so far, with a newline at its end.
    pub fn finish(self) -> String {
        self.out
    }
}

/// Breaks text at spaces; a word that is too long stands alone and is cut.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word = word;
        loop {
            let line = lines.last_mut().expect("never empty");
            let room = width - line.chars().count();
            let gap = usize::from(!line.is_empty());
            if word.chars().count() + gap <= room {
                if gap == 1 {
                    line.push(' ');
                }
                line.push_str(word);
                break;
            }
            if line.is_empty() {
                let cut = word.char_indices().nth(width).map_or(word.len(), |(i, _)| i);
                line.push_str(&word[..cut]);
                word = &word[cut..];
                if word.is_empty() {
                    break;
                }
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_cut_and_nothing_is_lost() {
        let text = format!("a {} b", "x".repeat(200));
        let lines = wrap(&text, 50);
        assert!(lines.iter().all(|l| l.len() <= 50));
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
    }
}
