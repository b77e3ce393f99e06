"""A quickstart that is interrupted while its agent is killed and started again leaves no process and no folder."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLS = 600


def processes_of(folder: Path) -> list[str]:
    """Command lines of everything whose environment names this run's folder for sockets and data."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:
            continue  # ended meanwhile, or somebody else's
        if f"={folder}/".encode() in environment:
            found.append(command.replace(b"\0", b" ").decode())
    return found


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For the sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by their environment in /proc")
@pytest.mark.parametrize(
    ("signals", "status"),
    [([signal.SIGTERM], 143), ([signal.SIGINT, signal.SIGINT, signal.SIGTERM], 130)],
    ids=["sigterm", "ctrl-c, impatiently"],
)
def test_interrupt_at_the_kill_leaves_no_process(
    tmp_path: Path, short_folder: Path, signals: list[signal.Signals], status: int
) -> None:
    with gzip.open(ROOT / "examples/quickstart/trace.csv.gz", "rt") as lines:
        head = [line for line, _ in zip(lines, range(CALLS + 1), strict=False)]
    with gzip.open(tmp_path / "short.csv.gz", "wt") as short:
        short.writelines(head)
    settings = {"TRACE": str(tmp_path / "short.csv.gz"), "TMPDIR": str(short_folder), "SPEED": "200"}
    with subprocess.Popen(
        [sys.executable, "-m", "examples.quickstart"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ONCE": "1", "AGENTS": "2", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        before = ""
        for line in running.stdout:
            before += line
            if "SIGKILL" in line:
                break
        assert len(processes_of(tmp_path)) >= 3, before
        for number in signals:
            running.send_signal(number)
        after, _ = running.communicate(timeout=60)
    assert processes_of(tmp_path) == []
    assert list(short_folder.iterdir()) == []
    assert "Traceback" not in after
    assert "Stopping ..." in after
    assert running.returncode in {status, 128 + signals[-1]}, after
