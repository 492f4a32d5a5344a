//! The ways in which one user may act as another (upstream's constrained impersonation, on by default since 1.36).
//!
//! A constrained way permits two things apart: to be somebody (`impersonate:MODE` on each identity) and to do this very thing as
//! somebody (`impersonate-on:MODE:VERB` on the request's own object). The legacy way, `impersonate`, permits to be somebody
//! for anything. The ways are tried in order; the first that permits counts, and of the refusals the first is told.

use wherry_api::status::Status;
use wherry_api::validation::names;

use crate::User;
use crate::layers::authorize::{Attributes, Authorizer, check, forbidden};
use crate::tokens::{NODE_NAME, USER_PREFIX, groups as account_groups};
use crate::user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED};

const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";
/// From so many identities on it is asked first whether all are permitted.
const MANY: usize = 4;

/// A constrained way: its name, and whom it is for.
struct Mode {
    name: &'static str,
    applies: fn(&User, &User) -> bool,
}

/// In the order in which they are tried; wanted user, requester.
const MODES: [Mode; 4] = [
    Mode { name: ASSOCIATED, applies: |wanted, requester| only_named(wanted) && is_node_of(requester, &wanted.name) },
    Mode { name: "arbitrary-node", applies: |wanted, _| only_named(wanted) && node(&wanted.name).is_some() },
    Mode { name: "serviceaccount", applies: |wanted, _| only_named(wanted) && account(&wanted.name).is_some() },
    Mode { name: "user-info", applies: |wanted, _| node(&wanted.name).is_none() && account(&wanted.name).is_none() },
];
/// A Pod's service account as the node that the Pod is on.
const ASSOCIATED: &str = "associated-node";

/// The user to act as, if `requester` may act as `wanted` for `request`.
pub(super) fn impersonate(
    authorizer: &dyn Authorizer,
    requester: &User,
    wanted: &User,
    request: &Attributes<'_>,
) -> Result<User, Status> {
    let mut first = None;
    for mode in MODES.iter().filter(|mode| (mode.applies)(wanted, requester)) {
        match constrained(authorizer, mode, requester, wanted, request) {
            Ok(user) => return Ok(user),
            Err(status) => first.get_or_insert(status),
        };
    }
    let legacy = Way { authorizer, requester, verb: "impersonate", mode: None };
    legacy.permit(wanted).map_err(|status| first.unwrap_or(status))
}

