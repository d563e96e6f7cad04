//! The page of a set of `firn kernels`: what the text of `firn kernels compare` says, with pictures.
//!
//! A matrix of metric and kernel for each run, the release notes beside the steps that they explain, the census as
//! one table, and small multiples: for each metric a panel with one column a kernel and one dot a boot; for each
//! distribution one panel a kernel with its percentile curves, all with the same axes. Pictures are drawn
//! here, without a script.

use std::fmt::Write;

use serde_json::Value;

use super::Labelled;
use super::html::{details, document, escape, table};
use super::model;
use super::pictures;
use super::tables::Table;
use crate::kernels::compare::{self, Wanted};
use crate::kernels::matrix::{Matrix, Row};
use crate::kernels::set::Set;
use crate::results::Results;
use crate::stress::units;

/// Curves that have a row of panels; the rest is in `firn report` of the single reports.
const CURVES: usize = 6;
/// Panels' size, in the units of their view box.
const PANEL: (f64, f64) = (260.0, 170.0);
/// Room in a panel left, right, above, below the plot.
const ROOM: (f64, f64, f64, f64) = (64.0, 8.0, 8.0, 24.0);

/// The page of a set, against the kernel `base`; `only` runs whose name contains this.
///
/// # Errors
/// Exit code 2 if `base` is none of its kernels.
pub fn page(
    set: &Set,
    base: Option<&str>,
    only: Option<&str>,
) -> Result<String, crate::exit::Failure> {
    let mut matrix = Matrix::of(set, base)?;
    if let Some(only) = only {
        matrix.rows.retain(|row| row.run.contains(only));
    }
    let heads = compare::heads(set);
    let mut out = String::from("<header>\n<h1>Kernels compared</h1>\n");
    let command = set.conditions.first().map_or(String::new(), |c| c.command.join(" "));
    let boots = set.boots.len();
    let _ = writeln!(
        out,
        "<p class=\"sub\"><code>{}</code>, {boots} boots of {} kernels</p>",
        escape(&command),
        set.kernels.len()
    );
    out += "<ul class=\"cautions\">\n";
    for line in compare::verdict(set, &matrix) {
        let _ = writeln!(out, "<li>{}</li>", escape(&line));
    }
    out += "</ul>\n</header>\n<main id=\"main\">\n";
    if matrix.census.is_some() {
        census(&mut out, &matrix, &heads);
    } else {
        runs(&mut out, set, &matrix, &heads, only);
    }
    notes(&mut out, &matrix, &heads);
    conditions(&mut out, set, &heads);
    out += "</main>\n";
    Ok(document("Kernels compared – Firn report", &out, "{}"))
}

fn census(out: &mut String, matrix: &Matrix, heads: &[String]) {
    let Some(census) = &matrix.census else { return };
    *out += "<section aria-labelledby=\"census\"><h2 id=\"census\">mmap_lock by operation</h2>\n\
             <p class=\"missing\">R, W: mmap_lock for reading, for writing; W↓: for writing, then downgraded; v: not \
             taken; -: not in this kernel; !: not what is known of the release.</p>\n";
    let columns =
        || ["operation"].into_iter().chain(heads.iter().map(String::as_str)).chain(["since"]);
    let mut differ = Table::new("Operations that the kernels treat differently", columns());
    let mut alike = Table::new("Operations that all of them treat alike", columns());
    for row in &census.rows {
        let cells = row.cells.iter().enumerate().map(|(k, cell)| {
            let mark = if row.unexpected.contains(&k) { "!" } else { "" };
            format!("{mark}{cell}")
        });
        let since = compare::explained(row, &matrix.notes).join(", ");
        let line = std::iter::once(row.name.clone()).chain(cells).chain([since]).collect();
        let wrong = !row.unexpected.is_empty();
        if row.same_everywhere() && !wrong { &mut alike } else { &mut differ }.rows.push(line);
    }
    table(out, &differ);
    details(out, &alike.caption.clone(), &[alike]);
    *out += "</section>\n";
}

/// A run without its back end, as `compact-vs-writers/storm`, and the back end.
fn split(run: &str) -> (&str, &str) {
    run.rsplit_once('/').unwrap_or(("", run))
}

