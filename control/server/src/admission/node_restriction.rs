//! What a node's agent may write into the objects that it may write: its own Node, lease and CSINode, the status of the Pods
//! bound to it, mirror Pods of its own, tokens for its Pods.
//!
//! The Node authorizer sees no more than the request's line; this plugin sees the objects. It keeps a node from drawing
//! Pods to itself (labels, taints) and from reaching what belongs to other nodes. Upstream: NodeRestriction.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::meta;
use wherry_api::status::{GroupResource, Status};

use super::{Attributes, Operation, Plugin};
use crate::layers::authorize;
use crate::node_authorizer::node_of;
use crate::objects;

mod labels;
mod mirror;

const LEASES: &str = "kube-node-lease";

pub(super) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let Some(node) = node_of(attributes.user) else {
            return Ok(());
        };
        let write = Write { node, attributes, object };
        match (attributes.resource.group.as_str(), attributes.resource.plural.as_str(), attributes.subresource) {
            _ if node.is_empty() => {
                write.refuse(format!("could not determine node from user {:?}", attributes.user.name))
            }
            ("", "pods", "") => write.pod(),
            ("", "pods", "status") => write.pod_status(),
            ("", "pods", "eviction") => {
                write.own_pod(format!("node {node} can only evict pods with spec.nodeName set to itself"))
            }
            ("", "pods", other) => {
                write.refuse(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
            }
            ("", "nodes", _) => write.node(),
            ("", "persistentvolumeclaims", "status") => write.claim_status(),
            ("", "persistentvolumeclaims", _) => write.refuse("may only update PVC status"),
            ("", "persistentvolumes", _) => write.volume(),
            ("", "serviceaccounts", "token") => write.token(),
            ("coordination.k8s.io", "leases", _) => write.lease(),
            ("storage.k8s.io", "csinodes", _) => {
                write.named("can only access CSINode with the same name as the requesting node")
            }
            ("certificates.k8s.io", "certificatesigningrequests", "") => write.certificate(),
            _ => Ok(()),
        }
    }
}

/// A write of a node.
struct Write<'a> {
    node: &'a str,
    attributes: &'a Attributes<'a>,
    object: &'a Value,
}

