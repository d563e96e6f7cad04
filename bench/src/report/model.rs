//! Runs sorted for a page: a section for each scenario or workload, in it a series for each back end
//! (and label, and kernel), in it one member for each invocation.
//!
//! Members of a series are repetitions: their distributions are merged and their spread is shown.
//! Series are what is overlaid. Files that the user gave different labels, and files from different
//! kernels, are never repetitions of each other.

use super::Labelled;
use crate::schema::Run;

/// A scenario or workload.
#[derive(Debug)]
pub struct Section<'a> {
    /// Its name; with its variant, where it has one.
    pub name: String,
    /// What is overlaid.
    pub series: Vec<Series<'a>>,
}

/// Repetitions of the same.
#[derive(Debug)]
pub struct Series<'a> {
    /// What tells it from the other series of its section.
    pub name: String,
    /// Its runs.
    pub members: Vec<Member<'a>>,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The file.
    pub file: &'a Labelled,
    /// The run.
    pub run: &'a Run,
}

impl Section<'_> {
    /// All its runs.
    pub fn members(&self) -> impl Iterator<Item = &Member<'_>> {
        self.series.iter().flat_map(|series| &series.members)
    }
}

fn kernel(file: &Labelled) -> &str {
    file.results.document.environment.as_ref().map_or("", |e| e.kernel.as_str())
}

/// Sorts the runs of all files, in the order in which they came.
pub fn sections(files: &[Labelled]) -> Vec<Section<'_>> {
    let kernels_differ = files.windows(2).any(|pair| kernel(&pair[0]) != kernel(&pair[1]));
    let mut sections: Vec<Section<'_>> = Vec::new();
    for file in files {
        for run in &file.results.document.runs {
            let mut name = run.scenario.clone().unwrap_or_else(|| run.workload.clone());
            if !run.variant.is_empty() {
                name = format!("{name}, {}", run.variant);
            }
            let mut parts = vec![run.backend.as_str()];
            if !file.label.is_empty() {
                parts.push(&file.label);
            } else if kernels_differ {
                parts.push(kernel(file));
            }
            let series_name = parts.join(", ");
            let at = sections.iter().position(|s| s.name == name).unwrap_or_else(|| {
                sections.push(Section { name, series: Vec::new() });
                sections.len() - 1
            });
            let series = &mut sections[at].series;
            let at = series.iter().position(|s| s.name == series_name).unwrap_or_else(|| {
                series.push(Series { name: series_name, members: Vec::new() });
                series.len() - 1
            });
            series[at].members.push(Member { file, run });
        }
    }
    sections
}
