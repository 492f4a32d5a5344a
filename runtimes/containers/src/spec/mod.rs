//! The OCI runtime specification of a container: everything that runc is told.
//!
//! It follows what containerd's Kubernetes service makes, so that an image behaves here as it does there.

mod capabilities;
mod devices;
mod mounts;
mod resources;
mod seccomp;
mod users;

use std::path::Path;

use serde_json::{Value, json};
use wherry_runtime::{ContainerSpec, Limits, PodNetwork, Processes, RuntimeError, User};

use crate::cgroup::Cgroups;
pub(crate) use users::{Rootfs, resolve as user};

/// What the spec depends on apart from the container's own description.
pub(crate) struct Surroundings<'a> {
    pub(crate) cgroups: &'a Cgroups,
    /// Who it runs as.
    pub(crate) user: &'a User,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Limits alone, to be changed while a container runs.
pub(crate) fn limits(limits: &Limits, cgroups: &Cgroups) -> Value {
    let mut resources = resources::build(limits, cgroups, false);
    if let Some(resources) = resources.as_object_mut() {
        resources.remove("devices");
    }
    resources
}

/// Builds the specification.
pub(crate) fn build(spec: &ContainerSpec, around: &Surroundings<'_>) -> Result<Value, RuntimeError> {
    let privileged = spec.security.privileged;
    let (masked, read_only) =
        if privileged || spec.security.unmasked_proc { (&[][..], &[][..]) } else { (&MASKED[..], &READ_ONLY[..]) };
    let capabilities = capabilities::build(&spec.security)?;
    let mut linux = json!({
        "namespaces": namespaces(&*spec.network, around.cgroups.is_v2() && !privileged)?,
        "cgroupsPath": cgroup_path(spec),
        "resources": resources::build(&spec.limits, around.cgroups, privileged),
        "maskedPaths": masked,
        "readonlyPaths": read_only,
    });
    if privileged {
        linux["rootfsPropagation"] = json!("rslave");
        linux["devices"] = devices::of_the_machine().into();
    }
    if let Some(filter) = seccomp::build(&spec.security, &capabilities)? {
        linux["seccomp"] = filter;
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": spec.security.read_only_root},
        "hostname": spec.hostname,
        "process": process(spec, around.user, &capabilities)?,
        "mounts": mounts::build(spec)?,
        "linux": linux,
    }))
}

/// A container's control group, relative to each controller's root.
pub(crate) fn cgroup_path(spec: &ContainerSpec) -> String {
    format!("{}/{}", spec.cgroup_parent.trim_end_matches('/'), spec.id)
}

/// A kind that is not named is the machine's own.
fn namespaces(pod: &dyn PodNetwork, own_cgroup: bool) -> Result<Vec<Value>, RuntimeError> {
    let mut namespaces: Vec<Value> = ["uts", "mount"].iter().map(|kind| json!({"type": kind})).collect();
    let processes = pod
        .processes()
        .map_err(|error| RuntimeError::Failed(format!("cannot make the process namespace of the Pod: {error}")))?;
    match processes {
        Processes::Container => namespaces.push(json!({"type": "pid"})),
        Processes::Pod(path) => namespaces.push(json!({"type": "pid", "path": path})),
        Processes::Node => {}
    }
    match pod.shared() {
        Some(shared) => {
            namespaces.extend(shared.namespace.as_ref().map(|path| json!({"type": "ipc", "path": path})));
        }
        None => namespaces.push(json!({"type": "ipc"})),
    }
    // Without a path the Pod is in the node's network: no namespace is named, so none is made.
    namespaces.extend(pod.namespace().map(|path| json!({"type": "network", "path": path})));
    if own_cgroup {
        namespaces.push(json!({"type": "cgroup"}));
    }
    Ok(namespaces)
}

fn process(spec: &ContainerSpec, user: &User, capabilities: &[String]) -> Result<Value, RuntimeError> {
    let cwd = spec.working_dir.as_deref().or(spec.image.working_dir.as_deref()).unwrap_or(Path::new("/"));
    if !cwd.is_absolute() {
        return Err(RuntimeError::InvalidSpec(format!("the working directory {:?} is not absolute", cwd.display())));
    }
    Ok(json!({
        "terminal": spec.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": args(spec)?,
        "env": env(spec),
        "cwd": cwd,
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": spec.security.no_new_privileges,
        "oomScoreAdj": oom_score(spec),
    }))
}

/// `command` replaces entrypoint and cmd, `args` replaces cmd.
fn args(spec: &ContainerSpec) -> Result<Vec<String>, RuntimeError> {
    let image = &spec.image;
    let (command, default) =
        if spec.command.is_empty() { (&image.entrypoint, &image.cmd) } else { (&spec.command, &Vec::new()) };
    let rest = if spec.args.is_empty() { default } else { &spec.args };
    let args: Vec<String> = command.iter().chain(rest).cloned().collect();
    if args.is_empty() {
        return Err(RuntimeError::InvalidSpec(format!(
            "no command specified: neither the container nor {} names one",
            image.reference
        )));
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(RuntimeError::InvalidSpec("the command contains a NUL byte".into()));
    }
    Ok(args)
}

