"""Measures what stands between a caller and its model's provider: the agent's metering proxy beside calling directly,
nginx, Envoy, HAProxy and Caddy that ask the agent as `examples/` has it, and LiteLLM's proxy, in one run; then 200
streams at once through ours.

Usage: model_proxies.py [--calls 200] [--rounds 5] [--streams 200] [--json FILE]. Every call is admitted by the agent
and counted, except those that go directly and through LiteLLM, whose budgets are switched off: the plainest it can be.
What is not installed (nginx; the environment of `make .venv-litellm/.ready`) is left out, and said. Exits 0 only if
every stream arrived whole, and the ledger says exactly what the provider said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import model_calls
import model_provider
import processes
import stand
from model_calls import Connection, Way
from processes import Running
from provision import say
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run import OUTPUT, work_directory

from tests.faults.asking import KINDS, Proxy

ROOT = Path(__file__).parents[2]
LITELLM = ROOT / ".venv-litellm" / "bin" / "litellm"
CUSTOMER, FEATURE = "acme", "chat"
HEADERS = {"authorization": "Bearer sk-benchmark", "x-allotment-customer": CUSTOMER, "x-allotment-feature": FEATURE}
CONNECTIONS = (1, 8)
OPEN = {"dangerously_permit_weak_or_unset_master_key": True}  # of LiteLLM on loopback: no key to check
SLOW_READERS, SLOW_S = 40, 3.0


class Stand:
    """The provider, an agent with its proxy, and (``others``) whatever else there is to compare with."""

    def __init__(self, work: Path, sockets: Path, undo: ExitStack, *, others: bool = True) -> None:
        self.plane = stand.start_control_plane(work)
        undo.callback(self.plane.process.end)
        self.plane.put(f"/v1/features/{FEATURE}", {"name": "Chat", "kind": "metered"})
        limits = [
            {"key": meter, "meter": meter, "amount": stand.HUGE, "window": "month"}
            for meter in ("requests", "input_tokens", "output_tokens")
        ]
        self.plane.put("/v1/plans/large", {"name": "Large", "features": [{"feature": FEATURE}], "limits": limits})
        self.plane.put(f"/v1/customers/{CUSTOMER}", {"name": CUSTOMER})
        self.plane.put(f"/v1/customers/{CUSTOMER}/subscription", {"plan": "large"})
        provider = _start(undo, "provider", [sys.executable, str(Path(model_provider.__file__))], work)
        self.direct = Way("directly", provider, headers=HEADERS)
        port = processes.free_port()
        settings = {
            "ALLOTMENT_PROXY_PORT": str(port),
            "ALLOTMENT_PROXY_UPSTREAMS": f"openai=http://127.0.0.1:{provider}",
        }
        self.agent = stand.Agent("bench", work / "agent", sockets, self.plane, settings=settings)
        undo.callback(self.agent.end)
        self.agent.start()
        _listens(port, self.agent.process, 20.0)
        self.proxy = Way("the agent's proxy", port, "/openai/v1/chat/completions", HEADERS)
        self.ways = [self.direct, self.proxy]
        if not others:
            return
        self.ways += _examples(undo, work, provider, sockets)
        if LITELLM.exists():
            self.ways.append(_litellm(undo, work, provider))
        else:
            say("make .venv-litellm/.ready has not been run: LiteLLM is left out")


def _start(undo: ExitStack, name: str, command: list[str], work: Path, port: int | None = None) -> int:
    """Start what listens on a port, said last; the port."""
    port = port or processes.free_port()
    process = processes.start(name, [*command, str(port)], work)
    undo.callback(process.end)
    _listens(port, process, 60.0)
    return port


def _listens(port: int, process: Running, within_s: float) -> None:
    async def connects() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    processes.wait_until(f"{process.name} listens", lambda: asyncio.run(connects()), within_s, process, every_s=0.2)


def _examples(undo: ExitStack, work: Path, provider: int, sockets: Path) -> list[Way]:
    """Proxies that others wrote, as the examples configure them, on other ports and paths."""
    found = []
    for kind in KINDS:
        if shutil.which(kind.command[0]) is None:
            say(f"{kind.command[0]} is not installed: left out")
            continue
        proxy = Proxy(kind, work / kind.name, customers=[CUSTOMER])
        proxy.spawn(sockets / "http.sock", f"http://127.0.0.1:{provider}")
        assert proxy.program is not None
        undo.callback(proxy.program.stop)  # a killed nginx would leave its workers
        proxy.answers()
        found.append(Way(f"{kind.name}, asking", proxy.port, headers={"authorization": f"Bearer key-of-{CUSTOMER}"}))
    return found


def _litellm(undo: ExitStack, work: Path, provider: int) -> Way:
    config = work / "litellm.yaml"
    models = [
        {"model_name": name, "litellm_params": {
            "model": f"openai/{name}", "api_base": f"http://127.0.0.1:{provider}/v1", "api_key": "k",
        }}
        for name in ("whole", "words")
    ]  # fmt: skip
    config.write_text(json.dumps({"model_list": models, "general_settings": OPEN}))
    port = _start(undo, "litellm", [str(LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port"], work)
    return Way("LiteLLM's proxy", port)


def latencies(ways: list[Way], calls: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds a call by way and callers at once; each round asks all of them in turn."""
    found: dict[str, dict[int, list[float]]] = {way.name: {count: [] for count in CONNECTIONS} for way in ways}
    for way in ways:
        asyncio.run(model_calls.times_s(way, 32, 8))  # leases come, pools fill, code warms up
    for _ in range(rounds):
        for connections in CONNECTIONS:
            for way in ways:
                found[way.name][connections] += asyncio.run(model_calls.times_s(way, calls, connections))
    return {name: {str(connections): summary(times) for connections, times in by.items()} for name, by in found.items()}


