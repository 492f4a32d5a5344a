//! Blobs and manifests on their way out.

use tokio_util::io::ReaderStream;

use super::http::{Failure, Retry};
use super::{Session, header};
use crate::manifest::Descriptor;
use crate::registries::Endpoint;
use crate::{ImageError, Progress, Step};

const ACTIONS: &str = "pull,push";

impl Session {
    /// The registry itself: nothing is pushed to a mirror.
    fn own(&self) -> Result<&Endpoint, ImageError> {
        self.endpoints.last().ok_or_else(|| ImageError::Unreachable {
            registry: self.reference.registry().to_owned(),
            detail: "no endpoint".into(),
        })
    }

    /// Sends a blob of the store, unless the registry has it.
    pub(crate) async fn upload(&self, blob: &Descriptor, progress: &dyn Progress) -> Result<(), ImageError> {
        let endpoint = self.own()?;
        let step = |done| progress.step(Step::Blob { digest: &blob.digest, done, total: blob.size });
        step(0);
        let mut retry = Retry::new();
        loop {
            match self.try_upload(endpoint, blob).await {
                Ok(()) => {
                    step(blob.size);
                    return Ok(());
                }
                Err(failure) => {
                    if !retry.after(&failure).await {
                        return Err(failure.error);
                    }
                }
            }
        }
    }

    async fn try_upload(&self, endpoint: &Endpoint, blob: &Descriptor) -> Result<(), Failure> {
        match self.send(endpoint, ACTIONS, |http, url| http.head(url), &format!("blobs/{}", blob.digest)).await {
            Ok(_) => return Ok(()),
            Err(Failure { error: ImageError::NotFound { .. }, .. }) => {}
            Err(failure) => return Err(failure),
        }
        let begun = self
            .send(endpoint, ACTIONS, |http, url| http.post(url).header("content-length", "0"), "blobs/uploads/")
            .await?;
        let what = || format!("{}: the upload of {}", self.reference, blob.digest);
        let location = header(&begun, "location")
            .ok_or_else(|| ImageError::malformed(what(), "the registry names no place for it"))?;
        let mut place = begun
            .url()
            .join(&location)
            .map_err(|_| ImageError::malformed(what(), "the registry names a place that is no URL"))?;
        // An upload belongs to the registry; credentials are not sent where it may point.
        if place.origin() != begun.url().origin() {
            return Err(ImageError::malformed(
                what(),
                format!("the registry sends it to {}", place.origin().ascii_serialization()),
            )
            .into());
        }
        place.query_pairs_mut().append_pair("digest", &blob.digest);
        let path = self.inner.store.path(&blob.digest);
        let file = std::fs::File::open(&path).map_err(|e| ImageError::io("open", &path, e))?;
        let put = |http: &reqwest::Client, url: &str| {
            let request =
                http.put(url).header("content-type", "application/octet-stream").header("content-length", blob.size);
            match file.try_clone().and_then(|mut file| std::io::Seek::rewind(&mut file).map(|()| file)) {
                Ok(file) => request.body(reqwest::Body::wrap_stream(ReaderStream::with_capacity(
                    tokio::fs::File::from_std(file),
                    64 * 1024,
                ))),
                Err(_) => request,
            }
        };
        self.send_to(endpoint, ACTIONS, put, place.as_str(), "the upload").await.map(drop)
    }

    /// Sends the manifest, which makes the image be there.
    pub(crate) async fn upload_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<(), ImageError> {
        let endpoint = self.own()?;
        let path = format!("manifests/{}", self.reference.target());
        let put =
            |http: &reqwest::Client, url: &str| http.put(url).header("content-type", media_type).body(bytes.to_vec());
        let mut retry = Retry::new();
        loop {
            match self.send(endpoint, ACTIONS, put, &path).await {
                Ok(_) => return Ok(()),
                Err(failure) => {
                    if !retry.after(&failure).await {
                        return Err(failure.error);
                    }
                }
            }
        }
    }
}
