//! Kubernetes' own resources, one line each.

use super::{Resource, Storage, Subresource, Verb};
use crate::convert::{event, horizontal_pod_autoscaler};
use crate::facts::Schema;
use crate::meta;

use Verb::{Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch};

/// What nearly all resources can do.
pub(super) const ALL: &[Verb] = &[Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch];
/// What a part of an object can do.
const PART: &[Verb] = &[Get, Patch, Update];
const PROXY: &[Verb] = &[Create, Delete, Get, Patch, Update];

/// A line of the table.
struct Row {
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    verbs: &'static [Verb],
    subs: &'static [Sub],
}

/// Name, `apiVersion`, kind, verbs of a subresource; an empty `apiVersion` and kind are the resource's own.
type Sub = (&'static str, &'static str, &'static str, &'static [Verb]);

const STATUS: Sub = ("status", "", "", PART);
/// A metric: what has it is no resource of the group itself.
const REQUESTS: Sub = ("http_requests_per_second", "", "", &[Get]);
const CONNECTIONS: Sub = ("connections_per_second", "", "", &[Get]);
const SCALE: Sub = ("scale", "autoscaling/v1", "Scale", PART);

const fn row(api_version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row { api_version, kind, plural, namespaced: true, short: &[], categories: &[], verbs: ALL, subs: &[] }
}

impl Row {
    const fn cluster(self) -> Self {
        Self { namespaced: false, ..self }
    }

    const fn short(self, short: &'static [&'static str]) -> Self {
        Self { short, ..self }
    }

    const fn all(self) -> Self {
        self.categories(&["all"])
    }

    const fn categories(self, categories: &'static [&'static str]) -> Self {
        Self { categories, ..self }
    }

    const fn verbs(self, verbs: &'static [Verb]) -> Self {
        Self { verbs, ..self }
    }

    const fn subs(self, subs: &'static [Sub]) -> Self {
        Self { subs, ..self }
    }
}

