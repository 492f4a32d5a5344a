//! Open files and directories: `fd_*`.

use crate::abi::{self, Fdstat, errno, fdflags, filetype, oflags, rights};
use crate::sys::{self, DATA, FIXED, NONE, outcome};

pub(crate) fn preopens() {
    for (fd, name) in [(DATA, "/data"), (FIXED, "/fixed")] {
        let mut prestat = [9, 0];
        assert_eq!(unsafe { abi::fd_prestat_get(fd, &mut prestat) }, errno::SUCCESS);
        assert_eq!((prestat[0] as u8, prestat[1] as usize), (0, name.len()));
        let mut read = vec![0; name.len()];
        assert_eq!(unsafe { abi::fd_prestat_dir_name(fd, read.as_mut_ptr(), read.len()) }, errno::SUCCESS);
        assert_eq!(read, name.as_bytes());
        let short = unsafe { abi::fd_prestat_dir_name(fd, read.as_mut_ptr(), name.len() - 1) };
        assert_eq!(short, errno::NAMETOOLONG);
        assert_eq!(sys::stat(fd).unwrap().filetype, filetype::DIRECTORY);
    }
    let mut prestat = [0; 2];
    assert_eq!(unsafe { abi::fd_prestat_get(FIXED + 1, &mut prestat) }, errno::BADF, "there is a third");
    assert_eq!(unsafe { abi::fd_prestat_dir_name(1, [0; 8].as_mut_ptr(), 8) }, errno::NOTDIR);
}

fn seek(fd: i32, offset: i64, whence: i32) -> sys::Result<u64> {
    let mut position = 0;
    outcome(unsafe { abi::fd_seek(fd, offset, whence, &mut position) }, ()).map(|()| position)
}

fn tell(fd: i32) -> sys::Result<u64> {
    let mut position = 0;
    outcome(unsafe { abi::fd_tell(fd, &mut position) }, ()).map(|()| position)
}

pub(crate) fn content() {
    let fd = sys::open(DATA, "content", oflags::CREAT | oflags::EXCL, rights::READ | rights::WRITE, 0).unwrap();
    assert_eq!(sys::write(fd, "0123456789"), Ok(10));
    assert_eq!((tell(fd), sys::read(fd, 4)), (Ok(10), Ok(String::new())));
    assert_eq!((seek(fd, 2, 0), sys::read(fd, 3)), (Ok(2), Ok("234".into())));
    assert_eq!((seek(fd, -1, 1), sys::read(fd, 1)), (Ok(4), Ok("4".into())));
    assert_eq!((seek(fd, -2, 2), sys::read(fd, 9)), (Ok(8), Ok("89".into())));
    assert_eq!((seek(fd, -1, 0), seek(fd, -99, 2)), (Err(errno::INVAL), Err(errno::INVAL)));
    // Neither moves the position.
    assert_eq!((sys::pread(fd, 2, 5), sys::pwrite(fd, "AB", 5), tell(fd)), (Ok("56".into()), Ok(2), Ok(10)));
    assert_eq!(sys::pread(fd, 10, 0), Ok("01234AB789".into()));

    let set_size = |size| outcome(unsafe { abi::fd_filestat_set_size(fd, size) }, ());
    set_size(4).unwrap();
    assert_eq!((sys::stat(fd).unwrap().size, sys::pread(fd, 10, 0)), (4, Ok("0123".into())));
    set_size(6).unwrap();
    assert_eq!(sys::pread(fd, 10, 0), Ok("0123\0\0".into()));
    assert_eq!(set_size(-1), Err(errno::INVAL));
    for advice in 0..=5 {
        assert_eq!(unsafe { abi::fd_advise(fd, 0, 4, advice) }, errno::SUCCESS);
    }
    assert_eq!(unsafe { abi::fd_allocate(fd, 0, 4) }, errno::NOTSUP);
    assert_eq!(unsafe { [abi::fd_sync(fd), abi::fd_datasync(fd)] }, [errno::SUCCESS; 2]);
    sys::close(fd).unwrap();

    let closed = unsafe {
        [
            abi::fd_advise(fd, 0, 0, 0),
            abi::fd_allocate(fd, 0, 1),
            abi::fd_sync(fd),
            abi::fd_datasync(fd),
            abi::fd_filestat_set_size(fd, 1),
            abi::fd_close(fd),
        ]
    };
    assert_eq!(closed, [errno::BADF; 6]);
    assert_eq!(
        (seek(fd, 0, 0), tell(fd), sys::stat(fd).err()),
        (Err(errno::BADF), Err(errno::BADF), Some(errno::BADF))
    );
    sys::unlink(DATA, "content").unwrap();
}

