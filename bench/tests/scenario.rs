//! `firn scenario` from outside: every scenario runs, what the scenarios are about shows, an interruption and the
//! lack of privilege leave valid reports. What needs the kernel's events needs root; without it a line says so.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firn_bench::perf::{Sampler, sampler};
use firn_bench::schema::{Document, LockMode, Run, Source};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// One scenario at a time: they measure the machine that they run on.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn firn(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
    command.args(args).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn document(output: &Output) -> Document {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
}

/// Runs a scenario and reads its JSON.
fn scenario(args: &[&str]) -> Document {
    let output = firn(&[&["scenario"], args, &["--json", "-"]].concat()).output().expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    document(&output)
}

/// Whether the kernel's events can be recorded; a line says what is missing.
fn traced() -> bool {
    let options = sampler::Options::default();
    match Sampler::start(options, Default::default()) {
        Ok(_) => true,
        Err(e) => {
            println!("skipped: {e}");
            false
        }
    }
}

fn run<'a>(document: &'a Document, name: &str) -> &'a Run {
    let names = || document.runs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>();
    document.runs.iter().find(|r| r.name == name).unwrap_or_else(|| panic!("{name}: {:?}", names()))
}

fn figure(run: &Run, name: &str) -> f64 {
    let found = run.figures.iter().find(|f| f.name == name);
    found.unwrap_or_else(|| panic!("{}: no figure {name}", run.name)).value
}

#[test]
fn every_scenario_runs_under_both_back_ends_and_says_what_it_measured() {
    let _alone = alone();
    let document = scenario(&["--all", "--quick"]);
    assert!(document.noise.as_ref().is_some_and(|n| n.hiccups.count > 100), "{:?}", document.noise);
    let environment = document.environment.as_ref().expect("where it was made");
    assert!(environment.cpus > 0 && !environment.kernel.is_empty());
    let mut names: Vec<_> = document.runs.iter().filter_map(|r| r.scenario.clone()).collect();
    names.dedup();
    let file_fault_skipped = document.skipped.iter().any(|s| s.contains("file-fault"));
    assert_eq!(names.len() + usize::from(file_fault_skipped), 9, "{names:?}");
    for run in &document.runs {
        assert!(!run.verdict.text.is_empty() && !run.roles.is_empty(), "{}", run.name);
        assert!(!run.figures.is_empty() && !run.latencies.is_empty(), "{}", run.name);
        assert!(run.hiccups.is_some() && !run.blocked.is_empty(), "{}", run.name);
        assert!(run.checks.iter().all(|c| c.ok), "{}: {:?}", run.name, run.checks);
        assert!(run.window.1 > run.window.0, "{}", run.name);
    }
}

#[test]
fn art_waits_in_its_flip_behind_writers_and_pingpong_does_not() {
    let _alone = alone();
    if !traced() {
        return;
    }
    for name in ["compact-vs-writers", "volatile-region"] {
        let document = scenario(&[name, "--duration", "3"]);
        let named =
            |variant: &str, backend: &str| run(&document, &format!("{name}/{variant}/{backend}"));
        let (art, quiet, storm) =
            (named("storm", "art"), named("quiet", "pingpong"), named("storm", "pingpong"));
        // A flip and its end: at least two for each cycle, whatever the storm.
        assert!(figure(art, "write_locks_per_cycle") >= 2.0, "{:?}", art.figures);
        let waited = figure(art, "flip_lock_wait_ns.p50");
        assert!(waited >= 1e6, "{name}: art's flips waited {waited} ns in the median");
        assert!(figure(art, "flip_ns.p50") >= waited);
        assert!(figure(storm, "cycles") >= 3.0 && figure(quiet, "cycles") >= 3.0);
        assert_eq!(figure(storm, "write_locks_per_cycle"), 0.0);
        assert_eq!(figure(quiet, "write_locks_per_cycle"), 0.0);
        let (calm, stormy) = (figure(quiet, "flip_ns.p50"), figure(storm, "flip_ns.p50"));
        println!("{name}: art waited {waited} ns; pingpong's flip {stormy} ns, quiet {calm} ns");
        assert!(stormy <= 2.0 * calm, "{name}: pingpong's flip {stormy} ns, quiet {calm} ns");
        assert!(stormy * 20.0 < figure(art, "flip_ns.p50"), "{name}");
        // Compaction itself is not in the lock: the writers are, with each other.
        let slept = art.blocked_by_role.iter().find(|b| b.role == "VmaWriter").expect("writers");
        assert_eq!(slept.source, Source::Tracepoints);
        let lock = slept.in_mmap_lock_ns.unwrap();
        assert!(lock > 0 && lock <= slept.uninterruptible_ns.unwrap());
    }
}

