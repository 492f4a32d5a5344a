//! A tutorial of the Kubernetes documentation, played with Pods of one kind in a namespace of its own.
//!
//! Manifests lie in `tutorials`; in them SERVER stands for echo's image, WORKER for worker's, FAILS and WAITS for
//! programs that do. A play has a Pod `client`, of the same kind as
//! the others, which is asked to ask them: so all that is read went through their names, as it does in the tutorials.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};
use serde_json::json;
use wherry_test::{Answer, Cluster, Kubectl, Output, get, until};

use crate::setting::{KINDS, LONG};

/// One play.
pub(crate) struct Lesson<'a> {
    pub(crate) cluster: &'a Cluster,
    /// The kind's name, and its image of echo.
    pub(crate) kind: &'static str,
    pub(crate) image: &'static str,
    pub(crate) namespace: String,
    /// Where the client is asked.
    client: OnceLock<String>,
}

const CLIENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: SERVER
          imagePullPolicy: IfNotPresent
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: client}
spec: {type: NodePort, selector: {app: client}, ports: [{port: 80, targetPort: 8080}]}
";

/// Plays a tutorial with both kinds at once.
pub(crate) fn play(
    cluster: &Cluster,
    tutorial: &str,
    lesson: impl Fn(&Lesson<'_>) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let lesson = &lesson;
    std::thread::scope(|scope| {
        let plays = KINDS.map(|kind| {
            scope.spawn(move || {
                let play = Lesson::begin(cluster, tutorial, kind)?;
                lesson(&play).with_context(|| play.seen())?;
                play.end()
            })
        });
        // Both to their end, before the first failure is told.
        let ended = plays.map(|play| play.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        for (played, (kind, _)) in ended.into_iter().zip(KINDS) {
            played.with_context(|| format!("{tutorial} with Pods of kind {kind}"))?;
        }
        Ok(())
    })
}

impl<'a> Lesson<'a> {
    /// Makes the namespace.
    pub(crate) fn begin(
        cluster: &'a Cluster,
        tutorial: &str,
        (kind, image): (&'static str, &'static str),
    ) -> anyhow::Result<Self> {
        let namespace = format!("{tutorial}-{kind}");
        cluster.kubectl().ok(&format!("create namespace {namespace}"))?;
        Ok(Self { cluster, kind, image, namespace, client: OnceLock::new() })
    }

    /// Removes it, and waits until it is gone.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        self.cluster
            .kubectl()
            .ok(&format!("delete namespace {} --timeout={}s", self.namespace, LONG.as_secs()))
            .map(drop)
    }

    fn seen(&self) -> String {
        let seen = self.kubectl().run("get pods,events -o wide --sort-by=.metadata.creationTimestamp");
        seen.map(|seen| seen.stdout).unwrap_or_default()
    }

    /// kubectl in this namespace.
    pub(crate) fn kubectl(&self) -> Kubectl {
        self.cluster.kubectl().in_namespace(&self.namespace)
    }

    /// Runs kubectl, which must succeed; what it prints.
    pub(crate) fn ok(&self, line: &str) -> anyhow::Result<String> {
        self.kubectl().ok(line)
    }

    /// A manifest with this kind's images.
    pub(crate) fn fill(&self, manifest: &str) -> String {
        manifest
            .replace("SERVER", self.image)
            .replace("WORKER", &self.image.replace("echo", "worker"))
            .replace("FAILS", &format!("test.wherry.dev/fails:{}", self.kind))
            .replace("WAITS", &format!("test.wherry.dev/waits:{}", self.kind))
    }

    /// Applies a manifest; what kubectl prints.
    pub(crate) fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.kubectl().apply(&self.fill(manifest))
    }

    /// Starts the client.
    pub(crate) fn start_client(&self) -> anyhow::Result<()> {
        self.apply(CLIENT)?;
        self.rolled_out("deployment/client")?;
        let address = self.cluster.open_url(&format!("client -n {}", self.namespace))?;
        self.client.get_or_init(|| address);
        Ok(())
    }

    pub(crate) fn wait(&self, line: &str) -> anyhow::Result<()> {
        self.kubectl().wait(line, LONG)
    }

    /// Repeats a command until what it prints is as wanted, where `kubectl wait` has no words for it.
    pub(crate) fn until(&self, line: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        until(LONG, || {
            let printed = self.ok(line)?;
            Ok(if wanted(&printed) { Ok(()) } else { Err(format!("{line} prints {printed}")) })
        })
    }

    /// Waits until an update has gone through; what kubectl prints at its end.
    pub(crate) fn rolled_out(&self, what: &str) -> anyhow::Result<String> {
        let said = self.ok(&format!("rollout status --timeout={}s {what}", LONG.as_secs()))?;
        Ok(said.lines().last().unwrap_or_default().to_owned())
    }

    pub(crate) fn patch(&self, what: &str, patch: &str) -> anyhow::Result<String> {
        let patched = self.kubectl().arguments(&["patch", what, "-p", patch], "")?;
        ensure!(patched.success, "patch {what} {patch}: {}", patched.stderr);
        Ok(patched.stdout)
    }

    /// Asks for an eviction; what kubectl says.
    pub(crate) fn evict(&self, pod: &str) -> anyhow::Result<Output> {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", self.namespace);
        self.kubectl().feed(&format!("create -v=8 --raw {path} -f -"), &eviction.to_string())
    }

    /// Words of a jsonpath, in the order of the objects' names.
    pub(crate) fn words(&self, what: &str, path: &str) -> anyhow::Result<Vec<String>> {
        let text = self.ok(&format!("get {what} --sort-by=.metadata.name -o jsonpath={path}"))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// The table that `kubectl get` prints: for each row what stands under each heading.
    pub(crate) fn table(&self, what: &str) -> anyhow::Result<Vec<BTreeMap<String, String>>> {
        let text = self.ok(&format!("get {what}"))?;
        let mut lines = text.lines();
        let head = lines.next().with_context(|| format!("get {what} prints nothing"))?;
        // A column begins where its heading does.
        let mut starts: Vec<usize> = Vec::new();
        for (at, _) in head.char_indices().filter(|(_, letter)| *letter != ' ') {
            if at == 0 || head[..at].ends_with("   ") {
                starts.push(at);
            }
        }
        let cell = |line: &str, column: usize| {
            let end = starts.get(column + 1).copied().unwrap_or(line.len()).min(line.len());
            line.get(starts[column]..end).unwrap_or_default().trim().to_owned()
        };
        Ok(lines
            .map(|line| (0..starts.len()).map(|column| (cell(head, column), cell(line, column))).collect())
            .collect())
    }

    /// What `http://authority/path` answers the client. Names and Services follow their Pods with a delay of which nothing
    /// tells, so that no answer means: again.
    pub(crate) fn ask(&self, authority: &str, path: &str) -> anyhow::Result<Answer> {
        let (client, path) = (self.client.get().context("the client was not started")?, path.replace('&', "%26"));
        until(LONG, || {
            Ok(match get(client, &format!("/fetch?authority={authority}&path={path}")) {
                Ok(answer) if answer.status != 502 => Ok(answer),
                other => Err(format!("{authority}/{path}: {other:?}")),
            })
        })
    }

    /// As [`ask`](Self::ask), of what must be there.
    pub(crate) fn read(&self, authority: &str, path: &str) -> anyhow::Result<String> {
        let answer = self.ask(authority, path)?;
        ensure!(answer.status == 200, "{authority}/{path}: {answer:?}");
        Ok(answer.body)
    }
}
