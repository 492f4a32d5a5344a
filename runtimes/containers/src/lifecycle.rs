//! Making, starting, ending and removing one container.
//!
//! Each step undoes what it did when a later one fails. They run as tasks of the runtime, so that a caller who gives up does
//! not leave one half done.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use containerd_client::services::v1::container::Runtime as ShimRuntime;
use containerd_client::services::v1::snapshots::{
    MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, UsageRequest,
};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest, KillRequest,
    StartRequest, UpdateTaskRequest,
};
use containerd_client::types;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{Code, Status};
use wherry_runtime::{ContainerId, ContainerSpec, ContainerState, DiskUse, Limits, Output, RuntimeError, Signal};

use crate::client::{failed, is_lost, unless_missing};
use crate::entry::{Entry, follow};
use crate::journal::Past;
use crate::runtime::{Inner, labels};
use crate::spec::{self, Rootfs, Surroundings};
use crate::stdio::Fifos;
use crate::unpack::ImageFacts;

const SHIM: &str = "io.containerd.runc.v2";
/// How containerd names the type of an OCI spec's limits.
const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// How containerd names the type of an OCI spec.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

impl Inner {
    pub(crate) async fn create(
        self: &Arc<Self>,
        spec: ContainerSpec,
        output: Arc<dyn Output>,
    ) -> Result<(), RuntimeError> {
        if !is_id(&spec.id) {
            return Err(RuntimeError::InvalidSpec(format!(
                "{:?} is not a container identity: 64 lower-case hex digits",
                spec.id.0
            )));
        }
        let facts = ImageFacts::read(&spec.image).await?;
        let chain = self.unpacker.unpack(&spec.image, &facts).await?;
        let rootfs = self.prepare_rootfs(&spec.id, chain).await?;
        let result = self.record(&spec, &facts, rootfs, output).await;
        match result {
            Ok(entry) => {
                self.containers.lock().insert(spec.id.clone(), Arc::new(entry));
                Ok(())
            }
            Err(error) => {
                self.forget_rootfs(&spec.id)
                    .await
                    .unwrap_or_else(|e| tracing::warn!(container = %spec.id, error = %e, "a snapshot stays behind"));
                Err(error)
            }
        }
    }

    /// A writable snapshot over the image's, under the container's name.
    async fn prepare_rootfs(&self, id: &ContainerId, chain: String) -> Result<Vec<types::Mount>, RuntimeError> {
        // A root for the collector by itself: its container's record comes after it. Removed by us alone.
        let labels = HashMap::from([
            ("containerd.io/gc.root".to_owned(), "wherry".to_owned()),
            (labels::ROOTFS.to_owned(), "true".to_owned()),
        ]);
        let request = PrepareSnapshotRequest {
            snapshotter: self.unpacker.snapshotter().to_owned(),
            key: id.0.clone(),
            parent: chain,
            labels,
        };
        let prepared = self
            .client
            .snapshots()
            .prepare(self.client.call(request))
            .await
            .map_err(failed("prepare a root filesystem"))?;
        Ok(prepared.into_inner().mounts)
    }

    pub(crate) async fn forget_rootfs(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = RemoveSnapshotRequest { snapshotter: self.unpacker.snapshotter().to_owned(), key: id.0.clone() };
        unless_missing(self.client.snapshots().remove(self.client.call(request)).await)
            .map_err(failed("remove a root filesystem"))?;
        self.removed.notify_one();
        Ok(())
    }

    /// What the container has written over its image; containerd walks the files.
    pub(crate) async fn rootfs_use(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        let request = UsageRequest { snapshotter: self.unpacker.snapshotter().to_owned(), key: id.0.clone() };
        let usage = self.client.snapshots().usage(self.client.call(request)).await;
        let usage = usage.map_err(failed("measure a root filesystem"))?.into_inner();
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(DiskUse { bytes: count(usage.size), inodes: count(usage.inodes) })
    }

