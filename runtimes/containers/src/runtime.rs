//! The runtime itself: connecting, finding the containers of an earlier life, and the trait.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use containerd_client::services::v1::snapshots::ListSnapshotsRequest;
use containerd_client::services::v1::{Container, ListContainersRequest, ListTasksRequest, PluginsRequest};
use containerd_client::types::v1::{Process as Task, Status as TaskStatus};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wherry_runtime::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, DiskUse, Exit, Image, Kept, Limits, Output, Runtime,
    RuntimeError, RuntimeInfo, Signal, Stats, Streams, User,
};

use crate::cgroup::Cgroups;
use crate::client::{Client, failed};
use crate::collect::collect;
use crate::entry::{Entry, time};
use crate::journal::Journal;
use crate::lifecycle::is_id;
use crate::stdio::Fifos;
use crate::unpack::{ImageFacts, Unpacker};

/// How to use a containerd.
#[derive(Clone, Debug)]
pub struct ContainerOptions {
    /// containerd's socket.
    pub socket: PathBuf,
    /// containerd's namespace: ours alone.
    pub namespace: String,
    /// Where we keep fifos and notes; absolute. The same one as in the last life.
    pub state_dir: PathBuf,
    /// How layers are stacked; `overlayfs` where it works, else `native`, where none is given.
    pub snapshotter: Option<String>,
}

impl ContainerOptions {
    /// The namespace `wherry` at `socket`, with our own files in `state_dir`.
    pub fn new(socket: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), namespace: "wherry".to_owned(), state_dir: state_dir.into(), snapshotter: None }
    }
}

/// Containers, run by containerd.
pub struct ContainerRuntime {
    inner: Arc<Inner>,
    _stop: DropGuard,
}

pub(crate) struct Inner {
    version: String,
    pub(crate) client: Client,
    pub(crate) unpacker: Unpacker,
    pub(crate) cgroups: Arc<Cgroups>,
    state_dir: PathBuf,
    pub(crate) containers: Mutex<HashMap<ContainerId, Arc<Entry>>>,
    /// Identities whose containers are being made.
    making: Mutex<HashSet<ContainerId>>,
    /// Told after a container's files were given up: see [`collect`](crate::collect::collect).
    pub(crate) removed: Arc<Notify>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What containerd remembers of a container for us.
pub(crate) mod labels {
    use std::collections::HashMap;

    use wherry_runtime::{ContainerSpec, PodRef};

    const MANAGED: &str = "wherry.dev/managed";
    const NAMESPACE: &str = "wherry.dev/pod-namespace";
    const POD: &str = "wherry.dev/pod-name";
    const UID: &str = "wherry.dev/pod-uid";
    const NAME: &str = "wherry.dev/container-name";
    const ATTEMPT: &str = "wherry.dev/attempt";
    const CGROUP: &str = "wherry.dev/cgroup";
    const STREAMS: &str = "wherry.dev/streams";
    const STOP: &str = "wherry.dev/stop-signal";
    /// On snapshots.
    pub(crate) const ROOTFS: &str = "wherry.dev/rootfs";

    pub(crate) fn filter() -> String {
        format!("labels.{MANAGED:?}==true")
    }

    pub(crate) fn rootfs_filter() -> String {
        format!("labels.{ROOTFS:?}==true")
    }

