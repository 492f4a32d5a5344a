//! The kinds and their strategies.

use super::base::{COUNTED, DATA, SPEC_STATUS, UNCOUNTED, VERSIONED_COUNTED, VERSIONED_DATA};
use super::{Generation, Strategy, aggregation, apps, batch as jobs, certificates, core, fields, gates, pod, warnings};
use crate::validation::Fixed::{Forbidden, Immutable, Invalid};
use crate::validation::{
    Fixed, addresses, autoscaling, batch, discovery, endpoints, events, flowcontrol, names, networking, persistent,
    policy, rbac, storage, workload,
};
use crate::{columns, defaults};

const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// The selector of what already has Pods stays as it is.
const SELECTOR: &[Fixed] = &[Immutable("spec.selector")];
const RBAC_NAMED: Strategy = Strategy { name: names::path_segment, allow_create_on_update: true, ..DATA };
const ROLE: Strategy = Strategy { columns: columns::ROLE, row: columns::created_at, ..RBAC_NAMED };
const BINDING: Strategy = Strategy {
    columns: columns::ROLE_BINDING,
    row: columns::role_binding,
    default: defaults::role_binding,
    fixed: &[Invalid("roleRef", "cannot change roleRef")],
    ..RBAC_NAMED
};
const EVENT: Strategy = Strategy {
    columns: columns::EVENT,
    row: columns::event,
    fields: fields::EVENT,
    check: events::event,
    allow_create_on_update: true,
    ..DATA
};
const WEBHOOKS: Strategy =
    Strategy { columns: columns::WEBHOOKS, row: columns::webhooks, allow_unconditional_update: false, ..COUNTED };