def summary(times_s: list[float]) -> dict[str, float]:
    times = sorted(times_s)
    return {"calls": len(times), "p50_ms": times[len(times) // 2] * 1e3, "p99_ms": times[len(times) * 99 // 100] * 1e3}


async def many_streams(way: Way, count: int, agent: Running | None) -> dict[str, Any]:
    """So many streams at once: how many came whole, how long they took, and what the agent's memory was."""
    expected = b"".join(model_provider.WORDS) + model_provider.END  # nobody asked for the last piece: it is hidden
    if agent is None:
        expected = b"".join([*model_provider.WORDS, model_provider.event(None), model_provider.END])
    request = way.request("words", stream=True)
    whole, firsts = 0, list[float]()

    async def one() -> None:
        nonlocal whole
        connection = await Connection(way).open()
        status, body, first_s = await connection.ask(request)
        whole += status == 200 and body == expected
        firsts.append(first_s)
        await connection.close()

    begun = time.perf_counter()
    before, peak = (agent.memory_kib()["rss"], 0) if agent else (0, 0)
    async with asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(one()) for _ in range(count)]
        while not all(stream.done() for stream in streams):
            await asyncio.sleep(0.2)
            peak = max(peak, agent.memory_kib()["rss"]) if agent else 0
    took_s = time.perf_counter() - begun
    first = summary(firsts)
    return {"streams": count, "whole": whole, "took_s": took_s, "first_byte_p50_ms": first["p50_ms"],
            "first_byte_p99_ms": first["p99_ms"], "rss_before_kib": before, "rss_peak_kib": peak}  # fmt: skip


async def slow_readers(way: Way, agent: Running) -> dict[str, Any]:
    """Callers that take five megabytes each and begin to read late: the agent must not hold it for them."""
    request = way.request("flood", stream=True)
    sizes: list[int] = []

    async def one() -> None:
        connection = await Connection(way).open()
        _, body, _ = await connection.ask(request, pause_s=SLOW_S)
        sizes.append(len(body))
        await connection.close()

    before = peak = agent.memory_kib()["rss"]
    async with asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(one()) for _ in range(SLOW_READERS)]
        while not all(reader.done() for reader in readers):
            await asyncio.sleep(0.2)
            peak = max(peak, agent.memory_kib()["rss"])
    wanted = len(model_provider.FLOOD) * model_provider.FLOOD_PIECES + len(model_provider.END)
    return {"callers": SLOW_READERS, "whole": sizes.count(wanted), "sent_mib": sum(sizes) / 2**20,
            "rss_before_kib": before, "rss_peak_kib": peak}  # fmt: skip


