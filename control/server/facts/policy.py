#!/usr/bin/env python3
"""Writes the table of default RBAC roles and bindings that the crate wherry-server reads. Run by hand, never by the build:

    ./policy.py "$(go env GOMODCACHE)/k8s.io/kubernetes@v1.36.3" > ../src/rbac/defaults/table.txt

The source is what upstream checks its own bootstrap policy against; the format is described in ../src/rbac/defaults/mod.rs.
"""
import pathlib
import sys

import yaml

TESTDATA = "plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata"
FILES = ["cluster-roles", "controller-roles", "namespace-roles",
         "cluster-role-bindings", "controller-role-bindings", "namespace-role-bindings"]
AUTOUPDATE = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
DEFAULTS = ("kubernetes.io/bootstrapping", "rbac-defaults")
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


def joined(words):
    assert all(word not in ("", "-") or word == "" for word in words)
    return ",".join(word or "-" for word in words)


def rule(r):
    verbs = joined(r["verbs"])
    if "nonResourceURLs" in r:
        return f"{verbs} url {joined(r['nonResourceURLs'])}"
    names = f" {joined(r['resourceNames'])}" if "resourceNames" in r else ""
    return f"{verbs} {joined(r['apiGroups'])} {joined(r['resources'])}{names}"


def subject(s):
    if s["kind"] == "ServiceAccount":
        return f"account:{s['namespace']}/{s['name']}"
    assert s["apiGroup"] == "rbac.authorization.k8s.io", s
    return f"{s['kind'].lower()}:{s['name']}"


def lines(item):
    meta = item["metadata"]
    assert meta["annotations"] == AUTOUPDATE, meta
    labels = dict(meta["labels"])
    assert labels.pop(DEFAULTS[0]) == DEFAULTS[1]
    head = [item["kind"], f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]]
    if item["kind"].endswith("Binding"):
        assert not labels
        head.append(f"{item['roleRef']['kind']}/{item['roleRef']['name']}")
        return [" ".join(head + [subject(s) for s in item.get("subjects") or []])]
    for key in sorted(labels):
        assert key.startswith(AGGREGATE) and labels[key] == "true", labels
        head.append("to:" + key.removeprefix(AGGREGATE))
    for selector in item.get("aggregationRule", {}).get("clusterRoleSelectors", []):
        (key, value), = selector["matchLabels"].items()
        assert key.startswith(AGGREGATE) and value == "true"
        head.append("of:" + key.removeprefix(AGGREGATE))
    for r in item["rules"] or []:
        # Where upstream's controllers update, those of this project may patch.
        if meta["name"].startswith(("system:controller:", "system:kube-controller-manager")) and "update" in r["verbs"]:
            r["verbs"] = sorted({*r["verbs"], "patch"})
    return [" ".join(head)] + ["  " + rule(r) for r in item["rules"] or []]


def main():
    root = pathlib.Path(sys.argv[1]) / TESTDATA
    for name in FILES:
        for item in yaml.safe_load((root / f"{name}.yaml").read_text())["items"]:
            print("\n".join(lines(item)))


main()
