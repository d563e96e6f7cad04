//! Forms that bind variables: `lambda`, the `let`s, `do`, and the values of several.
//!
//! A binding form makes a scope, binds in it exactly the identifiers that it is given, and expands its body there; its
//! initial values are expanded in the environment around it. Loops (`do`, named `let`) become an [`Expr::Fix`] of one
//! procedure, which the compiler makes a loop if it can; a procedure gets the name of the variable that it is bound to.
//!
//! Invariants: no identifier is bound twice by the same form. A variable that is assigned is marked so (`boxed`)
//! when its scope has been expanded, and only then it is decided what the form becomes.
//!
//! Called by the special forms ([`super::forms`]); definitions ([`super::body`]) use what concerns procedures and names.

use super::forms::{choice, seq};
use super::{EnvRef, Expr, Immediate, Lambda, Result, Unit, VarId};
use crate::symbol::Symbol;
use crate::syntax::{Id, Ident, Location, Node};

impl Unit<'_> {
    /// The value of a binding, which gives a procedure its name.
    pub(crate) fn named_expr(&mut self, name: Id, value: Id, env: EnvRef) -> Result<Expr> {
        let expr = self.expr(value, env)?;
        Ok(match self.forms.ident(name) {
            Some(ident) => self.name(expr, self.compiler.symbol_of(ident)),
            None => expr,
        })
    }

    pub(crate) fn name(&self, mut expr: Expr, name: Symbol) -> Expr {
        let nameless = Symbol::intern("");
        match &mut expr {
            Expr::Lambda(lambda) if lambda.name == nameless => lambda.name = name,
            Expr::CaseLambda(clauses, known) if *known == nameless => {
                *known = name;
                clauses.iter_mut().for_each(|clause| clause.name = name);
            }
            _ => {}
        }
        expr
    }

    pub(crate) fn lambda(
        &mut self,
        params: Id,
        body: &[Id],
        env: EnvRef,
        name: Symbol,
        id: Id,
    ) -> Result<Lambda> {
        let scope = self.new_scope(env);
        let mut vars = Vec::new();
        let mut at = params;
        let mut rest = None;
        loop {
            match self.forms.node(at) {
                Node::Pair(param, next) => {
                    let (param, next) = (*param, *next);
                    vars.push(self.parameter(scope, param)?);
                    at = next;
                    if vars.len() > 1000 {
                        return self.error(params, "more than 1000 parameters");
                    }
                }
                Node::Nil => break,
                Node::Ident(_) => {
                    rest = Some(self.parameter(scope, at)?);
                    break;
                }
                _ => return self.error(at, "a parameter must be an identifier"),
            }
        }
        let body = self.body(body, EnvRef::Scope(scope), id)?;
        Ok(Lambda { params: vars, rest, body, name, at: self.forms.at(id) })
    }

    pub(super) fn parameter(&mut self, scope: u32, id: Id) -> Result<VarId> {
        let Some(ident) = self.forms.ident(id) else {
            return self.error(id, "a parameter must be an identifier");
        };
        if self.is_bound_here(scope, ident) {
            return self.error(id, format!("the parameter {} occurs twice", self.show(id)));
        }
        Ok(self.bind_var(scope, ident))
    }

    /// `((name value) ...)`
    pub(crate) fn bindings(&self, id: Id) -> Result<Vec<(Id, Id)>> {
        let Some(list) = self.forms.list(id) else {
            return self.error(id, "a list of bindings is expected");
        };
        list.into_iter()
            .map(|binding| match self.forms.list(binding).as_deref() {
                Some(&[name, value]) if self.forms.ident(name).is_some() => Ok((name, value)),
                _ => self.error(
                    binding,
                    format!("a binding is (variable value), not {}", self.show(binding)),
                ),
            })
            .collect()
    }

    pub(super) fn make_let(
        &mut self,
        bindings: &[(Id, Id)],
        body: &[Id],
        env: EnvRef,
        id: Id,
    ) -> Result<Expr> {
        let scope = self.new_scope(env);
        let mut values = Vec::new();
        for &(name, value) in bindings {
            values.push(self.named_expr(name, value, env)?);
        }
        let mut made = Vec::new();
        for (&(name, _), value) in bindings.iter().zip(values) {
            made.push((self.parameter(scope, name)?, value));
        }
        let body = self.body(body, EnvRef::Scope(scope), id)?;
        Ok(if made.is_empty() { body } else { Expr::Let(made, Box::new(body)) })
    }

    pub(super) fn named_let(
        &mut self,
        name: Ident,
        parts: &[Id],
        env: EnvRef,
        id: Id,
    ) -> Result<Expr> {
        if parts.len() < 4 {
            return self
                .error(id, "bad syntax: (let name ((variable value) ...) body ...) is expected");
        }
        let bindings = self.bindings(parts[2])?;
        let values =
            bindings.iter().map(|&(_, value)| self.expr(value, env)).collect::<Result<Vec<_>>>()?;
        let outer = self.new_scope(env);
        let var = self.bind_var(outer, name);
        let scope = self.new_scope(EnvRef::Scope(outer));
        let mut params = Vec::new();
        for &(param, _) in &bindings {
            params.push(self.parameter(scope, param)?);
        }
        let body = self.body(&parts[3..], EnvRef::Scope(scope), id)?;
        let at = self.forms.at(id);
        let lambda = Lambda { params, rest: None, body, name: self.compiler.symbol_of(name), at };
        Ok(self
            .fix_or_box(var, lambda, |var| Expr::Call(Box::new(Expr::Local(var, at)), values, at)))
    }

    /// One procedure that sees itself; an assigned one needs a cell.
    fn fix_or_box(&mut self, var: VarId, lambda: Lambda, body: impl FnOnce(VarId) -> Expr) -> Expr {
        if self.vars[var as usize].boxed {
            let set = Expr::SetLocal(var, Box::new(Expr::Lambda(Box::new(lambda))));
            let body = Expr::Seq(vec![set, body(var)]);
            return Expr::Let(vec![(var, Expr::Immediate(Immediate::Unbound))], Box::new(body));
        }
        Expr::Fix(vec![(var, lambda)], Box::new(body(var)))
    }

    pub(super) fn do_loop(&mut self, id: Id, env: EnvRef) -> Result<Expr> {
        let parts = self.parts(
            id,
            3,
            usize::MAX,
            "(do ((variable init step) ...) (test result ...) command ...)",
        )?;
        let at = self.forms.at(id);
        let Some(specs) = self.forms.list(parts[1]) else {
            return self.error(parts[1], "do: a list of (variable init step) is expected");
        };
        let mut inits = Vec::new();
        let mut steps = Vec::new();
        for spec in specs {
            match self.forms.list(spec).as_deref() {
                Some(&[name, init]) => {
                    inits.push((name, self.expr(init, env)?));
                    steps.push(None);
                }
                Some(&[name, init, step]) => {
                    inits.push((name, self.expr(init, env)?));
                    steps.push(Some(step));
                }
                _ => return self.error(spec, "do: (variable init step) is expected"),
            }
        }
        let scope = self.new_scope(env);
        let mut params = Vec::new();
        let mut values = Vec::new();
        for (name, init) in inits {
            params.push(self.parameter(scope, name)?);
            values.push(init);
        }
        let inner = EnvRef::Scope(scope);
        let test = self.parts(parts[2], 1, usize::MAX, "(test result ...)")?;
        let condition = self.expr(test[0], inner)?;
        let result = seq(self.exprs(&test[1..], inner)?);
        let mut commands = self.exprs(&parts[3..], inner)?;
        let mut next = Vec::new();
        for (step, &param) in steps.into_iter().zip(&params) {
            next.push(match step {
                Some(step) => self.expr(step, inner)?,
                None => Expr::Local(param, at),
            });
        }
        let var = self.new_var(Ident::symbol(Symbol::intern("do")));
        commands.push(Expr::Call(Box::new(Expr::Local(var, at)), next, at));
        let body = choice(condition, result, seq(commands));
        let lambda = Lambda { params, rest: None, body, name: Symbol::intern("do"), at };
        let start = Expr::Call(Box::new(Expr::Local(var, at)), values, at);
        Ok(Expr::Fix(vec![(var, lambda)], Box::new(start)))
    }

    pub(super) fn let_values(&mut self, parts: &[Id], env: EnvRef, id: Id) -> Result<Expr> {
        let at = self.forms.at(id);
        let Some(bindings) = self.forms.list(parts[1]) else {
            return self.error(parts[1], "let-values: a list of bindings is expected");
        };
        let scope = self.new_scope(env);
        let mut made = Vec::new();
        for binding in bindings {
            let pair = self.parts(binding, 2, 2, "(formals expression)")?;
            let value = self.expr(pair[1], env)?;
            let mut params = Vec::new();
            let mut rest = None;
            let mut formals = pair[0];
            loop {
                match self.forms.node(formals) {
                    Node::Pair(param, next) => {
                        let (param, next) = (*param, *next);
                        params.push(self.parameter(scope, param)?);
                        formals = next;
                    }
                    Node::Nil => break,
                    _ => {
                        rest = Some(self.parameter(scope, formals)?);
                        break;
                    }
                }
            }
            made.push((params, rest, value));
        }
        let mut body = self.body(&parts[2..], EnvRef::Scope(scope), id)?;
        for (params, rest, value) in made.into_iter().rev() {
            body = self.receive(params, rest, value, body, at);
        }
        Ok(body)
    }

    /// Binds the values of an expression.
    pub(crate) fn receive(
        &mut self,
        params: Vec<VarId>,
        rest: Option<VarId>,
        value: Expr,
        body: Expr,
        at: Location,
    ) -> Expr {
        let name = Symbol::intern("let-values");
        let consumer = Expr::Lambda(Box::new(Lambda { params, rest, body, name, at }));
        self.builtin("%apply-values", vec![consumer, value], at)
    }
}
