//! The reading end of a log: from the end, from a time, following, across rotation.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::watch;

use super::format::{parse, stamp};
use super::writer::{ContainerLog, Progress, segment, segments};

/// What a client asks of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail_lines: Option<usize>,
    /// Only lines written from then on.
    pub since: Option<Timestamp>,
    /// Each line begins with its stamp.
    pub timestamps: bool,
    /// Cut after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// There is no such log: nothing has been said.
    #[error("no log at {0}")]
    NotFound(PathBuf),
    /// The disk's answer.
    #[error("cannot read the log: {0}")]
    Io(#[from] io::Error),
}

/// Bytes read at once.
const BLOCK: usize = 64 * 1024;

struct Reader {
    path: PathBuf,
    live: Option<(Arc<ContainerLog>, watch::Receiver<Progress>)>,
    file: Option<File>,
    sequence: u64,
    newest: u64,
    pending: Vec<u8>,
    since: Option<String>,
    left: Option<u64>,
    options: LogOptions,
    ended: bool,
}

pub(super) async fn read(
    path: PathBuf,
    live: Option<Arc<ContainerLog>>,
    options: LogOptions,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, LogError> {
    let reader =
        tokio::task::spawn_blocking(move || Reader::open(path, live, options)).await.map_err(io::Error::other)??;
    Ok(futures::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|bytes| (bytes, reader)))
    }))
}

impl Reader {
    fn open(path: PathBuf, live: Option<Arc<ContainerLog>>, options: LogOptions) -> Result<Self, LogError> {
        let rotated = segments(&path);
        if live.is_none() && rotated.is_empty() && !path.exists() {
            return Err(LogError::NotFound(path));
        }
        let live = live.map(|log| {
            let receiver = log.subscribe();
            (log, receiver)
        });
        let newest =
            live.as_ref().map_or_else(|| rotated.last().map_or(0, |last| last + 1), |(_, live)| live.borrow().sequence);
        let mut reader = Self {
            path,
            live,
            file: None,
            sequence: 0,
            newest,
            pending: Vec::new(),
            since: options.since.map(stamp),
            left: options.limit_bytes,
            options,
            ended: false,
        };
        match reader.options.tail_lines {
            Some(lines) => reader.seek_tail(lines)?,
            None => reader.enter(rotated.first().copied().unwrap_or(newest))?,
        }
        Ok(reader)
    }

