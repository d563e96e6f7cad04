//! `firn kernels compare`: a set as a table of kernels, for a terminal, a pull request, a script.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::guest::Hello;
use super::matrix::{Cell, Census, CensusRow, Mark, Matrix, Row};
use super::notes::Note;
use super::set::{Set, SetKernel};
use crate::compare::metrics::Unit;
use crate::exit::{Exit, Failure};
use crate::stress::page::{Page, WIDTH};

/// `firn kernels compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Files of `firn kernels run -o`; shards and machines are taken together
    #[arg(value_name = "SET.json", required = true)]
    pub sets: Vec<PathBuf>,
    /// The kernel that others are compared with, by series or release [default: the oldest]
    #[arg(long, value_name = "KERNEL")]
    pub base: Option<String>,
    /// Metrics whose name contains this; may be repeated [default: the ones that matter most]
    #[arg(long = "metric", value_name = "TEXT")]
    pub metric: Vec<String>,
    /// All metrics; of a census, also operations that all kernels treat alike
    #[arg(long)]
    pub all: bool,
    /// Also show what is no evidence under TCG: times and rates
    #[arg(long)]
    pub times: bool,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Also write all sets as one
    #[arg(long, value_name = "FILE")]
    pub merge: Option<PathBuf>,
    /// Also write each report as a file of its own, for `firn compare` and `firn report`
    #[arg(long, value_name = "DIR")]
    pub split: Option<PathBuf>,
}

/// How a comparison is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal
    Text,
    /// Tables for pull requests
    Markdown,
    /// Everything, for scripts
    Json,
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Parts of metrics' names.
    pub metric: Vec<String>,
    /// All of them.
    pub all: bool,
    /// Those that are no evidence, too.
    pub times: bool,
}

/// Does what the command line says.
///
/// # Errors
/// Exit code 2 for what is no set, 3 for what cannot be written.
pub fn run(args: &CompareArgs, print: &dyn Fn(&str)) -> Result<Exit, Failure> {
    let sets = args.sets.iter().map(|path| Set::read(path)).collect::<Result<Vec<_>, _>>()?;
    let set = Set::merge(sets)?;
    if let Some(path) = &args.merge {
        set.write(path)?;
    }
    if let Some(folder) = &args.split {
        split(&set, folder)?;
    }
    let matrix = Matrix::of(&set, args.base.as_deref())?;
    let wanted = Wanted { metric: args.metric.clone(), all: args.all, times: args.times };
    match args.format {
        Format::Text => print(&text(&set, &matrix, &wanted)),
        Format::Markdown => print(&markdown(&set, &matrix, &wanted)),
        Format::Json => print(&(format!("{:#}", value(&set, &matrix, &wanted)) + "\n")),
    }
    Ok(Exit::Done)
}

