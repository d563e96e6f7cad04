//! The report of a comparison: a verdict first, then the table, the means, the stalls.

use super::rivals::{Kind, System};
use super::stall::Stall;
use super::{Outcome, Row};
use crate::exit::Failure;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// The published programs that allocate most; their mean is given apart.
const ALLOCATING: [&str; 9] =
    ["gcbench", "nboyer", "sboyer", "earley", "graphs", "paraffins", "lattice", "mperm", "perm9"];

/// What was found.
pub struct Report<'a> {
    /// The systems, Firn first.
    pub systems: &'a [System],
    /// Systems that this machine lacks.
    pub missing: Vec<&'static str>,
    /// The programs.
    pub rows: Vec<Row>,
    /// The stalls.
    pub stalls: Vec<Stall>,
    /// Whether it was interrupted.
    pub partial: bool,
}

impl Row {
    fn seconds(&self, system: usize) -> Option<f64> {
        match self.outcomes[system] {
            Some(Outcome::Done(seconds)) => Some(seconds),
            _ => None,
        }
    }

    /// Firn's time over that of another system: below 1, Firn is faster.
    fn ratio(&self, system: usize) -> Option<f64> {
        let (firn, other) = (self.seconds(0)?, self.seconds(system)?);
        (other > 0.0 && firn > 0.0).then(|| firn / other)
    }
}

fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
}

