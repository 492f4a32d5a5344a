//! Where one scenario plays in one arrangement: a namespace with a Pod `echo` and a Service in front of it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use wherry_test::{Answer, Child, Cluster, PATIENCE, Registry, get};

use crate::arrangement::Arrangement;
use crate::journal::{Journal, Seen, Told};
use crate::told;
use crate::trace::{self, text};

/// What all scenarios share.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) journal: &'a Journal,
    pub(crate) registry: &'a Registry,
}

/// See the module's documentation.
pub(crate) struct Stage<'a> {
    place: Place<'a>,
    arrangement: Arrangement,
    /// The Pod has a companion that its manifest does not speak of.
    accompanied: Cell<bool>,
    namespace: String,
    address: String,
    /// How much of the journal the trace covers: up to what was waited for last.
    end: Cell<usize>,
}

/// A Service that has the Pod ready or not.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: NodePort
  publishNotReadyAddresses: true
  selector: {app: echo}
  ports: [{port: 80, targetPort: 8080, nodePort: NODE_PORT}]
";

/// Nobody else takes these.
static NODE_PORTS: AtomicU16 = AtomicU16::new(31_000);

impl<'a> Stage<'a> {
    /// Makes the namespace, its Service and what the scenario brings.
    pub(crate) fn set(
        place: Place<'a>,
        scenario: &str,
        arrangement: Arrangement,
        manifest: &str,
    ) -> anyhow::Result<Self> {
        let namespace = format!("{scenario}-{}", arrangement.name());
        let port = NODE_PORTS.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.0.0.1:{port}");
        let stage = Self { place, arrangement, accompanied: Cell::default(), namespace, address, end: Cell::new(0) };
        stage.place.cluster.kubectl().ok(&format!("create namespace {}", stage.namespace))?;
        stage.apply(&format!("{}---\n{manifest}", SERVICE.replace("NODE_PORT", &port.to_string())))?;
        Ok(stage)
    }

