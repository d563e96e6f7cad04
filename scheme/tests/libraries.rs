//! Programs of several files: libraries, `include`, `load`. What is wrong in one of them is said to be there, and files
//! that ask for each other in a circle are refused.

mod support;

use std::path::{Path, PathBuf};
use support::{Run, run};

/// A directory with files in it, which goes away in the end.
struct Files(PathBuf);

impl Files {
    fn new(name: &str, files: &[(&str, &str)]) -> Files {
        let directory = std::env::temp_dir().join(format!("firn-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = directory.join(file);
            std::fs::create_dir_all(path.parent().expect("in the directory")).expect("writable");
            std::fs::write(path, text).expect("writable");
        }
        Files(directory)
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().expect("UTF-8").to_string()
    }

    fn run(&self, file: &str) -> Run {
        let path = self.path(file);
        let text = std::fs::read_to_string(Path::new(&path)).expect("written above");
        run("heap=64m,backend=stw", &text, &path, &[], "").expect("needs no userfaultfd")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const UTIL: &str = "(define-library (my util)
  (export boom twice (rename secret public) count swap!)
  (import (scheme base))
  (include \"parts/boom.scm\")
  (begin
    (define (twice f) (lambda (x) (f (f x))))
    (define (secret) 'secret)
    (define n 0)
    (define (count) (set! n (+ n 1)) n)
    (define-syntax swap! (syntax-rules () ((_ a b) (let ((t a)) (set! a b) (set! b t)))))))";

#[test]
fn libraries_in_files_are_found_beside_the_program_and_made_once() {
    let files = Files::new("libraries", &[
        ("my/util.sld", UTIL),
        ("my/parts/boom.scm", "(define (boom x) x)"),
        ("other.sld", "(define-library (other) (export tick) (import (rename (my util) (count tick))))"),
        (
            "main.scm",
            "(import (scheme base) (scheme write) (my util) (prefix (only (my util) twice) u:) (other))
             (define t 1)
             (define b 2)
             (swap! t b)
             (write (list ((u:twice (lambda (x) (* x x))) 3) t b (public) (tick) (count)))",
        ),
    ]);
    let run = files.run("main.scm");
    assert_eq!((run.exit, run.output.as_str()), (0, "(81 2 1 secret 1 2)"), "{}", run.errors);
}

#[test]
fn an_error_in_another_file_is_located_there() {
    let files = Files::new(
        "located",
        &[
            ("my/util.sld", UTIL),
            ("my/parts/boom.scm", "\n\n(define (boom x)\n  (+ 1 (vector-ref x 9)))"),
            (
                "main.scm",
                "(import (scheme base) (my util))\n(define (f)\n  (+ 1 (boom (vector 1))))\n(list (f))",
            ),
            ("included.scm", "\n(if)"),
            ("includes.scm", "(include \"included.scm\")"),
            (
                "wrong.sld",
                "(define-library (wrong)\n (export z)\n (import (scheme base))\n (begin (define (z) (lambda))))",
            ),
            ("imports.scm", "(import (scheme base) (wrong))"),
        ],
    );
    let run = files.run("main.scm");
    for place in ["my/parts/boom.scm:4", "main.scm:3", "main.scm:4"] {
        assert!(
            run.exit != 0 && run.errors.contains(&files.path(place)),
            "{place}: {}",
            run.errors
        );
    }
    for (program, place) in [("includes.scm", "included.scm:2:1"), ("imports.scm", "wrong.sld:4:")]
    {
        let run = files.run(program);
        assert!(run.exit != 0 && run.errors.starts_with(&files.path(place)), "{}", run.errors);
    }
}

#[test]
fn files_that_ask_for_each_other_in_a_circle_are_refused() {
    let files = Files::new(
        "circles",
        &[
            (
                "a.sld",
                "(define-library (a) (export x) (import (scheme base) (b)) (begin (define x 1)))",
            ),
            (
                "b.sld",
                "(define-library (b) (export y) (import (scheme base) (a)) (begin (define y 1)))",
            ),
            ("imports.scm", "(import (scheme base) (a))"),
            ("itself.scm", "(include \"itself.scm\")"),
            ("sub/one.scm", "(include \"../sub/two.scm\")"),
            ("sub/two.scm", "(let () (include \"../sub/one.scm\"))"),
            ("twice.scm", "(begin (include \"harmless.scm\") (include \"harmless.scm\"))"),
            ("harmless.scm", "(display 'harmless)"),
        ],
    );
    for (program, why) in [
        ("imports.scm", "the library (a) imports itself"),
        ("itself.scm", "itself.scm includes itself"),
        ("sub/one.scm", "one.scm includes itself"),
    ] {
        let run = files.run(program);
        assert!(run.exit != 0 && run.errors.contains(why), "{program}: {}", run.errors);
    }
    let run = files.run("twice.scm");
    assert_eq!((run.exit, run.output.as_str()), (0, "harmlessharmless"), "{}", run.errors);
}

#[test]
fn load_runs_what_comes_before_an_error_and_says_where_it_is() {
    let files = Files::new(
        "load",
        &[
            (
                "runs.scm",
                "(define x 1)\n(define (f y)\n  (+ 1 (car y)))\n(display 'ran)\n(list (f 5))",
            ),
            ("syntax.scm", "(display 'ran)\n\n(if)\n(display 'not-run)"),
            ("open.scm", "(display 'ran)\n\n(list 1 2"),
        ],
    );
    std::fs::write(files.path("bytes.scm"), b"(display 1)\n(display \"\xff\")\n")
        .expect("writable");
    for (file, ran, place) in [
        ("runs.scm", "ran", "runs.scm:3:"),
        ("syntax.scm", "ran", "syntax.scm:3:1"),
        ("open.scm", "ran", "open.scm:3:1"),
        ("bytes.scm", "", "bytes.scm:2:11"),
    ] {
        let text = format!("(load {:?})", files.path(file));
        let run = run("heap=64m,backend=stw", &text, "loads.scm", &[], "").expect("no userfaultfd");
        assert!(run.exit != 0 && run.errors.contains(&files.path(place)), "{file}: {}", run.errors);
        assert_eq!(run.output, ran, "{file}");
    }
    // What cannot be read is a read error; definitions are there afterwards.
    let text = format!(
        "(define x 0) (guard (e (#t (display x) (display (read-error? e)))) (load {:?}))",
        files.path("open.scm")
    );
    let run = run("heap=64m,backend=stw", &text, "loads.scm", &[], "").expect("no userfaultfd");
    assert_eq!((run.exit, run.output.as_str()), (0, "ran0#t"), "{}", run.errors);
}
