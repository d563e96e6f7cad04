//! Metric × kernel: what a set amounts to, whatever command its guests ran.
//!
//! A boot is one sample. The reports of `stress` and `scenario` have the metrics that `firn compare` knows;
//! a census has its locks by operation; of any other report every number is a metric by its path. For each
//! kernel the median and its interval; against the base kernel the exact test, adjusted for the number of
//! metrics.
//!
//! **What is evidence.** Under TCG, times and rates are not: they are kept apart, never marked, and no
//! sentence is made of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::derived;
use super::notes::{self, Note};
use super::set::{Set, SetBoot};
use crate::compare::metrics::{self, Better, Unit};
use crate::compare::rank::MannWhitney;
use crate::compare::stats::{Comparison, Interval, adjusted, median, median_interval};
use crate::exit::Failure;

/// The chance of a false alarm that a mark stands for.
pub const LEVEL: f64 = 0.05;

/// A metric of one kernel.
#[derive(Debug, Clone)]
pub struct Cell {
    /// One value a boot.
    pub values: Vec<f64>,
    /// Their median.
    pub median: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
    /// Against the base; nothing for the base itself, or where one has no values.
    pub against_base: Option<Comparison>,
    /// The adjusted p of that.
    pub p: Option<f64>,
    /// What to show beside the number.
    pub mark: Mark,
}

/// What is known of a difference from the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing, or nothing significant.
    None,
    /// Significant: the adjusted p is below [`LEVEL`].
    Significant,
    /// All runs are on one side of all runs of the base, and they are too few for any test to say more.
    Apart,
}

impl Mark {
    /// One character.
    pub fn sign(self) -> &'static str {
        match self {
            Mark::None => "",
            Mark::Significant => "*",
            Mark::Apart => "~",
        }
    }
}

/// A metric.
#[derive(Debug, Clone)]
pub struct Row {
    /// The run that it is of, as `compact-vs-writers/storm/art`; empty if reports have one only.
    pub run: String,
    /// Its name.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Which direction is good.
    pub better: Better,
    /// Tables show it without being asked.
    pub headline: bool,
    /// Whether the conditions let it say something.
    pub evidence: bool,
    /// By kernel, in the set's order.
    pub cells: Vec<Cell>,
}

/// A set, looked at.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// The kernels' labels, oldest first.
    pub kernels: Vec<String>,
    /// Which of them the others are compared with.
    pub base: usize,
    /// The metrics.
    pub rows: Vec<Row>,
    /// The lock modes by operation, if the set is a census.
    pub census: Option<Census>,
    /// Changes between the kernels.
    pub notes: Vec<Note>,
}

/// The census by kernel.
#[derive(Debug, Clone)]
pub struct Census {
    /// In the census' order.
    pub rows: Vec<CensusRow>,
}

/// An operation of the census.
#[derive(Debug, Clone)]
pub struct CensusRow {
    /// Its name.
    pub name: String,
    /// The locks, by kernel; several, with `|` between, if runs differ.
    pub cells: Vec<String>,
    /// Kernels on which they are not what is known, by index.
    pub unexpected: Vec<usize>,
}

impl CensusRow {
    /// Whether all kernels that have an answer agree.
    pub fn same_everywhere(&self) -> bool {
        let mut answers = self.cells.iter().filter(|cell| !cell.is_empty());
        answers.next().is_none_or(|first| answers.all(|other| other == first))
    }
}

/// A number of a report, before boots are gathered.
struct Sample {
    run: String,
    name: String,
    value: f64,
    unit: Unit,
    better: Better,
    headline: bool,
}

/// The metrics of one report.
fn samples(report: &Value) -> Vec<Sample> {
    match report["schema"].as_str().unwrap_or_default() {
        crate::schema::STRESS | crate::schema::SCENARIO => of_document(report),
        crate::census::report::SCHEMA => of_census(report),
        _ => {
            let mut found = Vec::new();
            leaves(report, &mut String::new(), &mut found);
            found
        }
    }
}

fn of_document(report: &Value) -> Vec<Sample> {
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    let Ok(document) = crate::results::parse(&bytes) else { return Vec::new() };
    let one = |run: &crate::schema::Run| -> Vec<Sample> {
        let sample = |m: metrics::Metric| Sample {
            run: run.name.clone(),
            name: m.name,
            value: m.value,
            unit: m.unit,
            better: m.better,
            headline: m.headline,
        };
        metrics::of(run).into_iter().chain(derived::of(run)).map(sample).collect()
    };
    document.runs.iter().flat_map(one).collect()
}

