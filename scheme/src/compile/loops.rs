//! Which local procedures are loops.
//!
//! A procedure of a `Fix` is a loop if it is only ever called, with the right number of arguments, from its own
//! frame, and always in the continuation of the `Fix` itself. Then its body can stand in that frame, and a call of
//! it is a jump. Whether one is depends on the others (a call from within another procedure is from its frame only
//! if that is a loop too), so all are taken for loops at first, and those that turn out not to be are put aside
//! until nothing changes.

use crate::expand::{Expr, Lambda, VarId};

/// The loops of a unit.
pub struct Loops {
    is_loop: Vec<bool>,
}

impl Loops {
    /// Whether the procedure that a variable holds is a loop.
    pub fn is_loop(&self, var: VarId) -> bool {
        self.is_loop[var as usize]
    }
}

/// Finds the loops of a unit of so many variables.
pub fn find(vars: usize, body: &Expr) -> Loops {
    let mut finder = Finder {
        refused: vec![false; vars],
        home: vec![None; vars],
        arity: vec![0; vars],
        next: 0,
        changed: false,
    };
    loop {
        finder.home.fill(None);
        finder.changed = false;
        let (k, frame) = (finder.fresh(), finder.fresh());
        finder.walk(body, k, frame);
        if !finder.changed {
            break;
        }
    }
    let is_loop = finder
        .home
        .iter()
        .zip(&finder.refused)
        .map(|(home, refused)| home.is_some() && !refused)
        .collect();
    Loops { is_loop }
}

struct Finder {
    refused: Vec<bool>,
    /// Continuation and frame of the `Fix` of a procedure that may be a loop.
    home: Vec<Option<(u32, u32)>>,
    arity: Vec<usize>,
    next: u32,
    changed: bool,
}

impl Finder {
    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn refuse(&mut self, var: VarId) {
        let index = var as usize;
        if self.home[index].is_some() && !self.refused[index] {
            self.refused[index] = true;
            self.changed = true;
        }
    }

    fn inner(&mut self, expr: &Expr, frame: u32) {
        let k = self.fresh();
        self.walk(expr, k, frame);
    }

    fn lambda(&mut self, lambda: &Lambda) {
        let (k, frame) = (self.fresh(), self.fresh());
        self.walk(&lambda.body, k, frame);
    }

    fn walk(&mut self, expr: &Expr, k: u32, frame: u32) {
        crate::deep(|| self.walk_inner(expr, k, frame));
    }

    fn walk_inner(&mut self, expr: &Expr, k: u32, frame: u32) {
        match expr {
            Expr::Quote(_) | Expr::Immediate(_) | Expr::Global(..) => {}
            Expr::Local(var, _) => self.refuse(*var),
            Expr::SetLocal(var, value) => {
                self.refuse(*var);
                self.inner(value, frame);
            }
            Expr::SetGlobal(_, value, _) | Expr::DefineGlobal(_, value) => self.inner(value, frame),
            Expr::If(parts) => {
                self.inner(&parts.0, frame);
                self.walk(&parts.1, k, frame);
                self.walk(&parts.2, k, frame);
            }
            Expr::Lambda(lambda) => self.lambda(lambda),
            Expr::CaseLambda(clauses, _) => clauses.iter().for_each(|clause| self.lambda(clause)),
            Expr::Seq(exprs) => {
                let (last, first) = exprs.split_last().expect("a sequence is not empty");
                first.iter().for_each(|expr| self.inner(expr, frame));
                self.walk(last, k, frame);
            }
            Expr::Let(bindings, body) => {
                bindings.iter().for_each(|(_, value)| self.inner(value, frame));
                self.walk(body, k, frame);
            }
            Expr::Fix(procedures, body) => {
                for (var, lambda) in procedures {
                    if lambda.rest.is_none() && !self.refused[*var as usize] {
                        self.home[*var as usize] = Some((k, frame));
                        self.arity[*var as usize] = lambda.params.len();
                    }
                }
                self.walk(body, k, frame);
                for (var, lambda) in procedures {
                    if self.home[*var as usize].is_some() && !self.refused[*var as usize] {
                        self.walk(&lambda.body, k, frame);
                    } else {
                        self.lambda(lambda);
                    }
                }
            }
            Expr::Call(head, args, _) => {
                match &**head {
                    Expr::Local(var, _) => {
                        let index = *var as usize;
                        if self.home[index] != Some((k, frame)) || self.arity[index] != args.len() {
                            self.refuse(*var);
                        }
                    }
                    head => self.inner(head, frame),
                }
                args.iter().for_each(|arg| self.inner(arg, frame));
            }
            Expr::Builtin(_, args, _) => args.iter().for_each(|arg| self.inner(arg, frame)),
        }
    }
}

/// Whether an expression mentions a variable.
pub fn mentions(expr: &Expr, var: VarId) -> bool {
    any_variable(expr, &mut |other| other == var)
}

/// Whether `test` holds for any variable that an expression mentions.
pub fn any_variable(expr: &Expr, test: &mut dyn FnMut(VarId) -> bool) -> bool {
    crate::deep(|| any_variable_inner(expr, test))
}

fn any_variable_inner(expr: &Expr, test: &mut dyn FnMut(VarId) -> bool) -> bool {
    match expr {
        Expr::Quote(_) | Expr::Immediate(_) | Expr::Global(..) => false,
        Expr::Local(var, _) => test(*var),
        Expr::SetLocal(var, value) => test(*var) || any_variable(value, test),
        Expr::SetGlobal(_, value, _) | Expr::DefineGlobal(_, value) => any_variable(value, test),
        Expr::If(parts) => {
            any_variable(&parts.0, test)
                || any_variable(&parts.1, test)
                || any_variable(&parts.2, test)
        }
        Expr::Lambda(lambda) => any_variable(&lambda.body, test),
        Expr::CaseLambda(clauses, _) => {
            clauses.iter().any(|clause| any_variable(&clause.body, test))
        }
        Expr::Seq(exprs) => exprs.iter().any(|expr| any_variable(expr, test)),
        Expr::Let(bindings, body) => {
            bindings.iter().any(|(_, value)| any_variable(value, test)) || any_variable(body, test)
        }
        Expr::Fix(procedures, body) => {
            procedures.iter().any(|(_, lambda)| any_variable(&lambda.body, test))
                || any_variable(body, test)
        }
        Expr::Call(head, args, _) => {
            any_variable(head, test) || args.iter().any(|arg| any_variable(arg, test))
        }
        Expr::Builtin(_, args, _) => args.iter().any(|arg| any_variable(arg, test)),
    }
}
