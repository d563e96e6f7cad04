//! What the program writes beside its report, end to end: a run's JSON drawn as a page and as timelines,
//! compared, and refused when it is broken; and the live view on a real (pseudo) terminal.

use std::path::Path;
use std::process::{Command, Output};

#[path = "support/folder.rs"]
mod folder;
use folder::Folder;

fn firn(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_firn")).args(args).output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_is_drawn_traced_compared_and_gated() {
    let folder = Folder::new("output-whole");
    let names = [("art", "a.json"), ("pingpong", "b.json")];
    for (backend, name) in names {
        let (json, trace) = (folder.path(name), folder.path(&format!("{name}.pftrace")));
        let run = firn(&[
            "stress",
            "--workload",
            "frames",
            "--quick",
            "--duration",
            "1s",
            "--backend",
            backend,
            "--json",
            &json,
            "--trace",
            &trace,
        ]);
        if code(&run) == 3 {
            println!("skipped: no userfaultfd here: {}", text(&run.stderr));
            return;
        }
        assert_eq!(code(&run), 0, "{run:?}");
        let bytes = std::fs::read(&trace).unwrap();
        assert_eq!(bytes[0], 0x0a, "a trace begins with a packet");
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
        for name in ["GC phases", "pause: flip", "worst frame 1: frame ", "Mutator-0: faults"] {
            assert!(has(name.as_bytes()), "{backend}: {name}");
        }
    }
    let (a, b, page, chrome) = (
        folder.path("a.json"),
        folder.path("b.json"),
        folder.path("x.html"),
        folder.path("x.json"),
    );
    let report = firn(&["report", &a, &b, "-o", &page, "--trace", &chrome]);
    assert_eq!(code(&report), 0, "{report:?}");
    let html = std::fs::read_to_string(&page).unwrap();
    for part in
        ["data-kind=\"percentiles\"", "data-kind=\"overrun\"", "data-kind=\"heat\"", "pingpong"]
    {
        assert!(html.contains(part), "{part}");
    }
    let events: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&chrome).unwrap()).unwrap();
    assert!(events["traceEvents"].as_array().unwrap().len() > 100);

    for (gate, expected) in [
        ("frames.120hz.missed <= 100%", 0),
        ("fault.max < 0*base", 1),
        ("fault.max < ", 2),
        ("no.such.metric < 1", 2),
    ] {
        let compare = firn(&["compare", &a, "--gate", gate, "--", &b]);
        assert_eq!(code(&compare), expected, "{gate}: {compare:?}");
        let lines = text(&compare.stderr).lines().count();
        assert_eq!(lines, usize::from(expected == 2), "{gate}: {compare:?}");
    }
    let lkml = firn(&["compare", "--format", "lkml", &a, &b]);
    assert!(text(&lkml.stdout).lines().all(|l| l.chars().count() <= 72), "{lkml:?}");
    assert!(text(&lkml.stdout).contains("backend: art before, pingpong after"));

    // Damage at a few places: always one line, never a wrong report.
    let whole = std::fs::read(&a).unwrap();
    for at in [0, 1, whole.len() / 3, whole.len() - 3] {
        std::fs::write(folder.path("cut.json"), &whole[..at]).unwrap();
        let refused = firn(&["report", &folder.path("cut.json"), "-o", &folder.path("no.html")]);
        assert_eq!(code(&refused), 2, "{at}");
        assert_eq!(text(&refused.stderr).lines().count(), 1, "{at}: {refused:?}");
        assert!(!Path::new(&folder.path("no.html")).exists());
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_found_out_before_the_run() {
    let refused = firn(&["stress", "--quick", "--trace", "/no/such/folder/x.pftrace"]);
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("/no/such/folder/x.pftrace"), "{refused:?}");
}

#[test]
fn live_without_a_terminal_is_refused() {
    let refused = firn(&["stress", "--quick", "--live"]);
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("--live: standard error is no terminal"), "{refused:?}");
}

/// Runs a shell line on a pseudo terminal of its own; what appeared on it. `None` if `script` is missing.
fn on_a_terminal(line: &str) -> Option<String> {
    let output =
        Command::new("script").args(["-qec", line, "/dev/null"]).env("TERM", "xterm").output();
    match output {
        Ok(output) => Some(text(&output.stdout)),
        Err(e) => {
            println!("skipped: no pseudo terminal: script (util-linux) cannot be run: {e}");
            None
        }
    }
}

#[test]
fn the_live_view_shows_numbers_and_leaves_the_terminal_as_it_was() {
    let firn = env!("CARGO_BIN_EXE_firn");
    let run = format!("{firn} stress --workload frames --quick --duration 2s --live");
    // In the end it is left alone, interrupted, and killed where it stands.
    for (how, line) in [
        ("ended", run.clone()),
        ("interrupted", format!("timeout -s INT 2 {run}")),
        ("killed", format!("timeout -s KILL 2 {run}")),
    ] {
        let line = format!("stty cols 100 rows 40; stty -g; {line}; echo; stty -g");
        let Some(seen) = on_a_terminal(&line) else { return };
        if seen.contains("userfaultfd") && seen.contains("remedy") {
            println!("skipped: no userfaultfd here");
            return;
        }
        for part in ["collector  ", "pauses  ", "mmap_lock  write:", "hiccups  "] {
            assert!(seen.contains(part), "{how}: {part}: {seen}");
        }
        // Another screen, a hidden cursor, mouse reports: nothing that would have to be undone.
        for mode in ["\x1b[?1049h", "\x1b[?47h", "\x1b[?25l", "\x1b[?1000h", "\x1b[?1h"] {
            assert!(!seen.contains(mode), "{how}: {mode:?}");
        }
        let settings: Vec<&str> = seen
            .lines()
            .map(str::trim)
            .filter(|l| {
                l.matches(':').count() > 10
                    && l.split(':').all(|p| p.chars().all(|c| c.is_ascii_hexdigit()))
            })
            .collect();
        assert_eq!(settings.len(), 2, "{how}: {seen}");
        assert_eq!(settings[0], settings[1], "{how}");
    }
}
