//! From a reference to a record: one way for registries and for archives.
//!
//! [`assemble`] is that way. It reads the manifest, narrows an index to this node, decides the kind, has the blobs
//! brought into the store, and writes the record. Where the bytes come from is the [`Source`]'s business.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use wherry_runtime::{Image, ImageKind};

use crate::images::{Inner, Limits};
use crate::kind::{self, Config, Plan};
use crate::manifest::{Descriptor, Document, ExecConfig, Manifest};
use crate::record::{Blob, Record};
use crate::registry::Session;
use crate::{Auth, ImageError, Progress, Reference, Step, compat, media};

/// Blobs of one image that are fetched at one time.
const PARALLEL: usize = 3;
/// How often an image is fetched of which blobs are collected meanwhile.
const TRIES: usize = 3;

/// A manifest as its source gave it, verified against its digest where one was asked for.
#[derive(Clone, Debug)]
pub(crate) struct RawManifest {
    pub(crate) digest: String,
    pub(crate) media_type: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

/// Where an image's content comes from.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    /// The manifest or index of this digest.
    async fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, ImageError>;

    /// Brings a blob into the store, verified.
    async fn fetch(&self, blob: &Descriptor, progress: &dyn Progress) -> Result<(), ImageError>;

    /// Whether it is a file, which need not be there again.
    fn is_file(&self) -> bool {
        false
    }
}

