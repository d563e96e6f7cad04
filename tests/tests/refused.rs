//! Where a sandbox refuses userfaultfd, the error says what refuses it and what to do, and `backend=stw` works.
//!
//! The sandbox is a real one: a seccomp filter in a process of its own, as a container's profile has it, and a user who
//! may not open the device.

use firn::{Heap, HeapError, Options, OutOfMemory};
use firn_bench::workloads::graph::{self, GraphParams};

mod support;
use support::{in_child, succeeded};

/// Makes `userfaultfd()` answer `errno` in this process, and takes the right to open the device away.
fn refuse(errno: i32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUALS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // The number of the system call is the first word of what the filter sees.
        step(LOAD, 0, 0, 0),
        step(EQUALS, 0, 1, libc::SYS_userfaultfd as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    const NONE: libc::c_ulong = 0;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads a live program; the process is this test's own.
    unsafe {
        if libc::geteuid() == 0 {
            const NOBODY: libc::uid_t = 65_534;
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setresgid(NOBODY, NOBODY, NOBODY), 0);
            assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
        }
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, NONE, NONE, NONE), 0);
        let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(set, 0, "seccomp: {}", std::io::Error::last_os_error());
    }
}

/// What a heap says in such a process, and whether the fallback works there.
fn refused(test: &str, errno: i32) -> Option<String> {
    let output = in_child(test, || {
        refuse(errno);
        if std::fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd").is_ok() {
            println!("left out: this user may open /dev/userfaultfd");
            return;
        }
        for way in ["backend=pingpong", "backend=art", "backend=pingpong,fault=thread"] {
            let options = Options::parse(&format!("heap=16m,{way}")).unwrap();
            let error = Heap::new(&options).unwrap_err();
            assert!(error.is_userfaultfd_refused() && matches!(error, HeapError::Core(_)));
            println!("said: {error}");
        }
        let options = Options::parse("heap=32m,backend=stw,verify=true").unwrap();
        let params = GraphParams { threads: 2, ..GraphParams::small(1) };
        let run = graph::run(&options, &params, None).expect("the fallback needs no userfaultfd");
        assert_eq!(run.digests.len(), params.rounds);
        let heap = Heap::new(&options).unwrap();
        heap.attach(|cx| {
            cx.alloc_data::<u8>(100)?;
            cx.collect();
            Ok::<_, OutOfMemory>(())
        })
        .unwrap();
        println!("stw works");
    });
    let text = succeeded(&output);
    if text.contains("left out: ") {
        println!("{text}");
        return None;
    }
    assert!(text.contains("stw works"), "{text}");
    assert_eq!(text.matches("said: ").count(), 3, "{text}");
    Some(text)
}

#[test]
fn a_seccomp_filter_that_forbids_is_named_with_the_remedy() {
    let test = "a_seccomp_filter_that_forbids_is_named_with_the_remedy";
    let Some(text) = refused(test, libc::EPERM) else { return };
    for part in ["Seccomp: 2", "seccomp", "--security-opt", "EPERM", "--backend stw"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn a_seccomp_filter_that_hides_the_call_is_named_with_the_remedy() {
    let test = "a_seccomp_filter_that_hides_the_call_is_named_with_the_remedy";
    let Some(text) = refused(test, libc::ENOSYS) else { return };
    for part in ["Seccomp: 2", "CONFIG_USERFAULTFD", "--security-opt", "ENOSYS", "--backend stw"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}
