//! One start of one container: image, configuration, creation, start.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use rand::RngCore as _;
use tokio_util::sync::CancellationToken;
use wherry_api::quantity::Quantity;
use wherry_reconcile::EventType;
use wherry_runtime::{
    ContainerId, ContainerSpec, Image, ImageKind, Limits, Maker, Mount, PodNetwork, PodRef, Runtime, RuntimeError,
};

use super::ground::pull_secrets;
use super::hook;
use super::shared::Shared;
use crate::config::deferred::Deferred;
use crate::config::volumes::{self, Volumes};
use crate::config::{ConfigError, admit, env, files, security};

use crate::lifecycle::{self, Given, Identity, Slot};
use crate::logs::{Logs, SharedLog};
use crate::probe::run::Target;

/// What to start.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) reference: PodRef,
    pub(super) slot: Slot,
    pub(super) attempt: u32,
    pub(super) network: Arc<dyn PodNetwork>,
    pub(super) volumes: Arc<Volumes>,
    pub(super) etc: Option<Arc<Deferred>>,
    pub(super) dir: PathBuf,
    /// Given up while the image is pulled.
    pub(super) cancel: CancellationToken,
}

/// A run that began.
pub(super) struct Started {
    pub(super) id: ContainerId,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) identity: Identity,
    /// The image that it runs; none where an earlier life of the agent started it and the image is gone.
    pub(super) image: Option<Arc<Image>>,
    /// The image as the manifest names it; none where that is not known any more.
    pub(super) asked: Option<String>,
    /// The resources that it was given.
    pub(super) resources: Given,
    pub(super) at: Timestamp,
    /// Its postStart hook failed.
    pub(super) hook_failed: bool,
}

/// Why a run did not begin.
pub(super) enum StartError {
    /// The image could not be had. Back off.
    Pull { reason: &'static str, message: String },
    /// The image's policy or name, or what it is: the reason says all.
    Image { reason: &'static str, message: String, permanent: bool },
    /// The configuration cannot be resolved.
    Config(String),
    /// It could not be created.
    Create { message: String, permanent: bool },
    /// It was created and could not be started: a run that failed.
    Start { message: String, identity: Box<Identity> },
    /// Given up.
    Cancelled,
}

/// The files of one run, beside its log.
pub(super) fn termination_log(dir: &Path, container: &str, attempt: u32) -> PathBuf {
    dir.join(container).join(format!("{attempt}.termination-log"))
}

/// The waiting reason of an image that can never be run here.
const NOT_INSPECTED: &str = "ImageInspectError";
/// Where Kubernetes puts the termination message unless told otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

impl Job {
    fn spec(&self) -> Result<Cow<'_, Container>, StartError> {
        lifecycle::container(&self.pod, self.slot)
            .ok_or_else(|| StartError::Config("no such container in the Pod".to_owned()))
    }

    fn event(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        self.shared.container_event(&self.pod, self.slot, kind, reason, message);
    }

    fn field(&self) -> String {
        let (list, n) = lifecycle::field(self.slot);
        format!("spec.{list}[{n}]")
    }

    /// Starts it. Every failure has been told by events.
    pub(super) async fn run(self) -> Result<Started, StartError> {
        let image = self.image().await?;
        let runtime = self.runtime(&image)?;
        // What is being compiled goes on for the next that wants it; a Pod that is deleted does not wait for it.
        let prepared = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(StartError::Cancelled),
            prepared = runtime.prepare(&image, &self.reference.namespace) => prepared,
        };
        match prepared {
            Ok(()) => {}
            Err(RuntimeError::InvalidImage(problem)) => return Err(self.not_inspected(&problem)),
            Err(error) => return Err(self.not_created(&error)),
        }
        let Ok(permit) = self.shared.limits.starts.acquire().await else { return Err(StartError::Cancelled) };
        let spec = self.container_spec(&image).map_err(|error| {
            self.event(EventType::Warning, "Failed", format!("Error: {error}"));
            StartError::Config(error.to_string())
        })?;
        let id = spec.id.clone();
        let mut identity = Identity {
            container_id: format!("{}://{id}", runtime.info().name),
            image: image.reference.clone(),
            image_id: image.id.clone(),
            user: None,
        };
        let name = spec.name.clone();
        let path = Logs::path(&self.dir, &name, self.attempt);
        let log = self.shared.logs.open(&path).map_err(|error| {
            let message = format!("cannot open {}: {error}", path.display());
            self.event(EventType::Warning, "Failed", format!("Error: {message}"));
            StartError::Create { message, permanent: false }
        })?;
        Logs::prune(&self.dir, &name, self.attempt);
        if let Err(error) = runtime.create(spec, Arc::new(SharedLog(log))).await {
            self.shared.logs.close(&path).await;
            return Err(self.not_created(&error));
        }
        identity.user = runtime.user(&id).await.ok().flatten();
        self.event(EventType::Normal, "Created", "Container created");
        if let Err(error) = runtime.start(&id).await {
            let message = error.to_string().replace(&id.0, &name);
            self.event(EventType::Warning, "Failed", format!("Error: {message}"));
            if let Err(error) = runtime.remove(&id).await {
                tracing::warn!(container = %id, %error, "cannot remove a container that did not start");
            }
            self.shared.logs.close(&path).await;
            return Err(StartError::Start { message, identity: Box::new(identity) });
        }
        self.event(EventType::Normal, "Started", "Container started");
        drop(permit);
        let at = self.shared.clock.now();
        let hook_failed = !self.post_start(&id, &runtime).await;
        let spec = self.spec()?;
        let (asked, resources) = (spec.image.clone(), Given::Known(spec.resources.clone()));
        Ok(Started { id, runtime, identity, image: Some(image), asked, resources, at, hook_failed })
    }

