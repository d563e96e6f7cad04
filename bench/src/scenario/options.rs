//! The command line of `firn scenario`, and the [`Plan`] that it amounts to once it is checked.

use std::path::PathBuf;

use clap::Args;
use firn::{BackendKind, Options};

use super::catalog::Scenario;
use crate::exit::Failure;
use crate::live::ShowArgs;
use crate::stress::options::seconds;

/// `firn scenario`: run lock-hostile situations under every back end asked for, and say what they do to
/// mmap_lock and to mutators.
#[derive(Debug, Clone, Default, Args)]
pub struct ScenarioArgs {
    /// Which: compact-vs-writers, register-storm, priority-inversion, volatile-region, lookup-vs-writers,
    /// munmap-churn, fork-vs-fault, file-fault or gc-frames
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// All nine
    #[arg(long)]
    pub all: bool,
    /// List them with what each does
    #[arg(long)]
    pub list: bool,
    /// Back ends, one after the other [default: art,pingpong]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub backend: Vec<String>,
    /// Short windows: shows that everything runs, measures little
    #[arg(long)]
    pub quick: bool,
    /// Seconds measured in each run, as 4 or 500ms [default: 4]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Collections that must begin and end in each window: it becomes longer for them, by at most 10 s each
    /// [default: 1]
    #[arg(long, value_name = "N")]
    pub cycles: Option<usize>,
    /// Seed of the random numbers [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Maximum heap size [default: 192m]
    #[arg(long, value_name = "SIZE")]
    pub heap: Option<String>,
    /// Mutator threads [default: 2]
    #[arg(long, value_name = "N")]
    pub mutators: Option<usize>,
    /// Threads that map and unmap (the storm) [default: two for each processor, at most 16]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    pub writers: Option<usize>,
    /// Pages that a writer maps, touches and unmaps at a time [default: 16]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    pub writer_pages: Option<usize>,
    /// Pages of its own that a writer protects and opens again in each round [default: 64 MiB of them;
    /// 16 MiB in gc-frames]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    pub writer_held: Option<usize>,
    /// Rounds a second of each writer; 0 is as many as it can [default: 0]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    pub writer_rate: Option<u64>,
    /// Threads that need mappings looked up [default: 2]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    pub readers: Option<usize>,
    /// register-storm: sub-ranges registered and unregistered a second [default: 2000]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    pub register_rate: Option<u64>,
    /// priority-inversion: threads that only compute [default: one for each processor]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    pub hogs: Option<usize>,
    /// fork-vs-fault: mappings of the process before it forks [default: 4000]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    pub vmas: Option<usize>,
    /// fork-vs-fault: touched memory of the process, as 256m [default: 256m]
    #[arg(long, value_name = "SIZE", help_heading = "Neighbours")]
    pub touched: Option<String>,
    /// file-fault: folder for the file, on a disk [default: the folder for temporary files]
    #[arg(long, value_name = "FOLDER", help_heading = "Neighbours")]
    pub folder: Option<PathBuf>,
    /// priority-inversion: scheduling class of the collector, idle or other (with nice 19) [default: idle]
    #[arg(long, value_name = "CLASS", value_parser = ["idle", "other"], help_heading = "Collector")]
    pub daemon_policy: Option<String>,
    /// priority-inversion: cap the collector's threads at this share of a processor, as 5 % (a cgroup;
    /// needs root)
    #[arg(long, value_name = "PERCENT", help_heading = "Collector")]
    pub daemon_cap: Option<u32>,
    /// Further options of the runtime, as KEY=VALUE,...
    #[arg(long, value_name = "OPTIONS", help_heading = "Collector")]
    pub gc: Option<String>,
    /// Record the kernel's lock and scheduling events: auto (where it is allowed) or off [default: auto]
    #[arg(long, value_name = "HOW", value_parser = ["auto", "off"])]
    pub measure: Option<String>,
    /// Also write everything as JSON; `-` writes JSON alone to standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// `--live` and `--trace`.
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Bytes that a writer protects and opens again in a round. The lock is held for writing for as long as their
/// page tables take, about a millisecond; `docs/scenarios.md` says why so many.
const HELD: usize = 64 << 20;
/// The same of writers that pace themselves and are to leave the lock free most of the time.
const BACKGROUND_HELD: usize = 16 << 20;
/// Writers that the default stops at on a machine of many processors: each touches [`HELD`] bytes.
const MOST_WRITERS: usize = 16;

/// What will run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scenarios, in order.
    pub scenarios: Vec<Scenario>,
    /// List them instead.
    pub list: bool,
    /// Back ends, in order.
    pub backends: Vec<BackendKind>,
    /// `--quick` was given.
    pub quick: bool,
    /// Seconds of a measured window, at least.
    pub seconds: f64,
    /// Collections that must begin and end in it.
    pub cycles: usize,
    /// The seed.
    pub seed: u64,
    /// Options of the heap, without the back end.
    pub options: Options,
    /// Mutator threads.
    pub mutators: usize,
    /// VMA writers.
    pub writers: usize,
    /// Pages of a writer's round.
    pub writer_pages: usize,
    /// Pages that a writer protects and opens in a round.
    pub writer_held: usize,
    /// The same of a writer that is a background only.
    pub background_held: usize,
    /// Rounds a second of a writer; 0 is unlimited.
    pub writer_rate: u64,
    /// VMA readers.
    pub readers: usize,
    /// Registrations a second.
    pub register_rate: u64,
    /// CPU hogs.
    pub hogs: usize,
    /// Mappings before a fork.
    pub vmas: usize,
    /// Bytes touched before a fork.
    pub touched: usize,
    /// Where the file goes.
    pub folder: PathBuf,
    /// The collector's scheduling in `priority-inversion`.
    pub daemon_idle: bool,
    /// Percent of a processor for the collector.
    pub daemon_cap: Option<u32>,
    /// Whether the kernel's events are recorded.
    pub measure: bool,
    /// Where JSON goes.
    pub json: Option<PathBuf>,
}

