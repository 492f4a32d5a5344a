//! The Endpoints object of each Service that selects Pods: the older form of its EndpointSlices.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    EventType, Expectations, Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder, informer::revision_of,
};

use super::{
    concerned,
    members::{self, Member, Port},
    slices::HEADLESS,
};
use crate::{
    context::Context,
    error::{self, Error},
};

const NAME: &str = "endpoint-controller";
const WORKERS: usize = 4;
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// More addresses than this are cut off: clients with more use EndpointSlices.
const CAPACITY: usize = 1000;

struct Controller {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    recorder: Recorder,
    written: Expectations,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        services: context.informers.get(),
        pods: context.informers.get(),
        endpoints: context.informers.get(),
        recorder: context.recorders.component(NAME),
        written: Expectations::default(),
        context,
    });
    let of_pods = controller.services.clone();
    Feeds::new()
        .on(&controller.services, |change| [change.key()])
        .on(&controller.pods, move |change| concerned(&of_pods, change))
        // Also tells of Endpoints whose Service went away while nobody looked.
        .on(&controller.endpoints, |change| [change.key()])
        .run(NAME, WORKERS, controller.clone(), cancel)
        .await;
}

impl Controller {
    async fn write(&self, key: &ObjectKey, wanted: &Endpoints, existing: Option<&Endpoints>) -> Result<(), Error> {
        let api: Api<Endpoints> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let result = match existing {
            None => api.create(&PostParams::default(), wanted).await,
            Some(_) => api.replace(&key.name, &PostParams::default(), wanted).await,
        };
        match result {
            Ok(written) => self.written.wrote(key, revision_of(&written)),
            Err(error) if error::is_namespace_terminating(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        if !self.written.satisfied(&key, self.endpoints.revision(), |_| false) {
            return Ok(Outcome::Behind);
        }
        let existing = self.endpoints.get_key(&key);
        let Some(service) = self.services.get_key(&key) else {
            self.written.forget(&key);
            let ours = existing.is_some_and(|existing| is_ours(&existing));
            if ours {
                let api: Api<Endpoints> = Api::namespaced(self.context.client.clone(), &key.namespace);
                error::gone_is_fine(api.delete(&key.name, &DeleteParams::default()).await)?;
            }
            return Ok(Outcome::Done);
        };
        if members::selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let pods = self.pods.list_namespace(&key.namespace);
        let wanted = wanted(&service, &pods, existing.as_deref());
        if existing.as_deref() == Some(&wanted) {
            return Ok(Outcome::Done);
        }
        let result = self.write(&key, &wanted, existing.as_deref()).await;
        if let Err(error) = &result {
            let conflict = matches!(error, Error::Api(error) if error::is_conflict(error));
            if !conflict {
                let text = format!("Failed to update endpoint {key}: {error}");
                self.recorder.on(&*service, EventType::Warning, "FailedToUpdateEndpoint", text);
            }
        }
        result.map(|()| Outcome::Done)
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == NAME)
}

/// The Endpoints as they should be, based on those there are.
fn wanted(service: &Service, pods: &[Arc<Pod>], existing: Option<&Endpoints>) -> Endpoints {
    let family = members::families(service)[0];
    let unready = members::publishes_unready(service);
    let mut members = members::members(service, pods, family);
    members.retain(|member| unready || !member.terminating);
    members.retain(|member| !member.ports.is_empty() || members::is_headless(service));
    let truncated = members.len() > CAPACITY;
    if truncated {
        members.sort_by(|a, b| (!a.ready, &a.address).cmp(&(!b.ready, &b.address)));
        members.truncate(CAPACITY);
    }

    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if members::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());

    let mut metadata = existing.map(|existing| existing.metadata.clone()).unwrap_or_else(|| ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    });
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.labels = Some(labels);
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    let subsets = subsets(members);
    Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) }
}

/// One subset for each set of ports.
fn subsets(members: Vec<Member>) -> Vec<EndpointSubset> {
    let mut groups: BTreeMap<Vec<Port>, Vec<Member>> = BTreeMap::new();
    for member in members {
        groups.entry(member.ports.clone()).or_default().push(member);
    }
    groups
        .into_iter()
        .map(|(ports, mut members)| {
            members.sort_by(|a, b| a.address.cmp(&b.address));
            let (ready, unready): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.ready);
            let some = |members: Vec<Member>| {
                let addresses: Vec<_> = members.into_iter().map(address).collect();
                (!addresses.is_empty()).then_some(addresses)
            };
            let ports: Vec<_> = ports.into_iter().map(port).collect();
            EndpointSubset {
                addresses: some(ready),
                not_ready_addresses: some(unready),
                ports: (!ports.is_empty()).then_some(ports),
            }
        })
        .collect()
}

fn address(member: Member) -> EndpointAddress {
    EndpointAddress {
        ip: member.address,
        hostname: member.hostname,
        node_name: member.node,
        target_ref: Some(member.target),
    }
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        name: (!port.name.is_empty()).then_some(port.name),
        port: port.number,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

#[cfg(test)]
#[path = "legacy_tests.rs"]
mod tests;
