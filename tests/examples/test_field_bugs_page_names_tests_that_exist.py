"""The page about bugs of other gateways has a row for each, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "field-bugs.md").read_text()
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| \d+\. ", line)]
NAMED = re.findall(r"\[([^\]:]+)::(\w+)\]\(\.\./([^)]+)\)", PAGE)
RUN = re.findall(r"`\.venv/bin/pytest (\S+)::(\w+)`", PAGE)


def test_every_bug_has_one_row_with_a_test_and_a_reason() -> None:
    numbers = [int(number) for row in ROWS for number in re.findall(r"(?:^\| |<br>)(\d+)\. ", row)]
    assert numbers == list(range(1, 76))
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4, row
        assert all(cells), row
        assert "::test_" in cells[2], row


@pytest.mark.parametrize(("path", "name"), sorted({(path, name) for path, name, _ in NAMED} | set(RUN)))
def test_every_test_it_names_exists(path: str, name: str) -> None:
    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_links_lead_to_what_they_say() -> None:
    assert len(NAMED) == PAGE.count("](../")
    assert all(target == path for path, _, target in NAMED)
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors


def test_what_is_only_partly_covered_is_listed_at_the_top() -> None:
    listed = {
        int(number) for entry in re.findall(r"^- \[([\d, ]+)\]", PAGE, re.MULTILINE) for number in entry.split(", ")
    }
    marked = {int(row.split(".")[0].strip("| ")) for row in ROWS if "*partly*" in row}
    assert listed == marked
