//! From forms to a tree of a few kinds of expressions: macros, scopes, definitions, libraries.
//!
//! **Hygiene by aliases.** A macro's expansion renames every identifier that its template brings along to a fresh
//! *alias*, which remembers the identifier and the environment of the macro's definition. A binding form binds
//! exactly the identifier it is given, alias or symbol; a reference that no binding on the way out is for falls
//! back from the alias to what it stands for, in the macro's environment. `quote` sees through aliases.
//!
//! **Environments.** Scopes of variables live as long as the unit that is expanded (one form at top level);
//! top-level environments and libraries live in the [`Compiler`]. A top-level name denotes a special form, a
//! macro, or a global by number; the globals' cells are in the heap.

mod bindings;
pub mod body;
mod conditionals;
pub mod forms;
pub mod library;
mod quasiquote;
pub mod rules;

use crate::builtins::Builtin;
use crate::numbers::large::{Unfinished, Watch};
use crate::symbol::Symbol;
use crate::syntax::{Forms, Id, Ident, Location, Node};
use rules::Macro;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A variable's number in its unit.
pub type VarId = u32;
/// A global's number in the compiler.
pub type GlobalId = u32;

/// A program is wrong.
#[derive(Clone, Debug)]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// Which text was being loaded.
    pub file: Arc<str>,
    /// Where.
    pub at: Location,
}

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = self.at.file.symbol().map(Symbol::name);
        let file = named.as_ref().unwrap_or(&self.file);
        if self.at.line > 0 {
            write!(f, "{file}:{}:{}: {}", self.at.line, self.at.column, self.message)
        } else {
            write!(f, "{file}: {}", self.message)
        }
    }
}

/// There is no expansion.
pub type Unexpanded = Unfinished<SyntaxError>;

/// The result of expanding.
pub type Result<T> = std::result::Result<T, Unexpanded>;

/// What the expander knows by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Special {
    Quote,
    Quasiquote,
    Lambda,
    NamedLambda,
    CaseLambda,
    Define,
    DefineValues,
    DefineSyntax,
    DefineRecordType,
    Set,
    If,
    Begin,
    Let,
    LetStar,
    Letrec,
    LetrecStar,
    LetSyntax,
    LetrecSyntax,
    LetValues,
    Cond,
    Case,
    And,
    Or,
    When,
    Unless,
    Do,
    CondExpand,
    Include,
    IncludeCi,
    Import,
    DefineLibrary,
    SyntaxError,
    SyntaxRules,
    // Words that mean something only inside other forms.
    Else,
    Arrow,
    Ellipsis,
    Underscore,
    Unquote,
    UnquoteSplicing,
}

/// The special forms and auxiliary words by name.
pub const SPECIALS: &[(&str, Special)] = &[
    ("quote", Special::Quote),
    ("quasiquote", Special::Quasiquote),
    ("lambda", Special::Lambda),
    ("%named-lambda", Special::NamedLambda),
    ("case-lambda", Special::CaseLambda),
    ("define", Special::Define),
    ("define-values", Special::DefineValues),
    ("define-syntax", Special::DefineSyntax),
    ("define-record-type", Special::DefineRecordType),
    ("set!", Special::Set),
    ("if", Special::If),
    ("begin", Special::Begin),
    ("let", Special::Let),
    ("let*", Special::LetStar),
    ("letrec", Special::Letrec),
    ("letrec*", Special::LetrecStar),
    ("let-syntax", Special::LetSyntax),
    ("letrec-syntax", Special::LetrecSyntax),
    ("let-values", Special::LetValues),
    ("cond", Special::Cond),
    ("case", Special::Case),
    ("and", Special::And),
    ("or", Special::Or),
    ("when", Special::When),
    ("unless", Special::Unless),
    ("do", Special::Do),
    ("cond-expand", Special::CondExpand),
    ("include", Special::Include),
    ("include-ci", Special::IncludeCi),
    ("import", Special::Import),
    ("define-library", Special::DefineLibrary),
    ("syntax-error", Special::SyntaxError),
    ("syntax-rules", Special::SyntaxRules),
    ("else", Special::Else),
    ("=>", Special::Arrow),
    ("...", Special::Ellipsis),
    ("_", Special::Underscore),
    ("unquote", Special::Unquote),
    ("unquote-splicing", Special::UnquoteSplicing),
];

