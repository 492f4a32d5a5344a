//! From an image's layers to a snapshot that containers start from.
//!
//! A layer's snapshot is named by its chain: the digest of everything up to it, uncompressed. So images share what they
//! have in common, and a layer that is there is not unpacked again. Content and half-made snapshots are held by a lease
//! that expires; what stays is the image's last snapshot, held by a lease of the image. containerd's copy of the compressed
//! layers is then collected: ours is in the image store.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{
    AddResourceRequest, ApplyRequest, CreateRequest, DeleteRequest, ListRequest, Resource, WriteAction,
    WriteContentRequest,
};
use containerd_client::types;
use futures::StreamExt;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use wherry_runtime::{Descriptor, Image, ImageKind, Kept, RuntimeError};

use crate::client::{Client, failed, is_lost, unless_exists, unless_missing};

/// Chunks of a layer on their way to containerd, and their size.
const QUEUE: usize = 4;
const CHUNK: usize = 1 << 20;
/// More than any unpacking takes; what an interrupted one left is collected after it.
const LEASE_HOURS: i64 = 6;
/// The lease of an image is named by this and its manifest's digest.
const KEEP: &str = "wherry-image-";

/// What a runtime needs of an image's config blob.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ImageFacts {
    rootfs: RootFs,
    config: ExecFacts,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ExecFacts {
    stop_signal: Option<String>,
}

impl ImageFacts {
    pub(crate) async fn read(image: &Image) -> Result<Self, RuntimeError> {
        let path = &image.config.path;
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|e| RuntimeError::Failed(format!("can't read {}: {e}", path.display())))?;
        let invalid = |problem: String| RuntimeError::InvalidImage(format!("{}: {problem}", image.reference));
        let facts: Self =
            serde_json::from_slice(&bytes).map_err(|e| invalid(format!("the config can't be read: {e}")))?;
        let (ids, layers) = (facts.rootfs.diff_ids.len(), image.layers.len());
        if ids != layers {
            return Err(invalid(format!("its config names {ids} layers, its manifest {layers}")));
        }
        Ok(facts)
    }

    /// The image's own way to be asked to end; SIGTERM where it names none, or none that we know.
    pub(crate) fn stop_signal(&self) -> u32 {
        let name = self.config.stop_signal.as_deref().unwrap_or_default();
        if let Some(number) = name.parse::<u32>().ok().filter(|n| (1..=64).contains(n)) {
            return number;
        }
        let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
        let signal: nix::sys::signal::Signal = full.parse().unwrap_or(nix::sys::signal::Signal::SIGTERM);
        (signal as i32).cast_unsigned()
    }

    /// The chain of each layer, lowest first.
    fn chains(&self) -> Vec<String> {
        let mut chains: Vec<String> = Vec::new();
        for id in &self.rootfs.diff_ids {
            let chain = match chains.last() {
                None => id.clone(),
                Some(below) => format!("sha256:{}", hex::encode(Sha256::digest(format!("{below} {id}")))),
            };
            chains.push(chain);
        }
        chains
    }
}