/// Writes each report as a file of its own.
fn split(set: &Set, folder: &std::path::Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        Failure::missing(format!("--split {}: cannot be written: {e}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    for boot in &set.boots {
        if let Some(report) = &boot.boot.report {
            let name =
                format!("{}-run{}.json", boot.kernel.replace(['+', '#', '/'], "_"), boot.run);
            std::fs::write(folder.join(name), format!("{report:#}\n")).map_err(failed)?;
        }
    }
    Ok(())
}

/// Short names of kernels: the series where that is enough.
pub(crate) fn heads(set: &Set) -> Vec<String> {
    let series: Vec<_> = set.kernels.iter().map(|k| k.series.as_deref()).collect();
    let once = |name| series.iter().filter(|other| **other == name).count() == 1;
    set.kernels
        .iter()
        .map(|kernel| match kernel.series.as_deref() {
            Some(name) if once(Some(name)) => name.to_owned(),
            _ => kernel.label.clone(),
        })
        .collect()
}

/// What stands above any table: what this is, and what it can show.
pub(crate) fn verdict(set: &Set, matrix: &Matrix) -> Vec<String> {
    let mut said = Vec::new();
    let command = set.conditions.first().map_or(String::new(), |c| c.command.join(" "));
    if let Some(census) = &matrix.census {
        let wrong = census.rows.iter().filter(|row| !row.unexpected.is_empty()).count();
        let changed = census.rows.iter().filter(|row| !row.same_everywhere()).count();
        let all = census.rows.len();
        said.push(match wrong {
            0 => format!(
                "Of {all} operations {changed} take mmap_lock differently on these kernels; every cell is \
                 what is known of its release."
            ),
            n => format!(
                "Of {all} operations {changed} take mmap_lock differently on these kernels; in {n} of them a \
                 cell is not what is known of its release (marked !)."
            ),
        });
    } else {
        let marks = |wanted: Mark| {
            let rows = matrix.rows.iter().filter(|row| row.evidence);
            rows.filter(|row| row.cells.iter().any(|cell| cell.mark == wanted)).count()
        };
        let (significant, apart) = (marks(Mark::Significant), marks(Mark::Apart));
        let base = &matrix.kernels[matrix.base];
        said.push(format!(
            "`{command}` on {} kernels against {base}: {significant} metrics differ significantly (*)\
             {}.",
            matrix.kernels.len(),
            match apart {
                0 => String::new(),
                n => format!(", {n} more in every run (~; more runs would show whether that is chance)"),
            }
        ));
    }
    if !set.times_are_evidence() {
        said.push(
            "The guests ran under TCG, which translates instructions: counts, lock modes and shares are \
             evidence. Times and rates are not; nothing is concluded from them."
                .to_owned(),
        );
    }
    said.extend(cautions(set));
    said
}

/// What speaks against a comparison: failed boots, different hosts, conditions that differ.
fn cautions(set: &Set) -> Vec<String> {
    let mut said = Vec::new();
    for kernel in &set.kernels {
        let failed: Vec<_> = set
            .of(&kernel.label)
            .filter(|boot| boot.boot.outcome.code() != Some(0))
            .map(|boot| boot.boot.outcome.text())
            .collect();
        if !failed.is_empty() {
            said.push(format!("{}: not well ended: {}.", kernel.label, failed.join(", ")));
        }
        let repeated: usize = set.of(&kernel.label).map(|b| b.repeated.len()).sum();
        if repeated > 0 {
            said.push(format!(
                "{}: {repeated} boots were repeated because a fault of the emulator ended them.",
                kernel.label
            ));
        }
        let complaints: usize = set.of(&kernel.label).map(|b| b.boot.complaints.len()).sum();
        if complaints > 0 {
            said.push(format!("{}: the kernel complained in {complaints} lines.", kernel.label));
        }
    }
    if set.missing > 0 {
        said.push(format!("{} boots that were asked for are missing.", set.missing));
    }
    if let Some(shard) = set.shard {
        said.push(format!("This is shard {shard} or a part of the shards."));
    }
    if set.conditions.len() > 1 {
        said.push(
            "The boots were made on several hosts or with several programs; `--format json` has them."
                .to_owned(),
        );
    }
    for (name, values) in differing(set) {
        said.push(format!("The kernels differ in {name}: {values}."));
    }
    said
}

/// What a guest of a kernel said of itself, if any came up.
fn guest<'a>(set: &'a Set, kernel: &'a SetKernel) -> Option<&'a Hello> {
    set.of(&kernel.label).find_map(|boot| boot.boot.guest.as_ref())
}

/// Conditions inside the guests that are not the same for all kernels.
fn differing(set: &Set) -> Vec<(String, String)> {
    let mut names: Vec<String> = Vec::new();
    let mut found: Vec<Vec<String>> = Vec::new();
    // What never came up says nothing of its conditions.
    let up: Vec<_> = set
        .kernels
        .iter()
        .zip(heads(set))
        .filter(|(kernel, _)| guest(set, kernel).is_some())
        .collect();
    let heads: Vec<_> = up.iter().map(|(_, head)| head.clone()).collect();
    for (k, (kernel, _)) in up.iter().enumerate() {
        let conditions =
            guest(set, kernel).map(|guest| guest.conditions.clone()).unwrap_or_default();
        let all = conditions.iter().chain(&kernel.configuration);
        for (name, value) in all {
            let at = names.iter().position(|n| n == name).unwrap_or_else(|| {
                names.push(name.clone());
                found.push(vec!["-".to_owned(); up.len()]);
                names.len() - 1
            });
            found[at][k] = value.clone();
        }
    }
    let mut said = Vec::new();
    for (name, values) in names.into_iter().zip(found) {
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
        for (value, head) in values.into_iter().zip(&heads) {
            match groups.iter_mut().find(|(v, _)| *v == value) {
                Some((_, members)) => members.push(head),
                None => groups.push((value, vec![head])),
            }
        }
        let text: Vec<_> = groups
            .iter()
            .map(|(value, members)| format!("{value} on {}", members.join(", ")))
            .collect();
        said.push((name, text.join("; ")));
    }
    said
}

/// The releases whose notes name an operation of the census, of those between the kernels.
pub(crate) fn explained(row: &CensusRow, notes: &[Note]) -> Vec<String> {
    if row.same_everywhere() {
        return Vec::new();
    }
    let of = |note: &&Note| note.operations.contains(&row.name);
    notes.iter().filter(of).map(|note| note.release.clone()).collect()
}

/// As a page for a terminal.
pub fn text(set: &Set, matrix: &Matrix, wanted: &Wanted) -> String {
    let mut page = Page::default();
    verdict(set, matrix).iter().for_each(|line| page.paragraph(line));
    let heads = heads(set);
    if let Some(census) = &matrix.census {
        page.blank();
        census_text(&mut page, census, matrix, &heads, wanted);
    }
    let rows: Vec<_> = selected(matrix, wanted);
    metrics_text(&mut page, rows, matrix, &heads, wanted);
    notes_text(&mut page, matrix, &heads);
    page.finish()
}

/// The rows to show. A census is its table, unless metrics are asked for.
fn selected<'a>(matrix: &'a Matrix, wanted: &'a Wanted) -> Vec<&'a Row> {
    if matrix.census.is_some() && wanted.metric.is_empty() {
        return Vec::new();
    }
    let rows = matrix.chosen(&wanted.metric, wanted.all);
    rows.filter(|row| row.evidence || wanted.times).collect()
}

fn census_text(
    page: &mut Page,
    census: &Census,
    matrix: &Matrix,
    heads: &[String],
    wanted: &Wanted,
) {
    const NAME: usize = 32;
    let width = heads.iter().map(|h| h.chars().count() + 1).max().unwrap_or(6).clamp(6, 20);
    let row = |page: &mut Page, name: &str, cells: &[String], note: &str| {
        let mut line = format!("{name:<NAME$}");
        cells.iter().for_each(|cell| {
            let _ = write!(line, "{cell:>width$}");
        });
        page.line(&format!("{line}  {note}"));
    };
    row(page, "operation", heads, "since");
    let mut alike = 0;
    for line in &census.rows {
        if line.same_everywhere() && line.unexpected.is_empty() && !wanted.all {
            alike += 1;
            continue;
        }
        let cells: Vec<_> = line
            .cells
            .iter()
            .enumerate()
            .map(|(k, cell)| match line.unexpected.contains(&k) {
                true => format!("!{cell}"),
                false => cell.clone(),
            })
            .collect();
        row(page, &line.name, &cells, &explained(line, &matrix.notes).join(", "));
    }
    if alike > 0 {
        page.line(&format!("({alike} more are alike on all of them: --all)"));
    }
    page.blank();
    page.paragraph(
        "R, W: mmap_lock for reading, for writing; W↓: for writing, then downgraded; v: not taken; -: not \
         in this kernel.",
    );
}

/// Rows that say something, and the names of those that are zero in every run of every kernel, unless all are wanted.
pub(crate) fn telling<'a>(rows: Vec<&'a Row>, wanted: &Wanted) -> (Vec<&'a Row>, Vec<&'a str>) {
    let zero =
        |row: &&Row| row.cells.iter().all(|cell| cell.values.iter().all(|value| *value == 0.0));
    if wanted.all || !wanted.metric.is_empty() {
        return (rows, Vec::new());
    }
    let (zeros, mut telling): (Vec<_>, Vec<_>) = rows.into_iter().partition(zero);
    // A scenario's figure that another metric repeats.
    let copy = |row: &&Row| {
        let same = |other: &&Row| {
            !other.name.starts_with("figure.")
                && other.run == row.run
                && other.cells.iter().zip(&row.cells).all(|(a, b)| a.values == b.values)
        };
        row.name.starts_with("figure.") && telling.iter().any(same)
    };
    let copies: Vec<bool> = telling.iter().map(copy).collect();
    let mut copies = copies.iter();
    telling.retain(|_| copies.next() == Some(&false));
    // A name that has a row in another run is not left out.
    let mut names: Vec<&str> = zeros.iter().map(|row| row.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| telling.iter().all(|row| row.name != *name));
    (telling, names)
}