    pub(crate) fn of(spec: &ContainerSpec, stop_signal: u32) -> HashMap<String, String> {
        // Never empty: containerd drops a label without a value.
        let streams = format!(
            "out{}{}{}",
            if spec.tty { ",tty" } else { "" },
            if spec.stdin { ",stdin" } else { "" },
            if spec.stdin_once { ",once" } else { "" }
        );
        let pairs = [
            (MANAGED, "true".to_owned()),
            (NAMESPACE, spec.pod.namespace.clone()),
            (POD, spec.pod.name.clone()),
            (UID, spec.pod.uid.clone()),
            (NAME, spec.name.clone()),
            (ATTEMPT, spec.attempt.to_string()),
            (CGROUP, crate::spec::cgroup_path(spec)),
            (STREAMS, streams),
            (STOP, stop_signal.to_string()),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What the labels say.
    pub(crate) struct Known {
        pub(crate) pod: PodRef,
        pub(crate) name: String,
        pub(crate) attempt: u32,
        pub(crate) cgroup: String,
        pub(crate) tty: bool,
        pub(crate) stdin: bool,
        pub(crate) stdin_once: bool,
        pub(crate) stop_signal: u32,
    }

    pub(crate) fn read(labels: &HashMap<String, String>) -> Option<Known> {
        let get = |key: &str| labels.get(key).cloned();
        let streams = get(STREAMS)?;
        Some(Known {
            pod: PodRef { namespace: get(NAMESPACE)?, name: get(POD)?, uid: get(UID)? },
            name: get(NAME)?,
            attempt: get(ATTEMPT)?.parse().ok()?,
            cgroup: get(CGROUP)?,
            tty: streams.split(',').any(|s| s == "tty"),
            stdin: streams.split(',').any(|s| s == "stdin"),
            stdin_once: streams.split(',').any(|s| s == "once"),
            stop_signal: get(STOP)?.parse().ok()?,
        })
    }
}

impl ContainerRuntime {
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Connects to containerd and finds the containers of an earlier life: those that run are waited for, and give their output
    /// once they are adopted.
    pub async fn connect(options: ContainerOptions) -> Result<Arc<Self>, RuntimeError> {
        let client = Client::new(options.socket, &options.namespace)?;
        let version =
            client.version().version(client.call(())).await.map_err(failed("say its version"))?.into_inner().version;
        let version = version.trim_start_matches('v').split(['~', '+']).next().unwrap_or_default().to_owned();
        let snapshotter = match options.snapshotter {
            Some(name) => name,
            None => choose_snapshotter(&client).await?,
        };
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            version,
            unpacker: Unpacker::new(client.clone(), snapshotter),
            client,
            cgroups: Arc::new(Cgroups::detect()),
            state_dir: options.state_dir,
            containers: Mutex::default(),
            making: Mutex::default(),
            removed: Arc::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        inner.recover().await?;
        let (client, snapshotter) = (inner.client.clone(), inner.unpacker.snapshotter().to_owned());
        inner.tasks.spawn(collect(client, snapshotter, Arc::clone(&inner.removed), stop.clone()));
        Ok(Arc::new(Self { inner, _stop: stop.drop_guard() }))
    }

    fn entry(&self, id: &ContainerId) -> Result<Arc<Entry>, RuntimeError> {
        self.inner.containers.lock().get(id).cloned().ok_or_else(|| RuntimeError::NotFound(id.clone()))
    }
}

/// overlayfs where containerd has it ready, else copies.
async fn choose_snapshotter(client: &Client) -> Result<String, RuntimeError> {
    let request = PluginsRequest { filters: vec!["type==io.containerd.snapshotter.v1".to_owned()] };
    let plugins = client
        .introspection()
        .plugins(client.call(request))
        .await
        .map_err(failed("list its snapshotters"))?
        .into_inner()
        .plugins;
    let ready: Vec<String> =
        plugins.into_iter().filter(|plugin| plugin.init_err.is_none()).map(|plugin| plugin.id).collect();
    let wanted = ["overlayfs", "native"].into_iter().find(|name| ready.iter().any(|id| id == name));
    wanted.map(str::to_owned).ok_or_else(|| {
        RuntimeError::Failed(format!(
            "containerd has neither overlayfs nor native snapshots, only: {}",
            ready.join(", ")
        ))
    })
}

/// Who the OCI spec of a container says that it runs as.
fn recorded_user(spec: &[u8]) -> Option<User> {
    let spec: serde_json::Value = serde_json::from_slice(spec).ok()?;
    let user = &spec["process"]["user"];
    let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let groups = user["additionalGids"].as_array().map(|groups| groups.iter().filter_map(id).collect());
    Some(User { uid: id(&user["uid"])?, gid: id(&user["gid"])?, groups: groups.unwrap_or_default() })
}

impl Inner {
    pub(crate) fn journal(&self, id: &ContainerId) -> Journal {
        Journal::new(self.state_dir.join(&id.0))
    }

    async fn recover(self: &Arc<Self>) -> Result<(), RuntimeError> {
        let request = ListContainersRequest { filters: vec![labels::filter()] };
        let containers = self
            .client
            .containers()
            .list(self.client.call(request))
            .await
            .map_err(failed("list containers"))?
            .into_inner()
            .containers;
        let request = ListTasksRequest { filter: String::new() };
        let tasks =
            self.client.tasks().list(self.client.call(request)).await.map_err(failed("list tasks"))?.into_inner().tasks;
        // containerd 1.6 fills in `id` alone, later ones `container_id` too.
        let of = |task: &Task| if task.container_id.is_empty() { task.id.clone() } else { task.container_id.clone() };
        let mut tasks: HashMap<String, Task> = tasks.into_iter().map(|task| (of(&task), task)).collect();
        for container in containers {
            let task = tasks.remove(&container.id);
            self.recover_one(container, task);
        }
        self.sweep().await;
        Ok(())
    }

    fn recover_one(self: &Arc<Self>, container: Container, task: Option<Task>) {
        let Some(known) = labels::read(&container.labels) else {
            return tracing::warn!(
                container = container.id,
                "a container with our label, but without the others, is left alone"
            );
        };
        let id = ContainerId(container.id.clone());
        let journal = self.journal(&id);
        let past = journal.read();
        let made_at = container.created_at.map_or_else(SystemTime::now, time);
        let entry = Arc::new(Entry {
            fifos: Fifos::new(journal.dir().to_owned(), known.tty, known.stdin),
            id: id.clone(),
            pod: known.pod,
            name: known.name,
            attempt: known.attempt,
            tty: known.tty,
            stdin: known.stdin,
            stdin_once: known.stdin_once,
            stop_signal: known.stop_signal,
            cgroup: known.cgroup,
            user: container.spec.as_ref().and_then(|spec| recorded_user(&spec.value)),
            journal,
            rootfs: Vec::new(),
            sources: Mutex::default(),
            change: tokio::sync::Mutex::new(()),
            state: watch::Sender::new(ContainerState::Created),
            output: Mutex::new(None),
            pumps: Mutex::new(None),
            attachers: Arc::default(),
        });
        let started_at = past.started_at().unwrap_or(made_at);
        match (past.exit(), task.map(|task| (TaskStatus::try_from(task.status), task))) {
            (Some(exit), _) => drop(entry.state.send_replace(ContainerState::Exited(exit))),
            (None, Some((Ok(TaskStatus::Stopped), task))) => {
                let finished_at = task.exited_at.map_or_else(SystemTime::now, time).max(started_at);
                let oom_killed = self.cgroups.oom_killed(&entry.cgroup);
                entry.exited(Exit {
                    code: task.exit_status.cast_signed(),
                    oom_killed,
                    message: None,
                    started_at,
                    finished_at,
                });
            }
            (None, Some((Ok(TaskStatus::Created), _))) => {
                // We died between making the task and starting it: whoever looks after it makes another container.
                entry.start_failed("the node's agent was restarted while it was starting".to_owned());
            }
            (None, Some(_)) => {
                entry.state.send_replace(ContainerState::Running { started_at });
                self.follow(&entry, started_at);
            }
            (None, None) if past.started_at().is_some() => entry.exited(entry.vanished(started_at)),
            (None, None) => {}
        }
        self.containers.lock().insert(id, entry);
    }

    /// Removes the root filesystems and directories of containers that were never finished being made, or being removed. Best effort:
    /// they cost space only.
    async fn sweep(&self) {
        let snapshotter = self.unpacker.snapshotter().to_owned();
        let request = ListSnapshotsRequest { snapshotter, filters: vec![labels::rootfs_filter()] };
        let Ok(listed) = self.client.snapshots().list(self.client.call(request)).await else { return };
        let mut listed = listed.into_inner();
        while let Some(Ok(page)) = listed.next().await {
            for info in page.info {
                let id = ContainerId(info.name);
                if !self.containers.lock().contains_key(&id) {
                    let _ = self.forget_rootfs(&id).await;
                }
            }
        }
        // A containerd that was killed has forgotten that something was to be collected.
        self.removed.notify_one();
        for entry in std::fs::read_dir(&self.state_dir).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let id = ContainerId(name);
            if is_id(&id) && !self.containers.lock().contains_key(&id) {
                Fifos::new(entry.path(), false, false).remove();
            }
        }
    }

    /// Runs work to its end even if the caller goes.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        match self.tasks.spawn(work).await {
            Ok(result) => result,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(RuntimeError::Failed("the node is shutting down".into())),
            },
        }
    }
}

