//! Roles and bindings: what somebody may do, what the answer is, and who may grant it.

use anyhow::{Result, ensure};

use crate::scene::Scene;

/// A user of a namespace does what its role says and nothing else; `auth` tells beforehand.
pub(crate) fn roles(s: &Scene) -> Result<()> {
    let role = "role.rbac.authorization.k8s.io/reader";
    s.prints("create role reader --verb=get,list --resource=pods", &format!("{role} created\n"))?;
    s.prints(
        "create rolebinding readers --role=reader --user=ann",
        "rolebinding.rbac.authorization.k8s.io/readers created\n",
    )?;
    s.prints("auth can-i list pods --as=ann", "yes\n")?;
    for line in ["list secrets", "list pods --all-namespaces", "delete pods", "get pods --subresource=log"] {
        s.refuses(&format!("auth can-i {line} --as=ann"), &["no"])?;
    }
    s.says("auth can-i --list --as=ann", &["pods", "[get list]", "selfsubjectaccessreviews.authorization.k8s.io"])?;
    s.says("auth whoami", &["Username", "kubernetes-admin", "system:masters"])?;
    s.kubectl.ok("get pods --as=ann")?;
    let place = format!("in the namespace {:?}", s.namespace);
    s.refuses(
        "get secrets --as=ann",
        &["(Forbidden)", "User \"ann\" cannot list resource \"secrets\" in API group \"\"", &place],
    )?;
    s.refuses(
        "get nodes --as=ann",
        &["User \"ann\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"],
    )?;
    s.refuses(
        "create rolebinding all --clusterrole=cluster-admin --user=ann --as=ann",
        &["is forbidden: User \"ann\" cannot create"],
    )?;
    reconcile(s)?;
    escalate(s)?;
    aggregate(s)
}

/// `auth reconcile` adds what a role lacks and leaves what it has beyond.
fn reconcile(s: &Scene) -> Result<()> {
    // kubectl does not add the namespace to what it reconciles.
    let wanted = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: reader, namespace: {}}}\nrules:\n\
         - {{apiGroups: [''], resources: [services], verbs: [get]}}\n",
        s.namespace
    );
    let output = s.kubectl.feed("auth reconcile -f -", &wanted)?;
    ensure!(output.success && output.stdout.contains("/reader reconciled"), "{}{}", output.stdout, output.stderr);
    s.prints("auth can-i get services --as=ann", "yes\n")?;
    s.prints("auth can-i list pods --as=ann", "yes\n")
}

/// Who may write roles and bindings grants no more than they hold.
fn escalate(s: &Scene) -> Result<()> {
    s.kubectl.ok("create rolebinding writers --clusterrole=edit --user=bob")?;
    s.kubectl.ok("create role granter --verb=create --resource=roles,rolebindings")?;
    s.kubectl.ok("create rolebinding granters --role=granter --user=bob")?;
    s.kubectl.ok("create role own --verb=list --resource=pods --as=bob")?;
    s.refuses(
        "create role more --verb=bind --resource=roles --as=bob",
        &["is attempting to grant RBAC permissions not currently held", "Resources:[\"roles\"]", "Verbs:[\"bind\"]"],
    )?;
    s.refuses("create rolebinding more --clusterrole=admin --user=bob --as=bob", &["not currently held"])?;
    s.kubectl.ok("create rolebinding viewers --clusterrole=view --user=carol --as=bob")?;
    s.prints("auth can-i watch services --as=carol", "yes\n")?;
    s.refuses("auth can-i get secrets --as=carol", &["no"])
}

/// A ClusterRole gathers the rules of those with its label, now and later.
fn aggregate(s: &Scene) -> Result<()> {
    let (whole, part) = (format!("{}-whole", s.namespace), format!("{}-part", s.namespace));
    s.kubectl.ok(&format!("create clusterrole {whole} --aggregation-rule=team={}", s.namespace))?;
    s.kubectl.ok(&format!("create clusterrole {part} --verb=get --resource=services"))?;
    s.kubectl.ok(&format!("label clusterrole {part} team={}", s.namespace))?;
    s.wait(&format!("--for=jsonpath={{.rules[0].resources[0]}}=services clusterrole/{whole}"))?;
    s.says(&format!("delete clusterrole {whole} {part}"), &["deleted"]).map(drop)
}
