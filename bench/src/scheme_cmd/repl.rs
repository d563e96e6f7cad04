//! The prompt: history, editing over several lines, completion of names.
//!
//! The thread is attached to the heap only while it evaluates, so that nobody waits for a thread that waits for keys.

use super::{evaluate, report};
use crate::exit::Failure;
use firn_scheme::Interpreter;
use firn_scheme::syntax::complete::is_complete;
use firn_scheme::vm::load::Stopped;
use firn_scheme::vm::{Outcome, Vm};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the line editor asks us.
pub struct Names(Vec<Arc<str>>);

impl Helper for Names {}
impl Highlighter for Names {}
impl Hinter for Names {
    type Hint = String;
}

impl Validator for Names {
    /// A form that is not closed yet goes on in the next line.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Completer for Names {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..at];
        let ends_word = |c: char| c.is_whitespace() || "()\"';`,".contains(c);
        let start = before
            .rfind(ends_word)
            .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
        let word = &before[start..];
        let mut found: Vec<String> = self
            .0
            .iter()
            .filter(|name| !word.is_empty() && name.starts_with(word))
            .map(|name| name.to_string())
            .collect();
        found.sort_unstable();
        Ok((start, found))
    }
}

fn names(vm: &mut Vm<'_, '_>) -> Vec<Arc<str>> {
    let env = vm.interaction();
    vm.with_compiler(|compiler| compiler.names(env))
}

/// The line editor. It takes the signal of Ctrl-C for itself when it is made and never gives it back; so whoever wants
/// Ctrl-C for programs must take it afterwards.
pub type LineEditor = Editor<Names, rustyline::history::DefaultHistory>;

/// A line editor.
///
/// # Errors
/// If there is none to be had.
pub fn editor() -> Result<LineEditor, Failure> {
    Editor::new().map_err(|error| Failure::missing(format!("no prompt can be had here: {error}")))
}

/// Reads, evaluates, prints until the end of input; returns the exit code.
pub fn run(scheme: &Interpreter, mut editor: LineEditor) -> u8 {
    let history = std::env::var_os("HOME")
        .map(|home| std::path::Path::new(&home).join(".firn-scheme-history"));
    if let Some(history) = &history {
        // There is none the first time.
        let _ = editor.load_history(history);
    }
    let mut code = 0;
    loop {
        let known = scheme.with(names).unwrap_or_default();
        editor.set_helper(Some(Names(known)));
        match editor.readline("> ") {
            Ok(line) => {
                if line.trim().is_empty() {
                    continue;
                }
                let _ = editor.add_history_entry(&line);
                scheme.world().interrupted.store(false, Ordering::Relaxed);
                let done = scheme.with(|vm| evaluate(vm, &line, "prompt"));
                scheme.world().streams.flush_all();
                match done {
                    Ok(Ok(())) => {}
                    Ok(Err(Stopped::Outcome(Outcome::Quit(wanted)))) => {
                        code = wanted as u8;
                        break;
                    }
                    Ok(Err(stopped)) => {
                        report(&stopped);
                    }
                    Err(_) => {
                        report(&Stopped::Outcome(Outcome::OutOfMemory));
                    }
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(_) => break,
        }
    }
    if let Some(history) = &history {
        let _ = editor.save_history(history);
    }
    code
}
