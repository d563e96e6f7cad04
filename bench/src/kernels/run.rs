//! `firn kernels run`: boots every kernel as often as was asked, and gathers what they report.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::boot::{Booter, Outcome, Patience};
use super::cache::Cache;
use super::debian::sha256;
use super::guest::{Job, REPORT_PATH};
use super::kernel::Kernel;
use super::plan;
use super::qemu::{self, Accelerator, Machine};
use super::set::{Conditions, Host, SCHEMA, Set, SetBoot, SetKernel, Shard};
use super::{accelerator, initramfs, modules, program};
use crate::exit::Failure;
use crate::measure::machine::MachineReport;
use crate::progress::{Progress, Stop};

/// Everything that `run` was asked for.
#[derive(Debug, Clone)]
pub struct Order {
    /// The kernels.
    pub kernels: Vec<Kernel>,
    /// Runs of each.
    pub runs: usize,
    /// What guests run: arguments of `firn`, or of `program`.
    pub command: Vec<String>,
    /// Another static program to run instead of `firn`.
    pub program: Option<PathBuf>,
    /// The static `firn`, if the user named one.
    pub guest: Option<PathBuf>,
    /// The accelerator, if the user chose one.
    pub accelerator: Option<Accelerator>,
    /// The machine; its accelerator is chosen later.
    pub machine: Machine,
    /// How long a boot may take, and the command; by default depending on the accelerator.
    pub boot_timeout: Option<Duration>,
    /// As above.
    pub timeout: Duration,
    /// Names of modules to load.
    pub modules: Vec<String>,
    /// The part of the matrix.
    pub shard: Option<Shard>,
    /// Where the set goes.
    pub out: Option<PathBuf>,
    /// Keep what each boot was made of.
    pub keep: bool,
    /// Show consoles.
    pub console: bool,
}

/// Until a guest says hello: a stock kernel takes 3 to 10 s under TCG on an idle host.
fn boot_patience(accelerator: Accelerator) -> Duration {
    match accelerator {
        Accelerator::Kvm => Duration::from_secs(30),
        Accelerator::Tcg => Duration::from_secs(120),
    }
}

/// How often a boot is repeated that the emulator ended; then it counts as the kernel's panic.
const REPETITIONS: usize = 3;

/// Where guests have a program that is not `firn`: under its own name, by which some tell what to do.
fn in_guest(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    format!("{}/{name}", initramfs::OTHER_PROGRAMS)
}

