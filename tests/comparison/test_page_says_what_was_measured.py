"""The page in the docs was made by this code: a small fleet that it shows is measured again, and its sentences hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.comparison import cells, plot, report
from tests.comparison.measure import POLICIES, Cell, run_cell
from tests.comparison.naming import NAMES

DOCS = Path(__file__).resolve().parents[2] / "docs"
FLEET = (10, 1.1, 5, 50)
TITLE = "**10 hosts, 5 calls each, skew 1.1**"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "comparison.md").read_text()


@pytest.fixture(scope="module")
def again() -> list[dict[str, object]]:
    (shown,) = {
        cell.seeds for cell in cells.everything() if (cell.hosts, cell.skew, cell.calls, cell.round_trip_ms) == FLEET
    }
    return [run_cell(Cell(policy, *FLEET, seeds=shown)) for policy in POLICIES]


def told(page: str, policy: str) -> list[float]:
    table = page.split(TITLE)[1]
    (line,) = re.findall(rf"^\| {re.escape(NAMES[policy])} \| (.*) \|$", table, re.MULTILINE)[:1]
    return [float(cell.replace(",", "").replace("%", "")) for cell in line.split("|")]


def test_policies_written_for_the_comparison_give_the_figures_on_the_page(page, again):
    for row in again:
        if row["policy"] != "ours":
            assert report.markdown([row]).splitlines()[-1] in page.split(TITLE)[1], row["policy"]


def test_the_product_is_as_good_as_the_page_says(page, again):
    """Within what a change of the product may move before the page must be made again."""
    (row,) = [row for row in again if row["policy"] == "ours"]
    used_first, used, overspend, messages, *_ = told(page, "ours")
    assert overspend == row["overspend"] == 0
    assert 100 * row["u1"] == pytest.approx(used_first, abs=1.0)
    assert 100 * row["uf"] == pytest.approx(used, abs=1.0)
    assert row["messages"] == pytest.approx(messages, rel=0.1)


def test_large_fleets_on_the_page_reach_what_is_promised(page):
    def used(title: str) -> dict[str, list[float]]:
        lines = page.split(title)[1].split("\n\n")[1].splitlines()[2:]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return {name: [float(cell.removesuffix("%")) for cell in cells_] for name, *cells_ in rows}

    roomy = used("1,000 hosts, 200 calls each, round trip 50 ms:")
    tight = used("1,000 hosts, 5 calls each, round trip 50 ms:")
    assert min(roomy["Allotment"]) >= 99.9
    assert min(tight["Allotment"]) >= 99.0
    assert max(roomy["static split"][1:]) < 50


def test_the_plot_is_the_same_every_time(tmp_path, again):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        plot.draw(again, folder)
    for name in ("comparison.svg", "comparison.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
