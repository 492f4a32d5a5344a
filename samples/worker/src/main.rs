//! worker as a native program.

#[cfg(unix)]
mod native {
    use std::net::TcpStream;
    use std::process::ExitCode;

    use worker::app::{self, Host};

    struct Native;

    impl Host for Native {
        type Stream = TcpStream;

        fn variable(&self, name: &str) -> Option<String> {
            std::env::var(name).ok()
        }

        fn connect(&self, address: &str) -> Result<TcpStream, String> {
            TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))
        }

        fn log(&self, line: &str) {
            println!("{line}");
        }
    }

    pub fn main() -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match app::run(&Native, &arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    native::main()
}

#[cfg(not(unix))]
fn main() {}
