//! Files and directories that guests open: opened without waiting for anybody, and counted.
//!
//! wasmtime-wasi's `open-at` would wait on one of the few threads for files until somebody opens the other end of a named pipe. The
//! functions here stand in the place of its own. They never wait: a named pipe is opened like all else, is seen to be
//! one, and is refused (guests read and write at offsets, which a pipe has not). To look first and open then would leave a
//! moment in which another container of the Pod could put a pipe in a file's place.
//!
//! What a container has open is counted over all its instances, since it is files of this process.

mod preview_1;

use std::fs::File as StdFile;
use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, Dir, File, OpenMode};
use wasmtime_wasi::p2::bindings::filesystem::types as p2;
use wasmtime_wasi::p3::bindings::filesystem::types as p3;
use wasmtime_wasi::runtime::spawn_blocking;

pub(crate) use preview_1::{Directories, add_to_linker as add_preview_1};

use crate::state::ComponentState;

/// Attempts at what a rename anywhere on the machine may interrupt.
const ATTEMPTS: usize = 4;

/// What one container has open.
pub(crate) struct OpenFiles {
    most: usize,
    open: Mutex<Vec<Weak<StdFile>>>,
}

impl OpenFiles {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// Counts `file` until it is closed, unless there are enough already.
    fn admit(&self, file: &Arc<StdFile>) -> Result<(), Refused> {
        let mut open = self.open.lock();
        if open.len() >= self.most {
            open.retain(|file| file.strong_count() > 0);
        }
        if open.len() >= self.most {
            return Err(Refused::TooMany);
        }
        open.push(Arc::downgrade(file));
        Ok(())
    }
}

/// How a guest wants something opened.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    follow: bool,
    create: bool,
    directory: bool,
    exclusive: bool,
    truncate: bool,
    read: bool,
    write: bool,
    synchronous: bool,
}

/// Why something is not opened.
#[derive(Debug)]
enum Refused {
    /// The container has as many files open as it may.
    TooMany,
    /// A named pipe, or a way of writing that is not offered.
    Unsupported,
    Invalid,
    NotDirectory,
    /// The mount is read-only, or the path leads out of it.
    NotPermitted,
    Failed(io::Error),
}

impl How {
    fn changes(self) -> bool {
        self.create || self.truncate || self.write
    }

    fn mode(self) -> OpenMode {
        let mut mode = OpenMode::empty();
        mode.set(OpenMode::WRITE, self.changes());
        // What is not opened to be written to is opened to be read: the system wants one of both.
        mode.set(OpenMode::READ, self.read || !self.write);
        mode
    }

    /// All but what the mount may forbid.
    fn check(self) -> Result<(), Refused> {
        if self.synchronous {
            return Err(Refused::Unsupported);
        }
        let makes = self.create || self.exclusive || self.truncate;
        if self.directory && makes { Err(Refused::Invalid) } else { Ok(()) }
    }

    fn flags(self) -> OFlags {
        let access = match (self.mode().contains(OpenMode::READ), self.changes()) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (_, false) => OFlags::RDONLY,
        };
        let mut flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        flags.set(OFlags::CREATE, self.create);
        flags.set(OFlags::EXCL, self.create && self.exclusive);
        flags.set(OFlags::TRUNC, self.truncate);
        flags.set(OFlags::NOFOLLOW, !self.follow);
        flags
    }
}

/// Opens what lies at `path` below `dir`.
async fn open(files: &OpenFiles, dir: &Dir, path: String, how: How) -> Result<Descriptor, Refused> {
    how.check()?;
    if dir.perms.write_not_permitted() && how.changes() {
        return Err(Refused::NotPermitted);
    }
    let below = Arc::clone(&dir.dir);
    let (file, kind) = spawn_blocking(move || open_now(&below, &path, how)).await?;
    let opened = match kind {
        FileType::Directory => Descriptor::Dir(Dir::new(file, dir.perms, how.mode(), false)),
        _ if how.directory => return Err(Refused::NotDirectory),
        FileType::Fifo => return Err(Refused::Unsupported),
        _ => Descriptor::File(File::new(file, dir.perms, how.mode(), false)),
    };
    match &opened {
        Descriptor::Dir(dir) => files.admit(&dir.dir)?,
        Descriptor::File(file) => files.admit(&file.file)?,
    }
    Ok(opened)
}

