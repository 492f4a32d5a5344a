//! Blobs on their way in.
//!
//! Hashing and disk writes happen on a thread of their own, fed through a short queue, so that a slow disk slows the
//! connection and not the process. A connection that breaks is taken up again where it broke, if the registry can.

use bytes::Bytes;
use futures::StreamExt;
use reqwest::StatusCode;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::http::{Failure, Retry, broken};
use super::{Session, header};
use crate::manifest::Descriptor;
use crate::registries::Endpoint;
use crate::store::BlobWriter;
use crate::{ImageError, Progress, Step};

/// Chunks on their way to the disk.
const QUEUE: usize = 16;

impl Session {
    /// Brings a blob into the store. One that is there is not asked for; one that somebody else fetches is waited for.
    pub(crate) async fn blob(&self, blob: &Descriptor, progress: &dyn Progress) -> Result<(), ImageError> {
        let inner = &self.inner;
        let step = |done| progress.step(Step::Blob { digest: &blob.digest, done, total: blob.size });
        step(0);
        let lock = inner.blobs.of(&blob.digest);
        let _alone = lock.lock().await;
        if inner.store.has(&blob.digest, blob.size) {
            step(blob.size);
            return Ok(());
        }
        let _slot = inner.slots.acquire().await;
        let mut last = None;
        for endpoint in &self.endpoints {
            match self.download(endpoint, blob, &step).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::debug!(registry = %endpoint.host, blob = %blob.digest, %error, "blob failed");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| ImageError::Unreachable {
            registry: self.reference.registry().to_owned(),
            detail: "no endpoint".into(),
        }))
    }

    /// From one endpoint, with as many connections as it takes.
    async fn download(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        step: &(impl Fn(u64) + Sync),
    ) -> Result<(), ImageError> {
        let what = format!("{}: {} from {}", self.reference, blob.digest, endpoint.host);
        let mut sink = Sink::begin(self.inner.store.writer(&what, blob.size, "its size by the manifest")?);
        let mut done = 0;
        let mut retry = Retry::new();
        loop {
            let before = done;
            match self.stream(endpoint, blob, &mut sink, &mut done, step).await {
                Ok(()) => break,
                Err(failure) => {
                    if done > before {
                        retry.progressed();
                    }
                    if !retry.after(&failure).await {
                        return Err(sink.failure().await.unwrap_or(failure.error));
                    }
                }
            }
        }
        sink.finish(&blob.digest).await?;
        step(blob.size);
        Ok(())
    }

    /// One connection's worth, from `done` on.
    async fn stream(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        sink: &mut Sink,
        done: &mut u64,
        step: &(impl Fn(u64) + Sync),
    ) -> Result<(), Failure> {
        let from = *done;
        let path = format!("blobs/{}", blob.digest);
        let get = |http: &reqwest::Client, url: &str| match from {
            0 => http.get(url),
            from => http.get(url).header("range", format!("bytes={from}-")),
        };
        let response = self.send(endpoint, "pull", get, &path).await?;
        // A registry without ranges sends all of it again: what we have is skipped.
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT
            && header(&response, "content-range").is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
        let mut skip = if resumed { 0 } else { from };
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk.map_err(|e| broken(endpoint, &e))?;
            let skipped = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= skipped as u64;
            let _ = chunk.split_to(skipped);
            if chunk.is_empty() {
                continue;
            }
            if *done + chunk.len() as u64 > blob.size {
                let what = format!("{}: {} from {}", self.reference, blob.digest, endpoint.host);
                return Err(ImageError::TooLarge { what, limit: blob.size, reason: "its size by the manifest" }.into());
            }
            let length = chunk.len() as u64;
            if !sink.write(chunk).await {
                return Err(ImageError::malformed(blob.digest.clone(), "it can't be written").into());
            }
            *done += length;
            step(*done);
        }
        if *done < blob.size {
            let detail = format!("the connection ended after {done} of {} bytes of {}", blob.size, blob.digest);
            let error = ImageError::Unreachable { registry: endpoint.host.clone(), detail };
            return Err(Failure { error, transient: true, wait: None });
        }
        Ok(())
    }
}

/// The disk's end of a download. Dropped, it discards what came.
struct Sink {
    queue: Option<mpsc::Sender<Bytes>>,
    /// `Ok` with the writer once the queue has ended.
    thread: JoinHandle<Result<BlobWriter, ImageError>>,
}

impl Sink {
    fn begin(mut writer: BlobWriter) -> Self {
        let (queue, mut chunks) = mpsc::channel::<Bytes>(QUEUE);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                writer.write(&chunk)?;
            }
            Ok(writer)
        });
        Self { queue: Some(queue), thread }
    }

    /// False when the disk has failed; [`failure`](Self::failure) says how.
    async fn write(&self, chunk: Bytes) -> bool {
        match &self.queue {
            Some(queue) => queue.send(chunk).await.is_ok(),
            None => false,
        }
    }

    async fn writer(&mut self) -> Result<BlobWriter, ImageError> {
        self.queue = None;
        match (&mut self.thread).await {
            Ok(result) => result,
            Err(e) => Err(ImageError::malformed("the blob", format!("the writer ended: {e}"))),
        }
    }

    async fn failure(mut self) -> Option<ImageError> {
        self.writer().await.err()
    }

    async fn finish(mut self, digest: &str) -> Result<(), ImageError> {
        let writer = self.writer().await?;
        let digest = digest.to_owned();
        crate::pull::blocking(move || writer.finish(Some(&digest))).await.map(drop)
    }
}
