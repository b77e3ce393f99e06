"""Usage from elsewhere as CloudEvents: counted once by source and id, each answered by itself, in nobody's way."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent

from control_plane.api.ingest import EVENTS_BYTES_MAX, EVENTS_MAX
from control_plane.operations.audit_books import check_books
from protocol.instants import rfc3339

DAY_MS = 86_400_000
SINGLE = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
LIMITS: list[dict[str, Any]] = [
    {"key": "tokens", "meter": "input_tokens", "amount": 10_000, "window": "month"},
    {"key": "each", "meter": "requests", "amount": 100, "window": "day", "scope": "user"},
    {"key": "credits", "meter": "credits", "amount": 0, "window": "grants"},
]
RATE = {"meter": "credits", "weights": {"input_tokens": 1_000_000}, "classes": {"cache_read": 100_000}}


both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLite, unless a test asks for both: most of this depends on no database."""
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_url")
    return url


@pytest.fixture
def admin(admin: Any) -> Any:
    """Of a catalog with customers on it."""
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/credits", {"unit": "credits"})
    plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": LIMITS, "rates": [RATE]}
    admin.put("/v1/plans/pro", plan)
    for customer in ("acme", "globex"):
        admin.put(f"/v1/customers/{customer}", {"name": customer})
        admin.put(f"/v1/customers/{customer}/subscription", {"plan": "pro"})
        grant = {"meter": "credits", "amount": 5_000, "reason": "bought"}
        admin.put(f"/v1/customers/{customer}/grants/top-up", grant)
    return admin


@pytest.fixture
def sender(client: Any, tokens: Any, admin: Any) -> Any:
    """Who holds a token that only sends usage."""
    return type(admin)(client, tokens.ingest)


def event(id_: str, customer: str = "acme", **more: Any) -> dict[str, Any]:
    data = {"feature": "chat", "tokens": {"input": 100, "cache_read": 50}, "subject": {"user": "ann"}, **more}
    return {
        "specversion": "1.0",
        "id": id_,
        "source": "/gateway/1",
        "type": "llm.call",
        "subject": customer,
        "data": data,
    }


