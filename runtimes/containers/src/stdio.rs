//! A container's standard streams: fifos that its shim writes and we read.
//!
//! The shim keeps both ends of a fifo open, so that a container may go on while nobody reads (until the fifo is full) and
//! nothing is lost when we come back. When the container has ended and the shim has passed everything on, it closes them,
//! and we read the end of the file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wherry_runtime::{Output, Sink, Stream};

/// How much is read at one time.
const CHUNK: usize = 64 * 1024;

/// The fifos of one process, in a directory of its own.
#[derive(Clone, Debug)]
pub(crate) struct Fifos {
    dir: PathBuf,
    tty: bool,
    stdin: bool,
}

impl Fifos {
    /// Names fifos in `dir`. With a terminal there is one output stream.
    pub(crate) fn new(dir: PathBuf, tty: bool, stdin: bool) -> Self {
        Self { dir, tty, stdin }
    }

    /// Makes them. Those that are there already stay.
    pub(crate) fn make(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        for path in [
            Some(self.dir.join("stdout")),
            (!self.tty).then(|| self.dir.join("stderr")),
            self.stdin.then(|| self.dir.join("stdin")),
        ]
        .into_iter()
        .flatten()
        {
            match mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The paths as containerd wants them: empty for a stream that is not there.
    pub(crate) fn names(&self) -> [String; 3] {
        let name = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let stdin = if self.stdin { name("stdin") } else { String::new() };
        let stderr = if self.tty { String::new() } else { name("stderr") };
        [stdin, name("stdout"), stderr]
    }

    /// Opens our ends. Never waits for the other ones.
    pub(crate) fn open(&self) -> io::Result<Ends> {
        let receiver = |name: &str| pipe::OpenOptions::new().open_receiver(self.dir.join(name));
        let stdin = |reads: bool| {
            let mut options = fs::OpenOptions::new();
            let options = options.read(reads).write(!reads).custom_flags(nix::libc::O_NONBLOCK);
            self.stdin.then(|| options.open(self.dir.join("stdin"))).transpose()
        };
        // Before the writing one, which cannot be opened where nobody reads.
        let typed = stdin(true)?;
        Ok(Ends {
            stdout: receiver("stdout")?,
            stderr: if self.tty { None } else { Some(receiver("stderr")?) },
            stdin: stdin(false)?,
            typed,
        })
    }

    /// A writer to the process' stdin, of which there may be several. Never waits for the other end.
    pub(crate) fn stdin_sender(&self) -> io::Result<pipe::Sender> {
        // Open for reading too, so that opening does not fail where the other end is not open yet.
        pipe::OpenOptions::new().read_write(true).open_sender(self.dir.join("stdin"))
    }

    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.dir.display(), %error, "can't remove a container's fifos");
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Our ends of a process' streams.
pub(crate) struct Ends {
    stdout: pipe::Receiver,
    stderr: Option<pipe::Receiver>,
    /// Held open to write: the shim's open does not wait, and the container's stdin has no end.
    stdin: Option<File>,
    /// Held open, and never read: what was typed before the shim has opened its end (in its own time, after it has told that
    /// the process runs) would be lost with the last descriptor.
    typed: Option<File>,
}

impl Ends {
    /// Copies everything to a caller's sinks until the other ends are closed; a sink that fails loses the rest. As with
    /// [`pump`](Self::pump), they are open.
    pub(crate) async fn copy_out(self, stdout: Option<Sink>, stderr: Option<Sink>) {
        // Now, not when all is copied: a command that reads its stdin to the end would never come to its own.
        drop(self.stdin);
        let two = async {
            if let Some(receiver) = self.stderr {
                copy_to(receiver, stderr).await;
            }
        };
        tokio::join!(copy_to(self.stdout, stdout), two);
        drop(self.typed);
    }

    /// Hands everything to `output` until the other ends are closed. To be called once they are open: before that, an end
    /// without a writer looks like one that is closed.
    pub(crate) fn pump(self, output: &Arc<dyn Output>, stop: &CancellationToken) -> Pumps {
        let mut tasks = JoinSet::new();
        let stop = stop.child_token();
        let ends = [(Stream::Stdout, Some(self.stdout)), (Stream::Stderr, self.stderr)];
        for (stream, receiver) in ends.into_iter().filter_map(|(stream, end)| Some((stream, end?))) {
            let (output, stop) = (Arc::clone(output), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = copy(stream, receiver, &*output) => {}
                }
            });
        }
        Pumps { tasks, stdin: self.stdin, _typed: self.typed }
    }
}

