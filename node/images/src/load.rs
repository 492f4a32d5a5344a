//! Images from files.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use wherry_runtime::Image;

use crate::images::{Inner, Limits};
use crate::manifest::Descriptor;
use crate::pull::{self, RawManifest, Source, blocking};
use crate::store::Store;
use crate::{ImageError, Progress, Reference, Step, archive, artifact};

pub(crate) async fn load(
    inner: &Arc<Inner>,
    file: &Path,
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<Arc<Image>, ImageError> {
    if reference.digest().is_some() {
        return Err(ImageError::InvalidName {
            name: reference.to_string(),
            problem: "a loaded image is named by a tag: its digest follows from its content",
        });
    }
    let top = read(inner, file, reference).await?;
    let image = pull::assemble(inner, reference, top, &Loaded::new(inner), progress).await?;
    progress.step(Step::Done { reference: &image.reference, id: &image.id });
    Ok(image)
}

/// Reads a file of any known form into the store; returns its manifest or index.
pub(crate) async fn read(inner: &Arc<Inner>, file: &Path, reference: &Reference) -> Result<RawManifest, ImageError> {
    let (store, limits, file, reference) = (inner.store.clone(), inner.limits, file.to_owned(), reference.clone());
    blocking(move || read_file(&store, &limits, &file, &reference)).await
}

fn read_file(store: &Store, limits: &Limits, path: &Path, reference: &Reference) -> Result<RawManifest, ImageError> {
    let what = path.display().to_string();
    let mut file = File::open(path).map_err(|e| ImageError::io("open", path, e))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(ImageError::malformed(
            what,
            "it is a directory; an OCI layout is loaded as a tar of it (`tar -C DIR -cf layout.tar .`)",
        ));
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(4).read_to_end(&mut bytes).map_err(|e| ImageError::io("read", path, e))?;
    if !artifact::is_wasm(&bytes) {
        if path.extension().is_some_and(|extension| extension == "wasm") {
            return Err(ImageError::malformed(
                what,
                "it is not a WebAssembly module or component: it does not begin with \\0asm",
            ));
        }
        return archive::read(store, path, reference, limits);
    }
    file.take(limits.module + 1).read_to_end(&mut bytes).map_err(|e| ImageError::io("read", path, e))?;
    if bytes.len() as u64 > limits.module {
        return Err(ImageError::TooLarge {
            what,
            limit: limits.module,
            reason: "the most that a Wasm module may have",
        });
    }
    artifact::store(store, &what, &bytes)
}

/// Everything is in the store already, or it is missing.
pub(crate) struct Loaded {
    store: Store,
    limits: Limits,
}

impl Loaded {
    pub(crate) fn new(inner: &Inner) -> Self {
        Self { store: inner.store.clone(), limits: inner.limits }
    }

    fn missing(blob: &Descriptor) -> ImageError {
        ImageError::malformed(
            "the archive",
            format!("{} ({}, {} bytes) is named in its manifest but missing", blob.digest, blob.media_type, blob.size),
        )
    }
}

#[async_trait]
impl Source for Loaded {
    fn is_file(&self) -> bool {
        true
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, ImageError> {
        let bytes = self.store.read(&descriptor.digest, self.limits.manifest).map_err(|_| Self::missing(descriptor))?;
        Ok(RawManifest { digest: descriptor.digest.clone(), media_type: Some(descriptor.media_type.clone()), bytes })
    }

    async fn fetch(&self, blob: &Descriptor, progress: &dyn Progress) -> Result<(), ImageError> {
        if !self.store.has(&blob.digest, blob.size) {
            return Err(Self::missing(blob));
        }
        progress.step(Step::Blob { digest: &blob.digest, done: blob.size, total: blob.size });
        Ok(())
    }
}
