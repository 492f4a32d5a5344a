//! What a Pod's containers stand on: its directory, network, volumes and files; made and removed.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use wherry_reconcile::EventType;
use wherry_runtime::{Image, ImageKind, Make as _, PodNetwork, PodRef};

use super::image_volumes;
use super::shared::Shared;
use super::start::pull_policy;
use super::tokens::{self, Tokens};
use crate::config::deferred::Deferred;
use crate::config::files::Etc;
use crate::config::projection::Source;
use crate::config::volumes::Volumes;
use crate::config::{ConfigError, admit, files, request, sysctls, volumes};

/// A Pod's ground, made.
pub(super) struct Made {
    pub(super) network: Arc<dyn PodNetwork>,
    pub(super) volumes: Arc<Volumes>,
    /// What `/etc` has of the Pod.
    pub(super) etc: Arc<Deferred>,
    pub(super) tokens: Arc<Tokens>,
    /// Those of its image volumes.
    pub(super) images: Vec<Arc<Image>>,
}

/// Why it could not be made.
pub(super) enum GroundError {
    /// The manifest asks for what this node has not: only another manifest helps.
    Refused(String),
    /// It is not for this node, whatever is changed of it: it has failed.
    Rejected { reason: &'static str, message: String },
    /// Try again.
    Failed,
}

/// The address a Pod had before.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub(super) ip: Option<IpAddr>,
    /// Containers run with it: it must be this one.
    pub(super) in_use: bool,
}

/// Makes (or takes up again) a Pod's ground. Idempotent.
pub(super) async fn set_up(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    reference: &PodRef,
    dir: &Path,
    before: Before,
    known: &Tokens,
) -> Result<Made, GroundError> {
    if let Err(error) = admit::pod(pod) {
        return Err(refuse(shared, pod, &error));
    }
    if let Some(message) = sysctls::forbidden(pod) {
        let reason = "SysctlForbidden";
        shared.event(pod, EventType::Warning, reason, message.clone());
        return Err(GroundError::Rejected { reason, message: format!("Pod was rejected: {message}") });
    }
    let no_sandbox = |error: &str| {
        let text = format!("Failed to create pod sandbox: {error}");
        shared.event(pod, EventType::Warning, "FailedCreatePodSandBox", text);
        GroundError::Failed
    };
    let dns = shared.network.dns();
    let name = files::kernel_name(pod, &shared.node_name, &dns.domain).map_err(|error| no_sandbox(&error))?;
    let with_containers = is_namespaced(shared, pod).await;
    let request = |ip| request::request(pod, &shared.node_name, &dns, with_containers, ip);
    let mut network = shared.network.add_pod(reference, request(before.ip)).await;
    if let Err(error) = &network
        && before.ip.is_some()
        && !before.in_use
    {
        tracing::warn!(pod = %reference.name, namespace = %reference.namespace, error, "a Pod cannot keep its address and gets another");
        network = shared.network.add_pod(reference, request(None)).await;
    }
    let network = network.map_err(|error| no_sandbox(&error))?;
    let tokens = match tokens::fetch(shared, pod, reference, known).await {
        Ok(tokens) => Arc::new(tokens),
        Err(error) => {
            shared.event(pod, EventType::Warning, "FailedMount", format!("MountVolume.SetUp failed : {error}"));
            return Err(GroundError::Failed);
        }
    };
    let (shared_, pod_, tokens_, dir) = (shared.clone(), pod.clone(), tokens.clone(), dir.to_owned());
    let ips = network.ips().to_vec();
    let Some(unpacked) = image_volumes::unpack(shared, pod).await else { return Err(GroundError::Failed) };
    let (images, places) = (unpacked.images, unpacked.places);
    let made = tokio::task::spawn_blocking(move || {
        let facts = shared_.facts(&ips);
        let etc = etc(dir.join("etc"), Etc::of(&pod_, &name, &facts.pod_ips, &dns))
            .map_err(|error| ConfigError::io("cannot write /etc/hosts", &error))?;
        let volumes = volumes::set_up(&dir, &Source::new(&shared_, &pod_, &facts, &tokens_), &places)?;
        Ok((volumes, etc))
    });
    match made.await {
        Ok(Ok((volumes, etc))) => Ok(Made { network, volumes: Arc::new(volumes), etc: Arc::new(etc), tokens, images }),
        Ok(Err(error @ ConfigError::Unsupported { .. })) => Err(refuse(shared, pod, &error)),
        Ok(Err(error)) => {
            shared.event(pod, EventType::Warning, "FailedMount", error.to_string());
            Err(GroundError::Failed)
        }
        Err(panic) => {
            tracing::error!(pod = %reference.name, %panic, "making volumes panicked");
            Err(GroundError::Failed)
        }
    }
}

