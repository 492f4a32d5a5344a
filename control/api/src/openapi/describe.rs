//! What types and fields are for, in words: from k8s-openapi's schemas.

mod metrics;

use std::collections::BTreeMap;

use k8s_openapi::api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::schemars::SchemaGenerator;
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::Value;

/// The descriptions of all types that objects of some kinds are made of.
pub(super) struct Descriptions(BTreeMap<String, Value>);

macro_rules! describe {
    ($generator:ident, $kind:expr, { $($api_version:literal: $module:path [$($name:ident),* $(,)?])* }) => {
        match $kind {
            $($(($api_version, stringify!($name)) => {
                use $module as module;
                $generator.subschema_for::<module::$name>();
            })*)*
            _ => {}
        }
    };
}

impl Descriptions {
    /// Collects what is said about the kinds (`apiVersion`, `kind`) and everything that they hold.
    pub(super) fn of<'a>(kinds: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut generator = SchemaSettings::default().into_generator();
        generator.subschema_for::<meta::DeleteOptions>();
        generator.subschema_for::<meta::Status>();
        generator.subschema_for::<meta::ListMeta>();
        for kind in kinds {
            add(&mut generator, kind);
        }
        Self(generator.take_definitions(false).into_iter().chain(metrics::descriptions()).collect())
    }

    /// What a type is for.
    pub(super) fn of_type(&self, component: &str) -> Option<&str> {
        self.0.get(component)?.get("description")?.as_str()
    }

    /// What a field is for.
    pub(super) fn of_field(&self, component: &str, field: &str) -> Option<&str> {
        self.0.get(component)?.get("properties")?.get(field)?.get("description")?.as_str()
    }
}

fn add(generator: &mut SchemaGenerator, kind: (&str, &str)) {
    describe!(generator, kind, {
        "v1": api::core::v1 [
            Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
            PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service,
            ServiceAccount,
        ]
        "apiregistration.k8s.io/v1": k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 [APIService]
        "apps/v1": api::apps::v1 [ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet]
        "authentication.k8s.io/v1": api::authentication::v1 [SelfSubjectReview, TokenRequest, TokenReview]
        "authorization.k8s.io/v1": api::authorization::v1 [
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        ]
        "autoscaling/v1": api::autoscaling::v1 [HorizontalPodAutoscaler, Scale]
        "autoscaling/v2": api::autoscaling::v2 [HorizontalPodAutoscaler]
        "batch/v1": api::batch::v1 [CronJob, Job]
        "certificates.k8s.io/v1": api::certificates::v1 [CertificateSigningRequest]
        "coordination.k8s.io/v1": api::coordination::v1 [Lease]
        "discovery.k8s.io/v1": api::discovery::v1 [EndpointSlice]
        "events.k8s.io/v1": api::events::v1 [Event]
        "flowcontrol.apiserver.k8s.io/v1": api::flowcontrol::v1 [FlowSchema, PriorityLevelConfiguration]
        "networking.k8s.io/v1": api::networking::v1 [Ingress, IngressClass, IPAddress, NetworkPolicy, ServiceCIDR]
        "node.k8s.io/v1": api::node::v1 [RuntimeClass]
        "policy/v1": api::policy::v1 [Eviction, PodDisruptionBudget]
        "rbac.authorization.k8s.io/v1": api::rbac::v1 [ClusterRole, ClusterRoleBinding, Role, RoleBinding]
        "scheduling.k8s.io/v1": api::scheduling::v1 [PriorityClass]
        "storage.k8s.io/v1": api::storage::v1 [
            CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
        ]
    });
}
