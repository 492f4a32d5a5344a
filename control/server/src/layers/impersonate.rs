//! Acting as somebody else: `kubectl --as`, for those who may impersonate (upstream's impersonation filter).
//!
//! Runs after authentication and before authorization: each identity asked for (user or service account, groups, extra values,
//! uid) is a question of its own to the authorizer (verb `impersonate`); what is then done is authorized as the
//! impersonated user. The headers go no further than here.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use wherry_api::status::Status;
use wherry_api::validation::names;

use super::authorize::{Attributes, Authorizer, check};
use crate::User;
use crate::respond::Failure;
use crate::tokens::{USER_PREFIX, groups as account_groups};
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Replaces the request's user by the one it asks to act as, or refuses.
pub(crate) async fn layer(State(authorizer): State<Arc<dyn Authorizer>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers_mut();
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    if !names.is_empty() {
        let asked = Asked::read(headers);
        for name in names {
            headers.remove(name);
        }
        let Some(user) = request.extensions().get::<User>() else {
            return Failure(Status::unauthorized()).into_response();
        };
        match asked.and_then(|asked| asked.authorized(authorizer.as_ref(), user)) {
            Ok(user) => request.extensions_mut().insert(user),
            Err(status) => return Failure(status).into_response(),
        };
    }
    next.run(request).await
}

fn is_ours(name: &HeaderName) -> bool {
    [USER, GROUP, UID].contains(&name.as_str()) || name.as_str().starts_with(EXTRA)
}

/// Who a request asks to be.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    user: String,
    groups: Vec<String>,
    /// Key and value, one pair a value.
    extra: Vec<(String, String)>,
    uid: String,
}

impl Asked {
    fn read(headers: &HeaderMap) -> Result<Self, Status> {
        let values = |name: &HeaderName| -> Vec<String> {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
        };
        let mut asked = Self::default();
        for name in headers.keys().filter(|name| is_ours(name)) {
            match name.as_str() {
                USER => asked.user = values(name).into_iter().next().unwrap_or_default(),
                GROUP => asked.groups = values(name),
                UID => asked.uid = values(name).into_iter().next().unwrap_or_default(),
                other => {
                    let key = percent_decode_str(other.trim_start_matches(EXTRA)).decode_utf8_lossy().into_owned();
                    asked.extra.extend(values(name).into_iter().map(|value| (key.clone(), value)));
                }
            }
        }
        if asked.user.is_empty() && (asked.extra.len() + asked.groups.len() > 0 || !asked.uid.is_empty()) {
            let all: Vec<String> = asked.identities().iter().map(Identity::go).collect();
            let list = all.join(" ");
            return Err(Status::bad_request(format!("requested [{list}] without impersonating a user")));
        }
        Ok(asked)
    }

    /// Namespace and name, where the user is a service account.
    fn account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.user.strip_prefix(USER_PREFIX)?.split_once(':')?;
        (names::label(namespace).is_empty() && names::subdomain(name).is_empty()).then_some((namespace, name))
    }

    /// What has to be permitted, in upstream's order.
    fn identities(&self) -> Vec<Identity<'_>> {
        let mut all = Vec::new();
        match self.account() {
            Some((namespace, name)) => {
                all.push(Identity { resource: "serviceaccounts", namespace, name, ..Identity::default() })
            }
            None if self.user.is_empty() => {}
            None => all.push(Identity { resource: "users", name: &self.user, ..Identity::default() }),
        }
        all.extend(self.groups.iter().map(|name| Identity { resource: "groups", name, ..Identity::default() }));
        all.extend(self.extra.iter().map(|(key, name)| Identity {
            group: AUTHENTICATION,
            resource: "userextras",
            key,
            name,
            namespace: "",
        }));
        if !self.uid.is_empty() {
            all.push(Identity { group: AUTHENTICATION, resource: "uids", name: &self.uid, ..Identity::default() });
        }
        all
    }

    /// The user to act as, if `user` may impersonate all that is asked for.
    fn authorized(self, authorizer: &dyn Authorizer, user: &User) -> Result<User, Status> {
        for identity in self.identities() {
            let attributes = Attributes {
                is_resource: true,
                verb: "impersonate",
                group: identity.group,
                resource: identity.resource,
                subresource: identity.key,
                namespace: identity.namespace,
                name: identity.name,
                ..Attributes::default()
            };
            check(authorizer, user, &attributes)?;
        }
        Ok(self.into_user())
    }

    /// The user asked for. Groups that are named are all there are; a service account has its own where none is.
    fn into_user(self) -> User {
        let mut groups = match self.account() {
            Some((namespace, _)) if self.groups.is_empty() => account_groups(namespace).to_vec(),
            _ => self.groups,
        };
        let (implied, instead) = match self.user.as_str() {
            ANONYMOUS => (UNAUTHENTICATED, UNAUTHENTICATED),
            _ => (AUTHENTICATED, UNAUTHENTICATED),
        };
        if !groups.iter().any(|group| group == implied || group == instead) {
            groups.push(implied.to_owned());
        }
        let mut user = User { name: self.user, uid: self.uid, groups, ..User::default() };
        for (key, value) in self.extra {
            user.extra.entry(key).or_default().push(value);
        }
        user
    }
}

