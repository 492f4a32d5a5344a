//! Service accounts' tokens: asked for, reviewed, invalidated; what others need to verify them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use wherry_server::{Issuer, Keys, StaticTokens, User};

use crate::harness::*;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/robot/token";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A cluster with the account `robot`; its uid.
async fn cluster() -> (Api, String) {
    let api = Api::new().await;
    let account = api.post(ACCOUNTS, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    (api, account["metadata"]["uid"].as_str().unwrap().to_owned())
}

async fn review(api: &Api, token: &str, audiences: Value) -> Value {
    let review = json!({"spec": {"token": token, "audiences": audiences}});
    api.post(REVIEWS, &review).await.expect(201)["status"].clone()
}

async fn token(api: &Api, spec: Value) -> String {
    let request = api.post(TOKEN, &json!({ "spec": spec })).await.expect(201);
    request["status"]["token"].as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_is_its_accounts() {
    let (api, uid) = cluster().await;
    let request = api.post(TOKEN, &json!({})).await.expect(201);
    assert_eq!(request["kind"], "TokenRequest");
    assert_eq!(request["metadata"]["name"], "robot");
    assert_eq!(request["spec"], json!({"audiences": [ISSUER], "expirationSeconds": 3600}));
    assert!(request["status"]["expirationTimestamp"].is_string());
    let token = request["status"]["token"].as_str().unwrap();
    let claims = claims(token);
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert_eq!(
        claims["kubernetes.io"],
        json!({"namespace": "default", "serviceaccount": {"name": "robot", "uid": uid}})
    );
    let status = review(&api, token, json!([])).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!([ISSUER]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["user"]["uid"], uid.as_str());
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(status["user"]["groups"], json!(groups));
    let credential = format!("JTI={}", claims["jti"].as_str().unwrap());
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/credential-id"], json!([credential]));
}

#[tokio::test]
async fn an_audience_is_asked_for_by_name() {
    let (api, _) = cluster().await;
    let token = token(&api, json!({"audiences": ["vault", "other"]})).await;
    let refused = review(&api, &token, json!([])).await;
    assert_eq!(refused["authenticated"], Value::Null);
    let expected = format!("token audiences [\"vault\" \"other\"] is invalid for the target audiences [\"{ISSUER}\"]");
    assert_eq!(refused["error"], expected);
    assert_eq!(review(&api, &token, json!(["x", "vault"])).await["audiences"], json!(["vault"]));
}

#[tokio::test]
async fn requests_are_validated() {
    let (api, uid) = cluster().await;
    let short = api.post(TOKEN, &json!({"spec": {"expirationSeconds": 599}})).await.expect(422);
    assert_eq!(
        short["message"],
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
    );
    for (request, code) in [
        (json!({"metadata": {"name": "other"}}), 422),
        (json!({"metadata": {"namespace": "other"}}), 422),
        (json!({"metadata": {"uid": "other"}}), 409),
        (json!({"metadata": {"name": "robot", "namespace": "default", "uid": uid}}), 201),
        (json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}}), 404),
        (json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "none"}}}), 400),
    ] {
        let answer = api.post(TOKEN, &request).await;
        assert_eq!(answer.code, code, "{request}: {}", answer.text);
    }
    assert_eq!(api.post(&format!("{ACCOUNTS}/nobody/token"), &json!({})).await.code, 404);
    assert_eq!(api.get(TOKEN).await.code, 405);
    assert_eq!(api.as_user(User::new("jane", ["dev"])).post(TOKEN, &json!({})).await.code, 403);
}

