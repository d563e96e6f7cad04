//! Tests that cross crates: see `tests/tests/`, one file for each claim.
