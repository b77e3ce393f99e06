"""The command `allotment`: files in and out, explanations for people, and refusals in the API's own words."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from control_plane.cli.admin import main
from control_plane.cli.catalog_yaml import line_of, read_catalog, write_catalog

FILE = """\
.cheap: &cheap {window: day, feature: chat}   # what others refer to is no part of the catalog
meters:
  credits: {unit: credit}
features:
  chat: {name: Chat, kind: metered}
plans:
  pro:
    name: Pro
    features:
      - feature: chat
    limits:
      - {key: day, meter: requests, amount: 10_000, <<: *cheap}
      - {key: user-day, meter: requests, amount: 3, window: day, scope: user}
add_ons:
"""


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """One kind of database: the command speaks with the API, which is tested with both."""
    return postgresql_url


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(FILE)
    return path


def test_a_file_is_looked_at_applied_and_exported(allotment: Any, catalog: Path, tmp_path: Path) -> None:
    seen = allotment("apply", str(catalog), "--dry-run")
    assert seen.exit_code == 0, seen.output
    assert "+ plan pro@1" in seen.output
    assert "3 would be new, 0 would be changed, 0 stay as they were." in seen.output
    assert "+ plan pro@1" in allotment("apply", str(catalog)).output
    assert "0 new, 0 changed, 3 are as they were." in allotment("apply", str(catalog)).output
    exported = allotment("export").output
    assert "- {key: day, meter: requests, amount: 10000, window: day, feature: chat}" in exported
    (tmp_path / "again.yaml").write_text(exported)
    assert "0 new, 0 changed, 3 are" in allotment("apply", str(tmp_path / "again.yaml")).output
    assert allotment("export").output == exported
    assert "0 new, 0 changed, 3 are" in allotment("apply", "-", stdin=exported).output


def test_an_empty_catalog_is_exported_as_one_that_can_be_applied(allotment: Any) -> None:
    exported = allotment("export").output
    assert read_catalog(exported, "x") == {}
    assert allotment("apply", "-", stdin=exported).output.startswith("0 new, 0 changed, 0 are")


def test_changes_are_shown_with_whom_they_concern(allotment: Any, admin: Any, catalog: Path) -> None:
    allotment("apply", str(catalog))
    for customer in ("a", "b"):
        admin.put(f"/v1/customers/{customer}", {"name": customer})
        admin.put(f"/v1/customers/{customer}/subscription", {"plan": "pro"})
    catalog.write_text(FILE.replace("10_000", "20_000").replace("kind: metered", "kind: metered, disabled: true"))
    shown = allotment("apply", str(catalog), "--dry-run").output
    assert "~ plan pro@2\n    limits[day].amount: 10000 -> 20000\n" in shown
    assert "subscribers keep what they have: 2 on version 1" in shown
    assert "changes what 2 customers may use" in shown
    machines = json.loads(allotment("apply", str(catalog), "--dry-run", "--json").output)
    assert (machines["changed"], machines["dry_run"]) == (2, True)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("meter: requests, amount: 3", "meter: nope, amount: 3",
         "catalog.yaml:13: plans.pro.limits[1].meter: names the unknown meter 'nope'"),
        ("kind: metered", "kind: no",
             "catalog.yaml:5: features.chat.kind: 'no' is not a value of this field; expected one of boolean, static"),
        ("key: day", "key: day, key: night", "catalog.yaml:12: 'key' stands here a second time"),
        ("  pro:", "  pro: {}\n  pro:", "catalog.yaml:8: 'pro' stands here a second time, after line 7"),
        ("amount: 3", "amount: 3.5", "catalog.yaml:13: plans.pro.limits[1].amount: "),
        ("meters:", "metres:", "catalog.yaml:2: metres: is not a field of this message"),
        ("name: Pro", "name: 2026-01-01\n    nome: x", "catalog.yaml:9: plans.pro.nome: is not a field"),
        ("features:\n      -", "features: [\n      -", "catalog.yaml:"),
        ("{unit: credit}", "!!python/object:os.system {}", "catalog.yaml:3: could not determine a constructor"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_with_its_line(
    allotment: Any, catalog: Path, before: str, after: str, said: str
) -> None:
    assert before in FILE
    catalog.write_text(FILE.replace(before, after, 1))
    done = allotment("apply", str(catalog))
    assert done.exit_code == 1
    assert said in done.output, done.output


def test_what_is_merged_may_be_said_otherwise_and_referred_to_again() -> None:
    text = """\
.base: &base {window: day, amount: 1}
.more: &more {<<: *base, window: hour}
plans:
  a: {<<: *more, window: week}
  b: *more