    /// The postStart hook, before anything is told of the container. One that ends in the meantime, or is to be ended, waits for
    /// no hook. False where the hook failed.
    async fn post_start(&self, id: &ContainerId, runtime: &Arc<dyn Runtime>) -> bool {
        let Ok(spec) = self.spec() else { return true };
        let Some(hook) = spec.lifecycle.as_ref().and_then(|hooks| hooks.post_start.as_ref()) else { return true };
        let target = Target {
            network: self.shared.network.clone(),
            runtime: runtime.clone(),
            id: id.clone(),
            ip: self.network.ips().first().copied(),
        };
        let done = tokio::select! {
            biased;
            done = hook::run(hook, &spec, &target, &self.shared.clock) => done,
            _ = runtime.wait(id) => return true,
            () = self.cancel.cancelled() => return true,
        };
        if let Err(problem) = &done {
            tracing::debug!(container = %id, problem, "a postStart hook failed");
            self.event(EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
        }
        done.is_ok()
    }

    fn not_created(&self, error: &RuntimeError) -> StartError {
        self.event(EventType::Warning, "Failed", format!("Error: {error}"));
        StartError::Create { message: error.to_string(), permanent: !error.is_retryable() }
    }

    /// The image can never be run here: it is no program, or wants what this node does not offer. Nothing is tried before
    /// somebody changes the image or its name.
    fn not_inspected(&self, problem: &str) -> StartError {
        let image = self.spec().ok().and_then(|spec| spec.image.clone()).unwrap_or_default();
        let message = format!("Failed to inspect image {image:?}: {problem}");
        self.event(EventType::Warning, "InspectFailed", message.clone());
        self.event(EventType::Warning, "Failed", format!("Error: {NOT_INSPECTED}"));
        StartError::Image { reason: NOT_INSPECTED, message, permanent: true }
    }

    /// The image, by the container's pull policy.
    async fn image(&self) -> Result<Arc<Image>, StartError> {
        let spec = self.spec()?;
        let reference = spec.image.as_deref().unwrap_or_default();
        let policy = pull_policy(&spec);
        let local = self.shared.images.get(reference).map_err(|error| {
            let message = format!("Failed to apply default image tag {reference:?}: {error}");
            self.event(EventType::Warning, "InspectFailed", message.clone());
            self.event(EventType::Warning, "Failed", format!("Error: {}", error.reason));
            StartError::Image { reason: error.reason, message, permanent: false }
        })?;
        match (policy, local) {
            ("Always", _) | ("IfNotPresent", None) => self.pull(reference).await,
            (_, Some(image)) => {
                self.event(
                    EventType::Normal,
                    "Pulled",
                    format!("Container image {reference:?} already present on machine and can be accessed by the pod"),
                );
                Ok(image)
            }
            (_, None) => {
                let message = format!("Container image {reference:?} is not present with pull policy of Never");
                self.event(EventType::Warning, "ErrImageNeverPull", message.clone());
                self.event(EventType::Warning, "Failed", "Error: ErrImageNeverPull");
                Err(StartError::Image { reason: "ErrImageNeverPull", message, permanent: false })
            }
        }
    }

    async fn pull(&self, reference: &str) -> Result<Arc<Image>, StartError> {
        self.event(EventType::Normal, "Pulling", format!("Pulling image {reference:?}"));
        let secrets = pull_secrets(&self.shared, &self.pod);
        let began = std::time::Instant::now();
        let pulled = tokio::select! {
            pulled = self.shared.images.pull(reference, &secrets) => pulled,
            () = self.cancel.cancelled() => return Err(StartError::Cancelled),
        };
        match pulled {
            Ok(image) => {
                let took = go_millis(began.elapsed());
                let size: u64 = image.layers.iter().map(|layer| layer.size).sum::<u64>() + image.config.size;
                let text = format!(
                    "Successfully pulled image {reference:?} in {took} ({took} including waiting). Image size: {size} bytes."
                );
                self.event(EventType::Normal, "Pulled", text);
                Ok(image)
            }
            Err(error) if error.reason == NOT_INSPECTED => Err(self.not_inspected(&error.message)),
            Err(error) => {
                self.event(EventType::Warning, "Failed", format!("Failed to pull image {reference:?}: {error}"));
                self.event(EventType::Warning, "Failed", format!("Error: {}", error.reason));
                Err(StartError::Pull { reason: error.reason, message: error.message })
            }
        }
    }

    fn runtime(&self, image: &Image) -> Result<Arc<dyn Runtime>, StartError> {
        let wrong = |message: String| {
            self.event(EventType::Warning, "Failed", format!("Error: {message}"));
            StartError::Create { message, permanent: true }
        };
        if image.kind == ImageKind::Container && self.shared.is_wasm_class(&self.pod) {
            let class = self.pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone()).unwrap_or_default();
            return Err(wrong(format!(
                "image {} is a container image, and runtimeClassName {class} runs WebAssembly",
                image.reference
            )));
        }
        let Some(runtime) = self.shared.runtime(image.kind) else {
            return Err(wrong(format!(
                "image {} is a container image, and node {} runs WebAssembly only (no containerd or no root)",
                image.reference, self.shared.node_name
            )));
        };
        if image.kind == ImageKind::Container && self.network.namespace().is_none() {
            return Err(wrong(format!(
                "image {} is a container image, and a Pod of WebAssembly alone has no network namespace to run it in; use a \
                 Wasm image here, or a copy of the Pod (kubectl debug --copy-to) that has a container from its start",
                image.reference
            )));
        }
        Ok(runtime.clone())
    }