impl Report<'_> {
    fn ratios(&self, system: usize, wanted: impl Fn(&Row) -> bool) -> Vec<f64> {
        self.rows.iter().filter(|row| wanted(row)).filter_map(|row| row.ratio(system)).collect()
    }

    fn allocating(row: &Row) -> bool {
        ALLOCATING.contains(&row.name.as_str())
    }

    /// Whether a program failed under Firn that any other system ran.
    pub fn failed(&self) -> bool {
        self.rows.iter().any(|row| {
            matches!(row.outcomes[0], Some(Outcome::Failed(_) | Outcome::TimedOut))
                && (1..self.systems.len()).any(|system| row.seconds(system).is_some())
        })
    }

    fn verdict(&self) -> String {
        let mut parts = Vec::new();
        // The program at which the user ended the comparison may have run under no system.
        let tried = self.rows.iter().filter(|row| row.outcomes[0].is_some()).count();
        let ran = self.rows.iter().filter(|row| row.seconds(0).is_some()).count();
        parts.push(match tried - ran {
            0 => format!("firn ran all {ran} programs"),
            _ => format!("firn ran {ran} of {tried} programs"),
        });
        for (index, system) in self.systems.iter().enumerate().skip(1) {
            let ratios = self.ratios(index, |_| true);
            if ratios.is_empty() {
                continue;
            }
            match system.kind {
                Kind::Chibi => {
                    let faster = ratios.iter().filter(|ratio| **ratio < 1.0).count();
                    parts.push(format!("it is faster than chibi on {faster} of {}", ratios.len()));
                }
                Kind::GuileWithoutJit => {
                    let ratios = self.ratios(index, Self::allocating);
                    if let Some(mean) = geometric_mean(&ratios) {
                        parts.push(format!(
                            "on {} that allocate much it takes {mean:.2} of the time of guile without JIT",
                            ratios.len()
                        ));
                    }
                }
                _ => {}
            }
        }
        parts.join("; ") + "."
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = self.verdict();
        if self.partial {
            text.push_str(" (Interrupted: a part only.)");
        }
        text.push_str("\n\n");
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(22);
        let _ = write!(text, "{:width$}", "seconds (firn / other)");
        for system in self.systems {
            let cell = if system.kind == Kind::Firn { 9 } else { 20 };
            let _ = write!(text, "{:>cell$}", system.name);
        }
        text.push('\n');
        for row in &self.rows {
            let _ = write!(text, "{:width$}", row.name);
            for (index, outcome) in row.outcomes.iter().enumerate() {
                let shown = match outcome {
                    Some(Outcome::Done(seconds)) => format!("{seconds:.3}"),
                    Some(Outcome::Failed(_)) => "failed".into(),
                    Some(Outcome::TimedOut) => "too long".into(),
                    None => "-".into(),
                };
                let ratio =
                    row.ratio(index).map_or(String::new(), |ratio| format!(" ({ratio:.2})"));
                match index {
                    0 => _ = write!(text, "{shown:>9}"),
                    _ => _ = write!(text, "{shown:>12}{ratio:>8}"),
                }
            }
            text.push('\n');
        }
        self.means(&mut text, width);
        self.complaints(&mut text);
        self.stall_lines(&mut text);
        for system in self.systems {
            let _ = writeln!(text, "{}: {}", system.name, system.version);
        }
        for name in &self.missing {
            let _ = writeln!(text, "{name}: not on this machine (chibi-scheme, guile-3.0)");
        }
        text
    }

    fn means(&self, text: &mut String, width: usize) {
        type Wanted = fn(&Row) -> bool;
        let groups: [(&str, Wanted); 2] =
            [("geometric mean", |_| true), ("of those that allocate", Self::allocating)];
        for (label, wanted) in groups {
            let _ = write!(text, "{label:width$}{:>9}", "");
            for index in 1..self.systems.len() {
                let mean = geometric_mean(&self.ratios(index, wanted));
                let shown = mean.map_or("-".into(), |mean| format!("({mean:.2})"));
                let _ = write!(text, "{shown:>20}");
            }
            text.push('\n');
        }
        text.push('\n');
    }

    fn complaints(&self, text: &mut String) {
        for row in &self.rows {
            for (system, outcome) in self.systems.iter().zip(&row.outcomes) {
                if let Some(Outcome::Failed(why)) = outcome {
                    let _ = writeln!(text, "{} failed under {}: {why}", row.name, system.name);
                }
            }
        }
    }

    fn stall_lines(&self, text: &mut String) {
        for stall in &self.stalls {
            let _ = match &stall.longest_ms {
                Ok(longest) => writeln!(
                    text,
                    "longest stall, {:5} under {:10}: {longest:9.3} ms ({} over 1 ms, {:.1} s)",
                    stall.phase, stall.system, stall.over_1ms, stall.seconds
                ),
                Err(why) => {
                    writeln!(text, "stalls of {} under {}: {why}", stall.phase, stall.system)
                }
            };
        }
    }

    fn value(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let systems: serde_json::Map<String, Value> = self
                    .systems
                    .iter()
                    .zip(&row.outcomes)
                    .map(|(system, outcome)| {
                        let value = match outcome {
                            Some(Outcome::Done(seconds)) => json!({ "seconds": seconds }),
                            Some(Outcome::Failed(why)) => json!({ "failed": why }),
                            Some(Outcome::TimedOut) => json!({ "failed": "timeout" }),
                            None => Value::Null,
                        };
                        (system.name.to_string(), value)
                    })
                    .collect();
                json!({ "program": row.name, "systems": systems })
            })
            .collect();
        let means: serde_json::Map<String, Value> = self
            .systems
            .iter()
            .enumerate()
            .skip(1)
            .map(|(index, system)| {
                let all = geometric_mean(&self.ratios(index, |_| true));
                let allocating = geometric_mean(&self.ratios(index, Self::allocating));
                (system.name.to_string(), json!({ "all": all, "allocating": allocating }))
            })
            .collect();
        let stalls: Vec<Value> = self
            .stalls
            .iter()
            .map(|stall| {
                json!({
                    "system": stall.system,
                    "phase": stall.phase,
                    "longest_ms": stall.longest_ms.as_ref().ok(),
                    "over_1ms": stall.over_1ms,
                    "seconds": stall.seconds,
                })
            })
            .collect();
        let versions: serde_json::Map<String, Value> = self
            .systems
            .iter()
            .map(|system| (system.name.to_string(), json!(system.version)))
            .collect();
        json!({
            "kind": "scheme-compare",
            "partial": self.partial,
            "versions": versions,
            "programs": rows,
            "firn_over_other_geometric_mean": means,
            "stalls": stalls,
        })
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(&self.value()).expect("plain data") + "\n";
        std::fs::write(path, text).map_err(|why| {
            Failure::missing(format!("--json: {} could not be written: {why}", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_ratios_is_geometric() {
        assert_eq!(geometric_mean(&[]), None);
        let mean = geometric_mean(&[0.5, 2.0]).expect("there are some");
        assert!((mean - 1.0).abs() < 1e-12);
    }
}
