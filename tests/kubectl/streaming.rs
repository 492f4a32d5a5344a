//! `exec`, `attach`, `port-forward`: of both kinds, over WebSockets and over SPDY.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use wherry_test::{Child, Cluster, Kubectl, PATIENCE, get, image_of, wasm_layout};

use crate::scene::{ECHO, Scene};

/// A program of both kinds that copies its input to its output.
struct Tool {
    kind: &'static str,
    image: &'static str,
    /// What its container runs with.
    args: &'static str,
    /// A command that copies as well and exits 0.
    copies: &'static [&'static str],
    /// One that copies, says `err` on the other stream and exits 7.
    fails: &'static [&'static str],
}

const TOOLS: [Tool; 2] = [
    Tool {
        kind: "wasm",
        image: "tests.wherry.dev/tool:wasm",
        args: "[]",
        copies: &["tool"],
        fails: &["tool", "1", "2", "3", "4", "5", "6", "7", "8"],
    },
    Tool {
        kind: "container",
        image: "tests.wherry.dev/tool:container",
        args: "[cat]",
        copies: &["/bin/busybox", "cat"],
        fails: &["/bin/busybox", "sh", "-c", "/bin/busybox cat; echo err >&2; exit 7"],
    },
];

/// Makes the images known.
pub(crate) fn load(cluster: &Cluster) -> Result<()> {
    let layout = cluster.scratch().join("tool.tar");
    wasm_layout(&layout, &wat::parse_str(include_str!("tool.wat"))?)?;
    cluster.load(&layout, TOOLS[0].image)?;
    let programs = [("/bin/busybox", "/usr/bin/busybox")];
    cluster.load(&image_of("busybox", "/bin/busybox", &programs)?, TOOLS[1].image)
}

/// The same kubectl, once with WebSockets and once without.
pub(crate) fn transports(s: &Scene) -> [Kubectl; 2] {
    let spdy = s.kubectl.with_variable("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
    [s.kubectl.clone(), spdy.with_variable("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")]
}

fn pod(name: &str, tool: &Tool) -> String {
    let Tool { image, args, .. } = tool;
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - {{name: c, image: {image:?}, args: {args}, imagePullPolicy: IfNotPresent, stdin: true, stdinOnce: true}}
"
    )
}

/// Runs a command in the Pod of a kind.
fn run(kubectl: &Kubectl, pod: &str, flag: Option<&str>, command: &[&str], input: &str) -> Result<wherry_test::Output> {
    let line: Vec<&str> = ["exec", pod].into_iter().chain(flag).chain(["--"]).chain(command.iter().copied()).collect();
    kubectl.arguments(&line, input)
}

/// Commands: the streams apart, exit codes, input that ends, a terminal.
pub(crate) fn exec(s: &Scene) -> Result<()> {
    let much: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    for tool in &TOOLS {
        let kind = tool.kind;
        s.kubectl.apply(&pod(kind, tool))?;
        s.wait(&format!("--for=condition=Ready pod/{kind}"))?;
        for kubectl in transports(s) {
            let quiet = run(&kubectl, kind, None, tool.copies, "not passed on")?;
            ensure!(quiet.success && quiet.stdout.is_empty(), "{kind}: {quiet:?}");
            let copied = run(&kubectl, kind, Some("-i"), tool.copies, &much)?;
            ensure!(
                copied.success && copied.stdout == much,
                "{kind}: {} bytes, {}",
                copied.stdout.len(),
                copied.stderr
            );
            let failed = run(&kubectl, kind, Some("-i"), tool.fails, "some\n")?;
            ensure!(!failed.success && failed.stdout == "some\n", "{kind}: {failed:?}");
            ensure!(failed.stderr == "err\ncommand terminated with exit code 7\n", "{kind}: {failed:?}");
            let (code, said) = on_a_terminal(&kubectl, kind, tool.fails)?;
            ensure!(code == Some(7) && said.contains("err") && said.contains("exit code 7"), "{kind}: {code:?} {said}");
        }
        s.refuses(&format!("exec {kind} -c other -- true"), &["container other is not valid for pod"])?;
    }
    s.refuses("exec container -- no-such-program", &["executable file not found in $PATH"])?;
    s.refuses("exec none -- true", &["pods \"none\" not found"])
}

