//! Whole requests against a server of their own: paths, queries with continue tokens and selectors, headers, bodies.

use std::sync::{Arc, OnceLock};

use http::Request;
use kube::client::Body;
use tokio::runtime::Runtime;
use wherry_server::{Config, Server, User};
use wherry_store::MemoryStore;

use crate::registry;

/// A namespace, and an account for its Pods.
const SETTING: [&[u8]; 2] = [
    b"POST /api/v1/namespaces application/json\n{\"metadata\":{\"name\":\"default\"}}",
    b"POST /api/v1/namespaces/default/serviceaccounts application/json\n{\"metadata\":{\"name\":\"default\"}}",
];

/// Requests divided by a line `%%`: `METHOD PATH [CONTENT-TYPE [ACCEPT]]`, then the body. None may be answered with
/// a failure of the server.
pub(crate) fn run(input: &[u8]) {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_all().build().ok());
    let runtime = runtime.as_ref().expect("a runtime can be made");
    runtime.block_on(async {
        let config = Config { registry: Arc::clone(registry()), ..Config::new(Arc::new(MemoryStore::new())) };
        let server = Server::new(config).expect("a server over an empty store");
        let client = server.client(User::admin());
        // The least that objects need: a whole bootstrap would take most of the time.
        for request in SETTING.iter().copied().chain(requests(input)) {
            let (line, body) = crate::header(request);
            let Some(request) = build(&line, body) else {
                continue;
            };
            let shown = format!("{} {}", request.method(), request.uri());
            let response = client.send(request).await.expect("the router always answers");
            // The agents' part is not there: what would go to a node is unavailable, as it should be.
            let code = response.status().as_u16();
            assert!(code < 500 || code == 503 || code == 504, "{code} for {shown}");
        }
    });
}

fn requests(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    const MARK: &[u8] = b"\n%%\n";
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let all = rest?;
        let end = all.windows(MARK.len()).position(|window| window == MARK);
        rest = end.map(|end| &all[end + MARK.len()..]);
        Some(&all[..end.unwrap_or(all.len())])
    })
}

/// What cannot even be written as a request is hyper's to refuse.
fn build(line: &[&str], body: &[u8]) -> Option<Request<Body>> {
    let mut builder = Request::builder().method(*line.first()?).uri(*line.get(1)?);
    for (name, value) in ["content-type", "accept"].into_iter().zip(line.iter().skip(2)) {
        builder = builder.header(name, *value);
    }
    builder.body(Body::from(body.to_vec())).ok()
}
