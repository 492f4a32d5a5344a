//! EndpointSlices of the Services that select Pods.
//!
//! Flow of a pass: members of the Service per address family, grouped by their ports; [`arrange`] decides which slices
//! change; then those are written. Slices of a Service whose workload may be scaled to zero say so by a label of ours, so that nodes
//! hold connections while there is no Pod.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, PostParams, Preconditions},
};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Change, EventType, Expectations, Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder, informer::revision_of,
    ownership::owner_reference, waking::SLEEPS,
};

use super::{
    arrange::{Changes, Group, arrange},
    concerned,
    members::{self, Family, Member, Port},
};
use crate::{
    context::Context,
    error::{self, Error},
    sleepers::Sleepers,
};

const NAME: &str = "endpoint-slice-controller";
const WORKERS: usize = 8;
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The index of slices by the Service they belong to.
pub(super) const BY_SERVICE: &str = "service";

/// Declares the index of slices that both writers of slices read.
pub(super) fn index(slices: &Informer<EndpointSlice>) {
    slices.index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
}

pub(super) fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// The Services that a change of a slice of `manager` concerns.
pub(super) fn services_of(change: &Change<EndpointSlice>, manager: &str) -> Vec<ObjectKey> {
    let ours = change.sides().filter(|slice| is_managed_by(slice, manager));
    ours.filter_map(|slice| service_of(slice)).collect()
}

pub(super) fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|name| name == manager)
}

struct Controller {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    sleepers: Sleepers,
    recorder: Recorder,
    written: Expectations,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        services: context.informers.get(),
        pods: context.informers.get(),
        nodes: context.informers.get(),
        slices: context.informers.get(),
        sleepers: Sleepers::new(&context),
        recorder: context.recorders.component(NAME),
        written: Expectations::default(),
        context,
    });
    index(&controller.slices);
    let of_pods = controller.services.clone();
    let feeds = Feeds::new()
        .on(&controller.services, |change| [change.key()])
        .on(&controller.pods, move |change| concerned(&of_pods, change))
        .on(&controller.slices, |change| services_of(change, MANAGER))
        .reading(&controller.nodes);
    controller.sleepers.feed_services(feeds).run(NAME, WORKERS, controller.clone(), cancel).await;
}

impl Controller {
    fn api(&self, namespace: &str) -> Api<EndpointSlice> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    fn groups(&self, service: &Service, pods: &[Arc<Pod>], family: Family) -> Vec<Group> {
        let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
        for member in members::members(service, pods, family) {
            let zone = member.node.as_deref().and_then(|node| self.zone(node));
            groups.entry(member.ports.clone()).or_default().push(endpoint(member, zone));
        }
        groups
            .into_iter()
            .map(|(ports, endpoints)| Group { ports: ports.iter().map(endpoint_port).collect(), endpoints })
            .collect()
    }

    /// The Service's labels, and ours.
    fn labels(&self, service: &Service) -> BTreeMap<String, String> {
        let mut labels = labels(service);
        labels.remove(SLEEPS);
        if !self.sleepers.behind(service).is_empty() {
            labels.insert(SLEEPS.to_owned(), String::new());
        }
        labels
    }

    fn zone(&self, node: &str) -> Option<String> {
        let node = self.nodes.get("", node)?;
        node.metadata.labels.as_ref()?.get(ZONE).cloned()
    }

