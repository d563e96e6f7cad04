//! `firn scheme`: programs, expressions and a prompt for the Scheme on the heap.
//!
//! Exit codes are the program's own (`(exit n)`); 1 if it ended by an error, 2 bad usage, 3 if the machine lacks
//! something, 130 after Ctrl-C.

use crate::exit::{Exit, Failure};
use clap::Args;
use firn::Options;
use firn_scheme::vm::load::Stopped;
use firn_scheme::vm::{Outcome, Vm};
use firn_scheme::{Interpreter, StartError};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// What `firn scheme` takes.
#[derive(Debug, Args)]
pub struct SchemeArgs {
    /// Start a prompt, after the program if there is one
    #[arg(long)]
    repl: bool,
    /// Evaluate an expression and print its value; may be repeated
    #[arg(short = 'e', long = "eval", value_name = "EXPR")]
    eval: Vec<String>,
    /// Options of the heap, such as heap=1g,backend=stw
    #[arg(long, value_name = "OPTIONS", default_value = "")]
    gc: String,
    /// Print what the collector cost the program, at its end, to standard error
    #[arg(long)]
    gc_report: bool,
    /// The program
    #[arg(value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Its arguments
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// Bad usage, and what the machine lacks.
pub fn run(args: &SchemeArgs) -> Result<ExitCode, Failure> {
    let options = Options::parse(&args.gc).map_err(|e| Failure::usage(format!("--gc: {e}")))?;
    let text = match &args.program {
        None => None,
        Some(path) => {
            let bytes = std::fs::read(path)
                .map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))?;
            Some(String::from_utf8(bytes).map_err(|e| {
                let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
                let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
                Failure::gate(format!("{}:{line}: the text is not UTF-8", path.display()))
            })?)
        }
    };
    if text.is_none() && args.eval.is_empty() && !args.repl {
        return Err(Failure::usage("a program, -e EXPR or --repl is needed (see --help)"));
    }
    // The compiler recurses over nested expressions: give it room.
    let code = std::thread::scope(|threads| {
        let builder = std::thread::Builder::new().name("Mutator-0".into()).stack_size(256 << 20);
        let thread = builder
            .spawn_scoped(threads, || session(args, &options, text.as_deref()))
            .map_err(|e| Failure::missing(format!("cannot start a thread: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(Failure::gate("the interpreter panicked")))
    })?;
    Ok(code)
}

fn session(args: &SchemeArgs, options: &Options, text: Option<&str>) -> Result<ExitCode, Failure> {
    let heap = firn::Heap::new(options).map_err(|e| match e {
        firn::HeapError::Options(e) => Failure::usage(format!("--gc: {e}")),
        e => Failure::missing(e.to_string()),
    })?;
    let scheme = Interpreter::on(heap).map_err(|e| match e {
        StartError::OutOfMemory => Failure::usage(format!("--gc: {e}")),
        e => Failure::gate(e.to_string()),
    })?;
    {
        let mut line = scheme.world().command_line.lock().expect("nobody panics with it");
        line.push(args.program.as_ref().map_or_else(String::new, |p| p.display().to_string()));
        line.extend(args.arguments.iter().cloned());
    }
    let interrupted = scheme.world().interrupted.clone();
    // A second handler cannot be set in one process; the program has one.
    let _ = ctrlc::set_handler(move || interrupted.store(true, Ordering::Relaxed));
    let outcome = scheme.with(|vm| {
        let mut done = Ok(());
        if let Some(text) = text {
            let name = args.program.as_ref().expect("there is a text").display().to_string();
            done = vm.run_program(text, &name);
        }
        for expression in &args.eval {
            if done.is_ok() {
                done = evaluate(vm, expression, "expression");
            }
        }
        done
    });
    scheme.world().streams.flush_all();
    let code = match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(stopped)) => report(&stopped),
        Err(_) => report(&Stopped::Outcome(Outcome::OutOfMemory)),
    };
    scheme.stop_threads();
    Ok(ExitCode::from(code))
}

/// Evaluates all forms of a text and prints the values that say something.
fn evaluate(vm: &mut Vm<'_, '_>, text: &str, name: &str) -> Result<(), Stopped> {
    let file: std::sync::Arc<str> = name.into();
    let (forms, all) = firn_scheme::vm::load::read_all(text, &file)?;
    let env = vm.interaction();
    vm.run_forms(forms, &all, env, &file, |vm| {
        if vm.has_result() {
            let text = vm.result_text();
            vm.world.streams.flush_all();
            println!("{text}");
        }
    })
}

/// Says why a program stopped; returns the exit code.
fn report(stopped: &Stopped) -> u8 {
    match stopped {
        Stopped::Syntax(error) => eprintln!("firn scheme: {error}"),
        Stopped::Outcome(Outcome::Quit(code)) => return *code as u8,
        Stopped::Outcome(Outcome::Interrupted) => {
            eprintln!("firn scheme: interrupted");
            return Exit::Interrupted.code();
        }
        Stopped::Outcome(Outcome::OutOfMemory) => {
            eprintln!("firn scheme: out of memory: give the heap more (--gc heap=1g)");
        }
        Stopped::Outcome(Outcome::Uncaught { message, trace }) => {
            eprintln!("firn scheme: {message}");
            for line in trace {
                eprintln!("  in {line}");
            }
        }
        Stopped::Outcome(Outcome::Done | Outcome::Terminated) => {}
    }
    Exit::GateFailed.code()
}