"""
    assert read_catalog(text, "x") == {
        "plans": {"a": {"window": "week", "amount": 1}, "b": {"window": "hour", "amount": 1}}
    }


@pytest.mark.parametrize(
    "text",
    ["&a [*a]", "plans: &a {x: *a}", "? [a]\n: b", "? {a: b}\n: c", "a: b: c", "- a", "just a word", "\x00", "a: *b",
     "a: !!binary x", "[" * 2_000, "12", "<<: 3", "{<<: [1]}", "--- a\n--- b"],
)  # fmt: skip
def test_what_is_no_catalog_is_refused_without_a_fault(allotment: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    done = allotment("apply", str(path))
    assert (done.exit_code, done.output.startswith("Error: ")) == (1, True), done.output
    path.write_bytes(b"\xff\xfe")
    assert "cannot be read" in allotment("apply", str(path)).output


def test_lines_are_found_for_keys_with_dots() -> None:
    text = "plans:\n  a:\n    name: x\n  a.b:\n    name: y\n    limits:\n    - key: k\n"
    assert line_of(text, "plans.a.b.name") == 5
    assert line_of(text, "plans.a.name") == 3
    assert line_of(text, "plans.a.b.limits[0].meter") == 7
    assert line_of(text, "nowhere.at.all") is None


def test_words_stay_words_and_come_back_as_they_were() -> None:
    words = ["no", "1:30", "2026-01-01", "12", "null", "~", "1_000", "true", "0x1f", "1e3", "on", "=", "", " x", "a: b"]
    file = {"features": {f"f{at}": {"name": word} for at, word in enumerate(words)}}
    assert read_catalog(write_catalog(file), "x") == file


@pytest.fixture
def acme(allotment: Any, admin: Any, catalog: Path) -> None:
    allotment("apply", str(catalog))
    admin.put("/v1/customers/acme", {"name": "[bold]Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})


def test_an_explanation_is_a_table_for_people(allotment: Any, acme: None) -> None:
    shown = allotment("explain", "acme", "chat", "--user", "u7").output
    assert shown.startswith("ALLOW (ok)\nAllowed: every limit on the path has room.\nacme has pro@1; active.")
    assert "Feature chat (metered): on; from plan:pro@1." in shown
    assert "user u7" in shown
    assert "2026-09-22 00:00Z" in shown
    refused = allotment("explain", "acme", "chat", "--meter", "requests", "--amount", "5")
    assert refused.exit_code == 0, "an explanation of a refusal is an answer"
    assert refused.output.startswith("BLOCK (requested_usage_exceeds_limit)")
    assert "REFUSES" in refused.output
    assert json.loads(allotment("explain", "acme", "chat", "--json").output)["decision"] == "allow"


def test_usage_balances_credits_and_subscription_are_shown(allotment: Any, acme: None) -> None:
    assert "acme: 2026-08-22" in allotment("usage", "acme", "--by", "day,meter").output
    assert "user u7" in allotment("balances", "acme", "--user", "u7").output
    assert "acme has no credits." in allotment("credits", "acme").output
    assert "acme: pro@1, active" in allotment("subscription", "show", "acme").output
    assert "to come, " in allotment("subscription", "cancel", "acme", "--when", "period_end").output
    assert "to come" not in allotment("subscription", "uncancel", "acme").output
    assert "paused" in allotment("subscription", "pause", "acme").output
    assert "active" in allotment("subscription", "resume", "acme").output


def test_refusals_are_the_apis_own_words_and_exit_with_one(allotment: Any, tokens: Any, acme: None) -> None:
    for words, said in (
        (("explain", "nobody", "chat"), "Error: customer: There is no customer 'nobody'."),
        (("explain", "acme", "chat", "--at", "noon"), "Error: at: is 'noon'; expected an instant"),
        (("usage", "acme", "--by", "moon"), "group_by"),
        (("subscription", "pause", "acme", "--when", "yesterday"), "Error: when: "),
    ):
        done = allotment(*words)
        assert (done.exit_code, said in done.output) == (1, True), done.output
    done = allotment("apply", "-", stdin="{}", token=tokens.support)
    assert "may not do this" in done.output
    assert allotment("export", token="").output.startswith("Error: There is no token: set ALLOTMENT_TOKEN")
    assert "is none" in allotment("export", token="alt_admin_x").output
    assert allotment("explain", "no/slash", "chat").exit_code == 2


def test_a_control_plane_that_is_not_there_is_named(tokens: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    words = ["export", "--url", f"http://127.0.0.1:{port}"]
    done = CliRunner().invoke(main, words, env={"ALLOTMENT_TOKEN": tokens.admin})
    assert done.exit_code == 1
    assert f"http://127.0.0.1:{port} cannot be reached" in done.output


def test_help_teaches() -> None:
    for words in (["--help"], ["apply", "--help"], ["explain", "--help"], ["subscription", "--help"]):
        shown = CliRunner().invoke(main, words)
        assert shown.exit_code == 0
        assert "Usage: " in shown.output
    assert "allotment apply catalog.yaml --dry-run" in CliRunner().invoke(main, ["apply", "--help"]).output
