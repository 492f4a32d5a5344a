//! A component that is served, of WASI 0.2: `wasi:http`. Its path names what it checks; it answers 200 where all is so, and says on
//! stderr what is not.

mod client;
mod fields;
mod server;

use wasip2::cli::stderr;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Guest;
wasip2::http::proxy::export!(Guest);

impl wasip2::exports::http::incoming_handler::Guest for Guest {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        std::panic::set_hook(Box::new(|panic| {
            let _ = stderr::get_stderr().blocking_write_and_flush(format!("{panic}\n").as_bytes());
        }));
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/fields" => fields::check(),
            "/request" => server::request(&request),
            "/response" => return server::response(out),
            "/echo" => return server::echo(&request, out),
            "/broken" => return server::broken(out),
            "/error" => return server::error(out),
            "/setters" => client::setters(),
            "/options" => client::options(),
            "/exchange" => client::exchange(query),
            "/failures" => client::failures(query),
            other => panic!("there is no case {other}"),
        }
        server::answer(out, 200, b"checked");
    }
}
