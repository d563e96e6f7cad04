//! The browser that pages are opened in.

use std::path::PathBuf;

/// The browser, or a line that says what is missing.
pub fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let found = std::env::var_os("PATH").and_then(|paths| {
        std::env::split_paths(&paths).flat_map(|p| names.map(|n| p.join(n))).find(|p| p.is_file())
    });
    if found.is_none() {
        println!("skipped: no Chromium on PATH (Debian: apt-get install chromium)");
    }
    found
}