/// What an identifier stands for.
#[derive(Clone)]
pub enum Denotation {
    /// A special form.
    Special(Special),
    /// A macro.
    Macro(Arc<Macro>),
    /// A global.
    Global(GlobalId),
    /// A variable.
    Local(VarId),
}

/// Where identifiers are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnvRef {
    /// A top-level environment.
    Top(u32),
    /// A scope of the unit.
    Scope(u32),
}

/// A top-level environment.
#[derive(Default)]
pub struct Env {
    pub(crate) table: HashMap<Ident, Binding>,
}

#[derive(Clone)]
pub(crate) struct Binding {
    pub denotation: Denotation,
    pub imported: bool,
}

/// What is known about a global.
#[derive(Clone)]
pub struct Global {
    /// Its name.
    pub name: Symbol,
    /// The builtin it is, if it is one.
    pub builtin: Option<u32>,
    /// The builtin that is called instead when the number of arguments fits: see [`crate::builtins::STAND_INS`].
    pub stand_in: Option<u32>,
    /// It raises errors: no call of it is a tail call, so that the caller is seen where an error comes from.
    pub raises: bool,
}

/// What remains from one unit to the next; the interpreter has one, behind a lock.
#[derive(Default)]
pub struct Compiler {
    pub(crate) envs: Vec<Env>,
    pub(crate) libraries: HashMap<String, library::Library>,
    /// All globals.
    pub globals: Vec<Global>,
    aliases: Vec<(Ident, EnvRef)>,
    /// The builtins, for the numbers of arguments they take.
    pub builtins: Vec<Builtin>,
    builtin_numbers: HashMap<&'static str, u32>,
}

impl Compiler {
    /// A compiler that knows the special forms and these builtins, all in environment 0.
    pub fn new(builtins: Vec<Builtin>) -> Compiler {
        let mut compiler = Compiler::default();
        compiler.envs.push(Env::default());
        for &(name, special) in SPECIALS {
            compiler.define_in(0, name, Denotation::Special(special));
        }
        for (number, builtin) in builtins.iter().enumerate() {
            let name = Symbol::intern(builtin.name);
            let global = compiler.new_global(name);
            compiler.globals[global as usize].builtin = Some(number as u32);
            compiler.builtin_numbers.insert(builtin.name, number as u32);
            compiler.define_in(0, builtin.name, Denotation::Global(global));
        }
        compiler.builtins = builtins;
        compiler
    }

    fn define_in(&mut self, env: u32, name: &str, denotation: Denotation) {
        let ident = Ident::symbol(Symbol::intern(name));
        let binding = Binding { denotation, imported: true };
        self.envs[env as usize].table.insert(ident, binding);
    }

    pub(crate) fn new_global(&mut self, name: Symbol) -> GlobalId {
        self.globals.push(Global { name, builtin: None, stand_in: None, raises: false });
        self.globals.len() as GlobalId - 1
    }

    /// A new, empty environment.
    pub fn new_env(&mut self) -> u32 {
        self.envs.push(Env::default());
        self.envs.len() as u32 - 1
    }

    /// A builtin's number.
    pub fn builtin(&self, name: &str) -> Option<u32> {
        self.builtin_numbers.get(name).copied()
    }

    /// The global that a symbol denotes in an environment, made if need be.
    pub fn global(&mut self, env: u32, ident: Ident) -> Option<GlobalId> {
        match self.envs[env as usize].table.get(&ident) {
            Some(Binding { denotation: Denotation::Global(global), .. }) => return Some(*global),
            Some(_) => return None,
            None => {}
        }
        let global = self.new_global(self.symbol_of(ident));
        if env == 0
            && let Some(name) = ident.as_symbol().map(Symbol::name)
        {
            let known = &mut self.globals[global as usize];
            known.raises = matches!(&*name, "error" | "raise" | "assert");
            if crate::builtins::STAND_INS.contains(&&*name) {
                known.stand_in = self.builtin_numbers.get(format!("%{name}").as_str()).copied();
            }
        }
        let binding = Binding { denotation: Denotation::Global(global), imported: false };
        self.envs[env as usize].table.insert(ident, binding);
        Some(global)
    }

