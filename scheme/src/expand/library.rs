//! Libraries: `define-library`, `import`, `cond-expand`, `include`, and what the standard libraries export.

use super::{Binding, Denotation, Expr, Result, Special, Unit};
use crate::port::contents;
use crate::symbol::Symbol;
use crate::syntax::reader::{Reader, Text};
use crate::syntax::{FileName, Id, Ident, Node};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A library: what it exports.
#[derive(Clone, Default)]
pub struct Library {
    pub(crate) exports: HashMap<Symbol, Denotation>,
}

/// What `(features)` and `cond-expand` know. `exact-complex` is not among them: there are no complex numbers but the
/// real ones, which R7RS leaves open.
pub const FEATURES: &[&str] = &[
    "r7rs",
    "ratios",
    "exact-closed",
    "full-unicode",
    "firn",
    "unix",
    "linux",
    "x86-64",
    "little-endian",
    "srfi-18",
    "srfi-124",
];

impl super::Compiler {
    /// Makes the standard libraries of what environment 0 defines.
    ///
    /// # Errors
    /// A name that a library exports and that environment 0 does not define.
    pub fn make_standard_libraries(&mut self) -> std::result::Result<(), String> {
        let mut everything = Library::default();
        for (library, names) in super::super::standard::LIBRARIES {
            let mut made = Library::default();
            for name in names.split_whitespace() {
                let symbol = Symbol::intern(name);
                let Some(binding) = self.envs[0].table.get(&Ident::symbol(symbol)) else {
                    return Err(format!("{library} exports {name}, which is not defined"));
                };
                made.exports.insert(symbol, binding.denotation.clone());
                everything.exports.insert(symbol, binding.denotation.clone());
            }
            self.libraries.insert(library.to_string(), made);
        }
        self.libraries.insert("(firn all)".to_string(), everything);
        Ok(())
    }

    /// Imports everything that a library exports.
    ///
    /// # Panics
    /// If there is no such library.
    pub fn import_all(&mut self, library: &str, env: u32) {
        let library = self.libraries[library].clone();
        for (symbol, denotation) in library.exports {
            let binding = Binding { denotation, imported: true };
            self.envs[env as usize].table.insert(Ident::symbol(symbol), binding);
        }
    }

    /// Makes `import` and `define-library` known in an environment that knows nothing else.
    pub fn import_import(&mut self, env: u32) {
        for (name, special) in
            [("import", Special::Import), ("define-library", Special::DefineLibrary)]
        {
            self.define_in(env, name, Denotation::Special(special));
        }
    }
}

