//! The paths of a document: every endpoint of its resources.

use serde_json::{Map, Value, json};

use super::{component_name, group_version_kind, parameters, reference, schemas};
use crate::resource::{Resource, Subresource, Verb, Version};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const MEDIA_TYPES: &[&str] = &["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
/// What a list may be that may also be watched.
const LIST_TYPES: &[&str] = &[
    "application/json",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/yaml",
];
const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// All paths of one version.
pub(super) fn paths(group: &str, version: &Version) -> Map<String, Value> {
    let root = if group.is_empty() {
        format!("/api/{}", version.version)
    } else {
        format!("/apis/{group}/{}", version.version)
    };
    let names = Names::new(group, &version.version);
    let mut paths = Map::new();
    // Metrics of other groups' objects, one path each, are known by those who ask for them.
    for resource in version.resources.iter().filter(|resource| !resource.verbs.is_empty()) {
        let endpoint = Endpoint { names: &names, resource };
        let plural = &resource.plural;
        let collection = match (resource.namespaced, plural.as_str()) {
            (true, _) => format!("{root}/namespaces/{{namespace}}/{plural}"),
            (false, _) => format!("{root}/{plural}"),
        };
        let item = format!("{collection}/{{name}}");
        if resource.namespaced && resource.allows(Verb::List) {
            paths.insert(format!("{root}/{plural}"), endpoint.everywhere());
        }
        for sub in &resource.subresources {
            paths.insert(format!("{item}/{}", sub.name), endpoint.subresource(sub));
        }
        let path = endpoint.collection();
        if path.len() > 1 {
            paths.insert(collection, Value::Object(path));
        }
        let path = endpoint.item();
        if path.len() > 1 {
            paths.insert(item, Value::Object(path));
        }
    }
    paths
}

/// The parts of names that are the same for a version.
struct Names {
    /// `core_v1`.
    tag: String,
    /// `CoreV1`.
    id: String,
}

impl Names {
    fn new(group: &str, version: &str) -> Self {
        let group = if group.is_empty() { "core" } else { group.trim_end_matches(".k8s.io") };
        let words = group.split('.').chain([version]);
        let id = words.map(capitalized).collect();
        Self { tag: format!("{}_{version}", group.replace('.', "_")), id }
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

struct Endpoint<'a> {
    names: &'a Names,
    resource: &'a Resource,
}

/// What an operation does, for its names.
struct Operation<'a> {
    verb: &'a str,
    /// `get`, `list`, `post`, `put`, `patch`, `delete`, `deletecollection`, `connect`.
    action: &'a str,
    what: &'a str,
    suffix: &'a str,
}

impl Endpoint<'_> {
    fn component(&self) -> String {
        component_name(self.resource.schema.facts(), self.resource.schema.root())
    }

    fn operation(
        &self,
        operation: &Operation<'_>,
        kind: (&str, &str, &str),
        query: Vec<Value>,
        body: Option<Value>,
        codes: &[u16],
        answer: &str,
    ) -> Value {
        let Operation { verb, action, what, suffix } = operation;
        let scope = if self.resource.namespaced { "Namespaced" } else { "" };
        let (verb, collection) = verb.split_once(' ').unwrap_or((verb, ""));
        let mut value = json!({
            "operationId": format!("{verb}{}{collection}{scope}{}{suffix}", self.names.id, self.resource.kind),
            "description": what,
            "tags": [self.names.tag],
            "responses": responses(codes, answer, if *action == "list" { self.list_types() } else { MEDIA_TYPES }),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": group_version_kind(kind.0, kind.1, kind.2),
        });
        if !query.is_empty() {
            value["parameters"] = query.into();
        }
        if let Some(body) = body {
            value["requestBody"] = body;
        }
        value
    }

    fn list_types(&self) -> &'static [&'static str] {
        if self.resource.allows(Verb::Watch) { LIST_TYPES } else { MEDIA_TYPES }
    }

    fn own_kind(&self) -> (&str, &str, &str) {
        (&self.resource.group, &self.resource.version, &self.resource.kind)
    }

    fn collection(&self) -> Map<String, Value> {
        let kind = &self.resource.kind;
        let mut path = Map::new();
        if self.resource.allows(Verb::List) {
            let what = format!("List or watch objects of kind {kind}.");
            let operation = Operation { verb: "list", action: "list", what: &what, suffix: "" };
            let answer = schemas::list_component(self.resource);
            let query = parameters::query(parameters::LIST);
            path.insert("get".into(), self.operation(&operation, self.own_kind(), query, None, &[200], &answer));
        }
        if self.resource.allows(Verb::Create) {
            let what = format!("Create a {kind}.");
            let operation = Operation { verb: "create", action: "post", what: &what, suffix: "" };
            let query = parameters::query(parameters::WRITE);
            let body = Some(body(&["*/*"], &self.component(), true));
            path.insert(
                "post".into(),
                self.operation(&operation, self.own_kind(), query, body, &[200, 201, 202], &self.component()),
            );
        }
        if self.resource.allows(Verb::DeleteCollection) {
            let what = format!("Delete a collection of {kind}.");
            let operation =
                Operation { verb: "delete Collection", action: "deletecollection", what: &what, suffix: "" };
            let mut query = parameters::query(parameters::DELETE);
            query.extend(parameters::query(&parameters::LIST[1..9]));
            let body = Some(body(&["*/*"], &format!("{META}.DeleteOptions"), false));
            let answer = format!("{META}.Status");
            path.insert("delete".into(), self.operation(&operation, self.own_kind(), query, body, &[200], &answer));
        }
        path.insert("parameters".into(), parameters::of_path(kind, false, self.resource.namespaced).into());
        path
    }

    /// The list over all namespaces.
    fn everywhere(&self) -> Value {
        let kind = &self.resource.kind;
        let id = format!("list{}{kind}ForAllNamespaces", self.names.id);
        let mut path_parameters = parameters::of_path(kind, false, false);
        path_parameters.extend(parameters::query(parameters::LIST));
        json!({
            "get": {
                "operationId": id,
                "description": format!("List or watch objects of kind {kind} in all namespaces."),
                "tags": [self.names.tag],
                "responses": responses(&[200], &schemas::list_component(self.resource), self.list_types()),
                "x-kubernetes-action": "list",
                "x-kubernetes-group-version-kind": group_version_kind(&self.resource.group, &self.resource.version, kind),
            },
            "parameters": path_parameters,
        })
    }

    fn item(&self) -> Map<String, Value> {
        let kind = &self.resource.kind;
        let component = self.component();
        let mut path = self.object_verbs(&self.resource.verbs, self.own_kind(), &component, "");
        if self.resource.allows(Verb::Delete) {
            let what = format!("Delete a {kind}.");
            let operation = Operation { verb: "delete", action: "delete", what: &what, suffix: "" };
            let query = parameters::query(parameters::DELETE);
            let body = Some(body(&["*/*"], &format!("{META}.DeleteOptions"), false));
            // Pods and the like are answered as they are while they go.
            path.insert(
                "delete".into(),
                self.operation(&operation, self.own_kind(), query, body, &[200, 202], &format!("{META}.Status")),
            );
        }
        path.insert("parameters".into(), parameters::of_path(kind, true, self.resource.namespaced).into());
        path
    }

    /// Read, replace and patch of an object or of a part of it.
    fn object_verbs(
        &self,
        verbs: &[Verb],
        kind: (&str, &str, &str),
        component: &str,
        suffix: &str,
    ) -> Map<String, Value> {
        let of = if suffix.is_empty() { String::new() } else { format!("{} of ", suffix.to_lowercase()) };
        let name = &self.resource.kind;
        let mut path = Map::new();
        if verbs.contains(&Verb::Get) {
            let what = format!("Read {of}a {name}.");
            let operation = Operation { verb: "read", action: "get", what: &what, suffix };
            path.insert("get".into(), self.operation(&operation, kind, Vec::new(), None, &[200], component));
        }
        if verbs.contains(&Verb::Update) {
            let what = format!("Replace {of}a {name}.");
            let operation = Operation { verb: "replace", action: "put", what: &what, suffix };
            let query = parameters::query(parameters::WRITE);
            let body = Some(body(&["*/*"], component, true));
            path.insert("put".into(), self.operation(&operation, kind, query, body, &[200, 201], component));
        }
        if verbs.contains(&Verb::Patch) {
            let what = format!("Change {of}a {name} in part.");
            let operation = Operation { verb: "patch", action: "patch", what: &what, suffix };
            let query = parameters::query(parameters::PATCH);
            let body = Some(body(PATCH_TYPES, &format!("{META}.Patch"), true));
            path.insert("patch".into(), self.operation(&operation, kind, query, body, &[200, 201], component));
        }
        path
    }

    fn subresource(&self, sub: &Subresource) -> Value {
        let suffix = capitalized(&sub.name);
        let kind = (sub.group.as_str(), sub.version.as_str(), sub.kind.as_str());
        let mut path = match &sub.schema {
            Some(schema) => {
                let component = component_name(schema.facts(), schema.root());
                let mut path = self.object_verbs(&sub.verbs, kind, &component, &suffix);
                if sub.verbs.contains(&Verb::Create) {
                    let what = format!("Create {} of a {}.", sub.name, self.resource.kind);
                    let operation = Operation { verb: "create", action: "post", what: &what, suffix: &suffix };
                    let query = parameters::query(parameters::WRITE);
                    let body = Some(body(&["*/*"], &component, true));
                    path.insert(
                        "post".into(),
                        self.operation(&operation, kind, query, body, &[200, 201, 202], &component),
                    );
                }
                path
            }
            None => self.connect(sub, &suffix),
        };
        path.insert(
            "parameters".into(),
            parameters::of_path(&self.resource.kind, true, self.resource.namespaced).into(),
        );
        Value::Object(path)
    }

    /// Subresources without bodies: logs and streams.
    fn connect(&self, sub: &Subresource, suffix: &str) -> Map<String, Value> {
        let query = || match sub.name.as_str() {
            "log" => parameters::query(parameters::LOG),
            "exec" => parameters::query(parameters::STREAM),
            "attach" => parameters::query(&parameters::STREAM[1..]),
            "portforward" => parameters::query(parameters::PORTS),
            _ => parameters::query(parameters::PROXY),
        };
        let kind = (sub.group.as_str(), sub.version.as_str(), sub.kind.as_str());
        let what = format!("Connect to {} of a {}.", sub.name, self.resource.kind);
        let log = sub.name == "log";
        let mut path = Map::new();
        for verb in &sub.verbs {
            let (method, id) = match verb {
                Verb::Get if log => ("get", "read "),
                Verb::Get => ("get", "connect Get"),
                Verb::Create => ("post", "connect Post"),
                Verb::Update => ("put", "connect Put"),
                Verb::Patch => ("patch", "connect Patch"),
                Verb::Delete => ("delete", "connect Delete"),
                Verb::DeleteCollection | Verb::List | Verb::Watch => continue,
            };
            let action = if log { "get" } else { "connect" };
            let operation = Operation { verb: id, action, what: &what, suffix };
            path.insert(method.into(), self.operation(&operation, kind, query(), None, &[200], ""));
        }
        path
    }
}

fn body(media_types: &[&str], component: &str, required: bool) -> Value {
    let mut body = json!({"content": content(media_types, reference(component))});
    if required {
        body["required"] = true.into();
    }
    body
}

fn content(media_types: &[&str], schema: Value) -> Value {
    media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({"schema": schema}))).collect()
}

/// An empty `answer` stands for text.
fn responses(codes: &[u16], answer: &str, media_types: &[&str]) -> Value {
    let content = match answer {
        "" => content(&["*/*"], json!({"type": "string"})),
        answer => content(media_types, reference(answer)),
    };
    let mut responses = Map::new();
    for code in codes {
        let description = match code {
            201 => "Created",
            202 => "Accepted",
            _ => "OK",
        };
        responses.insert(code.to_string(), json!({"description": description, "content": content}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    Value::Object(responses)
}
