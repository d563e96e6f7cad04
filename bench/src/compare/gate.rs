//! Gates: conditions on metrics that decide the exit code, as `lock.write.wait.p99 < 1.1*base`.
//!
//! ```text
//! gate    = sum ( "<" | "<=" | ">" | ">=" | "==" | "!=" ) sum
//! sum     = product { ( "+" | "-" ) product }
//! product = value { ( "*" | "/" ) value }
//! value   = number [unit] | "base" | "base." metric | metric | "-" value | "(" sum ")"
//! unit    = ns | us | ms | s | KiB | MiB | GiB | %
//! ```
//!
//! A metric stands for its median over the runs *after*; `base.METRIC` for its median *before*; and
//! `base` alone for the one metric that the gate names, before. Times are nanoseconds, sizes bytes.
//! A gate on a metric that was not measured does not hold: what was not seen is no evidence.

use std::fmt;

/// A parsed gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    text: String,
    left: Expr,
    op: Op,
    right: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Expr {
    Number(f64),
    /// The metric after.
    Metric(String),
    /// The metric before.
    Base(String),
    /// `base` alone; resolved to [`Expr::Base`] when the gate is parsed.
    Same,
    Negative(Box<Expr>),
    Binary(char, Box<Expr>, Box<Expr>),
}

/// Why a text is no gate, with the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateError(String);

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GateError {}

/// Which side of a comparison a gate asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The runs before: `base`.
    Before,
    /// The runs after.
    After,
}

/// What a gate came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Both sides have values, and this is what the comparison says.
    Judged {
        /// Whether the gate holds.
        holds: bool,
        /// The value left of the comparison.
        left: f64,
        /// The value right of it.
        right: f64,
    },
    /// A metric has no value, so the gate does not hold.
    NotMeasured {
        /// Which one.
        metric: String,
        /// On which side.
        side: Side,
    },
}

impl Verdict {
    /// Whether the gate was shown to hold.
    pub fn holds(&self) -> bool {
        matches!(self, Verdict::Judged { holds: true, .. })
    }
}

impl Gate {
    /// Parses.
    ///
    /// # Errors
    /// What was expected where.
    pub fn parse(text: &str) -> Result<Gate, GateError> {
        let mut parser = Parser { text, at: 0 };
        let left = parser.sum()?;
        let op = parser.comparison()?;
        let right = parser.sum()?;
        parser.end()?;
        let mut gate = Gate { text: text.trim().to_owned(), left, op, right };
        let mut after = Vec::new();
        gate.left.named(&mut after);
        gate.right.named(&mut after);
        after.sort_unstable();
        after.dedup();
        let only = match &after[..] {
            [] => {
                return Err(error(
                    text,
                    "it names no metric (`firn compare --metrics` lists them)",
                ));
            }
            [one] => Some(one.clone()),
            _ => None,
        };
        for side in [&mut gate.left, &mut gate.right] {
            side.resolve(only.as_deref()).map_err(|()| {
                error(
                    text,
                    "`base` alone needs exactly one metric in the gate; write `base.METRIC`",
                )
            })?;
        }
        Ok(gate)
    }

    /// The metrics that it names, each once.
    pub fn metrics(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.left.named(&mut names);
        self.right.named(&mut names);
        self.left.based(&mut names);
        self.right.based(&mut names);
        names.sort_unstable();
        names.dedup();
        names
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Judges, with the medians that `value` knows.
    pub fn judge(&self, value: impl Fn(Side, &str) -> Option<f64>) -> Verdict {
        let missing = |(side, metric)| Verdict::NotMeasured { metric, side };
        let left = match self.left.value(&value) {
            Ok(x) => x,
            Err(m) => return missing(m),
        };
        let right = match self.right.value(&value) {
            Ok(x) => x,
            Err(m) => return missing(m),
        };
        let holds = match self.op {
            Op::Less => left < right,
            Op::LessOrEqual => left <= right,
            Op::Greater => left > right,
            Op::GreaterOrEqual => left >= right,
            Op::Equal => left == right,
            Op::NotEqual => left != right && !left.is_nan() && !right.is_nan(),
        };
        Verdict::Judged { holds, left, right }
    }
}

impl Expr {
    fn named(&self, names: &mut Vec<String>) {
        match self {
            Expr::Metric(name) => names.push(name.clone()),
            Expr::Negative(inner) => inner.named(names),
            Expr::Binary(_, a, b) => {
                a.named(names);
                b.named(names);
            }
            Expr::Number(_) | Expr::Base(_) | Expr::Same => {}
        }
    }

