//! The parameters of requests.

use serde_json::{Value, json};

/// Name, type, what it does.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = ("dryRun", "string", "All: do everything but store the result.");
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "The name of the actor that makes the change, at most 128 printable characters.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: Strict refuses the request, Warn (the default) drops them and warns, Ignore drops them.",
);
const FORCE: Parameter = ("force", "boolean", "Take over fields that other managers own. Only for apply patches.");

/// Parameters of create and replace.
pub(super) const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];

/// Parameters of patch.
pub(super) const PATCH: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];

/// Parameters of delete.
pub(super) const DELETE: &[Parameter] = &[
    DRY_RUN,
    (
        "gracePeriodSeconds",
        "integer",
        "How long the object may take to go; 0 removes it at once. The default depends on the kind.",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Remove the object even if it cannot be read. What depends on it is not looked after.",
    ),
    ("orphanDependents", "boolean", "Deprecated in favour of propagationPolicy: keep the dependents."),
    (
        "propagationPolicy",
        "string",
        "What becomes of the dependents: Orphan keeps them, Background removes them afterwards, Foreground removes them first.",
    ),
];

/// Parameters of list and watch.
pub(super) const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Let a watch tell how far it has come by events of type BOOKMARK."),
    ("continue", "string", "Where to go on: the value that the last page of the list gave."),
    ("fieldSelector", "string", "Only objects with these values of fields."),
    ("labelSelector", "string", "Only objects with these labels."),
    ("limit", "integer", "The greatest number of objects in one page."),
    ("resourceVersion", "string", "How new the answer must be, or where a watch begins."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant in a list: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Let a watch begin with all objects as they are, ended by a bookmark."),
    ("timeoutSeconds", "integer", "When to end the request."),
    ("watch", "boolean", "Tell changes as they happen instead of listing."),
];

/// Parameters of reading a log.
pub(super) const LOG: &[Parameter] = &[
    ("container", "string", "The container; needed if the Pod has several."),
    ("follow", "boolean", "Go on with what is logged later."),
    ("insecureSkipTLSVerifyBackend", "boolean", "Do not check the certificate of the node."),
    ("limitBytes", "integer", "The greatest number of bytes."),
    ("previous", "boolean", "The log of the container's previous run."),
    ("sinceSeconds", "integer", "Only what is younger than this."),
    ("stream", "string", "All, Stdout or Stderr."),
    ("tailLines", "integer", "Only the last lines."),
    ("timestamps", "boolean", "Begin each line with its time."),
];

/// Parameters of exec and attach.
pub(super) const STREAM: &[Parameter] = &[
    ("command", "string", "The command and its arguments; given once for each."),
    ("container", "string", "The container; needed if the Pod has several."),
    ("stderr", "boolean", "Send what the process writes to standard error."),
    ("stdin", "boolean", "Pass standard input to the process."),
    ("stdout", "boolean", "Send what the process writes to standard output."),
    ("tty", "boolean", "Give the process a terminal."),
];

/// Parameters of port-forward.
pub(super) const PORTS: &[Parameter] = &[("ports", "integer", "The ports to forward.")];

/// Parameters of proxy.
pub(super) const PROXY: &[Parameter] = &[("path", "string", "The path to ask for.")];

/// Query parameters in OpenAPI's form.
pub(super) fn query(parameters: &[Parameter]) -> Vec<Value> {
    parameters
        .iter()
        .map(|(name, ty, description)| {
            json!({"name": name, "in": "query", "description": description, "schema": {"type": ty, "uniqueItems": true}})
        })
        .collect()
}

/// What is the same for all operations of a path.
pub(super) fn of_path(kind: &str, named: bool, namespaced: bool) -> Vec<Value> {
    let at = |name: &str, description: String| json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string", "uniqueItems": true}});
    let mut parameters = Vec::new();
    if named {
        parameters.push(at("name", format!("The name of the {kind}.")));
    }
    if namespaced {
        parameters.push(at("namespace", "The namespace.".to_owned()));
    }
    parameters.extend(query(&[("pretty", "string", "Whether to indent the answer.")]));
    parameters
}
