//! EndpointSlices for Services without a selector, made from the Endpoints that their owner wrote.
//!
//! Endpoints labelled `endpointslice.kubernetes.io/skip-mirror: "true"` are left to whoever wrote them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Expectations, Feeds, Informer, ObjectKey, Outcome, Reconciler, informer::revision_of, ownership::owner_reference,
};

use super::{
    arrange::{Changes, Group, arrange},
    legacy,
    members::{self, Family},
    slices::{BY_SERVICE, MANAGED_BY, SERVICE_NAME, index, is_managed_by, services_of},
};
use crate::{
    context::Context,
    error::{self, Error},
};

const NAME: &str = "endpoint-slice-mirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// The most addresses of a subset that are mirrored.
const MAX_ADDRESSES: usize = 1000;

struct Controller {
    context: Context,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    written: Expectations,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        services: context.informers.get(),
        endpoints: context.informers.get(),
        slices: context.informers.get(),
        written: Expectations::default(),
        context,
    });
    index(&controller.slices);
    Feeds::new()
        .on(&controller.services, |change| [change.key()])
        .on(&controller.endpoints, |change| [change.key()])
        .on(&controller.slices, |change| services_of(change, MANAGER))
        .run(NAME, 2, controller.clone(), cancel)
        .await;
}

/// Whether these Endpoints are somebody's own and meant to be routed to.
fn is_mirrored(service: &Service, endpoints: &Endpoints) -> bool {
    let has = |map: &Option<BTreeMap<String, String>>, key: &str| map.as_ref().is_some_and(|map| map.contains_key(key));
    let skip = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP));
    let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    members::selector(service).is_none()
        && !external
        && skip.map(String::as_str) != Some("true")
        && !has(&endpoints.metadata.annotations, LEADER)
        && !has(&endpoints.metadata.labels, legacy::MANAGED_BY)
}

fn groups(endpoints: &Endpoints, family: Family) -> Vec<Group> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets
        .map(|subset| Group { ports: ports(subset), endpoints: mirrored(subset, family) })
        .filter(|group| !group.endpoints.is_empty())
        .collect()
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten();
    ports
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn mirrored(subset: &EndpointSubset, family: Family) -> Vec<Endpoint> {
    let convert = |address: &EndpointAddress, ready: bool| Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    let ready = subset.addresses.iter().flatten().map(|address| convert(address, true));
    let unready = subset.not_ready_addresses.iter().flatten().map(|address| convert(address, false));
    ready.chain(unready).filter(|endpoint| Family::of(&endpoint.addresses[0]) == family).take(MAX_ADDRESSES).collect()
}

impl Controller {
    async fn apply(
        &self,
        key: &ObjectKey,
        endpoints: Option<&Endpoints>,
        family: Family,
        changes: Changes,
    ) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.context.client.clone(), &key.namespace);
        for group in changes.create {
            let Some(endpoints) = endpoints else { continue };
            match api.create(&PostParams::default(), &new_slice(endpoints, family, group)).await {
                Ok(created) => self.written.wrote(key, revision_of(&created)),
                Err(error) if error::is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        for (slice, content) in changes.update {
            let mut slice = EndpointSlice::clone(&slice);
            slice.endpoints = Some(content);
            let name = slice.metadata.name.clone().unwrap_or_default();
            let updated = api.replace(&name, &PostParams::default(), &slice).await?;
            self.written.wrote(key, revision_of(&updated));
        }
        for slice in changes.delete {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            error::gone_is_fine(api.delete(name, &DeleteParams::default()).await)?;
            self.written.deleted(key, slice.metadata.uid.clone().unwrap_or_default());
        }
        Ok(())
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let slices: Vec<_> = self
            .slices
            .by_index(BY_SERVICE, &key.to_string())
            .into_iter()
            .filter(|slice| is_managed_by(slice, MANAGER))
            .collect();
        let is_live = |uid: &str| slices.iter().any(|slice| slice.metadata.uid.as_deref() == Some(uid));
        if !self.written.satisfied(&key, self.slices.revision(), is_live) {
            return Ok(Outcome::Behind);
        }
        let pair = self.services.get_key(&key).zip(self.endpoints.get_key(&key));
        let mirrored = pair.filter(|(service, endpoints)| is_mirrored(service, endpoints));
        let Some((_, endpoints)) = mirrored else {
            let changes = Changes { delete: slices, ..Changes::default() };
            self.apply(&key, None, Family::V4, changes).await?;
            return Ok(Outcome::Done);
        };
        for family in [Family::V4, Family::V6] {
            let existing: Vec<_> =
                slices.iter().filter(|slice| slice.address_type == family.as_str()).cloned().collect();
            let groups = groups(&endpoints, family);
            let changes = match groups.is_empty() {
                true => Changes { delete: existing, ..Changes::default() },
                false => arrange(groups, &existing),
            };
            self.apply(&key, Some(&endpoints), family, changes).await?;
        }
        Ok(Outcome::Done)
    }
}

fn new_slice(endpoints: &Endpoints, family: Family, group: Group) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    EndpointSlice {
        address_type: family.as_str().to_owned(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        endpoints: Some(group.endpoints),
        ports: Some(group.ports),
    }
}
