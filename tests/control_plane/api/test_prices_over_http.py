"""Price books over HTTP: versions that never change, plans that pin them, seeds with a dry run, and re-rating."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import httpx
import pytest

from control_plane.operations.audit_books import check_books
from control_plane.operations.sync_agent import Synced, sync_agent
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import Entitlement
from protocol.events import EventBatch, Priced, UsageEvent
from protocol.instants import rfc3339
from protocol.rates import RateCard
from protocol.units import normalise
from protocol.uplink_messages import SyncRequest

DAY_MS = 86_400_000
SONNET = {"model": "claude-sonnet-4", "tokens": {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000}}
HAIKU = {"model": "claude-haiku", "tokens": {"input": 800_000, "output": 4_000_000}}
BOOK = "/v1/price-books/standard"
USE = {"book": "standard", "models": ["claude-sonnet-4", "claude-haiku"]}
BUDGET = {"key": "budget", "meter": "cost_micros", "amount": 10**9, "window": "month"}


def book(markup_bp: int = 0, *overrides: dict[str, Any]) -> dict[str, Any]:
    return {"currency": "USD", "markup_bp": markup_bp, "overrides": list(overrides or (SONNET, HAIKU))}


def plan(**more: Any) -> dict[str, Any]:
    return {"name": "Pro", "features": [{"feature": "chat"}], "limits": [BUDGET], "price_books": [USE], **more}


def problem(response: httpx.Response, status: int) -> tuple[str, str]:
    assert response.status_code == status, response.text
    return response.json()["code"], response.json().get("field", "")


@pytest.fixture
def priced(admin: Any) -> Any:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/cost_micros", {"unit": "micro-USD"})
    admin.put(BOOK, book())
    admin.put("/v1/plans/pro", plan())
    for customer in ("acme", "zoo"):
        admin.put(f"/v1/customers/{customer}", {"name": customer})
        admin.put(f"/v1/customers/{customer}/subscription", {"plan": "pro"})
    return admin


def test_a_version_never_changes_and_the_same_again_makes_none(priced: Any) -> None:
    assert priced.put(BOOK, book())["version"] == 1
    assert priced.put(BOOK, book(2_000))["version"] == 2
    assert [priced.get(BOOK, params={"version": at})["markup_bp"] for at in (1, 2)] == [0, 2_000]
    assert priced.get("/v1/price-books")["items"][0]["version"] == 2
    assert priced.get(BOOK)["models"] == 2
    first = priced.get(f"{BOOK}/prices", params={"limit": 1})
    rest = priced.get(f"{BOOK}/prices", params={"cursor": first["next_cursor"]})
    assert [price["model"] for price in first["items"] + rest["items"]] == ["claude-haiku", "claude-sonnet-4"]
    log = priced.get("/v1/audit-log")["items"]
    assert [entry["action"] for entry in log if entry["action"].startswith("price_book")] == ["price_book.put"] * 2


def test_a_plan_pins_the_newest_version_and_keeps_it(priced: Any) -> None:
    priced.put(BOOK, book(2_000))
    assert priced.get("/v1/plans/pro")["price_books"] == [{**USE, "version": 1}]
    assert priced.put("/v1/plans/pro", plan())["version"] == 2, "the newest book is another one now"
    assert priced.get("/v1/plans/pro")["price_books"] == [{**USE, "version": 2}]
    assert priced.put("/v1/plans/pro", plan())["version"] == 2
    old = priced.get("/v1/customers/acme/entitlement")
    assert [(rate["book"], rate["weights"]["input_tokens"]) for rate in old["rates"]] == [
        ("standard@1", 3_000_000),
        ("standard@1", 800_000),
    ]
    assert priced.get("/v1/plans/pro")["rates"] == []
    assert priced.put("/v1/plans/pro", plan(price_books=[{**USE, "version": 1}]))["version"] == 3, "chosen openly"


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"price_books": [{**USE, "book": "other"}]}, 404, ("price_book_not_found", "price_books[0].book")),
        ({"price_books": [{**USE, "version": 9}]}, 404, ("price_book_not_found", "price_books[0].book")),
        ({"price_books": [{**USE, "models": ["gpt-4o"]}]}, 400, ("invalid_request", "price_books[0].models[0]")),
        ({"price_books": [{**USE, "meter": "credits"}]}, 400, ("invalid_request", "price_books")),
        ({"price_books": [USE, USE]}, 400, ("invalid_request", "price_books")),
        ({"price_books": [{**USE, "models": []}]}, 400, ("invalid_request", "price_books[0].models")),
        (
            {"rates": [{"meter": "cost_micros", "weights": {"requests": 1}, "book": "x@1"}]},
            400,
            ("invalid_request", "rates[0].book"),
        ),
    ],
)
def test_a_plan_that_names_what_has_no_price_is_refused(priced: Any, change: Any, status: int, told: Any) -> None:
    assert problem(priced("PUT", "/v1/plans/pro", json=plan(**change)), status) == told


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (book(-10_001), "markup_bp"),
        ({**book(), "currency": "usd"}, "currency"),
        (book(0, {"model": "m"}), "overrides[0]"),
        (book(0, SONNET, SONNET), "overrides[1].model"),
        (book(0, {"model": "m", "tokens": {"thoughts": 1}}), "overrides[0].tokens"),
        (book(0, {"model": "m", "tokens": {"input": -1}}), "overrides[0].tokens"),
        (book(0, {"model": "m", "tokens": {"input": 1}, "meters": {"imagez": 1}}), "overrides[0].meters.imagez"),
    ],
)
def test_a_book_that_breaks_a_rule_is_refused_by_the_field(priced: Any, body: dict[str, Any], field: str) -> None:
    code, told = problem(priced("PUT", BOOK, json=body), 400)
    assert (code, told[: len(field)]) == ("invalid_request", field)


def test_a_books_currency_never_changes(priced: Any) -> None:
    response = priced("PUT", BOOK, json={**book(), "currency": "EUR"})
    assert problem(response, 409) == ("price_book_currency_fixed", "currency")
    priced.put("/v1/price-books/euro", {**book(), "currency": "EUR"})
    assert problem(priced("POST", "/v1/price-books/euro/seed", json={}), 409)[0] == "price_book_currency_fixed"


def test_seeding_shows_what_would_change_and_leaves_overrides_alone(priced: Any) -> None:
    mine = {"model": "gpt-4o", "tokens": {"input": 1, "output": 2}}
    priced.put(BOOK, book(0, mine))
    shown = priced.post(f"{BOOK}/seed", {"dry_run": True})
    assert (shown["version"], priced.get(BOOK)["version"]) == (3, 2)
    assert shown["changes"] > 1_000
    done = priced.post(f"{BOOK}/seed", {})
    assert (done["version"], done["changes"], done["source"][:12]) == (3, shown["changes"], "genai-prices")
    assert priced.post(f"{BOOK}/seed", {})["version"] == 3, "the same again makes no version"
    assert priced.get(BOOK)["overrides"] == [mine]
    use = {"book": "standard", "models": ["gpt-4o", "openai/gpt-4o-mini", "gpt-4o-mini"]}
    priced.put("/v1/plans/max", plan(price_books=[use]))
    priced.put("/v1/customers/acme/subscription", {"plan": "max"})
    mine_rate, named, bare = priced.get("/v1/customers/acme/entitlement")["rates"]
    assert mine_rate["weights"] == {"input_tokens": 1, "output_tokens": 2}
    assert named["weights"] == bare["weights"]
    dear = priced.post(f"{BOOK}/seed", {"dry_run": True, "long_prompts": True})
    assert 0 < dear["tiered"] < shown["changes"]


# -- re-rating


def upload(admin: Any, clock: Any, database: Any, *calls: tuple[str, str, dict[str, int]], boot: int) -> None:
    """Calls as an agent tells them that has the customer's entitlement."""
    told = []
    for number, (customer, model, tokens) in enumerate(calls):
        said = admin.get(f"/v1/customers/{customer}/entitlement")
        known = {name: value for name, value in said.items() if name in Entitlement.__struct_fields__}
        entitlement = MsgpackDecoder(Entitlement)(encode_msgpack(known))
        choice = RateCard(entitlement.rates, entitlement.plan).choose("chat", model)
        meters = normalise({}, tokens)
        counted = meters | choice.exact(meters, tokens)
        how = {"model": model, "tokens": tokens, "derived": choice.meters, "priced": choice.priced}
        told.append(UsageEvent(f"call-{boot}-{number}", customer, "chat", clock.now_ms(), counted, **how))
    send(database, clock, told, boot)