    async fn apply(&self, service: &Service, key: &ObjectKey, family: Family, changes: Changes) -> Result<(), Error> {
        let api = self.api(&key.namespace);
        // Endpoints that moved are added before they are removed, so that none is missing in between.
        for group in changes.create {
            match api.create(&PostParams::default(), &new_slice(service, self.labels(service), family, group)).await {
                Ok(created) => self.written.wrote(key, revision_of(&created)),
                Err(error) if error::is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        for (slice, endpoints) in changes.update {
            let mut slice = EndpointSlice::clone(&slice);
            slice.metadata.labels = Some(self.labels(service));
            slice.endpoints = Some(endpoints);
            let name = slice.metadata.name.clone().unwrap_or_default();
            let updated = api.replace(&name, &PostParams::default(), &slice).await?;
            self.written.wrote(key, revision_of(&updated));
        }
        for slice in changes.delete {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: slice.metadata.uid.clone(), resource_version: None }),
                ..DeleteParams::default()
            };
            error::gone_is_fine(api.delete(name, &params).await)?;
            self.written.deleted(key, slice.metadata.uid.clone().unwrap_or_default());
        }
        Ok(())
    }

    async fn sync(&self, service: &Service, key: &ObjectKey, slices: &[Arc<EndpointSlice>]) -> Result<(), Error> {
        let pods = self.pods.list_namespace(&key.namespace);
        let families = members::families(service);
        for family in &families {
            let existing: Vec<_> =
                slices.iter().filter(|slice| slice.address_type == family.as_str()).cloned().collect();
            let mut changes = arrange(self.groups(service, &pods, *family), &existing);
            relabel(&self.labels(service), &existing, &mut changes);
            self.apply(service, key, *family, changes).await?;
        }
        let foreign: Vec<_> = slices
            .iter()
            .filter(|slice| !families.iter().any(|family| family.as_str() == slice.address_type))
            .cloned()
            .collect();
        let changes = Changes { delete: foreign, ..Changes::default() };
        self.apply(service, key, Family::V4, changes).await
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let slices: Vec<_> = self
            .slices
            .by_index(BY_SERVICE, &key.to_string())
            .into_iter()
            .filter(|slice| is_managed_by(slice, MANAGER) && slice.metadata.deletion_timestamp.is_none())
            .collect();
        let is_live = |uid: &str| slices.iter().any(|slice| slice.metadata.uid.as_deref() == Some(uid));
        if !self.written.satisfied(&key, self.slices.revision(), is_live) {
            return Ok(Outcome::Behind);
        }
        // Slices of a deleted Service are the garbage collector's: the Service owns them.
        let service = self.services.get_key(&key).filter(|service| service.metadata.deletion_timestamp.is_none());
        let Some(service) = service else {
            self.written.forget(&key);
            return Ok(Outcome::Done);
        };
        if members::selector(&service).is_none() {
            return Ok(Outcome::Done);
        }
        let result = self.sync(&service, &key, &slices).await;
        if let Err(error) = &result {
            let conflict = matches!(error, Error::Api(error) if error::is_conflict(error));
            if !conflict {
                let text = format!("Error updating Endpoint Slices for Service {key}: {error}");
                self.recorder.on(&*service, EventType::Warning, "FailedToUpdateEndpointSlices", text);
            }
        }
        result.map(|()| Outcome::Done)
    }
}

fn endpoint(member: Member, zone: Option<String>) -> Endpoint {
    Endpoint {
        addresses: vec![member.address],
        conditions: Some(EndpointConditions {
            ready: Some(member.ready),
            serving: Some(member.serving),
            terminating: Some(member.terminating),
        }),
        hostname: member.hostname,
        node_name: member.node,
        target_ref: Some(member.target),
        zone,
        ..Endpoint::default()
    }
}

fn endpoint_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.number),
        app_protocol: port.app_protocol.clone(),
    }
}

/// The Service's labels, and those that every slice has.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if members::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// Adds the slices whose labels no longer follow the Service's.
fn relabel(wanted: &BTreeMap<String, String>, existing: &[Arc<EndpointSlice>], changes: &mut Changes) {
    for slice in existing {
        let changing = changes.delete.iter().chain(changes.update.iter().map(|(slice, _)| slice));
        let mut names = changing.map(|changing| &changing.metadata.name);
        if slice.metadata.labels.as_ref() != Some(wanted) && !names.any(|name| *name == slice.metadata.name) {
            changes.update.push((slice.clone(), slice.endpoints.clone().unwrap_or_default()));
        }
    }
}

fn new_slice(service: &Service, labels: BTreeMap<String, String>, family: Family, group: Group) -> EndpointSlice {
    EndpointSlice {
        address_type: family.as_str().to_owned(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner_reference(service)]),
            ..ObjectMeta::default()
        },
        endpoints: Some(group.endpoints),
        ports: Some(group.ports),
    }
}
