"""The Python client against a running cluster: clients.py KUBECONFIG"""

import sys
import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: found {found!r}, wanted {wanted!r}")


config.load_kube_config(sys.argv[1])
core = client.CoreV1Api()
namespace = core.create_namespace(
    client.V1Namespace(metadata=client.V1ObjectMeta(generate_name="clients-python-"))
).metadata.name

heard = []
started = core.list_namespaced_config_map(namespace).metadata.resource_version


def listen():
    for event in watch.Watch().stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=started,
        field_selector="metadata.name=one",
        timeout_seconds=60,
    ):
        heard.append(event["type"])
        if event["type"] == "DELETED":
            return


listener = threading.Thread(target=listen)
listener.start()

body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="one", labels={"app": "x"}), data={"a": "1"})
core.create_namespaced_config_map(namespace, body)
try:
    core.create_namespaced_config_map(namespace, body)
    sys.exit("a second create went well")
except ApiException as refused:
    expect("a second create", (refused.status, refused.reason), (409, "Conflict"))
found = core.read_namespaced_config_map("one", namespace)
found.data["a"] = "2"
core.replace_namespaced_config_map("one", namespace, found)
core.patch_namespaced_config_map("one", namespace, {"data": {"b": "3"}})
core.patch_namespaced_config_map("one", namespace, [{"op": "remove", "path": "/data/a"}])
expect("what was written", core.read_namespaced_config_map("one", namespace).data, {"b": "3"})
expect("the list", len(core.list_namespaced_config_map(namespace, label_selector="app=x").items), 1)
core.delete_namespaced_config_map("one", namespace)
listener.join(60)
expect("heard", heard, ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"])
print("ok: Python, typed")

maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
maps.create({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "two"}, "data": {"a": "1"}}, namespace=namespace)
maps.patch({"metadata": {"name": "two"}, "data": {"b": "2"}}, namespace=namespace, content_type="application/merge-patch+json")
applied = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "two"}, "data": {"c": "3"}}
maps.server_side_apply(applied, name="two", namespace=namespace, field_manager="clients")
expect("what was applied", dict(maps.get(name="two", namespace=namespace).data), {"a": "1", "b": "2", "c": "3"})
maps.delete(name="two", namespace=namespace)
core.delete_namespace(namespace)
print("ok: Python, dynamic")
