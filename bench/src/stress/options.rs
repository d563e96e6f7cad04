//! The command line of `firn stress`, and the [`Plan`] that it amounts to once it is checked.
//!
//! Everything that can be wrong is found here, before anything runs, and answered with one line
//! that names the option, the value and what is allowed.

use std::path::PathBuf;

use clap::Args;
use firn::{BackendKind, Options};

use crate::exit::Failure;
use crate::live::ShowArgs;
use crate::measure::latency::Discipline;
use crate::workloads::{Workload, frames, gcbench, lru, trees};

/// `firn stress`: run a workload on real mutator threads while the collector compacts their heap,
/// and report what it cost them.
#[derive(Debug, Clone, Default, Args)]
pub struct StressArgs {
    /// What to run: lru, binary-trees, gcbench, frames or graph [default: lru]
    #[arg(long, value_name = "NAME")]
    pub workload: Option<Workload>,
    /// How the heap is compacted: stw, art, pingpong or mprotect [default: pingpong]
    #[arg(long, value_name = "NAME", help_heading = "Collector")]
    pub backend: Option<String>,
    /// Who is told of a fault on a missing page: sigbus (the faulting thread) or thread
    #[arg(long, value_name = "HOW", help_heading = "Collector")]
    pub fault: Option<String>,
    /// How a page is installed: move or copy [default: move, where the kernel has it]
    #[arg(long, value_name = "HOW", help_heading = "Collector")]
    pub install: Option<String>,
    /// Maximum heap size, as 512m or 2g [default: what the workload's specification says]
    #[arg(long, value_name = "SIZE")]
    pub heap: Option<String>,
    /// Mutator threads [default: what the workload's specification says]
    #[arg(long, value_name = "N")]
    pub mutators: Option<usize>,
    /// Seconds measured, as 10 or 2m; binary-trees, gcbench and graph repeat until then
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Seconds of warm-up before a measured window (lru, frames) [lru: a third of the duration]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub warmup: Option<f64>,
    /// Seed of the random numbers; 0 is the specification's [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Collector threads; 0 lets the runtime choose
    #[arg(long, value_name = "N", help_heading = "Collector")]
    pub workers: Option<String>,
    /// Nice value of the collector's threads, -20 to 19
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Collector")]
    pub daemon_nice: Option<String>,
    /// Scheduling class of the collector's threads: other, batch, idle, fifo:N or rr:N
    #[arg(long, value_name = "CLASS", help_heading = "Collector")]
    pub daemon_policy: Option<String>,
    /// Processors of the collector's threads, as 0,2-3
    #[arg(long, value_name = "LIST", help_heading = "Collector")]
    pub daemon_cpus: Option<String>,
    /// Walk and check the heap before and after every cycle (slow)
    #[arg(long, help_heading = "Collector")]
    pub verify: bool,
    /// Further options of the runtime, as KEY=VALUE,...
    #[arg(long, value_name = "OPTIONS", help_heading = "Collector")]
    pub gc: Option<String>,
    /// How lru offers operations: closed, metered, fixed, or both (closed, then metered at half
    /// the rate) [default: both]
    #[arg(long, value_name = "HOW")]
    pub mode: Option<Mode>,
    /// Offered rate of all threads together, operations a second (metered, fixed)
    /// [fixed: 400000; metered: half of the closed loop's]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// lru: exactly this many operations on one cache, without a clock (2000000 has a known
    /// checksum); graph: operations of each thread in a round
    #[arg(long, value_name = "N")]
    pub ops: Option<u64>,
    /// graph: rounds, each ended by a collection and a comparison with the model
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Short windows: shows that everything runs, measures little
    #[arg(long)]
    pub quick: bool,
    /// Record the kernel's lock and scheduling events meanwhile: auto (where it is allowed) or off
    /// [default: auto]
    #[arg(long, value_name = "HOW", value_parser = ["auto", "off"])]
    pub measure: Option<String>,
    /// Also write the report as JSON; `-` writes JSON alone to standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// `--live` and `--trace`.
    #[command(flatten)]
    pub show: ShowArgs,
}

