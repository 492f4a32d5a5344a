//! Requests that leave.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
    http_error_code,
};
use wasip2::io::streams::StreamError;

use crate::server;

fn request(authority: &str, path: &str) -> OutgoingRequest {
    let request = OutgoingRequest::new(Fields::from_list(&[("x-sent".to_owned(), b"yes".to_vec())]).unwrap());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(path)).unwrap();
    request
}

pub(crate) fn setters() {
    let request = request("guest.test:81", "/path?q=1");
    assert!(matches!(request.method(), Method::Get));
    request.set_method(&Method::Patch).unwrap();
    assert!(matches!(request.method(), Method::Patch));
    assert!(request.set_method(&Method::Other("no method".into())).is_err());
    assert_eq!(request.path_with_query().as_deref(), Some("/path?q=1"));
    assert!(matches!(request.scheme(), Some(Scheme::Http)));
    assert_eq!(request.authority().as_deref(), Some("guest.test:81"));
    assert!(request.set_path_with_query(Some("no path \n")).is_err());
    assert!(request.set_authority(Some("no authority/")).is_err());
    assert!(request.set_scheme(Some(&Scheme::Other("no scheme".into()))).is_err());
    let headers = request.headers();
    assert_eq!(headers.get("x-sent"), [b"yes"]);
    assert!(matches!(headers.append("x-more", b"1"), Err(HeaderError::Immutable)));
    let _body = request.body().unwrap();
    assert!(request.body().is_err(), "a request has one body");
}

pub(crate) fn options() {
    let options = RequestOptions::new();
    assert_eq!(
        (options.connect_timeout(), options.first_byte_timeout(), options.between_bytes_timeout()),
        (None, None, None)
    );
    options.set_connect_timeout(Some(1_000_000)).unwrap();
    options.set_first_byte_timeout(Some(2_000_000)).unwrap();
    options.set_between_bytes_timeout(Some(3_000_000)).unwrap();
    assert_eq!(
        (options.connect_timeout(), options.first_byte_timeout(), options.between_bytes_timeout()),
        (Some(1_000_000), Some(2_000_000), Some(3_000_000))
    );
    options.set_connect_timeout(None).unwrap();
    assert_eq!(options.connect_timeout(), None);
}

fn response(request: OutgoingRequest) -> Result<IncomingResponse, ErrorCode> {
    let options = RequestOptions::new();
    options.set_first_byte_timeout(Some(30_000_000_000)).unwrap();
    let future = handle(request, Some(options))?;
    future.subscribe().block();
    let response = future.get().expect("it is ready").expect("it is asked for once");
    assert!(matches!(future.get(), Some(Err(()))), "a second time");
    response
}

/// A request to `authority`, which is another instance of this component.
pub(crate) fn exchange(authority: &str) {
    let request = request(authority, "/echo");
    request.set_method(&Method::Post).unwrap();
    let body = request.body().unwrap();
    let stream = body.write().unwrap();
    stream.blocking_write_and_flush(b"sent").unwrap();
    drop(stream);
    let options = RequestOptions::new();
    let future = handle(request, Some(options)).unwrap();
    OutgoingBody::finish(body, None).unwrap();
    future.subscribe().block();
    let response = future.get().unwrap().unwrap().unwrap();
    assert_eq!(response.status(), 201);
    let headers = response.headers();
    assert!(!headers.has("x-kind") && matches!(headers.set("x-kind", &[]), Err(HeaderError::Immutable)));
    let body = response.consume().unwrap();
    assert!(response.consume().is_err(), "a response has one body");
    let (bytes, trailers) = server::read(body).unwrap();
    assert_eq!((String::from_utf8(bytes).unwrap(), trailers), ("Method::Post 1 sent".to_owned(), false));
}

/// Requests to `own`, which is another instance of this component, and to a server whose answer breaks off.
pub(crate) fn failures(servers: &str) {
    let (authority, breaks) = servers.split_once('&').unwrap();
    let no_host = OutgoingRequest::new(Fields::new());
    no_host.set_scheme(Some(&Scheme::Http)).unwrap();
    assert!(matches!(response(no_host).err(), Some(ErrorCode::HttpRequestUriInvalid)));
    let code = response(request("unknown.test", "/")).err();
    assert!(matches!(code, Some(ErrorCode::DnsError(_))), "{code:?}");
    let code = response(request("169.254.169.254", "/")).err();
    assert!(matches!(code, Some(ErrorCode::DestinationIpProhibited)), "{code:?}");
    let code = response(request("127.0.0.1:1", "/")).err();
    assert!(matches!(code, Some(ErrorCode::ConnectionRefused)), "{code:?}");
    assert_eq!(response(request(authority, "/error")).unwrap().status(), 500);

    // A body that breaks off is an error of its stream. wasmtime 48 knows no code of it; one that does may tell these.
    let broken = response(request(breaks, "/")).unwrap();
    let body = broken.consume().unwrap();
    let stream = body.stream().unwrap();
    let error = loop {
        match stream.blocking_read(1 << 10) {
            Ok(_) => {}
            Err(StreamError::LastOperationFailed(error)) => break error,
            Err(StreamError::Closed) => panic!("it ended as if it were whole"),
        }
    };
    let code = http_error_code(&error);
    let fitting = |code: &ErrorCode| matches!(code, ErrorCode::HttpResponseIncomplete | ErrorCode::HttpProtocolError);
    assert!(code.as_ref().is_none_or(fitting), "{code:?}: {}", error.to_debug_string());
}
