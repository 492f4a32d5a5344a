//! As much of redis' protocol (RESP2) as a guestbook needs, over a wasi:sockets TCP connection.

use wasip2::io::streams::{InputStream, OutputStream};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

/// A longer answer is refused.
const MAX_ANSWER: usize = 1 << 20;

/// A connection; streams are dropped before their socket.
pub struct Connection {
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn open(address: &str) -> Result<Self, String> {
        let fail = |code: ErrorCode| format!("redis at {address}: {}", code.name());
        let (host, port) = address.rsplit_once(':').ok_or("REDIS is not host:port")?;
        let port = port.parse().map_err(|_| "REDIS has no port")?;
        let network = instance_network();
        let addresses = resolve_addresses(&network, host).map_err(fail)?;
        let ip = loop {
            match addresses.resolve_next_address() {
                Ok(Some(IpAddress::Ipv4(ip))) => break ip,
                Ok(Some(IpAddress::Ipv6(_))) => {}
                Ok(None) => return Err(format!("redis at {address}: no such name")),
                Err(ErrorCode::WouldBlock) => addresses.subscribe().block(),
                Err(code) => return Err(fail(code)),
            }
        };
        let socket = create_tcp_socket(IpAddressFamily::Ipv4).map_err(fail)?;
        let target = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: ip });
        socket.start_connect(&network, target).map_err(fail)?;
        let (input, output) = loop {
            match socket.finish_connect() {
                Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
                connected => break connected.map_err(fail)?,
            }
        };
        Ok(Self { input, output, _socket: socket, buffer: Vec::new() })
    }

    /// Sends a command and reads its answer: the elements of an array, or one value.
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut message = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            message.extend(format!("${}\r\n", word.len()).bytes());
            message.extend_from_slice(word);
            message.extend_from_slice(b"\r\n");
        }
        for chunk in message.chunks(4096) {
            self.output.blocking_write_and_flush(chunk).map_err(|error| format!("redis: {error:?}"))?;
        }
        self.value()
    }

    fn value(&mut self) -> Result<Vec<String>, String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or("redis: an empty answer")?;
        let count = || rest.parse::<i64>().map_err(|_| format!("redis: answered {line:?}"));
        match kind {
            "+" | ":" => Ok(vec![rest.to_owned()]),
            "-" => Err(format!("redis: {rest}")),
            "$" => match usize::try_from(count()?) {
                Ok(length) => {
                    let bytes = self.take(length + 2)?;
                    Ok(vec![String::from_utf8_lossy(&bytes[..length]).into_owned()])
                }
                Err(_) => Ok(Vec::new()),
            },
            "*" => {
                let mut values = Vec::new();
                for _ in 0..count()? {
                    values.extend(self.value()?);
                }
                Ok(values)
            }
            _ => Err(format!("redis: answered {line:?}")),
        }
    }

    fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2)?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> Result<(), String> {
        if self.buffer.len() > MAX_ANSWER {
            return Err("redis: the answer is too long".to_owned());
        }
        let bytes = self.input.blocking_read(16 << 10).map_err(|error| format!("redis: {error:?}"))?;
        self.buffer.extend(bytes);
        Ok(())
    }
}
