//! [`World`]: what all threads of an interpreter share outside the heap.
//!
//! Nothing here refers into the heap but by roots. The compiler is behind a lock that is waited for in a blocking
//! section ([`Vm::with_compiler`](crate::vm::Vm)), because its holder may have to wait for a collection.

use crate::builtins::Builtin;
use crate::expand::Compiler;
use crate::numbers::large::{Stopped, Watch};
use crate::object::GuardianObject;
use crate::port::{PATIENCE, Streams};
use crate::value::Scheme;
use crate::vm::Outcome;
use firn::{Heap, Root, TaggedArray};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

/// See the module.
pub struct World {
    builtins: Vec<Builtin>,
    numbers: HashMap<&'static str, usize>,
    /// The heap.
    pub heap: Heap,
    /// The compiler; take it through [`World::claim`] only.
    pub(crate) compiler: Mutex<Compiler>,
    claimed: Mutex<bool>,
    released: Condvar,
    /// The globals' cells: an array, by number; and how many there are.
    pub(crate) cells: Mutex<Option<(Root<TaggedArray<Scheme>>, usize)>>,
    /// The procedures of the prelude that the machine calls, once they are known: their globals.
    pub(crate) hooks: [OnceLock<u32>; 2],
    /// Ctrl-C was pressed.
    pub interrupted: Arc<AtomicBool>,
    /// The exit code, if a thread other than the first has ended the program.
    quit: Mutex<Option<i32>>,
    /// Files and standard streams.
    pub streams: Streams,
    /// Ports on files that nothing holds any more come out of it.
    pub(crate) lost_ports: Mutex<Option<Root<GuardianObject>>>,
    /// Bytes of a text outside the heap that is to go into it, or came out of it, at most.
    pub(crate) most_text: usize,
    /// The program's name and arguments.
    pub command_line: Mutex<Vec<String>>,
    /// Threads that have been started.
    pub(crate) threads: Mutex<HashMap<u64, crate::builtins::threads::Running>>,
    /// Where threads wait for each other.
    pub(crate) parking: crate::builtins::threads::Parking,
    /// Numbers for threads, mutexes and so on.
    pub(crate) next_id: AtomicU64,
    /// When the interpreter was made.
    pub started: Instant,
    /// Itself, for threads.
    itself: std::sync::Weak<World>,
    /// The environment of the prompt, of `eval` without one, and of programs without imports.
    pub(crate) interaction: u32,
    /// The environment of the program that runs: what `(interaction-environment)` answers.
    pub(crate) program: std::sync::atomic::AtomicU32,
}

impl World {
    /// A world on a heap, whose compiler knows the builtins and nothing else.
    pub(crate) fn new(heap: Heap) -> Arc<World> {
        Arc::new_cyclic(|itself| World::with(heap, itself.clone()))
    }

    fn with(heap: Heap, itself: std::sync::Weak<World>) -> World {
        let builtins = crate::builtins::all();
        let numbers = builtins.iter().enumerate().map(|(number, b)| (b.name, number)).collect();
        let mut compiler = Compiler::new(builtins.clone());
        let interaction = compiler.new_env();
        let most_text = heap.stats().limit_bytes;
        World {
            builtins,
            numbers,
            heap,
            compiler: Mutex::new(compiler),
            claimed: Mutex::new(false),
            released: Condvar::new(),
            cells: Mutex::new(None),
            hooks: Default::default(),
            interrupted: Arc::default(),
            quit: Mutex::default(),
            streams: Streams::new(),
            lost_ports: Mutex::default(),
            most_text,
            command_line: Mutex::default(),
            threads: Mutex::default(),
            parking: Default::default(),
            next_id: AtomicU64::new(1),
            started: Instant::now(),
            itself,
            interaction,
            program: interaction.into(),
        }
    }

    /// A share of this world.
    pub(crate) fn shared(&self) -> Arc<World> {
        self.itself.upgrade().expect("whoever has a reference shares it")
    }

    /// Ends the program, from a thread that is not the first: that one is interrupted.
    pub(crate) fn quit(&self, code: i32) {
        self.quit.lock().expect("nobody panics with it").get_or_insert(code);
        self.interrupted.store(true, Relaxed);
    }

    /// How the program ended if the first thread ended like this.
    pub(crate) fn ended(&self, outcome: Outcome) -> Outcome {
        let quit = self.quit.lock().expect("nobody panics with it").take();
        match (outcome, quit) {
            (Outcome::Interrupted, Some(code)) => {
                self.interrupted.store(false, Relaxed);
                Outcome::Quit(code)
            }
            (outcome, _) => outcome,
        }
    }

    /// The builtins, by number.
    #[inline(always)]
    pub fn builtins(&self) -> &[Builtin] {
        &self.builtins
    }

    /// A builtin's number.
    ///
    /// # Panics
    /// If there is no such builtin.
    pub fn number_of(&self, name: &str) -> usize {
        self.numbers[name]
    }

    /// Waits for the compiler and takes it. The caller must be in a blocking section.
    ///
    /// # Errors
    /// If it is wanted no more: who has the compiler may have it for long.
    pub(crate) fn claim(&self, watch: &Watch<'_>) -> Result<(), Stopped> {
        let mut claimed = self.claimed.lock().expect("nobody panics with it");
        while *claimed {
            watch.look()?;
            claimed = self.released.wait_timeout(claimed, PATIENCE).expect("nobody panics").0;
        }
        *claimed = true;
        Ok(())
    }

    /// Gives the compiler back.
    pub(crate) fn release(&self) {
        *self.claimed.lock().expect("nobody panics with it") = false;
        self.released.notify_one();
    }
}