/// The line about rows that were left out.
pub(crate) fn left_out(names: &[&str]) -> Option<String> {
    let text = names.join(", ");
    (!names.is_empty())
        .then(|| format!("Zero in every run of every kernel (--all shows them): {text}."))
}

/// The interval in a few characters: two digits of each end.
fn short(cell: &Cell, unit: Unit) -> String {
    let Some(i) = cell.interval.filter(|i| i.low != i.high) else { return String::new() };
    let number = |x: f64| {
        let (x, suffix) = match x.abs() {
            a if a >= 1e9 => (x / 1e9, "G"),
            a if a >= 1e6 => (x / 1e6, "M"),
            a if a >= 1e3 => (x / 1e3, "k"),
            _ => (x, ""),
        };
        match x.abs() {
            a if a >= 10.0 || a == 0.0 => format!("{x:.0}{suffix}"),
            a if a >= 1.0 => format!("{x:.1}{suffix}"),
            _ => format!("{x:.2}{suffix}"),
        }
    };
    match unit {
        Unit::Share => format!("{}..{}%", number(100.0 * i.low), number(100.0 * i.high)),
        _ => format!("{}..{}", number(i.low), number(i.high)),
    }
}

/// How sure the intervals are, in a sentence; nothing if there are none.
pub(crate) fn about_intervals(rows: &[&Row]) -> Option<String> {
    let cells = rows.iter().flat_map(|row| &row.cells);
    let confidence = cells.filter_map(|c| Some(c.interval?.confidence)).reduce(f64::min)?;
    Some(format!(
        "Medians over boots; the true median lies in the interval with {:.0} %{}.",
        100.0 * confidence,
        if confidence < 0.95 { " (six runs or more reach 95 %)" } else { "" }
    ))
}

