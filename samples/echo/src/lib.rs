//! Answers requests about itself. One source, two builds: a wasi:http component and a native binary (main.rs).

pub mod app;

#[cfg(target_family = "wasm")]
mod component {
    use sample_kit::{wasi, Reply};
    use wasip2::cli::exit;
    use wasip2::clocks::{monotonic_clock, wall_clock};
    use wasip2::http::types::{IncomingRequest, ResponseOutparam};

    use crate::app::{self, Host};

    struct Echo;

    wasip2::http::proxy::export!(Echo);

    impl wasip2::exports::http::incoming_handler::Guest for Echo {
        fn handle(request: IncomingRequest, out: ResponseOutparam) {
            wasi::send(&app::answer(&Wasi, &wasi::read(&request)), out);
        }
    }

    struct Wasi;

    impl Host for Wasi {
        const KIND: &'static str = "wasm";

        fn variable(&self, name: &str) -> Option<String> {
            wasi::variable(name)
        }

        fn now(&self) -> u64 {
            wall_clock::now().seconds
        }

        fn elapsed(&self) -> u64 {
            monotonic_clock::now() / 1_000_000
        }

        fn read(&self, path: &str) -> Result<String, String> {
            wasi::read_file(path)
        }

        fn write(&self, path: &str, text: &str) -> Result<(), String> {
            wasi::write_file(path, text)
        }

        fn remove(&self, path: &str) -> Result<(), String> {
            wasi::remove_file(path)
        }

        fn fetch(&self, authority: &str, path: &str) -> Result<Reply, String> {
            wasi::fetch(authority, path)
        }

        fn sleep(&self, milliseconds: u64) {
            monotonic_clock::subscribe_duration(milliseconds * 1_000_000).block();
        }

        fn log(&self, line: &str) {
            wasi::log(line);
        }

        fn exit(&self, success: bool) -> ! {
            exit::exit(if success { Ok(()) } else { Err(()) });
            unreachable!("exit does not return")
        }
    }
}