impl ScenarioArgs {
    /// Checks everything and fills the defaults in.
    ///
    /// # Errors
    /// A [`Failure`] with exit code 2 and one line of message.
    pub fn plan(&self) -> Result<Plan, Failure> {
        if self.all && !self.names.is_empty() {
            return Err(Failure::usage(format!(
                "--all: excluded by the name {}; give names or --all",
                self.names[0]
            )));
        }
        let scenarios = match self.all {
            true => Scenario::ALL.to_vec(),
            false => {
                let parse = |n: &String| n.parse::<Scenario>().map_err(Failure::usage);
                self.names.iter().map(parse).collect::<Result<_, _>>()?
            }
        };
        if scenarios.is_empty() && !self.list {
            let names: Vec<_> = Scenario::ALL.iter().map(|s| s.name()).collect();
            return Err(Failure::usage(format!(
                "no scenario given: give --all, or one or more of {}",
                names.join(", ")
            )));
        }
        let seconds = self.duration.unwrap_or(if self.quick { 0.6 } else { 4.0 });
        if seconds < 0.1 {
            return Err(Failure::usage("--duration: a measured window needs at least 100ms"));
        }
        let cpus = firn_heap::sys::online_cpus();
        let quick = |full: usize, short: usize| if self.quick { short } else { full };
        let pages = |bytes: usize| bytes / firn_heap::sys::page_size();
        let touched = match &self.touched {
            None => quick(256, 64) << 20,
            Some(text) => firn::parse_size(text).filter(|n| *n <= 1 << 40).ok_or_else(|| {
                Failure::usage(format!("--touched {text}: no size up to 1t; write 256m or 2g"))
            })?,
        };
        let bounded = |value: Option<usize>, name: &str, default: usize, range: (usize, usize)| {
            let n = value.unwrap_or(default);
            match (range.0..=range.1).contains(&n) {
                true => Ok(n),
                false => Err(Failure::usage(format!(
                    "--{name} {n}: must be from {} to {}",
                    range.0, range.1
                ))),
            }
        };
        if let Some(cap) = self.daemon_cap.filter(|cap| !(1..=100).contains(cap)) {
            return Err(Failure::usage(format!("--daemon-cap {cap}: must be from 1 to 100")));
        }
        Ok(Plan {
            scenarios,
            list: self.list,
            backends: self.backends()?,
            quick: self.quick,
            seconds,
            cycles: bounded(self.cycles, "cycles", 1, (1, 1000))?,
            seed: self.seed.unwrap_or(0),
            options: self.options()?,
            mutators: bounded(self.mutators, "mutators", 2, (1, 64))?,
            writers: bounded(self.writers, "writers", (2 * cpus).min(MOST_WRITERS), (1, 256))?,
            writer_pages: bounded(self.writer_pages, "writer-pages", 16, (2, 1 << 20))?,
            writer_held: bounded(self.writer_held, "writer-held", pages(HELD), (1, 1 << 20))?,
            background_held: self.writer_held.unwrap_or(pages(BACKGROUND_HELD)),
            writer_rate: self.writer_rate.unwrap_or(0),
            readers: bounded(self.readers, "readers", 2, (1, 256))?,
            register_rate: self.register_rate.unwrap_or(2000).clamp(1, 1_000_000),
            hogs: bounded(self.hogs, "hogs", cpus, (1, 256))?,
            vmas: bounded(self.vmas, "vmas", quick(4000, 1000), (1, 60_000))?,
            touched,
            folder: self.folder.clone().unwrap_or_else(std::env::temp_dir),
            daemon_idle: self.daemon_policy.as_deref() != Some("other"),
            daemon_cap: self.daemon_cap,
            measure: self.measure.as_deref() != Some("off"),
            json: self.json.clone(),
        })
    }

