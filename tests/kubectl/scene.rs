//! Where a scenario plays: one kubectl in a namespace of its own, with commands that check what was said.

use anyhow::{Context, Result, ensure};
use wherry_test::{Child, Kubectl, Output};

/// One kubectl in one namespace.
pub(crate) struct Scene {
    pub(crate) kubectl: Kubectl,
    pub(crate) namespace: String,
}

impl Scene {
    /// Makes the namespace.
    pub(crate) fn open(kubectl: &Kubectl, namespace: &str) -> Result<Self> {
        let said = kubectl.ok(&format!("create namespace {namespace}"))?;
        ensure!(said == format!("namespace/{namespace} created\n"), "{said}");
        Ok(Self { kubectl: kubectl.in_namespace(namespace), namespace: namespace.to_owned() })
    }

    /// Deletes the namespace and waits until nothing of it is left.
    pub(crate) fn close(self) -> Result<()> {
        let said = self.kubectl.ok(&format!("delete namespace {}", self.namespace))?;
        ensure!(said.starts_with(&format!("namespace \"{}\" deleted", self.namespace)), "{said}");
        Ok(())
    }

    /// A command that must succeed and say (on either stream) each of these.
    pub(crate) fn says(&self, line: &str, parts: &[&str]) -> Result<String> {
        let output = self.kubectl.run(line)?;
        ensure!(output.success, "kubectl {line}\n{}{}", output.stdout, output.stderr);
        contains(line, &output, parts)?;
        Ok(output.stdout)
    }

    /// A command that must fail and say each of these.
    pub(crate) fn refuses(&self, line: &str, parts: &[&str]) -> Result<()> {
        self.refuses_input(line, "", parts)
    }

    /// As [`refuses`](Self::refuses), with a text on standard input.
    pub(crate) fn refuses_input(&self, line: &str, input: &str, parts: &[&str]) -> Result<()> {
        let output = self.kubectl.feed(line, input)?;
        ensure!(!output.success, "kubectl {line} should fail\n{}{}", output.stdout, output.stderr);
        contains(line, &output, parts)
    }

    /// A command whose whole standard output is known.
    pub(crate) fn prints(&self, line: &str, expected: &str) -> Result<()> {
        let said = self.kubectl.ok(line)?;
        ensure!(said == expected, "kubectl {line}\nsaid:     {said:?}\nexpected: {expected:?}");
        Ok(())
    }

    /// A command of separate arguments that must succeed.
    pub(crate) fn arguments(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl.arguments(arguments, "")?;
        ensure!(output.success, "kubectl {arguments:?}\n{}{}", output.stdout, output.stderr);
        Ok(output.stdout)
    }

    /// A command that goes on until it is dropped.
    pub(crate) fn start(&self, line: &str) -> Result<Child> {
        Child::start(line, &mut self.kubectl.command(line.split_whitespace()))
    }

    /// `edit` with sed as the editor.
    pub(crate) fn edit(&self, what: &str, script: &str) -> Result<Output> {
        let mut command = self.kubectl.command(["edit", what]);
        command.env("KUBE_EDITOR", format!("sed -i '{script}'"));
        let output = command.output().context("start kubectl edit")?;
        Ok(Output {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// `kubectl wait` that must come to its end.
    pub(crate) fn wait(&self, line: &str) -> Result<()> {
        self.kubectl.wait(line, wherry_test::PATIENCE)
    }

    /// The address of a Service's node port.
    pub(crate) fn address(&self, service: &str) -> Result<String> {
        let port = self.kubectl.ok(&format!("get service {service} -o jsonpath={{.spec.ports[0].nodePort}}"))?;
        ensure!(!port.is_empty(), "{service} has no node port");
        Ok(format!("127.0.0.1:{port}"))
    }
}

fn contains(line: &str, output: &Output, parts: &[&str]) -> Result<()> {
    let all = format!("{}{}", output.stdout, output.stderr);
    for part in parts {
        ensure!(all.contains(part), "kubectl {line}\nshould say {part:?}:\n{all}");
    }
    Ok(())
}

/// The words of the line of a table that starts with `name`.
pub(crate) fn row(table: &str, name: &str) -> Result<Vec<String>> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.with_context(|| format!("no row {name} in\n{table}"))?;
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

/// A Deployment of one container `c` that serves HTTP on port 8080.
pub(crate) fn deployment(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: c
          image: {image}
          imagePullPolicy: IfNotPresent
          ports: [{{name: http, containerPort: 8080}}]
          resources: {{requests: {{cpu: 10m, memory: 8Mi}}, limits: {{cpu: 200m, memory: 64Mi}}}}
          readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
"
    )
}

/// The images that the scenarios run.
pub(crate) const HELLO: &str = "samples.wherry.dev/hello:1";
/// Logs a line each second.
pub(crate) const TICKER: &str = "samples.wherry.dev/ticker:1";
/// Of both kinds.
pub(crate) const ECHO: [(&str, &str); 2] =
    [("wasm", "samples.wherry.dev/echo:wasm"), ("container", "samples.wherry.dev/echo:container")];
