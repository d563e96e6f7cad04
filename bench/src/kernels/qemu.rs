//! qemu: its command line, and a process of it that does not outlive us.
//!
//! Two serial ports, connected to sockets that exist before qemu starts, so that nothing is polled and
//! nothing is lost: the first is the console, the second carries results. The process has a group of
//! its own (a Ctrl-C reaches only us, and we end it), and asks the kernel to be killed when we die: by
//! way of [`guard`], a program of ours that asks and then becomes qemu.

use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// The program.
const QEMU: &str = "qemu-system-x86_64";

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// A translator: slower by a factor that differs from instruction to instruction, so that times
    /// are no evidence.
    Tcg,
}

impl Accelerator {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// The machine that every kernel gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What executes instructions.
    pub accelerator: Accelerator,
    /// Virtual processors.
    pub vcpus: usize,
    /// Memory, MiB.
    pub memory_mib: usize,
    /// The kernel's preemption model, as `preempt=` takes it; kernels that do not know the parameter keep
    /// their own.
    pub preempt: String,
    /// Mitigations of the processor's flaws, as `mitigations=` takes it.
    pub mitigations: String,
    /// More of the kernel's command line.
    pub append: String,
}

impl Machine {
    /// The kernel's command line.
    pub fn command_line(&self) -> String {
        let mut line = format!(
            // The console; the program; a panic ends the machine; warnings are shown; randomness at once;
            // statistics of blocked time, from the beginning because switching them on rewrites code.
            "console=ttyS0,115200 rdinit={} panic=-1 loglevel=5 random.trust_cpu=on schedstats=enable \
             preempt={} mitigations={}",
            super::initramfs::PROGRAM_PATH,
            self.preempt,
            self.mitigations
        );
        if self.accelerator == Accelerator::Tcg {
            // A busy host stops the guest while it measures the speed of its cycle counter, and its clock is
            // wrong from then on; or it becomes suspicious later, and rewrites code in the middle of a run.
            // The event timer is right whatever happens.
            line.push_str(" clocksource=hpet tsc=unstable no_timer_check");
        }
        if !self.append.is_empty() {
            line.push(' ');
            line.push_str(&self.append);
        }
        // What follows is for the program.
        line + " -- guest-init"
    }

    fn arguments(
        &self,
        image: &Path,
        initrd: &Path,
        console: &Path,
        results: &Path,
    ) -> Vec<String> {
        let (accelerator, cpu) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Tcg => ("tcg,thread=multi", "max"),
        };
        let path = |p: &Path| p.display().to_string();
        // A comma in a path would end an option's value; doubled, it stands for itself.
        let socket =
            |id: &str, p: &Path| format!("socket,id={id},path={}", path(p).replace(',', ",,"));
        let mut arguments: Vec<String> =
            ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
                .map(String::from)
                .into();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("-machine", "q35".to_owned());
        add("-accel", accelerator.to_owned());
        add("-cpu", cpu.to_owned());
        add("-smp", self.vcpus.to_string());
        add("-m", self.memory_mib.to_string());
        add("-chardev", socket("console", console));
        add("-serial", "chardev:console".to_owned());
        add("-chardev", socket("results", results));
        add("-serial", "chardev:results".to_owned());
        add("-kernel", path(image));
        add("-initrd", path(initrd));
        add("-append", self.command_line());
        arguments
    }
}

