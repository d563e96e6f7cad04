//! Compiling forms and putting the code into the heap; loading whole texts.

use super::{Failure, Outcome, Vm, register};
use crate::compile::ops::code;
use crate::compile::{self, Code, Const, TooLarge};
use crate::datum;
use crate::expand::{Compiler, Expr, Immediate, SyntaxError, Unexpanded, Unit};
use crate::mem::Mem;
use crate::numbers::large::{self, Watch};
use crate::object::Cell;
use crate::port::contents;
use crate::symbol::Symbol;
use crate::syntax::reader::{ReadError, Reader, Text};
use crate::syntax::{Forms, Id, Ident, Location, Node};
use crate::value::Value;
use crate::world::World;
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
    SyntaxError { message: error.message, file: file.clone(), at: error.at }
}

/// Reads all forms of a text, however long it takes: for whoever has no heap. With one it is [`Vm::read_all`].
///
/// # Errors
/// What is wrong with it, and where.
pub fn read_all(text: &str, file: &Arc<str>) -> Result<(Forms, Vec<Id>), SyntaxError> {
    match read_forms(&Watch::NOBODY, text, file).expect("nobody stops it") {
        (forms, all, None) => Ok((forms, all)),
        (_, _, Some(wrong)) => Err(wrong),
    }
}

/// The forms of a text up to the first that cannot be read, and why not.
type Read = (Forms, Vec<Id>, Option<SyntaxError>);

fn read_forms(watch: &Watch<'_>, text: &str, file: &Arc<str>) -> Result<Read, large::Stopped> {
    let mut forms = Forms::new();
    let mut reader = Reader::new(*watch, Text::new(text));
    let mut all = Vec::new();
    loop {
        match reader.read(&mut forms) {
            Ok(Some(form)) => all.push(form),
            Ok(None) => return Ok((forms, all, None)),
            Err(unread) => return Ok((forms, all, Some(read_error(unread.wrong()?, file)))),
        }
    }
}

/// The text of a file of program text.
///
/// # Errors
/// If it is not UTF-8: where.
pub fn decode(bytes: Vec<u8>, file: &str) -> Result<String, SyntaxError> {
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count() as u32;
        let column =
            1 + String::from_utf8_lossy(before).chars().rev().take_while(|&c| c != '\n').count()
                as u32;
        SyntaxError {
            message: "the text is not UTF-8".to_string(),
            file: file.into(),
            at: Location { line, column, ..Location::default() },
        }
    })
}

