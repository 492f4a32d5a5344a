//! Writes checkpoints beside the committer, on a thread of its own.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use crate::{cache::State, checkpoint, codec::Codec, recover::Layout};

/// The handle to the keeper's thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    states: SyncSender<Arc<State>>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub(crate) fn start(layout: Layout, codec: Codec) -> std::io::Result<Self> {
        let (states, received) = sync_channel(1);
        let thread =
            thread::Builder::new().name("store-keeper".into()).spawn(move || keep(&layout, &codec, &received))?;
        Ok(Self { states, thread })
    }

    /// Asks for a checkpoint of a state that is on disk in the log. Skipped if one is still being written: the log
    /// holds what it would have held.
    pub(crate) fn checkpoint(&self, state: Arc<State>) {
        let _ = self.states.try_send(state);
    }

    /// Finishes what was asked for and ends.
    pub(crate) fn close(self) {
        drop(self.states);
        let _ = self.thread.join();
    }
}

fn keep(layout: &Layout, codec: &Codec, states: &Receiver<Arc<State>>) {
    while let Ok(state) = states.recv() {
        let path = checkpoint::path(&layout.checkpoints, state.revision);
        let kept =
            checkpoint::write(&path, &state, codec).and_then(|()| checkpoint::prune(&layout.checkpoints, &layout.log));
        match kept {
            Ok(()) => tracing::debug!(revision = state.revision, "wrote a checkpoint"),
            // The log keeps all that no checkpoint holds, so the next one will do.
            Err(error) => {
                tracing::warn!(%error, revision = state.revision, "a checkpoint could not be written")
            }
        }
    }
}
