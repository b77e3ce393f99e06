"""The Dockerfiles, followed as far as that goes without a builder: what they copy, install, start, and as whom."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
OURS = {"agent", "control_plane", "protocol"}
PREPARE = ROOT / "k8s" / "chart" / "files" / "prepare_directories.py"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(requirements: list[str], extra: str) -> set[str]:
    """Every distribution that installing these brings, by its normal name."""
    found: set[str] = set()
    waiting = [(Requirement(text), extra) for text in requirements]
    while waiting:
        requirement, wanted = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": wanted}):
            continue
        name = normal(requirement.name)
        found.add(name)
        for inner in ["", *requirement.extras]:
            needs = importlib.metadata.requires(name) or []
            fresh = [(Requirement(text), inner) for text in needs if normal(Requirement(text).name) not in found]
            waiting.extend(fresh)
    return found


def imported_by(package: Path) -> set[str]:
    """Top-level names of what a package imports anywhere, lazily too."""
    names: set[str] = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - OURS - set(sys.stdlib_module_names)


def test_everything_copied_exists_and_reaches_the_builder(image):
    ignored = Path(f"{image.path}.dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(image.sources)
    assert [source for source in image.sources if not (ROOT / source).exists()] == []


def test_every_file_of_the_packages_is_in_the_wheel(installed):
    context = installed.parent / "src"
    there = {str(f.relative_to(context)) for name in OURS for f in (context / name).rglob("*") if f.is_file()}
    assert len(there) > 50
    assert there - {str(file.relative_to(installed)) for file in installed.rglob("*")} == set()


def test_the_extra_brings_whatever_the_program_imports(image, installed):
    (distribution,) = importlib.metadata.distributions(path=[str(installed)])
    brought = brought_by(distribution.requires or [], image.extra)
    owners = importlib.metadata.packages_distributions()
    package = image.extra.replace("-", "_")
    wanted = imported_by(installed / package) | imported_by(installed / "protocol")
    assert "msgspec" in wanted
    assert {name for name in wanted if not brought & {normal(owner) for owner in owners.get(name, [])}} == set()


def test_the_agents_image_does_without_the_control_planes_libraries(installed):
    (distribution,) = importlib.metadata.distributions(path=[str(installed)])
    assert brought_by(distribution.requires or [], "agent").isdisjoint({"sqlalchemy", "litestar", "uvicorn", "psycopg"})


def test_the_entry_point_is_a_script_that_starts_without_a_shell(image, installed):
    entry = image.list_of("ENTRYPOINT")
    environment = {**image.environment, "PATH": str(installed / "bin"), "PYTHONPATH": str(installed)}
    said = subprocess.run(
        [*entry, "--help"],
        env=environment,
        executable=installed / "bin" / entry[0],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert entry[0] in said.stdout
    for word, rest in image.steps:
        assert word not in {"RUN", "CMD", "ENTRYPOINT"} or rest.startswith("["), f"{word} {rest} needs a shell"


def test_images_run_as_the_user_of_the_charts_pods_and_import_nothing_by_chance(image, render):
    (daemons,) = [found for found in render({}) if found["kind"] == "DaemonSet"]
    security = daemons["spec"]["template"]["spec"]["securityContext"]
    assert image.value_of("USER") == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert image.environment["PYTHONSAFEPATH"] == "1"
    words = [rest for word, rest in image.steps if word in {"ARG", "FROM"}]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", words[0])
    assert words[1:] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


@pytest.fixture
def owned_by_root(tmp_path: Path) -> Path:
    directory = tmp_path / "allotment"
    directory.mkdir(mode=0o755)
    return directory


def prepare(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(PREPARE), "10001", f"{directory}:700"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_nodes_directory_is_given_to_the_agent_once(owned_by_root):
    first = prepare(owned_by_root)
    assert stat.S_IMODE(owned_by_root.stat().st_mode) == 0o700
    if os.getuid() != 0:
        assert "Operation not permitted" in first.stderr
        return
    assert (first.returncode, owned_by_root.stat().st_uid, owned_by_root.stat().st_gid) == (0, 10001, 10001)
    owned_by_root.chmod(0o750)
    assert prepare(owned_by_root).returncode == 0
    assert stat.S_IMODE(owned_by_root.stat().st_mode) == 0o750
