//! `firn kernels`: the same measurement on many kernels, stock ones and a developer's own.
//!
//! A kernel comes from Debian's archive ([`catalog`], [`debian`]) or from a file. It is booted under qemu
//! ([`qemu`], [`boot`]) with a file system that holds a static `firn` and nothing else ([`initramfs`],
//! [`program`]); there `firn` is the first program ([`guest`]), runs the command, and sends the report back
//! ([`channel`]). A matrix of boots is planned ([`plan`]), carried out ([`run`](mod@self::run)) and kept in
//! one file ([`set`]). What it amounts to is a table of metrics by kernel ([`matrix`], [`compare`]); [`gate`] judges one
//! kernel by a baseline.
//!
//! Under TCG, qemu's translator, counts, lock modes and shares are evidence and times are not. That
//! follows every figure from here on: a set knows its accelerator.

pub mod accelerator;
pub mod boot;
pub mod cache;
pub mod catalog;
pub mod channel;
pub mod compare;
pub mod debian;
pub mod derived;
pub mod gate;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod matrix;
pub mod modules;
pub mod notes;
pub mod options;
pub mod plan;
pub mod program;
pub mod qemu;
pub mod run;
pub mod set;

use std::path::Path;

use self::boot::Outcome;
use self::cache::Cache;
use self::catalog::Catalog;
use self::debian::packages::series;
use self::options::{FetchArgs, KernelsArgs, ListArgs, RunArgs, What};
use self::set::Set;
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, Stop};
use crate::stress::page::Page;

/// Does what the command line says.
///
/// # Errors
/// Exit code 2 for bad usage, 3 if the machine lacks something, 1 if what was downloaded is not what the
/// archive signed.
pub fn run(args: &KernelsArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    let cache = Cache::open(args.cache.as_deref()).map_err(|failure| match args.what {
        What::Gate(_) => gate::ends_bisection(failure),
        _ => failure,
    })?;
    match &args.what {
        What::List(args) => list(args, &cache, &print),
        What::Fetch(args) => fetch(args, &cache, &print),
        What::Run(args) => run_matrix(args, &cache, &print),
        What::Compare(args) => compare::run(args, &print),
        What::Gather(args) => Set::gather(&args.reports)?.write(&args.out).map(|()| Exit::Done),
        What::Gate(args) => gate::run(args, &cache, &print),
    }
}

/// A line of progress that a log should have too.
fn tell(line: &str) {
    eprintln!("{line}");
}

fn list(args: &ListArgs, cache: &Cache, print: &dyn Fn(&str)) -> Result<Exit, Failure> {
    let catalog = Catalog::load(cache, args.refresh, &tell)?;
    let here: Vec<_> = kernel::cached(cache).into_iter().map(|kernel| kernel.label).collect();
    let offers = match args.all {
        false => catalog.by_series(),
        true => {
            let of = |offer: catalog::Offer<'_>| series(offer.label()).unwrap_or_default();
            let mut all: Vec<_> = catalog.offers().map(|offer| (of(offer), offer)).collect();
            let version = |offer: &catalog::Offer<'_>| offer.package.version.clone();
            all.sort_by(|a, b| debian::version::compare(&version(&a.1), &version(&b.1)));
            all
        }
    };
    let mut page = Page::default();
    page.line(&format!("{:<8}{:<26}{:<22}{}", "series", "release", "suite", "here"));
    for (series, offer) in &offers {
        let label = offer.label();
        let mark = if here.iter().any(|h| h == label) { "yes" } else { "" };
        page.line(&format!("{series:<8}{label:<26}{:<22}{mark}", offer.suite.name));
    }
    let others: Vec<_> = here
        .iter()
        .filter(|label| !offers.iter().any(|(_, offer)| offer.label() == label.as_str()))
        .cloned()
        .collect();
    if !others.is_empty() {
        page.blank();
        page.entry("also here", &others.join(", "));
    }
    print(&page.finish());
    Ok(Exit::Done)
}

