//! The `firn` program from outside: exit codes, one-line errors, JSON, interruption.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn firn(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    firn(args).output().expect("firn starts")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}{}", text(&output.stdout), text(&output.stderr));
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn temporary(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

#[test]
fn no_command_prints_the_help() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(0));
    let out = text(&output.stdout);
    assert!(out.contains("stress") && out.contains("doctor") && out.contains("Exit codes"));
}

#[test]
fn bad_usage_is_one_line_and_exit_code_2() {
    for args in [
        &["stress", "--workload", "lur"][..],
        &["stress", "--backend", "fast"],
        &["stress", "--heap", "lots"],
        &["stress", "--heap", "100m"],
        &["stress", "--heap", "1"],
        &["stress", "--mutators", "0"],
        &["stress", "--backend", "stw", "--fault", "thread"],
        &["stress", "--workload", "frames", "--mode", "closed"],
        &["stress", "--gc", "nonsense=1"],
        &["stress", "--json", "/no/such/folder/out.json"],
        &["stress", "--no-such-option"],
        &["dance"],
    ] {
        let output = run(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.starts_with("firn: "), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_heap_that_turns_out_too_small_is_bad_usage_too() {
    let args = ["stress", "--workload", "graph", "--quick", "--backend", "stw", "--heap", "1m"];
    let output = run(&args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn one_seed_has_one_digest_whatever_the_back_end() {
    let digest = |backend: &str| {
        let output = run(&[
            "stress",
            "--workload",
            "graph",
            "--rounds",
            "4",
            "--ops",
            "1000",
            "--seed",
            "7",
            "--backend",
            backend,
            "--json",
            "-",
        ]);
        assert_eq!(output.status.code(), Some(0), "{backend}: {}", text(&output.stderr));
        let report = json(&output);
        assert_eq!(report["backend"], backend);
        assert_eq!(report["partial"], false);
        assert!(report["cycles"].as_u64().unwrap() >= 4, "{backend}: {}", report["cycles"]);
        report["digest"].as_str().unwrap().to_owned()
    };
    let of_stw = digest("stw");
    if run(&["doctor"]).status.code() == Some(3) {
        println!("userfaultfd is refused here: only stw was run");
        return;
    }
    for backend in ["pingpong", "art", "mprotect"] {
        assert_eq!(digest(backend), of_stw, "{backend}");
    }
}

#[test]
fn an_interrupted_run_still_reports_and_says_that_it_is_partial() {
    let path = temporary("partial.json");
    let json_file = path.to_str().unwrap();
    let child = firn(&["stress", "--backend", "stw", "--duration", "300", "--json", json_file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("Interrupted"), "{}", text(&output.stdout));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(report["partial"], true);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child =
        firn(&["doctor"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}", output.status);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn doctor_says_what_is_there_and_gives_the_same_as_json() {
    let output = run(&["doctor"]);
    let out = text(&output.stdout);
    assert!(out.starts_with("This machine") && out.contains("userfaultfd"), "{out}");
    let report = json(&run(&["doctor", "--json", "-"]));
    assert_eq!(report["schema"], "firn-doctor-1");
    let works = report["default_backend_works"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if works { 0 } else { 3 }));
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!(finding["severity"] == "ok", finding["remedy"].is_null(), "{finding}");
    }
}

#[test]
fn no_progress_is_drawn_into_a_pipe() {
    let output = run(&["stress", "--workload", "graph", "--quick", "--backend", "stw"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(!out.contains('\u{1b}') && !out.contains('\r'));
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}
