//! Commands that change what is there: apply, replace, diff, patch, label, annotate, edit.

use anyhow::{Result, ensure};

use crate::scene::{HELLO, Scene, deployment};

/// Declarative and imperative replacement.
pub(crate) fn apply_and_replace(s: &Scene) -> Result<()> {
    let manifest = deployment("web", HELLO, 0);
    ensure!(s.kubectl.apply(&manifest)? == "deployment.apps/web created\n");
    ensure!(s.kubectl.apply(&manifest)? == "deployment.apps/web unchanged\n");
    ensure!(s.kubectl.ok_with("diff -f -", &manifest)?.is_empty());
    let changed = manifest
        .replace("memory: 64Mi", "memory: 32Mi")
        .replace("labels: {app: web}}\nspec", "labels: {color: blue}}\nspec");
    let diff = s.kubectl.feed("diff -f -", &changed)?;
    ensure!(
        !diff.success
            && diff.stdout.contains("-            memory: 64Mi")
            && diff.stdout.contains("+            memory: 32Mi"),
        "{diff:?}"
    );
    ensure!(
        s.kubectl.ok_with("apply --dry-run=server -f -", &changed)?
            == "deployment.apps/web configured (server dry run)\n"
    );
    s.prints("get deployment web -o jsonpath={.metadata.generation}", "1")?;
    ensure!(s.kubectl.apply(&changed)? == "deployment.apps/web configured\n");
    // The label that the manifest no longer has is gone, the one that it has is there, the spec is the new one.
    s.prints("get deployment web -o jsonpath={.metadata.labels}{.metadata.generation}", r#"{"color":"blue"}2"#)?;
    s.prints("get deployment web -o jsonpath={.spec.template.spec.containers[0].resources.limits.memory}", "32Mi")?;
    s.says("apply view-last-applied deployment/web", &["memory: 32Mi"])?;

    let stored = s.kubectl.ok("get deployment web -o json")?;
    let next = stored.replace("\"color\": \"blue\"", "\"color\": \"red\"");
    ensure!(s.kubectl.ok_with("replace -f -", &next)? == "deployment.apps/web replaced\n");
    s.refuses_input(
        "replace -f -",
        &next,
        &[
            "Error from server (Conflict)",
            "the object has been modified; please apply your changes to the latest version and try again",
        ],
    )?;
    // kubectl keeps what was last applied in an annotation, which counts as a new generation.
    s.prints("get deployment web -o jsonpath={.metadata.labels.color}{.metadata.generation}", "red3")?;
    let uid = s.kubectl.ok("get deployment web -o jsonpath={.metadata.uid}")?;
    ensure!(s.kubectl.ok_with("replace --force -f -", &manifest)?.ends_with("deployment.apps/web replaced\n"));
    ensure!(s.kubectl.ok("get deployment web -o jsonpath={.metadata.uid}")? != uid);
    s.refuses_input(
        "replace -f -",
        &manifest.replace("name: web", "name: none"),
        &["(NotFound)", "deployments.apps \"none\" not found"],
    )?;

    // Several objects, then without those that went from the set.
    let pair = "# Two.\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {set: s}}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: b, labels: {set: s}}}\n";
    ensure!(s.kubectl.apply(pair)? == "configmap/a created\nconfigmap/b created\n");
    let pruned = s.kubectl.ok_with(
        "apply -f - --prune -l set=s --prune-allowlist=core/v1/ConfigMap",
        pair.split("---").next().unwrap(),
    )?;
    ensure!(pruned == "configmap/a unchanged\nconfigmap/b pruned\n", "{pruned}");
    s.refuses("get configmap b", &["configmaps \"b\" not found"])
}

/// Three types of patch, subresources, labels and annotations.
pub(crate) fn patch_label_annotate(s: &Scene) -> Result<()> {
    s.kubectl.apply(&deployment("web", HELLO, 0))?;
    let patched = "deployment.apps/web patched\n";
    s.prints(r#"patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"A","value":"1"}]}]}}}}"#, patched)?;
    s.prints(r#"patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"B","value":"2"}]}]}}}}"#, patched)?;
    // Merged by name: the image is still there, and the first variable.
    let path = "{.spec.template.spec.containers[*].image}{.spec.template.spec.containers[0].env[*].name}";
    s.prints(&format!("get deployment web -o jsonpath={path}"), &format!("{HELLO}B A"))
        .or_else(|_| s.prints(&format!("get deployment web -o jsonpath={path}"), &format!("{HELLO}A B")))?;
    s.prints(r#"patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"A","$patch":"delete"}]}]}}}}"#, patched)?;
    s.prints("get deployment web -o jsonpath={.spec.template.spec.containers[0].env[*].name}", "B")?;
    s.prints(r#"patch deployment web --type=merge -p {"metadata":{"labels":{"m":"1","app":null}}}"#, patched)?;
    s.prints("get deployment web -o jsonpath={.metadata.labels}", r#"{"m":"1"}"#)?;
    s.prints(r#"patch deployment web --type=json -p [{"op":"test","path":"/spec/replicas","value":0},{"op":"add","path":"/spec/minReadySeconds","value":3}]"#, patched)?;
    s.prints("get deployment web -o jsonpath={.spec.minReadySeconds}", "3")?;
    s.prints(r#"patch deployment web -p {"spec":{"minReadySeconds":3}}"#, "deployment.apps/web patched (no change)\n")?;
    s.refuses(
        r#"patch deployment web --type=json -p [{"op":"test","path":"/spec/replicas","value":7}]"#,
        &["the server rejected our request due to an error in our request"],
    )?;
    s.refuses(
        r#"patch deployment web -p {"metadata":{"name":"other"}}"#,
        &["(BadRequest)", "the name of the object (other) does not match the name on the URL (web)"],
    )?;
    s.refuses(
        r#"patch deployment web -p {"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#,
        &["spec.selector: Invalid value", "field is immutable"],
    )?;
    s.prints(
        r#"patch deployment web --subresource=scale --type=merge -p {"spec":{"replicas":1}}"#,
        "scale.autoscaling/web patched\n",
    )?;
    s.prints("get deployment web -o jsonpath={.spec.replicas}", "1")?;
    s.prints("get deployment web --subresource=scale -o jsonpath={.kind}{.status.selector}", "Scaleapp=web")?;
    s.kubectl.ok("create configmap c")?;
    s.prints(r#"patch configmap c -p {"data":{"a":"b"}} -o jsonpath={.data.a}"#, "b")?;

    s.prints("label configmap c a=b", "configmap/c labeled\n")?;
    s.refuses("label configmap c a=c", &["'a' already has a value (b), and --overwrite is false"])?;
    s.prints("label configmap c a=c d=e --overwrite", "configmap/c labeled\n")?;
    s.says("label configmap c --list", &["a=c", "d=e"])?;
    s.prints("label configmap c a-", "configmap/c unlabeled\n")?;
    s.prints("label configmaps -l d=e f=g", "configmap/c labeled\n")?;
    s.prints("get configmap c -o jsonpath={.metadata.labels}", r#"{"d":"e","f":"g"}"#)?;
    s.refuses("label configmap c a=not_valid_", &["a valid label must be an empty string or consist of"])?;
    s.arguments(&["annotate", "configmap", "c", "note=hello there"])?;
    s.prints("get configmap c -o jsonpath={.metadata.annotations.note}", "hello there")?;
    s.prints("annotate configmap c note-", "configmap/c annotated\n")?;
    s.prints("get configmap c -o jsonpath={.metadata.annotations.note}", "")
}

/// `edit` with an editor that is sed.
pub(crate) fn edit(s: &Scene) -> Result<()> {
    s.kubectl.apply(&deployment("web", HELLO, 0))?;
    let output = s.edit("deployment/web", "s/progressDeadlineSeconds: 600/progressDeadlineSeconds: 300/")?;
    ensure!(output.success && output.stdout == "deployment.apps/web edited\n", "{output:?}");
    s.prints("get deployment web -o jsonpath={.spec.progressDeadlineSeconds}", "300")?;
    let output = s.edit("deployment/web", "s/a/a/")?;
    ensure!(
        output.success && format!("{}{}", output.stdout, output.stderr).contains("Edit cancelled, no changes made."),
        "{output:?}"
    );
    let output = s.edit("deployment/web", "s/progressDeadlineSeconds: 300/progressDeadlineSeconds: -1/")?;
    ensure!(!output.success && output.stderr.contains("deployments.apps \"web\" is invalid"), "{output:?}");
    s.prints("get deployment web -o jsonpath={.spec.progressDeadlineSeconds}", "300")
}

/// The server merges what is applied, and knows who manages which field.
pub(crate) fn apply_on_the_server(s: &Scene) -> Result<()> {
    let manifest = deployment("served", HELLO, 0);
    let apply = "apply --server-side -f -";
    ensure!(s.kubectl.ok_with(apply, &manifest)? == "deployment.apps/served serverside-applied\n");
    let version =
        s.kubectl.ok("get deployment served -o jsonpath={.metadata.managedFields[?(@.operation=='Apply')].time}")?;
    ensure!(s.kubectl.ok_with(apply, &manifest)? == "deployment.apps/served serverside-applied\n");
    s.prints("get deployment served -o jsonpath={.metadata.managedFields[?(@.operation=='Apply')].time}", &version)?;
    ensure!(s.kubectl.ok_with("diff --server-side -f -", &manifest)?.is_empty());
    s.kubectl.ok("set env deployment/served COLOR=blue")?;
    s.kubectl.ok("label deployment served app=other --overwrite")?;
    s.refuses_input(
        apply,
        &manifest,
        &[
            "Apply failed with 1 conflict: conflict with \"kubectl-label\" using apps/v1: .metadata.labels.app",
            "--force-conflicts",
        ],
    )?;
    ensure!(
        s.kubectl.ok_with("apply --server-side --force-conflicts -f -", &manifest)?
            == "deployment.apps/served serverside-applied\n"
    );
    s.prints("get deployment served -o jsonpath={.metadata.labels.app}", "served")?;
    // What others set and the manifest does not name stays.
    s.prints("get deployment served -o jsonpath={.spec.template.spec.containers[0].env[0].value}", "blue")?;
    s.says("get deployment served -o yaml --show-managed-fields", &["manager: kubectl-set", "operation: Apply"])?;

    // From client-side apply to the server's, without a conflict.
    let map = |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: moved}}\ndata: {value}\n");
    s.kubectl.apply(&map("{a: \"1\", b: \"2\"}"))?;
    ensure!(s.kubectl.ok_with(apply, &map("{a: \"3\"}"))? == "configmap/moved serverside-applied\n");
    s.prints("get configmap moved -o jsonpath={.data}", "{\"a\":\"3\"}")?;
    s.kubectl.ok("delete deployment/served configmap/moved")?;
    Ok(())
}
