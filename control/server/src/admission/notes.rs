//! What plugins have to say beside yes and no.

use parking_lot::Mutex;

use crate::quota::Charge;

/// Collects what the plugins note about one write.
#[derive(Default)]
pub(crate) struct Notes {
    warnings: Mutex<Vec<String>>,
    charges: Mutex<Vec<Charge>>,
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

    /// What is to be held until the write is through.
    pub(crate) fn hold(&self, charge: Charge) {
        self.charges.lock().push(charge);
    }

    /// What is held, for whoever sees the write through.
    pub(crate) fn take_charges(&self) -> Vec<Charge> {
        std::mem::take(&mut self.charges.lock())
    }
}
