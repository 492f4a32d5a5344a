//! The images of a node, as the agent and the CLI see them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wherry_runtime::{Image, ImageKind};

use crate::collect::Held;
use crate::registries::Registries;
use crate::registry::Client;
use crate::share::Sharing;
use crate::store::Store;
use crate::{Auth, ImageError, Progress, Reference, load, pull, push};

/// How a node's images are kept and found.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A `registries.yaml` as k3s reads it: mirrors, credentials and TLS of registries.
    pub registries: Option<PathBuf>,
    /// What is accepted.
    pub limits: Limits,
    /// Judges what an artifact's config says that it imports.
    pub missing: Option<Missing>,
}

/// Those of a component's imports that no runtime of this node offers.
pub type Missing = fn(&[String]) -> Vec<String>;

/// How much of anything is accepted, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A manifest or index.
    pub manifest: u64,
    /// A config.
    pub config: u64,
    /// A layer as it is stored.
    pub layer: u64,
    /// All layers of an image together.
    pub image: u64,
    /// A module or component.
    pub module: u64,
    /// Entries of an archive or of a compat image's layer (a count).
    pub entries: u64,
    /// How many times its stored size a compressed layer may unpack to (a factor).
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            manifest: 4 * MIB,
            config: 8 * MIB,
            layer: 32 << 30,
            image: 64 << 30,
            module: 512 * MIB,
            entries: 200_000,
            ratio: 200,
        }
    }
}

/// An image on this node, for listings.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// The names it is known by: tags first, then digests.
    pub references: Vec<String>,
    /// `repository@sha256:...`.
    pub id: String,
    /// Bytes on disk.
    pub size: u64,
    /// Which kind of runtime can run it.
    pub kind: ImageKind,
    /// The digests of its layers.
    pub layers: Vec<String>,
    /// When it came.
    pub pulled_at: SystemTime,
}

/// A node's images. Cheap to clone: clones share everything.
#[derive(Clone)]
pub struct Images {
    pub(crate) inner: Arc<Inner>,
}

type PullKey = (Reference, Option<Auth>);
type Pulled = Result<Arc<Image>, ImageError>;

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) missing: Option<Missing>,
    pub(crate) client: Client,
    /// Bounds the blobs that are fetched at one time, over all images.
    pub(crate) slots: Semaphore,
    /// One image needs a blob that another one fetches already: it waits for that.
    pub(crate) blobs: pull::BlobLocks,
    pulls: Sharing<PullKey, Pulled>,
    kinds: Mutex<BTreeMap<Reference, (Instant, ImageKind)>>,
    pub(crate) held: Mutex<Held>,
}

/// Fetches at one time.
const SLOTS: usize = 6;
/// How long a kind that was asked of a registry is believed: a tag may be moved.
const KIND_TTL: Duration = Duration::from_secs(300);
const KIND_ENTRIES: usize = 1024;

