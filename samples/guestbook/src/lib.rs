//! A guestbook: HTTP in, redis out. `POST /` with a line adds it; `GET /` shows all lines.
//!
//! The database is found by its Service's name (`REDIS`, by default `redis:6379`), over wasi:sockets.
#![cfg(target_family = "wasm")]

use sample_kit::redis::Connection;
use sample_kit::{wasi, Reply, Request};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Guestbook;

wasip2::http::proxy::export!(Guestbook);

impl wasip2::exports::http::incoming_handler::Guest for Guestbook {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let request = wasi::read(&request);
        let reply = answer(&request).unwrap_or_else(|error| {
            wasi::log(&error);
            Reply::new(502, format!("{error}\n"))
        });
        wasi::send(&reply, out);
    }
}

fn answer(request: &Request) -> Result<Reply, String> {
    if request.path == "/healthz" {
        return Ok(Reply::new(200, "ok\n"));
    }
    let address = wasi::variable("REDIS").unwrap_or_else(|| "redis:6379".to_owned());
    let mut redis = Connection::new(wasi::Tcp::connect(&address).map_err(|error| format!("redis at {error}"))?);
    match request.method.as_str() {
        "POST" => {
            redis.call(&[b"RPUSH", b"guestbook", &request.body])?;
            Ok(Reply::new(201, "written\n"))
        }
        "GET" => {
            let lines = redis.call(&[b"LRANGE", b"guestbook", b"0", b"-1"])?;
            Ok(Reply::new(200, lines.iter().map(|line| format!("{line}\n")).collect::<String>()))
        }
        _ => Ok(Reply::new(405, "GET or POST\n")),
    }
}
