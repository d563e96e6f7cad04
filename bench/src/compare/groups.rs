//! Which runs are set against which.
//!
//! Runs of the same name (`scenario/variant/backend`) belong together. Where the two sides have no
//! name in common, but one back end each, runs that are otherwise the same are set against each
//! other: that is a comparison of back ends. Runs that share neither are not compared.

use std::collections::BTreeMap;

use super::metrics::{self, Metric};
use super::stats::{self, Comparison};
use crate::exit::Failure;
use crate::results::Results;
use crate::schema::Run;

/// One side: its runs, with the file of each.
#[derive(Debug, Default, Clone)]
pub struct Sided<'a> {
    /// File and run.
    pub runs: Vec<(&'a Results, &'a Run)>,
}

impl<'a> Sided<'a> {
    /// All runs of the files that `keep` wants.
    pub fn of(files: &'a [Results], keep: impl Fn(&Run) -> bool) -> Sided<'a> {
        let runs =
            files.iter().flat_map(|file| file.document.runs.iter().map(move |run| (file, run)));
        Sided { runs: runs.filter(|(_, run)| keep(run)).collect() }
    }

    fn names(
        &self,
        name: impl Fn(&Run) -> String,
    ) -> BTreeMap<String, Vec<(&'a Results, &'a Run)>> {
        let mut names: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for &(file, run) in &self.runs {
            names.entry(name(run)).or_default().push((file, run));
        }
        names
    }

    fn list(&self) -> String {
        let names: Vec<String> = self.names(|run| run.name.clone()).into_keys().collect();
        names.join(", ")
    }
}

/// One metric of a group, on both sides.
#[derive(Debug, Clone)]
pub struct Line {
    /// The metric; its value is not used.
    pub metric: Metric,
    /// The comparison; `None` if a side did not measure it.
    pub comparison: Option<Comparison>,
    /// The values before, one a file that has it.
    pub before: Vec<f64>,
    /// The values after.
    pub after: Vec<f64>,
    /// `p`, adjusted for the number of metrics shown.
    pub adjusted_p: f64,
}

impl Line {
    /// The comparison, if a difference was shown at 5 % false discoveries.
    pub fn shown(&self) -> Option<&Comparison> {
        self.comparison.as_ref().filter(|_| self.adjusted_p <= 0.05)
    }
}

/// Runs that are set against each other.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// What they have in common.
    pub name: String,
    /// The runs before.
    pub before: Vec<(&'a Results, &'a Run)>,
    /// The runs after.
    pub after: Vec<(&'a Results, &'a Run)>,
    /// Files before: the number of invocations.
    pub files_before: usize,
    /// Files after.
    pub files_after: usize,
    /// All metrics that either side has.
    pub lines: Vec<Line>,
}

impl Group<'_> {
    /// The line of a metric.
    pub fn line(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.metric.name == name)
    }
}

/// Pairs the sides.
///
/// # Errors
/// Exit code 2 if they have nothing in common, with what each has.
pub fn pair<'a>(before: &Sided<'a>, after: &Sided<'a>) -> Result<Vec<Group<'a>>, Failure> {
    let mut groups = matching(before, after, |run| run.name.clone());
    if groups.is_empty() {
        // One back end a side: otherwise it is not clear which to set against which.
        let backends = |side: &Sided<'_>| side.names(|run| run.backend.clone()).len();
        if backends(before) == 1 && backends(after) == 1 {
            groups = matching(before, after, without_backend);
        }
    }
    match groups.is_empty() {
        false => Ok(groups),
        true => Err(Failure::usage(format!(
            "nothing to compare: before has {}; after has {}; compare runs of the same scenario or \
             workload",
            before.list(),
            after.list()
        ))),
    }
}

fn without_backend(run: &Run) -> String {
    let parts = [run.scenario.as_deref().unwrap_or(&run.workload), &run.variant];
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    parts.join("/")
}

fn matching<'a>(
    before: &Sided<'a>,
    after: &Sided<'a>,
    name: impl Fn(&Run) -> String + Copy,
) -> Vec<Group<'a>> {
    let mut after = after.names(name);
    before
        .names(name)
        .into_iter()
        .filter_map(|(name, before)| {
            let after = after.remove(&name)?;
            Some(group(name, before, after))
        })
        .collect()
}

type Values = Vec<(Metric, Vec<f64>)>;

