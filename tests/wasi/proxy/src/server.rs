//! Requests that arrive, and their answers.

use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

/// The whole of a body and whether trailers followed.
pub(crate) fn read(body: IncomingBody) -> Result<(Vec<u8>, bool), StreamError> {
    let (stream, mut bytes) = (body.stream().unwrap(), Vec::new());
    assert!(body.stream().is_err(), "a body has one stream");
    loop {
        match stream.blocking_read(1 << 10) {
            Ok(part) => bytes.extend(part),
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error),
        }
    }
    drop(stream);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let outcome = trailers.get().expect("they are ready").expect("they are asked for once").unwrap();
    assert!(matches!(trailers.get(), Some(Err(()))), "a second time");
    Ok((bytes, outcome.is_some()))
}

pub(crate) fn answer(out: ResponseOutparam, status: u16, text: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    for part in text.chunks(4096) {
        stream.blocking_write_and_flush(part).unwrap();
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

/// `PUT /request?a=b` with the header `x-sent: yes` and the body "sent".
pub(crate) fn request(request: &IncomingRequest) {
    assert!(matches!(request.method(), Method::Put), "{:?}", request.method());
    assert_eq!(request.path_with_query().as_deref(), Some("/request?a=b"));
    assert!(matches!(request.scheme(), Some(Scheme::Http)), "{:?}", request.scheme());
    assert_eq!(request.authority().as_deref(), Some("guest.test"));
    let headers = request.headers();
    assert_eq!(headers.get("X-Sent"), [b"yes"]);
    assert!(matches!(headers.append("x-more", b"1"), Err(HeaderError::Immutable)));
    assert!(matches!(headers.set("x-sent", &[]), Err(HeaderError::Immutable)));
    assert!(matches!(headers.delete("x-sent"), Err(HeaderError::Immutable)));
    let body = request.consume().unwrap();
    assert!(request.consume().is_err(), "a request has one body");
    assert_eq!(read(body).unwrap(), (b"sent".to_vec(), false));
}

/// 418 with the header `x-kind: teapot` and the body "short and stout".
pub(crate) fn response(out: ResponseOutparam) {
    let headers = Fields::from_list(&[("x-kind".to_owned(), b"teapot".to_vec())]).unwrap();
    let response = OutgoingResponse::new(headers);
    assert_eq!(response.status_code(), 200);
    assert_eq!(response.set_status_code(99), Err(()), "no status");
    response.set_status_code(418).unwrap();
    assert_eq!((response.status_code(), response.headers().get("x-kind")), (418, vec![b"teapot".to_vec()]));
    let body = response.body().unwrap();
    assert!(response.body().is_err(), "a response has one body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    assert!(body.write().is_err(), "a body has one stream");
    stream.blocking_write_and_flush(b"short and stout").unwrap();
    drop(stream);
    OutgoingBody::finish(body, Some(Fields::new())).unwrap();
}

pub(crate) fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let mut text = format!("{:?} {} ", request.method(), request.headers().get("x-sent").len()).into_bytes();
    text.extend(read(request.consume().unwrap()).unwrap().0);
    answer(out, 201, &text);
}

/// Less than it says.
pub(crate) fn broken(out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::from_list(&[("content-length".to_owned(), b"100".to_vec())]).unwrap());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body.write().unwrap().blocking_write_and_flush(b"less").unwrap();
    let Err(code) = OutgoingBody::finish(body, None) else { panic!("less than was announced is no body") };
    assert!(matches!(code, ErrorCode::HttpResponseBodySize(Some(4))), "{code:?}");
}

pub(crate) fn error(out: ResponseOutparam) {
    ResponseOutparam::set(out, Err(ErrorCode::LoopDetected));
}
