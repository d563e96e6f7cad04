//! Cuts the Rust pieces out of `docs/embedding.md`, for the test that compiles and runs them.

use std::path::Path;

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let page = Path::new(&root).join("../docs/embedding.md");
    println!("cargo:rerun-if-changed={}", page.display());
    println!("cargo:rerun-if-changed=build.rs");
    let text = std::fs::read_to_string(&page).unwrap_or_default();
    let mut program = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```rust" => inside = true,
            "```" => inside = false,
            line if inside => {
                program.push_str(line);
                program.push('\n');
            }
            _ => {}
        }
    }
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("embedding.rs"), program)
        .expect("the output directory is writable");
}
