//! What a host that a guest has taken over would try.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc::{self, c_long};
use wherry_host::Plan;

/// Locks itself in and tries everything. Standard input is a datagram socket. Tells a line for each attempt on what was standard output:
/// its name, and 0 or the error's number.
pub(crate) fn attempt(plan: &str) -> Result<(), Box<dyn std::error::Error>> {
    let plan: Plan = serde_json::from_str(plan)?;
    // A descriptor that it has not closed itself.
    let inherited = File::open("/etc/passwd")?;
    let number = inherited.as_raw_fd();
    std::mem::forget(inherited);
    wherry_host::enter(&plan, &[])?;
    let mut told = io::stdout().lock();
    let mut tell = |name: &str, outcome: io::Result<()>| {
        let error = outcome.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        writeln!(told, "{name} {error}")
    };
    tell("inherited", fs::read_link(format!("/proc/self/fd/{number}")).map(drop))?;
    tell("inherited-fd", call(libc::SYS_fstat, [number.into(), room(), 0, 0, 0, 0]))?;
    for (name, number, arguments) in calls() {
        tell(name, call(number, arguments))?;
    }
    for (name, outcome) in files() {
        tell(name, outcome)?;
    }
    for (name, outcome) in needed() {
        tell(name, outcome)?;
    }
    Ok(())
}

/// Room for whatever a call writes.
fn room() -> c_long {
    Box::leak(Box::new([0u8; 4096])).as_mut_ptr() as c_long
}

fn text(text: &'static std::ffi::CStr) -> c_long {
    text.as_ptr() as c_long
}

