//! pods/exec, attach and portforward.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Method, Request, StatusCode};
use wherry_api::status::Status;

use super::target;
use crate::backends::session::Client;
use crate::backends::{agent, session};
use crate::engine::Call;
use crate::layers::authorize::{self, Attributes};
use crate::layers::info::Verb;
use crate::options::Query;
use crate::{objects, respond};

/// What of a request the agent is told: what it needs to agree on a protocol.
const PASSED: [HeaderName; 7] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("x-stream-protocol-version"),
];

pub(super) async fn run(call: &Call, subresource: &str) -> Result<Response, Status> {
    // A WebSocket begins with GET; whoever may look must not act for that.
    if call.info.verb != Verb::Create {
        let attributes = Attributes { verb: Verb::Create.as_str(), ..Attributes::from(call.info.as_ref()) };
        authorize::check(call.engine.authorizer.as_ref(), &call.user, &attributes)?;
    }
    let entry = call.engine.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    let pod = objects::stored_tree(&entry)?;
    let query = call.query();
    let (namespace, name) = (call.namespace(), call.name());
    let path = match subresource {
        "portforward" => format!("/portForward/{namespace}/{name}"),
        _ => format!("/{subresource}/{namespace}/{name}/{}", target::container(&pod, query.get("container"), name)?),
    };
    let node = target::node(&pod, name)?;
    if !session::is_asked_for(&call.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let method = if call.info.verb == Verb::Create { Method::POST } else { Method::GET };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{path}?{}", options(&query, subresource)))
        .header(HOST, node)
        .body(Body::empty())
        .map_err(|error| agent::unreachable(node, &error))?;
    for name in PASSED {
        for value in call.headers.get_all(&name) {
            request.headers_mut().append(name.clone(), value.clone());
        }
    }
    let answer = agent::ask(&call.engine, node, request).await?;
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => session::join(&call.engine, Client::of(call), answer),
        status if status.is_client_error() || status.is_server_error() => {
            // As it was said: clients have words of their own around it.
            let headers = answer.headers().clone();
            let (status, text) = agent::complaint(answer).await;
            let mut response = respond::text(status, text);
            let accepted = HeaderName::from_static("x-accepted-stream-protocol-versions");
            for value in headers.get_all(&accepted) {
                response.headers_mut().append(accepted.clone(), value.clone());
            }
            // What the client sent after its request is no request.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            Ok(response)
        }
        status => Err(Status::internal(format!("invalid upgrade response: status code {}", status.as_u16()))),
    }
}

/// The options, as an agent names them.
fn options(query: &Query<'_>, subresource: &str) -> String {
    let mut options = form_urlencoded::Serializer::new(String::new());
    if subresource == "portforward" {
        let ports: Vec<&str> = query.all("ports").collect();
        if !ports.is_empty() {
            options.append_pair("port", &ports.join(","));
        }
        return options.finish();
    }
    for (key, passed) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(key) {
            options.append_pair(passed, "1");
        }
    }
    if subresource == "exec" {
        for word in query.all("command") {
            options.append_pair("command", word);
        }
    }
    options.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_names_of_an_agent() {
        let table = [
            (
                "exec",
                "command=sh&command=-c&command=a+b&stdin=true&tty=0&stdout",
                "input=1&output=1&command=sh&command=-c&command=a+b",
            ),
            ("attach", "stdin=1&stderr=false&stdout&command=x", "input=1&output=1"),
            ("portforward", "ports=80&ports=443,8080", "port=80%2C443%2C8080"),
            ("portforward", "", ""),
        ];
        for (subresource, query, expected) in table {
            assert_eq!(options(&Query::parse(Some(query)), subresource), expected, "{query}");
        }
    }
}
