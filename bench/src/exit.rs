//! Exit codes and the one-line failures that carry them: the contract that scripts rely on.
//!
//! Whoever finds out that something is wrong decides the code; `main` only prints and exits.

use std::fmt;
use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what was asked.
    Done,
    /// 1: it ran, but a check or a gate failed.
    GateFailed,
    /// 2: bad usage: an unknown name, a value out of range, options that exclude each other, a
    /// heap smaller than what must live in it.
    Usage,
    /// 3: the machine lacks something, which the message names with its remedy.
    Missing,
    /// 130: interrupted; the report, marked partial, was still written.
    Interrupted,
    /// 125, of `kernels gate` only: this commit cannot be judged; `git bisect run` skips it.
    Untestable,
    /// 128, of `kernels gate` only: bad usage, or the machine lacks something; `git bisect run` ends, and takes no
    /// commit for bad.
    EndsBisection,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::GateFailed => 1,
            Exit::Usage => 2,
            Exit::Missing => 3,
            Exit::Interrupted => 130,
            Exit::Untestable => 125,
            Exit::EndsBisection => 128,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why the program stops early, and with which code. The message says what was wrong, which value
/// it had, and what to do about it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The code to exit with.
    pub exit: Exit,
    /// What to tell the user, without a trailing full stop or newline.
    pub message: String,
}

impl Failure {
    /// The user asked for something impossible (exit code 2).
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, message: message.into() }
    }

    /// A check failed (exit code 1).
    pub fn gate(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::GateFailed, message: message.into() }
    }

    /// The machine lacks something (exit code 3).
    pub fn missing(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Missing, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_codes_do_not_change() {
        let codes = [Exit::Done, Exit::GateFailed, Exit::Usage, Exit::Missing].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }
}
