"""Whose the model calls are that are made here and now: carried by context variables, so by tasks as by threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from allotment.requests import Call


@dataclass(frozen=True, slots=True)
class Attribution:
    """What is known of whose a call is; ``None``: not said."""

    customer: str | None = None
    feature: str | None = None
    user: str | None = None
    workspace: str | None = None
    role: str | None = None
    api_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def over(self, other: Attribution) -> Attribution:
        """All that is said here, and of the rest what is said there; tags one by one."""
        names = ("customer", "feature", "user", "workspace", "role", "api_key")
        left = {name: getattr(other, name) for name in names if getattr(self, name) is None}
        return replace(self, tags={**other.tags, **self.tags}, **left)

    def call(self) -> Call | None:
        """The call, as agents know it; ``None``: no customer or no feature is said."""
        if self.customer is None or self.feature is None:
            return None
        return Call(
            self.customer, self.feature, self.user, self.workspace, self.role, self.api_key, self.tags
        )  # its model stands in the request


_here: ContextVar[Attribution | None] = ContextVar("allotment_attribution", default=None)


def attribution() -> Attribution:
    """What is said here, by whatever blocks of :func:`attributed` this runs in."""
    return _here.get() or Attribution()


@contextlib.contextmanager
def attributed(
    *,
    customer: str | None = None,
    feature: str | None = None,
    user: str | None = None,
    workspace: str | None = None,
    role: str | None = None,
    api_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Model calls that begin in this block are these people's, whatever ``meter()`` was told.

    Blocks nest: what an inner one does not say, the outer one does; tags add up. A task that is started in the block
    takes it along, a thread does not (unless it is started by ``asyncio.to_thread`` or in a copied context).
    """
    said = Attribution(customer, feature, user, workspace, role, api_key, dict(tags or {}))
    before = _here.set(said.over(attribution()))
    try:
        yield
    finally:
        _here.reset(before)