def send(database: Any, clock: Any, told: list[UsageEvent], boot: int = 1) -> None:
    body = encode_msgpack(told)
    batch = EventBatch(boot, 1, len(told), crc32(body), body)
    request = SyncRequest("journal", boot, f"nonce-{boot}", batches=(batch,), snapshot=True)
    done = database.run(lambda connection: sync_agent(connection, "agent-1", request, clock.now_ms()))
    assert isinstance(done, Synced), done
    assert done.reply.event_problems == ()


def spent(admin: Any, customer: str = "acme") -> tuple[int, int]:
    """What the budget says, and what the usage says."""
    (balance,) = [one for one in admin.get(f"/v1/customers/{customer}/balances")["items"] if one["limit"] == "budget"]
    items = admin.get(f"/v1/customers/{customer}/usage")["items"]
    return balance["used"], sum(item["quantity"] for item in items if item["meter"] == "cost_micros")


def order(clock: Any, **more: Any) -> dict[str, Any]:
    span = {"from": rfc3339(clock.now_ms() - DAY_MS), "to": rfc3339(clock.now_ms() + 1)}
    return {"book": "standard", "version": 2, **span, "reason": "a list price fell", **more}


@pytest.fixture
def used(priced: Any, tokens: Any, clock: Any, database: Any) -> Any:
    upload(
        priced, clock, database,
        ("acme", "anthropic/claude-sonnet-4-20250514", {"input": 1_000, "cache_read": 500, "output": 100}),
        ("acme", "claude-haiku", {"output": 1_000}),
        ("zoo", "claude-haiku", {"input": 1_000}),
        boot=1,
    )  # fmt: skip
    cheaper = {"model": "claude-sonnet-4", "tokens": {"input": 1_500_000, "output": 15_000_000}}
    priced.put(BOOK, book(0, cheaper, HAIKU))
    return priced


