//! `kubectl cp`: what it sends is done in the container's mounts, and nowhere else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use support::{Node, Running};
use tar::{Builder, EntryType, Header};
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use wherry_runtime::{Mount, Runtime, Streams};

/// Waits for what is typed.
const WAITS: &str = r#"(module (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start") (i32.store (i32.const 4) (i32.const 1)) (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// A container with mounts, two of which are read-only.
struct Scene {
    node: Node,
    container: Running,
}

#[derive(Debug)]
struct Done {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Scene {
    async fn open() -> Self {
        let node = Node::new();
        let mut spec = node.spec(&node.wat(WAITS));
        for (target, read_only) in [("/data", false), ("/fixed", true), ("/run/log", false), ("/etc/name", true)] {
            let source = node.path().join(target.replace('/', "_"));
            match target {
                "/run/log" | "/etc/name" => fs::write(&source, "as it was").unwrap(),
                _ => fs::create_dir(&source).unwrap(),
            }
            spec.mounts.push(Mount { source, target: target.into(), read_only, ..Mount::default() });
        }
        spec.stdin = true;
        spec.working_dir = Some("/data".into());
        let container = node.start(spec).await;
        Self { node, container }
    }

    /// Where a path of the container's lies.
    fn at(&self, path: &str) -> PathBuf {
        let (mount, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        self.node.path().join(format!("_{mount}")).join(rest)
    }

    async fn run(&self, command: &[&str], input: &[u8]) -> Done {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let ((out, stdout), (err, stderr)) = (duplex(64), duplex(64));
        let streams = Streams {
            stdin: Some(Box::new(std::io::Cursor::new(input.to_vec()))),
            stdout: Some(Box::new(stdout)),
            stderr: Some(Box::new(stderr)),
            resize: None,
        };
        let read = |mut from: DuplexStream| async move {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let run = self.node.runtime.exec(&self.container.id, &command, false, streams);
        let (code, stdout, stderr) = tokio::join!(run, read(out), read(err));
        Done { code: code.unwrap(), stdout, stderr: String::from_utf8(stderr).unwrap() }
    }

    async fn unpack(&self, dir: &str, archive: &[u8]) -> Done {
        self.run(&["tar", "-xmf", "-", "-C", dir], archive).await
    }
}

/// An archive of members: kind, name, where it links to, content.
fn archive(members: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, content) in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        // As it is: set_path refuses what leads out.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o4751);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

const FILE: EntryType = EntryType::Regular;

#[tokio::test]
async fn directories_are_told_from_the_rest() {
    let scene = Scene::open().await;
    fs::create_dir(scene.at("/data/d")).unwrap();
    fs::write(scene.at("/data/f"), "").unwrap();
    symlink("/", scene.at("/data/root")).unwrap();
    for (path, code) in
        [("/data", 0), ("/data/d/", 0), ("d", 0), ("/", 0), ("/data/f", 1), ("/data/none", 1), ("/tmp", 1), ("root", 1)]
    {
        let done = scene.run(&["test", "-d", path], b"").await;
        assert_eq!((done.code, done.stdout.len(), done.stderr.as_str()), (code, 0, ""), "{path}");
    }
}

#[tokio::test]
async fn what_is_unpacked_has_its_content_and_its_mode() {
    let scene = Scene::open().await;
    let big = vec![7; 1 << 20];
    let members = archive(&[
        (EntryType::Directory, "d/", "", b""),
        (FILE, "d/big", "", &big),
        (FILE, "made/on/the/way", "", b"deep"),
        (EntryType::Symlink, "d/link", "big", b""),
        (EntryType::Link, "d/twin", "d/big", b""),
    ]);
    let done = scene.unpack("/data", &members).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(fs::read(scene.at("/data/d/big")).unwrap(), big);
    assert_eq!(fs::read(scene.at("/data/d/link")).unwrap(), big);
    assert_eq!(fs::read(scene.at("/data/d/twin")).unwrap(), big);
    assert_eq!(fs::read_to_string(scene.at("/data/made/on/the/way")).unwrap(), "deep");
    let mode = |path: &str| fs::metadata(scene.at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("/data/d/big"), mode("/data/d")), (0o751, 0o751), "no set-user-id bit");

    // Again, over what is there, relative to the working directory.
    let plain = ["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"];
    let done = scene.run(&plain, &archive(&[(FILE, "d/link", "", b"new")])).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(fs::symlink_metadata(scene.at("/data/d/link")).unwrap().is_file());
    assert_eq!(fs::read(scene.at("/data/d/big")).unwrap(), big, "what the link led to is as it was");

    // A mounted file is written to, not replaced.
    let done = scene.unpack("/run", &archive(&[(FILE, "log", "", b"told")])).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(scene.node.path().join("_run_log")).unwrap(), "told");
}

#[tokio::test]
async fn what_is_packed_comes_whole_and_from_where_it_broke() {
    let scene = Scene::open().await;
    let long = "n".repeat(120);
    fs::create_dir_all(scene.at("/data/d/e")).unwrap();
    fs::write(scene.at("/data/d/e").join(&long), "named long").unwrap();
    fs::write(scene.at("/data/d/plain"), "content").unwrap();
    symlink("plain", scene.at("/data/d/link")).unwrap();
    let whole = scene.run(&["tar", "cf", "-", "/data/d"], b"").await;
    assert_eq!((whole.code, whole.stderr.as_str()), (0, ""));
    let mut archive = tar::Archive::new(&*whole.stdout);
    let mut seen: Vec<(String, EntryType, String)> = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        seen.push((entry.path().unwrap().display().to_string(), entry.header().entry_type(), content));
    }
    seen.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("data/d/", EntryType::Directory, ""),
        ("data/d/e/", EntryType::Directory, ""),
        (&format!("data/d/e/{long}"), FILE, "named long"),
        ("data/d/link", EntryType::Symlink, ""),
        ("data/d/plain", FILE, "content"),
    ];
    assert_eq!(seen, expected.map(|(name, kind, content)| (name.to_owned(), kind, content.to_owned())));

    let rest = scene.run(&["sh", "-c", "tar cf - /data/d | tail -c+1001"], b"").await;
    assert_eq!(rest.stdout, whole.stdout[1000..]);
    let relative = scene.run(&["tar", "cf", "-", "d/plain"], b"").await;
    assert_eq!(&relative.stdout[..8], b"d/plain\0");
    for (path, problem) in [
        ("/data/none", "tar: /data/none: Cannot stat: No such file or directory"),
        ("/etc", ""),
        ("/", "not in a volume of the container"),
        ("/proc/self", "not in a volume of the container"),
        ("/data/../proc/self", "not in a volume of the container"),
    ] {
        let done = scene.run(&["tar", "cf", "-", path], b"").await;
        assert_eq!(done.code, if problem.is_empty() { 0 } else { 2 }, "{path}: {}", done.stderr);
        assert!(done.stderr.contains(problem), "{path}: {}", done.stderr);
        // kubectl cp stops at an archive's end, and then never hears of the failure.
        assert_eq!(done.stdout.is_empty(), !problem.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn no_link_and_no_dots_lead_out() {
    let scene = Scene::open().await;
    let outside = scene.node.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, scene.at("/data/absolute")).unwrap();
    symlink("../outside", scene.at("/data/relative")).unwrap();
    symlink("../outside/secret", scene.at("/data/file")).unwrap();

    for path in ["/data/absolute/secret", "/data/relative/secret"] {
        let done = scene.run(&["tar", "cf", "-", path], b"").await;
        assert_eq!(done.code, 2, "{path}");
        assert!(done.stderr.contains("a link leads out of the volume"), "{}", done.stderr);
        assert!(!done.stdout.windows(6).any(|bytes| bytes == b"secret"));
    }
    // A link is copied as a link.
    let done = scene.run(&["tar", "cf", "-", "/data/file"], b"").await;
    assert_eq!((done.code, done.stdout[156]), (0, b'2'));

    for (members, problem) in [
        (archive(&[(FILE, "absolute/new", "", b"x")]), "a link leads out of the volume"),
        (archive(&[(FILE, "relative/new", "", b"x")]), "a link leads out of the volume"),
        (archive(&[(FILE, "../outside/new", "", b"x")]), "Member name contains '..'"),
        (archive(&[(EntryType::Symlink, "l", "../outside", b""), (FILE, "l/new", "", b"x")]), "leads out"),
        (archive(&[(EntryType::Link, "stolen", "relative/secret", b"")]), "leads out"),
        (archive(&[(EntryType::Link, "stolen", "../outside/secret", b"")]), "Member name contains '..'"),
        (archive(&[(EntryType::Fifo, "pipe", "", b"")]), "Unknown file type: Fifo"),
        (archive(&[(EntryType::Char, "null", "", b"")]), "Unknown file type: Char"),
    ] {
        let done = scene.unpack("/data", &members).await;
        assert_eq!(done.code, 2, "{problem}");
        assert!(done.stderr.contains(problem) && done.stderr.contains("Exiting with failure"), "{}", done.stderr);
    }
    // In place of a link, not through it.
    let done = scene.unpack("/data", &archive(&[(FILE, "file", "", b"mine")])).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(!scene.at("/data/stolen").exists());
}

#[tokio::test]
async fn what_is_read_only_stays_as_it_is() {
    let scene = Scene::open().await;
    fs::write(scene.at("/fixed/kept"), "kept").unwrap();
    for (dir, members, problem) in [
        ("/fixed", archive(&[(FILE, "new", "", b"x")]), "Read-only file system"),
        ("/fixed", archive(&[(EntryType::Directory, "new", "", b"")]), "Read-only file system"),
        ("/fixed", archive(&[(FILE, "kept", "", b"x")]), "Read-only file system"),
        ("/etc", archive(&[(FILE, "name", "", b"x")]), "Read-only file system"),
        // A second name in a mount that can be written to would be a way to write.
        ("/", archive(&[(EntryType::Link, "data/mine", "fixed/kept", b"")]), "Invalid cross-device link"),
        ("/", archive(&[(FILE, "new", "", b"x")]), "not in a volume of the container"),
        ("/nowhere", archive(&[]), "/nowhere: Cannot open: not in a volume"),
        ("/data/none", archive(&[]), "/data/none: Cannot open: No such file or directory"),
    ] {
        let done = scene.unpack(dir, &members).await;
        assert_eq!(done.code, 2, "{dir}: {problem}");
        assert!(done.stderr.contains(problem), "{dir}: {}", done.stderr);
    }
    assert_eq!(fs::read_to_string(scene.at("/fixed/kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(scene.at("/fixed")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(scene.node.path().join("_etc_name")).unwrap(), "as it was");
    // What comes after a member that can't be put is put.
    let both = archive(&[(FILE, "fixed/new", "", b"x"), (FILE, "data/new", "", b"there")]);
    assert_eq!(scene.unpack("/", &both).await.code, 2);
    assert_eq!(fs::read_to_string(scene.at("/data/new")).unwrap(), "there");
}

#[tokio::test]
async fn an_archive_that_is_cut_or_none_is_refused() {
    let scene = Scene::open().await;
    let whole = archive(&[(FILE, "cut", "", &[1; 4096])]);
    let done = scene.unpack("/data", &whole[..2000]).await;
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("Unexpected EOF in archive"), "{}", done.stderr);
    let done = scene.unpack("/data", &[b'x'; 1024]).await;
    assert!(done.code == 2 && done.stderr.contains("does not look like a tar archive"), "{}", done.stderr);
    // Nothing at all is no archive either, and no reason to fail.
    assert_eq!(scene.unpack("/data", b"").await.code, 0);
}

#[tokio::test]
async fn a_copy_ends_with_its_caller_and_with_its_container() {
    let scene = Scene::open().await;
    let command = ["tar", "-xmf", "-", "-C", "/data"].map(str::to_owned);
    // More than go on at once: those that were let go leave their place to others.
    for _ in 0..40 {
        let (ours, theirs) = duplex(64);
        let streams = Streams { stdin: Some(Box::new(theirs)), ..Streams::default() };
        let run = scene.node.runtime.exec(&scene.container.id, &command, false, streams);
        tokio::select! {
            biased;
            code = run => panic!("it ended before its archive: {code:?}"),
            () = tokio::task::yield_now() => {}
        }
        drop(ours);
    }
    let done = scene.unpack("/data", &archive(&[(FILE, "after", "", b"x")])).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let (ours, theirs) = duplex(64);
    let streams = Streams { stdin: Some(Box::new(theirs)), ..Streams::default() };
    let run = scene.node.runtime.exec(&scene.container.id, &command, false, streams);
    let (code, exit) = tokio::join!(run, scene.container.kill());
    assert_eq!((code.unwrap(), exit.code), (137, 137));
    drop(ours);
}
