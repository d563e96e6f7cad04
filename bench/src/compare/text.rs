//! The comparison for a terminal of 80 columns.

use super::groups::{Group, Line};
use super::metrics::{Better, Unit};
use super::stats::{Comparison, Interval};
use super::{Judged, Made};
use crate::stress::page::Page;

/// Columns of a metric's name; longer names have a line of their own.
const NAME: usize = 26;

/// The whole comparison.
pub fn text(made: &Made<'_>) -> String {
    let mut page = Page::default();
    page.paragraph(&verdict(made));
    page.blank();
    for gate in &made.gates {
        page.entry(if gate.holds() { "gate holds" } else { "gate FAILS" }, &gate.said());
    }
    page.entry("before", &made.side(true));
    page.entry("after", &made.side(false));
    for d in &made.differences {
        page.entry("differs", &format!("{}: {} before, {} after", d.what, d.before, d.after));
    }
    for caution in &made.cautions {
        page.entry("caution", caution);
    }
    for group in &made.groups {
        page.blank();
        table(&mut page, made, group);
    }
    page.blank();
    page.paragraph(LEGEND);
    page.finish()
}

const LEGEND: &str = "Medians over runs. 95 %: bootstrap interval of the change of medians (a \
    trailing ~ marks fewer than six runs a side, where the range of so few cannot be 95 % sure). d: Cliff's delta, from \
    -1 (every run after is below every run before) to +1. p: exact Mann-Whitney, two-sided; * where \
    at most 5 % of the marked differences are expected to be chance.";

/// What came out, in a sentence.
pub fn verdict(made: &Made<'_>) -> String {
    let failed = made.gates.iter().filter(|gate| !gate.holds()).count();
    let gates = match (made.gates.len(), failed) {
        (0, _) => String::new(),
        (n, 0) => {
            format!("{} held. ", if n == 1 { "The gate".into() } else { format!("All {n} gates") })
        }
        (n, f) => format!("{f} of {n} gates FAILED. "),
    };
    let (mut better, mut worse, mut other, mut none) = (0, 0, 0, 0);
    for line in made.groups.iter().flat_map(|g| &g.lines).filter(|l| l.metric.headline) {
        if line.comparison.is_none() {
            continue;
        }
        match (line.shown(), line.metric.better) {
            (None, _) => none += 1,
            (Some(_), Better::Neither) => other += 1,
            (Some(c), Better::Less) if c.delta < 0.0 => better += 1,
            (Some(c), Better::More) if c.delta > 0.0 => better += 1,
            (Some(_), _) => worse += 1,
        }
    }
    let all = better + worse + other + none;
    let changed = match other {
        0 => String::new(),
        n => format!(", {n} changed"),
    };
    format!(
        "{gates}Of {all} figures {better} are better and {worse} worse after{changed}; for {none} no \
         difference was shown."
    )
}

fn table(page: &mut Page, made: &Made<'_>, group: &Group<'_>) {
    page.line(&format!(
        "{:<NAME$}{:>10}{:>10}{:>9}{:>13}{:>6}{:>5}",
        shortened(&group.name, NAME - 1),
        "before",
        "after",
        "change",
        "95 %",
        "d",
        "p"
    ));
    if group.name.chars().count() >= NAME {
        page.line(&format!("({})", group.name));
    }
    let mut one_sided = Vec::new();
    for line in made.chosen(group) {
        match &line.comparison {
            Some(c) => row(page, line, c),
            None => one_sided.push(line),
        }
    }
    for line in one_sided {
        let (side, values) = match line.before.is_empty() {
            true => ("after", &line.after),
            false => ("before", &line.before),
        };
        let value =
            super::stats::median(values).map_or_else(String::new, |x| line.metric.unit.show(x));
        page.paragraph(&format!("  {}: only {side}: {value}", line.metric.name));
    }
}

fn row(page: &mut Page, line: &Line, c: &Comparison) {
    let unit = line.metric.unit;
    let mut name = format!("  {}", line.metric.name);
    if name.chars().count() >= NAME {
        page.line(&name);
        name.clear();
    }
    let p = match c.test.p {
        p if p < 0.001 => "<.001".to_owned(),
        p if p >= 0.995 => "1".to_owned(),
        p if p < 0.01 => format!("{p:.3}")[1..].to_owned(),
        p => format!("{p:.2}")[1..].to_owned(),
    };
    let star = if line.shown().is_some() { "*" } else { "" };
    let row = format!(
        "{name:<NAME$}{:>10}{:>10}{:>9}{:>13}{:>6}{p:>5}{star}",
        unit.show(c.median_before),
        unit.show(c.median_after),
        change(line, c),
        shown_interval(line, c),
        format!("{:+.2}", c.delta),
    );
    page.line(&row);
}

/// The change of medians: relative where that means something, else the difference.
pub fn change(line: &Line, c: &Comparison) -> String {
    if line.metric.unit == Unit::SignedTime {
        return line.metric.unit.show(c.median_after - c.median_before).replace(' ', "");
    }
    match c.change {
        None if c.median_after == 0.0 => "0 %".to_owned(),
        None => "from 0".to_owned(),
        Some(x) => relative(x),
    }
}

/// A relative change: in percent, from tenfold on as a factor, below a hundredth as a fraction.
pub fn relative(x: f64) -> String {
    match x {
        x if x >= 9.0 => format!("x{:.0}", x + 1.0),
        x if x > -1.0 && x <= -0.99 => format!("1/{:.0}", 1.0 / (x + 1.0)),
        x if x.abs() < 0.0995 => format!("{:+.1} %", x * 100.0),
        x => format!("{:+.0} %", x * 100.0),
    }
}

/// The interval of the change, where the change is relative.
pub fn shown_interval(line: &Line, c: &Comparison) -> String {
    match line.metric.unit {
        Unit::SignedTime => String::new(),
        _ => c.change_interval.map_or_else(String::new, interval),
    }
}

/// An interval of a relative change.
fn interval(i: Interval) -> String {
    let short = |x: f64| relative(x).replace(" %", "");
    let mark = if i.confidence < super::stats::CONFIDENCE { "~" } else { "" };
    format!("{}..{}{mark}", short(i.low), short(i.high))
}

fn shortened(text: &str, width: usize) -> String {
    match text.chars().count() <= width {
        true => text.to_owned(),
        false => text.chars().take(width - 2).chain("..".chars()).collect(),
    }
}

impl Judged {
    /// What the gate is and what it came to, for a line.
    pub fn said(&self) -> String {
        use super::gate::{Side, Verdict};
        match &self.verdict {
            Verdict::Judged { left, right, .. } => {
                format!(
                    "{}: {} ({} against {})",
                    self.group,
                    self.gate.text(),
                    self.show(*left),
                    self.show(*right)
                )
            }
            Verdict::NotMeasured { metric, side } => {
                let side = if *side == Side::Before { "before" } else { "after" };
                format!("{}: {}: {metric} was not measured {side}", self.group, self.gate.text())
            }
        }
    }
}
