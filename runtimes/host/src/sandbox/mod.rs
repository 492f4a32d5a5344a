//! How a host locks itself in, before it does anything else: as root, with one thread, it leaves all that it has and can.
//!
//! In this order, since each step takes away what an earlier one needs: descriptors, namespaces and root directory ([`files`]),
//! limits, user, then what it may do to files that it still sees ([`landlock`](rules)), then its system calls ([`calls`]).

mod calls;
mod files;
mod rules;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use nix::sys::prctl::{set_dumpable, set_no_new_privs, set_pdeathsig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getppid, setgroups, setresgid, setresuid, setsid};
use serde::{Deserialize, Serialize};

/// Where the cache of compiled code is in a host's root.
pub(crate) const CACHE: &str = "/cache";
/// Where its containers' mounts are.
pub(crate) const MOUNTS: &str = "/mounts";
/// Where modules lie until they are compiled.
pub(crate) const ARTIFACTS: &str = "/artifacts";

/// Threads (and processes, if it could have any) of a host's user.
const THREADS: u64 = 4096;

/// What a host is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Its user and group.
    pub uid: u32,
    /// An empty directory, over which its root is mounted.
    pub root: PathBuf,
    /// Its cache of compiled code, which belongs to its user.
    pub cache: PathBuf,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {problem}")]
pub struct SandboxError {
    step: &'static str,
    problem: String,
}

/// Names a step's failure.
fn at<E: fmt::Display>(step: &'static str) -> impl Fn(E) -> SandboxError {
    move |error| SandboxError { step, problem: error.to_string() }
}

/// Locks the calling process in, for good. What it has open beyond its standard streams and what is `kept` is closed; its root is a
/// new one, with the cache of `plan` and room for mounts; it has no right and no network, and makes few system calls.
///
/// # Errors
/// When a step fails; what was left is left. The process is to end then.
pub fn enter(plan: &Plan, kept: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
    let parent = getppid();
    alone().map_err(at("look at its threads"))?;
    files::close_others(kept).map_err(at("close what it has inherited"))?;
    // No terminal is its own, into which it could type.
    setsid().map_err(at("leave its session"))?;
    files::leave(plan)?;
    limit().map_err(at("limit itself"))?;
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.uid));
    setgroups(&[]).map_err(at("leave its groups"))?;
    setresgid(gid, gid, gid).map_err(at("become another group"))?;
    setresuid(uid, uid, uid).map_err(at("become another user"))?;
    set_no_new_privs().map_err(at("forgo new privileges"))?;
    set_dumpable(false).map_err(at("hide its memory"))?;
    // Its agent may have ended before this was in force.
    set_pdeathsig(Signal::SIGKILL).map_err(at("end with its agent"))?;
    if getppid() != parent {
        return Err(at("end with its agent")("it is gone"));
    }
    rules::enforce().map_err(at("Landlock (Linux 5.19 and newer)"))?;
    calls::enforce().map_err(at("seccomp"))
}

/// Namespaces, users and rules are a thread's: there must be no other.
fn alone() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 { Ok(()) } else { Err(io::Error::other(format!("there are {threads}"))) }
}

fn limit() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0)?;
    setrlimit(Resource::RLIMIT_MSGQUEUE, 0, 0)?;
    setrlimit(Resource::RLIMIT_NPROC, THREADS, THREADS)
}
