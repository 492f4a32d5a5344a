//! The checks. Each one leaves the runtime as it found it.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use tokio::time::timeout;

use super::{Captured, DEADLINE, Fixture, Gate, Program, Workload};
use crate::{
    ContainerId, ContainerSpec, ContainerState, Exit, Limits, Make, Maker, Mount, Output, PodRef, Runtime,
    RuntimeError, Security, Signal,
};

/// Where the suite's Pods are.
const NAMESPACE: &str = "conformance";

/// A container of the suite and the runtime it is in.
pub(super) struct Container {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) id: ContainerId,
    pub(super) output: Arc<Captured>,
}

/// A new identity: containers of earlier runs of the suite may still be known to a real runtime.
fn fresh_id() -> ContainerId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let unique = (u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 96) | (now & ((1 << 96) - 1));
    ContainerId(format!("{:032x}{unique:032x}", std::process::id()))
}

fn spec(fixture: &dyn Fixture, program: Program, limits: Limits) -> ContainerSpec {
    let id = fresh_id();
    let uid = format!("conformance-{}", &id.0[24..]);
    ContainerSpec {
        pod: PodRef { namespace: NAMESPACE.into(), name: uid.clone(), uid: uid.clone() },
        cgroup_parent: format!("/wherry/pod{uid}"),
        id,
        name: "main".into(),
        attempt: 0,
        image: program.image,
        command: program.command,
        args: program.args,
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        limits,
        ports: Vec::new(),
        network: fixture.network(),
        hostname: "conformance".into(),
        security: Security::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
    }
}

pub(super) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("the runtime hangs: {what}"))
}

async fn created(fixture: &dyn Fixture, workload: Workload) -> Option<Container> {
    created_with(fixture, workload, Limits::default()).await
}

async fn created_with(fixture: &dyn Fixture, workload: Workload, limits: Limits) -> Option<Container> {
    created_by(fixture, workload, |spec| spec.limits = limits).await
}

pub(super) async fn created_by(
    fixture: &dyn Fixture,
    workload: Workload,
    change: impl FnOnce(&mut ContainerSpec),
) -> Option<Container> {
    let program = fixture.program(workload).await?;
    let runtime = fixture.runtime();
    in_time("prepare", runtime.prepare(&program.image, NAMESPACE)).await.unwrap();
    let mut spec = spec(fixture, program, Limits::default());
    change(&mut spec);
    let (id, output) = (spec.id.clone(), Captured::new());
    in_time("create", runtime.create(spec, Arc::clone(&output) as Arc<dyn Output>)).await.unwrap();
    Some(Container { runtime, id, output })
}

pub(super) async fn started(fixture: &dyn Fixture, workload: Workload) -> Option<Container> {
    let container = created(fixture, workload).await?;
    container.start().await;
    Some(container)
}

impl Container {
    pub(super) async fn start(&self) {
        in_time("start", self.runtime.start(&self.id)).await.unwrap();
    }

    pub(super) async fn wait(&self) -> Exit {
        let exit = in_time("wait", self.runtime.wait(&self.id)).await.unwrap();
        assert!(exit.started_at <= exit.finished_at, "it ended before it started: {exit:?}");
        exit
    }

    pub(super) async fn state(&self) -> Option<ContainerState> {
        let all = in_time("list", self.runtime.list()).await.unwrap();
        all.into_iter().find(|status| status.id == self.id).map(|status| status.state)
    }

    pub(super) async fn end(self) {
        in_time("kill", self.runtime.kill(&self.id, Signal::Kill)).await.unwrap();
        self.wait().await;
        self.remove().await;
    }

    pub(super) async fn remove(&self) {
        in_time("remove", self.runtime.remove(&self.id)).await.unwrap();
        assert_eq!(self.state().await, None, "a removed container is listed");
    }
}

/// What a mount's source names is made by its maker before a container is run that may need it.
pub async fn mounts_made_late(fixture: &dyn Fixture) {
    struct Late(PathBuf);
    impl Make for Late {
        fn make(&self) -> io::Result<()> {
            std::fs::create_dir_all(&self.0)
        }
    }
    let source = std::env::temp_dir().join(fresh_id().0);
    let maker = Some(Maker(Arc::new(Late(source.clone()))));
    let mount = Mount { source: source.clone(), target: "/late".into(), maker, ..Mount::default() };
    if let Some(container) = created_by(fixture, Workload::Exits0, |spec| spec.mounts.push(mount)).await {
        container.start().await;
        assert_eq!(container.wait().await.code, 0);
        container.remove().await;
    }
    // A runtime need not make what its guest can never see.
    drop(std::fs::remove_dir(source));
}

/// A container's own exit code is its exit, without a message.
pub async fn exit_codes(fixture: &dyn Fixture) {
    for (workload, code) in [(Workload::Exits0, 0), (Workload::Exits3, 3)] {
        let Some(container) = started(fixture, workload).await else { continue };
        let exit = container.wait().await;
        assert_eq!((exit.code, exit.oom_killed, exit.message), (code, false, None));
        container.remove().await;
    }
}

