//! The part of `firn kernels` that runs inside a guest: `firn guest-init`, the first and only program.
//!
//! It mounts what a command needs, makes the ground equal (the same sysctls and huge-page mode on every
//! kernel), says hello, runs the command, sends everything back, and ends the machine. Whatever goes
//! wrong is told on the console, of which the host keeps the end.

mod anchors;
mod child;
mod setup;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use serde::{Deserialize, Serialize};

use super::channel;
use super::initramfs::JOB_PATH;
use crate::exit::{Exit, Failure};

/// The port that results leave by.
const PORT: &str = "/dev/ttyS1";
/// Where the command writes its report.
pub const REPORT_PATH: &str = "/tmp/report.json";

/// What a guest is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The program, and its arguments.
    pub command: Vec<String>,
    /// Modules to load, in this order, as paths in the guest.
    pub modules: Vec<String>,
    /// The command is ended after this many seconds.
    pub timeout_s: u64,
    /// What the command prints also goes to the console.
    pub to_console: bool,
}

/// What a guest says of itself before it runs the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The kernel's release.
    pub release: String,
    /// The kernel's version line.
    pub version: String,
    /// Its command line.
    pub command_line: String,
    /// Processors.
    pub cpus: usize,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// What was set, and what was found, by name: what reports compare between kernels.
    pub conditions: BTreeMap<String, String>,
    /// Seconds from the kernel's start to now, on the guest's clock.
    pub uptime_s: f64,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// It took too long and was ended.
    pub timed_out: bool,
    /// Milliseconds that it took, on the guest's clock.
    pub took_ms: u64,
}

/// Runs as the first program of a guest; ends the machine.
///
/// # Errors
/// Exit code 2 if this is not the first program of a machine.
pub fn init() -> Result<Exit, Failure> {
    if std::process::id() != 1 {
        return Err(Failure::usage(
            "guest-init is what `firn kernels run` starts inside a guest; it does nothing elsewhere",
        ));
    }
    if let Err(failure) = job() {
        // To the console, which is all there is when the port does not work.
        eprintln!("firn: guest: {failure}");
    }
    nix::unistd::sync();
    // The host has the machine end instead of starting again.
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(errno) => Err(Failure::missing(format!("the guest cannot be ended: {errno}"))),
    }
}

fn job() -> Result<(), Failure> {
    setup::mounts()?;
    let text = std::fs::read(JOB_PATH).map_err(|e| trouble(JOB_PATH, &e))?;
    let job: Job = serde_json::from_slice(&text).map_err(|e| trouble(JOB_PATH, &e))?;
    job.modules.iter().try_for_each(|path| setup::module(path))?;
    let mut port = port()?;
    let conditions = setup::conditions();
    let _anchors = anchors::drop_anchors();
    send(&mut port, "hello", &json(&setup::hello(conditions))?)?;
    let patience = Duration::from_secs(job.timeout_s);
    match child::run(&job.command, patience, job.to_console) {
        Ok(done) => {
            send(&mut port, "stdout", &done.stdout)?;
            send(&mut port, "stderr", &done.stderr)?;
            // A command that is killed leaves an empty one.
            if let Some(report) = std::fs::read(REPORT_PATH).ok().filter(|r| !r.is_empty()) {
                send(&mut port, "report", &report)?;
            }
            send(&mut port, "end", &json(&done.ending)?)?;
        }
        Err(error) => {
            let what = format!("{}: {error}", job.command.join(" "));
            send(&mut port, "failure", what.as_bytes())?;
        }
    }
    Ok(())
}

fn port() -> Result<File, Failure> {
    use nix::sys::termios;
    let port =
        OpenOptions::new().read(true).write(true).open(PORT).map_err(|e| trouble(PORT, &e))?;
    let mut modes = termios::tcgetattr(&port).map_err(|e| trouble(PORT, &e))?;
    termios::cfmakeraw(&mut modes);
    termios::tcsetattr(&port, termios::SetArg::TCSANOW, &modes).map_err(|e| trouble(PORT, &e))?;
    Ok(port)
}

/// Sends a frame, again and again until the host has it.
fn send(port: &mut File, kind: &str, bytes: &[u8]) -> Result<(), Failure> {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        channel::send(&*port, kind, bytes).map_err(|e| trouble(PORT, &e))?;
        if answer(port)? == Some(channel::TAKEN) {
            return Ok(());
        }
    }
    Err(trouble(PORT, &format!("the host did not take the frame {kind}, sent {TRIES} times")))
}

/// The host's answer to a frame; nothing if it does not come, because bytes were lost and the host waits for
/// them.
fn answer(port: &mut File) -> Result<Option<u8>, Failure> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    const PATIENCE_MS: u16 = 20_000;
    nix::sys::termios::tcdrain(&*port).map_err(|e| trouble(PORT, &e))?;
    let mut waiting = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waiting, PollTimeout::from(PATIENCE_MS)).map_err(|e| trouble(PORT, &e))? == 0 {
        return Ok(None);
    }
    let mut byte = [0];
    port.read_exact(&mut byte).map_err(|e| trouble(PORT, &e))?;
    Ok(Some(byte[0]))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|e| trouble("JSON", &e))
}

fn trouble(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::missing(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_nothing_outside_a_guest() {
        assert_eq!(init().unwrap_err().exit, Exit::Usage);
    }
}
