//! `firn compare`: what is different between two groups of runs, and how sure that is.
//!
//! Files are read ([`crate::results`]), runs that belong together are paired ([`groups`]), each
//! metric of a run ([`metrics`]) gives one value a file, and the values of the two sides are compared
//! ([`stats`], [`rank`]). What else differs is named ([`environment`]), conditions are judged
//! ([`gate`]), and the result is written in one of four forms.

pub mod environment;
pub mod gate;
pub mod groups;
pub mod json;
pub mod lkml;
pub mod markdown;
pub mod metrics;
pub mod rank;
pub mod stats;
pub mod text;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use self::environment::Difference;
use self::gate::{Gate, Side, Verdict};
use self::groups::{Group, Line, Sided};
use self::metrics::Unit;
use crate::exit::{Exit, Failure};
use crate::results::Results;

/// `firn compare`.
#[derive(Debug, Clone, Args)]
#[command(override_usage = "firn compare [OPTIONS] BEFORE.json... -- AFTER.json...\n       \
    firn compare [OPTIONS] BEFORE.json AFTER.json\n       \
    firn compare [OPTIONS] --backends BEFORE,AFTER FILE.json...")]
pub struct CompareArgs {
    /// Files of `--json` from before the change (or from the other kernel, machine, back end)
    #[arg(value_name = "BEFORE")]
    pub before: Vec<PathBuf>,
    /// Files from after it
    #[arg(value_name = "AFTER", last = true)]
    pub after: Vec<PathBuf>,
    /// Compare two back ends within the same files
    #[arg(long, value_name = "BEFORE,AFTER")]
    pub backends: Option<String>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// A condition that decides the exit code, as `lock.write.wait.p99 < 1.1*base`; may be repeated
    #[arg(long = "gate", value_name = "EXPR")]
    pub gates: Vec<String>,
    /// Only runs whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Show the metrics whose name contains this; may be repeated
    #[arg(long = "metric", value_name = "TEXT")]
    pub metric: Vec<String>,
    /// Show all metrics, not only the ones that matter most
    #[arg(long)]
    pub all: bool,
    /// List the names of metrics: of the files given, or all families
    #[arg(long)]
    pub metrics: bool,
}

/// How a comparison is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal of 80 columns
    Text,
    /// Plain before/after/change tables of at most 72 columns, for mailing lists
    Lkml,
    /// Tables for pull requests
    Markdown,
    /// Everything, for scripts
    Json,
}

/// A gate and what it came to in one group.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The gate.
    pub gate: Gate,
    /// The group.
    pub group: String,
    /// What it came to.
    pub verdict: Verdict,
    unit: Unit,
}

impl Judged {
    /// Whether it was shown to hold.
    pub fn holds(&self) -> bool {
        self.verdict.holds()
    }

    fn show(&self, x: f64) -> String {
        self.unit.show(x)
    }
}

/// A comparison, made.
#[derive(Debug)]
pub struct Made<'a> {
    /// The runs that belong together.
    pub groups: Vec<Group<'a>>,
    /// What else differs.
    pub differences: Vec<Difference>,
    /// What speaks against the figures.
    pub cautions: Vec<String>,
    /// The gates.
    pub gates: Vec<Judged>,
    /// Parts of names of the metrics to show; empty for the headlines.
    pub metric: Vec<String>,
    /// Show all metrics.
    pub all: bool,
}

