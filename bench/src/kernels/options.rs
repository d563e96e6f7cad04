//! The command line of `firn kernels`, and what it amounts to once it is checked.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::cache::Cache;
use super::catalog;
use super::compare::CompareArgs;
use super::gate::GateArgs;
use super::kernel::Kernel;
use super::qemu::{Accelerator, Machine};
use super::run::Order;
use super::set::Shard;
use crate::exit::Failure;

/// `firn kernels`.
#[derive(Debug, Clone, Args)]
pub struct KernelsArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
    /// Where kernels are kept [default: ~/.cache/firn]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// The commands of `firn kernels`.
#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// List the kernels that can be had: the newest of each series, and what is here already
    List(ListArgs),
    /// Fetch Debian's cloud kernels, check them, and unpack them into the cache
    Fetch(FetchArgs),
    /// Boot each kernel and run a command of firn in it, again and again; gather the reports
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
    /// Show what a set amounts to: each metric by kernel, and what changed between the kernels
    Compare(CompareArgs),
    /// Make a set of plain reports, from bare metal or another tool's machines, for `compare`
    Gather(GatherArgs),
    /// Judge one kernel by a baseline, with the exit codes of `git bisect run`
    #[command(after_help = GATE_HELP)]
    Gate(Box<GateArgs>),
}

const GATE_HELP: &str = "\
Exit codes: 0 every gate holds; 1 one does not; 125 it cannot be told (no boot, no
report): git bisect skips; 128 bad usage, or this machine lacks something, 130
interrupted: git bisect ends.

Example:
  git bisect run sh -c 'make -j8 bzImage || exit 125
    firn kernels gate --image arch/x86/boot/bzImage --baseline good.json \\
      --gate \"census.UFFDIO_COPY.read <= base\"'";

const RUN_HELP: &str = "\
Exit codes: 0 every run ended with 0; 1 some did not; 2 bad usage; 3 no guest can
be run here (with the remedy); 130 interrupted (the file has what was done).

Example:
  firn kernels run --kernels 5.10,6.1,6.12,7.2 --runs 3 -o set.json -- census";

/// `firn kernels list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// All releases, not the newest of each series
    #[arg(long)]
    pub all: bool,
    /// Fetch the indexes anew, whatever their age
    #[arg(long)]
    pub refresh: bool,
}

/// `firn kernels fetch`.
#[derive(Debug, Clone, Args)]
pub struct FetchArgs {
    /// Series (6.1), releases (6.1.0-50), oldest or newest
    #[arg(value_name = "KERNEL", required = true)]
    pub kernels: Vec<String>,
    /// Look for something newer than what is here
    #[arg(long)]
    pub refresh: bool,
}

/// `firn kernels gather`.
#[derive(Debug, Clone, Args)]
pub struct GatherArgs {
    /// Files of `--json`, all of one command; each names its kernel
    #[arg(value_name = "REPORT.json", required = true)]
    pub reports: Vec<PathBuf>,
    /// Where the set goes
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
}

/// Which kernels to boot.
#[derive(Debug, Clone, Default, Args)]
pub struct ChoiceArgs {
    /// Debian's: series (6.1), releases (6.1.0-50), oldest or newest; fetched if need be
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Kernels")]
    pub kernels: Vec<String>,
    /// A kernel of your own: a bzImage
    #[arg(long, value_name = "FILE", help_heading = "Kernels")]
    pub image: Vec<PathBuf>,
    /// A kernel of your own, as a Debian package (with `make bindeb-pkg`, or any other)
    #[arg(long, value_name = "FILE", help_heading = "Kernels")]
    pub deb: Vec<PathBuf>,
    /// Its modules: the folder lib/modules/RELEASE
    #[arg(long, value_name = "DIR", requires = "image", help_heading = "Kernels")]
    pub modules: Option<PathBuf>,
    /// A module to load in the guest, with what it needs
    #[arg(long, value_name = "NAME", help_heading = "Kernels")]
    pub module: Vec<String>,
    /// Look for something newer than what is in the cache
    #[arg(long, help_heading = "Kernels")]
    pub refresh: bool,
}

