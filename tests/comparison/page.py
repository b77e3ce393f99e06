"""The page in the docs, from `page.md`: what is compared, how, what it shows, and how to do it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from tests.comparison.callers import GUARD, OUTPUT_MAX, PATIENCE_MS, SLICE
from tests.comparison.cells import SUBSET
from tests.comparison.workload import FIRST_TOKEN_MS, OUTPUT_TOKEN_MS, mean_cost, rows


def text(findings: Sequence[str], tables: Sequence[str]) -> str:
    """The page, with what was found."""
    return Template(Path(__file__).with_name("page.md").read_text()).substitute(
        slice=SLICE,
        output_max=f"{OUTPUT_MAX:,}",
        rows=f"{len(rows()):,}",
        mean_cost=f"{mean_cost():,.0f}",
        first_token_ms=FIRST_TOKEN_MS,
        output_token_ms=OUTPUT_TOKEN_MS,
        guard=GUARD,
        patience_s=f"{PATIENCE_MS / 1_000:g}",
        subset=SUBSET,
        findings="\n".join(findings),
        tables="\n\n".join(tables),
    )
