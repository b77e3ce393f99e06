"""Prices from the command line: seeding shows first, then does; re-rating shows first, then does, once."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner

from control_plane.cli.commands import main
from control_plane.core.plans import Bundle, PlanFeature
from control_plane.core.price_books import ModelPrice, PriceBookUse
from control_plane.operations.apply_catalog import publish_plan, put_feature, put_meter
from control_plane.operations.author import Author
from control_plane.operations.change_customer import put_customer
from control_plane.operations.change_price_book import put_price_book
from control_plane.operations.change_subscription import SubscriptionOrder, order
from control_plane.operations.enter_corrections import enter_corrections
from control_plane.store.catalog import FeatureRow, MeterRow
from control_plane.store.database import Connection, Database
from protocol.entitlements import FeatureKind
from protocol.events import Priced, UsageEvent

NOW_MS = 1_790_000_000_000
SPAN = ["--from", "2026-09-21T00:00:00Z", "--to", "2026-09-22T00:00:00Z"]


def run(url: str, *words: str) -> str:
    done = CliRunner().invoke(main, words, env={"ALLOTMENT_DATABASE_URL": url, "COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.output


def refused(url: str, *words: str) -> str:
    done = CliRunner().invoke(main, words, env={"ALLOTMENT_DATABASE_URL": url})
    assert done.exit_code in (1, 2), done.output
    return done.output


def test_seeding_shows_what_it_would_do_and_then_does_it_once(sqlite_url: str) -> None:
    shown = run(sqlite_url, "seed-prices", "standard", "--dry-run")
    assert "prices would be other than before in standard@1, from genai-prices" in shown
    assert run(sqlite_url, "seed-prices", "standard", "--dry-run") == shown, "nothing had changed"
    assert "prices are other than before in standard@1" in run(sqlite_url, "seed-prices", "standard")
    assert run(sqlite_url, "seed-prices", "standard").startswith("0 prices are other than before in standard@1")
    assert "in standard@2" in run(sqlite_url, "seed-prices", "standard", "--long-prompts")
    assert "letters, digits" in refused(sqlite_url, "seed-prices", "no/slash")


def test_rerating_shows_what_it_would_do_and_then_does_it_once(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    author = Author("test", NOW_MS)

    def work(connection: Connection) -> None:
        put_feature(connection, FeatureRow("chat", "chat", FeatureKind.METERED), author)
        put_meter(connection, MeterRow("cost_micros", "micro-USD", ""), author)
        use = PriceBookUse("standard", ("m",))
        for markup_bp in (0, 5_000):
            put_price_book(connection, "standard", "USD", markup_bp, (ModelPrice("m", {"input": 10**6}),), author)
        publish_plan(connection, "pro", "pro", Bundle((PlanFeature("chat"),), price_books=(use,)), author)
        put_customer(connection, "acme", "Acme", author)
        order(connection, "acme", SubscriptionOrder("pro"), author)
        amounts = {"requests": 1, "input_tokens": 1_000, "cost_micros": 1_000}
        how: dict[str, Any] = {"model": "m", "derived": ("cost_micros",)}
        priced = (Priced("cost_micros", "standard@1", "m"),)
        event = UsageEvent("call", "acme", "chat", NOW_MS, amounts, priced=priced, **how)
        enter_corrections(connection, "test", [event], author)

    database.run(work)
    database.dispose()
    command = ["rerate", "standard", "2", *SPAN, "--customer", "acme"]
    shown = run(sqlite_url, *command)
    assert "1,000" in shown
    assert "1,500" in shown
    assert "+500" in shown
    assert "1 calls, of which 1 have another price (nothing changed" in shown
    assert "(1 corrected now)" in run(sqlite_url, *command, "--apply", "september", "--reason", "dearer")
    assert "of which 0 have another price" in run(sqlite_url, *command, "--apply", "september", "--reason", "dearer")
    assert "was another order" in refused(sqlite_url, *command, "--apply", "september", "--reason", "other")
    assert "one of the two" in refused(sqlite_url, "rerate", "standard", "2", *SPAN)
    assert "There is no version 9" in refused(sqlite_url, "rerate", "standard", "9", *SPAN, "--plan", "pro")
    assert "an instant with its zone" in refused(sqlite_url, "rerate", "standard", "2", "--from", "x", "--to", "y")
