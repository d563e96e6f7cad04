//! `firn scheme --repl` at a terminal: the line editor, and Ctrl-C in a program that runs, waits, or fills the heap.
//!
//! The terminal is `script`'s, whose standard input is the keyboard.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A prompt at a terminal.
struct Prompt {
    child: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// Came on the screen after what was waited for last.
    seen: String,
    home: std::path::PathBuf,
}

impl Prompt {
    /// `None`, with a line that says so, if there is no `script`.
    fn start(name: &str) -> Option<Prompt> {
        let home = std::env::temp_dir().join(format!("firn-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&home).expect("writable");
        // Some shells, when the keys' interrupt has reached them too, end by it once their command has ended: the
        // command takes the shell's place.
        let command =
            format!("exec {} scheme --repl --gc heap=64m,backend=stw", env!("CARGO_BIN_EXE_firn"));
        let child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
            .env("HOME", &home)
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(why) => {
                eprintln!("skipped: no terminal can be had: script: {why}");
                return None;
            }
        };
        let keyboard = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut prompt = Prompt { child, keyboard, screen, seen: String::new(), home };
        prompt.until("> ");
        Some(prompt)
    }

    fn keys(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .and_then(|()| self.keyboard.flush())
            .expect("it is read");
    }

    /// Waits until `wanted` has appeared on the screen, behind what was waited for before.
    fn until(&mut self, wanted: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(wanted) {
                self.seen.drain(..at + wanted.len());
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(why) => {
                    let skipped = self.seen.chars().count().saturating_sub(2000);
                    let end: String = self.seen.chars().skip(skipped).collect();
                    panic!("no {wanted:?} ({why}) at the end of {end:?}")
                }
            }
        }
    }

    fn exit_code(mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the prompt does not end")
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

#[test]
fn ctrl_c_comes_back_to_the_prompt_whatever_runs() {
    let Some(mut prompt) = Prompt::start("interrupted") else { return };
    for runs in [
        "(let loop () (loop))",
        "(let loop ((l '())) (loop (if (> (length l) 1000) '() (cons (make-vector 10 0) l))))",
        "(let loop () (gc) (loop))",
        "(read-line)",
        "(thread-sleep! 1000)",
        "(thread-join! (thread-start! (make-thread (lambda () (let loop () (loop))))))",
    ] {
        // It says that it is about to run; then a key is pressed.
        prompt.keys(&format!("(begin (display (list 'now 'it 'runs)) (newline) {runs})\r"));
        prompt.until("(now it runs)");
        prompt.keys("\x03");
        prompt.until("interrupted");
        prompt.until("> ");
        prompt.keys("(list (+ 40 2))\r");
        prompt.until("(42)");
        prompt.until("> ");
    }
    prompt.keys("(exit 7)\r");
    assert_eq!(prompt.exit_code(), Some(7));
}

#[test]
fn lines_are_edited_completed_continued_and_remembered() {
    let Some(mut prompt) = Prompt::start("edited") else { return };
    // Several values have a line each.
    prompt.keys("(values 6 (list 7))\r");
    prompt.until("6\r\n(7)");
    prompt.until("> ");
    prompt.keys("(string-app\t \"a\" \"b\")\r");
    prompt.until("\"ab\"");
    prompt.until("> ");
    // A form that is not closed goes on in the next line.
    prompt.keys("(list 1\r2)\r");
    prompt.until("(1 2)");
    prompt.until("> ");
    // Ctrl-C leaves the line alone, Ctrl-D the prompt.
    prompt.keys("(never");
    prompt.until("(never");
    prompt.keys("\x03");
    prompt.until("> ");
    // To the entry of two lines, to its first line, to the entry before.
    prompt.keys("\x1b[A\x1b[A\x1b[A\r");
    prompt.until("\"ab\"");
    prompt.until("> ");
    prompt.keys("(car 5)\r");
    prompt.until("not a pair: 5");
    prompt.until("> ");
    prompt.keys("\x04");
    let history = prompt.home.join(".firn-scheme-history");
    let deadline = Instant::now() + PATIENCE;
    while !history.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let kept = std::fs::read_to_string(&history).expect("the history is kept");
    assert!(kept.contains("string-append"), "{kept}");
    assert_eq!(prompt.exit_code(), Some(0));
}

/// Keys are looked at only when that is known. The numbers of this form take minutes.
#[test]
fn whether_a_form_goes_on_is_seen_without_computing_its_numbers() {
    let Some(mut prompt) = Prompt::start("numbers") else { return };
    // Pasted, so that it is drawn once.
    let numbers = "#e1e999999 ".repeat(4000);
    prompt.keys(&format!("\x1b[200~(list {numbers}\x1b[201~\r"));
    prompt.until("#e1e999999 \r\n");
    // It is left alone for another one.
    prompt.keys("\x03");
    prompt.until("> ");
    prompt.keys("(list 'next 'form)\r");
    prompt.until("(next form)");
    prompt.until("> ");
    prompt.keys("\x04");
    assert_eq!(prompt.exit_code(), Some(0));
}