/// One lock a blob that is being fetched.
#[derive(Default)]
pub(crate) struct BlobLocks(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl BlobLocks {
    pub(crate) fn of(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock();
        if let Some(lock) = locks.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(digest.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

/// Pulls from a registry. A digest that is complete on this node is not asked for again: it can't have changed.
pub(crate) async fn pull(
    inner: &Arc<Inner>,
    reference: &Reference,
    auth: Option<Auth>,
    progress: Arc<impl Progress>,
) -> Result<Arc<Image>, ImageError> {
    let name = reference.to_string();
    progress.step(Step::Resolving { reference: &name });
    if reference.digest().is_some()
        && let Some(image) = inner.find(reference)
    {
        return Ok(done(image, &*progress));
    }
    let session = inner.client.session(inner, reference, auth);
    let top = session.top().await?;
    let image = assemble(inner, reference, top, &session, &*progress).await?;
    Ok(done(image, &*progress))
}

fn done(image: Arc<Image>, progress: &dyn Progress) -> Arc<Image> {
    progress.step(Step::Done { reference: &image.reference, id: &image.id });
    image
}

fn complete(inner: &Inner, name: &str) -> Option<Record> {
    inner.store.record(name).filter(|record| record.is_complete(&inner.store))
}

/// What `top` needs is brought in; the record is kept under `reference` and under the digest.
pub(crate) async fn assemble(
    inner: &Arc<Inner>,
    reference: &Reference,
    top: RawManifest,
    source: &dyn Source,
    progress: &dyn Progress,
) -> Result<Arc<Image>, ImageError> {
    let name = reference.to_string();
    let by_digest = reference.with_digest(&top.digest).to_string();
    if let Some(known) = complete(inner, &by_digest)
        && let Some(image) = commit(inner, known.renamed(name.clone()).loaded(source.is_file())).await?
    {
        return Ok(image);
    }
    for _ in 0..TRIES {
        if let Some(image) = fetch(inner, reference, &top, source, progress).await? {
            return Ok(image);
        }
    }
    Err(ImageError::malformed(name, "its blobs are removed while it is fetched; the disk may be too small for it"))
}

/// Keeps a record, under its name and its digest, and hands its image out, unless a blob of it has been collected meanwhile.
async fn commit(inner: &Arc<Inner>, record: Record) -> Result<Option<Arc<Image>>, ImageError> {
    let inner = Arc::clone(inner);
    blocking(move || {
        let _alone = inner.store.commit()?;
        if !record.is_complete(&inner.store) {
            return Ok(None);
        }
        inner.store.save(&record.renamed(record.id.clone()))?;
        inner.store.save(&record)?;
        Ok(Some(inner.hand_out(&record)))
    })
    .await
}

/// Fetches what is missing of an image. None where some of what was there has gone meanwhile.
async fn fetch(
    inner: &Arc<Inner>,
    reference: &Reference,
    top: &RawManifest,
    source: &dyn Source,
    progress: &dyn Progress,
) -> Result<Option<Arc<Image>>, ImageError> {
    let name = reference.to_string();
    let by_digest = reference.with_digest(&top.digest).to_string();
    let Found { manifest, raw, config, plan } =
        find(reference, top, source, &inner.limits, &inner.store, progress).await?;
    check_sizes(reference, &manifest, &plan, &inner.limits)?;
    if let (Config::Wasm(imports), Some(missing)) = (&config, inner.missing) {
        let missing = missing(imports);
        if !missing.is_empty() {
            return Err(ImageError::Imports { what: name, missing });
        }
    }
    let fetches: Vec<_> = plan.layers(&manifest).iter().map(|layer| source.fetch(layer, progress)).collect();
    futures::stream::iter(fetches).buffer_unordered(PARALLEL).try_collect::<()>().await?;

    let layers = match &plan {
        Plan::Artifact | Plan::Spin(_) | Plan::Container => plan.layers(&manifest).iter().map(Blob::from).collect(),
        Plan::Compat(path) => {
            progress.step(Step::Unpacking { reference: &name });
            let (store, limits, path, layers) =
                (inner.store.clone(), inner.limits, path.clone(), manifest.layers.clone());
            let what = name.clone();
            vec![blocking(move || compat::unpack(&store, &what, &layers, &path, &limits)).await?]
        }
    };
    let exec = match (config, &plan) {
        (Config::Image(config), _) => config.config.unwrap_or_default(),
        (_, Plan::Spin(spin)) => ExecConfig { env: Some(spin.env.clone()), ..ExecConfig::default() },
        _ => ExecConfig::default(),
    };
    let manifest_blob = Blob {
        media_type: manifest.media_type.clone().or(raw.media_type).unwrap_or_else(|| media::OCI_MANIFEST.to_owned()),
        digest: inner.store.put(&name, &raw.bytes)?,
        size: raw.bytes.len() as u64,
    };
    let record = Record::new(
        by_digest.clone(),
        by_digest,
        plan.kind(),
        manifest_blob,
        Blob::from(&manifest.config),
        layers,
        exec,
    );
    commit(inner, record.renamed(name).loaded(source.is_file())).await
}

/// The kind of an image at its registry, from its manifest and config alone.
pub(crate) async fn kind(
    inner: &Arc<Inner>,
    reference: &Reference,
    auth: Option<Auth>,
) -> Result<ImageKind, ImageError> {
    let session = inner.client.session(inner, reference, auth);
    let top = session.top().await?;
    let found = find(reference, &top, &session, &inner.limits, &inner.store, &crate::Silent).await?;
    Ok(found.plan.kind())
}

struct Found {
    manifest: Manifest,
    raw: RawManifest,
    config: Config,
    plan: Plan,
}

/// Reads `top`, follows an index to this node's image, reads its config, decides the kind.
async fn find(
    reference: &Reference,
    top: &RawManifest,
    source: &dyn Source,
    limits: &Limits,
    store: &crate::store::Store,
    progress: &dyn Progress,
) -> Result<Found, ImageError> {
    let what = reference.to_string();
    let (manifest, raw) = match Document::parse(&what, &top.bytes, top.media_type.as_deref())? {
        Document::Manifest(manifest) => (manifest, top.clone()),
        Document::Index(index) => {
            let entry = index.pick(&what)?;
            check_size(&what, entry.size, limits.manifest, "the most that a manifest may have")?;
            let raw = source.manifest(entry).await?;
            match Document::parse(&what, &raw.bytes, raw.media_type.as_deref())? {
                Document::Manifest(manifest) => (manifest, raw),
                Document::Index(_) => return Err(ImageError::malformed(what, "the index leads to another index")),
            }
        }
    };
    check_size(&what, manifest.config.size, limits.config, "the most that a config may have")?;
    source.fetch(&manifest.config, progress).await?;
    let config = if Config::is_read(&manifest.config.media_type) {
        Config::parse(&what, &manifest.config.media_type, store.read(&manifest.config.digest, limits.config)?)?
    } else {
        Config::Other
    };
    let plan = kind::plan(reference, &manifest, &config)?;
    Ok(Found { manifest, raw, config, plan })
}

fn check_sizes(reference: &Reference, manifest: &Manifest, plan: &Plan, limits: &Limits) -> Result<(), ImageError> {
    let what = reference.to_string();
    let (each, reason) = match plan {
        Plan::Artifact | Plan::Spin(_) => (limits.module, "the most that a Wasm module may have"),
        Plan::Compat(_) | Plan::Container => (limits.layer, "the most that a layer may have"),
    };
    for layer in plan.layers(manifest) {
        check_size(&format!("{what}: layer {}", layer.digest), layer.size, each, reason)?;
    }
    let total = plan.layers(manifest).iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    check_size(&what, total, limits.image, "the most that an image may have")
}

fn check_size(what: &str, size: u64, limit: u64, reason: &'static str) -> Result<(), ImageError> {
    if size > limit { Err(ImageError::TooLarge { what: what.to_owned(), limit, reason }) } else { Ok(()) }
}

/// Runs file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ImageError::malformed("the image", "the node is shutting down")),
        },
    }
}

#[async_trait]
impl Source for Session {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, ImageError> {
        self.manifest_by_digest(&descriptor.digest).await
    }

    async fn fetch(&self, blob: &Descriptor, progress: &dyn Progress) -> Result<(), ImageError> {
        self.blob(blob, progress).await
    }
}
