//! watch: where it begins, what it shows, how it ends.

use serde_json::{Value, json};

use crate::harness::*;

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn with_maps(api: &Api, names: &[&str]) {
    for name in names {
        api.post(MAPS, &config_map(name, json!({}))).await.expect(201);
    }
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn it_begins_with_what_there_is() {
    let api = Api::new().await;
    with_maps(&api, &["a", "b"]).await;
    let mut events = api.watch(&format!("{MAPS}?watch=1"), &[]).await;
    assert_eq!(events.brief().await, pair("ADDED", "a"));
    assert_eq!(events.brief().await, pair("ADDED", "b"));
    api.merge(&format!("{MAPS}/b"), &json!({"data": {"k": "v"}})).await.expect(200);
    let deleted = api.delete(&format!("{MAPS}/a"), None).await.expect(200);
    assert_eq!(deleted["status"], "Success");
    assert_eq!(events.brief().await, pair("MODIFIED", "b"));
    let last = events.next().await.unwrap();
    assert_eq!((&last["type"], &last["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("a")));
    assert_eq!(version(&last["object"]), version(&api.get(MAPS).await.value()));
}

#[tokio::test]
async fn it_resumes_where_it_was() {
    let api = Api::new().await;
    with_maps(&api, &["a"]).await;
    let list = api.get(MAPS).await.value();
    with_maps(&api, &["b", "c"]).await;
    let mut events = api.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&list)), &[]).await;
    assert_eq!(events.brief().await, pair("ADDED", "b"));
    let c = events.next().await.unwrap();
    with_maps(&api, &["d"]).await;
    let mut again = api.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&c["object"])), &[]).await;
    assert_eq!(again.brief().await, pair("ADDED", "d"));
}

