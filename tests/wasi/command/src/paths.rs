//! What lies at a path: the `*-at` functions of `wasi:filesystem/types`.

use wasip2::filesystem::types::{DescriptorFlags, DescriptorType, ErrorCode, OpenFlags, PathFlags};

use crate::files::{self, BOTH, data, put};

const READ: DescriptorFlags = DescriptorFlags::READ;
const AS_IS: OpenFlags = OpenFlags::empty();

pub(crate) fn open() {
    let data = data();
    put(&data, "opened", "text");
    let refused = [
        ("none", AS_IS, BOTH, ErrorCode::NoEntry),
        ("opened", OpenFlags::CREATE | OpenFlags::EXCLUSIVE, BOTH, ErrorCode::Exist),
        ("opened", OpenFlags::DIRECTORY, READ, ErrorCode::NotDirectory),
        ("opened/below", AS_IS, READ, ErrorCode::NotDirectory),
        (".", OpenFlags::DIRECTORY | OpenFlags::CREATE, BOTH, ErrorCode::Invalid),
        (".", AS_IS, BOTH, ErrorCode::IsDirectory),
        ("../opened", AS_IS, READ, ErrorCode::NotPermitted),
        ("/etc/passwd", AS_IS, READ, ErrorCode::NotPermitted),
    ];
    for (name, how, flags, problem) in refused {
        assert_eq!(files::open(&data, name, how, flags).err(), Some(problem), "{name} {how:?} {flags:?}");
    }
    let file = files::open(&data, "opened", AS_IS, READ).unwrap();
    assert_eq!(file.open_at(PathFlags::empty(), "x", AS_IS, READ).err(), Some(ErrorCode::NotDirectory));
    data.unlink_file_at("opened").unwrap();
    assert_eq!(data.unlink_file_at("opened"), Err(ErrorCode::NoEntry));
}

pub(crate) fn tree() {
    let data = data();
    data.create_directory_at("tree").unwrap();
    data.create_directory_at("tree/inner").unwrap();
    assert_eq!(data.create_directory_at("tree"), Err(ErrorCode::Exist));
    assert_eq!(data.create_directory_at("../out"), Err(ErrorCode::NotPermitted));
    let tree = files::open(&data, "tree", OpenFlags::DIRECTORY, READ | DescriptorFlags::MUTATE_DIRECTORY).unwrap();
    put(&tree, "leaf", "leaf");
    tree.rename_at("leaf", &data, "tree/inner/moved").unwrap();
    assert_eq!(tree.stat_at(PathFlags::empty(), "leaf").err(), Some(ErrorCode::NoEntry));
    assert_eq!(tree.stat_at(PathFlags::empty(), "inner/moved").unwrap().size, 4);
    assert_eq!(tree.rename_at("none", &data, "x"), Err(ErrorCode::NoEntry));
    assert_eq!(tree.rename_at("inner", &data, "../x"), Err(ErrorCode::NotPermitted));
    assert_eq!(data.remove_directory_at("tree/inner"), Err(ErrorCode::NotEmpty));
    assert_eq!(data.remove_directory_at("tree/inner/moved"), Err(ErrorCode::NotDirectory));
    assert_eq!(data.unlink_file_at("tree/inner"), Err(ErrorCode::IsDirectory));
    tree.unlink_file_at("inner/moved").unwrap();
    tree.remove_directory_at("inner").unwrap();
    drop(tree);
    data.remove_directory_at("tree").unwrap();
}

pub(crate) fn links() {
    let data = data();
    put(&data, "linked", "text");
    data.symlink_at("linked", "soft").unwrap();
    data.link_at(PathFlags::empty(), "linked", &data, "hard").unwrap();
    assert_eq!(data.readlink_at("soft").as_deref(), Ok("linked"));
    assert_eq!(
        (data.readlink_at("linked"), data.readlink_at("none")),
        (Err(ErrorCode::Invalid), Err(ErrorCode::NoEntry))
    );
    let own = data.stat_at(PathFlags::empty(), "soft").unwrap();
    let there = data.stat_at(PathFlags::SYMLINK_FOLLOW, "soft").unwrap();
    assert_eq!(
        (own.type_, there.type_, there.link_count),
        (DescriptorType::SymbolicLink, DescriptorType::RegularFile, 2)
    );
    assert_eq!(data.open_at(PathFlags::empty(), "soft", AS_IS, READ).err(), Some(ErrorCode::Loop));
    let followed = data.open_at(PathFlags::SYMLINK_FOLLOW, "soft", AS_IS, READ).unwrap();
    assert_eq!(followed.read(9, 0).unwrap().0, b"text");
    drop(followed);
    assert_eq!(data.symlink_at("linked", "soft"), Err(ErrorCode::Exist));
    assert_eq!(data.link_at(PathFlags::empty(), "linked", &data, "hard"), Err(ErrorCode::Exist));
    assert_eq!(data.link_at(PathFlags::empty(), "linked", &files::fixed(), "put"), Err(ErrorCode::NotPermitted));
    data.symlink_at("../outside", "out").unwrap();
    assert_eq!(data.open_at(PathFlags::SYMLINK_FOLLOW, "out", AS_IS, READ).err(), Some(ErrorCode::NotPermitted));
    for name in ["linked", "soft", "hard", "out"] {
        data.unlink_file_at(name).unwrap();
    }
}

/// A mount that may not be written to.
pub(crate) fn fixed() {
    let (data, fixed) = (data(), files::fixed());
    let kept = files::open(&fixed, "kept", AS_IS, READ).unwrap();
    assert_eq!(
        (kept.read(9, 0).unwrap().0, kept.write(b"x", 0), kept.set_size(0)),
        (b"kept".to_vec(), Err(ErrorCode::NotPermitted), Err(ErrorCode::NotPermitted))
    );
    let refused = [
        files::open(&fixed, "kept", AS_IS, BOTH).map(drop),
        files::open(&fixed, "kept", OpenFlags::TRUNCATE, READ).map(drop),
        files::open(&fixed, "new", OpenFlags::CREATE, READ).map(drop),
        fixed.create_directory_at("new"),
        fixed.unlink_file_at("kept"),
        fixed.remove_directory_at("kept"),
        fixed.symlink_at("kept", "new"),
        fixed.rename_at("kept", &data, "stolen"),
    ];
    assert!(refused.iter().all(|outcome| *outcome == Err(ErrorCode::NotPermitted)), "{refused:?}");
}

/// `/data/fifo` is a named pipe without anybody at its other end: it is not waited for.
pub(crate) fn fifo() {
    let data = data();
    let kind = data.stat_at(PathFlags::empty(), "fifo").unwrap().type_;
    assert!(matches!(kind, DescriptorType::Fifo | DescriptorType::Unknown), "{kind:?}");
    for flags in [READ, DescriptorFlags::WRITE, BOTH] {
        assert_eq!(files::open(&data, "fifo", AS_IS, flags).err(), Some(ErrorCode::Unsupported), "{flags:?}");
    }
    let how = OpenFlags::CREATE | OpenFlags::TRUNCATE;
    assert_eq!(files::open(&data, "fifo", how, DescriptorFlags::WRITE).err(), Some(ErrorCode::Unsupported));
    assert_eq!(files::open(&data, "fifo", OpenFlags::DIRECTORY, READ).err(), Some(ErrorCode::NotDirectory));
}
