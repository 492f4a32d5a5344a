//! The kit over WASI 0.2.

use wasip2::cli::{environment, stdout};
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

use crate::{Reply, Request, MAX_BODY};

/// Reads a request whole.
pub fn read(request: &IncomingRequest) -> Request {
    let method = match request.method() {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        other => format!("{other:?}"),
    };
    let target = request.path_with_query().unwrap_or_else(|| "/".to_owned());
    let mut read = Request::new(&method, &target);
    if let Some(stream) = request.consume().ok().as_ref().and_then(|body| body.stream().ok()) {
        while read.body.len() < MAX_BODY {
            match stream.blocking_read(16 << 10) {
                Ok(bytes) => read.body.extend(bytes),
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(_)) => break,
            }
        }
    }
    read.body.truncate(MAX_BODY);
    read
}

/// Sends a reply. A client that went away is no error.
pub fn send(reply: &Reply, out: ResponseOutparam) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"text/plain; charset=utf-8".to_vec()]);
    let _ = headers.set("content-length", &[reply.body.len().to_string().into_bytes()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(reply.status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        for chunk in reply.body.as_bytes().chunks(4096) {
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

/// An environment variable.
pub fn variable(name: &str) -> Option<String> {
    environment::get_environment().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Writes a line to standard output.
pub fn log(line: &str) {
    let _ = stdout::get_stdout().blocking_write_and_flush(format!("{line}\n").as_bytes());
}
