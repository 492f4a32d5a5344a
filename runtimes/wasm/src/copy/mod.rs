//! `kubectl cp` with a container of Wasm. kubectl copies by running `tar` and `test` in the container, and a module has no other
//! programs in it: the commands that kubectl sends, word for word (`request`), are done by the node itself, in the container's
//! mounts (`tree`) and with the same right to write to them as its guest has. All other commands are the guest's own.

mod archive;
mod pack;
mod request;
mod tree;
mod unpack;

use std::io::{self, Write};
use std::sync::Arc;

use tokio::io::{AsyncWriteExt as _, DuplexStream, copy, duplex};
use tokio::sync::Semaphore;
use tokio_util::io::SyncIoBridge;
use wherry_runtime::{RuntimeError, Streams};

pub(crate) use request::Request;
pub(crate) use tree::Tree;

use crate::state::Environment;

/// Copies that are under way at once, of all containers together: each has a thread meanwhile. More wait.
const AT_ONCE: usize = 16;
/// What is on its way between a caller and the files.
const ROOM: usize = 64 << 10;
/// What is told of problems, at most.
const SAID: usize = 16 << 10;

/// The copies of one node.
#[derive(Clone)]
pub(crate) struct Copies(Arc<Semaphore>);

impl Copies {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Does what is asked and returns the exit code that the program would have had. Dropped, it ends.
    pub(crate) async fn run(
        &self,
        request: Request,
        environment: &Environment,
        guests: &tokio::runtime::Handle,
        streams: Streams,
    ) -> Result<i32, RuntimeError> {
        let shut_down = || RuntimeError::Failed("the runtime is shut down".into());
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| shut_down())?;
        let Streams { stdin, mut stdout, mut stderr, .. } = streams;
        let (mut feed, input) = duplex(ROOM);
        let (output, mut written) = duplex(ROOM);
        let mounts = Arc::clone(&environment.mounts);
        let cwd = environment.invocation.cwd.clone().unwrap_or_else(|| "/".into());
        let work = guests.spawn_blocking(move || {
            // Kept to the end: a caller that goes away leaves its thread no more to read or to be written to.
            let _permit = permit;
            let mut said = Said { program: request.program(), ..Said::default() };
            let done = mounts.tree().and_then(|tree| work(&request, &tree, &cwd, input, output, &mut said));
            let code = match done {
                Ok(code) => code,
                Err(error) => said.end(&error),
            };
            (code, said.text)
        });
        let feeding = async {
            if let Some(mut stdin) = stdin {
                // Whoever reads may have had enough.
                let _enough = copy(&mut stdin, &mut feed).await;
            }
            drop(feed);
            std::future::pending::<()>().await
        };
        let taking = async {
            if let Some(stdout) = &mut stdout {
                let _gone = copy(&mut written, stdout).await;
            }
            drop(written);
            work.await
        };
        let (code, text) = tokio::select! {
            done = taking => done.map_err(|_| shut_down())?,
            () = feeding => return Err(shut_down()),
        };
        // First what went wrong: kubectl cp is done when the archive has ended.
        if let Some(stderr) = &mut stderr {
            let _gone = stderr.write_all(text.as_bytes()).await;
        }
        for mut sink in [stderr, stdout].into_iter().flatten() {
            let _gone = sink.shutdown().await;
        }
        Ok(code)
    }
}

/// The exit code of the program; its problems are told on the way.
fn work(
    request: &Request,
    tree: &Tree,
    cwd: &str,
    input: DuplexStream,
    output: DuplexStream,
    said: &mut Said,
) -> io::Result<i32> {
    match request {
        Request::IsDirectory(path) => return Ok(i32::from(!tree.is_directory(&request::absolute(cwd, path)))),
        Request::Unpack { dir, same_modes } => {
            let dir = request::absolute(cwd, dir.as_deref().unwrap_or("."));
            unpack::unpack(tree, &dir, *same_modes, SyncIoBridge::new(input), said)?;
        }
        Request::Pack { path, skip } => {
            let output = io::BufWriter::with_capacity(ROOM, Late { output: SyncIoBridge::new(output), skip: *skip });
            pack::pack(tree, cwd, path, output, said)?;
        }
    }
    Ok(said.code())
}

/// What tar says on its stderr.
#[derive(Default)]
pub(crate) struct Said {
    program: &'static str,
    text: String,
    failed: bool,
}

impl Said {
    /// A problem that leaves the rest as it is.
    pub(crate) fn problem(&mut self, text: &str) {
        self.failed = true;
        if self.text.len() + text.len() < SAID {
            self.text.push_str(&format!("{}: {text}\n", self.program));
        }
    }

    fn code(&mut self) -> i32 {
        if !self.failed {
            return 0;
        }
        self.problem("Exiting with failure status due to previous errors");
        2
    }

    fn end(&mut self, error: &io::Error) -> i32 {
        self.problem(&words(error));
        self.problem("Error is not recoverable: exiting now");
        2
    }
}

/// An error in the words of strerror(3).
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A writer that leaves out what comes first.
struct Late<W> {
    output: W,
    skip: u64,
}

impl<W: Write> Write for Late<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.skip == 0 {
            return self.output.write(bytes);
        }
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        Ok(skipped)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
