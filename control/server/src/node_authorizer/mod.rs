//! What a node's agent may do: upstream's Node authorizer.
//!
//! A user of the group `system:nodes` named `system:node:NAME` may read what the Pods bound to that node need, write its own
//! Node, lease and CSINode, report and delete its own Pods, and do what the default role `system:node` lists for all
//! else. What it may write into an object that it may write is for the admission plugin NodeRestriction to say.

mod graph;
mod references;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use wherry_api::selector::FieldSelector;
use wherry_store::Store;

use crate::User;
use crate::follow::Follower;
use crate::layers::authorize::{Attributes, Authorizer, Decision, Rule, Rules};
use graph::Graph;
use references::Kind;

/// The group of all nodes.
const NODES: &str = "system:nodes";
/// What a node's user name begins with.
const PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

/// The name of the node whose agent `user` is; `None` if it is no node's.
pub(crate) fn node_of(user: &User) -> Option<&str> {
    user.name.strip_prefix(PREFIX).filter(|_| user.in_group(NODES))
}

/// Decides for nodes, and for nobody else.
pub(crate) struct NodeAuthorizer {
    graph: Follower<Graph>,
    /// The rules of the role `system:node`.
    rules: Vec<Rule>,
}

/// Nothing if it may be done, else what is wrong with it.
type Verdict = Result<(), String>;

fn refuse(why: impl Into<String>) -> Verdict {
    Err(why.into())
}

impl NodeAuthorizer {
    /// `rules` is what any node may do with objects that are not told apart by node.
    pub(crate) fn new(store: Arc<dyn Store>, rules: Vec<Rule>) -> Self {
        Self { graph: Follower::new(store), rules }
    }

    fn decide(&self, node: &str, asked: &Attributes<'_>) -> Verdict {
        if asked.is_resource {
            match (asked.group, asked.resource) {
                ("", "secrets") => return self.read_needed(node, Kind::Secret, asked),
                ("", "configmaps") => return self.read_needed(node, Kind::ConfigMap, asked),
                ("", "serviceaccounts") => return self.service_account(node, asked),
                ("", "persistentvolumeclaims") if asked.subresource == "status" => {
                    return self.claim_status(node, asked);
                }
                ("", "persistentvolumeclaims") => {
                    return get_only(asked).and_then(|()| self.needed(node, Kind::Claim, asked));
                }
                // The end of a volume on its disk. NodeRestriction sees to it that it is no more than that.
                ("", "persistentvolumes") if asked.verb == "patch" && asked.subresource.is_empty() => {
                    return self.related(node, asked, |graph| graph.keeps(node, asked.name));
                }
                ("", "persistentvolumes") => {
                    return get_only(asked)
                        .and_then(|()| self.related(node, asked, |graph| graph.volume(node, asked.name)));
                }
                ("storage.k8s.io", "volumeattachments") => {
                    return get_only(asked)
                        .and_then(|()| self.related(node, asked, |g| g.attachment(node, asked.name)));
                }
                // Nothing is known of claims and slices of devices: no node has to do with any.
                ("resource.k8s.io", "resourceclaims" | "resourceslices") => {
                    return self.related(node, asked, |_| false);
                }
                ("coordination.k8s.io", "leases") => return lease(node, asked),
                ("storage.k8s.io", "csinodes") => return csi_node(node, asked),
                ("", "nodes") => return own_node(node, asked),
                ("", "pods") => return self.pod(node, asked),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(asked)) { Ok(()) } else { refuse("") }
    }

    fn related(&self, node: &str, asked: &Attributes<'_>, found: impl Fn(&Graph) -> bool) -> Verdict {
        if asked.name.is_empty() {
            return refuse("No Object name found");
        }
        if found(&self.graph.read()) {
            return Ok(());
        }
        refuse(format!("no relationship found between node '{node}' and this object"))
    }

    fn needed(&self, node: &str, kind: Kind, asked: &Attributes<'_>) -> Verdict {
        self.related(node, asked, |graph| graph.needs(node, kind, asked.namespace, asked.name))
    }

    /// Reads of single objects that Pods of the node need.
    fn read_needed(&self, node: &str, kind: Kind, asked: &Attributes<'_>) -> Verdict {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !asked.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if asked.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.needed(node, kind, asked)
    }

    fn claim_status(&self, node: &str, asked: &Attributes<'_>) -> Verdict {
        if !matches!(asked.verb, "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.needed(node, Kind::Claim, asked)
    }

    fn service_account(&self, node: &str, asked: &Attributes<'_>) -> Verdict {
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.read_needed(node, Kind::ServiceAccount, asked);
        }
        if asked.verb != "create" || asked.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if asked.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.needed(node, Kind::ServiceAccount, asked)
    }

    fn pod(&self, node: &str, asked: &Attributes<'_>) -> Verdict {
        let own = || self.related(node, asked, |graph| graph.pod(node, asked.namespace, asked.name));
        match (asked.subresource, asked.verb) {
            ("", "get") => own(),
            ("", "list" | "watch") if selects_node(asked.fields, node) => Ok(()),
            ("", "list" | "watch") if !asked.name.is_empty() => own(),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            // Which Pods is for NodeRestriction to say.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }
}

fn get_only(asked: &Attributes<'_>) -> Verdict {
    if asked.verb != "get" {
        return refuse("can only get individual resources of this type");
    }
    if !asked.subresource.is_empty() {
        return refuse("cannot get subresource");
    }
    Ok(())
}

fn selects_node(fields: &str, node: &str) -> bool {
    FieldSelector::parse(fields).is_ok_and(|selector| selector.exact("spec.nodeName") == Some(node))
}

fn lease(node: &str, asked: &Attributes<'_>) -> Verdict {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if asked.namespace != LEASES {
        return refuse(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    // The name of what is to be created is not known yet; NodeRestriction sees it.
    if asked.verb != "create" && asked.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, asked: &Attributes<'_>) -> Verdict {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !asked.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if asked.verb != "create" && asked.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn own_node(node: &str, asked: &Attributes<'_>) -> Verdict {
    match (asked.subresource, asked.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        // By name and not by the graph: a node looks for its Node before it makes it.
        ("", "get" | "list" | "watch") => match asked.name {
            own if own == node => Ok(()),
            "" => refuse(format!("node '{node}' cannot read all nodes, only its own Node object")),
            other => refuse(format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => refuse(""),
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let verdict = match node_of(user) {
            None => refuse(""),
            Some("") => refuse(format!("unknown node for user {:?}", user.name)),
            Some(node) => self.decide(node, attributes),
        };
        match verdict {
            Ok(()) => Decision::Allow { reason: String::new() },
            Err(reason) => Decision::NoOpinion { reason },
        }
    }

    fn rules(&self, user: &User, _namespace: &str) -> Rules {
        if node_of(user).is_none() {
            return Rules::default();
        }
        let errors = vec!["node authorizer does not support user rule resolution".to_owned()];
        Rules { incomplete: true, errors, ..Rules::default() }
    }
}
