"""Tokens: what is one, and when it holds."""

from __future__ import annotations

import pytest

from control_plane.clock import random_id, random_secret
from control_plane.core.tokens import Role, compose, holds, parse

SECRET = "a" * 20 + "_" + "-" * 10 + "_" + "Z" * 11
TOKEN = "0123456789ab"


@pytest.mark.parametrize("role", list(Role))
def test_a_composed_token_is_parsed_again_whatever_is_drawn(role: Role) -> None:
    for _ in range(50):
        token, secret = random_id(), random_secret()
        presented = parse(compose(role, token, secret))
        assert presented is not None
        assert (presented.role, presented.token, presented.secret) == (role, token, secret)


def test_a_secret_may_hold_the_separator() -> None:
    presented = parse(compose(Role.ADMIN, TOKEN, SECRET))
    assert presented is not None
    assert presented.secret == SECRET


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alt",
        "alt_admin_0123456789ab",
        f"alt_owner_{TOKEN}_{SECRET}",
        f"alt_admin_{TOKEN.upper()}_{SECRET}",
        f"alt_admin_{TOKEN}_{SECRET}x",
        f"alt_admin_{TOKEN}_{SECRET[:-1]}\n",
        f"alt_admin_{TOKEN}_{SECRET[:-1]}é",
        f"tla_admin_{TOKEN}_{SECRET}",
        f" alt_admin_{TOKEN}_{SECRET}",
    ],
)
def test_anything_else_is_no_token(text: str) -> None:
    assert parse(text) is None


def test_a_token_holds_only_whole_fresh_and_in_its_role() -> None:
    presented = parse(compose(Role.ADMIN, TOKEN, SECRET))
    other = parse(compose(Role.ADMIN, TOKEN, SECRET[::-1]))
    assert presented is not None
    assert other is not None
    kept = presented.secret_sha256
    assert holds(presented, kept, "admin", expires_at_ms=10, revoked=False, now_ms=9)
    assert not holds(presented, kept, "admin", expires_at_ms=10, revoked=False, now_ms=10)
    assert not holds(presented, kept, "admin", expires_at_ms=None, revoked=True, now_ms=9)
    assert not holds(presented, kept, "support", expires_at_ms=None, revoked=False, now_ms=9)
    assert not holds(presented, other.secret_sha256, "admin", expires_at_ms=None, revoked=False, now_ms=9)