/// The values of `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Closed loop.
    Closed,
    /// On a schedule at half the closed loop's rate, or at `--rate`.
    Metered,
    /// On a schedule at a rate that is the same for every runtime compared.
    Fixed,
    /// Closed, then metered.
    Both,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Mode, String> {
        match name {
            "closed" => Ok(Mode::Closed),
            "metered" => Ok(Mode::Metered),
            "fixed" => Ok(Mode::Fixed),
            "both" => Ok(Mode::Both),
            _ => Err(format!("there is no mode '{name}'; there are closed, metered, fixed, both")),
        }
    }
}

/// Reads a duration: a number of seconds, or one with the unit ms, s, m or h.
pub fn seconds(text: &str) -> Result<f64, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|n| (n, factor)))
        .unwrap_or((text, 1.0));
    let value = number.trim().parse::<f64>().map(|n| n * unit).unwrap_or(f64::NAN);
    if (0.0..=86_400.0).contains(&value) {
        Ok(value)
    } else {
        Err(format!("'{text}' is no time from 0 to 24h; write 10, 500ms or 2m"))
    }
}

/// What will run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The workload's name.
    pub workload: Workload,
    /// The workload and its parameters.
    pub program: Program,
    /// Options of the heap.
    pub options: Options,
    /// Mutator threads.
    pub mutators: usize,
    /// The user's seed.
    pub seed: u64,
    /// `--quick` was given.
    pub quick: bool,
    /// Whether the kernel's events are recorded.
    pub measure: bool,
    /// Where JSON goes.
    pub json: Option<PathBuf>,
}

/// A workload with its parameters.
#[derive(Debug, Clone)]
pub enum Program {
    /// `lru` in stages.
    Lru(lru::LruParams),
    /// `lru`, a fixed number of operations.
    LruOps {
        /// How many.
        ops: u64,
    },
    /// `binary-trees`.
    Trees(trees::TreesParams),
    /// `gcbench`.
    GcBench(gcbench::GcBenchParams),
    /// `frames`.
    Frames(frames::FramesParams),
    /// `graph`, repeated until so many seconds have passed.
    Graph(crate::workloads::graph::GraphParams, f64),
}

/// Rate of the fixed mode in the peers' comparison, operations a second.
const FIXED_RATE: f64 = 400_000.0;
/// Most mutator threads that make sense to ask for.
const MOST_MUTATORS: usize = 256;

impl StressArgs {
    /// Checks everything and fills the defaults in.
    ///
    /// # Errors
    /// A [`Failure`] with exit code 2 and one line of message.
    pub fn plan(&self) -> Result<Plan, Failure> {
        let workload = self.workload.unwrap_or(Workload::Lru);
        self.refuse_irrelevant(workload)?;
        let mutators = self.mutators(workload)?;
        let options = self.options(workload, mutators)?;
        let seed = self.seed.unwrap_or(0);
        let program = match workload {
            Workload::Lru => match self.ops {
                Some(ops) => Program::LruOps { ops },
                None => Program::Lru(lru::LruParams {
                    threads: mutators,
                    capacity: lru::SPEC_CAPACITY,
                    seed,
                    stages: self.stages()?,
                }),
            },
            Workload::BinaryTrees => Program::Trees(trees::TreesParams {
                depth: trees::SPEC_DEPTH,
                threads: mutators,
                seconds: self.duration.unwrap_or(0.0),
            }),
            Workload::GcBench => Program::GcBench(gcbench::GcBenchParams {
                depth: gcbench::SPEC_DEPTH,
                array: gcbench::SPEC_ARRAY,
                threads: mutators,
                seconds: self.duration.unwrap_or(0.0),
            }),
            Workload::Frames => {
                let (warm, measured) = if self.quick { (0.5, 2.0) } else { (5.0, 60.0) };
                Program::Frames(frames::FramesParams {
                    threads: mutators,
                    seed,
                    warm_seconds: self.warmup.unwrap_or(warm),
                    seconds: self.duration.unwrap_or(measured),
                })
            }
            Workload::Graph => {
                Program::Graph(self.graph(mutators, seed), self.duration.unwrap_or(0.0))
            }
        };
        let mutators = if let Program::LruOps { .. } = program { 1 } else { mutators };
        Ok(Plan {
            workload,
            program,
            options,
            mutators,
            seed,
            quick: self.quick,
            measure: self.measure.as_deref() != Some("off"),
            json: self.json.clone(),
        })
    }

