//! What lies at a path: `path_*`.

use crate::abi::{self, errno, filetype, oflags, rights};
use crate::sys::{self, DATA, FIXED, NONE, outcome};

pub(crate) fn open() {
    const BOTH: i64 = rights::READ | rights::WRITE;
    assert_eq!(sys::open(DATA, "opened", 0, BOTH, 0), Err(errno::NOENT));
    sys::put(DATA, "opened", "text");
    assert_eq!(sys::open(DATA, "opened", oflags::CREAT | oflags::EXCL, BOTH, 0), Err(errno::EXIST));
    assert_eq!(sys::open(DATA, "opened", oflags::DIRECTORY, rights::READ, 0), Err(errno::NOTDIR));
    assert_eq!(sys::open(DATA, ".", oflags::DIRECTORY | oflags::CREAT, BOTH, 0), Err(errno::INVAL));
    assert_eq!(sys::open(DATA, ".", 0, BOTH, 0), Err(errno::ISDIR));
    assert_eq!(sys::open(DATA, "opened/below", 0, rights::READ, 0), Err(errno::NOTDIR));
    assert_eq!((sys::open(NONE, "x", 0, BOTH, 0), sys::open(1, "x", 0, BOTH, 0)), (Err(errno::BADF), Err(errno::BADF)));

    let read_only = sys::open(DATA, "opened", 0, rights::READ, 0).unwrap();
    assert_eq!((sys::read(read_only, 9), sys::write(read_only, "x")), (Ok("text".into()), Err(errno::BADF)));
    let write_only = sys::open(DATA, "opened", oflags::TRUNC, rights::WRITE, 0).unwrap();
    assert_eq!((sys::read(write_only, 9), sys::write(write_only, "new")), (Err(errno::BADF), Ok(3)));
    assert_eq!(
        (sys::open(read_only, "x", 0, BOTH, 0), sys::pread(read_only, 9, 0)),
        (Err(errno::NOTDIR), Ok("new".into()))
    );
    for fd in [read_only, write_only] {
        sys::close(fd).unwrap();
    }
    sys::unlink(DATA, "opened").unwrap();
    assert_eq!(sys::unlink(DATA, "opened"), Err(errno::NOENT));
}

fn make(dir: i32, path: &str) -> sys::Result<()> {
    outcome(unsafe { abi::path_create_directory(dir, path.as_ptr(), path.len()) }, ())
}

fn remove(dir: i32, path: &str) -> sys::Result<()> {
    outcome(unsafe { abi::path_remove_directory(dir, path.as_ptr(), path.len()) }, ())
}

fn rename(dir: i32, path: &str, to: i32, name: &str) -> sys::Result<()> {
    outcome(unsafe { abi::path_rename(dir, path.as_ptr(), path.len(), to, name.as_ptr(), name.len()) }, ())
}

pub(crate) fn tree() {
    make(DATA, "tree").unwrap();
    make(DATA, "tree/inner").unwrap();
    assert_eq!(
        (make(DATA, "tree"), make(DATA, "none/below"), make(DATA, "../out")),
        (Err(errno::EXIST), Err(errno::NOENT), Err(errno::PERM))
    );
    let tree = sys::open(DATA, "tree", oflags::DIRECTORY, 0, 0).unwrap();
    sys::put(tree, "leaf", "leaf");
    rename(tree, "leaf", DATA, "tree/inner/moved").unwrap();
    assert_eq!(
        (sys::stat_at(tree, 0, "leaf").err(), sys::stat_at(tree, 0, "inner/moved").unwrap().size),
        (Some(errno::NOENT), 4)
    );
    assert_eq!(
        (rename(tree, "leaf", DATA, "x"), rename(tree, "inner", DATA, "../x")),
        (Err(errno::NOENT), Err(errno::PERM))
    );
    assert_eq!(
        (remove(DATA, "tree/inner"), sys::unlink(DATA, "tree/inner")),
        (Err(errno::NOTEMPTY), Err(errno::ISDIR))
    );
    assert_eq!(remove(DATA, "tree/inner/moved"), Err(errno::NOTDIR));
    sys::unlink(tree, "inner/moved").unwrap();
    remove(tree, "inner").unwrap();
    sys::close(tree).unwrap();
    remove(DATA, "tree").unwrap();
    assert_eq!((remove(DATA, "tree"), sys::stat_at(DATA, 0, "tree").err()), (Err(errno::NOENT), Some(errno::NOENT)));
}

