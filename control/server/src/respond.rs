//! Answers: objects, failures, warnings, compression.

use std::io::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use wherry_api::encode::protobuf;
use wherry_api::status::Status;

use crate::negotiate::Format;

/// What is smaller than this is not worth compressing (upstream's figure).
pub(crate) const COMPRESS_FROM: usize = 128 << 10;
/// Upstream's level: lists are sent once, so speed counts more than size.
pub(crate) const COMPRESSION: Compression = Compression::new(1);

/// A [`Status`] on its way out.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Status);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        failure(&self.0)
    }
}

/// A failure's document, kept with the answer until it is known in which format the client wants it.
#[derive(Clone)]
pub(crate) struct Told(pub(crate) Arc<Value>);

/// The answer that tells of a failure: JSON, which [`layers::failures`](crate::layers::failures) may write anew.
pub(crate) fn failure(status: &Status) -> Response {
    failure_document(status, status.to_value())
}

/// The answer that tells of a failure in a document that says more than `status`.
pub(crate) fn failure_document(status: &Status, document: Value) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, Bytes::from(document.to_string()));
    response.extensions_mut().insert(Told(Arc::new(document)));
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if code == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"kubernetes-master\""));
    }
    response
}

/// JSON bytes as they are.
pub(crate) fn json(code: StatusCode, bytes: Bytes) -> Response {
    body(code, HeaderValue::from_static("application/json"), Body::from(bytes))
}

/// Any body.
pub(crate) fn body(code: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<String>) -> Response {
    body(code, HeaderValue::from_static("text/plain; charset=utf-8"), Body::from(text.into()))
}

/// A tree, written as asked for and compressed where that pays.
pub(crate) fn value(code: StatusCode, value: &Value, format: Format, headers: &HeaderMap) -> Result<Response, Status> {
    let bytes = match format {
        Format::Json => serde_json::to_vec(value).map_err(Status::internal)?,
        Format::Yaml => serde_yaml::to_string(value).map_err(Status::internal)?.into_bytes(),
        Format::Protobuf => protobuf::document(value)
            .unwrap_or_else(|| Err(Status::not_acceptable(&[Format::Json, Format::Yaml].map(Format::media_type))))?,
    };
    Ok(written(code, bytes.into(), format, headers))
}

/// Bytes that are in the format already.
pub(crate) fn written(code: StatusCode, bytes: Bytes, format: Format, headers: &HeaderMap) -> Response {
    let content_type = HeaderValue::from_static(format.media_type());
    if bytes.len() < COMPRESS_FROM || !accepts_gzip(headers) {
        return body(code, content_type, Body::from(bytes));
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), COMPRESSION);
    // Writing to a Vec cannot fail.
    let compressed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    match compressed {
        Ok(compressed) => mark_gzip(body(code, content_type, Body::from(compressed))),
        Err(_) => body(code, content_type, Body::from(bytes)),
    }
}

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && !matches!(quality.trim(), "q=0" | "q=0.0")
    })
}

/// Says that the body is compressed.
pub(crate) fn mark_gzip(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Adds `Warning: 299 - "..."` headers, which kubectl prints.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let mut quoted = String::with_capacity(warning.len() + 8);
        quoted.push_str("299 - \"");
        for c in warning.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if c.is_control() => quoted.push(' '),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        if let Ok(header) = HeaderValue::from_bytes(quoted.as_bytes()) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn warnings_are_quoted() {
        let mut response = text(StatusCode::OK, "");
        warn(&mut response, &["unknown field \"spec.x\"\n".to_owned()]);
        assert_eq!(response.headers()[WARNING], "299 - \"unknown field \\\"spec.x\\\" \"");
    }

    #[test]
    fn gzip_is_read_from_the_header() {
        for (value, expected) in
            [("gzip, deflate", true), ("gzip;q=0", false), ("br", false), ("deflate, gzip;q=0.5", true)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
    }

    #[test]
    fn a_failure_says_when_to_retry() {
        let response = failure(&Status::too_many_requests("busy", 3));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
    }
}