/// One row a kind: group, kind, strategy. Kinds served in several groups have a row in each.
pub(super) static TABLE: &[(&str, &str, Strategy)] = &[
    ("", "Pod", pod::POD),
    ("metrics.k8s.io", "NodeMetrics", Strategy { columns: columns::METRICS, row: columns::node_metrics, ..DATA }),
    ("metrics.k8s.io", "PodMetrics", Strategy { columns: columns::METRICS, row: columns::pod_metrics, ..DATA }),
    (
        "",
        "PodTemplate",
        Strategy {
            check: policy::pod_template,
            warn: pod::pod_template_warnings,
            columns: columns::POD_TEMPLATE,
            row: columns::pod_template,
            default: defaults::pod_template,
            ..COUNTED
        },
    ),
    (
        "",
        "ReplicationController",
        Strategy {
            check_update: workload::replicas_status,
            warn: pod::template_warnings,
            check: workload::replication_controller,
            columns: columns::REPLICAS,
            row: columns::replication_controller,
            default: defaults::replication_controller,
            fields: fields::REPLICAS,
            ..SPEC_STATUS
        },
    ),
    ("", "Service", core::SERVICE),
    ("", "Node", core::NODE),
    ("", "Namespace", core::NAMESPACE),
    ("", "Secret", core::SECRET),
    ("", "ConfigMap", core::CONFIG_MAP),
    (
        "",
        "Endpoints",
        Strategy {
            check: endpoints::endpoints,
            columns: columns::ENDPOINTS,
            row: columns::endpoints,
            default: defaults::endpoints,
            allow_create_on_update: true,
            ..DATA
        },
    ),
    ("", "Event", EVENT),
    ("", "ServiceAccount", DATA),
    (
        "",
        "LimitRange",
        Strategy {
            check: policy::limit_range,
            columns: columns::LIMIT_RANGE,
            row: columns::created_at,
            default: defaults::limit_range,
            allow_create_on_update: true,
            ..DATA
        },
    ),
    (
        "",
        "ResourceQuota",
        Strategy {
            check: policy::quota,
            fixed: &[Immutable("spec.scopes"), Immutable("spec.scopeSelector")],
            columns: columns::RESOURCE_QUOTA,
            row: columns::resource_quota,
            default: defaults::resource_quota,
            ..UNCOUNTED
        },
    ),
    (
        "",
        "PersistentVolume",
        Strategy {
            check: persistent::volume,
            check_update: persistent::volume_update,
            columns: columns::PV,
            row: columns::pv,
            default: defaults::persistent_volume,
            create: core::new_volume,
            fields: fields::NAME,
            ..UNCOUNTED
        },
    ),
    (
        "",
        "PersistentVolumeClaim",
        Strategy {
            check: persistent::claim,
            warn: warnings::claim,
            check_update: persistent::claim_update,
            columns: columns::PVC,
            row: columns::pvc,
            default: defaults::persistent_volume_claim,
            create: core::new_claim,
            fields: fields::NAME,
            ..UNCOUNTED
        },
    ),
    ("", "ComponentStatus", Strategy { columns: columns::COMPONENT_STATUS, row: columns::component_status, ..DATA }),
    (
        APPS,
        "Deployment",
        Strategy {
            check_update: workload::deployment_status,
            warn: pod::named_warnings,
            check: workload::deployment,
            fixed: SELECTOR,
            columns: columns::DEPLOYMENT,
            row: columns::deployment,
            default: defaults::deployment,
            generation: Generation::WithAnnotations,
            ..SPEC_STATUS
        },
    ),
    (
        APPS,
        "ReplicaSet",
        Strategy {
            check_update: workload::replicas_status,
            warn: pod::named_warnings,
            check: workload::replica_set,
            fixed: SELECTOR,
            columns: columns::REPLICAS,
            row: columns::replica_set,
            default: defaults::replica_set,
            fields: fields::REPLICAS,
            ..SPEC_STATUS
        },
    ),
    (
        APPS,
        "StatefulSet",
        Strategy {
            create: gates::new_stateful_set,
            update: gates::update_stateful_set,
            warn: pod::stateful_set_warnings,
            name: names::label,
            check: workload::stateful_set,
            check_update: workload::stateful_set_update,
            columns: columns::STATEFUL_SET,
            row: columns::stateful_set,
            default: defaults::stateful_set,
            ..SPEC_STATUS
        },
    ),
    (
        APPS,
        "DaemonSet",
        Strategy {
            check_update: workload::daemon_set_status,
            create: apps::new_daemon_set,
            update: apps::update_daemon_set,
            warn: pod::template_warnings,
            check: workload::daemon_set,
            fixed: SELECTOR,
            columns: columns::DAEMON_SET,
            row: columns::daemon_set,
            default: defaults::daemon_set,
            ..SPEC_STATUS
        },
    ),
    (
        APPS,
        "ControllerRevision",
        Strategy {
            check: policy::revision,
            fixed: &[Immutable("data")],
            columns: columns::CONTROLLER_REVISION,
            row: columns::controller_revision,
            ..DATA
        },
    ),
    (
        "batch",
        "Job",
        Strategy {
            warn: pod::named_warnings,
            create: jobs::new_job,
            check: batch::job,
            check_update: batch::job_update,
            columns: columns::JOB,
            row: columns::job,
            default: defaults::job,
            fields: fields::JOB,
            ..SPEC_STATUS
        },
    ),
    (
        "batch",
        "CronJob",
        Strategy {
            check_new: batch::new_cron_job,
            check_update: batch::cron_job_update,
            check: batch::cron_job,
            columns: columns::CRON_JOB,
            row: columns::cron_job,
            default: defaults::cron_job,
            ..SPEC_STATUS
        },
    ),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        Strategy {
            check: autoscaling::autoscaler,
            check_update: autoscaling::status,
            columns: columns::HPA,
            row: columns::hpa,
            default: defaults::horizontal_pod_autoscaler,
            ..UNCOUNTED
        },
    ),
    (
        "policy",
        "PodDisruptionBudget",
        Strategy {
            check_update: policy::budget_status,
            name: names::path_segment,
            check: policy::budget,
            columns: columns::PDB,
            row: columns::pdb,
            allow_unconditional_update: false,
            ..SPEC_STATUS
        },
    ),
    (
        NETWORKING,
        "Ingress",
        Strategy {
            check: networking::ingress,
            check_new: networking::new_ingress,
            check_update: networking::ingress_status,
            warn: networking::ingress_warnings,
            columns: columns::INGRESS,
            row: columns::ingress,
            ..SPEC_STATUS
        },
    ),
    (
        NETWORKING,
        "IngressClass",
        Strategy {
            check: networking::ingress_class,
            fixed: &[Immutable("spec.controller")],
            columns: columns::INGRESS_CLASS,
            row: columns::ingress_class,
            default: defaults::ingress_class,
            ..COUNTED
        },
    ),
    (
        NETWORKING,
        "NetworkPolicy",
        Strategy {
            check: networking::network_policy,
            columns: columns::NETWORK_POLICY,
            row: columns::network_policy,
            default: defaults::network_policy,
            ..COUNTED
        },
    ),
    (
        NETWORKING,
        "IPAddress",
        Strategy {
            name: addresses::ip,
            check: networking::ip_address,
            fixed: &[Immutable("spec.parentRef")],
            columns: columns::IP_ADDRESS,
            row: columns::ip_address,
            ..DATA
        },
    ),
    (
        NETWORKING,
        "ServiceCIDR",
        Strategy {
            check_new: networking::service_cidr,
            check_update: networking::service_cidr_update,
            columns: columns::SERVICE_CIDR,
            row: columns::service_cidr,
            ..UNCOUNTED
        },
    ),
    (RBAC, "Role", Strategy { check: rbac::role, ..ROLE }),
    (RBAC, "ClusterRole", Strategy { check: rbac::cluster_role, ..ROLE }),
    (RBAC, "RoleBinding", Strategy { check: rbac::role_binding, ..BINDING }),
    (RBAC, "ClusterRoleBinding", Strategy { check: rbac::cluster_role_binding, ..BINDING }),
    (
        STORAGE,
        "StorageClass",
        Strategy {
            check: storage::storage_class,
            fixed: &[
                Immutable("parameters"),
                Immutable("provisioner"),
                Immutable("reclaimPolicy"),
                Immutable("volumeBindingMode"),
            ],
            columns: columns::STORAGE_CLASS,
            row: columns::storage_class,
            default: defaults::storage_class,
            ..DATA
        },
    ),
    (
        STORAGE,
        "VolumeAttachment",
        Strategy {
            check_update: storage::volume_attachment_update,
            check: storage::volume_attachment,
            columns: columns::VOLUME_ATTACHMENT,
            row: columns::volume_attachment,
            allow_unconditional_update: false,
            ..UNCOUNTED
        },
    ),
    (
        STORAGE,
        "VolumeAttributesClass",
        Strategy {
            check: storage::attributes_class,
            fixed: &[
                Forbidden("driverName", "updates to driverName are forbidden."),
                Forbidden("parameters", "updates to parameters are forbidden."),
            ],
            columns: columns::VOLUME_ATTRIBUTES_CLASS,
            row: columns::volume_attributes_class,
            ..DATA
        },
    ),
    (
        STORAGE,
        "CSIDriver",
        Strategy {
            check_update: storage::csi_driver_update,
            warn: storage::csi_driver_warnings,
            generation: Generation::FromNone,
            check: storage::csi_driver,
            columns: columns::CSI_DRIVER,
            row: columns::csi_driver,
            default: defaults::csi_driver,
            allow_unconditional_update: false,
            ..DATA
        },
    ),
    (
        STORAGE,
        "CSINode",
        Strategy {
            check_update: storage::csi_node_update,
            check: storage::csi_node,
            columns: columns::CSI_NODE,
            row: columns::csi_node,
            allow_unconditional_update: false,
            ..DATA
        },
    ),
    (
        STORAGE,
        "CSIStorageCapacity",
        Strategy {
            check: storage::capacity,
            fixed: &[Immutable("storageClassName"), Immutable("nodeTopology")],
            columns: columns::CSI_CAPACITY,
            row: columns::csi_capacity,
            allow_unconditional_update: false,
            ..DATA
        },
    ),
    (
        "scheduling.k8s.io",
        "PriorityClass",
        Strategy {
            check: policy::priority_class,
            fixed: &[Forbidden("value", "may not be changed in an update."), Immutable("preemptionPolicy")],
            columns: columns::PRIORITY_CLASS,
            row: columns::priority_class,
            default: defaults::priority_class,
            generation: Generation::Fixed,
            ..DATA
        },
    ),
    (
        "node.k8s.io",
        "RuntimeClass",
        Strategy {
            check: policy::runtime_class,
            fixed: &[Immutable("handler")],
            columns: columns::RUNTIME_CLASS,
            row: columns::runtime_class,
            allow_unconditional_update: false,
            allow_create_on_update: true,
            ..DATA
        },
    ),
    (
        "coordination.k8s.io",
        "Lease",
        Strategy {
            create: gates::new_lease,
            update: gates::update_lease,
            check: policy::lease,
            columns: columns::LEASE,
            row: columns::lease,
            allow_unconditional_update: false,
            allow_create_on_update: true,
            ..DATA
        },
    ),
    (
        "coordination.k8s.io",
        "LeaseCandidate",
        Strategy { allow_unconditional_update: false, allow_create_on_update: true, ..DATA },
    ),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        Strategy {
            create: gates::new_endpoint_slice,
            warn: discovery::warnings,
            update: gates::update_endpoint_slice,
            check: discovery::endpoint_slice,
            fixed: &[Immutable("addressType")],
            columns: columns::ENDPOINT_SLICE,
            row: columns::endpoint_slice,
            default: defaults::endpoint_slice,
            generation: Generation::WithLabels,
            ..COUNTED
        },
    ),
    ("events.k8s.io", "Event", EVENT),
    ("certificates.k8s.io", "CertificateSigningRequest", certificates::REQUEST),
    ("certificates.k8s.io", "ClusterTrustBundle", VERSIONED_DATA),
    (ADMISSION, "MutatingWebhookConfiguration", WEBHOOKS),
    (ADMISSION, "ValidatingWebhookConfiguration", WEBHOOKS),
    (ADMISSION, "ValidatingAdmissionPolicy", Strategy { allow_unconditional_update: false, ..SPEC_STATUS }),
    (ADMISSION, "ValidatingAdmissionPolicyBinding", VERSIONED_COUNTED),
    (ADMISSION, "MutatingAdmissionPolicy", VERSIONED_COUNTED),
    (ADMISSION, "MutatingAdmissionPolicyBinding", VERSIONED_COUNTED),
    ("apiregistration.k8s.io", "APIService", aggregation::API_SERVICE),
    (
        "flowcontrol.apiserver.k8s.io",
        "FlowSchema",
        Strategy {
            check: flowcontrol::flow_schema,
            default: defaults::flow_schema,
            columns: columns::FLOW_SCHEMA,
            row: columns::flow_schema,
            ..SPEC_STATUS
        },
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        "PriorityLevelConfiguration",
        Strategy {
            check: flowcontrol::priority_level,
            default: defaults::priority_level,
            columns: columns::PRIORITY_LEVEL,
            row: columns::priority_level,
            ..SPEC_STATUS
        },
    ),
    ("authentication.k8s.io", "TokenReview", DATA),
    ("authentication.k8s.io", "TokenRequest", DATA),
    ("authentication.k8s.io", "SelfSubjectReview", DATA),
    ("authorization.k8s.io", "SubjectAccessReview", DATA),
    ("authorization.k8s.io", "SelfSubjectAccessReview", DATA),
    ("authorization.k8s.io", "LocalSubjectAccessReview", DATA),
    ("authorization.k8s.io", "SelfSubjectRulesReview", DATA),
];