#[allow(unsafe_code, reason = "an attempt at what libraries would not do")]
fn call(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> io::Result<()> {
    // SAFETY: pointers among the arguments are to leaked or static memory of a page at most; what succeeds ends this test.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An address of 127.0.0.1, port 9.
fn address() -> c_long {
    let mut bytes = [0u8; 16];
    bytes[..2].copy_from_slice(&u16::to_ne_bytes(libc::AF_INET as u16));
    bytes[2..8].copy_from_slice(&[0, 9, 127, 0, 0, 1]);
    Box::leak(Box::new(bytes)).as_ptr() as c_long
}

type Attempt = (&'static str, c_long, [c_long; 6]);

fn calls() -> Vec<Attempt> {
    let parent = c_long::from(nix::unistd::getppid().as_raw());
    let own = c_long::from(nix::unistd::getpid().as_raw());
    let socket = c_long::from(io::stdin().as_fd().as_raw_fd());
    let (stream, dgram, raw) = (libc::SOCK_STREAM.into(), libc::SOCK_DGRAM.into(), libc::SOCK_RAW.into());
    let sigkill = libc::SIGKILL.into();
    vec![
        ("socket-inet", libc::SYS_socket, [libc::AF_INET.into(), stream, 0, 0, 0, 0]),
        ("socket-inet6", libc::SYS_socket, [libc::AF_INET6.into(), dgram, 0, 0, 0, 0]),
        ("socket-unix", libc::SYS_socket, [libc::AF_UNIX.into(), stream, 0, 0, 0, 0]),
        ("socket-netlink", libc::SYS_socket, [libc::AF_NETLINK.into(), raw, 0, 0, 0, 0]),
        ("socket-packet", libc::SYS_socket, [libc::AF_PACKET.into(), raw, 0, 0, 0, 0]),
        ("socketpair-inet", libc::SYS_socketpair, [libc::AF_INET.into(), stream, 0, room(), 0, 0]),
        ("bind", libc::SYS_bind, [socket, address(), 16, 0, 0, 0]),
        ("connect", libc::SYS_connect, [socket, address(), 16, 0, 0, 0]),
        ("listen", libc::SYS_listen, [socket, 1, 0, 0, 0, 0]),
        ("sendto", libc::SYS_sendto, [socket, room(), 1, 0, address(), 16]),
        ("sendmsg", libc::SYS_sendmsg, [socket, room(), 0, 0, 0, 0]),
        ("sendmmsg", libc::SYS_sendmmsg, [socket, room(), 1, 0, 0, 0]),
        ("fork", libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
        ("vfork", libc::SYS_clone3, [room(), 88, 0, 0, 0, 0]),
        ("execve", libc::SYS_execve, [text(c"/bin/sh"), room(), room(), 0, 0, 0]),
        ("execveat", libc::SYS_execveat, [socket, text(c""), room(), room(), libc::AT_EMPTY_PATH.into(), 0]),
        ("mount", libc::SYS_mount, [text(c"none"), text(c"/mounts"), text(c"tmpfs"), 0, 0, 0]),
        ("umount", libc::SYS_umount2, [text(c"/cache"), 0, 0, 0, 0, 0]),
        ("open-tree", libc::SYS_open_tree, [libc::AT_FDCWD.into(), text(c"/"), 1, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0, 0]),
        ("pivot-root", libc::SYS_pivot_root, [text(c"."), text(c"."), 0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [text(c"/cache"), 0, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [socket, 0, 0, 0, 0, 0]),
        ("unshare-user", libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0]),
        ("unshare-mounts", libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), parent, 0, 0, 0, 0]),
        ("read-memory", libc::SYS_process_vm_readv, [parent, room(), 1, room(), 1, 0]),
        ("pidfd-open", libc::SYS_pidfd_open, [parent, 0, 0, 0, 0, 0]),
        ("kill", libc::SYS_kill, [parent, 0, 0, 0, 0, 0]),
        ("kill-thread", libc::SYS_tgkill, [parent, parent, sigkill, 0, 0, 0]),
        ("queue-signal", libc::SYS_rt_sigqueueinfo, [parent, sigkill, room(), 0, 0, 0]),
        ("setuid", libc::SYS_setuid, [0; 6]),
        ("setresuid", libc::SYS_setresuid, [0; 6]),
        ("setgroups", libc::SYS_setgroups, [0; 6]),
        ("capset", libc::SYS_capset, [room(), room(), 0, 0, 0, 0]),
        ("dumpable", libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0]),
        ("keep-agent-out", libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, room(), 128, 0, 0, 0]),
        ("seccomp", libc::SYS_seccomp, [0; 6]),
        ("keyctl", libc::SYS_keyctl, [0; 6]),
        ("add-key", libc::SYS_add_key, [text(c"user"), text(c"x"), room(), 1, -3, 0]),
        ("io-uring", libc::SYS_io_uring_setup, [8, room(), 0, 0, 0, 0]),
        ("perf", libc::SYS_perf_event_open, [room(), 0, -1, -1, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0; 6]),
        ("module", libc::SYS_finit_module, [socket, text(c""), 0, 0, 0, 0]),
        ("kexec", libc::SYS_kexec_load, [0; 6]),
        ("reboot", libc::SYS_reboot, [0; 6]),
        ("clock", libc::SYS_clock_settime, [0, room(), 0, 0, 0, 0]),
        ("hostname", libc::SYS_sethostname, [text(c"x"), 1, 0, 0, 0, 0]),
        ("limits", libc::SYS_prlimit64, [0, libc::RLIMIT_NPROC as c_long, room(), 0, 0, 0]),
        ("limits-of-parent", libc::SYS_prlimit64, [parent, libc::RLIMIT_CORE as c_long, 0, room(), 0, 0]),
        ("handle", libc::SYS_open_by_handle_at, [socket, room(), 0, 0, 0, 0]),
        ("type-into-terminal", libc::SYS_ioctl, [socket, libc::TIOCSTI as c_long, room(), 0, 0, 0]),
        ("own-processes", libc::SYS_setpgid, [own, parent, 0, 0, 0, 0]),
    ]
}

fn files() -> Vec<(&'static str, io::Result<()>)> {
    let node = |path: &'static std::ffi::CStr| {
        call(libc::SYS_mknodat, [libc::AT_FDCWD.into(), text(path), (libc::S_IFCHR | 0o666).into(), 0x103, 0, 0])
    };
    vec![
        ("passwd", fs::read("/etc/passwd").map(drop)),
        ("+itself", fs::read("/proc/self/comm").map(drop)),
        ("itself-written", fs::write("/proc/self/comm", "x")),
        ("proc-root", fs::read_dir("/proc/self/root").map(drop)),
        ("agent", fs::metadata(format!("/proc/{}", nix::unistd::getppid())).map(drop)),
        ("processes", fs::read_dir("/proc").map(drop)),
        ("settings", fs::metadata("/proc/sys").map(drop)),
        ("sys", fs::read_dir("/sys").map(drop)),
        ("root", fs::read_dir("/").map(drop)),
        ("old-root", fs::read_dir("/old").map(drop)),
        ("above", fs::read("/cache/../../../../etc/passwd").map(drop)),
        ("new-in-root", fs::write("/new", "x")),
        ("new-mount", fs::create_dir("/mounts/new")),
        ("device", node(c"/cache/null")),
        ("null", File::open("/dev/null").map(drop)),
        ("link", std::os::unix::fs::symlink("/etc", "/cache/etc")),
        ("move-out", fs::rename("/cache/own", "/artifacts/own")),
        ("give-away", std::os::unix::fs::chown("/cache", Some(0), Some(0))),
    ]
}

/// What a host does all the time. Their names begin with a plus.
fn needed() -> Vec<(&'static str, io::Result<()>)> {
    let thread = || std::thread::spawn(|| 1).join().map(drop).map_err(|_| io::ErrorKind::Other.into());
    let module = || -> io::Result<()> {
        fs::write("/artifacts/module", "x")?;
        fs::remove_file("/artifacts/module")
    };
    let cache = || -> io::Result<()> {
        fs::write("/cache/.new", "x")?;
        fs::rename("/cache/.new", "/cache/new")?;
        fs::read("/cache/new").map(drop)
    };
    let terminal = || -> io::Result<()> {
        let master = nix::pty::posix_openpt(nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY)?;
        nix::pty::grantpt(&master)?;
        nix::pty::unlockpt(&master)?;
        let own = File::options().read(true).custom_flags(libc::O_NOCTTY).open(nix::pty::ptsname_r(&master)?);
        own.map(drop)
    };
    vec![
        ("+thread", thread()),
        ("+module", module()),
        ("+cache", cache()),
        ("+terminal", terminal()),
        ("+pair", std::os::unix::net::UnixStream::pair().map(drop)),
    ]
}
