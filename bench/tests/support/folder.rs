//! A folder for what a test writes.

use std::path::PathBuf;

/// A folder of its own, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it; no two that live at a time have the same name.
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("firn-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
