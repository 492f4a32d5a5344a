//! Links, addresses and routes, over rtnetlink. Every step may be repeated: what is there already is left.
//!
//! A pair of links is made with each end where it belongs, in one step: whoever is killed leaves a pair or none, never one end with
//! the other astray.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use serde::{Deserialize, Serialize};
use wherry_runtime::{Carried, Traffic};

use crate::netns::Netns;
use crate::{Cidr, NetworkError};

/// The kernel's table of local addresses: a route of type `local` counts for `bind` only there.
const TABLE_LOCAL: u32 = 255;
/// Every Pod's next hop: answered by a permanent neighbour entry, so that nothing needs ARP.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of every Pod link's node end.
const NODE_END_MAC: [u8; 6] = [0xee; 6];
/// A node's link to the fabric.
pub(crate) const UPLINK: &str = "eth0";

/// The fixed part of a node's network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeLinks {
    /// Addresses on `lo`: the cluster DNS address, and the node's own where it has no uplink.
    pub(crate) loopback: Vec<Ipv4Addr>,
    /// What routes to Services prefer as source.
    pub(crate) node_ip: Ipv4Addr,
    /// `base/length` whose every address is local (AnyIP).
    pub(crate) pod_cidr: String,
    /// `base/length` of the Services.
    pub(crate) service_cidr: String,
}

type Connection = (
    rtnetlink::proto::Connection<rtnetlink::packet_route::RouteNetlinkMessage>,
    Handle,
    futures::channel::mpsc::UnboundedReceiver<(
        rtnetlink::packet_core::NetlinkMessage<rtnetlink::packet_route::RouteNetlinkMessage>,
        rtnetlink::sys::SocketAddr,
    )>,
);

/// A netlink connection, made by `make` in the namespace that it shall change. It ends with its last handle.
pub(crate) fn connection(make: impl FnOnce() -> io::Result<Connection>) -> Result<Handle, NetworkError> {
    let (connection, handle, _) = make().map_err(NetworkError::io("open a netlink socket"))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// A netlink connection into `netns`.
pub(crate) fn connection_in(netns: &Netns) -> Result<Handle, NetworkError> {
    connection(|| netns.enter(rtnetlink::new_connection))
}

pub(crate) async fn configure_node(handle: &Handle, links: &NodeLinks) -> Result<(), NetworkError> {
    let lo = link_index(handle, "lo").await?;
    up(handle, lo, "lo").await?;
    for ip in &links.loopback {
        add_address(handle, lo, *ip, 32).await?;
    }
    let pods: Cidr = links.pod_cidr.parse()?;
    let anyip = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(pods.base, pods.length)
        .output_interface(lo)
        .table_id(TABLE_LOCAL)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .build();
    add_route(handle, anyip, || format!("make {pods} local")).await?;
    let services: Cidr = links.service_cidr.parse()?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(services.base, services.length)
        .output_interface(lo)
        .scope(RouteScope::Link)
        .pref_source(links.node_ip)
        .build();
    add_route(handle, route, || format!("route {services}")).await
}

/// The bridge that joins the nodes.
pub(crate) async fn configure_fabric(
    handle: &Handle,
    bridge: &str,
    ip: Ipv4Addr,
    length: u8,
) -> Result<(), NetworkError> {
    let lo = link_index(handle, "lo").await?;
    up(handle, lo, "lo").await?;
    let added = handle.link().add(LinkBridge::new(bridge).build()).execute().await;
    present(added).map_err(NetworkError::link(format!("add bridge {bridge}")))?;
    let index = link_index(handle, bridge).await?;
    add_address(handle, index, ip, length).await?;
    up(handle, index, bridge).await
}

/// Joins a node to the bridge with a veth pair, and gives its end an address.
pub(crate) async fn join(
    fabric: (&Handle, &Netns),
    node: (&Handle, &Netns),
    bridge: &str,
    port: &str,
    ip: Ipv4Addr,
    length: u8,
) -> Result<(), NetworkError> {
    if link_index(node.0, UPLINK).await.is_err() {
        add_pair(node.0, port, fabric.1).await?;
    }
    let bridge = link_index(fabric.0, bridge).await?;
    let index = link_index(fabric.0, port).await?;
    let message = LinkUnspec::new_with_index(index).controller(bridge).up().build();
    fabric.0.link().set(message).execute().await.map_err(NetworkError::link(format!("attach {port}")))?;
    let uplink = link_index(node.0, UPLINK).await?;
    add_address(node.0, uplink, ip, length).await?;
    up(node.0, uplink, UPLINK).await
}

/// Sends a peer's Pods to it, or no longer.
pub(crate) async fn route_peer(handle: &Handle, pods: Cidr, via: Option<Ipv4Addr>) -> Result<(), NetworkError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(pods.base, pods.length);
    match via {
        Some(via) => {
            let route = route.gateway(via).build();
            let done = handle.route().add(route).replace().execute().await;
            done.map_err(NetworkError::link(format!("route {pods} via {via}")))
        }
        None => absent(handle.route().del(route.build()).execute().await)
            .map_err(NetworkError::link(format!("remove the route to {pods}"))),
    }
}