    /// Options that mean nothing for the workload or the back end, or exclude each other.
    fn refuse_irrelevant(&self, workload: Workload) -> Result<(), Failure> {
        let refuse = |given: bool, option: &str, why: &str| {
            if given { Err(Failure::usage(format!("{option}: {why}"))) } else { Ok(()) }
        };
        if workload != Workload::Lru {
            let why = format!("only lru offers operations in modes, not {workload}");
            refuse(self.mode.is_some(), "--mode", &why)?;
            refuse(self.rate.is_some(), "--rate", &why)?;
        }
        if workload != Workload::Graph {
            let why = format!("only graph runs in rounds, not {workload}");
            refuse(self.rounds.is_some(), "--rounds", &why)?;
        }
        if !matches!(workload, Workload::Lru | Workload::Graph) {
            let why = format!("only lru and graph count operations, not {workload}");
            refuse(self.ops.is_some(), "--ops", &why)?;
        }
        if !matches!(workload, Workload::Lru | Workload::Frames) {
            let why = format!("only lru and frames have a warm-up, not {workload}");
            refuse(self.warmup.is_some(), "--warmup", &why)?;
        }
        if workload == Workload::Lru && self.ops.is_some() {
            for (given, option) in [
                (self.mode.is_some(), "--mode"),
                (self.rate.is_some(), "--rate"),
                (self.duration.is_some(), "--duration"),
                (self.warmup.is_some(), "--warmup"),
                (self.mutators.is_some_and(|n| n != 1), "--mutators"),
            ] {
                let why = "excluded by --ops, which runs that many operations on one cache";
                refuse(given, option, why)?;
            }
        }
        refuse(self.ops == Some(0), "--ops", "must be at least 1")?;
        refuse(self.rounds == Some(0), "--rounds", "must be at least 1")?;
        if let Some(rate) = self.rate {
            let scheduled = matches!(self.mode, Some(Mode::Metered | Mode::Fixed));
            refuse(!scheduled, "--rate", "needs --mode metered or --mode fixed")?;
            let sane = (1.0..=1e9).contains(&rate);
            refuse(!sane, "--rate", &format!("{rate} is not from 1 to 1e9 operations a second"))?;
        }
        let timed = matches!(workload, Workload::Lru | Workload::Frames);
        let empty = timed && self.duration.is_some_and(|d| d < 0.1);
        refuse(empty, "--duration", "a measured window needs at least 100ms")
    }

    fn mutators(&self, workload: Workload) -> Result<usize, Failure> {
        let default = match workload {
            Workload::Lru | Workload::BinaryTrees | Workload::Frames => 2,
            Workload::GcBench => 1,
            Workload::Graph => 3,
        };
        let n = self.mutators.unwrap_or(default);
        if (1..=MOST_MUTATORS).contains(&n) {
            Ok(n)
        } else {
            Err(Failure::usage(format!("--mutators {n}: must be from 1 to {MOST_MUTATORS}")))
        }
    }

