//! Descriptors that programs lose come back before there are none left. A test file of its own, as it uses up those of the
//! process.

mod support;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::run;

#[test]
fn a_program_that_never_closes_a_port_does_not_run_out_of_descriptors() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    let most = most.min(4096);
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a limit may be lowered");
    let text = format!(
        "(define (lose i) (if (< i {}) (begin (read-char (open-input-file \"/dev/null\")) (lose (+ i 1)))))
         (lose 0)
         (display 'done)",
        2 * most
    );
    let run = run("heap=32m,backend=stw", &text, "ports.scm", &[], "").expect("no userfaultfd");
    assert_eq!((run.exit, run.output.as_str()), (0, "done"), "{}", run.errors);
}