fn of_census(report: &Value) -> Vec<Sample> {
    let rows = report["operations"].as_array().map_or(&[][..], |rows| rows);
    let one = |row: &Value| {
        let name = metrics::part(row["name"].as_str().unwrap_or_default());
        ["read", "write", "downgraded"]
            .into_iter()
            .filter_map(move |mode| {
                Some(Sample {
                    run: String::new(),
                    name: format!("census.{name}.{mode}"),
                    value: row[mode].as_f64()?,
                    unit: Unit::Count,
                    better: Better::Less,
                    headline: false,
                })
            })
            .collect::<Vec<_>>()
    };
    rows.iter().flat_map(one).collect()
}

/// Every number, by its path. Lists are left out: their places say nothing across kernels.
fn leaves(value: &Value, path: &mut String, found: &mut Vec<Sample>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| *name != "machine") {
                let length = path.len();
                if length > 0 {
                    path.push('.');
                }
                path.push_str(name);
                leaves(value, path, found);
                path.truncate(length);
            }
        }
        Value::Number(number) => found.push(Sample {
            run: String::new(),
            name: path.clone(),
            value: number.as_f64().unwrap_or(f64::NAN),
            unit: match unit_of(path) {
                Unit::Count if !number.is_u64() => Unit::Plain,
                unit => unit,
            },
            better: Better::Neither,
            headline: true,
        }),
        _ => {}
    }
}

/// The unit of a number that only its name tells of.
fn unit_of(path: &str) -> Unit {
    match path {
        p if p.ends_with("_ns") || p.ends_with(".ns") => Unit::Time,
        p if p.ends_with("_bytes") => Unit::Bytes,
        p if p.ends_with("_ops_s") => Unit::PerSecond,
        _ => Unit::Count,
    }
}

/// Whether a metric says something where times do not. Utilisation and throughput are times in disguise.
fn is_evidence(unit: Unit, name: &str, times: bool) -> bool {
    times
        || match unit {
            Unit::Time | Unit::SignedTime | Unit::PerSecond => false,
            Unit::Count | Unit::Bytes | Unit::Share | Unit::Plain => {
                !["throughput", "utilization", "frames.", "hiccup", "cpu."]
                    .iter()
                    .any(|timed| name.starts_with(timed))
            }
        }
}

impl Matrix {
    /// Of a set; `base` names a kernel by label or series, the oldest by default.
    ///
    /// # Errors
    /// Exit code 2 if `base` is none of the kernels.
    pub fn of(set: &Set, base: Option<&str>) -> Result<Matrix, Failure> {
        let kernels: Vec<_> = set.kernels.iter().map(|k| k.label.clone()).collect();
        let base = match base {
            None => 0,
            Some(name) => set
                .kernels
                .iter()
                .position(|k| k.label == name || k.series.as_deref() == Some(name))
                .ok_or_else(|| {
                    Failure::usage(format!("--base {name}: the set has {}", kernels.join(", ")))
                })?,
        };
        let rows = rows(set, &kernels, base);
        let notes = match (kernels.first(), kernels.last()) {
            (Some(first), Some(last)) => notes::between(first, last),
            _ => Vec::new(),
        };
        Ok(Matrix { census: census(set, &kernels), kernels, base, rows, notes })
    }

    /// The rows whose name contains one of `wanted`, or, if that is empty, the headlines.
    pub fn chosen<'a>(&'a self, wanted: &'a [String], all: bool) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| {
            all || match wanted.is_empty() {
                true => row.headline,
                false => wanted.iter().any(|part| row.name.contains(part.as_str())),
            }
        })
    }

    /// Kernels, by index, at which a metric steps: all boots lie on one side of all boots of the kernel before. One
    /// boot of each is a step if the numbers differ, as with counts.
    pub fn steps_of(&self, row: &Row) -> Vec<usize> {
        let range = |cell: &Cell| {
            let ends = cell.values.iter().copied();
            (!cell.values.is_empty()).then(|| {
                (ends.clone().fold(f64::INFINITY, f64::min), ends.fold(f64::NEG_INFINITY, f64::max))
            })
        };
        let steps = |k: &usize| match (range(&row.cells[k - 1]), range(&row.cells[*k])) {
            (Some(a), Some(b)) => a.1 < b.0 || b.1 < a.0,
            _ => false,
        };
        (1..row.cells.len())
            .filter(steps)
            .filter(|k| !self.explaining(row, *k).is_empty())
            .collect()
    }

    /// The notes between a kernel and the one before it that may explain a step of a metric.
    fn explaining(&self, row: &Row, k: usize) -> Vec<Note> {
        let names = |note: &Note| note.metrics.iter().any(|m| row.name.starts_with(m.as_str()));
        notes::between(&self.kernels[k - 1], &self.kernels[k]).into_iter().filter(names).collect()
    }

    /// The notes beside the steps of a metric; nothing of what is no evidence.
    pub fn explained(&self, row: &Row) -> Vec<Note> {
        if !row.evidence {
            return Vec::new();
        }
        self.steps_of(row).into_iter().flat_map(|k| self.explaining(row, k)).collect()
    }

    /// The notes of what came between a kernel and the one before it.
    pub fn steps(&self) -> Vec<(usize, Vec<Note>)> {
        (1..self.kernels.len())
            .map(|i| (i, notes::between(&self.kernels[i - 1], &self.kernels[i])))
            .filter(|(_, notes)| !notes.is_empty())
            .collect()
    }
}