/// Unpacks images, each once at a time.
pub(crate) struct Unpacker {
    client: Client,
    snapshotter: String,
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Unpacker {
    pub(crate) fn new(client: Client, snapshotter: String) -> Self {
        Self { client, snapshotter, locks: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// The name of the snapshot that containers of this image start from; makes it where it is missing.
    pub(crate) async fn unpack(&self, image: &Image, facts: &ImageFacts) -> Result<String, RuntimeError> {
        if image.kind != ImageKind::Container {
            return Err(RuntimeError::InvalidImage(format!(
                "{} is a Wasm image: containerd can't run it",
                image.reference
            )));
        }
        let chains = facts.chains();
        let Some(top) = chains.last().cloned() else {
            return Err(RuntimeError::InvalidImage(format!("{} has no layers", image.reference)));
        };
        let lock = self.lock(&image.manifest.digest);
        let _alone = lock.lock().await;
        let keep = format!("{KEEP}{}", image.manifest.digest);
        if self.exists(&top).await? {
            return self.keep(&keep, &top).await.map(|()| top);
        }
        let work = format!("wherry-unpack-{}", unique());
        self.lease(&work, true).await?;
        let result = self.layers(image, facts, &chains, &work).await;
        let result = match result {
            Ok(()) => self.keep(&keep, &top).await,
            Err(error) => Err(error),
        };
        let end = self.client.leases().delete(self.client.call(DeleteRequest { id: work, sync: false })).await;
        if let Err(error) = unless_missing(end) {
            tracing::debug!(%error, "a lease stays until it expires");
        }
        result.map(|()| top)
    }

    /// Lets the snapshots go of images that are not kept; containers that run keep what they stand on.
    pub(crate) async fn retain(&self, kept: &Kept<'_>) -> Result<(), RuntimeError> {
        let request = self.client.call(ListRequest { filters: Vec::new() });
        let leases = self.client.leases().list(request).await.map_err(failed("list leases"))?.into_inner().leases;
        let of_images = leases.into_iter().filter_map(|lease| Some(lease.id.strip_prefix(KEEP)?.to_owned()));
        let gone: Vec<String> = of_images.filter(|digest| !kept(digest)).collect();
        for (n, digest) in gone.iter().enumerate() {
            let lock = self.lock(digest);
            let _alone = lock.lock().await;
            // It may have come again.
            if kept(digest) {
                continue;
            }
            // The last one waits until what they all held is collected.
            let request = DeleteRequest { id: format!("{KEEP}{digest}"), sync: n + 1 == gone.len() };
            unless_missing(self.client.leases().delete(self.client.call(request)).await)
                .map_err(failed("end an image's lease"))?;
        }
        Ok(())
    }

    fn lock(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(digest.to_owned(), Arc::downgrade(&lock));
        lock
    }

    async fn exists(&self, name: &str) -> Result<bool, RuntimeError> {
        let request = StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: name.to_owned() };
        let stat = self.client.snapshots().stat(self.client.call(request)).await;
        Ok(unless_missing(stat).map_err(failed("look for a snapshot"))?.is_some())
    }

    async fn lease(&self, id: &str, expires: bool) -> Result<(), RuntimeError> {
        let mut labels = HashMap::from([("wherry.dev/managed".to_owned(), "true".to_owned())]);
        if expires {
            let at = std::time::SystemTime::now() + std::time::Duration::from_secs(3600 * LEASE_HOURS.unsigned_abs());
            labels.insert("containerd.io/gc.expire".to_owned(), rfc3339(at));
        }
        let made = self.client.leases().create(self.client.call(CreateRequest { id: id.to_owned(), labels })).await;
        unless_exists(made).map_err(failed("make a lease"))
    }

    /// Holds the image's last snapshot, and by it all below.
    async fn keep(&self, lease: &str, top: &str) -> Result<(), RuntimeError> {
        self.lease(lease, false).await?;
        let resource = Resource { id: top.to_owned(), r#type: format!("snapshots/{}", self.snapshotter) };
        let request = AddResourceRequest { id: lease.to_owned(), resource: Some(resource) };
        unless_exists(self.client.leases().add_resource(self.client.call(request)).await)
            .map_err(failed("keep a snapshot"))
    }

    async fn layers(
        &self,
        image: &Image,
        facts: &ImageFacts,
        chains: &[String],
        lease: &str,
    ) -> Result<(), RuntimeError> {
        let mut parent = String::new();
        for ((layer, diff_id), chain) in image.layers.iter().zip(&facts.rootfs.diff_ids).zip(chains) {
            if !self.exists(chain).await? {
                self.layer(image, layer, diff_id, chain, &parent, lease).await?;
            }
            parent.clone_from(chain);
        }
        Ok(())
    }

    async fn layer(
        &self,
        image: &Image,
        layer: &Descriptor,
        diff_id: &str,
        chain: &str,
        parent: &str,
        lease: &str,
    ) -> Result<(), RuntimeError> {
        self.ingest(layer, lease).await?;
        let key = format!("extract-{} {chain}", unique());
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let prepared = self
            .client
            .snapshots()
            .prepare(self.client.leased(request, lease))
            .await
            .map_err(failed("prepare a snapshot"))?;
        let result = self.apply(image, layer, diff_id, prepared.into_inner().mounts, lease).await;
        if let Err(error) = result {
            let request = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key };
            let _ = self.client.snapshots().remove(self.client.call(request)).await;
            return Err(error);
        }
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: chain.to_owned(),
            key,
            labels: HashMap::new(),
        };
        unless_exists(self.client.snapshots().commit(self.client.leased(request, lease)).await)
            .map_err(failed("commit a snapshot"))
    }

    async fn apply(
        &self,
        image: &Image,
        layer: &Descriptor,
        diff_id: &str,
        mounts: Vec<types::Mount>,
        lease: &str,
    ) -> Result<(), RuntimeError> {
        let diff = types::Descriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest.clone(),
            size: layer.size.cast_signed(),
            annotations: HashMap::new(),
        };
        let request = ApplyRequest { diff: Some(diff), mounts, payloads: HashMap::new(), sync_fs: false };
        let applied = self.client.diff().apply(self.client.leased(request, lease)).await;
        let invalid = |problem: &str| {
            RuntimeError::InvalidImage(format!("{}: layer {}: {problem}", image.reference, layer.digest))
        };
        let applied = applied.map_err(|status| {
            if is_layers_fault(&status) { invalid(status.message()) } else { failed("unpack a layer")(status) }
        })?;
        match applied.into_inner().applied {
            Some(applied) if applied.digest == diff_id => Ok(()),
            Some(applied) => Err(invalid(&format!("it unpacks to {}, but the config says {diff_id}", applied.digest))),
            None => Err(RuntimeError::Failed("containerd does not say what it unpacked".into())),
        }
    }

