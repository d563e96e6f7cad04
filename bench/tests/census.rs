//! `firn census` as its users run it: a process that does nothing else, as neighbours on the same address
//! space would disturb its counts. Where the machine refuses the kernel's events (they need root, and a
//! mounted tracefs), the tests print what `firn` says is missing, and stop.

use std::process::{Command, Output};

use serde_json::Value;

fn census(args: &[&str]) -> Option<Output> {
    let firn = Command::new(env!("CARGO_BIN_EXE_firn")).arg("census").args(args).output().unwrap();
    if firn.status.code() == Some(3) {
        println!("skipped: {}", String::from_utf8_lossy(&firn.stderr));
        return None;
    }
    Some(firn)
}

#[test]
fn this_kernel_takes_its_locks_as_is_known_of_its_release() {
    let Some(output) = census(&["--runs", "10", "--json", "-"]) else { return };
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = json["operations"].as_array().unwrap();
    assert_eq!(rows.len(), firn_bench::census::operations().len());
    for row in rows.iter().filter(|row| row["as_known"].is_null()) {
        println!("not compared: {}: {}", row["name"], row["note"]);
    }
    let differs: Vec<_> = rows.iter().filter(|row| row["as_known"] == false).collect();
    assert!(differs.is_empty(), "{differs:#?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_table_leads_with_its_verdict_and_fits_a_terminal() {
    let Some(output) = census(&["--quick", "--only", "DONTNEED"]) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("On "), "{text}");
    assert!(text.contains("DONTNEED, two VMAs") && !text.contains("munmap "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_name_that_fits_nothing_is_bad_usage() {
    let output = census(&["--only", "dance"]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("dance") && error.lines().count() == 1, "{error}");
}
