//! Running one process to its end, until its time is over, or until the user wants no more.

use crate::exit::Failure;
use crate::progress::Stop;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How a process ended.
pub enum End {
    /// By itself.
    Exited {
        /// With exit code 0.
        success: bool,
        /// After so many seconds.
        seconds: f64,
        /// What it wrote to standard output.
        output: String,
        /// What it wrote to standard error.
        errors: String,
    },
    /// It was killed when its time was over.
    TimedOut,
    /// It was killed because the user asked for the end of the comparison.
    Interrupted,
}

/// How soon a process ends after the user asked for it.
const POLL: Duration = Duration::from_millis(20);

/// Bytes of output that are kept.
const KEPT: usize = 1 << 20;

fn drain(mut pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let mut part = [0; 8192];
    while let Ok(count @ 1..) = pipe.read(&mut part) {
        let room = KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(&part[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Runs a process with `input` as its standard input, until it ends, its time is over or the user wants no more. The
/// terminal's Ctrl-C does not reach it: what it says then would be taken for its own failure.
///
/// # Errors
/// If it cannot be started.
pub fn run(
    mut command: Command,
    input: Option<&Path>,
    timeout: Duration,
    stop: &Stop,
) -> Result<End, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let cannot = |why: io::Error| Failure::missing(format!("{name} could not be started: {why}"));
    let stdin = match input {
        Some(path) => Stdio::from(File::open(path).map_err(|why| {
            Failure::usage(format!("{} could not be opened: {why}", path.display()))
        })?),
        None => Stdio::null(),
    };
    let start = Instant::now();
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    let output = child.stdout.take().expect("piped");
    let errors = child.stderr.take().expect("piped");
    let (ended, end) = channel();
    let output = std::thread::spawn(move || {
        let text = drain(output);
        // The receiver is gone when the time was over.
        let _ = ended.send(());
        text
    });
    let errors = std::thread::spawn(move || drain(errors));
    // Standard output ends when the process does.
    let early = loop {
        let left = timeout.saturating_sub(start.elapsed());
        if end.recv_timeout(POLL.min(left)) != Err(RecvTimeoutError::Timeout) {
            break None;
        }
        if stop.requested() {
            break Some(End::Interrupted);
        }
        if left.is_zero() {
            break Some(End::TimedOut);
        }
    };
    if let Some(early) = early {
        child.kill().map_err(cannot)?;
        child.wait().map_err(cannot)?;
        let _ = (output.join(), errors.join());
        return Ok(early);
    }
    let status = child.wait().map_err(cannot)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(End::Exited {
        success: status.success(),
        seconds,
        output: output.join().unwrap_or_default(),
        errors: errors.join().unwrap_or_default(),
    })
}

/// The line that says best why a process failed.
pub fn complaint(errors: &str, output: &str) -> String {
    let telling = |line: &&str| {
        !line.trim().is_empty() && !line.starts_with("WARNING") && !line.starts_with(";;;")
    };
    let marked = output.lines().find(|line| line.contains("ERROR:"));
    // Guile says it below the calls that led there.
    let said = match errors.lines().any(|line| line == "Backtrace:") {
        true => errors.lines().rfind(telling),
        false => errors.lines().find(telling),
    };
    let line = marked.or(said).or(output.lines().last());
    line.unwrap_or("it ended without a word").trim().chars().take(200).collect()
}
