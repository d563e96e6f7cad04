//! What else is different between the two sides, and what speaks against taking the figures at their
//! word. A comparison is made all the same; every such thing is named above it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::groups::Group;
use super::rank::MannWhitney;
use crate::results::Results;
use crate::schema::Run;
use crate::stress::units;

/// Fields of the environment that differ between any two runs and say nothing.
const VOLATILE: [&str; 3] = ["command", "started_unix_s", "load_average"];

/// A setting that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which, as the files call it.
    pub what: String,
    /// Before; several values if the runs of that side differ.
    pub before: String,
    /// After.
    pub after: String,
}

type Settings = BTreeMap<String, BTreeSet<String>>;

/// All settings that differ: of the environments, and of what the runs were asked to do.
pub fn differences(groups: &[Group<'_>]) -> Vec<Difference> {
    let (mut before, mut after) = (Settings::new(), Settings::new());
    for group in groups {
        gather(&group.before, &mut before);
        gather(&group.after, &mut after);
    }
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let none = BTreeSet::new();
    let show = |values: &BTreeSet<String>| match values.len() {
        0 => "not recorded".to_owned(),
        1..=4 => values.iter().map(String::as_str).collect::<Vec<_>>().join(" and "),
        n => format!("{n} different values"),
    };
    names
        .into_iter()
        .filter_map(|name| {
            let (was, is) = (before.get(name).unwrap_or(&none), after.get(name).unwrap_or(&none));
            (was != is || was.len() > 1).then(|| Difference {
                what: name.clone(),
                before: show(was),
                after: show(is),
            })
        })
        .collect()
}

fn gather(runs: &[(&Results, &Run)], into: &mut Settings) {
    let mut put = |name: &str, value: String| {
        into.entry(name.to_owned()).or_default().insert(value);
    };
    for (file, run) in runs {
        if let Some(environment) = &file.document.environment {
            let value = serde_json::to_value(environment).unwrap_or_default();
            flatten("", &value, &mut put);
        }
        put("backend", run.backend.clone());
        put("fault", run.fault.clone().unwrap_or_default());
        put("install", run.install.clone().unwrap_or_default());
        put("heap", units::bytes(run.memory.heap_bytes));
        for (name, value) in &run.options {
            flatten(&format!("options.{name}"), value, &mut put);
        }
    }
}

fn flatten(path: &str, value: &Value, put: &mut impl FnMut(&str, String)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if path.is_empty() && VOLATILE.contains(&name.as_str()) {
                    continue;
                }
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&format!("{path}{dot}{name}"), value, put);
            }
        }
        Value::String(text) => put(path, text.clone()),
        Value::Null => {}
        other => put(path, other.to_string()),
    }
}

