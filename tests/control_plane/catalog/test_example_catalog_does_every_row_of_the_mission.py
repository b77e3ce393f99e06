"""The example catalog, applied to both databases and walked through: one test for each thing the product must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from control_plane.cli.catalog_yaml import read_catalog, write_catalog
from control_plane.core.catalog_file import CatalogFile, concise
from control_plane.operations.keep_entitlements import keep_due
from control_plane.operations.reconcile import reconcile
from control_plane.operations.sync_agent import Synced, sync_agent
from control_plane.store.database import Database
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import Entitlement, LimitEnd
from protocol.events import EventBatch, Subject, UsageEvent
from protocol.instants import from_rfc3339, rfc3339
from protocol.rates import RateCard
from protocol.units import normalise
from protocol.uplink_messages import Ask, CustomerSync, SyncRequest
from protocol.windows import WindowKind

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "examples" / "catalog" / "catalog.yaml").read_text()
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ANCHOR = "2026-09-15T00:00:00Z"


class Acme:
    """A company on the plan `team`, its administrator, and the agent that tells of its calls."""

    def __init__(self, admin: Any, database: Database, clock: Any) -> None:
        self.admin, self.database, self.clock, self.seq = admin, database, clock, 0

    def __call__(self, path: str = "", **query: Any) -> Any:
        return self.admin.get(f"/v1/customers/acme{path}", params=query)

    def subscribe(self, plan: str = "team", **order: Any) -> Any:
        return self.admin.put("/v1/customers/acme/subscription", {"plan": plan, **order})

    def explain(self, feature: str = "chat", **asked: Any) -> Any:
        return self("/explain", feature=feature, **asked)

    def limit(self, key: str, **asked: Any) -> Any:
        """How a limit stands for such a call."""
        return next(one for one in self.explain(**asked)["limits"] if one["limit"] == key)

    def card(self) -> RateCard:
        said = self("/entitlement")
        known = {name: value for name, value in said.items() if name in Entitlement.__struct_fields__}
        document = MsgpackDecoder(Entitlement)(encode_msgpack(known))
        return RateCard(document.rates, document.plan)

    def use(
        self,
        feature: str = "chat",
        model: str | None = None,
        tokens: dict[str, int] | None = None,
        tags: dict[str, str] | None = None,
        amounts: dict[str, int] | None = None,
        **subject: str,
    ) -> str:
        """A call that was made, as an agent tells of it: priced by the rates that it was given."""
        self.seq += 1
        choice, meters = self.card().choose(feature, model), normalise(amounts or {}, tokens or {})
        made = choice.exact(meters, tokens or {})
        event = UsageEvent(
            f"call-{self.seq}", "acme", feature, self.clock.now_ms(), meters | made, Subject(**subject),
            model=model, tokens=tokens or {}, tags=tags or {}, derived=choice.meters, priced=choice.priced,
        )  # fmt: skip
        body = encode_msgpack([event])
        self.sync(batches=(EventBatch(1, self.seq, 1, crc32(body), body),))
        return event.event

    def sync(self, **parts: Any) -> Any:
        request = SyncRequest("journal", 1, "nonce", snapshot=True, **parts)
        outcome = self.database.run(lambda connection: sync_agent(connection, "agent-1", request, self.clock.now_ms()))
        assert isinstance(outcome, Synced), outcome
        return outcome.reply

    def turn(self) -> None:
        """What time changes is written down, as the background does all the time."""
        while self.database.run(lambda connection: keep_due(connection, self.clock.now_ms())):
            pass

    def credits(self) -> Any:
        return next(one for one in self("/credits") if one["meter"] == "credits")

    def usage(self, by: str = "meter", **query: Any) -> dict[str, int]:
        keys = [key for key in by.split(",") if key != "meter"] or ["meter"]
        items = self("/usage", group_by=by, **query)["items"]
        return {one.get("tag" if keys[0].startswith("tag:") else keys[0], ""): one["quantity"] for one in items}


@pytest.fixture
def acme(admin: Any, database: Database, clock: Any) -> Acme:
    admin.put("/v1/catalog", read_catalog(TEXT, "catalog.yaml"))
    admin.put("/v1/customers/acme", {"name": "Acme"})
    found = Acme(admin, database, clock)
    found.subscribe(seats=2, billing={"anchor": ANCHOR})
    return found


def test_it_is_applied_exported_and_applied_again(allotment: Any, tmp_path: Path) -> None:
    path = ROOT / "examples" / "catalog" / "catalog.yaml"
    assert "21 would be new" in allotment("apply", str(path), "--dry-run").output
    assert "21 new, 0 changed" in allotment("apply", str(path)).output
    assert "0 new, 0 changed, 21 are" in allotment("apply", str(path)).output
    (tmp_path / "exported.yaml").write_text(allotment("export").output)
    assert "0 new, 0 changed, 21 are" in allotment("apply", str(tmp_path / "exported.yaml")).output


def test_it_uses_everything_that_a_catalog_can_say(acme: Acme) -> None:
    said = MsgpackDecoder(CatalogFile)(encode_msgpack(read_catalog(TEXT, "x")))
    limits = [limit for plan in said.plans.values() for limit in plan.limits]
    assert {limit.window for limit in limits} == set(WindowKind)
    assert {limit.scope.value for limit in limits} == {"customer", "workspace", "user", "role", "api_key", "tag"}
    assert {limit.at_end for limit in limits} == set(LimitEnd)
    written = write_catalog(concise(said))
    for word in (
        *("by_role", "per_seat", "prorate", "shadow", "thresholds", "overage_price", "smooth", "burst", "rollover_max"),
        *("in_flight: finish", "batch_floor", "estimate: p95", "others", "micros_per_unit", "combine: max"),
    ):
        assert word in written, word


def test_unit_definitions_and_normalization(acme: Acme) -> None:
    """Tokens, images and searches become the same credits, whatever they are counted in."""
    tokens = {"input": 1_000, "cache_read": 9_000, "output": 200, "reasoning": 300}
    acme.use(model="openai/gpt-4o-2024-08-06", tokens=tokens)
    acme.use("images", amounts={"images": 3})
    acme.use("search")
    sums = acme.usage()
    assert (sums["input_tokens"], sums["output_tokens"], sums["images"], sums["requests"]) == (10_000, 500, 3, 3)
    # 1,000 x 2.5 + 9,000 x 1.25 + 500 x 10 = 18,750 micro-dollars, and 20 % on top; a credit is a cent.
    assert sums["cost_micros"] == 22_500
    assert sums["credits"] == 3 + 3 * 4 + 2
    assert acme.explain(model="someone-elses", meter="input_tokens", amount=10)["code"] == "model_unavailable"


def test_attribution_and_dimensions(acme: Acme) -> None:
    """Limits and reports by user, workspace, role, key, model and tag."""
    tokens = {"input": 40_000, "output": 100}
    acme.use(model="gpt-4o-mini", tokens=tokens, user="ann", workspace="lab", role="intern", api_key="key-1")
    acme.use(model="gpt-4o", tokens=tokens, user="bob", workspace="lab", role="lead", api_key="key-1")
    acme.use(amounts={"tool_calls": 500}, tags={"project": "apollo"}, user="bob")
    for by, expected in (
        ("user", {"ann": 1, "bob": 2}),
        ("workspace", {"lab": 2}),
        ("role", {"intern": 1, "lead": 1}),
        ("api_key", {"key-1": 2}),
        ("tag:project", {"apollo": 1}),
        ("model", {"gpt-4o-mini": 1, "gpt-4o": 1}),
    ):
        found = acme.usage(f"{by},meter", meter="requests")
        assert {name: count for name, count in found.items() if name} == expected, by
    asked = {"meter": "input_tokens", "model": "gpt-4o"}
    intern = acme.explain(user="ann", role="intern", amount=20_000, **asked)
    assert (intern["decision"], intern["limiting"]) == ("block", "input-a-user-and-hour@intern")
    assert acme.explain(user="bob", amount=20_000, **asked)["decision"] == "allow"
    assert acme.explain(user="bob", role="lead", amount=190_000, **asked)["decision"] == "allow"
    assert acme.explain("images", role="intern")["code"] == "feature_unavailable"
    people = acme("/meters/active_users")["items"]
    assert [one["value"] for one in people] == [2]
    prompts = acme("/meters/largest_prompt", group_by="model")["items"]
    assert {one["group"]["model"]: one["value"] for one in prompts} == {"gpt-4o": 40_000, "gpt-4o-mini": 40_000}
    projects = acme("/balances", tag="project:apollo")["items"]
    assert next(one for one in projects if one["limit"] == "tools-a-project-and-day")["remaining"] == 0


def test_windows_and_resets(acme: Acme) -> None:
    """Hour, day, week, month and billing period, each with a reset that is shown, and none that anybody has to run."""
    acme.use(model="gpt-4o", tokens={"input": 10, "output": 10}, user="ann", workspace="lab", role="dev", api_key="k")
    shown = acme("/balances", user="ann", workspace="lab", role="dev", api_key="k")["items"]
    resets = {one["limit"]: one["window_end"] for one in shown}
    assert resets["input-a-user-and-hour"] == "2026-09-21T15:00:00Z"
    assert resets["requests-a-workspace-and-day"] == "2026-09-22T00:00:00Z"
    assert resets["requests-a-role-and-week"] == "2026-09-28T00:00:00Z"
    assert resets["output-a-key-and-month"] == "2026-10-01T00:00:00Z"
    assert resets["output-a-period"] == "2026-10-15T00:00:00Z"
    assert resets["input-ever"] is None
    asked = {"user": "ann", "meter": "input_tokens", "model": "gpt-4o"}
    assert acme.limit("input-a-user-and-hour", **asked)["used"] == 10
    acme.clock.advance(HOUR_MS)
    assert acme.limit("input-a-user-and-hour", **asked)["used"] == 0, "the next hour has a counter of its own"
    acme.subscribe("free")
    one_call = acme.explain(meter="input_tokens", amount=8_001)
    assert (one_call["code"], one_call["limiting"]) == ("requested_usage_exceeds_limit", "prompt-of-a-call")


def test_snapshots_and_audit_trail(acme: Acme) -> None:
    """Running totals and the immutable log agree, also after a correction, and every change names who made it."""
    event = acme.use(model="gpt-4o", tokens={"input": 1_000, "output": 100})
    acme.use(model="gpt-4o", tokens={"input": 500, "output": 100})
    acme.admin.put("/v1/customers/acme/corrections/oops", {"kind": "void", "event": event, "reason": "never happened"})
    assert acme.usage()["input_tokens"] == 500
    assert len(acme("/events")["items"]) == 3, "the call, the other, and what takes the first back: nothing is deleted"
    assert [one.differences for one in reconcile(acme.database) if one.differences] == []
    actions = [one["action"] for one in acme.admin.get("/v1/audit-log?limit=1000")["items"]]
    assert {"plan.publish", "feature.put", "meter.put", "price_book.put", "subscription.put"} <= set(actions)


def test_real_time_evaluation(acme: Acme) -> None:
    """Allow, throttle and block, by plan, role and what was used; and no more is lent than there is."""
    acme.subscribe("free")
    assert acme.explain()["decision"] == "allow"
    for _ in range(5):
        acme.use()
    throttled = acme.explain()
    assert (throttled["decision"], throttled["limiting"]) == ("throttle", "requests-a-minute")
    acme.clock.advance(60_000)
    for _ in range(25):
        acme.use()
    acme.clock.advance(60_000)
    blocked = acme.explain()
    assert (blocked["decision"], blocked["limiting"]) == ("block", "requests-an-hour")
    assert acme.explain("search")["code"] == "feature_not_found"
    counter = "*/input_tokens/day/customer"
    asks = (Ask("l1", counter, "", 70_000, 1), Ask("l2", counter, "", 70_000, 1))
    reply = acme.sync(customers=(CustomerSync("acme", 0, asks=asks),))
    assert sum(grant.amount for grant in reply.grants) <= 100_000


def test_predictable_for_its_users(acme: Acme) -> None:
    """What is used, what is left and until when is visible in normal work; a way up is there; history settles it."""
    acme.use("images", amounts={"images": 100}, user="ann")
    images = acme.limit("images-a-period", feature="images", meter="images")
    assert (images["amount"], images["used"], images["remaining"]) == (156, 100, 56), "its part of the first period"
    asked = {"meter": "images", "amount": 60}
    assert acme.explain("images", **asked)["limiting"] == "images-a-period"
    assert "100 of 156 used, 60 needed" in acme.explain("images", **asked)["message"]
    acme.subscribe(add_ons=[{"add_on": "more-images"}])
    assert acme.explain("images", **asked)["decision"] == "allow", "the add-on is the way up"
    assert acme.usage("day", meter="images") == {"2026-09-21T00:00:00Z": 100}


def test_source_of_truth(acme: Acme) -> None:
    """Plan, add-ons, seats, overrides and the subscription's state, evaluated as of now and of then."""
    whole = acme.limit("images-a-period", feature="images", meter="images")["amount"]
    begun_ms = acme.clock.now_ms()
    acme.clock.advance(HOUR_MS)
    acme.subscribe("team", seats=4)
    more = acme.limit("images-a-period", feature="images", meter="images")["amount"]
    assert whole < more < 400, "two seats came in the middle of the period: their part of it"
    acme.subscribe("team", add_ons=[{"add_on": "long-history"}])
    (history,) = [one for one in acme("/entitlement")["features"] if one["key"] == "history_days"]
    assert history["value"] == 1_825, "the larger of the two, as the catalog says"
    acme.admin.put(
        "/v1/customers/acme/overrides/kind", {"limit": "prompt-of-a-call", "amount": 300_000, "reason": "asked nicely"}
    )
    assert acme.explain(meter="input_tokens", amount=250_000, model="gpt-4o", role="lead")["decision"] == "allow"
    acme.admin.post("/v1/customers/acme/subscription/moves", {"action": "cancel", "when": "period_end"})
    assert acme("/subscription")["ends_at"] == "2026-10-15T00:00:00Z"
    acme.admin.post("/v1/customers/acme/subscription/moves", {"action": "uncancel"})
    acme.admin.post("/v1/customers/acme/subscription/moves", {"action": "pause"})
    assert acme.explain()["code"] == "subscription_paused"
    then = acme.explain(at=rfc3339(begun_ms + 1))
    assert (then["decision"], then["plan"]) == ("allow", "team@1")


