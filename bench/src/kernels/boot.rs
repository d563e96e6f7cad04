//! One boot: a kernel, a job, and what came of it.
//!
//! Three threads: one reads frames, one reads the console, and the caller waits for what they tell, for
//! deadlines, and for the user. A boot always ends with a [`Boot`], whatever happened to the guest, and
//! without a qemu.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::channel::{self, Frame};
use super::guest::{Ending, Hello, Job};
use super::initramfs::{Archive, JOB_PATH};
use super::qemu::{Machine, Running, Workplace};
use crate::exit::Failure;
use crate::progress::Stop;

/// How a boot ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// The command ran to its end, whatever its exit code.
    Ran {
        /// The command's exit code.
        code: i32,
    },
    /// A signal ended the command.
    Killed {
        /// The signal.
        signal: i32,
        /// The kernel had run out of memory.
        out_of_memory: bool,
    },
    /// The command took longer than it was given. The console's end has backtraces.
    CommandTimeout,
    /// The guest did not come up in the time it was given.
    BootTimeout,
    /// The guest came up, and then said nothing more, not even that the command took too long.
    Hang,
    /// The kernel panicked.
    Panic {
        /// The kernel's words.
        message: String,
    },
    /// The guest ended without a result.
    Ended {
        /// What is known of it.
        message: String,
    },
    /// What arrived was damaged.
    Damaged {
        /// How.
        message: String,
    },
    /// The user ended it.
    Interrupted,
}

impl Outcome {
    /// The exit code, if the command has one.
    pub fn code(&self) -> Option<i32> {
        match self {
            Outcome::Ran { code } => Some(*code),
            _ => None,
        }
    }

    /// In a few words.
    pub fn text(&self) -> String {
        match self {
            Outcome::Ran { code } => format!("exit {code}"),
            Outcome::Killed { signal, out_of_memory: false } => {
                format!("killed by signal {signal}")
            }
            Outcome::Killed { .. } => "killed: out of memory".to_owned(),
            Outcome::CommandTimeout => "the command took too long".to_owned(),
            Outcome::BootTimeout => "did not boot in time".to_owned(),
            Outcome::Hang => "the guest hangs".to_owned(),
            Outcome::Panic { message } => format!("kernel panic: {message}"),
            Outcome::Ended { message } => format!("the guest ended: {message}"),
            Outcome::Damaged { message } => format!("the result is damaged: {message}"),
            Outcome::Interrupted => "interrupted".to_owned(),
        }
    }
}

/// Everything that one boot gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Boot {
    /// How it ended.
    pub outcome: Outcome,
    /// What the guest said of itself.
    pub guest: Option<Hello>,
    /// Seconds of the host until the guest said hello.
    pub boot_s: Option<f64>,
    /// Seconds of the host in all.
    pub wall_s: f64,
    /// Milliseconds of the guest that the command took.
    pub command_ms: Option<u64>,
    /// The command's report.
    pub report: Option<Value>,
    /// What the command printed.
    pub stdout: String,
    /// What the command printed to standard error.
    pub stderr: String,
    /// Lines of the console in which the kernel complains: warnings, oopses, hung tasks.
    pub complaints: Vec<String>,
    /// The console's end, if the boot did not end well.
    pub console_tail: Vec<String>,
}

/// How long a guest may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until it says hello.
    pub boot: Duration,
    /// For the command.
    pub command: Duration,
}

/// After the guest's own time-out, this much for backtraces and for sending what there is.
const GRACE: Duration = Duration::from_secs(60);
/// How often the user's wish to stop is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Lines of the console that are kept, and that are shown when something went wrong.
const CONSOLE_LINES: usize = 4000;
const TAIL_LINES: usize = 60;
const MOST_COMPLAINTS: usize = 50;

/// What the kernel writes when something is wrong with it.
const COMPLAINTS: [&str; 12] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection fault",
    "kernel BUG at",
    "Kernel panic",
    "INFO: task",
    "rcu: INFO",
    "soft lockup",
    "possible circular locking",
    "Out of memory:",
    "KASAN:",
];

enum News {
    Frame(Frame),
    Damaged(String),
    /// qemu has ended.
    Closed,
}