fn metrics_text(
    page: &mut Page,
    rows: Vec<&Row>,
    matrix: &Matrix,
    heads: &[String],
    wanted: &Wanted,
) {
    const CELL: usize = 12;
    let mut run = None;
    let (rows, zeros) = telling(rows, wanted);
    if let Some(text) = about_intervals(&rows) {
        page.blank();
        page.paragraph(&text);
    }
    let name = WIDTH.saturating_sub(CELL * heads.len()).max(28);
    for row in rows {
        if run != Some(&row.run) {
            page.blank();
            let cells: Vec<_> = heads
                .iter()
                .enumerate()
                .map(|(k, head)| if k == matrix.base { format!("{head} =") } else { head.clone() })
                .collect();
            if row.run.chars().count() < name {
                page.row(&row.run, name, CELL, &cells);
            } else {
                page.line(&row.run);
                page.row("", name, CELL, &cells);
            }
            run = Some(&row.run);
        }
        let cells: Vec<_> = row
            .cells
            .iter()
            .map(|cell| {
                let number = cell.median.map_or("-".to_owned(), |median| row.unit.show(median));
                format!("{number}{:1}", cell.mark.sign())
            })
            .collect();
        let note = if row.evidence { "" } else { " (no evidence)" };
        let mut label = format!("{}{note}", row.name);
        let steps = matrix.explained(row);
        if !steps.is_empty() {
            let releases: Vec<_> = steps.iter().map(|note| note.release.as_str()).collect();
            label += &format!("  <- {}", releases.join(", "));
        }
        if label.chars().count() < name {
            page.row(&label, name, CELL, &cells);
        } else {
            page.line(&label);
            page.row("", name, CELL, &cells);
        }
        let intervals: Vec<_> = row.cells.iter().map(|cell| short(cell, row.unit) + " ").collect();
        if intervals.iter().any(|text| text != " ") {
            page.row("", name, CELL, &intervals);
        }
    }
    if let Some(text) = left_out(&zeros) {
        page.blank();
        page.paragraph(&text);
    }
}

