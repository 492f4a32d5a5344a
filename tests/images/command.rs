//! The command line as a user meets it: what it says, on which stream, with which exit code.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use wherry_test::{Registry, sample};

fn wherry(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wherry"));
    command.args(arguments).env("WHERRY_DATA_DIR", data).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(output: Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn what_cannot_be_an_image_is_refused_with_the_reason() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = |name: &str, content: &[u8]| -> anyhow::Result<String> {
        let path = dir.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    };
    let (tar, missing) = (file("some.tar", b"no archive")?, dir.path().join("none").display().to_string());
    let (wasm, module) = (file("text.wasm", b"no module")?, sample("hello").display().to_string());
    let cut = file("cut.wasm", &std::fs::read(sample("hello"))?[..999])?;
    let directory = dir.path().display().to_string();
    for (file, reference, words) in [
        (&missing, "a.test/x:1", vec!["can't open", &missing, "No such file"]),
        (&wasm, "a.test/x:1", vec![&wasm, "not a WebAssembly module or component"]),
        (&cut, "a.test/x:1", vec![&cut, "WebAssembly"]),
        (&tar, "a.test/x:1", vec![&tar, "archive"]),
        (&directory, "a.test/x:1", vec!["it is a directory"]),
        (&module, "A.test/X:1", vec!["\"A.test/X:1\" is not an image reference"]),
        (&module, &format!("a.test/x@sha256:{}", "0".repeat(64)), vec!["named by a tag"]),
    ] {
        let output = wherry(dir.path(), &["image", "load", file, reference]).output()?;
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{error}");
        assert!(
            error.starts_with("error: ") && error.lines().count() == 1 && words.iter().all(|word| error.contains(word)),
            "{error}"
        );
    }
    assert_eq!(succeeds(wherry(dir.path(), &["image", "ls"]).output()?).lines().count(), 1, "nothing was stored");
    let output = wherry(dir.path(), &["image", "push", &module, "127.0.0.1:1/x:1"]).output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: 127.0.0.1:1 can't be reached"), "{output:?}");
    Ok(())
}

#[test]
fn only_load_makes_a_directory() -> anyhow::Result<()> {
    let (dir, registry) = (tempfile::tempdir()?, Registry::start()?);
    let data = dir.path().join("wherry");
    let listed = wherry(&data, &["image", "ls"]).output()?;
    assert_eq!(listed.status.code(), Some(1));
    assert!(text(&listed.stderr).contains("there is no cluster in") && !data.exists(), "{listed:?}");
    succeeds(
        wherry(&data, &["image", "push"])
            .arg(sample("hello"))
            .arg(registry.reference("hello:1"))
            .env("TMPDIR", dir.path())
            .output()?,
    );
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "a push leaves nothing");
    succeeds(wherry(&data, &["image", "load"]).arg(sample("hello")).arg("a.test/hello:1").output()?);
    assert!(data.exists());
    Ok(())
}

#[test]
fn every_name_of_an_image_is_listed() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for (name, reference) in [("hello", "b.test/hello:1"), ("hello", "b.test/hello:2"), ("echo", "a.test/echo")] {
        let loaded = succeeds(wherry(dir.path(), &["image", "load"]).arg(sample(name)).arg(reference).output()?);
        assert!(loaded.starts_with(&format!("loaded {reference}")), "{loaded}");
    }
    let list = succeeds(wherry(dir.path(), &["image", "ls"]).output()?);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(
        rows.iter().map(|row| row[0]).collect::<Vec<_>>(),
        ["IMAGE", "a.test/echo:latest", "b.test/hello:1", "b.test/hello:2"]
    );
    assert_eq!((rows[0][1..].join(" "), rows[2][1], rows[3][2]), ("DIGEST KIND".to_owned(), rows[3][1], "wasm"));
    Ok(())
}

#[test]
fn bars_are_drawn_on_a_terminal_alone() -> anyhow::Result<()> {
    let (dir, registry) = (tempfile::tempdir()?, Registry::start()?);
    let push = format!(
        "{} image push {} {}",
        env!("CARGO_BIN_EXE_wherry"),
        sample("echo").display(),
        registry.reference("echo:1")
    );
    let plain = Command::new("sh").args(["-c", &push]).env("WHERRY_DATA_DIR", dir.path()).output()?;
    assert!(succeeds(plain).starts_with("pushed "));
    // script(1) gives the command a terminal.
    let seen = Command::new("script")
        .args(["-qec", &push, "/dev/null"])
        .env("WHERRY_DATA_DIR", dir.path())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()?;
    let seen = text(&seen.stdout);
    assert!(seen.contains("\u{1b}[") && seen.contains("KiB") && seen.contains("pushed "), "{seen:?}");
    Ok(())
}

#[test]
fn help_version_and_completion_are_printed() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let run = |line: &str| wherry(dir.path(), &line.split_whitespace().collect::<Vec<_>>()).output();
    for (line, words) in [
        ("--help", vec!["Usage: wherry <COMMAND>", "  up ", "  image ", "  version ", "  completion ", "wherry up"]),
        (
            "up --help",
            vec![
                "--data-dir",
                "--kubeconfig",
                "--api-port",
                "--nodes",
                "--containerd",
                "[default: 6443]",
                "WebAssembly only",
            ],
        ),
        ("image --help", vec!["load", "push", "ls"]),
        ("image push --help", vec!["<FILE>", "<REF>", "config.json", "registries.yaml"]),
        ("version", vec!["wherry 0.", "kubernetes v1.36.", "wasmtime 48"]),
        ("--version", vec!["wherry 0."]),
        ("completion bash", vec!["complete -F _wherry"]),
        ("completion zsh", vec!["#compdef wherry"]),
        ("completion fish", vec!["complete -c wherry"]),
    ] {
        let output = succeeds(run(line)?);
        assert!(words.iter().all(|word| output.contains(word)), "{line}: {output}");
        assert!(!output.contains("netns-helper"), "{line} names what is ours alone");
    }
    for (line, words) in [
        ("", "Usage: wherry <COMMAND>"),
        ("upp", "similar subcommand exists: 'up'"),
        ("up --nodes 251", "251 is not in 0..=250"),
        ("image load one", "<REF>"),
        ("completion tcsh", "possible values: bash"),
    ] {
        let output = run(line)?;
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true), "{line}");
        assert!(text(&output.stderr).contains(words), "{line}: {output:?}");
    }
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_failure() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for line in ["completion bash", "image ls", "version"] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = wherry(dir.path(), &line.split_whitespace().collect::<Vec<_>>());
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    }
    Ok(())
}

#[test]
fn a_second_start_is_refused_with_what_to_do() -> anyhow::Result<()> {
    if !wherry_test::is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = wherry_test::Cluster::start(crate::options())?;
    let second = cluster.wherry(&["up", "--api-port", "0"]).output()?;
    let error = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(error.contains("error: another wherry runs the cluster in") && error.contains("--data-dir"), "{error}");
    let client = cluster.kubectl().ok("config view -o jsonpath={.clusters[0].cluster.server}")?;
    let port = client.rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap();
    let other = tempfile::tempdir()?;
    let taken = wherry(other.path(), &["up", "--api-port", &port, "--kubeconfig", "/dev/null"]).output()?;
    let error = text(&taken.stderr);
    assert_eq!(taken.status.code(), Some(1));
    assert!(error.contains(&format!("error: cannot listen on 127.0.0.1:{port} (--api-port)")), "{error}");
    assert!(!other.path().join("network").join("fabric").exists(), "what was begun was left");
    Ok(())
}
