//! A heap for a test that a machine without userfaultfd leaves out.

use firn::{Heap, Options};

/// A heap, or `None` and a line that says why, where this machine has no userfaultfd.
pub fn heap(options: &str) -> Option<Heap> {
    match Heap::new(&Options::parse(options).unwrap()) {
        Ok(heap) => Some(heap),
        Err(error) if error.is_userfaultfd_refused() => {
            println!("left out: {options}: {error}");
            None
        }
        Err(error) => panic!("{options}: {error}"),
    }
}