pub(crate) fn descriptor() {
    let fdstat = |fd| {
        let mut stat = Fdstat::default();
        outcome(unsafe { abi::fd_fdstat_get(fd, &mut stat) }, ()).map(|()| stat)
    };
    let set_flags = |fd, flags| outcome(unsafe { abi::fd_fdstat_set_flags(fd, flags) }, ());
    let fd = sys::open(DATA, "appended", oflags::CREAT, rights::READ | rights::WRITE, fdflags::APPEND).unwrap();
    let stat = fdstat(fd).unwrap();
    assert_eq!((stat.filetype, i32::from(stat.flags)), (filetype::REGULAR, fdflags::APPEND));
    assert_eq!((sys::write(fd, "ab"), sys::pwrite(fd, "cd", 0)), (Ok(2), Ok(2)), "an offset is no matter");
    assert_eq!(sys::pread(fd, 9, 0), Ok("abcd".into()));
    set_flags(fd, 0).unwrap();
    assert_eq!(
        (fdstat(fd).unwrap().flags, sys::pwrite(fd, "X", 0), sys::pread(fd, 9, 0)),
        (0, Ok(1), Ok("Xbcd".into()))
    );
    set_flags(fd, fdflags::NONBLOCK).unwrap();
    assert_eq!(i32::from(fdstat(fd).unwrap().flags), fdflags::NONBLOCK);
    assert_eq!((set_flags(fd, fdflags::DSYNC), set_flags(NONE, 0)), (Err(errno::INVAL), Err(errno::BADF)));
    let set_rights = |fd| unsafe { abi::fd_fdstat_set_rights(fd, 0, 0) };
    assert_eq!((set_rights(fd), set_rights(NONE)), (errno::NOTSUP, errno::BADF));
    assert_eq!((fdstat(NONE).err(), fdstat(DATA).unwrap().filetype), (Some(errno::BADF), filetype::DIRECTORY));
    sys::close(fd).unwrap();
    sys::unlink(DATA, "appended").unwrap();
}

pub(crate) fn times() {
    sys::put(DATA, "dated", "");
    let fd = sys::open(DATA, "dated", 0, rights::READ | rights::WRITE, 0).unwrap();
    let set = |atim, mtim, flags| outcome(unsafe { abi::fd_filestat_set_times(fd, atim, mtim, flags) }, ());
    set(1_000_000_001, 2_000_000_002, 1 | 4).unwrap();
    let stat = sys::stat(fd).unwrap();
    assert_eq!((stat.atim, stat.mtim, stat.nlink, stat.filetype), (1_000_000_001, 2_000_000_002, 1, filetype::REGULAR));
    set(0, 0, 8).unwrap();
    let now = sys::stat(fd).unwrap();
    assert!(now.atim == 1_000_000_001 && now.mtim > 1_700_000_000_000_000_000, "{now:?}");
    assert_eq!(set(0, 0, 1 | 2), Err(errno::INVAL), "a time and now");

    let set_at = |path: &str| {
        let errno = unsafe { abi::path_filestat_set_times(DATA, 1, path.as_ptr(), path.len(), 3, 4, 1 | 4) };
        outcome(errno, ())
    };
    set_at("dated").unwrap();
    let stat = sys::stat_at(DATA, 1, "dated").unwrap();
    assert_eq!((stat.atim, stat.mtim, stat.ino), (3, 4, now.ino));
    assert_eq!((set_at("missing"), set_at("../dated")), (Err(errno::NOENT), Err(errno::PERM)));
    sys::close(fd).unwrap();
    sys::unlink(DATA, "dated").unwrap();
}

