// The JavaScript client against a running cluster: node clients.js KUBECONFIG

import assert from "node:assert/strict";
import { CoreV1Api, KubeConfig, KubernetesObjectApi, PatchStrategy, Watch, makeInformer, setHeaderOptions } from "@kubernetes/client-node";

const config = new KubeConfig();
config.loadFromFile(process.argv[2]);
const core = config.makeApiClient(CoreV1Api);
const made = await core.createNamespace({ body: { metadata: { generateName: "clients-js-" } } });
const namespace = made.metadata.name;
const path = `/api/v1/namespaces/${namespace}/configmaps`;

const heard = [];
let ended;
const end = new Promise((resolve) => (ended = resolve));
const { metadata } = await core.listNamespacedConfigMap({ namespace });
const query = { resourceVersion: metadata.resourceVersion, fieldSelector: "metadata.name=one" };
const listening = await new Watch(config).watch(path, query, (type) => {
  heard.push(type);
  if (type === "DELETED") ended();
}, () => ended());

const body = { metadata: { name: "one", labels: { app: "x" } }, data: { a: "1" } };
await core.createNamespacedConfigMap({ namespace, body });
await assert.rejects(core.createNamespacedConfigMap({ namespace, body }), (refused) => refused.code === 409);
const found = await core.readNamespacedConfigMap({ namespace, name: "one" });
found.data.a = "2";
await core.replaceNamespacedConfigMap({ namespace, name: "one", body: found });
const patch = async (strategy, change) =>
  core.patchNamespacedConfigMap({ namespace, name: "one", body: change }, setHeaderOptions("Content-Type", strategy));
await patch(PatchStrategy.MergePatch, { data: { b: "3" } });
await patch(PatchStrategy.JsonPatch, [{ op: "remove", path: "/data/a" }]);
await patch(PatchStrategy.StrategicMergePatch, { data: { c: "4" } });
assert.deepEqual((await core.readNamespacedConfigMap({ namespace, name: "one" })).data, { b: "3", c: "4" });
assert.equal((await core.listNamespacedConfigMap({ namespace, labelSelector: "app=x" })).items.length, 1);
await core.deleteNamespacedConfigMap({ namespace, name: "one" });
await end;
listening.abort();
assert.deepEqual(heard, ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]);
console.log("ok: JavaScript, typed and watch");

const objects = KubernetesObjectApi.makeApiClient(config);
const seen = new Promise((resolve, reject) => {
  const informer = makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace }));
  informer.on("add", (object) => {
    if (object.metadata.name !== "two") return;
    informer.stop();
    resolve();
  });
  informer.on("error", (why) => why.type === "aborted" || reject(why));
  informer.start();
});
await objects.create({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "two", namespace }, data: { a: "1" } });
await seen;
await objects.delete({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "two", namespace } });
await core.deleteNamespace({ name: namespace });
console.log("ok: JavaScript, objects and informer");
process.exit(0);
