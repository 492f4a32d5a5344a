//! Taking up again what an earlier life of the agent left: running containers are adopted, lost ones counted as ended,
//! what belongs to no Pod is removed.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use wherry_runtime::{ContainerState, ContainerStatus, Runtime, RuntimeError, Signal};

use super::Driver;
use super::outcome::Outcome;
use super::record::{Record, Uid, pod_ref};
use super::shared::Shared;
use super::start::Started;
use super::stop::lost;
use crate::config::{request, volumes};
use crate::lifecycle::{self, Given, Ground, Identity, Run, Slot};
use crate::logs::{Logs, SharedLog};

/// Networks taken up at once.
const CONCURRENT: usize = 16;

type Found = HashMap<String, (Arc<dyn Runtime>, ContainerStatus)>;

impl Driver {
    /// Takes up the Pods that exist, before any new one is begun (their addresses are theirs).
    pub(super) async fn recover(&mut self, pods: Vec<Arc<Pod>>) {
        let mut found = self.list().await;
        let networks = self.shared.network.left().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the networks of Pods of an earlier life");
            HashSet::new()
        });
        self.take_addresses(&pods).await;
        let known: HashSet<String> = pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        for pod in &pods {
            self.recover_pod(pod, &mut found, &networks).await;
        }
        // Once it is known what all of them hold: what was asked for while no agent was there, and what waits.
        for pod in pods {
            if let Some(uid) = pod.metadata.uid.as_deref().map(Uid::from) {
                self.pod_known(uid, pod);
            }
        }
        self.clear(found, networks, &known).await;
    }

    async fn list(&self) -> Found {
        let mut found = Found::new();
        for runtime in self.shared.runtimes() {
            match runtime.list().await {
                Ok(list) => {
                    found.extend(list.into_iter().map(|status| (status.id.0.clone(), (runtime.clone(), status))))
                }
                Err(error) => {
                    tracing::error!(runtime = runtime.info().name, %error, "cannot list the containers that are left")
                }
            }
        }
        found
    }

    async fn take_addresses(&self, pods: &[Arc<Pod>]) {
        let shared = &self.shared;
        let kept = pods.iter().filter_map(|pod| {
            let status = pod.status.as_ref()?;
            let ended = status.phase.as_deref().is_some_and(|phase| lifecycle::Phase::parse(phase).is_terminal());
            let ip = status.pod_ip.as_deref()?.parse().ok()?;
            (!ended).then(|| (pod.clone(), ip))
        });
        futures::stream::iter(kept)
            .for_each_concurrent(CONCURRENT, |(pod, ip)| async move {
                let namespaced = super::ground::was_namespaced(shared, &pod);
                let request = request::request(&pod, &shared.node_name, &shared.network.dns(), namespaced, Some(ip));
                if let Err(error) = shared.network.add_pod(&pod_ref(&pod), request).await {
                    tracing::warn!(pod = ?pod.metadata.name, %ip, %error, "a Pod cannot keep its address");
                }
            })
            .await;
    }

    async fn recover_pod(&mut self, pod: &Arc<Pod>, found: &mut Found, networks: &HashSet<String>) {
        let Some(uid) = pod.metadata.uid.as_deref().map(Uid::from) else { return };
        let pod = match lifecycle::resize::recovered(pod) {
            Cow::Borrowed(_) => pod.clone(),
            Cow::Owned(allocated) => Arc::new(allocated),
        };
        let reference = pod_ref(&pod);
        let dir = self.shared.logs.pod_dir(&reference.namespace, &reference.name, &reference.uid);
        let mut state = lifecycle::recover_status(&pod);
        if state.started_at.is_some() || networks.contains(&*uid) {
            // Something of it may be there. Made again or removed, whichever the Pod needs: both are idempotent.
            state.ground = Ground::Failed { retry_at: Timestamp::UNIX_EPOCH };
        }
        let mut record = Record::new(pod, dir, state);
        if self.is_static(&uid) {
            record.shown = None;
        }
        record.resize_noted = super::resize::note(&record.dir).exists();
        let mut adopted = Vec::new();
        let slots: Vec<Slot> = record.state.slots().map(|(slot, _)| slot).collect();
        for slot in slots {
            let name = lifecycle::name(&record.pod, slot).to_owned();
            let Some(container) = record.state.container_mut(slot) else { continue };
            // The newest run of this container that a runtime still has: the status may be behind.
            let begun = |status: &ContainerStatus| {
                status.pod.uid == reference.uid && status.name == name && status.state != ContainerState::Created
            };
            let newest = found.values().filter(|(_, status)| begun(status)).max_by_key(|(_, status)| status.attempt);
            let Some(id) = newest.map(|(_, status)| status.id.0.clone()) else { continue };
            let Some((runtime, status)) = found.remove(&id) else { continue };
            let shown = format!("{}://{id}", runtime.info().name);
            let before = container.run.live().filter(|live| live.identity.container_id == shown).cloned();
            // The status may tell of the run before, or of what this one had before it was resized.
            let told = before.as_ref().filter(|_| !record.resize_noted);
            let resources = told.map_or(Given::Unknown, |live| live.resources.clone());
            let mut identity = before
                .as_ref()
                .map_or_else(|| Identity { container_id: shown, ..Identity::default() }, |live| live.identity.clone());
            let path = Logs::path(&record.dir, &name, status.attempt);
            if let Err(problem) = adopt(&self.shared, &runtime, &status, &path).await {
                tracing::warn!(container = %status.id, problem, "a container cannot be adopted");
                found.insert(id, (runtime, status));
                continue;
            }
            let at = match &status.state {
                // As it was told before: the runtime's own reading of the clock is a little earlier.
                ContainerState::Running { .. } if before.is_some() => {
                    before.as_ref().map_or(Timestamp::UNIX_EPOCH, |live| live.started_at)
                }
                ContainerState::Running { started_at } => {
                    Timestamp::try_from(*started_at).unwrap_or_else(|_| self.shared.clock.now())
                }
                ContainerState::Created | ContainerState::Exited(_) => self.shared.clock.now(),
            };
            if identity.user.is_none() {
                identity.user = runtime.user(&status.id).await.ok().flatten();
            }
            let image = self.shared.images.get(&identity.image_id).ok().flatten();
            let (id, asked, hook_failed) = (status.id.clone(), None, false);
            let started = Started { id, runtime, identity, image, asked, resources, at, hook_failed };
            adopted.push((slot, status.attempt, started, before.map(|live| live.probes)));
            container.run = Run::default();
        }
        record.forget_lost_runs(self.shared.clock.now());
        self.insert(uid.clone(), record);
        for (slot, attempt, started, probes) in adopted {
            self.watch(&uid, slot, attempt, started, probes);
        }
        self.reconcile(&uid);
    }

    /// Ends and removes what belongs to no Pod.
    async fn clear(&mut self, found: Found, mut networks: HashSet<String>, known: &HashSet<String>) {
        networks.retain(|uid| !known.contains(uid));
        for (_, (runtime, status)) in found {
            // Goes after its containers.
            networks.remove(&status.pod.uid);
            let (shared, orphan) = (self.shared.clone(), !known.contains(&status.pod.uid));
            self.spawn(Outcome::Nothing, async move {
                tracing::info!(container = %status.id, pod = %status.pod.name, "removing a container that was left behind");
                let ended = async {
                    if matches!(status.state, ContainerState::Running { .. }) {
                        runtime.kill(&status.id, Signal::Kill).await?;
                        runtime.wait(&status.id).await?;
                    }
                    runtime.remove(&status.id).await
                };
                if let Err(error) = ended.await {
                    tracing::warn!(container = %status.id, %error, "cannot remove a container that was left behind");
                }
                if orphan {
                    remove_network(&shared, &status.pod.uid).await;
                }
                Outcome::Nothing
            });
        }
        for uid in networks {
            let shared = self.shared.clone();
            self.spawn(Outcome::Nothing, async move {
                remove_network(&shared, &uid).await;
                Outcome::Nothing
            });
        }
        // Listed before any new Pod is begun, whose directory would be a strange one, too; removed in the meantime.
        let roots = [self.shared.logs.root().to_owned(), self.shared.written.clone()];
        let known = known.clone();
        let list = move || roots.iter().flat_map(|root| left_behind(root, &known)).collect::<Vec<_>>();
        let left = tokio::task::spawn_blocking(list).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the directories of Pods that are gone");
            Vec::new()
        });
        self.spawn(Outcome::Nothing, async move {
            if let Err(error) = tokio::task::spawn_blocking(move || volumes::remove_each(&left)).await {
                tracing::warn!(%error, "cannot clear the directories of Pods that are gone");
            }
            Outcome::Nothing
        });
    }
}

