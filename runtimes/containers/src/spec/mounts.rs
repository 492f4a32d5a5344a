//! What is mounted in a container: the kernel's filesystems, then the Pod's volumes.

use std::path::Path;

use serde_json::{Value, json};
use wherry_runtime::{ContainerSpec, Mount, Propagation, RuntimeError};

pub(super) fn build(spec: &ContainerSpec) -> Result<Vec<Value>, RuntimeError> {
    let access = if spec.security.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let shm = match spec.network.shared() {
        Some(shared) => {
            json!({"destination": "/dev/shm", "type": "bind", "source": shared.shm, "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev"]})
        }
        None => mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        shm,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ];
    // A volume over one of these takes its place (an emptyDir at /dev/shm), as it does elsewhere.
    mounts.retain(|known| {
        !spec.mounts.iter().any(|volume| Some(volume.target.as_path()) == known["destination"].as_str().map(Path::new))
    });
    // Outer places first, so that what lies within them is not hidden.
    let mut volumes: Vec<&Mount> = spec.mounts.iter().collect();
    volumes.sort_by_key(|volume| volume.target.components().count());
    for volume in volumes {
        mounts.push(bind(volume)?);
    }
    Ok(mounts)
}

fn bind(volume: &Mount) -> Result<Value, RuntimeError> {
    let refuse = |problem: &str| {
        RuntimeError::InvalidSpec(format!(
            "the mount of {} at {}: {problem}",
            volume.source.display(),
            volume.target.display()
        ))
    };
    if !volume.source.is_absolute() || !volume.target.is_absolute() {
        return Err(refuse("both paths must be absolute"));
    }
    if volume.target == Path::new("/") {
        return Err(refuse("nothing can be mounted over the root"));
    }
    // runc says as much, but in its own words and only at the start.
    if !volume.source.exists() {
        return Err(refuse("the source does not exist on the node"));
    }
    let access = match (volume.read_only, volume.read_only_recursively) {
        (false, _) => "rw",
        (true, false) => "ro",
        (true, true) => "rro",
    };
    let propagation = match volume.propagation {
        Propagation::None => "rprivate",
        Propagation::FromHost => "rslave",
        Propagation::Both => "rshared",
    };
    let mut options = vec!["rbind", propagation, access];
    if volume.no_exec {
        options.push("noexec");
    }
    Ok(json!({"destination": volume.target, "type": "bind", "source": volume.source, "options": options}))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn volumes_come_last_outer_ones_first_and_replace_the_defaults() {
        let mount = |target: &str, read_only| Mount {
            source: "/tmp".into(),
            target: target.into(),
            read_only,
            ..Mount::default()
        };
        let spec = ContainerSpec {
            mounts: vec![mount("/data/deep/er", false), mount("/data", true), mount("/dev/shm", false)],
            ..super::super::tests::spec()
        };
        let mounts = build(&spec).unwrap();
        let targets: Vec<_> = mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
        assert_eq!(
            targets,
            [
                "/proc",
                "/dev",
                "/dev/pts",
                "/dev/mqueue",
                "/sys",
                "/sys/fs/cgroup",
                "/data",
                "/dev/shm",
                "/data/deep/er"
            ]
        );
        assert_eq!(mounts[6]["options"], json!(["rbind", "rprivate", "ro"]));
        assert!(bind(&mount("/", false)).is_err() && bind(&mount("x", false)).is_err());
    }
}
