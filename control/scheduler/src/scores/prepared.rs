//! Nodes that have made the Pod's images ready: of a Wasm image, compiled it. Such an image is small, so that its size (which
//! is what [`images`](super::images) goes by) says nothing of what it costs to start from it anew.

use super::{MOST, images::normalized};
use crate::{cluster::NodeInfo, filters::Cycle};

pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let images: Vec<String> = cycle.pod.images.iter().map(|image| normalized(image)).collect();
    let has = |node: &NodeInfo, image: &String| node.images.get(image).is_some_and(|held| held.prepared);
    let count = |count: usize| i64::try_from(count.max(1)).unwrap_or(i64::MAX);
    // As with images by size: what few nodes have counts for less, or the first one would be a magnet.
    let share =
        |image: &String| count(nodes.iter().filter(|node| has(node, image)).count()) * MOST / count(nodes.len());
    let shares: Vec<i64> = images.iter().map(share).collect();
    let sum = |node: &&NodeInfo| {
        let of_use = images.iter().zip(&shares).filter(|(image, _)| has(node, image));
        of_use.map(|(_, share)| share).sum::<i64>() / count(images.len())
    };
    nodes.iter().map(sum).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        Cluster, PodInfo,
        testing::{add_node, pod_with, set_status},
    };

    /// A Pod of images, by number.
    fn pod(images: &[usize]) -> PodInfo {
        let container =
            |(n, image): (usize, &usize)| json!({"name": format!("c{n}"), "image": format!("example.com/app:{image}")});
        pod_with("p", json!({"containers": images.iter().enumerate().map(container).collect::<Vec<_>>()}))
    }

    /// Nodes with images: none of one, the image, or the image made ready.
    fn cluster(nodes: &[Vec<usize>]) -> Cluster {
        let mut cluster = Cluster::default();
        for (n, images) in nodes.iter().enumerate() {
            let name = format!("n{n}");
            add_node(&mut cluster, &name, json!({}), json!({}));
            let image = |(image, state): (usize, &usize)| -> Option<Value> {
                let mut names = vec![format!("example.com/app:{image}")];
                names.extend((*state == 2).then(|| format!("wherry.dev/prepared@sha256:{image}")));
                (*state > 0).then(|| json!({"names": names, "sizeBytes": 40_000}))
            };
            let images: Vec<Value> = images.iter().enumerate().filter_map(image).collect();
            set_status(
                &mut cluster,
                &name,
                json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "images": images}),
            );
        }
        cluster
    }

    fn scores(cluster: &Cluster, pod: &PodInfo) -> Vec<i64> {
        let nodes: Vec<&NodeInfo> = cluster.known().collect();
        score(&Cycle::new(cluster, pod), &nodes)
    }

    #[test]
    fn a_node_that_compiled_the_image_is_better_than_one_that_only_has_it() {
        let cluster = cluster(&[vec![1], vec![2], vec![0], vec![2]]);
        assert_eq!(scores(&cluster, &pod(&[0])), [0, 50, 0, 50]);
        assert_eq!(scores(&cluster, &pod(&[0, 1])), [0, 25, 0, 25]);
        assert_eq!(scores(&cluster, &pod(&[1])), [0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn more_made_ready_is_never_worse(
            nodes in prop::collection::vec(prop::collection::vec(0usize..3, 3), 1..5),
            images in prop::collection::vec(0usize..3, 1..4), which in any::<prop::sample::Index>(), image in 0usize..3,
        ) {
            let pod = pod(&images);
            let before = scores(&cluster(&nodes), &pod);
            prop_assert!(before.iter().all(|score| (0..=MOST).contains(score)));
            for (a, x) in nodes.iter().zip(&before) {
                for (b, y) in nodes.iter().zip(&before) {
                    // Who has ready all of the Pod's images that another has is not behind it.
                    if images.iter().all(|image| b[*image] < 2 || a[*image] == 2) {
                        prop_assert!(x >= y, "{:?} {:?}", a, b);
                    }
                }
            }
            let which = which.index(nodes.len());
            let mut more = nodes.clone();
            more[which][image] = 2;
            let after = scores(&cluster(&more), &pod);
            prop_assert!(after[which] >= before[which]);
            if nodes.iter().all(|node| images.iter().all(|image| node[*image] == 2)) {
                prop_assert!(before.iter().all(|score| *score == MOST));
            }
        }
    }
}
