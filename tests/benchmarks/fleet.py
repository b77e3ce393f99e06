"""Many agents in one process, each with a journal, an uplink and loops of its own, and no doors: part of a fleet.

Usage: fleet.py DIRECTORY URL FIRST COUNT CUSTOMER FEATURE, with the join token in the environment. Every agent is asked
again and again whether a call of the customer would be allowed; each change of the answer is a line of JSON on standard
output: ``{"agent": 7, "at_ns": ..., "code": "ok"}``, on the machine's monotonic clock.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import trio

from agent.clock import SystemClock
from agent.operations.check import check
from agent.running import Agent
from agent.settings import Settings
from protocol.decisions import Decision
from protocol.local_messages import Call, Check

BEHIND = 5
"""By so much nicer than the control plane: two hundred hosts would not take its core away."""

LOOK_EVERY_S = 0.1
"""Asked four times as often, two hundred agents kept a core busy with nothing but the question."""


async def main() -> None:
    """Run them until standard input ends."""
    os.nice(BEHIND)
    directory, url, first, count, customer, feature = sys.argv[1:7]
    asked = Check(call=Call(customer, feature), amounts={"output_tokens": 1})
    agents: dict[int, Agent] = {}
    async with trio.open_nursery() as nursery:
        for number in range(int(first), int(first) + int(count)):
            home = Path(directory) / f"agent-{number}"
            home.mkdir(parents=True)
            settings = Settings(url, f"fleet-{number}", home, home, join_token=os.environ["ALLOTMENT_JOIN_TOKEN"])
            agent = Agent(settings, SystemClock())
            nursery.start_soon(agent.run, trio.sleep_forever)
            agents[number] = agent
        nursery.start_soon(_watch_answers, agents, asked)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def _watch_answers(agents: dict[int, Agent], asked: Check) -> None:
    """One loop over all of them: a task each would cost more than the agents themselves."""
    clock = SystemClock()
    before: dict[int, str] = {}
    while True:
        now_ms = clock.monotonic_ms()
        for number, agent in agents.items():
            answer = check(agent.books, asked, now_ms, now_ms)
            if isinstance(answer, Decision) and answer.code.value != before.get(number):
                before[number] = answer.code.value
                said = {"agent": number, "at_ns": time.monotonic_ns(), "code": answer.code.value}
                sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        await trio.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    trio.run(main)
