//! What is remembered of an image beside its blobs: one small JSON file a reference.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use wherry_runtime::{self as runtime, Image, ImageKind};

use crate::manifest::{Descriptor, ExecConfig};
use crate::store::Store;

/// Raised when an older reader would misread a record; a record of another version counts as absent.
const VERSION: u32 = 1;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    version: u32,
    pub(crate) reference: String,
    pub(crate) id: String,
    kind: Kind,
    pub(crate) manifest: Blob,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<(String, String)>,
    working_dir: Option<PathBuf>,
    user: Option<String>,
    /// Seconds since the epoch.
    pulled_at: u64,
    /// It came from a file: no registry need have it.
    #[serde(default)]
    pub(crate) is_loaded: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Blob {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

impl From<&Descriptor> for Blob {
    fn from(descriptor: &Descriptor) -> Self {
        Self { media_type: descriptor.media_type.clone(), digest: descriptor.digest.clone(), size: descriptor.size }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Wasm,
    Container,
}

impl Record {
    pub(crate) fn new(
        reference: String,
        id: String,
        kind: ImageKind,
        manifest: Blob,
        config: Blob,
        layers: Vec<Blob>,
        exec: ExecConfig,
    ) -> Self {
        let env = exec.env.unwrap_or_default();
        let env =
            env.iter().filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            version: VERSION,
            reference,
            id,
            kind: match kind {
                ImageKind::Wasm => Kind::Wasm,
                ImageKind::Container => Kind::Container,
            },
            manifest,
            config,
            layers,
            entrypoint: exec.entrypoint.unwrap_or_default(),
            cmd: exec.cmd.unwrap_or_default(),
            env: env.collect(),
            working_dir: filled(exec.working_dir).map(PathBuf::from),
            user: filled(exec.user),
            pulled_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            is_loaded: false,
        }
    }

    /// The same image under another name.
    pub(crate) fn renamed(&self, reference: String) -> Self {
        Self { reference, ..self.clone() }
    }

    /// The same, from a file or not.
    pub(crate) fn loaded(self, loaded: bool) -> Self {
        Self { is_loaded: loaded, ..self }
    }

    pub(crate) fn kind(&self) -> ImageKind {
        match self.kind {
            Kind::Wasm => ImageKind::Wasm,
            Kind::Container => ImageKind::Container,
        }
    }

    /// All that it is made of.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        [&self.manifest, &self.config].into_iter().chain(&self.layers)
    }

    /// Bytes on disk.
    pub(crate) fn size(&self) -> u64 {
        self.blobs().map(|blob| blob.size).sum()
    }

    pub(crate) fn pulled_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.pulled_at)
    }

    /// Whether every blob is there.
    pub(crate) fn is_complete(&self, store: &Store) -> bool {
        self.version == VERSION
            && self.blobs().all(|blob| crate::reference::is_digest(&blob.digest) && store.has(&blob.digest, blob.size))
    }

    /// The image, for a runtime. Its blobs were seen by [`is_complete`](Self::is_complete).
    pub(crate) fn image(&self, store: &Store) -> Image {
        let blob = |blob: &Blob| runtime::Descriptor {
            media_type: blob.media_type.clone(),
            digest: blob.digest.clone(),
            size: blob.size,
            path: store.path(&blob.digest),
        };
        Image {
            reference: self.reference.clone(),
            id: self.id.clone(),
            kind: self.kind(),
            manifest: blob(&self.manifest),
            config: blob(&self.config),
            layers: self.layers.iter().map(blob).collect(),
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: self.env.clone(),
            working_dir: self.working_dir.clone(),
            user: self.user.clone(),
        }
    }
}