pub(crate) fn links() {
    let symlink = |target: &str, path: &str| {
        let errno = unsafe { abi::path_symlink(target.as_ptr(), target.len(), DATA, path.as_ptr(), path.len()) };
        outcome(errno, ())
    };
    let link = |path: &str, name: &str| {
        let errno = unsafe { abi::path_link(DATA, 0, path.as_ptr(), path.len(), DATA, name.as_ptr(), name.len()) };
        outcome(errno, ())
    };
    let target = |path: &str, most| {
        let (mut buffer, mut used) = (vec![0; most], 0);
        let errno =
            unsafe { abi::path_readlink(DATA, path.as_ptr(), path.len(), buffer.as_mut_ptr(), most, &mut used) };
        buffer.truncate(used);
        outcome(errno, String::from_utf8(buffer).unwrap())
    };
    sys::put(DATA, "linked", "text");
    symlink("linked", "soft").unwrap();
    link("linked", "hard").unwrap();
    assert_eq!((target("soft", 99), target("soft", 3)), (Ok("linked".into()), Ok("lin".into())));
    assert_eq!((target("linked", 9), target("none", 9)), (Err(errno::INVAL), Err(errno::NOENT)));
    let [own, there] = [0, 1].map(|follow| sys::stat_at(DATA, follow, "soft").unwrap());
    assert_eq!((own.filetype, there.filetype, there.nlink), (filetype::SYMLINK, filetype::REGULAR, 2));
    assert_eq!(there.ino, sys::stat_at(DATA, 0, "hard").unwrap().ino);
    assert_eq!(sys::open_by(DATA, 0, "soft", 0, rights::READ, 0), Err(errno::LOOP));
    let fd = sys::open_by(DATA, 1, "soft", 0, rights::READ, 0).unwrap();
    assert_eq!(sys::read(fd, 9), Ok("text".into()));
    sys::close(fd).unwrap();
    assert_eq!(
        (symlink("linked", "soft"), link("linked", "hard"), link("none", "x")),
        (Err(errno::EXIST), Err(errno::EXIST), Err(errno::NOENT))
    );
    symlink("../outside", "out").unwrap();
    assert_eq!(sys::open_by(DATA, 1, "out", 0, rights::READ, 0), Err(errno::PERM), "it leads out");
    for name in ["linked", "soft", "hard", "out"] {
        sys::unlink(DATA, name).unwrap();
    }
}

/// A mount that may not be written to.
pub(crate) fn fixed() {
    let kept = sys::open(FIXED, "kept", 0, rights::READ, 0).unwrap();
    assert_eq!((sys::read(kept, 9), sys::write(kept, "x")), (Ok("kept".into()), Err(errno::BADF)));
    assert_eq!(unsafe { abi::fd_filestat_set_size(kept, 0) }, errno::PERM);
    sys::close(kept).unwrap();
    let refused = [
        sys::open(FIXED, "kept", 0, rights::WRITE, 0).map(drop),
        sys::open(FIXED, "kept", oflags::TRUNC, rights::READ, 0).map(drop),
        sys::open(FIXED, "new", oflags::CREAT, rights::READ, 0).map(drop),
        make(FIXED, "new"),
        sys::unlink(FIXED, "kept"),
        remove(FIXED, "kept"),
        rename(FIXED, "kept", DATA, "stolen"),
    ];
    assert!(refused.iter().all(|outcome| *outcome == Err(errno::PERM)), "{refused:?}");
}

/// `/data/fifo` is a named pipe without anybody at its other end: it is not waited for.
pub(crate) fn fifo() {
    assert_eq!(sys::stat_at(DATA, 0, "fifo").unwrap().filetype, filetype::UNKNOWN);
    for rights in [rights::READ, rights::WRITE, rights::READ | rights::WRITE] {
        assert_eq!(sys::open(DATA, "fifo", 0, rights, 0), Err(errno::NOTSUP));
    }
    assert_eq!(sys::open(DATA, "fifo", oflags::CREAT | oflags::TRUNC, rights::WRITE, 0), Err(errno::NOTSUP));
    assert_eq!(sys::open(DATA, "fifo", oflags::DIRECTORY, rights::READ, 0), Err(errno::NOTDIR));
}
