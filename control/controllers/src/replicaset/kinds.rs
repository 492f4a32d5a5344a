//! What differs between the kinds that keep a number of Pods: a ReplicationController is a ReplicaSet with a plain selector.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde::Serialize;
use wherry_reconcile::informer::Kind;

/// A kind that the engine keeps.
pub(crate) trait Replicated: Kind<DynamicType = ()> + kube::Resource<Scope = NamespaceResourceScope> {
    /// The controller's name: of its events, and in logs.
    const CONTROLLER: &'static str;
    /// What the kind reports.
    type Status: Serialize + Send + Sync;

    /// The object as a ReplicaSet; its status but for the conditions is left out.
    fn view(&self) -> Cow<'_, ReplicaSet>;

    /// What the object reports now.
    fn reported(&self) -> Option<&Self::Status>;

    /// What is to be reported, as the kind has it.
    fn report(status: ReplicaSetStatus) -> Self::Status;
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";
    type Status = ReplicaSetStatus;

    fn view(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn reported(&self) -> Option<&ReplicaSetStatus> {
        self.status.as_ref()
    }

    fn report(status: ReplicaSetStatus) -> ReplicaSetStatus {
        status
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";
    type Status = ReplicationControllerStatus;

    fn view(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.clone().unwrap_or_default();
        let conditions = self.status.as_ref().and_then(|status| status.conditions.clone());
        let conditions = conditions.map(|list| list.into_iter().map(into_set).collect());
        Cow::Owned(ReplicaSet {
            metadata: self.metadata.clone(),
            spec: Some(ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: spec.replicas,
                selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
                template: spec.template,
            }),
            status: Some(ReplicaSetStatus { conditions, ..ReplicaSetStatus::default() }),
        })
    }

    fn reported(&self) -> Option<&ReplicationControllerStatus> {
        self.status.as_ref()
    }

    fn report(status: ReplicaSetStatus) -> ReplicationControllerStatus {
        ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|list| list.into_iter().map(from_set).collect()),
        }
    }
}

fn into_set(condition: ReplicationControllerCondition) -> k8s_openapi::api::apps::v1::ReplicaSetCondition {
    k8s_openapi::api::apps::v1::ReplicaSetCondition {
        last_transition_time: condition.last_transition_time,
        message: condition.message,
        reason: condition.reason,
        status: condition.status,
        type_: condition.type_,
    }
}

fn from_set(condition: k8s_openapi::api::apps::v1::ReplicaSetCondition) -> ReplicationControllerCondition {
    ReplicationControllerCondition {
        last_transition_time: condition.last_transition_time,
        message: condition.message,
        reason: condition.reason,
        status: condition.status,
        type_: condition.type_,
    }
}
