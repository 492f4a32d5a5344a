//! `create`'s generators, `run`, `expose`.

use anyhow::{Result, ensure};
use wherry_test::get;

use crate::scene::{ECHO, Scene, TICKER, row};

/// What `kubectl create` makes out of words.
pub(crate) fn generators(s: &Scene) -> Result<()> {
    s.prints(
        "create deployment web --image=samples.wherry.dev/hello:1 --port=8080 --replicas=0",
        "deployment.apps/web created\n",
    )?;
    s.prints("create service clusterip plain --tcp=80:8080", "service/plain created\n")?;
    s.prints("create service nodeport outside --tcp=80", "service/outside created\n")?;
    s.prints("create service externalname elsewhere --external-name=example.com", "service/elsewhere created\n")?;
    s.prints("create service loadbalancer balanced --tcp=80", "service/balanced created\n")?;
    s.prints("create service clusterip headless --clusterip=None", "service/headless created\n")?;
    s.prints("create configmap settings --from-literal=a=b --from-literal=c=d", "configmap/settings created\n")?;
    s.prints("create secret generic pass --from-literal=p=q", "secret/pass created\n")?;
    s.prints(
        "create secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
        "secret/pull created\n",
    )?;
    s.prints("create job once --image=samples.wherry.dev/ticker:1", "job.batch/once created\n")?;
    s.arguments(&["create", "cronjob", "often", "--image=samples.wherry.dev/ticker:1", "--schedule=*/5 * * * *"])?;
    s.prints("create job now --from=cronjob/often", "job.batch/now created\n")?;
    s.prints("create serviceaccount robot", "serviceaccount/robot created\n")?;
    s.prints(
        "create role reader --verb=get,list --resource=pods,deployments.apps",
        "role.rbac.authorization.k8s.io/reader created\n",
    )?;
    s.prints(
        "create rolebinding readers --role=reader --user=bob",
        "rolebinding.rbac.authorization.k8s.io/readers created\n",
    )?;
    s.prints("create quota limit --hard=pods=50", "resourcequota/limit created\n")?;
    s.prints(
        "create poddisruptionbudget budget --selector=app=web --min-available=1",
        "poddisruptionbudget.policy/budget created\n",
    )?;
    s.prints("create ingress front --rule=a.example/x=plain:80", "ingress.networking.k8s.io/front created\n")?;
    s.prints("autoscale deployment web --max=3", "horizontalpodautoscaler.autoscaling/web autoscaled\n")?;
    let services = s.kubectl.ok("get services")?;
    for (name, kind, address) in
        [("plain", "ClusterIP", "10.96."), ("headless", "ClusterIP", "None"), ("elsewhere", "ExternalName", "<none>")]
    {
        let words = row(&services, name)?;
        ensure!(words[1] == kind && words[2].starts_with(address), "{services}");
    }
    ensure!(
        row(&services, "elsewhere")?[3] == "example.com" && row(&services, "balanced")?[3] == "<pending>",
        "{services}"
    );
    ensure!(row(&services, "outside")?[4].starts_with("80:3"), "{services}");
    s.prints("get configmap settings -o jsonpath={.data}", r#"{"a":"b","c":"d"}"#)?;
    s.prints("get secret pass -o jsonpath={.data.p}{.type}", "cQ==Opaque")?;
    s.prints("get deployment web -o jsonpath={.spec.template.spec.containers[0].ports[0].containerPort}", "8080")?;
    s.says(
        "get quota,pdb,ingress,hpa,jobs,cronjobs,roles,rolebindings,sa",
        &["a.example", "*/5 * * * *", "Role/reader", "Deployment/web", "job.batch/now"],
    )?;
    s.refuses(
        "create configmap settings",
        &["Error from server (AlreadyExists)", "configmaps \"settings\" already exists"],
    )
    .or_else(|_| {
        s.refuses("create configmap settings", &["failed to create configmap: configmaps \"settings\" already exists"])
    })?;
    // Nothing of a dry run is stored.
    s.says("create configmap dry --dry-run=server -o jsonpath={.metadata.uid}", &["-"])?;
    s.says("create configmap dry --dry-run=client -o yaml", &["kind: ConfigMap"])?;
    s.refuses("get configmap dry", &["configmaps \"dry\" not found"])
}

/// A Pod and its Service out of words, for both kinds; one that ends.
pub(crate) fn run_and_expose(s: &Scene) -> Result<()> {
    for (kind, image) in ECHO {
        s.prints(
            &format!("run {kind} --image={image} --image-pull-policy=IfNotPresent --env=COLOR=blue --labels=kind={kind} --port=8080"),
            &format!("pod/{kind} created\n"),
        )?;
        s.prints(
            &format!("expose pod {kind} --type=NodePort --port=80 --target-port=8080"),
            &format!("service/{kind} exposed\n"),
        )?;
        s.wait(&format!("--for=condition=Ready pod/{kind}"))?;
        s.wait(&format!("--for=jsonpath={{.subsets[0].addresses[0].targetRef.name}}={kind} endpoints/{kind}"))?;
        let answer = wherry_get(&s.address(kind)?, "/env?name=COLOR")?;
        ensure!(answer == "blue", "{answer}");
        // Its environment knows the Services that were there before it.
        let answer = wherry_get(&s.address(kind)?, "/env?name=KUBERNETES_SERVICE_HOST")?;
        ensure!(answer == "10.96.0.1", "{answer}");
    }
    s.says("run x --image=i --restart=Never --dry-run=client -o yaml", &["restartPolicy: Never", "run: x"])?;
    s.says(
        "run x --image=i --dry-run=server -o yaml",
        &["imagePullPolicy: Always", "serviceAccountName: default", "phase: Pending"],
    )?;
    s.says(
        &format!("run both --image={TICKER} --restart=Never --port=80 --expose"),
        &["service/both created\n", "pod/both created\n"],
    )?;
    s.refuses("expose pod none --port=80", &["pods \"none\" not found"])
}

fn wherry_get(address: &str, path: &str) -> Result<String> {
    Ok(get(address, path)?.body)
}
