"""What PostgreSQL looks at for a request: its plan of each statement, and the tables in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from control_plane.store.database import Connection, Database


@dataclass
class Looked:
    """What was looked at. ``read_whole``: tables that were read from end to end; ``plans``: node types and tables."""

    statements: int = 0
    tables: set[str] = field(default_factory=set)
    read_whole: set[str] = field(default_factory=set)
    plans: list[list[str]] = field(default_factory=list)


def look_at(database: Database, request: Callable[[Connection], Any]) -> Looked:
    """Do a request, and ask for the plan of each of its statements."""
    said: list[tuple[str, Any]] = []

    def remember(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        said.append((statement, parameters))

    looked = Looked()

    def work(connection: Connection) -> None:
        event.listen(connection, "before_cursor_execute", remember)
        request(connection)
        event.remove(connection, "before_cursor_execute", remember)
        for statement, parameters in said:
            if not statement.lstrip().upper().startswith(("SELECT", "WITH")):
                continue
            explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
            nodes = list(_nodes(explained[0]["Plan"]))
            looked.statements += 1
            looked.plans.append([_named(node) for node in nodes])
            looked.tables |= {node["Relation Name"] for node in nodes if "Relation Name" in node}
            whole = [node for node in nodes if node["Node Type"] == "Seq Scan" or _walks_an_index(node)]
            looked.read_whole |= {node["Relation Name"] for node in whole}

    database.read(work)
    return looked


def _walks_an_index(node: dict[str, Any]) -> bool:
    return node["Node Type"].startswith("Index") and "Relation Name" in node and "Index Cond" not in node


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _named(node: dict[str, Any]) -> str:
    of = node.get("Index Name") or node.get("Relation Name") or node.get("CTE Name") or ""
    return f"{node['Node Type']} {of}".strip()
