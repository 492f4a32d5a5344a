//! Work that ends, as Jobs want it. One source, two builds: a wasi:cli component and a native binary (main.rs).

pub mod app;

#[cfg(target_family = "wasm")]
mod component {
    use sample_kit::wasi;
    use wasip2::cli::environment;

    use crate::app::{self, Host};

    struct Worker;

    wasip2::cli::command::export!(Worker);

    impl wasip2::exports::cli::run::Guest for Worker {
        fn run() -> Result<(), ()> {
            let arguments = environment::get_arguments();
            app::run(&Wasi, arguments.get(1..).unwrap_or_default()).map_err(|error| wasi::log(&error))
        }
    }

    struct Wasi;

    impl Host for Wasi {
        type Stream = wasi::Tcp;

        fn variable(&self, name: &str) -> Option<String> {
            wasi::variable(name)
        }

        fn connect(&self, address: &str) -> Result<wasi::Tcp, String> {
            wasi::Tcp::connect(address)
        }

        fn log(&self, line: &str) {
            wasi::log(line);
        }
    }
}
