//! Every form in which Wasm comes as an image, from an OCI layout to what the runtime is given.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use support::{COMPONENT, MODULE, digest, images};
use wherry_images::{ImageError, Images, Missing, Options, Silent};
use wherry_runtime::{Image, ImageKind};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image to be: its config with its type, its layers with theirs, its annotations.
struct Form<'a> {
    config: (&'a str, Value),
    layers: Vec<(&'a str, Vec<u8>)>,
    annotations: Value,
}

fn form<'a>(config: &'a str, content: Value, layers: Vec<(&'a str, Vec<u8>)>) -> Form<'a> {
    Form { config: (config, content), layers, annotations: json!({}) }
}

impl Form<'_> {
    fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations[name] = value.into();
        self
    }

    /// As the tar of an OCI layout.
    fn write(&self, dir: &Path) -> PathBuf {
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec())];
        let mut blob = |media_type: &str, bytes: &[u8]| -> Value {
            files.push((format!("blobs/{}", digest(bytes).replace(':', "/")), bytes.to_vec()));
            json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
        };
        let config = blob(self.config.0, self.config.1.to_string().as_bytes());
        let layers: Vec<Value> = self.layers.iter().map(|(media_type, bytes)| blob(media_type, bytes)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
            "annotations": self.annotations});
        let manifest = blob(OCI_MANIFEST, manifest.to_string().as_bytes());
        files.push(("index.json".to_owned(), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string().into()));
        let path = dir.join("layout.tar");
        fs::write(&path, archive(&files)).unwrap();
        path
    }

    async fn load(&self) -> Result<Arc<Image>, ImageError> {
        let dir = tempfile::tempdir().unwrap();
        let image = images(&dir.path().join("store")).load(&self.write(dir.path()), "app:1", Arc::new(Silent)).await?;
        if image.kind == ImageKind::Wasm {
            let [layer] = image.layers.as_slice() else { panic!("{:?}", image.layers) };
            assert_eq!(digest(&fs::read(&layer.path).unwrap()), layer.digest);
        }
        Ok(image)
    }
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A gzipped layer with one module in it.
fn layer(path: &str) -> Vec<u8> {
    let tar = archive(&[("etc/motd".to_owned(), b"hello".to_vec()), (path.to_owned(), MODULE.to_vec())]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&tar).unwrap();
    gzip.finish().unwrap()
}

fn image_config(os: &str, architecture: &str, entrypoint: &[&str]) -> Value {
    json!({"os": os, "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Entrypoint": entrypoint, "Cmd": ["--fast"], "Env": ["A=b"]}})
}

/// Debian's and Go's name of this machine.
fn native() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[tokio::test]
async fn artifacts_are_their_one_layer() {
    let cncf = json!({"architecture": "wasm", "os": "wasip2", "layerDigests": [digest(COMPONENT)],
        "component": {"imports": [], "exports": []}});
    for (config, content, layer) in [
        ("application/vnd.wasm.config.v0+json", cncf, "application/wasm"),
        (
            "application/vnd.oci.empty.v1+json",
            json!({}),
            "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
        ),
        ("application/vnd.wasm.config.v1+json", json!({}), "application/vnd.wasm.content.layer.v1+wasm"),
        ("application/vnd.module.wasm.config.v1+json", json!({}), "application/vnd.module.wasm.content.layer.v1+wasm"),
    ] {
        let image = form(config, content, vec![(layer, COMPONENT.to_vec())]).load().await.unwrap();
        assert_eq!((image.kind, &image.layers[0].digest), (ImageKind::Wasm, &digest(COMPONENT)), "{layer}");
        assert!(image.entrypoint.is_empty() && image.cmd.is_empty());
    }
}

/// What the config says of the component is believed before the component is fetched.
#[tokio::test]
async fn an_artifact_that_says_what_nobody_offers_is_not_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let missing: Missing = |imports| imports.iter().filter(|name| name.starts_with("wasi:keyvalue")).cloned().collect();
    let options = Options { missing: Some(missing), ..Options::default() };
    let images = Images::open(dir.path().join("store"), options).unwrap();
    let content = json!({"component": {"imports": ["wasi:cli/stdout@0.2.0", "wasi:keyvalue/store@0.2.0"]}});
    let artifact = form("application/vnd.wasm.config.v0+json", content, vec![("application/wasm", COMPONENT.to_vec())]);
    let error = images.load(&artifact.write(dir.path()), "app:1", Arc::new(Silent)).await.unwrap_err();
    assert_eq!(error.reason(), "ImageInspectError");
    assert!(error.to_string().ends_with("does not offer: wasi:keyvalue/store@0.2.0"), "{error}");
    assert!(images.list().unwrap().is_empty());
    artifact.load().await.unwrap();
}

