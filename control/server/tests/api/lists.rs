//! list: pages, versions, selectors, representations.

use serde_json::{Value, json};

use crate::harness::*;

async fn with_maps(count: usize) -> Api {
    let api = Api::new().await;
    for i in 0..count {
        let mut map = config_map(&format!("m{i:03}"), json!({"i": i.to_string()}));
        map["metadata"]["labels"] = json!({"parity": if i % 2 == 0 { "even" } else { "odd" }});
        api.post(MAPS, &map).await.expect(201);
    }
    api
}

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_says_when_it_is_true() {
    let api = with_maps(3).await;
    let list = api.get(MAPS).await.expect(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(names(&list), ["m000", "m001", "m002"]);
    assert_ne!(list["metadata"]["resourceVersion"], "0");
    assert_eq!(api.get("/apis/batch/v1/jobs").await.expect(200)["items"], json!([]));
    assert_eq!(names(&api.get("/api/v1/configmaps").await.expect(200)).len(), 3);
}

#[tokio::test]
async fn pages_show_the_state_of_the_first_one() {
    let api = with_maps(5).await;
    let first = api.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["m000", "m001"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    api.post(MAPS, &config_map("m0015", json!({}))).await.expect(201);
    api.delete(&format!("{MAPS}/m002"), None).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m002", "m003"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = api.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["m004"]);
    assert_eq!(third["metadata"].get("continue"), None);
    assert_eq!(api.get(&format!("{MAPS}?limit=2&continue=nonsense!")).await.code, 400);
}

#[tokio::test]
async fn an_expired_page_leads_on() {
    let store = store();
    let api = Api::over(wherry_server::Config::new(store.clone())).await;
    for name in ["a", "b", "c"] {
        api.post(MAPS, &config_map(name, json!({}))).await.expect(201);
    }
    let first = api.get(&format!("{MAPS}?limit=1")).await.expect(200);
    api.post(MAPS, &config_map("d", json!({}))).await.expect(201);
    let old = first["metadata"]["resourceVersion"].as_str().unwrap();
    wherry_store::Store::compact(&*store, wherry_store::Store::revision(&*store)).unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let gone = api.get(&format!("{MAPS}?limit=1&continue={token}")).await.expect(410);
    assert_eq!(gone["reason"], "Expired");
    let token = gone["metadata"]["continue"].as_str().unwrap();
    let second = api.get(&format!("{MAPS}?limit=1&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["b"]);
    // From here on the list is consistent again: as of this page.
    api.delete(&format!("{MAPS}/c"), None).await.expect(200);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let rest = api.get(&format!("{MAPS}?continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["c", "d"]);
    assert_eq!(rest["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    assert_eq!(api.get(&format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await.code, 410);
}

#[tokio::test]
async fn lists_of_the_past_end_with_time() {
    let mut config = wherry_server::Config::new(store());
    config.history_lifetime = std::time::Duration::from_millis(50);
    let api = Api::over(config).await;
    for name in ["a", "b", "c"] {
        api.post(MAPS, &config_map(name, json!({}))).await.expect(201);
    }
    let page = format!("{MAPS}?limit=1");
    let first = api.get(&page).await.expect(200);
    let rv = first["metadata"]["resourceVersion"].as_str().unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    api.get(&format!("{page}&continue={token}")).await.expect(200);
    let cancel = tokio_util::sync::CancellationToken::new();
    let (server, ends) = (api.server.clone(), cancel.clone());
    let task = tokio::spawn(async move { server.maintain(ends).await });
    // Nothing happens to the maps, only elsewhere.
    api.post(PODS, &pod("elsewhere")).await.expect(201);
    let gone = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        loop {
            let answer = api.get(&format!("{page}&continue={token}")).await;
            if answer.code != 200 {
                break answer;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(gone.await.unwrap().expect(410)["metadata"]["continue"].is_string());
    api.get(&format!("{MAPS}?resourceVersion={rv}&resourceVersionMatch=Exact")).await.expect(410);
    api.get(&format!("{MAPS}?resourceVersion={rv}")).await.expect(200);
    // Watches go back as far as the store.
    let mut events = api.watch(&format!("{MAPS}?watch=1&resourceVersion={rv}"), &[]).await;
    api.post(MAPS, &config_map("new", json!({}))).await.expect(201);
    assert_eq!(events.brief().await, ("ADDED".to_owned(), "new".to_owned()));
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn versions_are_matched() {
    let api = with_maps(2).await;
    let now = api.get(MAPS).await.value()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    api.post(MAPS, &config_map("z", json!({}))).await.expect(201);
    let count = async |query: &str| names(&api.get(&format!("{MAPS}?{query}")).await.expect(200)).len();
    assert_eq!(count(&format!("resourceVersion={now}&resourceVersionMatch=Exact")).await, 2);
    assert_eq!(count(&format!("resourceVersion={now}&resourceVersionMatch=NotOlderThan")).await, 3);
    assert_eq!(count(&format!("resourceVersion={now}")).await, 3);
    assert_eq!(count("resourceVersion=0").await, 3);
    // What any state will do for comes whole; a limited list at N without a match is exact.
    assert_eq!(count("resourceVersion=0&limit=1").await, 3);
    assert_eq!(count(&format!("resourceVersion={now}&limit=9")).await, 2);
    assert_eq!(count(&format!("resourceVersion={now}&resourceVersionMatch=NotOlderThan&limit=9")).await, 3);
    let one = api.get(&format!("{MAPS}/z?resourceVersion={now}")).await.expect(200);
    assert_eq!(one["metadata"]["name"], "z");
}

#[tokio::test]
async fn combinations_that_mean_nothing_are_refused() {
    let api = with_maps(2).await;
    let page = api.get(&format!("{MAPS}?limit=1")).await.value();
    let token = page["metadata"]["continue"].as_str().unwrap();
    let requires = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    let unless = "resourceVersionMatch is forbidden unless resourceVersion is provided";
    let number = "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
    for (query, code, text) in [
        ("resourceVersionMatch=Exact", 422, format!("Forbidden: {unless}")),
        (
            "resourceVersion=1&resourceVersionMatch=Bogus",
            422,
            "Unsupported value: \"Bogus\": supported values: \"Exact\", \"NotOlderThan\", \"\"".to_owned(),
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            422,
            "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"".to_owned(),
        ),
        (
            &format!("resourceVersionMatch=Exact&continue={token}"),
            422,
            format!(
                "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: {unless}, resourceVersionMatch: \
                 Forbidden: resourceVersionMatch is forbidden when continue is provided]"
            ),
        ),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list".to_owned()),
        ("sendInitialEvents=false", 422, "sendInitialEvents is forbidden for list".to_owned()),
        ("resourceVersion=x", 400, format!("invalid resource version: {number}")),
        ("resourceVersion=-1", 400, "invalid resource version: resourceVersion: Invalid value: \"-1\"".to_owned()),
        ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        (
            &format!("resourceVersion=1&continue={token}"),
            400,
            "specifying resource version is not allowed when using continue".to_owned(),
        ),
        (
            "continue=e30",
            400,
            "invalid continue token: continue key is not valid: server does not recognize".to_owned(),
        ),
        ("watch=1&sendInitialEvents=true", 422, requires.to_owned()),
        ("watch=1&sendInitialEvents=false&resourceVersion=1", 422, requires.to_owned()),
        (
            "watch=1&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1",
            422,
            format!(
                "[resourceVersionMatch: Forbidden: {requires}, resourceVersionMatch: Unsupported value: \"Exact\": supported \
                 values: \"NotOlderThan\"]"
            ),
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1",
            422,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided".to_owned(),
        ),
        ("watch=1&timeoutSeconds=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
    ] {
        let refused = api.get(&format!("{MAPS}?{query}")).await.expect(code);
        assert!(refused["message"].as_str().unwrap().contains(&text), "{query}: {}", refused["message"]);
    }
    // A first page and 0 may be told together with a token.
    api.get(&format!("{MAPS}?resourceVersion=0&continue={token}")).await.expect(200);
    let future = api.get(&format!("{MAPS}?resourceVersion=99999")).await.expect(504);
    assert_eq!(future["reason"], "Timeout");
    assert!(future["message"].as_str().unwrap().starts_with("Timeout: Too large resource version: 99999, current: "));
    for method in ["HEAD", "OPTIONS"] {
        assert_eq!(api.send(method, MAPS, &[], "").await.code, 405, "{method}");
    }
}

#[tokio::test]
async fn selectors_select() {
    let api = with_maps(6).await;
    let select = async |query: &str| names(&api.get(&format!("{MAPS}?{query}")).await.expect(200));
    assert_eq!(select("labelSelector=parity%3Deven").await, ["m000", "m002", "m004"]);
    assert_eq!(select("labelSelector=parity+notin+(even),parity").await, ["m001", "m003", "m005"]);
    assert_eq!(select("fieldSelector=metadata.name%3Dm003").await, ["m003"]);
    assert_eq!(select("fieldSelector=metadata.name!%3Dm003&limit=2").await, ["m000", "m001"]);
    let page = api.get(&format!("{MAPS}?labelSelector=parity%3Dodd&limit=2")).await.expect(200);
    assert_eq!(names(&page), ["m001", "m003"]);
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(select(&format!("labelSelector=parity%3Dodd&limit=2&continue={token}")).await, ["m005"]);
    assert_eq!(api.get(&format!("{MAPS}?labelSelector=!!")).await.code, 400);
    let unsupported = api.get(&format!("{PODS}?fieldSelector=spec.bogus%3Dx")).await.expect(400);
    assert!(unsupported["message"].as_str().unwrap().contains("field label not supported: spec.bogus"));
    api.post(PODS, &pod("p")).await.expect(201);
    assert_eq!(names(&api.get(&format!("{PODS}?fieldSelector=status.phase%3DPending")).await.expect(200)), ["p"]);
    assert!(names(&api.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dx")).await.expect(200)).is_empty());
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn representations() {
    let api = with_maps(2).await;
    let get = async |path: &str, accept: &str| api.send("GET", path, &[("accept", accept)], "").await;
    let table = get(MAPS, TABLE).await.expect(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    let row = &table["rows"][0];
    assert_eq!(row["cells"].as_array().unwrap().len(), table["columnDefinitions"].as_array().unwrap().len());
    assert_eq!((&row["cells"][0], &row["object"]["kind"]), (&json!("m000"), &json!("PartialObjectMetadata")));
    let whole = get(&format!("{MAPS}/m000?includeObject=Object"), TABLE).await.expect(200);
    assert_eq!(whole["rows"][0]["object"]["data"]["i"], "0");
    assert_eq!(get(&format!("{MAPS}/m000?includeObject=None"), TABLE).await.expect(200)["rows"][0].get("object"), None);
    let partial = get(MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!((&partial["kind"], partial["items"][0].get("data")), (&json!("PartialObjectMetadataList"), None));
    assert_eq!(partial["items"][0]["metadata"]["name"], "m000");
    let yaml = get(MAPS, "application/yaml").await;
    assert!(yaml.text.contains("kind: ConfigMapList"));
    for (path, accept, message) in [
        (
            MAPS,
            "text/html",
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf",
        ),
        (
            &format!("{MAPS}?watch=1"),
            "application/yaml",
            "only the following media types are accepted: application/json;stream=watch, \
             application/vnd.kubernetes.protobuf;stream=watch",
        ),
        (
            MAPS,
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
        ),
        (
            &format!("{MAPS}/m000"),
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
        ),
    ] {
        let refused = get(path, accept).await;
        // In YAML where that is what is accepted.
        let told: serde_json::Value = serde_yaml::from_str(&refused.text).unwrap();
        assert_eq!((refused.code, &told["reason"]), (406, &json!("NotAcceptable")), "{accept}");
        assert_eq!(told["message"], message, "{accept}");
    }
    let beta = get(MAPS, "application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io").await.expect(200);
    assert_eq!(beta["items"][0]["apiVersion"], "meta.k8s.io/v1beta1");
}

#[tokio::test]
async fn large_lists_are_streamed_and_compressed() {
    let api = Api::new().await;
    let filler = "x".repeat(5000);
    for i in 0..60 {
        api.post(MAPS, &config_map(&format!("m{i:03}"), json!({"f": format!("{i}{filler}")}))).await.expect(201);
    }
    let plain = api.get(MAPS).await;
    let gzip = api.send("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    assert_eq!(gzip.value(), plain.value());
    assert_eq!(names(&plain.value()).len(), 60);
}
