//! What to run: a container, resolved. Every reference of the Pod's manifest (ConfigMaps, Secrets, fields,
//! images, volumes) has been turned into a value by the agent.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Image, PodNetwork};

/// A container's identity on its node: 64 lower-case hex digits, chosen by the agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The Pod that a container belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// A directory or file of the node, seen inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path on the node.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Writes are refused.
    pub read_only: bool,
    /// Writes are refused in what is mounted beneath it, too (`recursiveReadOnly`).
    pub read_only_recursively: bool,
    /// Nothing in it is run as a program.
    pub no_exec: bool,
    /// What is seen of mounts that are made later.
    pub propagation: Propagation,
    /// What `source` names, where that is a name for a while: it is one while somebody has this, so that whoever runs the
    /// container keeps it until it has a way of its own to what it names.
    pub handle: Option<Handle>,
    /// Makes what `source` names, where that is made when somebody needs it first: see [`Mount::make`].
    pub maker: Option<Maker>,
}

impl Mount {
    /// Makes what `source` names, where that is not done yet. Who runs the container calls this before it looks at `source`, and
    /// need not where the container can never see its mounts. May do file I/O.
    ///
    /// # Errors
    /// The disk's.
    pub fn make(&self) -> io::Result<()> {
        self.maker.as_ref().map_or(Ok(()), |maker| maker.0.make())
    }
}

/// Makes a file or directory when it is needed; any number of times, at once as well.
pub trait Make: Send + Sync {
    /// Makes it, where that is not done yet.
    ///
    /// # Errors
    /// The disk's. The next call tries again.
    fn make(&self) -> io::Result<()>;
}

/// Somebody who makes what a mount's source names.
#[derive(Clone)]
pub struct Maker(pub Arc<dyn Make>);

impl fmt::Debug for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Maker")
    }
}

impl PartialEq for Maker {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Maker {}

/// What one side sees of mounts that the other makes beneath a mount (`mountPropagation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Nothing.
    #[default]
    None,
    /// The container sees what the node mounts (`HostToContainer`).
    FromHost,
    /// Both see both (`Bidirectional`).
    Both,
}

/// An open file or directory, and what else ends with it.
#[derive(Clone)]
pub struct Handle(pub Arc<dyn AsFd + Send + Sync>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_fd())
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Handle {}

/// What a container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `limits.cpu` in millicores; unlimited where none.
    pub cpu_millis: Option<u64>,
    /// `requests.cpu` in millicores: the weight among neighbours.
    pub cpu_request_millis: Option<u64>,
    /// `limits.memory` in bytes; beyond it the container is OOMKilled.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// The weight among neighbours in the kernel's CPU shares: 1024 a core requested, from 2 to 262,144. As the kubelet has it, a limit
    /// without a request is a request too; without either, the weight is the least.
    #[must_use]
    pub fn shares(&self) -> u64 {
        let millis = self.cpu_request_millis.or(self.cpu_millis).unwrap_or(0);
        (millis.saturating_mul(1024) / 1000).clamp(2, 262_144)
    }
}

/// Who a container's first process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Its user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// All its groups, the primary one first.
    pub groups: Vec<u32>,
}

/// What a securityContext says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `runAsUser`; the image's user where none.
    pub user: Option<u32>,
    /// `runAsGroup`.
    pub group: Option<u32>,
    /// `fsGroup` and `supplementalGroups`.
    pub supplemental_groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: the image's `/etc/group` adds none.
    pub strict_groups: bool,
    /// `allowPrivilegeEscalation: false`: no program makes it more than it is.
    pub no_new_privileges: bool,
    /// `procMount: Unmasked`: `/proc` as the kernel has it.
    pub unmasked_proc: bool,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `privileged`.
    pub privileged: bool,
    /// `capabilities.add`, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// `capabilities.drop`, without `CAP_`; `ALL` drops all.
    pub drop_capabilities: Vec<String>,
    /// `seccompProfile`.
    pub seccomp: Seccomp,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// All that its capabilities allow.
    #[default]
    Unconfined,
    /// Those of the runtime's own profile.
    RuntimeDefault,
    /// Those of the profile in this file of the node (absolute).
    Localhost(PathBuf),
}

/// One container, ready to be made.
#[derive(Clone)]
pub struct ContainerSpec {
    /// Its identity; a restart makes a new one.
    pub id: ContainerId,
    /// Its Pod.
    pub pod: PodRef,
    /// `containers[].name`.
    pub name: String,
    /// 0 for the first run, then 1, 2, ...: the restart count when it was made.
    pub attempt: u32,
    /// The image to run.
    pub image: Arc<Image>,
    /// `command`: replaces the image's entrypoint (and its cmd) where not empty.
    pub command: Vec<String>,
    /// `args`: replaces the image's cmd where not empty.
    pub args: Vec<String>,
    /// The whole environment apart from the image's, which it overrides; in order, later names win.
    pub env: Vec<(String, String)>,
    /// `workingDir`; the image's where none.
    pub working_dir: Option<PathBuf>,
    /// Volumes and the agent's files (`/etc/hosts`, `/etc/resolv.conf`, the termination log).
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub limits: Limits,
    /// Declared TCP `containerPort`s, in order. A `wasi:http` component is served on each; on 8080 where none.
    pub ports: Vec<u16>,
    /// Its Pod's network.
    pub network: Arc<dyn PodNetwork>,
    /// Its Pod's host name.
    pub hostname: String,
    /// Who it runs as.
    pub security: Security,
    /// The cgroup path of its Pod, relative to each controller's root (`/wherry/pod<uid>`).
    pub cgroup_parent: String,
    /// `stdin: true`.
    pub stdin: bool,
    /// `stdinOnce: true`: stdin ends when the first caller that was attached to it has ended its own.
    pub stdin_once: bool,
    /// `tty: true`.
    pub tty: bool,
}

impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Environment values may be Secrets: names only.
        f.debug_struct("ContainerSpec")
            .field("id", &self.id)
            .field("pod", &self.pod)
            .field("name", &self.name)
            .field("image", &self.image.reference)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
