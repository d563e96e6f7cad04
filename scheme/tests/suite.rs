//! The tests in Scheme (`tests/suite/`): R7RS chapters 2 and 4 to 6, section by section, and threads; under each
//! back end, with verification, with collections forced, and in a heap that is barely larger than what lives.

mod support;

use support::{Run, programs, run};

/// Runs all files of the suite; the number of sections that passed.
fn suite(options: &str) -> usize {
    let mut sections = 0;
    for file in programs("tests/suite") {
        if file.ends_with("test.scm") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("readable");
        let name = file.to_str().expect("UTF-8");
        let Some(Run { exit, output, errors }) = run(options, &text, name, &[], "") else {
            return 0;
        };
        assert_eq!(exit, 0, "{name} with {options}:\n{output}\n{errors}");
        let passed = output.lines().filter(|line| line.ends_with(" passed")).count();
        // Not one section was left out by an early end.
        let announced = text.lines().filter(|line| line.starts_with("(section ")).count();
        assert_eq!(passed, announced, "{name} with {options}:\n{output}");
        sections += passed;
    }
    sections
}

#[test]
fn the_suite_passes_on_pingpong() {
    suite("heap=128m,backend=pingpong");
}

#[test]
fn the_suite_passes_on_art() {
    suite("heap=128m,backend=art");
}

#[test]
fn the_suite_passes_on_mprotect() {
    suite("heap=128m,backend=mprotect");
}

#[test]
fn the_suite_passes_on_stw() {
    assert!(suite("heap=128m,backend=stw") > 50);
}

#[test]
fn the_suite_passes_with_verification() {
    suite("heap=128m,verify=true,stress-every=200003");
}

#[test]
fn the_suite_passes_with_a_collection_at_every_nth_allocation() {
    suite("heap=128m,stress-every=10007");
}

#[test]
fn the_suite_passes_when_a_fault_thread_serves_and_pages_are_copied() {
    suite("heap=128m,fault=thread,install=copy,stress-every=50021");
}

#[test]
fn the_suite_passes_in_a_small_heap() {
    suite("heap=64m");
}
