//! What the agent makes for a Pod, once somebody needs it.
//!
//! What it is to hold is known before, with all that can be wrong about it; that it is on no disk and in no file until a container that can
//! see it is made costs a Pod whose program opens no files nothing.

use std::io;

use parking_lot::Mutex;
use wherry_runtime::Make;

type Work = Box<dyn Fn() -> io::Result<()> + Send>;

/// Files that are not made yet, are made, or have been removed.
pub(crate) struct Deferred(Mutex<State>);

enum State {
    /// Nobody has needed them: what makes them.
    Waiting(Work),
    /// They are there.
    Made,
    /// They were removed, and nothing makes them again.
    Gone,
}

impl Deferred {
    /// Made by `work`, which may be tried again.
    pub(crate) fn new(work: impl Fn() -> io::Result<()> + Send + 'static) -> Self {
        Self(Mutex::new(State::Waiting(Box::new(work))))
    }

    /// They are to be what `work` makes of them: at once where they are there, else once somebody needs them.
    pub(crate) fn replace(&self, work: impl Fn() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let mut state = self.0.lock();
        match &mut *state {
            State::Waiting(known) => {
                *known = Box::new(work);
                Ok(())
            }
            State::Made => work(),
            State::Gone => Ok(()),
        }
    }

    /// They are about to be removed: who is at it has ended, and nobody begins.
    pub(crate) fn close(&self) {
        *self.0.lock() = State::Gone;
    }
}

impl Make for Deferred {
    fn make(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        match &*state {
            State::Waiting(work) => {
                work()?;
                *state = State::Made;
                Ok(())
            }
            State::Made => Ok(()),
            State::Gone => Err(io::Error::new(io::ErrorKind::NotFound, "it has been removed with its Pod")),
        }
    }
}

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deferred")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_nobody_needs_is_not_made_and_what_is_removed_stays_away() {
        let done = Arc::new(AtomicUsize::new(0));
        let work = |value: usize| {
            let done = done.clone();
            move || {
                let before = done.swap(value, Ordering::Relaxed);
                if before == 7 { Err(io::Error::other("not now")) } else { Ok(()) }
            }
        };
        let files = Deferred::new(work(1));
        files.replace(work(2)).unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 0, "nobody needs them");
        done.store(7, Ordering::Relaxed);
        assert!(files.make().is_err());
        files.make().unwrap();
        assert_eq!(done.swap(3, Ordering::Relaxed), 2);
        files.make().unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 3, "they are there");
        files.replace(work(4)).unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 4, "who has them sees what is new");
        files.close();
        files.replace(work(5)).unwrap();
        assert!(files.make().is_err() && done.load(Ordering::Relaxed) == 4);
    }
}
