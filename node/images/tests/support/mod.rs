//! What the tests stand on: a real registry (Debian's docker-registry) as a child, a hostile one of our own, and images made by
//! umoci.

#![allow(dead_code, clippy::unwrap_used, reason = "tests, each of which uses a part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wherry_images::{Images, Options};

/// A component: its eight first bytes are all there is.
pub(crate) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// A module: likewise.
pub(crate) const MODULE: &[u8] = b"\0asm\x01\0\0\0";

pub(crate) fn images(dir: &Path) -> Images {
    Images::open(dir, Options::default()).unwrap()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn installed(tools: &[&str]) -> bool {
    let there = |tool: &&str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(tool).is_file())
    };
    let missing: Vec<_> = tools.iter().copied().filter(|tool| !there(tool)).collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: not installed: {}", missing.join(", "));
    }
    missing.is_empty()
}

pub(crate) fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Debian's docker-registry, ended when dropped.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
}

impl Registry {
    /// `htpasswd` is a line of that file; none for a registry that is open to all.
    pub(crate) fn start(dir: &Path, htpasswd: Option<&str>) -> Self {
        // The registry can't be told to choose a port and say which: one is chosen here, and given up at once.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let auth = htpasswd.map_or(String::new(), |line| {
            let file = dir.join("htpasswd");
            std::fs::write(&file, line).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        });
        let config = dir.join("registry.yml");
        let storage = dir.join("registry");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\n{auth}storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {free}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (ready, listening) = mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if line.contains("listening on") {
                    let _ = ready.send(());
                }
            }
        });
        listening.recv().expect("the registry does not start");
        Self { child, host: free.to_string() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An OCI layout as a tar, made by umoci: one file in one layer.
pub(crate) fn oci_archive(dir: &Path, config: &[&str], file: &str, content: &[u8]) -> PathBuf {
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (layout, bundle, archive) = (path("layout"), path("bundle"), path("image.tar"));
    let tagged = format!("{layout}:v1");
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &tagged]);
    run("umoci", &["unpack", "--rootless", "--image", &tagged, &bundle]);
    let target = Path::new(&bundle).join("rootfs").join(file);
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::write(target, content).unwrap();
    run("umoci", &["repack", "--image", &tagged, &bundle]);
    if !config.is_empty() {
        run("umoci", &[&["config", "--image", &tagged], config].concat());
    }
    run("tar", &["-C", &layout, "-cf", &archive, "."]);
    PathBuf::from(archive)
}

/// What a hostile registry does with one request.
pub(crate) enum Answer {
    /// Status, headers, body; the length is announced truly.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A body without an end and without a length.
    Endless,
    /// Announces the length of it all, sends so many bytes, hangs up. Ranges are honoured.
    Cut(Vec<u8>, usize),
}

pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Answer::Whole(200, vec![], body.into())
}

/// A request as the hostile registry sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<usize>,
}

/// An HTTP server on loopback that answers as a test says.
pub(crate) struct Hostile {
    pub(crate) host: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Hostile {
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move {
                    let mut stream = tokio::io::BufReader::new(stream);
                    let Some(request) = read_request(&mut stream).await else { return };
                    log.lock().push(request.clone());
                    let answer = answer(&request);
                    let _ = send(stream.get_mut(), answer, request.range).await;
                });
            }
        });
        Self { host, seen, server }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn read_request(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut seen = Seen { path, authorization: None, range: None };
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { return Some(seen) };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => seen.authorization = Some(value.trim().to_owned()),
            "range" => seen.range = value.trim().strip_prefix("bytes=")?.trim_end_matches('-').parse().ok(),
            _ => {}
        }
    }
}

async fn send(stream: &mut (impl AsyncWriteExt + Unpin), answer: Answer, range: Option<usize>) -> std::io::Result<()> {
    match answer {
        Answer::Whole(status, headers, body) => {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head =
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await
        }
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 65536]).await?;
            }
        }
        Answer::Cut(body, length) => {
            let from = range.unwrap_or(0);
            let status = if range.is_some() { "206 X\r\ncontent-range: bytes " } else { "200 X\r\nx-none: " };
            let head = format!(
                "HTTP/1.1 {status}{from}-{}/{}\r\ncontent-length: {}\r\n\r\n",
                body.len() - 1,
                body.len(),
                body.len() - from
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body[from..body.len().min(from + length)]).await
        }
    }
}
