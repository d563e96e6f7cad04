//! The programs in `examples/` print what they should, and the same under every configuration.

mod support;

use support::{CONFIGURATIONS, directory, run};

/// An example, its arguments, and the end of what it must print.
const EXAMPLES: [(&str, &[&str], &str); 7] = [
    ("queens.scm", &["7"], "7 queens: 40 solutions"),
    ("raytracer.scm", &["80", "50"], "80 x 50, checksum 678982"),
    ("json.scm", &[], "expected ] line 2 column 6"),
    ("evaluator.scm", &["8"], "floor 2: (81 64 49 36 25 16 9 4 1 0)"),
    ("cache.scm", &["3", "3000"], "9000 operations by 3 threads, 0 wrong answers, rings whole"),
    ("frames.scm", &["--still", "200"], "frame 200"),
    ("frames.scm", &["0.1"], "late)"),
];

fn output(example: &str, arguments: &[&str], options: &str) -> Option<String> {
    let file = directory("examples").join(example);
    let text = std::fs::read_to_string(&file).expect("readable");
    let run = run(options, &text, file.to_str().expect("UTF-8"), arguments, "")?;
    assert_eq!(run.exit, 0, "{example} with {options}: {}\n{}", run.output, run.errors);
    Some(run.output)
}

#[test]
fn examples_print_what_they_should() {
    for (example, arguments, expected) in EXAMPLES {
        let output =
            output(example, arguments, "heap=64m,backend=stw").expect("needs no userfaultfd");
        assert!(output.lines().any(|line| line.ends_with(expected)), "{example}:\n{output}");
    }
}

#[test]
fn examples_print_the_same_under_every_configuration() {
    for (example, arguments, _) in EXAMPLES {
        // Its output depends on the clock.
        if arguments == ["0.1"] {
            continue;
        }
        let expected = output(example, arguments, "heap=64m,backend=stw");
        for (name, options) in CONFIGURATIONS {
            let Some(printed) = output(example, arguments, options) else { continue };
            assert_eq!(Some(printed), expected, "{example} under {name}");
        }
    }
}

#[test]
fn the_ray_tracer_writes_an_image() {
    let file = std::env::temp_dir().join(format!("firn-ray-{}.ppm", std::process::id()));
    output("raytracer.scm", &["20", "10", file.to_str().expect("UTF-8")], "heap=64m,backend=stw");
    let image = std::fs::read(&file).expect("it was written");
    std::fs::remove_file(&file).expect("it is there");
    assert!(image.starts_with(b"P6\n20 10\n255\n"));
    assert_eq!(image.len(), 13 + 3 * 20 * 10);
}
