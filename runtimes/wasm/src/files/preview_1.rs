//! `path_open` of preview 1, and what it needs to know.
//!
//! The table of a module's descriptors is wasmtime-wasi's alone: no other file than one that its own `path_open` has opened gets a
//! number. So ours opens the file, and then has wasmtime-wasi's open a stand-in, for which the directory's entry in the
//! table of resources is changed for the moment; the stand-in's entry becomes the file's. Which entry a directory's number
//! means is kept here, and followed through `fd_close` and `fd_renumber`.

use std::collections::HashMap;
use std::sync::LazyLock;

use wasmtime::component::Resource;
use wasmtime::{Caller, Extern};
use wasmtime_wasi::filesystem::{Descriptor, Dir};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::Errno;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as preview_1, WasiSnapshotPreview1 as _};
use wasmtime_wasi::{FsPerms, OpenMode, WasiView as _};
use wiggle::GuestMemory;

use super::{How, Refused, code_2, open};
use crate::program::PREVIEW_1;
use crate::state::ModuleState;

/// The first number of a mount.
const FIRST: i32 = 3;
/// The longest path that the system takes.
const PATH_BYTES: usize = 4096;

/// Bits of `path_open`'s arguments.
const SYMLINK_FOLLOW: i32 = 1;
const OFLAGS: i32 = 0b1111;
const CREAT: i32 = 1;
const DIRECTORY: i32 = 2;
const EXCL: i32 = 4;
const TRUNC: i32 = 8;
const FDFLAGS: i32 = 0b1_1111;
/// Writing through to the disk: `DSYNC`, `RSYNC`, `SYNC`.
const SYNCHRONOUS: i32 = 0b1_1010;
const RIGHTS: i64 = (1 << 30) - 1;
const READ: i64 = 1 << 1;
const WRITE: i64 = 1 << 6;

/// What is opened instead of a guest's file or directory: files that every process of Linux has.
static STAND_IN: LazyLock<std::io::Result<Descriptor>> = LazyLock::new(|| {
    let own = std::fs::File::open("/proc/self")?;
    Ok(Descriptor::Dir(Dir::new(own, FsPerms::ReadOnly, OpenMode::READ, false)))
});
const STAND_IN_FILE: &str = "comm";
const STAND_IN_DIRECTORY: &str = ".";

/// The entries of a module's open directories in its table of resources, by their numbers.
#[derive(Default)]
pub(crate) struct Directories(HashMap<i32, u32>);

impl Directories {
    /// Those of a module that has not run yet: its mounts.
    pub(crate) fn of_mounts(wasi: &mut WasiP1Ctx, mounts: usize) -> wasmtime::Result<Self> {
        let mut directories = HashMap::new();
        // Any call makes wasmtime-wasi fill its tables. Beside the mounts there are the three streams.
        preview_1::fd_tell(wasi, &mut GuestMemory::Unshared(&mut []), 0, 0)?;
        let table = wasi.ctx().table;
        let places = 0..u32::try_from(mounts + 3)?;
        let found = places.filter(|place| matches!(table.get(&entry(*place)), Ok(Descriptor::Dir(_))));
        directories.extend((FIRST..).zip(found));
        wasmtime::ensure!(directories.len() == mounts, "the mounts have no numbers");
        Ok(Self(directories))
    }
}

fn entry(place: u32) -> Resource<Descriptor> {
    Resource::new_borrow(place)
}

