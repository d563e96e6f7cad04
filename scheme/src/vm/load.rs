//! Compiling forms and putting the code into the heap; loading whole texts.

use super::{Failure, Outcome, Vm, register};
use crate::compile::ops::code;
use crate::compile::{self, Code, Const};
use crate::datum;
use crate::expand::{Compiler, Expr, Immediate, SyntaxError, Unit};
use crate::mem::Mem;
use crate::object::Cell;
use crate::symbol::Symbol;
use crate::syntax::reader::{ReadError, Reader, Text};
use crate::syntax::{Forms, Id, Ident, Node};
use crate::value::Value;
use std::sync::Arc;

/// A text that could not be loaded, or a program that ended by itself.
#[derive(Clone, Debug)]
pub enum Stopped {
    /// The text is wrong.
    Syntax(SyntaxError),
    /// The program ended.
    Outcome(Outcome),
}

impl From<SyntaxError> for Stopped {
    fn from(error: SyntaxError) -> Stopped {
        Stopped::Syntax(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Stopped {
        Stopped::Outcome(match failure {
            Failure::OutOfMemory => Outcome::OutOfMemory,
            Failure::Error(_, message) => Outcome::Uncaught { message, trace: Vec::new() },
        })
    }
}

fn read_error(error: ReadError, file: &Arc<str>) -> SyntaxError {
    SyntaxError {
        message: error.message,
        file: file.clone(),
        at: error.at,
        incomplete: error.incomplete,
    }
}

/// Reads all forms of a text.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read_all(text: &str, file: &Arc<str>) -> Result<(Forms, Vec<Id>), SyntaxError> {
    let mut forms = Forms::new();
    let mut reader = Reader::new(Text::new(text));
    let mut all = Vec::new();
    while let Some(form) = reader.read(&mut forms).map_err(|error| read_error(error, file))? {
        all.push(form);
    }
    Ok((forms, all))
}

impl<'s> Vm<'_, 's> {
    /// Takes the compiler, waiting for other threads that compile.
    fn claiming<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        struct Release(Arc<crate::world::World>);
        impl Drop for Release {
            fn drop(&mut self) {
                self.0.release();
            }
        }
        let world = self.world.clone();
        self.cx.blocking(|| world.claim());
        let _release = Release(world.clone());
        f(self)
    }

    /// Does something with the compiler.
    pub fn with_compiler<R>(&mut self, f: impl FnOnce(&mut Compiler) -> R) -> R {
        self.claiming(|vm| {
            let world = vm.world.clone();
            let mut compiler = world.compiler.lock().expect("nobody panics with the compiler");
            f(&mut compiler)
        })
    }

    /// Compiles one form for an environment: a closure of no arguments, in the register RESULT. The forms come back.
    ///
    /// # Errors
    /// What is wrong with the form; the end of memory.
    pub fn compile(
        &mut self,
        forms: &mut Forms,
        form: Id,
        env: u32,
        file: &Arc<str>,
    ) -> Result<(), Stopped> {
        let before = forms.len();
        let result = self.claiming(|vm| {
            let world = vm.world.clone();
            let codes = {
                let mut compiler = world.compiler.lock().expect("nobody panics with the compiler");
                let mut unit = Unit::new(&mut compiler, std::mem::take(forms), file.clone());
                let expanded = expand(&mut unit, form, env);
                *forms = std::mem::take(&mut unit.forms);
                let vars = std::mem::take(&mut unit.vars);
                drop(unit);
                compile::compile(&compiler, &vars, &expanded?).map_err(|(message, at)| {
                    SyntaxError { message, file: file.clone(), at, incomplete: false }
                })?
            };
            vm.nested(|vm| {
                vm.make_cells()?;
                vm.place(&codes, forms, file)
            })?;
            Ok(())
        });
        forms.truncate(before);
        result
    }

    /// Makes cells for globals that have none.
    fn make_cells(&mut self) -> Result<(), Failure> {
        let world = self.world.clone();
        let (room, made) = {
            let cells = world.cells.lock().expect("nobody panics with the cells");
            match &*cells {
                Some((root, made)) => (root.get(self.cx).len(), *made),
                None => (0, 0),
            }
        };
        let globals: Vec<_> = {
            let compiler = world.compiler.lock().expect("nobody panics with the compiler");
            compiler.globals[made..].to_vec()
        };
        let total = made + globals.len();
        if total > room {
            self.settle(register::SCRATCH, |mem, _| {
                let cells = mem.world().cells.lock().expect("nobody panics with the cells");
                let old = cells.as_ref().map(|(root, _)| root.get(mem.scope()));
                let array = mem.array(2 * total + 500, |index| match old {
                    Some(old) if index < made => mem.element(old, index),
                    _ => Value::FALSE,
                })?;
                Ok(Value::vector(array))
            })?;
            let array = self.get(register::SCRATCH).as_vector().expect("made above");
            let root = self.cx.global(array);
            *world.cells.lock().expect("nobody panics with the cells") = Some((root, made));
        }
        let mut next = 0;
        while next < globals.len() {
            self.settle(register::SCRATCH, |mem, _| {
                let cells = mem.world().cells.lock().expect("nobody panics with the cells");
                let (root, _) = cells.as_ref().expect("made above");
                let array = root.get(mem.scope());
                while next < globals.len() {
                    let global = &globals[next];
                    let value = global.builtin.map_or(Value::UNBOUND, Value::primitive);
                    let cell = mem.cell(value, Value::symbol(global.name))?;
                    array.store(mem.scope(), made + next, cell.into());
                    next += 1;
                }
                Ok(Value::FALSE)
            })?;
        }
        if let Some((_, made)) = &mut *world.cells.lock().expect("nobody panics with the cells") {
            *made = total;
        }
        Ok(())
    }

    /// Puts a unit's code into the heap; its closure goes to RESULT.
    fn place(&mut self, codes: &[Code], forms: &Forms, file: &Arc<str>) -> Result<(), Failure> {
        let quotes: Vec<Id> = codes
            .iter()
            .flat_map(|code| &code.consts)
            .filter_map(|constant| match constant {
                Const::Quote(id) => Some(*id),
                _ => None,
            })
            .collect();
        let (data, placed) = datum::to_heap(self, forms, &quotes)?;
        let made = self.alloc_array(codes.len())?;
        let file = Value::symbol(Symbol::intern(file)).bits();
        for (number, code) in codes.iter().enumerate() {
            self.settle(register::SCRATCH, |mem, _| {
                let places = mem.array(1 + 2 * code.places.len(), |index| match index {
                    0 => Value::symbol(Symbol((file >> 8) as u32)),
                    _ => {
                        let (pc, at) = code.places[(index - 1) / 2];
                        Value::fixnum(if index % 2 == 1 {
                            (pc + code::CONSTANTS + code.consts.len()) as i64
                        } else {
                            (at.line as i64) << 16 | (at.column as i64).min(0xffff)
                        })
                    }
                })?;
                Ok(Value::vector(places))
            })?;
            let entry = code::CONSTANTS + code.consts.len();
            self.settle(register::SCRATCH, |mem, registers| {
                let world_cells = mem.world().cells.lock().expect("nobody panics with the cells");
                let cells = world_cells.as_ref().map(|(root, _)| root.get(mem.scope()));
                let places = mem.element(registers, register::SCRATCH);
                let (made, data) = (made.get(mem.scope()), data.get(mem.scope()));
                // Closures without captured values are constants; they are made first.
                let mut closures = Vec::new();
                for constant in &code.consts {
                    if let Const::Closure(of) = constant {
                        let code = mem.element(made, *of);
                        closures.push(Value::closure(mem.array(1, |_| code)?));
                    }
                }
                let mut closures = closures.into_iter();
                let array = mem.array(entry + code.instructions.len(), |index| match index {
                    code::META => Value::fixnum(code::meta(code.arity, code.frame, entry)),
                    code::PLACES => places,
                    code::NAME => Value::symbol(code.name),
                    _ if index < entry => match &code.consts[index - code::CONSTANTS] {
                        Const::Immediate(immediate) => immediate_value(*immediate),
                        Const::Quote(id) => mem.element(data, placed.place(*id)),
                        Const::Global(global) => {
                            mem.element(cells.expect("there are globals"), *global as usize)
                        }
                        Const::Code(of) => mem.element(made, *of),
                        Const::Closure(_) => closures.next().expect("one for each"),
                    },
                    _ => Value::from_fixnum_bits(code.instructions[index - entry]),
                })?;
                Ok(Value::vector(array))
            })?;
            let cx: &firn::Scope<'s> = self.cx;
            let value = self.registers.get(cx).load(cx, register::SCRATCH);
            made.get(cx).store(cx, number, value);
        }
        self.settle(register::RESULT, |mem, _| {
            let code = mem.element(made.get(mem.scope()), codes.len() - 1);
            mem.array(1, |_| code).map(Value::closure)
        })
    }

    /// Looks up the procedures of the prelude that the machine calls.
    pub(crate) fn find_hooks(&mut self) {
        for (slot, name) in [(register::RAISE, "%raise-error"), (register::REWIND, "%rewind")] {
            let ident = Ident::symbol(Symbol::intern(name));
            let world = self.world.clone();
            let global = self.with_compiler(|compiler| compiler.global(0, ident));
            let cells = world.cells.lock().expect("nobody panics with the cells");
            let Some((root, made)) = &*cells else { continue };
            let Some(global) = global.filter(|&global| (global as usize) < *made) else { continue };
            let cx: &firn::Scope<'s> = self.cx;
            let cell = root.get(cx).load(cx, global as usize);
            self.registers.get(cx).store(cx, slot, cell);
        }
    }

    /// The value of a global of environment 0, for tests.
    pub fn global(&mut self, name: &str) -> Option<Value<'_>> {
        let ident = Ident::symbol(Symbol::intern(name));
        let global = self.with_compiler(|compiler| compiler.global(0, ident))?;
        let world = self.world.clone();
        let cells = world.cells.lock().expect("nobody panics with the cells");
        let (root, made) = cells.as_ref()?;
        let cx: &firn::Scope<'s> = self.cx;
        let cell: Value<'_> =
            (global as usize).lt(made).then(|| root.get(cx).load(cx, global as usize).into())?;
        let cell = cell.as_cell()?;
        let cell: &Cell = &cell;
        Some(cell.value.load(cx).into())
    }

    /// Compiles and runs forms one after the other; each value goes to RESULT, and `each` sees it.
    ///
    /// # Errors
    /// The first that is wrong, or that ended the program.
    pub fn run_forms(
        &mut self,
        mut forms: Forms,
        all: &[Id],
        env: u32,
        file: &Arc<str>,
        mut each: impl FnMut(&mut Self),
    ) -> Result<(), Stopped> {
        let mut announced = false;
        for (index, &form) in all.iter().enumerate() {
            if !announced && !is_import(&forms, form) {
                announced = true;
                let rest = &all[index..];
                let taken = std::mem::take(&mut forms);
                forms = self.with_compiler(|compiler| {
                    let mut unit = Unit::new(compiler, taken, file.clone());
                    unit.announce_definitions(rest, env);
                    std::mem::take(&mut unit.forms)
                });
            }
            self.compile(&mut forms, form, env, file)?;
            match self.run() {
                Outcome::Done => each(self),
                outcome => return Err(Stopped::Outcome(outcome)),
            }
        }
        Ok(())
    }

    /// Loads a text into an environment.
    ///
    /// # Errors
    /// As [`Vm::run_forms`].
    pub fn load_text(&mut self, text: &str, env: u32, file: &str) -> Result<(), Stopped> {
        let file: Arc<str> = file.into();
        let (forms, all) = read_all(text, &file)?;
        self.run_forms(forms, &all, env, &file, |_| {})
    }

    /// Runs a program: a text that begins with imports has an environment of its own, any other the prompt's.
    ///
    /// # Errors
    /// As [`Vm::run_forms`].
    pub fn run_program(&mut self, text: &str, file: &str) -> Result<(), Stopped> {
        let file: Arc<str> = file.into();
        let (forms, all) = read_all(text, &file)?;
        let own = all.first().is_some_and(|&form| is_import(&forms, form));
        let env = if own {
            self.with_compiler(|compiler| {
                let env = compiler.new_env();
                compiler.import_import(env);
                env
            })
        } else {
            self.world.interaction
        };
        self.world.program.store(env, std::sync::atomic::Ordering::Relaxed);
        self.run_forms(forms, &all, env, &file, |_| {})
    }
}