/// Gives a running container's output to its log again; of one that ended while nobody looked `wait` tells the exit.
async fn adopt(
    shared: &Shared,
    runtime: &Arc<dyn Runtime>,
    status: &ContainerStatus,
    path: &Path,
) -> Result<(), String> {
    if matches!(status.state, ContainerState::Exited(_)) {
        return Ok(());
    }
    let log = shared.logs.open(path).map_err(|error| error.to_string())?;
    match runtime.adopt(&status.id, Arc::new(SharedLog(log))).await {
        Ok(()) => Ok(()),
        // It ended since it was listed.
        Err(RuntimeError::WrongState { .. }) => Ok(()),
        Err(error) => {
            shared.logs.close(path).await;
            Err(error.to_string())
        }
    }
}

/// The directories (`<namespace>_<name>_<uid>`, `<uid>`) of Pods that are not known.
fn left_behind(root: &Path, known: &HashSet<String>) -> Vec<PathBuf> {
    let is_known = |name: &OsStr| {
        let uid = name.to_str().and_then(|name| name.rsplit('_').next());
        uid.is_none_or(|uid| known.contains(uid))
    };
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter(|entry| !is_known(&entry.file_name())).map(|entry| entry.path()).collect()
}

async fn remove_network(shared: &Shared, uid: &str) {
    if let Err(error) = shared.network.remove_pod(uid).await {
        tracing::warn!(uid, error, "cannot remove the network of a Pod that is gone");
    }
}

impl Record {
    /// What the status calls running and no runtime has, has ended.
    pub(super) fn forget_lost_runs(&mut self, now: Timestamp) {
        for container in self.state.containers_mut() {
            if let Run::Running(live) = &container.run {
                let mut ended = lost(live.identity.clone(), now);
                ended.started_at = Some(live.started_at);
                container.run = Run::Exited { ended, restart: false };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Pod that comes while the agent clears up is not one of those that were left behind.
    #[test]
    fn only_directories_that_were_there_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let dir = root.path().join(name);
            std::fs::create_dir_all(dir.join("volumes")).unwrap();
            dir
        };
        let (kept, gone) = (dir("default_web_1"), dir("default_old_2"));
        let left = left_behind(root.path(), &HashSet::from(["1".to_owned()]));
        let new = dir("default_new_3");
        volumes::remove_each(&left);
        assert_eq!([&kept, &gone, &new].map(|dir| dir.join("volumes").exists()), [true, false, true]);
    }
}
