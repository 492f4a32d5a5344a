//! A command beside a running container: its user, environment and limits, its own streams.

use std::pin::pin;
use std::sync::Arc;

use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, GetContainerRequest, KillRequest, StartRequest, WaitRequest,
};
use futures::future::{Either, select};
use serde_json::{Value, json};
use tonic::Status;
use wherry_runtime::{RuntimeError, Streams, TerminalSize};

use crate::attach::{ProcessId, copy_in};
use crate::client::{failed, is_lost, unless_missing};
use crate::entry::Entry;
use crate::runtime::Inner;
use crate::stdio::Fifos;
use crate::unpack::unique;

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

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
        tty: bool,
        streams: Streams,
    ) -> Result<i32, RuntimeError> {
        if command.is_empty() {
            return Err(RuntimeError::InvalidSpec("no command was given".into()));
        }
        if !entry.is_running() {
            return Err(entry.wrong_state("a command can be run in a running container only"));
        }
        let Streams { stdin, stdout, stderr, mut resize } = streams;
        let size = resize.as_mut().and_then(|sizes| sizes.try_recv().ok());
        let process = self.process_spec(entry, command, tty, size).await?;
        let exec = format!("exec-{}", unique());
        let fifos = Fifos::new(entry.fifos.dir().join(&exec), tty, stdin.is_some());
        let io =
            |e: std::io::Error| RuntimeError::Failed(format!("can't make fifos in {}: {e}", fifos.dir().display()));
        fifos.make().map_err(io)?;
        let running = Process {
            inner: Arc::clone(self),
            container: entry.id.0.clone(),
            exec: exec.clone(),
            fifos: fifos.clone(),
        };
        let ends = fifos.open().map_err(io)?;
        let ended = self.start_process(&running, tty, &process).await?;
        let process = ProcessId { container: &entry.id.0, exec: &exec };
        let input = async {
            let typed = async {
                if let Some(stdin) = stdin {
                    // A command may end without having read all.
                    let _gone = copy_in(stdin, &fifos).await;
                    self.close_stdin(process).await;
                }
            };
            tokio::join!(typed, self.resize(process, resize.filter(|_| tty)));
        };
        let output = ends.copy_out(stdout, stderr.filter(|_| !tty));
        let (all, input) = (pin!(async { tokio::join!(ended, output).0 }), pin!(input));
        let code = match select(all, input).await {
            Either::Left((code, _)) => code,
            Either::Right(((), all)) => all.await,
        };
        drop(running);
        code
    }

    /// Makes the process and starts it; the future is its exit code.
    async fn start_process(
        &self,
        running: &Process,
        terminal: bool,
        process: &Value,
    ) -> Result<impl Future<Output = Result<i32, RuntimeError>> + use<>, RuntimeError> {
        let [stdin, stdout, stderr] = running.fifos.names();
        let (container_id, exec_id) = (running.container.clone(), running.exec.clone());
        let spec = prost_types::Any { type_url: PROCESS_TYPE.to_owned(), value: process.to_string().into_bytes() };
        let request = ExecProcessRequest {
            container_id: container_id.clone(),
            stdin,
            stdout,
            stderr,
            terminal,
            spec: Some(spec),
            exec_id: exec_id.clone(),
        };
        self.client.tasks().exec(self.client.call(request)).await.map_err(failed("run a command"))?;
        let request = StartRequest { container_id: container_id.clone(), exec_id: exec_id.clone() };
        self.client.tasks().start(self.client.call(request)).await.map_err(|status| exec_error(status, &exec_id))?;
        let client = self.client.clone();
        Ok(async move {
            let request = client.call(WaitRequest { container_id, exec_id });
            let ended = client.tasks().wait(request).await.map_err(failed("wait for a command"))?.into_inner();
            Ok(ended.exit_status.cast_signed())
        })
    }

    /// The container's own process with another command.
    async fn process_spec(
        &self,
        entry: &Entry,
        command: &[String],
        tty: bool,
        size: Option<TerminalSize>,
    ) -> Result<Value, RuntimeError> {
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
        process["terminal"] = json!(tty);
        if let Some(TerminalSize { width, height }) = size {
            process["consoleSize"] = json!({"width": width, "height": height});
        }
        if let Some(env) = process["env"].as_array_mut().filter(|_| tty) {
            env.retain(|variable| !variable.as_str().is_some_and(|variable| variable.starts_with("TERM=")));
            env.push(json!("TERM=xterm"));
        }
        Ok(process)
    }
}

/// What runc refuses is the command's fault. The words are those that a kubelet passes on, since people search for them.
fn exec_error(status: Status, exec: &str) -> RuntimeError {
    if is_lost(&status) || !status.message().contains("OCI runtime") {
        return failed("run a command")(status);
    }
    RuntimeError::InvalidSpec(format!(
        "failed to exec in container: failed to start exec {exec:?}: {}",
        status.message().trim()
    ))
}