def send(sender: Any, *events: Any, **options: Any) -> Any:
    answer = sender("POST", "/v1/events", content=json.dumps(events), headers=BATCH, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def results(answer: Any) -> list[str]:
    return [one["result"] for one in answer["items"]]


def used(admin: Any, customer: str = "acme") -> dict[str, int]:
    items = admin.get(f"/v1/customers/{customer}/balances", params={"user": "ann"})["items"]
    return {item["limit"]: item["used"] for item in items}


@both_databases
def test_an_event_counts_in_the_same_ledger_limits_and_credits_as_what_agents_upload(
    admin: Any, sender: Any, database: Any
) -> None:
    answer = sender("POST", "/v1/events", content=json.dumps(event("call-1", model="gpt-4o")), headers=SINGLE)
    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["items"]
    assert (item["source"], item["id"], item["customer"], item["result"]) == (
        "/gateway/1", "call-1", "acme", "accepted"
    )  # fmt: skip
    assert used(admin) == {"tokens": 150, "each": 1, "credits": 105}
    (kept,) = admin.get("/v1/customers/acme/events")["items"]
    assert kept["event"] == item["event"]
    assert kept["event"].startswith("call-1@"), "people find it by the id that was sent"
    assert kept["agent"].startswith("cloudevents~"), "and by whose token"
    assert kept["usage"]["priced"], "what rates make of it is priced as an agent's would be"
    assert admin.get("/v1/customers/acme/credits")[0]["remaining"] == 4_895
    assert database.read(check_books) == []


@both_databases
def test_a_repeat_counts_once_and_other_content_under_the_same_identity_is_kept_as_a_conflict(
    admin: Any, sender: Any, clock: Any, database: Any
) -> None:
    assert results(send(sender, event("a"), event("a"), event("b"))) == ["accepted", "duplicate", "accepted"]
    clock.advance(60_000)
    other = event("a", tokens={"input": 7})
    assert results(send(sender, event("b"), other, other, event("c"))) == [
        "duplicate", "conflict", "conflict", "accepted"
    ]  # fmt: skip
    elsewhere = {**event("a"), "source": "/gateway/2"}
    assert results(send(sender, elsewhere, other)) == ["accepted", "conflict"], "another source's a is another event"
    assert used(admin)["tokens"] == 4 * 150
    conflicts = admin.get("/v1/event-conflicts")["items"]
    assert [(one["code"], one["usage"]["tokens"]) for one in conflicts] == [("conflict", {"input": 7})]
    assert database.read(check_books) == []


@both_databases
def test_each_event_of_a_batch_has_its_own_answer_and_disturbs_no_other(
    admin: Any, sender: Any, clock: Any, database: Any
) -> None:
    at = rfc3339(clock.now_ms() - 34 * DAY_MS - 1)
    answer = send(
        sender,
        event("good"),
        "no event",
        {"id": "bare", "source": "/x"},
        event("typo", tokns={"input": 1}),
        event("class", tokens={"thoughts": 1}),
        event("minus", tokens={"input": -1}),
        event("half", tokens={"input": 1.5}),
        event("feature", feature="chess"),
        event("meter", amounts={"smiles": 1}),
        {**event("old"), "time": at},
        {**event("next"), "time": rfc3339(clock.now_ms() + DAY_MS)},
        {**event("when"), "time": "yesterday"},
        {**event("whose"), "subject": None},
        event("who", "nobody"),
        {**event("version"), "specversion": "0.3"},
        {**event("xml"), "datacontenttype": "text/xml"},
        {**event("extended"), "traceparent": "00-1-2-01"},
        event("twice", "globex"),
    )
    assert results(answer) == [
        "accepted", *["rejected"] * 8, "late", *["rejected"] * 3, "unknown_customer", "rejected", "rejected",
        "accepted", "accepted",
    ]  # fmt: skip
    assert answer["results"] == {"accepted": 3, "rejected": 13, "late": 1, "unknown_customer": 1}
    details = {one["id"]: one["detail"] for one in answer["items"]}
    for id_, words in {
        "bare": "specversion: is missing", "typo": "data.tokns", "class": "tokens.thoughts", "minus": "data.tokens",
        "half": "data.tokens", "feature": "feature: is 'chess'", "meter": "amounts.smiles", "old": "older than 34 days",
        "next": "time: is an instant to come", "when": "time: is 'yesterday'", "whose": "subject: is missing",
        "version": "specversion", "xml": "datacontenttype", "who": "nobody knows",
    }.items():  # fmt: skip
        assert words in details[id_], (id_, details[id_])
    assert (used(admin), used(admin, "globex")["tokens"]) == ({"tokens": 300, "each": 2, "credits": 210}, 150)
    kept = admin.get("/v1/event-conflicts")["items"]
    assert {(one["code"], one["customer"]) for one in kept} == {("late", "acme"), ("unknown_customer", "nobody")}
    assert database.read(check_books) == []


def test_what_was_accepted_in_its_time_is_a_duplicate_however_late_it_comes_again(sender: Any, clock: Any) -> None:
    then = {**event("a"), "time": rfc3339(clock.now_ms())}
    assert results(send(sender, then)) == ["accepted"]
    clock.advance(40 * DAY_MS)
    assert results(send(sender, then, {**then, "id": "b"})) == ["duplicate", "late"]


def test_an_event_counts_when_it_happened_and_of_a_closed_period_at_the_next_ones_start(
    admin: Any, sender: Any, clock: Any
) -> None:
    then_ms = clock.now_ms()
    assert results(send(sender, {**event("a"), "time": rfc3339(then_ms - DAY_MS)})) == ["accepted"]
    assert used(admin)["each"] == 0, "yesterday's calls are not today's"
    start = rfc3339(then_ms)
    clock.advance(32 * DAY_MS)
    assert admin("POST", f"/v1/customers/acme/periods/{start}/close", json={}).status_code == 200
    assert results(send(sender, {**event("b"), "time": rfc3339(then_ms + DAY_MS)})) == ["accepted"]
    period = admin.get("/v1/customers/acme/periods/present")
    (adjustment,) = period["statement"]["adjustments"]
    assert (adjustment["event"].partition("@")[0], adjustment["happened_at"]) == ("b", rfc3339(then_ms + DAY_MS))


def test_one_event_alone_that_is_not_counted_is_answered_by_a_problem(sender: Any, clock: Any) -> None:
    def status(body: Any) -> tuple[int, str]:
        answer = sender("POST", "/v1/events", content=json.dumps(body), headers=SINGLE)
        return answer.status_code, answer.json().get("code", "")

    assert status(event("a")) == (200, "")
    assert status(event("a")) == (200, "")
    assert status(event("a", tokens={})) == (409, "event_conflict")
    assert status(event("b", "nobody")) == (404, "event_unknown_customer")
    assert status(event("c", feature="chess")) == (422, "event_rejected")
    assert status({**event("d"), "time": rfc3339(clock.now_ms() - 41 * DAY_MS)}) == (422, "event_late")
    assert status({"id": "e"}) == (400, "invalid_request")


def test_binary_mode_and_plain_json_say_the_same(admin: Any, sender: Any) -> None:
    said = event("a b/ü")
    headers = {
        "Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "a%20b/%C3%BC", "ce-source": "/gateway/1",
        "ce-type": "llm.call", "ce-subject": "acme",
    }  # fmt: skip
    body = json.dumps(said["data"])
    first = sender("POST", "/v1/events", content=body, headers=headers).json()
    assert results(first) == ["accepted"]
    assert first["items"][0]["event"].startswith("cloudevent~"), "a name that an id cannot be is a digest"
    assert results(sender("POST", "/v1/events", json=said).json()) == ["duplicate"]
    assert results(sender("POST", "/v1/events", json=[said, event("b")]).json()) == ["duplicate", "accepted"]
    packed = gzip.compress(json.dumps(said).encode())
    again = sender("POST", "/v1/events", content=packed, headers={"Content-Encoding": "gzip", **SINGLE})
    assert results(again.json()) == ["duplicate"]
    refused = sender("POST", "/v1/events", content="{", headers=headers)
    assert (refused.status_code, refused.json()["field"]) == (400, "data")


def test_the_cloudevents_sdk_is_understood_in_both_modes(admin: Any, sender: Any, clock: Any) -> None:
    attributes = {"id": "a", "source": "https://gateway.example/1", "type": "llm.call", "subject": "acme"}
    attributes["time"] = rfc3339(clock.now_ms())
    said = CloudEvent(attributes, {"feature": "chat", "tokens": {"input": 10, "reasoning": 3}, "model": "o3"})
    found = []
    for convert in (to_structured, to_binary, to_structured):
        headers, body = convert(said)
        answer = sender("POST", "/v1/events", headers=headers, content=body)
        assert answer.status_code == 200, answer.text
        found += results(answer.json())
    assert found == ["accepted", "duplicate", "duplicate"]
    assert used(admin)["tokens"] == 10


NO_EVENTS: list[tuple[bytes, dict[str, str], int]] = [
    (b"[]", BATCH, 400),
    (b"{}", BATCH, 400),
    (b"[", BATCH, 400),
    (b"[" * 100_000, BATCH, 400),
    (b"\xff", SINGLE, 400),
    (b"", SINGLE, 400),
    (b"[" + b",".join([b"{}"] * (EVENTS_MAX + 1)) + b"]", BATCH, 400),
    (b" " * (EVENTS_BYTES_MAX + 1), BATCH, 413),
    (b"{}", {"Content-Type": "text/plain"}, 415),
    (b"{}", {"Content-Encoding": "br", **SINGLE}, 415),
    (gzip.compress(b" " * (EVENTS_BYTES_MAX + 1)), {"Content-Encoding": "gzip", **SINGLE}, 400),
    (b"{}", {"Content-Type": "application/cloudevents+avro"}, 415),
]


def test_what_is_no_events_at_all_is_refused_whole(sender: Any) -> None:
    for path in ("/v1/events", "/api/v1/events"):
        for content, headers, status in NO_EVENTS:
            answer = sender("POST", path, content=content, headers=headers)
            assert answer.status_code == status, (path, content[:20], answer.text)
            assert answer.headers["content-type"] == "application/problem+json"


def test_only_senders_and_admins_send_and_senders_do_nothing_else(admin: Any, sender: Any, support: Any) -> None:
    for path in ("/v1/events", "/api/v1/events"):
        assert support("POST", path, json=event("a")).status_code == 403
        assert admin("POST", path, json=event("a")).status_code in {200, 204}
    for path in ("/v1/customers/acme/events", "/v1/customers", "/v1/event-conflicts"):
        assert sender("GET", path).status_code == 403
    assert sender("PUT", "/v1/customers/acme", json={"name": "Mine"}).status_code == 403


def test_a_crowd_of_senders_is_told_to_come_again(app: Any, sender: Any) -> None:
    class Crowded:
        def statistics(self) -> Any:
            return type("Statistics", (), {"tasks_waiting": 10**6})

    app.state.ingest_turns = Crowded()
    refused = sender("POST", "/v1/events", json=event("a"))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


@both_databases
def test_many_events_of_many_customers_go_in_pieces_and_add_up(admin: Any, sender: Any, database: Any) -> None:
    batch = [
        event(f"call-{number}", ("acme", "globex")[number % 2], tokens={"input": 1}) for number in range(EVENTS_MAX)
    ]
    assert send(sender, *batch)["results"] == {"accepted": EVENTS_MAX}
    assert send(sender, *batch)["results"] == {"duplicate": EVENTS_MAX}
    assert used(admin)["tokens"] == used(admin, "globex")["tokens"] == EVENTS_MAX // 2
    assert database.read(check_books) == []


@both_databases
def test_many_who_send_the_same_at_once_count_it_once(admin: Any, sender: Any, database: Any) -> None:
    batches = [
        [event(f"call-{number}", ("acme", "globex")[number % 2]) for number in range(start, start + 40)]
        for start in (0, 20, 40, 0, 20, 40)
    ]
    with ThreadPoolExecutor(len(batches)) as pool:
        answers = list(pool.map(lambda batch: send(sender, *batch), batches))
    told = [result for answer in answers for result in results(answer)]
    assert (told.count("accepted"), told.count("duplicate")) == (80, 160)
    assert used(admin)["each"] + used(admin, "globex")["each"] == 80
    assert database.read(check_books) == []