fn constrained(
    authorizer: &dyn Authorizer,
    mode: &Mode,
    requester: &User,
    wanted: &User,
    request: &Attributes<'_>,
) -> Result<User, Status> {
    let mut requester = requester.clone();
    if mode.name == ASSOCIATED {
        // The node is known to be the requester's: which one it is should not count.
        let keys = requester.extra.keys().cloned().collect();
        requester.extra = [("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)].into();
    }
    let on = format!("impersonate-on:{}:{}", mode.name, request.verb);
    check(authorizer, &requester, &Attributes { verb: &on, ..request.clone() })?;
    let verb = format!("impersonate:{}", mode.name);
    Way { authorizer, requester: &requester, verb: &verb, mode: Some(mode) }.permit(wanted)
}

/// One way, with who asks.
struct Way<'a> {
    authorizer: &'a dyn Authorizer,
    requester: &'a User,
    verb: &'a str,
    /// None for the legacy way.
    mode: Option<&'a Mode>,
}

/// What is to be impersonated, as authorization names it.
#[derive(Clone, Copy, Default)]
struct Identity<'a> {
    group: &'a str,
    resource: &'a str,
    key: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Way<'_> {
    /// The whole user, if every identity of `wanted` is permitted.
    fn permit(&self, wanted: &User) -> Result<User, Status> {
        let mut user = wanted.clone();
        self.permit_name(&mut user)?;
        if !wanted.uid.is_empty() {
            self.may(Identity { group: AUTHENTICATION, resource: "uids", name: &wanted.uid, ..Identity::default() })?;
        }
        self.permit_groups(&wanted.groups)?;
        self.permit_extra(wanted)?;
        let implied = match user.name.as_str() {
            ANONYMOUS => UNAUTHENTICATED,
            _ if user.in_group(UNAUTHENTICATED) => return Ok(user),
            _ => AUTHENTICATED,
        };
        if !user.in_group(implied) {
            user.groups.push(implied.to_owned());
        }
        Ok(user)
    }

    /// The user's name; nodes and service accounts have their groups by it.
    fn permit_name(&self, user: &mut User) -> Result<(), Status> {
        let name = user.name.clone();
        let group = self.group();
        if let Some((namespace, account)) = account(&name) {
            if user.groups.is_empty() {
                user.groups = account_groups(namespace).to_vec();
            }
            return self.may(Identity { group, resource: "serviceaccounts", namespace, name: account, key: "" });
        }
        let (resource, name) = match (self.mode, node(&name)) {
            (Some(mode), Some(node)) => {
                user.groups = vec![NODES.to_owned()];
                ("nodes", if mode.name == ASSOCIATED { "*" } else { node })
            }
            _ => ("users", name.as_str()),
        };
        self.may(Identity { group, resource, name, ..Identity::default() })
    }

    fn permit_groups(&self, groups: &[String]) -> Result<(), Status> {
        let of = |name| Identity { group: self.group(), resource: "groups", name, ..Identity::default() };
        if self.mode.is_some() {
            if groups.iter().any(String::is_empty) {
                return Err(self.refuse(of(""), "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|group| group == MASTERS) {
                return Err(self.refuse(of(MASTERS), "impersonating the system:masters group is not allowed"));
            }
            if groups.len() >= MANY && self.may(of("*")).is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|group| self.may(of(group)))
    }

    fn permit_extra(&self, wanted: &User) -> Result<(), Status> {
        let of = |key, name| Identity { group: AUTHENTICATION, resource: "userextras", key, name, namespace: "" };
        if self.mode.is_some() {
            if let Some(why) = wanted.extra.iter().find_map(|(key, values)| bad_extra(key, values)) {
                return Err(self.refuse(of("", ""), &why));
            }
            if wanted.extra.values().map(Vec::len).sum::<usize>() >= MANY && self.may(of("*", "*")).is_ok() {
                return Ok(());
            }
        }
        let mut all = wanted.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        all.try_for_each(|(key, value)| self.may(of(key, value)))
    }

    /// The API group of users and groups.
    fn group(&self) -> &'static str {
        if self.mode.is_some() { AUTHENTICATION } else { "" }
    }

    fn attributes<'i>(&'i self, identity: Identity<'i>) -> Attributes<'i> {
        Attributes {
            is_resource: true,
            verb: self.verb,
            group: identity.group,
            resource: identity.resource,
            subresource: identity.key,
            namespace: identity.namespace,
            name: identity.name,
            ..Attributes::default()
        }
    }

    fn may(&self, identity: Identity<'_>) -> Result<(), Status> {
        check(self.authorizer, self.requester, &self.attributes(identity))
    }

    fn refuse(&self, identity: Identity<'_>, why: &str) -> Status {
        forbidden(self.requester, &self.attributes(identity), why)
    }
}

/// Namespace and name of the service account that a user name stands for.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    (names::label(namespace).is_empty() && names::subdomain(name).is_empty()).then_some((namespace, name))
}

/// The node that a user name stands for.
fn node(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_PREFIX).filter(|name| names::subdomain(name).is_empty())
}

fn only_named(wanted: &User) -> bool {
    wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty()
}

/// Whether the requester is the service account of a Pod on the node that `wanted` names.
fn is_node_of(requester: &User, wanted: &str) -> bool {
    let on = requester.extra.get(NODE_NAME).map(Vec::as_slice);
    account(&requester.name).is_some() && node(wanted).is_some_and(|node| on == Some(&[node.to_owned()]))
}