/// The compiler is this thread's until this goes.
struct Claim(Arc<World>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl<'s> Vm<'_, 's> {
    /// Reads all forms of a text. Meanwhile the thread counts as stopped: no collection waits for it.
    ///
    /// # Errors
    /// What is wrong with it, and where; or who is interrupted.
    pub fn read_all(&mut self, text: &str, file: &Arc<str>) -> Result<(Forms, Vec<Id>), Stopped> {
        match self.watched(|watch| read_forms(watch, text, file)) {
            Ok((forms, all, None)) => Ok((forms, all)),
            Ok((_, _, Some(wrong))) => Err(wrong.into()),
            Err(large::Stopped) => Err(Stopped::Outcome(self.world.ended(self.end()))),
        }
    }

    /// How whatever was watched and is stopped is to end.
    fn end(&self) -> Outcome {
        self.wanted_end().unwrap_or(Outcome::Interrupted)
    }

    /// Takes the compiler, waiting for other threads that compile, unless this one is to end before.
    fn claim(&mut self) -> Result<Claim, Stopped> {
        let world = self.world.clone();
        match self.watched(|watch| world.claim(watch)) {
            Ok(()) => Ok(Claim(world)),
            Err(large::Stopped) => Err(Stopped::Outcome(self.end())),
        }
    }

    /// Does something with the compiler, however long other threads have it.
    pub fn with_compiler<R>(&mut self, f: impl FnOnce(&mut Compiler) -> R) -> R {
        let world = self.world.clone();
        self.cx.blocking(|| world.claim(&Watch::NOBODY)).expect("nobody stops it");
        let _claim = Claim(world.clone());
        let mut compiler = world.compiler.lock().expect("nobody panics with the compiler");
        f(&mut compiler)
    }

    /// Compiles one form for an environment: a closure of no arguments, in the register RESULT. The forms come back.
    ///
    /// # Errors
    /// What is wrong with the form; who is to end; the end of memory.
    pub fn compile(
        &mut self,
        forms: &mut Forms,
        form: Id,
        env: u32,
        file: &Arc<str>,
    ) -> Result<(), Stopped> {
        let before = forms.len();
        let result = self.compile_claimed(forms, form, env, file);
        forms.truncate(before);
        result
    }

    fn compile_claimed(
        &mut self,
        forms: &mut Forms,
        form: Id,
        env: u32,
        file: &Arc<str>,
    ) -> Result<(), Stopped> {
        let _claim = self.claim()?;
        let world = self.world.clone();
        // Forms and code are outside of the heap, and may take long: a text of any length may be included.
        let codes = self.watched(|watch| {
            let mut compiler = world.compiler.lock().expect("nobody panics with the compiler");
            let mut unit = Unit::new(&mut compiler, std::mem::take(forms), file.clone(), *watch);
            let expanded = expand(&mut unit, form, env);
            *forms = std::mem::take(&mut unit.forms);
            let vars = std::mem::take(&mut unit.vars);
            drop(unit);
            let expanded = match expanded {
                Ok(expanded) => expanded,
                Err(unexpanded) => return unexpanded.wrong().map(Err),
            };
            match compile::compile(watch, &compiler, &vars, &expanded) {
                Ok(codes) => Ok(Ok(codes)),
                Err(uncompiled) => {
                    let TooLarge(at) = uncompiled.wrong()?;
                    let message = "this procedure is too large: divide it".to_string();
                    Ok(Err(SyntaxError { message, file: file.clone(), at }))
                }
            }
        });
        let codes = codes.map_err(|large::Stopped| Stopped::Outcome(self.end()))??;
        self.nested(|vm| {
            vm.make_cells()?;
            vm.place(&codes, forms, file)
        })?;
        Ok(())
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
        let file = Symbol::intern(file);
        for (number, code) in codes.iter().enumerate() {
            let places = places(code, file);
            self.settle(register::SCRATCH, |mem, _| {
                mem.array(places.len(), |index| places[index].value()).map(Value::vector)
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

    /// Looks up the procedures of the prelude that the machine calls. Once they are known the compiler is not asked: who
    /// has it may compile for long, and no thread is to wait for that when it starts.
    pub(crate) fn find_hooks(&mut self) {
        let hooks = [(register::RAISE, "%raise-error"), (register::REWIND, "%rewind")];
        for (number, (slot, name)) in hooks.into_iter().enumerate() {
            let world = self.world.clone();
            let known = world.hooks[number].get().copied();
            let global = known.or_else(|| {
                let ident = Ident::symbol(Symbol::intern(name));
                self.with_compiler(|compiler| compiler.global(0, ident))
            });
            if let Some(global) = global {
                world.hooks[number].get_or_init(|| global);
            }
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
            let known =
                self.announce_after_imports(&mut announced, &mut forms, &all[index..], env, file);
            let outcome = match known.and_then(|()| self.compile(&mut forms, form, env, file)) {
                Ok(()) => self.run(),
                Err(Stopped::Outcome(outcome)) => outcome,
                Err(wrong) => return Err(wrong),
            };
            match self.world.ended(outcome) {
                Outcome::Done => {
                    each(self);
                    if let Some(end) = self.wanted_end() {
                        return Err(Stopped::Outcome(self.world.ended(end)));
                    }
                }
                outcome => return Err(Stopped::Outcome(outcome)),
            }
        }
        Ok(())
    }

    /// When the first form that is no import has its turn, the definitions of all of `rest` are made known.
    fn announce_after_imports(
        &mut self,
        announced: &mut bool,
        forms: &mut Forms,
        rest: &[Id],
        env: u32,
        file: &Arc<str>,
    ) -> Result<(), Stopped> {
        if !*announced && !is_import(forms, rest[0]) {
            *announced = true;
            let _claim = self.claim()?;
            let mut compiler = self.world.compiler.lock().expect("nobody panics with the compiler");
            let taken = std::mem::take(forms);
            let mut unit = Unit::new(&mut compiler, taken, file.clone(), Watch::NOBODY);
            unit.announce_definitions(rest, env);
            *forms = std::mem::take(&mut unit.forms);
        }
        Ok(())
    }

    /// Compiles the forms of a file: to RESULT goes a vector of procedures of no arguments, in the order of the forms, and
    /// behind them `#f`, or the kind and message of what is wrong with the form that follows.
    ///
    /// # Errors
    /// The file cannot be read; the end of memory.
    pub fn compile_file(&mut self, path: &str, env: u32) -> Result<(), Failure> {
        let file: Arc<str> = path.into();
        let read = self.watched(|watch| {
            Ok(match contents(watch, path.as_ref())?.map(|bytes| decode(bytes, path)) {
                Ok(Ok(text)) => Ok(read_forms(watch, &text, &file)?),
                Ok(Err(wrong)) => Ok((Forms::new(), Vec::new(), Some(wrong))),
                Err(why) => Err(why),
            })
        });
        // Whoever runs the machine sees why.
        let Ok(read) = read else { return Ok(()) };
        let (mut forms, all, wrong) =
            read.map_err(|why| Failure::Error("file", format!("load: {path}: {why}")))?;
        let mut wrong = wrong.map(|error| ("read", error));
        let compiled = self.alloc_array(all.len())?;
        let mut count = 0;
        let mut announced = false;
        for (index, &form) in all.iter().enumerate() {
            let known =
                self.announce_after_imports(&mut announced, &mut forms, &all[index..], env, &file);
            match known.and_then(|()| self.compile(&mut forms, form, env, &file)) {
                Ok(()) => {
                    let cx: &firn::Scope<'s> = self.cx;
                    let closure = self.registers.get(cx).load(cx, register::RESULT);
                    compiled.get(cx).store(cx, index, closure);
                    count += 1;
                }
                Err(Stopped::Syntax(error)) => {
                    wrong = Some(("syntax", error));
                    break;
                }
                Err(Stopped::Outcome(outcome)) => return uncompiled(outcome),
            }
        }
        let shown = |error: SyntaxError| crate::trap::shortened(&error.to_string());
        let wrong = wrong.map(|(kind, error)| (Symbol::intern(kind), shown(error)));
        self.settle(register::SCRATCH, |mem, _| match &wrong {
            Some((kind, message)) => mem.cons(Value::symbol(*kind), mem.string(message)?),
            None => Ok(Value::FALSE),
        })?;
        self.settle(register::RESULT, |mem, registers| {
            let compiled = compiled.get(mem.scope());
            let element = |index| match index {
                _ if index < count => mem.element(compiled, index),
                _ => mem.element(registers, register::SCRATCH),
            };
            mem.array(count + 1, element).map(Value::vector)
        })
    }

    /// Loads a text into an environment.
    ///
    /// # Errors
    /// As [`Vm::run_forms`].
    pub fn load_text(&mut self, text: &str, env: u32, file: &str) -> Result<(), Stopped> {
        let file: Arc<str> = file.into();
        let (forms, all) = self.read_all(text, &file)?;
        self.run_forms(forms, &all, env, &file, |_| {})
    }

    /// Runs a program: a text that begins with imports has an environment of its own, any other the prompt's.
    ///
    /// # Errors
    /// As [`Vm::run_forms`].
    pub fn run_program(&mut self, text: &str, file: &str) -> Result<(), Stopped> {
        let file: Arc<str> = file.into();
        let (forms, all) = self.read_all(text, &file)?;
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

/// A word of a code object's places: see [`code::PLACES`].
enum PlaceWord {
    File(Symbol),
    Number(i64),
}

impl PlaceWord {
    fn value<'m>(&self) -> Value<'m> {
        match *self {
            PlaceWord::File(file) => Value::symbol(file),
            PlaceWord::Number(number) => Value::fixnum(number),
        }
    }
}

/// Where the instructions of a code object come from, which is in `file` where nothing else is said.
fn places(code: &Code, file: Symbol) -> Vec<PlaceWord> {
    let file_of = |at: &Location| at.file.symbol().unwrap_or(file);
    let mut now = code.places.first().map_or(file, |(_, at)| file_of(at));
    let mut words = vec![PlaceWord::File(now)];
    for (pc, at) in &code.places {
        let pc = PlaceWord::Number((pc + code::CONSTANTS + code.consts.len()) as i64);
        if file_of(at) != now {
            now = file_of(at);
            words.extend([PlaceWord::Number(0), PlaceWord::File(now)]);
        }
        let at = (at.line as i64) << 16 | (at.column as i64).min(0xffff);
        words.extend([pc, PlaceWord::Number(at)]);
    }
    words
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

fn expand(unit: &mut Unit<'_>, form: Id, env: u32) -> Result<Expr, Unexpanded> {
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

/// What a builtin comes to that has compiled nothing, though nothing is wrong with the form.
fn uncompiled(outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        // Whoever runs the machine sees it too.
        Outcome::Interrupted | Outcome::Terminated => Ok(()),
        Outcome::OutOfMemory => Err(Failure::OutOfMemory),
        outcome => Err(Failure::Error("error", format!("{outcome:?}"))),
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
            // What is evaluated has no place, unless it came from a file.
            Err(Stopped::Syntax(error)) if error.at.line == 0 => {
                Err(Failure::Error("syntax", error.message))
            }
            Err(Stopped::Syntax(error)) => Err(Failure::Error("syntax", error.to_string())),
            Err(Stopped::Outcome(outcome)) => uncompiled(outcome),
        }
    }))
    .into())
}
