"""The page about leases names files, commands, limits' fields and routes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from control_plane.core.lease_life import Status
from protocol.entitlements import Limit, Scope
from protocol.windows import WindowKind

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "leases.md").read_text()
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:agent|control_plane|protocol)/[\w/]+\.py)`", PAGE))))
def test_every_file_is_there(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)", PAGE + README))))
def test_every_command_is_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_status_of_a_lease_and_every_scope_is_explained() -> None:
    assert {status.value for status in Status} <= set(re.findall(r"\w+", PAGE))
    assert {scope.value for scope in Scope} <= set(re.findall(r"\w+", PAGE))


def test_fields_of_limits_are_named_as_they_are() -> None:
    table = PAGE.partition("## Every kind of limit")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)(?::[^`]*)?`", table))
    known = set(Limit.__struct_fields__) | {kind.value for kind in WindowKind} | {scope.value for scope in Scope}
    assert named - known <= {"rates", "batch"}


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
