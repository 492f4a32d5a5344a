//! Collecting images that nobody uses, where room is wanted.
//!
//! An image is in use as long as somebody in this process holds what [`get`](Images::get), [`pull`](Images::pull) or
//! [`load`](Images::load) gave out. It is the image of one manifest, whatever its names.
//!
//! # Flow
//! records → [`choose`]: who goes, least recently used first → each is forgotten unless somebody has taken it meanwhile → the
//! blobs that no record names any more are removed.
//!
//! # Guarantees
//! - What is held is not collected, nor what came a moment ago, nor what was loaded from a file: nobody could pull it again.
//! - No blob goes that a record names, those that other processes write included (the store's commit lock).
//!
//! When an image was used last, the times of its records' files say; so it is known after a restart.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use wherry_runtime::Image;

use crate::images::{Images, Inner};
use crate::record::Record;
use crate::{ImageError, Reference};

/// Blobs without a record that are so old were left behind. (Younger ones may belong to an image that is on its way.)
const FORLORN: Duration = Duration::from_secs(24 * 3600);

/// Who holds which image: by name and manifest.
pub(crate) type Held = BTreeMap<(String, String), Weak<Image>>;

/// What is known of an image when some have to go.
#[derive(Clone, Debug)]
struct Known {
    manifest: String,
    names: Vec<String>,
    blobs: BTreeMap<String, u64>,
    came_at: SystemTime,
    used_at: SystemTime,
    /// It was loaded from a file.
    loaded: bool,
}

/// The images that are to go, in order, until `wanted` bytes are free: what others share with them frees nothing.
fn choose<'a>(images: &'a [Known], in_use: &HashSet<String>, wanted: u64, latest: SystemTime) -> Vec<&'a Known> {
    let mut shared: BTreeMap<&str, usize> = BTreeMap::new();
    for blob in images.iter().flat_map(|image| image.blobs.keys()) {
        *shared.entry(blob).or_default() += 1;
    }
    let may_go = |image: &&Known| !image.loaded && !in_use.contains(&image.manifest) && image.came_at <= latest;
    let mut order: Vec<&Known> = images.iter().filter(may_go).collect();
    order.sort_by(|a, b| (a.used_at, a.came_at, &a.manifest).cmp(&(b.used_at, b.came_at, &b.manifest)));
    let mut freed = 0;
    let mut chosen = Vec::new();
    for image in order {
        if freed >= wanted {
            break;
        }
        for (blob, bytes) in &image.blobs {
            let users = shared.entry(blob).or_default();
            *users = users.saturating_sub(1);
            if *users == 0 {
                freed += bytes;
            }
        }
        chosen.push(image);
    }
    chosen
}

impl Inner {
    /// An image for a caller, who uses it as long as it is held.
    pub(crate) fn hand_out(&self, record: &Record) -> Arc<Image> {
        Self::give(&mut self.held.lock(), record.image(&self.store))
    }

    /// The image of a name, where all of it is here.
    pub(crate) fn find(&self, reference: &Reference) -> Option<Arc<Image>> {
        // Under the lock: nobody collects it between the look and the taking.
        let mut held = self.held.lock();
        let record = self.store.record(&reference.to_string()).filter(|record| record.is_complete(&self.store))?;
        Some(Self::give(&mut held, record.image(&self.store)))
    }

    fn give(held: &mut Held, image: Image) -> Arc<Image> {
        let key = (image.reference.clone(), image.manifest.digest.clone());
        if let Some(known) = held.get(&key).and_then(Weak::upgrade).filter(|known| **known == image) {
            return known;
        }
        held.retain(|_, known| known.strong_count() > 0);
        let image = Arc::new(image);
        held.insert(key, Arc::downgrade(&image));
        image
    }

