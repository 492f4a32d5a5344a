//! A host that was taken over gets nothing: a real child locks itself in and tries.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

use wherry_host::Plan;

const UID: u32 = (1 << 30) + 7;

#[test]
fn what_a_host_must_not_do_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { uid: UID, root: dir.path().join("root"), cache: dir.path().join("cache") };
    for path in [&plan.root, &plan.cache] {
        std::fs::create_dir(path).unwrap();
    }
    std::fs::write(plan.cache.join("own"), "x").unwrap();
    chown(&plan.cache, Some(UID), Some(UID)).unwrap();
    let heard = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tried = Command::new(env!("CARGO_BIN_EXE_wasm-host"))
        .args(["try", &serde_json::to_string(&plan).unwrap()])
        .stdin(Stdio::from(OwnedFd::from(heard)))
        .output()
        .unwrap();
    let (told, failed) = (String::from_utf8_lossy(&tried.stdout), String::from_utf8_lossy(&tried.stderr));
    assert!(tried.status.success(), "{:?} {told} {failed}", tried.status);
    let outcomes: Vec<(&str, &str)> = told.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let wrong: Vec<_> = outcomes.iter().filter(|(name, error)| name.starts_with('+') != (*error == "0")).collect();
    assert!(wrong.is_empty(), "{wrong:?} of {outcomes:?}");
    assert!(outcomes.len() > 70, "{} attempts", outcomes.len());
    assert!(!dir.path().join("root/new").exists(), "its root is the machine's");
}
