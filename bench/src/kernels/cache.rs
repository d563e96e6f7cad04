//! Where kernels, indexes and remembered answers are kept: `$XDG_CACHE_HOME/firn`, else
//! `~/.cache/firn`. Everything in it can be had again; `rm -r` is always safe.
//!
//! Files appear complete or not at all: each is written under another name first and then renamed,
//! so that an interruption or a second `firn` at work leaves nothing half-made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::Failure;

/// The folder, which may not exist yet.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// In `chosen`, or where the environment says.
    ///
    /// # Errors
    /// Exit code 3 if there is no home directory.
    pub fn open(chosen: Option<&Path>) -> Result<Cache, Failure> {
        if let Some(root) = chosen {
            return Ok(Cache { root: root.to_owned() });
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let base = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")));
        base.map(|base| Cache { root: base.join("firn") }).ok_or_else(|| {
            Failure::missing("neither XDG_CACHE_HOME nor HOME is set: give a folder with --cache")
        })
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a folder in it.
    ///
    /// # Errors
    /// Exit code 3 if it cannot be written.
    pub fn folder(&self, name: impl AsRef<Path>) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        fs::create_dir_all(&path).map_err(|e| self.refused(&path, &e))?;
        Ok(path)
    }

    /// Reads JSON that was stored; nothing if there is none, or if another version wrote it.
    pub fn load<T: DeserializeOwned>(&self, name: impl AsRef<Path>) -> Option<T> {
        serde_json::from_slice(&fs::read(self.path(name)).ok()?).ok()
    }

    /// Stores JSON.
    ///
    /// # Errors
    /// Exit code 3 if it cannot be written.
    pub fn store<T: Serialize>(&self, name: impl AsRef<Path>, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(value)
            .map_err(|e| Failure::missing(format!("the cache cannot hold this: {e}")))?;
        self.write(name, &text)
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// Exit code 3 if they cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| self.refused(&path, &e))?;
        }
        let other = temporary(&path);
        fs::write(&other, bytes)
            .and_then(|()| fs::rename(&other, &path))
            .map_err(|e| self.refused(&path, &e))
    }

    fn refused(&self, path: &Path, error: &io::Error) -> Failure {
        Failure::missing(format!(
            "the cache cannot be written at {}: {error}; choose another folder with --cache",
            path.display()
        ))
    }
}

/// A name beside `path` that no other process uses.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_what_is_damaged_is_absent() {
        let folder = std::env::temp_dir().join(format!("firn-cache-{}", std::process::id()));
        let cache = Cache::open(Some(&folder)).unwrap();
        assert_eq!(cache.load::<Vec<u32>>("a/b.json"), None);
        cache.store("a/b.json", &vec![1, 2]).unwrap();
        assert_eq!(cache.load::<Vec<u32>>("a/b.json"), Some(vec![1, 2]));
        cache.write("a/b.json", b"[1,").unwrap();
        assert_eq!(cache.load::<Vec<u32>>("a/b.json"), None);
        assert_eq!(fs::read_dir(cache.path("a")).unwrap().count(), 1, "nothing half-made is left");
        fs::remove_dir_all(&folder).unwrap();
    }
}
