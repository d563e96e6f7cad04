//! Scenarios as a person reads them: the verdicts first, then the figures side by side, then who waited for the
//! lock and why the worst stalls happened.

use super::catalog::Scenario;
use crate::schema::{Document, Noise, Run};
use crate::stress::kernel_text;
use crate::stress::page::Page;
use crate::stress::units::{count, time};

/// Columns of a figure's name.
const NAME: usize = 30;
/// Columns of a value.
const CELL: usize = 12;
/// Runs side by side.
const ABREAST: usize = 4;

/// The list of all scenarios.
pub fn list() -> String {
    let mut page = Page::default();
    for scenario in Scenario::ALL {
        page.line(scenario.name());
        for line in crate::stress::page::wrap(scenario.does(), 74) {
            page.line(&format!("    {line}"));
        }
    }
    page.finish()
}

/// The control.
pub fn noise(noise: &Noise) -> String {
    let mut page = Page::default();
    let h = &noise.hiccups;
    page.paragraph(&format!(
        "Idle control: over {:.1} s a 1 kHz probe woke late by {} (median), {} (p99), {} (p99.9), {} (max); \
         others used {:.2} processors. Differences of medians below {} and of maxima below {} get no verdict.",
        noise.seconds,
        time(h.p50),
        time(h.p99),
        time(h.p999),
        time(h.max),
        noise.busy_cpus,
        time(h.p99),
        time(h.max),
    ));
    page.blank();
    page.finish()
}

/// One scenario's runs.
pub fn scenario(scenario: Scenario, runs: &[Run]) -> String {
    let mut page = Page::default();
    page.line(&format!("== {scenario}"));
    for run in runs.iter().filter(|r| r.variant != "quiet") {
        page.paragraph(&format!("{} {}", marked(run), run.verdict.text));
    }
    page.paragraph(scenario.does());
    for chunk in runs.chunks(ABREAST) {
        table(&mut page, chunk);
    }
    for run in runs.iter().filter(|r| r.variant != "quiet") {
        page.blank();
        page.line(&format!("-- {}", run.name));
        kernel_text::kernel(&mut page, run);
        for check in run.checks.iter().filter(|c| !c.ok) {
            page.entry("FAILED", &format!("{}: {}", check.what, check.detail));
        }
    }
    page.blank();
    page.finish()
}

fn marked(run: &Run) -> String {
    match run.variant.as_str() {
        "" => String::new(),
        variant => format!("[{variant}]"),
    }
}

fn table(page: &mut Page, runs: &[Run]) {
    page.blank();
    let heads = |f: &dyn Fn(&Run) -> String| runs.iter().map(f).collect::<Vec<_>>();
    if runs.iter().any(|r| !r.variant.is_empty()) {
        page.row("", NAME, CELL, &heads(&|r| r.variant.clone()));
    }
    page.row("", NAME, CELL, &heads(&|r| r.backend.clone()));
    let mut names: Vec<&str> = Vec::new();
    for figure in runs.iter().flat_map(|r| &r.figures) {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    for name in names {
        let cells = heads(&|r| {
            r.figures.iter().find(|f| f.name == name).map_or("-".to_owned(), |f| {
                match f.unit.as_str() {
                    "ns" if f.value < 0.0 => format!("-{}", time(-f.value as u64)),
                    "ns" => time(f.value as u64),
                    _ if f.value.fract() == 0.0 => count(f.value as u64),
                    _ => format!("{:.2}", f.value),
                }
            })
        });
        page.row(name, NAME, CELL, &cells);
    }
}

/// What was left out, and whether it is all.
pub fn end(document: &Document) -> String {
    let mut page = Page::default();
    for line in &document.skipped {
        page.entry("note", line);
    }
    if document.partial {
        page.paragraph("Interrupted: what is above is all that was measured.");
    }
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Check, Distribution, Figure, Hiccups};
    use crate::stress::measured;

    #[test]
    fn every_line_fits_a_terminal() {
        let mut run =
            measured::empty("x/storm/pingpong".into(), "entries".into(), "pingpong".into(), 1);
        run.variant = "storm".into();
        for (name, value) in [("neighbour_wait.worst_write_ns", 999e9), ("overrun_ns.max", -999e6)]
        {
            run.figures.push(Figure {
                name: name.into(),
                value,
                unit: "ns".into(),
                what: "something".into(),
                better: -1,
            });
        }
        run.verdict.text = "a sentence of some length ".repeat(9);
        run.checks.push(Check {
            what: "a check".into(),
            ok: false,
            detail: "found it wanting".into(),
        });
        let ns = Distribution::of([999_999_999_937]);
        run.hiccups = Some(Hiccups { ns: ns.clone(), raw: ns });
        let runs = vec![run; 6];
        for scenario in Scenario::ALL {
            let text = super::scenario(scenario, &runs) + &list();
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}
