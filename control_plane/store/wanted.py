"""Many keys in one statement: a list of rows as one JSON parameter, joined like a table.

Neither database can use an index for ``(a, b, c) IN (...)`` as well as for a join, and one parameter keeps the
statement the same (and so prepared) however many keys are looked for. Statements are built once a process: building
one costs more than running it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, BigInteger, Column, String, bindparam, column, text

CHUNK = 2_000
"""Keys in one statement."""

NAME = "wanted"


def wanted(dialect: str, columns: Sequence[Column[Any]]) -> CTE:
    """A table expression with the given columns, whose rows are the parameter ``wanted`` (see :func:`as_rows`)."""
    parts = [_part(dialect, at, col) for at, col in enumerate(columns)]
    source = "json_each(:wanted)"
    if dialect == "postgresql":
        source = "jsonb_array_elements(CAST(:wanted AS jsonb)) AS item(value)"
    query = text(f"SELECT {', '.join(parts)} FROM {source}").bindparams(bindparam(NAME, type_=String))  # noqa: S608
    kinds: list[Any] = [column(col.name, BigInteger() if _is_number(col) else String()) for col in columns]
    return query.columns(*kinds).cte(NAME)


def as_rows(rows: Sequence[Sequence[str | int | None]]) -> dict[str, str]:
    """The parameter for these rows."""
    return {NAME: json.dumps([list(row) for row in rows])}


def _part(dialect: str, at: int, col: Column[Any]) -> str:
    if dialect == "postgresql":
        return f"CAST(value->>{at} AS {'bigint' if _is_number(col) else 'varchar'}) AS {col.name}"
    return f"json_extract(value, '$[{at}]') AS {col.name}"


def _is_number(col: Column[Any]) -> bool:
    return col.type.python_type is int