fn runs(out: &mut String, set: &Set, matrix: &Matrix, heads: &[String], only: Option<&str>) {
    let wanted = Wanted::default();
    let chosen: Vec<&Row> =
        matrix.chosen(&wanted.metric, false).filter(|row| row.evidence).collect();
    let (rows, zeros) = compare::telling(chosen, &wanted);
    if let Some(text) = compare::about_intervals(&rows) {
        let _ = writeln!(
            out,
            "<p>{} <b>*</b>: differs from {} significantly; <b>~</b>: every boot does, and more would be \
             needed to exclude chance.</p>",
            escape(&text),
            escape(&heads[matrix.base])
        );
    }
    let mut sections: Vec<&str> = Vec::new();
    for row in &rows {
        if !sections.contains(&split(&row.run).0) {
            sections.push(split(&row.run).0);
        }
    }
    let files = files(set, heads, only);
    for (s, name) in sections.iter().enumerate() {
        let title = if name.is_empty() { "Metrics" } else { name };
        let _ = writeln!(
            out,
            "<section aria-labelledby=\"k{s}\"><h2 id=\"k{s}\">{}</h2>",
            escape(title)
        );
        let ours: Vec<&Row> =
            rows.iter().copied().filter(|row| split(&row.run).0 == *name).collect();
        dots(out, &ours, matrix, heads);
        let mut backends: Vec<&str> = ours.iter().map(|row| split(&row.run).1).collect();
        backends.dedup();
        for backend in backends {
            let caption = format!("{title} {backend}: medians, with intervals");
            let of_backend = ours.iter().filter(|row| split(&row.run).1 == backend);
            *out += "<div class=\"kernels\">";
            table(out, &numbers(&caption, of_backend.copied(), matrix, heads));
            *out += "</div>\n";
        }
        curves(out, set, name, &files);
        *out += "</section>\n";
    }
    if let Some(text) = compare::left_out(&zeros) {
        let _ = writeln!(out, "<p class=\"missing\">{}</p>", escape(&text));
    }
}

fn numbers<'a>(
    caption: &str,
    rows: impl Iterator<Item = &'a Row>,
    matrix: &Matrix,
    heads: &[String],
) -> Table {
    let kernels = heads.iter().enumerate().map(|(k, head)| match k == matrix.base {
        true => format!("{head} (base)"),
        false => head.clone(),
    });
    let mut all = Table::new(caption, []);
    all.heads = std::iter::once("metric".to_owned())
        .chain(kernels)
        .chain(["release notes at a step".to_owned()])
        .collect();
    for row in rows {
        let cells = row.cells.iter().map(|cell| {
            let median = cell.median.map_or("–".to_owned(), |m| row.unit.show(m));
            let mut text = format!("{median}{}", cell.mark.sign()).replace(' ', "\u{a0}");
            if let Some(i) = cell.interval.filter(|i| i.low != i.high) {
                let interval = format!("({} – {})", row.unit.show(i.low), row.unit.show(i.high));
                // A narrow page breaks before the interval, not within it.
                text += &format!(" {}", interval.replace(' ', "\u{a0}"));
            }
            text
        });
        let steps: Vec<_> = matrix
            .explained(row)
            .iter()
            .map(|note| format!("{}: {}", note.release, note.short()))
            .collect();
        let line = std::iter::once(row.name.clone()).chain(cells).chain([steps.join("; ")]);
        all.rows.push(line.collect());
    }
    all
}

/// A panel for each metric: one column a kernel, one dot a boot, a line at the median; back ends side by side.
fn dots(out: &mut String, rows: &[&Row], matrix: &Matrix, heads: &[String]) {
    let mut names: Vec<&str> = Vec::new();
    let mut backends: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
        if !backends.contains(&split(&row.run).1) {
            backends.push(split(&row.run).1);
        }
    }
    *out += "<figure><h3>Each metric by kernel</h3>\n";
    legend(out, &backends);
    *out += "<div class=\"facets\">\n";
    for name in names {
        let ours: Vec<&Row> = rows.iter().copied().filter(|row| row.name == name).collect();
        let values = || ours.iter().flat_map(|r| &r.cells).flat_map(|c| &c.values).copied();
        let top = values().fold(0.0, f64::max);
        let bottom = values().fold(0.0, f64::min);
        if top == bottom {
            continue;
        }
        let unit = ours[0].unit;
        let mut svg = Panel::new(name, &format!("{name} by kernel"));
        let y = |v: f64| svg_y((v - bottom) / (top - bottom));
        for v in [bottom, (bottom + top) / 2.0, top] {
            svg.level(y(v), &unit.show(v));
        }
        let (left, right) = (ROOM.0, PANEL.0 - ROOM.1);
        let column = (right - left) / heads.len() as f64;
        for (k, head) in heads.iter().enumerate() {
            svg.below(left + column * (k as f64 + 0.5), head);
        }
        let steps: Vec<usize> = ours.iter().flat_map(|row| matrix.steps_of(row)).collect();
        for k in (1..heads.len()).filter(|k| steps.contains(k)) {
            let x = left + column * k as f64;
            let _ = write!(
                svg.text,
                "<line class=\"cursor\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                ROOM.2,
                PANEL.1 - ROOM.3
            );
        }
        for row in &ours {
            let b = backends.iter().position(|name| *name == split(&row.run).1).unwrap_or(0);
            let part = column / (backends.len() + 1) as f64;
            for (k, cell) in row.cells.iter().enumerate() {
                let x = left + column * k as f64 + part * (b + 1) as f64;
                for v in &cell.values {
                    let _ = write!(
                        svg.text,
                        "<circle class=\"dot s{}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                        b % 8,
                        y(*v)
                    );
                }
                if let Some(median) = cell.median {
                    let (from, to, at) = (x - part * 0.4, x + part * 0.4, y(median));
                    let _ = write!(
                        svg.text,
                        "<path class=\"line s{}\" d=\"M{from:.1} {at:.1}H{to:.1}\"/>",
                        b % 8
                    );
                }
            }
        }
        svg.finish(out);
    }
    *out += "</div>\n<figcaption>A dot is a boot, a line the median. Each panel begins at zero. A dashed line stands \
             where a release note explains a step: it is in the table's last column.</figcaption></figure>\n";
}

