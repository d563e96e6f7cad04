//! Time, processes, the collector.

use super::{Builtin, args};
use crate::datum;
use crate::syntax::{Forms, Id, Location, Node};
use crate::trap::{TrapKind, error_of};
use crate::value::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Jiffies are nanoseconds.
const JIFFIES_PER_SECOND: i64 = 1_000_000_000;

fn exit_code(value: Option<&Value<'_>>) -> i32 {
    match value {
        None => 0,
        Some(&value) if value == Value::TRUE => 0,
        Some(value) => match value.as_fixnum() {
            Some(code) => (code & 0xff) as i32,
            None => 1,
        },
    }
}

fn text(forms: &mut Forms, text: &str) -> Id {
    forms.add(Node::Text(text.into()), Location::default())
}

/// Builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("%exit", 0, 1, |_, a| Err(TrapKind::Exit(exit_code(a.first())).into())),
    Builtin::new("emergency-exit", 0, 1, |_, a| Err(TrapKind::Exit(exit_code(a.first())).into())),
    Builtin::new("current-jiffy", 0, 0, |mem, _| {
        Ok(Value::fixnum(mem.world().started.elapsed().as_nanos() as i64))
    }),
    Builtin::new("jiffies-per-second", 0, 0, |_, _| Ok(Value::fixnum(JIFFIES_PER_SECOND))),
    Builtin::new("current-second", 0, 0, |mem, _| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        mem.flonum(now.as_secs_f64())
    }),
    Builtin::new("current-milliseconds", 0, 0, |mem, _| {
        Ok(Value::fixnum(mem.world().started.elapsed().as_millis() as i64))
    }),
    Builtin::new("current-microseconds", 0, 0, |mem, _| {
        Ok(Value::fixnum(mem.world().started.elapsed().as_micros() as i64))
    }),
    Builtin::new("runtime", 0, 0, |mem, _| mem.flonum(mem.world().started.elapsed().as_secs_f64())),
    Builtin::new("random", 1, 1, |mem, a| {
        use std::hash::{BuildHasher, Hasher};
        // Each RandomState is seeded anew.
        let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
        if let Some(limit) = a[0].as_fixnum().filter(|&limit| limit > 0) {
            return Ok(Value::fixnum((bits >> 4) as i64 % limit));
        }
        match a[0].as_flonum() {
            Some(limit) => mem.flonum((bits >> 11) as f64 / (1u64 << 53) as f64 * limit),
            None => Err(crate::trap::out_of_range("limit", a[0])),
        }
    }),
    Builtin::new("command-line", 0, 0, |mem, _| {
        let line = mem.world().command_line.lock().expect("nobody panics with it").clone();
        let mut forms = Forms::new();
        let words: Vec<_> = line.iter().map(|word| text(&mut forms, word)).collect();
        let list = forms.make_list(&words, None, Location::default());
        Err(datum::deliver(forms, list))
    }),
    Builtin::new("get-environment-variable", 1, 1, |mem, a| {
        let name = mem.text(args::string(mem, a[0])?);
        if name.is_empty() || name.contains(['=', '\0']) {
            return Ok(Value::FALSE);
        }
        match std::env::var_os(name) {
            Some(value) => mem.string(&value.to_string_lossy()),
            None => Ok(Value::FALSE),
        }
    }),
    Builtin::new("get-environment-variables", 0, 0, |_, _| {
        let mut forms = Forms::new();
        let mut pairs = Vec::new();
        for (name, value) in std::env::vars_os() {
            let name = text(&mut forms, &name.to_string_lossy());
            let value = text(&mut forms, &value.to_string_lossy());
            pairs.push(forms.add(Node::Pair(name, value), Location::default()));
        }
        let list = forms.make_list(&pairs, None, Location::default());
        Err(datum::deliver(forms, list))
    }),
    Builtin::new("features", 0, 0, |mem, _| {
        let names: Vec<_> = crate::expand::library::FEATURES
            .iter()
            .map(|name| Value::symbol(crate::symbol::Symbol::intern(name)))
            .collect();
        mem.list(&names)
    }),
    Builtin::new("gc", 0, 0, |_, _| Err(TrapKind::Collect.into())),
    Builtin::new("gc-stats", 0, 0, |mem, _| {
        let stats = mem.world().heap.stats();
        let entries = [
            ("cycles", stats.cycles as i64),
            ("bytes-allocated", stats.bytes_allocated as i64),
            ("live-bytes", stats.live_bytes_after_last as i64),
            ("used-bytes", stats.used_bytes as i64),
            ("footprint-bytes", stats.footprint_bytes as i64),
            ("limit-bytes", stats.limit_bytes as i64),
        ];
        let mut list = Vec::new();
        for (name, number) in entries {
            let name = Value::symbol(crate::symbol::Symbol::intern(name));
            list.push(mem.cons(name, Value::fixnum(number))?);
        }
        mem.list(&list)
    }),
    Builtin::new("delete-file", 1, 1, |mem, a| {
        let name = mem.text(args::string(mem, a[0])?);
        match std::fs::remove_file(&name) {
            Ok(()) => Ok(Value::UNSPECIFIED),
            Err(error) => Err(error_of("file", format!("{name}: {error}"), &[a[0]])),
        }
    }),
    Builtin::new("file-exists?", 1, 1, |mem, a| {
        let name = mem.text(args::string(mem, a[0])?);
        Ok(Value::boolean(std::path::Path::new(&name).exists()))
    }),
];