/// The kernel sees to it that no link and no `..` leads out. Nothing is waited for.
fn open_now(dir: &StdFile, path: &str, how: How) -> Result<(StdFile, FileType), Refused> {
    let (flags, within) = (how.flags(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
    let mode = if how.create { Mode::from_raw_mode(0o666) } else { Mode::empty() };
    let mut attempts = 0;
    let file = loop {
        attempts += 1;
        match openat2(dir, path, flags, mode, within) {
            Ok(file) => break StdFile::from(file),
            Err(Errno::AGAIN) if attempts < ATTEMPTS => {}
            Err(Errno::XDEV) => return Err(Refused::NotPermitted),
            // A named pipe that nobody reads, opened to be written to.
            Err(Errno::NXIO) => return Err(Refused::Unsupported),
            Err(error) => return Err(Refused::Failed(error.into())),
        }
    };
    let stat = fstat(&file).map_err(|error| Refused::Failed(error.into()))?;
    Ok((file, FileType::from_raw_mode(stat.st_mode)))
}

/// Puts these functions into the place of wasmtime-wasi's.
pub(crate) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:filesystem/types@0.2.12")?.func_wrap_async(OPEN_AT, |mut store, asked: Asked2| {
        Box::new(async move {
            let state: &mut ComponentState = store.data_mut();
            Ok((open_at_2(state, asked).await?,))
        })
    })?;
    linker.instance("wasi:filesystem/types@0.3.0")?.func_wrap_concurrent(OPEN_AT, |store, asked: Asked3| {
        Box::pin(async move {
            let (dir, path_flags, path, open_flags, flags) = asked;
            let found = store.with(|mut store| store.get().directory(&dir))?;
            let Some((files, dir)) = found else { return Ok((Err(p3::ErrorCode::NotDirectory),)) };
            let opened = match open(&files, &dir, path, how_3(path_flags, open_flags, flags)).await {
                Ok(opened) => Ok(store.with(|mut store| store.get().table().push(opened))?),
                Err(refused) => Err(code_3(refused)),
            };
            Ok((opened,))
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

const OPEN_AT: &str = "[method]descriptor.open-at";

type Asked2 = (Resource<Descriptor>, p2::PathFlags, String, p2::OpenFlags, p2::DescriptorFlags);
type Asked3 = (Resource<Descriptor>, p3::PathFlags, String, p3::OpenFlags, p3::DescriptorFlags);

async fn open_at_2(
    state: &mut ComponentState,
    (dir, path_flags, path, open_flags, flags): Asked2,
) -> wasmtime::Result<Result<Resource<Descriptor>, p2::ErrorCode>> {
    let Some((files, dir)) = state.directory(&dir)? else { return Ok(Err(p2::ErrorCode::NotDirectory)) };
    match open(&files, &dir, path, how_2(path_flags, open_flags, flags)).await {
        Ok(opened) => Ok(Ok(state.table().push(opened)?)),
        Err(refused) => Ok(Err(code_2(refused))),
    }
}

/// The same words for both versions, whose types are their own.
macro_rules! words {
    ($types:ident, $how:ident, $code:ident) => {
        fn $how(path: $types::PathFlags, open: $types::OpenFlags, flags: $types::DescriptorFlags) -> How {
            use $types::{DescriptorFlags as Flags, OpenFlags as Open};
            let synchronous = Flags::FILE_INTEGRITY_SYNC | Flags::DATA_INTEGRITY_SYNC | Flags::REQUESTED_WRITE_SYNC;
            How {
                follow: path.contains($types::PathFlags::SYMLINK_FOLLOW),
                create: open.contains(Open::CREATE),
                directory: open.contains(Open::DIRECTORY),
                exclusive: open.contains(Open::EXCLUSIVE),
                truncate: open.contains(Open::TRUNCATE),
                read: flags.contains(Flags::READ),
                write: flags.contains(Flags::WRITE),
                synchronous: flags.intersects(synchronous),
            }
        }

        fn $code(refused: Refused) -> $types::ErrorCode {
            match refused {
                Refused::TooMany => $types::ErrorCode::InsufficientMemory,
                Refused::Unsupported => $types::ErrorCode::Unsupported,
                Refused::Invalid => $types::ErrorCode::Invalid,
                Refused::NotDirectory => $types::ErrorCode::NotDirectory,
                Refused::NotPermitted => $types::ErrorCode::NotPermitted,
                Refused::Failed(error) => error.into(),
            }
        }
    };
}

words!(p2, how_2, code_2);
words!(p3, how_3, code_3);
