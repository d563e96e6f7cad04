//! The ways to collect that tests of weak references and guardians go through.

use firn::{Heap, Options};

/// Back ends, axes and worker counts.
pub const WAYS: &[&str] = &[
    "backend=stw",
    "backend=stw,workers=2,verify=true",
    "backend=pingpong",
    "backend=pingpong,workers=2,verify=true",
    "backend=pingpong,dense=50,install=copy",
    "backend=pingpong,fault=thread",
    "backend=art,workers=2",
    "backend=art,install=move,verify=true",
    "backend=mprotect",
    "backend=mprotect,workers=3,verify=true",
];

/// Calls `test` with a heap of each way that this machine has, and the way's name.
pub fn each_way(options: &str, test: impl Fn(&Heap, &str)) {
    for way in WAYS {
        match Heap::new(&Options::parse(&format!("{options},{way}")).unwrap()) {
            Ok(heap) => test(&heap, way),
            Err(error) if error.is_userfaultfd_refused() => println!("left out: {way}: {error}"),
            Err(error) => panic!("{way}: {error}"),
        }
    }
}
