//! Events: what `kubectl describe` and `kubectl get events` tell about an object.
//!
//! A [`Recorder`] belongs to a component and never waits: an event goes on a bounded queue, and is dropped if that is full (which the
//! log tells once, and once more when the queue has room, with their number). One task a process folds repetitions together ([`correlate`]) and writes core/v1 Events. Events tell
//! people what happened; nothing in the system may depend on one being delivered.

mod correlate;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use correlate::{Correlator, Observation, Verdict};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::Backoff;

const CAPACITY: usize = 1000;
const TRIES: u32 = 5;
/// The server refuses longer ones.
const MAX_MESSAGE: usize = 1024;

/// Whether an event is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Only informs.
    Normal,
    /// Something may be wrong.
    Warning,
}

impl EventType {
    /// The API's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened, before it is an Event.
#[derive(Clone, Debug)]
struct Occurrence {
    component: Arc<str>,
    host: Arc<str>,
    object: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    time: Timestamp,
}

/// Makes recorders and owns the task that writes their events. Cheap to clone.
#[derive(Clone)]
pub struct Recorders {
    outbox: Outbox,
    tasks: TaskTracker,
}

impl Recorders {
    /// Writes events through `client` until `cancel`; what is queued then is dropped.
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let outbox = Outbox { sender, dropped: Arc::default() };
        let tasks = TaskTracker::new();
        let writing = write_all(client, receiver, outbox.dropped.clone());
        tasks.spawn(async move { cancel.run_until_cancelled(writing).await });
        tasks.close();
        Self { outbox, tasks }
    }

    /// The recorder of a component of the control plane, for example `deployment-controller`.
    pub fn component(&self, component: &str) -> Recorder {
        self.component_on(component, "")
    }

    /// The recorder of a component that runs on a node, for example the `kubelet` of `node-1`.
    pub fn component_on(&self, component: &str, host: &str) -> Recorder {
        Recorder { component: component.into(), host: host.into(), outbox: self.outbox.clone() }
    }

    /// Resolves once the writing task has ended after cancellation.
    pub async fn closed(&self) {
        self.tasks.wait().await;
    }
}

/// Where events wait to be written.
#[derive(Clone)]
struct Outbox {
    sender: mpsc::Sender<Occurrence>,
    /// Events that found no room since that was told last.
    dropped: Arc<AtomicU64>,
}

impl Outbox {
    fn put(&self, occurrence: Occurrence) {
        if self.sender.try_send(occurrence).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!("events come faster than they can be written: some are dropped");
        }
    }
}

/// Records events as one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    component: Arc<str>,
    host: Arc<str>,
    outbox: Outbox,
}

impl Recorder {
    /// Records that something happened to `object`. `reason` is a short word in CamelCase, `message` a sentence for people.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let occurrence = Occurrence {
            component: self.component.clone(),
            host: self.host.clone(),
            object: object.clone(),
            kind,
            reason: reason.to_owned(),
            message: truncated(message.into()),
            time: Timestamp::now(),
        };
        self.outbox.put(occurrence);
    }

    /// The same for a typed object.
    pub fn on<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(&object.object_ref(&()), kind, reason, message);
    }
}

fn truncated(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
    message
}

async fn write_all(client: Client, mut receiver: mpsc::Receiver<Occurrence>, dropped: Arc<AtomicU64>) {
    let mut correlator = Correlator::default();
    while let Some(occurrence) = receiver.recv().await {
        if receiver.len() < CAPACITY / 2 && dropped.load(Ordering::Relaxed) > 0 {
            warn!(dropped = dropped.swap(0, Ordering::Relaxed), "events are all written again");
        }
        let Verdict::Record(observation) = correlator.observe(occurrence) else {
            continue;
        };
        match write(&client, &observation).await {
            Ok(name) => correlator.written(&observation, name),
            Err(error) => {
                debug!(%error, reason = observation.occurrence.reason, "an event could not be written")
            }
        }
    }
}

/// Writes a new Event or raises the count of a known one; returns its name.
async fn write(client: &Client, observation: &Observation) -> Result<String, kube::Error> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let result = write_once(client, observation).await;
        match &result {
            // The server has decided; asking again would not change its mind.
            Ok(_) | Err(kube::Error::Api(_)) => return result,
            Err(_) if backoff.failures() + 1 >= TRIES => return result,
            Err(_) => tokio::time::sleep(backoff.next_delay()).await,
        }
    }
}

async fn write_once(client: &Client, observation: &Observation) -> Result<String, kube::Error> {
    let namespace = namespace_of(&observation.occurrence.object);
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    if let Some(name) = &observation.existing {
        let patch = json!({
            "count": observation.count,
            "lastTimestamp": Time(observation.occurrence.time),
            "message": observation.message,
        });
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(name.clone()),
            // It expired: write it anew.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let event = event_of(observation, namespace);
    let name = event.metadata.name.clone().unwrap_or_default();
    api.create(&PostParams::default(), &event).await?;
    Ok(name)
}

/// Events of cluster-scoped objects live in `default`.
fn namespace_of(object: &ObjectReference) -> &str {
    match object.namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() => namespace,
        _ => "default",
    }
}

fn event_of(observation: &Observation, namespace: &str) -> Event {
    let occurrence = &observation.occurrence;
    let name =
        format!("{}.{:x}", occurrence.object.name.as_deref().unwrap_or_default(), occurrence.time.as_nanosecond());
    let host = (!occurrence.host.is_empty()).then(|| occurrence.host.to_string());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..Default::default() },
        involved_object: occurrence.object.clone(),
        reason: Some(occurrence.reason.clone()),
        message: Some(observation.message.clone()),
        type_: Some(occurrence.kind.as_str().to_owned()),
        count: Some(observation.count),
        first_timestamp: Some(Time(observation.first)),
        last_timestamp: Some(Time(occurrence.time)),
        source: Some(EventSource { component: Some(occurrence.component.to_string()), host: host.clone() }),
        reporting_component: Some(occurrence.component.to_string()),
        reporting_instance: Some(host.unwrap_or_default()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let cut = truncated("é".repeat(1000));
        assert!(cut.len() <= MAX_MESSAGE && cut.ends_with("é..."));
        assert_eq!(truncated("short".into()), "short");
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (sender, mut receiver) = mpsc::channel(1);
        let outbox = Outbox { sender, dropped: Arc::default() };
        let recorder = Recorder { component: "test".into(), host: "".into(), outbox: outbox.clone() };
        for message in ["first", "second", "third"] {
            recorder.event(&ObjectReference::default(), EventType::Normal, "Test", message);
        }
        assert_eq!(outbox.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(receiver.try_recv().map(|occurrence| occurrence.message).as_deref(), Ok("first"));
    }
}