    /// The container's record at containerd and its directory here.
    async fn record(
        &self,
        spec: &ContainerSpec,
        facts: &ImageFacts,
        rootfs: Vec<types::Mount>,
        output: Arc<dyn Output>,
    ) -> Result<Entry, RuntimeError> {
        let user = spec::user(spec, &Rootfs::of(&rootfs))?;
        let around = Surroundings { cgroups: &self.cgroups, user: &user };
        for mount in &spec.mounts {
            let named = |error| RuntimeError::Failed(format!("the mount at {}: {error}", mount.target.display()));
            mount.make().map_err(named)?;
        }
        let oci = spec::build(spec, &around)?;
        let journal = self.journal(&spec.id);
        let fifos = Fifos::new(journal.dir().to_owned(), spec.tty, spec.stdin);
        fifos
            .make()
            .map_err(|e| RuntimeError::Failed(format!("can't make fifos in {}: {e}", fifos.dir().display())))?;
        let container = Container {
            id: spec.id.0.clone(),
            labels: labels::of(spec, facts.stop_signal()),
            image: spec.image.reference.clone(),
            runtime: Some(ShimRuntime { name: SHIM.to_owned(), options: None }),
            spec: Some(prost_types::Any { type_url: SPEC_TYPE.to_owned(), value: oci.to_string().into_bytes() }),
            snapshotter: self.unpacker.snapshotter().to_owned(),
            snapshot_key: spec.id.0.clone(),
            ..Container::default()
        };
        let made = self
            .client
            .containers()
            .create(self.client.call(CreateContainerRequest { container: Some(container) }))
            .await;
        if let Err(status) = made {
            fifos.remove();
            return Err(failed("make a container")(status));
        }
        Ok(Entry {
            id: spec.id.clone(),
            pod: spec.pod.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            tty: spec.tty,
            stdin: spec.stdin,
            stdin_once: spec.stdin_once,
            stop_signal: facts.stop_signal(),
            cgroup: spec::cgroup_path(spec),
            user: Some(user),
            fifos,
            journal,
            rootfs,
            sources: Mutex::new(spec.mounts.iter().filter_map(|mount| mount.handle.clone()).collect()),
            change: tokio::sync::Mutex::new(()),
            state: watch::Sender::new(ContainerState::Created),
            output: Mutex::new(Some(output)),
            pumps: Mutex::new(None),
            attachers: Arc::default(),
        })
    }

    pub(crate) async fn start(self: &Arc<Self>, entry: Arc<Entry>) -> Result<(), RuntimeError> {
        let _alone = entry.change.lock().await;
        if !entry.is_created() {
            return Err(entry.wrong_state("it can be started once"));
        }
        let output =
            entry.output.lock().clone().ok_or_else(|| entry.wrong_state("it has no output: adopt it first"))?;
        let started_at = SystemTime::now();
        // Noted before it may run: after a crash a task without a note would look as if it had never been started.
        entry.remember(&Past::started(started_at));
        match self.run(&entry, &output).await {
            Ok(()) => {}
            Err(error) => {
                if let RuntimeError::InvalidSpec(message) = &error {
                    entry.start_failed(message.clone());
                } else {
                    entry.remember(&Past::default());
                }
                return Err(error);
            }
        }
        entry.sources.lock().clear();
        entry.state.send_replace(ContainerState::Running { started_at });
        self.follow(&entry, started_at);
        Ok(())
    }

