//! Any bytes, as a program: reading, expanding and compiling give code or an error.

#![no_main]

use firn_scheme::Interpreter;
use firn_scheme::vm::load::read_all;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, OnceLock};

static SCHEME: OnceLock<Interpreter> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let file: Arc<str> = "fuzz.scm".into();
    let Ok((mut forms, all)) = read_all(&text, &file) else { return };
    let scheme = SCHEME.get_or_init(|| {
        let options = firn::Options::parse("heap=64m,backend=stw").expect("valid options");
        Interpreter::new(&options).expect("needs no userfaultfd")
    });
    let ended = scheme.with(|vm| {
        let env = vm.with_compiler(|compiler| compiler.new_env());
        vm.with_compiler(|compiler| compiler.import_all("(firn all)", env));
        for form in all {
            if vm.compile(&mut forms, form, env, &file).is_err() {
                return;
            }
        }
    });
    ended.expect("the heap is large enough");
});
