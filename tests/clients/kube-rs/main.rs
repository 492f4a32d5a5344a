//! kube-rs against a running cluster: CRUD, patches, apply and a watch.
//!
//! ```text
//! cargo run -p wherry-test --example kube-client -- KUBECONFIG
//! ```

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt as _};
use serde_json::json;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("which kubeconfig?")?;
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"generateName": "clients-rust-"}}))?;
    let namespace = namespaces.create(&PostParams::default(), &namespace).await?.name_any();
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let started = maps.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let heard = tokio::spawn({
        let maps = maps.clone();
        async move { listen(&maps, &started).await }
    });

    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "one", "labels": {"app": "x"}}, "data": {"a": "1"}}))?;
    let mut found = maps.create(&PostParams::default(), &map).await?;
    ensure!(matches!(maps.create(&PostParams::default(), &map).await, Err(kube::Error::Api(s)) if s.code == 409));
    found.data.get_or_insert_default().insert("a".to_owned(), "2".to_owned());
    maps.replace("one", &PostParams::default(), &found).await?;
    let manager = PatchParams::apply("clients");
    maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"b": "3"}}))).await?;
    maps.patch("one", &PatchParams::default(), &Patch::Strategic(json!({"data": {"c": "4"}}))).await?;
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"d": "5"}});
    maps.patch("one", &manager, &Patch::Apply(applied)).await?;
    let data = maps.get("one").await?.data.unwrap_or_default();
    ensure!(data.values().eq(["2", "3", "4", "5"]), "what was written: {data:?}");
    ensure!(maps.get_metadata("one").await?.labels()["app"] == "x");
    ensure!(maps.list(&ListParams::default().labels("app=x")).await?.items.len() == 1);
    maps.delete("one", &DeleteParams::default()).await?;
    ensure!(maps.get_opt("one").await?.is_none());
    let heard = heard.await??;
    ensure!(heard == ["added", "modified", "modified", "modified", "modified", "deleted"], "heard {heard:?}");
    namespaces.delete(&namespace, &DeleteParams::default()).await?;
    println!("ok: Rust, kube-rs");
    Ok(())
}

/// What happens to the object `one` until it is deleted.
async fn listen(maps: &Api<ConfigMap>, from: &str) -> anyhow::Result<Vec<&'static str>> {
    let params = WatchParams::default().fields("metadata.name=one").timeout(60);
    let mut events = std::pin::pin!(maps.watch(&params, from).await?);
    let mut heard = Vec::new();
    while let Some(event) = events.try_next().await? {
        match event {
            WatchEvent::Added(_) => heard.push("added"),
            WatchEvent::Modified(_) => heard.push("modified"),
            WatchEvent::Deleted(_) => {
                heard.push("deleted");
                break;
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        }
    }
    Ok(heard)
}
