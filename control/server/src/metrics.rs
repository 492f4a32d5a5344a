//! The server's own metrics, by the names of kube-apiserver's that dashboards and rules use.
//!
//! What is counted is bounded: resources are those that are served, paths those that are known; whatever else clients ask for
//! is counted together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use wherry_api::exposition::{Exposition, Kind, Process};
use wherry_api::openapi::KUBERNETES_VERSION;
use wherry_store::{At, Range};

use crate::engine::Engine;

/// Upper bounds of `apiserver_request_duration_seconds`, seconds.
const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Those of `apiserver_request_sli_duration_seconds` are the same from here on.
const SLI_FROM: usize = 2;

/// Writes what another part of this process measures.
pub type Extra = Arc<dyn Fn(&mut Exposition) + Send + Sync>;

/// What a request was about, as labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Labels {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) scope: &'static str,
    pub(crate) dry_run: &'static str,
}

/// Requests of one kind.
#[derive(Debug, Default)]
struct Seen {
    codes: BTreeMap<u16, u64>,
    /// How many took no longer than each bound, and longer than the one before; what is over is in `count` alone.
    buckets: [u64; DURATIONS.len()],
    count: u64,
    sum: f64,
}

/// All that is counted.
#[derive(Default)]
pub(crate) struct Metrics {
    seen: Mutex<BTreeMap<Labels, Seen>>,
    long_running: Mutex<BTreeMap<Labels, i64>>,
    reading: AtomicI64,
    mutating: AtomicI64,
    extra: Vec<Extra>,
}

impl Metrics {
    pub(crate) fn new(extra: Vec<Extra>) -> Arc<Self> {
        Arc::new(Self { extra, ..Self::default() })
    }

    /// A request was answered. `took`: how long that was; none for those that last as long as the client listens.
    pub(crate) fn answered(&self, labels: Labels, code: u16, took: Option<Duration>) {
        let mut all = self.seen.lock();
        let seen = all.entry(labels).or_default();
        *seen.codes.entry(code).or_default() += 1;
        if let Some(took) = took {
            let seconds = took.as_secs_f64();
            seen.count += 1;
            seen.sum += seconds;
            if let Some(bucket) = DURATIONS.iter().position(|bound| seconds <= *bound) {
                seen.buckets[bucket] += 1;
            }
        }
    }

    /// One more request under way, until the guard is dropped.
    pub(crate) fn inflight(self: &Arc<Self>, mutating: bool) -> InFlight {
        self.gauge(mutating).fetch_add(1, Ordering::Relaxed);
        InFlight { metrics: self.clone(), mutating }
    }

    fn gauge(&self, mutating: bool) -> &AtomicI64 {
        if mutating { &self.mutating } else { &self.reading }
    }

    /// One more request that lasts, until the guard is dropped.
    pub(crate) fn lasting(self: &Arc<Self>, labels: Labels) -> Lasting {
        *self.long_running.lock().entry(labels.clone()).or_default() += 1;
        Lasting { metrics: self.clone(), labels }
    }

