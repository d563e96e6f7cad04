//! What holds without a kernel that tells of its locks; `tests/census.rs` takes the census itself, in a
//! process of its own.

use super::*;

#[test]
fn names_are_distinct_and_fit_the_table() {
    let mut names: Vec<_> = operations().iter().map(|o| o.name).collect();
    assert!(names.len() >= 40, "{}", names.len());
    assert!(names.iter().all(|n| n.len() <= 33), "{names:?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), operations().len());
}

#[test]
fn a_name_that_fits_nothing_is_bad_usage() {
    let args = CensusArgs { runs: 1, only: Some("dance".into()), quick: true, json: None };
    let failure = run(&args, |_| {}).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("dance"), "{failure}");
}
