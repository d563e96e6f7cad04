//! The fuzz target of `fuzz/` without a fuzzer: its seeds, and a fixed number of mutations of them, are read,
//! expanded and compiled. Whatever the text is, the answer is code or an error, never a panic.

mod support;

use firn_scheme::Interpreter;
use firn_scheme::vm::load::read_all;
use std::sync::Arc;
use support::{directory, interpreter, programs};

/// Reads, expands and compiles all forms of a text; does not run them.
fn compile(scheme: &Interpreter, text: &str) {
    let file: Arc<str> = "fuzz.scm".into();
    let Ok((mut forms, all)) = read_all(text, &file) else { return };
    let ended = scheme.with(|vm| {
        let env = vm.with_compiler(|compiler| compiler.new_env());
        vm.with_compiler(|compiler| compiler.import_all("(firn all)", env));
        for form in all {
            if vm.compile(&mut forms, form, env, &file).is_err() {
                return;
            }
        }
    });
    ended.expect("the heap is large enough");
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// Pieces that matter to the reader and the expander.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "'",
    "`",
    ",",
    ",@",
    ".",
    "...",
    "#(",
    "#u8(",
    "#;",
    "#|",
    "|#",
    "|",
    "\"",
    "\\",
    "#\\",
    "#0=",
    "#0#",
    "#e",
    "#x",
    "1/0",
    "+inf.0",
    "-",
    "_",
    "else",
    "=>",
    "(define-syntax m (syntax-rules () ((_ a ...) (a ...))))",
    "(let loop ((i 0)) ",
    "(define-record-type r ",
    "(lambda (x . y) ",
    "(define ",
    "(import (scheme base))",
    "\u{3bb}",
    "\u{1f600}",
    "\n",
    ";",
    "#!fold-case",
    "(quasiquote (unquote-splicing ",
];

fn mutate(text: &str, random: &mut Random) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..1 + random.below(6) {
        let at = random.below(chars.len() + 1);
        match random.below(4) {
            0 if at < chars.len() => {
                chars.remove(at);
            }
            1 => {
                let piece = PIECES[random.below(PIECES.len())];
                chars.splice(at..at, piece.chars());
            }
            2 => {
                let end = (at + random.below(40)).min(chars.len());
                let copied: Vec<char> = chars[at..end].to_vec();
                let to = random.below(chars.len() + 1);
                chars.splice(to..to, copied);
            }
            _ => {
                let end = (at + random.below(20)).min(chars.len());
                chars.drain(at..end);
            }
        }
    }
    chars.into_iter().collect()
}

/// Compiles a text; if that panics, the text is shown first.
fn compile_or_show(scheme: &Interpreter, text: &str) {
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compile(scheme, text)));
    if let Err(panic) = ended {
        eprintln!("the compiler panicked at this text:\n{text}\n---");
        std::panic::resume_unwind(panic);
    }
}

/// Compiles `count` mutations of each seed.
fn fuzz(random: &mut Random, count: usize) {
    let mut seeds = programs("fuzz/corpus/reader_and_compiler");
    seeds.extend(programs("tests/suite"));
    for seed in seeds {
        let scheme = interpreter("heap=64m,backend=stw").expect("needs no userfaultfd");
        let text = std::fs::read_to_string(&seed).expect("readable");
        compile_or_show(&scheme, &text);
        let lines: Vec<&str> = text.lines().collect();
        for _ in 0..count {
            // A hundred lines, so that all parts of a long file have their turn.
            let first = random.below(lines.len().saturating_sub(100) + 1);
            let part = lines[first..].iter().take(100).copied().collect::<Vec<_>>().join("\n");
            compile_or_show(&scheme, &mutate(&part, random));
        }
    }
}

#[test]
fn seeds_and_their_mutations_compile_or_are_refused() {
    fuzz(&mut Random(0x5eed), 150);
}

/// `FIRN_FUZZ_SECONDS=600 FIRN_FUZZ_SEED=7 cargo test -p firn-scheme --test fuzz_corpus` goes on for ten minutes.
#[test]
fn more_mutations_compile_or_are_refused_for_as_long_as_is_asked_for() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seconds = number("FIRN_FUZZ_SECONDS").unwrap_or(1);
    let mut random = Random(number("FIRN_FUZZ_SEED").unwrap_or(1));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let mut rounds = 0;
    while rounds == 0 || std::time::Instant::now() < end {
        fuzz(&mut random, 10);
        rounds += 1;
    }
}

#[test]
fn the_fuzz_target_is_kept_beside_its_seeds() {
    let target = directory("fuzz/fuzz_targets/reader_and_compiler.rs");
    assert!(target.is_file());
}
