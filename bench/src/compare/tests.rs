//! The command as a whole, on made-up files.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;
use crate::report::samples;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: CompareArgs,
}

/// A folder with files of two groups; removed when dropped.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn new(name: &str, before: usize, after: usize) -> Files {
        let folder =
            std::env::temp_dir().join(format!("firn-compare-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..before {
            std::fs::write(folder.join(format!("a{i}.json")), samples::text(&["art"], i as u64))
                .unwrap();
        }
        for i in 0..after {
            let text = samples::text(&["pingpong"], 100 + i as u64).replace("6.18.0", "6.6.1");
            std::fs::write(folder.join(format!("b{i}.json")), text).unwrap();
        }
        Files { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn side(&self, letter: &str, n: usize) -> Vec<String> {
        (0..n).map(|i| self.path(&format!("{letter}{i}.json"))).collect()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn compare(words: &[&str], before: &[String], after: &[String]) -> Result<(Exit, String), Failure> {
    let mut line = vec!["compare".to_owned()];
    line.extend(words.iter().map(|w| (*w).to_owned()));
    line.extend_from_slice(before);
    if !after.is_empty() {
        line.push("--".to_owned());
        line.extend_from_slice(after);
    }
    let args = Cli::try_parse_from(line).unwrap().args;
    let out = RefCell::new(String::new());
    let exit = run(&args, |text| out.borrow_mut().push_str(text))?;
    Ok((exit, out.into_inner()))
}

/// Text without its line breaks.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_terminal_table_fits_and_says_what_changed() {
    let files = Files::new("text", 6, 6);
    let (exit, text) = compare(&[], &files.side("a", 6), &files.side("b", 6)).unwrap();
    assert_eq!(exit, Exit::Done);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    assert!(text.starts_with("Of "), "{text}");
    assert!(text.contains("kernel: 6.18.0 before, 6.6.1 after"), "{text}");
    assert!(text.contains("backend: art before, pingpong after"), "{text}");
    let wait = text.lines().find(|l| l.contains("figure.pause_wait_p50")).unwrap();
    assert!(wait.contains("8.00 ms") && wait.contains("20.0 us") && wait.ends_with('*'), "{wait}");
}

#[test]
fn the_mailing_list_form_fits_72_columns_and_its_decades_add_up() {
    let files = Files::new("lkml", 5, 3);
    let (_, text) =
        compare(&["--format", "lkml"], &files.side("a", 5), &files.side("b", 3)).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= lkml::WIDTH, "{} columns: {line}", line.chars().count());
        assert!(line.is_ascii() && !line.contains('\t'), "{line}");
        assert_eq!(line, line.trim_end());
    }
    let write = text.split("mmap_lock write, a run").nth(1).unwrap();
    let cell = |line: &str, i: usize| -> u64 {
        let cells: Vec<&str> = line[30..].split_whitespace().collect();
        cells[i].replace(',', "").parse().unwrap()
    };
    let lines: Vec<&str> = write.lines().collect();
    let at = |name: &str| lines.iter().position(|l| l.trim_start().starts_with(name)).unwrap();
    let first = at("waits of [0,1) us");
    for side in [0, 1] {
        let sum: u64 = lines[first..first + 8].iter().map(|l| cell(l, side)).sum();
        // Each decade is rounded by itself.
        assert!(sum.abs_diff(cell(lines[at("acquisitions")], side)) <= 4, "{text}");
    }
    for part in [
        "total wait (us)",
        "average wait (us)",
        "of it in mmap_lock (ms)",
        "compaction, median",
        "HeapTaskDaemon write",
        "n/a",
    ] {
        assert_eq!(text.contains(part), part != "n/a", "{part}: {text}");
    }
}

#[test]
fn markdown_is_a_table_that_no_name_can_break() {
    let files = Files::new("markdown", 2, 2);
    let (_, text) =
        compare(&["--format", "markdown"], &files.side("a", 2), &files.side("b", 2)).unwrap();
    let rows: Vec<&str> = text.lines().filter(|l| l.starts_with('|')).collect();
    assert!(rows.len() > 20);
    for row in rows {
        assert_eq!(row.matches('|').count() - row.matches("\\|").count(), 8, "{row}");
    }
}