#[tokio::test]
async fn an_artifact_with_an_images_config_keeps_what_that_says() {
    // As runwasi's tools write it.
    let config = image_config("wasip1", "wasm", &["app.wasm"]);
    let form = form(OCI_CONFIG, config, vec![("application/vnd.wasm.content.layer.v1+wasm", MODULE.to_vec())]);
    let image = form.load().await.unwrap();
    assert_eq!((image.kind, &image.layers[0].digest), (ImageKind::Wasm, &digest(MODULE)));
    assert_eq!((&image.entrypoint, &image.cmd), (&vec!["app.wasm".to_owned()], &vec!["--fast".to_owned()]));
    assert_eq!(image.env, [("A".to_owned(), "b".to_owned())]);
}

#[tokio::test]
async fn images_for_docker_and_crun_give_up_their_module() {
    let gzip = |path: &str| vec![(GZIP, layer(path))];
    let forms = [
        form(DOCKER_CONFIG, image_config("wasi", "wasm", &["/bin/app.wasm"]), gzip("bin/app.wasm")),
        form(OCI_CONFIG, image_config("wasip1", "wasm", &["app.wasm#run"]), gzip("app.wasm")),
        form(OCI_CONFIG, image_config("linux", native(), &["/app.wasm"]), gzip("app.wasm")),
        form(OCI_CONFIG, image_config("linux", native(), &["/app.wasm"]), gzip("app.wasm"))
            .annotated("run.oci.handler", "wasm"),
        form(OCI_CONFIG, image_config("linux", native(), &["/app.wasm"]), gzip("app.wasm"))
            .annotated("module.wasm.image/variant", "compat-smart"),
        form(OCI_CONFIG, image_config("linux", native(), &["/app.wasm"]), gzip("app.wasm"))
            .annotated("module.wasm.image/variant", "compat"),
    ];
    for form in forms {
        let image = form.load().await.unwrap();
        assert_eq!((image.kind, &image.layers[0].digest), (ImageKind::Wasm, &digest(MODULE)), "{:?}", form.config);
        assert_eq!((image.entrypoint.len(), image.cmd.len()), (1, 1));
    }
    let silent = json!({"os": "linux", "architecture": native(), "config": {}});
    let plugin = form(OCI_CONFIG, silent, gzip("plugin.wasm")).annotated("module.wasm.image/variant", "compat");
    assert_eq!(plugin.load().await.unwrap().layers[0].digest, digest(MODULE));
}

#[tokio::test]
async fn compat_smart_leaves_containers_alone() {
    let config = image_config("linux", native(), &["/bin/app"]);
    let form = form(OCI_CONFIG, config, vec![(GZIP, layer("bin/app"))]);
    let image = form.annotated("module.wasm.image/variant", "compat-smart").load().await.unwrap();
    assert_eq!(image.kind, ImageKind::Container);
}

#[tokio::test]
async fn a_spin_application_of_one_component_is_run_and_others_are_refused() {
    let config = |route: &str| {
        json!({"spin_lock_version": 1,
            "triggers": [{"id": "t", "trigger_type": "http", "trigger_config": {"component": "hello", "route": route}}],
            "components": [{"id": "hello", "env": {"GREETING": "hi"},
                "source": {"content_type": "application/wasm", "digest": digest(COMPONENT)}}]})
    };
    let layers = || {
        vec![
            ("application/vnd.wasm.content.layer.v1+wasm", COMPONENT.to_vec()),
            ("application/vnd.wasm.content.layer.v1+data", b"of no component".to_vec()),
        ]
    };
    let spin = "application/vnd.fermyon.spin.application.v1+config";
    let image = form(spin, config("/..."), layers()).load().await.unwrap();
    assert_eq!((image.kind, &image.layers[0].digest), (ImageKind::Wasm, &digest(COMPONENT)));
    assert_eq!(image.env, [("GREETING".to_owned(), "hi".to_owned())]);
    let refused = form(spin, config("/hello"), layers()).load().await.unwrap_err().to_string();
    assert!(refused.contains("route \"/hello\""), "{refused}");
}

#[tokio::test]
async fn what_is_none_of_these_is_refused_by_its_media_type() {
    let two = vec![("application/wasm", COMPONENT.to_vec()), ("application/wasm", MODULE.to_vec())];
    let odd = vec![("application/vnd.wasm.content.layer.v1+data", MODULE.to_vec())];
    let wasm = "application/vnd.wasm.config.v0+json";
    for (form, problem) in [
        (form(wasm, json!({}), two), "has 2"),
        (form(wasm, json!({}), odd), "application/vnd.wasm.content.layer.v1+data"),
        (form("application/vnd.cncf.helm.config.v1+json", json!({}), vec![(GZIP, layer("x"))]), "helm"),
    ] {
        let text = form.load().await.unwrap_err().to_string();
        assert!(text.contains(problem), "{problem}: {text}");
    }
}
