"""The client needs the standard library and msgpack, and nothing else of ours or of others."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder

class OnlyTheseRooms(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.stdlib_module_names | {"allotment", "msgpack"}:
            return None
        raise ImportError(f"the client may not import {name}")

sys.meta_path.insert(0, OnlyTheseRooms())
import allotment
assert "asyncio" not in sys.modules  # a blocking program does not pay for it
client = allotment.Client("/nowhere/agent.sock", timeout_s=0.01)
try:
    client.check("acme", "chat")
except allotment.AgentUnavailable:
    pass
import asyncio
async def main():
    try:
        await allotment.AsyncClient("/nowhere/agent.sock", timeout_s=0.01).status()
    except allotment.AgentUnavailable:
        print("works")
asyncio.run(main())
"""


def test_the_client_works_where_there_is_msgpack_alone():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False, cwd="/"
    )
    assert (done.stdout, done.stderr) == ("works\n", "")


def test_the_distribution_asks_for_msgpack_alone():
    assert [need.partition("<")[0].partition(">")[0] for need in requires("allotment") or []] == ["msgpack"]
    project = tomllib.loads((Path(__file__).parents[2] / "client" / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["msgpack>=1.0.8,<2"]


def test_the_types_are_published():
    assert (Path(__file__).parents[2] / "client" / "allotment" / "py.typed").exists()