    /// Opens the file of this number, or the next that is left.
    fn enter(&mut self, sequence: u64) -> io::Result<()> {
        let opened = match &self.live {
            Some((log, _)) => log.open_at(sequence),
            None => open_static(&self.path, sequence, self.newest),
        };
        match opened {
            Ok((file, sequence)) => {
                self.file = Some(file);
                self.sequence = sequence;
            }
            // Nothing was said so far.
            Err(error) if self.live.is_some() && error.kind() == io::ErrorKind::NotFound => {
                self.file = None;
                self.sequence = sequence;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Goes back from the end until `lines` lines are ahead.
    fn seek_tail(&mut self, lines: usize) -> io::Result<()> {
        let oldest = segments(&self.path).first().copied().unwrap_or(self.newest);
        let mut wanted = lines;
        let mut sequence = self.newest;
        loop {
            self.enter(sequence)?;
            let Some(file) = &mut self.file else { return Ok(()) };
            let (offset, found) = tail_offset(file, wanted)?;
            file.seek(SeekFrom::Start(offset))?;
            wanted = wanted.saturating_sub(found);
            if wanted == 0 || sequence <= oldest {
                return Ok(());
            }
            sequence -= 1;
        }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.ended || self.left == Some(0) {
                return Ok(None);
            }
            // Seen before the file is read: what was written by then is found by the read.
            let seen = self.live.as_mut().map(|(_, live)| *live.borrow_and_update());
            if self.file.is_none() {
                self.enter(self.sequence)?;
            }
            let block = self.read_block().await?;
            if !block.is_empty() {
                let out = self.render(&block);
                if !out.is_empty() {
                    return Ok(Some(out));
                }
                continue;
            }
            let newest = seen.map_or(self.newest, |seen| seen.sequence);
            if self.sequence < newest {
                self.enter(self.sequence + 1)?;
                continue;
            }
            match (&mut self.live, seen) {
                (Some((_, live)), Some(seen)) if self.options.follow && !seen.closed => {
                    if live.changed().await.is_err() {
                        self.ended = true;
                    }
                }
                _ => self.ended = true,
            }
        }
    }

    /// At most a block from the current file; page-cache reads, off the async threads.
    async fn read_block(&mut self) -> io::Result<Vec<u8>> {
        let Some(mut file) = self.file.take() else { return Ok(Vec::new()) };
        let (file, block) = tokio::task::spawn_blocking(move || {
            let mut block = vec![0; BLOCK];
            let read = file.read(&mut block);
            (
                file,
                read.map(|n| {
                    block.truncate(n);
                    block
                }),
            )
        })
        .await
        .map_err(io::Error::other)?;
        self.file = Some(file);
        block
    }

    /// The lines that `block` completes, as the client wants them.
    fn render(&mut self, block: &[u8]) -> Bytes {
        self.pending.extend_from_slice(block);
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { return Bytes::new() };
        let rest = self.pending.split_off(end + 1);
        let lines = std::mem::replace(&mut self.pending, rest);
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = parse(line.strip_suffix(b"\n").unwrap_or(line)) else { continue };
            if self.since.as_ref().is_some_and(|since| line.stamp < since.as_bytes()) {
                continue;
            }
            if self.options.timestamps {
                out.extend_from_slice(line.stamp);
                out.push(b' ');
            }
            out.extend_from_slice(line.content);
            if !line.partial {
                out.push(b'\n');
            }
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        Bytes::from(out)
    }
}

fn open_static(path: &Path, sequence: u64, newest: u64) -> io::Result<(File, u64)> {
    for number in sequence..newest {
        match File::open(segment(path, number)) {
            Ok(file) => return Ok((file, number)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match File::open(path) {
        Ok(file) => Ok((file, newest)),
        // Between a rotation and the next write by an agent that was killed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open("/dev/null").map(|file| (file, newest)),
        Err(error) => Err(error),
    }
}

/// Where the last `lines` lines of a file begin, and how many there are.
fn tail_offset(file: &mut File, lines: usize) -> io::Result<(u64, usize)> {
    let size = file.metadata()?.len();
    if lines == 0 {
        return Ok((size, 0));
    }
    let mut end = size;
    let mut found = 0;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(BLOCK)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        for (n, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + n as u64 + 1;
            // The end of the last line ends no line before it.
            if after == size {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok((after, found));
            }
        }
        end = start;
    }
    Ok((0, found + usize::from(size > 0)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures::StreamExt as _;
    use wherry_runtime::{Output as _, Stream as Out};

    use super::super::{Logs, SharedLog};
    use super::*;

    async fn text(logs: &Logs, path: &Path, options: LogOptions) -> String {
        let stream = logs.read(path, options).await.unwrap();
        let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap().to_vec()).collect().await;
        String::from_utf8(chunks.concat()).unwrap()
    }

    async fn written(logs: &Logs, path: &Path, lines: usize) {
        let log = SharedLog(logs.open(path).unwrap());
        for n in 0..lines {
            log.write(Out::Stdout, Bytes::from(format!("line {n}\n"))).await;
        }
        logs.close(path).await;
    }

    #[tokio::test]
    async fn the_whole_the_tail_and_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned()).unwrap();
        let path = Logs::path(dir.path(), "c", 0);
        written(&logs, &path, 5).await;
        assert_eq!(text(&logs, &path, LogOptions::default()).await, "line 0\nline 1\nline 2\nline 3\nline 4\n");
        let tail = |lines| LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
        assert_eq!(text(&logs, &path, tail(2)).await, "line 3\nline 4\n");
        assert_eq!(text(&logs, &path, tail(0)).await, "");
        assert_eq!(text(&logs, &path, tail(50)).await.lines().count(), 5);
        let limited = LogOptions { limit_bytes: Some(9), ..LogOptions::default() };
        assert_eq!(text(&logs, &path, limited).await, "line 0\nli");
        let stamped = text(&logs, &path, LogOptions { timestamps: true, ..LogOptions::default() }).await;
        assert!(stamped.lines().all(|line| line[..30].parse::<Timestamp>().is_ok()));
        let future = LogOptions { since: Some(Timestamp::MAX), ..LogOptions::default() };
        assert_eq!(text(&logs, &path, future).await, "");
        assert!(matches!(
            logs.read(&Logs::path(dir.path(), "c", 7), LogOptions::default()).await.map(|_| ()),
            Err(LogError::NotFound(_))
        ));
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_across_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned()).unwrap();
        let path = Logs::path(dir.path(), "c", 0);
        let log = SharedLog(logs.open(&path).unwrap());
        let follower = logs.read(&path, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
        let reading = tokio::spawn(async move {
            let mut follower = std::pin::pin!(follower);
            let (mut lines, mut bytes) = (0, 0);
            while let Some(chunk) = follower.next().await {
                let chunk = chunk.unwrap();
                bytes += chunk.len();
                lines += chunk.iter().filter(|byte| **byte == b'\n').count();
            }
            (lines, bytes)
        });
        let line = Bytes::from(format!("{}\n", "x".repeat(1000)));
        for _ in 0..24_000 {
            log.write(Out::Stderr, line.clone()).await;
        }
        logs.close(&path).await;
        assert_eq!(reading.await.unwrap(), (24_000, 24_000 * 1001));
        assert_eq!(segments(&path).len(), 2);
        let tail = text(&logs, &path, LogOptions { tail_lines: Some(15_000), ..LogOptions::default() }).await;
        assert_eq!(tail.lines().count(), 15_000);
    }
}