/// What a boot needs that is the same for all boots.
#[derive(Debug)]
pub struct Booter<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The archive with the program ([`super::initramfs::base`]).
    pub base: &'a [u8],
    /// How long it may take.
    pub patience: Patience,
    /// Shows the console while it runs.
    pub show_console: bool,
    /// Leaves the folder with console, initramfs and qemu's command line behind.
    pub keep: bool,
    /// The user's wish to stop.
    pub stop: &'a Stop,
}

impl Booter<'_> {
    /// Boots `image` for `job`, with `files` (modules, another program) beside it. Returns the folder that
    /// was kept, too.
    ///
    /// # Errors
    /// Exit code 3 if the host cannot start a machine; what goes wrong in the guest is an [`Outcome`].
    pub fn boot(
        &self,
        image: &Path,
        job: &Job,
        files: &[(String, Vec<u8>)],
    ) -> Result<(Boot, Option<std::path::PathBuf>), Failure> {
        let place = Workplace::new(self.keep)?;
        let initrd = place.path().join("initramfs");
        let archive = self.archive(job, files).and_then(|bytes| std::fs::write(&initrd, bytes));
        archive.map_err(|e| {
            Failure::missing(format!("{}: cannot be written: {e}", initrd.display()))
        })?;
        let begin = Instant::now();
        let mut running = Running::start(self.machine, image, &initrd, &place)?;
        let clone = |stream: &UnixStream| {
            stream.try_clone().map_err(|e| Failure::missing(format!("a socket: {e}")))
        };
        let (console, results) = (clone(&running.console)?, clone(&running.results)?);
        let show = self.show_console;
        let lines = thread::spawn(move || read_console(console, show));
        let (tell, news) = channel();
        let frames = thread::spawn(move || read_frames(results, &tell));
        let mut boot = self.follow(&news, begin);
        running.end();
        // Both end with qemu.
        let _ = frames.join();
        let console = lines.join().unwrap_or_default();
        boot.wall_s = begin.elapsed().as_secs_f64();
        judge_console(&mut boot, &console);
        let kept = self.keep.then(|| {
            let _ = std::fs::write(place.path().join("console.log"), console.join("\n") + "\n");
            place.path().to_owned()
        });
        Ok((boot, kept))
    }

    fn archive(&self, job: &Job, files: &[(String, Vec<u8>)]) -> std::io::Result<Vec<u8>> {
        let mut archive = Archive::new(self.base.to_vec());
        for (path, bytes) in files {
            archive.program(path, bytes)?;
        }
        archive.file(JOB_PATH, &serde_json::to_vec(job).map_err(std::io::Error::other)?)?;
        archive.finish()
    }

    /// Takes what the guest sends until it is at its end, or its time is.
    fn follow(&self, news: &Receiver<News>, begin: Instant) -> Boot {
        let mut boot = Boot::nothing();
        let mut deadline = begin + self.patience.boot;
        boot.outcome = loop {
            if self.stop.requested() {
                break Outcome::Interrupted;
            }
            let frame = match news.recv_timeout(TICK) {
                Ok(News::Frame(frame)) => frame,
                Ok(News::Damaged(message)) => break Outcome::Damaged { message },
                Ok(News::Closed) | Err(RecvTimeoutError::Disconnected) => {
                    break Outcome::Ended { message: "without a result".to_owned() };
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => continue,
                Err(RecvTimeoutError::Timeout) => {
                    break match boot.guest {
                        None => Outcome::BootTimeout,
                        Some(_) => Outcome::Hang,
                    };
                }
            };
            let text = || String::from_utf8_lossy(&frame.bytes).into_owned();
            match frame.kind.as_str() {
                "hello" => {
                    boot.guest = serde_json::from_slice(&frame.bytes).ok();
                    boot.boot_s = Some(begin.elapsed().as_secs_f64());
                    deadline = Instant::now() + self.patience.command + GRACE;
                }
                "stdout" => boot.stdout = text(),
                "stderr" => boot.stderr = text(),
                "report" => match serde_json::from_slice(&frame.bytes) {
                    Ok(report) => boot.report = Some(report),
                    Err(e) => {
                        // A command that was ended in the middle of writing leaves half a report.
                        boot.stderr.push_str(&format!("\nfirn: the report is not JSON: {e}\n"));
                    }
                },
                "failure" => break Outcome::Ended { message: text() },
                "end" => match serde_json::from_slice::<Ending>(&frame.bytes) {
                    Ok(ending) => {
                        boot.command_ms = Some(ending.took_ms);
                        break ended(&ending);
                    }
                    Err(e) => break Outcome::Damaged { message: e.to_string() },
                },
                _ => {}
            }
        };
        boot
    }
}