    fn container_spec(&self, image: &Arc<Image>) -> Result<ContainerSpec, ConfigError> {
        let (shared, pod) = (&self.shared, &*self.pod);
        let spec = lifecycle::container(pod, self.slot)
            .ok_or_else(|| ConfigError::Invalid("no such container in the Pod".to_owned()))?;
        let spec = &*spec;
        let field = self.field();
        if matches!(self.slot, Slot::Ephemeral(_)) {
            // The others were looked at with their Pod.
            admit::container(&field, spec)?;
        }
        admit::kind(pod, &field, spec, image.kind)?;
        security::non_root(pod, spec, image)?;
        let security = security::security(pod, spec, &shared.seccomp_profiles)?;
        let known = env::Known {
            facts: &shared.facts(self.network.ips()),
            node: &shared.capacity,
            objects: &*shared.objects,
            volumes: &self.volumes,
        };
        let launch = env::launch(pod, spec, &known)?;
        let pins = shared.pins.as_ref().filter(|_| image.kind == ImageKind::Container);
        let mut mounts = volumes::mounts(spec, &field, &self.volumes, &launch.env, pins)?;
        self.add_files(spec, image.kind, &mut mounts);
        Ok(ContainerSpec {
            id: new_id(),
            pod: self.reference.clone(),
            name: spec.name.clone(),
            attempt: self.attempt,
            image: image.clone(),
            command: launch.command,
            args: launch.args,
            env: launch.env,
            working_dir: spec.working_dir.clone().filter(|dir| !dir.is_empty()).map(PathBuf::from),
            mounts,
            limits: limits(spec.resources.as_ref())?,
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
                .filter_map(|port| u16::try_from(port.container_port).ok())
                .collect(),
            network: self.network.clone(),
            hostname: files::kernel_name(pod, &shared.node_name, &shared.network.dns().domain)
                .map_err(ConfigError::Invalid)?,
            security,
            cgroup_parent: format!("/wherry/pod{}", self.reference.uid),
            stdin: spec.stdin == Some(true),
            stdin_once: spec.stdin_once == Some(true),
            tty: spec.tty == Some(true),
        })
    }