def test_a_preview_changes_nothing_and_says_what_would(used: Any, clock: Any, support: Any) -> None:
    before = spent(used)
    assert before == (3_000 + 150 + 1_500 + 4_000,) * 2
    shown = used.put("/v1/reratings/november", order(clock, customer="acme"))
    assert (shown["calls"], shown["moved"], shown["corrected"], shown["next_cursor"]) == (2, 1, 0, None)
    day = rfc3339(clock.now_ms() - clock.now_ms() % DAY_MS)
    new = 1_500 + 750 + 1_500
    assert shown["changes"] == [{"day": day, "meter": "cost_micros", "before": 4_650, "after": new}]
    assert spent(used) == before
    assert support("PUT", "/v1/reratings/x", json=order(clock, customer="acme")).status_code == 403


def test_applied_it_corrects_each_call_once_and_every_sum_follows(used: Any, clock: Any, database: Any) -> None:
    done = used.put("/v1/reratings/november", order(clock, customer="acme", apply=True))
    assert (done["moved"], done["corrected"]) == (1, 1)
    assert spent(used) == (1_500 + 750 + 1_500 + 4_000,) * 2
    assert used.put("/v1/reratings/november", order(clock, customer="acme", apply=True))["corrected"] == 0
    assert used.put("/v1/reratings/december", order(clock, customer="acme", apply=True))["moved"] == 0
    newest = max(used.get("/v1/customers/acme/events")["items"], key=lambda item: "rerate" in item["event"])
    assert newest["usage"]["corrects"] == "call-1-0"
    assert newest["usage"]["priced"] == [["cost_micros", "standard@2", "claude-sonnet-4", 1, True]]
    log = used.get("/v1/audit-log", params={"customer": "acme"})["items"]
    assert log[0]["action"] == "usage.rerate"
    assert database.read(check_books) == []
    back = used.put("/v1/reratings/back", order(clock, customer="acme", version=1, apply=True))
    assert back["corrected"] == 1
    assert spent(used) == (8_650,) * 2


def test_a_plans_customers_are_priced_page_by_page(used: Any, clock: Any) -> None:
    used.put(BOOK, book(10_000))
    body = order(clock, plan="pro", version=3, apply=True)
    first = used.put("/v1/reratings/all", body)
    assert (first["calls"], first["corrected"]) == (2, 2)
    rest = used.put("/v1/reratings/all", {**body, "cursor": first["next_cursor"]})
    assert (rest["calls"], rest["corrected"], rest["next_cursor"]) == (1, 1, None)
    assert [spent(used, name)[0] for name in ("acme", "zoo")] == [2 * 8_650, 2 * 800]


