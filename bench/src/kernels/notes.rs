//! Release notes: what changed between kernels that a measurement of ours can see, from a data file
//! (`notes.json`) in which every line has its source.

use firn_heap::sys::probe::Release;
use serde::Deserialize;

/// One change.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The release it came with.
    pub release: String,
    /// What changed.
    pub text: String,
    /// Where that is known from.
    pub source: String,
    /// Operations of the census that it changed.
    pub operations: Vec<String>,
    /// Beginnings of names of metrics that it may have changed.
    pub metrics: Vec<String>,
}

impl Note {
    /// The text up to its first colon or semicolon.
    pub fn short(&self) -> &str {
        self.text.split([':', ';']).next().unwrap_or_default()
    }
}

/// All notes, oldest release first.
///
/// # Panics
/// Never: a test reads the file.
pub fn all() -> Vec<Note> {
    serde_json::from_str(include_str!("notes.json")).expect("the file is part of the program")
}

/// The notes of releases after `from` and up to `to`, both as `6.1` or longer.
pub fn between(from: &str, to: &str) -> Vec<Note> {
    let (Some(from), Some(to)) = (Release::parse(from), Release::parse(to)) else {
        return Vec::new();
    };
    let within = |note: &Note| Release::parse(&note.release).is_some_and(|r| from < r && r <= to);
    all().into_iter().filter(within).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_has_a_source_and_they_are_in_order() {
        let notes = all();
        let releases: Vec<_> = notes.iter().filter_map(|n| Release::parse(&n.release)).collect();
        assert_eq!(releases.len(), notes.len());
        assert!(releases.is_sorted());
        assert!(notes.iter().all(|n| !n.source.is_empty() && !n.text.is_empty()));
    }

    #[test]
    fn operations_that_a_note_names_are_in_the_census_and_change_there() {
        let operations = crate::census::operations();
        for note in all() {
            let release = Release::parse(&note.release).unwrap();
            for name in &note.operations {
                let operation = operations.iter().find(|o| o.name == name);
                let operation = operation.unwrap_or_else(|| panic!("{name} is not in the census"));
                let since = Release { major: operation.since.0, minor: operation.since.1 };
                let before = crate::census::known::before(&operation.known, release);
                let after = operation.known.of(release);
                assert!(
                    since == release || before != after,
                    "{name} did not change with {release}"
                );
            }
        }
    }

    #[test]
    fn notes_between_two_kernels_include_the_newer_one_s_release() {
        let releases = |from, to| -> Vec<String> {
            between(from, to).into_iter().map(|n| n.release).collect()
        };
        // 6.4 has two.
        assert_eq!(releases("6.1.0-50", "6.9"), ["6.4", "6.4", "6.6", "6.7", "6.8", "6.9"]);
        assert_eq!(releases("6.12.107+deb13", "6.12.117"), Vec::<String>::new());
        assert!(releases("6.12", "7.2").contains(&"7.2".to_owned()));
    }
}
