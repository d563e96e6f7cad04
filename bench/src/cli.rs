//! The command line: what there is, and how everything that goes wrong reaches the user.
//!
//! Exit codes: 0 done, 1 a check or a gate failed, 2 bad usage, 3 the machine lacks something
//! (130 after an interruption, when a partial report was written). Bad usage gets one line on
//! standard error that begins with `firn: `.

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::census::{self, CensusArgs};
use crate::compare::{self, CompareArgs};
use crate::doctor::{self, DoctorArgs};
use crate::exit::{Exit, Failure};
use crate::kernels::options::KernelsArgs;
use crate::kernels::{self, gate, guest, qemu};
use crate::micro::{self, MicroArgs};
use crate::progress::{Progress, Stop};
use crate::report::{self, ReportArgs};
use crate::scenario::{self, options::ScenarioArgs};
use crate::scheme_cmd::{self, SchemeArgs};
use crate::selftest::{self, SelftestArgs};
use crate::stress::options::StressArgs;
use crate::stress::report_json::Sink;
use crate::stress::{report_json, report_text, run};
use crate::trace;

/// A managed heap that compacts while the program runs: try it, measure it, see what this machine
/// can do.
#[derive(Debug, Parser)]
#[command(name = "firn", version, after_help = EXIT_CODES, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 a check or gate failed, 2 bad usage, 3 the machine lacks
something (named, with the remedy), 130 interrupted (a partial report is given).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workload on real mutator threads while the collector compacts their heap, and report
    /// what it cost them
    #[command(after_help = EXIT_CODES)]
    Stress(Box<StressArgs>),
    /// Run situations that are hostile to mmap_lock, and say what they do to it and to mutators
    #[command(after_help = EXIT_CODES)]
    Scenario(Box<ScenarioArgs>),
    /// Measure the collector's parts as ratios against floors of the same run
    #[command(after_help = EXIT_CODES)]
    Micro(MicroArgs),
    /// Count how each memory operation takes the kernel's mmap_lock on this kernel
    #[command(after_help = EXIT_CODES)]
    Census(CensusArgs),
    /// Draw runs as one page for a browser, and as a timeline for Perfetto
    #[command(after_help = EXIT_CODES)]
    Report(ReportArgs),
    /// Say what is different between two groups of runs, and how sure that is
    #[command(after_help = EXIT_CODES)]
    Compare(CompareArgs),
    /// Run Scheme programs on the heap, or a prompt
    #[command(after_help = "The exit code is the program's; 1 after an error, 130 after Ctrl-C.")]
    Scheme(SchemeArgs),
    /// Say what this machine can do, and the remedy for each thing that is missing
    #[command(after_help = EXIT_CODES)]
    Doctor(DoctorArgs),
    /// Check the heap's correctness on this machine: every way to compact gives the same heap
    #[command(after_help = EXIT_CODES)]
    Selftest(SelftestArgs),
    /// Run one of these commands on many kernels, booted under qemu, and compare what they report
    Kernels(Box<KernelsArgs>),
    /// The first program of a guest; see `kernels`
    #[command(hide = true)]
    GuestInit,
    /// Becomes a program that does not outlive its parent; see `kernels`
    #[command(hide = true)]
    GuestGuard {
        /// The parent's process id
        parent: i32,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

/// Commands that write a report with `--json`: what a guest can run.
pub const REPORTING: [&str; 6] = ["stress", "scenario", "census", "doctor", "micro", "selftest"];

/// Checks the words of a command without doing it.
///
/// # Errors
/// Exit code 2, in one line.
pub fn check(words: &[String]) -> Result<(), Failure> {
    let words = std::iter::once("firn").chain(words.iter().map(String::as_str));
    match Cli::try_parse_from(words) {
        Ok(Cli { command: Some(Command::Stress(args)) }) => args.plan().map(drop),
        Ok(Cli { command: Some(Command::Scenario(args)) }) => args.plan().map(drop),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::usage(one_line(&error.render().to_string()))),
    }
}

