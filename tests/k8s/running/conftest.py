"""Starts what the chart renders: the images' entry points with the rendered arguments, environment, files and probes.

A directory stands in for each volume, ``localhost`` for the Service; everything else is as the kubelet would have it.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

NODE = "node-1.example"
POD = "allotment-example-6d5f-x2v9p"
SERVICE = "allotment-control-plane.metering.svc"
PATIENCE_S = 40.0
STOP_S = 25.0  # more than either program gives itself


class Container:
    """One running container: what its spec says, in a process."""

    def __init__(self, cluster: Cluster, home: Path, spec: dict[str, Any], pod: dict[str, Any]) -> None:
        self.spec, self._cluster = spec, cluster
        home.mkdir(exist_ok=True)
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounts = spec.get("volumeMounts", [])
        self._paths = {
            m["mountPath"]: cluster.volume(home, volumes.get(m["name"], {"name": m["name"]})) for m in mounts
        }
        image = cluster.images[spec["image"].rpartition(":")[0]]
        self._environment = {
            **image.environment,
            "PATH": f"{cluster.installed / 'bin'}:{Path(sys.executable).parent}",
            "PYTHONPATH": str(cluster.installed),
            "TMPDIR": self._here("/tmp"),
            **{entry["name"]: self._value(entry) for entry in spec.get("env", [])},
        }
        words = spec.get("command", image.list_of("ENTRYPOINT")) + spec.get("args", image.list_of("CMD"))
        self._log = home / f"{spec['name']}.log"
        with self._log.open("wb") as log:
            self.process = self._start(words, stdout=log, stderr=subprocess.STDOUT)

    def _here(self, text: str) -> str:
        """The same text with every mount path replaced, once, by the directory that stands in for it."""
        paths = "|".join(re.escape(path) for path in sorted(self._paths, key=len, reverse=True))
        here = re.sub(rf"({paths})(?![\w.-])", lambda found: str(self._paths[found[1]]), text)
        return here.replace(SERVICE, "localhost")

    def _value(self, entry: dict[str, Any]) -> str:
        match entry:
            case {"value": value}:
                return self._here(value)
            case {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}:
                return NODE
            case {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}:
                return POD
            case {"valueFrom": {"secretKeyRef": reference}}:
                return self._cluster.secrets[reference["name"]][reference["key"]]
        raise AssertionError(f"no value for {entry}")

    def _start(self, words: list[str], **options: Any) -> subprocess.Popen[bytes]:
        program = shutil.which(words[0], path=self._environment["PATH"])
        assert program, f"the image has no {words[0]}"
        arguments = [program, *(self._here(word) for word in words[1:])]
        return subprocess.Popen(arguments, env=self._environment, cwd="/", stdin=subprocess.DEVNULL, **options)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def passes(self, probe: str) -> bool:
        """Run one of the spec's probes once."""
        match self.spec[probe]:
            case {"exec": {"command": words}}:
                run = self._start(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                return run.wait(timeout=self.spec[probe]["timeoutSeconds"]) == 0
            case {"httpGet": {"path": path, "port": port, "scheme": scheme}}:
                number = next(p["containerPort"] for p in self.spec["ports"] if p["name"] == port)
                trusting = ssl._create_unverified_context()  # the kubelet does not check certificates either
                try:
                    url = f"{scheme.lower()}://127.0.0.1:{number}{path}"
                    with urllib.request.urlopen(url, timeout=5, context=trusting if scheme == "HTTPS" else None) as got:
                        return bool(got.status == 200)
                except OSError:
                    return False
        raise AssertionError(f"no such probe: {self.spec[probe]}")

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Raises: AssertionError: the process ended first, or time was up; with its log."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            assert self.process.poll() is None, f"{self.spec['name']} ended before {what}:\n{self.log()}"
            assert time.monotonic() < deadline, f"{self.spec['name']}: no {what}:\n{self.log()}"
            time.sleep(0.05)

    def is_up(self) -> Container:
        for probe in [probe for probe in ("startupProbe", "readinessProbe") if probe in self.spec]:
            self.until(lambda probe=probe: self.passes(probe), probe)
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_S)


