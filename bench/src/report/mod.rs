//! `firn report`: runs as one page for a browser, and as a timeline for Perfetto.
//!
//! The page is a single file that asks for nothing over the network: [`model`] sorts the runs into
//! sections and series, [`pictures`] computes what is drawn and the tables behind it, [`html`]
//! writes the page, and the script in `assets/` draws. The script computes no figure: all that it
//! shows is in the tables too, so the page can be read without it.

pub mod curves;
pub mod html;
pub mod model;
pub mod pictures;
#[cfg(test)]
pub mod samples;
pub mod tables;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::results::Results;

/// `firn report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Files written by `--json`; `LABEL=FILE` puts files of a label together and tells labels apart
    #[arg(value_name = "[LABEL=]FILE", required = true)]
    pub files: Vec<String>,
    /// The page to write; `-` is standard output
    #[arg(short, long, value_name = "FILE.html", default_value = "firn-report.html")]
    pub output: PathBuf,
    /// Only runs whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Also write the runs' single events as a timeline for Perfetto: protobuf, or Chrome's JSON if
    /// the name ends in `.json`
    #[arg(long, value_name = "FILE.pftrace")]
    pub trace: Option<PathBuf>,
}

/// A file of a report, and the label that the user gave it.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// The label; empty if there is none.
    pub label: String,
    /// The file.
    pub results: Results,
}

/// `LABEL=FILE` taken apart. A file whose own name has a `=` in it, and exists, is no label.
fn labelled(text: &str) -> (String, PathBuf) {
    match text.split_once('=') {
        Some((label, path)) if !Path::new(text).exists() => (label.to_owned(), path.into()),
        _ => (String::new(), text.into()),
    }
}

/// Does what the command line says.
///
/// # Errors
/// Exit code 2 for a file that cannot be read or written, or if nothing is left to be shown.
pub fn run(args: &ReportArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    for text in &args.files {
        let (label, path) = labelled(text);
        files.push(Labelled { label, results: Results::read(&path)? });
    }
    if let Some(only) = &args.only {
        for file in &mut files {
            file.results.document.runs.retain(|run| run.name.contains(only.as_str()));
        }
        if files.iter().all(|file| file.results.document.runs.is_empty()) {
            return Err(Failure::usage(format!("--only {only}: no run has this in its name")));
        }
    }
    if let Some(path) = &args.trace {
        let runs: Vec<_> = files.iter().flat_map(|file| &file.results.document.runs).collect();
        crate::trace::write(path, &runs)?;
    }
    let page = html::page(&model::sections(&files), &files);
    if args.output.as_os_str() == "-" {
        print(&page);
        return Ok(Exit::Done);
    }
    std::fs::write(&args.output, &page).map_err(|e| {
        Failure::usage(format!("-o {}: cannot be written: {e}", args.output.display()))
    })?;
    print(&format!("{}: {} KiB, opens in any browser\n", args.output.display(), page.len() >> 10));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