    /// The heap's options: `--gc` first, then the options that have a name of their own.
    fn options(&self, workload: Workload, mutators: usize) -> Result<Options, Failure> {
        let gc = self.gc.as_deref().unwrap_or("");
        let mut options = Options::default();
        options.apply(gc).map_err(|e| Failure::usage(format!("--gc {gc}: {e}")))?;
        let in_gc = |key: &str| {
            gc.split(',').any(|pair| pair.split('=').next().is_some_and(|k| k.trim() == key))
        };
        let named = [
            ("heap", &self.heap),
            ("backend", &self.backend),
            ("fault", &self.fault),
            ("install", &self.install),
            ("workers", &self.workers),
            ("daemon-nice", &self.daemon_nice),
            ("daemon-policy", &self.daemon_policy),
            ("daemon-cpus", &self.daemon_cpus),
        ];
        for (key, value) in named {
            let Some(value) = value else { continue };
            // Lists are separated by commas on the command line, as everywhere; in an options
            // string a comma ends the option.
            let value = &value.replace(',', "+");
            if in_gc(key) {
                return Err(Failure::usage(format!("--{key} and --gc {key}=...: give it once")));
            }
            options.set(key, value).map_err(|e| Failure::usage(format!("--{key} {value}: {e}")))?;
        }
        if self.verify {
            options.set("verify", "true").map_err(|e| Failure::usage(format!("--verify: {e}")))?;
        }
        let pages_are_missing = matches!(options.backend, BackendKind::Art | BackendKind::PingPong);
        for (option, given) in [("fault", &self.fault), ("install", &self.install)] {
            if (given.is_some() || in_gc(option)) && !pages_are_missing {
                return Err(Failure::usage(format!(
                    "--{option}: excluded by --backend {}, which uses no userfaultfd; it goes \
                     with art and pingpong",
                    options.backend
                )));
            }
        }
        options.check().map_err(|e| Failure::usage(e.to_string()))?;
        if self.heap.is_none() && !in_gc("heap") {
            let mib = default_heap_mib(workload, mutators);
            options
                .set("heap", &format!("{mib}m"))
                .map_err(|e| Failure::usage(format!("heap of {mib} MiB for {workload}: {e}")))?;
        }
        let needed = live_bytes(workload, mutators);
        if options.heap < needed {
            return Err(Failure::usage(format!(
                "a heap of {} MiB is smaller than the {} MiB that {workload} with {mutators} {} \
                 keeps alive; give --heap {}m or more",
                options.heap >> 20,
                needed.div_ceil(1 << 20),
                if mutators == 1 { "mutator" } else { "mutators" },
                default_heap_mib(workload, mutators),
            )));
        }
        Ok(options)
    }

    fn stages(&self) -> Result<Vec<lru::Stage>, Failure> {
        let seconds = self.duration.unwrap_or(if self.quick { 1.0 } else { 4.0 });
        let warm = self.warmup.unwrap_or(seconds / 3.0);
        let pair = |mode: Discipline, rate: Option<f64>| {
            [(warm, false), (seconds, true)].map(|(seconds, measured)| lru::Stage {
                mode,
                seconds,
                rate,
                measured,
            })
        };
        let closed = pair(Discipline::Closed, None);
        Ok(match self.mode.unwrap_or(Mode::Both) {
            Mode::Closed => closed.to_vec(),
            Mode::Both => [closed, pair(Discipline::Metered, None)].concat(),
            Mode::Fixed => pair(Discipline::Fixed, Some(self.rate.unwrap_or(FIXED_RATE))).to_vec(),
            Mode::Metered if self.rate.is_some() => pair(Discipline::Metered, self.rate).to_vec(),
            // The rate to take half of is measured first, but is not a result here.
            Mode::Metered => {
                let calibrate = closed.map(|stage| lru::Stage { measured: false, ..stage });
                [calibrate, pair(Discipline::Metered, None)].concat()
            }
        })
    }

    fn graph(&self, threads: usize, seed: u64) -> crate::workloads::graph::GraphParams {
        let (rounds, operations) = if self.quick { (10, 2_000) } else { (40, 10_000) };
        crate::workloads::graph::GraphParams {
            seed,
            threads,
            rounds: self.rounds.unwrap_or(rounds),
            operations: self.ops.map_or(operations, |ops| ops as usize),
            large_per_mille: 5,
            live_bytes: 4 << 20,
            collect_continuously: true,
        }
    }
}

/// The heap of the specification, for as many threads.
fn default_heap_mib(workload: Workload, mutators: usize) -> usize {
    match workload {
        Workload::Lru => 256 * mutators.max(2),
        Workload::BinaryTrees | Workload::Frames => 256,
        Workload::GcBench => 102 * mutators,
        Workload::Graph => 64.max(16 * mutators),
    }
}