    /// The names that an environment binds, for completion at a prompt.
    pub fn names(&self, env: u32) -> Vec<Arc<str>> {
        let symbols = self.envs[env as usize].table.keys().filter_map(|ident| ident.as_symbol());
        symbols.map(Symbol::name).filter(|name| !name.starts_with('%')).collect()
    }

    /// A global for a definition of `ident` at top level: an imported binding is replaced, not changed.
    pub(crate) fn global_to_define(&mut self, env: u32, ident: Ident) -> GlobalId {
        if let Some(Binding { denotation: Denotation::Global(global), imported: false }) =
            self.envs[env as usize].table.get(&ident)
        {
            return *global;
        }
        let global = self.new_global(self.symbol_of(ident));
        if env == 0
            && let Some(name) = ident.as_symbol().map(Symbol::name)
        {
            let known = &mut self.globals[global as usize];
            known.raises = matches!(&*name, "error" | "raise" | "assert");
            if crate::builtins::STAND_INS.contains(&&*name) {
                known.stand_in = self.builtin_numbers.get(format!("%{name}").as_str()).copied();
            }
        }
        let binding = Binding { denotation: Denotation::Global(global), imported: false };
        self.envs[env as usize].table.insert(ident, binding);
        global
    }

    /// The symbol that an identifier was written as.
    pub fn symbol_of(&self, mut ident: Ident) -> Symbol {
        loop {
            match ident.as_alias() {
                None => return ident.as_symbol().expect("no alias"),
                Some(alias) => ident = self.aliases[alias].0,
            }
        }
    }
}

/// A variable.
#[derive(Clone, Debug)]
pub struct Var {
    /// Its name.
    pub name: Symbol,
    /// It is assigned, or used before its definition: it lives in a cell.
    pub boxed: bool,
    /// Its definition has been expanded.
    pub ready: bool,
}

/// A constant that fits a word.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Immediate {
    False,
    True,
    Nil,
    Unspecified,
    Eof,
    Fixnum(i64),
    Char(char),
    Symbol(Symbol),
    Primitive(u32),
    Unbound,
}

/// A procedure expression.
#[derive(Debug)]
pub struct Lambda {
    /// Required parameters.
    pub params: Vec<VarId>,
    /// The parameter that takes the rest.
    pub rest: Option<VarId>,
    /// What it does.
    pub body: Expr,
    /// Its name, for error messages.
    pub name: Symbol,
    /// Where it is written.
    pub at: Location,
}

/// An expression.
#[derive(Debug)]
pub enum Expr {
    /// A constant in the heap: a node of the forms.
    Quote(Id),
    /// A constant that fits a word.
    Immediate(Immediate),
    /// A variable.
    Local(VarId, Location),
    /// A global.
    Global(GlobalId, Location),
    /// An assignment.
    SetLocal(VarId, Box<Expr>),
    /// An assignment.
    SetGlobal(GlobalId, Box<Expr>, Location),
    /// A definition.
    DefineGlobal(GlobalId, Box<Expr>),
    /// A choice.
    If(Box<(Expr, Expr, Expr)>),
    /// A procedure.
    Lambda(Box<Lambda>),
    /// A procedure that chooses by the number of arguments.
    CaseLambda(Vec<Lambda>, Symbol),
    /// One after the other; not empty.
    Seq(Vec<Expr>),
    /// Variables, then a body that sees them.
    Let(Vec<(VarId, Expr)>, Box<Expr>),
    /// Procedures that see each other, then a body that sees them.
    Fix(Vec<(VarId, Lambda)>, Box<Expr>),
    /// A call.
    Call(Box<Expr>, Vec<Expr>, Location),
    /// A call of a builtin, known when compiled.
    Builtin(u32, Vec<Expr>, Location),
}

/// A scope of variables.
struct Scope {
    table: Vec<(Ident, Denotation)>,
    parent: EnvRef,
}

