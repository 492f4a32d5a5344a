//! What plugins have to say beside yes and no.

use parking_lot::Mutex;

/// Collects what the plugins note about one write.
#[derive(Default)]
pub(crate) struct Notes {
    warnings: Mutex<Vec<String>>,
}

impl Notes {
    /// A warning for whoever writes: a `Warning` header of the answer.
    pub(crate) fn warn(&self, warning: String) {
        self.warnings.lock().push(warning);
    }

    /// The warnings so far, which are forgotten here.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }
}
