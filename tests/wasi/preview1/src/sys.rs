//! The calls with their outcome as a value.

use crate::abi::{self, Filestat, Iovec, errno};

/// What a call fails with.
pub(crate) type Result<T> = std::result::Result<T, i32>;

pub(crate) fn outcome<T>(errno: i32, value: T) -> Result<T> {
    if errno == errno::SUCCESS { Ok(value) } else { Err(errno) }
}

/// The first preopen, which can be written to, and the second, which cannot.
pub(crate) const DATA: i32 = 3;
pub(crate) const FIXED: i32 = 4;
/// No descriptor has it.
pub(crate) const NONE: i32 = 999;

type Sizes = unsafe extern "C" fn(*mut usize, *mut usize) -> i32;
type Strings = unsafe extern "C" fn(*mut *mut u8, *mut u8) -> i32;

fn strings(sizes: Sizes, get: Strings) -> Vec<String> {
    let (mut count, mut bytes) = (0, 0);
    assert_eq!(unsafe { sizes(&mut count, &mut bytes) }, 0);
    let (mut pointers, mut buffer) = (vec![std::ptr::null_mut(); count], vec![0u8; bytes]);
    assert_eq!(unsafe { get(pointers.as_mut_ptr(), buffer.as_mut_ptr()) }, 0);
    assert!(pointers.first().is_none_or(|first| *first == buffer.as_mut_ptr()));
    let text = buffer.strip_suffix(&[0]).unwrap_or_default();
    let strings: Vec<String> =
        text.split(|byte| *byte == 0).map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
    if count == 0 { Vec::new() } else { strings }
}

pub(crate) fn arguments() -> Vec<String> {
    strings(abi::args_sizes_get, abi::args_get)
}

pub(crate) fn environment() -> Vec<String> {
    strings(abi::environ_sizes_get, abi::environ_get)
}

pub(crate) fn open(dir: i32, path: &str, oflags: i32, rights: i64, fdflags: i32) -> Result<i32> {
    open_by(dir, 0, path, oflags, rights, fdflags)
}

/// With `follow` 1, a link at the end of the path is followed.
pub(crate) fn open_by(dir: i32, follow: i32, path: &str, oflags: i32, rights: i64, fdflags: i32) -> Result<i32> {
    let mut opened = -1;
    let errno =
        unsafe { abi::path_open(dir, follow, path.as_ptr(), path.len(), oflags, rights, 0, fdflags, &mut opened) };
    outcome(errno, ()).map(|()| opened)
}

pub(crate) fn close(fd: i32) -> Result<()> {
    outcome(unsafe { abi::fd_close(fd) }, ())
}

pub(crate) fn write(fd: i32, text: &str) -> Result<usize> {
    let (iovec, mut written) = (Iovec { buf: text.as_ptr().cast_mut(), len: text.len() }, 0);
    outcome(unsafe { abi::fd_write(fd, &iovec, 1, &mut written) }, ()).map(|()| written)
}

pub(crate) fn pwrite(fd: i32, text: &str, offset: i64) -> Result<usize> {
    let (iovec, mut written) = (Iovec { buf: text.as_ptr().cast_mut(), len: text.len() }, 0);
    outcome(unsafe { abi::fd_pwrite(fd, &iovec, 1, offset, &mut written) }, ()).map(|()| written)
}

pub(crate) fn read(fd: i32, most: usize) -> Result<String> {
    let (mut buffer, mut read) = (vec![0; most], 0);
    let iovec = Iovec { buf: buffer.as_mut_ptr(), len: most };
    outcome(unsafe { abi::fd_read(fd, &iovec, 1, &mut read) }, ())?;
    buffer.truncate(read);
    Ok(String::from_utf8(buffer).unwrap())
}

pub(crate) fn pread(fd: i32, most: usize, offset: i64) -> Result<String> {
    let (mut buffer, mut read) = (vec![0; most], 0);
    let iovec = Iovec { buf: buffer.as_mut_ptr(), len: most };
    outcome(unsafe { abi::fd_pread(fd, &iovec, 1, offset, &mut read) }, ())?;
    buffer.truncate(read);
    Ok(String::from_utf8(buffer).unwrap())
}

pub(crate) fn stat(fd: i32) -> Result<Filestat> {
    let mut stat = Filestat::default();
    outcome(unsafe { abi::fd_filestat_get(fd, &mut stat) }, ()).map(|()| stat)
}

pub(crate) fn stat_at(dir: i32, follow: i32, path: &str) -> Result<Filestat> {
    let mut stat = Filestat::default();
    outcome(unsafe { abi::path_filestat_get(dir, follow, path.as_ptr(), path.len(), &mut stat) }, ()).map(|()| stat)
}

pub(crate) fn unlink(dir: i32, path: &str) -> Result<()> {
    outcome(unsafe { abi::path_unlink_file(dir, path.as_ptr(), path.len()) }, ())
}

/// A file of this name and text.
pub(crate) fn put(dir: i32, path: &str, text: &str) {
    let fd = open(dir, path, abi::oflags::CREAT | abi::oflags::TRUNC, abi::rights::WRITE, 0).unwrap();
    assert_eq!(write(fd, text), Ok(text.len()));
    close(fd).unwrap();
}

pub(crate) fn print(fd: i32, text: &str) {
    let mut rest = text;
    while let Ok(written @ 1..) = write(fd, rest) {
        rest = &rest[written..];
    }
}
