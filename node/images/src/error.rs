//! What can go wrong with an image. Every text says what failed, where, and what to do about it: it is what
//! `kubectl describe pod` shows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an image could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is not an image reference.
    #[error("{name:?} is not an image reference: {problem}")]
    InvalidName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The registry has no such repository, tag or digest.
    #[error("{reference}: not found in {registry}; check the name and the tag")]
    NotFound {
        /// The image.
        reference: String,
        /// Who was asked.
        registry: String,
    },
    /// The registry wants other credentials.
    #[error(
        "{reference}: {registry} refused access ({detail}); the repository may not exist, or needs credentials: imagePullSecrets, or `configs` in registries.yaml"
    )]
    Unauthorized {
        /// The image.
        reference: String,
        /// Who was asked.
        registry: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry does not answer.
    #[error("{registry} can't be reached: {detail}; check the name, the network and `mirrors` in registries.yaml")]
    Unreachable {
        /// Who was asked.
        registry: String,
        /// What happened.
        detail: String,
    },
    /// The registry answers something unexpected.
    #[error("{registry} answered {status} for {what}: {detail}")]
    Refused {
        /// Who was asked.
        registry: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry's words, shortened.
        detail: String,
    },
    /// Bytes arrived that are not those that were asked for. Nothing of them was kept.
    #[error(
        "{what}: the content does not match its digest: expected {expected}, got {actual}; the source is damaged or not to be trusted"
    )]
    DigestMismatch {
        /// Which content.
        what: String,
        /// The digest asked for.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// It is larger than this node accepts, or than it said it would be.
    #[error("{what} is larger than {limit} bytes, which is {reason}")]
    TooLarge {
        /// Which content.
        what: String,
        /// How much would have been accepted.
        limit: u64,
        /// Where that limit comes from.
        reason: &'static str,
    },
    /// A kind of content that no runtime here can use.
    #[error("{what}: unsupported media type {media_type:?}; {hint}")]
    Unsupported {
        /// The image.
        what: String,
        /// The media type that is not understood.
        media_type: String,
        /// What would work.
        hint: String,
    },
    /// The image is not built for this machine.
    #[error("{what}: there is no image for {wanted}; it is built for {found}")]
    Platform {
        /// The image.
        what: String,
        /// What this node runs.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A component that wants what no runtime of this node has.
    #[error("{what}: it imports what this node does not offer: {}", missing.join(", "))]
    Imports {
        /// The image.
        what: String,
        /// The interfaces.
        missing: Vec<String>,
    },
    /// A manifest, config or archive that breaks its format.
    #[error("{what}: {problem}")]
    Malformed {
        /// Which content.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `registries.yaml` can't be used.
    #[error("{}: {problem}", path.display())]
    Registries {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The node's disk.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl ImageError {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn malformed(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Malformed { what: what.into(), problem: problem.into() }
    }

    /// The waiting reason that Kubernetes knows this by: `InvalidImageName`, `ImageInspectError` where it is here or could be and can
    /// not be run, or `ErrImagePull`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::Imports { .. } => "ImageInspectError",
            _ => "ErrImagePull",
        }
    }

    /// Whether the same call may succeed at once, without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}
