//! One probe, made ready once and made any number of times. Texts are kubelet's (Go's), since people search for them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, GRPCAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use wherry_runtime::{ContainerId, Runtime, RuntimeError, collect};

use super::http::{Answer, Question, Refused};
use super::{grpc, timeout};
use crate::ports::NodeNet;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It passed.
    Success,
    /// It passed, with something to tell (a redirect elsewhere).
    Warning(String),
    /// It failed.
    Failure(String),
    /// It could not be made; counts as a failure.
    Error(String),
}

impl Found {
    pub(crate) fn is_success(&self) -> bool {
        matches!(self, Self::Success | Self::Warning(_))
    }
}

/// What a probe is made against.
pub(crate) struct Target {
    pub(crate) network: Arc<dyn NodeNet>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) id: ContainerId,
    pub(crate) ip: Option<IpAddr>,
}

const EXEC_OUTPUT: usize = 10 * 1024;

/// A probe of one container: all that its Pod's manifest says about it, looked up, so that making it touches no more than this.
pub(crate) struct Ready {
    how: How,
    target: Target,
    /// `timeoutSeconds`.
    limit: Duration,
}

enum How {
    Http(Question),
    Tcp {
        host: Option<String>,
        port: u16,
    },
    Grpc(GRPCAction),
    Exec(Vec<String>),
    /// It can't be made, and this is what is found each time.
    Not(Found),
}

impl Ready {
    pub(crate) fn new(probe: &Probe, container: &Container, target: Target) -> Self {
        let how = if let Some(http) = &probe.http_get {
            match Question::new(http, container, target.ip, "kube-probe/1.36") {
                Ok(question) => How::Http(question),
                Err(refused) => How::Not(refused.into()),
            }
        } else if let Some(tcp) = &probe.tcp_socket {
            match port(&tcp.port, container) {
                Some(port) => How::Tcp { host: tcp.host.clone().filter(|host| !host.is_empty()), port },
                None => How::Not(Found::Error(format!("couldn't find port: {}", port_text(&tcp.port)))),
            }
        } else if let Some(action) = &probe.grpc {
            How::Grpc(action.clone())
        } else if let Some(exec) = &probe.exec {
            How::Exec(exec.command.clone().unwrap_or_default())
        } else {
            How::Not(Found::Error(format!("missing probe handler for {}", container.name)))
        };
        Self { how, target, limit: timeout(probe) }
    }

    /// Whether it is one of a Pod at this address.
    pub(crate) fn is_at(&self, ip: Option<IpAddr>) -> bool {
        self.target.ip == ip
    }

    /// Makes the probe once.
    pub(crate) async fn make(&self) -> Found {
        match &self.how {
            How::Http(question) => match question.ask(&self.target, self.limit).await {
                Ok(Answer::Status(200..400)) => Found::Success,
                Ok(Answer::Status(status)) => Found::Failure(format!("HTTP probe failed with statuscode: {status}")),
                Ok(Answer::Elsewhere) => Found::Warning("Probe terminated redirects, Response body: ".to_owned()),
                Err(refused) => refused.into(),
            },
            // The others are boxed: most probes are none of them, and their tasks stay small.
            How::Tcp { host, port } => match Box::pin(dial(&self.target, host.as_deref(), *port, self.limit)).await {
                Ok(_) => Found::Success,
                Err(message) => Found::Failure(message),
            },
            How::Grpc(action) => Box::pin(grpc::check(action, &self.target, self.limit)).await,
            How::Exec(command) => Box::pin(self.run(command)).await,
            How::Not(found) => found.clone(),
        }
    }

    /// Runs a command in the container.
    async fn run(&self, command: &[String]) -> Found {
        let Target { runtime, id, .. } = &self.target;
        match tokio::time::timeout(self.limit, collect(&**runtime, id, command, EXEC_OUTPUT)).await {
            Err(_) => Found::Failure(format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                self.limit.as_secs()
            )),
            Ok(Ok(output)) if output.code == 0 => Found::Success,
            Ok(Ok(output)) => {
                let text = [output.stdout, output.stderr].concat();
                Found::Failure(String::from_utf8_lossy(&text).into_owned())
            }
            Ok(Err(RuntimeError::Unsupported(message))) => {
                Found::Error(format!("exec is not possible here: {message}"))
            }
            Ok(Err(error)) => Found::Error(error.to_string()),
        }
    }
}

impl From<Refused> for Found {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failure(message) => Self::Failure(message),
            Refused::Error(message) => Self::Error(message),
        }
    }
}

/// A port by number or by the container's name for it.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|number| *number != 0),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
                .and_then(|number| u16::try_from(number).ok())
        }
    }
}

pub(super) fn port_text(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

pub(super) async fn dial(target: &Target, host: Option<&str>, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let address = match host {
        None => target.ip.map(|ip| SocketAddr::new(ip, port)),
        Some(host) => match host.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, port)),
            Err(_) => tokio::net::lookup_host((host, port)).await.ok().and_then(|mut found| found.next()),
        },
    };
    let Some(address) = address else {
        return Err(format!("dial tcp: lookup {}: no such host", host.unwrap_or_default()));
    };
    match tokio::time::timeout(limit, target.network.dial(address)).await {
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", go_error(&error))),
    }
}

pub(super) fn go_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}