/// One unit: what is expanded at a time.
pub struct Unit<'c> {
    /// What remains.
    pub compiler: &'c mut Compiler,
    /// The unit's forms.
    pub forms: Forms,
    /// Its variables.
    pub vars: Vec<Var>,
    /// The text it comes from.
    pub file: Arc<str>,
    /// Files may be read for it, and macros expand to much.
    watch: Watch<'c>,
    scopes: Vec<Scope>,
    depth: usize,
    /// Nodes that the forms may have.
    most_nodes: usize,
    first_alias: usize,
    /// Something that outlives the unit names its aliases.
    keeps_aliases: bool,
    /// Variables mentioned since the last reset that are not ready or pending.
    mentioned: Vec<VarId>,
    /// Files that were read, each with the file that asked for it.
    asked: HashMap<PathBuf, PathBuf>,
    /// Libraries that are being defined.
    defining: Vec<String>,
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        if !self.keeps_aliases {
            self.compiler.aliases.truncate(self.first_alias);
        }
    }
}

impl<'c> Unit<'c> {
    /// Deepest nesting of expressions.
    pub const DEEPEST: usize = 3000;
    /// Most nodes that macros may add: what an expansion that does not end stops at.
    const MOST_EXPANDED: usize = 5_000_000;

    /// A unit over `forms`, for as long as it is wanted.
    pub fn new(
        compiler: &'c mut Compiler,
        forms: Forms,
        file: Arc<str>,
        watch: Watch<'c>,
    ) -> Unit<'c> {
        let first_alias = compiler.aliases.len();
        let most_nodes = forms.len() + Self::MOST_EXPANDED;
        Unit {
            compiler,
            forms,
            vars: Vec::new(),
            file,
            watch,
            scopes: Vec::new(),
            depth: 0,
            most_nodes,
            first_alias,
            keeps_aliases: false,
            mentioned: Vec::new(),
            asked: HashMap::new(),
            defining: Vec::new(),
        }
    }

    pub(crate) fn error<T>(&self, at: Id, message: impl Into<String>) -> Result<T> {
        self.error_at(self.forms.at(at), message)
    }

    pub(crate) fn error_at<T>(&self, at: Location, message: impl Into<String>) -> Result<T> {
        let file = self.file.clone();
        Err(Unexpanded::Wrong(SyntaxError { message: message.into(), file, at }))
    }

    pub(crate) fn new_scope(&mut self, parent: EnvRef) -> u32 {
        self.scopes.push(Scope { table: Vec::new(), parent });
        self.scopes.len() as u32 - 1
    }

    pub(crate) fn bind(&mut self, scope: u32, ident: Ident, denotation: Denotation) {
        let table = &mut self.scopes[scope as usize].table;
        match table.iter_mut().find(|(known, _)| *known == ident) {
            Some((_, old)) => *old = denotation,
            None => table.push((ident, denotation)),
        }
    }

    pub(crate) fn is_bound_here(&self, scope: u32, ident: Ident) -> bool {
        self.scopes[scope as usize].table.iter().any(|(known, _)| *known == ident)
    }

    pub(crate) fn new_var(&mut self, ident: Ident) -> VarId {
        let name = self.compiler.symbol_of(ident);
        self.vars.push(Var { name, boxed: false, ready: true });
        self.vars.len() as VarId - 1
    }

    pub(crate) fn bind_var(&mut self, scope: u32, ident: Ident) -> VarId {
        let var = self.new_var(ident);
        self.bind(scope, ident, Denotation::Local(var));
        var
    }

    pub(crate) fn new_alias(&mut self, of: Ident, env: EnvRef) -> Ident {
        self.compiler.aliases.push((of, env));
        Ident::alias(self.compiler.aliases.len() - 1)
    }

    pub(crate) fn keep_aliases(&mut self) {
        self.keeps_aliases = true;
    }

    /// What an identifier stands for: the denotation, or the symbol and environment in which it is unbound.
    pub(crate) fn resolve(
        &self,
        mut ident: Ident,
        mut env: EnvRef,
    ) -> std::result::Result<Denotation, (Ident, u32)> {
        loop {
            let mut at = env;
            let top = loop {
                match at {
                    EnvRef::Scope(scope) => {
                        let scope = &self.scopes[scope as usize];
                        if let Some((_, denotation)) =
                            scope.table.iter().find(|(known, _)| *known == ident)
                        {
                            return Ok(denotation.clone());
                        }
                        at = scope.parent;
                    }
                    EnvRef::Top(top) => break top,
                }
            };
            if let Some(binding) = self.compiler.envs[top as usize].table.get(&ident) {
                return Ok(binding.denotation.clone());
            }
            match ident.as_alias() {
                Some(alias) => (ident, env) = self.compiler.aliases[alias],
                None => return Err((ident, top)),
            }
        }
    }

    /// The special form that a node names, if it is an identifier that does.
    pub(crate) fn special(&self, id: Id, env: EnvRef) -> Option<Special> {
        match self.resolve(self.forms.ident(id)?, env) {
            Ok(Denotation::Special(special)) => Some(special),
            _ => None,
        }
    }

    /// Whether two identifiers mean the same, each in its environment.
    pub(crate) fn same(&self, a: Ident, env_a: EnvRef, b: Ident, env_b: EnvRef) -> bool {
        match (self.resolve(a, env_a), self.resolve(b, env_b)) {
            (Ok(Denotation::Special(a)), Ok(Denotation::Special(b))) => a == b,
            (Ok(Denotation::Macro(a)), Ok(Denotation::Macro(b))) => Arc::ptr_eq(&a, &b),
            (Ok(Denotation::Global(a)), Ok(Denotation::Global(b))) => a == b,
            (Ok(Denotation::Local(a)), Ok(Denotation::Local(b))) => a == b,
            // A global that has only been mentioned is as good as unbound.
            (Err((a, _)), Err((b, _))) => a == b,
            (Ok(Denotation::Global(a)), Err((b, _))) | (Err((b, _)), Ok(Denotation::Global(a))) => {
                Some(self.compiler.globals[a as usize].name) == b.as_symbol()
                    && self.compiler.globals[a as usize].builtin.is_none()
            }
            _ => false,
        }
    }

    /// A node without aliases, for `quote`.
    pub(crate) fn strip(&mut self, id: Id) -> Id {
        // Marks which nodes have been seen: data may be shared and circular. A node is replaced in place unless
        // it is an alias, whose other uses may still bind: those get a new node.
        let mut todo = vec![id];
        let mut seen = std::collections::HashSet::new();
        let mut fresh: HashMap<Id, Id> = HashMap::new();
        let mut result = id;
        if let Some(ident) = self.forms.ident(id) {
            if ident.as_alias().is_some() {
                let symbol = Ident::symbol(self.compiler.symbol_of(ident));
                result = self.forms.add(Node::Ident(symbol), self.forms.at(id));
            }
            return result;
        }
        let replace = |unit: &mut Self, id: Id, fresh: &mut HashMap<Id, Id>| -> Id {
            match unit.forms.ident(id) {
                Some(ident) if ident.as_alias().is_some() => {
                    *fresh.entry(id).or_insert_with(|| {
                        let symbol = Ident::symbol(unit.compiler.symbol_of(ident));
                        let at = unit.forms.at(id);
                        unit.forms.add(Node::Ident(symbol), at)
                    })
                }
                _ => id,
            }
        };
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.forms.node(id).clone() {
                Node::Pair(car, cdr) => {
                    let (new_car, new_cdr) =
                        (replace(self, car, &mut fresh), replace(self, cdr, &mut fresh));
                    if (new_car, new_cdr) != (car, cdr) {
                        self.forms.replace(id, Node::Pair(new_car, new_cdr));
                    }
                    todo.push(new_cdr);
                    todo.push(new_car);
                }
                Node::Vector(items) => {
                    let items: Box<[Id]> =
                        items.iter().map(|&item| replace(self, item, &mut fresh)).collect();
                    todo.extend(items.iter().copied());
                    self.forms.replace(id, Node::Vector(items));
                }
                _ => {}
            }
        }
        result
    }

    /// A node's text, for messages; short.
    pub(crate) fn show(&self, id: Id) -> String {
        crate::print::form_to_string(&self.forms, id, &|ident| self.compiler.symbol_of(ident), 60)
    }
}
