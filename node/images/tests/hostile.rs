//! A registry that lies, floods, breaks off and leads astray.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::{Answer, Hostile, MODULE, Seen, digest, images, ok};
use wherry_images::{Auth, ImageError, Silent};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &[u8] = b"{}";

/// The manifest of a Wasm artifact with this layer.
fn manifest(layer: &[u8], size: u64) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": digest(CONFIG), "size": CONFIG.len()},
        "layers": [{"mediaType": "application/wasm", "digest": digest(layer), "size": size}]})
    .to_string()
    .into_bytes()
}

/// Serves the artifact of `layer`; `blob` says how the layer is served.
fn artifact(
    layer: &'static [u8],
    size: u64,
    blob: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    move |request| {
        if request.path.contains("/manifests/") {
            ok(manifest(layer, size))
        } else if request.path.ends_with(&digest(CONFIG)) {
            ok(CONFIG)
        } else {
            blob(request)
        }
    }
}

async fn pull(registry: &Hostile) -> Result<Arc<wherry_runtime::Image>, ImageError> {
    let dir = tempfile::tempdir().unwrap();
    let result = images(dir.path()).pull(&format!("{}/app:v1", registry.host), None, Arc::new(Silent)).await;
    let left = std::fs::read_dir(dir.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files stay behind");
    result
}

#[tokio::test]
async fn other_bytes_than_the_digest_says_are_refused() {
    let registry = Hostile::start(artifact(MODULE, 8, |_| ok(*b"\0asm\x0d\0\x01\0"))).await;
    let error = pull(&registry).await.unwrap_err();
    assert!(matches!(&error, ImageError::DigestMismatch { expected, .. } if *expected == digest(MODULE)), "{error}");
}

#[tokio::test]
async fn a_manifest_is_held_to_the_digest_in_the_reference_and_in_the_header() {
    let registry = Hostile::start(artifact(MODULE, 8, |_| ok(MODULE))).await;
    let dir = tempfile::tempdir().unwrap();
    let name = format!("{}/app@{}", registry.host, digest(b"other"));
    let error = images(dir.path()).pull(&name, None, Arc::new(Silent)).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");

    let lying = |_: &Seen| Answer::Whole(200, vec![("docker-content-digest", digest(b"other"))], manifest(MODULE, 8));
    let error = pull(&Hostile::start(lying).await).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn bodies_without_end_are_cut_off() {
    let error = pull(&Hostile::start(|_: &Seen| Answer::Endless).await).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "the manifest: {error}");
    let error = pull(&Hostile::start(artifact(MODULE, 8, |_| Answer::Endless)).await).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { limit: 8, .. }), "the layer: {error}");
}

#[tokio::test]
async fn what_is_announced_too_large_is_not_even_asked_for() {
    let registry = Hostile::start(artifact(MODULE, 1 << 40, |_| Answer::Endless)).await;
    let error = pull(&registry).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    assert!(!registry.seen.lock().iter().any(|request| request.path.ends_with(&digest(MODULE))));
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_where_it_broke() {
    static LAYER: [u8; 1000] = [7; 1000];
    let registry = Hostile::start(artifact(&LAYER, 1000, |_| Answer::Cut(LAYER.to_vec(), 400))).await;
    let image = pull(&registry).await.unwrap();
    assert_eq!(image.layers[0].digest, digest(&LAYER));
    let ranges: Vec<_> = registry
        .seen
        .lock()
        .iter()
        .filter(|request| request.path.ends_with(&digest(&LAYER)))
        .map(|request| request.range)
        .collect();
    assert_eq!(ranges, [None, Some(400), Some(800)]);
}

#[tokio::test]
async fn overload_is_waited_out_and_refusal_is_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let inner = artifact(MODULE, 8, |_| ok(MODULE));
    let busy = move |request: &Seen| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Whole(503, vec![], b"busy".to_vec()),
        1 => Answer::Whole(429, vec![("retry-after", "0".into())], vec![]),
        _ => inner(request),
    };
    pull(&Hostile::start(busy).await).await.unwrap();

    for (status, retryable) in [(404, false), (403, false), (418, false)] {
        let registry = Hostile::start(move |_: &Seen| {
            Answer::Whole(status, vec![], br#"{"errors":[{"code":"NO","message":"go away"}]}"#.to_vec())
        })
        .await;
        let error = pull(&registry).await.unwrap_err();
        assert_eq!((error.is_retryable(), registry.seen.lock().len()), (retryable, 1), "{error}");
        assert_eq!(error.reason(), "ErrImagePull");
    }
}

#[tokio::test]
async fn tokens_are_fetched_once_and_credentials_stay_with_their_registry() {
    let elsewhere = Hostile::start(|_: &Seen| ok(MODULE)).await;
    let away = format!("http://{}/blob", elsewhere.host);
    let inner = artifact(MODULE, 8, move |_| Answer::Whole(307, vec![("location", away.clone())], vec![]));
    let closed = move |request: &Seen| {
        if request.path.starts_with("/token") {
            return ok(r#"{"token": "good", "expires_in": 300}"#);
        }
        match request.authorization.as_deref() {
            Some("Bearer good") => inner(request),
            _ => Answer::Whole(
                401,
                vec![("www-authenticate", r#"Bearer realm="http://HOST/token",service="s""#.into())],
                vec![],
            ),
        }
    };
    // The realm names the registry's own address, which is known once it listens.
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let known = Arc::clone(&address);
    let registry = Hostile::start(move |request: &Seen| match closed(request) {
        Answer::Whole(401, headers, body) => {
            let host = known.get().unwrap();
            Answer::Whole(
                401,
                headers.into_iter().map(|(name, value)| (name, value.replace("HOST", host))).collect(),
                body,
            )
        }
        other => other,
    })
    .await;
    address.set(registry.host.clone()).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::Basic { username: "me".into(), password: "secret".into() };
    images(dir.path()).pull(&format!("{}/app:v1", registry.host), Some(auth), Arc::new(Silent)).await.unwrap();
    let seen = registry.seen.lock().clone();
    let tokens: Vec<_> = seen.iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert!(tokens[0].authorization.as_deref().unwrap().starts_with("Basic "));
    assert!(tokens[0].path.contains("scope=repository%3Aapp%3Apull"), "{}", tokens[0].path);
    assert!(elsewhere.seen.lock().iter().all(|request| request.authorization.is_none()), "credentials went elsewhere");
    assert_eq!(elsewhere.seen.lock().len(), 1);
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let registry =
        Hostile::start(|request: &Seen| Answer::Whole(302, vec![("location", request.path.clone())], vec![])).await;
    let error = pull(&registry).await.unwrap_err();
    assert!(matches!(&error, ImageError::Unreachable { detail, .. } if detail.contains("circle")), "{error}");
    assert!(registry.seen.lock().len() < 10);
}

#[tokio::test]
async fn concurrent_pulls_share_the_work() {
    let registry = Hostile::start(artifact(MODULE, 8, |_| ok(MODULE))).await;
    let dir = tempfile::tempdir().unwrap();
    let store = images(dir.path());
    let name = format!("{}/app:v1", registry.host);
    let pulls = futures::future::join_all((0..20).map(|_| store.pull(&name, None, Arc::new(Silent)))).await;
    assert!(pulls.iter().all(Result::is_ok));
    assert_eq!(registry.seen.lock().len(), 3, "one manifest, one config, one layer");
}
