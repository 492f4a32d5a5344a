//! A child process whose output is kept and can be waited on.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::PATIENCE;

/// A line of a child's output, from either stream.
pub type Line = String;

/// A running child. Killed when dropped, unless it has ended.
pub struct Child {
    name: String,
    child: std::process::Child,
    /// In a mutex so that a cluster can be shared between threads.
    lines: Mutex<Receiver<Line>>,
    seen: Arc<Mutex<Vec<Line>>>,
}

impl Child {
    /// Starts a command with both output streams kept.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        let (sender, lines) = channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let (sender, seen) = (sender.clone(), seen.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Ok(mut seen) = seen.lock() {
                        seen.push(line.clone());
                    }
                    // Nobody waits for lines any more.
                    let _ = sender.send(line);
                }
            });
        }
        Ok(Self { name: name.to_owned(), child, lines: Mutex::new(lines), seen })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that `wanted` accepts; fails with all output so far when it ends or takes too long.
    pub fn wait_for_line(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Line> {
        let end = Instant::now() + limit;
        loop {
            let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} did not say it in {limit:?}:\n{}", self.name, self.output())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("{} ended:\n{}", self.name, self.output()),
            }
        }
    }

    /// All output so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.seen.lock().map(|lines| lines.join("\n")).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), signal)?;
        Ok(())
    }

    /// Waits for its end; kills it, and fails with all output, when that takes too long.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let (sender, ended) = channel();
        let id = Id::Pid(Pid::from_raw(self.child.id().try_into()?));
        // Leaves the status to be taken below.
        std::thread::spawn(move || sender.send(waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)));
        match ended.recv_timeout(PATIENCE * 2) {
            Ok(waited) => {
                waited?;
                Ok(self.child.wait()?)
            }
            Err(_) => {
                self.kill()?;
                bail!("{} did not end in {:?}:\n{}", self.name, PATIENCE * 2, self.output())
            }
        }
    }

    /// kill -9, and waits for its end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.kill());
        }
    }
}