/// Parses the arguments of the process, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    let done = match Cli::try_parse() {
        // A Scheme program has exit codes of its own.
        Ok(Cli { command: Some(Command::Scheme(args)) }) => {
            return scheme_cmd::run(&args).unwrap_or_else(|failure| {
                let _ = writeln!(std::io::stderr(), "firn: {failure}");
                failure.exit.into()
            });
        }
        Ok(cli) => dispatch(cli),
        Err(error) => parse_error(&error).map_err(|failure| {
            match gate::is_asked_for(std::env::args().skip(1)) {
                true => gate::ends_bisection(failure),
                false => failure,
            }
        }),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // Nothing is left to be done if standard error is closed too.
            let _ = writeln!(std::io::stderr(), "firn: {failure}");
            failure.exit.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        None => {
            print(&Cli::command().render_help().to_string());
            Ok(Exit::Done)
        }
        Some(Command::Stress(args)) => stress(&args),
        Some(Command::Scenario(args)) => scenario::run(&args, print),
        Some(Command::Micro(args)) => micro::run(&args, print),
        Some(Command::Census(args)) => census::run(&args, print),
        Some(Command::Report(args)) => report::run(&args, print),
        Some(Command::Compare(args)) => compare::run(&args, print),
        Some(Command::Doctor(args)) => doctor::run(&args, print),
        Some(Command::Selftest(args)) => selftest::run(&args, print),
        Some(Command::Kernels(args)) => kernels::run(&args, print),
        Some(Command::GuestInit) => guest::init(),
        Some(Command::GuestGuard { parent, command }) => qemu::guard(parent, &command),
        Some(Command::Scheme(_)) => unreachable!("run by `main`"),
    }
}

fn stress(args: &StressArgs) -> Result<Exit, Failure> {
    let plan = args.plan()?;
    args.show.check()?;
    let sink = plan.json.as_deref().map(Sink::open).transpose()?;
    let stop = Stop::new();
    stop.connect_signals();
    let progress = Progress::live(args.show.live);
    let report = run::run(&plan, &stop, &progress)?;
    drop(progress);
    if !matches!(sink, Some(Sink::Stdout)) {
        print(&report_text::text(&report));
    }
    if let Some(sink) = sink {
        sink.write(&report_json::value(&report)).map_err(|e| {
            Failure::missing(format!("--json: the report could not be written: {e}"))
        })?;
    }
    if let Some(path) = &args.show.trace {
        trace::write(path, &[&report.run])?;
    }
    Ok(match report.passed() {
        false => Exit::GateFailed,
        true if report.outcome.partial => Exit::Interrupted,
        true => Exit::Done,
    })
}

/// Writes to standard output. A reader that went away (`firn ... | head`) is no error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Help and version go to standard output; everything else becomes one line.
fn parse_error(error: &clap::Error) -> Result<Exit, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print(&error.render().to_string());
            Ok(Exit::Done)
        }
        _ => Err(Failure::usage(one_line(&error.render().to_string()))),
    }
}

/// What clap says over several lines, in one: without its label, and without the usage.
fn one_line(rendered: &str) -> String {
    let mut parts = Vec::new();
    for line in rendered.lines() {
        let line = line.trim();
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        if !line.is_empty() {
            parts.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    parts.join(" ") + " (see --help)"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> Failure {
        let error = Cli::try_parse_from(line.split_whitespace()).expect_err(line);
        parse_error(&error).expect_err(line)
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_usage_is_one_line_with_the_name_and_the_value() {
        for (line, parts) in [
            ("firn stress --workload lur", ["lur", "lru, binary-trees"]),
            ("firn stress --mutators many", ["many", "--mutators"]),
            ("firn stress --duration -3", ["-3", "--help"]),
            ("firn stress --duration soon", ["soon", "500ms"]),
            ("firn stress --mode open", ["open", "metered"]),
            ("firn stress --bakend stw", ["--bakend", "--backend"]),
            ("firn dance", ["dance", "--help"]),
        ] {
            let failure = refused(line);
            assert_eq!(failure.exit, Exit::Usage, "{line}");
            assert!(!failure.message.contains('\n'), "{line}: {failure}");
            for part in parts {
                assert!(failure.message.contains(part), "{line}: {part}: {failure}");
            }
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["firn --help", "firn stress --help", "firn --version"] {
            let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
            assert_eq!(parse_error(&error).unwrap(), Exit::Done, "{line}");
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        let mut command = Cli::command();
        let texts = [
            command.render_help().to_string(),
            command.find_subcommand_mut("stress").unwrap().render_help().to_string(),
        ];
        for line in texts.iter().flat_map(|t| t.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
