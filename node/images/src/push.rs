//! Images from files to a registry: blobs first, then manifests, the named one last, so that a name never leads to
//! something that is not there yet.

use std::path::Path;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::images::Inner;
use crate::load::{self, Loaded};
use crate::manifest::{Descriptor, Document, Manifest};
use crate::pull::{RawManifest, Source};
use crate::registry::Session;
use crate::{Auth, ImageError, Progress, Reference, Step, media};

const PARALLEL: usize = 3;

/// Returns `repository@sha256:...`.
pub(crate) async fn push(
    inner: &Arc<Inner>,
    file: &Path,
    reference: &Reference,
    auth: Option<Auth>,
    progress: &dyn Progress,
) -> Result<String, ImageError> {
    if reference.digest().is_some() {
        return Err(ImageError::InvalidName {
            name: reference.to_string(),
            problem: "an image is pushed to a tag: its digest follows from its content",
        });
    }
    let name = reference.to_string();
    let what = file.display().to_string();
    let top = load::read(inner, file, reference).await?;
    let source = Loaded::new(inner);
    let session = inner.client.session(inner, reference, auth.clone());
    let media_type = match Document::parse(&what, &top.bytes, top.media_type.as_deref())? {
        Document::Manifest(manifest) => {
            blobs(&session, &source, &manifest, progress).await?;
            manifest.media_type
        }
        Document::Index(index) => {
            for entry in &index.manifests {
                let child = source.manifest(entry).await?;
                let Document::Manifest(manifest) = Document::parse(&what, &child.bytes, child.media_type.as_deref())?
                else {
                    return Err(ImageError::malformed(what, "the index leads to another index"));
                };
                blobs(&session, &source, &manifest, progress).await?;
                let by_digest = inner.client.session(inner, &reference.with_digest(&child.digest), auth.clone());
                let media_type =
                    manifest.media_type.or(child.media_type).unwrap_or_else(|| media::OCI_MANIFEST.to_owned());
                by_digest.upload_manifest(&media_type, &child.bytes).await?;
            }
            Some(top.media_type.clone().unwrap_or_else(|| media::OCI_INDEX.to_owned()))
        }
    };
    let RawManifest { digest, bytes, media_type: given } = top;
    let media_type = media_type.or(given).unwrap_or_else(|| media::OCI_MANIFEST.to_owned());
    session.upload_manifest(&media_type, &bytes).await?;
    let id = format!("{}@{digest}", reference.name());
    progress.step(Step::Done { reference: &name, id: &id });
    Ok(id)
}

async fn blobs(
    session: &Session,
    source: &Loaded,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<(), ImageError> {
    let all: Vec<&Descriptor> = std::iter::once(&manifest.config).chain(&manifest.layers).collect();
    for blob in &all {
        source.fetch(blob, &crate::Silent).await?;
    }
    let uploads: Vec<_> = all.into_iter().map(|blob| session.upload(blob, progress).boxed()).collect();
    futures::stream::iter(uploads).buffer_unordered(PARALLEL).try_collect().await
}