/// When `wait` returns, every byte was handed over, in order per stream.
pub async fn output_is_whole_and_in_order(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::Prints).await else { return };
    assert_eq!(container.wait().await.code, 0);
    assert_eq!(container.output.stdout(), "out 1\nout 2\n");
    assert_eq!(container.output.stderr(), "err 1\nerr 2\n");
    container.remove().await;
}

/// Created, Running, Exited, gone; `remove` is idempotent and the exit is kept until then.
pub async fn lifecycle(fixture: &dyn Fixture) {
    let Some(container) = created(fixture, Workload::RunsUntilTold).await else { return };
    assert_eq!(container.state().await, Some(ContainerState::Created));
    container.start().await;
    assert!(matches!(container.state().await, Some(ContainerState::Running { .. })));
    in_time("kill", container.runtime.kill(&container.id, Signal::Kill)).await.unwrap();
    let exit = container.wait().await;
    assert_eq!(container.state().await, Some(ContainerState::Exited(exit.clone())));
    assert_eq!(container.wait().await, exit, "the exit changed");
    container.remove().await;
    container.remove().await;

    let Some(never_started) = created(fixture, Workload::Exits0).await else { return };
    never_started.remove().await;
}

/// `Term` ends what listens to it, with its own answer.
pub async fn term_ends(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsUntilTold).await else { return };
    in_time("kill", container.runtime.kill(&container.id, Signal::Term)).await.unwrap();
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (fixture.term_code(), false));
    container.remove().await;
}

/// `Kill` ends anything, as 137 and not as OOM.
pub async fn kill_ends(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsUntilTold).await else { return };
    in_time("kill", container.runtime.kill(&container.id, Signal::Kill)).await.unwrap();
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (137, false));
    container.remove().await;
}

/// A signal to an exited container does nothing.
pub async fn signals_to_the_dead(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::Exits3).await else { return };
    let exit = container.wait().await;
    for signal in [Signal::Term, Signal::Kill] {
        in_time("kill", container.runtime.kill(&container.id, signal)).await.unwrap();
    }
    assert_eq!(container.wait().await, exit);
    container.remove().await;
}

/// Many may wait, early and late; one that gives up takes nothing from the others.
pub async fn waiters(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsUntilTold).await else { return };
    assert!(container.runtime.wait(&container.id).now_or_never().is_none(), "wait returned while it runs");
    let both = join_all([container.wait(), container.wait()]);
    let kill = async { container.runtime.kill(&container.id, Signal::Kill).await.unwrap() };
    let (exits, ()) = in_time("two waiters", futures::future::join(both, kill)).await;
    assert_eq!(exits[0], exits[1]);
    assert_eq!(container.wait().await, exits[0]);
    container.remove().await;
}

/// What a state does not allow is refused and changes nothing.
pub async fn wrong_states(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsUntilTold).await else { return };
    let Container { runtime, id, .. } = &container;
    assert!(matches!(runtime.start(id).await, Err(RuntimeError::WrongState { .. })), "started twice");
    assert!(matches!(runtime.remove(id).await, Err(RuntimeError::WrongState { .. })), "removed while running");
    let Some(program) = fixture.program(Workload::Exits0).await else { return };
    let mut twin = spec(fixture, program, Limits::default());
    twin.id = id.clone();
    let answer = runtime.create(twin, Captured::new()).await;
    assert!(matches!(answer, Err(RuntimeError::WrongState { .. })), "created twice");
    assert!(matches!(container.state().await, Some(ContainerState::Running { .. })));
    container.end().await;
}

/// A container that does not exist is not found; removing it is no error.
pub async fn unknown_containers(fixture: &dyn Fixture) {
    let (runtime, id) = (fixture.runtime(), fresh_id());
    assert!(matches!(runtime.start(&id).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.kill(&id, Signal::Kill).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.wait(&id).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.stats(&id).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.adopt(&id, Captured::new()).await, Err(RuntimeError::NotFound(_))));
    runtime.remove(&id).await.unwrap();
}

/// An abnormal end is an exit like any other.
pub async fn crash(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::Crashes).await else { return };
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (fixture.crash_code(), false));
    container.remove().await;
}

/// Beyond `limits.memory` a container ends with 137 and `oom_killed`.
pub async fn out_of_memory(fixture: &dyn Fixture) {
    let Some(limit) = fixture.memory_limit() else { return };
    let limits = Limits { memory_bytes: Some(limit), ..Limits::default() };
    let Some(container) = created_with(fixture, Workload::EatsMemory, limits).await else { return };
    container.start().await;
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    container.remove().await;
}