fn is_import(forms: &Forms, form: Id) -> bool {
    let Some((head, _)) = forms.pair(form) else { return false };
    match forms.node(head) {
        Node::Ident(ident) => ident
            .as_symbol()
            .is_some_and(|symbol| matches!(&*symbol.name(), "import" | "define-library")),
        _ => false,
    }
}

fn expand(unit: &mut Unit<'_>, form: Id, env: u32) -> Result<Expr, SyntaxError> {
    let mut exprs = Vec::new();
    unit.top_level(form, env, &mut exprs)?;
    Ok(match exprs.len() {
        0 => Expr::Immediate(Immediate::Unspecified),
        1 => exprs.remove(0),
        _ => Expr::Seq(exprs),
    })
}

fn immediate_value<'m>(immediate: Immediate) -> Value<'m> {
    match immediate {
        Immediate::False => Value::FALSE,
        Immediate::True => Value::TRUE,
        Immediate::Nil => Value::NIL,
        Immediate::Unspecified => Value::UNSPECIFIED,
        Immediate::Eof => Value::EOF,
        Immediate::Fixnum(number) => Value::fixnum(number),
        Immediate::Char(c) => Value::char(c),
        Immediate::Symbol(symbol) => Value::symbol(symbol),
        Immediate::Primitive(number) => Value::primitive(number),
        Immediate::Unbound => Value::UNBOUND,
    }
}

