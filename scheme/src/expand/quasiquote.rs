//! `quasiquote`: a template as calls of `cons`, `append` and `list->vector`.
//!
//! Parts in which nothing is unquoted at the innermost level are constants or are built of constants; a nested
//! quasiquotation raises the level, `unquote` and `unquote-splicing` lower it, and what stands at level 0 is an
//! expression. The spine of a list is walked in a loop, so that only nesting costs stack, and nesting is counted as
//! that of expressions is.
//!
//! Invariant: a template may be a circular list as long as nothing in it is unquoted; one that is walked is refused
//! when its spine is longer than the unit has nodes.
//!
//! Called by the special forms ([`super::forms`]).

use super::{EnvRef, Expr, Immediate, Result, Special, Unit};
use crate::syntax::{Id, Node};

impl Unit<'_> {
    /// A quasiquotation of nesting `level`.
    pub(super) fn quasi(&mut self, id: Id, level: usize, env: EnvRef) -> Result<Expr> {
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
    pub(super) fn is_constant_template(&self, id: Id, env: EnvRef) -> bool {
        let mut todo = vec![id];
        let mut seen = std::collections::HashSet::new();
        while let Some(id) = todo.pop() {
            match self.forms.node(id) {
                Node::Pair(car, cdr) if seen.insert(id) => todo.extend([*car, *cdr]),
                Node::Vector(items) if seen.insert(id) => todo.extend(items.iter().copied()),
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