    fn based(&self, names: &mut Vec<String>) {
        match self {
            Expr::Base(name) => names.push(name.clone()),
            Expr::Negative(inner) => inner.based(names),
            Expr::Binary(_, a, b) => {
                a.based(names);
                b.based(names);
            }
            Expr::Number(_) | Expr::Metric(_) | Expr::Same => {}
        }
    }

    fn resolve(&mut self, only: Option<&str>) -> Result<(), ()> {
        match self {
            Expr::Same => *self = Expr::Base(only.ok_or(())?.to_owned()),
            Expr::Negative(inner) => inner.resolve(only)?,
            Expr::Binary(_, a, b) => {
                a.resolve(only)?;
                b.resolve(only)?;
            }
            Expr::Number(_) | Expr::Metric(_) | Expr::Base(_) => {}
        }
        Ok(())
    }

    fn value(&self, of: &impl Fn(Side, &str) -> Option<f64>) -> Result<f64, (Side, String)> {
        let get = |side, name: &String| of(side, name).ok_or_else(|| (side, name.clone()));
        Ok(match self {
            Expr::Number(x) => *x,
            Expr::Metric(name) => get(Side::After, name)?,
            Expr::Base(name) => get(Side::Before, name)?,
            Expr::Same => f64::NAN,
            Expr::Negative(inner) => -inner.value(of)?,
            Expr::Binary(op, a, b) => {
                let (a, b) = (a.value(of)?, b.value(of)?);
                match op {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    _ => a / b,
                }
            }
        })
    }
}

fn error(text: &str, what: &str) -> GateError {
    GateError(format!("--gate '{}': {what}", text.trim()))
}

/// Units of numbers, and what they multiply by.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("%", 0.01),
];

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&mut self) -> &str {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        &self.text[self.at..]
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expected(&mut self, what: &str) -> GateError {
        let found = match self.rest().split_whitespace().next() {
            Some(word) => format!("`{word}`"),
            None => "the end".to_owned(),
        };
        error(self.text, &format!("expected {what}, found {found} at column {}", self.at + 1))
    }

    fn end(&mut self) -> Result<(), GateError> {
        match self.rest().is_empty() {
            true => Ok(()),
            false => {
                Err(self.expected("the end (give --gate several times for several conditions)"))
            }
        }
    }

    fn comparison(&mut self) -> Result<Op, GateError> {
        // The longer ones first.
        for (token, op) in [
            ("<=", Op::LessOrEqual),
            (">=", Op::GreaterOrEqual),
            ("==", Op::Equal),
            ("!=", Op::NotEqual),
            ("<", Op::Less),
            (">", Op::Greater),
        ] {
            if self.take(token) {
                return Ok(op);
            }
        }
        Err(self.expected("a comparison (< <= > >= == !=)"))
    }

    fn sum(&mut self) -> Result<Expr, GateError> {
        let mut left = self.product()?;
        loop {
            let op = match () {
                () if self.take("+") => '+',
                () if self.take("-") => '-',
                () => return Ok(left),
            };
            left = Expr::Binary(op, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Expr, GateError> {
        let mut left = self.value()?;
        loop {
            let op = match () {
                () if self.take("*") => '*',
                () if self.take("/") => '/',
                () => return Ok(left),
            };
            left = Expr::Binary(op, Box::new(left), Box::new(self.value()?));
        }
    }

    fn value(&mut self) -> Result<Expr, GateError> {
        if self.take("(") {
            let inner = self.sum()?;
            return match self.take(")") {
                true => Ok(inner),
                false => Err(self.expected("`)`")),
            };
        }
        if self.take("-") {
            return Ok(Expr::Negative(Box::new(self.value()?)));
        }
        match self.rest().chars().next() {
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_ascii_alphabetic() => Ok(self.name()),
            _ => Err(self.expected("a metric, a number or `base`")),
        }
    }

    fn number(&mut self) -> Result<Expr, GateError> {
        let rest = self.rest();
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let mut len = digits(rest);
        if rest[len..].starts_with('.') {
            len += 1 + digits(&rest[len + 1..]);
        }
        // An exponent only if digits follow it: `2e6`, but not the beginning of a name.
        if let Some(exponent) = rest[len..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let n = digits(&exponent[sign..]);
            if n > 0 {
                len += 1 + sign + n;
            }
        }
        let Ok(number) = rest[..len].parse::<f64>() else {
            return Err(self.expected("a number"));
        };
        self.at += len;
        let rest = self.rest();
        let word = rest.bytes().take_while(|b| b.is_ascii_alphabetic()).count();
        let unit = if rest.starts_with('%') { "%" } else { &rest[..word] };
        if unit.is_empty() {
            return Ok(Expr::Number(number));
        }
        match UNITS.iter().find(|(name, _)| *name == unit) {
            Some((name, factor)) => {
                self.at += name.len();
                Ok(Expr::Number(number * factor))
            }
            None => Err(self.expected("a unit (ns, us, ms, s, KiB, MiB, GiB, %)")),
        }
    }

    fn name(&mut self) -> Expr {
        let rest = self.rest();
        // A minus inside a name belongs to it (`final-mark`); between blanks it is an operator.
        let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let len = rest.bytes().take_while(part).count();
        let name = rest[..len].to_owned();
        self.at += len;
        match name.strip_prefix("base.") {
            Some(metric) => Expr::Base(metric.to_owned()),
            None if name == "base" => Expr::Same,
            None => Expr::Metric(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Verdict {
        Gate::parse(text).unwrap().judge(|side, name| match (side, name) {
            (Side::Before, "lock.write.wait.p99") => Some(1_000_000.0),
            (Side::After, "lock.write.wait.p99") => Some(1_050_000.0),
            (Side::Before, "throughput") => Some(200.0),
            (Side::After, "throughput") => Some(150.0),
            (Side::After, "pause.final-mark.max") => Some(5_000.0),
            _ => None,
        })
    }

    #[test]
    fn gates_are_judged_by_the_medians_of_both_sides() {
        for (text, holds) in [
            ("lock.write.wait.p99 < 1.1*base", true),
            ("lock.write.wait.p99 < 1.01 * base", false),
            ("lock.write.wait.p99 <= 1.05ms", true),
            ("lock.write.wait.p99 < 1.05 ms", false),
            ("throughput >= 0.75 * base", true),
            ("throughput > base", false),
            ("throughput / base.throughput > 80%", false),
            ("lock.write.wait.p99 - base < 60 us", true),
            ("pause.final-mark.max < 2e1 us", true),
            ("2*(throughput + 50) == 2 * base.throughput", true),
            ("-throughput < -100", true),
            ("throughput != 150", false),
            ("10 - 2 - 3 < throughput", true),
            ("8/2/2 == throughput/75", true),
        ] {
            assert_eq!(judge(text).holds(), holds, "{text}: {:?}", judge(text));
        }
    }

    #[test]
    fn the_values_of_both_sides_are_told() {
        let verdict = judge("lock.write.wait.p99 < 1.1*base");
        let Verdict::Judged { left, right, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!((left, right.round()), (1_050_000.0, 1_100_000.0));
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let verdict = judge("pause.final-mark.max < 2*base");
        assert!(!verdict.holds());
        assert_eq!(
            verdict,
            Verdict::NotMeasured { metric: "pause.final-mark.max".into(), side: Side::Before }
        );
        assert!(!judge("nothing.such != 3").holds());
        assert!(!judge("throughput / 0 - throughput / 0 != 3").holds());
    }

    #[test]
    fn a_text_that_is_no_gate_says_where_and_what() {
        for (text, said) in [
            ("", "expected a metric"),
            ("throughput", "a comparison"),
            ("throughput <", "found the end"),
            ("throughput < 3 lightyears", "a unit"),
            ("throughput < (3", "`)`"),
            ("throughput < 3 && 1 < 2", "several times"),
            ("1 < 2", "no metric"),
            ("a + b < base", "base.METRIC"),
            ("throughput < base base", "the end"),
            ("a < 1..2", "the end"),
            ("ä < 2", "a metric"),
            ("a < .", "a number"),
        ] {
            let error = Gate::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
            assert!(error.starts_with("--gate '"), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn the_metrics_of_a_gate_are_known_before_it_is_judged() {
        let gate = Gate::parse("a.b + base.c < 2*base.a.b").unwrap();
        assert_eq!(gate.metrics(), ["a.b", "c"]);
    }
}
