//! One container: its place in the lifecycle, and the supervisor task that brings it to its end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wherry_runtime::{
    Arrivals, Attachers, ContainerId, ContainerSpec, ContainerState, ContainerStatus, Exit, Output, PodRef,
    RuntimeError, Signal, Streams,
};

use crate::Options;
use crate::command;
use crate::cpu::Metered;
use crate::ending::Ending;
use crate::program::Program;
use crate::serve::{self, Door};
use crate::state::Environment;
use crate::streams::Wiring;

/// A container that this runtime knows.
pub(crate) struct Container {
    id: ContainerId,
    pod: PodRef,
    name: String,
    attempt: u32,
    ports: Vec<u16>,
    program: Arc<Program>,
    environment: Arc<Environment>,
    wiring: Wiring,
    attachers: Arc<Attachers>,
    output: Arc<dyn Output>,
    created_at: SystemTime,
    phase: watch::Sender<Phase>,
    door: Door,
    term: CancellationToken,
    kill: CancellationToken,
}

/// Where a container is.
#[derive(Clone, Debug)]
enum Phase {
    /// Left by `start` or `kill`.
    Created,
    /// `start` is opening its doors; left when they are open or could not be.
    Starting,
    /// Left when its supervisor has handed over all output.
    Running { started_at: SystemTime },
    /// Left by being removed.
    Exited(Exit),
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Exited(_) => "exited",
        }
    }
}

impl Container {
    pub(crate) fn new(
        spec: ContainerSpec,
        program: Arc<Program>,
        environment: Environment,
        wiring: Wiring,
        output: Arc<dyn Output>,
    ) -> Self {
        let attachers = Arc::<Attachers>::default();
        Self {
            id: spec.id,
            pod: spec.pod,
            name: spec.name,
            attempt: spec.attempt,
            ports: spec.ports,
            program,
            environment: Arc::new(environment),
            wiring,
            output: attachers.tee(output),
            attachers,
            created_at: SystemTime::now(),
            phase: watch::Sender::new(Phase::Created),
            door: Door::default(),
            term: CancellationToken::new(),
            kill: CancellationToken::new(),
        }
    }

    /// Whether requests bring it to work, not its own main function.
    pub(crate) fn is_served(&self) -> bool {
        matches!(&*self.program, Program::Served(_))
    }

    /// Moves Created to Running and spawns the supervisor on `guests`, whose context the caller is in.
    pub(crate) fn start(
        self: &Arc<Self>,
        options: &Arc<Options>,
        guests: &tokio::runtime::Handle,
    ) -> Result<(), RuntimeError> {
        let mut from = None;
        self.phase.send_if_modified(|phase| {
            let created = matches!(phase, Phase::Created);
            if created {
                *phase = Phase::Starting;
            } else {
                from = Some(phase.name());
            }
            created
        });
        if let Some(state) = from {
            return Err(self.wrong_state(state, "only a created container can be started"));
        }
        let doors = self.environment.account.cpu.spend(|| {
            let _guests = guests.enter();
            match &*self.program {
                Program::Served(_) => serve::listen(self.environment.network.as_ref(), self.served()),
                _ => Ok(Vec::new()),
            }
        });
        let doors = match doors {
            Ok(doors) => doors,
            Err(error) => {
                // It may be tried again: the port may be free then.
                self.phase.send_replace(Phase::Created);
                return Err(error);
            }
        };
        let started_at = SystemTime::now();
        self.phase.send_replace(Phase::Running { started_at });
        guests.spawn(Arc::clone(self).supervise(doors, Arc::clone(options), started_at));
        Ok(())
    }

    async fn supervise(self: Arc<Self>, doors: Vec<Box<dyn Arrivals>>, options: Arc<Options>, started_at: SystemTime) {
        let ending = self.wiring.run(self.output.as_ref(), self.run(doors, &options)).await;
        tracing::debug!(id = %self.id, pod = %self.pod.name, container = %self.name, ?ending, "a container ended");
        self.attachers.end();
        self.phase.send_replace(Phase::Exited(ending.exit(started_at)));
    }

    async fn run(&self, doors: Vec<Box<dyn Arrivals>>, options: &Options) -> Ending {
        let work = AssertUnwindSafe(self.work(doors, options)).catch_unwind();
        let end_by_term = async {
            match &*self.program {
                // Hears it itself.
                Program::Served(_) => std::future::pending().await,
                _ => self.term.cancelled().await,
            }
        };
        tokio::select! {
            biased;
            () = self.kill.cancelled() => Ending::Killed,
            () = end_by_term => Ending::Terminated,
            () = self.wiring.interrupted() => Ending::Interrupted,
            outcome = work => outcome.unwrap_or_else(|_| Ending::Host("a host function panicked".into())),
        }
    }

