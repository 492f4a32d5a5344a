//! Open files and directories: descriptors of `wasi:filesystem/types`, and `preopens`.

use wasip2::clocks::wall_clock::Datetime;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Advice, Descriptor, DescriptorFlags, DescriptorType, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};

/// A file to be read and written.
pub(crate) const BOTH: DescriptorFlags = DescriptorFlags::READ.union(DescriptorFlags::WRITE);

fn preopen(index: usize, name: &str) -> Descriptor {
    let mut directories = get_directories();
    assert_eq!(directories.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["/data", "/fixed"]);
    assert_eq!(directories[index].1, name);
    directories.swap_remove(index).0
}

/// The mount that can be written to.
pub(crate) fn data() -> Descriptor {
    preopen(0, "/data")
}

/// The one that cannot.
pub(crate) fn fixed() -> Descriptor {
    preopen(1, "/fixed")
}

pub(crate) fn open(
    dir: &Descriptor,
    name: &str,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> Result<Descriptor, ErrorCode> {
    dir.open_at(PathFlags::empty(), name, how, flags)
}

/// A file of this name and text.
pub(crate) fn put(dir: &Descriptor, name: &str, text: &str) {
    let file = open(dir, name, OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE).unwrap();
    assert_eq!(file.write(text.as_bytes(), 0), Ok(text.len() as u64));
}

pub(crate) fn content() {
    let data = data();
    let file = open(&data, "content", OpenFlags::CREATE | OpenFlags::EXCLUSIVE, BOTH).unwrap();
    assert_eq!(file.write(b"0123456789", 0), Ok(10));
    assert_eq!(file.read(4, 3), Ok((b"3456".to_vec(), false)));
    assert_eq!((file.write(b"AB", 9), file.read(100, 8)), (Ok(2), Ok((b"8AB".to_vec(), false))));
    assert_eq!(file.read(100, 11), Ok((Vec::new(), true)), "its end");
    file.set_size(3).unwrap();
    assert_eq!(file.read(100, 0), Ok((b"012".to_vec(), false)));
    file.set_size(5).unwrap();
    assert_eq!(file.read(100, 0), Ok((b"012\0\0".to_vec(), false)));
    assert_eq!(file.set_size(u64::MAX), Err(ErrorCode::Invalid));
    let advices =
        [Advice::Normal, Advice::Sequential, Advice::Random, Advice::WillNeed, Advice::DontNeed, Advice::NoReuse];
    for advice in advices {
        file.advise(0, 5, advice).unwrap();
    }
    file.sync().unwrap();
    file.sync_data().unwrap();
    assert_eq!(data.advise(0, 0, Advice::Normal), Err(ErrorCode::BadDescriptor), "a directory");
    assert_eq!(data.read(1, 0), Err(ErrorCode::BadDescriptor));
    data.sync().unwrap();
    data.unlink_file_at("content").unwrap();
}

pub(crate) fn descriptor() {
    let data = data();
    assert_eq!(
        (data.get_type(), data.get_flags()),
        (Ok(DescriptorType::Directory), Ok(DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY))
    );
    let file = open(&data, "described", OpenFlags::CREATE, BOTH).unwrap();
    assert_eq!((file.get_type(), file.get_flags()), (Ok(DescriptorType::RegularFile), Ok(BOTH)));
    file.write(b"four", 0).unwrap();
    let stat = file.stat().unwrap();
    assert_eq!((stat.type_, stat.link_count, stat.size), (DescriptorType::RegularFile, 1, 4));
    assert_eq!(
        open(&data, "described", OpenFlags::empty(), DescriptorFlags::READ).unwrap().write(b"x", 0),
        Err(ErrorCode::BadDescriptor)
    );
    let synchronous = DescriptorFlags::READ | DescriptorFlags::FILE_INTEGRITY_SYNC;
    assert_eq!(open(&data, "described", OpenFlags::empty(), synchronous).err(), Some(ErrorCode::Unsupported));
    data.unlink_file_at("described").unwrap();
    assert_eq!(file.stat().unwrap().link_count, 0, "it is open and has no name");
}

pub(crate) fn times() {
    let data = data();
    let at = |seconds, nanoseconds| Datetime { seconds, nanoseconds };
    let file = open(&data, "dated", OpenFlags::CREATE, BOTH).unwrap();
    file.set_times(NewTimestamp::Timestamp(at(1, 10)), NewTimestamp::Timestamp(at(2, 20))).unwrap();
    let times = |stat: wasip2::filesystem::types::DescriptorStat| {
        (stat.data_access_timestamp.unwrap(), stat.data_modification_timestamp.unwrap())
    };
    let same = |left: Datetime, right: Datetime| (left.seconds, left.nanoseconds) == (right.seconds, right.nanoseconds);
    let (accessed, modified) = times(file.stat().unwrap());
    assert!(same(accessed, at(1, 10)) && same(modified, at(2, 20)), "{accessed:?} {modified:?}");
    file.set_times(NewTimestamp::NoChange, NewTimestamp::Now).unwrap();
    let (accessed, modified) = times(file.stat().unwrap());
    assert!(same(accessed, at(1, 10)) && modified.seconds > 1_700_000_000, "{accessed:?} {modified:?}");
    let set = |name| {
        let (accessed, modified) = (NewTimestamp::Timestamp(at(3, 0)), NewTimestamp::Timestamp(at(4, 0)));
        data.set_times_at(PathFlags::SYMLINK_FOLLOW, name, accessed, modified)
    };
    set("dated").unwrap();
    let (accessed, modified) = times(data.stat_at(PathFlags::empty(), "dated").unwrap());
    assert!(same(accessed, at(3, 0)) && same(modified, at(4, 0)));
    assert_eq!((set("missing"), set("../dated")), (Err(ErrorCode::NoEntry), Err(ErrorCode::NotPermitted)));
    data.unlink_file_at("dated").unwrap();
}

pub(crate) fn same() {
    let data = data();
    put(&data, "one", "1");
    put(&data, "other", "2");
    let [one, again, other] =
        ["one", "one", "other"].map(|name| open(&data, name, OpenFlags::empty(), DescriptorFlags::READ).unwrap());
    assert!(one.is_same_object(&again) && !one.is_same_object(&other) && !one.is_same_object(&data));
    let hash = |file: &Descriptor| file.metadata_hash().map(|hash| (hash.lower, hash.upper)).unwrap();
    assert!(hash(&one) == hash(&again) && hash(&one) != hash(&other));
    let hash_at = |name| data.metadata_hash_at(PathFlags::empty(), name).map(|hash| (hash.lower, hash.upper));
    assert_eq!((hash_at("one"), hash_at("none")), (Ok(hash(&one)), Err(ErrorCode::NoEntry)));
    for name in ["one", "other"] {
        data.unlink_file_at(name).unwrap();
    }
}

pub(crate) fn directory() {
    let data = data();
    data.create_directory_at("listed").unwrap();
    let dir =
        open(&data, "listed", OpenFlags::DIRECTORY, DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY).unwrap();
    dir.create_directory_at("inner").unwrap();
    put(&dir, "file", "");
    let (entries, mut seen) = (dir.read_directory().unwrap(), Vec::new());
    while let Some(entry) = entries.read_directory_entry().unwrap() {
        seen.push((entry.name, entry.type_));
    }
    seen.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(
        seen,
        [("file".to_owned(), DescriptorType::RegularFile), ("inner".to_owned(), DescriptorType::Directory)]
    );
    let file = open(&dir, "file", OpenFlags::empty(), DescriptorFlags::READ).unwrap();
    assert_eq!(file.read_directory().err(), Some(ErrorCode::NotDirectory));
    drop(file);
    dir.unlink_file_at("file").unwrap();
    dir.remove_directory_at("inner").unwrap();
    data.remove_directory_at("listed").unwrap();
}
