//! `firn scenario`: situations that are hostile to `mmap_lock`, each with fixed thread roles, run under every
//! back end asked for after a control on the idle machine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`options`] | the command line and the [`Plan`](options::Plan) it amounts to |
//! | [`catalog`] | the nine scenarios: who plays, in which variants, which figures and which verdict |
//! | [`cast`] | the threads: mutators, writers and readers of VMAs, neighbours, hogs |
//! | [`stage`] | what the threads of a run share, and how their operations are logged |
//! | [`rig`] | one run: heap, measurement, threads, window |
//! | [`figures`] | figures that several scenarios have |
//! | [`noise`] | the control |
//! | [`text`] | the report for a terminal |
//!
//! Every run is a [`schema::Run`](crate::schema::Run), like that of `firn stress`, so reports and comparisons
//! treat them alike. `docs/scenarios.md` says what each scenario does and what its figures mean.

pub mod cast;
pub mod catalog;
pub mod cgroup;
pub mod figures;
pub mod noise;
pub mod options;
pub mod rig;
pub mod stage;
pub mod text;
mod verdict;

use crate::exit::{Exit, Failure};
use crate::measure::cost::Price;
use crate::measure::environment;
use crate::progress::{Progress, Stop};
use crate::schema::{Document, Measuring, SCENARIO};
use crate::stress::report_json::Sink;

use options::ScenarioArgs;

/// Runs what the arguments ask for, and reports.
///
/// # Errors
/// Exit code 2 for bad usage, 3 where the machine lacks what a heap needs.
pub fn run(args: &ScenarioArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    let plan = args.plan()?;
    if plan.list {
        print(&text::list());
        return Ok(Exit::Done);
    }
    args.show.check()?;
    // Before the file is made: whoever sees it may interrupt and will find a report in it.
    let stop = Stop::new();
    stop.connect_signals();
    let sink = plan.json.as_deref().map(Sink::open).transpose()?;
    let progress = Progress::live(args.show.live);
    let quiet = matches!(sink, Some(Sink::Stdout));
    let say = |text: &str| {
        if !quiet {
            print(text);
        }
    };
    let document = perform(&plan, &stop, &progress, &say)?;
    drop(progress);
    if let Some(sink) = sink {
        sink.write(&document.value_with(serde_json::Map::new())).map_err(|e| {
            Failure::missing(format!("--json: the report could not be written: {e}"))
        })?;
    }
    if let Some(path) = &args.show.trace {
        crate::trace::write(path, &document.runs.iter().collect::<Vec<_>>())?;
    }
    let failed = document.runs.iter().flat_map(|r| &r.checks).any(|c| !c.ok);
    Ok(match failed {
        true => Exit::GateFailed,
        false if document.partial => Exit::Interrupted,
        false => Exit::Done,
    })
}

/// Carries a plan out: the control, then each scenario; `say` is told each part's text when it is done.
///
/// # Errors
/// Exit code 3 where the machine lacks what a heap needs.
pub fn perform(
    plan: &options::Plan,
    stop: &Stop,
    progress: &Progress,
    say: &dyn Fn(&str),
) -> Result<Document, Failure> {
    let mut document = Document {
        schema: SCENARIO.to_owned(),
        environment: Some(environment::probe(Measuring::default())),
        noise: None,
        runs: Vec::new(),
        partial: false,
        skipped: Vec::new(),
    };
    progress.stage("idle control");
    let noise = noise::control(plan.control_seconds(), stop);
    progress.finish();
    say(&text::noise(&noise));
    document.noise = Some(noise);
    let price = if plan.measure && !stop.requested() { Price::find() } else { None };
    let total = plan.scenarios.len() as f64;
    for (i, scenario) in plan.scenarios.iter().enumerate() {
        if stop.requested() {
            break;
        }
        let before = document.runs.len();
        let result = catalog::perform(*scenario, plan, price, stop, progress, &mut document);
        progress.finish();
        result?;
        progress.share((i + 1) as f64 / total);
        say(&text::scenario(*scenario, &document.runs[before..]));
    }
    document.skipped.sort();
    document.skipped.dedup();
    document.partial = stop.interrupted();
    say(&text::end(&document));
    Ok(document)
}
