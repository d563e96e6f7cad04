//! `firn report`: runs as one page for a browser.

#[cfg(test)]
pub mod samples;
