//! Which node has to do with which object.
//!
//! ```text
//! node ◀── Pod ──▶ secret, config map, service account, claim
//! node ◀── Pod ◀── claim ◀── volume ──▶ secret
//! node ◀── volume attachment
//! ```
//! What the Pods of a node refer to is counted by object and node, so that a question costs a look-up however many Pods there
//! are.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use wherry_store::{Entry, Key};

use super::references::{self, Kind, Reference};
use crate::follow::View;
use crate::objects;

const PODS: &str = "pods";
const VOLUMES: &str = "persistentvolumes";
const ATTACHMENTS: &str = "volumeattachments.storage.k8s.io";

/// Namespace and name.
type Place = (Arc<str>, Arc<str>);

/// Pods, volumes and attachments as they are stored.
#[derive(Default)]
pub(super) struct Graph {
    pods: HashMap<Place, Pod>,
    /// How many Pods of which node refer to an object.
    uses: HashMap<Reference, HashMap<Arc<str>, usize>>,
    volumes: HashMap<Arc<str>, Volume>,
    /// Volumes by the secrets that they need.
    volume_secrets: HashMap<Reference, Vec<Arc<str>>>,
    /// The node of a volume attachment.
    attachments: HashMap<Arc<str>, String>,
}

struct Pod {
    uid: Arc<str>,
    node: Arc<str>,
    references: Vec<Reference>,
}

struct Volume {
    claim: Reference,
    secrets: Vec<Reference>,
    /// The node whose agent keeps it, if it is one of the class local-path.
    keeper: Option<String>,
}

impl Graph {
    /// Whether a Pod is bound to `node`.
    pub(super) fn pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.get(&(namespace.into(), name.into())).is_some_and(|pod| *pod.node == *node)
    }

    /// Whether a Pod of `node` needs an object.
    pub(super) fn needs(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let object = Reference::new(kind, namespace, name);
        if self.uses.get(&object).is_some_and(|nodes| nodes.contains_key(node)) {
            return true;
        }
        kind == Kind::Secret
            && self.volume_secrets.get(&object).is_some_and(|all| all.iter().any(|volume| self.volume(node, volume)))
    }

    /// Whether a Pod of `node` has a claim that is bound to a volume.
    pub(super) fn volume(&self, node: &str, name: &str) -> bool {
        let claim = self.volumes.get(name).map(|volume| &volume.claim);
        claim.and_then(|claim| self.uses.get(claim)).is_some_and(|nodes| nodes.contains_key(node))
    }

    /// Whether the agent of `node` keeps a volume on the node's disk.
    pub(super) fn keeps(&self, node: &str, name: &str) -> bool {
        self.volumes.get(name).is_some_and(|volume| volume.keeper.as_deref() == Some(node))
    }

    /// Whether a volume is being attached to `node`.
    pub(super) fn attachment(&self, node: &str, name: &str) -> bool {
        self.attachments.get(name).is_some_and(|attached| attached == node)
    }

    fn put_pod(&mut self, entry: &Entry) {
        let place = (entry.key.namespace.clone(), entry.key.name.clone());
        if entry.attributes.field("spec.nodeName").is_empty() {
            return self.remove_pod(&place);
        }
        // What a bound Pod refers to stays, but for the ephemeral containers that it gets.
        let known = self.pods.get(&place).is_some_and(|pod| pod.uid == entry.uid);
        if known && !may_have_ephemeral_containers(&entry.json) {
            return;
        }
        self.remove_pod(&place);
        let Some(pod) = read(entry) else { return };
        let node: Arc<str> = pod["spec"]["nodeName"].as_str().unwrap_or_default().into();
        let references = references::of_pod(&pod);
        for reference in &references {
            *self.uses.entry(reference.clone()).or_default().entry(node.clone()).or_default() += 1;
        }
        self.pods.insert(place, Pod { uid: entry.uid.clone(), node, references });
    }

    fn remove_pod(&mut self, place: &Place) {
        let Some(pod) = self.pods.remove(place) else { return };
        for reference in pod.references {
            let Some(nodes) = self.uses.get_mut(&reference) else { continue };
            if let Some(count) = nodes.get_mut(&pod.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&pod.node);
                }
            }
            if nodes.is_empty() {
                self.uses.remove(&reference);
            }
        }
    }

    fn put_volume(&mut self, entry: &Entry) {
        let name = &entry.key.name;
        self.remove_volume(name);
        let Some(volume) = read(entry) else { return };
        let Some(claim) = references::claim_of_volume(&volume) else { return };
        let secrets = references::secrets_of_volume(&volume);
        for secret in &secrets {
            self.volume_secrets.entry(secret.clone()).or_default().push(name.clone());
        }
        let keeper = references::keeper_of_volume(&volume);
        self.volumes.insert(name.clone(), Volume { claim, secrets, keeper });
    }

    fn remove_volume(&mut self, name: &Arc<str>) {
        for secret in self.volumes.remove(name).into_iter().flat_map(|volume| volume.secrets) {
            if let Some(volumes) = self.volume_secrets.get_mut(&secret) {
                volumes.retain(|volume| volume != name);
                if volumes.is_empty() {
                    self.volume_secrets.remove(&secret);
                }
            }
        }
    }
}

impl View for Graph {
    const RESOURCES: &'static [&'static str] = &[PODS, VOLUMES, ATTACHMENTS];

    fn put(&mut self, entry: &Entry) {
        match entry.key.resource.as_ref() {
            PODS => self.put_pod(entry),
            VOLUMES => self.put_volume(entry),
            _ => {
                let node = read(entry).and_then(|object| object["spec"]["nodeName"].as_str().map(str::to_owned));
                self.attachments.insert(entry.key.name.clone(), node.unwrap_or_default());
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        match key.resource.as_ref() {
            PODS => self.remove_pod(&(key.namespace.clone(), key.name.clone())),
            VOLUMES => self.remove_volume(&key.name),
            _ => {
                self.attachments.remove(&key.name);
            }
        }
    }
}

fn read(entry: &Entry) -> Option<Value> {
    objects::stored_tree(entry).inspect_err(|error| tracing::error!(key = %entry.key, %error, "cannot be read")).ok()
}

/// A look at the bytes, which spares most Pods the parsing at each of their status updates.
fn may_have_ephemeral_containers(json: &[u8]) -> bool {
    const KEY: &[u8] = b"\"ephemeralContainers\"";
    json.windows(KEY.len()).any(|window| window == KEY)
}
