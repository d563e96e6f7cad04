//! A part of a test in a process of its own: for what belongs to a whole process, such as signal handlers,
//! limits, and dying.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio, exit};
use std::time::{Duration, Instant};

const KEY: &str = "FIRN_TEST_IN_CHILD";
/// Longest life of a child: whoever needs it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` in a new process and returns how that ended: with code 0 if `body` returned.
///
/// The new process runs the same test function, whose full name is `test`, and ends here.
///
/// # Panics
/// In the parent, if the child does not end.
pub fn in_child(test: &str, body: impl FnOnce()) -> Output {
    if env::var_os(KEY).is_some_and(|name| name == test) {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads a live struct. Deaths are wanted here, core files are not.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        body();
        exit(0);
    }
    let mut child = Command::new(env::current_exe().expect("a test knows its own file"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(KEY, test)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a test can start itself");
    let begin = Instant::now();
    while child.try_wait().expect("a child can be waited for").is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill().expect("a child can be killed");
            let text = text(&child.wait_with_output().expect("a child has output"));
            panic!("the child hangs; it wrote: {text}");
        }
        // Waiting for another process, with nothing to be told by.
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("a child has output")
}

/// Asserts that the process ended well, and returns what it wrote.
#[allow(dead_code)]
pub fn succeeded(output: &Output) -> String {
    let text = text(output);
    assert_eq!(output.status.code(), Some(0), "{:?}: {text}", output.status);
    text
}

/// Asserts that a signal ended the process, and returns what it wrote.
#[allow(dead_code)]
pub fn killed_by(output: &Output, signal: i32) -> String {
    let text = text(output);
    assert_eq!(output.status.signal(), Some(signal), "{:?}: {text}", output.status);
    text
}

/// Everything the process wrote.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}
