"""The page about catalogs: its file is applied, its edits made, its commands run, and they say what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from control_plane.api import ALL_HANDLERS
from control_plane.api.bodies import BODY_BYTES_MAX
from control_plane.core.catalog_file import ENTRIES_MAX
from control_plane.operations.author import Author
from control_plane.operations.enter_corrections import enter_corrections
from control_plane.operations.migrate_plan import PAGE as MOVED_AT_ONCE
from protocol.events import UsageEvent

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "catalog.md").read_text()
PARTS = re.compile(r"^```(yaml|diff|console)\n(.*?)^```$|^(Say that .*?)\n\n", re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who does what the page says, in its order."""

    def __init__(self, allotment: Any, admin: Any, database: Any, clock: Any) -> None:
        self.allotment, self.admin, self.database, self.clock = allotment, admin, database, clock
        self.file = Path("catalog.yaml")
        self.heard = ""

    def read(self, kind: str, text: str, said: str) -> None:
        match kind:
            case "yaml":
                self.file.write_text(text)
            case "diff":
                before, after = (line[1:] for line in text.splitlines())
                assert self.file.read_text().count(before) == 1, before
                self.file.write_text(self.file.read_text().replace(before, after))
            case "console":
                self.run(text)
            case _:
                self.subscribe(said)

    def subscribe(self, said: str) -> None:
        *customers, plan, busy = re.findall(r"`([a-z]+)`", said)
        for customer in customers:
            self.admin.put(f"/v1/customers/{customer}", {"name": customer})
            self.admin.put(f"/v1/customers/{customer}/subscription", {"plan": plan})
        (calls,) = re.findall(r"made (\d+) requests", said)
        author = Author("test", self.clock.now_ms())
        events = [UsageEvent(f"e{at}", busy, "chat", author.now_ms, {"requests": 1}) for at in range(int(calls))]
        self.database.run(lambda connection: enter_corrections(connection, "test", events, author))

    def run(self, text: str) -> None:
        for command, expected in re.findall(r"^\$ allotment (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            done = self.allotment(*shlex.split(command))
            if command == "export":
                Path("exported.yaml").write_text(done.output)
            self.heard += f"$ allotment {command}\n{done.output}"
            assert matches(done.output, expected), f"$ allotment {command}\n{done.output}"


def matches(output: str, expected: str) -> bool:
    """Whether the page says it; a line `...` stands for any lines, and ends of lines do not matter."""
    parts = [re.escape("\n".join(line.rstrip() for line in part.splitlines())) for part in expected.split("...\n")]
    return (
        re.fullmatch(r"(?:.*\n)?".join(parts), "\n".join(map(str.rstrip, output.splitlines())), re.DOTALL) is not None
    )


def test_the_page_says_what_happens(
    allotment: Any, admin: Any, database: Any, clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(allotment, admin, database, clock)
    parts = PARTS.findall(PAGE)
    assert [kind for kind, _, _ in parts].count("console") >= 8
    for kind, text, said in parts:
        reader.read(kind, text, said)


def test_options_routes_and_bounds_are_there() -> None:
    commands = "".join(path.read_text() for path in (ROOT / "control_plane" / "cli").glob("admin*.py"))
    for option in set(re.findall(r"`?(--[a-z][a-z-]+)", PAGE)):
        name = option.removeprefix("--")
        assert f'"{option}"' in commands or f'"{name}"' in commands, option
    paths = {re.sub(r":str\}", "}", path) for handler in ALL_HANDLERS for path in handler.paths}
    for path in re.findall(r"`(?:PUT|GET|POST) (/v1/\S+)`", PAGE):
        assert path in paths, path
    assert f"{ENTRIES_MAX:,} entries of each kind" in PAGE
    assert f"transactions of {MOVED_AT_ONCE} customers" in PAGE
    assert BODY_BYTES_MAX == 1024 * 1024
    for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).is_file(), path