/// The machine that they get.
#[derive(Debug, Clone, Args)]
pub struct MachineArgs {
    /// Virtual processors [default: as many as the host has, from 2 to 4]
    #[arg(long, value_name = "N", help_heading = "Machine",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub vcpus: Option<u16>,
    /// Memory, as 2g or 1536m
    #[arg(long, value_name = "SIZE", default_value = "2g", help_heading = "Machine",
          value_parser = mebibytes)]
    pub memory: usize,
    /// Preemption model: full, lazy, voluntary or none; a kernel that does not know it keeps its own
    #[arg(long, value_name = "MODEL", default_value = "full", help_heading = "Machine",
          value_parser = ["full", "lazy", "voluntary", "none"])]
    pub preempt: String,
    /// Mitigations of processor flaws: auto or off
    #[arg(long, value_name = "MODE", default_value = "auto", help_heading = "Machine",
          value_parser = ["auto", "off"])]
    pub mitigations: String,
    /// More for the kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        help_heading = "Machine",
        allow_hyphen_values = true
    )]
    pub append: String,
    /// kvm, tcg, or auto: what a trial shows, once
    #[arg(long, value_name = "NAME", default_value = "auto", help_heading = "Machine",
          value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,
    /// The static firn that guests run [default: this one, or one built from its source]
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub guest: Option<PathBuf>,
    /// Longest time until a guest is up [default: 30 with kvm, 120 with tcg]
    #[arg(long, value_name = "SECONDS", help_heading = "Machine",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub boot_timeout: Option<u64>,
    /// Longest time for the command in a guest
    #[arg(long, value_name = "SECONDS", default_value_t = 900, help_heading = "Machine",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// `firn kernels run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Which.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Runs of each kernel, interleaved
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: u16,
    /// A part of the matrix, as 2/4: for several machines; `compare` takes all parts together
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Where the reports go, as one file
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Run this static program in the guests instead of firn, with what follows `--`
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Leave console, initramfs and qemu's command line of each boot behind
    #[arg(long)]
    pub keep: bool,
    /// Show the guests' consoles
    #[arg(long)]
    pub console: bool,
    /// The command of firn that guests run, with its options
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `2g` or `512m` in MiB.
fn mebibytes(text: &str) -> Result<usize, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let factor = match unit {
        "m" | "M" => 1,
        "g" | "G" => 1024,
        _ => return Err("give a number with m or g, as 1536m or 2g".to_owned()),
    };
    match number.parse::<usize>().ok().and_then(|n| n.checked_mul(factor)) {
        Some(mib @ 256..=1_048_576) => Ok(mib),
        _ => Err("a guest needs from 256m to 1024g".to_owned()),
    }
}

/// Virtual processors by default: two at least, so that threads meet; four at most, so that hosts with
/// many are comparable.
fn usual_vcpus() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
}

impl MachineArgs {
    /// The accelerator that was asked for.
    pub fn accelerator(&self) -> Option<Accelerator> {
        match self.accel.as_str() {
            "kvm" => Some(Accelerator::Kvm),
            "tcg" => Some(Accelerator::Tcg),
            _ => None,
        }
    }

    /// The machine; under TCG until a trial shows otherwise.
    pub fn machine(&self) -> Machine {
        Machine {
            accelerator: self.accelerator().unwrap_or(Accelerator::Tcg),
            vcpus: self.vcpus.map_or_else(usual_vcpus, usize::from),
            memory_mib: self.memory,
            preempt: self.preempt.clone(),
            mitigations: self.mitigations.clone(),
            append: self.append.clone(),
        }
    }
}

