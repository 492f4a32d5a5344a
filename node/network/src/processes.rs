//! A process namespace that the containers of a Pod share (`shareProcessNamespace`).
//!
//! A PID namespace lives as long as its first process, and no container may be that one: any of them may be restarted. So the
//! agent starts this binary again as [`POD_INIT_COMMAND`]: it reaps what containers leave behind, and outlives them and the
//! agent.
//!
//! Containers see it as process 1, and one with SYS_PTRACE may look into it. So it is nobody, without a capability, in an empty
//! root filesystem of its own, and its program lies on a read-only mount: nothing of the machine is reached through it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, chdir, pivot_root, setgroups, setresgid, setresuid};
use parking_lot::Mutex;

use crate::netns;

/// The hidden subcommand under which the binary runs [`pod_init_main`].
pub const POD_INIT_COMMAND: &str = "pod-init";

const NOBODY: u32 = 65_535;
const NONE: Option<&str> = None;

/// One Pod's.
#[derive(Debug)]
pub(crate) struct PodProcesses {
    dir: PathBuf,
    /// Where this life of the agent started it.
    init: Mutex<Option<Child>>,
}

/// The namespace's pin, and the note of who its first process is.
fn places(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("pid"), dir.join("pid.init"))
}

impl PodProcesses {
    /// Below `dir`; nothing is made yet.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, init: Mutex::default() }
    }

    /// The namespace's file. Makes the namespace where there is none, or where its first process, and all others with it, has
    /// been ended by somebody.
    pub(crate) fn open_or_create(&self) -> io::Result<PathBuf> {
        let mut init = self.init.lock();
        let (pin, note) = places(&self.dir);
        if first_process(&note).is_some() && netns::is_namespace(&pin)? {
            return Ok(pin);
        }
        end(&self.dir)?;
        reap(init.take());
        fs::create_dir_all(&self.dir)?;
        let mut child = start(&self.dir)?;
        let made = (|| {
            let namespace = format!("/proc/{}/ns/pid", child.id());
            fs::write(&note, format!("{} {}", child.id(), fs::metadata(&namespace)?.ino()))?;
            File::create(&pin)?;
            Ok(mount(Some(&*namespace), &pin, NONE, MsFlags::MS_BIND, NONE)?)
        })();
        if made.is_err() {
            drop(child.kill());
        }
        *init = Some(child);
        made.map(|()| pin)
    }

    /// Waits for the first process, which has been ended.
    pub(crate) fn reap(&self) {
        reap(self.init.lock().take());
    }
}

fn reap(init: Option<Child>) {
    if let Some(mut init) = init {
        drop((init.kill(), init.wait()));
    }
}

/// The noted process, where it is that one still.
fn first_process(note: &Path) -> Option<Pid> {
    let text = fs::read_to_string(note).ok()?;
    let (pid, namespace) = text.split_once(' ')?;
    let now = fs::metadata(format!("/proc/{pid}/ns/pid")).ok()?.ino();
    (namespace.parse() == Ok(now)).then(|| pid.parse().ok()).flatten().map(Pid::from_raw)
}

/// Ends the namespace below `dir` with all its processes. Idempotent.
pub(crate) fn end(dir: &Path) -> io::Result<()> {
    let (pin, note) = places(dir);
    if let Some(pid) = first_process(&note) {
        let _gone_meanwhile = kill(pid, Signal::SIGKILL);
    }
    netns::remove(&pin)?;
    match fs::remove_file(&note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Starts the first process and waits until it has left the machine's files.
fn start(dir: &Path) -> io::Result<Child> {
    let program = std::env::current_exe()?;
    let dir = dir.to_owned();
    // Namespaces belong to a thread: this one makes them, and its child is born into them.
    let started = std::thread::spawn(move || -> io::Result<Child> {
        let kinds = [
            CloneFlags::CLONE_NEWPID,
            CloneFlags::CLONE_NEWNS,
            CloneFlags::CLONE_NEWNET,
            CloneFlags::CLONE_NEWIPC,
            CloneFlags::CLONE_NEWUTS,
        ];
        unshare(kinds.into_iter().collect())?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("pod"), &dir, Some("tmpfs"), plain, Some("mode=755,size=64k"))?;
        fs::create_dir(dir.join("old"))?;
        let init = dir.join("init");
        File::create(&init)?;
        mount(Some(&program), &init, NONE, MsFlags::MS_BIND, NONE)?;
        mount(NONE, &init, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | plain, NONE)?;
        Command::new(init)
            .arg0("/pause")
            .arg(POD_INIT_COMMAND)
            .current_dir(&dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal is for the agent.
            .process_group(0)
            .spawn()
    });
    let mut child = started.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))?;
    let mut ready = [0];
    let answered = child.stdout.take().map_or(Ok(()), |mut stdout| stdout.read_exact(&mut ready));
    if let Err(error) = answered {
        reap(Some(child));
        return Err(io::Error::other(format!("the Pod's first process did not start: {error}")));
    }
    Ok(child)
}

/// The first process itself. Returns only when it cannot become that.
///
/// # Errors
/// When it is not the first of a namespace, or the kernel refuses a step.
pub fn pod_init_main() -> io::Result<()> {
    if Pid::this().as_raw() != 1 {
        return Err(io::Error::other("this is started by the agent alone"));
    }
    pivot_root(".", "old")?;
    chdir("/")?;
    umount2("/old", MntFlags::MNT_DETACH)?;
    fs::remove_dir("/old")?;
    mount(NONE, "/", NONE, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, NONE)?;
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    set_no_new_privs()?;
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    ended.thread_block()?;
    let mut out = io::stdout();
    out.write_all(b"\n").and_then(|()| out.flush())?;
    loop {
        ended.wait()?;
        // One signal may stand for many.
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
    }
}
