//! The table: what is applied, what happens then, and what a kubelet tells of it.
//!
//! A manifest names roles ([`crate::arrangement`]); an expectation is made of pieces ([`crate::told`]), in it `*` stands for anything.

mod changes;
mod endings;
mod files;
mod hooks;
mod images;
mod names;
mod pods;
mod probes;
mod security;
mod volumes;

use crate::stage::Stage;

/// One row.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) manifest: fn() -> String,
    pub(crate) play: fn(&Stage<'_>) -> anyhow::Result<()>,
    pub(crate) expected: &'static str,
}

/// All rows.
pub(crate) fn all() -> Vec<Scenario> {
    [
        endings::all(),
        probes::all(),
        hooks::all(),
        images::all(),
        pods::all(),
        changes::all(),
        names::all(),
        files::all(),
        security::all(),
        volumes::all(),
    ]
    .concat()
}

/// What is told of a Pod that became ready, and is.
const READY: &str = "
<pod running> > True
<echo runs>
<echo begins>";

/// The Pod `echo` with one container `echo`; both may have further fields (one a line).
fn pod(fields: &str, container: &str) -> String {
    let indented =
        |text: &str, by: usize| text.trim().lines().map(|line| format!("\n{:by$}{line}", "")).collect::<String>();
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: echo, labels: {{app: echo}}}}
spec:{}
  COMPANION
  containers:
    - name: echo
      image: IMAGE
      ports: [{{name: http, containerPort: 8080}}]{}
",
        indented(fields, 2),
        indented(container, 6),
    )
}
