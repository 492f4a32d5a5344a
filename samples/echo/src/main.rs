//! echo as a native server: a thread a connection, one request each. SIGTERM: what has connected is answered, then exit 0.

#[cfg(unix)]
mod native {
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Condvar, Mutex};
    use std::thread;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use echo::app::{self, Host};
    use sample_kit::{Reply, Request, MAX_BODY};
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    struct Native {
        started: Instant,
    }

    impl Host for Native {
        const KIND: &'static str = "container";

        fn variable(&self, name: &str) -> Option<String> {
            std::env::var(name).ok()
        }

        fn now(&self) -> u64 {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
        }

        fn elapsed(&self) -> u64 {
            u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
        }

        fn read(&self, path: &str) -> Result<String, String> {
            std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}\n"))
        }

        fn write(&self, path: &str, text: &str) -> Result<(), String> {
            std::fs::write(path, text).map_err(|error| format!("{path}: {error}\n"))
        }

        fn remove(&self, path: &str) -> Result<(), String> {
            std::fs::remove_file(path).map_err(|error| format!("{path}: {error}\n"))
        }

        fn fetch(&self, authority: &str, path: &str) -> Result<Reply, String> {
            fetch(authority, path).map_err(|error| format!("{authority}: {error}\n"))
        }

        fn sleep(&self, milliseconds: u64) {
            thread::sleep(Duration::from_millis(milliseconds));
        }

        fn log(&self, line: &str) {
            println!("{line}");
        }

        fn exit(&self, success: bool) -> ! {
            std::process::exit(i32::from(!success))
        }
    }

    /// How many connections are being served.
    #[derive(Default)]
    struct Active(Mutex<usize>, Condvar);

    impl Active {
        fn serve(self: &Arc<Self>, stream: TcpStream) {
            *self.0.lock().unwrap() += 1;
            let active = Arc::clone(self);
            thread::spawn(move || {
                // A client that went away is no error.
                let _ = answer(stream);
                *active.0.lock().unwrap() -= 1;
                active.1.notify_all();
            });
        }

        fn wait_for_none(&self) {
            drop(self.1.wait_while(self.0.lock().unwrap(), |active| *active > 0).unwrap());
        }
    }

    pub fn main() -> io::Result<()> {
        let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
        let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
        let active = Arc::new(Active::default());
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let ending = Arc::new(AtomicBool::new(false));
        let (told, own) = (Arc::clone(&ending), listener.local_addr()?.port());
        thread::spawn(move || {
            signals.forever().next();
            told.store(true, Ordering::SeqCst);
            // Wakes the loop below. Whatever becomes of it, the next connection does the same.
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, own)));
        });
        // One thread accepts and counts, so that none is between the two when it is asked whether any is left.
        while !ending.load(Ordering::SeqCst) {
            if let Ok((stream, _)) = listener.accept() {
                active.serve(stream);
            }
        }
        listener.set_nonblocking(true)?;
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            active.serve(stream);
        }
        active.wait_for_none();
        Ok(())
    }

    fn fetch(authority: &str, path: &str) -> io::Result<Reply> {
        let mut stream = TcpStream::connect(authority)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(MAX_BODY as u64).read_to_string(&mut answer)?;
        let status = answer.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        match (status, answer.split_once("\r\n\r\n")) {
            (Some(status), Some((_, body))) => Ok(Reply::new(status, body)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn answer(mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(stream.try_clone()?.take(MAX_BODY as u64));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
        let request = Request::new(method, target);
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let reply = app::answer(&Native { started: Instant::now() }, &request);
        write!(
            stream,
            "HTTP/1.1 {} \r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
            reply.status,
            reply.body.len(),
            reply.body
        )
    }
}

#[cfg(unix)]
fn main() -> std::io::Result<()> {
    native::main()
}

#[cfg(not(unix))]
fn main() {}
