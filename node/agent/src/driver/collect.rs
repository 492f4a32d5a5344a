//! Removing images that nobody uses, and what was made of images that are gone: compiled code, snapshots, unpacked volumes.

use std::collections::HashSet;
use std::sync::Arc;

use super::record::Uid;
use super::shared::Shared;
use super::{Driver, image_volumes};

/// Removes images until `bytes` are free; how many bytes that were.
pub(super) async fn collect(shared: &Arc<Shared>, bytes: u64) -> u64 {
    let (images, min_age) = (shared.images.clone(), shared.shortage.image_gc.min_age);
    let freed = tokio::task::spawn_blocking(move || images.collect(bytes, min_age)).await;
    let freed = freed.unwrap_or_else(|panic| Err(panic.to_string())).unwrap_or_else(|error| {
        tracing::warn!(error, "cannot collect images");
        0
    });
    if freed > 0 {
        forget(shared).await;
    }
    freed
}

/// Notes what is in use, and removes what was made of images that others (nodes of this machine, an earlier life) have removed.
pub(super) async fn tidy(shared: &Arc<Shared>) {
    let images = shared.images.clone();
    if let Err(panic) = tokio::task::spawn_blocking(move || images.note_uses()).await {
        tracing::error!(%panic, "noting which images are in use panicked");
    }
    forget(shared).await;
}

async fn forget(shared: &Arc<Shared>) {
    let images = shared.images.clone();
    let here = tokio::task::spawn_blocking(move || images.blobs()).await;
    let here: HashSet<String> = match here.unwrap_or_else(|panic| Err(panic.to_string())) {
        Ok(here) => here,
        Err(error) => return tracing::warn!(error, "cannot list the node's images"),
    };
    // One that came since has to be asked for once more; where nothing is known, all stays.
    let images = shared.images.clone();
    let kept = move |digest: &str| here.contains(digest) || images.blobs().map_or(true, |now| now.contains(digest));
    for runtime in shared.runtimes() {
        if let Err(error) = runtime.retain(&kept).await {
            tracing::warn!(runtime = runtime.info().name, %error, "cannot free what was made of images that are gone");
        }
    }
    let root = shared.image_volumes.clone();
    let removed = tokio::task::spawn_blocking(move || image_volumes::retain(&root, kept)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "cannot remove the files of images that are gone");
    }
}

impl Driver {
    /// Nothing of a Pod that is over uses an image.
    pub(super) fn release_images(&mut self, uid: &Uid) {
        if let Some(record) = self.pods.get_mut(uid).filter(|record| record.is_over()) {
            record.images.clear();
            record.volume_images.clear();
        }
    }
}