    fn backends(&self) -> Result<Vec<BackendKind>, Failure> {
        if self.backend.is_empty() {
            return Ok(vec![BackendKind::Art, BackendKind::PingPong]);
        }
        let mut options = Options::default();
        let mut all = Vec::new();
        for name in &self.backend {
            options
                .set("backend", name)
                .map_err(|e| Failure::usage(format!("--backend {name}: {e}")))?;
            if !all.contains(&options.backend) {
                all.push(options.backend);
            }
        }
        Ok(all)
    }

    fn options(&self) -> Result<Options, Failure> {
        let gc = self.gc.as_deref().unwrap_or("");
        let mut options = Options::default();
        options
            .set("heap", self.heap.as_deref().unwrap_or("192m"))
            .map_err(|e| Failure::usage(format!("--heap: {e}")))?;
        // Giving memory back takes the lock for reading under every back end; what is compared here is moving.
        options.trim = false;
        options.apply(gc).map_err(|e| Failure::usage(format!("--gc {gc}: {e}")))?;
        options.check().map_err(|e| Failure::usage(e.to_string()))?;
        if options.heap < 96 << 20 {
            return Err(Failure::usage(format!(
                "--heap {}m: the scenarios' mutators need at least 96m",
                options.heap >> 20
            )));
        }
        Ok(options)
    }
}

impl Plan {
    /// Seconds before the window.
    pub fn warm_seconds(&self) -> f64 {
        if self.quick { 0.15 } else { 0.5 }
    }

    /// Seconds of the control on the idle machine.
    pub fn control_seconds(&self) -> f64 {
        if self.quick { 0.5 } else { 3.0 }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ScenarioArgs,
    }

    fn plan(line: &str) -> Result<Plan, Failure> {
        let words = std::iter::once("scenario").chain(line.split_whitespace());
        Cli::try_parse_from(words).expect("parses").args.plan()
    }

    #[test]
    fn everything_is_nine_scenarios_under_two_back_ends() {
        let plan = plan("--all").unwrap();
        assert_eq!(plan.scenarios.len(), 9);
        assert_eq!(plan.backends, [BackendKind::Art, BackendKind::PingPong]);
    }

    #[test]
    fn bad_usage_names_what_is_wrong_and_what_is_allowed() {
        for (line, parts) in [
            ("", ["--all", "gc-frames"]),
            ("compact", ["compact", "compact-vs-writers"]),
            ("gc-frames --all", ["--all", "gc-frames"]),
            ("gc-frames --backend fast", ["--backend fast", "pingpong"]),
            ("gc-frames --writers 0", ["--writers 0", "256"]),
            ("gc-frames --heap 10m", ["--heap", "96m"]),
            ("fork-vs-fault --touched lots", ["--touched lots", "256m"]),
            ("priority-inversion --daemon-cap 0", ["--daemon-cap 0", "100"]),
            ("gc-frames --duration 0", ["--duration", "100ms"]),
            ("compact-vs-writers --cycles 0", ["--cycles 0", "1000"]),
        ] {
            let failure = plan(line).expect_err(line);
            assert_eq!(failure.exit, crate::exit::Exit::Usage);
            assert!(!failure.message.contains('\n'), "{failure}");
            for part in parts {
                assert!(failure.message.contains(part), "{line}: {part}: {failure}");
            }
        }
    }
}