impl ChoiceArgs {
    /// Gets the kernels.
    ///
    /// # Errors
    /// Exit code 2 for what is no kernel, or for none; as [`catalog::obtain`].
    pub fn obtain(&self, cache: &Cache, tell: &dyn Fn(&str)) -> Result<Vec<Kernel>, Failure> {
        let mut kernels = catalog::obtain(cache, &self.kernels, self.refresh, tell)?;
        for image in &self.image {
            kernels.push(Kernel::from_image(image, self.modules.as_deref())?);
        }
        for deb in &self.deb {
            if !deb.exists() {
                return Err(Failure::usage(format!(
                    "--deb {}: there is no such file",
                    deb.display()
                )));
            }
            let origin = format!("--deb {}", deb.display());
            kernels.push(Kernel::from_packages(cache, std::slice::from_ref(deb), origin, None)?);
        }
        if kernels.is_empty() {
            return Err(Failure::usage(
                "no kernel was named: give --kernels 6.1,6.12 (`firn kernels list` has them), --image FILE \
                 or --deb FILE",
            ));
        }
        distinct(&mut kernels);
        Ok(kernels)
    }
}

/// Gives kernels of one label different ones: two builds of one release are two kernels.
fn distinct(kernels: &mut [Kernel]) {
    for i in 1..kernels.len() {
        let base = kernels[i].label.clone();
        let mut number = 2;
        while kernels[..i].iter().any(|other| other.label == kernels[i].label) {
            kernels[i].label = format!("{base}#{number}");
            number += 1;
        }
    }
}

impl RunArgs {
    /// What was asked for, checked.
    ///
    /// # Errors
    /// Exit code 2, in one line.
    pub fn order(&self, cache: &Cache, tell: &dyn Fn(&str)) -> Result<Order, Failure> {
        if self.program.is_none() {
            check_command(&self.command)?;
        }
        if let Some(out) = &self.out {
            // Found out before the time is spent.
            super::check_writable(out)?;
        }
        Ok(Order {
            kernels: self.choice.obtain(cache, tell)?,
            runs: usize::from(self.runs),
            command: self.command.clone(),
            program: self.program.clone(),
            guest: self.machine.guest.clone(),
            accelerator: self.machine.accelerator(),
            machine: self.machine.machine(),
            boot_timeout: self.machine.boot_timeout.map(Duration::from_secs),
            timeout: Duration::from_secs(self.machine.timeout),
            modules: self.choice.module.clone(),
            shard: self.shard,
            out: self.out.clone(),
            keep: self.keep,
            console: self.console,
        })
    }
}

/// Checks that guests will understand a command, before any is booted.
pub(super) fn check_command(command: &[String]) -> Result<(), Failure> {
    let Some(first) = command.first() else {
        return Err(Failure::usage(
            "no command for the guests: give one after `--`, as `firn kernels run --kernels 6.12 -- census`",
        ));
    };
    if !crate::cli::REPORTING.contains(&first.as_str()) {
        return Err(Failure::usage(format!(
            "{first} is not for guests: they run {}",
            crate::cli::REPORTING.join(", ")
        )));
    }
    if command.iter().any(|word| word == "--json" || word.starts_with("--json=")) {
        return Err(Failure::usage(
            "--json is added for the guests, and their reports come back in one file: -o FILE, before `--`",
        ));
    }
    crate::cli::check(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_unit_and_a_range() {
        assert_eq!((mebibytes("2g"), mebibytes("1536m")), (Ok(2048), Ok(1536)));
        for wrong in ["2", "2t", "1m", "g", "-2g", "99999999g"] {
            assert!(mebibytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_that_guests_would_refuse_is_refused_before_they_boot() {
        let check = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            check_command(&words).map_err(|failure| failure.message)
        };
        check("census --quick").unwrap();
        check("stress --quick --backend art").unwrap();
        check("selftest --quick").unwrap();
        assert!(check("").unwrap_err().contains("after `--`"));
        assert!(check("kernels list").unwrap_err().contains("not for guests"));
        assert!(check("stress --bakend art").unwrap_err().contains("--bakend"));
        assert!(check("census --json x.json").unwrap_err().contains("-o FILE"));
    }
}
