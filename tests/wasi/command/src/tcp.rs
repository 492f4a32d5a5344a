//! `wasi:sockets/tcp-create-socket` and `tcp`.

use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasip2::sockets::tcp::{ShutdownType, TcpSocket};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::streams::read_all;
use crate::udp::{ANY, port, v4, v6};

fn new() -> TcpSocket {
    create_tcp_socket(IpAddressFamily::Ipv4).unwrap()
}

fn listening() -> (TcpSocket, IpSocketAddress) {
    let (socket, network) = (new(), instance_network());
    assert_eq!((socket.local_address().err(), socket.is_listening()), (Some(ErrorCode::InvalidState), false));
    socket.start_bind(&network, v4(ANY, 0)).unwrap();
    socket.finish_bind().unwrap();
    assert_eq!(socket.finish_bind(), Err(ErrorCode::NotInProgress));
    socket.set_listen_backlog_size(8).unwrap();
    socket.start_listen().unwrap();
    socket.finish_listen().unwrap();
    assert!(socket.is_listening());
    assert_eq!(socket.accept().err(), Some(ErrorCode::WouldBlock));
    let address = socket.local_address().unwrap();
    (socket, address)
}

fn connect(to: IpSocketAddress) -> Result<(TcpSocket, InputStream, OutputStream), ErrorCode> {
    let socket = new();
    socket.start_connect(&instance_network(), to)?;
    loop {
        match socket.finish_connect() {
            Ok((input, output)) => return Ok((socket, input, output)),
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            Err(code) => return Err(code),
        }
    }
}

pub(crate) fn exchange() {
    let (listener, address) = listening();
    let (client, from_server, to_server) = connect(address).unwrap();
    listener.subscribe().block();
    let (server, from_client, to_client) = listener.accept().unwrap();
    assert_eq!(port(client.remote_address().unwrap()), port(address));
    assert_eq!(port(server.remote_address().unwrap()), port(client.local_address().unwrap()));
    assert!(!server.is_listening() && server.address_family() == IpAddressFamily::Ipv4);

    to_server.blocking_write_and_flush(b"question").unwrap();
    client.shutdown(ShutdownType::Send).unwrap();
    assert_eq!(read_all(&from_client), "question");
    to_client.blocking_write_and_flush(b"answer").unwrap();
    server.shutdown(ShutdownType::Both).unwrap();
    assert_eq!(read_all(&from_server), "answer");
    assert!(matches!(to_server.blocking_write_and_flush(b"more"), Err(StreamError::Closed)));
    client.shutdown(ShutdownType::Receive).unwrap();
}

pub(crate) fn errors() {
    let network = instance_network();
    let (listener, address) = listening();
    assert_eq!(listener.start_listen(), Err(ErrorCode::InvalidState));
    assert_eq!(listener.finish_listen(), Err(ErrorCode::NotInProgress));
    assert_eq!(listener.start_connect(&network, address), Err(ErrorCode::InvalidState));
    assert_eq!(listener.shutdown(ShutdownType::Both), Err(ErrorCode::InvalidState));
    assert_eq!(listener.remote_address().err(), Some(ErrorCode::InvalidState));
    let taken = new();
    assert_eq!(taken.start_bind(&network, address), Err(ErrorCode::AddressInUse));
    assert_eq!(taken.start_bind(&network, v6(0)), Err(ErrorCode::InvalidArgument), "of another family");
    assert_eq!(taken.start_bind(&network, v4((8, 8, 8, 8), 0)), Err(ErrorCode::AccessDenied));
    assert_eq!(
        (taken.finish_connect().err(), taken.start_listen()),
        (Some(ErrorCode::NotInProgress), Err(ErrorCode::InvalidState))
    );
    for (to, problem) in [
        (v4(ANY, 80), ErrorCode::InvalidArgument),
        (v4((127, 0, 0, 1), 0), ErrorCode::InvalidArgument),
        (v6(80), ErrorCode::InvalidArgument),
        (v4((169, 254, 169, 254), 80), ErrorCode::AccessDenied),
    ] {
        assert_eq!(connect(to).err(), Some(problem), "{to:?}");
    }
    drop(listener);
    assert_eq!(connect(address).err(), Some(ErrorCode::ConnectionRefused));
}

pub(crate) fn options() {
    let socket = new();
    let second = 1_000_000_000;
    assert_eq!(socket.keep_alive_enabled(), Ok(false));
    socket.set_keep_alive_enabled(true).unwrap();
    socket.set_keep_alive_idle_time(60 * second).unwrap();
    socket.set_keep_alive_interval(5 * second).unwrap();
    socket.set_keep_alive_count(3).unwrap();
    assert_eq!(socket.keep_alive_enabled(), Ok(true));
    assert_eq!(
        (socket.keep_alive_idle_time(), socket.keep_alive_interval(), socket.keep_alive_count()),
        (Ok(60 * second), Ok(5 * second), Ok(3))
    );
    socket.set_hop_limit(9).unwrap();
    socket.set_receive_buffer_size(64 << 10).unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    assert_eq!(
        (socket.hop_limit(), socket.receive_buffer_size(), socket.send_buffer_size()),
        (Ok(9), Ok(64 << 10), Ok(64 << 10))
    );
    let refused = [
        socket.set_keep_alive_idle_time(0),
        socket.set_keep_alive_interval(0),
        socket.set_keep_alive_count(0),
        socket.set_hop_limit(0),
        socket.set_receive_buffer_size(0),
        socket.set_send_buffer_size(0),
        socket.set_listen_backlog_size(0),
    ];
    assert!(refused.iter().all(|outcome| *outcome == Err(ErrorCode::InvalidArgument)), "{refused:?}");
    assert_eq!(
        create_tcp_socket(IpAddressFamily::Ipv6).map(|socket| socket.address_family()),
        Ok(IpAddressFamily::Ipv6)
    );
}