def test_what_counts_outside_the_span_is_left_alone(used: Any, clock: Any) -> None:
    span = {"from": rfc3339(clock.now_ms() - DAY_MS), "to": rfc3339(clock.now_ms())}
    assert used.put("/v1/reratings/n", order(clock, customer="acme", **span))["calls"] == 0


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({}, 400, ("invalid_request", "customer")),
        ({"customer": "acme", "plan": "pro"}, 400, ("invalid_request", "customer")),
        ({"customer": "acme", "to": "2020-01-01T00:00:00Z"}, 400, ("invalid_request", "to")),
        ({"customer": "acme", "from": "yesterday"}, 400, ("invalid_request", "from")),
        ({"customer": "acme", "from": "2026-09-01T00:00:00"}, 400, ("invalid_request", "from")),
        ({"customer": "nobody"}, 404, ("customer_not_found", "customer")),
        ({"customer": "acme", "version": 9}, 404, ("price_book_not_found", "book")),
        ({"customer": "acme", "cursor": "x"}, 400, ("invalid_request", "cursor")),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(used: Any, clock: Any, change: Any, status: int, told: Any) -> None:
    assert problem(used("PUT", "/v1/reratings/n", json=order(clock, **change)), status) == told


def test_a_name_never_means_two_orders(used: Any, clock: Any) -> None:
    used.put("/v1/reratings/n", order(clock, customer="acme", apply=True))
    response = used("PUT", "/v1/reratings/n", json=order(clock, customer="zoo", apply=True))
    assert problem(response, 409) == ("rerating_exists", "rerating")


def test_a_call_that_was_corrected_many_times_at_once_is_priced_by_its_last_word(
    priced: Any, tokens: Any, clock: Any, database: Any
) -> None:
    told = []
    for number in range(12):
        amounts = {"requests": 0, "output_tokens": 100, "cost_micros": 1_500}
        name, corrects = ("call", None) if number == 0 else (f"call~{number}", "call")
        model = "claude-haiku" if number == 11 else "claude-sonnet-4"
        by = (Priced("cost_micros", "standard@1", model),)
        how = {"model": model, "derived": ("cost_micros",), "priced": by, "tokens": {"output": 100}}
        told.append(UsageEvent(name, "acme", "chat", clock.now_ms(), amounts, corrects=corrects, **how))
    send(database, clock, told)
    priced.put(BOOK, book(5_000))
    shown = priced.put("/v1/reratings/n", order(clock, customer="acme"))
    assert [(change["before"], change["after"]) for change in shown["changes"]] == [(18_000, 1_200 * 6)]


@pytest.mark.parametrize(("markup_bp", "after"), [(-5_000, 2_500), (10_000, 10_000)])
def test_credits_are_burned_or_given_back_by_what_a_new_price_changes(
    priced: Any, tokens: Any, clock: Any, database: Any, markup_bp: int, after: int
) -> None:
    purse = {"key": "purse", "meter": "cost_micros", "amount": 0, "window": "grants"}
    priced.put("/v1/plans/purse", plan(limits=[purse]))
    priced.put("/v1/customers/acme/subscription", {"plan": "purse"})
    priced.put("/v1/customers/acme/grants/gift", {"meter": "cost_micros", "amount": 20_000, "reason": "welcome"})
    upload(
        priced, clock, database,
        ("acme", "claude-haiku", {"output": 1_000}),
        ("acme", "claude-haiku", {"output": 250}),
        boot=1,
    )  # fmt: skip

    def settled() -> int:
        (balance,) = priced.get("/v1/customers/acme/credits")
        left: int = balance["settled"]
        return left

    assert settled() == 20_000 - 5_000
    priced.put(BOOK, book(markup_bp))
    for _ in range(2):
        priced.put("/v1/reratings/n", order(clock, customer="acme", apply=True))
        assert settled() == 20_000 - after
    assert database.read(check_books) == []


def test_a_model_without_a_price_is_explained_as_agents_decide_it(priced: Any) -> None:
    def explained(model: str) -> Any:
        asked = {"feature": "chat", "model": model, "meter": "output_tokens", "amount": 10}
        return priced.get("/v1/customers/acme/explain", params=asked)

    assert explained("claude-haiku-latest")["decision"] == "allow"
    refused = explained("llama")
    assert (refused["decision"], refused["code"]) == ("block", "model_unavailable")
