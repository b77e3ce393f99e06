"""Many keys in one statement: a list of rows as one JSON parameter, joined like a table.

Neither database can use an index for ``(a, b, c) IN (...)`` as well as for a join, and one parameter keeps the
statement the same (and so prepared) however many keys are looked for. Statements are built once a process: building
one costs more than running it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    Label,
    String,
    bindparam,
    case,
    column,
    literal_column,
    select,
    text,
)

CHUNK = 2_000
"""Keys in one statement."""

NAME = "wanted"


def wanted(dialect: str, columns: Sequence[Column[Any]], name: str = NAME) -> CTE:
    """A table expression with the given columns, whose rows are the parameter ``name`` (see :func:`as_rows`)."""
    parts = [_part(dialect, at, col) for at, col in enumerate(columns)]
    source = f"json_each(:{name})"
    if dialect == "postgresql":
        source = f"jsonb_array_elements(CAST(:{name} AS jsonb)) AS item(value)"
    query = text(f"SELECT {', '.join(parts)} FROM {source}").bindparams(bindparam(name, type_=String))  # noqa: S608
    kinds: list[Any] = [column(col.name, BigInteger() if _is_number(col) else String()) for col in columns]
    return query.columns(*kinds).cte(name)


def as_rows(rows: Sequence[Sequence[str | int | None]], name: str = NAME) -> dict[str, str]:
    """The parameter for these rows."""
    return {name: json.dumps([list(row) for row in rows])}


APART = "apart"


def whose(dialect: str, agent: Column[Any]) -> Label[Any]:
    """The agent where it is one of those of the parameter ``apart`` (see :func:`apart_as_rows`), and ``""`` of all
    others: to sum what each of a few has beside what everybody else has together."""
    table = wanted(dialect, (agent,), APART)
    return case((agent.in_(select(table.c[agent.name])), agent), else_=literal_column("''")).label("whose")


def apart_as_rows(agents: Iterable[str]) -> dict[str, str]:
    """The parameter for these agents."""
    return as_rows([(agent,) for agent in sorted(agents)], APART)


def _part(dialect: str, at: int, col: Column[Any]) -> str:
    if dialect == "postgresql":
        return f"CAST(value->>{at} AS {'bigint' if _is_number(col) else 'varchar'}) AS {col.name}"
    return f"json_extract(value, '$[{at}]') AS {col.name}"


def _is_number(col: Column[Any]) -> bool:
    return col.type.python_type is int