#[async_trait]
impl Runtime for ContainerRuntime {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: "containerd".to_owned(), version: self.inner.version.clone() }
    }

    async fn prepare(&self, image: &Arc<Image>, _: &str) -> Result<(), RuntimeError> {
        let (inner, image) = (Arc::clone(&self.inner), Arc::clone(image));
        let work = async move {
            let facts = ImageFacts::read(&image).await?;
            inner.unpacker.unpack(&image, &facts).await.map(drop)
        };
        self.inner.to_its_end(work).await
    }

    async fn create(&self, spec: ContainerSpec, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        let id = spec.id.clone();
        if let Ok(entry) = self.entry(&id) {
            return Err(entry.wrong_state("there is a container of this identity"));
        }
        if !self.inner.making.lock().insert(id.clone()) {
            return Err(RuntimeError::WrongState {
                id,
                state: "being made",
                problem: "there is a container of this identity".into(),
            });
        }
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let result = inner.create(spec, output).await;
            inner.making.lock().remove(&id);
            result
        };
        self.inner.to_its_end(work).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (inner, entry) = (Arc::clone(&self.inner), self.entry(id)?);
        self.inner.to_its_end(async move { inner.start(entry).await }).await
    }

    async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        self.inner.kill(&*self.entry(id)?, signal).await
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let mut state = self.entry(id)?.state.subscribe();
        let ended = state.wait_for(|state| matches!(state, ContainerState::Exited(_))).await;
        match ended.as_deref() {
            Ok(ContainerState::Exited(exit)) => Ok(exit.clone()),
            _ => Err(RuntimeError::NotFound(id.clone())),
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Ok(entry) = self.entry(id) else { return Ok(()) };
        let inner = Arc::clone(&self.inner);
        self.inner.to_its_end(async move { inner.remove(&entry).await }).await
    }

    async fn list(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self.inner.containers.lock().values().map(|entry| entry.status()).collect())
    }

    async fn adopt(&self, id: &ContainerId, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        let entry = self.entry(id)?;
        let _alone = entry.change.lock().await;
        *entry.output.lock() = Some(Arc::clone(&output));
        if entry.is_created() || entry.pumps.lock().is_some() {
            return Ok(());
        }
        let io = |e: std::io::Error| {
            RuntimeError::Failed(format!("can't open the fifos in {}: {e}", entry.fifos.dir().display()))
        };
        let pumps = entry.fifos.open().map_err(io)?.pump(&entry.attachers.tee(output), &self.inner.stop);
        if entry.is_running() {
            *entry.pumps.lock() = Some(pumps);
            return Ok(());
        }
        // It has ended meanwhile: what is left is handed over now.
        pumps.drained().await;
        Ok(())
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, RuntimeError> {
        self.inner.exec(&*self.entry(id)?, command, tty, streams).await
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<(), RuntimeError> {
        self.inner.attach(&*self.entry(id)?, streams).await
    }

    async fn user(&self, id: &ContainerId) -> Result<Option<User>, RuntimeError> {
        Ok(self.entry(id)?.user.clone())
    }

    async fn update(&self, id: &ContainerId, limits: Limits) -> Result<(), RuntimeError> {
        self.inner.update(&*self.entry(id)?, limits).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        let entry = self.entry(id)?;
        let ContainerState::Running { started_at } = *entry.state.borrow() else {
            return Err(entry.wrong_state("only a running container uses anything"));
        };
        let stats = self
            .inner
            .cgroups
            .stats(&entry.cgroup)
            .ok_or_else(|| RuntimeError::Failed(format!("the control group {} can't be read", entry.cgroup)))?;
        Ok(Stats { started_at: Some(started_at), ..stats })
    }

    async fn disk(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        self.entry(id)?;
        self.inner.rootfs_use(id).await
    }

    async fn retain(&self, kept: &Kept<'_>) -> Result<(), RuntimeError> {
        self.inner.unpacker.retain(kept).await
    }
}
