//! exec and attach: the streams of one command, whichever transport carries them.

use std::io;
use std::time::Duration;

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use wherry_api::status::Status;
use wherry_runtime::{RuntimeError, Streams, TerminalSize};

use super::channels::{COMMAND, ERROR, RESIZE, STDERR, STDIN, STDOUT};
use super::handshake::{Offer, Transport};
use super::pipe::{Budget, Inlet, Out, Outlet, queue};
use super::target::{self, Container};
use super::websocket::{self, Tunnel};
use super::{Context, accompany, spdy};

const OFFER: Offer = Offer {
    channels: COMMAND,
    tunnel: &[],
    spdy: &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"],
};
/// How long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// The longest message about a terminal's size.
const SIZE: usize = 1 << 10;

/// What is done.
enum Task {
    /// A command and whether it has a terminal.
    Exec(Vec<String>, bool),
    Attach,
}

/// The streams that a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// As a kubelet names them in a query.
fn options(query: &str) -> Result<(Wanted, Vec<String>), &'static str> {
    let (mut wanted, mut command) = (Wanted::default(), Vec::new());
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let set = value == "1";
        match key.as_ref() {
            "input" => wanted.stdin = set,
            "output" => wanted.stdout = set,
            "error" => wanted.stderr = set,
            "tty" => wanted.tty = set,
            "command" => command.push(value.into_owned()),
            _ => {}
        }
    }
    // A terminal has one stream for both.
    wanted.stderr &= !wanted.tty;
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err("you must specify at least 1 of stdin, stdout, stderr");
    }
    Ok((wanted, command))
}

type Place = Path<(String, String, String)>;

pub(super) async fn exec(
    State(context): State<Context>,
    Path(place): Place,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let options = options(query.as_deref().unwrap_or_default());
    let options = options.and_then(|(wanted, command)| match command.is_empty() {
        true => Err("you must specify at least 1 command"),
        false => Ok((wanted, Task::Exec(command, wanted.tty))),
    });
    begin(&context, place, options, request).await
}

pub(super) async fn attach(
    State(context): State<Context>,
    Path(place): Place,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let options = options(query.as_deref().unwrap_or_default()).map(|(wanted, _)| (wanted, Task::Attach));
    begin(&context, place, options, request).await
}

async fn begin(
    context: &Context,
    (namespace, pod, container): (String, String, String),
    options: Result<(Wanted, Task), &'static str>,
    request: Request,
) -> Response {
    let (wanted, task) = match options {
        Ok(options) => options,
        Err(problem) => return (StatusCode::BAD_REQUEST, problem).into_response(),
    };
    let target = match target::container(&context.view, &namespace, &pod, &container) {
        Ok(target) => target,
        Err(refusal) => return refusal.into_response(),
    };
    match OFFER.agree(request).await {
        Ok(agreed) => agreed.begin(&context.sessions, move |transport| serve(transport, target, wanted, task)),
        Err(refusal) => refusal.into_response(),
    }
}

async fn serve(transport: Transport, target: Container, wanted: Wanted, task: Task) -> io::Result<()> {
    match transport {
        Transport::Channels(socket, protocol) => {
            let (sender, receiver) = queue();
            let budget = Budget::new();
            let pipe = |wanted: bool| wanted.then(|| budget.pipe()).unzip();
            let (stdin, resize) = (pipe(wanted.stdin), pipe(wanted.tty));
            let outlet = |wanted: bool, channel| wanted.then(|| Outlet::new(&sender, channel));
            let opened = Opened {
                stdin: stdin.1,
                stdout: outlet(wanted.stdout, STDOUT),
                stderr: outlet(wanted.stderr, STDERR),
                error: Outlet::new(&sender, ERROR),
                resize: resize.1,
            };
            // An empty message says that the command is there.
            let first = if wanted.stdout {
                STDOUT
            } else if wanted.stderr {
                STDERR
            } else {
                ERROR
            };
            let _room = sender.try_send(Out::Data(first, Bytes::new()));
            drop(sender);
            let mut feeders = vec![None, None, None, None, None];
            debug_assert!(feeders.len() > RESIZE as usize);
            feeders[STDIN as usize] = stdin.0;
            feeders[RESIZE as usize] = resize.0;
            let connection = websocket::serve(socket, protocol, feeders, receiver);
            accompany(connection, opened.work(target, task, protocol.status)).await
        }
        Transport::Tunnel(socket) => over_spdy(Tunnel::new(socket), OFFER.spdy[0], target, wanted, task).await,
        Transport::Spdy(io, version) => over_spdy(io, version, target, wanted, task).await,
    }
}

