//! An image on this node: verified bytes on disk and what its manifest says of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which runtime can run an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ImageKind {
    /// A Wasm artifact or a `wasi/wasm` compat image: a module or component.
    Wasm,
    /// An ordinary OCI image for this machine's architecture.
    Container,
}

/// A blob in the node's content store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// OCI media type, as the manifest gives it.
    pub media_type: String,
    /// `sha256:<64 hex>`; the file at `path` was verified against it.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Where the verified blob lies.
    pub path: PathBuf,
}

/// A pulled image of one platform, every blob of it verified and on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The reference it was asked for by, normalised (`docker.io/library/busybox:latest`).
    pub reference: String,
    /// `repository@sha256:...`: the status' `imageID`.
    pub id: String,
    /// Which kind of runtime can run it.
    pub kind: ImageKind,
    /// The manifest of this platform.
    pub manifest: Descriptor,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, lowest first. For [`ImageKind::Wasm`] there is one: the module or component, unpacked
    /// from its tar where the image is of the compat form.
    pub layers: Vec<Descriptor>,
    /// The image's entrypoint, from its config. Empty where it has none.
    pub entrypoint: Vec<String>,
    /// The image's default arguments, from its config.
    pub cmd: Vec<String>,
    /// The image's environment, from its config.
    pub env: Vec<(String, String)>,
    /// The image's working directory, from its config.
    pub working_dir: Option<PathBuf>,
    /// The image's user (`uid[:gid]` or names), from its config.
    pub user: Option<String>,
}
