//! May they: one question to an [`Authorizer`] a request.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use wherry_api::status::{GroupResource, Status};

use super::info::RequestInfo;
use crate::User;
use crate::audit;
use crate::respond::Failure;

/// What somebody wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// Whether it is about API objects; else `verb` and `path` count alone.
    pub is_resource: bool,
    /// The verb, such as `list`.
    pub verb: &'a str,
    /// The API group.
    pub group: &'a str,
    /// The resource's plural name.
    pub resource: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The namespace, empty for all of them or for cluster-scoped resources.
    pub namespace: &'a str,
    /// The object's name, or empty.
    pub name: &'a str,
    /// The path of a request that is not about objects.
    pub path: &'a str,
    /// The field selector of a list, watch or deletecollection, as text.
    pub fields: &'a str,
}

impl<'a> From<&'a RequestInfo> for Attributes<'a> {
    fn from(info: &'a RequestInfo) -> Self {
        Self {
            is_resource: info.is_resource,
            verb: info.verb.as_str(),
            group: &info.group,
            resource: &info.resource,
            subresource: info.subresource.as_deref().unwrap_or_default(),
            namespace: info.namespace.as_deref().unwrap_or_default(),
            name: info.name.as_deref().unwrap_or_default(),
            path: &info.path,
            fields: &info.fields,
        }
    }
}

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allow {
        /// Why.
        reason: String,
    },
    /// It may not, whatever other authorizers say.
    Deny {
        /// Why.
        reason: String,
    },
    /// This authorizer does not know; what nobody allows is refused.
    NoOpinion {
        /// What was missing, if that is known; mostly empty.
        reason: String,
    },
}

impl Decision {
    /// Nothing to say, and no reason for it.
    pub fn none() -> Self {
        Self::NoOpinion { reason: String::new() }
    }

    /// Whether it may be done.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// What may be done: a rule of a role, and of SelfSubjectRulesReview.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// Groups; empty for rules about paths.
    pub groups: Vec<String>,
    /// Resources; empty for rules about paths.
    pub resources: Vec<String>,
    /// Names, empty for all.
    pub names: Vec<String>,
    /// Paths of requests that are not about objects.
    pub paths: Vec<String>,
}

/// What a user may do in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The rules that were found.
    pub rules: Vec<Rule>,
    /// Whether there may be more that cannot be listed.
    pub incomplete: bool,
    /// What went wrong on the way, each once.
    pub errors: Vec<String>,
}

/// Decides who may do what. A decision is asked for with every request: it is quick and does no I/O.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `user` may do what `attributes` say.
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision;

    /// What `user` may do in `namespace`.
    fn rules(&self, user: &User, namespace: &str) -> Rules;
}

/// Nothing if `user` may do what `attributes` say, else the refusal.
pub(crate) fn check(authorizer: &dyn Authorizer, user: &User, attributes: &Attributes<'_>) -> Result<(), Status> {
    match authorizer.authorize(user, attributes) {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(forbidden(user, attributes, &reason)),
    }
}

/// Lets the request through, or answers 403.
pub(crate) async fn layer(State(authorizer): State<Arc<dyn Authorizer>>, request: Request, next: Next) -> Response {
    let (Some(user), Some(info)) = (request.extensions().get::<User>(), request.extensions().get::<Arc<RequestInfo>>())
    else {
        return Failure(Status::unauthorized()).into_response();
    };
    let attributes = Attributes::from(info.as_ref());
    let (allowed, reason) = match authorizer.authorize(user, &attributes) {
        Decision::Allow { reason } => (true, reason),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => (false, reason),
    };
    audit::annotate("authorization.k8s.io/decision", || if allowed { "allow" } else { "forbid" }.to_owned());
    audit::annotate("authorization.k8s.io/reason", || reason.clone());
    if allowed { next.run(request).await } else { Failure(forbidden(user, &attributes, &reason)).into_response() }
}

/// Upstream's words for a refusal.
pub(crate) fn forbidden(user: &User, attributes: &Attributes<'_>, reason: &str) -> Status {
    let who = &user.name;
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !attributes.is_resource {
        let why = format!("User {who:?} cannot {} path {:?}{because}", attributes.verb, attributes.path);
        return Status::forbidden(&GroupResource::new("", ""), "", why);
    }
    let resource = match attributes.subresource {
        "" => attributes.resource.to_owned(),
        sub => format!("{}/{sub}", attributes.resource),
    };
    let place = match attributes.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!(
        "User {who:?} cannot {} resource {resource:?} in API group {:?} {place}{because}",
        attributes.verb, attributes.group
    );
    Status::forbidden(&GroupResource::new(attributes.group, attributes.resource), attributes.name, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_upstream() {
        let jane = User::new("jane", Vec::<String>::new());
        let list =
            Attributes { is_resource: true, verb: "list", resource: "pods", namespace: "a", ..Attributes::default() };
        assert_eq!(
            forbidden(&jane, &list, "").message,
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"a\""
        );
        let path = Attributes { verb: "get", path: "/metrics", ..Attributes::default() };
        assert_eq!(forbidden(&jane, &path, "").message, "forbidden: User \"jane\" cannot get path \"/metrics\"");
    }
}