/// The name of a Pod link's node end: at most 15 characters, from the Pod's address.
pub(crate) fn pod_link(ip: Ipv4Addr) -> String {
    format!("wp{:08x}", ip.to_bits())
}

/// Gives a Pod's namespace its `eth0` and the node the way to it.
pub(crate) async fn attach_pod(node: (&Handle, &Netns), pod: &Netns, ip: Ipv4Addr) -> Result<(), NetworkError> {
    let name = pod_link(ip);
    let inside = connection_in(pod)?;
    if link_index(&inside, UPLINK).await.is_err() || link_index(node.0, &name).await.is_err() {
        // Left by a Pod that had this address before, or of another address that this one had.
        detach_pod(node.0, ip).await?;
        remove_link(&inside, UPLINK).await?;
        add_pair(&inside, &name, node.1).await?;
    }
    let lo = link_index(&inside, "lo").await?;
    up(&inside, lo, "lo").await?;
    let eth0 = link_index(&inside, UPLINK).await?;
    add_address(&inside, eth0, ip, 32).await?;
    up(&inside, eth0, UPLINK).await?;
    let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(POD_GATEWAY, 32)
        .output_interface(eth0)
        .scope(RouteScope::Link)
        .build();
    add_route(&inside, gateway, || "route the Pod's gateway".to_owned()).await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(POD_GATEWAY).build();
    add_route(&inside, default, || "set the Pod's default route".to_owned()).await?;
    let neighbour = inside
        .neighbours()
        .add(eth0, POD_GATEWAY.into())
        .link_layer_address(&NODE_END_MAC)
        .state(NeighbourState::Permanent)
        .replace();
    neighbour.execute().await.map_err(NetworkError::link("set the Pod's gateway"))?;

    let index = link_index(node.0, &name).await?;
    let message = LinkUnspec::new_with_index(index).address(NODE_END_MAC.to_vec()).up().build();
    node.0.link().set(message).execute().await.map_err(NetworkError::link(format!("set up {name}")))?;
    // In the local table, where its 32 bits beat the AnyIP prefix that covers it.
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(ip, 32)
        .output_interface(index)
        .table_id(TABLE_LOCAL)
        .scope(RouteScope::Link)
        .build();
    add_route(node.0, route, || format!("route {ip}")).await
}