async fn over_spdy(
    io: impl AsyncRead + AsyncWrite,
    version: &'static str,
    target: Container,
    wanted: Wanted,
    task: Task,
) -> io::Result<()> {
    let (sender, receiver) = queue();
    let (accept, streams) = mpsc::channel(1);
    let connection = spdy::serve(io, accept, (sender.downgrade(), receiver));
    let resizes = wanted.tty && matches!(version, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let work = async move {
        let opened = tokio::time::timeout(OPENING, Opened::take(streams, wanted, resizes)).await;
        // Now what is opened can be sent alone.
        drop(sender);
        if let Ok(Some(opened)) = opened {
            opened.work(target, task, version == "v4.channel.k8s.io").await;
        }
    };
    accompany(connection, work).await
}

/// The streams, open.
struct Opened {
    stdin: Option<Inlet>,
    stdout: Option<Outlet>,
    stderr: Option<Outlet>,
    error: Outlet,
    resize: Option<Inlet>,
}

impl Opened {
    /// Waits until the client has opened all that it asked for; none if it never does.
    async fn take(mut streams: mpsc::Receiver<spdy::Stream>, wanted: Wanted, resizes: bool) -> Option<Self> {
        let (mut stdin, mut stdout, mut stderr, mut error, mut resize) = (None, None, None, None, None);
        while error.is_none()
            || wanted.stdin != stdin.is_some()
            || wanted.stdout != stdout.is_some()
            || wanted.stderr != stderr.is_some()
            || resizes != resize.is_some()
        {
            let stream = streams.recv().await?;
            match stream.headers.get("streamtype") {
                Some("stdin") if wanted.stdin => stdin = Some(stream.inlet),
                Some("stdout") if wanted.stdout => stdout = Some(stream.outlet),
                Some("stderr") if wanted.stderr => stderr = Some(stream.outlet),
                Some("error") => error = Some(stream.outlet),
                Some("resize") if resizes => resize = Some(stream.inlet),
                // One that nobody asked for: nothing is sent or read.
                _ => {}
            }
        }
        Some(Self { stdin, stdout, stderr, error: error?, resize })
    }

    /// Does what was asked for and tells how it ended.
    async fn work(mut self, target: Container, task: Task, as_status: bool) {
        let (sizes, resize) = self.resize.is_some().then(|| mpsc::channel(1)).unzip();
        let streams = Streams {
            stdin: self.stdin.map(|inlet| Box::new(inlet) as _),
            stdout: self.stdout.map(|outlet| Box::new(outlet) as _),
            stderr: self.stderr.map(|outlet| Box::new(outlet) as _),
            resize,
        };
        let done = async {
            match &task {
                Task::Exec(command, tty) => target.runtime.exec(&target.id, command, *tty, streams).await,
                Task::Attach => target.runtime.attach(&target.id, streams).await.map(|()| 0),
            }
        };
        let sizes = async {
            if let (Some(inlet), Some(sizes)) = (self.resize, sizes) {
                pass_sizes(inlet, sizes).await;
            }
            // The command goes on without.
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = done => result,
            () = sizes => return,
        };
        let word = last_word(&result, &task, as_status);
        // A client that has gone needs none.
        let _gone = self.error.write_all(word.as_bytes()).await;
        let _gone = self.error.shutdown().await;
    }
}

/// What is told on the error stream.
fn last_word(result: &Result<i32, RuntimeError>, task: &Task, as_status: bool) -> String {
    let status = match (result, task) {
        (Ok(0), _) => json!({"metadata": {}, "status": "Success"}),
        (Ok(code), Task::Exec(command, _)) => non_zero(*code, command),
        (Ok(code), Task::Attach) => non_zero(*code, &[]),
        (Err(error), Task::Exec(..)) => failure(&format!("error executing command in container: {error}")),
        (Err(error), Task::Attach) => failure(&format!("error attaching to container: {error}")),
    };
    if as_status {
        return status.to_string();
    }
    // Before the fourth version, only what went wrong was told.
    match status["message"].as_str() {
        Some(message) => message.to_owned(),
        None => String::new(),
    }
}

fn non_zero(code: i32, command: &[String]) -> Value {
    let command = command.join(" ");
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: error executing command [{command}], exit code {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failure(why: &str) -> Value {
    Status::internal(why).to_value()
}

/// A terminal's size as a client writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    #[serde(default)]
    width: u16,
    #[serde(default)]
    height: u16,
}

/// Passes sizes on until there are no more, or what is sent is none.
async fn pass_sizes(mut inlet: Inlet, sizes: mpsc::Sender<TerminalSize>) {
    let mut text = BytesMut::new();
    while text.len() <= SIZE && inlet.read_buf(&mut text).await.is_ok_and(|read| read > 0) {
        let mut read = serde_json::Deserializer::from_slice(&text).into_iter::<Size>();
        let mut found = Vec::new();
        let broken = loop {
            match read.next() {
                Some(Ok(Size { width, height })) => found.push(TerminalSize { width, height }),
                Some(Err(error)) => break !error.is_eof(),
                None => break false,
            }
        };
        let end = read.byte_offset();
        text.advance(end);
        for size in found {
            if sizes.send(size).await.is_err() {
                return;
            }
        }
        if broken {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn options_are_a_kubelets() {
        let all = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(options("input=1&output=1&error=1&tty=0&x=1"), Ok((all, vec![])));
        let terminal = Wanted { stderr: false, tty: true, ..all };
        assert_eq!(
            options("input=1&output=1&error=1&tty=1&command=a&command=b+c").unwrap(),
            (terminal, vec!["a".to_owned(), "b c".to_owned()])
        );
        let none = "you must specify at least 1 of stdin, stdout, stderr";
        assert_eq!(options("command=a&tty=1&error=1").unwrap_err(), none);
    }

    #[test]
    fn how_it_ended_is_told_as_clients_read_it() {
        let exec = Task::Exec(vec!["sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()], false);
        let told = |result, as_status| last_word(&result, &exec, as_status);
        assert_eq!(told(Ok(0), true), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(told(Ok(0), false), "");
        let seven: Value = serde_json::from_str(&told(Ok(7), true)).unwrap();
        assert_eq!(seven["reason"], "NonZeroExitCode");
        assert_eq!(seven["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        let words = "command terminated with non-zero exit code: error executing command [sh -c exit 7], exit code 7";
        assert_eq!((seven["message"].as_str(), told(Ok(7), false)), (Some(words), words.to_owned()));
        let failed: Value = serde_json::from_str(&told(Err(RuntimeError::Failed("no".into())), true)).unwrap();
        assert_eq!(failed["reason"], "InternalError");
        assert_eq!(failed["message"], "Internal error occurred: error executing command in container: no");
    }

    #[tokio::test]
    async fn sizes_are_read_however_they_arrive() {
        let (feeder, inlet) = Budget::new().pipe();
        let (sender, mut sizes) = mpsc::channel(1);
        let passed = tokio::spawn(pass_sizes(inlet, sender));
        for part in
            [r#"{"Width":80,"#, r#""Height":24}"#, "\n{\"Width\":1,\"Height\":2}{\"Width\":3", r#","Height":4}"#]
        {
            feeder.feed(Bytes::from_static(part.as_bytes())).await;
        }
        for (width, height) in [(80, 24), (1, 2), (3, 4)] {
            assert_eq!(sizes.recv().await, Some(TerminalSize { width, height }));
        }
        feeder.feed(Bytes::from_static(b"none")).await;
        passed.await.unwrap();
        assert_eq!(sizes.recv().await, None);
    }
}
