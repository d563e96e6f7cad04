//! The programs of a directory, and the files that the systems get to run.

use super::Options;
use super::rivals::System;
use crate::exit::Failure;
use std::fs;
use std::path::{Path, PathBuf};

/// A program to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its name: the file's without `.scm`.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What it reads from standard input.
    pub input: Option<PathBuf>,
    /// The directory it comes from.
    pub directory: PathBuf,
    /// Code that is put after it, in the layout of the r7rs benchmarks.
    pub common: Option<PathBuf>,
}

/// The programs of the directory.
///
/// # Errors
/// If there are none, or a name that was asked for is not among them.
pub fn find(options: &Options) -> Result<Vec<Program>, Failure> {
    let top = fs::canonicalize(&options.directory)
        .map_err(|why| Failure::usage(format!("--bench {}: {why}", options.directory.display())))?;
    let published = top.join("src/common.scm").is_file();
    let sources = if published { top.join("src") } else { top.clone() };
    let mut programs = Vec::new();
    for entry in entries(&sources)? {
        let name = entry.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Preludes and postludes of other systems, and the common part, are no programs.
        let part = name.ends_with("prelude") || name.ends_with("postlude") || name == "common";
        if entry.extension().is_none_or(|extension| extension != "scm") || published && part {
            continue;
        }
        let input = match published {
            true => top.join("inputs").join(format!("{name}.input")),
            false => sources.join(format!("{name}.input")),
        };
        let input = input.is_file().then_some(input);
        if published && input.is_none() {
            continue;
        }
        let common = published.then(|| top.join("src/common.scm"));
        programs.push(Program { name, file: entry, input, directory: top.clone(), common });
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(unknown) =
        options.only.iter().find(|name| programs.iter().all(|p| p.name != **name))
    {
        let names: Vec<&str> = programs.iter().map(|p| p.name.as_str()).collect();
        return Err(Failure::usage(format!(
            "--only: there is no program {unknown} in {}, but there are {}",
            sources.display(),
            if names.is_empty() { "none".into() } else { names.join(", ") }
        )));
    }
    if !options.only.is_empty() {
        programs.retain(|program| options.only.contains(&program.name));
    }
    if programs.is_empty() {
        return Err(Failure::usage(format!(
            "--bench {}: no programs there; give a directory of *.scm files",
            top.display()
        )));
    }
    Ok(programs)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = |why| Failure::usage(format!("{}: {why}", directory.display()));
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(cannot)? {
        paths.push(entry.map_err(cannot)?.path());
    }
    Ok(paths)
}

/// A directory of our own, gone when the comparison is.
#[derive(Debug)]
pub struct WorkDirectory {
    path: PathBuf,
}

impl WorkDirectory {
    /// Makes it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<WorkDirectory, Failure> {
        let path = std::env::temp_dir().join(format!("firn-scheme-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|why| {
            Failure::missing(format!("{} could not be made: {why}", path.display()))
        })?;
        Ok(WorkDirectory { path })
    }

    /// A directory to run programs in: links to all that `directory` has. What programs write beside their inputs is
    /// gone when the comparison is.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn stage(&self, directory: &Path) -> Result<PathBuf, Failure> {
        let stage = self.path.join("stage");
        let cannot = |why: std::io::Error| {
            Failure::missing(format!("{} could not be made: {why}", stage.display()))
        };
        fs::create_dir_all(&stage).map_err(cannot)?;
        for entry in entries(directory)? {
            let link = stage.join(entry.file_name().unwrap_or_default());
            std::os::unix::fs::symlink(&entry, link).map_err(cannot)?;
        }
        Ok(stage)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into it.
    ///
    /// # Errors
    /// If that fails.
    pub fn write(&self, name: &str, text: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(|why| {
            Failure::missing(format!("{} could not be written: {why}", path.display()))
        })?;
        Ok(path)
    }

    /// The file that a system runs: the program itself, or with the common part of the r7rs benchmarks behind it.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn prepare(
        &self,
        program: &Program,
        system: &System,
        first: bool,
    ) -> Result<PathBuf, Failure> {
        let Some(common) = &program.common else {
            return Ok(program.file.clone());
        };
        let name = format!("{}-{:?}.scm", program.name, system.kind);
        if !first {
            return Ok(self.path.join(name));
        }
        let read = |path: &Path| {
            fs::read(path).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))
        };
        let mut text = read(&program.file)?;
        let start: &[u8] = match text.windows(13).any(|part| part == b"(define (main") {
            true => b"\n(main)\n",
            false => b"\n(run-benchmark)\n",
        };
        let mut own = Vec::new();
        own.extend_from_slice(b"\n(define (this-scheme-implementation-name) \"");
        own.extend_from_slice(system.name.as_bytes());
        own.extend_from_slice(b"\")\n");
        text.extend(own);
        text.extend(read(common)?);
        text.extend_from_slice(start);
        self.write(&name, &text)
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        // A directory that cannot be removed is no reason to fail.
        let _ = fs::remove_dir_all(&self.path);
    }
}
