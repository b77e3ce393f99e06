"""The command `allotment`: past usage amended, voided and entered; periods closed; what shadows would have refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from control_plane.cli.admin import main
from control_plane.cli.admin_entry import NEEDS

ROOT = Path(__file__).parents[3]
DAY_MS = 86_400_000
CATALOG = """\
meters:
  credits: {unit: credit}
features:
  chat: {name: Chat, kind: metered}
plans:
  pro:
    name: Pro
    features:
      - {feature: chat}
    limits:
      - key: tokens
        meter: input_tokens
        amount: 1_000
        window: billing_period
        at_end: overage
        overage_max: 100_000
        overage_price: {micros: 3, currency: USD, per: 1}
      - {key: credits, meter: credits, amount: 0, window: grants}
      - {key: calls, meter: requests, amount: 1, window: day, shadow: true}
    rates:
      - {meter: credits, weights: {input_tokens: 1_000_000}}
"""
MISSED = """\
events:
  - {event: call-1, feature: chat, at: 2026-09-21T14:30:00Z, tokens: {input: 700}, subject: {user: u7}}
  - {event: call-2, feature: chat, at: 2026-09-21T14:35:00Z, tokens: {input: 800}}
"""


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """One kind of database: the command speaks with the API, which is tested with both."""
    return postgresql_url


@pytest.fixture
def acme(allotment: Any, admin: Any, clock: Any, tmp_path: Path) -> Path:
    """A customer on a plan, an hour later; returns a file of calls that no agent saw."""
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    assert allotment("apply", str(tmp_path / "catalog.yaml")).exit_code == 0
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    admin.put("/v1/customers/acme/grants/top-up", {"meter": "credits", "amount": 5_000, "reason": "bought"})
    clock.advance(3_600_000)
    path = tmp_path / "missed.yaml"
    path.write_text(MISSED)
    return path


def burned(admin: Any) -> int:
    (credit,) = admin.get("/v1/customers/acme/credits")
    return 5_000 - int(credit["remaining"])


def test_calls_are_looked_at_and_entered_once(allotment: Any, admin: Any, acme: Path) -> None:
    words = ("backfill", "acme", str(acme), "--reason", "host-7 had no agent")
    looked = allotment(*words, "--dry-run")
    assert looked.exit_code == 0, looked.output
    assert "2 accepted." in looked.output
    assert "+1,500" in looked.output
    assert "Nothing has changed: this was a dry run." in looked.output
    assert burned(admin) == 0
    done = allotment(*words)
    assert "Made correction backfill-" in done.output
    assert burned(admin) == 1_500
    assert allotment(*words).output == done.output, "the same file enters its calls once"
    assert burned(admin) == 1_500
    again = allotment(*words[:2], "-", *words[3:], stdin=MISSED + "# the same calls\n")
    assert "2 duplicate." in again.output
    assert "backfill-" in allotment("corrections", "acme").output


def test_a_call_is_amended_and_voided(allotment: Any, admin: Any, acme: Path) -> None:
    assert "Nothing of acme's usage" in allotment("corrections", "acme").output
    allotment("backfill", "acme", str(acme), "--reason", "missed", "--id", "b-1")
    amend = ("amend", "acme", "call-2", "--tokens", "input=100", "--amount", "requests=1", "--reason", "wrong model")
    assert "-700" in allotment(*amend, "--preview").output
    assert burned(admin) == 1_500
    assert "Made correction amend-call-2: 1 accepted." in allotment(*amend).output
    assert burned(admin) == 800
    other = allotment(*(word.replace("100", "200") for word in amend))
    assert other.exit_code == 1, "one id corrects once"
    assert json.loads(allotment(*amend, "--json").output)["correction"] == "amend-call-2"
    assert "-100" in allotment("void", "acme", "call-2", "--reason", "a test").output
    assert burned(admin) == 700
    shown = allotment("corrections", "acme").output
    for word in ("amend-call-2", "void-call-2", "b-1", "wrong model", "2 calls"):
        assert word in shown
    assert len(json.loads(allotment("corrections", "acme", "--json").output)) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("amend", "acme", "call-9", "--reason", "x"), "call-9"),
        (("amend", "acme", "call-9", "--reason", "x", "--tokens", "input"), "expected NAME=N"),
        (("amend", "acme", "call-9", "--reason", "x", "--tokens", "input=-5"), "expected NAME=N"),
        (("amend", "acme", "call-1", "--reason", "x", "--tokens", "inptu=5"), "inptu"),
        (("void", "acme", "call-9"), "Missing option '--reason'"),
        (("backfill", "acme", "-", "--reason", "x"), "expected `events:`"),
        (("period", "close", "acme"), "Say START"),
        (("period", "show", "acme", "2026-09-21T00:00:00Z", "--last"), "say one"),
        (("period", "show", "acme", "2026-09-21T00:00:00Z"), "is not where a billing period begins"),
        (("period", "show", "nobody"), "There is no customer 'nobody'."),
    ],
)
def test_what_is_wrong_is_said(allotment: Any, acme: Path, words: tuple[str, ...], said: str) -> None:
    allotment("backfill", "acme", str(acme), "--reason", "missed")
    done = allotment(*words, stdin="calls: []")
    assert done.exit_code in {1, 2}
    assert said in done.output, done.output


def test_what_is_wrong_in_a_file_is_named_with_its_line(allotment: Any, acme: Path) -> None:
    acme.write_text(MISSED.replace("2026-09-21T14:35:00Z", "noon"))
    done = allotment("backfill", "acme", str(acme), "--reason", "missed")
    assert done.exit_code == 1
    assert "missed.yaml:3: events[1].at" in done.output


def test_a_period_is_shown_and_closed(allotment: Any, clock: Any, acme: Path) -> None:
    allotment("backfill", "acme", str(acme), "--reason", "missed")
    shown = allotment("period", "show", "acme").output
    assert "acme, pro@1: 2026-09-21T14:13:20Z to 2026-10-21T14:13:20Z, open." in shown
    for word in ("1,500", "500", "Beyond limits: 1,500 micro-USD."):
        assert word in shown
    assert "It ends at" in allotment("period", "close", "acme", "2026-09-21T14:13:20Z").output
    clock.advance(31 * DAY_MS)
    looked = allotment("period", "close", "acme", "--last", "--dry-run").output
    assert "2026-10-21T14:13:20Z, open." in looked
    assert "No billing period of acme is closed." in allotment("period", "list", "acme").output
    closed = allotment("period", "close", "acme", "--last", "--note", "invoiced").output
    assert ", closed 2026-10-22" in closed
    assert allotment("period", "close", "acme", "--last").output == closed
    assert "1,500 micro-USD" in allotment("period", "list", "acme").output
    allotment("void", "acme", "call-1", "--reason", "a test")
    assert "Adjustments of closed periods, 1 of 1" in allotment("period", "show", "acme").output
    assert json.loads(allotment("period", "show", "acme", "--last", "--json").output)["closed_at"] is not None


def test_what_shadows_would_have_refused_is_shown(allotment: Any, acme: Path) -> None:
    assert "No limit in shadow" in allotment("shadow-report").output
    allotment("backfill", "acme", str(acme), "--reason", "missed")
    shown = allotment("shadow-report", "--customer", "acme").output
    assert "calls" in shown
    assert "Of 1 customer." in shown
    assert json.loads(allotment("shadow-report", "--json").output)[0]["limit"] == "calls"


def test_help_of_every_command_teaches() -> None:
    def commands(group: Any, *path: str) -> Any:
        for name, command in group.commands.items():
            yield (*path, name), command
            if hasattr(command, "commands"):
                yield from commands(command, *path, name)

    found = list(commands(main))
    assert len(found) >= 20
    for path, command in found:
        shown = CliRunner().invoke(main, [*path, "--help"])
        assert shown.exit_code == 0
        assert command.help, path
        assert hasattr(command, "commands") or "--json" in shown.output, path
        options = [one for one in command.params if one.param_type_name == "option"]
        assert all(one.help for one in options), path


@pytest.mark.parametrize("module", sorted(NEEDS))
def test_without_its_extra_it_says_what_to_install(module: str) -> None:
    """A module that is None in `sys.modules` is not there, as far as Python is concerned."""
    code = f"import sys; sys.modules[{module!r}] = None; from control_plane.cli.admin_entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: `allotment` needs {NEEDS[module]}, which is not installed here.")
    assert 'pip install "allotment-programs[admin]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_with_its_extra_it_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from control_plane.cli.admin_entry import main; main()", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "allotment apply catalog.yaml --dry-run" in done.stdout) == (0, True)