/// What the workload keeps alive at least.
fn live_bytes(workload: Workload, mutators: usize) -> usize {
    match workload {
        Workload::Lru => mutators * lru::live_bytes(lru::SPEC_CAPACITY),
        // The long-lived tree and, for each thread, one as deep.
        Workload::BinaryTrees => (1 + mutators) * 24 * ((2 << trees::SPEC_DEPTH) - 1),
        // The long-lived tree and array, and one tree as deep.
        Workload::GcBench => {
            mutators * (2 * 32 * ((2 << gcbench::SPEC_DEPTH) - 1) + 8 * gcbench::SPEC_ARRAY)
        }
        Workload::Frames => frames::LIVE_BYTES,
        Workload::Graph => 1 << 20,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        stress: StressArgs,
    }

    fn plan(line: &str) -> Result<Plan, Failure> {
        let words = std::iter::once("stress").chain(line.split_whitespace());
        Cli::try_parse_from(words).expect("parses").stress.plan()
    }

    fn refused(line: &str) -> String {
        let failure = plan(line).expect_err(line);
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(!failure.message.contains('\n'), "one line: {}", failure.message);
        failure.message
    }

    #[test]
    fn nothing_given_is_lru_under_pingpong_closed_and_metered() {
        let plan = plan("").unwrap();
        assert_eq!((plan.workload, plan.mutators), (Workload::Lru, 2));
        assert_eq!(plan.options.backend, BackendKind::PingPong);
        assert_eq!(plan.options.heap, 512 << 20);
        let Program::Lru(params) = plan.program else { panic!("stages") };
        let modes: Vec<_> = params.stages.iter().map(|s| (s.mode, s.measured)).collect();
        use Discipline::{Closed, Metered};
        assert_eq!(modes, [(Closed, false), (Closed, true), (Metered, false), (Metered, true)]);
    }

    #[test]
    fn the_peers_windows_are_reached_by_duration_alone() {
        let Program::Lru(params) = plan("--mode closed --duration 30").unwrap().program else {
            panic!("stages")
        };
        let seconds: Vec<_> = params.stages.iter().map(|s| s.seconds).collect();
        assert_eq!(seconds, [10.0, 30.0]);
    }

    #[test]
    fn a_heap_below_the_live_set_is_refused_with_a_remedy() {
        let said = refused("--heap 100m");
        assert!(said.contains("100 MiB") && said.contains("--heap 512m"), "{said}");
        assert!(refused("--workload gcbench --heap 40m").contains("gcbench"));
        assert!(refused("--mutators 8 --heap 512m").contains("8 mutators"));
    }

    #[test]
    fn options_that_mean_nothing_are_refused_by_name() {
        for (line, option) in [
            ("--workload frames --mode closed", "--mode"),
            ("--workload gcbench --rate 5", "--rate"),
            ("--rounds 3", "--rounds"),
            ("--workload frames --ops 3", "--ops"),
            ("--workload graph --warmup 3", "--warmup"),
            ("--rate 1000", "--rate"),
            ("--mode closed --rate 1000", "--rate"),
            ("--mode fixed --rate 0", "--rate"),
            ("--ops 10 --duration 3", "--duration"),
            ("--ops 10 --mutators 2", "--mutators"),
            ("--ops 0", "--ops"),
            ("--mutators 0", "--mutators"),
            ("--duration 0", "--duration"),
        ] {
            assert!(refused(line).starts_with(option), "{line}: {}", refused(line));
        }
    }

    #[test]
    fn userfaultfd_s_axes_exclude_the_back_ends_without_it() {
        for backend in ["stw", "mprotect"] {
            assert!(refused(&format!("--backend {backend} --fault thread")).contains(backend));
            assert!(refused(&format!("--backend {backend} --install copy")).contains(backend));
        }
        assert!(plan("--backend art --fault thread --install copy").is_ok());
    }

    #[test]
    fn the_runtime_s_own_options_are_checked_by_the_runtime() {
        assert!(refused("--backend fast").contains("fast"));
        assert!(refused("--heap lots").contains("lots"));
        assert!(refused("--gc nonsense=1").contains("nonsense"));
        assert!(refused("--gc heap=600m --heap 600m").contains("once"));
        assert_eq!(plan("--gc heap=600m").unwrap().options.heap, 600 << 20);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("2m"), Ok(120.0));
        assert_eq!(seconds("3"), Ok(3.0));
        for bad in ["", "-1", "fast", "25h", "nan"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
