//! One connection that is held.

use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;
use wherry_runtime::{SocketFamily, SocketKind};

use super::Refusal;
use crate::place::{Place, connect, reset};
use crate::services::{Port, Services, Way};

/// A connection, and what it waits for.
pub(super) struct Held {
    pub(super) client: TcpStream,
    pub(super) port: Port,
    pub(super) place: Arc<Place>,
    pub(super) services: Arc<Services>,
    /// Until when it is held.
    pub(super) deadline: Instant,
}

impl Held {
    /// Holds the connection until an endpoint takes it, then carries its bytes to the end. An error says why it was reset; a client
    /// that left, or a Service that no longer sleeps and has nobody, is none.
    pub(super) async fn serve(mut self) -> Result<(), Refusal> {
        let mut applied = self.services.subscribe();
        loop {
            match self.services.way(&self.port) {
                Way::To(endpoints) => {
                    for endpoint in endpoints {
                        let dial =
                            async { connect(self.place.socket(SocketFamily::V4, SocketKind::Tcp)?, endpoint).await };
                        match tokio::time::timeout_at(self.deadline, dial).await {
                            Ok(Ok(server)) => {
                                self.join(server).await;
                                return Ok(());
                            }
                            Ok(Err(error)) => tracing::debug!(%endpoint, %error, "an endpoint does not answer"),
                            Err(_) => break,
                        }
                    }
                }
                Way::Asleep => {}
                Way::Nowhere => {
                    reset(&self.client);
                    return Ok(());
                }
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = left(&self.client) => return Ok(()),
                () = tokio::time::sleep_until(self.deadline) => {
                    reset(&self.client);
                    return Err(Refusal::TooLong);
                }
            }
        }
    }

    async fn join(&mut self, mut server: TcpStream) {
        drop((self.client.set_nodelay(true), server.set_nodelay(true)));
        // An error here is a peer that went away.
        drop(tokio::io::copy_bidirectional(&mut self.client, &mut server).await);
    }
}

/// Resolves when the client has gone.
async fn left(client: &TcpStream) {
    if matches!(client.peek(&mut [0]).await, Ok(0) | Err(_)) {
        return;
    }
    // It has sent something, behind which its end cannot be seen; its reset can.
    drop(client.ready(Interest::ERROR).await);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::ErrorKind;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::netns::{self, Netns};
    use crate::services::{Protocol, Service, ServiceKey, ServicePort};

    fn set(services: &Services, endpoints: Vec<SocketAddr>) -> Port {
        let front = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 7), 80);
        let port = ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: front.port(),
            node_port: None,
            endpoints,
        };
        let (cluster_ips, ports) = (vec![IpAddr::V4(*front.ip())], vec![port]);
        let service = Service { cluster_ips, ports, sleeps: true, ..Service::default() };
        services.set(ServiceKey { namespace: "default".into(), name: "web".into() }, Some(service));
        services.behind(front).unwrap()
    }

    #[tokio::test]
    async fn patience_ends_also_where_an_endpoint_does_not_answer() {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: making a network namespace needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns");
        let place = Arc::new(Place::Entered(Netns::open_or_create(&path).unwrap().0));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // In the namespace nothing is there: nobody can be reached.
        for endpoints in [vec![], vec![SocketAddr::from(([10, 128, 0, 5], 8080))]] {
            let services = Services::new();
            let port = set(&services, endpoints);
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let deadline = Instant::now() + Duration::from_millis(10);
            let held = Held {
                client: listener.accept().await.unwrap().0,
                port,
                place: Arc::clone(&place),
                services,
                deadline,
            };
            assert_eq!(held.serve().await, Err(Refusal::TooLong));
            assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        drop(place);
        netns::remove(&path).unwrap();
    }
}
