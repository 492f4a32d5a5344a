//! The gRPC health check (`grpc.health.v1.Health/Check`), by hand: two small messages over HTTP/2 without TLS. Texts are kubelet's.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::GRPCAction;
use tokio::net::TcpStream;

use super::run::{Found, Target, go_error};

/// The longest answer that is taken: the message has a few bytes.
const ANSWER: usize = 4096;

/// Asks the service for its health, within `limit`.
pub(super) async fn check(action: &GRPCAction, target: &Target, limit: Duration) -> Found {
    let port = u16::try_from(action.port).ok().filter(|port| *port != 0);
    let (Some(ip), Some(port)) = (target.ip, port) else {
        return Found::Error(format!("couldn't find port: {}", action.port));
    };
    let address = SocketAddr::new(ip, port);
    let seconds = limit.as_secs();
    let deadline = tokio::time::Instant::now() + limit;
    let stream = match tokio::time::timeout_at(deadline, target.network.dial(address)).await {
        Err(_) => {
            let why = "context deadline exceeded";
            return Found::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {seconds}s: {why}"
            ));
        }
        Ok(Err(error)) => {
            let why = format!("dial tcp {address}: connect: {}", go_error(&error));
            return Found::Failure(format!("error: failed to connect service at \"{address}\": {why}"));
        }
        Ok(Ok(stream)) => stream,
    };
    let service = action.service.as_deref().unwrap_or_default();
    match tokio::time::timeout_at(deadline, call(stream, address, service)).await {
        Err(_) => Found::Failure(format!("timeout: health rpc did not complete within {seconds}s")),
        Ok(Err(Problem::Unimplemented(message))) => Found::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Err(Problem::Other(message))) => Found::Failure(format!("error: health rpc probe failed: {message}")),
        Ok(Ok(SERVING)) => Found::Success,
        Ok(Ok(status)) => Found::Failure(format!("service unhealthy (responded with \"{}\")", status_name(status))),
    }
}

enum Problem {
    Unimplemented(String),
    Other(String),
}

fn other(error: impl std::fmt::Display) -> Problem {
    Problem::Other(error.to_string())
}

/// Calls Check; the answer's status.
async fn call(stream: TcpStream, address: SocketAddr, service: &str) -> Result<u64, Problem> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(other)?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36 grpc")
        .body(Full::new(message(service)))
        .map_err(other)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(other)?;
        let (head, body) = response.into_parts();
        if head.status != 200 {
            return Err(Problem::Other(format!("unexpected HTTP status code received from server: {}", head.status)));
        }
        // An answer without a message has its status where the headers are.
        outcome(&head.headers)?;
        let collected = Limited::new(body, ANSWER).collect().await.map_err(other)?;
        if let Some(trailers) = collected.trailers() {
            outcome(trailers)?;
        }
        read(&collected.to_bytes()).ok_or_else(|| Problem::Other("the answer is not a HealthCheckResponse".to_owned()))
    };
    // The connection is driven here and ends with this call.
    tokio::select! {
        biased;
        answer = answer => answer,
        ended = connection => Err(ended.err().map_or_else(|| other("the connection was closed"), other)),
    }
}

/// What `grpc-status` says, where it is there.
fn outcome(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let message = text("grpc-message").unwrap_or_default();
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some("12") => Err(Problem::Unimplemented(format!("rpc error: code = Unimplemented desc = {message}"))),
        Some(code) => Err(Problem::Other(format!("rpc error: code = {} desc = {message}", code_name(code)))),
    }
}

fn code_name(code: &str) -> &str {
    match code {
        "1" => "Canceled",
        "2" => "Unknown",
        "3" => "InvalidArgument",
        "4" => "DeadlineExceeded",
        "5" => "NotFound",
        "7" => "PermissionDenied",
        "8" => "ResourceExhausted",
        "13" => "Internal",
        "14" => "Unavailable",
        "16" => "Unauthenticated",
        other => other,
    }
}

const SERVING: u64 = 1;

fn status_name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        SERVING => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

/// A HealthCheckRequest (`string service = 1`) in its frame.
fn message(service: &str) -> Bytes {
    let mut body = Vec::new();
    if !service.is_empty() {
        body.push(0x0a);
        varint(service.len(), &mut body);
        body.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&body);
    frame.into()
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// The status of a framed HealthCheckResponse (`ServingStatus status = 1`).
fn read(frame: &[u8]) -> Option<u64> {
    let (head, body) = frame.split_at_checked(5)?;
    let length = usize::try_from(u32::from_be_bytes(head[1..].try_into().ok()?)).ok()?;
    let mut rest = body.get(..length).filter(|_| head[0] == 0)?;
    let mut status = 0;
    while !rest.is_empty() {
        let key = number(&mut rest)?;
        let value = match key & 7 {
            0 => number(&mut rest)?,
            2 => {
                let length = usize::try_from(number(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
                continue;
            }
            _ => return None,
        };
        if key >> 3 == 1 {
            status = value;
        }
    }
    Some(status)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_service_in_a_frame() {
        assert_eq!(message(""), &[0, 0, 0, 0, 0][..]);
        assert_eq!(message("db"), &b"\0\0\0\0\x04\x0a\x02db"[..]);
        // 300 bytes: the length takes two bytes itself.
        assert_eq!(message(&"x".repeat(300))[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn an_answer_is_read_whatever_else_is_in_it() {
        for (frame, status) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 6, 18, 2, 1, 1, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 9, 8, 1], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[], None),
            (&[0, 0, 0, 0, 1, 0x88], None),
        ] {
            assert_eq!(read(frame), status, "{frame:?}");
        }
    }
}
