//! The special forms as expressions: which form it is, and what most of them become.
//!
//! `Unit::expr` expands whatever stands where an expression may: a reference, a constant, a call, the use of a macro
//! (which is transcribed, and the result looked at again), a special form. The short special forms are here; those
//! that bind variables are in `bindings`, `cond` and `case` in `conditionals`, templates in `quasiquote`. Definitions are none of these: bodies take them out first ([`super::body`]).
//!
//! Invariants: nesting is counted, and refused where it is too deep. A reference to a variable that is
//! not yet initialized is noted (`mentioned`), for the definitions to decide about cells.
//!
//! Called by bodies, the top level and the binding forms, for each expression in them.

use super::{Denotation, EnvRef, Expr, Immediate, Result, Special, Unit, VarId};
use crate::numbers::Number;
use crate::symbol::Symbol;
use crate::syntax::{Id, Ident, Location, Node};
use crate::value::Value;

pub(crate) const UNSPECIFIED: Expr = Expr::Immediate(Immediate::Unspecified);

pub(crate) fn seq(mut exprs: Vec<Expr>) -> Expr {
    match exprs.len() {
        0 => UNSPECIFIED,
        1 => exprs.pop().expect("one"),
        _ => Expr::Seq(exprs),
    }
}

pub(crate) fn choice(test: Expr, then: Expr, other: Expr) -> Expr {
    Expr::If(Box::new((test, then, other)))
}

