//! The longest stalls: the same program under Firn and under Guile, each reading the clock between allocations.

use super::programs::WorkDirectory;
use super::rivals::{Kind, System};
use super::{Options, child};
use crate::exit::Failure;
use crate::progress::{Progress, Stop};

/// The program that measures itself.
const SOURCE: &str = include_str!("../../../scheme/bench/stall.scm");

/// Depth of the trees: 2^17 nodes live for long.
const DEPTH: u32 = 16;

/// What one system said of one phase.
#[derive(Debug, Clone)]
pub struct Stall {
    /// The system.
    pub system: &'static str,
    /// What was measured.
    pub phase: String,
    /// Longest time between two readings of the clock, milliseconds; or what went wrong.
    pub longest_ms: Result<f64, String>,
    /// How many were longer than a millisecond.
    pub over_1ms: u64,
    /// How long the phase took, seconds.
    pub seconds: f64,
}

/// Measures Firn and Guile, until the user wants no more.
///
/// # Errors
/// If a process cannot be started.
pub fn measure(
    systems: &[System],
    options: &Options,
    work: &WorkDirectory,
    progress: &Progress,
    stop: &Stop,
) -> Result<Vec<Stall>, Failure> {
    let file = work.write("stall.scm", SOURCE.as_bytes())?;
    let mut stalls = Vec::new();
    let runs = [("trees", DEPTH), ("live", options.live_mib)];
    for (mode, size) in runs {
        for system in
            systems.iter().filter(|system| matches!(system.kind, Kind::Firn | Kind::Guile))
        {
            progress.stage(&format!("stalls of {mode} under {}", system.name));
            let failed = |why: String| Stall {
                system: system.name,
                phase: mode.into(),
                longest_ms: Err(why),
                over_1ms: 0,
                seconds: 0.0,
            };
            let compiled = system.compile(&file, options.timeout, stop);
            if stop.requested() {
                return Ok(stalls);
            }
            if let Err(why) = compiled {
                stalls.push(failed(why));
                continue;
            }
            let mut system = system.clone();
            if system.kind == Kind::Firn && mode == "live" && options.gc.is_none() {
                // Guile's heap grows as it must; this is room for that much live data.
                system.arguments.extend(["--gc".into(), format!("heap={}m", 4 * size)]);
            }
            let command = system.command(&file, &[mode.into(), size.to_string()]);
            match child::run(command, None, options.timeout, stop)? {
                child::End::Exited { success: true, output, .. } => {
                    stalls.extend(output.lines().filter_map(|line| parse(system.name, line)));
                }
                child::End::Exited { output, errors, .. } => {
                    stalls.push(failed(child::complaint(&errors, &output)));
                }
                child::End::TimedOut => stalls.push(failed("it took too long".into())),
                child::End::Interrupted => return Ok(stalls),
            }
        }
    }
    Ok(stalls)
}

/// `PHASE longest-ms X over-1ms N seconds S`
fn parse(system: &'static str, line: &str) -> Option<Stall> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1)?.parse::<f64>().ok()
    };
    Some(Stall {
        system,
        phase: words.first()?.to_string(),
        longest_ms: Ok(after("longest-ms")?),
        over_1ms: after("over-1ms")? as u64,
        seconds: after("seconds")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_program_is_understood() {
        let stall =
            parse("firn", "live longest-ms 1.75 over-1ms 3 seconds 12.5").expect("it is one");
        assert_eq!((stall.phase.as_str(), stall.over_1ms, stall.seconds), ("live", 3, 12.5));
        assert_eq!(stall.longest_ms, Ok(1.75));
        assert!(parse("firn", "something else").is_none());
    }
}
