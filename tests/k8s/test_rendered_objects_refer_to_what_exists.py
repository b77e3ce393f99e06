"""What no schema sees: selectors that match, names that resolve, ports that exist, doors open to the right ones.

Every rule is a function from the objects to its complaints; for each there are ways of spoiling the objects that it
must notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Objects = list[dict[str, Any]]
Rule = Callable[[Objects], Iterator[str]]

# Secrets and classes that the operator or the cluster brings.
BROUGHT = {
    ("Secret", "allotment-database"),
    ("Secret", "allotment-tls"),
    ("Secret", "admin-token"),
    ("Secret", "join-token"),
    ("Secret", "authority"),
    ("Secret", "seal-key"),
    ("Secret", "registry"),
    ("PriorityClass", "system-node-critical"),
    ("PriorityClass", "system-cluster-critical"),
}


def pods(objects: Objects) -> Iterator[tuple[dict[str, Any], dict[str, str], dict[str, Any]]]:
    """Every workload with the labels and the spec of its pods."""
    for found in objects:
        if found["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            template = found["spec"]["template"]
            yield found, template["metadata"]["labels"], template["spec"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return spec.get("initContainers", []) + spec["containers"]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        yield str(key), value
        yield from walk(value)


def selectors_match(objects: Objects) -> Iterator[str]:
    for workload, labels, _ in pods(objects):
        if not matches(workload["spec"]["selector"], labels):
            yield f"{workload['metadata']['name']} does not select its own pods"
    for found in objects:
        selector = {"Service": found.get("spec", {}).get("selector")}.get(found["kind"])
        wanted = {"matchLabels": selector} if selector else found.get("spec", {}).get("selector")
        if found["kind"] in {"Service", "PodDisruptionBudget"} and wanted:
            count = sum(matches(wanted, labels) for _, labels, _ in pods(objects))
            if count != 1:
                yield f"{found['kind']} {found['metadata']['name']} selects the pods of {count} workloads"


def volumes_resolve(objects: Objects) -> Iterator[str]:
    for workload, _, spec in pods(objects):
        claims = workload["spec"].get("volumeClaimTemplates", [])
        there = [v["name"] for v in spec.get("volumes", [])] + [c["metadata"]["name"] for c in claims]
        mounts = [mount for container in containers(spec) for mount in container.get("volumeMounts", [])]
        if len(set(there)) != len(there) or set(there) != {mount["name"] for mount in mounts}:
            yield f"{workload['metadata']['name']}: volumes {there}, mounted {sorted({m['name'] for m in mounts})}"
        for container in containers(spec):
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            if len(set(paths)) != len(paths):
                yield f"{container['name']} mounts twice at one path"


def references(spec: dict[str, Any]) -> Iterator[tuple[str, str, set[str]]]:
    """(kind, name, keys) that a pod needs to exist."""
    yield "ServiceAccount", spec["serviceAccountName"], set()
    if "priorityClassName" in spec:
        yield "PriorityClass", spec["priorityClassName"], set()
    for key, value in walk(spec):
        match key:
            case "secret":
                yield "Secret", value.get("secretName") or value["name"], {i["key"] for i in value.get("items", [])}
            case "configMap":
                yield "ConfigMap", value["name"], {item["key"] for item in value.get("items", [])}
            case "secretKeyRef":
                yield "Secret", value["name"], {value["key"]}
            case "imagePullSecrets":
                yield from (("Secret", item["name"], set()) for item in value)


def references_resolve(objects: Objects) -> Iterator[str]:
    there = {(found["kind"], found["metadata"]["name"]): set(found.get("data", {})) for found in objects}
    for workload, _, spec in pods(objects):
        if "serviceName" in workload["spec"] and ("Service", workload["spec"]["serviceName"]) not in there:
            yield f"{workload['metadata']['name']} has no governing Service"
        for kind, name, keys in references(spec):
            if (kind, name) in BROUGHT:
                continue
            if (kind, name) not in there:
                yield f"{kind} {name} does not exist"
            elif not keys <= there[kind, name]:
                yield f"{kind} {name} lacks {keys - there[kind, name]}"


def ports_exist(objects: Objects) -> Iterator[str]:
    for container in (container for _, _, spec in pods(objects) for container in containers(spec)):
        names = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            check = container.get(probe, {}).get("httpGet")
            if check and check["port"] not in names:
                yield f"{container['name']}: {probe} asks port {check['port']}"
    for found in objects:
        if found["kind"] == "Service":
            served = [s for _, labels, s in pods(objects) if found["spec"]["selector"].items() <= labels.items()]
            names = {p["name"] for s in served for c in s["containers"] for p in c.get("ports", [])}
            yield from (f"Service sends to {p}" for p in found["spec"]["ports"] if p["targetPort"] not in names)


def policies_of(objects: Objects, labels: dict[str, str], direction: str) -> list[dict[str, Any]]:
    policies = [found["spec"] for found in objects if found["kind"] == "NetworkPolicy"]
    return [p for p in policies if direction in p["policyTypes"] and matches(p["podSelector"], labels)]


def admits(rules: list[dict[str, Any]], side: str, labels: dict[str, str], port: int) -> bool:
    """Whether any of a policy's rules lets pods of our own namespace with these labels through, on this port."""
    return any(
        port in {entry["port"] for entry in rule["ports"]}
        and any(
            "podSelector" in p and "namespaceSelector" not in p and matches(p["podSelector"], labels)
            for p in rule[side]
        )
        for rule in rules
        if side in rule
    )