#[test]
fn json_has_every_value_and_the_tests() {
    let files = Files::new("json", 4, 4);
    let words = ["--format", "json", "--all", "--gate", "fault.p99 < 100 s"];
    let (_, text) = compare(&words, &files.side("a", 4), &files.side("b", 4)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], json::SCHEMA);
    assert_eq!(value["gates"][0]["holds"], true);
    let metrics = value["groups"][0]["metrics"].as_array().unwrap();
    let p99 = metrics.iter().find(|m| m["name"] == "lock.write.wait.p99").unwrap();
    assert_eq!(p99["before"].as_array().unwrap().len(), 4);
    assert_eq!(p99["mann_whitney"]["exact"], true);
    assert!(p99["interval_before"]["confidence"].as_f64().unwrap() < 0.9);
}

#[test]
fn gates_decide_the_exit_code() {
    let files = Files::new("gates", 3, 3);
    let (a, b) = (files.side("a", 3), files.side("b", 3));
    let with = |gate: &str| compare(&["--gate", gate], &a, &b);
    let (exit, text) = with("figure.pause_wait_p50 < 0.1*base").unwrap();
    assert_eq!(exit, Exit::Done, "{text}");
    assert!(text.starts_with("The gate held."));
    let (exit, text) = with("figure.pause_wait_p50 > base").unwrap();
    assert_eq!(exit, Exit::GateFailed);
    assert!(
        text.contains("gate FAILS") && joined(&text).contains("20.0 us against 8.00 ms"),
        "{text}"
    );
    // pingpong's daemon never took it for writing, so there is no wait to judge.
    let (exit, text) = with("lock.HeapTaskDaemon.write.wait.p99 < base").unwrap();
    assert_eq!(exit, Exit::GateFailed);
    assert!(joined(&text).contains("was not measured after"), "{text}");
    let (exit, _) = with("lock.HeapTaskDaemon.write.count == 0").unwrap();
    assert_eq!(exit, Exit::Done);
    let failure = with("lock.write.wiat.p99 < base").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(
        failure.message.contains("did you mean") && failure.message.contains("lock.write.wait.p99")
    );
    assert_eq!(with("lock.write.wait.p99 <").unwrap_err().exit, Exit::Usage);
}

#[test]
fn two_back_ends_of_the_same_files_can_be_compared() {
    let files = Files::new("backends", 0, 0);
    let names: Vec<String> = (0..4)
        .map(|i| {
            let path = files.path(&format!("{i}.json"));
            std::fs::write(&path, samples::text(&["art", "pingpong"], i)).unwrap();
            path
        })
        .collect();
    let (_, text) = compare(&["--backends", "art,pingpong"], &names, &[]).unwrap();
    assert!(text.contains("backend: art before, pingpong after"), "{text}");
    let failure = compare(&["--backends", "art,stw"], &names, &[]).unwrap_err();
    assert!(failure.message.contains("back end stw"), "{failure}");
    let failure = compare(&["--only", "nothing"], &names[..1], &names[1..]).unwrap_err();
    assert!(failure.message.contains("--only nothing"), "{failure}");
}

#[test]
fn the_sides_must_be_clear() {
    let none: [String; 0] = [];
    for (before, after) in [(vec![], vec![]), (vec!["a".to_owned()], vec![])] {
        let failure = compare(&[], &before, &after).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("-- AFTER.json"), "{failure}");
    }
    let three = ["a", "b", "c"].map(str::to_owned);
    assert!(compare(&[], &three, &none).is_err());
}

#[test]
fn bad_files_are_one_clear_line() {
    let files = Files::new("bad", 1, 1);
    let cut = files.path("cut.json");
    let text = std::fs::read_to_string(files.path("a0.json")).unwrap();
    std::fs::write(&cut, &text[..text.len() / 2]).unwrap();
    for (path, said) in
        [(cut.as_str(), "is cut off"), ("/no/such.json", "cannot be read"), ("/", "a folder")]
    {
        let failure = compare(&[], &files.side("a", 1), &[path.to_owned()]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.starts_with(path) && failure.message.contains(said), "{failure}");
        assert!(!failure.message.contains('\n'));
    }
}

#[test]
fn metrics_can_be_listed_and_chosen() {
    let files = Files::new("metrics", 1, 1);
    let (_, text) = compare(&["--metrics"], &[], &[]).unwrap();
    assert!(text.contains("lock.MODE.wait.STAT"));
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    let (_, text) = compare(&["--metrics"], &files.side("a", 1), &[]).unwrap();
    assert!(text.contains("lock.HeapTaskDaemon.write.wait.p99"));
    let (_, text) =
        compare(&["--metric", "hiccup"], &files.side("a", 1), &files.side("b", 1)).unwrap();
    assert!(text.contains("hiccup.p9999") && !text.contains("throughput"), "{text}");
    assert!(text.contains("one run is no sample"), "{text}");
    assert!(Path::new(&files.folder).exists());
}
