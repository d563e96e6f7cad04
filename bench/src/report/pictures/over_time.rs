//! What happened when, a run at a time: the worst of each interval, stalls by collection, the lengths of
//! faults.

use serde_json::json;

use super::{Picture, runs};
use crate::report::model::Section;
use crate::report::tables::Table;
use crate::stress::units;

pub(super) fn timeline(section: &Section<'_>) -> Option<Picture> {
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for (label, run) in runs(section) {
        let timeline = &run.timeline;
        let tracks: Vec<_> = timeline
            .tracks
            .iter()
            .filter(|track| track.worst.iter().any(Option::is_some))
            .collect();
        if tracks.is_empty() || timeline.interval_ns == 0 {
            continue;
        }
        let mut phases = Vec::new();
        let mut pauses = Vec::new();
        for cycle in &run.cycles {
            for phase in cycle.phases.iter().filter(|p| p.name == "mark" || p.name == "compact") {
                phases.push(json!([phase.name, phase.begin, phase.end]));
            }
            pauses.extend(cycle.pauses.iter().map(|p| json!([p.kind, p.requested, p.released])));
        }
        choices.push(json!({
            "label": label, "interval": timeline.interval_ns, "phases": phases, "pauses": pauses,
            "from": run.window.0,
            "tracks": tracks.iter().map(|t| json!({"name": t.name, "worst": t.worst})).collect::<Vec<_>>(),
        }));
        let heads = std::iter::once("from").chain(tracks.iter().map(|track| track.name.as_str()));
        let mut table = Table::new(format!("{label}: worst of each interval"), heads);
        let intervals = tracks.iter().map(|track| track.worst.len()).max().unwrap_or(0);
        for i in 0..intervals {
            let from = i as u64 * timeline.interval_ns;
            let mut row = vec![format!("{:.1} s", from as f64 / 1e9)];
            row.extend(tracks.iter().map(|track| match track.worst.get(i).copied().flatten() {
                Some(ns) if track.name.contains("overrun") => units::signed_time(ns),
                Some(ns) => units::time(ns.unsigned_abs()),
                None => "–".into(),
            }));
            table.rows.push(row);
        }
        behind.push(table);
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "timeline",
        title: "Worst of each 100 ms",
        about: "The longest of each kind in each interval, on a logarithmic scale; frames that were early \
                are not drawn. Behind: when the collector marked and compacted (both run beside the \
                mutators), and the pauses as ticks at the top."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}

pub(super) fn stalls(section: &Section<'_>) -> Option<Picture> {
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for (label, run) in runs(section) {
        let mut causes: Vec<(&str, u64)> = Vec::new();
        for (name, _, ns) in run.cycles.iter().flat_map(|cycle| &cycle.stalls) {
            match causes.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += ns,
                None => causes.push((name, *ns)),
            }
        }
        causes.retain(|(_, sum)| *sum > 0);
        causes.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
        if causes.is_empty() {
            continue;
        }
        let of = |cycle: &crate::schema::Cycle, cause: &str| -> (u64, u64) {
            let found = cycle.stalls.iter().filter(|(name, ..)| name == cause);
            found.fold((0, 0), |(count, sum), (_, n, ns)| (count + n, sum + ns))
        };
        choices.push(json!({
            "label": label,
            "cycles": run.cycles.iter().map(|cycle| cycle.number).collect::<Vec<_>>(),
            "causes": causes.iter().map(|(cause, _)| json!({
                "name": cause,
                "ns": run.cycles.iter().map(|cycle| of(cycle, cause).1).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        }));
        let heads = std::iter::once("cycle").chain(causes.iter().map(|(cause, _)| *cause));
        let mut table = Table::new(format!("{label}: time lost by mutators (how often)"), heads);
        for cycle in &run.cycles {
            let mut row = vec![format!("{} ({})", cycle.number, cycle.cause)];
            row.extend(causes.iter().map(|(cause, _)| match of(cycle, cause) {
                (0, _) => "–".to_owned(),
                (count, ns) => format!("{} ({})", units::time(ns), units::count(count)),
            }));
            table.rows.push(row);
        }
        behind.push(table);
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "stalls",
        title: "Stalls by cause and cycle",
        about: "What each collection cost all mutators together, by cause; a cycle's bar is the sum. Faults \
                are named by what the thread did: built the page, helped, waited for it."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}

pub(super) fn heat(section: &Section<'_>) -> Option<Picture> {
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for (label, run) in runs(section) {
        let Some(faults) = &run.faults else { continue };
        let map = &faults.heat;
        if map.cells.is_empty() {
            continue;
        }
        choices.push(json!({
            "label": label, "interval": map.interval_ns, "edges": map.edges, "cells": map.cells,
            "from": run.window.0,
        }));
        let mut table =
            Table::new(format!("{label}: stalls by length"), ["up to", "stalls", "share"]);
        let all: u64 = map.cells.iter().map(|cell| cell.2).sum();
        for (row, &edge) in map.edges.iter().enumerate() {
            let n: u64 =
                map.cells.iter().filter(|cell| cell.1 as usize == row).map(|cell| cell.2).sum();
            if n > 0 {
                let share = units::percent(n as f64 / all as f64);
                table.rows.push(vec![units::time(edge), units::count(n), share]);
            }
        }
        behind.push(table);
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "heat",
        title: "Fault latency over time",
        about: "Each cell counts the stalls in missing pages of that length in that interval: the \
                stronger the colour, the more, on a logarithmic scale."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}