impl Boot {
    /// Whether multi-threaded TCG, not the kernel, ended this: before qemu 8.1 it can execute an `int3` that the
    /// kernel has already taken away (see `guest/anchors.rs`), and the kernel panics over the trap.
    pub fn emulators_fault(&self, accelerator: super::qemu::Accelerator) -> bool {
        accelerator == super::qemu::Accelerator::Tcg
            && matches!(self.outcome, Outcome::Panic { .. })
            && self.complaints.iter().any(|line| line.contains("int3: 0000"))
    }

    /// For a report that was made without a boot of ours.
    pub fn of_report(report: Value) -> Boot {
        Boot { outcome: Outcome::Ran { code: 0 }, report: Some(report), ..Boot::nothing() }
    }

    fn nothing() -> Boot {
        Boot {
            outcome: Outcome::BootTimeout,
            guest: None,
            boot_s: None,
            wall_s: 0.0,
            command_ms: None,
            report: None,
            stdout: String::new(),
            stderr: String::new(),
            complaints: Vec::new(),
            console_tail: Vec::new(),
        }
    }
}

fn ended(ending: &Ending) -> Outcome {
    match (ending.timed_out, ending.code, ending.signal) {
        (true, ..) => Outcome::CommandTimeout,
        (_, Some(code), _) => Outcome::Ran { code },
        (_, None, signal) => Outcome::Killed { signal: signal.unwrap_or(0), out_of_memory: false },
    }
}

/// Adds what the console tells: complaints, a panic instead of a silent end, a lack of memory.
fn judge_console(boot: &mut Boot, console: &[String]) {
    let complaint = |line: &&String| COMPLAINTS.iter().any(|what| line.contains(what));
    boot.complaints = console.iter().filter(complaint).take(MOST_COMPLAINTS).cloned().collect();
    let panic = console.iter().find(|line| line.contains("Kernel panic"));
    let out_of_memory = console.iter().any(|line| line.contains("Out of memory:"));
    boot.outcome = match (boot.outcome.clone(), panic) {
        (Outcome::Killed { signal, .. }, _) => Outcome::Killed { signal, out_of_memory },
        (Outcome::Ended { .. } | Outcome::Hang | Outcome::BootTimeout, Some(line)) => {
            let message = line.split("Kernel panic").nth(1).unwrap_or("").trim_start_matches(" - ");
            Outcome::Panic { message: message.trim_start_matches("not syncing: ").to_owned() }
        }
        (outcome, _) => outcome,
    };
    if !matches!(boot.outcome, Outcome::Ran { .. } | Outcome::Interrupted) {
        let from = console.len().saturating_sub(TAIL_LINES);
        boot.console_tail = console[from..].to_vec();
    }
}

/// Reads frames to the end, and answers each. A damaged one is asked for again; only if nothing whole comes
/// after it is it told.
fn read_frames(stream: UnixStream, tell: &Sender<News>) {
    let Ok(mut answers) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    let mut damage = None;
    loop {
        match channel::receive(&mut reader) {
            Ok(Some(frame)) => {
                damage = None;
                let _ = answers.write_all(&[channel::TAKEN]);
                if tell.send(News::Frame(frame)).is_err() {
                    return;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                damage = Some(e.to_string());
                let _ = answers.write_all(&[channel::AGAIN]);
            }
            Ok(None) | Err(_) => {
                let _ = tell.send(damage.map_or(News::Closed, News::Damaged));
                return;
            }
        }
    }
}

/// Reads the console to its end; keeps the last lines.
fn read_console(mut stream: UnixStream, show: bool) -> Vec<String> {
    let mut lines = std::collections::VecDeque::new();
    let mut open = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        if show {
            let _ = std::io::stderr().write_all(&piece[..n]);
        }
        for &byte in &piece[..n] {
            match byte {
                b'\n' => {
                    lines.push_back(clean(&open));
                    open.clear();
                    if lines.len() > CONSOLE_LINES {
                        lines.pop_front();
                    }
                }
                _ => open.push(byte),
            }
        }
    }
    if !open.is_empty() {
        lines.push_back(clean(&open));
    }
    lines.into()
}