const ROWS: &[Row] = &[
    row("v1", "Binding", "bindings").verbs(&[Create]),
    row("v1", "ComponentStatus", "componentstatuses").cluster().short(&["cs"]).verbs(&[Get, List]),
    row("v1", "ConfigMap", "configmaps").short(&["cm"]),
    row("v1", "Endpoints", "endpoints").short(&["ep"]),
    row("v1", "Event", "events").short(&["ev"]),
    row("v1", "LimitRange", "limitranges").short(&["limits"]),
    row("v1", "Namespace", "namespaces")
        .cluster()
        .short(&["ns"])
        .verbs(&[Create, Delete, Get, List, Patch, Update, Watch])
        .subs(&[("finalize", "", "", &[Update]), STATUS]),
    row("v1", "Node", "nodes").cluster().short(&["no"]).subs(&[("proxy", "v1", "NodeProxyOptions", PROXY), STATUS]),
    row("v1", "PersistentVolumeClaim", "persistentvolumeclaims").short(&["pvc"]).subs(&[STATUS]),
    row("v1", "PersistentVolume", "persistentvolumes").cluster().short(&["pv"]).subs(&[STATUS]),
    row("v1", "Pod", "pods").short(&["po"]).all().subs(&[
        ("attach", "v1", "PodAttachOptions", &[Create, Get]),
        ("binding", "v1", "Binding", &[Create]),
        ("ephemeralcontainers", "", "", PART),
        ("eviction", "policy/v1", "Eviction", &[Create]),
        ("exec", "v1", "PodExecOptions", &[Create, Get]),
        ("log", "", "", &[Get]),
        ("portforward", "v1", "PodPortForwardOptions", &[Create, Get]),
        ("proxy", "v1", "PodProxyOptions", PROXY),
        ("resize", "", "", PART),
        STATUS,
    ]),
    row("v1", "PodTemplate", "podtemplates"),
    row("v1", "ReplicationController", "replicationcontrollers").short(&["rc"]).all().subs(&[SCALE, STATUS]),
    row("v1", "ResourceQuota", "resourcequotas").short(&["quota"]).subs(&[STATUS]),
    row("v1", "Secret", "secrets"),
    row("v1", "ServiceAccount", "serviceaccounts").short(&["sa"]).subs(&[(
        "token",
        "authentication.k8s.io/v1",
        "TokenRequest",
        &[Create],
    )]),
    row("v1", "Service", "services")
        .short(&["svc"])
        .all()
        .subs(&[("proxy", "v1", "ServiceProxyOptions", PROXY), STATUS]),
    row("apiregistration.k8s.io/v1", "APIService", "apiservices")
        .cluster()
        .categories(&["api-extensions"])
        .subs(&[STATUS]),
    row("apps/v1", "ControllerRevision", "controllerrevisions"),
    row("apps/v1", "DaemonSet", "daemonsets").short(&["ds"]).all().subs(&[STATUS]),
    row("apps/v1", "Deployment", "deployments").short(&["deploy"]).all().subs(&[SCALE, STATUS]),
    row("apps/v1", "ReplicaSet", "replicasets").short(&["rs"]).all().subs(&[SCALE, STATUS]),
    row("apps/v1", "StatefulSet", "statefulsets").short(&["sts"]).all().subs(&[SCALE, STATUS]),
    row("events.k8s.io/v1", "Event", "events").short(&["ev"]),
    row("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews").cluster().verbs(&[Create]),
    row("authentication.k8s.io/v1", "TokenReview", "tokenreviews").cluster().verbs(&[Create]),
    row("authorization.k8s.io/v1", "LocalSubjectAccessReview", "localsubjectaccessreviews").verbs(&[Create]),
    row("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews").cluster().verbs(&[Create]),
    row("authorization.k8s.io/v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews").cluster().verbs(&[Create]),
    row("authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews").cluster().verbs(&[Create]),
    row("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers").short(&["hpa"]).all().subs(&[STATUS]),
    row("autoscaling/v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers").short(&["hpa"]).all().subs(&[STATUS]),
    row("batch/v1", "CronJob", "cronjobs").short(&["cj"]).all().subs(&[STATUS]),
    row("batch/v1", "Job", "jobs").all().subs(&[STATUS]),
    row("certificates.k8s.io/v1", "CertificateSigningRequest", "certificatesigningrequests")
        .cluster()
        .short(&["csr"])
        .subs(&[("approval", "", "", PART), STATUS]),
    row("networking.k8s.io/v1", "IngressClass", "ingressclasses").cluster(),
    row("networking.k8s.io/v1", "Ingress", "ingresses").short(&["ing"]).subs(&[STATUS]),
    row("networking.k8s.io/v1", "IPAddress", "ipaddresses").cluster().short(&["ip"]),
    row("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies").short(&["netpol"]),
    row("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs").cluster().subs(&[STATUS]),
    row("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets").short(&["pdb"]).subs(&[STATUS]),
    row("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings").cluster(),
    row("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles").cluster(),
    row("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    row("rbac.authorization.k8s.io/v1", "Role", "roles"),
    row("storage.k8s.io/v1", "CSIDriver", "csidrivers").cluster(),
    row("storage.k8s.io/v1", "CSINode", "csinodes").cluster(),
    row("storage.k8s.io/v1", "CSIStorageCapacity", "csistoragecapacities"),
    row("storage.k8s.io/v1", "StorageClass", "storageclasses").cluster().short(&["sc"]),
    row("storage.k8s.io/v1", "VolumeAttachment", "volumeattachments").cluster().subs(&[STATUS]),
    row("storage.k8s.io/v1", "VolumeAttributesClass", "volumeattributesclasses").cluster().short(&["vac"]),
    row("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses").cluster().short(&["pc"]),
    row("coordination.k8s.io/v1", "Lease", "leases"),
    row("node.k8s.io/v1", "RuntimeClass", "runtimeclasses").cluster(),
    row("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    row("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "flowschemas").cluster().subs(&[STATUS]),
    row("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
        .cluster()
        .subs(&[STATUS]),
    row("metrics.k8s.io/v1beta1", "NodeMetrics", "nodes").cluster().verbs(&[Get, List]),
    row("metrics.k8s.io/v1beta1", "PodMetrics", "pods").verbs(&[Get, List]),
    row("custom.metrics.k8s.io/v1beta2", "MetricValueList", "pods").verbs(&[]).subs(&[REQUESTS]),
    row("custom.metrics.k8s.io/v1beta2", "MetricValueList", "services").verbs(&[]).subs(&[CONNECTIONS, REQUESTS]),
];

fn builtin(api_version: &str, kind: &str) -> Schema {
    // Rows and facts are both part of the program; the tests read every row.
    Schema::builtin(api_version, kind).unwrap_or_else(|| panic!("no facts about {api_version} {kind}"))
}

fn subresource(owner: &Row, (name, api_version, kind, verbs): &Sub) -> Subresource {
    let own = kind.is_empty();
    let (api_version, kind) = if own { (owner.api_version, owner.kind) } else { (*api_version, *kind) };
    let (group, version) = meta::split_api_version(api_version);
    let has_body = *name != "log" && !kind.ends_with("Options");
    Subresource {
        name: (*name).to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        verbs: verbs.to_vec(),
        schema: has_body.then(|| builtin(api_version, kind)),
    }
}

fn resource(row: &Row) -> Resource {
    let mut resource = Resource::new(builtin(row.api_version, row.kind), row.plural, row.namespaced);
    resource.short_names = row.short.iter().map(|s| (*s).to_owned()).collect();
    resource.categories = row.categories.iter().map(|s| (*s).to_owned()).collect();
    resource.verbs = row.verbs.to_vec();
    resource.subresources = row.subs.iter().map(|sub| subresource(row, sub)).collect();
    resource.durable = !matches!(row.kind, "Event" | "Lease");
    match (row.api_version, row.kind) {
        ("events.k8s.io/v1", "Event") => {
            resource.storage = Storage {
                resource: "events".into(),
                group: String::new(),
                version: "v1".to_owned(),
                to_storage: Some(event::to_core),
                from_storage: Some(event::from_core),
            };
        }
        ("autoscaling/v1", "HorizontalPodAutoscaler") => {
            resource.storage.version = "v2".to_owned();
            resource.storage.to_storage = Some(horizontal_pod_autoscaler::to_v2);
            resource.storage.from_storage = Some(horizontal_pod_autoscaler::from_v2);
        }
        _ => {}
    }
    resource
}

/// All of them, groups in upstream's order of preference.
pub(super) fn resources() -> impl Iterator<Item = Resource> {
    ROWS.iter().map(resource)
}
