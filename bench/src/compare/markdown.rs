//! The comparison as Markdown, for pull requests and wikis.

use std::fmt::Write;

use super::Made;
use super::text::{change, shown_interval, verdict};

/// The whole comparison.
pub fn text(made: &Made<'_>) -> String {
    let mut out = format!("**{}**\n\n", escaped(&verdict(made)));
    for gate in &made.gates {
        let held = if gate.holds() { "holds" } else { "**FAILS**" };
        let _ = writeln!(out, "- gate {held}: {}", escaped(&gate.said()));
    }
    let _ = writeln!(out, "- before: {}", escaped(&made.side(true)));
    let _ = writeln!(out, "- after: {}", escaped(&made.side(false)));
    for d in &made.differences {
        let (what, before, after) = (escaped(&d.what), escaped(&d.before), escaped(&d.after));
        let _ = writeln!(out, "- differs: {what}: {before} before, {after} after");
    }
    for caution in &made.cautions {
        let _ = writeln!(out, "- caution: {}", escaped(caution));
    }
    for group in &made.groups {
        let _ = writeln!(out, "\n### {}\n", escaped(&group.name));
        out += "| metric | before | after | change | 95 % | delta | p |\n";
        out += "|---|--:|--:|--:|--:|--:|--:|\n";
        for line in made.chosen(group) {
            let unit = line.metric.unit;
            let name = &line.metric.name;
            let Some(c) = &line.comparison else {
                let show = |values: &[f64]| {
                    super::stats::median(values)
                        .map_or_else(|| "not measured".into(), |x| unit.show(x))
                };
                let _ = writeln!(
                    out,
                    "| `{name}` | {} | {} | | | | |",
                    show(&line.before),
                    show(&line.after)
                );
                continue;
            };
            let star = if line.shown().is_some() { " \\*" } else { "" };
            let _ = writeln!(
                out,
                "| `{name}` | {} | {} | {} | {} | {:+.2} | {:.4}{star} |",
                unit.show(c.median_before),
                unit.show(c.median_after),
                change(line, c),
                shown_interval(line, c).replace('~', " (range)"),
                c.delta,
                c.test.p,
            );
        }
    }
    out += "\nMedians over runs; bootstrap interval of the change (*range*: fewer than six runs a side); \
            Cliff's delta; exact two-sided Mann–Whitney; \\* at most 5 % false discoveries.\n";
    out
}

/// What Markdown would take for markup, as text.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '\\' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
