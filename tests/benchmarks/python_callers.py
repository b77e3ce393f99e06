"""Asks from Python: the blocking `allotment.Client` beside redis-py's EVALSHA, in alternating fresh processes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import provision

Figures = dict[str, list[dict[str, Any]]]


def measure(sockets: dict[str, Path], seconds: float, rounds: int, seed: int) -> Figures:
    """``sockets``: by kind of caller (`allotment`, `redis`), the socket to ask. One record for each kind and round."""
    figures: Figures = {kind: [] for kind in sockets}
    order = random.Random(seed)
    for number in range(rounds + 1):
        for kind in order.sample(sorted(sockets), len(sockets)):
            said = _one(kind, sockets[kind], seconds)
            if number > 0:  # the first only warms up
                figures[kind].append(said)
    return figures


def _one(kind: str, socket: Path, seconds: float) -> dict[str, Any]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processes.CALLER_CORE} & before or before)
    try:
        command = [sys.executable, str(provision.HERE / "python_caller.py"), kind, str(socket), str(seconds)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
    finally:
        os.sched_setaffinity(0, before)
    if done.returncode != 0:
        raise processes.TroubleError(f"{kind} from Python: {done.stderr[-2_000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
