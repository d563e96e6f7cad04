//! The census as a table of 80 columns and as JSON.

use serde::Serialize;
use serde_json::{Value, json};

use super::bench::{Counted, Trouble};
use super::known::Locks;
use crate::measure::machine::MachineReport;
use crate::stress::page::Page;

/// The version of the JSON.
pub const SCHEMA: &str = "firn-census-1";

/// One operation's answer.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The operation.
    pub name: &'static str,
    /// The locks that one run takes, as a cell; `-` if the kernel does not have the operation, `?`
    /// if there is no answer.
    pub cell: String,
    /// `mmap_lock` taken for reading in one run.
    pub read: Option<u64>,
    /// `mmap_lock` taken for writing in one run.
    pub write: Option<u64>,
    /// Of those for writing, downgraded.
    pub downgraded: Option<u64>,
    /// Runs.
    pub runs: u32,
    /// Runs that agree.
    pub agree: u32,
    /// What is known of this kernel's release, if anything is.
    pub known: Option<&'static str>,
    /// Whether the answer is what is known; `None` without an answer, or without knowledge.
    pub as_known: Option<bool>,
    /// Why there is no answer, or how often it had to be asked for again.
    pub note: Option<String>,
}

impl Row {
    /// From what was found and what is known.
    pub fn new(
        name: &'static str,
        found: Result<Counted, Trouble>,
        known: Option<&'static str>,
    ) -> Row {
        let mut row = Row {
            name,
            cell: "?".to_owned(),
            read: None,
            write: None,
            downgraded: None,
            runs: 0,
            agree: 0,
            known,
            as_known: None,
            note: None,
        };
        match found {
            Ok(Counted { locks, agree, runs, refused }) => {
                row.cell = locks.cell();
                row.read = Some(locks.read);
                row.write = Some(locks.write);
                row.downgraded = Some(locks.downgraded);
                (row.runs, row.agree) = (runs, agree);
                row.as_known = known.map(|cell| Locks::parse(cell) == Some(locks));
                row.note = (refused > 0)
                    .then(|| format!("made again after {refused} refusals for the moment"));
            }
            Err(Trouble::Absent(why)) => {
                row.cell = "-".to_owned();
                row.as_known = known.map(|cell| cell == "-");
                row.note = Some(why);
            }
            Err(Trouble::Skipped(why)) => row.note = Some(why),
            Err(Trouble::Refused(errno)) => {
                row.as_known = Some(false);
                row.note = Some(format!("it was refused with {errno}"));
            }
            Err(Trouble::Failed(why)) => {
                row.as_known = Some(false);
                row.note = Some(why);
            }
        }
        row
    }
}

/// A whole census.
#[derive(Debug, Clone)]
pub struct Census {
    /// Runs asked for.
    pub runs: u32,
    /// The releases that this kernel belongs to, as far as its locks are known.
    pub column: Option<String>,
    /// The machine.
    pub machine: MachineReport,
    /// By operation.
    pub rows: Vec<Row>,
}

impl Census {
    /// Operations whose answer is not what is known, or that failed.
    pub fn differing(&self) -> usize {
        self.rows.iter().filter(|r| r.as_known == Some(false)).count()
    }
}

/// The census as JSON.
pub fn json(census: &Census) -> Value {
    json!({
        "schema": SCHEMA,
        "machine": census.machine,
        "known_as": census.column,
        "runs": census.runs,
        "operations": census.rows,
    })
}

/// Columns of the operations' names, and of the cells.
const NAME: usize = 34;
const CELL: usize = 10;

