//! `firn kernels gate`: one kernel against a baseline, with the exit codes of `git bisect run`.
//!
//! 0: every gate holds, the commit is good. 1: one was shown not to hold, it is bad. 125: neither is shown
//! (it does not boot, the command fails, a metric is missing): skip this commit. 128 and above end the
//! bisection, since the next commit would fare no better: 128 for bad usage and for what this machine lacks (no
//! qemu, no static `firn`, no place for the cache, `--out` that cannot be written), 130 when the user interrupts. Every other
//! code up to 127 would make the commit bad, so no failure ends with one: not a word of the command line that is
//! not understood ([`is_asked_for`] is for that), nor a panic.
//!
//! The baseline is a set of `firn kernels run -o`: its command and its machine are used again, so that the
//! only difference is the kernel. `base.METRIC` in a gate is the baseline's median.

use std::path::PathBuf;

use clap::Args;

use super::cache::Cache;
use super::matrix::{Matrix, Row};
use super::options::{ChoiceArgs, check_command};
use super::program;
use super::qemu::Accelerator;
use super::run::{self, Order};
use super::set::Set;
use crate::compare::gate::{Gate, Side, Verdict};
use crate::compare::metrics::Unit;
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, Stop};

/// `firn kernels gate`.
#[derive(Debug, Clone, Args)]
pub struct GateArgs {
    /// The kernel to judge.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// The baseline: a file of `firn kernels run -o`, with one kernel or --base
    #[arg(long, value_name = "SET.json")]
    pub baseline: PathBuf,
    /// The kernel of the baseline that is meant, if it has several
    #[arg(long, value_name = "KERNEL")]
    pub base: Option<String>,
    /// A condition, as `census.UFFDIO_COPY.read == base`; may be repeated
    #[arg(long = "gate", value_name = "EXPR", required = true)]
    pub gates: Vec<String>,
    /// The run of reports that gates are about, if they have several (compact-vs-writers/storm/art)
    #[arg(long, value_name = "NAME")]
    pub of: Option<String>,
    /// Runs of the kernel [default: as many as the baseline has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: Option<u16>,
    /// Also write what was measured
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Longest time until the guest is up [default: 30 with kvm, 120 with tcg]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub boot_timeout: Option<u64>,
    /// Longest time for the command in the guest
    #[arg(long, value_name = "SECONDS", default_value_t = 900,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// The static firn that the guest runs [default: this one, or one built from its source]
    #[arg(long, value_name = "FILE")]
    pub guest: Option<PathBuf>,
}

/// Judges, and says in one line each what the gates came to.
///
/// # Errors
/// Never with a code that `git bisect run` would take for a bad commit.
pub fn run(args: &GateArgs, cache: &Cache, print: &dyn Fn(&str)) -> Result<Exit, Failure> {
    let judged = || judged(args, cache, print).map_err(for_bisect);
    // What went wrong has been said; a panic's own exit code would make the commit bad.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(judged)).unwrap_or_else(|_| {
        Err(ends_bisection(Failure::missing("gate: firn panicked, which is a fault of its own")))
    })
}

/// A failure that the next commit would have, too.
pub fn ends_bisection(failure: Failure) -> Failure {
    Failure { exit: Exit::EndsBisection, ..failure }
}

/// Whether the words of a command line, without the program's name, are meant for the gate: also if they are not all
/// understood.
pub fn is_asked_for(words: impl IntoIterator<Item = String>) -> bool {
    let mut words = words.into_iter();
    if words.next().as_deref() != Some("kernels") {
        return false;
    }
    while let Some(word) = words.next() {
        match word.as_str() {
            // The one option that may stand before the command, with its value.
            "--cache" => drop(words.next()),
            option if option.starts_with('-') => {}
            command => return command == "gate",
        }
    }
    false
}

/// Exit codes of failures as `git bisect run` understands them: what the user got wrong ends it, what this
/// commit got wrong skips it.
fn for_bisect(failure: Failure) -> Failure {
    let exit = match failure.exit {
        Exit::Usage | Exit::EndsBisection => Exit::EndsBisection,
        Exit::Interrupted => Exit::Interrupted,
        _ => Exit::Untestable,
    };
    Failure { exit, ..failure }
}

