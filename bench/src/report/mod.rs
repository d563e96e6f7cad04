//! `firn report`: runs as one page for a browser, and as a timeline for Perfetto.
//!
//! The page is a single file that asks for nothing over the network: [`model`] sorts the runs into
//! sections and series, [`pictures`] computes what is drawn and the tables behind it, [`html`]
//! writes the page, and the script in `assets/` draws. The script computes no figure: all that it
//! shows is in the tables too, so the page can be read without it.

pub mod curves;
pub mod html;
pub mod kernels;
pub mod model;
pub mod pictures;
#[cfg(test)]
pub mod samples;
pub mod tables;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::kernels::set::Set;
use crate::results::Results;

/// `firn report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Files written by `--json`, or sets of `firn kernels run -o`, which are drawn by kernel. `LABEL=` before files puts them together under that name, apart from
    /// those of other labels; `LABEL=FILE` does so for one
    #[arg(value_name = "[LABEL=] FILE", required = true)]
    pub files: Vec<String>,
    /// The page to write; `-` is standard output
    #[arg(short, long, value_name = "FILE.html", default_value = "firn-report.html")]
    pub output: PathBuf,
    /// Of a file of `firn kernels`: the kernel that others are compared with [default: the oldest]
    #[arg(long, value_name = "KERNEL")]
    pub base: Option<String>,
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

/// Files with their labels. A file whose own name has a `=` in it, and exists, is no label.
fn labelled(texts: &[String]) -> Vec<(String, PathBuf)> {
    let mut current = "";
    let mut files = Vec::new();
    for text in texts {
        match text.split_once('=') {
            Some((label, "")) if !Path::new(text).exists() => current = label,
            Some((label, path)) if !Path::new(text).exists() => {
                files.push((label.to_owned(), path.into()))
            }
            _ => files.push((current.to_owned(), text.into())),
        }
    }
    files
}

/// Does what the command line says.
///
/// # Errors
/// Exit code 2 for a file that cannot be read or written, or if nothing is left to be shown.
pub fn run(args: &ReportArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    let named = labelled(&args.files);
    let sets = named.iter().filter(|(_, path)| Set::is_one(path)).count();
    if sets > 0 {
        if sets < named.len() || args.trace.is_some() {
            return Err(Failure::usage(
                "a set of `firn kernels` is drawn by kernel, with nothing else beside it: for single runs and \
                 timelines, split it (`firn kernels compare SET --split DIR`)",
            ));
        }
        let sets = named.iter().map(|(_, path)| Set::read(path)).collect::<Result<Vec<_>, _>>()?;
        let set = Set::merge(sets)?;
        let page = kernels::page(&set, args.base.as_deref(), args.only.as_deref())?;
        return finish(args, &page, print);
    }
    if args.base.is_some() {
        return Err(Failure::usage("--base: names a kernel of a set; none of the files is one"));
    }
    let mut files = Vec::new();
    for (label, path) in named {
        files.push(Labelled { label, results: Results::read(&path)? });
    }
    if files.is_empty() {
        return Err(Failure::usage("labels only: name the files that they are for"));
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
    finish(args, &html::page(&model::sections(&files), &files), print)
}

/// Writes the page where it is wanted.
fn finish(args: &ReportArgs, page: &str, print: impl Fn(&str)) -> Result<Exit, Failure> {
    if args.output.as_os_str() == "-" {
        print(page);
        return Ok(Exit::Done);
    }
    std::fs::write(&args.output, page).map_err(|e| {
        Failure::usage(format!("-o {}: cannot be written: {e}", args.output.display()))
    })?;
    print(&format!("{}: {} KiB, opens in any browser\n", args.output.display(), page.len() >> 10));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
