//! Images that are pulled, cannot be pulled, must not be pulled; configuration that is missing.

use super::{Scenario, pod};
use crate::stage::{ready, waiting};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "pull",
            manifest: || pod("", "imagePullPolicy: Always").replace("IMAGE", "REMOTE"),
            play: |stage| stage.until("ready", ready("True")),
            expected: "
<pod running> > True
<echo runs>
Normal Pulling spec.containers{echo}: Pulling image \"REMOTE\"
Normal Pulled spec.containers{echo}: Successfully pulled image \"REMOTE\" in * (* including waiting). Image size: * bytes.
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started",
        },
        Scenario {
            name: "no-image",
            manifest: || pod("", "imagePullPolicy: IfNotPresent").replace("IMAGE", "REGISTRY/none:1"),
            play: |stage| stage.until("backs off", waiting("ImagePullBackOff")),
            expected: "
<pod pending>
<echo waits> ErrImagePull (*) > ImagePullBackOff (Back-off pulling image \"REGISTRY/none:1\": ErrImagePull: *)
Normal Pulling spec.containers{echo}: Pulling image \"REGISTRY/none:1\"
Warning Failed spec.containers{echo}: Failed to pull image \"REGISTRY/none:1\": *
Warning Failed spec.containers{echo}: Error: ErrImagePull
Normal BackOff spec.containers{echo}: Back-off pulling image \"REGISTRY/none:1\"
Warning Failed spec.containers{echo}: Error: ImagePullBackOff",
        },
        Scenario {
            name: "never-pull",
            manifest: || pod("", "imagePullPolicy: Never").replace("IMAGE", "REGISTRY/none:1"),
            play: |stage| stage.until("waits", waiting("ErrImageNeverPull")),
            expected: "
<pod pending>
<echo waits> ErrImageNeverPull (Container image \"REGISTRY/none:1\" is not present with pull policy of Never)
Warning ErrImageNeverPull spec.containers{echo}: Container image \"REGISTRY/none:1\" is not present with pull policy of Never
Warning Failed spec.containers{echo}: Error: ErrImageNeverPull",
        },
        Scenario {
            name: "bad-name",
            manifest: || pod("", "").replace("IMAGE", "Not/A/Name:1"),
            play: |stage| stage.until("waits", waiting("InvalidImageName")),
            expected: "
<pod pending>
<echo waits> InvalidImageName (Failed to apply default image tag \"Not/A/Name:1\": *)
Warning InspectFailed spec.containers{echo}: Failed to apply default image tag \"Not/A/Name:1\": *
Warning Failed spec.containers{echo}: Error: InvalidImageName",
        },
        Scenario {
            name: "configuration",
            manifest: || {
                let variables = "
env:
  - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
  - {name: TOKEN, valueFrom: {secretKeyRef: {name: secrets, key: token}}}
  - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
  - {name: BOTH, value: $(POD)-$(COLOUR)-$$(POD)}
envFrom: [{prefix: ALL_, configMapRef: {name: settings}}]
resources: {limits: {memory: 64Mi}}";
                pod("", variables)
            },
            play: |stage| {
                stage.until("waits", waiting("CreateContainerConfigError"))?;
                stage.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: secrets}\nstringData: {token: t0}")?;
                stage.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}")?;
                stage.until("ready", ready("True"))?;
                for (name, value) in [
                    ("COLOUR", "blue"),
                    ("TOKEN", "t0"),
                    ("POD", "echo"),
                    ("NODE", "wherry-0"),
                    ("MEMORY", "67108864"),
                    ("BOTH", "echo-blue-$(POD)"),
                    ("ALL_colour", "blue"),
                    ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
                    ("ECHO_SERVICE_PORT", "80"),
                ] {
                    let found = stage.ok(&format!("/env?name={name}"))?;
                    anyhow::ensure!(found == value, "{name}={found}");
                }
                Ok(())
            },
            expected: "
<pod running> > True
echo: ContainerCreating > CreateContainerConfigError (configmap \"settings\" not found) > Running
echo restarts: 0
echo started: false > true
echo ready: false > true
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Warning Failed spec.containers{echo}: Error: configmap \"settings\" not found
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started",
        },
    ]
}
