"""The chart as the real Helm library renders it, for every way of installing it; the images as far as they go here."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "k8s" / "chart"
IMAGES = ROOT / "k8s" / "images"

Values = dict[str, Any]
Objects = list[dict[str, Any]]
Render = Callable[..., Objects]

NO_DAEMONS = {"daemonSet": {"enabled": False}}
POSTGRESQL = {"kind": "postgresql", "existingSecret": "allotment-database"}
TLS = {"enabled": True, "secretName": "allotment-tls"}
EVERYTHING: Values = {
    "fullnameOverride": "metering",
    "images": {"agent": {"repository": "registry.example:5000/allotment/agent", "digest": "sha256:" + "a" * 64}},
    "imagePullSecrets": [{"name": "registry"}],
    "tokens": {
        "admin": {"existingSecret": "admin-token", "key": "admin.token"},
        "join": {"existingSecret": "join-token", "key": "value"},
    },
    "tls": {**TLS, "caSecretName": "authority", "caKey": "root.pem"},
    "database": {**POSTGRESQL, "key": "uri"},
    "controlPlane": {
        "replicas": 3,
        "host": "::",
        "port": 9443,
        "learningMinutes": 30,
        "retentionDays": 3_650,
        "graceDays": 20,
        "sealKey": {"existingSecret": "seal-key", "key": "seal"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "platform"},
        "tolerations": [{"key": "platform", "operator": "Exists"}],
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"example/internal": "true"}},
    },
    "agent": {
        "daemonSet": {
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "maxUnavailable": 1,
            "priorityClass": {"create": False, "name": "system-node-critical"},
            "seLinuxOptions": {"type": "spc_t"},
        }
    },
    "example": {"enabled": True, "replicas": 2},
    "networkPolicy": {
        "agentNamespaces": [{"matchLabels": {"team": "chat"}}],
        "clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "dns": [],
        "postgresql": {"to": [{"podSelector": {"matchLabels": {"app": "postgresql"}}}], "port": 6432},
    },
}
CASES: dict[str, Values] = {
    "sqlite and daemonset": {},
    "sqlite and daemonset over tls": {"tls": TLS},
    "sqlite and sidecar": {"agent": NO_DAEMONS, "example": {"enabled": True}},
    "postgresql and daemonset": {"database": POSTGRESQL},
    "postgresql and sidecar over tls": {
        "database": POSTGRESQL,
        "tls": TLS,
        "agent": NO_DAEMONS,
        "example": {"enabled": True},
    },
    "directories made by hand, no policies": {
        "agent": {"daemonSet": {"prepareDirectories": False}},
        "networkPolicy": {"enabled": False},
    },
    "everything said": EVERYTHING,
}


class _NoRepeatedKeys(yaml.CSafeLoader):
    """YAML as Kubernetes reads it strictly: a key given twice is an error, not the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is given twice, near {node.start_mark}: {keys}"
        return super().construct_mapping(node, deep)


@pytest.fixture(scope="session")
def chart() -> Iterator[helm_python.Chart]:
    with helm_python.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: helm_python.Chart) -> Render:
    """Values to objects."""

    def rendered(values: Values, name: str = "allotment", namespace: str = "metering") -> Objects:
        files = chart.render(values, name=name, namespace=namespace)
        texts = [text for file, text in files.items() if not file.endswith("NOTES.txt")]
        return [found for text in texts for found in yaml.load_all(text, Loader=_NoRepeatedKeys) if found]

    return rendered


@pytest.fixture(params=CASES, scope="session")
def values(request: pytest.FixtureRequest) -> Values:
    return CASES[request.param]


@pytest.fixture(scope="session")
def objects(render: Render, values: Values) -> Objects:
    """What one way of installing puts into the cluster; to be looked at only."""
    return render(values)


class Image:
    """What a Dockerfile says, and its programs as its steps would install them."""

    def __init__(self, name: str) -> None:
        self.path = IMAGES / f"{name}.Dockerfile"
        text = re.sub(r"^#.*\n|\\\n", "", self.path.read_text(), flags=re.MULTILINE)
        steps = [line.strip().split(None, 1) for line in text.splitlines() if line.strip()]
        self.steps = [(word, rest) for word, rest in steps]
        self.final = self.steps[max(at for at, (word, _) in enumerate(self.steps) if word == "FROM") :]
        self.sources = [source for word, rest in self.steps if word == "COPY" for source in copied(rest)]

    def list_of(self, word: str) -> list[str]:
        """The last exec form of an instruction, as it is in the final stage; empty if there is none."""
        found: list[str] = next((json.loads(rest) for w, rest in reversed(self.final) if w == word), [])
        return found

    def value_of(self, word: str) -> str:
        return next((rest for w, rest in reversed(self.final) if w == word), "")

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.value_of("ENV").split())

    @property
    def extra(self) -> str:
        """Which extra of the root distribution it installs."""
        return re.findall(r"\.\[([a-z-]+)\]", " ".join(rest for word, rest in self.steps if word == "RUN"))[0]


def copied(arguments: str) -> list[str]:
    words = arguments.split()
    return [] if words[0].startswith("--from=") else words[:-1]


@pytest.fixture(scope="session", params=["agent", "control-plane"])
def image(request: pytest.FixtureRequest) -> Image:
    return Image(request.param)


@pytest.fixture(scope="session")
def images() -> dict[str, Image]:
    """By the name that the chart gives to each."""
    return {f"allotment/{name}": Image(name) for name in ("agent", "control-plane")}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the images install, built from what they copy and nothing else; its scripts are in ``bin``.

    Third parties' packages come from the environment that the tests run in.
    """
    home = tmp_path_factory.mktemp("images")
    context, target = home / "src", home / "installed"
    context.mkdir()
    for source in sorted({source for name in ("agent", "control-plane") for source in Image(name).sources}):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, context / source, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        else:
            shutil.copy(ROOT / source, context / source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home)]
    subprocess.run(build, cwd=context, check=True, capture_output=True, timeout=120)
    (wheel,) = home.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    (target / "bin").mkdir()
    (found,) = importlib.metadata.distributions(path=[str(target)])
    for script in found.entry_points.select(group="console_scripts"):
        module, function = script.value.split(":")
        path = target / "bin" / script.name
        path.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        path.chmod(0o755)
    return target