/// The census as text.
pub fn text(census: &Census) -> String {
    let mut page = Page::default();
    page.paragraph(&verdict(census));
    page.blank();
    page.head("operation", NAME, CELL, &["locks", "known", "agree"]);
    for row in &census.rows {
        let agree = match row.runs {
            0 => String::new(),
            runs => format!("{}/{runs}", row.agree),
        };
        let cells = [row.cell.clone(), row.known.unwrap_or("").to_owned(), agree];
        let mark = if row.as_known == Some(false) { "  differs" } else { "" };
        let mut line = format!("{:<NAME$}", row.name);
        cells.iter().for_each(|cell| line.push_str(&format!("{cell:>CELL$}")));
        page.line(&(line + mark));
    }
    let notes: Vec<_> =
        census.rows.iter().filter_map(|r| Some((r.name, r.note.as_ref()?))).collect();
    if !notes.is_empty() {
        page.blank();
        notes.iter().for_each(|(name, note)| page.paragraph(&format!("{name}: {note}")));
    }
    page.blank();
    page.paragraph(
        "R, W: mmap_lock taken for reading, for writing; W↓: for writing, then downgraded to \
         reading; v: not taken (a VMA's own lock, or none); -: this kernel does not have the \
         operation. The attempt under a VMA's lock before R in v+R leaves no trace.",
    );
    page.finish()
}

fn verdict(census: &Census) -> String {
    let (all, differing) = (census.rows.len(), census.differing());
    let answered = census.rows.iter().filter(|r| r.as_known.is_some()).count();
    let kernel = &census.machine.kernel;
    match (&census.column, differing) {
        (None, _) => format!("{all} operations on {kernel}, a release of which nothing is known."),
        (Some(column), 0) => format!(
            "On {kernel}, {answered} of {all} operations take mmap_lock as known for {column}; none \
             differs."
        ),
        (Some(column), n) => format!(
            "On {kernel}, {n} of {all} operations do not take mmap_lock as known for {column}."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(read: u64, write: u64, downgraded: u64) -> Result<Counted, Trouble> {
        Ok(Counted { locks: Locks { read, write, downgraded }, agree: 19, runs: 20, refused: 0 })
    }

    fn sample() -> Census {
        let rows = vec![
            Row::new("mmap", counted(0, 1, 0), Some("W")),
            Row::new("munmap", counted(0, 1, 1), Some("W↓")),
            Row::new("missing fault, fault thread", counted(1, 0, 0), Some("v+R")),
            Row::new("process_madvise(self, DONTNEED)", counted(0, 0, 0), Some("R")),
            Row::new("UFFDIO_MOVE", Err(Trouble::Absent("refused".into())), Some("-")),
            Row::new("huge page fault", Err(Trouble::Skipped("off".into())), Some("v")),
            Row::new("fork", Err(Trouble::Failed("it failed".into())), Some("W+W")),
        ];
        let (column, machine) = (Some("6.18".to_owned()), MachineReport::probe());
        Census { runs: 20, column, machine, rows }
    }

    #[test]
    fn what_differs_and_what_failed_count_and_what_is_skipped_does_not() {
        let census = sample();
        assert_eq!(census.differing(), 2);
        let known: Vec<_> = census.rows.iter().map(|r| r.as_known).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(known, [yes, yes, yes, no, yes, None, no]);
        assert!(verdict(&census).contains("2 of 7"));
    }

    #[test]
    fn what_had_to_be_asked_for_again_is_an_answer_with_a_note() {
        let again = counted(3, 1, 0).map(|counted| Counted { refused: 2, ..counted });
        let row = Row::new("COLLAPSE", again, Some("3R+W"));
        assert_eq!(row.as_known, Some(true));
        assert!(row.note.unwrap().contains("2 refusals"));
        let row = Row::new("COLLAPSE", Err(Trouble::Failed("it failed".into())), Some("3R+W"));
        assert_eq!(row.as_known, Some(false));
    }

    #[test]
    fn the_table_fits_and_the_json_has_its_schema() {
        let text = text(&sample());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("W↓") && text.contains("19/20") && text.contains("differs"));
        let json = json(&sample());
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["operations"][1]["downgraded"], 1);
        assert_eq!(json["operations"][4]["cell"], "-");
    }
}
