//! A command beside a running container, in its mounts, environment, network and limits. A module has no other programs in it. So a
//! command is one of three things, the first that fits: what `kubectl cp` sends, word for word ([`copy`](crate::copy)); a call, where its first word
//! names a function that the component exports ([`call`](crate::call)); or the module run anew with the arguments given, the first of which
//! is then the guest's own name for itself, as `argv[0]` is a process'.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt as _;
use tokio_util::task::AbortOnDropHandle;
use wherry_runtime::{RuntimeError, Streams};

use crate::call::{self, Call};
use crate::command;
use crate::container::Container;
use crate::copy::{Copies, Request};
use crate::cpu::Metered;
use crate::ending::Ending;
use crate::imports::listed;
use crate::program::Program;
use crate::state::Environment;
use crate::streams::{Sinks, Wiring};

/// The exit code of what ended with its container.
const WITH_ITS_CONTAINER: i32 = 137;

/// What is done for a command that is no copy.
enum Deed {
    Call(Call),
    RunAnew,
}

/// A command module or component is run with whatever arguments are given.
fn deed(program: &Program, command: &[String]) -> Result<Deed, RuntimeError> {
    let Some(name) = command.first() else {
        return Err(RuntimeError::InvalidSpec("no command was given".into()));
    };
    let component = program.component();
    if let Some(call) = component.and_then(|component| Call::of(component, command)) {
        return Ok(Deed::Call(call));
    }
    match (program, component) {
        (Program::Served(_), Some(component)) => {
            let functions = call::callable(component.component());
            Err(RuntimeError::InvalidSpec(format!(
                "failed to exec in container: exec: {name:?}: executable file not found in $PATH: this component is served \
                 (wasi:http/incoming-handler) and has no command that could be run; of its functions it exports {}",
                listed(&functions)
            )))
        }
        _ => Ok(Deed::RunAnew),
    }
}

/// Runs a command to its end; dropped, it is ended.
pub(crate) async fn exec(
    container: &Arc<Container>,
    guests: &tokio::runtime::Handle,
    copies: &Copies,
    command: &[String],
    tty: bool,
    streams: Streams,
) -> Result<i32, RuntimeError> {
    container.check_running("a command can be run in a running container only")?;
    if let Some(request) = Request::of(command) {
        return tokio::select! {
            biased;
            code = copies.run(request, container.environment(), guests, streams) => code,
            _ = container.wait() => Ok(WITH_ITS_CONTAINER),
        };
    }
    let deed = deed(container.program(), command)?;
    let mut streams = streams;
    let wiring = {
        let _guests = guests.enter();
        Wiring::of_command(&mut streams.stdin, tty)?
    };
    let run = guests.spawn(beside(Arc::clone(container), deed, command.to_vec(), wiring, streams));
    let run = AbortOnDropHandle::new(run);
    tokio::select! {
        biased;
        code = run => code.map_err(|_| RuntimeError::Failed("the runtime is shut down".into()))?,
        // As the processes of a container end with its first one.
        _ = container.wait() => Ok(WITH_ITS_CONTAINER),
    }
}

async fn beside(
    container: Arc<Container>,
    deed: Deed,
    args: Vec<String>,
    wiring: Wiring,
    streams: Streams,
) -> Result<i32, RuntimeError> {
    let environment = Arc::new(container.environment().beside(Arc::clone(&wiring.stdio), &args));
    let Streams { stdin, stdout, stderr, resize } = streams;
    let sinks = Sinks::new(stdout, stderr.filter(|_| !wiring.is_terminal()));
    let work = async {
        let work = AssertUnwindSafe(work(container.program(), &deed, &environment)).catch_unwind();
        let ending = tokio::select! {
            outcome = work => outcome.unwrap_or_else(|_| Ending::Host("a host function panicked".into())),
            () = wiring.interrupted() => Ending::Interrupted,
        };
        if let Ending::Trap(text) | Ending::OutOfMemory(text) = &ending {
            environment.account.stdio.say(text);
        }
        ending
    };
    let run = wiring.run(&sinks, work);
    // What is typed ends nothing, and is not waited for.
    let input = async {
        tokio::join!(wiring.type_in(stdin), wiring.resize(resize));
        std::future::pending::<()>().await
    };
    let ending = tokio::select! {
        ending = run => ending,
        () = input => Ending::Killed,
    };
    sinks.close().await;
    match ending {
        Ending::NoRoom(text) | Ending::Host(text) => Err(RuntimeError::Failed(text)),
        ending => Ok(ending.exit(SystemTime::now()).code),
    }
}

async fn work(program: &Program, deed: &Deed, environment: &Arc<Environment>) -> Ending {
    let (cpu, pulse) = (Arc::clone(&environment.account.cpu), Arc::clone(&environment.account.pulse));
    if let Deed::Call(call) = deed {
        return Metered::new(cpu, pulse, call.run(environment)).await;
    }
    match program {
        Program::Command(program) => Metered::new(cpu, pulse, command::run_component(program, environment)).await,
        Program::Module(program) => Metered::new(cpu, pulse, command::run_module(program, environment)).await,
        Program::Served(_) => Ending::Host("a served component is not run anew".into()),
    }
}
