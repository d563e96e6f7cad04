//! What a user reads when a limit or a sandbox is in the way.

mod sys_support;

use firn_heap::sys::{Errno, Reservation, Userfaultfd, uffd::OpenPath};
use sys_support::{in_child, succeeded};

#[test]
fn an_address_space_limit_is_named_with_its_value_and_the_remedy() {
    let output = in_child("an_address_space_limit_is_named_with_its_value_and_the_remedy", || {
        let limit = libc::rlimit { rlim_cur: 2 << 30, rlim_max: 2 << 30 };
        // SAFETY: the kernel reads a live struct.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        let error = Reservation::anonymous(4 << 30, 1 << 30, "the heap").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOMEM));
        println!("{error}");
        let error = Reservation::memfd(4 << 30, 1 << 30, "the heap").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOMEM));
    });
    let text = succeeded(&output);
    assert!(text.contains("cannot reserve 4 GiB for the heap: mmap failed with ENOMEM"), "{text}");
    assert!(text.contains("The address space limit (RLIMIT_AS) is 2 GiB, of which"), "{text}");
    assert!(text.contains("`ulimit -v unlimited`"), "{text}");
}

#[test]
fn a_range_that_fits_the_limit_is_had_even_if_its_alignment_does_not() {
    let output =
        in_child("a_range_that_fits_the_limit_is_had_even_if_its_alignment_does_not", || {
            // Room for the range, but not for the range and one alignment more.
            let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
            // SAFETY: the kernel reads a live struct.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            let range = Reservation::anonymous(64 << 20, 1 << 30, "the heap").unwrap();
            assert!(range.base().is_multiple_of(1 << 30));
            // SAFETY: memory of ours.
            unsafe { (range.base() as *mut u8).write_volatile(1) };
        });
    succeeded(&output);
}

/// Makes the system call `userfaultfd` fail with `errno` for the rest of this process's life, as a
/// container's seccomp profile does.
fn refuse_userfaultfd(errno: i32) {
    // Classic BPF: load the number of the call; if it is ours, return the error; else allow.
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_userfaultfd as u32,
    };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which is alive, and changes nothing but what calls may
    // do.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter), 0);
    }
}

/// An ordinary user: the device is closed to it, unless the machine's owner opened it.
fn become_nobody() {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: plain system calls. Where we are an ordinary user already, they fail and change nothing.
    unsafe {
        libc::setgroups(0, std::ptr::null());
        libc::setgid(NOBODY);
        libc::setuid(NOBODY);
    }
}

fn refused_by_filter(errno: i32) {
    become_nobody();
    refuse_userfaultfd(errno);
    match Userfaultfd::open(true) {
        Err(error) => println!("{error}"),
        // The other door: a device that its owner opened to everybody.
        Ok(uffd) => {
            assert_eq!(uffd.path(), OpenPath::Device);
            println!("through the device");
        }
    }
}

fn explained(text: &str) {
    if text.contains("through the device") {
        println!("the device is open to everybody on this machine");
        return;
    }
    assert!(text.contains("Seccomp: 2"), "{text}");
    assert!(text.contains("Docker's default profile"), "{text}");
    assert!(text.contains("--backend stw"), "{text}");
}

#[test]
fn a_seccomp_filter_is_told_from_a_sysctl() {
    let output = in_child("a_seccomp_filter_is_told_from_a_sysctl", || {
        refused_by_filter(libc::EPERM);
    });
    let text = succeeded(&output);
    explained(&text);
    assert!(text.contains("through the device") || text.contains("EPERM"), "{text}");
}

#[test]
fn a_filter_that_hides_the_system_call_is_suspected_beside_the_kernel() {
    let name = "a_filter_that_hides_the_system_call_is_suspected_beside_the_kernel";
    let text = succeeded(&in_child(name, || refused_by_filter(libc::ENOSYS)));
    explained(&text);
    assert!(text.contains("through the device") || text.contains("CONFIG_USERFAULTFD"), "{text}");
}

#[test]
fn a_full_table_of_files_is_named() {
    let output = in_child("a_full_table_of_files_is_named", || {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads a live struct.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        println!("{}", Userfaultfd::open(true).unwrap_err());
    });
    let text = succeeded(&output);
    assert!(text.contains("ulimit -n") && text.contains("--backend stw"), "{text}");
}

#[test]
fn an_ordinary_user_gets_a_userfaultfd_through_the_system_call() {
    let output = in_child("an_ordinary_user_gets_a_userfaultfd_through_the_system_call", || {
        become_nobody();
        match Userfaultfd::open(true) {
            Ok(uffd) => println!("opened {}", uffd.path()),
            Err(error) => println!("refused: {error}"),
        }
    });
    let text = succeeded(&output);
    // 5.11 or newer admits everybody unless a filter or a security module is in the way, which is
    // then named.
    let user_mode_only = text.contains("opened userfaultfd(UFFD_USER_MODE_ONLY)");
    let device = text.contains("opened /dev/userfaultfd");
    assert!(user_mode_only || device || text.contains("refused: userfaultfd is not"), "{text}");
}
