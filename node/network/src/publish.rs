//! NodePorts on this machine's loopback: nodes live in namespaces of their own, so a listener out here forwards
//! each connection to the node, where the Service's rules take it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use wherry_runtime::{SocketFamily, SocketKind, accept};

use crate::place::{Place, connect};
use crate::services::Services;

/// Connections open at once through one port.
const MAX_CONNECTIONS: usize = 1024;

/// Publishes every TCP node port of `services`, leading to `node_ip` in `place`, until cancelled.
pub(crate) async fn run(place: Arc<Place>, node_ip: Ipv4Addr, services: Arc<Services>, cancel: CancellationToken) {
    let mut applied = services.subscribe();
    let mut open: HashMap<u16, DropGuard> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted = applied.borrow_and_update().node_ports.clone();
        open.retain(|port, _| wanted.contains(port));
        for port in wanted {
            if open.contains_key(&port) {
                continue;
            }
            let token = cancel.child_token();
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                Ok(listener) => {
                    let target = SocketAddr::from((node_ip, port));
                    tasks.spawn(forward(listener, place.clone(), target, token.clone()));
                    open.insert(port, token.drop_guard());
                }
                Err(error) => {
                    tracing::warn!(port, %error, "node port is not published on 127.0.0.1: another program has it?");
                }
            }
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { break },
            Some(_) = tasks.join_next() => {}
            () = cancel.cancelled() => break,
        }
    }
    drop(open);
    while tasks.join_next().await.is_some() {}
}

async fn forward(listener: TcpListener, place: Arc<Place>, target: SocketAddr, cancel: CancellationToken) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        tokio::select! {
            (client, _) = accept(&listener) => {
                let place = place.clone();
                connections.spawn(async move {
                    splice(client, &place, target).await;
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
            () = cancel.cancelled() => return,
        }
    }
}

async fn splice(mut client: TcpStream, place: &Place, target: SocketAddr) {
    let dial = async { connect(place.socket(SocketFamily::V4, SocketKind::Tcp)?, target).await };
    match dial.await {
        Ok(mut server) => {
            drop((client.set_nodelay(true), server.set_nodelay(true)));
            // An error here is a peer that went away.
            drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
        }
        Err(error) => tracing::debug!(%target, %error, "a node port leads nowhere"),
    }
}