/// Gathers the boots' numbers, and compares each kernel's with the base's.
fn rows(set: &Set, kernels: &[String], base: usize) -> Vec<Row> {
    let times = set.times_are_evidence();
    // In the order in which reports have them, which is the order of importance.
    let mut order: Vec<(String, String)> = Vec::new();
    let mut found: BTreeMap<(String, String), Row> = BTreeMap::new();
    for boot in &set.boots {
        let Some(place) = kernels.iter().position(|label| *label == boot.kernel) else { continue };
        for sample in usable(boot).map(samples).unwrap_or_default() {
            let key = (sample.run.clone(), sample.name.clone());
            let row = found.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                Row {
                    evidence: is_evidence(sample.unit, &sample.name, times),
                    run: sample.run,
                    name: sample.name,
                    unit: sample.unit,
                    better: sample.better,
                    headline: sample.headline,
                    cells: kernels.iter().map(|_| Cell::empty()).collect(),
                }
            });
            row.cells[place].values.push(sample.value);
        }
    }
    // A metric that only later boots have stands with its run.
    let mut runs: Vec<String> = Vec::new();
    for (run, _) in &order {
        if !runs.contains(run) {
            runs.push(run.clone());
        }
    }
    order.sort_by_key(|(run, _)| runs.iter().position(|known| known == run));
    let mut rows: Vec<_> = order.iter().filter_map(|key| found.remove(key)).collect();
    judge(&mut rows, base);
    rows
}

/// A report that counts: of a boot whose command ended by itself and was not cut short.
fn usable(boot: &SetBoot) -> Option<&Value> {
    boot.boot.outcome.code()?;
    boot.boot.report.as_ref().filter(|report| report["partial"] != Value::Bool(true))
}

impl Cell {
    fn empty() -> Cell {
        Cell {
            values: Vec::new(),
            median: None,
            interval: None,
            against_base: None,
            p: None,
            mark: Mark::None,
        }
    }
}

/// Medians, comparisons, and marks, with p adjusted over all that is evidence.
fn judge(rows: &mut [Row], base: usize) {
    let mut tests = Vec::new();
    for (r, row) in rows.iter_mut().enumerate() {
        let before = row.cells[base].values.clone();
        for (c, cell) in row.cells.iter_mut().enumerate() {
            cell.median = median(&cell.values);
            cell.interval = median_interval(&cell.values);
            if c != base {
                cell.against_base = Comparison::new(before.clone(), cell.values.clone());
            }
            if let Some(comparison) = &cell.against_base
                && row.evidence
            {
                tests.push((r, c, comparison.test.p));
            }
        }
    }
    let p: Vec<_> = tests.iter().map(|&(_, _, p)| p).collect();
    for (&(r, c, _), p) in tests.iter().zip(adjusted(&p)) {
        let cell = &mut rows[r].cells[c];
        cell.p = Some(p);
        let Some(comparison) = &cell.against_base else { continue };
        let (m, n) = (comparison.before.len(), comparison.after.len());
        cell.mark = if p < LEVEL {
            Mark::Significant
        } else if m >= 2
            && n >= 2
            && MannWhitney::least_p(m, n) >= LEVEL
            && comparison.delta.abs() == 1.0
        {
            Mark::Apart
        } else {
            Mark::None
        };
    }
}

