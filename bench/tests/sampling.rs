//! The sampling layer against things that are known: an independent recording of the same events, and a lock holder
//! of known doings.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use firn_bench::clock;
use firn_bench::measure::gather::{Fill, Gather, Want};
use firn_bench::measure::notes::{NotedFrame, Slow};
use firn_bench::perf::{Sampler, Window, sampler};
use firn_bench::schema::LockMode;
use firn_bench::stress::measured;
use firn_heap::sys::ops::Scratch;
use firn_heap::sys::{Protection, page_size};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

/// One at a time: both look at the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Folder {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("sampling-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Takes the lock in different ways, on threads named `Taker-N`.
fn take_locks() {
    thread::scope(|s| {
        for n in 0..3 {
            let named = thread::Builder::new().name(format!("Taker-{n}"));
            let body = || {
                for _ in 0..2_000 {
                    let memory = Scratch::anonymous(4).unwrap();
                    memory.write(0);
                    memory.protect(0, 2, Protection::Read).unwrap();
                    memory.resident(1).unwrap();
                }
            };
            named.spawn_scoped(s, body).unwrap();
        }
    });
}

/// Acquisitions by `Taker-N` in the text of `perf script`, for reading and for writing; downgrades emit the same
/// event and are told by there being no start.
fn counted(script: &str) -> (u64, u64) {
    let lines = || script.lines().filter(|l| l.trim_start().starts_with("Taker-"));
    let of = |event: &str, what: &str| {
        lines().filter(|l| l.contains(event) && l.contains(what)).count() as u64
    };
    let reads = of("mmap_lock_start_locking", "write=false");
    let failed = of("mmap_lock_acquire_returned", "success=false");
    (reads - failed, of("mmap_lock_acquire_returned", "write=true"))
}

#[test]
fn counts_agree_with_an_independent_recording() {
    let _alone = alone();
    let folder = Folder::make();
    let (control, answer, data) = (folder.at("control"), folder.at("answer"), folder.at("data"));
    for fifo in [&control, &answer] {
        mkfifo(fifo, Mode::S_IRWXU).unwrap();
    }
    let recorder = Command::new("perf")
        .args(["record", "-q", "-m", "8M", "-D", "-1", "-e", "mmap_lock:*", "-p"])
        .arg(std::process::id().to_string())
        .arg(format!("--control=fifo:{},{}", control.display(), answer.display()))
        .arg("-o")
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut recorder = match recorder {
        Ok(recorder) => recorder,
        Err(e) => return println!("skipped: no `perf` program ({e}): install linux-perf"),
    };
    // Opened for reading and writing, so that nobody waits for a partner that has given up.
    let both = |path: &PathBuf| OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (mut commands, mut answers) = (both(&control), both(&answer));
    let mut tell = |recorder: &mut std::process::Child, command: &str| {
        commands.write_all(command.as_bytes()).unwrap();
        answered(&mut answers, recorder)
    };
    if !tell(&mut recorder, "enable\n") {
        let mut said = String::new();
        recorder.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        return println!("skipped: perf cannot record mmap_lock here: {}", said.trim());
    }
    let ours = Sampler::start(sampler::Options::default(), Arc::new(Window::default()));
    let ours = ours.expect("perf records them, so we can");
    take_locks();
    let recording = ours.stop();
    kill(Pid::from_raw(recorder.id() as i32), Signal::SIGINT).unwrap();
    recorder.wait().unwrap();
    let script = Command::new("perf").args(["script", "-i"]).arg(&data).output().unwrap();
    let script = String::from_utf8_lossy(&script.stdout).into_owned();
    let lost = script.matches("LOST").count();
    assert_eq!((recording.quality.lost, lost), (0, 0), "the buffers are large enough");
    let (reads, writes) = counted(&script);
    let mut sums = [0u64; 2];
    for thread in recording.analysis.threads.values().filter(|t| t.name.starts_with("Taker-")) {
        for ((write, _), usage) in &thread.usage {
            sums[usize::from(*write)] += usage.wait.decades.count;
        }
    }
    // mmap, mprotect, munmap; and the first fault and mincore.
    assert!(writes >= 3 * 2_000 * 3 && reads >= 3 * 2_000 * 2, "{reads} {writes}");
    // A thread's name is set by itself: what it did before, perf files under its parent's.
    let close = |a: u64, b: u64| a.abs_diff(b) <= 3 * 5;
    assert!(close(sums[0], reads) && close(sums[1], writes), "{sums:?}, perf {reads} {writes}");
}