    fn known(&self) -> Result<Vec<Known>, ImageError> {
        let mut all: BTreeMap<String, Known> = BTreeMap::new();
        for record in self.store.records()? {
            let used_at = self.store.used_at(&record.reference).unwrap_or_else(|| record.pulled_at());
            let known = all.entry(record.manifest.digest.clone()).or_insert_with(|| Known {
                manifest: record.manifest.digest.clone(),
                names: Vec::new(),
                blobs: BTreeMap::new(),
                came_at: record.pulled_at(),
                used_at,
                loaded: false,
            });
            known.blobs.extend(record.blobs().map(|blob| (blob.digest.clone(), blob.size)));
            known.came_at = known.came_at.max(record.pulled_at());
            known.used_at = known.used_at.max(used_at);
            known.loaded |= record.is_loaded;
            known.names.push(record.reference);
        }
        Ok(all.into_values().collect())
    }
}

impl Images {
    /// Notes that the images that are held are in use now. What is noted seldom is known roughly only.
    pub fn note_uses(&self) {
        let held: Vec<String> = {
            let held = self.inner.held.lock();
            held.iter().filter(|(_, image)| image.strong_count() > 0).map(|((name, _), _)| name.clone()).collect()
        };
        for name in held {
            self.inner.store.touch(&name);
        }
    }

    /// Removes images that nobody holds and that came at least `min_age` ago, the least recently used first, until `wanted`
    /// bytes are free. How many bytes that were. Blocking.
    ///
    /// # Errors
    /// What the disk says; what was removed until then is.
    pub fn collect(&self, wanted: u64, min_age: Duration) -> Result<u64, ImageError> {
        let store = &self.inner.store;
        let _alone = store.commit()?;
        let images = self.inner.known()?;
        let in_use = {
            let held = self.inner.held.lock();
            held.iter()
                .filter(|(_, image)| image.strong_count() > 0)
                .map(|((_, manifest), _)| manifest.clone())
                .collect()
        };
        let latest = SystemTime::now().checked_sub(min_age).unwrap_or(SystemTime::UNIX_EPOCH);
        for image in choose(&images, &in_use, wanted, latest) {
            let held = self.inner.held.lock();
            if held.iter().any(|((_, manifest), one)| *manifest == image.manifest && one.strong_count() > 0) {
                continue;
            }
            for name in &image.names {
                store.forget(name)?;
            }
            drop(held);
            tracing::info!(image = image.names.first(), "removed an image that nobody uses, for its room");
        }
        let named = self.named()?;
        let theirs: HashSet<&str> = images.iter().flat_map(|image| image.blobs.keys().map(String::as_str)).collect();
        store.remove_blobs(|digest, age| !named.contains(digest) && (theirs.contains(digest) || age > FORLORN))
    }