/// The image's environment, then ours, later names over earlier ones.
fn env(spec: &ContainerSpec) -> Vec<String> {
    let mut env: Vec<(&str, &str)> = vec![("PATH", DEFAULT_PATH), ("HOSTNAME", &spec.hostname)];
    if spec.tty {
        env.push(("TERM", "xterm"));
    }
    for (name, value) in spec.image.env.iter().chain(&spec.env) {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => env.push((name, value)),
        }
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// When the machine runs out of memory, containers go before the node's own processes, those without any limit first.
fn oom_score(spec: &ContainerSpec) -> i32 {
    if spec.limits.memory_bytes.is_none() && spec.limits.cpu_request_millis.is_none() { 1000 } else { 900 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use std::sync::Arc;

    use wherry_runtime::conformance::Loopback;
    use wherry_runtime::{ContainerId, Descriptor, Image, ImageKind, Limits, Mount, PodRef, Security};

    use super::*;

    pub(crate) fn spec() -> ContainerSpec {
        let blob = Descriptor { media_type: String::new(), digest: String::new(), size: 0, path: "/none".into() };
        let image = Image {
            reference: "docker.io/library/x:latest".into(),
            id: String::new(),
            kind: ImageKind::Container,
            manifest: blob.clone(),
            config: blob,
            layers: vec![],
            entrypoint: vec!["/entry".into()],
            cmd: vec!["cmd".into()],
            env: vec![("A".into(), "image".into()), ("B".into(), "image".into())],
            working_dir: Some("/srv".into()),
            user: None,
        };
        ContainerSpec {
            id: ContainerId("c".repeat(64)),
            pod: PodRef { namespace: "ns".into(), name: "pod".into(), uid: "uid".into() },
            name: "main".into(),
            attempt: 0,
            image: Arc::new(image),
            command: vec![],
            args: vec![],
            env: vec![("B".into(), "spec".into()), ("C".into(), "spec".into())],
            working_dir: None,
            mounts: vec![],
            limits: Limits::default(),
            ports: vec![],
            network: Arc::new(Loopback::new([127, 0, 0, 1].into())),
            hostname: "pod".into(),
            security: Security::default(),
            cgroup_parent: "/wherry/poduid".into(),
            stdin: false,
            stdin_once: false,
            tty: false,
        }
    }

    fn built(spec: &ContainerSpec) -> Result<Value, RuntimeError> {
        let user = user(spec, &Rootfs::default())?;
        build(spec, &Surroundings { cgroups: &Cgroups::V2("/sys/fs/cgroup".into()), user: &user })
    }

    #[test]
    fn command_and_args_replace_what_kubernetes_says_they_do() {
        let of = |command: &[&str], args: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let spec = ContainerSpec { command: words(command), args: words(args), ..spec() };
            built(&spec).unwrap()["process"]["args"].clone()
        };
        assert_eq!(of(&[], &[]), json!(["/entry", "cmd"]));
        assert_eq!(of(&[], &["a"]), json!(["/entry", "a"]));
        assert_eq!(of(&["c"], &[]), json!(["c"]));
        assert_eq!(of(&["c"], &["a"]), json!(["c", "a"]));
    }

    #[test]
    fn the_environment_is_layered() {
        let env = built(&spec()).unwrap()["process"]["env"].clone();
        assert_eq!(env, json!([format!("PATH={DEFAULT_PATH}"), "HOSTNAME=pod", "A=image", "B=spec", "C=spec"]));
    }

    #[test]
    fn the_defaults_are_containerds() {
        let whole = built(&spec()).unwrap();
        assert_eq!(whole["process"]["cwd"], "/srv");
        assert_eq!(whole["process"]["user"], json!({"uid": 0, "gid": 0, "additionalGids": [0]}));
        assert_eq!(whole["linux"]["cgroupsPath"], format!("/wherry/poduid/{}", "c".repeat(64)));
        let kinds: Vec<_> = whole["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["type"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["uts", "mount", "pid", "ipc", "cgroup"], "no network namespace without a path");
        let capabilities = whole["process"]["capabilities"]["bounding"].as_array().unwrap().len();
        assert!((1..=14).contains(&capabilities));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let refused = |spec: &ContainerSpec| matches!(built(spec), Err(RuntimeError::InvalidSpec(_)));
        assert!(refused(&ContainerSpec { working_dir: Some("relative".into()), ..spec() }));
        assert!(refused(&ContainerSpec { command: vec!["a\0b".into()], ..spec() }));
        let missing =
            Mount { source: "/does/not/exist".into(), target: "/x".into(), read_only: true, ..Mount::default() };
        assert!(refused(&ContainerSpec { mounts: vec![missing], ..spec() }));
        let security = Security { add_capabilities: vec!["FLY".into()], ..Security::default() };
        assert!(refused(&ContainerSpec { security, ..spec() }));
        let mut image = (*spec().image).clone();
        (image.entrypoint, image.cmd) = (vec![], vec![]);
        assert!(refused(&ContainerSpec { image: Arc::new(image), ..spec() }));
    }
}
