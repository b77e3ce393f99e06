"""The story: start everything, replay a real trace, kill an agent on the way, hold the ledger to what was told."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.quickstart import report, workload
from examples.quickstart.admin import Admin
from examples.quickstart.audit import audit, wait_for_arrival
from examples.quickstart.callers import Callers
from examples.quickstart.fleet import Fleet, FleetClosingError
from examples.quickstart.settings import STATE, Settings, from_environment

KILL_AT = 0.4
KILLED_AGENT = 1
AWAY_S = 0.5
CAUGHT_IN_FLIGHT = 5
CAUGHT_PATIENCE = 1_000


def main() -> int:
    """Run the quickstart; 0 when the books agree, 130 after Ctrl-C, 143 after SIGTERM.

    The story is told on a thread of its own, and this one waits for its end or for a signal, whichever is first: so a
    signal never cuts anything in two, and everything that was started is known when it is stopped.
    """
    endings: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _: endings.put(128 + which))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)
    settings = from_environment()
    calls, plans = workload.load(settings), workload.customers(settings)
    console.print(
        f"[bold]Allotment quickstart[/]: {len(calls):,} calls of a real trace at {settings.speed:g} times its"
        f" speed, {settings.customers} customers by a Zipf law (seed {settings.seed}), {settings.agents} agents."
    )
    with Fleet(settings) as fleet:
        threading.Thread(target=_tell, args=(endings, console, settings, fleet, calls, plans), daemon=True).start()
        while (status := _ending_of(endings)) is None:
            pass
        if status > 128:
            console.print("Stopping ...")
    return status


def _ending_of(endings: queue.SimpleQueue[int]) -> int | None:
    """How it ended, if it has. Never waits for long: a signal that another thread receives does not end a wait."""
    try:
        return endings.get(timeout=0.1)
    except queue.Empty:
        return None


def _tell(endings: queue.SimpleQueue[int], *story: Any) -> None:
    try:
        endings.put(_story(*story))
    except FleetClosingError:
        return  # a signal has ended the story
    except SystemExit as trouble:
        print(trouble, file=sys.stderr)
        endings.put(1)
    except BaseException:
        endings.put(1)
        raise


def _story(
    console: Console, settings: Settings, fleet: Fleet, calls: list[workload.Call], plans: dict[str, str]
) -> int:
    admin = _start(console, settings, fleet, plans)
    callers = Callers([fleet.socket_path(number) for number in range(settings.agents)], settings.speed)
    began = time.perf_counter()
    outage = _replay(console, fleet, callers, calls)
    replay_s = time.perf_counter() - began
    console.print("Waiting for the last events to reach the control plane ...")
    wait_for_arrival(admin, plans, callers.told)
    found = audit(admin, plans, callers.told)
    summary = report.summary(settings, callers.told, found, outage, replay_s)
    report.write(summary)
    report.show(console, plans, callers.told, found, summary)
    console.print(f"Written to {STATE}/report.json; logs are beside it.")
    if not settings.once:
        _stay(console, fleet, plans)
    return 0 if found.clean and not summary["unanswered"] else 1


def _start(console: Console, settings: Settings, fleet: Fleet, plans: dict[str, str]) -> Admin:
    with console.status("Starting the control plane ..."):
        fleet.start_control_plane()
    admin = Admin(fleet.url, fleet.token_file.read_text())
    with console.status("Loading the catalog and subscribing customers ..."):
        admin.load_catalog()
        for customer, plan in plans.items():
            admin.subscribe(customer, plan)
    with console.status("Starting the agents ..."):
        for number in range(settings.agents):
            fleet.start_agent(number)
        for number in range(settings.agents):
            fleet.wait_for_agent(number)
    console.print(f"The control plane answers on {fleet.url}; {settings.agents} agents have enrolled.")
    return admin


def _replay(console: Console, fleet: Fleet, callers: Callers, calls: list[workload.Call]) -> dict[str, Any]:
    """Offer every call at its time; kill one agent on the way and bring it back."""
    outage: dict[str, Any] = {"agent": min(KILLED_AGENT, len(callers.sockets) - 1), "killed_at": 0.0, "back_at": 0.0}
    villain = threading.Thread(target=_kill_and_restart, args=(fleet, callers, outage), daemon=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tally]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=5) as progress:
        bar = progress.add_task("Replaying", total=len(calls), tally="")
        began = time.perf_counter()
        for position, call in enumerate(calls):
            pause_s = call.at_s - (time.perf_counter() - began)
            if pause_s > 0:
                time.sleep(pause_s)
            callers.offer(call)
            if position == int(KILL_AT * len(calls)):
                progress.console.print(
                    f"[bold red]SIGKILL[/] to agent {outage['agent'] + 1}; it is started again at once."
                )
                villain.start()
            if position % 50 == 0:
                progress.update(bar, completed=callers.tally.total(), tally=_tally(callers))
        callers.finish()
        progress.update(bar, completed=callers.tally.total(), tally=_tally(callers))
    villain.join()
    if "away_s" not in outage:
        sys.exit(outage.get("trouble", "the agent that was killed did not come back"))
    return outage


def _tally(callers: Callers) -> str:
    counted = callers.tally
    return f"allowed {counted['allow']:,} · throttled {counted['throttle']:,} · blocked {counted['block']:,}"


def _kill_and_restart(fleet: Fleet, callers: Callers, outage: dict[str, Any]) -> None:
    try:
        for _ in range(CAUGHT_PATIENCE):  # strike while calls are in flight: what becomes of them is the point
            if callers.in_flight[outage["agent"]] >= CAUGHT_IN_FLIGHT:
                break
            fleet.rest(0.002)
        outage["killed_at"] = time.perf_counter()
        fleet.kill_agent(outage["agent"])
        fleet.rest(AWAY_S)
        fleet.start_agent(outage["agent"])
        fleet.wait_for_agent(outage["agent"])
    except FleetClosingError:
        return
    except SystemExit as trouble:
        outage["trouble"] = str(trouble)
        return
    outage["back_at"] = time.perf_counter()
    outage["away_s"] = outage["back_at"] - outage["killed_at"]


def _stay(console: Console, fleet: Fleet, plans: dict[str, str]) -> None:
    customer = next((name for name, plan in plans.items() if plan == "free"), next(iter(plans)))
    body = f'{{"call": {{"customer": "{customer}", "feature": "chat"}}, "amounts": {{"input_tokens": 100}}}}'
    api = f"{fleet.url}/v1/customers/{customer}"
    bearer = f'-H "Authorization: Bearer $(cat {fleet.token_file})"'
    console.print("\n[bold]Everything stays up until Ctrl-C. Try:[/]\n")
    for comment, command in (
        (
            "may this customer make a call?",
            f"curl -s --unix-socket {fleet.socket_dir(0)}/http.sock --json '{body}' http://localhost/v1/check",
        ),
        ("what is left of its plan?", f"curl -s {bearer} {api}/balances"),
        (
            "upgrade it, then ask the socket again",
            f'curl -s {bearer} -X PUT --json \'{{"plan": "enterprise"}}\' {api}/subscription',
        ),
    ):
        console.print(f"# {comment}\n{command}\n", soft_wrap=True, markup=False)
    fleet.rest(None)


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)  # callers that were interrupted still wait for agents that are gone; nothing is left to clean up
