//! What is drawn: for each picture its data, ready for the script, and the tables behind it.
//!
//! A picture for which no run has data is not drawn; its name and the reason are listed instead, so
//! that a missing picture is never taken for a good result.

mod locks;
mod over_time;
mod percentiles;
mod shares;

use serde_json::Value;

use self::locks::decades;
use self::over_time::{heat, stalls, timeline};
use self::percentiles::percentiles;
use self::shares::{overrun, utilization};
use super::model::{Member, Section};
use super::tables::Table;
use crate::schema::Run;

/// A picture.
#[derive(Debug)]
pub struct Picture {
    /// What the script draws it as.
    pub kind: &'static str,
    /// Its title.
    pub title: &'static str,
    /// How to read it.
    pub about: String,
    /// What the script draws: a list of `choices`, of which one is shown at a time.
    pub data: Value,
    /// The same in numbers.
    pub tables: Vec<Table>,
}

/// A picture that is not there.
#[derive(Debug)]
pub struct Missing {
    /// Its title.
    pub title: &'static str,
    /// Why.
    pub why: &'static str,
}

/// All pictures of a section.
pub fn of(section: &Section<'_>) -> (Vec<Picture>, Vec<Missing>) {
    type Draw = fn(&Section<'_>) -> Option<Picture>;
    let all: [(Draw, &'static str, &'static str); 7] = [
        (percentiles, "Percentile curves", "no distribution with buckets was recorded"),
        (overrun, "Frame overrun", "the workload has no frames"),
        (timeline, "Worst of each 100 ms", "nothing was followed over time"),
        (
            utilization,
            "Mutator utilisation",
            "the runs have no mutators, or were shorter than a window",
        ),
        (stalls, "Stalls by cause and cycle", "no collection ran in the window"),
        (heat, "Fault latency over time", "no mutator touched a missing page"),
        (decades, "Lock waits by role", "mmap_lock was not recorded (that needs root and tracefs)"),
    ];
    let (mut pictures, mut missing) = (Vec::new(), Vec::new());
    for (draw, title, why) in all {
        match draw(section) {
            Some(picture) => pictures.push(picture),
            None => missing.push(Missing { title, why }),
        }
    }
    (pictures, missing)
}

/// The percentile curves of a section.
pub fn percentile_curves(section: &Section<'_>) -> Option<Picture> {
    percentiles(section)
}

/// A name for each run: its series, and its file where the series has several.
fn runs<'a>(section: &'a Section<'a>) -> Vec<(String, &'a Run)> {
    let mut list = Vec::new();
    for series in &section.series {
        for Member { file, run } in &series.members {
            let label = match series.members.len() {
                1 => series.name.clone(),
                _ => format!("{} – {}", series.name, file.results.label()),
            };
            list.push((label, *run));
        }
    }
    list
}
