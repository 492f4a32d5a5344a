//! The limit of what an HTTP server in Rust does on a machine: hyper, nothing else. Answers `/` with a line, all else with so many bytes.
//!
//! usage: bare-server PORT BYTES

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: bare-server PORT BYTES");
    let (port, bytes) = (next()?.parse::<u16>()?, next()?.parse::<usize>()?);
    let large = Bytes::from(vec![b'x'; bytes]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let large = large.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let line = Bytes::from_static(b"Hello from WebAssembly!\n");
                let body = if request.uri().path() == "/" { line } else { large.clone() };
                async { Ok::<_, Infallible>(Response::new(Full::new(body))) }
            });
            // A client that leaves in the middle is no matter.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}
