"""Measures what metering adds to a call of the official OpenAI SDK: bare, metered in the process, and through the
agent's proxy, side by side in one run; then streams at once, bare and metered.

Usage: model_sdks.py [--calls 200] [--rounds 5] [--streams 40] [--json FILE]. Exits 0 only if the ledger says exactly
what the provider said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import model_provider
import openai
import processes
from model_proxies import CUSTOMER, FEATURE, HEADERS, Stand, ledger, summary
from provision import say
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run import OUTPUT, work_directory

import allotment

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


class Clients:
    """The SDK's clients of one provider: bare, metered by an agent, and through its proxy."""

    def __init__(self, found: Stand, sockets: Path) -> None:
        self._url = f"http://127.0.0.1:{found.direct.port}/v1"
        self._proxy_url = f"http://127.0.0.1:{found.proxy.port}/openai/v1"
        self._socket = str(sockets / "agent.sock")

    def sdk(self, kind: Any, url: str | None = None) -> Any:
        """A client of the SDK as it comes."""
        return kind(api_key="sk-benchmark", base_url=url or self._url, max_retries=0)

    def metered(self, kind: Any) -> Any:
        """The same, metered."""
        return allotment.meter(self.sdk(kind), customer=CUSTOMER, feature=FEATURE, socket_path=self._socket)

    def proxied(self, kind: Any) -> Any:
        """The same through the agent's proxy."""
        return self.sdk(kind, self._proxy_url).with_options(default_headers=HEADERS)


def blocking(bench: Clients, calls: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float], int]:
    """Seconds a whole answer takes, by way; the caller's own CPU for one, in milliseconds; how many were metered."""
    ways = {
        "bare": bench.sdk(openai.OpenAI),
        "metered": bench.metered(openai.OpenAI),
        "through the proxy": bench.proxied(openai.OpenAI),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    cpu_s = dict.fromkeys(ways, 0.0)
    for number in range(rounds + 1):
        for name, client in ways.items():
            before_s = time.process_time()
            for _ in range(calls if number else 20):  # first: leases come, pools fill, code warms up
                begun = time.perf_counter()
                client.chat.completions.create(model="whole", messages=MESSAGES)
                if number:
                    found[name].append(time.perf_counter() - begun)
            if number:
                cpu_s[name] += time.process_time() - before_s
    for client in ways.values():
        client.close()
    cpu_ms = {name: spent_s / (calls * rounds) * 1e3 for name, spent_s in cpu_s.items()}
    return found, cpu_ms, 2 * (calls * rounds + 20)


async def streams(client: Any, count: int) -> tuple[list[float], list[float]]:
    """So many at once: seconds to the first piece, and to the end, of each."""

    async def one() -> tuple[float, float]:
        begun = time.perf_counter()
        answer = await client.chat.completions.create(model="words", messages=MESSAGES, stream=True)
        first = None
        async for _ in answer:
            first = first or time.perf_counter() - begun
        return first or 0.0, time.perf_counter() - begun

    async with client:
        await one()
        times = await asyncio.gather(*[one() for _ in range(count)])
    return [first for first, _ in times], [last for _, last in times]


def main() -> int:
    """Measure, show, and compare with the ledger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--json", type=Path, default=OUTPUT / "model-sdks.json")
    asked = parser.parse_args()
    processes.clean_up_on_sigterm()
    with work_directory() as (work, sockets), ExitStack() as undo:
        found = Stand(work, sockets, undo, others=False)
        clients = Clients(found, sockets)
        say(f"{asked.rounds} rounds of {asked.calls} whole answers in turn")
        times, cpu_ms, metered = blocking(clients, asked.calls, asked.rounds)
        whole = {name: summary(one) | {"cpu_ms": cpu_ms[name]} for name, one in times.items()}
        say(f"{asked.streams} streams at once")
        by_way: dict[str, dict[str, Any]] = {}
        for name, make in (("bare", clients.sdk), ("metered", clients.metered)):
            first, last = asyncio.run(streams(make(openai.AsyncOpenAI), asked.streams))
            by_way[name] = {"first": summary(first), "last": summary(last)}
        used = ledger(found)
    expected = (metered + asked.streams + 1) * model_provider.USED["completion_tokens"]
    result = {"whole": whole, "streams": by_way, "used": used, "exact": used.get("output_tokens") == expected}
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(result, indent=2) + "\n")
    _show(result)
    return 0 if result["exact"] else 1


def _show(result: dict[str, Any]) -> None:
    table = Table("", "p50 ms", "p99 ms", "caller's CPU ms", box=SIMPLE_HEAD)
    rows = [(f"whole answer, {name}", one) for name, one in result["whole"].items()]
    for name, one in result["streams"].items():
        rows += [(f"stream, first piece, {name}", one["first"]), (f"stream, end, {name}", one["last"])]
    for name, one in rows:
        cpu = f"{one['cpu_ms']:.2f}" if "cpu_ms" in one else ""
        table.add_row(name, f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}", cpu)
    Console().print(table)
    say("the ledger says what the provider said" if result["exact"] else f"the ledger says {result['used']}")


if __name__ == "__main__":
    sys.exit(main())
