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
    let mut found: BTreeMap<String, [BTreeSet<String>; 2]> = BTreeMap::new();
    // Each group for itself: other scenarios in the same files may have other heaps.
    for group in groups {
        let (mut before, mut after) = (Settings::new(), Settings::new());
        gather(&group.before, &mut before);
        gather(&group.after, &mut after);
        let names: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
        for name in names {
            let (was, is) = (before.remove(&name), after.remove(&name));
            let (was, is) = (was.unwrap_or_default(), is.unwrap_or_default());
            if was != is || was.len() > 1 {
                let [before, after] = found.entry(name).or_default();
                before.extend(was);
                after.extend(is);
            }
        }
    }
    let show = |values: &BTreeSet<String>| match values.len() {
        0 => "not recorded".to_owned(),
        1..=4 => values.iter().map(String::as_str).collect::<Vec<_>>().join(" and "),
        n => format!("{n} different values"),
    };
    found
        .into_iter()
        .map(|(what, [was, is])| Difference { what, before: show(&was), after: show(&is) })
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

/// What is said, and of what: runs of which the same is to be said are named together.
#[derive(Default)]
struct Cautions(Vec<(String, Vec<String>)>);

/// Runs that are named in one caution.
const NAMED: usize = 4;

impl Cautions {
    fn say(&mut self, of: &str, what: &str) {
        let at = self.0.iter().position(|(said, _)| said == what).unwrap_or_else(|| {
            self.0.push((what.to_owned(), Vec::new()));
            self.0.len() - 1
        });
        let names = &mut self.0[at].1;
        if !names.iter().any(|name| name == of) {
            names.push(of.to_owned());
        }
    }

    fn lines(self) -> Vec<String> {
        let line = |(what, names): (String, Vec<String>)| {
            let shown = names[..names.len().min(NAMED)].join(", ");
            match names.len() {
                1 => format!("{shown}: {what}"),
                n if n <= NAMED => format!("{what}: {shown}"),
                n => format!("{what}: {shown} and {} more", n - NAMED),
            }
        };
        self.0.into_iter().map(line).collect()
    }
}

/// What speaks against taking the figures at their word: a line for each thing.
pub fn cautions(groups: &[Group<'_>]) -> Vec<String> {
    let mut said = Cautions::default();
    for group in groups {
        let (m, n) = (group.files_before, group.files_after);
        let least = MannWhitney::least_p(m, n);
        if m.min(n) == 1 {
            said.say(
                &group.name,
                "one run is no sample: there is no interval, and no difference can be told from chance; give \
                 at least four runs a side",
            );
        } else if least > 0.05 {
            let what = format!(
                "{m} and {n} runs cannot reach p = 0.05 whatever they show (least p {least:.3}); give at least \
                 four runs a side"
            );
            said.say(&group.name, &what);
        }
    }
    for (file, run) in groups.iter().flat_map(|g| g.before.iter().chain(&g.after)) {
        let name = file.label();
        let both = format!("{name} {}", run.name);
        let document = &file.document;
        if document.partial || run.partial {
            said.say(&name, "was interrupted; its figures are of a part of the run");
        }
        if document.environment.as_ref().is_some_and(|e| e.build == "debug") {
            said.say(&name, "was made by a debug build; its times mean nothing");
        }
        if run.verdict.inside_noise {
            said.say(&both, "the effect lies inside the noise floor of its machine");
        }
        for check in run.checks.iter().filter(|check| !check.ok) {
            said.say(&both, &format!("a check failed: {}: {}", check.what, check.detail));
        }
        if let Some(locks) = &run.locks
            && locks.quality.lost > 0
        {
            let what = format!(
                "{} of {} lock events were lost: counts are too low",
                units::count(locks.quality.lost),
                units::count(locks.quality.lost + locks.quality.records)
            );
            said.say(&both, &what);
        }
        if let Some(cost) = run.measuring_cost.as_ref().filter(|cost| cost.flagged) {
            let of = format!("{both} ({:.1} %)", cost.percent);
            said.say(&of, "measuring itself cost more than 5 %");
        }
        if run.latencies.iter().any(|latency| latency.saturated) {
            said.say(&both, "could not keep up with the offered load");
        }
    }
    let of = |runs: &[(&Results, &Run)]| -> Vec<u64> {
        runs.iter().filter_map(|(file, _)| Some(file.document.noise.as_ref()?.floor_ns)).collect()
    };
    let before = groups.iter().flat_map(|g| of(&g.before)).max();
    let after = groups.iter().flat_map(|g| of(&g.after)).max();
    let mut lines = said.lines();
    if let (Some(was), Some(is)) = (before, after)
        && was.max(is) > 2 * was.min(is).max(1)
    {
        lines.push(format!(
            "the machine was not equally quiet: noise floor {} before, {} after",
            units::time(was),
            units::time(is)
        ));
    }
    lines
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
    fn heaps_that_differ_between_scenarios_but_not_between_the_sides_are_no_difference() {
        let two = |name: &str| {
            let mut file = file(name, "art");
            let mut other = file.document.runs[0].clone();
            other.name = "another/art".into();
            other.memory.heap_bytes *= 2;
            file.document.runs.push(other);
            [file]
        };
        let (a, b) = (two("a"), two("b"));
        let groups = pair(&Sided::of(&a, |_| true), &Sided::of(&b, |_| true)).unwrap();
        assert_eq!((groups.len(), differences(&groups)), (2, Vec::new()));
    }

    #[test]
    fn runs_of_which_the_same_is_to_be_said_are_named_together() {
        let mut said = Cautions::default();
        said.say("a", "is short");
        for run in ["a", "b", "c", "d", "e", "f", "b"] {
            said.say(run, "is long");
        }
        assert_eq!(said.lines(), ["a: is short", "is long: a, b, c, d and 2 more"]);
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
