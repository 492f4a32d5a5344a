//! A runtime without workloads, for tests of the agent.
//!
//! Its containers do what the test tells them: [`FakeRuntime::exit`] ends one, [`FakeRuntime::fail`] makes the
//! next call of a kind fail, [`FakeRuntime::print`] writes to its output. It keeps the rules of
//! [`Runtime`](crate::Runtime): states, idempotence, waiting for the exit.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::{
    Attachers, ContainerId, ContainerSpec, ContainerState, ContainerStatus, DiskUse, ExecOutput, Exit, Image, Kept,
    Limits, Output, Runtime, RuntimeError, RuntimeInfo, Signal, Stats, Stream, Streams,
};

/// Which call of a fake fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Runtime::prepare`].
    Prepare,
    /// [`Runtime::create`].
    Create,
    /// [`Runtime::start`].
    Start,
    /// [`Runtime::update`].
    Update,
}

struct Fake {
    spec: ContainerSpec,
    output: Arc<dyn Output>,
    state: watch::Sender<ContainerState>,
    attachers: Arc<Attachers>,
    typed: Arc<Mutex<Vec<u8>>>,
    signals: Vec<Signal>,
}

/// A [`Runtime`] whose containers are entries of a table. Term ends them with 143, Kill with 137.
pub struct FakeRuntime {
    name: String,
    containers: Mutex<HashMap<ContainerId, Fake>>,
    failures: Mutex<HashMap<Call, String>>,
    ignores_term: Mutex<bool>,
    exec: Mutex<Option<ExecOutput>>,
    stats: Mutex<HashMap<ContainerId, Stats>>,
    disks: Mutex<HashMap<ContainerId, DiskUse>>,
    prepared: Mutex<BTreeSet<String>>,
    execs: Mutex<Vec<(Vec<String>, bool)>>,
    /// Counts changes, so that tests can wait for one.
    changed: watch::Sender<u64>,
}

