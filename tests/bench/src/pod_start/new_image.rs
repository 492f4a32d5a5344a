//! A Pod of an image that the node does not have: it is pulled from a registry on loopback, and compiled.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::json;
use std::fmt::Write as _;
use wherry_test::{Cluster, Registry, sample};

use super::{pod, start};
use crate::Setup;
use crate::report::{Report, cpu_time};

pub(super) async fn run(cluster: &Cluster, setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let registry = Registry::start()?;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await?);
    let probe = json!({"httpGet": {"path": "/", "port": 8080}});
    let mut figures = [(Vec::new(), Default::default()), (Vec::new(), Default::default())];
    let mut size = 0;
    for turn in 0..setup.images {
        let component = component(setup.image_bytes, turn)?;
        size = component.len();
        let (file, reference) = (cluster.scratch().join("new.wasm"), registry.reference(&format!("new:{turn}")));
        std::fs::write(&file, component)?;
        let pushed = cluster.wherry(&["image", "push"]).arg(&file).arg(&reference).output()?;
        ensure!(pushed.status.success(), "image push: {}", String::from_utf8_lossy(&pushed.stderr));
        for (number, (times, cpu)) in figures.iter_mut().enumerate() {
            let pod = pod(&format!("new-{turn}-{number}"), &reference, &probe);
            let before = cpu_time(cluster)?;
            times.push(start(&pods, &pod).await?);
            *cpu += cpu_time(cluster)?.saturating_sub(before);
        }
    }
    let names = [format!("a new image of {} KiB", size >> 10), "a second Pod of it".to_owned()];
    Ok(names.into_iter().zip(figures).map(|(what, (times, cpu))| Report::times(what, times, cpu)).collect())
}

/// The sample with code beside it that is compiled as all of a component is: some `bytes` in all, another component each `turn`.
fn component(bytes: usize, turn: usize) -> anyhow::Result<Vec<u8>> {
    let mut component = std::fs::read(sample("hello"))?;
    let mut functions = String::new();
    // Each is some hundred bytes of arithmetic that nothing can be left out of.
    let body = "local.get 0 i32.const 1664525 i32.mul i32.const 1013904223 i32.add local.set 0 ".repeat(20);
    for number in 0..bytes.saturating_sub(component.len()) / 340 + 1 {
        let first = turn * 1_000_000 + number;
        write!(
            functions,
            "(func (export \"f{number}\") (param i32) (result i32) i32.const {first} local.set 0 {body} local.get 0)"
        )?;
    }
    let module = wat::parse_str(format!("(module {functions})"))?;
    // A section of the component that defines a core module: its number, its length, the module.
    component.push(1);
    leb128(&mut component, module.len());
    component.extend(module);
    Ok(component)
}

fn leb128(to: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn components_are_of_about_the_size_and_differ() {
        let (a, b) = (component(1 << 20, 0).unwrap(), component(1 << 20, 1).unwrap());
        assert!((1 << 19..1 << 21).contains(&a.len()), "{}", a.len());
        assert_ne!(a, b);
        let mut number = Vec::new();
        leb128(&mut number, 624_485);
        assert_eq!(number, [0xe5, 0x8e, 0x26]);
    }
}