async fn copy(stream: Stream, mut receiver: pipe::Receiver, output: &dyn Output) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match receiver.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => output.write(stream, buffer.split().freeze()).await,
            Err(error) => return tracing::warn!(?stream, %error, "can't read a container's output"),
        }
    }
}

async fn copy_to(mut receiver: pipe::Receiver, sink: Option<Sink>) {
    if let Some(mut sink) = sink {
        let copied = tokio::io::copy(&mut receiver, &mut sink).await;
        if copied.is_ok() {
            let _gone = sink.shutdown().await;
            return;
        }
    }
    // Nobody wants it, but the process must be able to write it.
    if let Err(error) = tokio::io::copy(&mut receiver, &mut tokio::io::sink()).await {
        tracing::warn!(%error, "can't read a command's output");
    }
}

/// The tasks that copy a process' output. Dropped, they end.
pub(crate) struct Pumps {
    tasks: JoinSet<()>,
    /// Held, so that the container's stdin has no end.
    stdin: Option<File>,
    /// Held, so that nothing typed is lost: see [`Ends`].
    _typed: Option<File>,
}

impl Pumps {
    /// Lets its stdin end, once the others have closed theirs.
    pub(crate) fn release_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until everything has been handed over.
    pub(crate) async fn drained(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use wherry_runtime::conformance::Captured;

    use super::*;

    #[tokio::test]
    async fn what_is_typed_before_anybody_reads_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let fifos = Fifos::new(dir.path().join("io"), false, true);
        fifos.make().unwrap();
        let ends = fifos.open().unwrap();
        let open = |name: &str| fs::OpenOptions::new().write(true).open(fifos.dir().join(name)).unwrap();
        let outputs = (open("stdout"), open("stderr"));
        let copying = tokio::spawn(ends.copy_out(None, None));
        tokio::task::yield_now().await;
        fifos.stdin_sender().unwrap().write_all(b"typed").await.unwrap();
        // As the shim: a writing end for as long as nobody has told it to close the stdin, and a reading one.
        let stdin = fifos.dir().join("stdin");
        let writer = fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&stdin).unwrap();
        let mut reader = File::open(stdin).unwrap();
        drop(writer);
        let mut read = String::new();
        std::io::Read::read_to_string(&mut reader, &mut read).unwrap();
        assert_eq!(read, "typed", "and then the end");
        drop(outputs);
        copying.await.unwrap();
    }

    #[tokio::test]
    async fn everything_written_arrives_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let fifos = Fifos::new(dir.path().join("io"), false, true);
        fifos.make().unwrap();
        fifos.make().unwrap();
        let ends = fifos.open().unwrap();
        let open = |name: &str| fs::OpenOptions::new().write(true).open(fifos.dir().join(name)).unwrap();
        let (mut stdout, stderr) = (open("stdout"), open("stderr"));
        let captured = Captured::new();
        let pumps = ends.pump(&(Arc::clone(&captured) as Arc<dyn Output>), &CancellationToken::new());
        let big = vec![b'x'; 300_000];
        let expected = big.len();
        tokio::task::spawn_blocking(move || {
            stdout.write_all(&big).unwrap();
            drop((stdout, stderr));
        })
        .await
        .unwrap();
        pumps.drained().await;
        assert_eq!(captured.stdout().len(), expected);
        fifos.remove();
        assert!(!fifos.dir().exists());
    }
}