/// Why a key with its values may not be impersonated.
fn bad_extra(key: &str, values: &[String]) -> Option<String> {
    let refused = |what: &str| Some(format!("impersonating {what} is not allowed"));
    if key.is_empty() {
        return refused("the empty string key in extra");
    }
    let prefixed =
        key.split_once('/').is_some_and(|(host, path)| names::subdomain(host).is_empty() && !path.is_empty());
    if !prefixed {
        let invalid = "impersonating an invalid key in extra is not allowed: extra.key: Invalid value";
        return Some(format!("{invalid}: {key:?}: must be a domain-prefixed path (such as \"acme.io/foo\")"));
    }
    if values.is_empty() {
        return refused("empty values in extra");
    }
    if values.iter().any(String::is_empty) { refused("the empty string value in extra") } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::layers::authorize::{Decision, Rules};

    /// Permits what is listed, as `VERB GROUP/RESOURCE[/KEY] NAMESPACE/NAME`.
    struct Only(&'static [&'static str]);

    impl Authorizer for Only {
        fn authorize(&self, _user: &User, asked: &Attributes<'_>) -> Decision {
            let sub = if asked.subresource.is_empty() { String::new() } else { format!("/{}", asked.subresource) };
            let Attributes { verb, group, resource, namespace, name, .. } = asked;
            let text = format!("{verb} {group}/{resource}{sub} {namespace}/{name}");
            match self.0.contains(&text.as_str()) {
                true => Decision::Allow { reason: String::new() },
                false => Decision::none(),
            }
        }

        fn rules(&self, _user: &User, _namespace: &str) -> Rules {
            Rules::default()
        }
    }

    fn act(permitted: &'static [&'static str], requester: &User, wanted: &User) -> Result<User, String> {
        let list =
            Attributes { is_resource: true, verb: "list", resource: "pods", namespace: "a", ..Attributes::default() };
        impersonate(&Only(permitted), requester, wanted, &list).map_err(|status| status.message)
    }

    fn named(name: &str, groups: &[&str]) -> User {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        User { name: name.to_owned(), groups, ..User::default() }
    }

    #[test]
    fn the_legacy_way_permits_each_identity() {
        let me = User::new("me", ["x"]);
        let permitted = &["impersonate /users /jane", "impersonate /groups /dev", "impersonate /serviceaccounts b/c"];
        assert_eq!(act(permitted, &me, &named("jane", &["dev"])).unwrap().groups, ["dev", AUTHENTICATED]);
        let robot = act(permitted, &me, &named("system:serviceaccount:b:c", &[])).unwrap();
        assert_eq!(robot.groups, ["system:serviceaccounts", "system:serviceaccounts:b", AUTHENTICATED]);
        assert_eq!(act(permitted, &me, &named("system:serviceaccount:b:c", &["dev"])).unwrap().groups[0], "dev");
        // Nobody is told more of the legacy way than of the one that came first.
        assert_eq!(
            act(permitted, &me, &named("jane", &["ops"])).unwrap_err(),
            "pods is forbidden: User \"me\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" in the namespace \"a\""
        );
    }

    #[test]
    fn a_constrained_way_permits_the_deed_too() {
        let me = User::new("me", ["x"]);
        let whole =
            &["impersonate-on:user-info:list /pods a/", "impersonate:user-info authentication.k8s.io/users /jane"];
        assert_eq!(act(whole, &me, &named("jane", &[])).unwrap().name, "jane");
        assert!(act(&whole[1..], &me, &named("jane", &[])).is_err());
        let refused = act(whole, &me, &named("jane", &[MASTERS])).unwrap_err();
        assert!(refused.ends_with("impersonating the system:masters group is not allowed"), "{refused}");
        let many: Vec<String> = (0..4).map(|n| format!("g{n}")).collect();
        let many = User { groups: many, ..named("jane", &[]) };
        let all = &[
            "impersonate-on:user-info:list /pods a/",
            "impersonate:user-info authentication.k8s.io/users /jane",
            "impersonate:user-info authentication.k8s.io/groups /*",
        ];
        assert_eq!(act(all, &me, &many).unwrap().groups.len(), 5);
    }

    #[test]
    fn a_pods_account_acts_as_its_node() {
        let node = named("system:node:n", &[]);
        let permitted = &[
            "impersonate-on:associated-node:list /pods a/",
            "impersonate:associated-node authentication.k8s.io/nodes /*",
        ];
        let agent = |on: &str| User::new("system:serviceaccount:b:c", ["x"]).with_extra(NODE_NAME, on);
        assert_eq!(act(permitted, &agent("n"), &node).unwrap().groups, [NODES, AUTHENTICATED]);
        assert!(act(permitted, &agent("m"), &node).is_err());
        assert!(act(permitted, &User::new("me", ["x"]).with_extra(NODE_NAME, "n"), &node).is_err());
    }

    #[test]
    fn keys_of_extra_values_have_a_domain() {
        let values = ["v".to_owned()];
        for (key, values, good) in [
            ("acme.io/foo", &values[..], true),
            ("scopes", &values[..], false),
            ("acme.io/", &values[..], false),
            ("", &values[..], false),
            ("acme.io/foo", &[][..], false),
            ("acme.io/foo", &[String::new()][..], false),
        ] {
            assert_eq!(bad_extra(key, values).is_none(), good, "{key}");
        }
    }
}
