//! The comparison as JSON, for scripts. Every value of every run is in it, so that any other
//! statistic can be computed. The number in `schema` changes when the meaning of a field does.

use serde_json::{Value, json};

use super::gate::{Side, Verdict};
use super::groups::Line;
use super::stats::Interval;
use super::{Judged, Made};

/// The value of `schema`.
pub const SCHEMA: &str = "firn-compare-1";

/// The whole comparison.
pub fn value(made: &Made<'_>) -> Value {
    json!({
        "schema": SCHEMA,
        "verdict": super::text::verdict(made),
        "passed": made.gates.iter().all(Judged::holds),
        "gates": made.gates.iter().map(gate).collect::<Vec<_>>(),
        "differences": made.differences.iter().map(|d| json!({
            "what": d.what, "before": d.before, "after": d.after,
        })).collect::<Vec<_>>(),
        "cautions": made.cautions,
        "groups": made.groups.iter().map(|group| json!({
            "name": group.name,
            "files_before": files(&group.before),
            "files_after": files(&group.after),
            "metrics": made.chosen(group).map(line).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn files(runs: &[(&crate::results::Results, &crate::schema::Run)]) -> Vec<String> {
    let mut names: Vec<String> = runs.iter().map(|(f, _)| f.path.display().to_string()).collect();
    names.dedup();
    names
}

fn gate(judged: &Judged) -> Value {
    let (left, right, missing) = match &judged.verdict {
        Verdict::Judged { left, right, .. } => (Some(left), Some(right), None),
        Verdict::NotMeasured { metric, side } => (None, None, Some((metric, side))),
    };
    json!({
        "gate": judged.gate.text(), "group": judged.group, "holds": judged.holds(),
        "left": left, "right": right,
        "not_measured": missing.map(|(metric, side)| json!({
            "metric": metric, "side": if *side == Side::Before { "before" } else { "after" },
        })),
    })
}

fn interval(i: Option<Interval>) -> Value {
    i.map_or(Value::Null, |i| json!({"low": i.low, "high": i.high, "confidence": i.confidence}))
}

fn line(line: &Line) -> Value {
    let c = line.comparison.as_ref();
    json!({
        "name": line.metric.name,
        "unit": line.metric.unit.name(),
        "before": line.before,
        "after": line.after,
        "median_before": super::stats::median(&line.before),
        "median_after": super::stats::median(&line.after),
        "interval_before": interval(c.and_then(|c| c.interval_before)),
        "interval_after": interval(c.and_then(|c| c.interval_after)),
        "change": c.and_then(|c| c.change),
        "change_interval": interval(c.and_then(|c| c.change_interval)),
        "shift_hodges_lehmann": c.map(|c| c.shift),
        "cliffs_delta": c.map(|c| c.delta),
        "mann_whitney": c.map(|c| json!({"u": c.test.u, "p": c.test.p, "exact": c.test.exact})),
        "p_adjusted": c.map(|_| line.adjusted_p),
        "difference_shown": line.shown().is_some(),
    })
}
