//! `firn scheme --bench` from outside. The rival is a script, so that the test needs no other Scheme.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A directory with programs and a `chibi-scheme` that is none.
struct Setting(PathBuf);

impl Setting {
    fn new(name: &str) -> Setting {
        let path = std::env::temp_dir().join(format!("firn-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("programs")).expect("writable");
        fs::create_dir_all(path.join("bin")).expect("writable");
        let rival = path.join("bin/chibi-scheme");
        fs::write(&rival, "#!/bin/sh\necho 'Elapsed time: 0.5 seconds'\n").expect("writable");
        fs::set_permissions(&rival, fs::Permissions::from_mode(0o755)).expect("ours");
        Setting(path)
    }

    fn program(&self, name: &str, text: &str) {
        fs::write(self.0.join("programs").join(name), text).expect("writable");
    }

    /// The comparison, in a process group of its own.
    fn command(&self, json: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
        command
            .args(["scheme", "--rounds", "1", "--bench"])
            .arg(self.0.join("programs"))
            .arg("--json")
            .arg(json)
            // Nothing but the rival.
            .env("PATH", self.0.join("bin"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_interruption_keeps_what_was_measured() {
    let setting = Setting::new("bench-interrupted");
    let (json, begun) = (setting.0.join("out.json"), setting.0.join("begun"));
    setting.program("a.scm", "(display \"Elapsed time: 0.25 seconds\")");
    setting.program(
        "b.scm",
        &format!(
            "(call-with-output-file {:?} (lambda (port) (write 1 port))) (let loop () (loop))",
            begun.display().to_string()
        ),
    );
    let child = setting.command(&json).spawn().expect("it is there");
    let patience = Instant::now() + Duration::from_secs(60);
    while !begun.exists() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Twice, as `timeout` does: that is one wish to end.
    let group = Pid::from_raw(child.id() as i32);
    killpg(group, Signal::SIGINT).expect("it runs");
    killpg(group, Signal::SIGINT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(130),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.starts_with("firn ran all 1 programs"), "{text}");
    assert!(text.contains("(Interrupted: a part only.)"), "{text}");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(&json).expect("it was written")).expect("JSON");
    assert_eq!(report["partial"], true);
    let programs = report["programs"].as_array().expect("a list");
    assert_eq!(programs[0]["systems"]["firn"]["seconds"], 0.25, "{report}");
    assert_eq!(programs[0]["systems"]["chibi"]["seconds"], 0.5, "{report}");
    assert!(programs[1..].iter().all(|row| row["systems"]["firn"].is_null()), "{report}");
}

#[test]
fn ratios_failures_and_what_is_missing_are_told() {
    let setting = Setting::new("bench-whole");
    let json = setting.0.join("out.json");
    setting.program("a.scm", "(display \"Elapsed time: 0.25 seconds\")");
    setting.program("b.scm", "(car 5)");
    let output = setting.command(&json).args(["--only", "c"]).output().expect("it is there");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("no program c") && complaint.contains("are a, b"), "{complaint}");
    let output = setting.command(&json).output().expect("it is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The rival ran what Firn did not.
    assert_eq!(output.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("firn ran 1 of 2 programs"), "{text}");
    assert!(text.contains("b failed under firn") && text.contains("not a pair: 5"), "{text}");
    assert!(text.contains("0.500  (0.50)"), "{text}");
    assert!(text.contains("guile, JIT: not on this machine"), "{text}");
}