pub(crate) fn renumber() {
    sys::put(DATA, "first", "1");
    sys::put(DATA, "second", "2");
    let [first, second] = ["first", "second"].map(|name| sys::open(DATA, name, 0, rights::READ, 0).unwrap());
    let renumber = |from, to| outcome(unsafe { abi::fd_renumber(from, to) }, ());
    renumber(first, second).unwrap();
    assert_eq!((sys::read(second, 1), sys::read(first, 1)), (Ok("1".into()), Err(errno::BADF)));
    assert_eq!(
        (renumber(second, second), renumber(NONE, second), renumber(second, NONE)),
        (Ok(()), Err(errno::BADF), Err(errno::BADF))
    );
    // A directory goes on being one under its new number, and a number that was a directory's may be a file's.
    sys::close(second).unwrap();
    let dir = sys::open(DATA, ".", oflags::DIRECTORY, 0, 0).unwrap();
    let file = sys::open(dir, "first", 0, rights::READ, 0).unwrap();
    renumber(dir, file).unwrap();
    assert_eq!(sys::open(dir, "second", 0, rights::READ, 0), Err(errno::BADF));
    let opened = sys::open(file, "second", 0, rights::READ, 0).unwrap();
    assert_eq!((opened, sys::read(opened, 9)), (dir, Ok("2".into())));
    assert_eq!(sys::open(opened, "second", 0, rights::READ, 0), Err(errno::NOTDIR));
    for fd in [opened, file] {
        sys::close(fd).unwrap();
    }
    assert_eq!(sys::open(file, "second", 0, rights::READ, 0), Err(errno::BADF));
    for name in ["first", "second"] {
        sys::unlink(DATA, name).unwrap();
    }
}

/// The names in a directory from a cookie on, read with a buffer of this size, and whether that was full.
fn names(fd: i32, size: usize, cookie: i64) -> sys::Result<Vec<(String, u8, u64)>> {
    let (mut buffer, mut used) = (vec![0u8; size], 0);
    outcome(unsafe { abi::fd_readdir(fd, buffer.as_mut_ptr(), size, cookie, &mut used) }, ())?;
    let (mut names, mut rest) = (Vec::new(), &buffer[..used]);
    while rest.len() >= 24 {
        let next = u64::from_le_bytes(rest[..8].try_into().unwrap());
        let length = u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
        if rest.len() < 24 + length {
            break;
        }
        names.push((String::from_utf8(rest[24..24 + length].to_vec()).unwrap(), rest[20], next));
        rest = &rest[24 + length..];
    }
    Ok(names)
}

pub(crate) fn directory() {
    let path = "listed";
    assert_eq!(unsafe { abi::path_create_directory(DATA, path.as_ptr(), path.len()) }, errno::SUCCESS);
    let dir = sys::open(DATA, path, oflags::DIRECTORY, rights::READ, 0).unwrap();
    for name in ["one", "two", "three"] {
        sys::put(dir, name, name);
    }
    let all = names(dir, 4096, 0).unwrap();
    let mut seen: Vec<(&str, u8)> = all.iter().map(|(name, kind, _)| (name.as_str(), *kind)).collect();
    seen.sort_unstable();
    let file = filetype::REGULAR;
    assert_eq!(
        seen,
        [(".", filetype::DIRECTORY), ("..", filetype::DIRECTORY), ("one", file), ("three", file), ("two", file)]
    );
    // By small steps, each from the last one's cookie on.
    let (mut cookie, mut stepped) = (0, Vec::new());
    while let Some((name, _, next)) = names(dir, 32, cookie).unwrap().into_iter().next() {
        stepped.push(name);
        cookie = next as i64;
    }
    assert_eq!(stepped.len(), 5, "{stepped:?}");
    assert_eq!((names(NONE, 64, 0).err(), names(1, 64, 0).err()), (Some(errno::BADF), Some(errno::BADF)));
    for name in ["one", "two", "three"] {
        sys::unlink(dir, name).unwrap();
    }
    sys::close(dir).unwrap();
    assert_eq!(unsafe { abi::path_remove_directory(DATA, path.as_ptr(), path.len()) }, errno::SUCCESS);
}
