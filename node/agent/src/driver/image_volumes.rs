//! image volumes: an image's files as a volume that is only read, for both kinds of container. Pulled as containers' images are,
//! unpacked once by digest.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ImageVolumeSource, Pod};
use wherry_reconcile::EventType;
use wherry_runtime::Image;

use super::ground::pull_secrets;
use super::shared::Shared;
use super::start::{default_policy, go_millis};
use crate::ports::PullError;

/// A Pod's image volumes.
#[derive(Default)]
pub(super) struct Unpacked {
    /// Where the files of each lie, by its name.
    pub(super) places: HashMap<String, PathBuf>,
    /// The images, which are in use as long as they are held.
    pub(super) images: Vec<Arc<Image>>,
}

/// Unpacks them; none where one cannot be had, which has been told.
pub(super) async fn unpack(shared: &Arc<Shared>, pod: &Pod) -> Option<Unpacked> {
    let mut unpacked = Unpacked::default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let Some(source) = &volume.image else { continue };
        let image = image(shared, pod, source).await?;
        let digest = image.manifest.digest.replace(':', "-");
        let (images, root) = (shared.images.clone(), shared.image_volumes.clone());
        let dir = root.join(digest);
        unpacked.images.push(image.clone());
        let done = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || {
                private(&root).map_err(|error| PullError { reason: "ErrImagePull", message: error.to_string() })?;
                images.unpack(&image, &dir)
            }
        });
        let done =
            done.await.unwrap_or_else(|panic| Err(PullError { reason: "ErrImagePull", message: panic.to_string() }));
        if let Err(error) = done {
            let text = format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name);
            shared.event(pod, EventType::Warning, "FailedMount", text);
            return None;
        }
        unpacked.places.insert(volume.name.clone(), dir);
    }
    Some(unpacked)
}

/// Removes the files of the images that are not kept. Blocking.
pub(super) fn retain(root: &Path, kept: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        // Others are on their way.
        let digest =
            entry.file_name().to_str().and_then(|name| Some(format!("sha256:{}", name.strip_prefix("sha256-")?)));
        if digest.is_some_and(|digest| !kept(&digest)) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn private(root: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)
}

/// The image, by the volume's pull policy.
async fn image(shared: &Shared, pod: &Pod, source: &ImageVolumeSource) -> Option<Arc<Image>> {
    let reference = source.reference.as_deref().unwrap_or_default();
    let policy = source.pull_policy.as_deref().unwrap_or_else(|| default_policy(reference));
    let event = |kind, reason: &str, text: String| shared.event(pod, kind, reason, text);
    let failed = |error: &PullError| {
        event(EventType::Warning, "Failed", format!("Failed to pull image {reference:?}: {error}"));
        event(EventType::Warning, "Failed", format!("Error: {}", error.reason));
    };
    let local = shared.images.get(reference).inspect_err(failed).ok()?;
    match (policy, local) {
        ("Always", _) | ("IfNotPresent", None) => {}
        (_, Some(image)) => {
            let text =
                format!("Container image {reference:?} already present on machine and can be accessed by the pod");
            event(EventType::Normal, "Pulled", text);
            return Some(image);
        }
        (_, None) => {
            let text = format!("Container image {reference:?} is not present with pull policy of Never");
            event(EventType::Warning, "ErrImageNeverPull", text);
            return None;
        }
    }
    event(EventType::Normal, "Pulling", format!("Pulling image {reference:?}"));
    let began = std::time::Instant::now();
    let image = shared.images.pull(reference, &pull_secrets(shared, pod)).await.inspect_err(failed).ok()?;
    let took = go_millis(began.elapsed());
    let size: u64 = image.layers.iter().map(|layer| layer.size).sum::<u64>() + image.config.size;
    let text = format!(
        "Successfully pulled image {reference:?} in {took} ({took} including waiting). Image size: {size} bytes."
    );
    event(EventType::Normal, "Pulled", text);
    Some(image)
}