/// Carries an order out. The set holds what was done, also when the user ended it early.
///
/// # Errors
/// Exit code 3 if no guest can be started here.
pub fn run(
    order: &Order,
    cache: &Cache,
    stop: &Stop,
    progress: &Progress,
    tell: &dyn Fn(&str),
) -> Result<Set, Failure> {
    let version = qemu::version()?;
    let firn = program::find(order.guest.as_deref(), tell)?;
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|e| Failure::missing(format!("{}: cannot be read: {e}", path.display())))
    };
    let firn = read(&firn)?;
    let base = initramfs::base(&firn)
        .map_err(|e| Failure::missing(format!("the initramfs cannot be made: {e}")))?;
    let other = order.program.as_deref().map(read).transpose()?;
    let Some(first) = order.kernels.first() else {
        return Err(Failure::usage("no kernel: give --kernels, --image or --deb"));
    };
    let (accelerator, why) =
        accelerator::choose(cache, order.accelerator, &first.image, &base, stop, tell)?;
    let machine = Machine { accelerator, ..order.machine.clone() };
    let cells = plan::cells(order.kernels.len(), order.runs, order.shard);
    let host = MachineReport::probe();
    let mut set = Set {
        schema: SCHEMA.to_owned(),
        conditions: vec![Conditions {
            command: order.command.clone(),
            machine: Some(machine.clone()),
            accelerator_because: why,
            firn: env!("CARGO_PKG_VERSION").to_owned(),
            program_sha256: sha256(other.as_ref().unwrap_or(&firn)),
            host: Some(Host {
                kernel: host.kernel,
                cpu_model: host.cpu_model,
                cpus: host.cpus,
                qemu: Some(version),
            }),
        }],
        kernels: order.kernels.iter().map(SetKernel::of).collect(),
        runs: order.runs,
        shard: order.shard,
        missing: cells.len(),
        boots: Vec::new(),
    };
    let patience = Patience {
        boot: order.boot_timeout.unwrap_or(boot_patience(accelerator)),
        command: order.timeout,
    };
    let (keep, show_console) = (order.keep, order.console);
    let booter = Booter { machine: &machine, base: &base, patience, show_console, keep, stop };
    let begin = Instant::now();
    for (done, cell) in cells.iter().enumerate() {
        let kernel = &order.kernels[cell.kernel];
        progress.stage(&format!("{} run {}/{}", kernel.label, cell.run, order.runs));
        progress.share(done as f64 / cells.len() as f64);
        let (names, mut files) = modules::load(kernel, &order.modules)?;
        if let (Some(path), Some(bytes)) = (&order.program, &other) {
            files.push((in_guest(path), bytes.clone()));
        }
        let job = Job {
            command: command(order),
            modules: names,
            timeout_s: order.timeout.as_secs().max(1),
            to_console: order.console,
        };
        let mut repeated = Vec::new();
        let (boot, kept) = loop {
            let (boot, kept) = booter.boot(&kernel.image, &job, &files)?;
            if repeated.len() < REPETITIONS && boot.emulators_fault(accelerator) {
                progress.note(&format!(
                    "        {} run {}: a fault of the emulator ended it; once more",
                    kernel.label, cell.run
                ));
                repeated.push(boot);
                continue;
            }
            break (boot, kept);
        };
        let interrupted = boot.outcome == Outcome::Interrupted;
        if !interrupted {
            let left = begin.elapsed() / (done as u32 + 1) * (cells.len() - done - 1) as u32;
            progress.note(&line(done + 1, cells.len(), kernel, cell.run, &boot, left));
            set.missing -= 1;
        }
        if let Some(kept) = kept {
            progress.note(&format!("        kept in {}", kept.display()));
        }
        if !interrupted || boot.guest.is_some() {
            let label = kernel.label.clone();
            let (run, place) = (cell.run, cell.place);
            set.boots.push(SetBoot { kernel: label, run, place, boot, repeated });
        }
        if let Some(out) = &order.out {
            set.write(out)?;
        }
        if interrupted {
            break;
        }
    }
    progress.finish();
    Ok(set)
}

/// What a guest runs.
fn command(order: &Order) -> Vec<String> {
    let firn = || initramfs::PROGRAM_PATH.to_owned();
    let mut command = vec![order.program.as_deref().map_or_else(firn, in_guest)];
    command.extend(order.command.iter().cloned());
    if order.program.is_none() {
        command.extend(["--json".to_owned(), REPORT_PATH.to_owned()]);
    }
    command
}

/// A line about a boot that is done.
fn line(
    done: usize,
    all: usize,
    kernel: &Kernel,
    run: usize,
    boot: &super::boot::Boot,
    left: Duration,
) -> String {
    let seconds = |s: Option<f64>| s.map_or("-".to_owned(), |s| format!("{s:.1} s"));
    let mut text = format!(
        "[{done}/{all}] {} run {run}: {}, boot {}, command {}",
        kernel.label,
        boot.outcome.text(),
        seconds(boot.boot_s),
        seconds(boot.command_ms.map(|ms| ms as f64 / 1e3)),
    );
    if !boot.complaints.is_empty() {
        text.push_str(&format!(", {} complaints of the kernel", boot.complaints.len()));
    }
    if done < all {
        text.push_str(&match left.as_secs() {
            s @ 0..90 => format!("; about {s} s left"),
            s => format!("; about {} min left", (s + 30) / 60),
        });
    }
    text
}
