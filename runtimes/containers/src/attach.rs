//! Joining the streams of a running container.

use std::io;

use containerd_client::services::v1::{CloseIoRequest, ResizePtyRequest};
use tokio::sync::mpsc;
use wherry_runtime::{Input, RuntimeError, Streams, TerminalSize};

use crate::entry::Entry;
use crate::runtime::Inner;
use crate::stdio::Fifos;

/// One process at containerd: a container's own, or a command beside it.
#[derive(Clone, Copy)]
pub(crate) struct ProcessId<'a> {
    pub(crate) container: &'a str,
    /// Empty for the container's own.
    pub(crate) exec: &'a str,
}

impl Inner {
    pub(crate) async fn attach(&self, entry: &Entry, streams: Streams) -> Result<(), RuntimeError> {
        if !entry.is_running() {
            return Err(entry.wrong_state("only to a running container can be attached"));
        }
        let process = ProcessId { container: &entry.id.0, exec: "" };
        let attachment = entry.attachers.join();
        if !entry.is_running() {
            // It ended between the two: nothing more will come.
            return Ok(());
        }
        let typed = async {
            let Some(stdin) = streams.stdin.filter(|_| entry.stdin) else { return };
            // A failure here is the end of the container, which ends the whole.
            let _gone = copy_in(stdin, &entry.fifos).await;
            if entry.stdin_once {
                if let Some(pumps) = entry.pumps.lock().as_mut() {
                    pumps.release_stdin();
                }
                self.close_stdin(process).await;
            }
        };
        let resized = self.resize(process, streams.resize.filter(|_| entry.tty));
        // Sizes alone are no reason to stay.
        let input = async {
            tokio::pin!(typed, resized);
            tokio::select! {
                () = &mut typed => {}
                () = &mut resized => typed.await,
            }
        };
        let stderr = streams.stderr.filter(|_| !entry.tty);
        attachment.run(streams.stdout, stderr, input).await
    }

    /// Passes on new sizes of a process' terminal until there are no more.
    pub(crate) async fn resize(&self, process: ProcessId<'_>, sizes: Option<mpsc::Receiver<TerminalSize>>) {
        let Some(mut sizes) = sizes else { return };
        while let Some(TerminalSize { width, height }) = sizes.recv().await {
            let request = ResizePtyRequest {
                container_id: process.container.to_owned(),
                exec_id: process.exec.to_owned(),
                width: width.into(),
                height: height.into(),
            };
            if let Err(status) = self.client.tasks().resize_pty(self.client.call(request)).await {
                tracing::debug!(container = process.container, %status, "a terminal can't be resized");
            }
        }
    }

    /// Ends a process' stdin: with our ends closed, the shim's own is the last one.
    pub(crate) async fn close_stdin(&self, process: ProcessId<'_>) {
        let request = CloseIoRequest {
            container_id: process.container.to_owned(),
            exec_id: process.exec.to_owned(),
            stdin: true,
        };
        if let Err(status) = self.client.tasks().close_io(self.client.call(request)).await {
            tracing::debug!(container = process.container, %status, "a stdin can't be closed");
        }
    }
}

/// Copies what a caller types into a process' fifo, which may be full.
pub(crate) async fn copy_in(mut stdin: Input, fifos: &Fifos) -> io::Result<()> {
    let mut pipe = fifos.stdin_sender()?;
    tokio::io::copy(&mut stdin, &mut pipe).await.map(drop)
}
