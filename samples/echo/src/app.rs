//! What echo does, whichever way it was built.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the Pod's name and the kind of container |
//! | `/healthz` | 200; 503 before the time `READY_AT` (seconds since 1970) where that is set |
//! | `/env?name=X` | the environment variable X, 404 where it is not set |
//! | `/sleep?ms=N` | `slept`, after N milliseconds |
//! | `/alloc?mb=N` | `allocated`, after touching N MiB of memory |
//! | `/spin?ms=N` | how many rounds of work were done in N milliseconds |
//! | `/read?path=P` | the file P, 404 where there is none |
//! | `/write?path=P&text=T` | `written`, after T became the file P |
//! | `/remove?path=P` | `removed`, after the file P was |
//! | `/fetch?authority=A&path=P` | what `http://A/P` answers (`%26` in P is `&`), 502 where nothing does |
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
    /// Milliseconds since some moment.
    fn elapsed(&self) -> u64;
    /// A file's text.
    fn read(&self, path: &str) -> Result<String, String>;
    /// Makes or replaces a file.
    fn write(&self, path: &str, text: &str) -> Result<(), String>;
    /// Removes a file.
    fn remove(&self, path: &str) -> Result<(), String>;
    /// `GET http://authority/path`.
    fn fetch(&self, authority: &str, path: &str) -> Result<Reply, String>;
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
            let touched =
                std::hint::black_box(&memory).iter().step_by(4096).map(|&byte| usize::from(byte)).sum::<usize>();
            Reply::new(200, format!("allocated {touched} pages\n"))
        }
        "/spin" => Reply::new(200, spin(host, number(request, "ms")).to_string()),
        "/read" => host
            .read(text(request, "path"))
            .map_or_else(|problem| Reply::new(404, problem), |found| Reply::new(200, found)),
        "/write" => done(host.write(text(request, "path"), text(request, "text")), "written\n"),
        "/remove" => done(host.remove(text(request, "path")), "removed\n"),
        "/fetch" => {
            let path = format!("/{}", text(request, "path").replace("%26", "&"));
            host.fetch(text(request, "authority"), &path).unwrap_or_else(|problem| Reply::new(502, problem))
        }
        "/crash" => {
            host.log("crashing");
            host.exit(false)
        }
        "/exit" => host.exit(true),
        _ => Reply::new(404, "no such page\n"),
    }
}

fn text<'a>(request: &'a Request, name: &str) -> &'a str {
    request.parameter(name).unwrap_or_default()
}

fn done(result: Result<(), String>, what: &str) -> Reply {
    result.map_or_else(|problem| Reply::new(500, problem), |()| Reply::new(200, what))
}

/// Works until the time is over; how far that got tells how much CPU there was.
fn spin<H: Host>(host: &H, milliseconds: u64) -> u64 {
    let end = host.elapsed() + milliseconds;
    let (mut rounds, mut state) = (0, 1u64);
    while host.elapsed() < end {
        for _ in 0..10_000 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        rounds += 1;
    }
    rounds
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
        fn elapsed(&self) -> u64 {
            0
        }
        fn read(&self, path: &str) -> Result<String, String> {
            if path == "/a" {
                Ok("text".to_owned())
            } else {
                Err("none".to_owned())
            }
        }
        fn write(&self, _: &str, _: &str) -> Result<(), String> {
            Ok(())
        }
        fn remove(&self, _: &str) -> Result<(), String> {
            Err("none".to_owned())
        }
        fn fetch(&self, authority: &str, path: &str) -> Result<Reply, String> {
            Ok(Reply::new(200, format!("{authority}{path}")))
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
            ("/spin?ms=0", 200, "0"),
            ("/read?path=/a", 200, "text"),
            ("/read?path=/b", 404, "none"),
            ("/write?path=/a&text=x", 200, "written\n"),
            ("/remove?path=/a", 500, "none"),
            ("/fetch?authority=a:1&path=b", 200, "a:1/b"),
            ("/none", 404, "no such page\n"),
        ] {
            assert_eq!(answer(&host, &Request::new("GET", target)), Reply::new(status, body), "{target}");
        }
        assert_eq!(host.0.borrow()[2], "GET /env");
    }
}