    /// Applies a manifest in which roles stand for images ([`Arrangement`]), REMOTE and REGISTRY for the registry's.
    pub(crate) fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        if self.arrangement.accompanies(manifest) {
            self.accompanied.set(true);
        }
        let manifest = self
            .arrangement
            .fill(manifest)
            .replace("REMOTE", &self.remote())
            .replace("REGISTRY/", &self.place.registry.reference(""));
        self.place.cluster.kubectl().ok_with(&format!("apply -n {} -f -", self.namespace), &manifest).map(drop)
    }

    fn remote(&self) -> String {
        self.place.registry.reference(&format!("echo:{}", self.arrangement.kinds().0.name()))
    }

    /// The image of a role.
    pub(crate) fn image(&self, role: &str) -> String {
        self.arrangement.fill(role)
    }

    /// The cluster's data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.place.cluster.data_dir()
    }

    /// Where the Pod's files lie on the node.
    pub(crate) fn pod_dir(&self) -> anyhow::Result<PathBuf> {
        let uid = self.kubectl("get pod echo -o jsonpath={.metadata.uid}")?;
        Ok(self.data_dir().join("nodes/wherry-0/pods").join(format!("{}_echo_{uid}", self.namespace)))
    }

    /// Where the node writes for the Pod: in memory, whose mount is named after the data directory.
    pub(crate) fn written_dir(&self) -> anyhow::Result<PathBuf> {
        let uid = self.kubectl("get pod echo -o jsonpath={.metadata.uid}")?;
        let node = Path::new("nodes/wherry-0").join(uid);
        let places = std::fs::read_dir("/run/wherry")?.flatten().map(|place| place.path().join(&node));
        places.into_iter().find(|place| place.exists()).with_context(|| format!("no {} in memory", node.display()))
    }

    /// Puts an image on the node.
    pub(crate) fn load(&self, file: &Path, reference: &str) -> anyhow::Result<()> {
        self.place.cluster.load(file, reference).map(drop)
    }

    /// kubectl in this namespace.
    pub(crate) fn kubectl(&self, line: &str) -> anyhow::Result<String> {
        self.place.cluster.kubectl().ok(&format!("-n {} {line}", self.namespace))
    }

    /// Follows the Pod's log until a line; then a request has arrived.
    pub(crate) fn until_logged(&self, line: &str) -> anyhow::Result<()> {
        let mut command =
            self.place.cluster.kubectl().command(["-n", &self.namespace, "logs", "-f", "echo", "-c", "echo"]);
        Child::start("kubectl logs -f", &mut command)?.wait_for_line(PATIENCE, |found| found == line)?;
        Ok(())
    }

    /// The namespace's Service, for requests that are made while something else happens.
    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// Asks the Pod. Services follow their Pods with a delay of which nothing tells, so that no connection means: again.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let end = Instant::now() + PATIENCE;
        loop {
            match get(&self.address, path) {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > end => bail!("GET {path}: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Asks the Pod, which answers 200.
    pub(crate) fn ok(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "GET {path}: {answer:?}");
        Ok(answer.body)
    }

    /// Asks for what ends the Pod before it can answer. Whoever listens is known to do so.
    pub(crate) fn last(&self, path: &str) -> anyhow::Result<()> {
        self.ok("/")?;
        if let Ok(answer) = get(&self.address, path) {
            ensure!(answer.status >= 500, "GET {path}: {answer:?}");
        }
        Ok(())
    }

    /// Waits for a state of any Pod of the namespace; the trace goes up to there.
    pub(crate) fn until(&self, what: &str, found: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        self.until_seen(what, |seen| !seen.deleted && found(&seen.pod))
    }

    /// Waits until the Pod is gone.
    pub(crate) fn until_deleted(&self) -> anyhow::Result<()> {
        self.until_seen("deleted", |seen| seen.deleted)
    }

    fn until_seen(&self, what: &str, found: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
        let from = self.end.get();
        let position = |told: &Told| {
            let later = told.pods.iter().enumerate().skip(from);
            later.filter(|(_, seen)| self.is_here(&seen.pod)).find(|(_, seen)| found(seen)).map(|(n, _)| n + 1)
        };
        let end = self.place.journal.until(PATIENCE, what, position).with_context(|| self.told())?;
        self.end.set(end);
        Ok(())
    }

    /// Waits for an Event.
    pub(crate) fn until_event(&self, reason: &str, message: &str) -> anyhow::Result<()> {
        let found = |told: &Told| {
            let mut here = told.events.iter().filter(|event| event["metadata"]["namespace"] == self.namespace.as_str());
            here.find(|event| event["reason"] == reason && text(&event["message"]).contains(message)).map(drop)
        };
        self.place.journal.until(PATIENCE, &format!("{reason} {message}"), found).with_context(|| self.told())
    }

    fn is_here(&self, object: &Value) -> bool {
        object["metadata"]["namespace"] == self.namespace.as_str()
    }

    /// The Pods in the order of their creation, the trace of each, and the Events.
    fn traces(&self, told: &Told, end: usize) -> (String, Vec<String>) {
        let here: Vec<&Seen> = told.pods[..end].iter().filter(|seen| self.is_here(&seen.pod)).collect();
        let mut uids: Vec<String> = Vec::new();
        for seen in &here {
            let uid = text(&seen.pod["metadata"]["uid"]);
            if !uids.contains(&uid) {
                uids.push(uid);
            }
        }
        let mut names = vec![
            (self.namespace.clone(), "NAMESPACE"),
            (self.remote(), "REMOTE"),
            (self.place.registry.reference(""), "REGISTRY/"),
        ];
        // A subject's first: where both are of one kind, both are called as it.
        names.extend(self.arrangement.roles().into_iter().rev().map(|(role, image)| (image.to_owned(), role)));
        let mut traces = Vec::new();
        for uid in &uids {
            let history: Vec<Seen> = here
                .iter()
                .filter(|seen| seen.pod["metadata"]["uid"] == uid.as_str())
                .map(|seen| (*seen).clone())
                .collect();
            names.push((uid.clone(), "UID"));
            names.extend(
                history.iter().map(|seen| (text(&seen.pod["status"]["podIP"]), "IP")).rfind(|(ip, _)| !ip.is_empty()),
            );
            if let Some(hash) = history[0].pod["metadata"]["labels"]["pod-template-hash"].as_str() {
                names.insert(0, (text(&history[0].pod["metadata"]["name"]), "POD"));
                names.push((hash.to_owned(), "HASH"));
            }
            traces.push(trace::pod(&history, &names));
        }
        let events = trace::events(
            told.events.iter().filter(|event| event["metadata"]["namespace"] == self.namespace.as_str()),
            &names,
        );
        (traces.join("\n"), events)
    }

    /// Everything told so far.
    fn told(&self) -> String {
        let all = |told: &Told| {
            let (pods, events) = self.traces(told, told.pods.len());
            Some(format!("{pods}\n{}", events.join("\n")))
        };
        self.place.journal.until(PATIENCE, "anything", all).unwrap_or_default()
    }

    /// Waits until the expected Events have been told, and compares everything.
    pub(crate) fn compare(&self, expected: &str) -> anyhow::Result<()> {
        let accompanied = self.accompanied.get();
        let prepared = told::is_prepared(expected, accompanied);
        let expected = told::written_out(expected, self.arrangement, accompanied);
        let is_event = |line: &&str| line.starts_with("Normal ") || line.starts_with("Warning ");
        let mut wanted: Vec<String> = expected.lines().filter(is_event).map(str::to_owned).collect();
        wanted.sort_by_key(|line| trace::subject(line));
        let states: Vec<&str> = expected.lines().filter(|line| !is_event(line)).collect();
        let same = |told: &Told| {
            let (pods, events) = self.traces(told, self.end.get());
            let matched =
                events.len() == wanted.len() && wanted.iter().zip(&events).all(|(wanted, event)| fits(wanted, event));
            let settled = |line: &str| if prepared { told::settled(line) } else { line.to_owned() };
            let lines: Vec<String> = pods.lines().map(settled).collect();
            let states =
                lines.len() == states.len() && states.iter().zip(&lines).all(|(wanted, line)| fits(wanted, line));
            (matched && states).then_some(())
        };
        // What was seen is settled; Events come a moment later.
        let Err(error) = self.place.journal.until(Duration::from_secs(15), "the expected trace", same) else {
            return Ok(());
        };
        let found = self.place.journal.until(PATIENCE, "anything", |told| Some(self.traces(told, self.end.get())))?;
        bail!("{error}\n-- expected\n{expected}\n-- found\n{}\n{}", found.0, found.1.join("\n"))
    }

    /// Removes everything; the namespace goes in the background.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        self.place.cluster.kubectl().ok(&format!("delete namespace {} --wait=false", self.namespace)).map(drop)
    }
}

