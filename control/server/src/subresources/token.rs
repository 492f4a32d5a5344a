//! POST serviceaccounts/token: a token for the account (upstream's `TokenREST`).
//!
//! ```text
//! TokenRequest -> defaults -> validate -> admit -> what it is bound to -> claims -> sign -> TokenRequest with status
//! ```

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;
use wherry_api::status::{GroupResource, Status};

use crate::admission::{Attributes, Notes, Operation};
use crate::engine::{Call, read_body};
use crate::negotiate::{Offers, accept};
use crate::tokens::{Claims, Kubernetes, Reference, username};
use crate::{input, objects, respond, times};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// How long a token is good where nothing is said, in seconds.
const DEFAULT_LIFE: i64 = 3600;
const SHORTEST_LIFE: i64 = 600;
const LONGEST_LIFE: i64 = 1 << 32;
/// The life that the ServiceAccount admission asks for. Such a token is good for [`EXTENDED_LIFE`]: clients that never read
/// their token anew go on working, and are told of by `warnafter`.
const WARNED_LIFE: i64 = 3607;
const EXTENDED_LIFE: i64 = 365 * 24 * 3600;

pub(super) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let accepted = accept(&call.headers, Offers::Documents)?;
    call.query().dry_run()?;
    let schema = call.resource.subresource("token").and_then(|s| s.schema.clone());
    let mut request = input::document(call, &read_body(body).await?, schema)?;
    let account = account(call, &request)?;
    let notes = Notes::default();
    let attributes = Attributes { subresource: "token", ..Attributes::of(call, Operation::Create, &notes) };
    // What a node asks for is looked at before defaults are filled in.
    call.engine.admission.admit(&attributes, &mut request).await?;
    default(call, &mut request, &account);
    let errors = validate(&request);
    if !errors.is_empty() {
        return Err(Status::invalid(GROUP, KIND, "", &errors));
    }
    call.engine.admission.validate(&attributes, &request).await?;
    let bound = bound(call, &request["spec"]["boundObjectRef"])?;
    let now = Timestamp::now().as_second();
    let claims = claims(&request, bound, now, call.engine.issuer.audiences());
    let life = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_LIFE);
    let token = call.engine.issuer.sign(claims).map_err(Status::internal)?;
    request["status"] = json!({"token": token, "expirationTimestamp": times::at(now + life)});
    respond::value(StatusCode::CREATED, &request, accepted.format, &call.headers)
}

/// The account that the path names, which is the one that the request speaks of, if it speaks of any.
fn account(call: &Call, request: &Value) -> Result<Value, Status> {
    for (key, given, expected) in
        [("name", meta::name(request), call.name()), ("namespace", meta::namespace(request), call.namespace())]
    {
        if !given.is_empty() && given != expected {
            let path = Path::new("metadata").child(key);
            let detail = format!("must match the service account {key} if specified");
            return Err(Status::invalid(GROUP, KIND, call.name(), &[FieldError::invalid(&path, given, detail)]));
        }
    }
    let entry = call.engine.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    let account = objects::stored_tree(&entry)?;
    let (asked, uid) = (meta::uid(request), meta::uid(&account));
    if !asked.is_empty() && asked != uid {
        let why =
            format!("the UID in the token request ({asked}) does not match the UID of the service account ({uid})");
        return Err(Status::conflict(&GroupResource::new(GROUP, KIND), call.name(), why));
    }
    Ok(account)
}

fn default(call: &Call, request: &mut Value, account: &Value) {
    meta::set(request, "name", call.name());
    meta::set(request, "namespace", call.namespace());
    meta::set(request, "uid", meta::uid(account));
    meta::set(request, "creationTimestamp", &times::now());
    let spec = meta::map_mut(request, "spec");
    spec.entry("expirationSeconds").or_insert_with(|| DEFAULT_LIFE.into());
    if spec.get("audiences").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("audiences".to_owned(), json!(call.engine.issuer.audiences()));
    }
}

fn validate(request: &Value) -> Vec<FieldError> {
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or_default();
    let detail = if seconds < SHORTEST_LIFE {
        "may not specify a duration less than 10 minutes"
    } else if seconds > LONGEST_LIFE {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Vec::new();
    };
    vec![FieldError::invalid(&Path::new("spec.expirationSeconds"), seconds, detail)]
}