/// The values of each metric, one a file. A file that ran the same several times gives its median:
/// those runs shared a process, or at least an hour.
fn values(runs: &[(&Results, &Run)]) -> (usize, Values) {
    let mut files: Vec<(*const Results, Vec<&Run>)> = Vec::new();
    for &(file, run) in runs {
        let file = std::ptr::from_ref(file);
        match files.iter_mut().find(|(known, _)| *known == file) {
            Some((_, list)) => list.push(run),
            None => files.push((file, vec![run])),
        }
    }
    let mut all: Values = Vec::new();
    for (_, runs) in &files {
        let mut of_file: Values = Vec::new();
        for metric in runs.iter().flat_map(|run| metrics::of(run)) {
            match of_file.iter_mut().find(|(known, _)| known.name == metric.name) {
                Some((_, list)) => list.push(metric.value),
                None => of_file.push((metric.clone(), vec![metric.value])),
            }
        }
        for (metric, list) in of_file {
            let Some(value) = stats::median(&list) else { continue };
            match all.iter_mut().find(|(known, _)| known.name == metric.name) {
                Some((_, list)) => list.push(value),
                None => all.push((metric, vec![value])),
            }
        }
    }
    (files.len(), all)
}

fn group<'a>(
    name: String,
    before: Vec<(&'a Results, &'a Run)>,
    after: Vec<(&'a Results, &'a Run)>,
) -> Group<'a> {
    let ((files_before, was), (files_after, mut is)) = (values(&before), values(&after));
    let mut lines = Vec::new();
    for (metric, before) in was {
        let found = is.iter().position(|(other, _)| other.name == metric.name);
        let after = found.map(|i| is.remove(i).1).unwrap_or_default();
        lines.push(line(metric, before, after));
    }
    lines.extend(is.into_iter().map(|(metric, after)| line(metric, Vec::new(), after)));
    // Only headlines are looked at unless somebody asks, so only they are adjusted together.
    for head in [true, false] {
        let at: Vec<usize> = (0..lines.len())
            .filter(|&i| lines[i].metric.headline == head && lines[i].comparison.is_some())
            .collect();
        let p: Vec<f64> =
            at.iter().filter_map(|&i| Some(lines[i].comparison.as_ref()?.test.p)).collect();
        for (&i, q) in at.iter().zip(stats::adjusted(&p)) {
            lines[i].adjusted_p = q;
        }
    }
    Group { name, before, after, files_before, files_after, lines }
}

fn line(metric: Metric, before: Vec<f64>, after: Vec<f64>) -> Line {
    let comparison = Comparison::new(before.clone(), after.clone());
    Line { metric, comparison, before, after, adjusted_p: 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    pub(super) fn files(backends: &[&str], seeds: std::ops::Range<u64>) -> Vec<Results> {
        seeds
            .map(|seed| Results {
                path: format!("{seed}.json").into(),
                document: samples::document(backends, seed),
            })
            .collect()
    }

    #[test]
    fn runs_of_the_same_name_are_set_against_each_other() {
        let (a, b) = (files(&["art", "pingpong"], 0..3), files(&["pingpong", "stw"], 3..7));
        let groups = pair(&Sided::of(&a, |_| true), &Sided::of(&b, |_| true)).unwrap();
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].name, "compact-vs-writers/pingpong");
        assert_eq!((groups[0].files_before, groups[0].files_after), (3, 4));
        let line = groups[0].line("throughput").unwrap();
        assert_eq!((line.before.len(), line.after.len()), (3, 4));
    }

    #[test]
    fn one_back_end_a_side_is_a_comparison_of_back_ends() {
        let (a, b) = (files(&["art"], 0..6), files(&["pingpong"], 0..6));
        let groups = pair(&Sided::of(&a, |_| true), &Sided::of(&b, |_| true)).unwrap();
        assert_eq!(groups[0].name, "compact-vs-writers");
        let line = groups[0].line("figure.pause_wait_p50").unwrap();
        assert_eq!(line.comparison.as_ref().unwrap().change, Some(-0.9975));
        assert!(line.shown().is_some());
        let line = groups[0].line("fault.p50").unwrap();
        assert!(line.shown().is_none(), "the same seeds have the same faults: {}", line.adjusted_p);
    }

    #[test]
    fn what_has_nothing_in_common_is_not_compared() {
        let (a, mut b) = (files(&["art"], 0..1), files(&["pingpong", "stw"], 0..1));
        b[0].document.runs.iter_mut().for_each(|run| run.name += "/other");
        let failure = pair(&Sided::of(&a, |_| true), &Sided::of(&b, |_| true)).unwrap_err();
        assert!(failure.message.contains("compact-vs-writers/art"), "{failure}");
    }

    #[test]
    fn repetitions_within_a_file_are_one_value() {
        let mut a = files(&["art"], 0..2);
        let again = a[0].document.runs[0].clone();
        a[0].document.runs.extend([again.clone(), again]);
        let groups = pair(&Sided::of(&a, |_| true), &Sided::of(&a, |_| true)).unwrap();
        assert_eq!(groups[0].line("throughput").unwrap().before.len(), 2);
    }
}