def ledger(found: Stand) -> dict[str, int]:
    """What the control plane counted of the customer, once it has heard all."""
    found.agent.wait_for_upload(60)
    return {item["meter"]: item["quantity"] for item in found.plane.get(f"/v1/customers/{CUSTOMER}/usage")["items"]}


def main() -> int:
    """Measure, print, write; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--json", type=Path, default=OUTPUT / "model-proxies.json")
    options = parser.parse_args()
    processes.clean_up_on_sigterm()
    with work_directory() as (work, sockets), ExitStack() as undo:
        found = Stand(work, sockets, undo)
        say("asking one after the other")
        report: dict[str, Any] = {"latency": latencies(found.ways, options.calls, options.rounds)}
        before = ledger(found)
        say(f"{options.streams} streams at once")
        report["streams"] = {
            "directly": asyncio.run(many_streams(found.direct, options.streams, None)),
            "the agent's proxy": asyncio.run(many_streams(found.proxy, options.streams, found.agent.process)),
        }
        after = ledger(found)
        report["counted"] = {meter: after[meter] - before[meter] for meter in after}
        say(f"{SLOW_READERS} callers that read late")
        report["slow_readers"] = asyncio.run(slow_readers(found.proxy, found.agent.process))
    _show(report)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    used = model_provider.USED
    said = {"requests": 1, "input_tokens": used["prompt_tokens"], "output_tokens": used["completion_tokens"]}
    exact = report["counted"] == {meter: amount * options.streams for meter, amount in said.items()}
    ours = report["streams"]["the agent's proxy"]
    return 0 if exact and ours["whole"] == options.streams and report["slow_readers"]["whole"] == SLOW_READERS else 1


def _show(report: dict[str, Any]) -> None:
    console = Console()
    table = Table(title="One call, milliseconds", box=SIMPLE_HEAD, title_justify="left")
    for name in ("", *(f"{one} at once {what}" for one in CONNECTIONS for what in ("p50", "p99", "added p50"))):
        table.add_column(name, justify="left" if not name else "right")
    direct = report["latency"]["directly"]
    for name, by in report["latency"].items():
        cells: list[str] = []
        for count in map(str, CONNECTIONS):
            row, base = by[count], direct[count]
            cells += [f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['p50_ms'] - base['p50_ms']:+.2f}"]
        table.add_row(name, *cells)
    console.print(table)
    table = Table(title="Streams at once", box=SIMPLE_HEAD, title_justify="left")
    for name in ("", "whole", "took s", "first byte p50 ms", "p99 ms", "memory before MiB", "peak MiB"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in report["streams"].items():
        memory = [f"{row[which] / 1024:.0f}" if row[which] else "" for which in ("rss_before_kib", "rss_peak_kib")]
        whole = f"{row['whole']} of {row['streams']}"
        table.add_row(
            name,
            whole,
            f"{row['took_s']:.1f}",
            f"{row['first_byte_p50_ms']:.0f}",
            f"{row['first_byte_p99_ms']:.0f}",
            *memory,
        )
    console.print(table)
    console.print(f"counted of these streams: {report['counted']}")
    slow = report["slow_readers"]
    console.print(
        f"{slow['callers']} callers that read {SLOW_S:.0f} s late: {slow['whole']} whole answers, "
        f"{slow['sent_mib']:.0f} MiB in all, "
        f"memory {slow['rss_before_kib'] / 1024:.0f} -> at most {slow['rss_peak_kib'] / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
