//! The table of resources: everything generic that is known about what the server serves.
//!
//! Verbs, watch, patch, tables, discovery and OpenAPI all work from a [`Resource`] row. Rows own their strings: a custom
//! resource is a row made at run time.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::facts::Schema;
use crate::meta;
use crate::selector::{Attributes, FieldSelector};
use crate::status::{GroupResource, Status};
use crate::strategy::{self, Strategy};

mod builtin;

/// What can be done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "Kubernetes' own terms, one for one")]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// As in discovery and RBAC.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// Something below an object that has verbs of its own.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// `status`, `scale`, `log`, ...
    pub name: String,
    /// The group of the kind that it speaks.
    pub group: String,
    /// The version of that kind.
    pub version: String,
    /// That kind.
    pub kind: String,
    /// What can be done with it.
    pub verbs: Vec<Verb>,
    /// The type of its bodies; none if it has no bodies (log, exec, ...).
    pub schema: Option<Schema>,
}

/// How objects are brought from one version to another, in place.
pub type Convert = fn(&mut Value);

/// Under which resource and version objects are stored.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The key's first part: `pods`, `deployments.apps`. The same for all versions and groups that show one object.
    pub resource: Arc<str>,
    /// The group stored.
    pub group: String,
    /// The version stored.
    pub version: String,
    /// From this row's version to the stored one; none if they are the same.
    pub to_storage: Option<Convert>,
    /// From the stored version to this row's.
    pub from_storage: Option<Convert>,
}

/// One resource in one version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// The group; empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind of one object.
    pub kind: String,
    /// The kind of a list.
    pub list_kind: String,
    /// The plural name, as in paths.
    pub plural: String,
    /// The singular name.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// `po`, `deploy`, ...
    pub short_names: Vec<String>,
    /// `all`, ...
    pub categories: Vec<String>,
    /// What can be done with it.
    pub verbs: Vec<Verb>,
    /// What is below its objects.
    pub subresources: Vec<Subresource>,
    /// Whether an acknowledged write survives a power cut (false for events and leases).
    pub durable: bool,
    /// What objects must look like.
    pub schema: Schema,
    /// What is special to the kind.
    pub strategy: &'static Strategy,
    /// How objects are stored.
    pub storage: Storage,
}

impl Resource {
    /// The group and plural name, as in messages.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.plural)
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        meta::join_api_version(&self.group, &self.version)
    }

    /// Whether `verb` can be done.
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Brings an object of this version into the stored form.
    pub fn to_storage(&self, object: &mut Value) {
        if let Some(convert) = self.storage.to_storage {
            convert(object);
        }
    }

    /// Brings a stored object into this version.
    pub fn from_storage(&self, object: &mut Value) {
        if let Some(convert) = self.storage.from_storage {
            convert(object);
        }
    }

    /// What a (stored) object can be selected by.
    pub fn attributes(&self, object: &Value) -> Attributes {
        Attributes { labels: meta::labels(object), fields: self.strategy.selectable(object) }
    }

    /// Refuses a field selector that names a field which this kind cannot be selected by.
    pub fn check_fields(&self, selector: &FieldSelector) -> Result<(), Status> {
        for requirement in selector.requirements() {
            let name = &requirement.field;
            if self.strategy.is_selectable(name) {
                continue;
            }
            return Err(Status::bad_request(if self.strategy.fields.is_empty() {
                format!("\"{name}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            } else {
                format!("field label not supported: {name}")
            }));
        }
        Ok(())
    }

    /// The hash by which clients see that two versions share storage.
    pub fn storage_version_hash(&self) -> String {
        let name = format!("{}/{}/{}", self.storage.group, self.storage.version, self.kind);
        base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(name)[..8])
    }
}

/// One version of a group.
#[derive(Debug, Clone, Default)]
pub struct Version {
    /// `v1`.
    pub version: String,
    /// Its resources, sorted by plural name.
    pub resources: Vec<Arc<Resource>>,
    /// Its OpenAPI document, once it was asked for.
    pub(crate) openapi: OnceLock<Bytes>,
}

/// A group and its versions, the preferred one first.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Empty for core.
    pub name: String,
    /// The preferred one first.
    pub versions: Vec<Version>,
}

/// All resources that are served. Cheap to clone; a change makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    groups: Vec<Group>,
    /// The OpenAPI v2 document, once it was asked for.
    pub(crate) openapi_v2: OnceLock<Bytes>,
    pub(crate) openapi_v2_protobuf: OnceLock<Bytes>,
}

impl Registry {
    /// Kubernetes' own resources.
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        for resource in builtin::resources() {
            registry.insert(resource);
        }
        registry
    }

    /// Adds a resource, or replaces the one at its path. Groups and versions keep the order in which they came.
    pub fn insert(&mut self, resource: Resource) {
        let group = place(
            &mut self.groups,
            |g| g.name == resource.group,
            || Group { name: resource.group.clone(), versions: Vec::new() },
        );
        let version = place(
            &mut group.versions,
            |v| v.version == resource.version,
            || Version { version: resource.version.clone(), ..Version::default() },
        );
        version.openapi = OnceLock::new();
        self.openapi_v2 = OnceLock::new();
        self.openapi_v2_protobuf = OnceLock::new();
        match version.resources.binary_search_by(|r| r.plural.cmp(&resource.plural)) {
            Ok(at) => version.resources[at] = Arc::new(resource),
            Err(at) => version.resources.insert(at, Arc::new(resource)),
        }
    }

    /// The resource at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.version(group, version)?.resources.iter().find(|r| r.plural == plural).cloned()
    }

    /// The resource of a kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.version(group, version)?.resources.iter().find(|r| r.kind == kind).cloned()
    }

    /// The groups in order; core comes first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }

    /// One version of a group.
    pub fn version(&self, group: &str, version: &str) -> Option<&Version> {
        self.group(group)?.versions.iter().find(|v| v.version == version)
    }

    /// All resources in all versions.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.groups.iter().flat_map(|g| &g.versions).flat_map(|v| &v.resources)
    }

    /// The row whose version is the stored one, by the storage key (`pods`, `deployments.apps`).
    pub fn stored(&self, storage_resource: &str) -> Option<&Arc<Resource>> {
        self.resources().find(|r| *r.storage.resource == *storage_resource && r.storage.to_storage.is_none())
    }
}

/// The item that is meant, made at the end if it is not there.
fn place<T>(items: &mut Vec<T>, is: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let at = items.iter().position(is).unwrap_or_else(|| {
        items.push(make());
        items.len() - 1
    });
    &mut items[at]
}

/// Builds rows.
impl Resource {
    /// A row with all verbs and no subresources.
    pub fn new(schema: Schema, plural: &str, namespaced: bool) -> Self {
        let (group, version) = meta::split_api_version(schema.api_version());
        let (group, version, kind) = (group.to_owned(), version.to_owned(), schema.kind().to_owned());
        Self {
            list_kind: format!("{kind}List"),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            namespaced,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: builtin::ALL.to_vec(),
            subresources: Vec::new(),
            durable: true,
            strategy: strategy::strategy(&group, &kind),
            storage: Storage {
                resource: GroupResource::new(&group, plural).to_string().into(),
                group: group.clone(),
                version: version.clone(),
                to_storage: None,
                from_storage: None,
            },
            schema,
            group,
            version,
            kind,
        }
    }
}

#[cfg(test)]
mod tests;
