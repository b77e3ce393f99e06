"""Tokens over HTTP: the text of one is shown when it is made, and never again."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter

from control_plane.api.bodies import DisplayName
from control_plane.api.context import Context
from control_plane.api.idempotency import IdempotencyKey, once
from control_plane.api.parameters import Page, PageCursor, PageLimit, key_cursor, page
from control_plane.api.verbs import ends, posts, reads
from control_plane.clock import random_id, random_secret
from control_plane.core.tokens import EXPIRES_IN_HOURS_MAX, USES_MAX, IssuedRole, Role
from control_plane.operations.author import Author
from control_plane.operations.issue_token import TokenOrder, issue, revoke
from control_plane.store import tokens
from control_plane.store.database import Connection
from control_plane.store.tokens import TokenRow
from protocol.instants import rfc3339

PATH = "/v1/tokens"
TAGS = ["tokens"]
TokenId = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{12}\Z", description="the token's public half")]


class TokenWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What token is wanted. ``uses``: how many agents may join with it, of a join token; null is any number."""

    role: IssuedRole
    name: DisplayName
    uses: Annotated[int, msgspec.Meta(ge=1, le=USES_MAX)] | None = None
    expires_in_hours: Annotated[int, msgspec.Meta(ge=1, le=EXPIRES_IN_HOURS_MAX)] | None = None


class TokenItem(msgspec.Struct, frozen=True):
    """A token, without its secret, which is not known here."""

    token: str
    role: Role
    name: str
    agent: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    uses_left: int | None


class IssuedToken(msgspec.Struct, frozen=True):
    """A new token and its text: keep it now, it is not shown again. Where the request was a repeat under the same
    Idempotency-Key it is null, because nobody has kept it: revoke this one, and make another under a new key."""

    item: TokenItem
    text: str | None


def _item(row: TokenRow) -> TokenItem:
    return TokenItem(
        token=row.token,
        role=Role(row.role),
        name=row.name,
        agent=row.agent,
        created_at=rfc3339(row.created_at_ms),
        expires_at=_when(row.expires_at_ms),
        revoked_at=_when(row.revoked_at_ms),
        last_used_at=_when(row.last_used_at_ms),
        uses_left=row.uses_left,
    )


def _when(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)


@posts(PATH, TokenWrite, tags=TAGS)
def create_token(
    data: JSONBody[TokenWrite], context: NamedDependency[Context], idempotency_key: IdempotencyKey = None
) -> Response[IssuedToken]:
    """Make a token."""
    order = TokenOrder(Role(data.role.value), data.name, uses=data.uses, expires_in_hours=data.expires_in_hours)

    def make(connection: Connection, author: Author) -> IssuedToken:
        row, text = issue(connection, order, random_id(), random_secret(), actor=author.token, now_ms=author.now_ms)
        return IssuedToken(_item(row), text)

    return once(context, idempotency_key, PATH, data, IssuedToken, make, lambda made: IssuedToken(made.item, None))


@reads(PATH, tags=TAGS)
def list_tokens(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[TokenItem]:
    """Tokens in order of id, those of agents included."""
    after = key_cursor(cursor)

    def look(connection: Connection) -> list[TokenRow]:
        return tokens.after(connection, after, limit + 1)

    return page(context.read(look), limit, _item, lambda row: row.token)


@ends(PATH + "/{token:str}", tags=TAGS)
def revoke_token(token: TokenId, context: NamedDependency[Context]) -> TokenItem:
    """End a token for good; here at once, on other replicas within five seconds."""
    row = context.change(lambda connection, author: revoke(connection, token, author.token, author.now_ms))
    context.doorkeeper.forget(token)
    return _item(row)


TOKEN_HANDLERS = [create_token, list_tokens, revoke_token]