/// What a token is bound to, beside its account.
#[derive(Debug, Default, PartialEq)]
struct Bound {
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
}

/// The object that `reference` names; for a Pod, its node too.
fn bound(call: &Call, reference: &Value) -> Result<Bound, Status> {
    if !reference.is_object() {
        return Ok(Bound::default());
    }
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let (group, version) = meta::split_api_version(api_version);
    let (resource, namespace) = match (group, kind) {
        ("", "Pod") => ("pods", call.namespace()),
        ("", "Secret") => ("secrets", call.namespace()),
        ("", "Node") => ("nodes", ""),
        _ => {
            let of = format!("{group}/{version}, Kind={kind}");
            return Err(Status::bad_request(format!("cannot bind token to object of type {of}")));
        }
    };
    let entry = call.engine.lookup(resource, namespace, name);
    let entry = entry.ok_or_else(|| Status::not_found(&GroupResource::new("", resource), name))?;
    let object = objects::stored_tree(&entry)?;
    if kind == "Pod" && object["spec"]["serviceAccountName"] != call.name() {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            call.name()
        )));
    }
    let (asked, uid) = (text("uid"), meta::uid(&object));
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&GroupResource::new("", kind), name, why));
    }
    let found = Some(Reference { name: name.to_owned(), uid: uid.to_owned() });
    Ok(match kind {
        "Pod" => Bound { node: node_of(call, &object), pod: found, secret: None },
        "Secret" => Bound { secret: found, ..Bound::default() },
        _ => Bound { node: found, ..Bound::default() },
    })
}

/// The node that a Pod is on; without a uid where the node is not known.
fn node_of(call: &Call, pod: &Value) -> Option<Reference> {
    let name = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())?;
    let node = call.engine.lookup("nodes", "", name).and_then(|entry| objects::stored_tree(&entry).ok());
    let uid = node.as_ref().map(meta::uid).unwrap_or_default().to_owned();
    Some(Reference { name: name.to_owned(), uid })
}

/// The claims for a request that is complete.
fn claims(request: &Value, bound: Bound, now: i64, own: &[String]) -> Claims {
    let spec = &request["spec"];
    let life = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_LIFE);
    let aud: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let extended = life == WARNED_LIFE && bound.pod.is_some() && aud.iter().all(|audience| own.contains(audience));
    let (namespace, name) = (meta::namespace(request), meta::name(request));
    Claims {
        exp: now + if extended { EXTENDED_LIFE } else { life },
        iat: now,
        nbf: now,
        aud,
        iss: String::new(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: username(namespace, name),
        kubernetes: Kubernetes {
            namespace: namespace.to_owned(),
            serviceaccount: Reference { name: name.to_owned(), uid: meta::uid(request).to_owned() },
            pod: bound.pod,
            secret: bound.secret,
            node: bound.node,
            warnafter: extended.then_some(now + life),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_admission_asks_for_is_extended() {
        let own = ["api".to_owned()];
        let pod = || Bound { pod: Some(Reference::default()), ..Bound::default() };
        for (life, audience, bound, expected) in [
            (3607, "api", pod(), EXTENDED_LIFE),
            (3607, "vault", pod(), 3607),
            (3607, "api", Bound::default(), 3607),
            (3600, "api", pod(), 3600),
        ] {
            let request = json!({"spec": {"expirationSeconds": life, "audiences": [audience]}});
            let claims = claims(&request, bound, 1000, &own);
            assert_eq!(claims.exp, 1000 + expected, "{request}");
            assert_eq!(claims.kubernetes.warnafter, (expected != life).then_some(1000 + life), "{request}");
        }
    }

    #[test]
    fn a_life_has_its_bounds() {
        for (seconds, good) in [(599, false), (600, true), (LONGEST_LIFE, true), (LONGEST_LIFE + 1, false), (-1, false)]
        {
            assert_eq!(validate(&json!({"spec": {"expirationSeconds": seconds}})).is_empty(), good, "{seconds}");
        }
    }
}