/// What speaks against taking the figures at their word: a line each.
pub fn cautions(groups: &[Group<'_>]) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    let mut say = |line: String| {
        if !said.contains(&line) {
            said.push(line);
        }
    };
    for group in groups {
        let (m, n) = (group.files_before, group.files_after);
        let least = MannWhitney::least_p(m, n);
        if m.min(n) == 1 {
            say(format!(
                "{}: one run is no sample: there is no interval, and no difference can be told from chance; \
                 give at least four runs a side",
                group.name
            ));
        } else if least > 0.05 {
            say(format!(
                "{}: {m} and {n} runs cannot reach p = 0.05 whatever they show (least p {least:.3}); \
                 give at least four runs a side",
                group.name
            ));
        }
    }
    for (file, run) in groups.iter().flat_map(|g| g.before.iter().chain(&g.after)) {
        let name = file.label();
        let document = &file.document;
        if document.partial || run.partial {
            say(format!("{name}: was interrupted; its figures are of a part of the run"));
        }
        if document.environment.as_ref().is_some_and(|e| e.build == "debug") {
            say(format!("{name}: was made by a debug build; its times mean nothing"));
        }
        if run.verdict.inside_noise {
            say(format!(
                "{name}: {}: the effect lies inside the noise floor of its machine",
                run.name
            ));
        }
        for check in run.checks.iter().filter(|check| !check.ok) {
            say(format!("{name}: {}: a check failed: {}: {}", run.name, check.what, check.detail));
        }
        if let Some(locks) = &run.locks
            && locks.quality.lost > 0
        {
            say(format!(
                "{name}: {}: {} of {} lock events were lost: counts are too low",
                run.name,
                units::count(locks.quality.lost),
                units::count(locks.quality.lost + locks.quality.records)
            ));
        }
        if let Some(cost) = run.measuring_cost.as_ref().filter(|cost| cost.flagged) {
            say(format!(
                "{name}: {}: measuring itself cost {:.1} % of {}",
                run.name, cost.percent, cost.what
            ));
        }
        if run.latencies.iter().any(|latency| latency.saturated) {
            say(format!("{name}: {}: could not keep up with the offered load", run.name));
        }
    }
    let of = |runs: &[(&Results, &Run)]| -> Vec<u64> {
        runs.iter().filter_map(|(file, _)| Some(file.document.noise.as_ref()?.floor_ns)).collect()
    };
    let before = groups.iter().flat_map(|g| of(&g.before)).max();
    let after = groups.iter().flat_map(|g| of(&g.after)).max();
    if let (Some(was), Some(is)) = (before, after)
        && was.max(is) > 2 * was.min(is).max(1)
    {
        say(format!(
            "the machine was not equally quiet: noise floor {} before, {} after",
            units::time(was),
            units::time(is)
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::super::groups::{Sided, pair};
    use super::*;
    use crate::report::samples;

    fn file(name: &str, backend: &str) -> Results {
        Results { path: name.into(), document: samples::document(&[backend], 1) }
    }

    #[test]
    fn equal_environments_have_no_differences() {
        let (a, b) = ([file("a", "art")], [file("b", "art")]);
        let groups = pair(&Sided::of(&a, |_| true), &Sided::of(&b, |_| true)).unwrap();
        assert_eq!(differences(&groups), []);
    }

    #[test]
    fn each_difference_is_named_with_both_values() {
        let (a, mut b) = ([file("a", "art")], [file("b", "pingpong")]);
        let environment = b[0].document.environment.as_mut().unwrap();
        environment.kernel = "6.6.1".into();
        environment.settings.insert("vm.overcommit_memory".into(), "1".into());
        b[0].document.runs[0].options.insert("writers".into(), 3.into());
        let groups = pair(&Sided::of(&a, |_| true), &Sided::of(&b, |_| true)).unwrap();
        let found = differences(&groups);
        let pairs: Vec<_> =
            found.iter().map(|d| (d.what.as_str(), d.before.as_str(), d.after.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("backend", "art", "pingpong"),
                ("kernel", "6.18.0", "6.6.1"),
                ("options.writers", "2", "3"),
                ("settings.vm.overcommit_memory", "not recorded", "1"),
            ]
        );
    }

    #[test]
    fn what_speaks_against_the_figures_is_said() {
        let (a, mut b) = ([file("a", "art")], [file("b", "art")]);
        let document = &mut b[0].document;
        document.partial = true;
        document.noise.as_mut().unwrap().floor_ns = 1_000_000;
        let run = &mut document.runs[0];
        run.locks.as_mut().unwrap().quality.lost = 7;
        run.measuring_cost.as_mut().unwrap().flagged = true;
        run.checks[0].ok = false;
        let groups = pair(&Sided::of(&a, |_| true), &Sided::of(&b, |_| true)).unwrap();
        let said = cautions(&groups).join("\n");
        for part in [
            "one run is no sample",
            "b: was interrupted",
            "7 of 100,007 lock events",
            "measuring itself",
            "check failed",
            "equally quiet",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("a: "), "{said}");
    }
}
