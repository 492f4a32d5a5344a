//! `wasi:sockets/instance-network`, `ip-name-lookup`, `udp-create-socket` and `udp`.

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::udp::{OutgoingDatagram, UdpSocket};
use wasip2::sockets::udp_create_socket::create_udp_socket;

pub(crate) fn v4(address: (u8, u8, u8, u8), port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

pub(crate) fn v6(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address: (0, 0, 0, 0, 0, 0, 0, 1), scope_id: 0 })
}

pub(crate) const ANY: (u8, u8, u8, u8) = (0, 0, 0, 0);

pub(crate) fn port(address: IpSocketAddress) -> u16 {
    match address {
        IpSocketAddress::Ipv4(address) => address.port,
        IpSocketAddress::Ipv6(address) => address.port,
    }
}

fn addresses(name: &str) -> Result<Vec<IpAddress>, ErrorCode> {
    let (stream, mut found) = (resolve_addresses(&instance_network(), name)?, Vec::new());
    loop {
        match stream.resolve_next_address() {
            Ok(Some(address)) => found.push(address),
            Ok(None) => return Ok(found),
            Err(ErrorCode::WouldBlock) => stream.subscribe().block(),
            Err(code) => return Err(code),
        }
    }
}

/// The name `known.test` is 127.0.0.9.
pub(crate) fn names() {
    for name in ["known.test", "127.0.0.9"] {
        let found = addresses(name).unwrap();
        assert!(matches!(found[..], [IpAddress::Ipv4((127, 0, 0, 9))]), "{name}: {found:?}");
    }
    assert_eq!(addresses("unknown.test").err(), Some(ErrorCode::NameUnresolvable));
    for name in ["", "with space", "a/b"] {
        assert_eq!(addresses(name).err(), Some(ErrorCode::InvalidArgument), "{name}");
    }
}

fn bound() -> UdpSocket {
    let socket = create_udp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(socket.local_address().err(), Some(ErrorCode::InvalidState), "it is not bound");
    socket.start_bind(&instance_network(), v4(ANY, 0)).unwrap();
    socket.finish_bind().unwrap();
    assert_eq!(socket.finish_bind(), Err(ErrorCode::NotInProgress));
    socket.subscribe().block();
    socket
}

pub(crate) fn exchange() {
    let (one, other) = (bound(), bound());
    let (from, to) = (one.local_address().unwrap(), other.local_address().unwrap());
    assert!(port(from) != 0 && port(from) != port(to));
    assert_eq!(one.start_bind(&instance_network(), v4(ANY, 0)), Err(ErrorCode::InvalidState));
    let (_, outgoing) = one.stream(None).unwrap();
    let (incoming, _) = other.stream(None).unwrap();
    assert_eq!(one.remote_address().err(), Some(ErrorCode::InvalidState));
    assert!(incoming.receive(1).unwrap().is_empty());
    outgoing.subscribe().block();
    assert!(outgoing.check_send().unwrap() >= 2);
    let datagram = |text: &str| OutgoingDatagram { data: text.into(), remote_address: Some(to) };
    assert_eq!(outgoing.send(&[datagram("one"), datagram("two")]), Ok(2));
    let mut got = Vec::new();
    while got.len() < 2 {
        incoming.subscribe().block();
        got.extend(incoming.receive(2).unwrap());
    }
    assert_eq!(
        (&got[0].data[..], &got[1].data[..], port(got[0].remote_address)),
        (&b"one"[..], &b"two"[..], port(from))
    );

    outgoing.check_send().unwrap();
    let nowhere = OutgoingDatagram { data: Vec::new(), remote_address: None };
    assert_eq!(outgoing.send(&[nowhere]), Err(ErrorCode::InvalidArgument), "to nobody");
    outgoing.check_send().unwrap();
    let metadata = OutgoingDatagram { data: Vec::new(), remote_address: Some(v4((169, 254, 169, 254), 80)) };
    assert_eq!(outgoing.send(&[metadata]), Err(ErrorCode::AccessDenied), "it is not in the Pod's reach");
    outgoing.check_send().unwrap();
    let large = OutgoingDatagram { data: vec![0; 65_508], remote_address: Some(to) };
    assert_eq!(outgoing.send(&[large]), Err(ErrorCode::DatagramTooLarge));
    drop(outgoing);

    // Connected, it sends to its peer without naming it.
    let sender = bound();
    let (_, connected) = sender.stream(Some(to)).unwrap();
    assert_eq!(port(sender.remote_address().unwrap()), port(to));
    connected.check_send().unwrap();
    assert_eq!(connected.send(&[OutgoingDatagram { data: b"three".to_vec(), remote_address: None }]), Ok(1));
    incoming.subscribe().block();
    assert_eq!(incoming.receive(9).unwrap()[0].data, b"three");
}

pub(crate) fn options() {
    let socket = bound();
    assert_eq!(socket.address_family(), IpAddressFamily::Ipv4);
    socket.set_unicast_hop_limit(9).unwrap();
    assert_eq!((socket.unicast_hop_limit(), socket.set_unicast_hop_limit(0)), (Ok(9), Err(ErrorCode::InvalidArgument)));
    socket.set_receive_buffer_size(64 << 10).unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    assert_eq!((socket.receive_buffer_size(), socket.send_buffer_size()), (Ok(64 << 10), Ok(64 << 10)));
    assert_eq!(socket.set_receive_buffer_size(0), Err(ErrorCode::InvalidArgument));
    assert_eq!(socket.set_send_buffer_size(0), Err(ErrorCode::InvalidArgument));
    let other = create_udp_socket(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(other.start_bind(&instance_network(), v6(0)), Err(ErrorCode::InvalidArgument), "of another family");
    assert_eq!(other.start_bind(&instance_network(), v4((8, 8, 8, 8), 0)), Err(ErrorCode::AccessDenied));
}