    /// Streams a blob into containerd's content store.
    async fn ingest(&self, blob: &Descriptor, lease: &str) -> Result<(), RuntimeError> {
        let (queue, requests) = mpsc::channel(QUEUE);
        let reader = read_blob(blob.clone(), queue);
        let write = async {
            let stream = tokio_stream::wrappers::ReceiverStream::new(requests);
            let mut answers = self.client.content().write(self.client.leased(stream, lease)).await?.into_inner();
            while let Some(answer) = answers.next().await {
                if WriteAction::try_from(answer?.action) == Ok(WriteAction::Commit) {
                    return Ok(());
                }
            }
            Err(Status::aborted("containerd took a layer without keeping it"))
        };
        let (read, written) = tokio::join!(reader, write);
        match written {
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(read.err().unwrap_or_else(|| failed("take a layer")(status))),
            Ok(()) => read,
        }
    }
}

/// Reads a blob into requests; ends early where nobody takes them any more.
async fn read_blob(blob: Descriptor, queue: mpsc::Sender<WriteContentRequest>) -> Result<(), RuntimeError> {
    let unreadable = |e: std::io::Error| RuntimeError::Failed(format!("can't read {}: {e}", blob.path.display()));
    let mut file = tokio::fs::File::open(&blob.path).await.map_err(unreadable)?;
    let (reference, total) = (format!("wherry-{}-{}", blob.digest, unique()), blob.size.cast_signed());
    let request = |action: WriteAction, offset: i64, data: Vec<u8>| WriteContentRequest {
        action: action as i32,
        r#ref: reference.clone(),
        total,
        expected: blob.digest.clone(),
        offset,
        data,
        labels: HashMap::new(),
    };
    let mut offset = 0i64;
    loop {
        let mut data = Vec::with_capacity(CHUNK.min(usize::try_from(blob.size).unwrap_or(CHUNK)) + 1);
        let length = (&mut file).take(CHUNK as u64).read_to_end(&mut data).await.map_err(unreadable)?;
        let last = length == 0;
        let next = if last {
            request(WriteAction::Commit, offset, Vec::new())
        } else {
            request(WriteAction::Write, offset, data)
        };
        if queue.send(next).await.is_err() || last {
            return Ok(());
        }
        offset += length as i64;
    }
}

/// Whether the layer itself is at fault: trying again is useless.
fn is_layers_fault(status: &Status) -> bool {
    const SIGNS: [&str; 7] = [
        "archive/tar",
        "gzip",
        "zstd",
        "unexpected EOF",
        "invalid tar header",
        "no processor for media-type",
        "currently unsupported",
    ];
    !is_lost(status) && SIGNS.iter().any(|sign| status.message().contains(sign))
}

/// A name that nobody else has.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{now:x}-{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn rfc3339(at: std::time::SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn facts(json: &str) -> ImageFacts {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn chains_are_the_ones_of_the_image_specification() {
        // The specification: ChainID(L0) = DiffID(L0); ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln)).
        let chains = facts(r#"{"rootfs": {"diff_ids": ["sha256:aa", "sha256:bb"]}}"#).chains();
        assert_eq!(chains[0], "sha256:aa");
        assert_eq!(chains[1], format!("sha256:{}", hex::encode(Sha256::digest("sha256:aa sha256:bb"))));
    }

    #[test]
    fn stop_signals_have_several_spellings() {
        let signal = |name: &str| facts(&format!(r#"{{"config": {{"StopSignal": "{name}"}}}}"#)).stop_signal();
        assert_eq!(
            [signal("SIGQUIT"), signal("QUIT"), signal("3"), signal(""), signal("ODD"), signal("900")],
            [3, 3, 3, 15, 15, 15]
        );
    }
}
