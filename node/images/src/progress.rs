//! How a long pull, load or push is seen.

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The manifest is being asked for.
    Resolving {
        /// The image.
        reference: &'a str,
    },
    /// A blob is being moved. The first call for a blob has `done` 0; the last has `done == total`, at once
    /// where the blob is there already.
    Blob {
        /// Which blob.
        digest: &'a str,
        /// Bytes moved so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A compat image's module is being taken out of its layers.
    Unpacking {
        /// The image.
        reference: &'a str,
    },
    /// The image is ready.
    Done {
        /// The image.
        reference: &'a str,
        /// `repository@sha256:...`.
        id: &'a str,
    },
}

/// Hears of progress. Called from the work itself: it must return quickly.
pub trait Progress: Send + Sync + 'static {
    /// Something happened.
    fn step(&self, step: Step<'_>);
}

/// Does not listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: Step<'_>) {}
}

impl<F: Fn(Step<'_>) + Send + Sync + 'static> Progress for F {
    fn step(&self, step: Step<'_>) {
        self(step);
    }
}