impl Unit<'_> {
    /// Expands an expression.
    pub(crate) fn expr(&mut self, id: Id, env: EnvRef) -> Result<Expr> {
        self.watch.look()?;
        if self.depth > Self::DEEPEST {
            return self.error(id, "this expression is nested too deeply");
        }
        self.depth += 1;
        let result = crate::deep(|| self.expr_inner(id, env));
        self.depth -= 1;
        result
    }

    fn expr_inner(&mut self, mut id: Id, env: EnvRef) -> Result<Expr> {
        loop {
            match self.forms.node(id) {
                Node::Ident(ident) => {
                    let ident = *ident;
                    return self.reference(ident, id, env);
                }
                Node::Pair(head, _) => {
                    let head = *head;
                    if let Some(ident) = self.forms.ident(head) {
                        match self.resolve(ident, env) {
                            Ok(Denotation::Special(special)) => {
                                return self.special_form(special, id, env);
                            }
                            Ok(Denotation::Macro(made)) => {
                                id = self.transcribe(&made, id, env)?;
                                continue;
                            }
                            _ => {}
                        }
                    }
                    return self.call(id, env);
                }
                Node::Nil => return self.error(id, "() is no expression: quote it"),
                _ => return Ok(self.quoted(id)),
            }
        }
    }

    fn reference(&mut self, ident: Ident, id: Id, env: EnvRef) -> Result<Expr> {
        let at = self.forms.at(id);
        match self.resolve(ident, env) {
            Ok(Denotation::Local(var)) => {
                self.mention(var);
                Ok(Expr::Local(var, at))
            }
            Ok(Denotation::Global(global)) => Ok(self.global_reference(global, at)),
            Err((ident, top)) => match self.compiler.global(top, ident) {
                Some(global) => Ok(Expr::Global(global, at)),
                None => self.error(id, format!("{} is no variable", self.show(id))),
            },
            Ok(_) => {
                let what = self.show(id);
                self.error(id, format!("{what} is syntax: it cannot be used as a variable"))
            }
        }
    }

    fn global_reference(&mut self, global: super::GlobalId, at: Location) -> Expr {
        match self.compiler.globals[global as usize].builtin {
            Some(builtin) => Expr::Immediate(Immediate::Primitive(builtin)),
            None => Expr::Global(global, at),
        }
    }

    pub(crate) fn mention(&mut self, var: VarId) {
        if !self.vars[var as usize].ready {
            self.mentioned.push(var);
        }
    }

    pub(crate) fn take_mentioned(&mut self) -> Vec<VarId> {
        std::mem::take(&mut self.mentioned)
    }

    pub(crate) fn put_mentioned(&mut self, mut before: Vec<VarId>) {
        before.append(&mut self.mentioned);
        self.mentioned = before;
    }

    /// A constant.
    pub(crate) fn quoted(&mut self, id: Id) -> Expr {
        let immediate = match self.forms.node(id) {
            Node::Nil => Immediate::Nil,
            Node::Bool(true) => Immediate::True,
            Node::Bool(false) => Immediate::False,
            Node::Char(c) => Immediate::Char(*c),
            Node::Number(Number::Small(n))
                if (Value::FIXNUM_MIN..=Value::FIXNUM_MAX).contains(n) =>
            {
                Immediate::Fixnum(*n)
            }
            Node::Ident(ident) => Immediate::Symbol(self.compiler.symbol_of(*ident)),
            Node::Eof => Immediate::Eof,
            Node::Unspecified => Immediate::Unspecified,
            _ => return Expr::Quote(self.strip(id)),
        };
        Expr::Immediate(immediate)
    }

    /// A call of a builtin by name, for the expansion of special forms.
    pub(crate) fn builtin(&self, name: &str, args: Vec<Expr>, at: Location) -> Expr {
        let number = self.compiler.builtin(name).unwrap_or_else(|| panic!("no builtin {name}"));
        Expr::Builtin(number, args, at)
    }

    /// A call of a procedure of the prelude by name.
    pub(crate) fn prelude(&mut self, name: &str, args: Vec<Expr>, at: Location) -> Expr {
        if self.compiler.builtin(name).is_some() {
            return self.builtin(name, args, at);
        }
        let ident = Ident::symbol(Symbol::intern(name));
        let global = self.compiler.global(0, ident).expect("a procedure of the prelude");
        Expr::Call(Box::new(Expr::Global(global, at)), args, at)
    }

    fn call(&mut self, id: Id, env: EnvRef) -> Result<Expr> {
        let at = self.forms.at(id);
        let Some(parts) = self.forms.list(id) else {
            return self.error(id, "a call must be a proper list");
        };
        // ((lambda (x ...) body ...) arg ...) is a let.
        if let Some((head, _)) = self.forms.pair(parts[0])
            && self.special(head, env) == Some(Special::Lambda)
            && let Some(lambda) = self.forms.list(parts[0]).filter(|l| l.len() >= 3)
            && let Some(params) = self.forms.list(lambda[1])
            && params.len() == parts.len() - 1
            && params.iter().all(|&p| self.forms.ident(p).is_some())
        {
            let bindings: Vec<(Id, Id)> =
                params.into_iter().zip(parts[1..].iter().copied()).collect();
            return self.make_let(&bindings, &lambda[2..], env, id);
        }
        let head = self.expr(parts[0], env)?;
        let args = self.exprs(&parts[1..], env)?;
        let builtin = match head {
            Expr::Immediate(Immediate::Primitive(builtin)) => Some(builtin),
            Expr::Global(global, _) => self.compiler.globals[global as usize].stand_in,
            _ => None,
        };
        if let Some(builtin) = builtin
            && self.compiler.builtins[builtin as usize].takes(args.len())
        {
            return Ok(Expr::Builtin(builtin, args, at));
        }
        Ok(Expr::Call(Box::new(head), args, at))
    }

    pub(crate) fn exprs(&mut self, ids: &[Id], env: EnvRef) -> Result<Vec<Expr>> {
        ids.iter().map(|&id| self.expr(id, env)).collect()
    }

    /// The parts of a form, of which there must be at least `least` (the keyword included).
    pub(crate) fn parts(&self, id: Id, least: usize, most: usize, usage: &str) -> Result<Vec<Id>> {
        match self.forms.list(id) {
            Some(parts) if (least..=most).contains(&parts.len()) => Ok(parts),
            _ => self.error(id, format!("bad syntax: {usage} is expected, not {}", self.show(id))),
        }
    }

    fn special_form(&mut self, special: Special, id: Id, env: EnvRef) -> Result<Expr> {
        const MANY: usize = usize::MAX;
        let at = self.forms.at(id);
        match special {
            Special::Quote => {
                let parts = self.parts(id, 2, 2, "(quote datum)")?;
                Ok(self.quoted(parts[1]))
            }
            Special::Quasiquote => {
                let parts = self.parts(id, 2, 2, "(quasiquote template)")?;
                if self.is_constant_template(parts[1], env) {
                    return Ok(self.quoted(parts[1]));
                }
                self.quasi(parts[1], 1, env)
            }
            Special::Lambda => {
                let parts = self.parts(id, 3, MANY, "(lambda (parameter ...) body ...)")?;
                let name = Symbol::intern("");
                let lambda = self.lambda(parts[1], &parts[2..], env, name, id)?;
                Ok(Expr::Lambda(Box::new(lambda)))
            }
            Special::NamedLambda => {
                let parts =
                    self.parts(id, 3, MANY, "(%named-lambda (name parameter ...) body ...)")?;
                let Some((name, params)) = self.forms.pair(parts[1]) else {
                    return self.error(id, "a name is missing");
                };
                let Some(ident) = self.forms.ident(name) else {
                    return self.error(id, "a name is missing");
                };
                let name = self.compiler.symbol_of(ident);
                let lambda = self.lambda(params, &parts[2..], env, name, id)?;
                Ok(Expr::Lambda(Box::new(lambda)))
            }
            Special::CaseLambda => {
                let parts =
                    self.parts(id, 1, MANY, "(case-lambda ((parameter ...) body ...) ...)")?;
                let name = Symbol::intern("");
                let mut clauses = Vec::new();
                for &clause in &parts[1..] {
                    let clause_parts = self.parts(clause, 2, MANY, "((parameter ...) body ...)")?;
                    clauses.push(self.lambda(
                        clause_parts[0],
                        &clause_parts[1..],
                        env,
                        name,
                        clause,
                    )?);
                }
                Ok(Expr::CaseLambda(clauses, name))
            }
            Special::If => {
                let parts = self.parts(id, 3, 4, "(if test consequent alternative)")?;
                let test = self.expr(parts[1], env)?;
                let then = self.expr(parts[2], env)?;
                let other = match parts.get(3) {
                    Some(&other) => self.expr(other, env)?,
                    None => UNSPECIFIED,
                };
                Ok(choice(test, then, other))
            }
            Special::Set => {
                let parts = self.parts(id, 3, 3, "(set! variable expression)")?;
                let Some(ident) = self.forms.ident(parts[1]) else {
                    return self.error(parts[1], "set!: a variable is expected");
                };
                let target = self.resolve(ident, env);
                let value = self.expr(parts[2], env)?;
                match target {
                    Ok(Denotation::Local(var)) => {
                        self.vars[var as usize].boxed = true;
                        self.mention(var);
                        Ok(Expr::SetLocal(var, Box::new(value)))
                    }
                    Ok(Denotation::Global(global)) => {
                        let known = &self.compiler.globals[global as usize];
                        if known.builtin.is_some() || known.stand_in.is_some() {
                            let name = self.show(parts[1]);
                            return self.error(
                                parts[1],
                                format!("set!: {name} is a builtin: define it anew to change it"),
                            );
                        }
                        Ok(Expr::SetGlobal(global, Box::new(value), at))
                    }
                    Err((ident, top)) => {
                        let global = self.compiler.global(top, ident).expect("unbound");
                        Ok(Expr::SetGlobal(global, Box::new(value), at))
                    }
                    Ok(_) => self.error(parts[1], "set!: this is syntax, not a variable"),
                }
            }
            Special::Begin => {
                let parts = self.parts(id, 1, MANY, "(begin expression ...)")?;
                Ok(seq(self.exprs(&parts[1..], env)?))
            }
            Special::Let => {
                let parts = self.parts(id, 3, MANY, "(let ((variable value) ...) body ...)")?;
                if let Some(name) = self.forms.ident(parts[1]) {
                    return self.named_let(name, &parts, env, id);
                }
                let bindings = self.bindings(parts[1])?;
                self.make_let(&bindings, &parts[2..], env, id)
            }
            Special::LetStar => {
                let parts = self.parts(id, 3, MANY, "(let* ((variable value) ...) body ...)")?;
                let bindings = self.bindings(parts[1])?;
                let mut env = env;
                let mut made = Vec::new();
                for (name, value) in bindings {
                    let value = self.named_expr(name, value, env)?;
                    let scope = self.new_scope(env);
                    let ident = self.forms.ident(name).expect("checked");
                    made.push((self.bind_var(scope, ident), value));
                    env = EnvRef::Scope(scope);
                }
                let mut body = self.body(&parts[2..], env, id)?;
                for binding in made.into_iter().rev() {
                    body = Expr::Let(vec![binding], Box::new(body));
                }
                Ok(body)
            }
            Special::Letrec | Special::LetrecStar => {
                let parts = self.parts(id, 3, MANY, "(letrec ((variable value) ...) body ...)")?;
                let bindings = self.bindings(parts[1])?;
                self.letrec(&bindings, &parts[2..], env, id)
            }
            Special::LetSyntax | Special::LetrecSyntax => {
                let parts =
                    self.parts(id, 3, MANY, "(let-syntax ((keyword transformer) ...) body ...)")?;
                let scope = self.syntax_scope(special, parts[1], env)?;
                self.body(&parts[2..], EnvRef::Scope(scope), id)
            }
            Special::LetValues => {
                let parts =
                    self.parts(id, 3, MANY, "(let-values ((formals expression) ...) body ...)")?;
                self.let_values(&parts, env, id)
            }
            Special::And => {
                let parts = self.parts(id, 1, MANY, "(and test ...)")?;
                let mut exprs = self.exprs(&parts[1..], env)?;
                let Some(mut result) = exprs.pop() else {
                    return Ok(Expr::Immediate(Immediate::True));
                };
                while let Some(test) = exprs.pop() {
                    result = choice(test, result, Expr::Immediate(Immediate::False));
                }
                Ok(result)
            }
            Special::Or => {
                let parts = self.parts(id, 1, MANY, "(or test ...)")?;
                let mut exprs = self.exprs(&parts[1..], env)?;
                let Some(mut result) = exprs.pop() else {
                    return Ok(Expr::Immediate(Immediate::False));
                };
                while let Some(test) = exprs.pop() {
                    result = self.or(test, result);
                }
                Ok(result)
            }
            Special::When | Special::Unless => {
                let parts = self.parts(id, 2, MANY, "(when test expression ...)")?;
                let test = self.expr(parts[1], env)?;
                let body = seq(self.exprs(&parts[2..], env)?);
                Ok(match special {
                    Special::When => choice(test, body, UNSPECIFIED),
                    _ => choice(test, UNSPECIFIED, body),
                })
            }
            Special::Cond => self.cond(id, env),
            Special::Case => self.case(id, env),
            Special::Do => self.do_loop(id, env),
            Special::CondExpand => {
                let chosen = self.cond_expand(id)?;
                Ok(seq(self.exprs(&chosen, env)?))
            }
            Special::Include | Special::IncludeCi => {
                let forms = self.include(id, special == Special::IncludeCi)?;
                Ok(seq(self.exprs(&forms, env)?))
            }
            Special::SyntaxError => {
                let parts = self.parts(id, 2, MANY, "(syntax-error message form ...)")?;
                let mut message = match self.forms.node(parts[1]) {
                    Node::Text(text) => text.to_string(),
                    _ => self.show(parts[1]),
                };
                for &part in &parts[2..] {
                    message.push(' ');
                    message.push_str(&self.show(part));
                }
                self.error(id, message)
            }
            Special::Define
            | Special::DefineValues
            | Special::DefineSyntax
            | Special::DefineRecordType => {
                self.error(id, format!("a definition is not allowed here: {}", self.show(id)))
            }
            Special::Import | Special::DefineLibrary => {
                self.error(id, "this is allowed at top level only")
            }
            Special::SyntaxRules => self.error(
                id,
                "syntax-rules is allowed in define-syntax, let-syntax and letrec-syntax only",
            ),
            Special::Else
            | Special::Arrow
            | Special::Ellipsis
            | Special::Underscore
            | Special::Unquote
            | Special::UnquoteSplicing => {
                let what = self.show(id);
                self.error(id, format!("bad syntax: {what}"))
            }
        }
    }
}
