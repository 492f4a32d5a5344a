//! exec, attach, port-forward and the proxies, up to the agent.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wherry_server::{AsyncReadWrite, Config, ConnectError, NodeConnector, User};

use crate::harness::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
const UPGRADE: [(&str, &str); 3] =
    [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];

/// An agent that refuses each request with its head.
struct Refusing;

#[async_trait]
impl NodeConnector for Refusing {
    async fn connect(&self, _node: &str) -> Result<Box<dyn AsyncReadWrite>, ConnectError> {
        let (mut agent, server) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(agent.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let answer = format!(
                "HTTP/1.1 403 Forbidden\r\nx-accepted-stream-protocol-versions: v1\r\ncontent-length: {}\r\n\r\n{head}",
                head.len()
            );
            agent.write_all(answer.as_bytes()).await.unwrap();
        });
        Ok(Box::new(server))
    }
}

async fn cluster() -> Api {
    let mut config = Config::new(store());
    config.nodes = Arc::new(Refusing);
    let api = Api::over(config).await;
    let mut running = pod("a");
    running["spec"]["nodeName"] = json!("n1");
    api.post(PODS, &running).await.expect(201);
    api
}

#[tokio::test]
async fn a_get_needs_what_a_post_needs() {
    let api = cluster().await;
    for (user, verbs) in [("looks", vec!["get"]), ("acts", vec!["create"]), ("both", vec!["get", "create"])] {
        let resources = ["pods/exec", "pods/attach", "pods/portforward"];
        let rule = json!({"verbs": verbs, "apiGroups": [""], "resources": resources});
        api.post(&format!("{RBAC}/roles"), &json!({"metadata": {"name": user}, "rules": [rule]})).await.expect(201);
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": {"name": user}, "roleRef": {"apiGroup": group, "kind": "Role", "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        });
        api.post(&format!("{RBAC}/rolebindings"), &binding).await.expect(201);
    }
    for what in ["exec", "attach", "portforward"] {
        for (user, method, code) in [
            ("looks", "GET", 403),
            ("looks", "POST", 403),
            ("acts", "GET", 403),
            ("acts", "POST", 400),
            ("both", "GET", 400),
            ("both", "POST", 400),
        ] {
            let someone = api.as_user(User::new(user, Vec::<String>::new()));
            let told = someone.send(method, &format!("{PODS}/a/{what}?command=x&stdout=1"), &[], "").await.expect(code);
            let expected = match (user, method, code) {
                (_, _, 400) => "Upgrade request required".to_owned(),
                // Authorized by its own verb before.
                ("acts", "GET", _) => refusal(user, "get", what),
                _ => refusal(user, "create", what),
            };
            assert_eq!(told["message"], expected, "{user} {method} {what}");
        }
    }
}

fn refusal(user: &str, verb: &str, what: &str) -> String {
    format!(
        "pods \"a\" is forbidden: User {user:?} cannot {verb} resource \"pods/{what}\" in API group \"\" in the namespace \"default\""
    )
}

#[tokio::test]
async fn the_agent_hears_what_it_needs_and_is_heard() {
    let api = cluster().await;
    let secret = [("authorization", "Bearer secret"), ("cookie", "secret")];
    let headers = [&UPGRADE[..], &secret[..]].concat();
    let path = format!("{PODS}/a/exec?command=sh&command=-c&command=a%20b&stdin=true&stdout=1&tty=false");
    let refused = api.send("POST", &path, &headers, "").await;
    assert_eq!((refused.code, refused.headers["x-accepted-stream-protocol-versions"].to_str().unwrap()), (403, "v1"));
    let mut lines = refused.text.lines();
    let line = "POST /exec/default/a/c?input=1&output=1&command=sh&command=-c&command=a+b HTTP/1.1";
    assert_eq!(lines.next(), Some(line));
    let mut heard: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    heard.sort_unstable();
    assert_eq!(
        heard,
        ["connection: Upgrade", "host: n1", "upgrade: SPDY/3.1", "x-stream-protocol-version: v4.channel.k8s.io"]
    );
    let forward = api.send("GET", &format!("{PODS}/a/portforward?ports=80&ports=81"), &UPGRADE, "").await;
    assert!(forward.text.starts_with("GET /portForward/default/a?port=80%2C81 HTTP/1.1\r\n"), "{}", forward.text);
}

#[tokio::test]
async fn what_cannot_be_connected_is_refused_in_upstreams_words() {
    let api = cluster().await;
    api.post(PODS, &pod("waiting")).await.expect(201);
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{"name": "c", "image": "a"}, {"name": "d", "image": "a"}]);
    api.post(PODS, &two).await.expect(201);
    let table = [
        ("none/exec?command=x", 404, "pods \"none\" not found"),
        ("waiting/exec?command=x", 400, "pod waiting does not have a host assigned"),
        ("a/attach?container=x", 400, "container x is not valid for pod a"),
        ("two/exec?command=x", 400, "a container name must be specified for pod two, choose one of: [c d]"),
        ("a/portforward?dryRun=All", 400, "dryRun is not supported"),
        ("none:80/proxy/", 404, "pods \"none\" not found"),
        ("ftp:a:80/proxy/", 400, "invalid pod request \"ftp:a:80\""),
        ("waiting/proxy/", 400, "pod waiting does not have a host assigned"),
    ];
    for (path, code, message) in table {
        let told = api.send("GET", &format!("{PODS}/{path}"), &UPGRADE, "").await.expect(code);
        assert_eq!(told["message"], message, "{path}");
    }
    let moved = api.get(&format!("{PODS}/a/proxy?x=1")).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, &*format!("{PODS}/a/proxy/?x=1")));
    let unreachable = api.get(&format!("{PODS}/a:81/proxy/some")).await.expect(503);
    let message = unreachable["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("error trying to reach service: GET /dial/default/a/81 HTTP/1.1"), "{message}");
}