def policies_cover_and_connect(objects: Objects) -> Iterator[str]:
    if not any(found["kind"] == "NetworkPolicy" for found in objects):
        return
    labelled = {workload["metadata"]["name"]: (labels, spec) for workload, labels, spec in pods(objects)}
    for name, (labels, _) in labelled.items():
        if not (policies_of(objects, labels, "Ingress") and policies_of(objects, labels, "Egress")):
            yield f"{name} is open: no policy covers it in both directions"
    (centre, centre_spec) = next(pair for name, pair in labelled.items() if name.endswith("-control-plane"))
    port = centre_spec["containers"][0]["ports"][0]["containerPort"]
    into = [rule for policy in policies_of(objects, centre, "Ingress") for rule in policy.get("ingress", [])]
    for name, (labels, _) in labelled.items():
        out = [rule for policy in policies_of(objects, labels, "Egress") for rule in policy.get("egress", [])]
        wanted = not name.endswith("-control-plane")
        if admits(out, "to", centre, port) != wanted or admits(into, "from", labels, port) != wanted:
            yield f"{name} {'cannot' if wanted else 'can'} reach the control plane"
        if wanted and 53 not in {entry["port"] for rule in out for entry in rule["ports"]}:
            yield f"{name} cannot ask DNS"
        if wanted and any(p.get("ingress") for p in policies_of(objects, labels, "Ingress")):
            yield f"{name} lets somebody in"


def objects_are_named_once(objects: Objects) -> Iterator[str]:
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    yield from (f"{name} is there twice" for name in set(names) if names.count(name) > 1)
    for found in objects:
        metadata = found["metadata"]
        if (metadata.get("namespace") is None) != (found["kind"] == "PriorityClass"):
            yield f"{found['kind']} {metadata['name']} is in no namespace, or should be in none"
        if metadata["labels"].get("app.kubernetes.io/part-of") != "allotment" or len(metadata["name"]) > 63:
            yield f"{found['kind']} {metadata['name']} is not labelled as ours, or has too long a name"


def named(objects: Objects, kind: str) -> dict[str, Any]:
    return next(found for found in objects if found["kind"] == kind)


def pod(objects: Objects, kind: str) -> dict[str, Any]:
    return named(objects, kind)["spec"]["template"]


def drop(objects: Objects, kind: str) -> None:
    objects[:] = [found for found in objects if found["kind"] != kind]


SPOILED: list[tuple[Rule, Callable[[Objects], object]]] = [
    (selectors_match, lambda o: pod(o, "DaemonSet")["metadata"]["labels"].pop("app.kubernetes.io/component")),
    (selectors_match, lambda o: named(o, "Service")["spec"]["selector"].update(tier="other")),
    (selectors_match, lambda o: named(o, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].clear()),
    (volumes_resolve, lambda o: pod(o, "DaemonSet")["spec"]["volumes"].pop()),
    (volumes_resolve, lambda o: named(o, "StatefulSet")["spec"].pop("volumeClaimTemplates")),
    (
        volumes_resolve,
        lambda o: pod(o, "DaemonSet")["spec"]["containers"][0]["volumeMounts"][0].update(mountPath="/tmp"),
    ),
    (references_resolve, lambda o: drop(o, "Secret")),
    (references_resolve, lambda o: drop(o, "ConfigMap")),
    (references_resolve, lambda o: drop(o, "ServiceAccount")),
    (references_resolve, lambda o: drop(o, "PriorityClass")),
    (references_resolve, lambda o: named(o, "Secret").update(data={"other": ""})),
    (references_resolve, lambda o: named(o, "StatefulSet")["spec"].update(serviceName="other")),
    (
        ports_exist,
        lambda o: pod(o, "StatefulSet")["spec"]["containers"][0]["livenessProbe"]["httpGet"].update(port="web"),
    ),
    (ports_exist, lambda o: named(o, "Service")["spec"]["ports"][0].update(targetPort="web")),
    (policies_cover_and_connect, lambda o: pod(o, "DaemonSet")["metadata"]["labels"].pop("allotment/agent")),
    (policies_cover_and_connect, lambda o: pod(o, "Deployment")["metadata"]["labels"].clear()),
    (
        policies_cover_and_connect,
        lambda o: next(f for f in o if f["metadata"]["name"] == "allotment-agent" and f["kind"] == "NetworkPolicy")[
            "spec"
        ]["egress"].pop(0),
    ),
    (objects_are_named_once, lambda o: o.append(o[0])),
    (objects_are_named_once, lambda o: named(o, "Service")["metadata"].pop("namespace")),
    (objects_are_named_once, lambda o: named(o, "Service")["metadata"]["labels"].clear()),
]
RULES = list(dict.fromkeys(rule for rule, _ in SPOILED))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_way_of_installing_keeps_the_rule(objects, rule):
    assert list(rule(objects)) == []


@pytest.mark.parametrize(("rule", "spoil"), SPOILED, ids=[rule.__name__ for rule, _ in SPOILED])
def test_a_spoiled_object_is_noticed(render, rule, spoil):
    objects = render({"example": {"enabled": True}})
    spoil(objects)
    assert list(rule(objects)) != []