/// The version of qemu.
///
/// # Errors
/// Exit code 3 with the package's name if there is no qemu.
pub fn version() -> Result<String, Failure> {
    let output = Command::new(QEMU).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|_| {
        Failure::missing(format!(
            "{QEMU} is not installed: `apt-get install --no-install-recommends qemu-system-x86` (Fedora: \
             `dnf install qemu-system-x86-core`)"
        ))
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().next().unwrap_or("").split_whitespace();
    let version = words.skip_while(|word| *word != "version").nth(1).unwrap_or("unknown");
    Ok(version.to_owned())
}

/// A folder that goes away with its owner, unless it is kept.
#[derive(Debug)]
pub struct Workplace {
    path: PathBuf,
    keep: bool,
}

impl Workplace {
    /// A new folder for this process alone.
    ///
    /// # Errors
    /// Exit code 3 if it cannot be made.
    pub fn new(keep: bool) -> Result<Workplace, Failure> {
        // Relaxed: only the numbers' distinctness matters.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("firn-guest-{}-{number}", std::process::id()));
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| {
            Failure::missing(format!(
                "{}: cannot be made: {e} (set TMPDIR to a folder that can be written)",
                path.display()
            ))
        })?;
        Ok(Workplace { path, keep })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A running qemu; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The guest's console.
    pub console: UnixStream,
    /// The guest's results.
    pub results: UnixStream,
}

impl Running {
    /// Starts a machine. `place` holds its sockets.
    ///
    /// # Errors
    /// Exit code 3 if qemu cannot be started, with what it says.
    pub fn start(
        machine: &Machine,
        image: &Path,
        initrd: &Path,
        place: &Workplace,
    ) -> Result<Running, Failure> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Failure::missing(format!("a virtual machine cannot be started: {what}: {e}"))
        };
        let (console, results) = (place.path().join("console"), place.path().join("results"));
        let listen = |path: &Path| UnixListener::bind(path).map_err(|e| failed("socket", &e));
        let (console_at, results_at) = (listen(&console)?, listen(&results)?);
        let this = std::env::current_exe().map_err(|e| failed("this program", &e))?;
        let said = place.path().join("qemu.log");
        let log = std::fs::File::create(&said).map_err(|e| failed("log", &e))?;
        let arguments = machine.arguments(image, initrd, &console, &results);
        if place.keep {
            let quoted: Vec<_> = arguments.iter().map(|a| format!("'{a}'")).collect();
            let line = format!("{QEMU} {}\n", quoted.join(" "));
            let _ = std::fs::write(place.path().join("command"), line);
        }
        let mut child = Command::new(this)
            .args(["guest-guard", &std::process::id().to_string(), QEMU])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|e| failed(QEMU, &e))?;
        let (console, results) = match connected(&mut child, &console_at, &results_at) {
            Ok(both) => both,
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                let text = std::fs::read_to_string(&said).unwrap_or_default();
                let text = if text.trim().is_empty() { e.to_string() } else { text };
                return Err(failed(QEMU, &text.trim().replace('\n', "; ")));
            }
        };
        Ok(Running { child, console, results })
    }

    /// Ends it, and waits until it has ended.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until qemu has connected to both sockets, which it does before anything else, or has ended.
fn connected(
    child: &mut Child,
    console: &UnixListener,
    results: &UnixListener,
) -> std::io::Result<(UnixStream, UnixStream)> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut accept = |listener: &UnixListener| loop {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::from(100u16)) {
            Ok(1..) => return listener.accept().map(|(stream, _)| stream),
            // A signal: whoever waits for the guest looks at what it meant.
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Err(std::io::Error::other(format!("it ended at once, with {status}")));
        }
    };
    Ok((accept(console)?, accept(results)?))
}

/// `firn guest-guard PARENT PROGRAM ARGUMENTS…`: becomes the program, which the kernel then kills when
/// its parent dies, however that dies.
///
/// # Errors
/// Exit code 3 if the program cannot be started; otherwise this does not return.
pub fn guard(parent: i32, command: &[String]) -> Result<Exit, Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::missing(format!("guest-guard: {what}"));
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|e| failed(&e))?;
    // It may have died before the kernel was asked.
    if nix::unistd::getppid().as_raw() != parent {
        return Err(failed(&"its parent is gone"));
    }
    let (program, arguments) = command.split_first().ok_or_else(|| failed(&"no program"))?;
    Err(failed(&Command::new(program).args(arguments).exec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn machine() -> Machine {
        Machine {
            accelerator: Accelerator::Tcg,
            vcpus: 2,
            memory_mib: 1024,
            preempt: "full".to_owned(),
            mitigations: "auto".to_owned(),
            append: String::new(),
        }
    }

    #[test]
    fn the_command_line_ends_with_what_is_for_the_program() {
        let line = machine().command_line();
        assert!(line.ends_with(" -- guest-init") && line.contains("preempt=full"), "{line}");
        let more = Machine { append: "slub_debug=P".to_owned(), ..machine() }.command_line();
        assert!(more.contains(" slub_debug=P -- "), "{more}");
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_an_option() {
        let here = Path::new("/tmp/a,b");
        let all = machine().arguments(here, here, here, here);
        assert!(all.contains(&"socket,id=console,path=/tmp/a,,b".to_owned()), "{all:?}");
    }
}