    /// Writes all of it.
    pub(crate) fn write(&self, engine: &Engine, to: &mut Exposition) {
        self.requests(to);
        let mut family = to.family(
            "apiserver_longrunning_requests",
            Kind::Gauge,
            "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, \
             scope and component. Not all requests are tracked this way.",
        );
        for (labels, count) in &*self.long_running.lock() {
            with_labels(labels, false, |labels| family.sample(labels, signed(*count)));
        }
        let mut family = to.family(
            "apiserver_current_inflight_requests",
            Kind::Gauge,
            "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last \
             second.",
        );
        for (kind, mutating) in [("mutating", true), ("readOnly", false)] {
            let count = self.gauge(mutating).load(Ordering::Relaxed);
            family.sample(&[("request_kind", kind)], signed(count));
        }
        objects(engine, to);
        let version = format!("{KUBERNETES_VERSION}+wherry.{}", env!("CARGO_PKG_VERSION"));
        to.family(
            "kubernetes_build_info",
            Kind::Gauge,
            "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, \
             build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        )
        .sample(&[("compiler", "rustc"), ("git_version", &version), ("major", "1"), ("minor", "36")], 1.0);
        for extra in &self.extra {
            extra(to);
        }
        process(to);
    }

    fn requests(&self, to: &mut Exposition) {
        let all = self.seen.lock();
        let mut family = to.family(
            "apiserver_request_total",
            Kind::Counter,
            "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, \
             scope, component, and HTTP response code.",
        );
        for (labels, seen) in &*all {
            for (code, count) in &seen.codes {
                let code = code.to_string();
                with_labels(labels, true, |labels| {
                    let labels: Vec<_> = [("code", code.as_str())].into_iter().chain(labels.iter().copied()).collect();
                    family.sample(&labels, float(*count));
                });
            }
        }
        for (name, help, from) in [
            (
                "apiserver_request_duration_seconds",
                "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, \
                 subresource, scope and component.",
                0,
            ),
            (
                "apiserver_request_sli_duration_seconds",
                "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait \
                 times) in seconds for each verb, group, version, resource, subresource, scope and component.",
                SLI_FROM,
            ),
        ] {
            let mut family = to.family(name, Kind::Histogram, help);
            for (labels, seen) in all.iter().filter(|(_, seen)| seen.count > 0) {
                let beyond = seen.count - seen.buckets.iter().sum::<u64>();
                let mut buckets: Vec<_> = DURATIONS.into_iter().zip(seen.buckets).collect();
                let finer: u64 = buckets.drain(..from).map(|(_, count)| count).sum();
                if let Some(first) = buckets.first_mut() {
                    first.1 += finer;
                }
                with_labels(labels, from == 0, |labels| family.histogram(labels, &buckets, beyond, seen.sum));
            }
        }
    }
}

fn with_labels(labels: &Labels, dry_run: bool, with: impl FnOnce(&[(&str, &str)])) {
    let mut all = vec![
        ("component", "apiserver"),
        ("group", &*labels.group),
        ("resource", &*labels.resource),
        ("scope", labels.scope),
        ("subresource", &*labels.subresource),
        ("verb", labels.verb),
        ("version", &*labels.version),
    ];
    if dry_run {
        all.insert(1, ("dry_run", labels.dry_run));
    }
    with(&all);
}

/// How many objects there are, by the resource that they are stored as.
fn objects(engine: &Engine, to: &mut Exposition) {
    let mut family = to.family(
        "apiserver_storage_objects",
        Kind::Gauge,
        "[STABLE] Number of stored objects at the time of last check split by kind.",
    );
    let mut stored: Vec<_> = engine.registry.resources().map(|row| Arc::clone(&row.storage.resource)).collect();
    stored.sort();
    stored.dedup();
    for resource in stored {
        let range = Range::all(Arc::clone(&resource)).limit(1);
        let Ok(list) = engine.store.list(&range, At::Latest) else { continue };
        if list.count > 0 {
            family.sample(&[("resource", &resource)], float(list.count as u64));
        }
    }
}

fn process(to: &mut Exposition) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, limits, machine) = (read("/proc/self/stat"), read("/proc/self/limits"), read("/proc/stat"));
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Process { stat: &stat, limits: &limits, machine: &machine, descriptors }.write(to);
}

#[allow(clippy::cast_precision_loss, reason = "counts beyond 2^53 are told to the nearest that a float can say")]
fn float(count: u64) -> f64 {
    count as f64
}

fn signed(count: i64) -> f64 {
    float(u64::try_from(count).unwrap_or(0))
}

/// A request under way.
pub(crate) struct InFlight {
    metrics: Arc<Metrics>,
    mutating: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.gauge(self.mutating).fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request whose answer goes on.
pub(crate) struct Lasting {
    metrics: Arc<Metrics>,
    labels: Labels,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let mut all = self.metrics.long_running.lock();
        if let Some(count) = all.get_mut(&self.labels) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.labels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_were_about() {
        let metrics = Metrics::new(Vec::new());
        let labels = Labels { verb: "GET", resource: "pods".to_owned(), scope: "resource", ..Labels::default() };
        metrics.answered(labels.clone(), 200, Some(Duration::from_millis(1)));
        metrics.answered(labels.clone(), 200, Some(Duration::from_millis(30)));
        metrics.answered(labels.clone(), 404, Some(Duration::from_secs(100)));
        metrics.answered(Labels { verb: "WATCH", ..labels.clone() }, 200, None);
        let mut text = Exposition::new(None);
        metrics.requests(&mut text);
        let text = text.finish();
        let common = "group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"\"";
        for line in [
            format!("apiserver_request_total{{code=\"200\",component=\"apiserver\",dry_run=\"\",{common}}} 2"),
            format!("apiserver_request_total{{code=\"404\",component=\"apiserver\",dry_run=\"\",{common}}} 1"),
            format!(
                "apiserver_request_duration_seconds_bucket{{component=\"apiserver\",dry_run=\"\",{common},le=\"0.005\"}} 1"
            ),
            format!("apiserver_request_sli_duration_seconds_bucket{{component=\"apiserver\",{common},le=\"0.05\"}} 2"),
            format!("apiserver_request_sli_duration_seconds_bucket{{component=\"apiserver\",{common},le=\"60\"}} 2"),
            format!("apiserver_request_sli_duration_seconds_count{{component=\"apiserver\",{common}}} 3"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("seconds_count{component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"WATCH\""));
    }

    #[test]
    fn what_lasts_is_counted_while_it_lasts() {
        let metrics = Metrics::new(Vec::new());
        let labels = Labels { verb: "WATCH", ..Labels::default() };
        let (first, second) = (metrics.lasting(labels.clone()), metrics.lasting(labels.clone()));
        assert_eq!(metrics.long_running.lock()[&labels], 2);
        drop((first, second));
        assert!(metrics.long_running.lock().is_empty());
        let under_way = metrics.inflight(true);
        assert_eq!(metrics.mutating.load(Ordering::Relaxed), 1);
        drop(under_way);
        assert_eq!(metrics.mutating.load(Ordering::Relaxed), 0);
    }
}
