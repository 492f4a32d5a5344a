//! The two sides of a comparison: a cluster of the binary, or its peers; the same client does the same to both.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use wherry_test::{Cluster, Options};

use crate::Setup;
use crate::peer::{Part, Peer};
use crate::process;

/// What a figure was measured of, in the lines of JSON.
pub(crate) const OURS: &str = "wherry";

/// A control plane without nodes of its own.
pub(crate) struct Side {
    /// Who it is.
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    running: Running,
}

enum Running {
    Ours(Box<Cluster>),
    Peer(Peer),
}

impl Side {
    /// `wherry up --nodes 0`.
    pub(crate) async fn ours(setup: &Setup) -> anyhow::Result<Self> {
        let mut options = Options::new(&std::path::absolute(&setup.wherry)?.to_string_lossy());
        options.nodes = 0;
        let cluster = Cluster::start(options)?;
        Ok(Self { name: OURS, client: cluster.client().await?, running: Running::Ours(Box::new(cluster)) })
    }

    /// kube-apiserver and etcd, with some of what belongs to them; none where no peers are at hand.
    pub(crate) async fn peer(setup: &Setup, parts: &[Part]) -> anyhow::Result<Option<Self>> {
        let Some(bin) = &setup.peers else { return Ok(None) };
        let peer = Peer::start(bin, parts).await?;
        Ok(Some(Self { name: "kubernetes", client: peer.client().await?, running: Running::Peer(peer) }))
    }

    fn processes(&self) -> anyhow::Result<Vec<(&'static str, u32)>> {
        match &self.running {
            Running::Ours(cluster) => Ok(vec![(OURS, cluster.process().context("the cluster does not run")?.id())]),
            Running::Peer(peer) => Ok(peer.processes()),
        }
    }

    /// Processor time that all its processes have used.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        self.processes()?.into_iter().map(|(_, id)| process::cpu_time(id)).sum()
    }

    /// Processor time of one of its processes; of the whole where all is one process.
    pub(crate) fn cpu_time_of(&self, part: Part) -> anyhow::Result<Duration> {
        let of = |name: &str| name == OURS || name == part.binary();
        self.processes()?.into_iter().filter(|(name, _)| of(name)).map(|(_, id)| process::cpu_time(id)).sum()
    }

    /// Memory that its processes have for themselves, MiB.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let bytes = self.processes()?.into_iter().map(|(_, id)| process::anonymous(id)).sum::<anyhow::Result<f64>>();
        Ok(bytes? / 1_048_576.0)
    }
}
