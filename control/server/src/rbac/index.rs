//! Roles by name, and bindings by whom they are for.
//!
//! ```text
//! user's name ──▶ grants (binding, subject) ──▶ role's name ──▶ rules
//! user's groups ─▶    of the cluster, of the namespace
//! ```
//! A role is looked up when it is asked for: it may come and go while its bindings stay.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use wherry_store::{Entry, Key};

use super::rules;
use crate::User;
use crate::follow::View;
use crate::layers::authorize::Rule;
use crate::objects;

pub(crate) const ROLES: &str = "roles.rbac.authorization.k8s.io";
pub(crate) const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
pub(crate) const BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
pub(crate) const CLUSTER_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

/// Roles and bindings, as they are stored.
#[derive(Default)]
pub(crate) struct Index {
    /// By namespace (empty for ClusterRoles) and name.
    roles: HashMap<Arc<str>, Roles>,
    /// By namespace, empty for ClusterRoleBindings.
    bindings: HashMap<Arc<str>, Bindings>,
}

/// The rules of a namespace's roles, or of the ClusterRoles, by name.
type Roles = HashMap<Arc<str>, Arc<[Rule]>>;

/// The bindings of a namespace, or of the cluster.
#[derive(Default)]
struct Bindings {
    named: HashMap<Arc<str>, Arc<Binding>>,
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug)]
pub(crate) struct Binding {
    namespace: Arc<str>,
    name: Arc<str>,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// What a binding is for: one of its subjects.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) binding: Arc<Binding>,
    subject: usize,
}

/// Which role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoleRef {
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl RoleRef {
    pub(crate) fn of(binding: &Value) -> Self {
        let text = |key: &str| binding["roleRef"][key].as_str().unwrap_or_default().to_owned();
        Self { kind: text("kind"), name: text("name") }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubjectKind {
    User,
    Group,
    ServiceAccount,
}

/// Somebody, by the name that authentication gives.
#[derive(Debug)]
struct Subject {
    kind: SubjectKind,
    /// As in `User::name` or `User::groups`.
    key: String,
    /// As messages show it.
    shown: String,
}

impl Subject {
    /// `None` for a subject that nobody can be.
    fn read(subject: &Value, namespace: &str) -> Option<Self> {
        let text = |key: &str| subject[key].as_str().unwrap_or_default();
        let name = text("name");
        let plain = |kind, label: &str| Some(Self { kind, key: name.to_owned(), shown: format!("{label} {name:?}") });
        match text("kind") {
            "User" => plain(SubjectKind::User, "User"),
            "Group" => plain(SubjectKind::Group, "Group"),
            "ServiceAccount" => {
                // An account without a namespace is one of the binding's.
                let own = if text("namespace").is_empty() { namespace } else { text("namespace") };
                (!own.is_empty()).then(|| Self {
                    kind: SubjectKind::ServiceAccount,
                    key: format!("system:serviceaccount:{own}:{name}"),
                    shown: format!("ServiceAccount {:?}", format!("{name}/{own}")),
                })
            }
            _ => None,
        }
    }
}

impl Binding {
    /// Namespace and name; bindings of the cluster come first.
    pub(crate) fn place(&self) -> (Arc<str>, Arc<str>) {
        (self.namespace.clone(), self.name.clone())
    }

    fn read(key: &Key, binding: &Value) -> Self {
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            role: RoleRef::of(binding),
            subjects: subjects.filter_map(|s| Subject::read(s, &key.namespace)).collect(),
        }
    }
}

impl Bindings {
    fn put(&mut self, binding: Binding) {
        self.remove(&binding.name.clone());
        let binding = Arc::new(binding);
        for (subject, found) in binding.subjects.iter().enumerate() {
            let grant = Grant { binding: Arc::clone(&binding), subject };
            self.grants_of(found.kind).entry(found.key.clone()).or_default().push(grant);
        }
        self.named.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(binding) = self.named.remove(name) else {
            return;
        };
        for subject in &binding.subjects {
            let grants = self.grants_of(subject.kind);
            if let Some(list) = grants.get_mut(&subject.key) {
                list.retain(|grant| !Arc::ptr_eq(&grant.binding, &binding));
                if list.is_empty() {
                    grants.remove(&subject.key);
                }
            }
        }
    }

    fn grants_of(&mut self, kind: SubjectKind) -> &mut HashMap<String, Vec<Grant>> {
        match kind {
            SubjectKind::Group => &mut self.groups,
            SubjectKind::User | SubjectKind::ServiceAccount => &mut self.users,
        }
    }

    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&user.name).into_iter().chain(groups).flatten()
    }
}

impl Grant {
    /// What is granted by what to whom, in upstream's words.
    pub(crate) fn describe(&self) -> String {
        let Binding { namespace, name, role, subjects } = self.binding.as_ref();
        let (kind, shown) = match namespace.as_ref() {
            "" => ("ClusterRoleBinding", name.to_string()),
            namespace => ("RoleBinding", format!("{name}/{namespace}")),
        };
        let subject = &subjects[self.subject].shown;
        format!("{kind} {shown:?} of {} {:?} to {subject}", role.kind, role.name)
    }
}

impl Index {
    /// What is granted to `user` in the cluster and in `namespace`, which may be empty.
    pub(crate) fn grants<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let local = if namespace.is_empty() { None } else { self.bindings.get(namespace) };
        self.bindings.get("").into_iter().chain(local).flat_map(|bindings| bindings.of(user))
    }

    /// The rules of the role that a binding grants; the complaint says that there is no such role.
    pub(crate) fn rules_of(&self, grant: &Grant) -> Result<&Arc<[Rule]>, String> {
        self.role(&grant.binding.role, &grant.binding.namespace)
    }

    /// The rules of a role that a binding in `namespace` refers to.
    pub(crate) fn role(&self, role: &RoleRef, namespace: &str) -> Result<&Arc<[Rule]>, String> {
        let (place, resource) = match role.kind.as_str() {
            "ClusterRole" => ("", "clusterrole"),
            "Role" if !namespace.is_empty() => (namespace, "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let found = self.roles.get(place).and_then(|roles| roles.get(role.name.as_str()));
        found.ok_or_else(|| format!("{resource}.rbac.authorization.k8s.io {:?} not found", role.name))
    }
}

impl View for Index {
    const RESOURCES: &'static [&'static str] = &[ROLES, CLUSTER_ROLES, BINDINGS, CLUSTER_BINDINGS];

    fn put(&mut self, entry: &Entry) {
        let key = &entry.key;
        let object = match objects::stored_tree(entry) {
            Ok(object) => object,
            Err(error) => {
                tracing::error!(%key, %error, "cannot be read");
                return self.remove(key);
            }
        };
        match key.resource.as_ref() {
            ROLES | CLUSTER_ROLES => {
                let roles = self.roles.entry(key.namespace.clone()).or_default();
                roles.insert(key.name.clone(), rules::of_role(&object).into());
            }
            _ => self.bindings.entry(key.namespace.clone()).or_default().put(Binding::read(key, &object)),
        }
    }

    fn remove(&mut self, key: &Key) {
        match key.resource.as_ref() {
            ROLES | CLUSTER_ROLES => {
                if let Some(roles) = self.roles.get_mut(&key.namespace) {
                    roles.remove(&key.name);
                    if roles.is_empty() {
                        self.roles.remove(&key.namespace);
                    }
                }
            }
            _ => {
                if let Some(bindings) = self.bindings.get_mut(&key.namespace) {
                    bindings.remove(&key.name);
                    if bindings.named.is_empty() {
                        self.bindings.remove(&key.namespace);
                    }
                }
            }
        }
    }
}