/// The census table of a set of censuses.
fn census(set: &Set, kernels: &[String]) -> Option<Census> {
    let reports: Vec<(usize, &Value)> = set
        .boots
        .iter()
        .filter_map(|boot| {
            let report = usable(boot)?;
            let census = report["schema"] == crate::census::report::SCHEMA;
            census.then_some((kernels.iter().position(|k| *k == boot.kernel)?, report))
        })
        .collect();
    let first = reports.first()?.1;
    let names = first["operations"].as_array()?.iter().filter_map(|row| row["name"].as_str());
    let row = |name: &str| {
        let mut seen: Vec<Vec<String>> = vec![Vec::new(); kernels.len()];
        let mut unexpected = Vec::new();
        for &(place, report) in &reports {
            let operations = report["operations"].as_array().map_or(&[][..], |rows| rows);
            let Some(found) = operations.iter().find(|row| row["name"] == name) else { continue };
            let cell = found["cell"].as_str().unwrap_or("?").to_owned();
            if !seen[place].contains(&cell) {
                seen[place].push(cell);
            }
            if found["as_known"] == Value::Bool(false) && !unexpected.contains(&place) {
                unexpected.push(place);
            }
        }
        let cells = seen.into_iter().map(|cells| cells.join("|")).collect();
        CensusRow { name: name.to_owned(), cells, unexpected }
    };
    Some(Census { rows: names.map(row).collect() })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::super::set::tests::example;
    use super::*;

    /// A set of two kernels with five boots each, whose reports have a count, a time and a list.
    pub fn numbers() -> Set {
        let mut set = example(&["6.1.0-50", "6.12.107+deb13"], None);
        let pattern = set.boots.clone();
        set.boots.clear();
        for run in 1..=5 {
            for (k, boot) in pattern.iter().enumerate() {
                let mut boot = boot.clone();
                let report = json!({
                    "schema": "firn-example-1",
                    "machine": { "cpus": 2 },
                    "locks": { "read": if k == 0 { 1000 + run } else { 10 + run } },
                    "wall_ns": if k == 0 { 5000 + run } else { 100 + run },
                    "list": [1, 2],
                });
                (boot.run, boot.place, boot.boot.report) = (run, run * 2 + k, Some(report));
                set.boots.push(boot);
            }
        }
        set
    }

    #[test]
    fn a_count_that_fell_is_marked_and_a_time_under_tcg_is_not() {
        let matrix = Matrix::of(&numbers(), None).unwrap();
        let row = |name: &str| matrix.rows.iter().find(|r| r.name == name).unwrap();
        let locks = row("locks.read");
        assert!(locks.evidence);
        assert_eq!((locks.cells[0].median, locks.cells[1].median), (Some(1003.0), Some(13.0)));
        assert_eq!(locks.cells[1].mark, Mark::Significant);
        assert!(locks.cells[1].p.unwrap() < 0.01);
        let wall = row("wall_ns");
        assert!(!wall.evidence && wall.cells[1].mark == Mark::None && wall.cells[1].p.is_none());
        assert_eq!(matrix.rows.len(), 2, "neither the machine nor lists are metrics");
    }

    #[test]
    fn few_runs_can_be_apart_and_not_significant() {
        let mut set = numbers();
        set.boots.retain(|boot| boot.run <= 3);
        let matrix = Matrix::of(&set, None).unwrap();
        let locks = &matrix.rows.iter().find(|r| r.name == "locks.read").unwrap().cells[1];
        assert_eq!(locks.mark, Mark::Apart);
    }

    #[test]
    fn a_base_is_a_label_or_a_series() {
        let set = numbers();
        assert_eq!(Matrix::of(&set, Some("6.12")).unwrap().base, 1);
        assert_eq!(Matrix::of(&set, Some("6.1.0-50")).unwrap().base, 0);
        assert!(Matrix::of(&set, Some("5.4")).unwrap_err().message.contains("6.1.0-50"));
    }

    #[test]
    fn a_census_becomes_a_table_and_a_difference_between_runs_is_visible() {
        let mut set = example(&["6.1.0-50", "6.12.107+deb13", "6.12.107+deb13"], None);
        set.kernels.pop();
        for (boot, cell) in set.boots.iter_mut().zip(["R", "v", "R"]) {
            boot.boot.report = Some(json!({
                "schema": crate::census::report::SCHEMA,
                "operations": [
                    { "name": "UFFDIO_COPY", "cell": cell, "read": 1, "as_known": cell != "R" },
                ],
            }));
        }
        let matrix = Matrix::of(&set, None).unwrap();
        let row = &matrix.census.as_ref().unwrap().rows[0];
        assert_eq!(row.cells, ["R", "v|R"]);
        assert_eq!(row.unexpected, [0, 1]);
        assert!(!row.same_everywhere());
        assert!(matrix.rows.iter().any(|r| r.name == "census.UFFDIO_COPY.read"));
        let steps = matrix.steps();
        assert!(steps[0].1.iter().any(|note| note.text.contains("per-VMA locks in userfaultfd")));
    }

    #[test]
    fn a_boot_that_failed_gives_no_sample() {
        let mut set = numbers();
        set.boots[0].boot.outcome = super::super::boot::Outcome::Hang;
        let matrix = Matrix::of(&set, None).unwrap();
        assert_eq!(matrix.rows[0].cells[0].values.len(), 4);
    }
}