/// `(%compile datum environment)`: the closure of the compiled datum.
pub fn compile_builtin<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> crate::trap::Result<'m> {
    use crate::trap::TrapKind;
    let env = match args.get(1) {
        Some(env) => {
            env.as_environment().ok_or_else(|| crate::trap::wrong_type("an environment", *env))?
        }
        None => mem.world().program.load(std::sync::atomic::Ordering::Relaxed),
    };
    let (forms, form, objects) = datum::from_heap(mem, args[0]);
    let objects = mem.vector(&objects)?;
    mem.keep(objects);
    Err(TrapKind::Outside(Box::new(move |vm| {
        let value = vm.kept();
        vm.copy_register(value, register::ORIGINS);
        let mut forms = forms;
        let file: Arc<str> = "eval".into();
        let result = vm.compile(&mut forms, form, env, &file);
        vm.set(register::ORIGINS, |_| Value::FALSE);
        match result {
            Ok(()) => Ok(()),
            Err(Stopped::Syntax(error)) => Err(Failure::Error("syntax", error.message)),
            Err(Stopped::Outcome(Outcome::OutOfMemory)) => Err(Failure::OutOfMemory),
            Err(Stopped::Outcome(outcome)) => Err(Failure::Error("error", format!("{outcome:?}"))),
        }
    }))
    .into())
}
