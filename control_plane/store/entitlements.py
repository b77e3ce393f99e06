"""Entitlements as they were resolved: each document once, and which one each version of a customer's was."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store.subscription_tables import documents, entitlement_versions


class Version(NamedTuple):
    """One version of a customer's entitlement; ``body`` is the text of a ``core.entitlements.Document``."""

    version: int
    from_ms: int
    cause: str
    body: str


def key_of(body: str) -> str:
    """By what a document is stored."""
    return hashlib.sha256(body.encode()).hexdigest()


def keep_document(connection: Connection, key: str, body: str) -> None:
    """Store a document, unless it is there."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(make(documents).values(document=key, body=body).on_conflict_do_nothing())


def document(connection: Connection, key: str) -> str:
    """The text of a document that is stored."""
    text: str = connection.execute(select(documents.c.body).where(documents.c.document == key)).scalar_one()
    return text


def add_version(connection: Connection, customer: str, version: int, document: str, from_ms: int, cause: str) -> None:
    """From now on this document is the customer's."""
    row = {"customer": customer, "version": version, "document": document, "from_ms": from_ms, "cause": cause}
    connection.execute(insert(entitlement_versions).values(**row))


def version_at(connection: Connection, customer: str, at_ms: int) -> Version | None:
    """The version that counted at an instant; ``None`` before the first."""
    query = _VERSIONS.where(entitlement_versions.c.customer == customer, entitlement_versions.c.from_ms <= at_ms)
    row = connection.execute(query.order_by(entitlement_versions.c.version.desc()).limit(1)).one_or_none()
    return Version(*row) if row else None


def newest(connection: Connection, customer: str) -> Version | None:
    """The version that counts now; ``None``: it was never resolved."""
    query = _VERSIONS.where(entitlement_versions.c.customer == customer)
    row = connection.execute(query.order_by(entitlement_versions.c.version.desc()).limit(1)).one_or_none()
    return Version(*row) if row else None


def find_version(connection: Connection, customer: str, version: int) -> Version | None:
    """One version; ``None``: the customer never had it."""
    query = _VERSIONS.where(entitlement_versions.c.customer == customer, entitlement_versions.c.version == version)
    row = connection.execute(query).one_or_none()
    return Version(*row) if row else None


_VERSIONS = select(
    entitlement_versions.c.version, entitlement_versions.c.from_ms, entitlement_versions.c.cause, documents.c.body
).join(documents, documents.c.document == entitlement_versions.c.document)
