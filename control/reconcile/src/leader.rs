//! Leader election by a Lease: of several processes with the same duty, one does it.
//!
//! ```text
//! Follower ──the lease is free, ours or expired──▶ Leader ──could not renew in time, or cancelled──▶ Follower
//! ```
//!
//! Guarantee: the work's token is cancelled before the lease can pass to another, provided that clocks run at about the
//! same rate. Expiry is judged by the time since *we* last saw the lease change, so clocks need not agree. A leader that
//! is cancelled gives the lease back, and the next one starts at once.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Which lease, and how long it lasts. The durations are upstream's.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's namespace, usually `kube-system`.
    pub namespace: String,
    /// The Lease's name: the duty, for example `kube-scheduler`.
    pub name: String,
    /// Who we are; unique among the candidates.
    pub identity: String,
    /// After this time without renewal others may take over.
    pub lease: Duration,
    /// After this time without a successful renewal the leader stops.
    pub renew_deadline: Duration,
    /// Time between tries.
    pub retry: Duration,
}

impl Election {
    /// An election for `name` in `kube-system` with upstream's durations of 15, 10 and 2 seconds.
    pub fn new(name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What to write into the lease that was observed; none while it is another's.
fn claim(election: &Election, spec: &LeaseSpec, expired: bool, now: Timestamp) -> Option<LeaseSpec> {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let ours = holder == election.identity;
    if !ours && !holder.is_empty() && !expired {
        return None;
    }
    let transitions = spec.lease_transitions.unwrap_or(0);
    Some(LeaseSpec {
        holder_identity: Some(election.identity.clone()),
        lease_duration_seconds: i32::try_from(election.lease.as_secs()).ok(),
        acquire_time: match ours {
            true => spec.acquire_time.clone(),
            false => Some(MicroTime(now)),
        },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
        ..spec.clone()
    })
}

struct Candidate {
    election: Election,
    api: Api<Lease>,
    /// The version of the lease that we saw last, and when we first saw it.
    observed: Option<(Option<String>, Instant)>,
}

impl Candidate {
    /// Takes or renews the lease. False while another holds it.
    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let now = Timestamp::now();
        let Some(mut lease) = self.api.get_opt(&self.election.name).await? else {
            let spec = claim(&self.election, &LeaseSpec::default(), true, now);
            let lease =
                Lease { metadata: ObjectMeta { name: Some(self.election.name.clone()), ..Default::default() }, spec };
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let version = lease.metadata.resource_version.clone();
        let since = match &self.observed {
            Some((known, since)) if *known == version => *since,
            _ => Instant::now(),
        };
        self.observed = Some((version, since));
        let expired = since.elapsed() >= self.election.lease;
        match claim(&self.election, lease.spec.as_ref().unwrap_or(&LeaseSpec::default()), expired, now) {
            None => Ok(false),
            Some(spec) => {
                lease.spec = Some(spec);
                self.api.replace(&self.election.name, &PostParams::default(), &lease).await?;
                Ok(true)
            }
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.election.name).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&*self.election.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.api.replace(&self.election.name, &PostParams::default(), &lease).await?;
        Ok(())
    }

    /// Renews until that fails for too long.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.election.renew_deadline {
            tokio::time::sleep(self.election.retry).await;
            let left = self.election.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_hold()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => debug!(%error, "the lease could not be renewed"),
            }
        }
    }
}

/// Campaigns until `cancel`; whenever elected, runs `work` until it loses the lease. `work` must end soon after its token
/// is cancelled.
pub async fn lead<F, W>(client: Client, election: Election, cancel: CancellationToken, work: W)
where
    F: Future<Output = ()>,
    W: Fn(CancellationToken) -> F,
{
    let mut candidate = Candidate { api: Api::namespaced(client, &election.namespace), election, observed: None };
    while !cancel.is_cancelled() {
        match cancel.run_until_cancelled(candidate.try_hold()).await {
            None => break,
            Some(Ok(true)) => {
                let name = candidate.election.name.clone();
                info!(lease = name, "became the leader");
                let term = cancel.child_token();
                let keep = async {
                    term.run_until_cancelled(candidate.keep()).await;
                    term.cancel();
                };
                let work = async {
                    work(term.clone()).await;
                    term.cancel();
                };
                tokio::join!(keep, work);
                info!(lease = name, "stopped leading");
                let release = tokio::time::timeout(candidate.election.retry, candidate.release());
                if let Ok(Err(error)) = release.await {
                    debug!(%error, "the lease could not be given back");
                }
            }
            Some(Ok(false)) => {}
            Some(Err(error)) => debug!(%error, "the lease could not be read"),
        }
        let wait = tokio::time::sleep(candidate.election.retry);
        cancel.run_until_cancelled(wait).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn claims_only_what_is_free_ours_or_expired() {
        let election = Election::new("duty", "me");
        let now = Timestamp::UNIX_EPOCH;
        let held = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_transitions: Some(3),
            ..Default::default()
        };
        assert!(claim(&election, &held("other"), false, now).is_none());
        let taken = claim(&election, &held("other"), true, now).unwrap();
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("me"), Some(4)));
        assert_eq!(claim(&election, &held(""), false, now).unwrap().lease_transitions, Some(4));
        let renewed = claim(&election, &held("me"), false, now).unwrap();
        assert_eq!((renewed.acquire_time, renewed.lease_transitions), (None, Some(3)));
    }
}
