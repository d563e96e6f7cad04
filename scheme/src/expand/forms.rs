//! The special forms as expressions.

use super::{Denotation, EnvRef, Expr, Immediate, Lambda, Result, Special, Unit, VarId};
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
        if let Expr::Immediate(Immediate::Primitive(builtin)) = head {
            let takes = &self.compiler.builtins[builtin as usize];
            if takes.takes(args.len()) {
                return Ok(Expr::Builtin(builtin, args, at));
            }
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
                        if self.compiler.globals[global as usize].builtin.is_some() {
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

    /// `(or test result)`.
    fn or(&mut self, test: Expr, result: Expr) -> Expr {
        if let Expr::Builtin(number, ..) = &test
            && self.compiler.builtins[*number as usize].is_predicate()
        {
            // Its value is a boolean: no variable is needed.
            return choice(test, Expr::Immediate(Immediate::True), result);
        }
        let var = self.new_var(Ident::symbol(Symbol::intern("or")));
        let reference = || Expr::Local(var, Location::default());
        Expr::Let(vec![(var, test)], Box::new(choice(reference(), reference(), result)))
    }

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

    fn parameter(&mut self, scope: u32, id: Id) -> Result<VarId> {
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

    fn make_let(
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

    fn named_let(&mut self, name: Ident, parts: &[Id], env: EnvRef, id: Id) -> Result<Expr> {
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

    fn do_loop(&mut self, id: Id, env: EnvRef) -> Result<Expr> {
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

    fn cond(&mut self, id: Id, env: EnvRef) -> Result<Expr> {
        let parts = self.parts(id, 2, usize::MAX, "(cond (test expression ...) ...)")?;
        let mut clauses = Vec::new();
        for (index, &clause) in parts[1..].iter().enumerate() {
            let items = self.parts(clause, 1, usize::MAX, "(test expression ...)")?;
            if self.special(items[0], env) == Some(Special::Else) {
                if index + 2 != parts.len() {
                    return self.error(clause, "cond: else must be the last clause");
                }
                if items.len() < 2 {
                    return self.error(clause, "cond: an expression must follow else");
                }
                clauses.push((None, self.exprs(&items[1..], env)?, false));
            } else if items.len() == 3 && self.special(items[1], env) == Some(Special::Arrow) {
                let test = self.expr(items[0], env)?;
                let receiver = self.expr(items[2], env)?;
                clauses.push((Some(test), vec![receiver], true));
            } else {
                let test = self.expr(items[0], env)?;
                clauses.push((Some(test), self.exprs(&items[1..], env)?, false));
            }
        }
        let at = self.forms.at(id);
        let mut result = UNSPECIFIED;
        for (test, mut body, arrow) in clauses.into_iter().rev() {
            result = match test {
                None => seq(body),
                Some(test) if arrow => {
                    let var = self.new_var(Ident::symbol(Symbol::intern("it")));
                    let call = Expr::Call(
                        Box::new(body.pop().expect("the receiver")),
                        vec![Expr::Local(var, at)],
                        at,
                    );
                    let inner = choice(Expr::Local(var, at), call, result);
                    Expr::Let(vec![(var, test)], Box::new(inner))
                }
                Some(test) if body.is_empty() => self.or(test, result),
                Some(test) => choice(test, seq(body), result),
            };
        }
        Ok(result)
    }

    fn case(&mut self, id: Id, env: EnvRef) -> Result<Expr> {
        let parts = self.parts(id, 3, usize::MAX, "(case key ((datum ...) expression ...) ...)")?;
        let at = self.forms.at(id);
        let key = self.expr(parts[1], env)?;
        let var = self.new_var(Ident::symbol(Symbol::intern("key")));
        let mut clauses = Vec::new();
        for (index, &clause) in parts[2..].iter().enumerate() {
            let items = self.parts(clause, 2, usize::MAX, "((datum ...) expression ...)")?;
            let data = if self.special(items[0], env) == Some(Special::Else) {
                if index + 3 != parts.len() {
                    return self.error(clause, "case: else must be the last clause");
                }
                None
            } else {
                match self.forms.list(items[0]) {
                    Some(data) => Some(data),
                    None => return self.error(items[0], "case: a list of data is expected"),
                }
            };
            let body = if items.len() == 3 && self.special(items[1], env) == Some(Special::Arrow) {
                let receiver = self.expr(items[2], env)?;
                Expr::Call(Box::new(receiver), vec![Expr::Local(var, at)], at)
            } else {
                seq(self.exprs(&items[1..], env)?)
            };
            clauses.push((data, body));
        }
        let mut result = UNSPECIFIED;
        for (data, body) in clauses.into_iter().rev() {
            let Some(data) = data else {
                result = body;
                continue;
            };
            let mut test: Option<Expr> = None;
            for datum in data.into_iter().rev() {
                let datum = self.quoted(datum);
                let same = if matches!(datum, Expr::Immediate(_)) { "eq?" } else { "eqv?" };
                let one = self.builtin(same, vec![Expr::Local(var, at), datum], at);
                test = Some(match test {
                    None => one,
                    Some(rest) => choice(one, Expr::Immediate(Immediate::True), rest),
                });
            }
            if let Some(test) = test {
                result = choice(test, body, result);
            }
        }
        Ok(Expr::Let(vec![(var, key)], Box::new(result)))
    }

    fn let_values(&mut self, parts: &[Id], env: EnvRef, id: Id) -> Result<Expr> {
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

    /// A quasiquotation of nesting `level`.
    fn quasi(&mut self, id: Id, level: usize, env: EnvRef) -> Result<Expr> {
        if self.depth > Self::DEEPEST {
            return self.error(id, "this expression is nested too deeply");
        }
        self.depth += 1;
        let result = crate::deep(|| self.quasi_inner(id, level, env));
        self.depth -= 1;
        result
    }

    fn quasi_inner(&mut self, id: Id, level: usize, env: EnvRef) -> Result<Expr> {
        let at = self.forms.at(id);
        match self.forms.node(id).clone() {
            Node::Pair(..) => {
                // The spine is walked in a loop; it ends at (... . ,x), which reads (... unquote x).
                let mut items = Vec::new();
                let mut rest = id;
                let mut tail = None;
                while let Some((item, next)) = self.forms.pair(rest) {
                    if let Some(special) = self.special(item, env)
                        && matches!(
                            special,
                            Special::Unquote | Special::Quasiquote | Special::UnquoteSplicing
                        )
                        && let Some((argument, end)) = self.forms.pair(next)
                        && self.forms.is_nil(end)
                        && (special != Special::UnquoteSplicing || items.is_empty())
                    {
                        let inner = match special {
                            Special::Unquote if level == 1 => self.expr(argument, env)?,
                            Special::UnquoteSplicing if level == 1 => {
                                return self.error(
                                    item,
                                    "unquote-splicing must stand inside a list or vector",
                                );
                            }
                            _ => {
                                let level = if special == Special::Quasiquote {
                                    level + 1
                                } else {
                                    level - 1
                                };
                                let word = self.quoted(item);
                                let inner = self.quasi(argument, level, env)?;
                                self.builtin("list", vec![word, inner], at)
                            }
                        };
                        tail = Some(inner);
                        break;
                    }
                    items.push(item);
                    rest = next;
                    if items.len() > self.forms.len() {
                        return self.error(id, "a quasiquotation cannot be circular");
                    }
                }
                let mut result = match tail {
                    Some(tail) => tail,
                    None => self.quasi(rest, level, env)?,
                };
                for item in items.into_iter().rev() {
                    if let Some((head, more)) = self.forms.pair(item)
                        && self.special(head, env) == Some(Special::UnquoteSplicing)
                        && let Some((argument, end)) = self.forms.pair(more)
                        && self.forms.is_nil(end)
                    {
                        if level == 1 {
                            let spliced = self.expr(argument, env)?;
                            result = if matches!(result, Expr::Immediate(Immediate::Nil)) {
                                spliced
                            } else {
                                self.prelude("append", vec![spliced, result], at)
                            };
                        } else {
                            let word = self.quoted(head);
                            let inner = self.quasi(argument, level - 1, env)?;
                            let item = self.builtin("list", vec![word, inner], at);
                            result = self.builtin("cons", vec![item, result], at);
                        }
                        continue;
                    }
                    let item = self.quasi(item, level, env)?;
                    result = self.builtin("cons", vec![item, result], at);
                }
                Ok(result)
            }
            Node::Vector(items) => {
                let list = self.forms.make_list(&items, None, at);
                let list = self.quasi(list, level, env)?;
                if matches!(list, Expr::Quote(_)) || matches!(list, Expr::Immediate(Immediate::Nil))
                {
                    return Ok(self.quoted(id));
                }
                Ok(self.prelude("list->vector", vec![list], at))
            }
            _ => Ok(self.quoted(id)),
        }
    }

    /// Whether nothing in a template is unquoted.
    fn is_constant_template(&self, id: Id, env: EnvRef) -> bool {
        let mut todo = vec![id];
        let mut seen = std::collections::HashSet::new();
        while let Some(id) = todo.pop() {
            match self.forms.node(id) {
                Node::Pair(car, cdr) if seen.insert(id) => todo.extend([*car, *cdr]),
                Node::Vector(items) => todo.extend(items.iter().copied()),
                Node::Ident(_) => {
                    if matches!(
                        self.special(id, env),
                        Some(Special::Unquote | Special::UnquoteSplicing | Special::Quasiquote)
                    ) {
                        return false;
                    }
                }
                _ => {}
            }
        }
        true
    }
}
