//! Ports on files: opening them, and closing those that programs have lost.
//!
//! Opening may wait (a pipe with nobody at its other end, a file system far away), so it is done between two stretches.
//! Every port on a file is registered with a guardian of the interpreter's ([`crate::world::World`]). Whoever opens a
//! file first asks it for ports that nothing holds any more, writes out what they have and closes them. If there are
//! no descriptors left, the heap is collected for the sake of such ports.
//!
//! Called by the table of [`super::ports`].

use super::args;
use super::ports::make_port;
use crate::mem::Mem;
use crate::object::Port;
use crate::port::{PATIENCE, Stream, flag};
use crate::trap::{Result, TrapKind};
use crate::value::Value;
use crate::vm::{Failure, Vm, register};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering::Relaxed;

/// A port on the file `name`; `builtin` is what the program called.
pub(super) fn open_file<'m>(
    mem: Mem<'m, '_>,
    builtin: &'static str,
    name: Value<'m>,
    flags: u64,
) -> Result<'m> {
    let path = mem.text(args::string(mem, name)?);
    Err(TrapKind::Outside(Box::new(move |vm| {
        close_lost(vm);
        let mut opened = open(vm, &path, flags);
        if matches!(errno(&opened), Some(Errno::EMFILE | Errno::ENFILE)) {
            vm.cx.collect();
            close_lost(vm);
            opened = open(vm, &path, flags);
        }
        let stream =
            opened.map_err(|why| Failure::Error("file", format!("{builtin}: {path}: {why}")))?;
        let handle = vm.world.streams.add(stream);
        let made = vm.settle(register::RESULT, |mem, _| {
            let port = make_port(mem, flags | flag::STREAM, handle)?;
            let lost = mem.world().lost_ports.lock().expect("nobody panics with it");
            if let Some(guardian) = &*lost {
                mem.guard(guardian.get(mem.scope()), port)?;
            }
            Ok(port)
        });
        if made.is_err() {
            vm.world.streams.close(handle);
        }
        made
    }))
    .into())
}

fn errno(opened: &io::Result<Stream>) -> Option<Errno> {
    opened.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw)
}

/// Opens a file. Nothing waits in the kernel: see [`Stream::open`]; for writing a pipe is tried again until somebody
/// reads.
fn open(vm: &mut Vm<'_, '_>, path: &str, flags: u64) -> io::Result<Stream> {
    if flags & flag::INPUT != 0 {
        return vm.cx.blocking(|| Stream::open(path.as_ref()));
    }
    let nonblocking = OFlag::O_NONBLOCK.bits();
    loop {
        let create = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).custom_flags(nonblocking);
            options.open(path)
        };
        match vm.cx.blocking(create) {
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) && !vm.is_to_end() => {
                vm.cx.blocking(|| std::thread::sleep(PATIENCE));
            }
            opened => {
                return opened.and_then(blocking).map(|file| Stream::output(Box::new(file), false));
            }
        }
    }
}

/// The file, whose writers may wait.
fn blocking(file: File) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Closes the streams of ports that nothing holds any more.
fn close_lost(vm: &mut Vm<'_, '_>) {
    let world = vm.world.clone();
    while let Some(handle) = next_lost(vm) {
        // There is nobody to tell of a failure.
        let close = || drop(world.streams.close(handle));
        vm.cx.blocking(close);
    }
}

fn next_lost(vm: &Vm<'_, '_>) -> Option<usize> {
    let cx: &firn::Scope<'_> = vm.cx;
    let lost = vm.world.lost_ports.lock().expect("nobody panics with it");
    let guardian = lost.as_ref()?.get(cx);
    loop {
        let port =
            Value::from(guardian.poll(cx)?).as_object::<Port>(cx).expect("ports are registered");
        if port.flags.fetch_and(!flag::OPEN, Relaxed) & flag::OPEN != 0 {
            return Some(port.stream);
        }
    }
}
