//! Connections to Services whose workload sleeps: the node takes them, holds them until a Pod is ready, then joins them to it.
//!
//! ```text
//!  client ─► rules of a Service that sleeps ─► the listener here ─► held ─► joined to a ready endpoint
//!                                                    └► who is waited for ─► the agent ─► the API
//! ```
//!
//! Which Services sleep is said by [`Service::sleeps`](crate::Service): as long as one has no endpoint, its TCP ports lead here.
//! Once it has some, new connections go to them directly, as ever.
//!
//! # Guarantees
//! - Bounded: connections of one Service and of all, and the time that one is held. What is too much is reset, and told.
//! - A client that gives up is waited for no longer.
//! - Nothing is read of a connection before it is joined.
//!
//! # Caveats
//! - A Pod sees the node's address as that of a client that was held.
//! - UDP is not held: its datagrams are refused as those to any Service without endpoints.

mod held;
mod report;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wherry_runtime::{SocketFamily, SocketKind, accept};

use crate::place::{Place, listen, reset};
use crate::services::Services;
use held::Held;
pub(crate) use report::Reports;
pub use report::{Refusal, Waited};

/// Connections that are held or joined here, of all Services.
const IN_ALL: usize = 1024;
/// How long a connection is held.
const PATIENCE: Duration = Duration::from_secs(120);

/// Opens the listener and tells `services` of it.
pub(crate) fn open(place: &Place, node_ip: Ipv4Addr, services: &Services) -> io::Result<TcpListener> {
    let listener = listen(place.socket(SocketFamily::V4, SocketKind::Tcp)?, SocketAddr::from((node_ip, 0)))?;
    if let SocketAddr::V4(address) = listener.local_addr()? {
        services.wake_at(address);
    }
    Ok(listener)
}

/// Takes connections until cancelled.
pub(crate) async fn run(
    listener: TcpListener,
    place: Arc<Place>,
    services: Arc<Services>,
    reports: Arc<Reports>,
    cancel: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(IN_ALL));
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            (client, _) = accept(&listener) => client,
            Some(_) = connections.join_next() => continue,
            () = cancel.cancelled() => return,
        };
        // Somebody who connected to the listener itself is no client of a Service.
        let Some(port) = destination(&client).and_then(|to| services.behind(to)) else {
            reset(&client);
            continue;
        };
        let permit = Arc::clone(&room).try_acquire_owned().ok();
        let Some((permit, waiting)) = permit.zip(reports.wait_for(&port.service)) else {
            reset(&client);
            reports.refused(port.service, Refusal::TooMany);
            continue;
        };
        let (place, services, reports) = (Arc::clone(&place), Arc::clone(&services), Arc::clone(&reports));
        connections.spawn(async move {
            let _held = (permit, waiting);
            let service = port.service.clone();
            let deadline = Instant::now() + PATIENCE;
            if let Err(refusal) = (Held { client, port, place, services, deadline }).serve().await {
                reports.refused(service, refusal);
            }
        });
    }
}

/// Where a client wanted to go before the rules led it here.
fn destination(client: &TcpStream) -> Option<SocketAddrV4> {
    let address = getsockopt(client, OriginalDst).ok()?;
    let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
    Some(SocketAddrV4::new(ip, u16::from_be(address.sin_port)))
}