fn notes_text(page: &mut Page, matrix: &Matrix, heads: &[String]) {
    for (k, notes) in matrix.steps() {
        page.blank();
        page.paragraph(&format!("Between {} and {}:", heads[k - 1], heads[k]));
        for note in notes {
            page.entry(&format!("  {}", note.release), &format!("{} [{}]", note.text, note.source));
        }
    }
}

/// As tables for a pull request.
pub fn markdown(set: &Set, matrix: &Matrix, wanted: &Wanted) -> String {
    let mut out = String::new();
    let heads = heads(set);
    for line in verdict(set, matrix) {
        let _ = writeln!(out, "{line}\n");
    }
    let head = |out: &mut String, first: &str, last: &str| {
        let _ = writeln!(out, "| {first} | {} |{last}", heads.join(" | "));
        let more = if last.is_empty() { "" } else { "---|" };
        let _ = writeln!(out, "|---|{}{more}", "--:|".repeat(heads.len()));
    };
    if let Some(census) = &matrix.census {
        head(&mut out, "operation", " since |");
        for row in census.rows.iter().filter(|row| wanted.all || !row.same_everywhere()) {
            let since = explained(row, &matrix.notes).join(", ");
            let _ = writeln!(out, "| {} | {} | {since} |", row.name, row.cells.join(" | "));
        }
        out.push('\n');
    }
    let mut run = None;
    let (rows, zeros) = telling(selected(matrix, wanted), wanted);
    if let Some(text) = about_intervals(&rows) {
        let _ = writeln!(out, "{text}\n");
    }
    for row in rows {
        if run != Some(&row.run) {
            let _ = writeln!(out, "{}**{}**\n", if run.is_some() { "\n" } else { "" }, row.run);
            head(&mut out, "metric", " step at |");
            run = Some(&row.run);
        }
        let cells: Vec<_> = row
            .cells
            .iter()
            .map(|cell| {
                let number = cell.median.map_or("-".to_owned(), |m| row.unit.show(m));
                let mark = cell.mark.sign().replace('*', "\\*").replace('~', "\\~");
                let interval =
                    cell.interval.filter(|i| i.low != i.high).map_or_else(String::new, |i| {
                        format!(" ({} – {})", row.unit.show(i.low), row.unit.show(i.high))
                    });
                format!("{number}{mark}{interval}")
            })
            .collect();
        let note = if row.evidence { "" } else { " (no evidence)" };
        let steps: Vec<_> = matrix.explained(row).into_iter().map(|note| note.release).collect();
        let (cells, steps) = (cells.join(" | "), steps.join(", "));
        let _ = writeln!(out, "| `{}`{note} | {cells} | {steps} |", row.name);
    }
    if let Some(text) = left_out(&zeros) {
        let _ = writeln!(out, "\n{text}");
    }
    for (k, notes) in matrix.steps() {
        let _ = writeln!(out, "\nBetween {} and {}:\n", heads[k - 1], heads[k]);
        for note in notes {
            let _ = writeln!(out, "- {}: {} ({})", note.release, note.text, note.source);
        }
    }
    out
}

