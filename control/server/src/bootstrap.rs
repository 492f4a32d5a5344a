//! The objects that every cluster has.
//!
//! Everything is made through the API, as any client would; what is there already stays as it is, but for the
//! endpoints of the Service `kubernetes`, which follow the addresses of this start, and what extension API servers know their
//! clients by.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::aggregate::headers;
use crate::config::Cluster;
use crate::pki::FrontProxy;
use crate::server::ServerError;
use crate::times;

/// Names of the namespaces of a new cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(crate) async fn run(
    client: &kube::Client,
    cluster: &Cluster,
    front_proxy: Option<&FrontProxy>,
) -> Result<(), ServerError> {
    for name in NAMESPACES {
        ensure(client, "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}), false).await?;
    }
    ensure(client, "", service_cidr(cluster), false).await?;
    ensure(client, "default", service(cluster), false).await?;
    ensure(client, "default", endpoints(cluster), true).await?;
    ensure(client, "default", endpoint_slice(cluster), true).await?;
    if let Some(front_proxy) = front_proxy {
        ensure(client, "kube-system", extension_authentication(front_proxy), true).await?;
    }
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description,
        });
        ensure(client, "", class, false).await?;
    }
    ensure(client, "", local_path(), false).await?;
    for name in ["wasmtime", "spin"] {
        let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name});
        ensure(client, "", class, false).await?;
    }
    Ok(())
}

/// Makes `object` where it is missing, with the status it is said to have; brings it up to date if it is there and `follow` says so.
async fn ensure(client: &kube::Client, namespace: &str, object: Value, follow: bool) -> Result<(), ServerError> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (api_version, kind, name) =
        (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind), &plural(&kind));
    let api: Api<DynamicObject> = match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let failed =
        |source: kube::Error| ServerError::Bootstrap { what: format!("{kind} {name}"), source: Box::new(source) };
    let parsed: DynamicObject =
        serde_json::from_value(object.clone()).map_err(|e| failed(kube::Error::SerdeError(e)))?;
    // Looked for first: to create a Service anew fails at its address, which is taken, not at its name.
    let done = match api.get_metadata_opt(&name).await.map_err(failed)? {
        None => match api.create(&PostParams::default(), &parsed).await {
            Ok(_) if object.get("status").is_some() => {
                let status = json!({"status": object["status"]});
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.map(drop)
            }
            made => made.map(drop),
        },
        Some(_) if follow => api.patch(&name, &PatchParams::default(), &Patch::Merge(&object)).await.map(drop),
        Some(_) => Ok(()),
    };
    match done {
        // Another server was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map_err(failed),
    }
}

/// The plural names of what is made here.
fn plural(kind: &str) -> String {
    match kind {
        "Endpoints" => "endpoints".to_owned(),
        "PriorityClass" | "RuntimeClass" | "StorageClass" => format!("{}es", kind.to_lowercase()),
        _ => format!("{}s", kind.to_lowercase()),
    }
}

fn labels() -> Value {
    json!({"component": "apiserver", "provider": "kubernetes"})
}

fn port(cluster: &Cluster) -> u16 {
    cluster.api_endpoints.first().map_or(6443, std::net::SocketAddr::port)
}

/// The network of the Services' addresses (upstream: the controller that makes the default one at start).
fn service_cidr(cluster: &Cluster) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [cluster.service_cidr.to_string()]},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": times::now(),
        }]},
    })
}

/// By what extension API servers know who asks: a user's certificate, or this server, which speaks for users in headers.
fn extension_authentication(front_proxy: &FrontProxy) -> Value {
    let list = |items: &[&str]| json!(items).to_string();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": front_proxy.client_ca,
            "requestheader-client-ca-file": front_proxy.authority,
            "requestheader-allowed-names": list(&[FrontProxy::NAME]),
            "requestheader-username-headers": list(&[headers::USER]),
            "requestheader-uid-headers": list(&[headers::UID]),
            "requestheader-group-headers": list(&[headers::GROUP]),
            "requestheader-extra-headers-prefix": list(&[headers::EXTRA]),
        },
    })
}

/// The class of claims that name none: directories on the disk of the node where the first Pod runs.
fn local_path() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "wherry.dev/local-path", "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
        "allowVolumeExpansion": true,
    })
}

fn service(cluster: &Cluster) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels()},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster.api_ip,
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port(cluster)}],
        },
    })
}

fn endpoints(cluster: &Cluster) -> Value {
    let addresses: Vec<Value> = cluster.api_endpoints.iter().map(|a| json!({"ip": a.ip()})).collect();
    let subsets = if addresses.is_empty() {
        json!([])
    } else {
        json!([{"addresses": addresses, "ports": [{"name": "https", "port": port(cluster), "protocol": "TCP"}]}])
    };
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets,
    })
}

fn endpoint_slice(cluster: &Cluster) -> Value {
    let ready = json!({"ready": true});
    let endpoints: Vec<Value> =
        cluster.api_endpoints.iter().map(|a| json!({"addresses": [a.ip()], "conditions": ready})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "https", "port": port(cluster), "protocol": "TCP"}],
    })
}
