"""The chart passes Helm's own lint, and what it renders the published schemas of two versions of Kubernetes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "k8s" / "chart"
VERSIONS = ["1.33", kubernetes_validate.latest_version()]
ERROR = 3


def blocks_of_the_guide() -> list[dict[str, Any]]:
    text = (ROOT / "k8s" / "README.md").read_text()
    return [yaml.safe_load(part.split("```", 1)[0]) for part in text.split("```yaml\n")[1:]]


def test_helm_finds_nothing_to_complain_about(values):
    report = helm_python.lint(CHART, values, strict=True, kube_version="v1.33.0")
    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] == ERROR] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_strictly_valid(objects, version):
    assert len(objects) > 5
    for found in objects:
        assert kubernetes_validate.validate(found, version, strict=True).startswith(version[:4])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_would_notice_a_misspelt_field(render, version):
    (workload,) = [found for found in render({}) if found["kind"] == "DaemonSet"]
    workload["spec"]["template"]["spec"]["containers"][0]["startupProbe"]["failureTreshold"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="failureTreshold"):
        kubernetes_validate.validate(workload, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_lines_to_copy_from_the_guide_are_valid_pods(version):
    pods = [block for block in blocks_of_the_guide() if block["kind"] == "Pod"]
    assert len(pods) == 2
    for pod in pods:
        kubernetes_validate.validate(pod, version, strict=True)


def test_the_guides_sidecar_says_the_same_as_the_charts(render):
    (guide,) = [b for b in blocks_of_the_guide() if b["kind"] == "Pod" and "initContainers" in b["spec"]]
    (deployment,) = [
        found
        for found in render({"example": {"enabled": True}}, namespace="allotment")
        if found["metadata"]["name"] == "allotment-example"
        if found["kind"] == "Deployment"
    ]
    theirs, ours = guide["spec"]["initContainers"][0], deployment["spec"]["template"]["spec"]["initContainers"][0]
    environment = {entry["name"]: entry for entry in ours["env"]}
    assert all(environment[entry["name"]] == entry for entry in theirs["env"])
    assert theirs["startupProbe"] == ours["startupProbe"]
    assert {m["mountPath"] for m in theirs["volumeMounts"]} == {m["mountPath"] for m in ours["volumeMounts"]}
    assert theirs["securityContext"].items() >= ours["securityContext"].items()


def test_chart_and_programs_carry_the_same_version(chart):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart.metadata["appVersion"] == project["version"]


def test_the_chart_asks_for_the_oldest_version_that_is_tested(chart):
    assert chart.metadata["kubeVersion"] == f">={VERSIONS[0]}.0-0"