/// `exec -t` below script(1), whose terminal it is; the exit code and all that was shown.
fn on_a_terminal(kubectl: &Kubectl, pod: &str, command: &[&str]) -> Result<(Option<i32>, String)> {
    let inner = kubectl.command(["exec", "-t", pod, "--"].iter().chain(command));
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy());
    let line: Vec<String> = std::iter::once(inner.get_program()).chain(inner.get_args()).map(quoted).collect();
    let mut script = Command::new("timeout");
    script.args(["90", "script", "-qec", &line.join(" "), "/dev/null"]).stdin(Stdio::null());
    script.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = script.output().context("start script")?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Typing into a container that runs, until its end.
pub(crate) fn attach(s: &Scene) -> Result<()> {
    for tool in &TOOLS {
        for (kubectl, name) in transports(s).iter().zip(["first", "second"]) {
            let pod_name = format!("{}-{name}", tool.kind);
            s.kubectl.apply(&pod(&pod_name, tool))?;
            s.wait(&format!("--for=condition=Ready pod/{pod_name}"))?;
            let attached = kubectl.arguments(&["attach", "-i", &pod_name], "typed\n")?;
            ensure!(attached.success && attached.stdout.contains("typed\n"), "{pod_name}: {attached:?}");
            // Its input has ended, and so has it.
            s.wait(&format!("--for=jsonpath={{.status.phase}}=Succeeded pod/{pod_name}"))?;
            s.prints(&format!("logs {pod_name}"), "typed\n")?;
            s.refuses(&format!("exec {pod_name} -- true"), &["cannot exec", "completed pod"])?;
        }
    }
    Ok(())
}

/// A port that is forwarded.
struct Forward {
    child: Child,
    address: String,
}

fn open(kubectl: &Kubectl, pod: &str, port: u16) -> Result<Forward> {
    let port = format!(":{port}");
    let mut child = Child::start("kubectl port-forward", &mut kubectl.command(["port-forward", pod, &port]))?;
    let line = child.wait_for_line(PATIENCE, |line| line.starts_with("Forwarding from 127.0.0.1:"))?;
    let address = line.split_whitespace().nth(2).context("no address")?.to_owned();
    Ok(Forward { child, address })
}

/// Many connections at once, much in both ways, and a port that nobody listens on.
pub(crate) fn forward(s: &Scene) -> Result<()> {
    let big = "x".repeat(100_000);
    for (kind, image) in ECHO {
        // Not all of it in braces: kubectl 1.32 takes that for JSON.
        let manifest = format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {kind}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: c
      image: {image:?}
      imagePullPolicy: IfNotPresent
      env: [{{name: BIG, value: {big}}}]
      ports: [{{containerPort: 8080}}]
"
        );
        s.kubectl.apply(&manifest)?;
        s.wait(&format!("--for=condition=Ready pod/{kind}"))?;
        for kubectl in transports(s) {
            let forward = open(&kubectl, &format!("pod/{kind}"), 8080)?;
            let address = forward.address.as_str();
            std::thread::scope(|scope| {
                let ask = || -> Result<()> {
                    for n in 0..5 {
                        let answer = get(address, "/env?name=BIG").with_context(|| format!("{kind}: answer {n}"))?;
                        ensure!(answer.status == 200 && answer.body == big, "{kind}: {}", answer.status);
                    }
                    Ok(())
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().try_for_each(|thread| thread.join().unwrap())
            })?;
            let mut closed = open(&kubectl, &format!("pod/{kind}"), 9)?;
            ensure!(get(&closed.address, "/").is_err(), "nobody listens there");
            closed.child.wait_for_line(PATIENCE, |line| {
                line.contains("error forwarding port 9 to pod") && line.contains("connection refused")
            })?;
        }
        // The API server's own way.
        let path = format!("/api/v1/namespaces/{}/pods/{kind}:8080/proxy/env?name=BIG", s.namespace);
        s.prints(&format!("get --raw {path}"), &big)?;
    }
    s.kubectl.apply(&pod("mirror", &TOOLS[1]).replace("[cat]", "[nc, -ll, -p, '9000', -e, /bin/busybox, cat]"))?;
    s.wait("--for=condition=Ready pod/mirror")?;
    for kubectl in transports(s) {
        let forward = open(&kubectl, "pod/mirror", 9000)?;
        let mut stream = TcpStream::connect(&forward.address)?;
        let much: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let mut seen = Vec::new();
        std::thread::scope(|scope| -> Result<()> {
            let mut writer = stream.try_clone()?;
            let much = &much;
            let sent = scope.spawn(move || writer.write_all(much).and_then(|()| writer.shutdown(Shutdown::Write)));
            // The end of one way leaves the other one open.
            stream.read_to_end(&mut seen)?;
            Ok(sent.join().unwrap()?)
        })?;
        ensure!(seen == much, "{} of {} bytes came back", seen.len(), much.len());
    }
    Ok(())
}
