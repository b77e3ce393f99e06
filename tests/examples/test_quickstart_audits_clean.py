"""The quickstart is a test of everything together: real processes, a real trace, an agent killed in the middle."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLS = 1_200


@pytest.fixture
def short_trace(tmp_path: Path) -> Path:
    """The beginning of the real trace."""
    with gzip.open(ROOT / "examples/quickstart/trace.csv.gz", "rt") as lines:
        head = [line for line, _ in zip(lines, range(CALLS + 1), strict=False)]
    path = tmp_path / "short.csv.gz"
    with gzip.open(path, "wt") as short:
        short.writelines(head)
    return path


def run_quickstart(folder: Path, **settings: str) -> tuple[int, str, dict]:
    command = [sys.executable, "-m", "examples.quickstart"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ONCE": "1", "SPEED": "40", **settings}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            output, _ = running.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            running.terminate()  # it stops its own processes
            output, _ = running.communicate()
    report = folder / "var/quickstart/report.json"
    logs = "".join(f"{path.name}:\n{path.read_text()[-1_500:]}" for path in folder.glob("var/quickstart/agent-*.log"))
    assert report.exists(), output[-3_000:] + logs
    return running.returncode, output, json.loads(report.read_text())


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_books_agree_after_a_killed_agent(
    tmp_path: Path, short_trace: Path, database: str, request: pytest.FixtureRequest
) -> None:
    settings = {"TRACE": str(short_trace), "CUSTOMERS": "12", "AGENTS": "3"}
    if database == "postgresql":
        settings["DATABASE_URL"] = request.getfixturevalue("empty_postgresql_url")
    status, output, report = run_quickstart(tmp_path, **settings)
    assert status == 0, output[-4_000:]
    assert report["calls"] == CALLS
    assert report["allowed"] + report["throttled"] + report["blocked"] == CALLS
    assert report["settled"] == report["ledger"]
    assert report["settled"]["requests"] == report["allowed"]
    assert (report["overspend"], report["lost"], report["duplicated"]) == (0, 0, 0)
    assert (report["agents"], report["customers"]) == (3, 12)
    assert report["throttled"] > 0, "limits were reached"
    assert report["decision_us"]["p50"] > 0
    assert "The books agree" in output


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.quickstart"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SPEED": "fast"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "SPEED is 'fast'; expected a number above 0" in done.stderr
