//! The cases of the guests of `tests/wasi`: what each needs, and how it ends. The same for every runtime of Wasm.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use wherry_runtime::conformance::{Captured, Loopback};
use wherry_runtime::{ContainerSpec, Exit, Mount, Output, Runtime, Streams};

/// What a case needs beside the mounts, and how it ends.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    /// Nothing.
    Plain,
    /// Arguments of its own.
    Arguments,
    /// To end with this code.
    Ends(i32),
    /// Something typed; it writes to both of its outputs.
    Typed,
    /// A terminal.
    Terminal,
    /// A named pipe in `/data`.
    Fifo,
}

use Case::{Arguments, Ends, Fifo, Plain, Terminal, Typed};

/// Those of the module of preview 1.
pub(crate) const PREVIEW_1: &[(&str, Case)] = &[
    ("arguments", Arguments),
    ("environment", Plain),
    ("clocks", Plain),
    ("random", Plain),
    ("yield", Plain),
    ("exit", Ends(200)),
    ("signals", Plain),
    ("stdio", Typed),
    ("poll", Plain),
    ("sockets", Plain),
    ("preopens", Plain),
    ("content", Plain),
    ("descriptor", Plain),
    ("times", Plain),
    ("renumber", Plain),
    ("directory", Plain),
    ("open", Plain),
    ("tree", Plain),
    ("links", Plain),
    ("fixed", Plain),
    ("fifo", Fifo),
];

/// Those of the command of 0.2.
pub(crate) const COMMAND: &[(&str, Case)] = &[
    ("environment", Arguments),
    ("clocks", Plain),
    ("random", Plain),
    ("exit", Ends(1)),
    ("exit-with-code", Ends(200)),
    ("no-terminals", Plain),
    ("terminals", Terminal),
    ("stdio", Typed),
    ("poll", Plain),
    ("input", Plain),
    ("output", Plain),
    ("splice", Plain),
    ("content", Plain),
    ("descriptor", Plain),
    ("times", Plain),
    ("same", Plain),
    ("directory", Plain),
    ("open", Plain),
    ("tree", Plain),
    ("links", Plain),
    ("fixed", Plain),
    ("fifo", Fifo),
    ("names", Plain),
    ("udp", Plain),
    ("udp-options", Plain),
    ("tcp", Plain),
    ("tcp-errors", Plain),
    ("tcp-options", Plain),
];

/// Runs all cases of a guest, at once. `spec` makes a container of it, `ip` an address of its own; files go below `dir`.
pub(crate) async fn all(
    runtime: &dyn Runtime,
    dir: &Path,
    cases: &[(&str, Case)],
    spec: impl Fn() -> ContainerSpec,
    ip: impl Fn() -> IpAddr,
) {
    let (exit, listed) = run(runtime, spec(), None).await;
    assert_eq!(exit.code, 0);
    let (known, listed) = (cases.iter().map(|(name, _)| *name), listed.stdout());
    assert_eq!(known.collect::<BTreeSet<_>>(), listed.lines().collect(), "the cases of the guest");
    let outcomes = cases.iter().map(|(name, case)| {
        let mut spec = spec();
        spec.network = Arc::new(Loopback::new(ip()).with_name("known.test", IpAddr::from([127, 0, 0, 9])));
        equip(&mut spec, &dir.join("mounts").join(name), name, *case);
        outcome(runtime, spec, name, *case)
    });
    let failed: Vec<String> = futures::future::join_all(outcomes).await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Gives a container what its case needs; files go below `own`.
pub(crate) fn equip(spec: &mut ContainerSpec, own: &Path, name: &str, case: Case) {
    spec.command = vec!["guest.wasm".into(), name.into()];
    if let Arguments = case {
        spec.command.extend(["", "two words", "ünï"].map(str::to_owned));
    }
    spec.env = vec![("COLOUR".into(), "green=blue".into()), ("EMPTY".into(), String::new())];
    spec.working_dir = Some("/data".into());
    let mount = |target: &str, read_only| {
        let source = own.join(target);
        std::fs::create_dir_all(&source).unwrap();
        // As a volume that is made for whatever user.
        std::fs::set_permissions(&source, PermissionsExt::from_mode(0o777)).unwrap();
        Mount { source, target: format!("/{target}").into(), read_only, ..Mount::default() }
    };
    spec.mounts = vec![mount("data", false), mount("fixed", true)];
    std::fs::write(own.join("fixed/kept"), "kept").unwrap();
    if let Fifo = case {
        mkfifo(&own.join("data/fifo"), Mode::S_IRWXU).unwrap();
        std::fs::set_permissions(own.join("data/fifo"), PermissionsExt::from_mode(0o777)).unwrap();
    }
    (spec.stdin, spec.stdin_once) = (matches!(case, Typed | Terminal), true);
    spec.tty = matches!(case, Terminal);
}

async fn run(runtime: &dyn Runtime, spec: ContainerSpec, typed: Option<&'static [u8]>) -> (Exit, Arc<Captured>) {
    let (id, output) = (spec.id.clone(), Captured::new());
    runtime.create(spec, Arc::clone(&output) as Arc<dyn Output>).await.unwrap();
    runtime.start(&id).await.unwrap();
    if let Some(typed) = typed {
        let streams = Streams { stdin: Some(Box::new(typed)), ..Streams::default() };
        runtime.attach(&id, streams).await.unwrap();
    }
    (runtime.wait(&id).await.unwrap(), output)
}

/// What is wrong, if anything.
async fn outcome(runtime: &dyn Runtime, spec: ContainerSpec, name: &str, case: Case) -> Option<String> {
    let data = spec.mounts[0].source.clone();
    let (exit, output) = run(runtime, spec, matches!(case, Typed).then_some(&b"typed"[..])).await;
    let (stdout, stderr) = (output.stdout(), output.stderr());
    let expected = match case {
        Typed => exit.code == 0 && stdout == "to stdout\n" && stderr == "to stderr\n",
        Ends(code) => exit.code == code,
        _ => exit.code == 0,
    };
    let left = std::fs::read_dir(data).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "fifo").count();
    (!expected || left > 0).then(|| {
        format!(
            "{name}: code {}, {left} files left, {:?}\n{stdout}{stderr}",
            exit.code,
            exit.message.unwrap_or_default()
        )
    })
}
