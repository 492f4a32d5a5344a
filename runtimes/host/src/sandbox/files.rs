//! An empty root, and no descriptor that leads out of it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, symlink};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, close, pivot_root};

use super::{ARTIFACTS, CACHE, MOUNTS, Plan, SandboxError, at};

const NONE: Option<&str> = None;

/// Closes all but the three standard streams and what is kept.
pub(super) fn close_others(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2 && !kept.iter().any(|kept| kept.as_raw_fd() == *number))
        .collect();
    for number in open {
        // The one that this list was read from is closed already.
        let _closed = close(number);
    }
    Ok(())
}

/// Leaves the machine's files, network and the rest of what has namespaces.
pub(super) fn leave(plan: &Plan) -> Result<(), SandboxError> {
    let kinds = [CloneFlags::CLONE_NEWNS, CloneFlags::CLONE_NEWNET, CloneFlags::CLONE_NEWIPC, CloneFlags::CLONE_NEWUTS];
    unshare(kinds.into_iter().collect()).map_err(at("leave the machine's namespaces"))?;
    root(plan).map_err(at("make its root directory"))?;
    move_in(plan).map_err(at("change to its root directory"))
}

/// Sets up the root at `plan.root`.
fn root(plan: &Plan) -> io::Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let (plain, inert) = (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, MsFlags::MS_NOEXEC);
    let place = |path: &str| plan.root.join(path.trim_start_matches('/'));
    mount(Some("wasm-host"), &plan.root, Some("tmpfs"), plain | inert, Some("mode=755,size=16m"))?;
    for path in [CACHE, MOUNTS, ARTIFACTS, "/dev", "/dev/pts", "/proc", "/old"] {
        DirBuilder::new().mode(0o755).create(place(path))?;
    }
    // Compiled code is run from there.
    mount(Some(&plan.cache), &place(CACHE), NONE, MsFlags::MS_BIND, NONE)?;
    mount(NONE, &place(CACHE), NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | plain, NONE)?;
    let own = format!("mode=700,uid={},gid={},size=512m", plan.uid, plan.uid);
    mount(Some("artifacts"), &place(ARTIFACTS), Some("tmpfs"), plain | inert, Some(own.as_str()))?;
    // Its own processes, of which there is one: open files are opened anew through their links.
    let own = Some("hidepid=invisible,subset=pid");
    mount(Some("proc"), &place("/proc"), Some("proc"), plain | inert, own)?;
    // Terminals of its own, for `kubectl exec -t`.
    let terminals = "newinstance,ptmxmode=666,mode=600";
    mount(Some("devpts"), &place("/dev/pts"), Some("devpts"), MsFlags::MS_NOSUID | inert, Some(terminals))?;
    symlink("pts/ptmx", place("/dev/ptmx"))
}

fn move_in(plan: &Plan) -> io::Result<()> {
    chdir(&plan.root)?;
    pivot_root(".", "old")?;
    chdir("/")?;
    umount2("/old", MntFlags::MNT_DETACH)?;
    fs::remove_dir("/old")
}
