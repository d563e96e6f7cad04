//! What follows from a scenario's figures: one sentence a run, refused where the effect lies inside the noise of the
//! idle machine. The figures are all there before; only [`super::catalog`] calls this, once all variants have run.

use super::catalog::Scenario;
use super::{figures, noise};
use crate::schema::{Noise, Run, Verdict};
use crate::stress::units::time;

/// The figure that a scenario's verdict is about, in words, and whether it is one of maxima.
fn headline(scenario: Scenario, variant: &str) -> (&'static str, &'static str, bool) {
    match scenario {
        Scenario::CompactVsWriters => ("flip_ns.p50", "median flip", false),
        Scenario::RegisterStorm => ("neighbour_fault_ns.p99", "p99 of a neighbour's fault", false),
        Scenario::PriorityInversion => {
            ("ui_wait.worst_ns", "the interface's longest wait for mmap_lock", true)
        }
        Scenario::VolatileRegion => ("flip_ns.p50", "median flip", false),
        Scenario::LookupVsWriters => ("first_fault_ns.p99", "p99 of a first fault", false),
        Scenario::MunmapChurn => ("munmap_ns.p99", "p99 of munmap", false),
        Scenario::ForkVsFault => ("fork_ns.p50", "median fork", false),
        Scenario::FileFault => ("file_fault_ns.p99", "p99 of a fault from disk", false),
        Scenario::GcFrames if variant == "frames" => {
            ("overrun_ns.p99", "p99 of the frames' overrun", true)
        }
        Scenario::GcFrames => ("latency_ns.p99", "p99 latency at a fixed rate", true),
    }
}

/// What follows from a run, compared with the quiet variant under the same back end, or with the other back
/// ends in the same variant.
pub fn of(scenario: Scenario, runs: &[Run], i: usize, noise: Option<&Noise>) -> Verdict {
    let run = &runs[i];
    let (name, words, maxima) = headline(scenario, &run.variant);
    let Some(value) = figures::get(run, name) else {
        let of_the_lock = name.contains("_wait.");
        let why = match (run.partial, of_the_lock && run.locks.is_none()) {
            (true, _) => "interrupted before anything was measured",
            (_, true) => "not measured, for the kernel's events cannot be recorded (see the note)",
            _ => "nothing that it is made of happened",
        };
        return Verdict { text: format!("{}: {words}: {why}.", run.backend), inside_noise: true };
    };
    let shown = |v: f64| {
        if v < 0.0 { format!("-{}", time(-v as u64)) } else { time(v as u64) }
    };
    let mut text = format!("{}: {words} {}", run.backend, shown(value));
    let quiet = runs
        .iter()
        .find(|r| r.variant == "quiet" && r.backend == run.backend && run.variant != "quiet");
    let mut effect = value;
    if let Some(before) = quiet.and_then(|q| figures::get(q, name)) {
        text += &format!(" against {} in quiet", shown(before));
        if before > 0.0 {
            text += &format!(" ({:.1} times)", value / before);
        }
        effect = (value - before).abs();
    } else {
        let others = runs.iter().filter(|r| r.variant == run.variant && r.backend != run.backend);
        for other in others {
            if let Some(theirs) = figures::get(other, name) {
                text += &format!(", {} {}", other.backend, shown(theirs));
                effect = effect.max((value - theirs).abs());
            }
        }
    }
    if let Some(locks) = figures::get(run, "write_locks_per_cycle") {
        text += &format!("; collection took mmap_lock for writing {locks:.1} times a cycle");
    }
    text.push('.');
    if run.partial {
        text += " Interrupted: partial.";
    }
    let late = figures::get(run, "frames_missed").zip(figures::get(run, "frames"));
    if late.is_some_and(|(missed, frames)| missed > frames / 2.0) {
        text += " Most frames were late: this machine is too small for the load, so lateness adds up from frame to \
                 frame and grows with the length of the run; give --writers less.";
    }
    let inside_noise = noise.is_some_and(|n| noise::inside(n, effect.abs() as u64, maxima));
    if inside_noise {
        let floor = noise.map_or(0, |n| if maxima { n.hiccups.max } else { n.hiccups.p99 });
        text += &format!(
            " No verdict: a difference of {} lies inside the noise of the idle machine ({}).",
            time(effect.abs() as u64),
            time(floor)
        );
    }
    Verdict { text, inside_noise }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_cannot_keep_up_with_the_frames_is_called_too_small() {
        let said = |missed: f64| {
            let mut run =
                crate::stress::measured::empty("x".into(), "frames".into(), "art".into(), 1);
            run.variant = "frames".into();
            figures::add(&mut run, "frames_missed", missed, "count", "", -1);
            figures::add(&mut run, "frames", 100.0, "count", "", 0);
            figures::add(&mut run, "overrun_ns.p99", 1e9, "ns", "", -1);
            of(Scenario::GcFrames, &[run], 0, None).text
        };
        assert!(said(51.0).contains("--writers"), "{}", said(51.0));
        assert!(!said(50.0).contains("--writers"), "{}", said(50.0));
    }
}