fn judged(args: &GateArgs, cache: &Cache, print: &dyn Fn(&str)) -> Result<Exit, Failure> {
    let baseline = Set::read(&args.baseline)?;
    let base = baseline_label(&baseline, args.base.as_deref())?;
    let gates = args
        .gates
        .iter()
        .map(|text| Gate::parse(text).map_err(|e| Failure::usage(format!("--gate: {e}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let conditions = baseline
        .conditions
        .first()
        .ok_or_else(|| Failure::usage("the baseline has no conditions"))?
        .clone();
    let Some(machine) = conditions.machine.clone() else {
        return Err(Failure::usage(
            "the baseline was made without a virtual machine, which a gate cannot repeat: make one with \
             `firn kernels run -o`",
        ));
    };
    check_command(&conditions.command)?;
    let before = Matrix::of(&only(&baseline, &base), None)?;
    check_names(&gates, &before, args.of.as_deref())?;
    check_evidence(&gates, &before, args.of.as_deref())?;
    if let Some(out) = &args.out {
        super::check_writable(out)?;
    }
    // What this machine lacks, it lacks for every commit.
    super::qemu::version().map_err(ends_bisection)?;
    let guest = program::find(args.guest.as_deref(), &super::tell).map_err(ends_bisection)?;
    let kernels = args.choice.obtain(cache, &super::tell)?;
    let [_] = &kernels[..] else {
        return Err(Failure::usage(
            "a gate judges one kernel: give one --image, --deb or --kernels",
        ));
    };
    let runs = args.runs.map_or_else(|| baseline.of(&base).count().max(1), usize::from);
    let order = Order {
        kernels,
        runs,
        command: conditions.command.clone(),
        program: None,
        guest: Some(guest),
        accelerator: Some(machine.accelerator),
        machine,
        boot_timeout: args.boot_timeout.map(std::time::Duration::from_secs),
        timeout: std::time::Duration::from_secs(args.timeout),
        modules: args.choice.module.clone(),
        shard: None,
        out: args.out.clone(),
        keep: false,
        console: false,
    };
    let stop = Stop::new();
    stop.connect_signals();
    let set = run::run(&order, cache, &stop, &Progress::new(true), &super::tell)?;
    if stop.interrupted() {
        return Ok(Exit::Interrupted);
    }
    let after = Matrix::of(&set, None)?;
    let (lines, exit) = verdict(&gates, &before, &after, args.of.as_deref());
    for line in lines {
        print(&(line + "\n"));
    }
    if exit != Exit::Done {
        for boot in &set.boots {
            if boot.boot.outcome.code() != Some(0) {
                print(&format!("{} run {}: {}\n", boot.kernel, boot.run, boot.boot.outcome.text()));
            }
        }
    }
    Ok(exit)
}

/// Which kernel of the baseline is meant.
fn baseline_label(baseline: &Set, base: Option<&str>) -> Result<String, Failure> {
    let names: Vec<_> = baseline.kernels.iter().map(|k| k.label.as_str()).collect();
    let found = match (base, &baseline.kernels[..]) {
        (None, [one]) => Some(one),
        (None, _) => None,
        (Some(name), all) => {
            all.iter().find(|k| k.label == name || k.series.as_deref() == Some(name))
        }
    };
    found.map(|kernel| kernel.label.clone()).ok_or_else(|| {
        Failure::usage(format!("the baseline has {}: choose one with --base", names.join(", ")))
    })
}

/// A set with the boots of one kernel.
fn only(set: &Set, label: &str) -> Set {
    let mut set = set.clone();
    set.kernels.retain(|kernel| kernel.label == label);
    set.boots.retain(|boot| boot.kernel == label);
    set
}

/// The one row that a gate means by a metric's name.
fn row<'a>(matrix: &'a Matrix, name: &str, of: Option<&str>) -> Option<&'a Row> {
    let mut fitting =
        matrix.rows.iter().filter(|row| row.name == name && of.is_none_or(|run| row.run == run));
    fitting.next().filter(|_| fitting.next().is_none())
}

/// A name that the baseline does not have is a mistake in the gate, not in the kernel.
fn check_names(gates: &[Gate], before: &Matrix, of: Option<&str>) -> Result<(), Failure> {
    for name in gates.iter().flat_map(Gate::metrics) {
        if row(before, &name, of).is_some() {
            continue;
        }
        let runs: Vec<_> =
            before.rows.iter().filter(|r| r.name == name).map(|r| r.run.as_str()).collect();
        return Err(Failure::usage(match runs.len() {
            0 => format!(
                "--gate: the baseline has no metric {name} (`firn kernels compare --all --format json` \
                 lists them)"
            ),
            _ => format!(
                "--gate: several runs have {name}: choose one with --of: {}",
                runs.join(", ")
            ),
        }));
    }
    Ok(())
}

/// A gate on times under TCG would bisect the emulator.
fn check_evidence(gates: &[Gate], before: &Matrix, of: Option<&str>) -> Result<(), Failure> {
    for name in gates.iter().flat_map(Gate::metrics) {
        if row(before, &name, of).is_some_and(|row| !row.evidence) {
            return Err(Failure::usage(format!(
                "--gate: {name} is a time or a rate, and the baseline was made under {}, where those are no \
                 evidence: use a count or a share, or measure under kvm or on bare metal",
                Accelerator::Tcg.name()
            )));
        }
    }
    Ok(())
}

/// What the gates came to, and the exit code.
fn verdict(
    gates: &[Gate],
    before: &Matrix,
    after: &Matrix,
    of: Option<&str>,
) -> (Vec<String>, Exit) {
    let mut lines = Vec::new();
    let mut exit = Exit::Done;
    for gate in gates {
        let value = |side: Side, name: &str| {
            let matrix = if side == Side::Before { before } else { after };
            row(matrix, name, of)?.cells.first()?.median
        };
        let unit =
            gate.metrics().first().and_then(|name| row(before, name, of)).map(|row| row.unit);
        let show = |x: f64| unit.unwrap_or(Unit::Plain).show(x);
        match gate.judge(value) {
            Verdict::Judged { left, right, holds } => {
                let word = if holds { "holds" } else { "FAILS" };
                lines.push(format!(
                    "{}: {word} ({} against {})",
                    gate.text(),
                    show(left),
                    show(right)
                ));
                if !holds {
                    // Bad, whatever the gates that cannot be judged would say.
                    exit = Exit::GateFailed;
                }
            }
            Verdict::NotMeasured { metric, .. } => {
                lines.push(format!("{}: not judged: {metric} was not measured", gate.text()));
                if exit == Exit::Done {
                    exit = Exit::Untestable;
                }
            }
        }
    }
    (lines, exit)
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::numbers;
    use super::*;

    fn judge(expression: &str) -> (Vec<String>, Exit) {
        judge_all(&[expression])
    }

    fn judge_all(expressions: &[&str]) -> (Vec<String>, Exit) {
        let set = numbers();
        let before = Matrix::of(&only(&set, "6.1.0-50"), None).unwrap();
        let after = Matrix::of(&only(&set, "6.12.107+deb13"), None).unwrap();
        let gates: Vec<_> = expressions.iter().map(|text| Gate::parse(text).unwrap()).collect();
        verdict(&gates, &before, &after, None)
    }

    #[test]
    fn a_gate_is_good_bad_or_not_to_be_judged() {
        assert_eq!(judge("locks.read < 0.5*base").1, Exit::Done);
        let (lines, exit) = judge("locks.read > base");
        assert_eq!(exit, Exit::GateFailed);
        assert!(lines[0].contains("FAILS (13 against 1,003)"), "{lines:?}");
        assert_eq!(judge("locks.write < 3").1, Exit::Untestable);
    }

    #[test]
    fn one_gate_that_fails_is_enough_and_all_must_be_judged_to_hold() {
        let (holds, fails, unknown) =
            ("locks.read < 0.5*base", "locks.read > base", "locks.write < 3");
        for order in [[holds, fails, unknown], [unknown, fails, holds]] {
            assert_eq!(judge_all(&order).1, Exit::GateFailed);
        }
        for order in [[holds, unknown], [unknown, holds]] {
            assert_eq!(judge_all(&order).1, Exit::Untestable);
        }
    }

    #[test]
    fn a_command_line_for_the_gate_is_told_from_others() {
        let asked = |line: &str| is_asked_for(line.split(' ').map(str::to_owned));
        for line in ["kernels gate --bogus", "kernels --cache gate gate", "kernels --cache=x gate"]
        {
            assert!(asked(line), "{line}");
        }
        for line in
            ["kernels run --out gate", "kernels --cache gate list", "census gate", "kernels"]
        {
            assert!(!asked(line), "{line}");
        }
    }

    #[test]
    fn failures_never_look_like_a_bad_commit() {
        for (failure, code) in [
            (Failure::usage("x"), 128),
            (ends_bisection(Failure::missing("x")), 128),
            (Failure::missing("x"), 125),
            (Failure::gate("x"), 125),
        ] {
            assert_eq!(for_bisect(failure).exit.code(), code);
        }
    }

    #[test]
    fn names_and_times_are_checked_against_the_baseline() {
        let set = numbers();
        assert!(baseline_label(&set, None).unwrap_err().message.contains("--base"));
        assert_eq!(baseline_label(&set, Some("6.12")).unwrap(), "6.12.107+deb13");
        let before = Matrix::of(&only(&set, "6.1.0-50"), None).unwrap();
        let gate = |text: &str| [Gate::parse(text).unwrap()];
        assert!(check_names(&gate("locks.reed < 3"), &before, None).is_err());
        check_names(&gate("locks.read < 3"), &before, None).unwrap();
        let failure = check_evidence(&gate("wall_ns < base"), &before, None).unwrap_err();
        assert!(failure.message.contains("tcg"), "{failure}");
    }
}