    /// The agent's own files, where no volume is mounted over them, made when somebody needs them.
    fn add_files(&self, spec: &Container, kind: ImageKind, mounts: &mut Vec<Mount>) {
        let target =
            spec.termination_message_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(TERMINATION_LOG);
        let message = termination_log(&self.dir, &spec.name, self.attempt);
        let made = {
            let message = message.clone();
            Arc::new(Deferred::new(move || make_message(&message)))
        };
        let etc = self.dir.join("etc");
        // A module's names are looked up by its node, whatever it would write there.
        let names = kind == ImageKind::Wasm;
        let own = [
            (etc.join("hosts"), "/etc/hosts", names, self.etc.clone()),
            (etc.join("resolv.conf"), "/etc/resolv.conf", names, self.etc.clone()),
            (etc.join("hostname"), "/etc/hostname", true, self.etc.clone()),
            (message, target, false, Some(made)),
        ];
        for (source, target, read_only, made) in own {
            let target = PathBuf::from(target);
            if !mounts.iter().any(|mount| mount.target == target) {
                let maker = made.map(|made| Maker(made));
                mounts.push(Mount { source, target, read_only, maker, ..Mount::default() });
            }
        }
    }
}

/// An empty file for a last message.
fn make_message(file: &Path) -> io::Result<()> {
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(file, b"")?;
    // Containers write it as whatever user they are.
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

/// `imagePullPolicy`, given or by default.
pub(super) fn pull_policy(container: &Container) -> &str {
    let by_name = || default_policy(container.image.as_deref().unwrap_or_default());
    container.image_pull_policy.as_deref().unwrap_or_else(by_name)
}

/// `Always` for `:latest` or no tag, as the API server defaults it.
pub(super) fn default_policy(reference: &str) -> &'static str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let moving = !reference.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
    if moving { "Always" } else { "IfNotPresent" }
}

/// What a container's resources amount to.
pub(super) fn limits(resources: Option<&ResourceRequirements>) -> Result<Limits, ConfigError> {
    let quantity =
        |list: Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
         name: &str| {
            let text = list.and_then(|list| list.get(name)).map(|quantity| quantity.0.as_str());
            text.map(|text| Quantity::parse(text).map_err(|error| ConfigError::Invalid(format!("{text}: {error}"))))
                .transpose()
        };
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    Ok(Limits {
        cpu_millis: quantity(limits, "cpu")?.and_then(|cpu| positive(cpu.milli_value())),
        cpu_request_millis: quantity(requests, "cpu")?.and_then(|cpu| positive(cpu.milli_value())),
        memory_bytes: quantity(limits, "memory")?.and_then(|memory| positive(memory.value())),
    })
}

fn new_id() -> ContainerId {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    ContainerId(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// As Go prints a duration cut to milliseconds: `35ms`, `1.234s`, `1m2.5s`.
pub(super) fn go_millis(duration: std::time::Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let text = format!("{}.{:03}", millis / 1000 % 60, millis % 1000);
    let seconds = text.trim_end_matches('0').trim_end_matches('.');
    let minutes = millis / 60_000;
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn texts_are_gos() {
        for (millis, text) in [(35, "35ms"), (1234, "1.234s"), (2000, "2s"), (10_000, "10s"), (62_500, "1m2.5s")] {
            assert_eq!(go_millis(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn moving_tags_are_always_pulled() {
        for (reference, policy) in [
            ("a", "Always"),
            ("h:5000/a", "Always"),
            ("a:latest", "Always"),
            ("a:1", "IfNotPresent"),
            ("a@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(default_policy(reference), policy, "{reference}");
        }
    }
}