def test_billing_aware(acme: Acme) -> None:
    """An event follows the same rules wherever it comes from: an agent on a host, or a list entered afterwards."""
    tokens = {"input": 2_000, "output": 300}
    acme.use(model="gpt-4o", tokens=tokens, user="ann")
    once, burned = acme.usage(), acme.credits()["settled"]
    missed = {"event": "missed-1", "feature": "chat", "at": rfc3339(acme.clock.now_ms()), "model": "gpt-4o",
              "tokens": tokens, "subject": {"user": "ann"}}  # fmt: skip
    acme.admin.put("/v1/customers/acme/backfills/list-1", {"events": [missed], "reason": "an agent was off"})
    assert acme.usage() == {meter: 2 * quantity for meter, quantity in once.items()}
    assert acme.credits()["settled"] == 2_000 - 2 * (2_000 - burned)
    assert acme.limit("output-a-period", meter="output_tokens", model="gpt-4o")["used"] == 600


def test_separate_from_the_billing_provider(acme: Acme) -> None:
    """What the provider reports - a payment that is missing, a pack that was paid - moves gating and credits here."""
    assert acme.credits()["remaining"] == 2_000, "a thousand a seat came with the period"
    grant = {"meter": "credits", "amount": 300, "reason": "invoice 17", "category": "purchased", "cost_micros": 10_000,
             "currency": "USD"}  # fmt: skip
    acme.admin.put("/v1/customers/acme/grants/invoice-17", grant)
    acme.admin.put("/v1/customers/acme/grants/invoice-17", grant)
    assert acme.credits()["remaining"] == 2_300, "the provider may say it twice"
    for _ in range(5):
        acme.use("images", amounts={"images": 20})
    assert [one["left"] for one in acme.credits()["grants"]] == [1_600, 300], "what ends first burns first"
    acme.clock.set(from_rfc3339("2026-10-15T00:01:00Z"))  # a minute into the next period
    acme.turn()
    kept = {one["category"]: one["left"] for one in acme.credits()["grants"]}
    assert kept == {"included": 2_000, "rollover": 500, "purchased": 300}
    acme.admin.post("/v1/customers/acme/subscription/moves", {"action": "past_due", "grace_days": 3})
    assert acme.explain("search")["decision"] == "allow"
    acme.clock.advance(3 * DAY_MS + 1)
    assert acme.explain("search")["decision"] == "block"
    acme.admin.post("/v1/customers/acme/subscription/moves", {"action": "pay"})
    assert acme.explain("search")["decision"] == "allow"
    dearer = TEXT.replace("markup_bp: 2000", "markup_bp: 2500")
    applied = acme.admin.put("/v1/catalog", read_catalog(dearer, "catalog.yaml"))
    versions = {one["key"]: one["version"] for one in applied["entries"] if one["section"] == "plans"}
    assert versions == {"free": 1, "team": 2, "enterprise": 2}
    assert acme("/entitlement")["plan"] == "team@1", "prices change for new subscribers, and for those who are moved"
    acme.admin.post("/v1/plans/team/migrations", {"migration": "spring", "to": 2})
    assert acme("/entitlement")["plan"] == "team@2"


