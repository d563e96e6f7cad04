//! Running a part of a test in a process of its own: for what belongs to a whole process, such as
//! signal handlers, limits, filters, and dying.

use std::{
    env,
    io::{Write, stdout},
    os::unix::process::ExitStatusExt,
    process::{Command, Output},
};

const KEY: &str = "FIRN_TEST_IN_CHILD";

/// Runs `body` in a new process and returns how that ended: with code 0 if `body` returned.
///
/// The new process runs the same test function, whose full name is `test`, and ends here.
pub fn in_child(test: &str, body: impl FnOnce()) -> Output {
    if env::var_os(KEY).is_some_and(|t| t == test) {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads a live struct. Deaths are wanted here, core files are not; and a
        // fault that repeats for ever shall be a failure (by SIGALRM), not a test that never ends.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &none);
            libc::alarm(60);
        }
        body();
        stdout().flush().expect("it is written");
        // Nothing is taken apart: the test runner's own thread is still at work.
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    Command::new(env::current_exe().expect("a test knows its own file"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(KEY, test)
        .output()
        .expect("a test can start itself")
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