impl Made<'_> {
    /// The lines of a group that are shown.
    pub fn chosen<'g>(&'g self, group: &'g Group<'_>) -> impl Iterator<Item = &'g Line> {
        let gated: Vec<String> =
            self.gates.iter().flat_map(|judged| judged.gate.metrics()).collect();
        group.lines.iter().filter(move |line| {
            let name = &line.metric.name;
            let wanted = match self.metric.is_empty() {
                true => line.metric.headline || gated.contains(name),
                false => self.metric.iter().any(|part| name.contains(part.as_str())),
            };
            self.all || wanted
        })
    }

    /// One side in a line: how many files, and from where.
    pub fn side(&self, before: bool) -> String {
        let runs = self.groups.iter().flat_map(|g| if before { &g.before } else { &g.after });
        let mut files: Vec<&Results> = Vec::new();
        for (file, _) in runs {
            if !files.iter().any(|known| std::ptr::eq(*known, *file)) {
                files.push(file);
            }
        }
        let mut kernels: Vec<&str> = files
            .iter()
            .filter_map(|file| Some(file.document.environment.as_ref()?.kernel.as_str()))
            .collect();
        kernels.sort_unstable();
        kernels.dedup();
        let names: Vec<String> = files.iter().map(|file| file.label()).collect();
        let names = match &names[..] {
            [first, .., last] if names.len() > 3 => format!("{first} to {last}"),
            _ => names.join(", "),
        };
        let plural = if files.len() == 1 { "file" } else { "files" };
        let linux = if kernels.is_empty() { "" } else { ", Linux " };
        format!("{} {plural} ({names}){linux}{}", files.len(), kernels.join(" and "))
    }
}

/// Does what the command line says.
///
/// # Errors
/// Exit code 2 for files that cannot be read, sides that have nothing in common, a gate that is none or
/// that names a metric no run can have.
pub fn run(args: &CompareArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    // Before any file is read: a mistyped gate should not cost the time.
    let gates: Vec<Gate> = args
        .gates
        .iter()
        .map(|text| Gate::parse(text).map_err(|e| Failure::usage(e.to_string())))
        .collect::<Result<_, _>>()?;
    if args.metrics {
        return list(args, print);
    }
    let (before, after) = sides(args)?;
    let (before, after) = (Results::read_all(&before)?, Results::read_all(&after)?);
    let wanted =
        |run: &crate::schema::Run| args.only.as_ref().is_none_or(|t| run.name.contains(t.as_str()));
    let backends = backends(args)?;
    let (first, second) = match &backends {
        Some((a, b)) => (
            Sided::of(&before, |run| wanted(run) && run.backend == *a),
            Sided::of(&before, |run| wanted(run) && run.backend == *b),
        ),
        None => (Sided::of(&before, wanted), Sided::of(&after, wanted)),
    };
    for (side, name) in [(&first, "before"), (&second, "after")] {
        if side.runs.is_empty() {
            return Err(Failure::usage(nothing_wanted(args, &backends, name)));
        }
    }
    let groups = groups::pair(&first, &second)?;
    let gates = judge(&gates, &groups)?;
    let made = Made {
        differences: environment::differences(&groups),
        cautions: environment::cautions(&groups),
        gates,
        groups,
        metric: args.metric.clone(),
        all: args.all,
    };
    print(&match args.format {
        Format::Text => text::text(&made),
        Format::Lkml => lkml::text(&made),
        Format::Markdown => markdown::text(&made),
        Format::Json => format!("{:#}\n", json::value(&made)),
    });
    Ok(if made.gates.iter().all(Judged::holds) { Exit::Done } else { Exit::GateFailed })
}

/// The two names of `--backends`.
fn backends(args: &CompareArgs) -> Result<Option<(String, String)>, Failure> {
    let Some(text) = &args.backends else { return Ok(None) };
    match text.split_once(',') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(',') => {
            Ok(Some((a.to_owned(), b.to_owned())))
        }
        _ => Err(Failure::usage(format!(
            "--backends {text}: two names with a comma between are needed, as art,pingpong"
        ))),
    }
}

fn nothing_wanted(args: &CompareArgs, backends: &Option<(String, String)>, side: &str) -> String {
    match (&args.only, backends) {
        (None, Some((a, b))) => {
            let backend = if side == "before" { a } else { b };
            format!("--backends {a},{b}: no run in these files has the back end {backend}")
        }
        (Some(only), _) => {
            format!(
                "--only {only}: no run {side} has this in its name (`--metrics` lists the runs)"
            )
        }
        _ => format!("no run {side}"),
    }
}