impl Write<'_> {
    fn refuse(&self, why: impl std::fmt::Display) -> Result<(), Status> {
        Err(Status::forbidden(&self.attributes.resource.group_resource(), self.attributes.name, why))
    }

    /// A stored object of the core group; 404 if it is not there.
    fn stored(&self, resource: &str, namespace: &str, name: &str) -> Result<Value, Status> {
        let missing = || Status::not_found(&GroupResource::new("", resource), name);
        let entry = self.attributes.engine.lookup(resource, namespace, name).ok_or_else(missing)?;
        objects::stored_tree(&entry)
    }

    fn is_own(&self, pod: &Value) -> bool {
        pod["spec"]["nodeName"] == self.node
    }

    /// Whether the Pod that the path names is bound to the node.
    fn own_pod(&self, else_: String) -> Result<(), Status> {
        let pod = self.stored("pods", self.attributes.namespace, self.attributes.name)?;
        if self.is_own(&pod) { Ok(()) } else { self.refuse(else_) }
    }

    /// Nothing but the finalizer of a volume on its disk, once the volume is being deleted.
    fn volume(&self) -> Result<(), Status> {
        const FINALIZER: &str = "wherry.dev/local-path";
        let rest = |volume: &Value| {
            let mut rest = volume.clone();
            for field in ["finalizers", "managedFields", "resourceVersion"] {
                meta::metadata_mut(&mut rest).remove(field);
            }
            let finalizers: Vec<String> =
                meta::finalizers(volume).filter(|name| *name != FINALIZER).map(str::to_owned).collect();
            (rest, finalizers)
        };
        let ending = self.attributes.old.filter(|old| old["metadata"]["deletionTimestamp"].is_string());
        if ending.is_some_and(|old| rest(old) == rest(self.object)) {
            return Ok(());
        }
        self.refuse("may only let go of volumes on its own disk that are being deleted")
    }

    fn pod(&self) -> Result<(), Status> {
        match self.attributes.operation {
            Operation::Create => self.mirror_pod(),
            Operation::Delete => {
                self.own_pod(format!("node {:?} can only delete pods with spec.nodeName set to itself", self.node))
            }
            Operation::Update => self.refuse(format!(
                "unexpected operation \"UPDATE\", node {:?} can only create and delete mirror pods",
                self.node
            )),
        }
    }

    fn mirror_pod(&self) -> Result<(), Status> {
        if let Err(why) = mirror::check(self.object, self.node) {
            return self.refuse(why);
        }
        let owner = &meta::owner_references(self.object)[0]["uid"];
        let node = self.stored("nodes", "", self.node)?;
        if *owner == *meta::uid(&node) {
            return Ok(());
        }
        let given = owner.as_str().unwrap_or_default();
        self.refuse(format!("node {} UID mismatch: expected {given} got {}", self.node, meta::uid(&node)))
    }

    fn pod_status(&self) -> Result<(), Status> {
        let node = self.node;
        let Some(old) = self.attributes.old else {
            return self.refuse("unexpected operation");
        };
        if !self.is_own(old) {
            let why = "can only update pod status for pods with spec.nodeName set to itself";
            return self.refuse(format!("node {node:?} {why}"));
        }
        if meta::labels(self.object) != meta::labels(old) {
            return self.refuse(format!("node {node:?} cannot update labels through pod status"));
        }
        let differs = |key: &str| self.object["status"][key] != old["status"][key];
        if differs("resourceClaimStatuses") {
            return self.refuse(format!("node {node:?} cannot update resource claim statues"));
        }
        if differs("extendedResourceClaimStatus") {
            return self.refuse(format!("node {node:?} cannot update extended resource claim status"));
        }
        Ok(())
    }

    fn node(&self) -> Result<(), Status> {
        let (node, name) = (self.node, self.attributes.name);
        if name != node {
            return self.refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
        }
        let new = self.object;
        match (self.attributes.operation, self.attributes.old) {
            (Operation::Create, _) => {
                if !new["spec"]["configSource"].is_null() {
                    return self
                        .refuse(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
                }
                let forbidden = labels::forbidden(new, &Value::Null);
                if !forbidden.is_empty() {
                    let list = forbidden.join(", ");
                    return self.refuse(format!("node {node:?} is not allowed to set the following labels: {list}"));
                }
                Ok(())
            }
            (Operation::Update, Some(old)) => self.own_node(new, old),
            _ => Ok(()),
        }
    }

    fn own_node(&self, new: &Value, old: &Value) -> Result<(), Status> {
        let node = self.node;
        let config = |object: &Value| object["spec"]["configSource"].clone();
        if !config(new).is_null() && config(new) != config(old) {
            let why = "is not allowed to update configSource to a new non-nil configSource";
            return self.refuse(format!("node {node:?} {why}"));
        }
        if listed(&new["spec"]["taints"]) != listed(&old["spec"]["taints"]) {
            return self.refuse(format!("node {node:?} is not allowed to modify taints"));
        }
        if meta::owner_references(new) != meta::owner_references(old) {
            return self.refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
        let forbidden = labels::forbidden(new, old);
        if !forbidden.is_empty() {
            return self.refuse(format!("is not allowed to modify labels: {}", forbidden.join(", ")));
        }
        Ok(())
    }

    fn claim_status(&self) -> Result<(), Status> {
        let Some(old) = self.attributes.old else {
            return self.refuse("unexpected operation");
        };
        if others(self.object) == others(old) {
            return Ok(());
        }
        let why = "is not allowed to update fields other than status.quantity and status.conditions";
        self.refuse(format!("node {:?} {why}", self.node))
    }

    /// A token must be bound to a Pod of the node, by name and uid, and be for whom that Pod mounts one.
    fn token(&self) -> Result<(), Status> {
        if self.attributes.operation != Operation::Create {
            return Ok(());
        }
        let bound = &self.object["spec"]["boundObjectRef"];
        let text = |key: &str| bound[key].as_str().unwrap_or_default();
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return self.refuse("node requested token not bound to a pod");
        }
        if text("uid").is_empty() {
            return self.refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.stored("pods", self.attributes.namespace, text("name"))?;
        if text("uid") != meta::uid(&pod) {
            return self.refuse(format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                text("uid")
            ));
        }
        if !self.is_own(&pod) {
            return self.refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audience(&pod)
    }

    fn audience(&self, pod: &Value) -> Result<(), Status> {
        let audiences = self.object["spec"]["audiences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let audience = match audiences {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        if mounted_audiences(pod).any(|mounted| mounted == audience) {
            return Ok(());
        }
        let Attributes { user, engine, namespace, name, .. } = self.attributes;
        let asked = authorize::Attributes {
            is_resource: true,
            verb: "request-serviceaccounts-token-audience",
            resource: audience,
            namespace,
            name,
            ..authorize::Attributes::default()
        };
        if engine.authorizer.authorize(user, &asked).is_allowed() {
            return Ok(());
        }
        self.refuse(format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            user.name
        ))
    }

    fn lease(&self) -> Result<(), Status> {
        if self.attributes.namespace != LEASES {
            return self.refuse(format!("can only access leases in the {LEASES:?} system namespace"));
        }
        self.named("can only access node lease with the same name as the requesting node")
    }

    /// Whether the object is the node's by its name.
    fn named(&self, else_: &str) -> Result<(), Status> {
        if self.attributes.name == self.node { Ok(()) } else { self.refuse(else_) }
    }

    /// A node asks for certificates of its own name alone.
    fn certificate(&self) -> Result<(), Status> {
        let signer = self.object["spec"]["signerName"].as_str().unwrap_or_default();
        let signers = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
        if self.attributes.operation != Operation::Create || !signers.contains(&signer) {
            return Ok(());
        }
        let common_name = match common_name(self.object["spec"]["request"].as_str().unwrap_or_default()) {
            Ok(name) => name,
            Err(why) => return self.refuse(format!("unable to parse csr: {why}")),
        };
        let own = format!("system:node:{}", self.node);
        if common_name == own { Ok(()) } else { self.refuse(format!("can only create a node CSR with CN={own}")) }
    }
}