/// The Pod's files, in `dir` once somebody needs them. Containers of an earlier life of the agent may have those that are there.
fn etc(dir: PathBuf, files: Etc) -> io::Result<Deferred> {
    let known = dir.exists();
    let etc = Deferred::new(move || files.write(&dir));
    if known {
        etc.make()?;
    }
    Ok(etc)
}

fn refuse(shared: &Shared, pod: &Pod, error: &ConfigError) -> GroundError {
    shared.event(pod, EventType::Warning, "Failed", format!("Error: {error}"));
    GroundError::Refused(error.to_string())
}

/// How long registries may take to say what kind their images are. A Pod of which nobody knows gets a namespace: it serves
/// both kinds, and the pull will tell what is wrong.
const ASK: Duration = Duration::from_secs(5);

/// Whether the Pod needs a network namespace: it has a container, or may have one.
async fn is_namespaced(shared: &Shared, pod: &Pod) -> bool {
    let secrets = pull_secrets(shared, pod);
    let ask = async {
        for container in containers(shared, pod) {
            if kind(shared, container, &secrets).await != Some(ImageKind::Wasm) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(ASK, ask).await.unwrap_or(true)
}

/// The same of a Pod of an earlier life, by what is on this node alone.
pub(super) fn was_namespaced(shared: &Shared, pod: &Pod) -> bool {
    let is_wasm = |container: &Container| {
        let image = shared.images.get(container.image.as_deref().unwrap_or_default());
        image.is_ok_and(|image| image.is_some_and(|image| image.kind == ImageKind::Wasm))
    };
    containers(shared, pod).any(|container| !is_wasm(container))
}

/// The containers of whose kind the image decides; none where all are Wasm anyway.
fn containers<'a>(shared: &Shared, pod: &'a Pod) -> impl Iterator<Item = &'a Container> {
    let open = shared.containers.is_some() && !shared.is_wasm_class(pod);
    let spec = pod.spec.as_ref().filter(|_| open);
    spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

async fn kind(shared: &Shared, container: &Container, secrets: &[Vec<u8>]) -> Option<ImageKind> {
    let reference = container.image.as_deref().unwrap_or_default();
    // As the pull will decide: the tag may have been moved to an image of the other kind.
    match (pull_policy(container), shared.images.get(reference)) {
        (_, Err(_)) | ("Never", Ok(None)) => None,
        ("Always", _) | (_, Ok(None)) => shared.images.latest_kind(reference, secrets).await,
        (_, Ok(Some(image))) => Some(image.kind),
    }
}

/// The Docker configurations of the Pod's `imagePullSecrets`; those that are missing are left out, as kubelet does.
pub(super) fn pull_secrets(shared: &Shared, pod: &Pod) -> Vec<Vec<u8>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let references = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_ref());
    let secrets =
        references.into_iter().flatten().filter_map(|reference| shared.objects.secret(namespace, &reference.name));
    secrets
        .filter_map(|secret| {
            let data = secret.data.as_ref()?;
            let config = data.get(".dockerconfigjson").or_else(|| data.get(".dockercfg"))?;
            Some(config.0.clone())
        })
        .collect()
}

/// Removes a Pod's volumes and network. Idempotent.
pub(super) async fn tear_down(shared: &Shared, uid: &str, dir: &Path, volumes: Arc<Volumes>) -> Result<(), String> {
    let (dir, written) = (dir.to_owned(), shared.written(uid));
    let volumes = tokio::task::spawn_blocking(move || volumes::tear_down(&dir, &written, &volumes)).await;
    let volumes = match volumes {
        Ok(done) => done.map_err(|error| format!("cannot remove the volumes: {error}")),
        Err(panic) => Err(panic.to_string()),
    };
    shared.network.remove_pod(uid).await?;
    volumes
}

/// Writes the volumes again that follow ConfigMaps, Secrets and tokens, with new tokens where those of `known` are due. The
/// tokens written; none where there was one that could not be had: then nothing is written.
pub(super) async fn refresh(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    reference: &PodRef,
    ips: Vec<IpAddr>,
    volumes: Arc<Volumes>,
    known: &Tokens,
) -> Option<Arc<Tokens>> {
    let tokens = match tokens::fetch(shared, pod, reference, known).await {
        Ok(tokens) => Arc::new(tokens),
        Err(error) => {
            shared.event(pod, EventType::Warning, "FailedMount", format!("MountVolume.SetUp failed : {error}"));
            return None;
        }
    };
    let (shared, pod, tokens_) = (shared.clone(), pod.clone(), tokens.clone());
    let done = tokio::task::spawn_blocking(move || {
        let facts = shared.facts(&ips);
        if let Err(error) = volumes::refresh(&volumes, &Source::new(&shared, &pod, &facts, &tokens_)) {
            shared.event(&pod, EventType::Warning, "FailedMount", error.to_string());
        }
    });
    if let Err(panic) = done.await {
        tracing::error!(%panic, "refreshing volumes panicked");
    }
    Some(tokens)
}
