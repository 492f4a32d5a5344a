//! Undoing mounts, before anything is removed: what is mounted beneath a directory would be removed with it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Removes `dir` with all that is in it, but nothing that is mounted there: while anything is, nothing is removed.
pub(crate) fn remove_all(dir: &Path) -> io::Result<()> {
    unmount_below(dir)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The same of directories that are a Pod's. Who can do no more about it reads why one is left.
pub(crate) fn remove_each(dirs: &[PathBuf]) {
    for dir in dirs {
        if let Err(error) = remove_all(dir) {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a Pod's files");
        }
    }
}

/// Unmounts everything beneath `dir`, the innermost first, and nothing elsewhere. An error says that something still is mounted.
pub(crate) fn unmount_below(dir: &Path) -> io::Result<()> {
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let points = mounted()?.into_iter().map(|mount| mount.point);
    unmount(points.filter(|point| point.starts_with(&dir) && *point != dir).collect())
}

/// Unmounts what is mounted at `place`, and all beneath it.
pub(crate) fn unmount_at(place: &Path) -> io::Result<()> {
    unmount(mounted()?.into_iter().map(|mount| mount.point).filter(|point| point.starts_with(place)).collect())
}

/// A mount of this process's namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Where it is.
    pub(crate) point: PathBuf,
    /// What is mounted, by the name that it was given.
    pub(crate) source: PathBuf,
}

/// All mounts, in the order of mounting.
pub(crate) fn mounted() -> io::Result<Vec<Mounted>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

fn unmount(points: Vec<PathBuf>) -> io::Result<()> {
    let failed = |point: &Path, error: nix::Error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("cannot unmount {}: {error}", point.display()))
    };
    for point in &points {
        // What is unmounted in a copy of a shared mount would be unmounted in the original.
        mount(None::<&str>, point, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(|error| failed(point, error))?;
    }
    // What was mounted later comes later, and may lie on what was mounted before.
    for point in points.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|error| failed(point, error))?;
    }
    Ok(())
}

/// The fifth field of each line, and the second after the dash; white space and backslashes in them are written in octal.
fn parse(mountinfo: &[u8]) -> Vec<Mounted> {
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let mount = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = path(fields.nth(4)?);
        let source = path(fields.skip_while(|field| *field != b"-").nth(2)?);
        Some(Mounted { point, source })
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let text = b"36 35 98:0 /mnt1 /a\\040b/c rw,noatime master:1 - ext3 /dev/root rw\n37 35 98:0 / /x\\134y rw - tmpfs a\\040t rw\n";
        let mounts = [("/a b/c", "/dev/root"), ("/x\\y", "a t")];
        assert_eq!(parse(text), mounts.map(|(point, source)| Mounted { point: point.into(), source: source.into() }));
    }
}
