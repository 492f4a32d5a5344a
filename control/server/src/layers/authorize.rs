//! May they: one question to an [`Authorizer`] a request.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use wherry_api::status::{GroupResource, Reason, Status};

use super::authenticate::PUBLIC;
use super::info::RequestInfo;
use crate::User;
use crate::respond::Failure;
use crate::user::MASTERS;

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
    NoOpinion,
}

/// A rule as SelfSubjectRulesReview shows it.
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

/// Decides who may do what.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `user` may do what `attributes` say.
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision;

    /// What `user` may do in `namespace`, and whether that list is known to be incomplete.
    fn rules(&self, user: &User, namespace: &str) -> (Vec<Rule>, bool);
}

/// Administrators and the cluster's own components may do everything, nobody else anything but read public paths
/// and review themselves.
#[derive(Debug, Default)]
pub struct ComponentsOnly;

/// The components that run the cluster; nodes are recognised by their group.
const COMPONENTS: [&str; 2] = ["system:kube-controller-manager", "system:kube-scheduler"];
/// What every authenticated user may create about itself.
const SELF_REVIEWS: [&str; 3] = ["selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"];

impl ComponentsOnly {
    fn all_powerful(user: &User) -> bool {
        user.in_group(MASTERS) || user.in_group("system:nodes") || COMPONENTS.contains(&user.name.as_str())
    }
}

impl Authorizer for ComponentsOnly {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let allow = |reason: &str| Decision::Allow { reason: reason.to_owned() };
        if Self::all_powerful(user) {
            return allow("");
        }
        let public = !attributes.is_resource && attributes.verb == "get" && is_public(attributes.path);
        let about_self = attributes.is_resource
            && attributes.verb == "create"
            && SELF_REVIEWS.contains(&attributes.resource)
            && user.in_group(crate::user::AUTHENTICATED);
        if public || about_self { allow("") } else { Decision::NoOpinion }
    }

    fn rules(&self, user: &User, _namespace: &str) -> (Vec<Rule>, bool) {
        let any = || vec!["*".to_owned()];
        if Self::all_powerful(user) {
            let objects = Rule { verbs: any(), groups: any(), resources: any(), ..Rule::default() };
            return (vec![objects, Rule { verbs: any(), paths: any(), ..Rule::default() }], false);
        }
        let create = |group: &str, resources: &[&str]| Rule {
            verbs: vec!["create".to_owned()],
            groups: vec![group.to_owned()],
            resources: resources.iter().map(|r| (*r).to_owned()).collect(),
            ..Rule::default()
        };
        let paths = PUBLIC.iter().map(|p| (*p).to_owned()).collect();
        let rules = vec![
            create("authorization.k8s.io", &SELF_REVIEWS[..2]),
            create("authentication.k8s.io", &SELF_REVIEWS[2..]),
            Rule { verbs: vec!["get".to_owned()], paths, ..Rule::default() },
        ];
        (rules, false)
    }
}

fn is_public(path: &str) -> bool {
    PUBLIC.iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Lets the request through, or answers 403.
pub(crate) async fn layer(State(authorizer): State<Arc<dyn Authorizer>>, request: Request, next: Next) -> Response {
    let (Some(user), Some(info)) = (request.extensions().get::<User>(), request.extensions().get::<Arc<RequestInfo>>())
    else {
        return Failure(Status::unauthorized()).into_response();
    };
    let attributes = Attributes::from(info.as_ref());
    let reason = match authorizer.authorize(user, &attributes) {
        Decision::Allow { .. } => return next.run(request).await,
        Decision::Deny { reason } => reason,
        Decision::NoOpinion => String::new(),
    };
    Failure(forbidden(user, &attributes, &reason)).into_response()
}

/// Upstream's words for a refusal.
pub(crate) fn forbidden(user: &User, attributes: &Attributes<'_>, reason: &str) -> Status {
    let who = &user.name;
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !attributes.is_resource {
        let message = format!("forbidden: User {who:?} cannot {} path {:?}{because}", attributes.verb, attributes.path);
        return Status::new(403, Reason::Forbidden, message);
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

    fn allowed(user: &User, verb: &str, resource: &str, path: &str) -> bool {
        let attributes = Attributes { is_resource: path.is_empty(), verb, resource, path, ..Attributes::default() };
        matches!(ComponentsOnly.authorize(user, &attributes), Decision::Allow { .. })
    }

    #[test]
    fn components_may_and_others_may_not() {
        for user in [
            User::admin(),
            User::node("a"),
            User::component("kube-scheduler"),
            User::component("kube-controller-manager"),
        ] {
            assert!(allowed(&user, "delete", "nodes", ""), "{}", user.name);
        }
        let jane = User::new("jane", ["dev"]);
        assert!(!allowed(&jane, "get", "pods", ""));
        assert!(allowed(&jane, "create", "selfsubjectaccessreviews", ""));
        assert!(allowed(&User::anonymous(), "get", "", "/livez/ping"));
        assert!(!allowed(&User::anonymous(), "create", "selfsubjectaccessreviews", ""));
        assert!(!allowed(&User::anonymous(), "get", "", "/versions"));
        assert!(!allowed(&User::component("kube-proxy"), "list", "pods", ""));
    }

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
