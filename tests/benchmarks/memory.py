"""What an idle agent weighs, right after its start and before anybody has asked it anything, beside bare Python."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import calls
import processes
import stand
from stand import Agent


@contextlib.contextmanager
def idle_agent(work: Path, sockets: Path) -> Iterator[Agent]:
    """A real agent enrolled with a real control plane that has the catalog and the customers of the calls."""
    # It belongs on another machine. Here it shares the callers' core and should not get in their way.
    plane = stand.start_control_plane(work, core=processes.CALLER_CORE, niceness=5)
    try:
        stand.load_catalog(plane, calls.CUSTOMERS)
        agent = Agent("bench", work / "agent", sockets / "agent", plane, core=processes.SERVER_CORE)
        try:
            agent.start()
            yield agent
        finally:
            agent.end()
    finally:
        plane.process.end()


def bare_python(work: Path) -> dict[str, int]:
    """The same interpreter with nothing imported."""
    command = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
    with processes.running("bare-python", command, work) as process:
        processes.wait_until("Python is up", lambda: process.log.read_bytes().startswith(b"up"), of=process)
        return process.memory_kib()