/// A line without what moves a terminal's cursor.
fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            // An escape sequence ends with a letter.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() || c == '\t' {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(outcome: Outcome, console: &[&str]) -> Boot {
        let mut boot = Boot { outcome, ..Boot::nothing() };
        let lines: Vec<_> = console.iter().map(|l| (*l).to_owned()).collect();
        judge_console(&mut boot, &lines);
        boot
    }

    #[test]
    fn a_panic_is_told_from_a_silent_end() {
        let ended = || Outcome::Ended { message: "without a result".to_owned() };
        let line = "[    5.1] Kernel panic - not syncing: Attempted to kill init!";
        let boot = judged(ended(), &["[    5.0] something", line]);
        let message = "Attempted to kill init!".to_owned();
        assert_eq!(boot.outcome, Outcome::Panic { message });
        assert_eq!(boot.console_tail.len(), 2);
        assert_eq!(boot.complaints, [line]);
        assert_eq!(judged(ended(), &["x"]).outcome, ended());
    }

    #[test]
    fn the_emulator_s_fault_is_one_trap_under_tcg_only() {
        use super::super::qemu::Accelerator::{Kvm, Tcg};
        let ended = || Outcome::Ended { message: "without a result".to_owned() };
        let panic = "[    9.2] Kernel panic - not syncing: Fatal exception in interrupt";
        let trap = judged(ended(), &["[    9.2] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI", panic]);
        assert!(trap.emulators_fault(Tcg) && !trap.emulators_fault(Kvm));
        assert!(!judged(ended(), &["[ 9.2] Oops: 0000 [#1]", panic]).emulators_fault(Tcg));
    }

    #[test]
    fn a_lack_of_memory_is_told_from_another_death() {
        let killed = |out_of_memory| Outcome::Killed { signal: 9, out_of_memory };
        let line = "[   20.1] Out of memory: Killed process 55 (firn)";
        assert_eq!(judged(killed(false), &[line]).outcome, killed(true));
        assert_eq!(judged(killed(false), &[]).outcome, killed(false));
    }

    #[test]
    fn a_run_that_ended_well_keeps_its_complaints_and_not_its_console() {
        let boot = judged(Outcome::Ran { code: 0 }, &["WARNING: CPU: 0 PID: 1 at mm/x.c", "fine"]);
        assert_eq!((boot.complaints.len(), boot.console_tail.len()), (1, 0));
    }

    #[test]
    fn a_damaged_frame_is_asked_for_again_and_told_only_if_nothing_follows() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let (tell, news) = channel();
        let reader = thread::spawn(move || read_frames(ours, &tell));
        let mut wire = Vec::new();
        channel::send(&mut wire, "report", b"{}").unwrap();
        let last = wire.len() - 1;
        wire[last] ^= 1;
        let mut answer = [0];
        for (flip, expected) in [(0, channel::AGAIN), (1, channel::TAKEN), (1, channel::AGAIN)] {
            wire[last] ^= flip;
            guest.write_all(&wire).unwrap();
            guest.read_exact(&mut answer).unwrap();
            assert_eq!(answer[0], expected);
        }
        drop(guest);
        assert!(matches!(news.recv(), Ok(News::Frame(frame)) if frame.bytes == b"{}"));
        assert!(matches!(news.recv(), Ok(News::Damaged(_))));
        reader.join().unwrap();
    }

    #[test]
    fn escape_sequences_of_firmware_are_taken_out() {
        assert_eq!(clean(b"\x1bc\x1b[?7l\x1b[2J[0.0] Linux\r"), "[0.0] Linux");
    }
}
