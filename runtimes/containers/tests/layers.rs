//! Images of several layers, in each compression: what a layer deletes is gone, what it makes opaque hides what was below.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::sync::Arc;

use wherry_images::{Images, Options, Silent};
use wherry_runtime::ContainerSpec;

use support::{Node, run};

/// busybox, as it was made for the node, a layer with files over it, and two that take some of them away.
fn layered(node: &Node) -> String {
    let path = |name: &str| node.dir.join(name).to_string_lossy().into_owned();
    let source = node.dir.join("source");
    for (file, text) in [("below/kept", "kept\n"), ("below/gone", "gone\n"), ("opaque/old", "old\n")] {
        fs::create_dir_all(source.join(file).parent().unwrap()).unwrap();
        fs::write(source.join(file), text).unwrap();
    }
    fs::create_dir(node.dir.join("over")).unwrap();
    fs::write(node.dir.join("over/new"), "new\n").unwrap();
    let image = format!("{}:busybox", path("layout"));
    run("umoci", &["insert", "--image", &image, &path("source"), "/layered"]);
    run("umoci", &["insert", "--image", &image, "--whiteout", "/layered/below/gone"]);
    run("umoci", &["insert", "--image", &image, "--opaque", &path("over"), "/layered/opaque"]);
    image
}

#[tokio::test]
async fn layers_are_applied_in_every_compression() {
    if !support::possible() {
        return;
    }
    let node = Node::start().await;
    node.busybox().await;
    let image = layered(&node);
    let images = Images::open(node.dir.join("images"), Options::default()).unwrap();
    for (compression, suffix) in [("gzip", "tar+gzip"), ("zstd", "tar+zstd")] {
        let layout = node.dir.join(compression).to_string_lossy().into_owned();
        let format = ["--dest-compress", "--dest-compress-format", compression];
        let ends = [&*format!("oci:{image}"), &*format!("oci:{layout}:busybox")];
        run("skopeo", &[&["copy", "-q", "--insecure-policy"][..], &format[..], &ends[..]].concat());
        let archive = format!("{layout}.tar");
        run("tar", &["-C", &layout, "-cf", &archive, "."]);
        let name = format!("test.local/{compression}:1");
        let image = images.load(archive.as_ref(), &name, Arc::new(Silent)).await.unwrap();
        assert_eq!(image.layers.len(), 4);
        assert!(image.layers.iter().all(|layer| layer.media_type.ends_with(suffix)), "{:?}", image.layers);
        let script = "cd /layered && for file in below/kept below/gone opaque/old opaque/new; do cat $file 2>/dev/null || echo no $file; done";
        let (_, told, _) = node.run(ContainerSpec { image, ..node.shell(script).await }).await;
        assert_eq!(told, "kept\nno below/gone\nno opaque/old\nnew\n", "{compression}");
    }
}
