//! The sampling layer against things that are known: an independent recording of the same events, and a lock holder
//! of known doings.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

use firn_bench::clock;
use firn_bench::measure::gather::{Fill, Gather, Want};
use firn_bench::measure::notes::{NotedFrame, Slow};
use firn_bench::perf::{Sampler, Window, sampler};
use firn_bench::schema::LockMode;
use firn_bench::stress::measured;
use firn_heap::sys::ops::Scratch;
use firn_heap::sys::thread::{Policy, set_scheduler};
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

/// Threads that take the lock.
const TAKERS: usize = 3;
/// Rounds of each.
const ROUNDS: usize = 2_000;
/// Acquisitions of a round: for reading by `mincore` and `madvise(MADV_COLD)`, for writing by `mmap`, `mprotect` and
/// `munmap`. No page is touched: a first fault takes the lock only where the mapping has not been merged with a
/// neighbour that another thread has touched.
const READS: usize = 2;
const WRITES: usize = 3;

fn take_locks(rounds: usize) {
    for _ in 0..rounds {
        let memory = Scratch::anonymous(4).unwrap();
        memory.protect(0, 2, Protection::Read).unwrap();
        memory.resident(1).unwrap();
        memory.advise(0, 4, nix::libc::MADV_COLD).unwrap();
    }
}

/// Who waits at which of the points between which the takers take locks, and nothing else does.
struct Points {
    ready: Barrier,
    begin: Barrier,
    end: Barrier,
    leave: Barrier,
}

/// Starts the takers, threads named `Taker-N`. What threads take the lock for at their start lies before `ready`.
fn start_takers(points: &Arc<Points>) -> Vec<thread::JoinHandle<()>> {
    let taker = |n: usize| {
        let points = points.clone();
        let named = thread::Builder::new().name(format!("Taker-{n}"));
        let body = move || {
            take_locks(2);
            points.ready.wait();
            points.begin.wait();
            take_locks(ROUNDS);
            points.end.wait();
            points.leave.wait();
        };
        named.spawn(body).unwrap()
    };
    (0..TAKERS).map(taker).collect()
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
    let point = || Barrier::new(TAKERS + 1);
    let points = Arc::new(Points { ready: point(), begin: point(), end: point(), leave: point() });
    let takers = start_takers(&points);
    points.ready.wait();
    let skip = |why: String| {
        println!("skipped: {why}");
        for point in [&points.begin, &points.end, &points.leave] {
            point.wait();
        }
    };
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
        Err(e) => return skip(format!("no `perf` program ({e}): install linux-perf")),
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
        return skip(format!("perf cannot record mmap_lock here: {}", said.trim()));
    }
    let ours = Sampler::start(sampler::Options::default(), Arc::new(Window::default()));
    let ours = ours.expect("perf records them, so we can");
    points.begin.wait();
    points.end.wait();
    let recording = ours.stop();
    assert!(tell(&mut recorder, "disable\n"), "perf has ended by itself");
    points.leave.wait();
    takers.into_iter().for_each(|t| t.join().unwrap());
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
    let expected = [READS, WRITES].map(|n| (n * TAKERS * ROUNDS) as u64);
    assert_eq!([reads, writes], expected, "perf, for reading and for writing");
    assert_eq!(sums, expected, "ours");
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

/// Operations of the victim.
const VICTIMS_ROUNDS: u64 = 200;

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
    // What threads take the lock for at their start and end is none of the victim's waits.
    let points = [(); 4].map(|()| Barrier::new(3));
    let [ready, go, done, leave] = &points;
    let (begin, end, longest) = thread::scope(|s| {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let holder = || {
            ready.wait();
            go.wait();
            // Relaxed: only the number of rounds depends on it.
            while !over.load(Ordering::Relaxed) {
                // Each changes the page tables of a quarter of a gigabyte with the lock held.
                memory.protect(0, pages, Protection::Read).unwrap();
                memory.protect(0, pages, Protection::ReadWrite).unwrap();
            }
            done.wait();
            leave.wait();
        };
        let victim = || {
            // What it waits for is the lock, and no processor: others on the machine do not stretch its operations.
            if let Err(e) = set_scheduler(Policy::Fifo(1)) {
                println!("the victim has no real-time priority ({e})");
            }
            let mut slow = Slow::new("mincore");
            // Room in the allocator for the notes, so that they take no lock.
            drop(std::hint::black_box(vec![1u8; 100 << 10]));
            small.resident(0).unwrap();
            ready.wait();
            go.wait();
            // What the victim saw itself: its longest wait.
            let mut longest = (0, 0);
            for number in 0..VICTIMS_ROUNDS {
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
            over.store(true, Ordering::Relaxed);
            done.wait();
            leave.wait();
            longest
        };
        named("SlowHolder-0").spawn_scoped(s, holder).unwrap();
        let victim = named("Victim-0").spawn_scoped(s, victim).unwrap();
        ready.wait();
        let begin = clock::now();
        gather.window().begin(begin);
        go.wait();
        done.wait();
        let end = clock::now();
        gather.window().end(end);
        leave.wait();
        (begin, end, victim.join().unwrap())
    });
    let gathered = gather.stop();
    let mut run = measured::empty("test".into(), "test".into(), "none".into(), 0);
    gathered.fill(&mut run, None, Fill { window: (begin, end), victims: &["Victim"], spans: 100 });
    let known = (longest.1 - longest.0) as f64;
    assert!(known >= 500_000.0, "the holder held the lock for {known} ns only");

    let locks = run.locks.as_ref().unwrap();
    let row = locks.of_role(LockMode::Read, "Victim").unwrap();
    assert_eq!(locks.quality.lost, 0, "the buffers are large enough");
    let within = |ns: u64, part: f64| ns as f64 >= known * part && ns as f64 <= known * 1.01;
    assert!(within(row.wait.fine.max, 0.9), "{} of {known}", row.wait.fine.max);
    let by = locks.by_operation.iter().find(|r| r.role == "Victim" && r.operation == "mincore");
    let by = by.unwrap();
    assert_eq!((by.count, by.wait.fine.max), (VICTIMS_ROUNDS, row.wait.fine.max));

    // A reader does not spin: it sleeps uninterruptibly, in the lock, until it is woken.
    let blocked = run.blocked.iter().find(|b| b.role == "Victim").unwrap();
    let (slept, in_lock) = (blocked.uninterruptible_ns.unwrap(), blocked.in_mmap_lock_ns.unwrap());
    let in_mode = |mode| locks.of_role(mode, "Victim").map_or(0, |r| r.wait.fine.total);
    let waited = in_mode(LockMode::Read) + in_mode(LockMode::Write);
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
