//! What stands behind a Service, in the three forms the API has for it:
//!
//! - [`slices`]: EndpointSlices of the Pods that a Service selects: what the nodes route by;
//! - [`legacy`]: the Endpoints object of the same name, for older clients;
//! - [`mirror`]: EndpointSlices made from the Endpoints that someone else wrote for a Service without a selector.
//!
//! They share [`members`], the pure look at Service and Pods. A Pod's change goes out at once: ready, unready and being
//! deleted are each one write.

mod arrange;
pub(crate) mod legacy;
mod members;
pub(crate) mod mirror;
pub(crate) mod slices;

use k8s_openapi::api::core::v1::{Pod, Service};
pub(crate) use members::selector;
use wherry_reconcile::{Change, Informer, ObjectKey};

/// The Services whose endpoints a change of a Pod may change.
fn concerned(services: &Informer<Service>, change: &Change<Pod>) -> Vec<ObjectKey> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !members::is_relevant(old, new)
    {
        return Vec::new();
    }
    let Some(namespace) = change.object().and_then(|pod| pod.metadata.namespace.clone()) else {
        return Vec::new();
    };
    services
        .list_namespace(&namespace)
        .iter()
        .filter(|service| change.sides().any(|pod| members::selects(service, pod)))
        .map(|service| ObjectKey::of(&**service))
        .collect()
}