impl FakeRuntime {
    /// A runtime of this name without containers.
    #[must_use]
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            containers: Mutex::default(),
            failures: Mutex::default(),
            ignores_term: Mutex::default(),
            exec: Mutex::default(),
            stats: Mutex::default(),
            disks: Mutex::default(),
            prepared: Mutex::default(),
            execs: Mutex::default(),
            changed: watch::Sender::new(0),
        })
    }

    /// Makes the next such call fail: `Create` and `Prepare` as invalid, `Start` as failed.
    pub fn fail(&self, call: Call, message: &str) {
        self.failures.lock().insert(call, message.to_owned());
    }

    /// Whether containers go on after Term.
    pub fn ignore_term(&self, ignore: bool) {
        *self.ignores_term.lock() = ignore;
    }

    /// What every exec answers, after its stdin, which it prints; unsupported where none.
    pub fn answer_exec(&self, output: Option<ExecOutput>) {
        *self.exec.lock() = output;
    }

    /// What a container has used, from now on.
    pub fn use_up(&self, id: &ContainerId, stats: Stats) {
        self.stats.lock().insert(id.clone(), stats);
    }

    /// What a container has written into its root filesystem, from now on.
    pub fn fill(&self, id: &ContainerId, disk: DiskUse) {
        self.disks.lock().insert(id.clone(), disk);
    }

    /// The manifests of the images that are prepared.
    #[must_use]
    pub fn prepared(&self) -> BTreeSet<String> {
        self.prepared.lock().clone()
    }

    /// The commands that were run, and whether with a terminal.
    #[must_use]
    pub fn execs(&self) -> Vec<(Vec<String>, bool)> {
        self.execs.lock().clone()
    }

    /// Waits until this was typed into a container by those who are attached to it.
    pub async fn typed(&self, id: &ContainerId, text: &str) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let typed = self.containers.lock().get(id).map(|fake| Arc::clone(&fake.typed));
            if typed.is_some_and(|typed| String::from_utf8_lossy(&typed.lock()).contains(text)) {
                return;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The specs of the containers that exist, oldest attempt first.
    #[must_use]
    pub fn specs(&self) -> Vec<ContainerSpec> {
        let mut specs: Vec<_> = self.containers.lock().values().map(|fake| fake.spec.clone()).collect();
        specs.sort_by(|a, b| (&a.name, a.attempt).cmp(&(&b.name, b.attempt)));
        specs
    }

    /// Waits until a container of this name and attempt runs; its spec.
    pub async fn running(&self, name: &str, attempt: u32) -> ContainerSpec {
        self.running_with(name, attempt, |_| true).await
    }

    /// Waits until a container runs and has what `wanted` asks for; what it has then.
    pub async fn running_with(
        &self,
        name: &str,
        attempt: u32,
        wanted: impl Fn(&ContainerSpec) -> bool,
    ) -> ContainerSpec {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let found = self.containers.lock().values().find_map(|fake| {
                let runs = matches!(*fake.state.borrow(), ContainerState::Running { .. });
                let asked = runs && fake.spec.name == name && fake.spec.attempt == attempt && wanted(&fake.spec);
                asked.then(|| fake.spec.clone())
            });
            if let Some(spec) = found {
                return spec;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until a container has had a signal.
    pub async fn signalled(&self, id: &ContainerId, signal: Signal) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if self.signals(id).contains(&signal) {
                return;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The signals that a container has had.
    #[must_use]
    pub fn signals(&self, id: &ContainerId) -> Vec<Signal> {
        self.containers.lock().get(id).map(|fake| fake.signals.clone()).unwrap_or_default()
    }

    /// Waits until no container exists any more.
    pub async fn empty(&self) {
        let mut changed = self.changed.subscribe();
        while !self.containers.lock().is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends a running container.
    pub fn exit(&self, id: &ContainerId, code: i32) {
        self.exit_with(id, code, false, None);
    }

    /// Ends a running container, with all that an exit can tell.
    pub fn exit_with(&self, id: &ContainerId, code: i32, oom_killed: bool, message: Option<&str>) {
        if let Some(fake) = self.containers.lock().get(id) {
            fake.state.send_if_modified(|state| end(state, code, oom_killed, message));
            fake.attachers.end();
        }
        self.changed.send_modify(|n| *n += 1);
    }

    /// Writes to a container's output.
    pub async fn print(&self, id: &ContainerId, stream: Stream, text: &str) {
        let found = self.containers.lock().get(id).map(|fake| (fake.output.clone(), fake.attachers.clone()));
        if let Some((output, attachers)) = found {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            attachers.publish(stream, &bytes);
            output.write(stream, bytes).await;
        }
    }

    fn take_failure(&self, call: Call) -> Option<String> {
        self.failures.lock().remove(&call)
    }

    fn changed(&self) {
        self.changed.send_modify(|n| *n += 1);
    }
}

fn end(state: &mut ContainerState, code: i32, oom_killed: bool, message: Option<&str>) -> bool {
    let started_at = match state {
        ContainerState::Running { started_at } => *started_at,
        ContainerState::Created => SystemTime::now(),
        ContainerState::Exited(_) => return false,
    };
    let message = message.map(str::to_owned);
    *state = ContainerState::Exited(Exit { code, oom_killed, message, started_at, finished_at: SystemTime::now() });
    true
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: self.name.clone(), version: "0.0.0".to_owned() }
    }

    async fn prepare(&self, image: &Arc<Image>, _namespace: &str) -> Result<(), RuntimeError> {
        if let Some(message) = self.take_failure(Call::Prepare) {
            return Err(RuntimeError::InvalidImage(message));
        }
        self.prepared.lock().insert(image.manifest.digest.clone());
        Ok(())
    }

    async fn create(&self, spec: ContainerSpec, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        if let Some(message) = self.take_failure(Call::Create) {
            return Err(RuntimeError::InvalidSpec(message));
        }
        for mount in &spec.mounts {
            mount.make().map_err(|error| RuntimeError::Failed(format!("mount {}: {error}", mount.target.display())))?;
        }
        let mut containers = self.containers.lock();
        if containers.contains_key(&spec.id) {
            return Err(RuntimeError::WrongState { id: spec.id, state: "created", problem: "it exists".to_owned() });
        }
        let fake = Fake {
            spec: spec.clone(),
            output,
            state: watch::Sender::new(ContainerState::Created),
            attachers: Arc::default(),
            typed: Arc::default(),
            signals: Vec::new(),
        };
        containers.insert(spec.id, fake);
        Ok(())
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        if let Some(message) = self.take_failure(Call::Start) {
            return Err(RuntimeError::Failed(message));
        }
        {
            let containers = self.containers.lock();
            let fake = containers.get(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
            fake.state.send_replace(ContainerState::Running { started_at: SystemTime::now() });
        }
        self.changed();
        Ok(())
    }

    async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        match self.containers.lock().get_mut(id) {
            Some(fake) => fake.signals.push(signal),
            None => return Err(RuntimeError::NotFound(id.clone())),
        }
        self.changed();
        match signal {
            Signal::Term if *self.ignores_term.lock() => {}
            Signal::Term => self.exit(id, 143),
            Signal::Kill => self.exit(id, 137),
        }
        Ok(())
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let mut state = {
            let containers = self.containers.lock();
            containers.get(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))?.state.subscribe()
        };
        loop {
            if let ContainerState::Exited(exit) = &*state.borrow_and_update() {
                return Ok(exit.clone());
            }
            state.changed().await.map_err(|_| RuntimeError::NotFound(id.clone()))?;
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        {
            let mut containers = self.containers.lock();
            let running =
                containers.get(id).is_some_and(|fake| matches!(*fake.state.borrow(), ContainerState::Running { .. }));
            if running {
                return Err(RuntimeError::WrongState {
                    id: id.clone(),
                    state: "running",
                    problem: "cannot remove it".to_owned(),
                });
            }
            containers.remove(id);
        }
        self.changed();
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let containers = self.containers.lock();
        Ok(containers
            .iter()
            .map(|(id, fake)| ContainerStatus {
                id: id.clone(),
                pod: fake.spec.pod.clone(),
                name: fake.spec.name.clone(),
                attempt: fake.spec.attempt,
                state: fake.state.borrow().clone(),
            })
            .collect())
    }

    async fn adopt(&self, id: &ContainerId, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        let mut containers = self.containers.lock();
        let fake = containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
        fake.output = output;
        Ok(())
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, RuntimeError> {
        if !self.containers.lock().contains_key(id) {
            return Err(RuntimeError::NotFound(id.clone()));
        }
        self.execs.lock().push((command.to_vec(), tty));
        let answer = self.exec.lock().clone();
        let answer = answer.ok_or_else(|| RuntimeError::Unsupported(format!("{} has no exec", self.name)))?;
        let (mut stdout, mut stderr) = (streams.stdout, streams.stderr);
        if let (Some(mut stdin), Some(stdout)) = (streams.stdin, &mut stdout) {
            let _gone = tokio::io::copy(&mut stdin, stdout).await;
        }
        for (sink, bytes) in [(&mut stdout, &answer.stdout), (&mut stderr, &answer.stderr)] {
            if let Some(sink) = sink {
                let _gone = sink.write_all(bytes).await;
                let _gone = sink.shutdown().await;
            }
        }
        Ok(answer.code)
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<(), RuntimeError> {
        let (attachment, typed) = {
            let containers = self.containers.lock();
            let fake = containers.get(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
            (fake.attachers.join(), fake.spec.stdin.then(|| Arc::clone(&fake.typed)))
        };
        let input = async move {
            let (Some(mut stdin), Some(typed)) = (streams.stdin, typed) else { return };
            let mut buffer = BytesMut::new();
            while let Ok(1..) = stdin.read_buf(&mut buffer).await {
                typed.lock().extend_from_slice(&buffer.split());
                self.changed();
            }
        };
        attachment.run(streams.stdout, streams.stderr, input).await
    }

    async fn update(&self, id: &ContainerId, limits: Limits) -> Result<(), RuntimeError> {
        if let Some(message) = self.take_failure(Call::Update) {
            return Err(RuntimeError::Failed(message));
        }
        let mut containers = self.containers.lock();
        containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(id.clone()))?.spec.limits = limits;
        drop(containers);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(())
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        if self.containers.lock().contains_key(id) {
            Ok(self.stats.lock().get(id).copied().unwrap_or_default())
        } else {
            Err(RuntimeError::NotFound(id.clone()))
        }
    }

    async fn disk(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        if self.containers.lock().contains_key(id) {
            Ok(self.disks.lock().get(id).copied().unwrap_or_default())
        } else {
            Err(RuntimeError::NotFound(id.clone()))
        }
    }

    async fn retain(&self, kept: &Kept<'_>) -> Result<(), RuntimeError> {
        self.prepared.lock().retain(|digest| kept(digest));
        Ok(())
    }
}

/// An [`Output`] that keeps what it is given.
#[derive(Default)]
pub struct Captured {
    written: Mutex<Vec<(Stream, Bytes)>>,
}

impl Captured {
    /// Everything written to one stream.
    #[must_use]
    pub fn text(&self, stream: Stream) -> String {
        let written = self.written.lock();
        let bytes: Vec<u8> =
            written.iter().filter(|(of, _)| *of == stream).flat_map(|(_, bytes)| bytes.to_vec()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[async_trait]
impl Output for Captured {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        self.written.lock().push((stream, bytes));
    }
}
