//! [`Interpreter`]: a heap, a world, the prelude; what programs that embed the Scheme use.

use crate::object::MultipleValues;
use crate::print::{Mode, Printed};
use crate::value::Value;
use crate::vm::load::Stopped;
use crate::vm::{Failure, Outcome, Vm, register};
use crate::world::World;
use firn::{Heap, HeapError, Options};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// An interpreter could not be made.
#[derive(Debug)]
pub enum StartError {
    /// There is no heap.
    Heap(HeapError),
    /// The heap is too small even for the prelude.
    OutOfMemory,
    /// The prelude is wrong: a mistake of ours.
    Prelude(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Heap(error) => write!(f, "{error}"),
            StartError::OutOfMemory => {
                write!(f, "the heap is too small for the interpreter: give it more (heap=16m)")
            }
            StartError::Prelude(message) => write!(f, "the prelude does not load: {message}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The parts of the prelude, in order.
const PRELUDE: &[(&str, &str)] = &[
    ("prelude/control.scm", include_str!("prelude/control.scm")),
    ("prelude/data.scm", include_str!("prelude/data.scm")),
    ("prelude/numbers.scm", include_str!("prelude/numbers.scm")),
    ("prelude/ports.scm", include_str!("prelude/ports.scm")),
    ("prelude/threads.scm", include_str!("prelude/threads.scm")),
];

/// A Scheme.
pub struct Interpreter {
    world: Arc<World>,
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        self.stop_threads();
        self.world.streams.flush_all();
        // The roots of the globals refer to the heap, which the world owns: they go first.
        *self.world.cells.lock().expect("nobody panics with the cells") = None;
        *self.world.lost_ports.lock().expect("nobody panics with it") = None;
    }
}

impl Interpreter {
    /// Makes a heap with these options, and an interpreter on it.
    ///
    /// # Errors
    /// What the machine or the heap lacks.
    pub fn new(options: &Options) -> Result<Interpreter, StartError> {
        let heap = Heap::new(options).map_err(StartError::Heap)?;
        Interpreter::on(heap)
    }

    /// An interpreter on a heap.
    ///
    /// # Errors
    /// As [`Interpreter::new`].
    pub fn on(heap: Heap) -> Result<Interpreter, StartError> {
        let interpreter = Interpreter { world: World::new(heap) };
        let started = interpreter.with(|vm| -> Result<(), StartError> {
            for (file, text) in PRELUDE {
                vm.load_text(text, 0, file).map_err(|stopped| match stopped {
                    Stopped::Outcome(Outcome::OutOfMemory) => StartError::OutOfMemory,
                    Stopped::Outcome(Outcome::Uncaught { message, .. }) => {
                        StartError::Prelude(message)
                    }
                    Stopped::Syntax(error) => StartError::Prelude(error.to_string()),
                    Stopped::Outcome(other) => StartError::Prelude(format!("{other:?}")),
                })?;
                vm.find_hooks();
            }
            vm.settle(register::SCRATCH, |mem, _| mem.guardian())
                .map_err(|_| StartError::OutOfMemory)?;
            let scope: &firn::Scope<'_> = vm.cx;
            let guardian = vm.get(register::SCRATCH).as_object(scope).expect("made above");
            *vm.world.lost_ports.lock().expect("nobody panics with it") =
                Some(scope.global(guardian));
            let interaction = vm.world.interaction;
            vm.with_compiler(|compiler| {
                compiler.make_standard_libraries().map_err(StartError::Prelude)?;
                compiler.import_all("(firn all)", interaction);
                compiler.import_import(interaction);
                Ok(())
            })
        });
        match started {
            Ok(result) => result.map(|()| interpreter),
            Err(_) => Err(StartError::OutOfMemory),
        }
    }

    /// What its threads share.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Attaches the calling thread and gives it a machine.
    ///
    /// # Errors
    /// If the heap is full.
    pub fn with<R>(&self, f: impl for<'v, 's> FnOnce(&mut Vm<'v, 's>) -> R) -> Result<R, Failure> {
        let world = self.world.clone();
        self.world.heap.attach(|cx| {
            let terminated = Arc::new(AtomicBool::new(false));
            let mut vm = Vm::new(cx, world, terminated)?;
            vm.settle(register::THREAD, |mem, _| {
                let zero = || firn::Tagged::new(0);
                let empty = crate::object::ThreadObject {
                    id: 0,
                    state: 1.into(),
                    thunk: zero(),
                    result: zero(),
                    name: zero(),
                    specific: zero(),
                };
                let name = Value::symbol(crate::symbol::Symbol::intern("primordial"));
                mem.make(empty, |thread| {
                    for slot in [&thread.thunk, &thread.result, &thread.specific] {
                        thread.set(slot, Value::FALSE.into());
                    }
                    thread.set(&thread.name, name.into());
                })
            })?;
            Ok(f(&mut vm))
        })
    }

    /// Evaluates the forms of a text at the prompt's environment; the last value as `write` has it.
    ///
    /// # Errors
    /// Why there is no value.
    pub fn eval_to_string(&self, text: &str) -> Result<String, Stopped> {
        self.with(|vm| {
            let mut last = String::new();
            let file: Arc<str> = "expression".into();
            let (forms, all) = vm.read_all(text, &file)?;
            let env = vm.world.interaction;
            vm.run_forms(forms, &all, env, &file, |vm| last = vm.result_text())?;
            Ok(last)
        })
        .map_err(Stopped::from)?
    }

    /// Ends all threads that programs have started, and waits for them.
    pub fn stop_threads(&self) {
        let running: Vec<_> =
            self.world.threads.lock().expect("threads are whole").drain().map(|(_, r)| r).collect();
        for thread in &running {
            thread.terminated.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        for thread in running {
            let _ = thread.handle.join();
        }
    }
}

impl Vm<'_, '_> {
    /// The prompt's environment.
    pub fn interaction(&self) -> u32 {
        self.world.interaction
    }

    /// Whether the value in RESULT is worth printing.
    pub fn has_result(&self) -> bool {
        self.get(register::RESULT) != Value::UNSPECIFIED
    }

    /// The value in RESULT as `write` has it; of several values each in a line of its own, of none nothing. Nothing also if
    /// somebody ended it: a number may have many digits.
    pub fn result_text(&mut self) -> String {
        let (most, mut lines) = (self.world.most_text, Vec::new());
        self.copy_register(register::RESULT, register::PRINTED);
        for index in 0.. {
            let mut count = 1;
            let settled = self.settle(register::RESULT, |mem, registers| {
                let value = mem.element(registers, register::PRINTED);
                let Some(many) = mem.object::<MultipleValues>(value) else { return Ok(value) };
                let many: &MultipleValues = &many;
                let list = many.list.load(mem.scope()).into();
                let values = mem.elements(list).expect("values are a list");
                count = values.len();
                Ok(values.get(index).copied().unwrap_or(Value::FALSE))
            });
            if settled.is_err() || index >= count {
                break;
            }
            match self.text_of(register::RESULT, Mode::Write, most, Vec::new()) {
                Ok(Printed::Whole(text)) => lines.push(text),
                Ok(Printed::Begins(text)) => lines.push(text + "..."),
                Ok(Printed::Stopped) => return String::new(),
                Err(_) => break,
            }
        }
        self.copy_register(register::PRINTED, register::RESULT);
        self.set(register::PRINTED, |_| Value::FALSE);
        lines.join("\n")
    }
}