/// A list, absent or empty alike.
fn listed(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A claim without what its node reports of it.
fn others(claim: &Value) -> Value {
    let mut claim = claim.clone();
    for key in ["resourceVersion", "managedFields"] {
        meta::metadata_mut(&mut claim).remove(key);
    }
    for key in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
        meta::map_mut(&mut claim, "status").remove(key);
    }
    claim
}

/// For whom a Pod mounts tokens; the API server itself is the empty text.
fn mounted_audiences(pod: &Value) -> impl Iterator<Item = &str> {
    let sources = listed(&pod["spec"]["volumes"]).iter().flat_map(|volume| listed(&volume["projected"]["sources"]));
    sources
        .filter_map(|source| source["serviceAccountToken"].as_object())
        .map(|token| token.get("audience").and_then(Value::as_str).unwrap_or_default())
}

/// The common name that a certificate request (PEM in base64) asks for.
fn common_name(request: &str) -> Result<String, String> {
    use base64::Engine as _;
    use x509_parser::prelude::FromDer as _;
    let pem = base64::engine::general_purpose::STANDARD.decode(request).map_err(|e| e.to_string())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|e| e.to_string())?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
        .map_err(|e| e.to_string())?;
    let subject = &request.certification_request_info.subject;
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
    Ok(name)
}