/// Whether a line is the expected one, in which `*` stands for anything.
fn fits(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split('*');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut exact = true;
    for part in parts {
        exact = part.is_empty();
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        if !exact && rest.is_empty() {
            exact = true;
        }
    }
    exact && (rest.is_empty() || wanted.ends_with('*'))
}

/// Whether a Pod has a phase.
pub(crate) fn phase(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |pod| pod["status"]["phase"] == phase
}

/// Whether a Pod's Ready condition is so.
pub(crate) fn ready(status: &'static str) -> impl Fn(&Value) -> bool {
    condition("Ready", status)
}

/// Whether a condition is so.
pub(crate) fn condition(type_: &'static str, status: &'static str) -> impl Fn(&Value) -> bool {
    move |pod| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions
            .is_some_and(|all| all.iter().any(|condition| condition["type"] == type_ && condition["status"] == status))
    }
}

/// Whether the (first) container runs, having been restarted so often.
pub(crate) fn running(restarts: u64) -> impl Fn(&Value) -> bool {
    move |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["state"]["running"].is_object() && status["restartCount"] == restarts
    }
}

/// Whether the (first) init container runs, having been restarted so often.
pub(crate) fn preparing(restarts: u64) -> impl Fn(&Value) -> bool {
    move |pod| {
        let status = &pod["status"]["initContainerStatuses"][0];
        status["state"]["running"].is_object() && status["restartCount"] == restarts
    }
}

/// Whether the (first) container waits for a reason.
pub(crate) fn waiting(reason: &'static str) -> impl Fn(&Value) -> bool {
    move |pod| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
}

/// `wherry image push`.
pub(crate) fn push(cluster: &Cluster, file: &Path, reference: &str) -> anyhow::Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wherry"));
    let output =
        command.args(["image", "push", "--data-dir"]).arg(cluster.data_dir()).arg(file).arg(reference).output()?;
    ensure!(output.status.success(), "image push: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