#[test]
fn a_low_priority_collector_holds_the_interface_up_under_art_and_not_under_pingpong() {
    let _alone = alone();
    if !traced() {
        return;
    }
    if !geteuid().is_root() {
        println!("skipped: raising the interface's priority needs root");
        return;
    }
    // Being preempted in the middle of a lock is a matter of chance: the worst of several runs, as many for the
    // one as for the other.
    let (mut art, mut pingpong) = (0.0f64, 0.0f64);
    for _ in 0..6 {
        let document = scenario(&["priority-inversion", "--duration", "5"]);
        art = art.max(figure(run(&document, "priority-inversion/art"), "ui_wait.worst_ns"));
        let other = run(&document, "priority-inversion/pingpong");
        pingpong = pingpong.max(figure(other, "ui_wait.worst_ns"));
        println!("the interface's longest wait so far: art {art} ns, pingpong {pingpong} ns");
        if art >= 10.0 * pingpong {
            break;
        }
    }
    assert!(art >= 10.0 * pingpong, "art {art} ns, pingpong {pingpong} ns");
}

#[test]
fn an_interruption_at_any_moment_leaves_a_valid_report() {
    let _alone = alone();
    for (i, wait_ms) in [1u64, 900, 3_000, 6_000].into_iter().enumerate() {
        let name = format!("{}-interrupted-{i}.json", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut command = firn(&["scenario", "--all", "--duration", "2", "--json"]);
        let mut child = command.arg(&path).stdout(Stdio::null()).spawn().expect("starts");
        while !path.exists() {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(wait_ms));
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("is running");
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "after {wait_ms} ms");
        let written = std::fs::read(&path).unwrap();
        let document: Document = serde_json::from_slice(&written).expect("valid JSON");
        assert!(document.partial && document.environment.is_some());
        let (last, whole) = match document.runs.split_last() {
            Some((last, whole)) => (Some(last), whole),
            None => (None, &[][..]),
        };
        assert!(whole.iter().all(|r| !r.partial), "only the last run was cut short");
        if let Some(last) = last {
            assert!(last.window.1 >= last.window.0 && !last.verdict.text.is_empty());
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn without_privilege_the_rest_is_measured_and_the_report_says_what_is_missing() {
    let _alone = alone();
    if !geteuid().is_root() {
        println!(
            "skipped: becoming somebody else needs root (the other tests run without privilege)"
        );
        return;
    }
    let mut command = firn(&[
        "scenario",
        "compact-vs-writers",
        "--quick",
        "--backend",
        "pingpong",
        "--json",
        "-",
    ]);
    // The overflow user, who owns nothing.
    let output = match command.uid(65_534).gid(65_534).output() {
        Ok(output) => output,
        Err(e) => return println!("skipped: another user may not run the program here ({e})"),
    };
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    let environment = document.environment.as_ref().unwrap();
    assert!(!environment.root);
    for run in &document.runs {
        assert!(run.locks.is_none(), "locks without the right to record them");
        assert!(!run.blocked.is_empty());
        for thread in &run.blocked {
            assert_ne!(thread.source, Source::Tracepoints);
            assert!(thread.run_queue_ns.is_some() && thread.in_mmap_lock_ns.is_none());
        }
        assert!(figure(run, "flip_ns.p50") > 0.0);
    }
    let said = document.skipped.join("\n");
    assert!(said.contains("root") || said.contains("CAP_PERFMON"), "{said}");
}

#[test]
fn waits_are_told_by_role_and_operation() {
    let _alone = alone();
    if !traced() {
        return;
    }
    let document = scenario(&["register-storm", "--quick", "--backend", "art"]);
    let storm = run(&document, "register-storm/storm/art");
    let locks = storm.locks.as_ref().unwrap();
    let registrar = |operation: &str| {
        let mut rows = locks.by_operation.iter();
        rows.find(|r| {
            r.mode == LockMode::Write && r.role == "Registrar" && r.operation == operation
        })
        .unwrap_or_else(|| panic!("{operation}: {:?}", locks.by_operation))
    };
    let (on, off) = (registrar("UFFDIO_REGISTER"), registrar("UFFDIO_UNREGISTER"));
    assert!(on.count > 10 && on.count.abs_diff(off.count) <= 1, "{} {}", on.count, off.count);
    assert!(figure(storm, "registers_per_s") > 10.0);
    let writes = locks.by_operation.iter().filter(|r| r.mode == LockMode::Write);
    let collector: Vec<&str> = writes
        .filter(|r| r.role == "HeapTaskDaemon" && r.count > 0)
        .map(|r| r.operation.rsplit(": ").next().unwrap())
        .collect();
    for call in ["mremap", "UFFDIO_REGISTER", "UFFDIO_UNREGISTER"] {
        assert!(collector.contains(&call), "{call}: {collector:?}");
    }
    assert!(!collector.contains(&"page fault"), "{collector:?}");
    let sum: u64 =
        locks.by_role.iter().filter(|r| r.mode == LockMode::Write).map(|r| r.count).sum();
    assert_eq!(sum, locks.of_mode(LockMode::Write).unwrap().count, "roles add up to everybody");
    for row in &locks.by_operation {
        assert_eq!(row.wait.decades.iter().sum::<u64>(), row.count, "{row:?}");
        assert_eq!(row.wait.fine.count, row.count);
    }
}
