//! GET pods/log: the container's output, streamed from the agent of its node.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use wherry_api::status::Status;

use super::log_socket;
use crate::engine::Call;
use crate::options::Query;
use crate::{agents, objects, respond};

/// What of the query is passed on.
const OPTIONS: [&str; 7] = ["follow", "previous", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "limitBytes"];
/// How much of an agent's complaint is read.
const COMPLAINT: usize = 64 << 10;

pub(super) async fn run(call: &Call) -> Result<Response, Status> {
    let entry = call.engine.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    let pod = objects::stored_tree(&entry)?;
    let query = call.query();
    check(&query, call.name())?;
    let container = container(&pod, query.get("container"), call.name())?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // It never ran anywhere: there is nothing to show.
        return Ok(respond::text(StatusCode::OK, ""));
    }
    let path = format!("/containerLogs/{}/{}/{container}?{}", call.namespace(), call.name(), passed_on(&query));
    let request = http::Request::get(path).body(Body::empty()).map_err(Status::internal)?;
    let response = agents::send(&call.engine, node, request).await?;
    let status = response.status();
    if status != StatusCode::OK {
        let body = Limited::new(response.into_body(), COMPLAINT).collect().await;
        let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        return Err(complaint(status, &text));
    }
    let closing = call.closing.clone().unwrap_or_default();
    let log = Body::new(response.into_body()).into_data_stream();
    if log_socket::is_asked_for(&call.headers) {
        return log_socket::answer(call, log, closing).await;
    }
    let frames = futures::StreamExt::take_until(log, closing.cancelled_owned());
    let mut answer = respond::body(StatusCode::OK, HeaderValue::from_static("text/plain"), Body::empty());
    *answer.body_mut() = Body::from_stream(frames);
    Ok(answer)
}

/// The options that the agent understands.
fn passed_on(query: &Query<'_>) -> String {
    let given = OPTIONS.iter().filter_map(|key| query.get(key).map(|value| (*key, value)));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish()
}

/// The agent's words, as a Status of the agent's code.
fn complaint(code: StatusCode, text: &str) -> Status {
    use wherry_api::status::Reason;
    let message = match serde_json::from_str::<Value>(text) {
        Ok(status) if status["kind"] == "Status" => status["message"].as_str().unwrap_or_default().to_owned(),
        _ => text.trim().to_owned(),
    };
    match code.as_u16() {
        400 => Status::bad_request(message),
        404 => Status::new(404, Reason::NotFound, message),
        _ => Status::internal(message),
    }
}

fn check(query: &Query<'_>, name: &str) -> Result<(), Status> {
    use wherry_api::field::{FieldError, Path};
    let mut errors = Vec::new();
    for (key, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        if let Some(value) = query.integer(key)?.filter(|v| *v < least) {
            let detail = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.push(FieldError::invalid(&Path::new(key), value, detail));
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        errors.push(FieldError::forbidden(
            &Path::root(),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", name, &errors)) }
}

/// The container meant: the named one, or the only one.
fn container(pod: &Value, asked: Option<&str>, name: &str) -> Result<String, Status> {
    let names = |key: &str| -> Vec<String> {
        let list = pod["spec"][key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    match asked {
        Some(asked) if main.iter().chain(&init).chain(&ephemeral).any(|c| c == asked) => Ok(asked.to_owned()),
        Some(asked) => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        None if main.len() == 1 => Ok(main[0].clone()),
        None => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}
