"""Past usage is amended, voided and entered afterwards: by compensating entries, with a preview, each id once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest

from control_plane.operations.audit_books import check_books
from control_plane.operations.sync_agent import Synced, sync_agent
from protocol.codec import encode_msgpack
from protocol.events import EventBatch, Priced, Subject, UsageEvent
from protocol.instants import rfc3339
from protocol.uplink_messages import SyncRequest

DAY_MS = 86_400_000
PATH = "/v1/customers/acme"
LIMITS: list[dict[str, Any]] = [
    {"key": "tokens", "meter": "input_tokens", "amount": 10_000, "window": "month"},
    {"key": "each", "meter": "requests", "amount": 100, "window": "day", "scope": "user"},
    {"key": "credits", "meter": "credits", "amount": 0, "window": "grants"},
]
RATE = {"meter": "credits", "weights": {"input_tokens": 1_000_000}, "classes": {"cache_read": 100_000}}

Upload = Callable[..., None]


@pytest.fixture
def upload(admin: Any, clock: Any, database: Any) -> Upload:
    """A customer with credits; what it calls uploads events that no lease paid."""
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/credits", {"unit": "credits"})
    plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": LIMITS, "rates": [RATE]}
    admin.put("/v1/plans/pro", plan)
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put(PATH + "/subscription", {"plan": "pro"})
    admin.put(PATH + "/grants/top-up", {"meter": "credits", "amount": 5_000, "reason": "bought"})
    clock.advance(10_000)
    numbers = iter(range(1, 1_000))

    def send(event: str, tokens: dict[str, int], at_ms: int | None = None) -> None:
        inputs = sum(tokens.values())
        made = sum(amount * (100_000 if name == "cache_read" else 1_000_000) for name, amount in tokens.items())
        amounts = {"requests": 1, "input_tokens": inputs, "output_tokens": 0, "credits": -(-made // 1_000_000)}
        said = UsageEvent(
            event, "acme", "chat", at_ms or clock.now_ms(), amounts, Subject(user="ann"), tokens=tokens,
            derived=("credits",), priced=(Priced("credits", "pro@1"),),
        )  # fmt: skip
        body, seq = encode_msgpack([said]), next(numbers)
        request = SyncRequest(
            "journal", 1, "nonce", snapshot=seq == 1, batches=(EventBatch(1, seq, 1, crc32(body), body),)
        )
        outcome = database.run(lambda connection: sync_agent(connection, "agent-1", request, clock.now_ms()))
        assert isinstance(outcome, Synced), outcome

    return send


def used(admin: Any) -> dict[str, int]:
    return {item["limit"]: item["used"] for item in admin.get(PATH + "/balances", params={"user": "ann"})["items"]}


def total(admin: Any) -> dict[str, int]:
    rows = admin.get(PATH + "/usage", params={"group_by": "meter"})["items"]
    return {row["meter"]: row["quantity"] for row in rows if row["quantity"]}


def left(admin: Any) -> int:
    return int(admin.get(PATH + "/credits")[0]["remaining"])


def amend(**more: Any) -> dict[str, Any]:
    return {"kind": "amend", "event": "call-1", "reason": "counted twice", **more}


def test_a_preview_says_what_would_move_and_moves_nothing(admin: Any, upload: Upload, clock: Any) -> None:
    upload("call-1", {"input": 300, "cache_read": 100})
    before = used(admin), total(admin), left(admin)
    body = amend(tokens={"input": 100, "cache_read": 100})
    shown = admin.put(PATH + "/corrections/fix?preview=true", body)
    assert shown["preview"]
    counters = {one["limit"]: (one["scope_value"], one["change"]) for one in shown["effects"]["counters"]}
    assert counters == {"tokens": ("", -200), "credits": ("", -200)}, "still one request, so its counter stays"
    hour = rfc3339(clock.now_ms() - clock.now_ms() % 3_600_000)
    assert [(one["hour"], one["meter"], one["change"]) for one in shown["effects"]["sums"]] == [
        (hour, "credits", -200),
        (hour, "input_tokens", -200),
    ]
    assert shown["effects"]["credits"] == [{"meter": "credits", "grant": "top-up", "change": -200}]
    assert (used(admin), total(admin), left(admin)) == before
    assert admin.get(PATH + "/corrections")["items"] == []
    done = admin.put(PATH + "/corrections/fix", body)
    assert done["effects"] == shown["effects"]


def test_an_amended_call_comes_to_what_should_have_been_reported(admin: Any, upload: Upload, database: Any) -> None:
    upload("call-1", {"input": 300, "cache_read": 100})
    assert (used(admin)["credits"], left(admin)) == (310, 4_690)
    for _ in range(2):
        done = admin.put(PATH + "/corrections/fix", amend(tokens={"input": 20, "cache_read": 1_000}))
        assert done["items"] == [{"event": "call-1", "result": "accepted", "detail": ""}]
    assert used(admin) == {"tokens": 1_020, "each": 1, "credits": 120}
    assert total(admin) == {"requests": 1, "input_tokens": 1_020, "credits": 120}
    assert left(admin) == 4_880
    admin.put(PATH + "/corrections/again", amend(tokens={"input": 1}))
    assert used(admin) == {"tokens": 1, "each": 1, "credits": 1}
    log = admin.get("/v1/audit-log", params={"customer": "acme"})["items"]
    assert (log[0]["action"], log[0]["body"]["reason"]) == ("usage.amend", "counted twice")
    assert database.read(check_books) == []
    events = {item["event"]: item["usage"] for item in admin.get(PATH + "/events")["items"]}
    assert events["call-1"]["amounts"]["input_tokens"] == 400, "the event itself never changes"
    assert events["by-hand~fix"]["corrects"] == "call-1"


def test_a_voided_call_never_was_and_its_credits_come_back(admin: Any, upload: Upload, database: Any) -> None:
    upload("call-1", {"input": 300})
    upload("call-2", {"input": 5})
    body = {"kind": "void", "event": "call-1", "reason": "a test of ours"}
    admin.put(PATH + "/corrections/never", body)
    assert used(admin) == {"tokens": 5, "each": 1, "credits": 5}
    assert left(admin) == 4_995
    more = admin.put(PATH + "/corrections/never-again", body)
    assert more["effects"] == {"counters": [], "sums": [], "credits": []}, "there is nothing left of it"
    assert database.read(check_books) == []
    made = admin.get(PATH + "/corrections")["items"]
    assert [(one["correction"], one["kind"]) for one in made] == [("never", "void"), ("never-again", "void")]


def test_what_no_agent_saw_counts_as_if_one_had_told_it_then(
    admin: Any, upload: Upload, clock: Any, database: Any
) -> None:
    upload("call-1", {"input": 300})
    now_ms = clock.now_ms()

    def missed(event: str, at_ms: int, **more: Any) -> dict[str, Any]:
        said = {"tokens": {"input": 100}, "subject": {"user": "ann"}, **more}
        return {"event": event, "feature": "chat", "at": rfc3339(at_ms), **said}

    events = [
        missed("new", now_ms - 5_000),
        missed("call-1", now_ms, tokens={"input": 300}),
        missed("new", now_ms, tokens={"input": 7}),
        missed("new", now_ms),
        missed("odd", now_ms, tokens={}, amounts={"smiles": 1}),
        missed("old", now_ms - 34 * DAY_MS - 1),
        missed("next", now_ms + DAY_MS),
    ]
    body = {"events": events, "reason": "an outage"}
    shown = admin.put(PATH + "/backfills/outage?preview=true", body)
    assert used(admin)["tokens"] == 300
    done = admin.put(PATH + "/backfills/outage", body)
    assert {**shown, "preview": False} == done
    results = [item["result"] for item in done["items"]]
    assert results == ["accepted", "duplicate", "conflict", "duplicate", "rejected", "late", "rejected"]
    assert "amounts.smiles" in done["items"][4]["detail"]
    assert used(admin) == {"tokens": 400, "each": 2, "credits": 400}
    assert left(admin) == 4_600
    assert [one["code"] for one in admin.get("/v1/event-conflicts")["items"]] == ["late"]
    assert admin.put(PATH + "/backfills/outage", body) == done
    assert database.read(check_books) == []


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (amend(event="nobody"), 404, "event_not_found", "event"),
        (amend(event="by-hand~first"), 400, "invalid_request", "event"),
        (amend(amounts={"credits": 5}), 400, "invalid_request", "amounts.credits"),
        (amend(tokens={"thoughts": 5}), 400, "invalid_request", "tokens.thoughts"),
        (amend(amounts={"input_tokens": -1}), 400, "invalid_request", "amounts"),
        ({"kind": "void", "event": "call-1", "reason": "x", "amounts": {"requests": 1}}, 400, "invalid_request",
         "amounts"),
        ({"kind": "edit", "event": "call-1", "reason": "x"}, 400, "invalid_request", "kind"),
        ({"kind": "void", "event": "call-1"}, 400, "invalid_request", "reason"),
    ],
)  # fmt: skip
def test_a_wrong_correction_is_refused_by_name(
    admin: Any, upload: Upload, body: Any, status: int, code: str, field: str
) -> None:
    upload("call-1", {"input": 300})
    admin.put(PATH + "/corrections/first", amend(tokens={"input": 30}))
    refused = admin("PUT", PATH + "/corrections/wrong", json=body)
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
    assert refused.json()["field"].startswith(field)


def test_one_id_means_one_thing(admin: Any, upload: Upload, support: Any) -> None:
    upload("call-1", {"input": 300})
    admin.put(PATH + "/corrections/fix", amend(tokens={"input": 30}))
    refused = admin("PUT", PATH + "/corrections/fix", json=amend(tokens={"input": 31}))
    assert (refused.status_code, refused.json()["code"]) == (409, "correction_exists")
    body = {"events": [{"event": "e", "feature": "chat", "at": "2026-09-21T00:00:00Z"}], "reason": "x"}
    assert admin("PUT", PATH + "/backfills/fix", json=body).status_code == 409
    assert support("PUT", PATH + "/corrections/other", json=amend()).status_code == 403
    bad = {"events": [{"event": "e", "feature": "chat", "at": "yesterday"}], "reason": "x"}
    refused = admin("PUT", PATH + "/backfills/other", json=bad)
    assert (refused.status_code, refused.json()["field"]) == (400, "events[0].at")