/// The files of each side.
fn sides(args: &CompareArgs) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Failure> {
    let (before, after) = (&args.before[..], &args.after[..]);
    match (args.backends.is_none(), before, after) {
        (false, [_, ..], []) => Ok((before.to_vec(), Vec::new())),
        (false, ..) => {
            Err(Failure::usage("--backends compares within files: give them without `--`"))
        }
        (true, [_, ..], [_, ..]) => Ok((before.to_vec(), after.to_vec())),
        (true, [a, b], []) => Ok((vec![a.clone()], vec![b.clone()])),
        _ => Err(Failure::usage(
            "two groups of files are needed: firn compare BEFORE.json... -- AFTER.json...",
        )),
    }
}

/// Judges each gate in each group that has one of its metrics.
fn judge(gates: &[Gate], groups: &[Group<'_>]) -> Result<Vec<Judged>, Failure> {
    let mut judged = Vec::new();
    for gate in gates {
        let names = gate.metrics();
        for name in &names {
            if !groups.iter().any(|group| group.line(name).is_some()) {
                return Err(Failure::usage(unknown(gate, name, groups)));
            }
        }
        for group in groups {
            let of = |name: &String| group.line(name);
            if names.iter().all(|name| of(name).is_none()) {
                continue;
            }
            let verdict = gate.judge(|side, name| {
                let line = group.line(name)?;
                stats::median(if side == Side::Before { &line.before } else { &line.after })
            });
            let unit = names.iter().find_map(of).map_or(Unit::Plain, |line| line.metric.unit);
            let unit = if names.len() == 1 { unit } else { Unit::Plain };
            judged.push(Judged { gate: gate.clone(), group: group.name.clone(), verdict, unit });
        }
    }
    Ok(judged)
}

/// That no run has such a metric, and which names are near.
fn unknown(gate: &Gate, name: &str, groups: &[Group<'_>]) -> String {
    let mut near: Vec<&str> = groups
        .iter()
        .flat_map(|group| &group.lines)
        .map(|line| line.metric.name.as_str())
        .filter(|known| {
            let parts = |s: &str| s.split('.').map(str::to_owned).collect::<Vec<_>>();
            let (a, b) = (parts(known), parts(name));
            a.len() == b.len() && a.iter().zip(&b).filter(|(x, y)| x != y).count() <= 1
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(4);
    let near = match near.is_empty() {
        true => String::new(),
        false => format!("; did you mean {}?", near.join(", ")),
    };
    format!(
        "--gate '{}': no run has a metric {name}{near} (`firn compare --metrics FILE` lists what a file has)",
        gate.text()
    )
}

/// The names of metrics.
fn list(args: &CompareArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    use std::fmt::Write;
    let mut out = String::new();
    let files: Vec<PathBuf> = args.before.iter().chain(&args.after).cloned().collect();
    if files.is_empty() {
        for (pattern, meaning) in metrics::FAMILIES {
            let mut page = crate::stress::page::wrap(meaning, 46).into_iter();
            let _ = writeln!(out, "{pattern:<32}{}", page.next().unwrap_or_default());
            page.for_each(|line| {
                let _ = writeln!(out, "{:32}{line}", "");
            });
        }
        let _ = writeln!(out, "STAT: {}", metrics::STATS);
        let _ =
            writeln!(out, "Times are nanoseconds, sizes bytes. With files: what these files have.");
    }
    for file in Results::read_all(&files)? {
        for run in &file.document.runs {
            let _ = writeln!(out, "{}: {}", file.path.display(), run.name);
            for metric in metrics::of(run) {
                let star = if metric.headline { '*' } else { ' ' };
                let _ = writeln!(
                    out,
                    " {star} {:<44} {:>14}",
                    metric.name,
                    metric.unit.show(metric.value)
                );
            }
        }
    }
    if !files.is_empty() {
        out += "(* shown without being asked for)\n";
    }
    print(&out);
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