#[tokio::test]
async fn a_watch_list_says_when_its_state_is_complete() {
    let api = Api::new().await;
    with_maps(&api, &["a", "b"]).await;
    let query =
        "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&resourceVersion=";
    let mut events = api.watch(&format!("{MAPS}?{query}"), &[]).await;
    assert_eq!(events.brief().await, pair("ADDED", "a"));
    assert_eq!(events.brief().await, pair("ADDED", "b"));
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!((&bookmark["object"]["kind"], &bookmark["object"]["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(version(&bookmark["object"]), version(&api.get(MAPS).await.value()));
    with_maps(&api, &["c"]).await;
    assert_eq!(events.brief().await, pair("ADDED", "c"));
    // An empty range is complete at once.
    let mut empty = api.watch(&format!("/apis/batch/v1/jobs?{query}"), &[]).await;
    assert_eq!(empty.next().await.unwrap()["type"], "BOOKMARK");
    for query in [
        "sendInitialEvents=true",
        "resourceVersionMatch=NotOlderThan&resourceVersion=1",
        "sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1",
    ] {
        assert_eq!(api.get(&format!("{MAPS}?watch=1&{query}")).await.code, 422, "{query}");
    }
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let api = Api::new().await;
    with_maps(&api, &["a", "b"]).await;
    let mut events = api.watch(&format!("{MAPS}?watch=1&labelSelector=on%3Dyes"), &[]).await;
    let label = async |name: &str, value: Value| {
        api.merge(&format!("{MAPS}/{name}"), &json!({"metadata": {"labels": {"on": value}}})).await.expect(200)
    };
    label("b", json!("no")).await;
    label("a", json!("yes")).await;
    label("a", json!("yes")).await;
    api.merge(&format!("{MAPS}/a"), &json!({"data": {"k": "v"}})).await.expect(200);
    let left = label("a", json!("no")).await;
    label("a", json!("yes")).await;
    api.delete(&format!("{MAPS}/a"), None).await.expect(200);
    assert_eq!(events.brief().await, pair("ADDED", "a"));
    assert_eq!(events.brief().await, pair("MODIFIED", "a"));
    let gone = events.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["labels"]["on"], "yes");
    assert_eq!(version(&gone["object"]), version(&left));
    assert_eq!(events.brief().await, pair("ADDED", "a"));
    assert_eq!(events.brief().await, pair("DELETED", "a"));
}

#[tokio::test]
async fn one_object_is_watched_by_name() {
    let api = Api::new().await;
    with_maps(&api, &["a", "b"]).await;
    let mut events = api.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Db"), &[]).await;
    assert_eq!(events.brief().await, pair("ADDED", "b"));
    api.delete(&format!("{MAPS}/a"), None).await.expect(200);
    api.delete(&format!("{MAPS}/b"), None).await.expect(200);
    assert_eq!(events.brief().await, pair("DELETED", "b"));
}

#[tokio::test]
async fn a_lost_history_is_gone_and_a_future_one_too_large() {
    let store = store();
    let api = Api::over(wherry_server::Config::new(store.clone())).await;
    with_maps(&api, &["a", "b"]).await;
    let oldest = wherry_store::Store::revision(&*store);
    wherry_store::Store::compact(&*store, oldest).unwrap();
    let mut events = api.watch(&format!("{MAPS}?watch=1&resourceVersion=1"), &[]).await;
    let error = events.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"], &error["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(events.next().await.is_none());
    assert_eq!(error["object"]["message"], format!("too old resource version: 1 ({oldest})"));
    // What there is cannot be shown as of the future.
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=99999";
    let mut events = api.watch(&format!("{MAPS}?{query}"), &[]).await;
    let error = events.next().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(504)));
    assert_eq!(error["object"]["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn who_begins_in_the_future_waits_for_it() {
    let api = Api::new().await;
    let now = version(&api.get(MAPS).await.value());
    let mut events = api.watch(&format!("{MAPS}?watch=1&resourceVersion={}", now + 2), &[]).await;
    with_maps(&api, &["a", "b", "c"]).await;
    assert_eq!(events.brief().await, pair("ADDED", "c"));
}

#[tokio::test]
async fn the_deprecated_form_of_a_watch_names_its_object_in_the_path() {
    let api = Api::new().await;
    with_maps(&api, &["a", "b"]).await;
    let path = "/api/v1/watch/namespaces/default/configmaps";
    let mut all = api.watch(path, &[]).await;
    assert_eq!(all.brief().await, pair("ADDED", "a"));
    for query in ["", "?fieldSelector=metadata.name%3Db"] {
        let mut one = api.watch(&format!("{path}/b{query}"), &[]).await;
        assert_eq!(one.brief().await, pair("ADDED", "b"));
    }
    let other = api.get(&format!("{path}/b?fieldSelector=metadata.name%3Da")).await.expect(400);
    assert_eq!(other["message"], "fieldSelector metadata.name doesn't match requested name");
}

#[tokio::test]
async fn bookmarks_come_now_and_then_and_the_watch_ends_in_time() {
    let mut config = wherry_server::Config::new(store());
    config.bookmark_interval = std::time::Duration::from_millis(200);
    let api = Api::over(config).await;
    let start = api.get(MAPS).await.value();
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={}", version(&start));
    api.post(PODS, &pod("elsewhere")).await.expect(201);
    let now = version(&api.get(MAPS).await.value());
    let mut events = api.watch(&path, &[]).await;
    let mut bookmarks = 0;
    while let Some(bookmark) = events.next().await {
        assert_eq!((&bookmark["type"], version(&bookmark["object"])), (&json!("BOOKMARK"), now));
        bookmarks += 1;
    }
    assert!(bookmarks > 0);
}

#[tokio::test]
async fn tables_and_metadata_are_watched_too() {
    let api = Api::new().await;
    with_maps(&api, &["a", "b"]).await;
    let path = format!("{MAPS}?watch=1");
    let mut tables = api.watch(&path, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")]).await;
    let first = tables.next().await.unwrap();
    assert_eq!((&first["object"]["kind"], &first["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    let second = tables.next().await.unwrap();
    assert!(second["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    let mut partial =
        api.watch(&path, &[("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")]).await;
    let event = partial.next().await.unwrap();
    assert_eq!((&event["object"]["kind"], event["object"].get("data")), (&json!("PartialObjectMetadata"), None));
    assert_eq!(api.send("GET", &path, &[("accept", "application/yaml")], "").await.code, 406);
}
