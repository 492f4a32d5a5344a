//! All of `wasi_snapshot_preview1`, as it is imported.

/// Errors, by the numbers of the specification.
pub(crate) mod errno {
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const BADF: i32 = 8;
    pub(crate) const EXIST: i32 = 20;
    pub(crate) const INVAL: i32 = 28;
    pub(crate) const ISDIR: i32 = 31;
    pub(crate) const LOOP: i32 = 32;
    pub(crate) const MFILE: i32 = 33;
    pub(crate) const NAMETOOLONG: i32 = 37;
    pub(crate) const NOENT: i32 = 44;
    pub(crate) const NOTDIR: i32 = 54;
    pub(crate) const NOTEMPTY: i32 = 55;
    pub(crate) const NOTSOCK: i32 = 57;
    pub(crate) const NOTSUP: i32 = 58;
    pub(crate) const PERM: i32 = 63;
    pub(crate) const SPIPE: i32 = 70;
}

pub(crate) mod oflags {
    pub(crate) const CREAT: i32 = 1;
    pub(crate) const DIRECTORY: i32 = 2;
    pub(crate) const EXCL: i32 = 4;
    pub(crate) const TRUNC: i32 = 8;
}

pub(crate) mod rights {
    pub(crate) const READ: i64 = 2;
    pub(crate) const WRITE: i64 = 64;
}

pub(crate) mod fdflags {
    pub(crate) const APPEND: i32 = 1;
    pub(crate) const DSYNC: i32 = 2;
    pub(crate) const NONBLOCK: i32 = 4;
}

pub(crate) mod filetype {
    pub(crate) const UNKNOWN: u8 = 0;
    pub(crate) const DIRECTORY: u8 = 3;
    pub(crate) const REGULAR: u8 = 4;
    pub(crate) const SYMLINK: u8 = 7;
}

