//! What a container may do, with a real containerd, runc and kernel.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use wherry_runtime::{ContainerSpec, Runtime, RuntimeError, Seccomp, Security, User};

use support::{Lines, Node};

#[tokio::test]
async fn system_calls_are_filtered_as_the_profile_says() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    // A user namespace needs no capability: the filter alone stands in its way.
    let script = "while read name value; do case $name in Seccomp:) echo $value;; esac; done < /proc/self/status; \
                  busybox unshare -U /bin/busybox true && echo unshared; busybox mkdir /tmp/made && echo made";
    let with = async |seccomp, privileged| {
        let security = Security { seccomp, privileged, ..Security::default() };
        let (code, stdout, stderr) = node.run(ContainerSpec { security, ..node.shell(script).await }).await;
        (code, stdout.lines().map(str::to_owned).collect::<Vec<_>>(), stderr)
    };
    let (_, unconfined, stderr) = with(Seccomp::Unconfined, false).await;
    assert_eq!((unconfined, stderr.as_str()), (words(&["0", "unshared", "made"]), ""));
    let (_, filtered, stderr) = with(Seccomp::RuntimeDefault, false).await;
    assert_eq!(filtered, words(&["2", "made"]));
    assert!(stderr.contains("Operation not permitted"), "{stderr}");
    let (_, privileged, stderr) = with(Seccomp::RuntimeDefault, true).await;
    assert_eq!((privileged, stderr.as_str()), (words(&["0", "unshared", "made"]), ""));

    let profile = node.dir.join("no-directories.json");
    let rule = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    std::fs::write(&profile, rule).unwrap();
    let (_, own, stderr) = with(Seccomp::Localhost(profile.clone()), false).await;
    assert_eq!(own, words(&["2", "unshared"]));
    assert!(stderr.contains("Permission denied"), "{stderr}");

    std::fs::remove_file(&profile).unwrap();
    let security = Security { seccomp: Seccomp::Localhost(profile), ..Security::default() };
    let spec = ContainerSpec { security, ..node.shell(script).await };
    let (id, error) = (spec.id.clone(), node.runtime().create(spec, Lines::new()).await.unwrap_err());
    assert!(matches!(&error, RuntimeError::Failed(why) if why.contains("cannot load seccomp profile")), "{error}");
    // Put there later, it is found: nothing is left in the way.
    assert!(node.runtime().list().await.unwrap().iter().all(|container| container.id != id));
}

#[tokio::test]
async fn groups_are_the_images_and_the_pods_or_the_pods_alone() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    let run = async |strict_groups| {
        let mut spec = node.shell("id -G; while read name value; do case $name in NoNewPrivs:) echo $value;; esac; done < /proc/self/status").await;
        let security = Security {
            user: Some(1000),
            supplemental_groups: vec![60_000],
            strict_groups,
            no_new_privileges: strict_groups,
            ..Security::default()
        };
        spec.security = security;
        let (runtime, id, output) = (node.runtime(), spec.id.clone(), Lines::new());
        runtime.create(spec, output.clone()).await.unwrap();
        let user = runtime.user(&id).await.unwrap().unwrap();
        runtime.start(&id).await.unwrap();
        runtime.wait(&id).await.unwrap();
        runtime.remove(&id).await.unwrap();
        (user, output.stdout())
    };
    // The image's /etc/group has app in staff (50).
    let (user, told) = run(false).await;
    assert_eq!(user, User { uid: 1000, gid: 1001, groups: vec![1001, 50, 60_000] });
    assert_eq!(told, "1001 50 60000\n0\n");
    let (user, told) = run(true).await;
    assert_eq!(user, User { uid: 1000, gid: 1001, groups: vec![1001, 60_000] });
    assert_eq!(told, "1001 60000\n1\n");
}

#[tokio::test]
async fn a_privileged_container_has_the_machine() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    // What is read-only is a mount of its own.
    let script = "test -c /dev/urandom && busybox ls /dev | busybox wc -l; busybox grep -c -E '^[^ ]+ /proc/sys ' /proc/mounts; \
                  busybox grep -E ' /sys (sysfs|none) ' /proc/mounts | busybox cut -d' ' -f4 | busybox cut -d, -f1";
    let with = async |privileged, unmasked_proc| {
        let security = Security { privileged, unmasked_proc, ..Security::default() };
        let (_, stdout, stderr) = node.run(ContainerSpec { security, ..node.shell(script).await }).await;
        assert_eq!(stderr, "");
        let lines: Vec<String> = stdout.lines().map(str::to_owned).collect();
        (lines[0].parse::<u32>().unwrap(), lines[1].clone(), lines[2].clone())
    };
    let (few, masks, sys) = with(false, false).await;
    assert_eq!((masks.as_str(), sys.as_str()), ("1", "ro"));
    let (_, masks, sys) = with(false, true).await;
    assert_eq!((masks.as_str(), sys.as_str()), ("0", "ro"));
    let (many, masks, sys) = with(true, false).await;
    assert_eq!((masks.as_str(), sys.as_str()), ("0", "rw"));
    let device = |entry: &std::fs::DirEntry| {
        use std::os::unix::fs::FileTypeExt;
        let kind = entry.file_type().unwrap();
        (kind.is_char_device() || kind.is_block_device()) && entry.file_name() != "console"
    };
    let machines = std::fs::read_dir("/dev").unwrap().flatten().filter(device).count();
    assert!(many as usize >= machines, "{many} entries instead of the {machines} devices of the machine");
    assert!((few as usize) < machines, "{few} entries of {machines}");
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
