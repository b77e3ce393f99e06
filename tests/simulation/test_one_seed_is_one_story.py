"""The same seed tells the same story, to the byte, whatever the process that runs it; another seed tells another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORY = """
import sys
from tests.simulation.rates import draw
from tests.simulation.world import simulate
seed = int(sys.argv[1])
with open(sys.argv[2], "w") as text:
    report = simulate(seed, draw(seed, hosts=2, storm_s=2.5), text)
sys.stdout.write(report.digest)
"""


def begin(seed: int, hash_seed: int, text: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-c", STORY, str(seed), str(text)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_seed_leaves_the_same_trace_in_processes_whose_hashes_differ(tmp_path: Path) -> None:
    runs = [begin(7, 1, tmp_path / "one"), begin(7, 4242, tmp_path / "other"), begin(8, 1, tmp_path / "next")]
    digests = [run.communicate(timeout=600)[0] for run in runs]
    assert all(run.returncode == 0 for run in runs)
    one, other, following = (path.read_text() for path in (tmp_path / "one", tmp_path / "other", tmp_path / "next"))
    assert one.count("\n") > 500
    assert one == other
    assert digests[0] == digests[1]
    assert following != one
    assert digests[2] != digests[0]