class Cluster:
    """The rendered objects, the Secrets that somebody else brings, and a directory for all volumes."""

    node, pod = NODE, POD

    def __init__(self, home: Path, images: dict[str, Any], installed: Path) -> None:
        self.home, self.images, self.installed = home, images, installed
        self.secrets: dict[str, dict[str, str]] = {}
        self.config_maps: dict[str, dict[str, str]] = {}
        self.workloads: dict[str, dict[str, Any]] = {}
        self.running: list[Container] = []

    def apply(self, objects: list[dict[str, Any]]) -> None:
        for found in objects:
            name = found["metadata"]["name"]
            if found["kind"] == "Secret":
                self.secrets[name] = {k: base64.b64decode(v).decode() for k, v in found["data"].items()}
            elif found["kind"] == "ConfigMap":
                self.config_maps[name] = found["data"]
            elif "template" in found.get("spec", {}):
                self.workloads[name] = found["spec"]["template"]["spec"]

    def volume(self, home: Path, volume: dict[str, Any]) -> Path:
        """A directory of that name in the pod's own, with the files that belong in it."""
        directory = home / volume["name"]
        directory.mkdir(exist_ok=True)
        sources = volume.get("projected", {}).get("sources", [volume])
        for source in sources:
            data, items = {}, []
            if "secret" in source:
                secret = source["secret"]
                data, items = self.secrets[secret.get("secretName") or secret["name"]], secret.get("items")
            elif "configMap" in source:
                data, items = self.config_maps[source["configMap"]["name"]], source["configMap"].get("items")
            for item in items or [{"key": key, "path": key} for key in data]:
                (directory / item["path"]).write_text(data[item["key"]])
        return directory

    def run(self, workload: str, container: str, replica: int = 0) -> Container:
        pod = self.workloads[workload]
        (spec,) = [c for c in pod.get("initContainers", []) + pod["containers"] if c["name"] == container]
        self.running.append(Container(self, self.home / f"{workload}-{replica}", spec, pod))
        return self.running[-1]

    def ask(self, url: str, authority: Path | None = None, body: str | None = None) -> Any:
        """GET, or PUT a body, as the admin whose token is in the Secret."""
        token = self.secrets["allotment-admin-token"]["token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else body.encode()
        request = urllib.request.Request(url, data, headers, method="GET" if data is None else "PUT")
        trust = ssl.create_default_context(cafile=str(authority)) if authority else None
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return json.load(answer)

    def follow(self, notes: str, address: str, authority: Path) -> None:
        """Do what the notes' curl commands do."""
        commands = [shlex.split(line) for line in notes.splitlines() if line.strip().startswith("curl ")]
        assert len(commands) == 6
        for words in commands:
            (url,) = [word for word in words if word.startswith("https://")]
            bodies = [body for flag, body in itertools.pairwise(words) if flag == "-d"]
            assert ("PUT" in words) == bool(bodies)
            self.ask(url.replace(f"{SERVICE}:8080", address), authority, *bodies)

    def close(self) -> None:
        for container in self.running:
            if container.process.poll() is None:
                container.process.kill()
                container.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def cluster(images: dict[str, Any], installed: Path) -> Iterator[Cluster]:
    # A short path: a socket's has 107 bytes at most.
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="pod-", dir="/tmp")), images, installed)
    yield cluster
    cluster.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def another_port() -> int:
    return free_port()


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """What a kubernetes.io/tls Secret for ``localhost`` holds; Helm makes it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: certificate, version: 0.0.1}")
    (tmp_path / "templates" / "certificate.yaml").write_text(
        '{{ $ca := genCA "authority" 1 }}{{ $made := genSignedCert "localhost" nil (list "localhost") 1 $ca }}'
        '{{ dict "ca.crt" $ca.Cert "tls.crt" $made.Cert "tls.key" $made.Key | toYaml }}'
    )
    with helm_python.Chart.load(tmp_path) as chart:
        (text,) = chart.render({}, name="certificate").values()
    made: dict[str, str] = yaml.safe_load(text)
    return made
