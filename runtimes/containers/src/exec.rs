//! A command beside a running container: its user, environment and limits, its own streams.

use std::sync::Arc;

use bytes::Bytes;
use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, GetContainerRequest, KillRequest, StartRequest, WaitRequest,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use wherry_runtime::{ExecOutput, Output, RuntimeError, Stream};

use crate::client::{failed, unless_missing};
use crate::entry::Entry;
use crate::lifecycle::start_error;
use crate::runtime::Inner;
use crate::stdio::Fifos;
use crate::unpack::unique;

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// A command's output, up to a limit a stream; what is beyond it is read and dropped, so that the command can end.
struct Collected {
    limit: usize,
    streams: Mutex<(Vec<u8>, Vec<u8>)>,
}

#[async_trait::async_trait]
impl Output for Collected {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        let mut streams = self.streams.lock();
        let kept = match stream {
            Stream::Stdout => &mut streams.0,
            Stream::Stderr => &mut streams.1,
        };
        let room = self.limit.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A command's process at containerd. Dropped, it is killed and forgotten: the caller has lost interest.
struct Process {
    inner: Arc<Inner>,
    container: String,
    exec: String,
    fifos: Fifos,
}

impl Drop for Process {
    fn drop(&mut self) {
        let (inner, container, exec, fifos) =
            (Arc::clone(&self.inner), self.container.clone(), self.exec.clone(), self.fifos.clone());
        let clean = async move {
            let (client, mut tasks) = (&inner.client, inner.client.tasks());
            // Killed, waited for, deleted: all three are answered at once where it has ended already.
            let kill = KillRequest { container_id: container.clone(), exec_id: exec.clone(), signal: 9, all: false };
            let _ = tasks.kill(client.call(kill)).await;
            let delete = DeleteProcessRequest { container_id: container.clone(), exec_id: exec.clone() };
            if tasks.delete_process(client.call(delete.clone())).await.is_err() {
                let wait = WaitRequest { container_id: container, exec_id: exec };
                let _ = tasks.wait(client.call(wait)).await;
                if let Err(error) = unless_missing(tasks.delete_process(client.call(delete)).await) {
                    tracing::debug!(%error, "a command's process stays until its container is removed");
                }
            }
            fifos.remove();
        };
        self.inner.tasks.spawn(clean);
    }
}

impl Inner {
    pub(crate) async fn exec(
        self: &Arc<Self>,
        entry: &Entry,
        command: &[String],
        limit: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        if command.is_empty() {
            return Err(RuntimeError::InvalidSpec("no command was given".into()));
        }
        if !entry.is_running() {
            return Err(entry.wrong_state("a command can be run in a running container only"));
        }
        let process = self.process_spec(entry, command).await?;
        let exec = format!("exec-{}", unique());
        let fifos = Fifos::new(entry.fifos.dir().join(&exec), false, false);
        let io =
            |e: std::io::Error| RuntimeError::Failed(format!("can't make fifos in {}: {e}", fifos.dir().display()));
        fifos.make().map_err(io)?;
        let ends = fifos.open().map_err(io)?;
        let [stdin, stdout, stderr] = fifos.names();
        let running = Process { inner: Arc::clone(self), container: entry.id.0.clone(), exec: exec.clone(), fifos };
        let spec = prost_types::Any { type_url: PROCESS_TYPE.to_owned(), value: process.to_string().into_bytes() };
        let request = ExecProcessRequest {
            container_id: entry.id.0.clone(),
            stdin,
            stdout,
            stderr,
            terminal: false,
            spec: Some(spec),
            exec_id: exec.clone(),
        };
        self.client.tasks().exec(self.client.call(request)).await.map_err(failed("run a command"))?;
        let request = StartRequest { container_id: entry.id.0.clone(), exec_id: exec.clone() };
        self.client.tasks().start(self.client.call(request)).await.map_err(start_error)?;
        let collected = Arc::new(Collected { limit, streams: Mutex::default() });
        let pumps = ends.pump(&(Arc::clone(&collected) as Arc<dyn Output>), &self.stop);
        let request = WaitRequest { container_id: entry.id.0.clone(), exec_id: exec };
        let ended = self
            .client
            .tasks()
            .wait(self.client.call(request))
            .await
            .map_err(failed("wait for a command"))?
            .into_inner();
        pumps.drained().await;
        drop(running);
        let (stdout, stderr) = std::mem::take(&mut *collected.streams.lock());
        Ok(ExecOutput { code: ended.exit_status.cast_signed(), stdout: stdout.into(), stderr: stderr.into() })
    }

    /// The container's own process with another command.
    async fn process_spec(&self, entry: &Entry, command: &[String]) -> Result<Value, RuntimeError> {
        let request = GetContainerRequest { id: entry.id.0.clone() };
        let found = self
            .client
            .containers()
            .get(self.client.call(request))
            .await
            .map_err(failed("find a container"))?
            .into_inner();
        let bytes = found.container.and_then(|container| container.spec).map(|spec| spec.value).unwrap_or_default();
        let mut spec: Value = serde_json::from_slice(&bytes)
            .map_err(|e| RuntimeError::Failed(format!("the spec of {} can't be read: {e}", entry.id)))?;
        let mut process = spec["process"].take();
        process["args"] = json!(command);
        process["terminal"] = json!(false);
        Ok(process)
    }
}
