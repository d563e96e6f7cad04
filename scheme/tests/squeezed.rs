//! The suite and the examples in heaps of 1.3 times what they need at least.
//!
//! How much lives at the worst moment cannot be read off the collections of a roomy heap, which hardly ever fall into
//! that moment. So the least heap in which a program gets through is searched for, under the stop-the-world back end,
//! which needs no memory of its own: that is what lives, within a few percent. In 1.3 times as much it must do the
//! same under every back end.

mod support;

use support::{Run, directory, programs, run};

/// The smallest heap there is, and a roomy one.
const LEAST: f64 = (1 << 20) as f64;
const ROOMY: f64 = (128 << 20) as f64;

fn in_heap(bytes: f64, rest: &str, text: &str, file: &str, arguments: &[&str]) -> Option<Run> {
    let options = format!("heap={},min-free=0,tlab=64k,{rest}", bytes as usize);
    run(&options, text, file, arguments, "")
}

/// `tries`: how often in a row the program must get through a heap that counts as large enough. How much of a program
/// with threads lives at its worst moment differs from run to run; one run that got through says little.
fn squeeze(text: &str, file: &str, arguments: &[&str], tries: usize) {
    let stw = |bytes: f64| in_heap(bytes, "backend=stw", text, file, arguments);
    let expected = stw(ROOMY).expect("needs no userfaultfd");
    assert_eq!(expected.exit, 0, "{file}: {}{}", expected.output, expected.errors);
    let (mut low, mut high) = (LEAST, ROOMY);
    while high / low > 1.05 {
        let middle = (low * high).sqrt();
        match (0..tries).all(|_| stw(middle) == Some(expected.clone())) {
            true => high = middle,
            false => low = middle,
        }
    }
    for backend in ["backend=pingpong", "backend=art", "backend=mprotect", "backend=stw"] {
        let Some(run) = in_heap(1.3 * high, backend, text, file, arguments) else { continue };
        assert_eq!(run, expected, "{file}, {backend}, in 1.3 times {high} bytes");
    }
}

#[test]
fn the_suite_passes_in_heaps_of_1_3_times_what_lives() {
    for file in programs("tests/suite") {
        if !file.ends_with("test.scm") && !file.ends_with("threads.scm") {
            let text = std::fs::read_to_string(&file).expect("readable");
            squeeze(&text, file.to_str().expect("UTF-8"), &[], 1);
        }
    }
}

#[test]
fn the_examples_print_the_same_in_heaps_of_1_3_times_what_lives() {
    let examples: [(&str, &[&str]); 6] = [
        ("queens.scm", &["7"]),
        ("raytracer.scm", &["80", "50"]),
        ("json.scm", &[]),
        ("evaluator.scm", &["8"]),
        ("cache.scm", &["3", "3000"]),
        ("frames.scm", &["--still", "200"]),
    ];
    for (example, arguments) in examples {
        let file = directory("examples").join(example);
        let text = std::fs::read_to_string(&file).expect("readable");
        let tries = if example == "cache.scm" { 20 } else { 1 };
        squeeze(&text, file.to_str().expect("UTF-8"), arguments, tries);
    }
}

/// How much of a program with threads lives at a time depends on which of them run at the same time. The most here: four
/// lists of 20,000 pairs (24 bytes each), 1.9 MB; what five threads and the prelude need, 0.4 MB.
#[test]
fn threads_pass_in_a_heap_of_1_3_times_what_may_live() {
    let file = directory("tests/suite/threads.scm");
    let (text, name) =
        (std::fs::read_to_string(&file).expect("readable"), file.to_str().expect("UTF-8"));
    for backend in ["backend=pingpong", "backend=art", "backend=mprotect", "backend=stw"] {
        let Some(run) = in_heap(1.3 * 2.3e6, backend, &text, name, &[]) else { continue };
        assert_eq!(run.exit, 0, "{backend}: {}{}", run.output, run.errors);
    }
}
