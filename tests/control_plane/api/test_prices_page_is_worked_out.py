"""The page about prices: its books and plans are accepted as they stand, and every row of its tables comes out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from control_plane.core.price_books import PriceBook, decode_book
from control_plane.core.rerating import Repricer
from control_plane.store import price_books
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import RATES_MAX, Entitlement
from protocol.events import UsageEvent
from protocol.rates import RateCard, model_names
from protocol.units import normalise

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "prices.md").read_text()
BOOK, PLAN, DEARER = (json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def rows(title: str) -> list[list[str]]:
    """The cells of the table of a section, without its head."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def card(admin: Any) -> RateCard:
    for feature in ("chat", "search"):
        admin.put(f"/v1/features/{feature}", {"name": feature, "kind": "metered"})
    for meter in ("cost_micros", "credits"):
        admin.put(f"/v1/meters/{meter}", {"unit": meter})
    admin.put("/v1/price-books/standard", BOOK)
    admin.put("/v1/plans/pro", PLAN)
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    said = admin.get("/v1/customers/acme/entitlement")
    known = {name: value for name, value in said.items() if name in Entitlement.__struct_fields__}
    entitlement = MsgpackDecoder(Entitlement)(encode_msgpack(known))
    return RateCard(entitlement.rates, entitlement.plan)


def calls(card: RateCard) -> list[UsageEvent]:
    found = []
    for model, feature, said, cost, credit in rows("What calls come to"):
        tokens = json.loads(said)
        choice, meters = card.choose(feature, model), normalise({}, tokens)
        made = choice.exact(meters, tokens)
        assert made == {"cost_micros": int(cost), "credits": int(credit)}, (model, feature, said)
        event = UsageEvent(f"call-{len(found)}", "acme", feature, 1_000, meters | made, model=model, tokens=tokens,
                           derived=choice.meters, priced=choice.priced)  # fmt: skip
        found.append(event)
    return found


def test_calls_come_to_what_the_page_says(card: RateCard) -> None:
    assert len(calls(card)) == 5
    (example,) = re.findall(r'`(\["cost_micros".*?\])`', PAGE)
    assert json.loads(encode_json(calls(card)[0].priced[0])) == json.loads(example)


def encode_json(value: object) -> bytes:
    return json.dumps(MsgpackDecoder(list)(encode_msgpack(value))).encode()


def test_holds_and_charges_are_what_the_page_says(card: RateCard) -> None:
    table = rows("What is held, and what is charged")
    assert len(table) == 2
    for model, reserved, held, settled, charged in table:
        choice, tokens = card.choose("chat", model), json.loads(settled)
        assert choice.most(json.loads(reserved))["cost_micros"] == int(held)
        assert choice.exact(normalise({}, tokens), tokens)["cost_micros"] == int(charged)


def test_models_are_looked_for_as_the_page_says() -> None:
    table = rows("Which rate prices a call")
    assert len(table) == 3
    for called, names in table:
        assert model_names(called) == tuple(re.findall(r"[^`, ]+", names))


def test_past_calls_come_to_what_the_page_says(card: RateCard, admin: Any, database: Any) -> None:
    admin.put("/v1/price-books/standard", {**BOOK, **DEARER})
    row = database.read(lambda connection: price_books.find(connection, "standard", 2))
    body: PriceBook = decode_book(row.body)
    repricer = Repricer("standard", 2, body)
    sums: dict[str, list[int]] = {}
    for event in calls(card):
        after = dict(event.amounts)
        for change in repricer.reprice([event])[0]:
            after[change.meter] = change.after
        for priced in event.priced:
            if priced.by.startswith("standard@"):
                total = sums.setdefault(priced.meter, [0, 0])
                total[0] += event.amounts[priced.meter]
                total[1] += after[priced.meter]
    assert sums == {meter: [int(before), int(after)] for meter, before, after in rows("Pricing past calls again")}


def test_commands_routes_and_bounds_are_there() -> None:
    assert f"at most {RATES_MAX} rates" in PAGE
    commands = (ROOT / "control_plane" / "cli" / "prices.py").read_text()
    for option in set(re.findall(r"--[a-z][a-z-]+", PAGE)):
        assert f'"{option}"' in commands, option
    for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).is_file(), path
