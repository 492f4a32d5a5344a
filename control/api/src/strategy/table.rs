//! The kinds and their strategies.

use super::{DATA, Generation, SPEC_STATUS, StatusRule, Strategy, core, fields, pod};
use crate::{defaults, validation::names};

const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// A status, but nobody counts the spec's changes.
const UNCOUNTED: Strategy = Strategy {
    generation: Generation::Absent,
    ..SPEC_STATUS
};
/// No status; the changes are counted.
const COUNTED: Strategy = Strategy {
    status: StatusRule::Absent,
    ..SPEC_STATUS
};
const RBAC_NAMED: Strategy = Strategy {
    name: names::path_segment,
    allow_create_on_update: true,
    ..DATA
};
const BINDING: Strategy = Strategy {
    default: defaults::role_binding,
    ..RBAC_NAMED
};
const EVENT: Strategy = Strategy {
    fields: fields::EVENT,
    allow_create_on_update: true,
    ..DATA
};
const WEBHOOKS: Strategy = Strategy {
    allow_unconditional_update: false,
    ..COUNTED
};

/// One row a kind: group, kind, strategy. Kinds served in several groups have a row in each.
pub(super) static TABLE: &[(&str, &str, Strategy)] = &[
    ("", "Pod", pod::POD),
    (
        "",
        "PodTemplate",
        Strategy {
            default: defaults::pod_template,
            ..COUNTED
        },
    ),
    (
        "",
        "ReplicationController",
        Strategy {
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
            default: defaults::limit_range,
            allow_create_on_update: true,
            ..DATA
        },
    ),
    (
        "",
        "ResourceQuota",
        Strategy {
            default: defaults::resource_quota,
            ..UNCOUNTED
        },
    ),
    (
        "",
        "PersistentVolume",
        Strategy {
            default: defaults::persistent_volume,
            create: core::pending,
            fields: fields::NAME,
            ..UNCOUNTED
        },
    ),
    (
        "",
        "PersistentVolumeClaim",
        Strategy {
            default: defaults::persistent_volume_claim,
            create: core::pending,
            fields: fields::NAME,
            ..UNCOUNTED
        },
    ),
    ("", "ComponentStatus", DATA),
    (
        APPS,
        "Deployment",
        Strategy {
            default: defaults::deployment,
            generation: Generation::WithAnnotations,
            ..SPEC_STATUS
        },
    ),
    (
        APPS,
        "ReplicaSet",
        Strategy {
            default: defaults::replica_set,
            fields: fields::REPLICAS,
            ..SPEC_STATUS
        },
    ),
    (
        APPS,
        "StatefulSet",
        Strategy {
            default: defaults::stateful_set,
            ..SPEC_STATUS
        },
    ),
    (
        APPS,
        "DaemonSet",
        Strategy {
            default: defaults::daemon_set,
            ..SPEC_STATUS
        },
    ),
    (APPS, "ControllerRevision", DATA),
    (
        "batch",
        "Job",
        Strategy {
            default: defaults::job,
            fields: fields::JOB,
            ..SPEC_STATUS
        },
    ),
    (
        "batch",
        "CronJob",
        Strategy {
            default: defaults::cron_job,
            ..SPEC_STATUS
        },
    ),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        Strategy {
            default: defaults::horizontal_pod_autoscaler,
            ..UNCOUNTED
        },
    ),
    (
        "policy",
        "PodDisruptionBudget",
        Strategy {
            allow_unconditional_update: false,
            ..SPEC_STATUS
        },
    ),
    (NETWORKING, "Ingress", SPEC_STATUS),
    (
        NETWORKING,
        "IngressClass",
        Strategy {
            default: defaults::ingress_class,
            ..COUNTED
        },
    ),
    (
        NETWORKING,
        "NetworkPolicy",
        Strategy {
            default: defaults::network_policy,
            ..COUNTED
        },
    ),
    (NETWORKING, "IPAddress", DATA),
    (NETWORKING, "ServiceCIDR", UNCOUNTED),
    (RBAC, "Role", RBAC_NAMED),
    (RBAC, "ClusterRole", RBAC_NAMED),
    (RBAC, "RoleBinding", BINDING),
    (RBAC, "ClusterRoleBinding", BINDING),
    (
        STORAGE,
        "StorageClass",
        Strategy {
            default: defaults::storage_class,
            ..DATA
        },
    ),
    (
        STORAGE,
        "VolumeAttachment",
        Strategy {
            allow_unconditional_update: false,
            ..UNCOUNTED
        },
    ),
    (STORAGE, "VolumeAttributesClass", DATA),
    (
        STORAGE,
        "CSIDriver",
        Strategy {
            default: defaults::csi_driver,
            allow_unconditional_update: false,
            ..DATA
        },
    ),
    (
        STORAGE,
        "CSINode",
        Strategy {
            allow_unconditional_update: false,
            ..DATA
        },
    ),
    (
        STORAGE,
        "CSIStorageCapacity",
        Strategy {
            allow_unconditional_update: false,
            ..DATA
        },
    ),
    (
        "scheduling.k8s.io",
        "PriorityClass",
        Strategy {
            default: defaults::priority_class,
            generation: Generation::Fixed,
            ..DATA
        },
    ),
    (
        "node.k8s.io",
        "RuntimeClass",
        Strategy {
            allow_unconditional_update: false,
            allow_create_on_update: true,
            ..DATA
        },
    ),
    (
        "coordination.k8s.io",
        "Lease",
        Strategy {
            allow_unconditional_update: false,
            allow_create_on_update: true,
            ..DATA
        },
    ),
    (
        "coordination.k8s.io",
        "LeaseCandidate",
        Strategy {
            allow_unconditional_update: false,
            allow_create_on_update: true,
            ..DATA
        },
    ),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        Strategy {
            default: defaults::endpoint_slice,
            generation: Generation::WithLabels,
            ..COUNTED
        },
    ),
    ("events.k8s.io", "Event", EVENT),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        Strategy {
            fields: fields::CSR,
            ..UNCOUNTED
        },
    ),
    (
        "certificates.k8s.io",
        "ClusterTrustBundle",
        Strategy {
            allow_unconditional_update: false,
            ..DATA
        },
    ),
    (ADMISSION, "MutatingWebhookConfiguration", WEBHOOKS),
    (ADMISSION, "ValidatingWebhookConfiguration", WEBHOOKS),
    (
        ADMISSION,
        "ValidatingAdmissionPolicy",
        Strategy {
            allow_unconditional_update: false,
            ..SPEC_STATUS
        },
    ),
    (ADMISSION, "ValidatingAdmissionPolicyBinding", WEBHOOKS),
    (ADMISSION, "MutatingAdmissionPolicy", WEBHOOKS),
    (ADMISSION, "MutatingAdmissionPolicyBinding", WEBHOOKS),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", SPEC_STATUS),
    (
        "flowcontrol.apiserver.k8s.io",
        "PriorityLevelConfiguration",
        SPEC_STATUS,
    ),
    ("authentication.k8s.io", "TokenReview", DATA),
    ("authentication.k8s.io", "TokenRequest", DATA),
    ("authentication.k8s.io", "SelfSubjectReview", DATA),
    ("authorization.k8s.io", "SubjectAccessReview", DATA),
    ("authorization.k8s.io", "SelfSubjectAccessReview", DATA),
    ("authorization.k8s.io", "LocalSubjectAccessReview", DATA),
    ("authorization.k8s.io", "SelfSubjectRulesReview", DATA),
];