/// `path_open`'s arguments: a directory, how its path is followed, where the path lies and its length, what is made of it, the rights
/// wanted of it and of what is below it, its flags, and where its number goes.
type Asked = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// Puts these functions into the place of wasmtime-wasi's.
pub(crate) fn add_to_linker(linker: &mut wasmtime::Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap_async(PREVIEW_1, "path_open", |mut caller: Caller<'_, ModuleState>, asked: Asked| {
        Box::new(async move {
            let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                return Err(wasmtime::Error::msg("missing required memory export"));
            };
            let (memory, state) = memory.data_and_store_mut(&mut caller);
            state.path_open(memory, asked).await
        })
    })?;
    linker.func_wrap_async(PREVIEW_1, "fd_close", |mut caller: Caller<'_, ModuleState>, (fd,): (i32,)| {
        Box::new(async move {
            let state = caller.data_mut();
            let errno = preview_1::fd_close(&mut state.wasi, &mut GuestMemory::Unshared(&mut []), fd).await?;
            if errno == 0 {
                state.directories.0.remove(&fd);
            }
            Ok(errno)
        })
    })?;
    linker.func_wrap_async(
        PREVIEW_1,
        "fd_renumber",
        |mut caller: Caller<'_, ModuleState>, (from, to): (i32, i32)| {
            Box::new(async move {
                let state = caller.data_mut();
                let errno =
                    preview_1::fd_renumber(&mut state.wasi, &mut GuestMemory::Unshared(&mut []), from, to).await?;
                if errno == 0 && from != to {
                    let directories = &mut state.directories.0;
                    match directories.remove(&from) {
                        Some(place) => directories.insert(to, place),
                        None => directories.remove(&to),
                    };
                }
                Ok(errno)
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn failed(errno: Errno) -> wasmtime::Result<i32> {
    Ok(errno as i32)
}

impl ModuleState {
    async fn path_open(&mut self, memory: &mut [u8], asked: Asked) -> wasmtime::Result<i32> {
        let (dirfd, dirflags, path, length, oflags, rights, inheriting, fdflags, opened_at) = asked;
        let Some(place) = self.directories.0.get(&dirfd).copied() else {
            // No directory: wasmtime-wasi says what is wrong with it.
            let memory = &mut GuestMemory::Unshared(memory);
            self.wasi.set_hostcall_fuel(PATH_BYTES);
            return preview_1::path_open(
                &mut self.wasi,
                memory,
                dirfd,
                dirflags,
                path,
                length,
                oflags,
                rights,
                inheriting,
                fdflags,
                opened_at,
            )
            .await;
        };
        let known = dirflags & !SYMLINK_FOLLOW == 0 && oflags & !OFLAGS == 0 && fdflags & !FDFLAGS == 0;
        if !known || (rights | inheriting) & !RIGHTS != 0 {
            return failed(Errno::Inval);
        }
        let path = match text(memory, path, length) {
            Ok(path) => path.to_owned(),
            Err(errno) => return failed(errno),
        };
        if bytes(memory, opened_at, 4).is_none() {
            return failed(Errno::Fault);
        }
        let how = How {
            follow: dirflags & SYMLINK_FOLLOW != 0,
            create: oflags & CREAT != 0,
            directory: oflags & DIRECTORY != 0,
            exclusive: oflags & EXCL != 0,
            truncate: oflags & TRUNC != 0,
            read: rights & READ != 0,
            write: rights & WRITE != 0,
            synchronous: fdflags & SYNCHRONOUS != 0,
        };
        let Descriptor::Dir(dir) = self.wasi.ctx().table.get(&entry(place))?.clone() else {
            return failed(Errno::Notdir);
        };
        let opened = match open(&self.files, &dir, path, how).await {
            Ok(opened) => opened,
            Err(Refused::TooMany) => return failed(Errno::Mfile),
            Err(refused) => return failed(code_2(refused).into()),
        };
        match self.number(dirfd, place, opened, fdflags).await? {
            Ok(fd) => {
                if let Some(out) = bytes(memory, opened_at, 4) {
                    out.copy_from_slice(&fd.to_le_bytes());
                }
                Ok(0)
            }
            Err(errno) => Ok(errno),
        }
    }

    /// Gives `opened` a number; fails with wasmtime-wasi's error where there is none.
    async fn number(
        &mut self,
        dirfd: i32,
        dir: u32,
        opened: Descriptor,
        fdflags: i32,
    ) -> wasmtime::Result<Result<i32, i32>> {
        const NUMBER: usize = 8;
        let stand_in = STAND_IN.as_ref().map_err(|error| wasmtime::Error::msg(format!("/proc/self: {error}")))?.clone();
        let is_directory = matches!(opened, Descriptor::Dir(_));
        let name = if is_directory { STAND_IN_DIRECTORY } else { STAND_IN_FILE };
        let mut memory = [0; NUMBER + 4];
        memory[..name.len()].copy_from_slice(name.as_bytes());

        let table = self.wasi.ctx().table;
        // A table gives the place that was freed last.
        let next = table.push(())?;
        let place = next.rep();
        table.delete(next)?;
        let own = std::mem::replace(table.get_mut(&entry(dir))?, stand_in);
        self.wasi.set_hostcall_fuel(NUMBER);
        let (length, number) = (i32::try_from(name.len())?, i32::try_from(NUMBER)?);
        let outcome = preview_1::path_open(
            &mut self.wasi,
            &mut GuestMemory::Unshared(&mut memory),
            dirfd,
            0,
            0,
            length,
            0,
            READ,
            0,
            fdflags,
            number,
        )
        .await;
        let table = self.wasi.ctx().table;
        *table.get_mut(&entry(dir))? = own;
        let errno = outcome?;
        if errno != 0 {
            return Ok(Err(errno));
        }
        *table.get_mut(&entry(place))? = opened;
        let fd = i32::from_le_bytes([memory[NUMBER], memory[NUMBER + 1], memory[NUMBER + 2], memory[NUMBER + 3]]);
        if is_directory {
            self.directories.0.insert(fd, place);
        }
        Ok(Ok(fd))
    }
}

fn bytes(memory: &mut [u8], at: i32, length: usize) -> Option<&mut [u8]> {
    let at = at.cast_unsigned() as usize;
    memory.get_mut(at..at.checked_add(length)?)
}

fn text(memory: &mut [u8], at: i32, length: i32) -> Result<&str, Errno> {
    let length = length.cast_unsigned() as usize;
    if length >= PATH_BYTES {
        return Err(Errno::Nametoolong);
    }
    let bytes = bytes(memory, at, length).ok_or(Errno::Fault)?;
    std::str::from_utf8(bytes).map_err(|_| Errno::Ilseq)
}
