"""The code on the page of integrations, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text()


def example(heading: str) -> str:
    """The first code under a heading."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.search(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def run_example(heading: str, customer: str) -> dict[str, Any]:
    """The names that it leaves behind, when it is run for a customer."""
    names: dict[str, Any] = {}
    exec(example(heading).replace("acme", customer), names)
    return names
