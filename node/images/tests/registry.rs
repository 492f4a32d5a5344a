//! Images to and from a real registry, and from files.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::sync::Arc;

use parking_lot::Mutex;
use support::{COMPONENT, MODULE, Registry, digest, images, installed, oci_archive, run};
use wherry_images::{Auth, ImageError, Images, Options, Silent, Step};
use wherry_runtime::ImageKind;

#[tokio::test]
async fn a_module_is_pushed_pulled_and_found_again() {
    if !installed(&["docker-registry", "skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    let file = dir.path().join("app.wasm");
    fs::write(&file, COMPONENT).unwrap();
    let name = format!("{}/team/app:v1", registry.host);

    let id = images(&dir.path().join("a")).push(&file, &name, None, Arc::new(Silent)).await.unwrap();
    let store = images(&dir.path().join("b"));
    assert_eq!(store.kind(&name, None).await.unwrap(), ImageKind::Wasm);
    assert!(store.get(&name).unwrap().is_none());

    let steps = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&steps);
    let listener = move |step: Step<'_>| heard.lock().push(format!("{step:?}"));
    let image = store.pull(&name, None, Arc::new(listener)).await.unwrap();
    assert_eq!(
        (image.kind, image.reference.as_str(), image.id.as_str()),
        (ImageKind::Wasm, name.as_str(), id.as_str())
    );
    assert_eq!(fs::read(&image.layers[0].path).unwrap(), COMPONENT);
    assert_eq!(image.layers[0].digest, digest(COMPONENT));
    let config: serde_json::Value = serde_json::from_slice(&fs::read(&image.config.path).unwrap()).unwrap();
    assert_eq!((&config["os"], &config["layerDigests"][0]), (&"wasip2".into(), &digest(COMPONENT).into()));
    assert!(steps.lock().first().unwrap().contains("Resolving") && steps.lock().last().unwrap().contains("Done"));

    // Another process on the same directory sees it, by both names; by its digest it needs no registry.
    let other = images(&dir.path().join("b"));
    drop(registry);
    assert_eq!(other.get(&name).unwrap(), Some(Arc::clone(&image)));
    let pinned = other.pull(&id, None, Arc::new(Silent)).await.unwrap();
    assert_eq!(pinned.layers, image.layers);
    assert!(matches!(other.pull(&name, None, Arc::new(Silent)).await, Err(ImageError::Unreachable { .. })));
    let list = other.list().unwrap();
    assert_eq!((list.len(), &list[0].references), (1, &vec![name.clone(), id.clone()]));
    assert!(other.remove(&name).unwrap() && !other.remove(&name).unwrap());
    assert!(other.get(&name).unwrap().is_none() && other.get(&id).unwrap().is_some());
}

#[tokio::test]
async fn a_container_image_comes_from_every_kind_of_file_and_from_skopeo() {
    if !installed(&["docker-registry", "skopeo", "umoci"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let config = [
        "--config.entrypoint",
        "/bin/app",
        "--config.cmd",
        "serve",
        "--config.env",
        "A=b=c",
        "--config.user",
        "1:2",
        "--config.workingdir",
        "/srv",
    ];
    let oci = oci_archive(dir.path(), &config, "bin/app", b"program");
    let docker = path("docker.tar");
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "-q",
            &format!("oci-archive:{}", oci.display()),
            &format!("docker-archive:{docker}:docker.io/library/app:v1"),
        ],
    );
    let registry = Registry::start(dir.path(), None);
    let pushed = format!("{}/app:v1", registry.host);
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &format!("oci-archive:{}", oci.display()),
            &format!("docker://{pushed}"),
        ],
    );

    let store = images(&dir.path().join("store"));
    let from_oci = store.load(&oci, "app:oci", Arc::new(Silent)).await.unwrap();
    let from_docker = store.load(docker.as_ref(), "app:docker", Arc::new(Silent)).await.unwrap();
    let pulled = store.pull(&pushed, None, Arc::new(Silent)).await.unwrap();
    for image in [&from_oci, &from_docker, &pulled] {
        assert_eq!(image.kind, ImageKind::Container);
        assert_eq!((&image.entrypoint, &image.cmd), (&vec!["/bin/app".to_owned()], &vec!["serve".to_owned()]));
        assert!(image.env.contains(&("A".into(), "b=c".into())));
        assert_eq!((image.user.as_deref(), image.working_dir.as_deref()), (Some("1:2"), Some("/srv".as_ref())));
    }
    assert_eq!(from_oci.manifest.digest, pulled.manifest.digest, "the same image by its digest");
    assert!(from_docker.layers[0].media_type.contains("tar"));

    // What we push, others can pull.
    let ours = format!("{}/copy:v1", registry.host);
    store.push(&oci, &ours, None, Arc::new(Silent)).await.unwrap();
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{ours}"),
            &format!("oci:{}", path("back")),
        ],
    );
}

