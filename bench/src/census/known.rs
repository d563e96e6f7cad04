//! What is known of each operation by release: from booting the kernels and counting, from their
//! source, and for 6.4 to 6.9 and 6.15 from their change logs.
//!
//! A cell says which locks one operation takes: `R` and `W` are `mmap_lock` for reading and for
//! writing, `W↓` for writing and then downgraded to reading, `v` a VMA's own lock only, `-` that the
//! kernel does not have the operation; a number before a letter multiplies it, `+` adds.

use firn_heap::sys::probe::Release;

/// A group of releases between which no operation of the census differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Column(usize);

/// Each column's first release, and its label.
const COLUMNS: [((u32, u32), &str); 9] = [
    ((0, 0), "up to 6.3"),
    ((6, 4), "6.4, 6.5"),
    ((6, 6), "6.6, 6.7"),
    ((6, 8), "6.8"),
    ((6, 9), "6.9 to 6.16"),
    ((6, 17), "6.17"),
    ((6, 18), "6.18"),
    ((6, 19), "6.19 to 7.1"),
    ((7, 2), "from 7.2"),
];

impl Column {
    /// The one that a release belongs to; a newer one than all belongs to the last.
    pub fn of(release: Release) -> Column {
        let later = |&((major, minor), _): &_| Release { major, minor } <= release;
        Column(COLUMNS.iter().rposition(later).unwrap_or(0))
    }

    /// Its releases.
    pub fn label(self) -> &'static str {
        COLUMNS[self.0].1
    }
}

/// An operation's cells, one for each column.
#[derive(Debug, Clone, Copy)]
pub struct Known(pub [&'static str; 9]);

impl Known {
    /// The same on every kernel.
    pub const fn always(cell: &'static str) -> Known {
        Known([cell; 9])
    }

    /// `before` up to the column that begins with the release `major.minor`, `after` from there on.
    pub const fn since(before: &'static str, major: u32, minor: u32, after: &'static str) -> Known {
        let mut cells = [before; 9];
        let (mut i, mut found) = (0, false);
        while i < cells.len() {
            let ((a, b), _) = COLUMNS[i];
            found |= a == major && b == minor;
            if found {
                cells[i] = after;
            }
            i += 1;
        }
        assert!(found, "no column begins with that release");
        Known(cells)
    }

    /// The cell of a release.
    pub fn of(&self, release: Release) -> Option<&'static str> {
        self.0.get(Column::of(release).0).copied()
    }
}

/// The cell of the releases before `release`'s column.
pub fn before(known: &Known, release: Release) -> Option<&'static str> {
    known.0.get(Column::of(release).0.checked_sub(1)?).copied()
}

/// How often `mmap_lock` is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct Locks {
    /// For reading.
    pub read: u64,
    /// For writing, downgraded ones included.
    pub write: u64,
    /// Downgraded.
    pub downgraded: u64,
}

impl Locks {
    /// From a cell; `None` for `-`, and for what is no cell.
    pub fn parse(cell: &str) -> Option<Locks> {
        let mut locks = Locks::default();
        for term in cell.split('+') {
            let digits = term.bytes().take_while(u8::is_ascii_digit).count();
            let (number, mode) = term.split_at(digits);
            let n = if number.is_empty() { 1 } else { number.parse().ok()? };
            match mode {
                "R" => locks.read += n,
                "W" => locks.write += n,
                "W↓" => {
                    locks.write += n;
                    locks.downgraded += n;
                }
                "v" => {}
                _ => return None,
            }
        }
        Some(locks)
    }

    /// As a cell.
    pub fn cell(self) -> String {
        let plain = self.write.saturating_sub(self.downgraded);
        let terms = [(self.read, "R"), (plain, "W"), (self.downgraded, "W↓")];
        let text: Vec<_> = terms
            .into_iter()
            .filter(|&(n, _)| n > 0)
            .map(|(n, mode)| if n == 1 { mode.to_owned() } else { format!("{n}{mode}") })
            .collect();
        if text.is_empty() { "v".to_owned() } else { text.join("+") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_read_and_written() {
        let locks = |read, write, downgraded| Locks { read, write, downgraded };
        for (cell, expected, shown) in [
            ("v", locks(0, 0, 0), "v"),
            ("R", locks(1, 0, 0), "R"),
            ("2R", locks(2, 0, 0), "2R"),
            ("v+R", locks(1, 0, 0), "R"),
            ("W↓", locks(0, 1, 1), "W↓"),
            ("W+W", locks(0, 2, 0), "2W"),
            ("3R+W", locks(3, 1, 0), "3R+W"),
        ] {
            assert_eq!(Locks::parse(cell), Some(expected), "{cell}");
            assert_eq!(expected.cell(), shown);
        }
        for wrong in ["-", "", "X", "R+", "2"] {
            assert_eq!(Locks::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn releases_fall_into_their_columns() {
        let label = |major, minor| Column::of(Release { major, minor }).label();
        assert_eq!(label(5, 10), "up to 6.3");
        assert_eq!(label(6, 1), "up to 6.3");
        assert_eq!(label(6, 7), "6.6, 6.7");
        assert_eq!(label(6, 12), "6.9 to 6.16");
        assert_eq!(label(6, 18), "6.18");
        assert_eq!(label(7, 1), "6.19 to 7.1");
        assert_eq!(label(9, 0), "from 7.2");
        let known = Known::since("R", 6, 17, "v");
        assert_eq!(known.of(Release { major: 6, minor: 16 }), Some("R"));
        assert_eq!(known.of(Release { major: 6, minor: 17 }), Some("v"));
    }

    #[test]
    fn every_known_cell_can_be_read() {
        for operation in super::super::operations() {
            for cell in operation.known.0 {
                assert!(cell == "-" || Locks::parse(cell).is_some(), "{}: {cell}", operation.name);
            }
        }
    }
}
