//! Bodies and top level: definitions.
//!
//! Internal definitions are `letrec*`. Procedures that are never assigned become a [`Expr::Fix`], whose closures
//! see each other without cells; other definitions become plain variables where nothing can see them too early, and
//! cells where something might.

use super::forms::{UNSPECIFIED, seq};
use super::{Denotation, EnvRef, Expr, Immediate, Lambda, Result, Special, Unit, VarId};
use crate::symbol::Symbol;
use crate::syntax::{Id, Ident, Location, Node};
use std::collections::HashSet;

/// A definition or expression of a body, before its value is expanded.
enum Item {
    Define { var: VarId, name: Ident, value: Value },
    Values { vars: Vec<VarId>, rest: Option<VarId>, value: Id },
    Made { var: Option<VarId>, expr: Expr },
    Expr(Id),
}

impl Item {
    /// The variables that it defines.
    fn defines(&self) -> Vec<VarId> {
        match self {
            Item::Define { var, .. } => vec![*var],
            Item::Values { vars, rest, .. } => vars.iter().chain(rest).copied().collect(),
            Item::Made { var, .. } => var.iter().copied().collect(),
            Item::Expr(_) => Vec::new(),
        }
    }
}

/// The value of a definition.
enum Value {
    Form(Id),
    Procedure { params: Id, body: Vec<Id>, id: Id },
    Nothing,
}