/// A running container gets other limits and runs on.
pub async fn limits_change(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsUntilTold).await else { return };
    for (cpu, memory) in [(500, 256 << 20), (200, 128 << 20), (2000, 512 << 20)] {
        let limits = Limits { cpu_millis: Some(cpu), cpu_request_millis: Some(cpu), memory_bytes: Some(memory) };
        in_time("update", container.runtime.update(&container.id, limits)).await.unwrap();
    }
    let unknown = ContainerId("0".repeat(64));
    let refused = in_time("update", container.runtime.update(&unknown, Limits::default())).await;
    assert!(matches!(refused, Err(RuntimeError::NotFound(_))), "{refused:?}");
    in_time("kill", container.runtime.kill(&container.id, Signal::Term)).await.unwrap();
    assert_eq!(container.wait().await.code, fixture.term_code());
    container.remove().await;
}

/// What can never run is refused by `prepare`, for good and with a reason.
pub async fn broken_image(fixture: &dyn Fixture) {
    let Some(program) = fixture.program(Workload::Broken).await else { return };
    let error = in_time("prepare", fixture.runtime().prepare(&program.image, NAMESPACE)).await.unwrap_err();
    assert!(matches!(error, RuntimeError::InvalidImage(_)), "{error:?}");
    assert!(!error.is_retryable() && !error.to_string().is_empty());
}

/// `create` does by itself what `prepare` would have done before.
pub async fn unprepared_image(fixture: &dyn Fixture) {
    let Some(program) = fixture.program(Workload::Exits0).await else { return };
    let spec = spec(fixture, program, Limits::default());
    let container = Container { runtime: fixture.runtime(), id: spec.id.clone(), output: Captured::new() };
    in_time("create", container.runtime.create(spec, Arc::clone(&container.output) as Arc<dyn Output>)).await.unwrap();
    container.start().await;
    assert_eq!(container.wait().await.code, 0);
    container.remove().await;
}

/// Calls for different containers do not disturb one another.
pub async fn many_at_once(fixture: &dyn Fixture) {
    let one = |index: usize| async move {
        let workload = [Workload::Exits0, Workload::Exits3, Workload::Prints][index % 3];
        let Some(container) = started(fixture, workload).await else { return };
        assert_eq!(container.wait().await.code, [0, 3, 0][index % 3]);
        assert_eq!(container.output.stdout(), ["", "", "out 1\nout 2\n"][index % 3]);
        container.remove().await;
    };
    join_all((0..12).map(one)).await;
}

/// A crash or an OOM beside it does not touch a running container.
pub async fn neighbours_are_left_alone(fixture: &dyn Fixture) {
    let Some(quiet) = started(fixture, Workload::RunsUntilTold).await else { return };
    crash(fixture).await;
    out_of_memory(fixture).await;
    assert!(matches!(quiet.state().await, Some(ContainerState::Running { .. })));
    quiet.end().await;
}

/// While a log is behind, its container waits, and only its.
pub async fn slow_output_delays_only_its_own(fixture: &dyn Fixture) {
    let Some(program) = fixture.program(Workload::Prints).await else { return };
    let runtime = fixture.runtime();
    let (spec, behind) = (spec(fixture, program, Limits::default()), Captured::new());
    let gate = Gate::closed(Arc::clone(&behind));
    let slow = Container { runtime: Arc::clone(&runtime), id: spec.id.clone(), output: behind };
    in_time("create", runtime.create(spec, Arc::clone(&gate) as Arc<dyn Output>)).await.unwrap();
    slow.start().await;

    output_is_whole_and_in_order(fixture).await;
    assert!(runtime.wait(&slow.id).now_or_never().is_none(), "wait returned before the output was handed over");
    gate.open();
    assert_eq!(slow.wait().await.code, 0);
    assert_eq!(slow.output.stdout(), "out 1\nout 2\n");
    slow.remove().await;
}

/// Use can be asked of a running container, and is its own: never nothing, never more than it may have.
pub async fn stats(fixture: &dyn Fixture) {
    let Some(container) = started(fixture, Workload::RunsUntilTold).await else { return };
    let first = in_time("stats", container.runtime.stats(&container.id)).await.unwrap();
    let second = in_time("stats", container.runtime.stats(&container.id)).await.unwrap();
    assert!(first.cpu_nanos > 0, "a container that runs has cost no CPU time");
    assert!(first.cpu_nanos <= second.cpu_nanos, "CPU time ran backwards");
    assert!(first.started_at.is_some() && first.started_at == second.started_at);
    let memory = second.memory;
    assert!(0 < memory.working_set && memory.working_set <= memory.usage, "{memory:?}");
    assert!(memory.rss <= memory.usage && memory.usage < 64 << 20, "{memory:?}");
    let disk = in_time("disk", container.runtime.disk(&container.id)).await.unwrap();
    assert!(disk.bytes < 1 << 20, "{disk:?}");
    let (runtime, id) = (Arc::clone(&container.runtime), container.id.clone());
    container.end().await;
    assert!(matches!(runtime.stats(&id).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.disk(&id).await, Err(RuntimeError::NotFound(_))));
}