fn legend(out: &mut String, names: &[&str]) {
    *out += "<div class=\"tools legend\">";
    for (i, name) in names.iter().enumerate() {
        let _ = write!(
            out,
            "<span><i class=\"key s{}\" aria-hidden=\"true\"></i>{}</span>",
            i % 8,
            escape(name)
        );
    }
    *out += "</div>\n";
}

/// The reports of each kernel, as files of a page.
fn files(set: &Set, heads: &[String], only: Option<&str>) -> Vec<(String, Vec<Labelled>)> {
    let of = |label: &str| -> Vec<Labelled> {
        let boots = set.of(label).filter(|boot| boot.boot.outcome.code().is_some());
        let reports = boots.filter_map(|boot| {
            let bytes = serde_json::to_vec(boot.boot.report.as_ref()?).ok()?;
            let mut document = crate::results::parse(&bytes).ok()?;
            document.runs.retain(|run| only.is_none_or(|only| run.name.contains(only)));
            let path = format!("{} run {}", boot.kernel, boot.run).into();
            Some(Labelled { label: String::new(), results: Results { path, document } })
        });
        reports.collect()
    };
    set.kernels.iter().zip(heads).map(|(k, head)| (head.clone(), of(&k.label))).collect()
}

/// For each distribution one panel a kernel, with the same axes.
fn curves(out: &mut String, set: &Set, name: &str, files: &[(String, Vec<Labelled>)]) {
    // Label, then by kernel the curves as the page of single runs has them.
    let mut found: Vec<(String, Vec<Option<Value>>)> = Vec::new();
    for (k, (_, files)) in files.iter().enumerate() {
        for section in model::sections(files) {
            if section.name.replace(", ", "/") != name {
                continue;
            }
            let Some(picture) = pictures::percentile_curves(&section) else { continue };
            for choice in picture.data["choices"].as_array().into_iter().flatten() {
                let label = choice["label"].as_str().unwrap_or_default();
                let at = found.iter().position(|(known, _)| known == label).unwrap_or_else(|| {
                    found.push((label.to_owned(), vec![None; k]));
                    found.len() - 1
                });
                found[at].1.resize(k, None);
                found[at].1.push(Some(choice["curves"].clone()));
            }
        }
    }
    for (label, by_kernel) in found.iter().take(CURVES) {
        let curves =
            || by_kernel.iter().flatten().flat_map(|list| list.as_array().into_iter().flatten());
        let numbers = |curve: &Value, of: &str| -> Vec<f64> {
            curve[of].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let ys = || curves().flat_map(|c| numbers(c, "y")).map(|y| y.max(100.0));
        let (low, high) = (ys().fold(f64::INFINITY, f64::min), ys().fold(0.0, f64::max));
        let nines = curves().flat_map(|c| numbers(c, "x")).fold(1.0, f64::max);
        let (low, high) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
        if !high.is_finite() || !low.is_finite() {
            continue;
        }
        let mut names: Vec<&str> = Vec::new();
        for curve in curves() {
            let name = curve["name"].as_str().unwrap_or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let _ = writeln!(out, "<figure><h3>{}, by kernel</h3>", escape(label));
        legend(out, &names);
        *out += "<div class=\"facets\">\n";
        for (k, (head, _)) in files.iter().enumerate() {
            let mut svg = Panel::new(head, &format!("{label} on {head}"));
            let mut decade = low;
            while decade <= high {
                let y = svg_y((decade - low) / (high - low));
                svg.level(y, &units::time(10f64.powf(decade) as u64));
                decade += ((high - low) / 4.0).ceil().max(1.0);
            }
            let x = |nines_at: f64| ROOM.0 + (PANEL.0 - ROOM.0 - ROOM.1) * nines_at / nines;
            for (at, text) in
                [(0.301, "p50"), (1.0, "p90"), (2.0, "p99"), (3.0, "p99.9"), (4.0, "p99.99")]
            {
                if at <= nines {
                    svg.below(x(at), text);
                }
            }
            match by_kernel.get(k).and_then(Option::as_ref) {
                None => {
                    let _ = write!(
                        svg.text,
                        "<text x=\"{:.0}\" y=\"{:.0}\">not measured</text>",
                        ROOM.0 + 12.0,
                        PANEL.1 / 2.0
                    );
                }
                Some(list) => {
                    for curve in list.as_array().into_iter().flatten() {
                        let name = curve["name"].as_str().unwrap_or_default();
                        let color = names.iter().position(|n| *n == name).unwrap_or(0) % 8;
                        let (xs, ys) = (numbers(curve, "x"), numbers(curve, "y"));
                        let mut path = String::new();
                        for (i, (at, ns)) in xs.iter().zip(&ys).enumerate() {
                            let y = svg_y((ns.max(100.0).log10() - low) / (high - low));
                            let _ = write!(
                                path,
                                "{}{:.1} {y:.1}",
                                if i == 0 { "M" } else { "L" },
                                x(*at)
                            );
                        }
                        let _ = write!(svg.text, "<path class=\"line s{color}\" d=\"{path}\"/>");
                    }
                }
            }
            svg.finish(out);
        }
        *out += "</div>\n<figcaption>How long the slowest part took: each further nine to the right is ten times \
                 rarer. All boots of a kernel are merged.";
        if !set.times_are_evidence() {
            *out += " <b>Under TCG these times are no evidence</b>: neither their size nor their differences between \
                     kernels.";
        }
        *out += "</figcaption></figure>\n";
    }
}

/// From 0 (the bottom of the plot) to 1, in a panel's units.
fn svg_y(share: f64) -> f64 {
    let (top, bottom) = (ROOM.2, PANEL.1 - ROOM.3);
    bottom - (bottom - top) * share
}

/// One small picture.
struct Panel {
    text: String,
}

impl Panel {
    fn new(title: &str, about: &str) -> Panel {
        let (w, h) = PANEL;
        let text = format!(
            "<div class=\"plot\"><p class=\"subtitle\">{}</p><svg viewBox=\"0 0 {w} {h}\" role=\"img\" \
             aria-label=\"{}\">",
            escape(title),
            escape(about)
        );
        Panel { text }
    }

    /// A line across, with what it stands for.
    fn level(&mut self, y: f64, label: &str) {
        let _ = write!(
            self.text,
            "<line class=\"gridline\" x1=\"{:.0}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            ROOM.0,
            PANEL.0 - ROOM.1,
            ROOM.0 - 4.0,
            y + 4.0,
            escape(label)
        );
    }

    /// Text below the plot.
    fn below(&mut self, x: f64, text: &str) {
        let _ = write!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            PANEL.1 - 7.0,
            escape(text)
        );
    }

    fn finish(self, out: &mut String) {
        *out += &self.text;
        *out += "</svg></div>\n";
    }
}

fn notes(out: &mut String, matrix: &Matrix, heads: &[String]) {
    let steps = matrix.steps();
    if steps.is_empty() {
        return;
    }
    *out += "<section aria-labelledby=\"notes\"><h2 id=\"notes\">What changed between these kernels</h2>\n";
    let mut all = Table::new("Release notes", ["release", "between", "what", "source"]);
    for (k, notes) in steps {
        for note in notes {
            let between = format!("{} and {}", heads[k - 1], heads[k]);
            all.rows.push(vec![note.release, between, note.text, note.source]);
        }
    }
    table(out, &all);
    *out += "</section>\n";
}

fn conditions(out: &mut String, set: &Set, heads: &[String]) {
    *out +=
        "<section aria-labelledby=\"machines\"><h2 id=\"machines\">Where it was measured</h2>\n";
    let mut all = Table::new("Kernels", ["", "release", "from", "image (SHA-256)"]);
    for (kernel, head) in set.kernels.iter().zip(heads) {
        all.rows.push(vec![
            head.clone(),
            kernel.label.clone(),
            kernel.origin.clone(),
            kernel.image_sha256.chars().take(16).collect(),
        ]);
    }
    table(out, &all);
    let mut hosts = Table::new("Hosts", ["host", "virtual machine"]);
    for c in &set.conditions {
        let host = c.host.as_ref().map_or("–".to_owned(), |h| {
            format!("Linux {}, {} × {}", h.kernel, h.cpus, h.cpu_model)
        });
        let machine = c.machine.as_ref().map_or("none".to_owned(), |m| {
            format!(
                "{}, {} processors, {} MiB, preempt={}, mitigations={} {} ({})",
                m.accelerator.name(),
                m.vcpus,
                m.memory_mib,
                m.preempt,
                m.mitigations,
                m.append,
                c.accelerator_because
            )
        });
        hosts.rows.push(vec![host, machine]);
    }
    table(out, &hosts);
    *out += "</section>\n";
}