    async fn work(&self, doors: Vec<Box<dyn Arrivals>>, options: &Options) -> Ending {
        let account = &self.environment.account;
        let (cpu, pulse) = (Arc::clone(&account.cpu), Arc::clone(&account.pulse));
        match &*self.program {
            Program::Served(program) => {
                let environment = Arc::clone(&self.environment);
                serve::serve(program, environment, doors, options, &self.door, self.term.clone()).await
            }
            Program::Command(program) => {
                Metered::new(cpu, pulse, command::run_component(program, &self.environment)).await
            }
            Program::Module(program) => Metered::new(cpu, pulse, command::run_module(program, &self.environment)).await,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // What never started has nothing to end: it goes from Created to Exited here.
        self.phase.send_if_modified(|phase| {
            let created = matches!(phase, Phase::Created);
            if created {
                let ending = if signal == Signal::Kill { Ending::Killed } else { Ending::Terminated };
                *phase = Phase::Exited(ending.exit(self.created_at));
            }
            created
        });
        match signal {
            Signal::Term => self.term.cancel(),
            Signal::Kill => self.kill.cancel(),
        }
    }

    pub(crate) async fn wait(&self) -> Exit {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Exited(exit) = &*phase.borrow_and_update() {
                return exit.clone();
            }
            // The sender is ours: it cannot be gone.
            if phase.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether it may be forgotten: it is not running.
    pub(crate) fn check_removable(&self) -> Result<(), RuntimeError> {
        match &*self.phase.borrow() {
            Phase::Created | Phase::Exited(_) => Ok(()),
            running => Err(self.wrong_state(running.name(), "only a container that does not run can be removed")),
        }
    }

    /// Whether it runs, which `problem` needs.
    pub(crate) fn check_running(&self, problem: &str) -> Result<(), RuntimeError> {
        match &*self.phase.borrow() {
            Phase::Running { .. } => Ok(()),
            other => Err(self.wrong_state(other.name(), problem)),
        }
    }

    pub(crate) fn wrong_state(&self, state: &'static str, problem: &str) -> RuntimeError {
        RuntimeError::WrongState { id: self.id.clone(), state, problem: problem.to_owned() }
    }

    pub(crate) fn state_name(&self) -> &'static str {
        self.phase.borrow().name()
    }

    /// When it started; none where it does not run.
    pub(crate) fn started_at(&self) -> Option<SystemTime> {
        match &*self.phase.borrow() {
            Phase::Running { started_at } => Some(*started_at),
            _ => None,
        }
    }

    /// The ports that it is served on, if it is.
    fn served(&self) -> &[u16] {
        if self.ports.is_empty() { &[serve::DEFAULT_PORT] } else { &self.ports }
    }

    /// Asks as a client of its port would; none where that takes a connection.
    pub(crate) async fn ask(&self, port: u16, request: http::Request<()>) -> Option<http::Response<()>> {
        let is_served = matches!(&*self.program, Program::Served(_)) && self.served().contains(&port);
        if is_served { self.door.ask(request).await } else { None }
    }

    /// Joins a caller to its streams.
    pub(crate) async fn attach(&self, streams: Streams) -> Result<(), RuntimeError> {
        self.check_running("only to a running container can be attached")?;
        let Streams { stdin, stdout, stderr, resize } = streams;
        // Sizes alone are no reason to stay.
        let input = async {
            let (typed, resized) = (self.wiring.type_in(stdin), self.wiring.resize(resize));
            tokio::pin!(typed, resized);
            tokio::select! {
                () = &mut typed => {}
                () = &mut resized => typed.await,
            }
        };
        self.attachers.join().run(stdout, stderr.filter(|_| !self.wiring.is_terminal()), input).await
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        let state = match &*self.phase.borrow() {
            Phase::Created | Phase::Starting => ContainerState::Created,
            Phase::Running { started_at } => ContainerState::Running { started_at: *started_at },
            Phase::Exited(exit) => ContainerState::Exited(exit.clone()),
        };
        ContainerStatus {
            id: self.id.clone(),
            pod: self.pod.clone(),
            name: self.name.clone(),
            attempt: self.attempt,
            state,
        }
    }
}
