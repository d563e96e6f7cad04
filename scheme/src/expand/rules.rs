//! `syntax-rules`: matching and transcription.

use super::{EnvRef, Result, Special, Unit};
use crate::syntax::{Forms, Id, Ident, Location, Node};
use std::collections::HashMap;

/// A macro: rules in an arena of its own.
pub struct Macro {
    forms: Forms,
    literals: Vec<Ident>,
    ellipsis: Option<Ident>,
    /// Whether `...` of R7RS is the ellipsis: then it is compared as a literal is.
    rules: Vec<(Id, Id)>,
    env: EnvRef,
}

/// What a pattern variable matched.
#[derive(Clone, Debug)]
enum Match {
    One(Id),
    Many(Vec<HashMap<Ident, Match>>),
}

type Matches = HashMap<Ident, Match>;

impl Unit<'_> {
    /// Makes a macro of a transformer expression: `(syntax-rules ...)`, or the name of another macro.
    pub(crate) fn transformer(&mut self, id: Id, env: EnvRef) -> Result<super::Denotation> {
        let mut id = id;
        let mut rounds = 0;
        loop {
            if let Some(ident) = self.forms.ident(id) {
                return match self.resolve(ident, env) {
                    Ok(
                        denotation @ (super::Denotation::Macro(_) | super::Denotation::Special(_)),
                    ) => Ok(denotation),
                    _ => self.error(id, "this is no macro: (syntax-rules ...) is expected"),
                };
            }
            let head = self.forms.pair(id).map(|(head, _)| head);
            match head.and_then(|head| self.special(head, env)) {
                Some(Special::SyntaxRules) => return self.syntax_rules(id, env),
                _ => match self.expand_macro_once(id, env)? {
                    Some(next) if rounds < 1000 => id = next,
                    _ => return self.error(id, "(syntax-rules ...) is expected"),
                },
            }
            rounds += 1;
        }
    }

    fn syntax_rules(&mut self, id: Id, env: EnvRef) -> Result<super::Denotation> {
        let Some(parts) = self.forms.list(id).filter(|parts| parts.len() >= 2) else {
            return self
                .error(id, "syntax-rules: (syntax-rules (literal ...) (pattern template) ...)");
        };
        let (custom, rest) = match self.forms.ident(parts[1]) {
            Some(ident) => (Some(ident), &parts[2..]),
            None => (None, &parts[1..]),
        };
        let Some((&literals, rules)) = rest.split_first() else {
            return self.error(id, "syntax-rules: a list of literals is missing");
        };
        let literal_ids = self.forms.list(literals);
        let literals: Option<Vec<Ident>> = literal_ids
            .and_then(|list| list.into_iter().map(|item| self.forms.ident(item)).collect());
        let Some(literals) = literals else {
            return self.error(id, "syntax-rules: the literals are a list of identifiers");
        };
        let mut made =
            Macro { forms: Forms::new(), literals, ellipsis: custom, rules: Vec::new(), env };
        for &rule in rules {
            let Some([pattern, template]) =
                self.forms.list(rule).as_deref().and_then(|l| <[Id; 2]>::try_from(l).ok())
            else {
                return self.error(rule, "syntax-rules: a rule is (pattern template)");
            };
            if self.forms.pair(pattern).is_none() {
                return self.error(
                    pattern,
                    "syntax-rules: a pattern is a list that begins with the keyword",
                );
            }
            let mut vars = HashMap::new();
            let (_, tail) = self.forms.pair(pattern).expect("tested above");
            self.check_pattern(tail, 0, &made, env, &mut vars, 0)?;
            self.check_template(template, 0, &made, env, &vars, 0)?;
            let mut copier = Copier::default();
            let pattern = copier.copy(&self.forms, pattern, &mut made.forms);
            let template = copier.copy(&self.forms, template, &mut made.forms);
            made.rules.push((pattern, template));
        }
        if matches!(env, EnvRef::Top(_)) {
            self.keep_aliases();
        }
        Ok(super::Denotation::Macro(std::sync::Arc::new(made)))
    }

    fn is_ellipsis_ident(&self, ident: Ident, made: &Macro, env: EnvRef) -> bool {
        match made.ellipsis {
            Some(custom) => ident == custom && !made.literals.contains(&ident),
            None => {
                !made.literals.contains(&ident)
                    && matches!(
                        self.resolve(ident, env),
                        Ok(super::Denotation::Special(Special::Ellipsis))
                    )
            }
        }
    }

    fn check_pattern(
        &self,
        mut id: Id,
        depth: usize,
        made: &Macro,
        env: EnvRef,
        vars: &mut HashMap<Ident, usize>,
        nesting: usize,
    ) -> Result<()> {
        if nesting > Self::DEEPEST {
            return self.error(id, "this pattern is nested too deeply");
        }
        let mut ellipses = 0;
        loop {
            match self.forms.node(id) {
                Node::Ident(ident) => {
                    let ident = *ident;
                    if made.literals.contains(&ident)
                        || matches!(
                            self.resolve(ident, env),
                            Ok(super::Denotation::Special(Special::Underscore))
                        )
                    {
                        return Ok(());
                    }
                    if self.is_ellipsis_ident(ident, made, env) {
                        return self.error(id, "syntax-rules: an ellipsis must follow a pattern");
                    }
                    if vars.insert(ident, depth).is_some() {
                        return self.error(
                            id,
                            format!("syntax-rules: {} occurs twice in the pattern", self.show(id)),
                        );
                    }
                    return Ok(());
                }
                Node::Pair(car, cdr) => {
                    let (car, cdr) = (*car, *cdr);
                    let repeated = self.forms.pair(cdr).is_some_and(|(next, _)| {
                        self.forms.ident(next).is_some_and(|i| self.is_ellipsis_ident(i, made, env))
                    });
                    self.check_pattern(
                        car,
                        depth + usize::from(repeated),
                        made,
                        env,
                        vars,
                        nesting + 1,
                    )?;
                    if repeated {
                        ellipses += 1;
                        if ellipses > 1 {
                            return self.error(
                                id,
                                "syntax-rules: one ellipsis at most in a list of patterns",
                            );
                        }
                        id = self.forms.pair(cdr).expect("has an ellipsis").1;
                    } else {
                        id = cdr;
                    }
                }
                Node::Vector(items) => {
                    let items = items.clone();
                    let mut index = 0;
                    while index < items.len() {
                        let repeated = items.get(index + 1).is_some_and(|&next| {
                            self.forms
                                .ident(next)
                                .is_some_and(|i| self.is_ellipsis_ident(i, made, env))
                        });
                        self.check_pattern(
                            items[index],
                            depth + usize::from(repeated),
                            made,
                            env,
                            vars,
                            nesting + 1,
                        )?;
                        index += 1 + usize::from(repeated);
                    }
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    fn check_template(
        &self,
        mut id: Id,
        mut depth: usize,
        made: &Macro,
        env: EnvRef,
        vars: &HashMap<Ident, usize>,
        nesting: usize,
    ) -> Result<()> {
        if nesting > Self::DEEPEST {
            return self.error(id, "this template is nested too deeply");
        }
        loop {
            match self.forms.node(id) {
                Node::Ident(ident) => {
                    if vars.get(ident).is_some_and(|&needs| needs > depth) {
                        return self.error(
                            id,
                            format!("syntax-rules: {} needs more ellipses", self.show(id)),
                        );
                    }
                    return Ok(());
                }
                Node::Pair(car, cdr) => {
                    let (car, mut cdr) = (*car, *cdr);
                    let is_dots = |id: Id| {
                        self.forms.ident(id).is_some_and(|i| self.is_ellipsis_ident(i, made, env))
                    };
                    if is_dots(car) {
                        // (... template): no ellipsis inside means anything; depths were left as they are.
                        return Ok(());
                    }
                    let before = depth;
                    while let Some((next, rest)) = self.forms.pair(cdr) {
                        if !is_dots(next) {
                            break;
                        }
                        depth += 1;
                        cdr = rest;
                    }
                    self.check_template(car, depth, made, env, vars, nesting + 1)?;
                    depth = before;
                    id = cdr;
                }
                Node::Vector(items) => {
                    for (index, &item) in items.iter().enumerate() {
                        let dots = items[index + 1..]
                            .iter()
                            .take_while(|&&next| {
                                self.forms
                                    .ident(next)
                                    .is_some_and(|i| self.is_ellipsis_ident(i, made, env))
                            })
                            .count();
                        if !self
                            .forms
                            .ident(item)
                            .is_some_and(|i| self.is_ellipsis_ident(i, made, env))
                        {
                            self.check_template(item, depth + dots, made, env, vars, nesting + 1)?;
                        }
                    }
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Expands a macro use: the form that matches.
    pub(crate) fn transcribe(&mut self, made: &Macro, id: Id, env: EnvRef) -> Result<Id> {
        let at = self.forms.at(id);
        for &(pattern, template) in &made.rules {
            let mut matches = Matches::new();
            // The keyword itself is not matched.
            let (_, pattern) = made.forms.pair(pattern).expect("checked when defined");
            let (_, input) = self.forms.pair(id).expect("a macro use is a list");
            if self.matches(made, pattern, input, env, &mut matches, 0) {
                let mut names = HashMap::new();
                return self.instantiate(made, template, &matches, &mut names, at, false);
            }
        }
        let what = self.show(id);
        self.error(id, format!("no rule of the macro matches {what}"))
    }

    fn macro_ellipsis(&self, made: &Macro, id: Id) -> bool {
        made.forms.ident(id).is_some_and(|ident| self.is_ellipsis_ident(ident, made, made.env))
    }

    fn matches(
        &self,
        made: &Macro,
        mut pattern: Id,
        mut input: Id,
        env: EnvRef,
        found: &mut Matches,
        depth: usize,
    ) -> bool {
        if depth > Self::DEEPEST {
            return false;
        }
        loop {
            match made.forms.node(pattern) {
                Node::Ident(ident) => {
                    let ident = *ident;
                    if made.literals.contains(&ident) {
                        return self
                            .forms
                            .ident(input)
                            .is_some_and(|other| self.same(ident, made.env, other, env));
                    }
                    if !matches!(
                        self.resolve(ident, made.env),
                        Ok(super::Denotation::Special(Special::Underscore))
                    ) {
                        found.insert(ident, Match::One(input));
                    }
                    return true;
                }
                Node::Pair(car, cdr) => {
                    let (car, cdr) = (*car, *cdr);
                    let dots =
                        made.forms.pair(cdr).filter(|&(next, _)| self.macro_ellipsis(made, next));
                    let Some((_, after)) = dots else {
                        let Some((first, rest)) = self.forms.pair(input) else { return false };
                        if !self.matches(made, car, first, env, found, depth + 1) {
                            return false;
                        }
                        (pattern, input) = (cdr, rest);
                        continue;
                    };
                    let mut least = 0;
                    let mut at = after;
                    while let Some((_, next)) = made.forms.pair(at) {
                        least += 1;
                        at = next;
                    }
                    let mut items = Vec::new();
                    let mut at = input;
                    while let Some((item, next)) = self.forms.pair(at) {
                        items.push(item);
                        at = next;
                        if items.len() > self.forms.len() {
                            return false;
                        }
                    }
                    if items.len() < least {
                        return false;
                    }
                    let repeated = items.len() - least;
                    let mut rows = Vec::with_capacity(repeated);
                    for &item in &items[..repeated] {
                        let mut row = Matches::new();
                        if !self.matches(made, car, item, env, &mut row, depth + 1) {
                            return false;
                        }
                        rows.push(row);
                    }
                    self.spread(made, car, rows, found);
                    for _ in 0..repeated {
                        input = self.forms.pair(input).expect("counted above").1;
                    }
                    pattern = after;
                }
                Node::Vector(items) => {
                    let Node::Vector(inputs) = self.forms.node(input) else { return false };
                    let dots = items.iter().position(|&item| self.macro_ellipsis(made, item));
                    let Some(dots) = dots else {
                        return items.len() == inputs.len()
                            && items.iter().zip(inputs.iter()).all(|(&pattern, &input)| {
                                self.matches(made, pattern, input, env, found, depth + 1)
                            });
                    };
                    let (before, after) = (&items[..dots - 1], &items[dots + 1..]);
                    if inputs.len() < before.len() + after.len() {
                        return false;
                    }
                    let repeated = inputs.len() - before.len() - after.len();
                    let (first, rest) = inputs.split_at(before.len());
                    let (middle, last) = rest.split_at(repeated);
                    for (patterns, inputs) in [(before, first), (after, last)] {
                        for (&pattern, &input) in patterns.iter().zip(inputs) {
                            if !self.matches(made, pattern, input, env, found, depth + 1) {
                                return false;
                            }
                        }
                    }
                    let mut rows = Vec::new();
                    for &input in middle {
                        let mut row = Matches::new();
                        if !self.matches(made, items[dots - 1], input, env, &mut row, depth + 1) {
                            return false;
                        }
                        rows.push(row);
                    }
                    self.spread(made, items[dots - 1], rows, found);
                    return true;
                }
                Node::Nil => return self.forms.is_nil(input),
                other => return same_datum(other, self.forms.node(input)),
            }
        }
    }

    /// Notes for each variable of a repeated pattern what it matched in each repetition.
    fn spread(&self, made: &Macro, pattern: Id, rows: Vec<Matches>, found: &mut Matches) {
        let mut vars = Vec::new();
        self.pattern_vars(made, pattern, &mut vars);
        for var in vars {
            let column = rows
                .iter()
                .map(|row| HashMap::from_iter(row.get(&var).map(|m| (var, m.clone()))))
                .collect();
            found.insert(var, Match::Many(column));
        }
    }

    fn pattern_vars(&self, made: &Macro, pattern: Id, vars: &mut Vec<Ident>) {
        let mut todo = vec![pattern];
        while let Some(id) = todo.pop() {
            match made.forms.node(id) {
                Node::Ident(ident)
                    if !made.literals.contains(ident) && !self.macro_ellipsis(made, id) =>
                {
                    vars.push(*ident);
                }
                Node::Pair(car, cdr) => todo.extend([*car, *cdr]),
                Node::Vector(items) => todo.extend(items.iter().copied()),
                _ => {}
            }
        }
    }

    /// A template with what was matched. `plain`: inside `(... template)`.
    fn instantiate(
        &mut self,
        made: &Macro,
        template: Id,
        matches: &Matches,
        names: &mut HashMap<Ident, Ident>,
        at: Location,
        plain: bool,
    ) -> Result<Id> {
        if self.forms.len() > self.most_nodes {
            return self.error_at(at, "the expansion of this macro does not end");
        }
        self.watch.look()?;
        match made.forms.node(template) {
            Node::Ident(ident) => {
                let ident = *ident;
                match matches.get(&ident) {
                    Some(Match::One(id)) => Ok(*id),
                    Some(Match::Many(_)) => self.error_at(
                        at,
                        "a macro's template uses a repeated variable without an ellipsis",
                    ),
                    None => {
                        let alias = match names.get(&ident) {
                            Some(&alias) => alias,
                            None => {
                                let alias = self.new_alias(ident, made.env);
                                names.insert(ident, alias);
                                alias
                            }
                        };
                        Ok(self.forms.add(Node::Ident(alias), at))
                    }
                }
            }
            Node::Pair(first, second) => {
                let (first, second) = (*first, *second);
                if !plain && self.macro_ellipsis(made, first) {
                    // (... template)
                    let Some((inner, _)) = made.forms.pair(second) else {
                        return self.error_at(
                            at,
                            "a macro's template has an ellipsis in front of nothing",
                        );
                    };
                    return self.instantiate(made, inner, matches, names, at, true);
                }
                let mut items: Vec<Id> = Vec::new();
                let mut rest = template;
                while let Some((item, mut next)) = made.forms.pair(rest) {
                    if !plain && self.macro_ellipsis(made, item) {
                        break; // (a . (... ...))
                    }
                    let mut dots = 0;
                    while let Some((dot, after)) = made.forms.pair(next) {
                        if plain || !self.macro_ellipsis(made, dot) {
                            break;
                        }
                        dots += 1;
                        next = after;
                    }
                    if dots == 0 {
                        let item = self.instantiate(made, item, matches, names, at, plain)?;
                        items.push(item);
                    } else {
                        self.repeat(made, item, matches, names, at, dots, &mut items)?;
                    }
                    rest = next;
                }
                let tail = match made.forms.node(rest) {
                    Node::Nil => None,
                    _ => Some(self.instantiate(made, rest, matches, names, at, plain)?),
                };
                Ok(self.forms.make_list(&items, tail, at))
            }
            Node::Vector(elements) => {
                let elements = elements.clone();
                let mut items = Vec::new();
                let mut index = 0;
                while index < elements.len() {
                    let mut dots = 0;
                    while !plain
                        && elements
                            .get(index + 1 + dots)
                            .is_some_and(|&e| self.macro_ellipsis(made, e))
                    {
                        dots += 1;
                    }
                    if dots == 0 {
                        let item =
                            self.instantiate(made, elements[index], matches, names, at, plain)?;
                        items.push(item);
                    } else {
                        self.repeat(made, elements[index], matches, names, at, dots, &mut items)?;
                    }
                    index += 1 + dots;
                }
                Ok(self.forms.add(Node::Vector(items.into()), at))
            }
            node => {
                let node = node.clone();
                Ok(self.forms.add(node, at))
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn repeat(
        &mut self,
        made: &Macro,
        template: Id,
        matches: &Matches,
        names: &mut HashMap<Ident, Ident>,
        at: Location,
        dots: usize,
        items: &mut Vec<Id>,
    ) -> Result<()> {
        let mut vars = Vec::new();
        self.template_vars(made, template, matches, &mut vars);
        let mut rounds = None;
        for var in &vars {
            if let Some(Match::Many(rows)) = matches.get(var) {
                let len: usize = rows.len();
                match rounds {
                    None => rounds = Some(len),
                    Some(known) if known != len => {
                        return self.error_at(at, "a macro's template repeats variables that matched different numbers of forms");
                    }
                    Some(_) => {}
                }
            }
        }
        let Some(rounds) = rounds else {
            return self.error_at(
                at,
                "a macro's template has an ellipsis behind something that is not repeated",
            );
        };
        for round in 0..rounds {
            let mut inner = Matches::new();
            for var in &vars {
                match matches.get(var) {
                    Some(Match::Many(rows)) => {
                        if let Some(row) = rows[round].get(var) {
                            inner.insert(*var, row.clone());
                        }
                    }
                    Some(one) => {
                        inner.insert(*var, one.clone());
                    }
                    None => {}
                }
            }
            if dots > 1 {
                self.repeat(made, template, &inner, names, at, dots - 1, items)?;
            } else {
                let item = self.instantiate(made, template, &inner, names, at, false)?;
                items.push(item);
            }
        }
        Ok(())
    }

    fn template_vars(&self, made: &Macro, template: Id, matches: &Matches, vars: &mut Vec<Ident>) {
        let mut todo = vec![template];
        while let Some(id) = todo.pop() {
            match made.forms.node(id) {
                Node::Ident(ident) if matches.contains_key(ident) && !vars.contains(ident) => {
                    vars.push(*ident);
                }
                Node::Pair(car, cdr) => todo.extend([*car, *cdr]),
                Node::Vector(items) => todo.extend(items.iter().copied()),
                _ => {}
            }
        }
    }

    /// Expands one macro use, if `id` is one.
    pub(crate) fn expand_macro_once(&mut self, id: Id, env: EnvRef) -> Result<Option<Id>> {
        let Some((head, _)) = self.forms.pair(id) else { return Ok(None) };
        let Some(ident) = self.forms.ident(head) else { return Ok(None) };
        match self.resolve(ident, env) {
            Ok(super::Denotation::Macro(made)) => self.transcribe(&made, id, env).map(Some),
            _ => Ok(None),
        }
    }
}

/// Whether two atoms are `equal?`.
fn same_datum(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Bool(a), Node::Bool(b)) => a == b,
        (Node::Char(a), Node::Char(b)) => a == b,
        (Node::Number(a), Node::Number(b)) => a == b,
        (Node::Text(a), Node::Text(b)) => a == b,
        (Node::Bytes(a), Node::Bytes(b)) => a == b,
        (Node::Nil, Node::Nil)
        | (Node::Eof, Node::Eof)
        | (Node::Unspecified, Node::Unspecified) => true,
        _ => false,
    }
}

/// Copies nodes between arenas, keeping what is shared.
#[derive(Default)]
struct Copier {
    done: HashMap<Id, Id>,
}

impl Copier {
    fn copy(&mut self, from: &Forms, id: Id, to: &mut Forms) -> Id {
        let mut order = vec![id];
        let mut todo = vec![id];
        while let Some(at) = todo.pop() {
            if self.done.contains_key(&at) {
                continue;
            }
            let copy = to.add(from.node(at).clone(), from.at(at));
            self.done.insert(at, copy);
            order.push(at);
            match from.node(at) {
                Node::Pair(car, cdr) => todo.extend([*car, *cdr]),
                Node::Vector(items) => todo.extend(items.iter().copied()),
                _ => {}
            }
        }
        for at in order {
            let copy = self.done[&at];
            match from.node(at) {
                Node::Pair(car, cdr) => {
                    to.replace(copy, Node::Pair(self.done[car], self.done[cdr]));
                }
                Node::Vector(items) => {
                    let items = items.iter().map(|item| self.done[item]).collect();
                    to.replace(copy, Node::Vector(items));
                }
                _ => {}
            }
        }
        self.done[&id]
    }
}
