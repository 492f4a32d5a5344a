//! Who asks: the outcome of authentication, carried as a request extension.

use std::collections::BTreeMap;

/// The group of every request that proved an identity.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of requests that proved none.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of requests that proved no identity.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub(crate) const MASTERS: &str = "system:masters";

/// The key of [`User::extra`] that tells which credential was shown.
pub(crate) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// An authenticated identity.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct User {
    /// The user name, such as `system:kube-scheduler`.
    pub name: String,
    /// A unique identity of the user, empty where the source of the identity has none.
    pub uid: String,
    /// The groups, without duplicates.
    pub groups: Vec<String>,
    /// What else the source of the identity tells: values by lower-case key.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user with the given groups; `system:authenticated` is added.
    pub fn new<G: Into<String>>(name: impl Into<String>, groups: impl IntoIterator<Item = G>) -> Self {
        let mut user =
            Self { name: name.into(), groups: groups.into_iter().map(Into::into).collect(), ..Self::default() };
        if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        user
    }

    /// The same user, of whom one thing more is known.
    pub(crate) fn with_extra(mut self, key: &str, value: &str) -> Self {
        self.extra.insert(key.to_owned(), vec![value.to_owned()]);
        self
    }

    /// The administrator of a new cluster.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", [MASTERS])
    }

    /// The identity of a node's agent.
    pub fn node(name: &str) -> Self {
        Self::new(format!("system:node:{name}"), ["system:nodes"])
    }

    /// A control plane component, such as `kube-scheduler`.
    pub fn component(name: &str) -> Self {
        Self::new(format!("system:{name}"), Vec::<String>::new())
    }

    /// A Pod's or controller's identity: the service account `name` of `namespace`.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self::new(format!("system:serviceaccount:{namespace}:{name}"), groups)
    }

    /// A controller, as the service account of its name that its default role is bound to.
    pub fn controller(name: &str) -> Self {
        Self::service_account("kube-system", name)
    }

    /// A request without an identity.
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, [UNAUTHENTICATED])
    }

    /// Whether the user belongs to `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
