"""The code in the client's README runs as it stands there."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace

BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (Path(__file__).parents[2] / "client" / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


class Provider:
    """Answers as a provider of models would."""

    def create(self, max_tokens: int) -> SimpleNamespace:
        return SimpleNamespace(input_tokens=850, output_tokens=max_tokens, model="m-1")

    async def stream(self):
        for count in range(1, 1_000, 250):
            yield SimpleNamespace(count_so_far=count)


def test_the_blocking_example(agent, monkeypatch):
    monkeypatch.setenv("ALLOTMENT_SOCKET", str(agent.path))
    names = {"llm": Provider()}
    exec(BLOCKS[0], names)
    names["client"].close()
    (event,) = agent.ledger.events.values()
    assert event.tokens == {"input": 850, "output": 512}


def test_the_async_example(agent, monkeypatch):
    monkeypatch.setenv("ALLOTMENT_SOCKET", str(agent.path))
    program = "import allotment\nasync def main(llm):\n" + textwrap.indent(BLOCKS[1], "    ")
    names = {}
    exec(program, names)
    asyncio.run(names["main"](Provider()))
    (event,) = agent.ledger.events.values()
    assert (event.tokens, event.outcome) == ({"output": 751}, "complete")
    assert agent.ops == ["reserve", "extend", "settle"]