/// Waits for an answer, or for the end of the recorder: false.
fn answered(answers: &mut File, recorder: &mut std::process::Child) -> bool {
    use nix::poll::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;
    for _ in 0..200 {
        let mut fds = [PollFd::new(answers.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, 50u8).unwrap() > 0 {
            let mut bytes = [0; 16];
            return answers.read(&mut bytes).unwrap() > 0;
        }
        if recorder.try_wait().unwrap().is_some() {
            return false;
        }
    }
    let _ = recorder.kill();
    false
}

#[test]
fn a_slow_lock_holder_appears_with_the_right_size_and_name() {
    let _alone = alone();
    let gather = Gather::start(Want { events: true, probe: false });
    if gather.sampler().is_none() {
        for line in gather.stop().missing {
            println!("skipped: {line}");
        }
        return;
    }
    let notes = gather.notes().clone();
    let pages = (256 << 20) / page_size();
    let memory = Scratch::anonymous(pages).unwrap();
    memory.fill();
    let small = Scratch::anonymous(2).unwrap();
    small.fill();
    let over = AtomicBool::new(false);
    let begin = clock::now();
    gather.window().begin(begin);
    // What the victim saw itself: its longest wait.
    let mut longest = (0, 0);
    thread::scope(|s| {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("SlowHolder-0")
            .spawn_scoped(s, || {
                // Relaxed: only the number of rounds depends on it.
                while !over.load(Ordering::Relaxed) {
                    // Each changes the page tables of a quarter of a gigabyte with the lock held.
                    memory.protect(0, pages, Protection::Read).unwrap();
                    memory.protect(0, pages, Protection::ReadWrite).unwrap();
                }
            })
            .unwrap();
        let victim = || {
            let mut slow = Slow::new("mincore");
            let mut longest = (0, 0);
            for number in 0..200 {
                let (vsync, period) = (clock::now(), 1_000_000);
                small.resident(0).unwrap();
                let end = clock::now();
                slow.offer(vsync, end);
                if end - vsync > longest.1 - longest.0 {
                    longest = (vsync, end);
                }
                let deadline = vsync + period;
                notes.frame(NotedFrame { number, vsync, begin: vsync, end, deadline });
                clock::sleep_until(vsync + 3 * period);
            }
            notes.slow(slow);
            longest
        };
        longest = named("Victim-0").spawn_scoped(s, victim).unwrap().join().unwrap();
        over.store(true, Ordering::Relaxed);
    });
    let end = clock::now();
    gather.window().end(end);
    let gathered = gather.stop();
    let mut run = measured::empty("test".into(), "test".into(), "none".into(), 0);
    gathered.fill(&mut run, None, Fill { window: (begin, end), victims: &["Victim"], spans: 100 });
    let known = (longest.1 - longest.0) as f64;
    assert!(known >= 500_000.0, "the holder held the lock for {known} ns only");

    let locks = run.locks.as_ref().unwrap();
    let row = locks.of_role(LockMode::Read, "Victim").unwrap();
    assert!(row.count >= 200, "{row:?}");
    let within = |ns: u64, part: f64| ns as f64 >= known * part && ns as f64 <= known * 1.01;
    assert!(within(row.wait.fine.max, 0.9), "{} of {known}", row.wait.fine.max);
    let by = locks.by_operation.iter().find(|r| r.role == "Victim" && r.operation == "mincore");
    assert_eq!(by.unwrap().wait.fine.max, row.wait.fine.max);

    // A reader does not spin: it sleeps uninterruptibly, in the lock, until it is woken.
    let blocked = run.blocked.iter().find(|b| b.role == "Victim").unwrap();
    let (slept, in_lock) = (blocked.uninterruptible_ns.unwrap(), blocked.in_mmap_lock_ns.unwrap());
    let waited = row.wait.fine.total;
    assert!(in_lock <= slept && in_lock as f64 >= 0.5 * slept as f64, "{in_lock} of {slept}");
    let off = in_lock + blocked.run_queue_ns.unwrap();
    assert!(off as f64 >= 0.8 * waited as f64, "off {off}, waited {waited}");
    assert!(in_lock <= waited, "{in_lock} of {waited}");

    for (list, what) in [(&run.worst_frames, "frame"), (&run.worst_stalls, "mincore")] {
        let worst = list.first().expect("there is one");
        assert!(worst.what.starts_with(what), "{worst:?}");
        assert_eq!((worst.ns as f64, worst.thread.as_str()), (known, "Victim-0"));
        assert_eq!(worst.causes.iter().map(|c| c.ns).sum::<u64>(), worst.ns, "{worst:?}");
        let wait = worst.causes.iter().find(|c| c.cause == "mmap_lock wait for reading");
        let wait = wait.unwrap_or_else(|| panic!("{worst:?}"));
        let queued = worst.causes.iter().find(|c| c.cause == "run-queue delay").map_or(0, |c| c.ns);
        assert!(within(wait.ns + queued, 0.9), "{wait:?} {queued} of {known}");
        let holder = wait.holders.first().unwrap_or_else(|| panic!("{wait:?}"));
        assert_eq!((holder.name.as_str(), holder.operation.as_str()), ("SlowHolder-0", "mprotect"));
        assert_eq!((holder.role.as_str(), holder.mode), ("SlowHolder", LockMode::Write));
        assert!(holder.held_ns as f64 >= 0.5 * known, "{holder:?} of {known}");
    }
}