def test_overage(acme: Acme) -> None:
    """Allowed and priced up to an end, prevented there and where credits run out, and tried out in shadow."""
    asked = {"meter": "output_tokens", "model": "gpt-4o-mini"}
    acme.use(model="gpt-4o-mini", tokens={"output": 1_990_000})
    assert acme.explain(**asked, amount=10_000)["code"] == "ok"
    acme.use(model="gpt-4o-mini", tokens={"output": 260_000})
    (period,) = [one for one in acme("/balances")["items"] if one["limit"] == "output-a-period"]
    assert (period["amount"], period["ceiling"], period["overage"]) == (2_000_000, 3_000_000, 250_000)
    assert (period["overage_cost_micros"], period["overage_currency"]) == (3_000_000, "USD")
    over = acme.explain(**asked, amount=1_000)
    assert (over["decision"], over["code"], over["limiting"]) == ("allow", "soft_limit_exceeded", "output-a-period")
    ended = acme.explain(**asked, amount=750_001)
    assert (ended["decision"], ended["limiting"]) == ("block", "output-a-period")
    assert acme.admin.get("/v1/shadow-report")["items"] == []
    for _ in range(2):
        acme.use(model="gpt-4o", tokens={"input": 14_000_000})
    (tried,) = acme.admin.get("/v1/shadow-report")["items"]
    assert (tried["limit"], tried["events"]) == ("budget-trial", 2)
    spent = acme.explain("search")
    assert (spent["decision"], spent["limiting"]) == ("block", "credits"), "the balance is empty, in real time"