/// As JSON: everything but the reports.
pub fn value(set: &Set, matrix: &Matrix, wanted: &Wanted) -> Value {
    let everything = Wanted { all: true, times: true, ..wanted.clone() };
    let wanted = if wanted.metric.is_empty() { &everything } else { wanted };
    let rows = matrix.chosen(&wanted.metric, wanted.all).map(|row| {
        let cells = row.cells.iter().zip(&matrix.kernels).map(|(cell, kernel)| {
            json!({
                "kernel": kernel,
                "values": cell.values,
                "median": cell.median,
                "interval": cell.interval.as_ref().map(|i| json!({
                    "low": i.low, "high": i.high, "confidence": i.confidence,
                })),
                "change": cell.against_base.as_ref().and_then(|c| c.change),
                "delta": cell.against_base.as_ref().map(|c| c.delta),
                "p_adjusted": cell.p,
                "significant": cell.mark == Mark::Significant,
                "apart": cell.mark == Mark::Apart,
            })
        });
        json!({
            "run": row.run,
            "metric": row.name,
            "unit": row.unit.name(),
            "steps": matrix.explained(row).iter().map(|n| n.release.clone()).collect::<Vec<_>>(),
            "evidence": row.evidence,
            "cells": cells.collect::<Vec<_>>(),
        })
    });
    json!({
        "schema": "firn-kernels-comparison-1",
        "base": matrix.kernels[matrix.base],
        "kernels": set.kernels,
        "conditions": set.conditions,
        "times_are_evidence": set.times_are_evidence(),
        "cautions": cautions(set),
        "census": matrix.census.as_ref().map(|census| census.rows.iter().map(|row| json!({
            "operation": row.name,
            "cells": row.cells,
            "unexpected": row.unexpected.iter().map(|&k| &matrix.kernels[k]).collect::<Vec<_>>(),
            "since": explained(row, &matrix.notes),
        })).collect::<Vec<_>>()),
        "metrics": rows.collect::<Vec<_>>(),
        "notes": matrix.notes.iter().map(|note| json!({
            "release": note.release, "text": note.text, "source": note.source,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::numbers;
    use super::*;

    #[test]
    fn the_page_fits_says_what_tcg_cannot_show_and_marks_the_step() {
        let set = numbers();
        let matrix = Matrix::of(&set, None).unwrap();
        let page = text(&set, &matrix, &Wanted::default());
        assert!(page.lines().all(|line| line.chars().count() <= WIDTH), "{page}");
        assert!(page.contains("nothing is concluded"), "{page}");
        assert!(page.contains("locks.read") && !page.contains("wall_ns"), "{page}");
        assert!(page.contains("per-VMA locks in userfaultfd"), "{page}");
        let times = text(&set, &matrix, &Wanted { times: true, ..Wanted::default() });
        assert!(times.contains("wall_ns (no evidence)"), "{times}");
    }

    #[test]
    fn rows_that_are_zero_everywhere_are_named_and_not_shown() {
        let mut set = numbers();
        for boot in &mut set.boots {
            let report = boot.boot.report.as_mut().unwrap();
            report["locks"]["write"] = json!(0);
        }
        let matrix = Matrix::of(&set, None).unwrap();
        let page = text(&set, &matrix, &Wanted::default());
        let row = |page: &str| page.lines().any(|line| line.starts_with("locks.write"));
        assert!(page.contains("Zero in every run") && !row(&page), "{page}");
        let all = text(&set, &matrix, &Wanted { all: true, ..Wanted::default() });
        assert!(row(&all) && !all.contains("Zero in every run"), "{all}");
        assert!(page.contains("1.0k..1.0k") && page.contains("11..15"), "{page}");
    }

    #[test]
    fn all_formats_have_the_same_medians() {
        let set = numbers();
        let matrix = Matrix::of(&set, None).unwrap();
        let wanted = Wanted::default();
        assert!(
            markdown(&set, &matrix, &wanted)
                .contains("| `locks.read` | 1,003 (1,001 – 1,005) | 13\\* (11 – 15) |")
        );
        let json = value(&set, &matrix, &wanted);
        let row = json["metrics"].as_array().unwrap().iter().find(|r| r["metric"] == "locks.read");
        let cells = &row.unwrap()["cells"];
        assert_eq!((&cells[0]["median"], &cells[1]["median"]), (&json!(1003.0), &json!(13.0)));
        assert_eq!(cells[1]["significant"], true);
    }
}
