//! The kit over WASI 0.2.

use wasip2::cli::{environment, stdout};
use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode as SocketError, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::redis::Stream;
use crate::{Reply, Request, MAX_BODY};

/// Reads a request whole.
pub fn read(request: &IncomingRequest) -> Request {
    let method = match request.method() {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        other => format!("{other:?}"),
    };
    let target = request.path_with_query().unwrap_or_else(|| "/".to_owned());
    let mut read = Request::new(&method, &target);
    if let Ok(body) = request.consume() {
        read.body = read_body(&body);
    }
    read
}

fn read_body(body: &IncomingBody) -> Vec<u8> {
    let mut read = Vec::new();
    if let Ok(stream) = body.stream() {
        while read.len() < MAX_BODY {
            match stream.blocking_read(16 << 10) {
                Ok(bytes) => read.extend(bytes),
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(_)) => break,
            }
        }
    }
    read.truncate(MAX_BODY);
    read
}

/// `GET http://authority/path`.
pub fn fetch(authority: &str, path: &str) -> Result<Reply, String> {
    let request = OutgoingRequest::new(Fields::new());
    let valid = request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some(path)).is_ok();
    if !valid {
        return Err(format!("{authority}{path}: not an address\n"));
    }
    let failed = |error| format!("{authority}: {error:?}\n");
    let future = outgoing_handler::handle(request, None).map_err(failed)?;
    future.subscribe().block();
    let Some(Ok(answer)) = future.get() else { return Err(format!("{authority}: no answer\n")) };
    let answer = answer.map_err(failed)?;
    let body = answer.consume().map(|body| read_body(&body)).unwrap_or_default();
    Ok(Reply::new(answer.status(), String::from_utf8_lossy(&body)))
}

/// The mounted directory that a path lies in, and the rest of the path.
fn place(path: &str) -> Result<(Descriptor, &str), String> {
    let mut best: Option<(Descriptor, String)> = None;
    for (descriptor, at) in preopens::get_directories() {
        let at = at.trim_end_matches('/').to_owned();
        let inside = path.strip_prefix(at.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if inside && best.as_ref().is_none_or(|(_, known)| known.len() < at.len()) {
            best = Some((descriptor, at));
        }
    }
    let (descriptor, at) = best.ok_or_else(|| format!("{path}: no such volume\n"))?;
    Ok((descriptor, &path[at.len() + 1..]))
}

fn problem(path: &str) -> impl Fn(ErrorCode) -> String + '_ {
    move |code| format!("{path}: {code}\n")
}

/// A file's text.
pub fn read_file(path: &str) -> Result<String, String> {
    let (volume, name) = place(path)?;
    let file = volume
        .open_at(PathFlags::SYMLINK_FOLLOW, name, OpenFlags::empty(), DescriptorFlags::READ)
        .map_err(problem(path))?;
    let (bytes, _) = file.read(MAX_BODY as u64, 0).map_err(problem(path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes or replaces a file.
pub fn write_file(path: &str, text: &str) -> Result<(), String> {
    let (volume, name) = place(path)?;
    let how = OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let file = volume.open_at(PathFlags::SYMLINK_FOLLOW, name, how, DescriptorFlags::WRITE).map_err(problem(path))?;
    file.write(text.as_bytes(), 0).map(drop).map_err(problem(path))
}

/// Removes a file.
pub fn remove_file(path: &str) -> Result<(), String> {
    let (volume, name) = place(path)?;
    volume.unlink_file_at(name).map_err(problem(path))
}

/// Sends a reply. A client that went away is no error.
pub fn send(reply: &Reply, out: ResponseOutparam) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"text/plain; charset=utf-8".to_vec()]);
    let _ = headers.set("content-length", &[reply.body.len().to_string().into_bytes()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(reply.status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        for chunk in reply.body.as_bytes().chunks(4096) {
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

/// An environment variable.
pub fn variable(name: &str) -> Option<String> {
    environment::get_environment().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Writes a line to standard output.
pub fn log(line: &str) {
    let _ = stdout::get_stdout().blocking_write_and_flush(format!("{line}\n").as_bytes());
}

/// A TCP connection; streams are dropped before their socket.
pub struct Tcp {
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

impl Tcp {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Result<Self, String> {
        let fail = |code: SocketError| format!("{address}: {}", code.name());
        let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address}: not host:port"))?;
        let port = port.parse().map_err(|_| format!("{address}: no port"))?;
        let network = instance_network();
        let addresses = resolve_addresses(&network, host).map_err(fail)?;
        let ip = loop {
            match addresses.resolve_next_address() {
                Ok(Some(IpAddress::Ipv4(ip))) => break ip,
                Ok(Some(IpAddress::Ipv6(_))) => {}
                Ok(None) => return Err(format!("{address}: no such name")),
                Err(SocketError::WouldBlock) => addresses.subscribe().block(),
                Err(code) => return Err(fail(code)),
            }
        };
        let socket = create_tcp_socket(IpAddressFamily::Ipv4).map_err(fail)?;
        let target = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: ip });
        socket.start_connect(&network, target).map_err(fail)?;
        let (input, output) = loop {
            match socket.finish_connect() {
                Err(SocketError::WouldBlock) => socket.subscribe().block(),
                connected => break connected.map_err(fail)?,
            }
        };
        Ok(Self { input, output, _socket: socket })
    }
}

impl Stream for Tcp {
    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        for chunk in bytes.chunks(4096) {
            self.output.blocking_write_and_flush(chunk).map_err(|error| format!("redis: {error:?}"))?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<u8>, String> {
        match self.input.blocking_read(16 << 10) {
            Ok(bytes) => Ok(bytes),
            Err(StreamError::Closed) => Ok(Vec::new()),
            Err(error) => Err(format!("redis: {error:?}")),
        }
    }
}