#[tokio::test]
async fn a_token_goes_with_what_it_is_bound_to() {
    let (api, _) = cluster().await;
    let mut bound = pod("p");
    bound["spec"]["serviceAccountName"] = "robot".into();
    bound["spec"]["nodeName"] = "n".into();
    let bound = api.post(PODS, &bound).await.expect(201);
    let secret = json!({"metadata": {"name": "s"}});
    api.post("/api/v1/namespaces/default/secrets", &secret).await.expect(201);
    let node = api.post("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await.expect(201);
    let mut other = pod("q");
    other["spec"]["serviceAccountName"] = "default".into();
    api.post(PODS, &other).await.expect(201);
    let to = |kind: &str, name: &str, uid: &Value| {
        let mut reference = json!({"apiVersion": "v1", "kind": kind, "name": name});
        if uid.is_string() {
            reference["uid"] = uid.clone();
        }
        json!({"boundObjectRef": reference, "expirationSeconds": 3607})
    };
    // Another's Pod, and a Pod that was here before.
    let foreign = api.post(TOKEN, &json!({"spec": to("Pod", "q", &Value::Null)})).await.expect(400);
    assert!(foreign["message"].as_str().unwrap().contains("different serviceaccount name"));
    let gone = api.post(TOKEN, &json!({"spec": to("Pod", "p", &"x".into())})).await.expect(409);
    assert!(gone["message"].as_str().unwrap().contains("might have been deleted and then recreated"));

    let of_pod = token(&api, to("Pod", "p", &bound["metadata"]["uid"])).await;
    let said = claims(&of_pod);
    assert_eq!(said["kubernetes.io"]["node"]["uid"], node["metadata"]["uid"]);
    assert_eq!(said["kubernetes.io"]["warnafter"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 3607);
    let extra = review(&api, &of_pod, json!([])).await["user"]["extra"].clone();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([bound["metadata"]["uid"]]));
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["n"]));
    assert_eq!(extra["authentication.kubernetes.io/node-uid"], json!([node["metadata"]["uid"]]));
    let of_secret = token(&api, to("Secret", "s", &Value::Null)).await;
    let of_node = token(&api, to("Node", "n", &Value::Null)).await;
    let of_account = token(&api, json!({})).await;

    let now = Some(json!({"gracePeriodSeconds": 0}));
    for (path, token) in [
        (format!("{PODS}/p"), &of_pod),
        ("/api/v1/namespaces/default/secrets/s".to_owned(), &of_secret),
        ("/api/v1/nodes/n".to_owned(), &of_node),
        (format!("{ACCOUNTS}/robot"), &of_account),
    ] {
        assert_eq!(review(&api, token, json!([])).await["authenticated"], true, "{path}");
        assert_eq!(api.delete(&path, now.clone()).await.code, 200, "{path}");
        let status = review(&api, token, json!([])).await;
        assert_eq!(status["authenticated"], Value::Null, "{path}");
        assert!(status["error"].as_str().is_some_and(|why| !why.is_empty()), "{path}");
    }
    // An account of the same name is another one.
    api.post(ACCOUNTS, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    let status = review(&api, &of_account, json!([])).await;
    assert!(status["error"].as_str().unwrap().contains("does not match claim"), "{status}");
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_while_the_secret_holds_it() {
    let issuer = std::sync::Arc::new(Issuer::of_cluster("cluster.local", Keys::generate().unwrap()));
    let mut config = wherry_server::Config::new(store());
    config.issuer = Some(std::sync::Arc::clone(&issuer));
    let api = Api::over(config).await;
    let account = api.post(ACCOUNTS, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    let uid = account["metadata"]["uid"].as_str().unwrap();
    let token = issuer.legacy_token("default", "robot", uid, "old").unwrap();
    assert_eq!(review(&api, &token, json!([])).await["error"], "Token has been invalidated");
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "old"}, "data": {"token": STANDARD.encode(&token)}});
    api.post(secrets, &secret).await.expect(201);
    let status = review(&api, &token, json!([])).await;
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(review(&api, &token, json!(["vault"])).await["authenticated"], Value::Null);
    api.merge(&format!("{secrets}/old"), &json!({"data": {"token": "b3RoZXI="}})).await.expect(200);
    assert_eq!(review(&api, &token, json!([])).await["error"], "Token does not match server's copy");
}

#[tokio::test]
async fn bootstrap_tokens_and_those_of_a_file_are_known() {
    let mut config = wherry_server::Config::new(store());
    config.tokens = vec![std::sync::Arc::new(StaticTokens::parse("file-token,jane,7,\"dev,ops\"").unwrap())];
    let api = Api::over(config).await;
    let jane = review(&api, "file-token", json!([])).await;
    assert_eq!(jane["user"], json!({"username": "jane", "uid": "7", "groups": ["dev", "ops", "system:authenticated"]}));
    assert_eq!(jane["audiences"], json!([ISSUER]));
    assert_eq!(review(&api, "file-token", json!(["vault"])).await["error"], "invalid bearer token");
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:nodes",
        },
    });
    let token = "abcdef.0123456789abcdef";
    assert_eq!(review(&api, token, json!([])).await["error"], "invalid bearer token");
    api.post("/api/v1/namespaces/kube-system/secrets", &secret).await.expect(201);
    let node = review(&api, token, json!([])).await;
    assert_eq!(node["user"]["username"], "system:bootstrap:abcdef");
    let groups = ["system:bootstrappers", "system:bootstrappers:nodes", "system:authenticated"];
    assert_eq!(node["user"]["groups"], json!(groups));
}

#[tokio::test]
async fn others_can_verify_tokens() {
    let (api, _) = cluster().await;
    let configuration = api.get("/.well-known/openid-configuration").await;
    assert_eq!(configuration.headers["content-type"], "application/json");
    assert_eq!(configuration.headers["cache-control"], "public, max-age=3600");
    let configuration = configuration.value();
    assert_eq!(configuration["issuer"], ISSUER);
    assert_eq!(configuration["jwks_uri"], format!("{ISSUER}/openid/v1/jwks"));
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = api.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let key = keys.value()["keys"][0].clone();
    let token = token(&api, json!({})).await;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!(header["kid"], key["kid"]);
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
    let stranger = api.as_user(User::new("jane", ["dev"]));
    assert_eq!(stranger.get("/openid/v1/jwks").await.code, 403);
}
