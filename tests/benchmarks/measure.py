"""Measures contenders in interleaved rounds: every round asks all of them in a new random order."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import processes
import provision
from contenders import Contender

REQUESTS_MAX = 2_000_000

WARM_P99_US = 200_000
"""Beyond this the answers still wait for something that grows with use, such as leases."""
WARM_UPS_MAX = 5


@dataclass(frozen=True)
class Shape:
    """So many connections, each with so many requests outstanding; callers on the server's core or beside it."""

    name: str
    connections: int
    depth: int
    same_core: bool = False


SHAPES = (
    Shape("1 caller, same core", 1, 1, same_core=True),
    Shape("1 caller", 1, 1),
    Shape("32 callers", 32, 1),
    Shape("8 callers x 64 pipelined", 8, 64),
)


@dataclass(frozen=True)
class Sample:
    """One contender in one shape in one round. ``cpu_us``: server CPU for each answer; latencies by step."""

    per_s: float
    cpu_us: float
    p50_us: dict[str, float]
    p99_us: dict[str, float]
    wrong: int


@dataclass
class Samples:
    """All rounds: ``by[shape][contender]`` is one sample for each round."""

    by: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, shape: str, contender: str, sample: Sample) -> None:
        """Keep one."""
        self.by.setdefault(shape, {}).setdefault(contender, []).append(sample)

    def middle(self, shape: str, contender: str, read: Callable[[Sample], float]) -> float:
        """The median of one figure over the rounds."""
        return median(read(one) for one in self.by[shape][contender])

    def ratio(self, shape: str, contender: str, to: str, read: Callable[[Sample], float]) -> float | None:
        """The median of the rounds' ratios: both were measured within seconds of each other."""
        pairs = zip(self.by[shape][contender], self.by[shape][to], strict=False)
        ratios = [read(one) / read(other) for one, other in pairs if read(other)]
        return median(ratios) if ratios else None

    def as_report(self, contenders: Sequence[str], to: Sequence[str]) -> dict[str, Any]:
        """Medians for each shape and contender, and ratios to each of ``to``."""
        return {
            shape: {name: self._row(shape, name, to) for name in contenders if name in samples}
            for shape, samples in self.by.items()
        }

    def _row(self, shape: str, name: str, to: Sequence[str]) -> dict[str, Any]:
        def first_p50_us(sample: Sample) -> float:
            return next(iter(sample.p50_us.values()))

        def ratios(read: Callable[[Sample], float]) -> dict[str, float]:
            found = {other: self.ratio(shape, name, other, read) for other in to if other != name}
            return {other: ratio for other, ratio in found.items() if ratio is not None}

        samples = self.by[shape][name]
        return {
            "per_s": self.middle(shape, name, lambda one: one.per_s),
            "per_s_to": ratios(lambda one: one.per_s),
            "cpu_us": self.middle(shape, name, lambda one: one.cpu_us),
            "cpu_to": ratios(lambda one: one.cpu_us),
            "p50_to": ratios(first_p50_us),
            "steps": {
                step: {
                    "p50_us": median(one.p50_us[step] for one in samples),
                    "p99_us": median(one.p99_us[step] for one in samples),
                }
                for step in samples[0].p50_us
            },
            "wrong": sum(one.wrong for one in samples),
        }


def run_load(load: Path, contender: Contender, shape: Shape, seconds: float, scratch: Path) -> Sample:
    """One run of the load generator against one server.

    Raises:
        processes.TroubleError: the generator or the server failed.
    """
    path = scratch / "calls.bin"
    contender.write_calls(path)
    core = processes.SERVER_CORE if shape.same_core else processes.CALLER_CORE
    command = [str(load), str(contender.socket), str(path), str(shape.connections), str(shape.depth),
               str(REQUESTS_MAX), str(seconds)]  # fmt: skip
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & before or before)
    try:
        spent_ns = contender.process.cpu_ns()
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=seconds + 30
        )
        spent_ns = contender.process.cpu_ns() - spent_ns
    finally:
        os.sched_setaffinity(0, before)
    if done.returncode != 0:
        raise contender.process.trouble(f"load generator, {shape.name}: {done.stderr.strip()}")
    if done.stderr:
        provision.say(f"{contender.name}, {shape.name}: {done.stderr.strip()}")
    return _sample(contender, json.loads(done.stdout), spent_ns)


def _sample(contender: Contender, said: dict[str, Any], spent_ns: int) -> Sample:
    steps = dict(zip(contender.steps, said["steps"], strict=True))
    return Sample(
        per_s=said["answers"] / said["seconds"],
        cpu_us=spent_ns / 1_000 / max(1, said["answers"]),
        p50_us={name: step["p50_us"] for name, step in steps.items()},
        p99_us={name: step["p99_us"] for name, step in steps.items()},
        wrong=said["wrong"],
    )


def warm_up(load: Path, contenders: Sequence[Contender], seconds: float, rounds: int, scratch: Path) -> None:
    """Let every server see every shape before anything counts: code gets hot, and leases grow until nobody waits."""
    for _ in range(rounds):
        for shape in SHAPES[1:]:
            for contender in contenders:
                for _ in range(WARM_UPS_MAX):
                    sample = run_load(load, contender, shape, seconds, scratch)
                    contender.settle_down()
                    if sample.wrong == 0 and next(iter(sample.p99_us.values())) < WARM_P99_US:
                        break


def measure(
    load: Path, contenders: Sequence[Contender], seconds: float, rounds: int, scratch: Path, seed: int
) -> Samples:
    """All shapes, all contenders, ``rounds`` times, in an order drawn anew each time."""
    samples, order = Samples(), random.Random(seed)
    for number in range(rounds):
        provision.say(f"round {number + 1} of {rounds}")
        for shape in SHAPES:
            for contender in order.sample(contenders, len(contenders)):
                samples.add(shape.name, contender.name, run_load(load, contender, shape, seconds, scratch))
                contender.settle_down()
    return samples
