//! Images, and the machine whose disk they fill.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use wherry_agent::ports::{Amount, ImageSource, Left, NodeImage, PullError, Supply};
use wherry_runtime::{Descriptor, Image, ImageKind};

/// A machine that has as much left as a test says; at first of everything more than enough.
pub struct Machine(Mutex<Left>, AtomicUsize);

impl Default for Machine {
    fn default() -> Self {
        let plenty = Some(Amount { available: 1 << 40, capacity: 1 << 40 });
        let left = Left { memory: plenty, disk: plenty, inodes: plenty, pids: plenty };
        Self(Mutex::new(left), AtomicUsize::new(0))
    }
}

impl Machine {
    pub fn set(&self, change: impl FnOnce(&mut Left)) {
        change(&mut self.0.lock());
    }

    /// How often the agent has looked at it.
    pub fn looks(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Supply for Machine {
    fn left(&self) -> Left {
        self.1.fetch_add(1, Ordering::Relaxed);
        *self.0.lock()
    }
}

/// What collecting an image gives back.
pub const IMAGE_BYTES: u64 = 1 << 20;

/// Images by reference; what is not there cannot be pulled. Those that are collected give room to the machine's disk.
#[derive(Default)]
pub struct Images {
    known: Mutex<HashMap<String, (ImageKind, bool)>>,
    held: Mutex<Vec<Weak<Image>>>,
    pub machine: Arc<Machine>,
}

impl Images {
    /// An image on the node (or, where not `local`, in the registry).
    pub fn add(&self, reference: &str, kind: ImageKind, local: bool) {
        self.known.lock().insert(reference.to_owned(), (kind, local));
    }

    /// The digest of an image's manifest.
    pub fn digest(reference: &str) -> String {
        let hex: String = reference.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex:0>64}")
    }

    fn hand_out(&self, reference: &str, kind: ImageKind) -> Arc<Image> {
        let image = Self::image(reference, kind);
        self.held.lock().push(Arc::downgrade(&image));
        image
    }

    fn image(reference: &str, kind: ImageKind) -> Arc<Image> {
        let blob = Descriptor {
            media_type: String::new(),
            digest: Self::digest(reference),
            size: 1,
            path: PathBuf::from("/dev/null"),
        };
        Arc::new(Image {
            reference: reference.to_owned(),
            id: format!("{reference}@sha256:{:064}", 1),
            kind,
            manifest: blob.clone(),
            config: blob.clone(),
            layers: vec![blob],
            entrypoint: vec![],
            cmd: vec![],
            env: vec![],
            working_dir: None,
            user: None,
        })
    }
}

#[async_trait]
impl ImageSource for Images {
    fn get(&self, reference: &str) -> Result<Option<Arc<Image>>, PullError> {
        if reference.contains(' ') {
            return Err(PullError { reason: "InvalidImageName", message: "not a reference".to_owned() });
        }
        let known = self.known.lock();
        Ok(known.get(reference).filter(|(_, local)| *local).map(|(kind, _)| self.hand_out(reference, *kind)))
    }

    async fn latest_kind(&self, reference: &str, _secrets: &[Vec<u8>]) -> Option<ImageKind> {
        self.known.lock().get(reference).map(|(kind, _)| *kind)
    }

    async fn pull(&self, reference: &str, _secrets: &[Vec<u8>]) -> Result<Arc<Image>, PullError> {
        let mut images = self.known.lock();
        let Some((kind, local)) = images.get_mut(reference) else {
            return Err(PullError {
                reason: "ErrImagePull",
                message: format!("{reference}: not found in the registry"),
            });
        };
        *local = true;
        Ok(self.hand_out(reference, *kind))
    }

    fn unpack(&self, image: &Image, dir: &Path) -> Result<(), PullError> {
        let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(dir.join("name"), &image.reference));
        written.map_err(|error| PullError { reason: "ErrImagePull", message: error.to_string() })
    }

    fn list(&self) -> Vec<NodeImage> {
        Vec::new()
    }

    fn note_uses(&self) {}

    fn collect(&self, bytes: u64, _min_age: Duration) -> Result<u64, String> {
        let mut known = self.known.lock();
        let held: Vec<_> =
            self.held.lock().iter().filter_map(Weak::upgrade).map(|image| image.reference.clone()).collect();
        let mut freed = 0;
        for (reference, (_, local)) in known.iter_mut() {
            if freed < bytes && *local && !held.contains(reference) {
                *local = false;
                freed += IMAGE_BYTES;
            }
        }
        self.machine.set(|left| left.disk.as_mut().unwrap().available += freed);
        Ok(freed)
    }

    fn blobs(&self) -> Result<HashSet<String>, String> {
        let known = self.known.lock();
        Ok(known.iter().filter(|(_, (_, local))| *local).map(|(reference, _)| Self::digest(reference)).collect())
    }
}
