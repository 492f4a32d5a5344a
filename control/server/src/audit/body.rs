//! Bodies that are copied as they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

/// What has passed so far; none once it was more than is kept.
#[derive(Default)]
pub(super) struct Copy(Mutex<Option<BytesMut>>);

impl Copy {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(BytesMut::new()))))
    }

    pub(super) fn bytes(&self) -> Option<Bytes> {
        self.0.lock().clone().map(BytesMut::freeze)
    }

    fn add(&self, data: &[u8], most: usize) {
        let mut copy = self.0.lock();
        match copy.as_mut() {
            Some(bytes) if bytes.len() + data.len() <= most => bytes.extend_from_slice(data),
            _ => *copy = None,
        }
    }
}

/// A body that is copied, up to a size, and keeps `end` until it is dropped.
pub(super) struct Tee<T> {
    body: Body,
    copy: Option<Arc<Copy>>,
    most: usize,
    _end: T,
}

impl<T> Tee<T> {
    pub(super) fn new(body: Body, copy: Option<Arc<Copy>>, most: usize, end: T) -> Self {
        Self { body, copy, most, _end: end }
    }
}

impl<T: Unpin> HttpBody for Tee<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(copy)) = (&polled, &self.copy)
            && let Some(data) = frame.data_ref()
        {
            copy.add(data, self.most);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_copy_is_whole_or_not_there() {
        for (most, expected) in [(5, Some("hello")), (4, None)] {
            let copy = Copy::new();
            let tee = Tee::new(Body::from("hello"), Some(Arc::clone(&copy)), most, ());
            assert_eq!(tee.collect().await.unwrap().to_bytes(), "hello");
            assert_eq!(copy.bytes().as_deref(), expected.map(str::as_bytes), "{most}");
        }
    }
}
