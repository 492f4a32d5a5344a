//! What echo does, whichever way it was built.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the Pod's name and the kind of container |
//! | `/healthz` | 200; 503 before the time `READY_AT` (seconds since 1970) where that is set |
//! | `/env?name=X` | the environment variable X, 404 where it is not set |
//! | `/sleep?ms=N` | `slept`, after N milliseconds |
//! | `/alloc?mb=N` | `allocated`, after touching N MiB of memory |
//! | `/crash` | none: the container exits 1 |
//! | `/exit` | none: the container exits 0 |

use sample_kit::{Reply, Request};

/// What the application needs of its host.
pub trait Host {
    /// `wasm` or `container`.
    const KIND: &'static str;
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Seconds since 1970.
    fn now(&self) -> u64;
    /// Waits.
    fn sleep(&self, milliseconds: u64);
    /// Writes a line to standard output.
    fn log(&self, line: &str);
    /// Ends the container.
    fn exit(&self, success: bool) -> !;
}

/// The whole application.
pub fn answer<H: Host>(host: &H, request: &Request) -> Reply {
    host.log(&format!("{} {}", request.method, request.path));
    match request.path.as_str() {
        "/" => {
            let pod = host.variable("POD_NAME").unwrap_or_else(|| "unknown".to_owned());
            Reply::new(200, format!("{pod} {}\n", H::KIND))
        }
        "/healthz" => {
            let ready_at = host.variable("READY_AT").and_then(|text| text.parse().ok()).unwrap_or(0);
            if host.now() < ready_at {
                Reply::new(503, "not yet\n")
            } else {
                Reply::new(200, "ok\n")
            }
        }
        "/env" => match host.variable(request.parameter("name").unwrap_or_default()) {
            Some(value) => Reply::new(200, value),
            None => Reply::new(404, "not set\n"),
        },
        "/sleep" => {
            host.sleep(number(request, "ms"));
            Reply::new(200, "slept\n")
        }
        "/alloc" => {
            let mut memory = vec![0u8; number(request, "mb") as usize * (1 << 20)];
            for page in memory.chunks_mut(4096) {
                page[0] = 1;
            }
            let touched = std::hint::black_box(&memory).iter().step_by(4096).map(|&byte| usize::from(byte)).sum::<usize>();
            Reply::new(200, format!("allocated {touched} pages\n"))
        }
        "/crash" => {
            host.log("crashing");
            host.exit(false)
        }
        "/exit" => host.exit(true),
        _ => Reply::new(404, "no such page\n"),
    }
}

fn number(request: &Request, name: &str) -> u64 {
    request.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Fixed(RefCell<Vec<String>>);

    impl Host for Fixed {
        const KIND: &'static str = "test";
        fn variable(&self, name: &str) -> Option<String> {
            [("POD_NAME", "p"), ("READY_AT", "100")].iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned())
        }
        fn now(&self) -> u64 {
            99
        }
        fn sleep(&self, _: u64) {}
        fn log(&self, line: &str) {
            self.0.borrow_mut().push(line.to_owned());
        }
        fn exit(&self, _: bool) -> ! {
            panic!("exit")
        }
    }

    #[test]
    fn answers() {
        let host = Fixed(RefCell::default());
        for (target, status, body) in [
            ("/", 200, "p test\n"),
            ("/healthz", 503, "not yet\n"),
            ("/env?name=POD_NAME", 200, "p"),
            ("/env?name=NO", 404, "not set\n"),
            ("/alloc?mb=1", 200, "allocated 256 pages\n"),
            ("/none", 404, "no such page\n"),
        ] {
            assert_eq!(answer(&host, &Request::new("GET", target)), Reply::new(status, body), "{target}");
        }
        assert_eq!(host.0.borrow()[2], "GET /env");
    }
}