impl Unit<'_> {
    /// A library's name as text: `(scheme base)`.
    fn library_name(&self, id: Id) -> Result<String> {
        let parts = self.forms.list(id).filter(|parts| !parts.is_empty());
        let Some(parts) = parts else { return self.error(id, "a library's name is a list") };
        let mut words = Vec::new();
        for part in parts {
            match self.forms.node(part) {
                Node::Ident(ident) => {
                    words.push(self.compiler.symbol_of(*ident).name().to_string())
                }
                Node::Number(crate::numbers::Number::Small(number)) => {
                    words.push(number.to_string())
                }
                _ => {
                    return self
                        .error(part, "a library's name consists of identifiers and numbers");
                }
            }
        }
        Ok(format!("({})", words.join(" ")))
    }

    fn is_word(&self, id: Id, word: &str) -> bool {
        self.forms.ident(id).is_some_and(|ident| &*self.compiler.symbol_of(ident).name() == word)
    }

    /// The forms that a `cond-expand` chooses.
    pub(crate) fn cond_expand(&mut self, id: Id) -> Result<Vec<Id>> {
        let parts = self.parts(id, 1, usize::MAX, "(cond-expand (requirement form ...) ...)")?;
        for &clause in &parts[1..] {
            let items = self.parts(clause, 1, usize::MAX, "(requirement form ...)")?;
            if self.requirement(items[0])? {
                return Ok(items[1..].to_vec());
            }
        }
        self.error(id, "cond-expand: no requirement is met, and there is no else")
    }

    fn requirement(&mut self, id: Id) -> Result<bool> {
        if let Some(ident) = self.forms.ident(id) {
            let name = self.compiler.symbol_of(ident).name();
            return Ok(&*name == "else" || FEATURES.contains(&&*name));
        }
        let parts = self.parts(id, 1, 1000, "a feature requirement")?;
        let rest = &parts[1..];
        if self.is_word(parts[0], "and") {
            for &part in rest {
                if !self.requirement(part)? {
                    return Ok(false);
                }
            }
            Ok(true)
        } else if self.is_word(parts[0], "or") {
            for &part in rest {
                if self.requirement(part)? {
                    return Ok(true);
                }
            }
            Ok(false)
        } else if self.is_word(parts[0], "not") && rest.len() == 1 {
            Ok(!self.requirement(rest[0])?)
        } else if self.is_word(parts[0], "library") && rest.len() == 1 {
            let name = self.library_name(rest[0])?;
            Ok(self.compiler.libraries.contains_key(&name)
                || self.library_file(&name, rest[0]).is_some())
        } else {
            self.error(id, format!("cond-expand: {} is no requirement", self.show(id)))
        }
    }

    /// The file that a form is in.
    fn file_of(&self, id: Id) -> PathBuf {
        match self.forms.at(id).file.symbol() {
            Some(file) => PathBuf::from(&*file.name()),
            None => PathBuf::from(&*self.file),
        }
    }

    fn directory_of(&self, id: Id) -> PathBuf {
        self.file_of(id).parent().map(Path::to_path_buf).unwrap_or_default()
    }

    /// The forms of included files.
    pub(crate) fn include(&mut self, id: Id, fold: bool) -> Result<Vec<Id>> {
        let parts = self.parts(id, 2, usize::MAX, "(include \"file\" ...)")?;
        let mut forms = Vec::new();
        for &part in &parts[1..] {
            let Node::Text(name) = self.forms.node(part).clone() else {
                return self.error(part, "include: a file's name is a string");
            };
            let beside = self.directory_of(part).join(&*name);
            let path = if beside.exists() { beside } else { PathBuf::from(&*name) };
            forms.extend(self.read_file(&path, fold, part)?);
        }
        Ok(forms)
    }

    /// The forms of a file that the form `id` asks for.
    fn read_file(&mut self, path: &Path, fold: bool, id: Id) -> Result<Vec<Id>> {
        // Under whatever names: files that include each other in a circle would never end.
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let (file, by) = (whole(path), whole(&self.file_of(id)));
        let mut asking = Some(&by);
        while let Some(outer) = asking {
            if *outer == file {
                return self.error(id, format!("{} includes itself", path.display()));
            }
            asking = self.asked.get(outer);
        }
        self.asked.insert(file, by);
        let text = match contents(&self.watch, path)?.map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return self.error(id, format!("{} is not UTF-8", path.display())),
            Err(error) => {
                return self.error(id, format!("cannot read {}: {error}", path.display()));
            }
        };
        let name = FileName::new(&path.display().to_string());
        let mut reader = Reader::named(self.watch, Text::new(&text), name);
        reader.set_fold(fold);
        let (mut forms, before) = (Vec::new(), self.forms.len());
        loop {
            match reader.read(&mut self.forms) {
                Ok(Some(form)) => forms.push(form),
                Ok(None) => {
                    self.most_nodes += self.forms.len() - before;
                    return Ok(forms);
                }
                Err(unread) => {
                    let error = unread.wrong()?;
                    return self.error_at(error.at, error.message);
                }
            }
        }
    }

    /// The file of a library that the form `id` names: beside the file of the form, or below where we are.
    fn library_file(&self, name: &str, id: Id) -> Option<PathBuf> {
        let path = name[1..name.len() - 1].split(' ').collect::<Vec<_>>().join("/");
        if path.split('/').any(|part| part == ".." || part.is_empty()) {
            return None;
        }
        ["sld", "scm"]
            .iter()
            .flat_map(|extension| {
                let file = format!("{path}.{extension}");
                [self.directory_of(id).join(&file), PathBuf::from(file)]
            })
            .find(|path| path.is_file())
    }

    /// Imports an import set into an environment. A library that is not known is looked for in files.
    pub(crate) fn import(&mut self, set: Id, env: u32, out: &mut Vec<Expr>) -> Result<()> {
        for (symbol, denotation) in self.import_set(set, out)? {
            let binding = Binding { denotation, imported: true };
            self.compiler.envs[env as usize].table.insert(Ident::symbol(symbol), binding);
        }
        Ok(())
    }

    fn symbol_at(&self, id: Id) -> Result<Symbol> {
        match self.forms.ident(id) {
            Some(ident) => Ok(self.compiler.symbol_of(ident)),
            None => self.error(id, "import: an identifier is expected"),
        }
    }

    fn import_set(&mut self, set: Id, out: &mut Vec<Expr>) -> Result<HashMap<Symbol, Denotation>> {
        let parts = self.parts(set, 1, usize::MAX, "an import set")?;
        let nested = parts.len() > 1 && self.forms.pair(parts[1]).is_some();
        let missing = |unit: &Self, id: Id| {
            let what = unit.show(id);
            unit.error(id, format!("import: {what} is not among what is imported"))
        };
        if nested && self.is_word(parts[0], "only") {
            let from = self.import_set(parts[1], out)?;
            let mut chosen = HashMap::new();
            for &name in &parts[2..] {
                let symbol = self.symbol_at(name)?;
                match from.get(&symbol) {
                    Some(denotation) => chosen.insert(symbol, denotation.clone()),
                    None => return missing(self, name),
                };
            }
            return Ok(chosen);
        }
        if nested && self.is_word(parts[0], "except") {
            let mut from = self.import_set(parts[1], out)?;
            for &name in &parts[2..] {
                let symbol = self.symbol_at(name)?;
                if from.remove(&symbol).is_none() {
                    return missing(self, name);
                }
            }
            return Ok(from);
        }
        if nested && self.is_word(parts[0], "prefix") && parts.len() == 3 {
            let prefix = self.symbol_at(parts[2])?.name();
            let from = self.import_set(parts[1], out)?;
            return Ok(from
                .into_iter()
                .map(|(symbol, denotation)| {
                    (Symbol::intern(&format!("{prefix}{}", symbol.name())), denotation)
                })
                .collect());
        }
        if nested && self.is_word(parts[0], "rename") {
            let mut from = self.import_set(parts[1], out)?;
            let mut renamed = Vec::new();
            for &pair in &parts[2..] {
                let names = self.parts(pair, 2, 2, "(name new-name)")?;
                let (old, new) = (self.symbol_at(names[0])?, self.symbol_at(names[1])?);
                match from.remove(&old) {
                    Some(denotation) => renamed.push((new, denotation)),
                    None => return missing(self, names[0]),
                }
            }
            from.extend(renamed);
            return Ok(from);
        }
        let name = self.library_name(set)?;
        if !self.compiler.libraries.contains_key(&name) {
            if self.defining.contains(&name) {
                return self.error(set, format!("the library {name} imports itself"));
            }
            let Some(path) = self.library_file(&name, set) else {
                return self.error(set, format!("there is no library {name}"));
            };
            let forms = self.read_file(&path, false, set)?;
            for form in forms {
                let head = self.forms.pair(form).map(|(head, _)| head);
                if head.is_some_and(|head| self.is_word(head, "define-library")) {
                    self.define_library(form, out)?;
                }
            }
            if !self.compiler.libraries.contains_key(&name) {
                return self
                    .error(set, format!("{} does not define the library {name}", path.display()));
            }
        }
        Ok(self.compiler.libraries[&name].exports.clone())
    }

    pub(crate) fn define_library(&mut self, form: Id, out: &mut Vec<Expr>) -> Result<()> {
        let parts = self.parts(form, 2, usize::MAX, "(define-library name declaration ...)")?;
        let name = self.library_name(parts[1])?;
        self.defining.push(name.clone());
        let env = self.compiler.new_env();
        self.keep_aliases();
        let mut exports: Vec<(Symbol, Symbol, Id)> = Vec::new();
        let mut bodies: Vec<Id> = Vec::new();
        let mut queue = std::collections::VecDeque::from(parts[2..].to_vec());
        while let Some(declaration) = queue.pop_front() {
            let items = self.parts(declaration, 1, usize::MAX, "a library declaration")?;
            let Some(word) = self.forms.ident(items[0]) else {
                return self
                    .error(declaration, "define-library: a declaration begins with a keyword");
            };
            match &*self.compiler.symbol_of(word).name() {
                "export" => {
                    for &spec in &items[1..] {
                        if self.forms.ident(spec).is_some() {
                            let symbol = self.symbol_at(spec)?;
                            exports.push((symbol, symbol, spec));
                        } else {
                            let names = self.parts(spec, 3, 3, "(rename name exported-name)")?;
                            exports.push((
                                self.symbol_at(names[1])?,
                                self.symbol_at(names[2])?,
                                spec,
                            ));
                        }
                    }
                }
                "import" => {
                    for &set in &items[1..] {
                        self.import(set, env, out)?;
                    }
                }
                "begin" => bodies.extend(&items[1..]),
                "include" => {
                    let forms = self.include(declaration, false)?;
                    bodies.extend(forms);
                }
                "include-ci" => {
                    let forms = self.include(declaration, true)?;
                    bodies.extend(forms);
                }
                "include-library-declarations" => {
                    let forms = self.include(declaration, false)?;
                    forms.into_iter().rev().for_each(|form| queue.push_front(form));
                }
                "cond-expand" => {
                    let forms = self.cond_expand(declaration)?;
                    forms.into_iter().rev().for_each(|form| queue.push_front(form));
                }
                other => {
                    return self
                        .error(declaration, format!("define-library: {other} is no declaration"));
                }
            }
        }
        self.announce_definitions(&bodies, env);
        for form in bodies {
            self.top_level(form, env, out)?;
        }
        let mut library = Library::default();
        for (inner, outer, at) in exports {
            let ident = Ident::symbol(inner);
            let denotation = match self.compiler.envs[env as usize].table.get(&ident) {
                Some(binding) => binding.denotation.clone(),
                None => {
                    let what = inner.name();
                    return self.error(
                        at,
                        format!("the library {name} exports {what}, which it does not define"),
                    );
                }
            };
            library.exports.insert(outer, denotation);
        }
        self.compiler.libraries.insert(name, library);
        self.defining.pop();
        Ok(())
    }
}
