//! `firn scheme`: programs, expressions and a prompt for the Scheme on the heap.
//!
//! Exit codes are the program's own (`(exit n)`); 1 if it ended by an error, 2 bad usage, 3 if the machine lacks
//! something, 130 after Ctrl-C.

mod repl;

use crate::clock;
use crate::exit::{Exit, Failure};
use crate::measure::collect::Collector;
use crate::progress::Stop;
use crate::scheme_compare;
use crate::stress::report_text::gc_text;
use clap::Args;
use firn::Options;
use firn_scheme::vm::load::{Stopped, decode};
use firn_scheme::vm::{Outcome, Vm};
use firn_scheme::{Interpreter, StartError};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
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
    /// Compare the programs of a directory with other Schemes instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["repl", "eval", "program", "gc_report"])]
    bench: Option<PathBuf>,
    /// With --bench: how often each program runs under each system
    #[arg(long, value_name = "N", default_value_t = 3, requires = "bench")]
    rounds: u32,
    /// With --bench: only these programs, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "bench")]
    only: Vec<String>,
    /// With --bench: measure the longest stalls, too
    #[arg(long, requires = "bench")]
    stalls: bool,
    /// With --bench: write the results as JSON
    #[arg(long, value_name = "FILE", requires = "bench")]
    json: Option<PathBuf>,
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
    if let Some(directory) = &args.bench {
        let compared = scheme_compare::Options {
            directory: directory.clone(),
            only: args.only.clone(),
            rounds: args.rounds,
            gc: (!args.gc.is_empty()).then(|| args.gc.clone()),
            stalls: args.stalls,
            json: args.json.clone(),
            ..scheme_compare::Options::default()
        };
        let stop = Stop::new();
        stop.connect_signals();
        return scheme_compare::run(&compared, &stop, |text| print!("{text}")).map(ExitCode::from);
    }
    let text = match &args.program {
        None => None,
        Some(path) => {
            let bytes = std::fs::read(path)
                .map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))?;
            match decode(bytes, &path.display().to_string()) {
                Ok(text) => Some(text),
                Err(error) => return Ok(ExitCode::from(report(&Stopped::Syntax(error)))),
            }
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
    let collector = Arc::new(Collector::new());
    if args.gc_report {
        heap.add_listener(collector.clone());
    }
    let began = clock::now();
    let scheme = Interpreter::on(heap).map_err(|e| match e {
        StartError::OutOfMemory => Failure::usage(format!("--gc: {e}")),
        e => Failure::gate(e.to_string()),
    })?;
    {
        let mut line = scheme.world().command_line.lock().expect("nobody panics with it");
        line.push(args.program.as_ref().map_or_else(String::new, |p| p.display().to_string()));
        line.extend(args.arguments.iter().cloned());
    }
    let editor = args.repl.then(repl::editor).transpose()?;
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
    let mut code = match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(stopped)) => report(&stopped),
        Err(_) => report(&Stopped::Outcome(Outcome::OutOfMemory)),
    };
    if let Some(editor) = editor
        && code == 0
    {
        code = repl::run(&scheme, editor);
    }
    scheme.stop_threads();
    if args.gc_report {
        eprint!("{}", gc_text(&collector.report((began, clock::now()), 1)));
    }
    Ok(ExitCode::from(code))
}

/// Evaluates all forms of a text and prints the values that say something.
pub(crate) fn evaluate(vm: &mut Vm<'_, '_>, text: &str, name: &str) -> Result<(), Stopped> {
    let file: Arc<str> = name.into();
    let (forms, all) = vm.read_all(text, &file)?;
    let env = vm.interaction();
    vm.run_forms(forms, &all, env, &file, |vm| {
        if vm.has_result() {
            let text = vm.result_text();
            vm.world.streams.flush_all();
            // No values have no line.
            if !text.is_empty() {
                println!("{text}");
            }
        }
    })
}

/// Says why a program stopped; returns the exit code.
pub(crate) fn report(stopped: &Stopped) -> u8 {
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