#[tokio::test]
async fn a_compat_image_gives_its_module() {
    if !installed(&["umoci"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config =
        ["--os", "wasi", "--architecture", "wasm", "--config.entrypoint", "/opt/app.wasm", "--config.cmd", "x"];
    let file = oci_archive(dir.path(), &config, "opt/app.wasm", MODULE);
    let store = images(&dir.path().join("store"));
    let image = store.load(&file, "app:v1", Arc::new(Silent)).await.unwrap();
    assert_eq!((image.kind, image.layers.len()), (ImageKind::Wasm, 1));
    assert_eq!(fs::read(&image.layers[0].path).unwrap(), MODULE);
    assert_eq!(
        (image.layers[0].media_type.as_str(), &image.entrypoint),
        ("application/wasm", &vec!["/opt/app.wasm".to_owned()])
    );
}

#[tokio::test]
async fn credentials_open_what_is_closed() {
    if !installed(&["docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // user:secret
    let registry =
        Registry::start(dir.path(), Some("user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"));
    let file = dir.path().join("app.wasm");
    fs::write(&file, MODULE).unwrap();
    let name = format!("{}/app:v1", registry.host);
    let store = images(&dir.path().join("store"));
    assert!(matches!(store.pull(&name, None, Arc::new(Silent)).await, Err(ImageError::Unauthorized { .. })));
    let auth = |password: &str| Some(Auth::Basic { username: "user".into(), password: password.into() });
    assert!(matches!(
        store.push(&file, &name, auth("wrong"), Arc::new(Silent)).await,
        Err(ImageError::Unauthorized { .. })
    ));
    let id = store.push(&file, &name, auth("secret"), Arc::new(Silent)).await.unwrap();
    assert_eq!(store.pull(&name, auth("secret"), Arc::new(Silent)).await.unwrap().id, id);

    // As a mirror, with the credentials of registries.yaml.
    let registries = dir.path().join("registries.yaml");
    let host = &registry.host;
    let text = format!(
        "mirrors: {{\"m.example\": {{endpoint: [\"http://{host}\"]}}}}\nconfigs: {{\"{host}\": {{auth: {{username: user, password: secret}}}}}}\n"
    );
    fs::write(&registries, text).unwrap();
    let options = Options { registries: Some(registries), ..Options::default() };
    let store = Images::open(dir.path().join("other"), options).unwrap();
    let image = store.pull("m.example/app:v1", None, Arc::new(Silent)).await.unwrap();
    assert_eq!(image.reference, "m.example/app:v1");
}

#[tokio::test]
async fn what_is_not_there_or_no_image_is_named() {
    if !installed(&["docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    let store = images(&dir.path().join("store"));
    let missing = store.pull(&format!("{}/nothing:v1", registry.host), None, Arc::new(Silent)).await;
    assert!(matches!(&missing, Err(ImageError::NotFound { .. })), "{missing:?}");
    assert!(matches!(store.pull("Not A Name", None, Arc::new(Silent)).await, Err(ImageError::InvalidName { .. })));

    let load = |name: &'static str, bytes: &'static [u8]| {
        let (store, path) = (store.clone(), dir.path().join(name));
        async move {
            fs::write(&path, bytes).unwrap();
            store.load(&path, "app:v1", Arc::new(Silent)).await.unwrap_err().to_string()
        }
    };
    assert!(load("x.wasm", b"not wasm").await.contains("not a WebAssembly"));
    assert!(load("y.wasm", b"\0asm\x01\0\0\0\xff\xff").await.contains("not a WebAssembly"));
    assert!(load("x.tar", b"neither this nor that").await.contains("x.tar"));
    assert!(store.list().unwrap().is_empty());
}
