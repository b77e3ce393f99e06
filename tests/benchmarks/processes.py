"""Starts, watches, pins and ends the processes of a benchmark, and reads what they cost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

START_S = 30.0
END_S = 5.0

SERVER_CORE = 0
CALLER_CORE = 1 if (os.cpu_count() or 1) > 1 else 0


class TroubleError(Exception):
    """A process did not do what it should; the message holds the end of its log."""


@dataclass(frozen=True)
class Running:
    """One process of ours, and the file that its words go to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def cpu_ns(self) -> int:
        """What all its threads, ended ones too, have spent on a CPU; from the kernel's clock of that process."""
        return time.clock_gettime_ns((~self.process.pid << 3) | 2)

    def memory_kib(self) -> dict[str, int]:
        """Resident (``rss``), proportional (``pss``) and private memory."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        kib = {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
        return {"rss": kib["Rss"], "pss": kib["Pss"], "private": kib["Private_Clean"] + kib["Private_Dirty"]}

    def pin(self, core: int) -> None:
        """Keep all its threads on one core, as far as the machine lets us."""
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), {core})

    def trouble(self, what: str) -> TroubleError:
        """An error that shows the end of the log."""
        tail = self.log.read_text(errors="replace")[-2_000:] if self.log.exists() else ""
        return TroubleError(f"{self.name}: {what}\n{tail}")

    def end(self) -> None:
        """Ask it to stop; kill it when it does not."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(END_S)


def start(
    name: str, command: list[str], log_dir: Path, environment: Mapping[str, str] | None = None, core: int | None = None
) -> Running:
    """Start ``command``, its output to ``<log_dir>/<name>.log``, kept on one core if said."""
    before = os.sched_getaffinity(0)
    log = log_dir / f"{name}.log"
    if core is not None:
        os.sched_setaffinity(0, {core} & before or before)  # inherited by the child
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(environment or {})}
            )
    finally:
        os.sched_setaffinity(0, before)
    return Running(name, process, log)


@contextlib.contextmanager
def running(
    name: str, command: list[str], log_dir: Path, environment: Mapping[str, str] | None = None, core: int | None = None
) -> Iterator[Running]:
    """A process that is ended on the way out."""
    one = start(name, command, log_dir, environment, core)
    try:
        yield one
    finally:
        one.end()


def wait_until(
    what: str, holds: Callable[[], bool], within_s: float = START_S, of: Running | None = None, every_s: float = 0.02
) -> None:
    """Look again and again.

    Raises:
        TroubleError: it does not hold in time, or the process that should make it so has ended.
    """
    deadline = time.monotonic() + within_s
    while not holds():
        if of is not None and not of.alive:
            raise of.trouble(f"ended with {of.process.returncode} before {what}")
        if time.monotonic() > deadline:
            raise of.trouble(f"not in {within_s} s: {what}") if of else TroubleError(f"not in {within_s} s: {what}")
        time.sleep(every_s)


def answers_on(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def clean_up_on_sigterm() -> None:
    """Leave through every ``finally`` when told to stop, so that no process of ours is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def free_port() -> int:
    """A loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
