//! Conditionals: `cond`, `case`, `or`.
//!
//! All become [`Expr::If`]. Clauses are expanded from the first to the last and put together from the last to the
//! first. Where the value of a test is also a result (`or`, `=>`, a clause of a test alone) it is bound to a variable
//! that no program can name, unless the test is a builtin that answers only `#t` or `#f`.
//!
//! Invariant: every subform is expanded exactly once, since expansion binds and mentions variables.
//!
//! Called by the special forms ([`super::forms`]).

use super::forms::{UNSPECIFIED, choice, seq};
use super::{EnvRef, Expr, Immediate, Result, Special, Unit};
use crate::symbol::Symbol;
use crate::syntax::{Id, Ident, Location};

impl Unit<'_> {
    /// `(or test result)`.
    pub(super) fn or(&mut self, test: Expr, result: Expr) -> Expr {
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

    pub(super) fn cond(&mut self, id: Id, env: EnvRef) -> Result<Expr> {
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

    pub(super) fn case(&mut self, id: Id, env: EnvRef) -> Result<Expr> {
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
}
