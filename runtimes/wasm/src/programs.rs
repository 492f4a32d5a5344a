//! Programs by digest: compiled once, shared by all containers, whoever asks first pays.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, oneshot};
use wasmtime::Engine;
use wherry_runtime::{Image, ImageKind, RuntimeError};

use crate::Options;
use crate::cache::Cache;
use crate::engine;
use crate::imports::Offered;
use crate::program::{Encoding, Invalid, Program};
use crate::state::Linkers;

/// Programs that are kept although no container uses them.
const KEPT_UNUSED: usize = 256;

/// The answer for a digest: known for good, either way.
type Prepared = Result<Arc<Program>, Invalid>;

/// A layer's digest, and the export that is run instead of the usual one.
type Key = (String, Option<String>);

/// All programs of this node.
pub(crate) struct Programs {
    shared: Arc<Compiler>,
    known: Mutex<HashMap<Key, Arc<OnceCell<Prepared>>>>,
    threads: rayon::ThreadPool,
    /// As many jobs as there are threads: more would only queue.
    jobs: Arc<Semaphore>,
    image_bytes: u64,
}

/// What a compile job needs.
struct Compiler {
    engine: Engine,
    cache: Cache,
    linkers: Linkers,
}

/// A failure that says nothing about the image.
type Machinery = String;

impl Programs {
    pub(crate) fn new(engine: &Engine, options: &Options) -> Result<Self, Machinery> {
        let cache = Cache::open(&options.cache_dir, engine, options.cache_bytes)
            .map_err(|error| format!("the cache of compiled code at {}: {error}", options.cache_dir.display()))?;
        let linkers = Linkers::new(engine).map_err(|error| format!("the WASI host: {error:#}"))?;
        let threads = engine::compiler_threads(options).map_err(|error| format!("the compiler's threads: {error}"))?;
        Ok(Self {
            shared: Arc::new(Compiler { engine: engine.clone(), cache, linkers }),
            known: Mutex::default(),
            threads,
            jobs: Arc::new(Semaphore::new(options.threads)),
            image_bytes: options.image_bytes,
        })
    }

    /// The program of an image. Callers for one digest share one compilation; when all of them have given up, its result
    /// is still kept on disk.
    pub(crate) async fn get(&self, image: &Image, entry: Option<&str>) -> Result<Arc<Program>, RuntimeError> {
        let [layer] = image.layers.as_slice() else {
            let text = format!("{}: a Wasm image has one layer, this one has {}", image.reference, image.layers.len());
            return Err(RuntimeError::InvalidImage(text));
        };
        if image.kind != ImageKind::Wasm {
            return Err(RuntimeError::InvalidImage(format!("{} is a container image, not Wasm", image.reference)));
        }
        if layer.size > self.image_bytes {
            let text = format!(
                "{}: {} bytes are more than the {} that this node compiles",
                image.reference, layer.size, self.image_bytes
            );
            return Err(RuntimeError::InvalidImage(text));
        }
        let cell = self.cell((layer.digest.clone(), entry.map(str::to_owned)));
        let prepared = cell
            .get_or_try_init(|| self.prepare(&layer.digest, &layer.path, entry))
            .await
            .map_err(RuntimeError::Failed)?;
        prepared.clone().map_err(|invalid| RuntimeError::InvalidImage(format!("{}: {invalid}", image.reference)))
    }

    pub(crate) fn offered(&self) -> Offered {
        Offered::new(&self.shared.linkers.preview_1)
    }

    /// The layers of which there is compiled code on disk.
    pub(crate) fn compiled(&self) -> BTreeSet<String> {
        self.shared.cache.digests()
    }

    /// Those of them whose code this engine can use.
    pub(crate) fn usable(&self) -> BTreeSet<String> {
        self.shared.cache.usable()
    }

    /// Forgets a layer. What runs of it goes on.
    pub(crate) fn forget(&self, digest: &str) {
        self.known.lock().retain(|(known, _), _| known != digest);
        self.shared.cache.forget(digest);
    }

    fn cell(&self, key: Key) -> Arc<OnceCell<Prepared>> {
        let mut known = self.known.lock();
        if known.len() >= KEPT_UNUSED && !known.contains_key(&key) {
            known.retain(|_, cell| {
                let used = cell
                    .get()
                    .is_some_and(|prepared| prepared.as_ref().is_ok_and(|program| Arc::strong_count(program) > 1));
                used || Arc::strong_count(cell) > 1
            });
        }
        Arc::clone(known.entry(key).or_default())
    }

    async fn prepare(&self, digest: &str, path: &Path, entry: Option<&str>) -> Result<Prepared, Machinery> {
        let entry = entry.map(str::to_owned);
        let permit = Arc::clone(&self.jobs).acquire_owned().await.map_err(|_| "the runtime is shut down".to_owned())?;
        let (answer, answered) = oneshot::channel();
        let (compiler, digest, path) = (Arc::clone(&self.shared), digest.to_owned(), path.to_owned());
        self.threads.spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| compiler.prepare(&digest, &path, entry.as_deref())));
            let outcome = outcome.unwrap_or_else(|_| {
                Ok(Err(Invalid("the compiler failed on it (this is a bug of the compiler)".into())))
            });
            drop(permit);
            // The caller may have given up.
            let _ = answer.send(outcome);
        });
        answered.await.map_err(|_| "the runtime is shut down".to_owned())?
    }
}

impl Compiler {
    fn prepare(&self, digest: &str, path: &Path, entry: Option<&str>) -> Result<Prepared, Machinery> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Encoding::of(&bytes).and_then(|encoding| self.program(encoding, digest, &bytes, entry).map(Arc::new)))
    }

    fn program(&self, encoding: Encoding, digest: &str, bytes: &[u8], entry: Option<&str>) -> Result<Program, Invalid> {
        let found = self.cache.find(digest).and_then(|code| encoding.map(&self.engine, &code).ok());
        let mapped = match found {
            Some(mapped) => mapped,
            None => {
                let code = encoding.compile(&self.engine, bytes)?;
                let kept = self.cache.keep(digest, &code).map_err(wasmtime::Error::from);
                match kept.and_then(|path| encoding.map(&self.engine, &path)) {
                    Ok(mapped) => mapped,
                    Err(error) => {
                        tracing::warn!(digest, %error, "compiled code can't be kept on disk; this start pays for it again next time");
                        encoding.load(&self.engine, bytes)?
                    }
                }
            }
        };
        Program::link(&self.linkers, &mapped, entry)
    }
}
