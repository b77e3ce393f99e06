"""What no schema sees in a pod: the restricted Pod Security Standard, bounded resources, pinned images, time to stop.

Every rule is a function from the objects to its complaints; for each there are ways of spoiling the objects that it
must notice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.running import DRAIN_S, IN_FLIGHT_S
from control_plane.cli.serve import GRACE_S

Objects = list[dict[str, Any]]
Rule = Callable[[Objects], Iterator[str]]

RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
RESTRICTED_VOLUMES |= {"secret"}
ENUMS = {
    "restartPolicy": {"Always"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "protocol": {"TCP", "UDP"},
    "scheme": {"HTTP", "HTTPS"},
    "whenUnsatisfiable": {"ScheduleAnyway", "DoNotSchedule"},
    "medium": {"", "Memory"},
    "whenDeleted": {"Retain", "Delete"},
    "unhealthyPodEvictionPolicy": {"IfHealthyBudget", "AlwaysAllow"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
}
UNITS = {"": 1, "m": 0.001, "k": 1e3, "Ki": 2**10, "M": 1e6, "Mi": 2**20, "G": 1e9, "Gi": 2**30, "Ti": 2**40}


def pods(objects: Objects) -> Iterator[tuple[dict[str, Any], dict[str, str], dict[str, Any]]]:
    """Every workload with the labels and the spec of its pods."""
    for found in objects:
        if found["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            template = found["spec"]["template"]
            yield found, template["metadata"]["labels"], template["spec"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return spec.get("initContainers", []) + spec["containers"]


def each_container(objects: Objects) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for workload, _, spec in pods(objects):
        for container in containers(spec):
            yield f"{workload['metadata']['name']}/{container['name']}", spec, container


def quantity(text: str | int) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", str(text))
    return float(found[1]) * UNITS[found[2]] if found and found[2] in UNITS else float("nan")


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        yield str(key), value
        yield from walk(value)


def quantities_parse(objects: Objects) -> Iterator[str]:
    for key, value in walk(objects):
        if key in {"requests", "limits"}:
            yield from (f"{name}: {q} is no quantity" for name, q in value.items() if math.isnan(quantity(q)))
        if key == "sizeLimit" and not quantity(value) > 0:
            yield f"sizeLimit: {value} is no quantity"


def enums_are_known(objects: Objects) -> Iterator[str]:
    for key, value in walk(objects):
        if isinstance(value, str) and value not in ENUMS.get(key, {value}):
            yield f"{key}: {value}"


def pods_are_restricted(objects: Objects) -> Iterator[str]:
    for workload, _, spec in pods(objects):
        daemon = workload["kind"] == "DaemonSet"
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        if kinds - RESTRICTED_VOLUMES - ({"hostPath"} if daemon else set()):
            yield f"{workload['metadata']['name']} uses volumes {kinds}"
        if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{workload['metadata']['name']} enters the host's namespaces"
        for container in containers(spec):
            security = container["securityContext"]
            root = daemon and container["name"] == "prepare-directories"  # the one documented exception
            wanted = {
                "runAsNonRoot": not root,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]} if root else {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            if security.get("privileged") or not wanted.items() <= security.items():
                yield f"{container['name']} is not restricted: {security}"
            if not root and {**spec["securityContext"], **security}["runAsUser"] != 10001:
                yield f"{container['name']} runs as somebody else"


def tokens_stay_away(objects: Objects) -> Iterator[str]:
    for workload, _, spec in pods(objects):
        if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
            yield f"{workload['metadata']['name']} gets a service account's token or service links"
    for found in objects:
        if found["kind"] == "ServiceAccount" and found.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {found['metadata']['name']} hands out its token"


def resources_are_bounded(objects: Objects) -> Iterator[str]:
    for where, _, container in each_container(objects):
        limits, requests = container["resources"].get("limits", {}), container["resources"].get("requests", {})
        if "memory" not in limits or not {"cpu", "memory"} <= set(requests):
            yield f"{where} has no memory limit or no requests"
        if any(quantity(requests[name]) > quantity(limits.get(name, requests[name])) for name in requests):
            yield f"{where} asks for more than it may have"
    for workload, _, spec in pods(objects):
        disks = [v["emptyDir"] for v in spec["volumes"] if "emptyDir" in v and "medium" not in v["emptyDir"]]
        ephemeral = [c["resources"]["limits"].get("ephemeral-storage") for c in containers(spec)]
        if all(ephemeral) and sum(map(quantity, ephemeral)) < sum(quantity(d["sizeLimit"]) for d in disks):
            yield f"{workload['metadata']['name']} is evicted before its directories are full"


def images_are_pinned(objects: Objects) -> Iterator[str]:
    for where, _, container in each_container(objects):
        image = container["image"]
        if not re.search(r"(@sha256:[0-9a-f]{64}|:[A-Za-z0-9_][A-Za-z0-9_.-]*)$", image) or image.endswith(":latest"):
            yield f"{where} runs {image}"


def stopping_has_time(objects: Objects) -> Iterator[str]:
    needed = max(DRAIN_S + IN_FLIGHT_S, GRACE_S)
    for workload, _, spec in pods(objects):
        hooks = [container.get("lifecycle", {}).get("preStop", {}) for container in containers(spec)]
        slept = sum(hook.get("sleep", {}).get("seconds", 0) for hook in hooks)
        if spec["terminationGracePeriodSeconds"] < slept + needed + 5:
            yield f"{workload['metadata']['name']} is killed before it has drained"


def sidecars_come_first(objects: Objects) -> Iterator[str]:
    for workload, _, spec in pods(objects):
        sidecars = [c.get("restartPolicy") == "Always" for c in spec.get("initContainers", [])]
        if workload["metadata"]["name"].endswith("-example") and sidecars[:1] != [True]:
            yield f"{workload['metadata']['name']} starts before its agent"
        for container, always in zip(spec.get("initContainers", []), sidecars, strict=True):
            if always and "startupProbe" not in container:
                yield f"{container['name']} holds nobody up until it serves"


def pod(objects: Objects, kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = next(f for f in objects if f["kind"] == kind)["spec"]["template"]["spec"]
    return spec


def first(objects: Objects, kind: str) -> dict[str, Any]:
    container: dict[str, Any] = pod(objects, kind)["containers"][0]
    return container


SPOILED: list[tuple[Rule, Callable[[Objects], object]]] = [
    (quantities_parse, lambda o: first(o, "DaemonSet")["resources"]["limits"].update(memory="256Mo")),
    (quantities_parse, lambda o: pod(o, "DaemonSet")["volumes"][-1]["emptyDir"].update(sizeLimit="much")),
    (enums_are_known, lambda o: pod(o, "Deployment")["initContainers"][0].update(restartPolicy="Sometimes")),
    (enums_are_known, lambda o: first(o, "DaemonSet").update(imagePullPolicy="Seldom")),
    (pods_are_restricted, lambda o: first(o, "DaemonSet")["securityContext"].update(privileged=True)),
    (pods_are_restricted, lambda o: first(o, "DaemonSet")["securityContext"].update(runAsUser=0)),
    (pods_are_restricted, lambda o: first(o, "StatefulSet")["securityContext"]["capabilities"].update(add=["CHOWN"])),
    (pods_are_restricted, lambda o: first(o, "Deployment")["securityContext"].pop("readOnlyRootFilesystem")),
    (pods_are_restricted, lambda o: pod(o, "Deployment")["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    (pods_are_restricted, lambda o: pod(o, "DaemonSet").update(hostNetwork=True)),
    (tokens_stay_away, lambda o: pod(o, "DaemonSet").pop("automountServiceAccountToken")),
    (
        tokens_stay_away,
        lambda o: next(f for f in o if f["kind"] == "ServiceAccount").pop("automountServiceAccountToken"),
    ),
    (resources_are_bounded, lambda o: first(o, "StatefulSet")["resources"]["limits"].clear()),
    (resources_are_bounded, lambda o: first(o, "StatefulSet")["resources"]["requests"].update(memory="1Ti")),
    (resources_are_bounded, lambda o: pod(o, "Deployment")["volumes"][0]["emptyDir"].update(sizeLimit="4Gi")),
    (images_are_pinned, lambda o: first(o, "DaemonSet").update(image="allotment/agent")),
    (images_are_pinned, lambda o: first(o, "DaemonSet").update(image="registry:5000/agent:latest")),
    (stopping_has_time, lambda o: pod(o, "DaemonSet").update(terminationGracePeriodSeconds=10)),
    (sidecars_come_first, lambda o: pod(o, "Deployment")["initContainers"][0].pop("restartPolicy")),
    (sidecars_come_first, lambda o: pod(o, "Deployment")["initContainers"][0].pop("startupProbe")),
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