    /// The digests of all blobs of the images on this node.
    ///
    /// # Errors
    /// Where the records cannot be listed.
    pub fn named(&self) -> Result<HashSet<String>, ImageError> {
        let records = self.inner.store.records()?;
        Ok(records.iter().flat_map(|record| record.blobs().map(|blob| blob.digest.clone())).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::{Options, Silent};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn known() -> impl Strategy<Value = Known> {
        let blobs = prop::collection::btree_map("[a-f]", 1..50_u64, 1..4);
        ("[0-9]{4}", blobs, 0..100_u64, 0..100_u64, prop::bool::weighted(0.2)).prop_map(
            |(manifest, blobs, came, used, loaded)| Known {
                names: vec![manifest.clone()],
                manifest,
                blobs,
                came_at: at(came),
                used_at: at(used),
                loaded,
            },
        )
    }

    /// What is free once these are gone.
    fn freed(images: &[Known], gone: &[&Known]) -> u64 {
        let left: HashSet<&String> = images
            .iter()
            .filter(|image| !gone.iter().any(|one| std::ptr::eq(*one, *image)))
            .flat_map(|image| image.blobs.keys())
            .collect();
        let mut freed: BTreeMap<&String, u64> = BTreeMap::new();
        for (blob, bytes) in gone.iter().flat_map(|image| &image.blobs) {
            if !left.contains(blob) {
                freed.insert(blob, *bytes);
            }
        }
        freed.values().sum()
    }

    proptest! {
        #[test]
        fn the_least_recently_used_go_first_and_no_more_than_needed(
            mut images in prop::collection::vec(known(), 0..8), wanted in 0..200_u64, used in prop::collection::hash_set("[0-9]{4}", 0..3)
        ) {
            // A blob has one size.
            let sizes: BTreeMap<String, u64> = images.iter().flat_map(|image| image.blobs.clone()).collect();
            for image in &mut images {
                image.blobs.iter_mut().for_each(|(blob, bytes)| *bytes = sizes[blob]);
            }
            let in_use: HashSet<String> = images.iter().take(1).map(|image| image.manifest.clone()).chain(used).collect();
            let latest = at(60);
            let chosen = choose(&images, &in_use, wanted, latest);
            for image in &chosen {
                prop_assert!(!image.loaded && !in_use.contains(&image.manifest) && image.came_at <= latest);
            }
            let may_go = |image: &&Known| !image.loaded && !in_use.contains(&image.manifest) && image.came_at <= latest;
            let kept = images.iter().filter(may_go).filter(|image| !chosen.iter().any(|one| std::ptr::eq(*one, *image)));
            let last = chosen.last().map(|image| image.used_at);
            for image in kept {
                prop_assert!(freed(&images, &chosen) >= wanted, "one was kept though more was wanted");
                prop_assert!(last.is_none_or(|last| image.used_at >= last));
            }
            if let Some((_, before)) = chosen.split_last() {
                prop_assert!(freed(&images, before) < wanted, "one more than needed");
            }
        }
    }

    async fn module(images: &Images, dir: &Path, name: &str, bytes: &[u8]) -> Arc<Image> {
        let file = dir.join("app.wasm");
        std::fs::write(&file, [b"\0asm\x01\0\0\0", bytes].concat()).unwrap();
        let image = images.load(&file, name, Arc::new(Silent)).await.unwrap();
        // As if it had been pulled.
        for record in images.inner.store.records().unwrap() {
            images.inner.store.save(&record.loaded(false)).unwrap();
        }
        image
    }

    #[tokio::test]
    async fn what_is_held_stays_and_what_it_shares() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path().join("images"), Options::default()).unwrap();
        let first = module(&images, dir.path(), "a.test/first:1", b"\x00\x02\x01a").await;
        // The same under another name: one image.
        let again = module(&images, dir.path(), "a.test/again:1", b"\x00\x02\x01a").await;
        let other = module(&images, dir.path(), "a.test/other:1", b"\x00\x02\x01b").await;
        let there = |image: &Arc<Image>| image.layers[0].path.exists() && image.manifest.path.exists();
        assert_eq!(images.collect(u64::MAX, Duration::from_secs(120)).unwrap(), 0, "they have just come");
        drop(first);
        assert_eq!(images.collect(u64::MAX, Duration::ZERO).unwrap(), 0, "both are held");
        assert!(there(&again) && there(&other));
        let (blob, reference) = (again.layers[0].path.clone(), other.reference.clone());
        drop(again);
        let freed = images.collect(u64::MAX, Duration::ZERO).unwrap();
        assert!(freed > 12 && !blob.exists() && there(&other), "{freed}");
        assert!(images.get("a.test/first:1").unwrap().is_none() && images.get("a.test/again:1").unwrap().is_none());
        assert_eq!(images.get(&reference).unwrap(), Some(other.clone()));
        let named = images.named().unwrap();
        assert!(named.contains(&other.manifest.digest) && named.contains(&other.layers[0].digest));
    }

    #[tokio::test]
    async fn what_was_loaded_from_a_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path().join("images"), Options::default()).unwrap();
        let file = dir.path().join("app.wasm");
        std::fs::write(&file, b"\0asm\x01\0\0\0").unwrap();
        images.load(&file, "a.test/loaded:1", Arc::new(Silent)).await.unwrap();
        assert_eq!(images.collect(u64::MAX, Duration::ZERO).unwrap(), 0);
        assert!(images.get("a.test/loaded:1").unwrap().is_some());
    }
}