fn fetch(args: &FetchArgs, cache: &Cache, print: &dyn Fn(&str)) -> Result<Exit, Failure> {
    for kernel in catalog::obtain(cache, &args.kernels, args.refresh, &tell)? {
        print(&format!("{:<26}{}\n", kernel.label, kernel.image.display()));
    }
    Ok(Exit::Done)
}

fn run_matrix(args: &RunArgs, cache: &Cache, print: &dyn Fn(&str)) -> Result<Exit, Failure> {
    // Before anything is downloaded.
    qemu::version()?;
    let order = args.order(cache, &tell)?;
    let stop = Stop::new();
    stop.connect_signals();
    let progress = Progress::new(true);
    let set = run::run(&order, cache, &stop, &progress, &tell)?;
    print(&summary(&set));
    if set.boots.iter().any(|boot| boot.boot.report.is_some()) {
        let matrix = matrix::Matrix::of(&set, None)?;
        print(&format!("\n{}", compare::text(&set, &matrix, &compare::Wanted::default())));
    }
    Ok(verdict(&set, stop.interrupted()))
}

fn verdict(set: &Set, interrupted: bool) -> Exit {
    let fine = |boot: &set::SetBoot| boot.boot.outcome == Outcome::Ran { code: 0 };
    match (interrupted, set.boots.iter().all(fine)) {
        (true, _) => Exit::Interrupted,
        (_, true) => Exit::Done,
        (_, false) => Exit::GateFailed,
    }
}

/// What came of each boot, with what went wrong below.
fn summary(set: &Set) -> String {
    let mut page = Page::default();
    let good = set.boots.iter().filter(|b| b.boot.outcome.code() == Some(0)).count();
    let command = set.conditions.first().map_or(String::new(), |c| c.command.join(" "));
    page.paragraph(&format!(
        "`{command}` ended well in {good} of {} boots of {} kernels.",
        set.boots.iter().filter(|b| b.boot.outcome != Outcome::Interrupted).count() + set.missing,
        set.kernels.len()
    ));
    page.blank();
    for kernel in &set.kernels {
        let outcomes: Vec<_> = set.of(&kernel.label).map(|b| b.boot.outcome.text()).collect();
        page.line(&format!("{:<25} {}", kernel.label, outcomes.join(", ")));
    }
    for boot in set.boots.iter().filter(|b| b.boot.outcome.code() != Some(0)) {
        page.blank();
        page.line(&format!("{} run {}: {}", boot.kernel, boot.run, boot.boot.outcome.text()));
        let output = boot.boot.stderr.lines().chain(boot.boot.stdout.lines());
        output.take(40).for_each(|line| page.line(&format!("  {line}")));
        boot.boot.console_tail.iter().for_each(|line| page.line(&format!("  console: {line}")));
    }
    for boot in set.boots.iter().filter(|b| !b.repeated.is_empty()) {
        page.blank();
        page.paragraph(&format!(
            "{} run {}: {} earlier boots were ended by a fault of the emulator (an int3 that the kernel had \
             taken away; multi-threaded TCG before qemu 8.1) and were repeated:",
            boot.kernel,
            boot.run,
            boot.repeated.len()
        ));
        let tails = boot.repeated.iter().flat_map(|b| b.console_tail.iter().take(8));
        tails.for_each(|line| page.line(&format!("  console: {line}")));
    }
    for boot in set.boots.iter().filter(|b| !b.boot.complaints.is_empty()) {
        page.blank();
        page.line(&format!("{} run {}: the kernel complained:", boot.kernel, boot.run));
        boot.boot.complaints.iter().for_each(|line| page.line(&format!("  {line}")));
    }
    page.finish()
}

/// Finds out whether a file can be written, without changing what is there.
fn check_writable(path: &Path) -> Result<(), Failure> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map(drop)
        .map_err(|e| Failure::usage(format!("--out {}: cannot be written: {e}", path.display())))
}