/// One thing to be impersonated, as authorization names it.
#[derive(Debug, Default, PartialEq)]
struct Identity<'a> {
    group: &'a str,
    resource: &'a str,
    /// The key of an extra value: a subresource to the authorizer.
    key: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Identity<'_> {
    /// As Go prints the reference that upstream makes of it.
    fn go(&self) -> String {
        let kind = match self.resource {
            "serviceaccounts" => "ServiceAccount",
            "users" => "User",
            "groups" => "Group",
            "userextras" => "UserExtra",
            _ => "UID",
        };
        let version = if self.group.is_empty() { "" } else { "authentication.k8s.io/v1" };
        format!("{{{kind} {} {}  {version}  {}}}", self.namespace, self.name, self.key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn asked(given: &[(&'static str, &str)]) -> Result<Asked, Status> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, value.parse().unwrap());
        }
        Asked::read(&headers)
    }

    #[test]
    fn groups_follow_from_the_user_unless_they_are_named() {
        for (headers, groups) in [
            (vec![(USER, "jane")], vec!["system:authenticated"]),
            (vec![(USER, "jane"), (GROUP, "dev"), (GROUP, "ops")], vec!["dev", "ops", "system:authenticated"]),
            (vec![(USER, "jane"), (GROUP, "system:unauthenticated")], vec!["system:unauthenticated"]),
            (vec![(USER, "system:anonymous")], vec!["system:unauthenticated"]),
            (
                vec![(USER, "system:serviceaccount:a:b")],
                vec!["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
            ),
            (vec![(USER, "system:serviceaccount:a:b"), (GROUP, "dev")], vec!["dev", "system:authenticated"]),
            (vec![(USER, "system:serviceaccount:a:B:c")], vec!["system:authenticated"]),
        ] {
            assert_eq!(asked(&headers).unwrap().into_user().groups, groups, "{headers:?}");
        }
    }

    #[test]
    fn every_identity_is_asked_for() {
        let asked = asked(&[
            (USER, "system:serviceaccount:a:b"),
            (GROUP, "dev"),
            (UID, "1"),
            ("impersonate-extra-acme.com%2fproject", "x"),
            ("impersonate-extra-acme.com%2fproject", "y"),
        ])
        .unwrap();
        let of = |group, resource, key, namespace, name| Identity { group, resource, key, namespace, name };
        let expected = [
            of("", "serviceaccounts", "", "a", "b"),
            of("", "groups", "", "", "dev"),
            of(AUTHENTICATION, "userextras", "acme.com/project", "", "x"),
            of(AUTHENTICATION, "userextras", "acme.com/project", "", "y"),
            of(AUTHENTICATION, "uids", "", "", "1"),
        ];
        assert_eq!(asked.identities(), expected);
        let user = asked.into_user();
        assert_eq!(user.uid, "1");
        assert_eq!(user.extra["acme.com/project"], ["x", "y"]);
    }

    #[test]
    fn nothing_is_impersonated_without_a_user() {
        for (headers, text) in [
            (vec![(GROUP, "dev")], "requested [{Group  dev    }] without impersonating a user"),
            (vec![(UID, "1")], "requested [{UID  1  authentication.k8s.io/v1  }] without impersonating a user"),
            (
                vec![("impersonate-extra-k", "v")],
                "requested [{UserExtra  v  authentication.k8s.io/v1  k}] without impersonating a user",
            ),
        ] {
            assert_eq!(asked(&headers).unwrap_err().message, text);
        }
    }
}
