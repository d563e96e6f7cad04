//! The command of a guest: started, watched, and its output kept.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Ending;

/// Most that is kept of each output: its end.
const KEPT: usize = 4 << 20;

/// What a command left behind.
pub(super) struct Done {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub ending: Ending,
}

/// Runs the command. One that takes longer than `patience` is ended, after the kernel has been asked to
/// write to the console what all processors and all blocked threads are doing.
pub(super) fn run(command: &[String], patience: Duration, to_console: bool) -> io::Result<Done> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::other("the job has no command"))?;
    let begin = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .env("HOME", "/tmp")
        .env("TMPDIR", "/tmp")
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = Pid::from_raw(child.id() as i32);
    let keep = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || pipe.map(|pipe| tail(pipe, to_console)).unwrap_or_default())
    };
    let stdout = keep(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = keep(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let (ended, watch) = channel::<()>();
    let watcher = thread::spawn(move || {
        if watch.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
            return false;
        }
        // Backtraces of all processors, then of all blocked threads: the reason for the hang.
        for key in ["l", "w"] {
            let _ = fs::write("/proc/sysrq-trigger", key);
        }
        let _ = kill(pid, Signal::SIGKILL);
        true
    });
    let status = child.wait()?;
    drop(ended);
    let timed_out = watcher.join().unwrap_or(false);
    Ok(Done {
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
        ending: Ending {
            code: status.code(),
            signal: status.signal(),
            timed_out,
            took_ms: begin.elapsed().as_millis() as u64,
        },
    })
}

/// Reads to the end; keeps the last part.
fn tail(mut pipe: impl Read, to_console: bool) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = [0; 8192];
    while let Ok(n @ 1..) = pipe.read(&mut piece) {
        if to_console {
            let _ = io::stdout().write_all(&piece[..n]);
        }
        kept.extend_from_slice(&piece[..n]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    kept.drain(..kept.len().saturating_sub(KEPT));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str, patience: Duration) -> Done {
        run(&["/bin/sh", "-c", text].map(str::to_owned), patience, false).unwrap()
    }

    #[test]
    fn output_exit_code_and_signal_come_back() {
        let done = shell("echo out; echo err >&2; exit 3", Duration::from_secs(60));
        assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!((done.ending.code, done.ending.timed_out), (Some(3), false));
        let done = shell("kill -9 $$", Duration::from_secs(60));
        assert_eq!((done.ending.code, done.ending.signal), (None, Some(9)));
    }

    #[test]
    fn of_much_output_the_end_is_kept() {
        let done = shell("yes 0123456 | head -c 20000000; echo; echo end", Duration::from_secs(60));
        assert_eq!(done.stdout.len(), KEPT);
        assert!(done.stdout.ends_with(b"\nend\n"));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(run(&["/no/such/program".to_owned()], Duration::from_secs(1), false).is_err());
        assert!(run(&[], Duration::from_secs(1), false).is_err());
    }
}