impl Unit<'_> {
    /// Expands a body: definitions, then expressions (which may also stand between definitions).
    pub(crate) fn body(&mut self, forms: &[Id], env: EnvRef, id: Id) -> Result<Expr> {
        // Most bodies are one expression.
        let scope = self.new_scope(env);
        let inner = EnvRef::Scope(scope);
        let mut items = Vec::new();
        let mut queue: std::collections::VecDeque<(Id, EnvRef)> =
            forms.iter().map(|&f| (f, inner)).collect();
        while let Some((form, env)) = queue.pop_front() {
            if let Some(next) = self.expand_macro_once(form, env)? {
                queue.push_front((next, env));
                continue;
            }
            let head = self.forms.pair(form).map(|(head, _)| head);
            match head.and_then(|head| self.special(head, env)) {
                Some(Special::Begin) => {
                    let parts = self.parts(form, 1, usize::MAX, "(begin form ...)")?;
                    parts[1..].iter().rev().for_each(|&part| queue.push_front((part, env)));
                }
                Some(Special::Define) => {
                    let (ident, name, value) = self.definition(form)?;
                    let var = self.define_var(scope, ident, name)?;
                    items.push((Item::Define { var, name: ident, value }, env));
                }
                Some(Special::DefineValues) => {
                    let parts = self.parts(form, 3, 3, "(define-values formals expression)")?;
                    let (names, rest) = self.formals(parts[1])?;
                    let mut vars = Vec::new();
                    for name in names {
                        let ident = self.forms.ident(name).expect("checked");
                        vars.push(self.define_var(scope, ident, name)?);
                    }
                    let rest = match rest {
                        Some(name) => {
                            let ident = self.forms.ident(name).expect("checked");
                            Some(self.define_var(scope, ident, name)?)
                        }
                        None => None,
                    };
                    items.push((Item::Values { vars, rest, value: parts[2] }, env));
                }
                Some(Special::DefineSyntax) => {
                    let parts = self.parts(form, 3, 3, "(define-syntax keyword transformer)")?;
                    let Some(ident) = self.forms.ident(parts[1]) else {
                        return self.error(parts[1], "define-syntax: a keyword is expected");
                    };
                    let denotation = self.transformer(parts[2], env)?;
                    self.bind(scope, ident, denotation);
                }
                Some(Special::DefineRecordType) => {
                    for (name, expr) in self.record_type(form, env, &mut |unit, name| {
                        let ident = unit.forms.ident(name).expect("checked");
                        unit.define_var(scope, ident, name)
                            .map(|var| (var, Expr::Local(var, Location::default())))
                    })? {
                        items.push((Item::Made { var: name, expr }, env));
                    }
                }
                Some(Special::CondExpand) => {
                    let chosen = self.cond_expand(form)?;
                    chosen.iter().rev().for_each(|&part| queue.push_front((part, env)));
                }
                Some(special @ (Special::Include | Special::IncludeCi)) => {
                    let forms = self.include(form, special == Special::IncludeCi)?;
                    forms.iter().rev().for_each(|&part| queue.push_front((part, env)));
                }
                _ => items.push((Item::Expr(form), env)),
            }
        }
        match items.last() {
            None => return self.error(id, "a body must end with an expression"),
            Some((Item::Expr(_), _)) => {}
            Some(_) => {
                // Tolerated, as most implementations do: the value is unspecified.
                items.push((Item::Made { var: None, expr: UNSPECIFIED }, inner));
            }
        }
        self.finish_body(items)
    }

    fn define_var(&mut self, scope: u32, ident: Ident, name: Id) -> Result<VarId> {
        if self.is_bound_here(scope, ident) {
            let what = self.show(name);
            return self.error(name, format!("{what} is defined twice in this body"));
        }
        let var = self.bind_var(scope, ident);
        self.vars[var as usize].ready = false;
        Ok(var)
    }

    /// `(define name value)`, `(define (name . formals) body ...)`, and the curried form.
    fn definition(&mut self, id: Id) -> Result<(Ident, Id, Value)> {
        let usage = "(define variable expression) or (define (variable parameter ...) body ...)";
        let parts = self.parts(id, 2, usize::MAX, usage)?;
        match *self.forms.node(parts[1]) {
            Node::Ident(ident) => {
                if parts.len() > 3 {
                    return self.error(id, format!("bad syntax: {usage} is expected"));
                }
                let value = parts.get(2).map_or(Value::Nothing, |&value| Value::Form(value));
                Ok((ident, parts[1], value))
            }
            Node::Pair(mut name, mut params) => {
                if parts.len() < 3 {
                    return self.error(id, "a procedure needs a body");
                }
                let mut body = parts[2..].to_vec();
                // (define ((name a) b) body): a procedure that returns a procedure.
                while let Some((inner, inner_params)) = self.forms.pair(name) {
                    let at = self.forms.at(id);
                    let lambda = Symbol::intern("lambda");
                    let word = self.new_alias(Ident::symbol(lambda), EnvRef::Top(0));
                    let word = self.forms.add(Node::Ident(word), at);
                    let tail = self.forms.make_list(&body, None, at);
                    let made = self.forms.make_list(&[word, params], Some(tail), at);
                    body = vec![made];
                    (name, params) = (inner, inner_params);
                }
                match self.forms.ident(name) {
                    Some(ident) => Ok((ident, name, Value::Procedure { params, body, id })),
                    None => self.error(name, "define: an identifier is expected"),
                }
            }
            _ => self.error(parts[1], format!("bad syntax: {usage} is expected")),
        }
    }

    fn definition_value(&mut self, name: Ident, value: Value, env: EnvRef) -> Result<Expr> {
        let symbol = self.compiler.symbol_of(name);
        match value {
            Value::Form(id) => {
                let expr = self.expr(id, env)?;
                Ok(self.name(expr, symbol))
            }
            Value::Procedure { params, body, id } => {
                Ok(Expr::Lambda(Box::new(self.lambda(params, &body, env, symbol, id)?)))
            }
            Value::Nothing => Ok(UNSPECIFIED),
        }
    }

    fn formals(&self, id: Id) -> Result<(Vec<Id>, Option<Id>)> {
        let mut names = Vec::new();
        let mut at = id;
        loop {
            match self.forms.node(at) {
                Node::Pair(name, next) if self.forms.ident(*name).is_some() => {
                    names.push(*name);
                    at = *next;
                }
                Node::Nil => return Ok((names, None)),
                Node::Ident(_) => return Ok((names, Some(at))),
                _ => return self.error(at, "formals are identifiers"),
            }
        }
    }

    /// `letrec` and `letrec*`.
    pub(crate) fn letrec(
        &mut self,
        bindings: &[(Id, Id)],
        body: &[Id],
        env: EnvRef,
        id: Id,
    ) -> Result<Expr> {
        let scope = self.new_scope(env);
        let inner = EnvRef::Scope(scope);
        let mut items = Vec::new();
        for &(name, value) in bindings {
            let ident = self.forms.ident(name).expect("checked");
            let var = self.define_var(scope, ident, name)?;
            items.push((Item::Define { var, name: ident, value: Value::Form(value) }, inner));
        }
        // The body is a body of its own, which may define the same names again.
        let at = self.forms.at(id);
        let word = self.new_alias(Ident::symbol(Symbol::intern("let")), EnvRef::Top(0));
        let word = self.forms.add(Node::Ident(word), at);
        let nothing = self.forms.add(Node::Nil, at);
        let tail = self.forms.make_list(body, None, at);
        let form = self.forms.make_list(&[word, nothing], Some(tail), at);
        items.push((Item::Expr(form), inner));
        self.finish_body(items)
    }

    fn finish_body(&mut self, items: Vec<(Item, EnvRef)>) -> Result<Expr> {
        if items.iter().all(|(item, _)| matches!(item, Item::Expr(_))) {
            let mut exprs = Vec::new();
            for (item, env) in items {
                if let Item::Expr(id) = item {
                    exprs.push(self.expr(id, env)?);
                }
            }
            return Ok(seq(exprs));
        }
        let mut before = self.take_mentioned();
        // Variables of bodies around this one that are not ready yet are those bodies' affair.
        let own: HashSet<VarId> = items.iter().flat_map(|(item, _)| item.defines()).collect();
        // What each item needs of variables that are defined by it or after it.
        enum Step {
            Plain(VarId, Expr),
            Procedures(Vec<(VarId, Lambda)>),
            Effect(Expr),
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut pending: Vec<(VarId, Lambda, Vec<VarId>)> = Vec::new();
        let mut later: Vec<VarId> = Vec::new();
        let flush = |unit: &mut Self,
                     pending: &mut Vec<(VarId, Lambda, Vec<VarId>)>,
                     steps: &mut Vec<Step>,
                     later: &mut Vec<VarId>| {
            if pending.is_empty() {
                return;
            }
            let group: Vec<VarId> = pending.iter().map(|&(var, ..)| var).collect();
            for &var in &group {
                unit.vars[var as usize].ready = true;
            }
            let mut procedures = Vec::new();
            for (var, lambda, mentioned) in pending.drain(..) {
                for other in mentioned {
                    // Not of the group and still to be defined: it is seen too early.
                    if !unit.vars[other as usize].ready {
                        unit.vars[other as usize].boxed = true;
                        later.push(other);
                    }
                }
                procedures.push((var, lambda));
            }
            steps.push(Step::Procedures(procedures));
        };
        let count = items.len();
        let mut last = None;
        for (index, (item, env)) in items.into_iter().enumerate() {
            let (var, expr) = match item {
                Item::Define { var, name, value } => {
                    (Some(var), self.definition_value(name, value, env)?)
                }
                Item::Made { var, expr } => (var, expr),
                Item::Expr(id) => (None, self.expr(id, env)?),
                Item::Values { vars, rest, value } => {
                    // Assigned together: cells.
                    let at = self.forms.at(value);
                    let value = self.expr(value, env)?;
                    let mut temps = Vec::new();
                    let mut sets = Vec::new();
                    for &var in vars.iter().chain(&rest) {
                        let temp = self.new_var(Ident::symbol(self.vars[var as usize].name));
                        self.vars[var as usize].boxed = true;
                        self.vars[var as usize].ready = true;
                        temps.push(temp);
                        sets.push(Expr::SetLocal(var, Box::new(Expr::Local(temp, at))));
                        later.push(var);
                    }
                    let rest = rest.map(|_| temps.pop().expect("one for the rest"));
                    sets.push(UNSPECIFIED);
                    (None, self.receive(temps, rest, value, seq(sets), at))
                }
            };
            let (mentioned, outer): (Vec<_>, Vec<_>) =
                self.take_mentioned().into_iter().partition(|var| own.contains(var));
            before.extend(outer);
            match (var, expr) {
                (Some(var), Expr::Lambda(lambda)) => {
                    if self.vars[var as usize].boxed {
                        // Assigned, by itself or by something before it.
                        flush(self, &mut pending, &mut steps, &mut later);
                        self.too_early(&mentioned, Some(var), &mut later);
                        self.vars[var as usize].ready = true;
                        steps.push(Step::Plain(var, Expr::Lambda(lambda)));
                    } else {
                        pending.push((var, *lambda, mentioned));
                    }
                }
                (var, expr) => {
                    let calls_pending = pending.iter().any(|(var, ..)| mentioned.contains(var));
                    if calls_pending || index + 1 == count {
                        flush(self, &mut pending, &mut steps, &mut later);
                    }
                    self.too_early(&mentioned, None, &mut later);
                    match var {
                        Some(var) => {
                            self.vars[var as usize].ready = true;
                            steps.push(Step::Plain(var, expr));
                        }
                        None if index + 1 == count => last = Some(expr),
                        None => steps.push(Step::Effect(expr)),
                    }
                }
            }
        }
        self.put_mentioned(before);
        let mut body = last.unwrap_or(UNSPECIFIED);
        // An assignment may stand behind the definition: then a procedure of a group is in a cell after all.
        for step in steps.into_iter().rev() {
            body = match step {
                Step::Effect(expr) => match body {
                    Expr::Seq(mut exprs) => {
                        exprs.insert(0, expr);
                        Expr::Seq(exprs)
                    }
                    body => Expr::Seq(vec![expr, body]),
                },
                Step::Plain(var, expr) if later.contains(&var) => {
                    Expr::Seq(vec![Expr::SetLocal(var, Box::new(expr)), body])
                }
                Step::Plain(var, expr) => Expr::Let(vec![(var, expr)], Box::new(body)),
                Step::Procedures(procedures) => {
                    let (boxed, plain): (Vec<_>, Vec<_>) =
                        procedures.into_iter().partition(|(var, _)| self.vars[*var as usize].boxed);
                    let mut body = body;
                    for (var, lambda) in boxed.into_iter().rev() {
                        if !later.contains(&var) {
                            later.push(var);
                        }
                        let set = Expr::SetLocal(var, Box::new(Expr::Lambda(Box::new(lambda))));
                        body = Expr::Seq(vec![set, body]);
                    }
                    if plain.is_empty() { body } else { Expr::Fix(plain, Box::new(body)) }
                }
            };
        }
        later.sort_unstable();
        later.dedup();
        if !later.is_empty() {
            let cells =
                later.into_iter().map(|var| (var, Expr::Immediate(Immediate::Unbound))).collect();
            body = Expr::Let(cells, Box::new(body));
        }
        Ok(body)
    }

    /// What an expression mentions that is not defined yet goes into cells that exist from the start.
    fn too_early(&mut self, mentioned: &[VarId], but: Option<VarId>, later: &mut Vec<VarId>) {
        for &var in mentioned {
            if !self.vars[var as usize].ready || Some(var) == but {
                self.vars[var as usize].boxed = true;
                later.push(var);
            }
        }
    }

    /// A record type: what is to be defined, in order. `define` makes a variable of a name.
    #[allow(clippy::type_complexity)]
    pub(crate) fn record_type<V: Copy>(
        &mut self,
        id: Id,
        env: EnvRef,
        define: &mut dyn FnMut(&mut Self, Id) -> Result<(V, Expr)>,
    ) -> Result<Vec<(Option<V>, Expr)>> {
        let _ = env;
        let usage = "(define-record-type name (constructor field ...) predicate (field accessor modifier) ...)";
        let parts = self.parts(id, 3, usize::MAX, usage)?;
        let at = self.forms.at(id);
        let type_name = match self.forms.pair(parts[1]) {
            Some((name, _)) => name,
            None => parts[1],
        };
        let is_name = |unit: &Self, id: Id| unit.forms.ident(id).is_some();
        if !is_name(self, type_name) {
            return self.error(parts[1], format!("bad syntax: {usage} is expected"));
        }
        let mut fields = Vec::new();
        let mut specs = Vec::new();
        for &field in parts.get(4..).unwrap_or_default() {
            let spec = match self.forms.ident(field) {
                Some(_) => vec![field],
                None => self.parts(field, 1, 3, "(field accessor modifier)")?,
            };
            if let Some(&wrong) = spec.iter().find(|&&name| !is_name(self, name)) {
                return self.error(wrong, "define-record-type: an identifier is expected");
            }
            let name = self.forms.ident(spec[0]).expect("checked");
            if fields.contains(&name) {
                return self.error(field, "define-record-type: this field occurs twice");
            }
            fields.push(name);
            specs.push(spec);
        }
        let field_ids: Vec<Id> =
            fields.iter().map(|&field| self.forms.add(Node::Ident(field), at)).collect();
        let field_vector = self.forms.add(Node::Vector(field_ids.into()), at);
        let field_vector = self.quoted(field_vector);
        let type_symbol = self.quoted(type_name);
        let (type_var, _) = define(self, type_name)?;
        let mut made = vec![(
            Some(type_var),
            self.builtin("%make-record-type", vec![type_symbol, field_vector], at),
        )];
        let symbol = |unit: &Self, name: Id| {
            unit.compiler.symbol_of(unit.forms.ident(name).expect("checked"))
        };
        // Procedures are expanded from forms, so that the type's name is resolved like any other.
        let mut procedure = |unit: &mut Self,
                             name: Id,
                             params: usize,
                             build: &dyn Fn(&mut Self, &[VarId], Expr) -> Expr|
         -> Result<()> {
            let (var, _) = define(unit, name)?;
            let type_reference = unit.expr(type_name, env)?;
            let params: Vec<VarId> =
                (0..params).map(|_| unit.new_var(Ident::symbol(Symbol::intern("field")))).collect();
            let body = build(unit, &params, type_reference);
            let name = symbol(unit, name);
            let lambda = Lambda { params, rest: None, body, name, at };
            made.push((Some(var), Expr::Lambda(Box::new(lambda))));
            Ok(())
        };
        let local = |var: VarId| Expr::Local(var, at);
        match self.forms.node(parts[2]).clone() {
            Node::Ident(_) => {
                let count = fields.len();
                procedure(self, parts[2], count, &|unit, params, kind| {
                    let mut args = vec![kind];
                    args.extend(params.iter().map(|&p| local(p)));
                    unit.builtin("%record", args, at)
                })?;
            }
            Node::Pair(name, args) => {
                if !is_name(self, name) {
                    return self.error(parts[2], format!("bad syntax: {usage} is expected"));
                }
                let Some(args) = self.forms.list(args) else {
                    return self.error(parts[2], format!("bad syntax: {usage} is expected"));
                };
                let mut places = Vec::new();
                for &arg in &args {
                    let place =
                        self.forms.ident(arg).and_then(|a| fields.iter().position(|&f| f == a));
                    match place {
                        Some(place) => places.push(place),
                        None => {
                            let what = self.show(arg);
                            return self.error(
                                arg,
                                format!("define-record-type: there is no field {what}"),
                            );
                        }
                    }
                }
                let count = fields.len();
                procedure(self, name, args.len(), &|unit, params, kind| {
                    let mut values: Vec<Expr> =
                        (0..count).map(|_| Expr::Immediate(Immediate::False)).collect();
                    for (&place, &param) in places.iter().zip(params) {
                        values[place] = local(param);
                    }
                    values.insert(0, kind);
                    unit.builtin("%record", values, at)
                })?;
            }
            _ => {}
        }
        if let Some(&predicate) = parts.get(3) {
            if is_name(self, predicate) {
                procedure(self, predicate, 1, &|unit, params, kind| {
                    unit.builtin("%record-is?", vec![local(params[0]), kind], at)
                })?;
            } else if !matches!(self.forms.node(predicate), Node::Bool(false)) {
                return self
                    .error(predicate, "define-record-type: the predicate's name is expected");
            }
        }
        for (index, spec) in specs.iter().enumerate() {
            let place = || Expr::Immediate(Immediate::Fixnum(index as i64 + 1));
            if let Some(&accessor) = spec.get(1) {
                procedure(self, accessor, 1, &|unit, params, kind| {
                    unit.builtin("%record-ref", vec![local(params[0]), kind, place()], at)
                })?;
            }
            if let Some(&modifier) = spec.get(2) {
                procedure(self, modifier, 2, &|unit, params, kind| {
                    let args = vec![local(params[0]), kind, place(), local(params[1])];
                    unit.builtin("%record-set!", args, at)
                })?;
            }
        }
        Ok(made)
    }

    /// Expands a form at top level to what is to be run, in order.
    pub fn top_level(&mut self, form: Id, env: u32, out: &mut Vec<Expr>) -> Result<()> {
        let top = EnvRef::Top(env);
        let mut queue = std::collections::VecDeque::from([form]);
        while let Some(form) = queue.pop_front() {
            if let Some(next) = self.expand_macro_once(form, top)? {
                queue.push_front(next);
                continue;
            }
            let at = self.forms.at(form);
            let head = self.forms.pair(form).map(|(head, _)| head);
            match head.and_then(|head| self.special(head, top)) {
                Some(Special::Begin) => {
                    let parts = self.parts(form, 1, usize::MAX, "(begin form ...)")?;
                    parts[1..].iter().rev().for_each(|&part| queue.push_front(part));
                }
                Some(Special::Define) => {
                    let (ident, _, value) = self.definition(form)?;
                    let global = self.define_global(env, ident);
                    let value = self.definition_value(ident, value, top)?;
                    out.push(Expr::DefineGlobal(global, Box::new(value)));
                }
                Some(Special::DefineValues) => {
                    let parts = self.parts(form, 3, 3, "(define-values formals expression)")?;
                    let (names, rest) = self.formals(parts[1])?;
                    let value = self.expr(parts[2], top)?;
                    let mut temps = Vec::new();
                    let mut sets = Vec::new();
                    for &name in names.iter().chain(&rest) {
                        let ident = self.forms.ident(name).expect("checked");
                        let global = self.define_global(env, ident);
                        let temp = self.new_var(ident);
                        temps.push(temp);
                        sets.push(Expr::DefineGlobal(global, Box::new(Expr::Local(temp, at))));
                    }
                    let rest = rest.map(|_| temps.pop().expect("one for the rest"));
                    sets.push(UNSPECIFIED);
                    let expr = self.receive(temps, rest, value, seq(sets), at);
                    out.push(expr);
                }
                Some(Special::DefineSyntax) => {
                    let parts = self.parts(form, 3, 3, "(define-syntax keyword transformer)")?;
                    let Some(ident) = self.forms.ident(parts[1]) else {
                        return self.error(parts[1], "define-syntax: a keyword is expected");
                    };
                    let denotation = self.transformer(parts[2], top)?;
                    if ident.as_alias().is_some() {
                        self.keep_aliases();
                    }
                    let binding = super::Binding { denotation, imported: false };
                    self.compiler.envs[env as usize].table.insert(ident, binding);
                    out.push(UNSPECIFIED);
                }
                Some(Special::DefineRecordType) => {
                    let made = self.record_type(form, top, &mut |unit, name| {
                        let ident = unit.forms.ident(name).expect("checked");
                        let global = unit.define_global(env, ident);
                        Ok((global, Expr::Global(global, at)))
                    })?;
                    for (global, expr) in made {
                        let global = global.expect("all of a record type is defined");
                        out.push(Expr::DefineGlobal(global, Box::new(expr)));
                    }
                }
                Some(Special::CondExpand) => {
                    let chosen = self.cond_expand(form)?;
                    chosen.iter().rev().for_each(|&part| queue.push_front(part));
                }
                Some(special @ (Special::Include | Special::IncludeCi)) => {
                    let forms = self.include(form, special == Special::IncludeCi)?;
                    forms.iter().rev().for_each(|&part| queue.push_front(part));
                }
                Some(Special::Import) => {
                    let parts = self.parts(form, 1, usize::MAX, "(import set ...)")?;
                    for &set in &parts[1..] {
                        self.import(set, env, out)?;
                    }
                    out.push(UNSPECIFIED);
                }
                Some(Special::DefineLibrary) => {
                    self.define_library(form, out)?;
                    out.push(UNSPECIFIED);
                }
                _ => {
                    let expr = self.expr(form, top)?;
                    out.push(expr);
                }
            }
        }
        Ok(())
    }

    /// The global for a definition at top level.
    pub(crate) fn define_global(&mut self, env: u32, ident: Ident) -> super::GlobalId {
        if ident.as_alias().is_some() {
            self.keep_aliases();
        }
        self.compiler.global_to_define(env, ident)
    }

    /// The names that the forms of a program define at top level, as far as can be seen without expanding:
    /// those that are imported are replaced before anything is compiled, so that earlier uses see them too.
    pub fn announce_definitions(&mut self, forms: &[Id], env: u32) {
        let mut todo: Vec<Id> = forms.to_vec();
        while let Some(form) = todo.pop() {
            let Some((head, rest)) = self.forms.pair(form) else { continue };
            match self.special(head, EnvRef::Top(env)) {
                Some(Special::Begin) => todo.extend(self.forms.list(rest).unwrap_or_default()),
                Some(Special::Define) => {
                    let mut name = self.forms.pair(rest).map(|(name, _)| name);
                    while let Some((inner, _)) = name.and_then(|name| self.forms.pair(name)) {
                        name = Some(inner);
                    }
                    if let Some(ident) = name.and_then(|name| self.forms.ident(name))
                        && let Ok(Denotation::Global(_)) = self.resolve(ident, EnvRef::Top(env))
                    {
                        self.define_global(env, ident);
                    }
                }
                Some(Special::DefineRecordType) => {
                    let parts = self.forms.list(form).unwrap_or_default();
                    let mut names = Vec::new();
                    for (index, &part) in parts.iter().enumerate().skip(2) {
                        match self.forms.list(part) {
                            Some(list) if index == 2 => names.extend(list.first()),
                            Some(list) => names.extend(list.iter().skip(1)),
                            None => names.push(part),
                        }
                    }
                    for name in names {
                        if let Some(ident) = self.forms.ident(name)
                            && let Ok(Denotation::Global(_)) = self.resolve(ident, EnvRef::Top(env))
                        {
                            self.define_global(env, ident);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The scope of `let-syntax` and `letrec-syntax`.
    pub(crate) fn syntax_scope(
        &mut self,
        special: Special,
        bindings: Id,
        env: EnvRef,
    ) -> Result<u32> {
        let scope = self.new_scope(env);
        for (name, transformer) in self.bindings(bindings)? {
            let inner = if special == Special::LetSyntax { env } else { EnvRef::Scope(scope) };
            let denotation = self.transformer(transformer, inner)?;
            self.bind(scope, self.forms.ident(name).expect("checked"), denotation);
        }
        Ok(scope)
    }
}
