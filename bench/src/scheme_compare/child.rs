//! Running one process to its end, or until its time is over.

use crate::exit::Failure;
use std::fs::File;
use std::io::{self, Read};
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
}

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

/// Runs a process with `input` as its standard input.
///
/// # Errors
/// If it cannot be started.
pub fn run(mut command: Command, input: Option<&Path>, timeout: Duration) -> Result<End, Failure> {
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
    if end.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
        child.kill().map_err(cannot)?;
        child.wait().map_err(cannot)?;
        let _ = (output.join(), errors.join());
        return Ok(End::TimedOut);
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
    let line = marked.or_else(|| errors.lines().find(telling)).or(output.lines().last());
    line.unwrap_or("it ended without a word").trim().chars().take(200).collect()
}
