"""Issues tokens, provisions those that an operator made, and revokes them."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.core.tokens import Role, compose, parse
from control_plane.operations.refusals import NotFound
from control_plane.store import audit_log, tokens
from control_plane.store.database import Connection
from protocol.violations import Violation

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class TokenOrder:
    """What token is wanted.

    Attributes:
        agent: whose it shall be, for an agent's token.
        uses: how many agents may join with it; ``None`` is any number.
        expires_in_hours: when it ends by itself; ``None`` is never.
    """

    role: Role
    name: str
    agent: str | None = None
    uses: int | None = None
    expires_in_hours: int | None = None


def issue(
    connection: Connection, order: TokenOrder, token: str, secret: str, actor: str, now_ms: int
) -> tuple[tokens.TokenRow, str]:
    """Make a token; returns what is kept of it, and its text, which is shown once and never again.

    Args:
        token, secret: its two halves, drawn at random by the caller.
        actor: who orders it, for the audit log.

    Raises: Violation: uses for a token that is no join token.
    """
    if order.uses is not None and order.role is not Role.JOIN:
        raise Violation("uses", "is given for a token that nobody joins with", "uses with role join only")
    text = compose(order.role, token, secret)
    kept = _kept(text, order, now_ms)
    tokens.add(connection, kept)
    body = {"role": order.role.value, "name": order.name, "agent": order.agent, "uses": order.uses}
    audit_log.append(connection, now_ms, actor, "token.create", kept.token, body)
    return kept, text


def provision(connection: Connection, variable: str, text: str, role: Role, now_ms: int) -> None:
    """Store a token that the operator made, unless it is known already.

    Raises: Violation: it has another form or role than it must have, or another secret than the known one.
    """
    presented = parse(text)
    expected = f"alt_{role.value}_<12 lowercase hexadecimal digits>_<43 letters of base64url>"
    if presented is None or presented.role is not role:
        raise Violation(variable, "does not hold such a token", expected)
    known = tokens.find(connection, presented.token)
    if known is None:
        tokens.add(connection, _kept(text, TokenOrder(role, "provisioned by the operator"), now_ms))
        audit_log.append(connection, now_ms, "operator", "token.provision", presented.token, {"role": role.value})
    elif known.secret_sha256 != presented.secret_sha256 or known.role != role.value:
        raise Violation(variable, "names a known token but has another secret", "a token with a new id")


def revoke(connection: Connection, token: str, actor: str, now_ms: int) -> tokens.TokenRow:
    """End a token for good; ending it twice changes nothing. Raises: NotFound."""
    if tokens.find(connection, token) is None:
        raise NotFound("token_not_found", f"There is no token {token!r}.", "token")
    if tokens.revoke(connection, token, now_ms):
        audit_log.append(connection, now_ms, actor, "token.revoke", token, {})
    kept = tokens.find(connection, token)
    assert kept is not None
    return kept


def _kept(text: str, order: TokenOrder, now_ms: int) -> tokens.TokenRow:
    presented = parse(text)
    assert presented is not None, "tokens are composed from the halves that clock draws"
    expires_at_ms = None if order.expires_in_hours is None else now_ms + order.expires_in_hours * HOUR_MS
    return tokens.TokenRow(
        token=presented.token,
        secret_sha256=presented.secret_sha256,
        role=order.role.value,
        name=order.name,
        agent=order.agent,
        created_at_ms=now_ms,
        expires_at_ms=expires_at_ms,
        uses_left=order.uses,
    )