impl Images {
    /// Opens (or creates) the images under `dir`. Several processes may have one directory open.
    pub fn open(dir: impl Into<PathBuf>, options: Options) -> Result<Self, ImageError> {
        let registries = options.registries.as_deref().map(Registries::read).transpose()?.unwrap_or_default();
        let inner = Inner {
            store: Store::open(dir.into())?,
            limits: options.limits,
            missing: options.missing,
            client: Client::new(registries),
            slots: Semaphore::new(SLOTS),
            blobs: pull::BlobLocks::default(),
            pulls: Sharing::new(),
            kinds: Mutex::new(BTreeMap::new()),
            held: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image, if it is on this node. Reads a small file and looks at the blobs' sizes: never the network. As long as it is
    /// held it is in use.
    pub fn get(&self, reference: &str) -> Result<Option<Arc<Image>>, ImageError> {
        let reference: Reference = reference.parse()?;
        Ok(self.inner.find(&reference))
    }

    /// Asks the registry what `reference` is now and fetches what is missing. Concurrent calls for one image with the same
    /// credentials share the work. Without `auth`, the credentials of `registries.yaml` are used.
    pub async fn pull(
        &self,
        reference: &str,
        auth: Option<Auth>,
        progress: Arc<dyn Progress>,
    ) -> Result<Arc<Image>, ImageError> {
        let reference: Reference = reference.parse()?;
        let inner = Arc::clone(&self.inner);
        let key = (reference.clone(), auth.clone());
        let begin = |listeners| async move { pull::pull(&inner, &reference, auth, listeners).await }.boxed();
        self.inner.pulls.run(key, progress, begin).await
    }

    /// Which kind of runtime `reference` needs: from the image on this node, else from the registry, of which the
    /// manifest (and its config) alone is read. What a registry said is believed for five minutes.
    pub async fn kind(&self, reference: &str, auth: Option<Auth>) -> Result<ImageKind, ImageError> {
        if let Some(image) = self.get(reference)? {
            return Ok(image.kind);
        }
        let reference: Reference = reference.parse()?;
        if let Some((at, kind)) = self.inner.kinds.lock().get(&reference).copied()
            && at.elapsed() < KIND_TTL
        {
            return Ok(kind);
        }
        self.ask(reference, auth).await
    }

    /// As [`kind`](Self::kind), of what the registry holds now: what a pull would bring. A digest can't have changed.
    pub async fn latest_kind(&self, reference: &str, auth: Option<Auth>) -> Result<ImageKind, ImageError> {
        let name: Reference = reference.parse()?;
        if name.digest().is_some() {
            return self.kind(reference, auth).await;
        }
        self.ask(name, auth).await
    }

    async fn ask(&self, reference: Reference, auth: Option<Auth>) -> Result<ImageKind, ImageError> {
        let kind = pull::kind(&self.inner, &reference, auth).await?;
        let mut kinds = self.inner.kinds.lock();
        if kinds.len() >= KIND_ENTRIES {
            kinds.retain(|_, (at, _)| at.elapsed() < KIND_TTL);
        }
        if kinds.len() < KIND_ENTRIES || kinds.contains_key(&reference) {
            kinds.insert(reference, (Instant::now(), kind));
        }
        Ok(kind)
    }

    /// The images on this node, by their first name.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let store = &self.inner.store;
        let mut images: BTreeMap<String, ImageSummary> = BTreeMap::new();
        for record in store.records()?.into_iter().filter(|record| record.is_complete(store)) {
            let (size, kind, pulled_at) = (record.size(), record.kind(), record.pulled_at());
            let image = images.entry(record.id.clone()).or_insert_with(|| ImageSummary {
                references: vec![],
                id: record.id,
                size,
                kind,
                layers: record.layers.into_iter().map(|layer| layer.digest).collect(),
                pulled_at,
            });
            image.references.push(record.reference);
            image.pulled_at = image.pulled_at.max(pulled_at);
        }
        let mut images: Vec<_> = images.into_values().collect();
        for image in &mut images {
            image.references.sort_by_key(|reference| (reference.contains('@'), reference.clone()));
        }
        images.sort_by(|a, b| a.references.cmp(&b.references));
        Ok(images)
    }

    /// Forgets a name. Whether there was one. Blobs that no other name needs go when images are [collected](Self::collect).
    pub fn remove(&self, reference: &str) -> Result<bool, ImageError> {
        let reference: Reference = reference.parse()?;
        self.inner.store.forget(&reference.to_string())
    }

    /// Takes an image from a file and gives it a name: a `.wasm` module or component, a tar of an OCI layout, or a
    /// tar written by `docker save`.
    pub async fn load(
        &self,
        file: &Path,
        reference: &str,
        progress: Arc<dyn Progress>,
    ) -> Result<Arc<Image>, ImageError> {
        let reference: Reference = reference.parse()?;
        load::load(&self.inner, file, &reference, &*progress).await
    }

    /// Sends an image from a file (of the same forms as [`load`](Self::load)) to a registry. Returns `repository@sha256:...`.
    pub async fn push(
        &self,
        file: &Path,
        reference: &str,
        auth: Option<Auth>,
        progress: Arc<dyn Progress>,
    ) -> Result<String, ImageError> {
        let reference: Reference = reference.parse()?;
        push::push(&self.inner, file, &reference, auth, &*progress).await
    }
}