/// What every Pod's link has carried, by the Pod's address and from its side; one question to the kernel for all of them.
pub(crate) async fn traffic(node: &Handle) -> Result<HashMap<Ipv4Addr, Traffic>, NetworkError> {
    let mut links = node.link().get().execute();
    let mut found = HashMap::new();
    while let Some(link) = links.try_next().await.map_err(NetworkError::link("list the Pods' links"))? {
        let mut ip = None;
        let mut carried = None;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => ip = pod_of_link(name),
                LinkAttribute::Stats64(stats) => {
                    let count = |bytes, packets, errors, dropped| Carried { bytes, packets, errors, dropped };
                    // What the node's end received, the Pod has sent.
                    carried = Some(Traffic {
                        received: count(stats.tx_bytes, stats.tx_packets, stats.tx_errors, stats.tx_dropped),
                        sent: count(stats.rx_bytes, stats.rx_packets, stats.rx_errors, stats.rx_dropped),
                    });
                }
                _ => {}
            }
        }
        found.extend(ip.zip(carried));
    }
    Ok(found)
}

fn pod_of_link(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_prefix("wp").filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok().map(Ipv4Addr::from_bits)
}

/// Removes a Pod's link and, with it, the route.
pub(crate) async fn detach_pod(node: &Handle, ip: Ipv4Addr) -> Result<(), NetworkError> {
    remove_link(node, &pod_link(ip)).await
}

/// The address of the link in a Pod's namespace, if it got so far.
pub(crate) async fn pod_address(pod: &Netns) -> Result<Option<Ipv4Addr>, NetworkError> {
    let inside = connection_in(pod)?;
    let Ok(eth0) = link_index(&inside, UPLINK).await else { return Ok(None) };
    let mut addresses = inside.address().get().set_link_index_filter(eth0).execute();
    while let Some(found) = addresses.try_next().await.map_err(NetworkError::link("list a Pod's addresses"))? {
        let ip = found.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        });
        if ip.is_some() {
            return Ok(ip);
        }
    }
    Ok(None)
}

async fn remove_link(handle: &Handle, name: &str) -> Result<(), NetworkError> {
    let Ok(index) = link_index(handle, name).await else {
        return Ok(());
    };
    absent(handle.link().del(index).execute().await).map_err(NetworkError::link(format!("remove {name}")))
}

/// Makes a namespace's `eth0`, whose other end is called `name` and is in `to`.
async fn add_pair(handle: &Handle, name: &str, to: &Netns) -> Result<(), NetworkError> {
    let end = LinkMessageBuilder::<LinkUnspec>::new().name(name).setns_by_fd(to.fd().as_raw_fd()).build();
    let pair = LinkVeth::new(UPLINK, name).set_info_data(InfoData::Veth(InfoVeth::Peer(end))).build();
    handle.link().add(pair).execute().await.map_err(NetworkError::link(format!("add the link {name}")))
}

async fn link_index(handle: &Handle, name: &str) -> Result<u32, NetworkError> {
    let fail = || NetworkError::link(format!("find the link {name}"));
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    let link = found.try_next().await.map_err(fail())?;
    link.filter(|link| link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(n) if n == name)))
        .map(|link| link.header.index)
        .ok_or_else(|| fail()(rtnetlink::Error::RequestFailed))
}

async fn up(handle: &Handle, index: u32, name: &str) -> Result<(), NetworkError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.map_err(NetworkError::link(format!("set {name} up")))
}

async fn add_address(handle: &Handle, index: u32, ip: Ipv4Addr, length: u8) -> Result<(), NetworkError> {
    present(handle.address().add(index, ip.into(), length).execute().await)
        .map_err(NetworkError::link(format!("add the address {ip}/{length}")))
}

async fn add_route(
    handle: &Handle,
    route: rtnetlink::packet_route::route::RouteMessage,
    what: impl FnOnce() -> String,
) -> Result<(), NetworkError> {
    present(handle.route().add(route).execute().await).map_err(|source| NetworkError::Link { what: what(), source })
}

fn present(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    tolerate(result, &[nix::errno::Errno::EEXIST])
}

fn absent(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    use nix::errno::Errno;
    tolerate(result, &[Errno::ENODEV, Errno::ESRCH, Errno::ENOENT])
}

fn tolerate(result: Result<(), rtnetlink::Error>, codes: &[nix::errno::Errno]) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message))
            if codes.iter().any(|&code| message.raw_code() == -(code as i32)) =>
        {
            Ok(())
        }
        other => other,
    }
}
