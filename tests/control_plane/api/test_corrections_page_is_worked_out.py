"""The page about corrections: every row of its table comes out, and every route that it names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from protocol.instants import rfc3339

PAGE = (Path(__file__).parents[3] / "docs" / "corrections.md").read_text()
PATH = "/v1/customers/acme"
RATE = {"meter": "credits", "weights": {"input_tokens": 1_000_000}, "classes": {"cache_read": 100_000}}
LIMITS = [
    {"key": "tokens", "meter": "input_tokens", "amount": 10_000, "window": "month"},
    {"key": "credits", "meter": "credits", "amount": 0, "window": "grants"},
]


def rows() -> list[list[str]]:
    section = PAGE.partition("## What a correction moves\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_step_moves_what_the_page_says(admin: Any, clock: Any) -> None:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/credits", {"unit": "credits"})
    plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": LIMITS, "rates": [RATE]}
    admin.put("/v1/plans/pro", plan)
    admin.put(PATH, {"name": "Acme"})
    admin.put(PATH + "/subscription", {"plan": "pro"})
    admin.put(PATH + "/grants/top-up", {"meter": "credits", "amount": 1_000, "reason": "bought"})

    def enter(name: str, tokens: dict[str, int]) -> None:
        event = {"event": name, "feature": "chat", "at": rfc3339(clock.now_ms()), "tokens": tokens}
        admin.put(f"{PATH}/backfills/{name}", {"events": [event], "reason": "test"})

    for number, (step, tokens, burned, left) in enumerate(rows()):
        said = json.loads(found.group(1)) if (found := re.search(r"`(\{.*\})`", step)) else {}
        order = {"event": "call", "reason": "test"}
        if step == "the call":
            enter("call", {"input": 200, "cache_read": 100})
        elif step.startswith("amended"):
            admin.put(f"{PATH}/corrections/{number}", {"kind": "amend", "tokens": said, **order})
        elif step == "voided":
            admin.put(f"{PATH}/corrections/{number}", {"kind": "void", **order})
        else:
            enter("again", said)
        used = {item["limit"]: item["used"] for item in admin.get(PATH + "/balances")["items"]}
        (credit,) = admin.get(PATH + "/credits")
        assert (used["tokens"], used["credits"], credit["remaining"]) == (int(tokens), int(burned), int(left)), step


def test_every_route_on_the_page_is_there(admin: Any) -> None:
    known = {re.sub(r"\{\w+\}", "{}", path): path for path in admin.get("/schema/openapi.json")["paths"]}
    named = re.findall(r"`(?:GET|PUT|POST) (/v1/[^`]*)`", PAGE)
    assert len(named) >= 8
    for path in named:
        assert re.sub(r"\{\w+\}", "{}", path) in known, path