/// A piece of memory to read into or write from.
#[repr(C)]
pub(crate) struct Iovec {
    pub(crate) buf: *mut u8,
    pub(crate) len: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Fdstat {
    pub(crate) filetype: u8,
    pub(crate) flags: u16,
    pub(crate) rights_base: u64,
    pub(crate) rights_inheriting: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Filestat {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) filetype: u8,
    pub(crate) nlink: u64,
    pub(crate) size: u64,
    pub(crate) atim: u64,
    pub(crate) mtim: u64,
    pub(crate) ctim: u64,
}

/// A subscription to a clock (`tag` 0), or to an open file that can be read (1) or written (2), whose number then lies in `id`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Subscription {
    pub(crate) userdata: u64,
    /// One byte; what follows begins at 16.
    pub(crate) tag: u64,
    pub(crate) id: u32,
    pub(crate) timeout: u64,
    pub(crate) precision: u64,
    pub(crate) flags: u16,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Event {
    pub(crate) userdata: u64,
    pub(crate) error: u16,
    pub(crate) kind: u8,
    pub(crate) nbytes: u64,
    pub(crate) flags: u16,
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    pub(crate) fn args_get(argv: *mut *mut u8, buf: *mut u8) -> i32;
    pub(crate) fn args_sizes_get(count: *mut usize, bytes: *mut usize) -> i32;
    pub(crate) fn environ_get(environ: *mut *mut u8, buf: *mut u8) -> i32;
    pub(crate) fn environ_sizes_get(count: *mut usize, bytes: *mut usize) -> i32;
    pub(crate) fn clock_res_get(id: i32, resolution: *mut u64) -> i32;
    pub(crate) fn clock_time_get(id: i32, precision: i64, time: *mut u64) -> i32;
    pub(crate) fn fd_advise(fd: i32, offset: i64, length: i64, advice: i32) -> i32;
    pub(crate) fn fd_allocate(fd: i32, offset: i64, length: i64) -> i32;
    pub(crate) fn fd_close(fd: i32) -> i32;
    pub(crate) fn fd_datasync(fd: i32) -> i32;
    pub(crate) fn fd_fdstat_get(fd: i32, stat: *mut Fdstat) -> i32;
    pub(crate) fn fd_fdstat_set_flags(fd: i32, flags: i32) -> i32;
    pub(crate) fn fd_fdstat_set_rights(fd: i32, base: i64, inheriting: i64) -> i32;
    pub(crate) fn fd_filestat_get(fd: i32, stat: *mut Filestat) -> i32;
    pub(crate) fn fd_filestat_set_size(fd: i32, size: i64) -> i32;
    pub(crate) fn fd_filestat_set_times(fd: i32, atim: i64, mtim: i64, flags: i32) -> i32;
    pub(crate) fn fd_pread(fd: i32, iovs: *const Iovec, count: usize, offset: i64, read: *mut usize) -> i32;
    pub(crate) fn fd_prestat_get(fd: i32, prestat: *mut [u32; 2]) -> i32;
    pub(crate) fn fd_prestat_dir_name(fd: i32, path: *mut u8, length: usize) -> i32;
    pub(crate) fn fd_pwrite(fd: i32, iovs: *const Iovec, count: usize, offset: i64, written: *mut usize) -> i32;
    pub(crate) fn fd_read(fd: i32, iovs: *const Iovec, count: usize, read: *mut usize) -> i32;
    pub(crate) fn fd_readdir(fd: i32, buf: *mut u8, length: usize, cookie: i64, used: *mut usize) -> i32;
    pub(crate) fn fd_renumber(from: i32, to: i32) -> i32;
    pub(crate) fn fd_seek(fd: i32, offset: i64, whence: i32, position: *mut u64) -> i32;
    pub(crate) fn fd_sync(fd: i32) -> i32;
    pub(crate) fn fd_tell(fd: i32, position: *mut u64) -> i32;
    pub(crate) fn fd_write(fd: i32, iovs: *const Iovec, count: usize, written: *mut usize) -> i32;
    pub(crate) fn path_create_directory(fd: i32, path: *const u8, length: usize) -> i32;
    pub(crate) fn path_filestat_get(fd: i32, flags: i32, path: *const u8, length: usize, stat: *mut Filestat) -> i32;
    pub(crate) fn path_filestat_set_times(
        fd: i32,
        flags: i32,
        path: *const u8,
        length: usize,
        atim: i64,
        mtim: i64,
        fst_flags: i32,
    ) -> i32;
    pub(crate) fn path_link(
        from: i32,
        flags: i32,
        path: *const u8,
        length: usize,
        to: i32,
        name: *const u8,
        name_length: usize,
    ) -> i32;
    pub(crate) fn path_open(
        fd: i32,
        dirflags: i32,
        path: *const u8,
        length: usize,
        oflags: i32,
        rights: i64,
        inheriting: i64,
        fdflags: i32,
        opened: *mut i32,
    ) -> i32;
    pub(crate) fn path_readlink(
        fd: i32,
        path: *const u8,
        length: usize,
        buf: *mut u8,
        buf_length: usize,
        used: *mut usize,
    ) -> i32;
    pub(crate) fn path_remove_directory(fd: i32, path: *const u8, length: usize) -> i32;
    pub(crate) fn path_rename(
        from: i32,
        path: *const u8,
        length: usize,
        to: i32,
        name: *const u8,
        name_length: usize,
    ) -> i32;
    pub(crate) fn path_symlink(target: *const u8, target_length: usize, fd: i32, path: *const u8, length: usize)
    -> i32;
    pub(crate) fn path_unlink_file(fd: i32, path: *const u8, length: usize) -> i32;
    pub(crate) fn poll_oneoff(
        subscriptions: *const Subscription,
        events: *mut Event,
        count: usize,
        happened: *mut usize,
    ) -> i32;
    pub(crate) fn proc_exit(code: i32) -> !;
    pub(crate) fn proc_raise(signal: i32) -> i32;
    pub(crate) fn random_get(buf: *mut u8, length: usize) -> i32;
    pub(crate) fn sched_yield() -> i32;
    pub(crate) fn sock_accept(fd: i32, flags: i32, accepted: *mut i32) -> i32;
    pub(crate) fn sock_recv(
        fd: i32,
        iovs: *const Iovec,
        count: usize,
        flags: i32,
        read: *mut usize,
        out_flags: *mut u16,
    ) -> i32;
    pub(crate) fn sock_send(fd: i32, iovs: *const Iovec, count: usize, flags: i32, sent: *mut usize) -> i32;
    pub(crate) fn sock_shutdown(fd: i32, how: i32) -> i32;
}
