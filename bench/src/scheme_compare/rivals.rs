//! The systems that are compared, and how each runs a program.

use super::Options;
use super::child;
use crate::exit::Failure;
use crate::progress::Stop;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Which system it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This program.
    Firn,
    /// Chibi, a bytecode interpreter.
    Chibi,
    /// Guile's bytecode without its just-in-time compiler.
    GuileWithoutJit,
    /// Guile with it.
    Guile,
}

/// A system that is there.
#[derive(Debug, Clone)]
pub struct System {
    /// Which.
    pub kind: Kind,
    /// Its name in the report.
    pub name: &'static str,
    /// Its version, as it says itself.
    pub version: String,
    program: PathBuf,
    /// What comes before its program.
    pub arguments: Vec<String>,
    work: PathBuf,
}

/// A rival: its kind, its name, its program.
const RIVALS: [(Kind, &str, &str); 3] = [
    (Kind::Chibi, "chibi", "chibi-scheme"),
    (Kind::GuileWithoutJit, "guile, no JIT", "guile"),
    (Kind::Guile, "guile, JIT", "guile"),
];

/// What Guile's own `compile` command does, which a plain installation lacks.
const COMPILE: &str = "((@ (system base compile) compile-file) \
     (cadr (command-line)) #:output-file (caddr (command-line)))";

/// The systems of this machine, Firn first, and the names of those that are missing.
///
/// # Errors
/// If there is none to compare with.
pub fn find(options: &Options, work: &Path) -> Result<(Vec<System>, Vec<&'static str>), Failure> {
    let firn = std::env::current_exe()
        .map_err(|why| Failure::missing(format!("the path of firn is unknown: {why}")))?;
    let mut arguments = vec!["scheme".to_string()];
    if let Some(gc) = &options.gc {
        arguments.extend(["--gc".to_string(), gc.clone()]);
    }
    let mut systems = vec![System {
        kind: Kind::Firn,
        name: "firn",
        version: env!("CARGO_PKG_VERSION").into(),
        program: firn,
        arguments,
        work: work.into(),
    }];
    let mut missing = Vec::new();
    for (kind, name, program) in RIVALS {
        let flag = if kind == Kind::Chibi { "-V" } else { "--version" };
        let Ok(output) = Command::new(program).arg(flag).output() else {
            missing.push(name);
            continue;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.lines().next().unwrap_or("").chars().take(60).collect();
        systems.push(System {
            kind,
            name,
            version,
            program: program.into(),
            arguments: Vec::new(),
            work: work.into(),
        });
    }
    if systems.len() == 1 {
        return Err(Failure::missing(
            "there is no Scheme to compare with: install chibi-scheme, guile-3.0 or both",
        ));
    }
    Ok((systems, missing))
}

impl System {
    /// Where the compiled form of a program goes.
    fn compiled(&self, file: &Path) -> PathBuf {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        self.work.join(format!("{name}.go"))
    }

    /// Prepares a program outside the time that is measured.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn compile(&self, file: &Path, timeout: Duration, stop: &Stop) -> Result<(), String> {
        if !matches!(self.kind, Kind::Guile | Kind::GuileWithoutJit) {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.args(["--no-auto-compile", "--r7rs", "-c", COMPILE]);
        command.arg(file).arg(self.compiled(file));
        match child::run(command, None, timeout, stop) {
            Ok(child::End::Exited { success: true, .. }) => Ok(()),
            Ok(child::End::Exited { output, errors, .. }) => {
                Err(child::complaint(&errors, &output))
            }
            Ok(child::End::TimedOut) => Err("its compilation took too long".into()),
            Ok(child::End::Interrupted) => Err("interrupted".into()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// The command that runs a prepared program.
    pub fn command(&self, file: &Path, arguments: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        match self.kind {
            Kind::Firn | Kind::Chibi => {
                command.arg(file).args(arguments);
            }
            Kind::Guile | Kind::GuileWithoutJit => {
                let quoted = format!("(load-compiled {:?})", self.compiled(file).to_string_lossy());
                command.args(["--no-auto-compile", "--r7rs", "-c", &quoted]).args(arguments);
                if self.kind == Kind::GuileWithoutJit {
                    command.env("GUILE_JIT_THRESHOLD", "-1");
                }
            }
        }
        command
    }
}
