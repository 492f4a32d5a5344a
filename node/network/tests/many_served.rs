//! What many served Pods hold of this process. Alone in its program: it counts the program's files. Needs root and `nft`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::net::Ipv4Addr;

use tokio::io::AsyncWriteExt;

use support::{ask, bed, pod};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn served_pods_hold_no_file() {
    const PODS: usize = 2000;
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let client = pod(node, "client", true).await;
    let before = open_files();
    let mut served = Vec::new();
    for n in 0..PODS {
        let pod = pod(node, &format!("served-{n}"), false).await;
        let arrivals = pod.serve((Ipv4Addr::UNSPECIFIED, 8080).into()).unwrap();
        served.push((pod, arrivals));
    }
    // What made the client's links may have been let go of meanwhile.
    assert!(open_files() <= before, "{before} files became {}", open_files());
    for (n, (pod, arrivals)) in served.iter_mut().enumerate().step_by(97) {
        let asked = ask(&*client, (pod.ips()[0], 8080));
        let answer = async { arrivals.next().await.write_all(n.to_string().as_bytes()).await };
        let (asked, answered) = tokio::join!(asked, answer);
        answered.unwrap();
        assert_eq!(asked.unwrap(), n.to_string());
    }
}