    /// Makes and starts the task; after a failure there is none.
    async fn run(&self, entry: &Arc<Entry>, output: &Arc<dyn Output>) -> Result<(), RuntimeError> {
        let io = |e: io::Error| {
            RuntimeError::Failed(format!("can't open the fifos in {}: {e}", entry.fifos.dir().display()))
        };
        let ends = entry.fifos.open().map_err(io)?;
        let rootfs = if entry.rootfs.is_empty() { self.rootfs(&entry.id).await? } else { entry.rootfs.clone() };
        let [stdin, stdout, stderr] = entry.fifos.names();
        let id = &entry.id.0;
        let request = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdin,
            stdout,
            stderr,
            terminal: entry.tty,
            ..CreateTaskRequest::default()
        };
        self.client.tasks().create(self.client.call(request)).await.map_err(start_error)?;
        // The shim has opened its ends by now.
        let pumps = ends.pump(&entry.attachers.tee(Arc::clone(output)), &self.stop);
        let request = StartRequest { container_id: id.clone(), exec_id: String::new() };
        if let Err(status) = self.client.tasks().start(self.client.call(request)).await {
            self.delete_task(&entry.id)
                .await
                .unwrap_or_else(|e| tracing::warn!(container = %entry.id, error = %e, "a task stays behind"));
            return Err(start_error(status));
        }
        *entry.pumps.lock() = Some(pumps);
        Ok(())
    }

    async fn rootfs(&self, id: &ContainerId) -> Result<Vec<types::Mount>, RuntimeError> {
        let request = MountsRequest { snapshotter: self.unpacker.snapshotter().to_owned(), key: id.0.clone() };
        Ok(self
            .client
            .snapshots()
            .mounts(self.client.call(request))
            .await
            .map_err(failed("find a root filesystem"))?
            .into_inner()
            .mounts)
    }

    /// Begins to wait for a running container's end.
    pub(crate) fn follow(&self, entry: &Arc<Entry>, started_at: SystemTime) {
        let end =
            follow(Arc::clone(entry), self.client.clone(), Arc::clone(&self.cgroups), started_at, self.stop.clone());
        self.tasks.spawn(end);
    }

    pub(crate) async fn kill(&self, entry: &Entry, signal: Signal) -> Result<(), RuntimeError> {
        if entry.is_created() {
            return Err(entry.wrong_state("it has not been started"));
        }
        if !entry.is_running() {
            return Ok(());
        }
        let signal = match signal {
            Signal::Term => entry.stop_signal,
            Signal::Kill => (nix::sys::signal::Signal::SIGKILL as i32).cast_unsigned(),
        };
        let request = KillRequest { container_id: entry.id.0.clone(), exec_id: String::new(), signal, all: false };
        match self.client.tasks().kill(self.client.call(request)).await {
            Ok(_) => Ok(()),
            // It has ended by itself; its end is on its way to us.
            Err(status) if status.code() == Code::NotFound || status.message().contains("process already finished") => {
                Ok(())
            }
            Err(status) => Err(failed("signal a container")(status)),
        }
    }

    /// Changes the limits of a running container's control group.
    pub(crate) async fn update(&self, entry: &Entry, limits: Limits) -> Result<(), RuntimeError> {
        if !entry.is_running() {
            return Err(entry.wrong_state("only the limits of a running container can be changed"));
        }
        let resources = spec::limits(&limits, &self.cgroups).to_string().into_bytes();
        let resources = prost_types::Any { type_url: RESOURCES_TYPE.to_owned(), value: resources };
        let request = UpdateTaskRequest {
            container_id: entry.id.0.clone(),
            resources: Some(resources),
            ..UpdateTaskRequest::default()
        };
        self.client.tasks().update(self.client.call(request)).await.map_err(failed("change a container's limits"))?;
        Ok(())
    }

    pub(crate) async fn remove(&self, entry: &Arc<Entry>) -> Result<(), RuntimeError> {
        let _alone = entry.change.lock().await;
        if entry.is_running() {
            return Err(entry.wrong_state("end it before it is removed"));
        }
        self.delete_task(&entry.id).await?;
        // Before the record: after a crash nothing else would tell where they are.
        self.cgroups.remove_if_empty(&entry.cgroup);
        if let Some((parent, _)) = entry.cgroup.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            self.cgroups.remove_if_empty(parent);
        }
        let request = DeleteContainerRequest { id: entry.id.0.clone() };
        unless_missing(self.client.containers().delete(self.client.call(request)).await)
            .map_err(failed("remove a container"))?;
        self.forget_rootfs(&entry.id).await?;
        entry.fifos.remove();
        self.containers.lock().remove(&entry.id);
        Ok(())
    }

    async fn delete_task(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let request = DeleteTaskRequest { container_id: id.0.clone() };
        unless_missing(self.client.tasks().delete(self.client.call(request)).await).map_err(failed("remove a task"))?;
        Ok(())
    }
}

/// Whether this can be a container's identity.
pub(crate) fn is_id(id: &ContainerId) -> bool {
    id.0.len() == 64 && id.0.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What runc refuses is the container's fault: a command that is not there, a mount that can't be made. Its words come wrapped
/// in the words of all who passed them on; the last ones say what is wrong.
fn start_error(status: Status) -> RuntimeError {
    if is_lost(&status) || !status.message().contains("OCI runtime") {
        return failed("start a container")(status);
    }
    RuntimeError::InvalidSpec(plain(status.message()))
}

/// runc's message without the wrapping of shim and containerd.
fn plain(message: &str) -> String {
    const WRAPPING: [&str; 6] = [
        "failed to create shim task: ",
        "OCI runtime create failed: ",
        "OCI runtime start failed: ",
        "OCI runtime exec failed: ",
        "runc create failed: ",
        "runc did not terminate successfully: ",
    ];
    let mut text = message.trim();
    while let Some(rest) = WRAPPING.iter().find_map(|wrapping| text.strip_prefix(wrapping)) {
        text = rest.trim_start();
    }
    text.trim_end_matches(": unknown").replace("unable to start container process: ", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runcs_words_are_unwrapped() {
        let message = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: \
                       exec: \"nope\": executable file not found in $PATH: unknown";
        assert_eq!(plain(message), "exec: \"nope\": executable file not found in $PATH");
        assert!(matches!(start_error(Status::unknown(message)), RuntimeError::InvalidSpec(_)));
        assert!(matches!(start_error(Status::unavailable("no")), RuntimeError::Failed(_)));
    }

    #[test]
    fn identities_are_checked() {
        assert!(is_id(&ContainerId("a1".repeat(32))));
        assert!(!is_id(&ContainerId("../x".into())) && !is_id(&ContainerId("A".repeat(64))));
    }
}
